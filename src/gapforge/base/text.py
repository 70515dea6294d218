"""Messages in the reader's language: Korean where the environment asks for it, English otherwise."""

from __future__ import annotations

import time
import unicodedata


def width(text: str) -> int:
    """Return how many terminal columns ``text`` takes: Hangul and other wide characters count two, marks none."""
    return sum(_columns(char) for char in text)


def pad(text: str, columns: int) -> str:
    """Return ``text`` followed by as many spaces as fill ``columns`` terminal columns."""
    return text + " " * max(0, columns - width(text))


def wrap(text: str, columns: int) -> list[str]:
    """``text`` as lines of at most ``columns`` terminal columns, broken at blanks; a longer word stays whole."""
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
    """A moment (seconds since 1970, now without any) as "2026-11-27T18:00:00Z"; such texts sort as the moments do."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def printable(text: str) -> str:
    """Return ``text`` with escapes for what must not reach a terminal or JSON: control characters, and the bytes of
    file names that are no UTF-8."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
