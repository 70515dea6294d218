"""Check what a disk can store: free space for an import, largest file, block size.

Media and sites often use FAT32 or exFAT.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gapforge.base.errors import StorageError
from gapforge.base.files import system_text
from gapforge.base.flush import MOUNTS, mount_point
from gapforge.base.i18n import _
from gapforge.base.path_checks import inside, real_path
from gapforge.base.storage_errors import free_bytes
from gapforge.base.units import human_bytes
from gapforge.bundle.volume_format import Part
from gapforge.store.store import Store

# Bytes. FAT stores a file size in four bytes, but fsck.fat also counts clusters in four bytes. It
# considers a file that fills the last cluster below 4 GiB as empty and truncates it to zero. No
# cluster is larger than 64 KiB.
FAT_LIMIT = (1 << 32) - (1 << 16)
FILE_OVERHEAD = 8 << 10  # bytes that each file takes on a disk beyond its size, at least
_FAT = frozenset({"vfat", "msdos", "fuse.fusefat"})


def file_system(folder: Path) -> str:
    """Return the type of the file system of a folder that need not exist, "" if unknown."""
    where, found, longest = real_path(folder), "", -1
    try:
        text = system_text(MOUNTS, "surrogateescape")
    except OSError:
        return ""
    for line in text.split("\n"):
        before, _separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.partition(" ")[0]
        if len(fields) < 6 or not kind:
            continue
        point = Path(mount_point(fields[4]))
        # If two are mounted at one place, the later one is visible.
        if (point == where or point in where.parents) and len(point.parts) >= longest:
            found, longest = kind, len(point.parts)
    return found


def max_file_size(folder: Path) -> int:
    """Return the size in bytes of the largest file on this file system, 0 if no limit is known."""
    return FAT_LIMIT if file_system(folder) in _FAT else 0


def _existing(folder: Path) -> Path:
    """Return the folder or its nearest parent that exists; a link to nothing does not."""
    return next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())


def block_size(folder: Path) -> int:
    """Return the allocation unit in bytes: every file takes a multiple of it."""
    return os.statvfs(_existing(folder)).f_frsize


def rounded_up(size: int, block: int) -> int:
    """Return ``size`` rounded up to whole blocks."""
    return -(-size // block) * block


def disk_of(folder: Path) -> tuple[int, int]:
    """Return the device number of the disk of a folder that need not exist, and its free bytes."""
    where = _existing(folder)
    return where.stat().st_dev, free_bytes(where)


class ImportSpace:
    """Add up what an import will write, and compare it with the free space.

    Without hard links, artifacts/NAME needs the space of the store a second time.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.partial("room").parent
        self.links = store.links()
        self.overhead = max(FILE_OVERHEAD, os.statvfs(self.folder).f_frsize)
        self.bytes = self.needed = 0
        self._counted: set[str] = set()
        self._largest = Part.of_object("", 0)

    def add(self, part: Part, length: int) -> None:
        """Count ``length`` bytes of ``part``. A whole object counts once, in whatever volumes."""
        if part.whole:
            if part.sha256 in self._counted:
                return
            self._counted.add(part.sha256)
        self.bytes += length
        self.needed += (length + self.overhead) * (1 if self.links else 2)
        if part.size > self._largest.size:
            self._largest = part

    def require(self) -> None:
        """Raise StorageError if the disk cannot store what was counted."""
        limit = max_file_size(self.folder)
        if limit and self._largest.size > limit:
            raise StorageError(
                _(
                    "{folder} is on a FAT file system, which stores files of up to {limit} bytes; "
                    "object {object} has {size} bytes",
                    folder=self.folder,
                    limit=limit,
                    object=self._largest.sha256[:12],
                    size=self._largest.size,
                ),
                hint=_(
                    "put artifacts/ on another disk (GAPFORGE_ARTIFACTS=FOLDER) and run the same "
                    "command again; nothing was imported"
                ),
            )
        self._require(self.needed, _("nothing was imported"))

    def require_copies(self, folder: Path, files: Mapping[str, str]) -> None:
        """Raise StorageError if there is no space for the copies of files missing in ``folder``.

        ``files`` maps each path to the SHA-256 of its object.
        """
        if self.links:
            return
        needed = 0
        for path, sha256 in files.items():
            size = self.store.path(sha256).stat().st_size
            target = inside(folder, path)
            if not (target.is_file() and target.stat().st_size == size):
                needed += size + self.overhead
        self._require(
            needed, _("all objects are in the store; {folder} was not created", folder=folder)
        )

    def _require(self, needed: int, state: str) -> None:
        free = free_bytes(self.folder)
        if needed <= free:
            return
        values = {"folder": self.folder, "needed": human_bytes(needed), "free": human_bytes(free)}
        raise StorageError(
            _("{folder}: {needed} are needed and {free} are free", **values)
            if self.links
            else _(
                "{folder}: {needed} are needed and {free} are free; this file system has no hard "
                "links, so artifacts/NAME needs the space a second time",
                **values,
            ),
            hint=_(
                "free some space (df -h {folder!q}) and run the same command again; {state}",
                folder=self.folder,
                state=state,
            ),
        )
