"""Lay out text by terminal columns, escape it for a terminal, and format times."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence

from gapforge.base import limits, output_mode
from gapforge.base.i18n import _

NARROW = 60  # a window with fewer columns gets labels and texts below each other


def width(text: str) -> int:
    """Return the number of terminal columns of ``text``. Wide characters, as Hangul, take two."""
    return sum(_columns(char) for char in text)


def pad(text: str, columns: int) -> str:
    """Return ``text`` with spaces appended up to ``columns`` terminal columns."""
    return text + " " * max(0, columns - width(text))


def cut(text: str, columns: int) -> str:
    """Return the start of ``text`` that fits into ``columns`` terminal columns."""
    while width(text) > columns:
        text = text[:-1]
    return text


def wrap(text: str, columns: int) -> list[str]:
    """Return ``text`` in lines of at most ``columns`` terminal columns, unless a word is longer."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width(longer) > columns:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def fold(text: str, columns: int) -> list[str]:
    """Return ``text`` in lines of at most ``columns`` terminal columns; longer words are broken."""
    lines = []
    columns = max(columns, 8)
    for line in wrap(text, columns):
        while width(line) > columns:
            start = cut(line, columns)
            lines.append(start)
            line = line[len(start) :]
        lines.append(line)
    return lines


def label_rows(
    rows: Sequence[tuple[str, str]], columns: int | None, *, label: int = 0, broken: bool = False
) -> list[str]:
    """Return labels and texts as two columns; in a narrow window or plain mode as ``labelled``.

    ``columns`` is the width of the window, None for any; ``label`` the least width of the labels.
    ``broken`` breaks words that are too long for a line.
    """
    if output_mode.plain() or (columns is not None and columns < NARROW):
        return [x for row in rows for x in labelled(*row, columns, broken=broken)]
    label = max([label, *(width(name) for name, _text in rows)])
    lines = []
    for name, text in rows:
        room = None if columns is None else columns - label - 4
        first, *more = _lines(text, room, broken)
        lines.append(f"  {pad(name, label)}  {first}".rstrip())
        lines += [" " * (label + 4) + part for part in more]
    return lines


def labelled(label: str, text: str, columns: int | None, *, broken: bool = False) -> list[str]:
    """Return "label: text" with an indent, or the text below its label if that does not fit."""
    together = f"  {label}: {text}" if label else f"  {text}"
    if columns is None or width(together) <= columns:
        return [together]
    indent = "    " if label else "  "
    lines = [indent + line for line in _lines(text, columns - len(indent), broken)]
    return [f"  {label}:", *lines] if label else lines


def _lines(text: str, columns: int | None, broken: bool) -> list[str]:
    if columns is None:
        return [text]
    return fold(text, columns) if broken else wrap(text, columns)


def first_names(names: Sequence[str], most: int) -> str:
    """Return the first ``most`` names for a sentence, and how many more there are."""
    shown, more = ", ".join(names[:most]), len(names) - most
    return _("{names} and {more} more", names=shown, more=more) if more > 0 else shown


def _columns(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def utc(seconds: float | None = None) -> str:
    """Return a time in seconds since 1970, by default now, as "2026-11-27T18:00:00Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def whole_number(text: str) -> int | None:
    """Return the number that ASCII digits write, None for any other text and for huge numbers."""
    if text.isascii() and text.isdecimal() and len(text) <= limits.JSON_DIGITS:
        return int(text)
    return None


def printable(text: str) -> str:
    """Return ``text`` with control characters and undecodable bytes of file names escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
