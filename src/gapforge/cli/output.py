"""Print results as JSON, tables and lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from gapforge.base import output_mode
from gapforge.base.errors import ERROR_FILE, GapforgeError
from gapforge.base.i18n import _
from gapforge.base.text_layout import NARROW, label_rows, labelled, pad, printable, width, wrap
from gapforge.base.units import human_bytes


def print_json(document: Any, *, sort_keys: bool = False) -> None:
    """Print a document in JSON types on standard output."""
    print(json.dumps(document, ensure_ascii=False, indent=2, sort_keys=sort_keys))


def say(line: str) -> None:
    """Print a line on standard error at once."""
    print(line, file=sys.stderr, flush=True)


def warn(problem: str, hint: str = "") -> None:
    """Print a warning on standard error, and below it the next step, if there is one."""
    _say_problem(_("warning: "), "yellow", problem, hint)


def warn_unexpected(file: Path) -> None:
    """Print a warning about an unexpected file in the artifacts."""
    warn(
        _(
            "{file}: unexpected file, which verify refuses; move it to another folder",
            file=printable(str(file)),
        )
    )


def print_error(error: GapforgeError) -> None:
    """Print ``error`` on standard error, and write the first one to the file that rehearse sets."""
    _say_problem(_("error: "), "red", error.problem, error.hint)
    if file := os.environ.get(ERROR_FILE):
        with suppress(OSError), open(file, "x", encoding="utf-8") as output:
            json.dump(error.to_json(), output)


def _say_problem(mark: str, colour: str, problem: str, hint: str) -> None:
    """Print a problem after its coloured mark, and the next step, on standard error.

    The lines fit the window, except for the next step: it may be a command, which is copied whole.
    """
    mark = mark.rstrip()
    first, *others = _fitting(f"{mark} {problem}", output_mode.window(sys.stderr))
    lines = [output_mode.coloured(mark, colour, sys.stderr) + first.removeprefix(mark), *others]
    say("\n".join([*lines, _("next: ") + hint] if hint else lines))


@dataclass(frozen=True)
class Row:
    """A row of a table: its cells, and the notes in the lines below it.

    ``verdict`` is "ok", "warn" or "fail", which colours the first cell, or "".
    """

    cells: Sequence[str]
    notes: Sequence[str] = ()
    verdict: str = ""


COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def table(head: Sequence[str], rows: Sequence[Row], *, indent: int = 0) -> list[str]:
    """Return rows under their head, in columns that fit the window of standard output.

    Cells are wrapped between words, and the head is in capitals. In a narrow window, if the longest
    words do not fit, or if cells become tall, each row is a block of lines instead, as with
    ``--plain``. ``indent`` is the number of columns before each line.
    """
    window = output_mode.window()
    narrow = output_mode.plain() or (window is not None and window < NARROW)
    if window is not None:
        window -= indent
    columns = None if narrow else _columns([head, *(row.cells for row in rows)], window)
    lines = _blocks(head, rows, window)
    if columns is not None:
        aligned = _table(head, rows, columns, window)
        tall = window is not None and 2 * len(aligned) > 3 * len(lines)
        lines = lines if tall else aligned
    return [" " * indent + line for line in lines]


def _table(
    head: Sequence[str], rows: Sequence[Row], columns: Sequence[int], window: int | None
) -> list[str]:
    lines = _aligned([name.upper() for name in head], columns, "") if any(head) else []
    under = " " * (columns[0] + 2 if columns[0] < 8 else 4)
    for row in rows:
        *cells, last = row.cells
        notes = row.notes
        if _longest_word(last) > columns[-1]:
            notes = [f"{head[-1]}: {last}" if head[-1] else last, *notes]
            last = ""
        lines += _aligned([*cells, last], columns, row.verdict)
        for text in notes:
            lines += _indented(text, under, window)
    return lines


def _columns(rows: Sequence[Sequence[str]], window: int | None) -> list[int] | None:
    """Return the width of each column, or None if no table fits.

    The last column needs no more than a third of the window: a cell with a longer word gets lines
    of its own.
    Columns are narrowed where that costs the fewest lines.
    """
    widths = [max(map(width, cells)) for cells in zip(*rows, strict=True)]
    if window is None:
        return widths
    least = [max(map(_longest_word, cells)) for cells in zip(*rows, strict=True)]
    least[-1] = min(least[-1], window // 3)
    room = window - 2 * (len(widths) - 1)
    if sum(least) > room:
        return None
    heights: dict[tuple[int, int], list[int]] = {}

    def height(narrowed: int) -> int:
        """Return the number of lines of all rows with one column narrower by one."""
        lines = []
        for i, size in enumerate(widths):
            key = i, size - (i == narrowed)
            if key not in heights:
                heights[key] = [
                    len(wrap(row[i], key[1])) + (_longest_word(row[i]) > key[1]) for row in rows
                ]
            lines.append(heights[key])
        return sum(map(max, zip(*lines, strict=True)))

    while sum(widths) > room:
        able = [i for i, size in enumerate(widths) if size > least[i]]
        widths[min(able, key=lambda i: (height(i), -widths[i]))] -= 1
    return widths


def _longest_word(text: str) -> int:
    return max(map(width, text.split()), default=0)


def _aligned(row: Sequence[str], columns: Sequence[int], verdict: str) -> list[str]:
    cells = [
        wrap(cell, size) if width(cell) > size else [cell]
        for cell, size in zip(row, columns, strict=True)
    ]
    lines = []
    for parts in zip_longest(*cells, fillvalue=""):
        padded = [pad(part, size) for part, size in zip(parts, columns, strict=True)]
        if verdict:
            padded[0] = coloured_verdict(padded[0], verdict)
        lines.append("  ".join(padded).rstrip())
    return lines


def _blocks(head: Sequence[str], rows: Sequence[Row], window: int | None) -> list[str]:
    """Return each row as its first cells and a line "head: cell" for each other cell."""
    lines: list[str] = []
    # A first column without a head is a mark; without any head, the row is one sentence.
    titles = len(head) if not any(head) else 2 if not head[0] else 1
    for row in rows:
        first, *others = _fitting(" ".join(filter(None, row.cells[:titles])), window)
        if row.verdict:
            first = coloured_verdict(first, row.verdict)
        lines += [first, *others]
        for name, cell in zip(head[titles:], row.cells[titles:], strict=True):
            if cell and cell != "-":
                lines += labelled(name, cell, window)
        for text in row.notes:
            lines += _indented(text, "  ", window)
    return lines


def _indented(text: str, indent: str, window: int | None) -> list[str]:
    lines = wrap(text, window - len(indent)) if window else [text]
    return [indent + line for line in lines]


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output, unless with ``--quiet`` or without rows."""
    if rows and not output_mode.quiet():
        print("\n".join(table(head, [Row(cells) for cells in rows])))


def show_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print labels and texts on standard output."""
    print("\n".join(label_rows(rows, output_mode.window())))


def show(text: str) -> None:
    """Print lines on standard output, wrapped between words to the window with their indent."""
    print("\n".join(_fitting(text, output_mode.window())))


def _fitting(text: str, window: int | None) -> list[str]:
    """Return the lines of ``text``, wrapped between words; each keeps its indent."""
    lines = []
    for line in text.split("\n"):
        if window is None or width(line) <= window:
            lines.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        first, *others = wrap(line, window - len(indent) - 2)
        lines += [indent + first, *(f"{indent}  {other}" for other in others)]
    return lines


def coloured_verdict(text: str, verdict: str) -> str:
    """Return ``text`` in the colour of "ok", "warn" or "fail", for standard output."""
    return output_mode.coloured(text, COLOURS[verdict], sys.stdout)


def copies_note(files: int, size: int) -> str:
    """Return the line that reports ``files`` copies of ``size`` bytes instead of hard links."""
    return _(
        "note: this file system has no hard links (as exFAT and FAT32), so {files} files "
        "({size}) are copies and use the disk space a second time",
        files=files,
        size=human_bytes(size),
    )
