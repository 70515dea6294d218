"""Finds the verb, runs it, and turns what it raises into one clear message and an exit code."""

from __future__ import annotations

import importlib
import io
import json
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
from gapforge.cli.argument_parser import Parser, Unfilled
from gapforge.cli.print_error import print_error
from gapforge.model.schema import nearest

# In the order in which a project is worked through. Each is a module of this package with HELP,
# add_arguments(parser) and run(args, project) -> exit code. Only the verb that is asked for is imported.
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
    """Run one verb; return the process's exit code. Prints every error itself."""
    as_json = "--json" in argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # for file names that are no UTF-8; what JSON writes too
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, _terminate)
    try:
        return _run(argv)
    except BrokenPipeError:
        # The reader (head, less) left; Python would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        error: GapforgeError = Interrupted(
            _("interrupted"), hint=_("run the same command again to go on")
        )
    except GapforgeError as raised:
        error = raised
    except OSError as raised:
        error = storage_error(raised)
    except RecursionError:
        error = InternalError(_("input is nested too deeply"))
    except Exception as raised:  # noqa: BLE001 - the last line of defence against a traceback for a user
        kept = _save_traceback()
        error = InternalError(
            _("a bug in gapforge: {kind}: {raised}", kind=type(raised).__name__, raised=raised),
            hint=_("please report it with {kept}", kept=kept),
        )
    if as_json:
        print(json.dumps(error.to_json(), ensure_ascii=False, indent=2))
    print_error(error)
    return error.exit_code


def _run(argv: Sequence[str]) -> int:
    # The registry names each verb once; help needs them all, so only then are all imported.
    verb = next((word for word in argv if not word.startswith("-")), None)
    parser = Parser(
        prog="gapforge",
        description=_("Carries a GPU software stack across an air gap and builds it there."),
        epilog=_exit_codes(),
        formatter_class=Unfilled,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"gapforge {__version__}",
        help=_("show the version and exit"),
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    wanted = [verb] if verb in VERBS else list(VERBS)
    if verb is not None and verb not in VERBS:
        raise UsageError(
            _('there is no verb "{verb}"', verb=verb) + nearest(verb, VERBS),
            hint="./gapforge --help",
        )
    modules = {}
    for name in wanted:
        module = importlib.import_module(f"gapforge.cli.verbs.{name}")
        modules[name] = module
        about = _(module.HELP)
        module.add_arguments(verbs.add_parser(name, help=about, description=about))
    args, strange = parser.parse_known_args(list(argv))
    if strange:
        named = verbs.choices[args.verb] if args.verb else parser
        raise UsageError(
            _("unrecognized arguments: {strange}", strange=" ".join(strange)),
            hint=f"./{named.prog} --help",
        )
    if args.verb is None:
        parser.print_help()
        return 0
    result: int = modules[args.verb].run(args, Project.find())
    return result


def _exit_codes() -> str:
    codes = "  ".join(
        f"{c.exit_code} {c.cause}" for c in sorted(ERROR_CLASSES, key=lambda c: c.exit_code)
    )
    return _("exit codes: 0 success  ") + codes


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM and SIGHUP unwind like Ctrl-C, so that temporary files and secrets are removed."""
    raise KeyboardInterrupt


def _save_traceback() -> str:
    """Keep the traceback where the user can find it, not on his screen."""
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
