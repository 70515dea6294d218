"""``gapforge doctor``: whether this machine can build, before anything is built. Needs no network."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from gapforge.base.errors import NotReadyError
from gapforge.base.i18n import N_, _, ngettext
from gapforge.base.project import Project
from gapforge.base.text import pad, width, wrap
from gapforge.cli import environment_defaults
from gapforge.cli.print_error import print_error
from gapforge.doctor import diagnose
from gapforge.doctor.checks import FAIL, OK, WARN, Line

HELP = N_(
    "Examine this machine before anything is built: engine, disk, memory, GPU, artifacts "
    "(needs no network)"
)
WIDEST = 46  # terminal columns of a cell; longer text goes on below
_MARKS = {OK: N_("ok"), WARN: N_("warn"), FAIL: N_("FAIL")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "preset",
        nargs="?",
        metavar="PRESET",
        help=_("preset to be built; without it only the machine is looked at"),
    )
    parser.add_argument("--engine", metavar="NAME", help=_("engine (default: chosen by looking)"))
    parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when nothing fails (warnings are no failure), 20 otherwise."""
    environment_defaults.text_default(args, "--preset", "--engine")
    lines = diagnose.examine(project, args.preset or "", args.engine or "")
    failed = [line for line in lines if line.status == FAIL]
    if args.json:
        document: dict[str, object] = {
            "ok": not failed,
            "preset": args.preset or "",
            "exit_code": NotReadyError.exit_code if failed else 0,
            "counts": {
                status: sum(line.status == status for line in lines) for status in (OK, WARN, FAIL)
            },
            "lines": [line.to_json() for line in lines],
        }
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        print(render(lines))
    if not failed:
        return 0
    if not args.json:
        error = NotReadyError(
            ngettext("{count} thing is not ready", "{count} things are not ready", len(failed)),
            hint=_("follow the → lines above, then again: ")
            + f"./gapforge doctor {args.preset or ''}".rstrip(),
        )
        print_error(error)
    return NotReadyError.exit_code


def render(lines: Sequence[Line]) -> str:
    """The lines as a table; what to do stands below its line."""
    head = ("", _("what"), _("found"), _("needed"))
    rows = [head] + [
        (_(_MARKS[line.status]), line.title, line.found, line.needed) for line in lines
    ]
    columns = [min(WIDEST, max(width(row[i]) for row in rows)) for i in range(4)]
    text = []
    for index, row in enumerate(rows):
        cells = [wrap(cell, columns[i]) for i, cell in enumerate(row)]
        for level in range(max(map(len, cells))):
            parts = [
                pad(cell[level] if level < len(cell) else "", columns[i])
                for i, cell in enumerate(cells)
            ]
            text.append("  ".join(parts).rstrip())
        if index and (action := lines[index - 1].action):
            text.append(" " * (columns[0] + 2) + f"→ {action}")
    counts = {status: sum(line.status == status for line in lines) for status in (OK, WARN, FAIL)}
    text.append("")
    text.append(
        _(
            "{ok} ok, {warn} to note, {fail} failed",
            ok=counts[OK],
            warn=counts[WARN],
            fail=counts[FAIL],
        )
    )
    return "\n".join(text)
