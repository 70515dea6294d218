"""Keep large files from filling the page cache while they are read or written once.

By default Linux delays writing until a tenth of the memory is dirty, so the disk idles first and
fsync waits long at the end. It also keeps every byte that passed through instead of the data that
other programs need.
"""

from __future__ import annotations

import os
from contextlib import suppress

STEP = 8 << 20  # bytes between two calls to the kernel


class DropBehind:
    """Drop the pages of one open file behind the position of its reader or writer."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._position = self._dropped = 0

    def seek(self, position: int) -> None:
        """Continue at ``position``. A jump starts a new range."""
        if not 0 <= position - self._position < STEP:
            self._position = self._dropped = position

    def advance(self, position: int) -> None:
        """Start to write back everything before ``position``, and drop what is already on disk."""
        if position - self._position < STEP:
            return
        # Dirty pages cannot be dropped yet, so each range is passed to the kernel twice.
        with suppress(OSError):  # this is only advice, and some files do not support it
            length = position - self._dropped
            os.posix_fadvise(self.handle, self._dropped, length, os.POSIX_FADV_DONTNEED)
        self._dropped, self._position = self._position, position
