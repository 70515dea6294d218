"""Write volumes: read each object once, verify it while copying, and name the volumes last.

A volume is ``.ID-0001.gfv.part`` until every object with a part in it was read to its end and has
the recorded checksum. The bytes do not depend on the day, the machine or the order of threads.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import IO

from gapforge.base.errors import BundleError, Fault
from gapforge.base.files import open_regular, sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.progress import Progress
from gapforge.base.storage_errors import storage_errors
from gapforge.base.write_files import new_file, publish
from gapforge.bundle.bundle_index import VolumeEntry
from gapforge.bundle.cache_pressure import DropBehind
from gapforge.bundle.contents import Contents
from gapforge.bundle.place_volumes import Placement
from gapforge.bundle.volume_format import HEAD, Part, trailer_bytes, volume_index, volume_name
from gapforge.bundle.volume_plan import Plan

SMALL = 2 << 20  # bytes; objects up to this size are read and verified ahead, on all cores
_AHEAD = 8  # small objects that are read ahead
_BUFFER = 2 << 20  # bytes
_BUFFERS = 4  # that are read, hashed or written at the same time

# The parts of one object with the numbers of their volumes, in the order of the volumes.
_ObjectParts = Sequence[tuple[int, Part]]


UNFINISHED = ".part"  # at the end of the name that a volume has until it is verified


class _HashThread:
    """A thread that updates hashes in the order of the calls. hashlib releases the Python lock."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hash")

    def update(self, digest: hashlib._Hash, data: memoryview) -> Future[None]:
        """Add ``data`` to the hash. It must not change before the result is there."""
        return self._pool.submit(digest.update, data)

    def finish(self, digest: hashlib._Hash) -> str:
        """Return the checksum in hex after all updates."""
        return self._pool.submit(digest.hexdigest).result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class _BufferRing:
    """A few buffers used in turn. A buffer is reused when no thread needs its bytes any more."""

    def __init__(self) -> None:
        self._buffers = [memoryview(bytearray(_BUFFER)) for _unused in range(_BUFFERS)]
        self._users: list[list[Future[None]]] = [[] for _unused in range(_BUFFERS)]
        self._current = 0

    def take(self) -> memoryview:
        """Return the next buffer, after waiting until it is free."""
        self._current = (self._current + 1) % _BUFFERS
        users, self._users[self._current] = self._users[self._current], []
        for future in users:
            future.result()
        return self._buffers[self._current]

    def used_by(self, future: Future[None]) -> None:
        """Keep the current buffer until ``future`` is done."""
        self._users[self._current].append(future)


class _VolumeFile:
    """A volume that is being written."""

    def __init__(self, folder: Path, plan: Plan, number: int) -> None:
        self.plan, self.number = plan, number
        self.target = folder / volume_name(plan.bundle, number)
        self.checksums: list[str] = []
        self.size = 0
        with storage_errors(self.target):
            handle, self.unfinished = new_file(self.target, UNFINISHED)
        self.file: IO[bytes] = os.fdopen(handle, "wb", buffering=0)
        self.cache = DropBehind(self.file.fileno())
        self.write(memoryview(HEAD))

    def write(self, data: memoryview) -> None:
        with storage_errors(self.target):
            done = 0
            while done < len(data):
                done += self.file.write(data[done:])
            self.size += len(data)
            self.cache.advance(self.size)

    def finish(self) -> VolumeEntry:
        """Write index and trailer. The file does not get its final name yet."""
        identity, parts = self.plan.identity(self.number), self.plan.volumes[self.number - 1]
        index = volume_index(identity, parts, self.checksums)
        self.write(memoryview(index + trailer_bytes(index, self.size)))
        return VolumeEntry(self.number, self.size, sha256_bytes(index))

    def publish(self) -> None:
        """Give the file its final name."""
        publish(self.file.fileno(), self.unfinished, self.target)
        self.file.close()

    def abandon(self) -> None:
        try:
            self.file.close()
            self.unfinished.unlink(missing_ok=True)
        except OSError:
            pass  # the medium was removed; the error being handled says so


