"""Record what a power failure would leave: bytes that were not synced and names that were not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gapforge.base import flush
from gapforge.base.files import sha256_bytes


class PowerCut:
    """The state of the disk. ``cut`` and ``lost`` are what a power failure would destroy.

    ``cut`` lists files that got their name before their content was on disk, and ``lost`` folders
    whose latest changes of names are not on disk. ``named`` lists the names that were given, and
    ``unsynced_at`` with each of them the folders that were in ``lost`` before it.
    """

    def __init__(self) -> None:
        self.cut: list[str] = []
        self.lost: set[Path] = set()
        self.named: list[Path] = []
        self.unsynced_at: list[tuple[Path, frozenset[Path]]] = []
        self._content: dict[int, str] = {}  # by inode, at its last sync

    def sync(self, handle: int) -> None:
        status = os.fstat(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.is_dir():
            self.lost.discard(path)
        else:
            self._content[status.st_ino] = sha256_bytes(path.read_bytes())

    def sync_all(self, folder: Path) -> None:
        for path in folder.iterdir():
            if path.is_file():
                self._content[path.stat().st_ino] = sha256_bytes(path.read_bytes())

    def rename(self, source: Path, target: Path) -> None:
        content = self._content.get(source.stat().st_ino)
        if source.is_file() and content != sha256_bytes(source.read_bytes()):
            self.cut.append(target.name)
        self.named.append(target)
        self.unsynced_at.append((target, frozenset(self.lost)))
        self.lost.add(target.parent.resolve())

    def content_of(self, path: Path) -> str:
        """Return the SHA-256 of what is on disk of a file, "" if nothing is."""
        return self._content.get(path.stat().st_ino, "")

    def remove(self, path: Path) -> None:
        self.lost.add(path.parent.resolve())


@contextmanager
def power_cut(monkeypatch: pytest.MonkeyPatch, *, one_sync: bool = False) -> Iterator[PowerCut]:
    """Watch every sync, rename and removal in the block. ``one_sync`` allows syncfs()."""
    disk = PowerCut()
    fsync, fdatasync, replace, unlink = os.fsync, os.fdatasync, os.replace, os.unlink

    def synced(handle: int) -> None:
        fsync(handle)
        disk.sync(handle)

    def data_synced(handle: int) -> None:
        fdatasync(handle)
        disk.sync(handle)

    def renamed(source: str | Path, target: str | Path) -> None:
        disk.rename(Path(source), Path(target))
        replace(source, target)

    def removed(path: str | Path, *, dir_fd: int | None = None) -> None:
        unlink(path, dir_fd=dir_fd)
        if dir_fd is None:
            disk.remove(Path(path))

    def synced_all(folder: Path) -> bool:
        disk.sync_all(folder)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "fdatasync", data_synced)
        patch.setattr(os, "replace", renamed)
        patch.setattr(os, "unlink", removed)
        patch.setattr(flush, "_syncfs_suffices", lambda folder: one_sync)
        patch.setattr(flush, "_syncfs", synced_all)
        yield disk
