"""``gapforge rehearse``: run the site's procedure on this machine, without a network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gapforge.base.errors import UsageError
from gapforge.base.i18n import N_, _
from gapforge.base.process import quoted
from gapforge.base.project import Project
from gapforge.cli import environment_defaults
from gapforge.cli.argument_parser import add_json
from gapforge.cli.output import print_json, say
from gapforge.image.read_inputs import refuse_needless_source
from gapforge.model import preset as presets
from gapforge.rehearsal.record import LOG, PAGE, RECORD
from gapforge.rehearsal.rehearse import Options, rehearse

HELP = N_(
    "run the site's procedure in an empty folder, with an engine without a network, to show "
    "that the artifacts or the bundle suffice (needs root)"
)
EXAMPLES = (
    "sudo ./gapforge rehearse NAME",
    "sudo ./gapforge rehearse NAME --bundle /media/usb --type all",
)
_TYPES = {"runtime": ("runtime",), "dev": ("dev",), "all": ("runtime", "dev")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("preset", metavar="PRESET", help=_("preset to rehearse"))
    parser.add_argument(
        "--bundle",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="DIR",
        help=_("folders with the volumes (default: artifacts/PRESET, as copied with cp -r)"),
    )
    parser.add_argument(
        "--for",
        dest="inventory",
        type=Path,
        metavar="INVENTORY",
        help=_("inventory of the site, if the bundle omits what it has"),
    )
    parser.add_argument(
        "--type", metavar="runtime|dev|all", help=_("images to build (default runtime)")
    )
    parser.add_argument("--app-source", metavar="DIR", help=_("the application's source folder"))
    parser.add_argument(
        "--keep",
        action="store_true",
        help=_("keep the folder of the simulated site; its engine is stopped"),
    )
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Print the record. Return 0 if every step passed, else the exit code of the failed step."""
    environment_defaults.text_default(args, "--type")
    kind = args.type or "runtime"
    environment_defaults.one_of(kind, tuple(_TYPES), "--type", "rehearse")
    if args.inventory is not None and not args.bundle:
        raise UsageError(
            _("--for needs --bundle"),
            hint=(
                f"./gapforge rehearse {quoted([args.preset])} --bundle DIR "
                f"--for {quoted([str(args.inventory)])}"
            ),
        )
    preset = presets.find(project.presets, args.preset)
    refuse_needless_source(preset, args.app_source or "")
    environment_defaults.source_default(args, preset)
    options = Options(
        command=_command(args, kind),
        types=_TYPES[kind],
        folders=tuple(folder.absolute() for folder in args.bundle),
        inventory=args.inventory.absolute() if args.inventory is not None else None,
        app_source=Path(args.app_source).absolute() if args.app_source else None,
        keep=args.keep,
        quiet=args.json,
    )
    show = (lambda line: None) if args.json else say
    record = rehearse(project, preset, options, say=say, show=show)
    dist = project.dist_of(preset.name)
    if args.json:
        print_json(record.to_json())
    if not args.json or not record.ready:
        print(record.page(), end="", file=sys.stdout if record.ready else sys.stderr)
        files = ", ".join((RECORD, PAGE, LOG))
        say(_("records: {folder}/ ({files})", folder=dist, files=files))
    return record.exit_code


def _command(args: argparse.Namespace, kind: str) -> tuple[str, ...]:
    """Return the command that repeats this rehearsal from any folder."""
    words = ["./gapforge", "rehearse", args.preset]
    if args.bundle:
        words += ["--bundle", *(str(folder.absolute()) for folder in args.bundle)]
    if args.inventory is not None:
        words += ["--for", str(args.inventory.absolute())]
    if kind != "runtime":
        words += ["--type", kind]
    if args.app_source:
        words += ["--app-source", str(Path(args.app_source).absolute())]
    return tuple(words)
