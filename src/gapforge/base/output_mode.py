"""How gapforge writes to people: quiet, verbose, plain, with or without colour, in which width.

``--quiet``, ``--verbose`` and ``--plain`` set it once per process (``cli.main``).
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TextIO

_SGR = {"red": "31;1", "yellow": "33", "green": "32"}


@dataclass
class Mode:
    """What the flags of the command line say."""

    quiet: bool = False
    verbose: bool = False
    plain: bool = False


_mode = Mode()


def set_mode(*, quiet: bool = False, verbose: bool = False, plain: bool = False) -> None:
    """Set how this process writes."""
    _mode.quiet, _mode.verbose, _mode.plain = quiet, verbose, plain


def quiet() -> bool:
    """Return whether to leave out progress and notes. Results, warnings and errors stay."""
    return _mode.quiet


def verbose() -> bool:
    """Return whether to print every command that gapforge starts."""
    return _mode.verbose


def plain() -> bool:
    """Return whether to write for a screen reader or a terminal without cursor movement.

    Then nothing is redrawn, coloured or told by alignment alone.
    """
    return _mode.plain or os.environ.get("TERM") in ("dumb", "unknown")


def can_redraw(stream: TextIO) -> bool:
    """Return whether a line on ``stream`` may be replaced."""
    return stream.isatty() and not plain()


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """Return ``text`` in a colour: "red", "yellow" or "green".

    Without colour if ``stream`` is no terminal, in plain mode, and with NO_COLOR
    (https://no-color.org). FORCE_COLOR overrides the first.
    """
    if os.environ.get("NO_COLOR") or plain() or not text:
        return text
    if not (stream.isatty() or os.environ.get("FORCE_COLOR", "") not in ("", "0")):
        return text
    return f"\x1b[{_SGR[colour]}m{text}\x1b[0m"


def window(stream: TextIO | None = None) -> int | None:
    """Return the number of columns of ``stream``, or those for text on standard output.

    COLUMNS overrides the size of standard output's terminal. For a line that is redrawn on
    ``stream``, its terminal decides, and COLUMNS only if that has no size. None if neither tells,
    as for a pipe, whose lines have any width.
    """
    text = os.environ.get("COLUMNS", "")
    told = int(text[:6]) if text.isascii() and text.isdecimal() else 0
    if stream is None and told:
        return told
    try:
        # A terminal whose size nobody has set has 0 columns.
        own = os.get_terminal_size((stream or sys.stdout).fileno()).columns
    except (OSError, ValueError, AttributeError):
        return told or None
    return own or told or 80
