"""Show progress: a live line at a terminal, a plain line at intervals elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

from gapforge.base import output_mode
from gapforge.base.i18n import _, pgettext
from gapforge.base.text_layout import cut, pad, width
from gapforge.base.units import human_bytes, human_time

LIVE_INTERVAL = 0.2  # seconds between updates at a terminal
PLAIN_INTERVAL = 10.0  # seconds between lines without a terminal
LIVE_COLUMNS = 118


class StatusLine:
    """One line of text that changes: replaced at a terminal, printed at intervals elsewhere.

    It is on ``out``, by default standard error. Thread-safe. ``interval`` is the least number of
    seconds between two lines without a terminal.
    """

    def __init__(
        self, *, interval: float = PLAIN_INTERVAL, out: TextIO | None = None, quiet: bool = False
    ) -> None:
        self.out = out if out is not None else sys.stderr
        self.quiet = quiet or output_mode.quiet()
        self.live = not self.quiet and output_mode.can_redraw(self.out)
        self.interval = LIVE_INTERVAL if self.live else interval
        self.shown = time.monotonic()
        self._guard = threading.RLock()
        self._width = 0

    def due(self) -> bool:
        """Return whether it is time to show the text again."""
        return not self.quiet and time.monotonic() - self.shown >= self.interval

    def show(self, text: str) -> None:
        """Show the text now. Without text the live line is removed."""
        with self._guard:
            if self.quiet:
                return
            self.shown = time.monotonic()
            if not self.live:
                if text:
                    print(text, file=self.out, flush=True)
                return
            if not text:
                self.clear()
                return
            text = cut(text, self._columns())
            print("\r" + pad(text, self._width), end="", file=self.out, flush=True)
            self._width = width(text)

    def note(self, line: str) -> None:
        """Print a line of its own, without damaging the live line."""
        with self._guard:
            if self.quiet:
                return
            self.clear()
            print(line, file=self.out, flush=True)

    def clear(self) -> None:
        """Remove the live line."""
        with self._guard:
            if self.live and self._width:
                print("\r" + " " * self._width + "\r", end="", file=self.out, flush=True)
                self._width = 0

    def _columns(self) -> int:
        """Return how many columns a line may have without a second row."""
        columns = output_mode.window(self.out)
        return min(LIVE_COLUMNS, columns - 1) if columns and columns > 1 else LIVE_COLUMNS


class Progress:
    """Counts bytes and shows rate and remaining time on ``out``, by default standard error.

    ``total`` is 0 if it is unknown. Thread-safe. Use it as a context manager.
    """

    def __init__(
        self, what: str, total: int = 0, *, out: TextIO | None = None, quiet: bool = False
    ) -> None:
        self.what, self.total, self.done = what, total, 0
        self.status = StatusLine(out=out, quiet=quiet)
        self.start = time.monotonic()
        self.detail = ""
        self._guard = threading.RLock()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close(failed=exc[0] is not None)

    def add(self, count: int, detail: str = "") -> None:
        """Count more bytes. ``detail`` names the current item."""
        with self._guard:
            self.done += count
            self.detail = detail or self.detail
            if self.status.due():
                self.status.show(self.line())

    def note(self, line: str) -> None:
        """Print a line of its own, without damaging the live line."""
        self.status.note(line)

    def close(self, *, failed: bool = False) -> None:
        """Print a last line with the size, time and rate of the whole work."""
        with self._guard:
            seconds = time.monotonic() - self.start
            state = pgettext("progress", "stopped") if failed else _("done")
            size, duration = human_bytes(self.done), human_time(seconds)
            parts = [state, _("{size} in {duration}", size=size, duration=duration)]
            if seconds >= 0.1 and self.done:
                parts.append(f"{human_bytes(self.done / seconds)}/s")
            self.status.note(f"{self.what}: {', '.join(parts)}")
            self.status.quiet = True

    def line(self) -> str:
        """Return the current state as text."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        rate = self.done / seconds
        done = human_bytes(self.done)
        known = 0 < self.total >= self.done  # a total that was exceeded is wrong
        if known:
            percent = 100 * self.done // self.total
            total = human_bytes(self.total)
            done = _("{done} of {total} ({percent} %)", done=done, total=total, percent=percent)
        parts = [done, f"{human_bytes(rate)}/s"]
        if known and rate > 0:
            remaining = human_time((self.total - self.done) / rate)
            parts.append(_("{time} left", time=remaining))
        if self.detail:
            parts.append(self.detail)
        return f"{self.what}: {', '.join(parts)}"
