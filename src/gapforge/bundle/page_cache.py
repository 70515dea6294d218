"""Large files pass through memory without staying: read ahead of us, written and let go behind us.

Left alone, Linux keeps what was written until a tenth of the memory waits for the disk, so the disk rests at first
and fsync is a long wait at the end; and it keeps every byte that was read or written instead of what others need.
"""

from __future__ import annotations

import os
from contextlib import suppress

STEP = 8 << 20  # bytes; how often the system is told


def let_go(handle: int, start: int, end: int) -> None:
    """Begin to write these bytes of a file if they wait for it, and keep them in memory no longer. Never an error."""
    with suppress(OSError):  # only advice; a file system may not know it
        os.posix_fadvise(handle, start, end - start, os.POSIX_FADV_DONTNEED)


class Flow:
    """The way of one reader or writer through an open file."""

    def __init__(self, handle: int) -> None:
        self.handle, self.told, self.let_go = handle, 0, 0

    def begin(self, position: int) -> None:
        """Reading goes on at ``position``; a jump starts anew."""
        if not 0 <= position - self.told < STEP:
            self.told = self.let_go = position

    def reached(self, position: int) -> None:
        """All before ``position`` was read or written: begin to write it, and let go what is on the disk."""
        if position - self.told >= STEP:
            # Pages are let go only when they are on the disk, so those of the step before get a second chance.
            let_go(self.handle, self.let_go, position)
            self.let_go, self.told = self.told, position
