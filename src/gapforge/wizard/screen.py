"""Draw a question as lines of text: a screen of a given size, or plain numbered lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from gapforge.base.i18n import _
from gapforge.base.text_layout import cut, fold, label_rows, pad, width
from gapforge.wizard.menu import Menu
from gapforge.wizard.questions import Question


@dataclass(frozen=True)
class Drawn:
    """The lines of a screen, and which one is under the cursor (-1 for none)."""

    lines: tuple[str, ...]
    cursor: int


def draw(menu: Menu, columns: int, rows: int) -> Drawn:
    """Return the screen of a question: at most ``rows`` lines of at most ``columns`` columns."""
    question = menu.question
    columns, room = max(columns, 12), max(rows, 4)
    head = fold(question.heading, columns)
    foot = ["", *fold(_keys(question), columns)] if room > 12 else []
    if menu.message:
        foot = ["", *fold(menu.message, columns), *foot]
    room -= len(head) + len(foot)
    items, cursor, detail = _items(menu, columns)
    body = fact_lines(question, columns)
    least = min(len(items), 4)  # what is known before gives way to the items, down to four
    spare = room - least - len(detail) - 1
    body = _window(body, menu.scroll, min(len(body), max(spare, 0)))
    if body:
        body = ["", *body] if spare > len(body) else body
    room -= len(body)
    gap = [""] if room > len(items) + len(detail) else []
    height = max(1, room - len(detail) - len(gap))
    clipped = height < len(items)
    height -= clipped and height > 1
    start = min(max(0, cursor - height // 2), max(0, len(items) - height))
    shown = items[start : start + height]
    more = _("({first}-{last} of {count})", first=start + 1, last=start + height, count=len(items))
    lines = [*head, *body, *gap, *shown, *([f"    {more}"] if clipped else []), *detail, *foot]
    at = len(head) + len(body) + len(gap) + cursor - start if shown else -1
    return Drawn(tuple(cut(line, columns) for line in lines[:rows]), at)


def draw_text(text: str, columns: int) -> Drawn:
    """Return a screen with only a text."""
    return Drawn(tuple(fold(text, columns)), -1)


def fact_lines(question: Question, columns: int) -> list[str]:
    """Return what is known before the answer as lines: what is wrong, the rows, the command."""
    lines = []
    for notice in question.notices:
        mark, action = ("!", _("next: ") + notice.action) if notice.fails else ("-", notice.action)
        first, *more = fold(notice.problem, columns - 4)
        more += fold(action, columns - 4) if notice.action else []
        lines += [f"  {mark} {first}", *(f"    {line}" for line in more)]
    lines += [""] if lines else []
    lines += label_rows(question.rows, columns, broken=True)
    if question.command:
        lines += [_("The same without questions:"), *command_lines(question.command, columns)]
    return lines


def command_lines(words: Sequence[str], columns: int) -> list[str]:
    """Return a command that a shell reads as one, whatever the width of the window."""
    lines = [""]
    for word in map(shlex.quote, words):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width(longer) > columns - 4:
            lines[-1] += " \\"
            lines.append(word)
        else:
            lines[-1] = longer
    return [f"  {line}" for line in lines]


def plain_lines(question: Question) -> list[str]:
    """Return the items as numbered lines. ``*`` marks the default."""
    label = max((width(item.label) for item in question.items), default=0)
    state = max((width(item.state) for item in question.items), default=0)
    lines = []
    for number, item in enumerate(question.items, 1):
        mark = "*" if item.default else " "
        texts = [pad(item.label, label), *([pad(item.state, state)] if state else []), item.note]
        lines.append(f" {mark} {number:>2}) {'  '.join(texts)}".rstrip())
    return lines


def _items(menu: Menu, columns: int) -> tuple[list[str], int, list[str]]:
    """Return the lines of the items, the cursor's line, and what of its item does not fit there.

    All lines have the same columns: label, state and note, or as many of them as fit everywhere.
    """
    shown = menu.shown
    label = max((width(menu.items[n].label) for n in shown), default=0)
    state = max((width(menu.items[n].state) for n in shown), default=0)

    def line(number: int, parts: int) -> str:
        item = menu.items[number]
        mark = ">" if number == menu.cursor else " "
        texts = [pad(item.label, label)]
        texts += [pad(item.state, state)] if parts > 1 and state else []
        texts += [item.note] if parts > 2 else []
        return f"{mark} {number + 1:>2}  {'  '.join(texts)}".rstrip()

    parts = next(
        (p for p in (3, 2) if all(width(line(n, p)) <= columns for n in range(len(menu.items)))), 1
    )
    detail = []
    if parts < 3 and menu.cursor in shown:
        item = menu.items[menu.cursor]
        texts = [item.state if parts < 2 else "", item.note]
        lines = [part for text in texts if text for part in fold(text, columns - 4)]
        detail = ["", *(f"    {part}" for part in lines)] if lines else []
    cursor = shown.index(menu.cursor) if menu.cursor in shown else 0
    return [line(n, parts) for n in shown], cursor, detail


def _window(lines: list[str], scroll: int, height: int) -> list[str]:
    """Return ``height`` lines; the last one tells that there are more."""
    if len(lines) <= height:
        return lines
    if height < 2:
        return []
    start = min(scroll, len(lines) - height + 1)
    rest = len(lines) - start - (height - 1)
    last = (
        _("  (PageDown: {count} more lines)", count=rest) if rest else _("  (PageUp: lines above)")
    )
    return [*lines[start : start + height - 1], last]


def _keys(question: Question) -> str:
    if question.can_go_back:
        return _("Up/Down or number: move; Enter: choose; type: filter; Esc: back; Ctrl-C: quit")
    return _("Up/Down or number: move; Enter: choose; type: filter; Ctrl-C: quit")
