"""Lay out text by terminal columns, escape it for a terminal, and format times."""

from __future__ import annotations

import time
import unicodedata

from gapforge.base import limits

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
