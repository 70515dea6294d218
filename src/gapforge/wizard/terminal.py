"""Read keys from a terminal and show screens on it; the terminal is always restored."""

from __future__ import annotations

import codecs
import os
import re
import select
import signal
import termios
from contextlib import suppress
from typing import Any, TextIO

from gapforge.wizard.screen import Drawn

WAIT = 0.3  # seconds until the size of the window is compared again
ESCAPE_WAIT = 0.05  # seconds after which an escape character is the key Esc
DEFAULT_SIZE = (80, 24)

# Names of keys, by what a terminal sends (ECMA-48, and xterm's and the Linux console's variants).
KEYS = {
    "\r": "enter",
    "\n": "enter",
    "\x1b": "escape",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x03": "quit",
    "\x04": "quit",
    "\x1c": "quit",
    "\x15": "clear",
    "\x1a": "suspend",
    "\x0e": "down",
    "\x10": "up",
    "\t": "down",
    **{f"\x1b{i}A": "up" for i in "[O"},
    **{f"\x1b{i}B": "down" for i in "[O"},
    **{f"\x1b{i}C": "right" for i in "[O"},
    **{f"\x1b{i}D": "left" for i in "[O"},
    **{f"\x1b{i}": "home" for i in ("[H", "OH", "[1~", "[7~")},
    **{f"\x1b{i}": "end" for i in ("[F", "OF", "[4~", "[8~")},
    "\x1b[5~": "page-up",
    "\x1b[6~": "page-down",
    "\x1b[3~": "backspace",
    "\x1b[Z": "up",
}
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~])")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")


def first_key(text: str, *, final: bool) -> tuple[str, str]:
    """Return the first key of ``text`` and the rest; "" as the key while its end is missing.

    ``final``: nothing follows, so that an escape character alone is the key Esc. An unknown
    sequence is the key "unknown".
    """
    if not text or (_UNFINISHED.match(text) and not final):
        return "", text
    if match := _SEQUENCE.match(text):
        return KEYS.get(match[0], "unknown"), text[match.end() :]
    key = KEYS.get(text[0], text[0] if text[0].isprintable() else "unknown")
    return key, text[1:]


class Terminal:
    """A terminal that gives keys one by one and has a screen of its own inside ``with``."""

    def __init__(self, stdin: TextIO, stdout: TextIO) -> None:
        self.input, self.out = stdin.fileno(), stdout
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""

    def __enter__(self) -> Terminal:
        self.before: list[Any] = termios.tcgetattr(self.input)
        try:
            self._take()
        except BaseException:  # also a signal between the first change and the block
            self._restore()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._restore()

    def size(self) -> tuple[int, int]:
        """Return columns and rows; 80 x 24 where the terminal does not know."""
        try:
            columns, rows = os.get_terminal_size(self.out.fileno())
        except OSError:
            columns, rows = 0, 0
        return columns or DEFAULT_SIZE[0], rows or DEFAULT_SIZE[1]

    def show(self, drawn: Drawn) -> None:
        """Replace the whole screen."""
        lines = [
            f"\x1b[1m{line}\x1b[0m" if number == drawn.cursor else line
            for number, line in enumerate(drawn.lines)
        ]
        # The last line has no line feed, which would scroll the screen.
        self.out.write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[K\x1b[J")
        self.out.flush()

    def key(self) -> str:
        """Return the next key, "" after a short time without one. Raise EOFError at the end."""
        key, self._text = first_key(self._text, final=False)
        wait = ESCAPE_WAIT if self._text else WAIT
        while not key and select.select([self.input], [], [], wait)[0]:
            try:
                data = os.read(self.input, 4096)
            except OSError:  # EIO: the window was closed
                data = b""
            if not data:
                raise EOFError
            self._text += self._decoder.decode(data)
            key, self._text = first_key(self._text, final=False)
            wait = ESCAPE_WAIT
        if not key:
            key, self._text = first_key(self._text, final=True)
        return key

    def suspend(self) -> None:
        """Stop this process and its job, as Ctrl-Z does, with the terminal restored meanwhile."""
        self._restore()
        os.killpg(os.getpgrp(), signal.SIGTSTP)
        self._take()

    def _take(self) -> None:
        """Turn off echo, lines and signal keys; Ctrl-C is a key. Output stays as it is."""
        mode = termios.tcgetattr(self.input)
        mode[0] &= ~(termios.ICRNL | termios.INLCR | termios.IXON)
        mode[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        # What was typed ahead stays.
        termios.tcsetattr(self.input, termios.TCSADRAIN, mode)
        self.out.write("\x1b[?1049h\x1b[?25l\x1b[2J")
        self.out.flush()

    def _restore(self) -> None:
        """Show the screen of before, and its cursor; a terminal that is gone is no error."""
        with suppress(OSError, ValueError):
            rows = self.size()[1]
            self.out.write(f"\x1b[0m\x1b[{rows};1H\r\n\x1b[?25h\x1b[?1049l")
            self.out.flush()
        with suppress(termios.error):
            termios.tcsetattr(self.input, termios.TCSADRAIN, self.before)
