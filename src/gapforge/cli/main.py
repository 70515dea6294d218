"""Run a verb and report its errors with a message and an exit code."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from gapforge.base import output_mode
from gapforge.base.errors import GapforgeError, InternalError, Interrupted, StorageError, UsageError
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.storage_errors import full_disk, storage_error
from gapforge.base.sudo_caller import give_to_caller
from gapforge.base.write_files import write_text
from gapforge.cli import environment_defaults, help_layout, load_verbs
from gapforge.cli.argument_parser import OUTPUT_FLAGS, require_folder
from gapforge.cli.load_verbs import VERB_GROUPS, VERBS
from gapforge.cli.output import print_error, print_json
from gapforge.engine import private_daemon_state
from gapforge.model.schema import nearest


def main(argv: Sequence[str]) -> int:
    """Run one verb and return the exit code. Errors are printed here."""
    as_json = "--json" in argv
    output_mode.set_mode(plain="--plain" in argv)  # for errors of the command line
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
        error = storage_error(raised, _place_of(raised))
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
    words = _as_help_flag(argv)
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is not None and verb not in VERBS:
        raise UsageError(
            _('there is no verb "{verb}"', verb=verb) + nearest(verb, VERBS),
            hint="./gapforge --help",
        )
    modules = load_verbs.load([verb] if verb else VERBS)  # without a verb, help needs all
    parser, parsers = load_verbs.parsers_of(modules)
    if verb is None:
        parser.overview = help_layout.overview(
            VERB_GROUPS, {name: _(module.HELP) for name, module in modules.items()}
        )
    args, unknown = parser.parse_known_args(words)
    if unknown:
        at = parsers[args.verb] if args.verb else parser
        flag = next((word for word in unknown if word.startswith("-")), "").partition("=")[0]
        raise UsageError(
            _("unrecognized arguments: {arguments}", arguments=" ".join(unknown))
            + (nearest(flag, at.flags(), prefix="--") if flag else ""),
            hint=f"./{at.prog} --help",
        )
    if args.verb is None:
        parser.print_help()
        return 0
    environment_defaults.switch_default(args, *OUTPUT_FLAGS)
    output_mode.set_mode(quiet=args.quiet, verbose=args.verbose, plain=args.plain)
    for name in ("GAPFORGE_ROOT", "GAPFORGE_ARTIFACTS"):
        if folder := os.environ.get(name):
            hint = _("export {key}=FOLDER, or unset {key}", key=name)
            require_folder(name, Path(folder), hint)
    project = Project.find()
    try:
        result: int = modules[args.verb].run(args, project)
    finally:
        give_to_caller(
            *(project.state, project.artifacts, project.dist, project.presets),
            keep=private_daemon_state.folders_in(project),
        )
    return result


def _as_help_flag(argv: Sequence[str]) -> list[str]:
    """Return ``help`` and ``help VERB`` as the command lines that show the same help."""
    if not argv or argv[0] != "help":
        return list(argv)
    return [*argv[1:2], "--help"]


def _terminate(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM and SIGHUP as Ctrl-C, so that temporary files and secrets are removed."""
    raise KeyboardInterrupt


def _place_of(error: OSError) -> Path | None:
    """Return where an error without a file name occurred: on a full disk that gapforge writes to.

    Errors of write() and close() name no file.
    """
    if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    project = Project.find()
    temporary = Path(tempfile.gettempdir())
    return full_disk((project.artifacts, project.state, project.dist, project.root, temporary))


def _save_traceback() -> str:
    """Write the traceback to a file and return its path, or the traceback if that fails."""
    text = traceback.format_exc()
    for folder in (Project.find().state, Path("/tmp")):
        try:
            file = folder / "last-error.txt"
            write_text(file, text)
            return str(file)
        except (OSError, StorageError):
            continue
    return text
