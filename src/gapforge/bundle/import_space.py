"""Whether a site's disk has room for an import: said before the first byte, and before a preset is copied together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gapforge.base.errors import StorageError
from gapforge.base.files import free_bytes, inside
from gapforge.base.progress import human_bytes
from gapforge.base.text import josa, tr
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
                tr(f"{self.folder}: FAT 디스크여서 {limit}바이트보다 큰 파일을 둘 수 없는데, 객체 {josa(largest, '이', '가')} {size}바이트입니다",
                   f"{self.folder} is on a FAT disk, which takes files of up to {limit} bytes; object {largest} has {size}"),
                hint=tr("artifacts/를 다른 디스크에 두고(GAPFORGE_ARTIFACTS=FOLDER) 같은 명령을 다시 실행하십시오. 아무것도 들여오지 않았습니다",
                        "put artifacts/ on another disk (GAPFORGE_ARTIFACTS=FOLDER), then the same command again; "
                        "nothing was imported"))  # fmt: skip
        self._require(self.need, tr("아무것도 들여오지 않았습니다", "nothing was imported"))

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
        self._require(need, tr(f"객체는 모두 보관소에 있고, {josa(str(folder), '은', '는')} 만들지 않았습니다",
                               f"all objects are in the store; {folder} was not laid out"))  # fmt: skip

    def _require(self, need: int, state: str) -> None:
        free = free_bytes(self.folder)
        if need > free:
            why = "" if self.links else tr(". 이 디스크에는 하드 링크가 없어 artifacts/NAME이 모든 것을 한 번 더 차지합니다",
                                           "; this disk has no hard links, so artifacts/NAME takes everything once more")  # fmt: skip
            needed, room = human_bytes(need), human_bytes(free)
            raise StorageError(tr(f"{self.folder}: {josa(needed, '이', '가')} 필요하지만 {room}만 남아 있습니다{why}",
                                  f"{self.folder}: {needed} are needed and {room} are free{why}"),
                               hint=tr(f"공간을 비운 뒤(df -h {self.folder}) 같은 명령을 다시 실행하십시오. {state}",
                                       f"make room (df -h {self.folder}), then run the same command again; {state}"))  # fmt: skip
