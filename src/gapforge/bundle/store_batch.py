"""Verified objects on their way into the store: many are synced together, then named together.

Waiting for the disk takes about as long for one small file as for hundreds of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from gapforge.base.files import storage_error
from gapforge.bundle.volume_format import Span
from gapforge.store.store import Store

OBJECTS, BYTES = 256, 64 << 20  # as soon as either waits, what waits is synced and named


class Landing:
    """Takes files that lie in the store's ``partial`` under any name, and tells ``landed`` of each that is named."""

    def __init__(self, store: Store, landed: Callable[[Span], None]) -> None:
        self.store, self.landed = store, landed
        self._waiting: list[tuple[Path, Span]] = []
        self._guard = threading.Lock()

    def add(self, file: Path, span: Span) -> None:
        """A file with a whole object, whose bytes were hashed while they were written. It has its name at the latest after ``flush``."""
        with self._guard:
            self._waiting.append((file, span))
            full = (
                len(self._waiting) >= OBJECTS
                or sum(span.size for _, span in self._waiting) >= BYTES
            )
        if full:
            self.flush()

    def flush(self) -> None:
        """Sync and name all that waits. Raises StorageError, never OSError: this disk is ours, not a carrier."""
        with self._guard:
            ready, self._waiting = self._waiting, []
        try:
            self.store.add_all({file: span.sha256 for file, span in ready})
        except OSError as error:
            raise storage_error(error, self.store.folder) from error
        for _, span in ready:
            self.landed(span)
