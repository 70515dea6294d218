"""``gapforge doctor``: check whether this machine can build."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gapforge.base import output_mode
from gapforge.base.errors import NotReadyError
from gapforge.base.i18n import N_, _, ngettext
from gapforge.base.project import Project
from gapforge.cli import environment_defaults
from gapforge.cli.argument_parser import add_json
from gapforge.cli.output import Row, print_error, print_json, table
from gapforge.doctor import diagnose
from gapforge.doctor.check_result import FAIL, OK, WARN, CheckResult
from gapforge.engine import detect

HELP = N_(
    "check this machine before a build: engine, disk, memory, GPU, artifacts (needs no network)"
)
EXAMPLES = ("./gapforge doctor", "./gapforge doctor NAME")
_MARKS = {OK: N_("ok"), WARN: N_("warn"), FAIL: N_("FAIL")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "preset",
        nargs="?",
        metavar="PRESET",
        help=_("preset to build (default: check the machine only)"),
    )
    parser.add_argument("--engine", metavar="NAME", help=_("engine (default: detected)"))
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Print the checks. Return 0 if none fails, also with warnings, else 20."""
    environment_defaults.text_default(args, "--preset", "--engine")
    environment_defaults.one_of(args.engine, detect.NAMES, "--engine", "doctor")
    lines = diagnose.check_machine(project, args.preset or "", args.engine or "")
    failed = [line for line in lines if line.status == FAIL]
    if args.json:
        document: dict[str, object] = {
            "ok": not failed,
            "preset": args.preset or "",
            "exit_code": NotReadyError.exit_code if failed else 0,
            "counts": _counts(lines),
            "lines": [line.to_json() for line in lines],
        }
        print_json(document)
    else:
        print(render(lines))
    if not failed:
        return 0
    if not args.json:
        command = f"./gapforge doctor {args.preset or ''}".rstrip()
        error = NotReadyError(
            ngettext("{count} check failed", "{count} checks failed", len(failed)),
            hint=_("follow the → lines above, then run {command}", command=command),
        )
        print_error(error)
    return NotReadyError.exit_code


def render(lines: Sequence[CheckResult]) -> str:
    """Return the checks as a table, each with its action in a line below.

    With ``--quiet``, those that passed are left out.
    """
    head = ("", _("what"), _("found"), _("needed"))
    shown = [line for line in lines if not output_mode.quiet() or line.status != OK]
    rows = [
        Row(
            (_(_MARKS[line.status]), line.title, line.found, line.needed),
            notes=[f"→ {line.action}"] if line.action else [],
            verdict=line.status,
        )
        for line in shown
    ]
    text = table(head, rows) if rows else []
    ok, warnings, failed = _counts(lines).values()
    total = ngettext(
        "{ok} ok, {count} warning, {failed} failed",
        "{ok} ok, {count} warnings, {failed} failed",
        warnings,
        ok=ok,
        failed=failed,
    )
    return "\n".join([*text, *([""] if text else []), total])


def _counts(lines: Sequence[CheckResult]) -> dict[str, int]:
    return {status: sum(line.status == status for line in lines) for status in (OK, WARN, FAIL)}
