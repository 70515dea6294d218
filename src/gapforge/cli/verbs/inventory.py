"""``gapforge inventory``: write a small file that lists the verified objects of this machine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from gapforge.base.errors import Fault, StorageError, UsageError, VerifyError
from gapforge.base.files import open_regular
from gapforge.base.i18n import N_, _
from gapforge.base.path_checks import real_path
from gapforge.base.process import quoted
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.units import human_bytes
from gapforge.base.write_files import atomic_file
from gapforge.cli.argument_parser import add_jobs, add_json, check_jobs, refuse_presets_with_all
from gapforge.cli.output import print_error, print_json, show_table, warn
from gapforge.model.preset import names as preset_names
from gapforge.model.schema import nearest
from gapforge.store import take_inventory
from gapforge.store.inventory import TITLE, Inventory, read_short_digest

HELP = N_(
    "verify the objects on this machine and write a small file that lists them (needs no network)"
)
EXAMPLES = ("./gapforge inventory", "./gapforge inventory --read inventory.txt --digest TEXT")
DEFAULT = Path("inventory.txt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "presets",
        nargs="*",
        metavar="PRESET",
        help=_("only list the artifacts of these presets (default: all)"),
    )
    parser.add_argument(
        "--all", action="store_true", help=_("list the store and all artifacts (the default)")
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=_("the file to write (default: {file})", file=DEFAULT),
    )
    parser.add_argument(
        "--read",
        type=Path,
        metavar="FILE",
        help=_("check and show an inventory that was sent, instead of writing one"),
    )
    parser.add_argument(
        "--digest",
        metavar="TEXT",
        help=_("with --read: compare with the inventory digest that the site reported"),
    )
    add_jobs(parser)
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Write an inventory, or check one. Return 0, or 5 if damaged files had to be left out."""
    if args.read is not None:
        return _read(args)
    if args.digest is not None:
        raise UsageError(
            _("--digest needs --read"), hint="./gapforge inventory --read FILE --digest TEXT"
        )
    refuse_presets_with_all(args)
    check_jobs(args)
    names = _names(args, project)
    output = args.output or DEFAULT
    _refuse_bad_output(output, project)
    with Progress(_("inventory"), quiet=args.json) as progress:
        stock = take_inventory.take_inventory(project, names, jobs=args.jobs, progress=progress)
    with atomic_file(output) as file:
        for chunk in stock.inventory.chunks():
            file.write(chunk.encode())
    error = stock.error() if stock.faults else None
    if args.json:
        document = {**stock.to_json(), "file": str(output)}
        if error is not None:
            document["error"] = {k: v for k, v in error.to_json().items() if k != "faults"}
        print_json(document)
    else:
        _show(stock.inventory, str(output))
        if not len(stock.inventory):
            warn(
                _(
                    "{folder} holds no artifacts, so the inventory is empty; a bundle that is "
                    "packed for it contains everything",
                    folder=project.artifacts,
                )
            )
        size = human_bytes(output.stat().st_size)
        print(_("send this file: {file} ({size})", file=output, size=size))
    if error is None:
        return 0
    print_error(error)
    return error.exit_code


def _names(args: argparse.Namespace, project: Project) -> list[str]:
    names = list(dict.fromkeys(args.presets))
    for name in names:
        reserved = "/" in name or name in ("", ".", "..", project.store.name)
        if reserved or not (project.artifacts / name).is_dir():
            raise UsageError(
                _('there are no artifacts of "{name}"', name=name)
                + nearest(name, preset_names(project.presets)),
                hint=_("./gapforge list; without a name, all artifacts are listed"),
            )
    return names


def _read(args: argparse.Namespace) -> int:
    if args.presets or args.all or args.output is not None:
        raise UsageError(
            _("--read excludes presets, --all and --output"),
            hint=f"./gapforge inventory --read {quoted([str(args.read)])}",
        )
    reported = None if args.digest is None else read_short_digest(args.digest)
    inventory = Inventory.read(args.read)
    if reported not in (None, inventory.digest):
        problem = _("has the inventory digest {digest}", digest=inventory.digest)
        raise VerifyError(
            _("{file} is not the inventory whose digest the site reported", file=args.read),
            faults=[Fault(str(args.read), problem, f"{reported}")],
            hint=_("ask the site for its newest inventory"),
        )
    if args.json:
        print_json(
            {
                "ok": True,
                "file": str(args.read),
                "gapforge": inventory.tool,
                "objects": len(inventory),
                "bytes": inventory.total,
                "presets": [{"preset": n, "lock": h} for n, h in inventory.presets],
                "sha256": inventory.sha256,
                "digest": inventory.digest,
            }
        )
    else:
        _show(inventory, str(args.read))
    return 0


def _refuse_bad_output(output: Path, project: Project) -> None:
    """Raise UsageError unless the output is new or an inventory, and outside of the artifacts."""
    if real_path(project.artifacts) in real_path(output).parents:
        raise UsageError(
            _("{file} is in the artifacts, where verify would refuse it", file=output),
            hint=_("choose another folder"),
        )
    if output.is_symlink() or (output.exists() and not _is_inventory(output)):
        raise UsageError(
            _("{file} exists and is not an inventory", file=output), hint=_("choose another name")
        )
    # Before the verification, which can take long.
    if output.parent.exists() and not os.access(output.parent, os.W_OK):
        raise StorageError(
            _("{file}: the folder is not writable", file=output),
            hint=_("choose another folder with --output"),
        )


def _is_inventory(file: Path) -> bool:
    if not file.is_file():
        return False
    with open_regular(file, follow=True) as source:
        return source.read(len(TITLE) + 1) == f"{TITLE} ".encode()


def _show(inventory: Inventory, file: str) -> None:
    size, count = human_bytes(inventory.total), len(inventory)
    print(_("{file}: {count} files, {size}", file=file, count=count, size=size))
    rows = [(name, sha256[:12]) for name, sha256 in inventory.presets]
    show_table((_("preset"), _("lock")), rows)
    print(_("inventory digest: {digest}", digest=inventory.digest))