class VolumeWriter:
    """Write the volumes of a plan that are not kept. Use as a context manager."""

    def __init__(
        self, plan: Plan, contents: Contents, placement: Placement, progress: Progress
    ) -> None:
        self.plan, self.contents, self.progress = plan, contents, progress
        self.folders, self.kept = placement.folders, placement.kept
        self.entries = {number: kept.entry for number, kept in placement.kept.items()}
        self.open: _VolumeFile | None = None
        # Finished, but an object in them continues in the next volume and is not verified yet.
        self.waiting: list[_VolumeFile] = []
        self._threads = ExitStack()

    def __enter__(self) -> VolumeWriter:
        self.object_hash, self.part_hash, self.ring = _HashThread(), _HashThread(), _BufferRing()
        for thread in (self.object_hash, self.part_hash):
            self._threads.callback(thread.close)
        self.pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="read")
        self._threads.enter_context(self.pool)
        return self

    def __exit__(self, *exc: object) -> None:
        for volume in [*self.waiting, *([self.open] if self.open else [])]:
            volume.abandon()
        self.pool.shutdown(wait=False, cancel_futures=True)
        self._threads.close()

    def run(self) -> list[VolumeEntry]:
        """Write all volumes, and return the entries of all volumes of the bundle.

        Raise BundleError naming an object whose bytes do not match its lock.
        """
        for parts, data in self._objects():
            if data is not None:
                self._copy_small(parts, memoryview(data.result()))
            else:
                self._copy_large(parts)
            self._publish()
        for number in self.plan.numbers:  # a bundle may have no bytes at all
            if number not in self.entries:
                self._volume(number)
        self._finish_open()
        self._publish()
        return [self.entries[number] for number in sorted(self.entries)]

    def _objects(self) -> Iterator[tuple[_ObjectParts, Future[bytes] | None]]:
        """Yield the parts of each object, and the verified bytes of a small object."""
        numbered = [(n, part) for n, parts in enumerate(self.plan.volumes, 1) for part in parts]
        objects = (list(each) for _sha256, each in groupby(numbered, lambda item: item[1].sha256))
        groups = filter(self._must_be_read, objects)
        ahead: deque[tuple[_ObjectParts, Future[bytes] | None]] = deque()
        while True:
            while len(ahead) < _AHEAD and (group := next(groups, None)) is not None:
                part = group[0][1]
                small = part.size <= SMALL or part.sha256 in self.contents.texts
                ahead.append((group, self.pool.submit(self._read_small, part) if small else None))
            if not ahead:
                return
            yield ahead.popleft()

    def _must_be_read(self, parts: _ObjectParts) -> bool:
        """Return whether a part is to be written, or is in a kept volume, which may be altered.

        A whole object in a kept volume was verified by its own checksum, but only the object tells
        what the bytes of a part are.
        """
        return any(number not in self.kept or not part.whole for number, part in parts)

    # -- objects

    def _read_small(self, part: Part) -> bytes:
        """Return the verified bytes of a small object."""
        data = self.contents.texts.get(part.sha256)
        if data is None:
            path = self._source(part)
            with storage_errors(path), open_regular(path, follow=True) as file:
                data = file.read(part.size + 1)
        self._verify(part, len(data), sha256_bytes(data))
        return data

    def _copy_small(self, parts: _ObjectParts, data: memoryview) -> None:
        for number, part in parts:
            chunk = data[part.offset : part.end]
            sha256 = part.sha256 if part.whole else sha256_bytes(bytes(chunk))
            if (volume := self._volume(number)) is not None:
                volume.write(chunk)
                self.progress.add(len(chunk))
            self._part_done(number, part, sha256)

    def _copy_large(self, parts: _ObjectParts) -> None:
        """Read the whole object, since only that can be verified, and write its wanted parts."""
        first = parts[0][1]
        path, name = self._source(first), self.contents.name(first.sha256)
        object_digest, part_digest, position = hashlib.sha256(), hashlib.sha256(), 0
        waiting = deque(parts)
        with storage_errors(path), open_regular(path, follow=True) as file:
            cache = DropBehind(file.fileno())
            while True:
                buffer = self.ring.take()
                count = file.readinto(buffer)
                if not count:
                    break
                self.ring.used_by(self.object_hash.update(object_digest, buffer[:count]))
                end = position + count
                while waiting and waiting[0][1].offset < end:
                    number, part = waiting[0]
                    data = buffer[max(0, part.offset - position) : min(count, part.end - position)]
                    if not part.whole:
                        self.ring.used_by(self.part_hash.update(part_digest, data))
                    if (volume := self._volume(number)) is not None:
                        volume.write(data)
                        self.progress.add(len(data), name)
                    if part.end > end:
                        break
                    sha256 = part.sha256 if part.whole else self.part_hash.finish(part_digest)
                    self._part_done(number, part, sha256)
                    waiting.popleft()
                    part_digest = hashlib.sha256()
                position = end
                cache.advance(position)
        self._verify(first, position, self.object_hash.finish(object_digest))

    def _source(self, part: Part) -> Path:
        path = self.contents.path(part)
        if path is None:
            name = self.contents.name(part.sha256)
            raise BundleError(
                _("{name} was removed or changed its size while packing", name=name),
                hint=_("sync again, then run the same command again"),
            )
        return path

    def _verify(self, part: Part, size: int, sha256: str) -> None:
        if (size, sha256) == (part.size, part.sha256):
            return
        name = self.contents.name(part.sha256)
        presets = self.contents.preset_of(part.sha256) or " ".join(
            preset.preset for preset in self.plan.presets
        )
        raise BundleError(
            _("{name} does not match its lock; nothing of it was packed", name=name),
            faults=[
                Fault(
                    str(self.contents.path(part) or name),
                    _("{size} bytes, sha256 {sha256}", size=size, sha256=sha256),
                    _("{size} bytes, sha256 {sha256}", size=part.size, sha256=part.sha256),
                )
            ],
            hint=_(
                "online: ./deps_sync.sh {presets}; then run the same command again", presets=presets
            ),
        )

    # -- volumes

    def _volume(self, number: int) -> _VolumeFile | None:
        """Return the volume to write into, None for one that is kept."""
        if number in self.kept:
            return None
        if self.open is None or self.open.number != number:
            self._finish_open()
            self.open = _VolumeFile(self.folders[number], self.plan, number)
        return self.open

    def _part_done(self, number: int, part: Part, sha256: str) -> None:
        if number not in self.kept:
            assert self.open is not None
            self.open.checksums.append(sha256)
        elif self.kept[number].checksums[part] != sha256:
            path = self.folders[number] / volume_name(self.plan.bundle, number)
            name = self.contents.name(part.sha256)
            raise BundleError(
                _("{path} contains other bytes of {name}", path=path, name=name),
                hint=_("rm {path!q}; then run the same command again", path=path),
            )

    def _finish_open(self) -> None:
        if self.open is not None:
            self.entries[self.open.number] = self.open.finish()
            self.waiting.append(self.open)
            self.open = None

    def _publish(self) -> None:
        """Name the finished volumes. Called between objects, when all their parts are verified."""
        for volume in self.waiting:
            volume.publish()
        self.waiting.clear()
