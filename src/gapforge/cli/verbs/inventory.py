"""`gapforge inventory`: a small file that says what this machine holds, to send back to where it is packed."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from gapforge.base.errors import Fault, StorageError, UsageError, VerifyError
from gapforge.base.files import atomic_file
from gapforge.base.i18n import N_, _
from gapforge.base.progress import Progress, human_bytes
from gapforge.base.project import Project
from gapforge.cli.print_error import print_error
from gapforge.model.preset import names as preset_names
from gapforge.model.schema import nearest
from gapforge.store import take_inventory
from gapforge.store.inventory import TITLE, Inventory, read_short_digest

HELP = N_(
    "read and verify what this machine holds, and write a small file that lists it "
    "(needs no network)"
)
DEFAULT = Path("inventory.txt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "presets", nargs="*", metavar="PRESET", help=_("only the artifacts of these (default: all)")
    )
    parser.add_argument(
        "--all", action="store_true", help=_("the store and all artifacts (the default)")
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=_("the file to write (default: {default})", default=DEFAULT),
    )
    parser.add_argument(
        "--read",
        type=Path,
        metavar="FILE",
        help=_("take none; see whether one that was sent is whole, and show it"),
    )
    parser.add_argument(
        "--digest",
        metavar="TEXT",
        help=_("with --read: compare with the digest that the site told you"),
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help=_("files read at a time (default: all cores)")
    )
    parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0; 5 when something is damaged: the inventory is written all the same, without it."""
    if args.read is not None:
        return _read(args)
    if args.digest is not None:
        raise UsageError(
            _("--digest means nothing without --read"),
            hint="./gapforge inventory --read FILE --digest TEXT",
        )
    if args.all and args.presets:
        raise UsageError(
            _("--all and preset names exclude each other"), hint="./gapforge inventory --all"
        )
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(
            _("--jobs {jobs} is not allowed", jobs=args.jobs), hint=_("a whole number from 1")
        )
    names = list(dict.fromkeys(args.presets))
    for name in names:
        if (
            "/" in name
            or name in ("", ".", "..", project.store.name)
            or not (project.artifacts / name).is_dir()
        ):
            raise UsageError(
                _('there are no artifacts of "{name}"', name=name)
                + nearest(name, preset_names(project.presets)),
                hint=_("./gapforge list; without a name the inventory is of everything here"),
            )
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
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _show(stock.inventory, str(output))
        print(
            _(
                "send this file: {output} ({st_size})",
                output=output,
                st_size=human_bytes(output.stat().st_size),
            )
        )
    if error is None:
        return 0
    print_error(error)
    return error.exit_code


def _read(args: argparse.Namespace) -> int:
    if args.presets or args.all or args.output is not None:
        raise UsageError(
            _("--read takes no inventory, so presets, --all and --output mean nothing with it"),
            hint=f"./gapforge inventory --read {args.read}",
        )
    told = None if args.digest is None else read_short_digest(args.digest)
    inventory = Inventory.read(args.read)
    if told not in (None, inventory.digest):
        raise VerifyError(
            _("{read} is not the inventory that the site told you of", read=args.read),
            faults=[
                Fault(
                    str(args.read), _("has the digest {digest}", digest=inventory.digest), f"{told}"
                )
            ],
            hint=_("ask which one is the newest, and have it sent again"),
        )
    if args.json:
        print(
            json.dumps(
                {
                    "ok": True,
                    "file": str(args.read),
                    "gapforge": inventory.tool,
                    "objects": len(inventory),
                    "bytes": inventory.total,
                    "presets": [{"preset": n, "lock": h} for n, h in inventory.presets],
                    "sha256": inventory.sha256,
                    "digest": inventory.digest,
                },
                ensure_ascii=False,
                indent=2,
            )
        )
    else:
        _show(inventory, str(args.read))
    return 0


def _refuse_bad_output(output: Path, project: Project) -> None:
    """An inventory replaces an older one, nothing else; inside the artifacts it would be a stranger."""
    if project.artifacts.resolve() in output.resolve().parents:
        raise UsageError(
            _("{output} lies in the artifacts, where verify would refuse it", output=output),
            hint=_("choose another place"),
        )
    if output.is_symlink() or (output.exists() and not _is_inventory(output)):
        raise UsageError(
            _("{output} exists and is no inventory; it stays as it is", output=output),
            hint=_("choose another name"),
        )
    # Before the long reading, not after it.
    if output.parent.exists() and not os.access(output.parent, os.W_OK):
        raise StorageError(
            _("{output}: nothing can be written there", output=output),
            hint=_("choose another place with --output"),
        )


def _is_inventory(file: Path) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as source:
        return source.read(len(TITLE) + 1) == f"{TITLE} ".encode()


def _show(inventory: Inventory, shown: str) -> None:
    size, count = human_bytes(inventory.total), len(inventory)
    print(_("{shown}: {count} files, {size}", shown=shown, count=count, size=size))
    for name, sha256 in inventory.presets:
        print(f"  {name}  " + _("lock") + f" {sha256[:12]}")
    print(_("digest: {digest}", digest=inventory.digest))
