"""``gapforge doctor``: whether this machine can build, before anything is built. Needs no network."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from gapforge.base.errors import NotReadyError
from gapforge.base.project import Project
from gapforge.base.text import pad, tr, width, wrap
from gapforge.cli import environment_defaults
from gapforge.doctor import diagnose
from gapforge.doctor.checks import FAIL, OK, WARN, Line

HELP = {
    "ko": "빌드하기 전에 이 컴퓨터를 진단합니다: 엔진, 디스크, 메모리, GPU, 아티팩트 (네트워크 불필요)",
    "en": "Examine this machine before anything is built: engine, disk, memory, GPU, artifacts (needs no network)",
}
WIDEST = 46  # terminal columns of a cell; longer text goes on below
_MARKS = {OK: {"ko": "정상", "en": "ok"}, WARN: {"ko": "주의", "en": "warn"}, FAIL: {"ko": "실패", "en": "FAIL"}}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", metavar="PRESET",
                        help=tr("빌드할 프리셋. 없으면 컴퓨터만 봅니다", "preset to be built; without it only the machine is looked at"))  # fmt: skip
    parser.add_argument(
        "--engine", metavar="NAME", help=tr("엔진 (기본: 찾아서 고름)", "engine (default: chosen by looking)")
    )
    parser.add_argument("--json", action="store_true", help=tr("결과를 JSON으로 출력", "print the result as JSON"))


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
            "counts": {status: sum(line.status == status for line in lines) for status in (OK, WARN, FAIL)},
            "lines": [line.to_json() for line in lines],
        }
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        print(render(lines))
    if not failed:
        return 0
    if not args.json:
        error = NotReadyError(
            tr(
                f"준비되지 않은 항목이 {len(failed)}개입니다",
                f"{len(failed)} thing{'s are' if len(failed) > 1 else ' is'} not ready",
            ),
            hint=tr("표의 → 줄을 따른 뒤 다시: ", "follow the → lines above, then again: ")
            + f"./gapforge doctor {args.preset or ''}".rstrip(),
        )
        print(error.render(), file=sys.stderr)
    return NotReadyError.exit_code


def render(lines: Sequence[Line]) -> str:
    """The lines as a table; what to do stands below its line."""
    head = ("", tr("항목", "what"), tr("현재", "found"), tr("필요", "needed"))
    rows = [head] + [(tr(**_MARKS[line.status]), line.title, line.found, line.needed) for line in lines]
    columns = [min(WIDEST, max(width(row[i]) for row in rows)) for i in range(4)]
    text = []
    for index, row in enumerate(rows):
        cells = [wrap(cell, columns[i]) for i, cell in enumerate(row)]
        for level in range(max(map(len, cells))):
            parts = [pad(cell[level] if level < len(cell) else "", columns[i]) for i, cell in enumerate(cells)]
            text.append("  ".join(parts).rstrip())
        if index and (action := lines[index - 1].action):
            text.append(" " * (columns[0] + 2) + f"→ {action}")
    counts = {status: sum(line.status == status for line in lines) for status in (OK, WARN, FAIL)}
    text.append("")
    text.append(tr(f"정상 {counts[OK]}, 주의 {counts[WARN]}, 실패 {counts[FAIL]}",
                   f"{counts[OK]} ok, {counts[WARN]} to note, {counts[FAIL]} failed"))  # fmt: skip
    return "\n".join(text)
