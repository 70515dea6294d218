"""Collect objects that arrive in parts, and record which parts are here to resume an import."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gapforge.base.errors import FetchError
from gapforge.base.files import SHA256_HEX
from gapforge.base.storage_errors import storage_errors
from gapforge.base.strict_json import canonical_json, read_json
from gapforge.base.write_files import is_own, new_file, open_own, write_text
from gapforge.store.store import Store

# Up to this number of ranges of an object, each new one is recorded on disk immediately. A volume
# can contain thousands of parts of one object.
_RECORD_ALL = 100
_RECORD_INTERVAL = 1.0  # seconds between two records of an object with more ranges

_WHOLE = ".whole"  # in the name of a file for an object that is not split
# Temporary files of killed runs in the store's folder ``partial``.
_LITTER = (".bundle-*.tmp", f"*bundle-*{_WHOLE}.*", "place-*", ".place-*", "bytes-*", "copy-*")

Range = tuple[int, int]  # first byte, byte after the last


def merged(ranges: Sequence[Range]) -> list[Range]:
    """Return the same bytes as few sorted ranges."""
    result: list[Range] = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def without(wanted: Range, present: Sequence[Range]) -> list[Range]:
    """Return the ranges of ``wanted`` that are not in ``present``, which ``merged`` has sorted."""
    result, start = [], wanted[0]
    for index in range(max(0, bisect_left(present, (start, 0)) - 1), len(present)):
        first, after = present[index]
        if first >= wanted[1]:
            break
        if first > start:
            result.append((start, first))
        start = max(start, after)
    if start < wanted[1]:
        result.append((start, wanted[1]))
    return result


@dataclass(slots=True)
class _Partial:
    """What is known of one object that arrives in parts."""

    size: int
    ranges: list[Range]  # what is here and was verified, as ``merged`` sorts it
    hashed: tuple[hashlib._Hash | None, int] = (None, 0)  # the hash of all bytes before an offset
    recorded: float = 0.0  # when the ranges were last written to disk
    file: tuple[int, int] | None = None  # device and inode of the data
    replaced: bool = False  # the data began again in another file


class PartialObjects:
    """The verified parts of objects that volumes have split.

    The files are ``partial/bundle-SHA256.part`` and ``.json``. A part is recorded when its bytes
    are on disk. The whole object is hashed before it gets its name: on the way if one run wrote all
    parts in order, else from the file.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._guard = threading.Lock()
        # By the SHA-256 of an object.
        self._objects: dict[str, _Partial] = {}
        self._started: set[str] = set()  # may have files on disk
        self._unrecorded: set[str] = set()  # have ranges that are not in the record on disk

    def data(self, sha256: str) -> Path:
        """Return the file that collects the bytes of an object."""
        self._started.add(sha256)
        return self.store.partial(f"bundle-{sha256}.part")

    def open(self, sha256: str) -> int:
        """Open the data of an object. Forget its parts if they are not in this file.

        ``open_own`` starts an empty file when somebody linked to the one before.
        """
        with self._guard:
            known = self._known(sha256)
            handle = open_own(self.data(sha256))
            status = os.fstat(handle)
            file = status.st_dev, status.st_ino
            lost = bool(known.ranges) and status.st_size < known.ranges[-1][1]
            if lost or known.file not in (None, file):
                known.size, known.ranges, known.hashed = -1, [], (None, 0)
                known.replaced = True
            known.file = file
        return handle

    def new_whole(self, sha256: str) -> tuple[int, Path]:
        """Create a file for an object that a volume contains whole. Return handle and path."""
        name = self.store.partial(f"bundle-{sha256}{_WHOLE}")
        with storage_errors(name):
            return new_file(name, ".part")

    def _record(self, sha256: str) -> Path:
        return self.store.partial(f"bundle-{sha256}.json")

    def ranges(self, sha256: str, size: int) -> list[Range]:
        """Return the sorted ranges that are here and were verified as parts."""
        known = self._known(sha256)
        return known.ranges if known.size == size else []

    def _known(self, sha256: str) -> _Partial:
        known = self._objects.get(sha256)
        return known or self._objects.setdefault(sha256, _Partial(*self._read(sha256)))

    def _read(self, sha256: str) -> tuple[int, list[Range]]:
        """Return the size and the ranges that an earlier run recorded."""
        try:
            raw = read_json(self._record(sha256))
            size, pairs = raw["size"], [(first, after) for first, after in raw["ranges"]]
            if any(type(number) is not int for number in (size, *chain(*pairs))):
                return -1, []
            ranges = merged(pairs)
            file = self.data(sha256)
            written = file.stat().st_size if is_own(file) else -1
        except (OSError, ValueError, KeyError, TypeError):
            return -1, []
        valid = all(0 <= first < after <= min(size, written) for first, after in ranges)
        return (size, ranges) if valid else (-1, [])

    def hash_before(self, sha256: str, offset: int) -> hashlib._Hash | None:
        """Return the hash of all bytes before ``offset`` to continue, None if it is not known."""
        if not offset:
            return hashlib.sha256()
        digest, position = self._known(sha256).hashed
        return digest.copy() if digest is not None and position == offset else None

    def add(self, sha256: str, size: int, part: Range, digest: hashlib._Hash | None) -> None:
        """Record that ``part`` is written and synced, on disk at the latest after ``flush``.

        ``digest`` is the hash of all bytes before the end of the part if it is known.
        """
        with self._guard:
            known = self._known(sha256)
            if digest is not None:
                known.hashed = digest, part[1]
            known.ranges = merged([*self.ranges(sha256, size), part])
            known.size = size
            age = time.monotonic() - known.recorded
            if len(known.ranges) <= _RECORD_ALL or age >= _RECORD_INTERVAL:
                self._write(sha256)
            else:
                self._unrecorded.add(sha256)

    def flush(self) -> None:
        """Write all records that are not on disk yet."""
        with self._guard:
            for sha256 in sorted(self._unrecorded):
                self._write(sha256)

    def _write(self, sha256: str) -> None:
        known = self._objects[sha256]
        document = {"size": known.size, "ranges": known.ranges}
        write_text(self._record(sha256), canonical_json(document))
        known.recorded = time.monotonic()
        self._unrecorded.discard(sha256)

    def complete(self, sha256: str, size: int) -> bool:
        """Return whether every byte of the object is here."""
        return self.ranges(sha256, size) == [(0, size)]

    def finish(self, sha256: str, size: int) -> bool:
        """Move a complete object into the store. Return False and discard it if it is not valid."""
        file = self.data(sha256)
        handle = self.open(sha256)
        digest = self.hash_before(sha256, size) if size else None
        if self._known(sha256).replaced:
            digest = None  # a part that another thread wrote is in the file before this one
        try:
            with storage_errors(file):
                # A volume with a wrong size may have written bytes behind the end.
                os.ftruncate(handle, size)
        finally:
            os.close(handle)
        try:
            self.store.add(file, sha256, known=digest.hexdigest() if digest is not None else "")
            valid = True
        except FetchError:
            valid = False
        self.discard(sha256)
        return valid

    def discard(self, sha256: str) -> None:
        """Forget the parts of an object."""
        if sha256 not in self._started:
            return
        for path in (self._record(sha256), self.data(sha256)):
            with storage_errors(path):
                path.unlink(missing_ok=True)
        self._objects.pop(sha256, None)
        self._unrecorded.discard(sha256)
        self._started.discard(sha256)

    def clear_litter(self) -> None:
        """Remove temporary files of killed runs, and keep the recorded parts of missing objects.

        Call this first, and only while holding the lock of the store.
        """
        folder = self.store.partial("bundle").parent
        with storage_errors(folder):
            for pattern in _LITTER:
                for path in folder.glob(pattern):
                    path.unlink(missing_ok=True)
            checksums = {path.name[7:71] for path in folder.glob("bundle-*")}
        self._started = {sha256 for sha256 in checksums if SHA256_HEX.fullmatch(sha256)}
        for sha256 in list(self._started):
            both = self._record(sha256).exists() and self.data(sha256).exists()
            if self.store.has(sha256) or not both:
                self.discard(sha256)
