"""Whether a site's disk has room for an import: said before the first byte, and before a preset is copied together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gapforge.base.errors import StorageError
from gapforge.base.files import free_bytes, inside
from gapforge.base.i18n import _
from gapforge.base.progress import human_bytes
from gapforge.bundle.file_system_limits import file_limit
from gapforge.bundle.volume_format import Span
from gapforge.store.store import Store

_EACH = 8 << 10  # bytes that a file takes on a disk beyond its size, at least


class Room:
    """Counts what an import will write. Where the disk has no hard links, artifacts/NAME takes all of it once more."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.partial("room").parent
        self.links = store.links()
        self.each = max(_EACH, os.statvfs(self.folder).f_frsize)
        self.bytes = self.need = 0
        self._counted: set[str] = set()
        self._largest = Span("", 0, 0, 0)

    def add(self, span: Span, length: int) -> None:
        """``length`` bytes of ``span`` will be written; a whole object that several volumes hold only once."""
        if span.whole:
            if span.sha256 in self._counted:
                return
            self._counted.add(span.sha256)
        self.bytes += length
        self.need += (length + self.each) * (1 if self.links else 2)
        if span.size > self._largest.size:
            self._largest = span

    def require(self) -> None:
        """Raise StorageError when the disk does not take what was counted."""
        limit = file_limit(self.folder)
        if limit and self._largest.size > limit:
            largest, size = self._largest.sha256[:12], self._largest.size
            raise StorageError(
                _(
                    "{folder} is on a FAT disk, which takes files of up to {limit} "
                    "bytes; object {largest} has {size}",
                    folder=self.folder,
                    limit=limit,
                    largest=largest,
                    size=size,
                ),
                hint=_(
                    "put artifacts/ on another disk (GAPFORGE_ARTIFACTS=FOLDER), then "
                    "the same command again; nothing was imported"
                ),
            )
        self._require(self.need, _("nothing was imported"))

    def require_copies(self, folder: Path, files: Mapping[str, str]) -> None:
        """Raise StorageError when there is no room for the copies that ``folder`` still lacks of these files."""
        if self.links:
            return
        need = 0
        for path, sha256 in files.items():
            size = self.store.path(sha256).stat().st_size
            target = inside(folder, path)
            if not (target.is_file() and target.stat().st_size == size):
                need += size + self.each
        self._require(
            need, _("all objects are in the store; {folder} was not laid out", folder=folder)
        )

    def _require(self, need: int, state: str) -> None:
        free = free_bytes(self.folder)
        if need > free:
            why = (
                ""
                if self.links
                else _(
                    "; this disk has no hard links, so artifacts/NAME takes everything once more"
                )
            )
            needed, room = human_bytes(need), human_bytes(free)
            raise StorageError(
                _(
                    "{folder}: {needed} are needed and {room} are free{why}",
                    folder=self.folder,
                    needed=needed,
                    room=room,
                    why=why,
                ),
                hint=_(
                    "make room (df -h {folder}), then run the same command again; {state}",
                    folder=self.folder,
                    state=state,
                ),
            )
