"""Objects that arrive in parts: which bytes are here already, remembered so that a cut import goes on."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from gapforge.base.errors import FetchError
from gapforge.base.files import SHA256_HEX, canonical_json, storage_errors, write_text
from gapforge.store.store import Store

_AT_ONCE = 100  # ranges of an object up to which each new one is noted at once; a volume can make thousands of them
_EACH = 1.0  # seconds between two notes of an object that has more

Range = tuple[int, int]  # from, to (exclusive), in bytes


def merged(ranges: Sequence[Range]) -> list[Range]:
    """The same bytes as few ranges in order."""
    result: list[Range] = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def without(wanted: Range, held: Sequence[Range]) -> list[Range]:
    """The parts of ``wanted`` that ``held`` lacks, which is in order, as ``merged`` gives it."""
    result, start = [], wanted[0]
    for index in range(max(0, bisect_left(held, (start, 0)) - 1), len(held)):
        a, b = held[index]
        if a >= wanted[1]:
            break
        if a > start:
            result.append((start, a))
        start = max(start, b)
    if start < wanted[1]:
        result.append((start, wanted[1]))
    return result


class Partial:
    """The parts that are here of objects which volumes cut. Its files are ``partial/bundle-HASH.part`` and ``.json``.

    Parts are noted only when their bytes are on the disk; the whole object is hashed before it gets its name: on the
    way when one run wrote all parts in order, else out of the file.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._guard = threading.Lock()
        self._there: set[str] = set()  # objects of which something may be here
        self._hashed: dict[
            str, tuple[hashlib._Hash, int]
        ] = {}  # object -> the hash of all bytes before this offset
        self._known: dict[
            str, tuple[int, list[Range]]
        ] = {}  # object -> its size, and what is here of it
        self._noted: dict[str, float] = {}  # when
        self._unnoted: set[str] = set()

    def data(self, sha256: str) -> Path:
        """Where the bytes are gathered."""
        self._there.add(sha256)
        return self.store.partial(f"bundle-{sha256}.part")

    def held(self, sha256: str, size: int) -> list[Range]:
        """The ranges that are here and were verified as parts, in order."""
        known = self._known.get(sha256) or self._known.setdefault(sha256, self._read(sha256))
        return known[1] if known[0] == size else []

    def _read(self, sha256: str) -> tuple[int, list[Range]]:
        """What an earlier run noted of an object: its size, and the ranges."""
        try:
            raw = json.loads(self._note(sha256).read_text(encoding="utf-8"))
            size, ranges = int(raw["size"]), merged([(int(a), int(b)) for a, b in raw["ranges"]])
            there = self.data(sha256).stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return -1, []
        fits = all(0 <= a < b <= min(size, there) for a, b in ranges)
        return (size, ranges) if fits else (-1, [])

    def hash_before(self, sha256: str, offset: int) -> hashlib._Hash | None:
        """The hash of the object's bytes before ``offset`` to go on with; None when this run did not write them all."""
        digest, position = self._hashed.get(sha256, (None, 0)) if offset else (hashlib.sha256(), 0)
        return digest.copy() if digest is not None and position == offset else None

    def note(self, sha256: str, size: int, part: Range, digest: hashlib._Hash | None) -> None:
        """Remember that ``part`` is written and synced; ``digest`` is ``hash_before`` its end if that is known.

        On the disk it is noted at the latest after ``flush``.
        """
        with self._guard:
            if digest is not None:
                self._hashed[sha256] = digest, part[1]
            ranges = merged([*self.held(sha256, size), part])
            self._known[sha256] = size, ranges
            if len(ranges) <= _AT_ONCE or time.monotonic() - self._noted.get(sha256, 0.0) >= _EACH:
                self._write(sha256)
            else:
                self._unnoted.add(sha256)

    def flush(self) -> None:
        """Note on the disk what is not noted there yet."""
        with self._guard:
            for sha256 in sorted(self._unnoted):
                self._write(sha256)

    def _write(self, sha256: str) -> None:
        size, ranges = self._known[sha256]
        write_text(self._note(sha256), canonical_json({"size": size, "ranges": ranges}))
        self._noted[sha256] = time.monotonic()
        self._unnoted.discard(sha256)

    def complete(self, sha256: str, size: int) -> bool:
        """Whether every byte is here."""
        return self.held(sha256, size) == [(0, size)]

    def finish(self, sha256: str, size: int) -> bool:
        """Give the object its name when its hash is right; False, and nothing is left of it, when it is not."""
        digest = self.hash_before(sha256, size) if size else None
        with storage_errors(self.data(sha256)):
            os.truncate(
                self.data(sha256), size
            )  # a volume may have lied about the size, and put bytes behind the end
        try:
            self.store.add(
                self.data(sha256), sha256, known=digest.hexdigest() if digest is not None else ""
            )
        except FetchError:
            self.discard(sha256)
            return False
        self.discard(sha256)
        return True

    def discard(self, sha256: str) -> None:
        """Forget the parts of an object."""
        if sha256 not in self._there:
            return
        for path in (self._note(sha256), self.data(sha256)):
            with storage_errors(path):
                path.unlink(missing_ok=True)
        for memory in (self._hashed, self._known, self._noted):
            memory.pop(sha256, None)
        self._unnoted.discard(sha256)
        self._there.discard(sha256)

    def clear_litter(self) -> None:
        """Remove what a killed run was writing; what it noted, of objects that are not whole yet, stays. Comes first.

        Call it with the store's lock held: what lies there is nobody's then.
        """
        folder = self.store.partial("bundle").parent
        with storage_errors(folder):
            for pattern in (".bundle-*.tmp", "bundle-*.whole.part", "place-*", "bytes-*", "copy-*"):
                for path in folder.glob(pattern):
                    path.unlink(missing_ok=True)
            keys = {
                path.name[7:71]
                for path in folder.glob("bundle-*")
                if SHA256_HEX.fullmatch(path.name[7:71])
            }
        self._there = set(keys)
        for sha256 in keys:
            if self.store.has(sha256) or not (
                self._note(sha256).exists() and self.data(sha256).exists()
            ):
                self.discard(sha256)

    def _note(self, sha256: str) -> Path:
        return self.store.partial(f"bundle-{sha256}.json")


def sync_data(handle: int, path: Path) -> None:
    """What was written is on the disk after this."""
    with storage_errors(path):
        os.fdatasync(handle)
