"""Messages in the reader's language: Korean where the environment asks for it, English otherwise."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Mapping


def language(environ: Mapping[str, str] | None = None) -> str:
    """Return "ko" or "en": GAPFORGE_LANG decides, then LC_ALL, LC_MESSAGES and LANG, the first one that is set."""
    env = os.environ if environ is None else environ
    for key in ("GAPFORGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = env.get(key, "").strip().lower()
        if value:
            return "ko" if value.startswith("ko") else "en"
    return "en"


def tr(ko: str, en: str) -> str:
    """Return the one of two equal texts that the reader's environment asks for."""
    return ko if language() == "ko" else en


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
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def josa(word: str, with_final: str, without_final: str) -> str:
    """Return ``word`` with the Korean particle that its last sound asks for: josa("8.6", "을", "를") is "8.6을".

    Digits are read as Korean numbers; Latin letters by their names. "으로" is "로" after ㄹ.
    """
    last = next((char for char in reversed(word) if char.isalnum()), "")
    if "가" <= last <= "힣":
        sound = (ord(last) - ord("가")) % 28
        final, liquid = sound != 0, sound == 8
    else:
        final, liquid = last in "013678" or last.lower() in "lmn", last in ("1", "7", "8", "l", "L")
    return word + (with_final if final and not (liquid and with_final == "으로") else without_final)
