"""`gapforge rehearse`: do here what the site will do, and say whether what is carried is all that it takes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gapforge.base.errors import UsageError
from gapforge.base.i18n import N_, _
from gapforge.base.project import Project
from gapforge.cli import environment_defaults
from gapforge.model import preset as presets
from gapforge.rehearsal.record import LOG, PAGE, RECORD
from gapforge.rehearsal.rehearse import Options, rehearse

HELP = N_(
    "do what the site will do, in an empty place and an engine with no network; says if "
    "you may travel (needs root)"
)
_TYPES = {"runtime": ("runtime",), "dev": ("dev",), "all": ("runtime", "dev")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", metavar="PRESET", help=_("preset to rehearse"))
    parser.add_argument(
        "--bundle",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="DIR",
        help=_("folders with the volumes; without them, artifacts/PRESET as cp -r would carry it"),
    )
    parser.add_argument(
        "--for",
        dest="inventory",
        type=Path,
        metavar="INVENTORY",
        help=_("the inventory of the site, if the bundle leaves out what it has"),
    )
    parser.add_argument(
        "--type", metavar="runtime|dev|all", help=_("images to build (default runtime)")
    )
    parser.add_argument("--app-source", metavar="DIR", help=_("the application's source folder"))
    parser.add_argument(
        "--keep",
        action="store_true",
        help=_("leave the place standing afterwards (its engine is stopped)"),
    )
    parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when all went as it must at the site; else the code of the step that failed."""
    environment_defaults.text_default(args, "--type", "--app-source")
    kind = args.type or "runtime"
    if kind not in _TYPES:
        variable, allowed = environment_defaults.variable("--type"), ", ".join(_TYPES)
        raise UsageError(
            _(
                '--type (or {variable}) is "{kind}"; expected {allowed}',
                variable=variable,
                kind=kind,
                allowed=allowed,
            ),
            hint="./gapforge rehearse --help",
        )
    if args.inventory is not None and not args.bundle:
        raise UsageError(
            _("--for goes with --bundle: it is about a bundle that leaves things out"),
            hint=f"./gapforge rehearse {args.preset} --bundle DIR --for {args.inventory}",
        )
    preset = presets.find(project.presets, args.preset)
    options = Options(
        command=_command(args, kind),
        types=_TYPES[kind],
        folders=tuple(folder.absolute() for folder in args.bundle),
        inventory=args.inventory.absolute() if args.inventory is not None else None,
        app_source=Path(args.app_source).absolute() if args.app_source else None,
        keep=args.keep,
        quiet=args.json,
    )
    show = (lambda line: None) if args.json else _say
    record = rehearse(project, preset, options, say=_say, show=show)
    dist = project.dist_of(preset.name)
    if args.json:
        print(json.dumps(record.to_json(), ensure_ascii=False, indent=2))
    if not args.json or not record.ready:
        print(record.page(), end="", file=sys.stdout if record.ready else sys.stderr)
        _say(
            _(
                "records: {dist}/ ({record}, {page}, {log})",
                dist=dist,
                record=RECORD,
                page=PAGE,
                log=LOG,
            )
        )
    return record.exit_code


def _command(args: argparse.Namespace, kind: str) -> tuple[str, ...]:
    """The command that does the same again, from wherever it is run."""
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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
