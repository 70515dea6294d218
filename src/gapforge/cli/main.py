"""Run a verb and report its errors with a message and an exit code."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from gapforge import __version__
from gapforge.base.errors import (
    ERROR_CLASSES,
    GapforgeError,
    InternalError,
    Interrupted,
    UsageError,
)
from gapforge.base.files import storage_error
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.cli.argument_parser import Parser, RawFormatter
from gapforge.cli.output import print_error, print_json
from gapforge.model.schema import nearest

# In the order of use. Each is a module in gapforge.cli.verbs with HELP, add_arguments(parser) and
# run(args, project), which returns the exit code. Only the verb of the command line is imported.
VERBS = (
    "list",
    "check",
    "sync",
    "pack",
    "rehearse",
    "unpack",
    "trust",
    "verify",
    "inventory",
    "plan",
    "build",
    "smoke",
    "engine",
    "generate",
    "doctor",
    "outdated",
    "gc",
)


def main(argv: Sequence[str]) -> int:
    """Run one verb and return the exit code. Errors are printed here."""
    as_json = "--json" in argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for file names that are not UTF-8
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, _terminate)
    try:
        return _run(argv)
    except BrokenPipeError:
        # The reader (head, less) ended. Python would report that again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        error: GapforgeError = Interrupted(
            _("interrupted"), hint=_("run the same command again to continue")
        )
    except GapforgeError as raised:
        error = raised
    except OSError as raised:
        error = storage_error(raised)
    except RecursionError:
        error = InternalError(_("input is nested too deeply"))
    except Exception as raised:  # noqa: BLE001 - a bug: no traceback for a user
        file = _save_traceback()
        error = InternalError(
            _("a bug in gapforge: {kind}: {error}", kind=type(raised).__name__, error=raised),
            hint=_("report it with this file: {file}", file=file),
        )
    if as_json:
        print_json(error.to_json())
    print_error(error)
    return error.exit_code


def _run(argv: Sequence[str]) -> int:
    verb = next((word for word in argv if not word.startswith("-")), None)
    parser = Parser(
        prog="gapforge",
        description=_("Carry a GPU software stack across an air gap and build it there."),
        epilog=_exit_codes(),
        formatter_class=RawFormatter,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"gapforge {__version__}",
        help=_("show the version and exit"),
    )
    if verb is not None and verb not in VERBS:
        raise UsageError(
            _('there is no verb "{verb}"', verb=verb) + nearest(verb, VERBS),
            hint="./gapforge --help",
        )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    modules = {}
    for name in [verb] if verb else VERBS:  # without a verb, help needs all
        module = modules[name] = importlib.import_module(f"gapforge.cli.verbs.{name}")
        summary = _(module.HELP)
        module.add_arguments(verbs.add_parser(name, help=summary, description=summary))
    args, unknown = parser.parse_known_args(list(argv))
    if unknown:
        prog = verbs.choices[args.verb].prog if args.verb else parser.prog
        raise UsageError(
            _("unrecognized arguments: {arguments}", arguments=" ".join(unknown)),
            hint=f"./{prog} --help",
        )
    if args.verb is None:
        parser.print_help()
        return 0
    result: int = modules[args.verb].run(args, Project.find())
    return result


def _exit_codes() -> str:
    codes = sorted((error.exit_code, error.cause) for error in ERROR_CLASSES)
    listed = "  ".join(f"{code} {cause}" for code, cause in codes)
    return _("exit codes: 0 success  {codes}", codes=listed)


def _terminate(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM and SIGHUP as Ctrl-C, so that temporary files and secrets are removed."""
    raise KeyboardInterrupt


def _save_traceback() -> str:
    """Write the traceback to a file and return its path, or the traceback if that fails."""
    text = traceback.format_exc()
    for folder in (Project.find().state, Path("/tmp")):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / "last-error.txt"
            file.write_text(text, encoding="utf-8")
            return str(file)
        except OSError:
            continue
    return text
