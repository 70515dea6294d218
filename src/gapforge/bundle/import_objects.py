"""Import the parts of volumes into the store: verify each one, and add objects in batches."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from gapforge.base.files import open_regular
from gapforge.base.parallel import on_all_cores
from gapforge.base.progress import Progress
from gapforge.base.storage_errors import storage_error, storage_errors
from gapforge.bundle.cache_pressure import DropBehind
from gapforge.bundle.partial_objects import PartialObjects, Range, without
from gapforge.bundle.volume_format import Damaged, Part, StoredPart, describe_read_error
from gapforge.bundle.volume_reader import read_part
from gapforge.store.store import Store

# A batch is synced and named when it has this many objects or bytes.
BATCH_OBJECTS, BATCH_BYTES = 256, 64 << 20


class StoreBatch:
    """Add verified files to the store many at a time.

    Waiting for the disk takes about as long for one small file as for hundreds of them.
    ``added`` is called for each object that has its name in the store.
    """

    def __init__(self, store: Store, added: Callable[[Part], None]) -> None:
        self.store, self.added = store, added
        self._waiting: list[tuple[Path, Part]] = []
        self._guard = threading.Lock()

    def add(self, file: Path, part: Part) -> None:
        """Add a file in ``partial`` whose bytes were verified while they were written."""
        with self._guard:
            self._waiting.append((file, part))
            size = sum(waiting.size for _file, waiting in self._waiting)
            full = len(self._waiting) >= BATCH_OBJECTS or size >= BATCH_BYTES
        if full:
            self.flush()

    def flush(self) -> None:
        """Sync and name all waiting files. Raise StorageError, never OSError.

        An OSError would mean that the medium is damaged, and this is the disk of the store.
        """
        with self._guard:
            ready, self._waiting = self._waiting, []
        try:
            self.store.add_all({file: part.sha256 for file, part in ready})
        except OSError as error:
            raise storage_error(error, self.store.folder) from error
        for _file, part in ready:
            self.added(part)


class ObjectImporter:
    """Import parts into the store, and count the imported objects."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self.store, self.progress = store, progress
        self.partial = PartialObjects(store)
        self.batch = StoreBatch(store, self._added)
        self.imported: dict[str, int] = {}  # SHA-256 -> size
        self._guard = threading.Lock()

    def import_parts(
        self, volume: Path, parts: Sequence[StoredPart]
    ) -> tuple[list[StoredPart], str]:
        """Import these parts of a volume. Return those that failed, and why it is unreadable.

        The reason is "" if the volume can be read. Raise StorageError for the disk of the store.
        """
        failed, why = [], ""
        if parts:
            try:
                with open_regular(volume) as file:
                    handle = file.fileno()
                    errors = on_all_cores(lambda stored: self._import(handle, stored), parts)
            except (Damaged, OSError) as error:
                failed, why = list(parts), describe_read_error(error)
            else:
                failed = [
                    part for part, error in zip(parts, errors, strict=True) if error is not None
                ]
                unreadable = next((error for error in errors if isinstance(error, OSError)), None)
                why = describe_read_error(unreadable) if unreadable else ""
        self.batch.flush()
        self.partial.flush()
        return failed, why

    def finish(self, part: Part) -> bool:
        """Move a split object into the store if all of it is here. Return False if it is wrong."""
        if self.store.has(part.sha256, part.size):
            return True
        if not self.partial.complete(part.sha256, part.size):
            return True
        if not self.partial.finish(part.sha256, part.size):
            return False
        self._count(part)
        return True

    def _added(self, part: Part) -> None:
        self.partial.discard(part.sha256)  # of an earlier bundle that split the object
        self._count(part)

    def _count(self, part: Part) -> None:
        with self._guard:
            self.imported[part.sha256] = part.size

    def _import(self, handle: int, stored: StoredPart) -> Damaged | OSError | None:
        """Import one part. Return why it cannot be imported, None if it is."""
        part = stored.part
        wanted = [(part.offset, part.end)]
        # A whole object is written into a file of its own, a part into the file of its object.
        if part.whole:
            out, target = self.partial.new_whole(part.sha256)
        else:
            target = self.partial.data(part.sha256)
            out = self.partial.open(part.sha256)
            wanted = without(wanted[0], self.partial.ranges(part.sha256, part.size))
            if not wanted:
                os.close(out)
                return None
        # If the file keeps bytes of an earlier run, the hash is calculated at the end.
        complete = wanted == [(part.offset, part.end)]
        digest = None
        if not part.whole and complete:
            digest = self.partial.hash_before(part.sha256, part.offset)
        cache = DropBehind(out)
        cache.seek(part.offset)

        def write(data: memoryview, offset: int) -> None:
            with storage_errors(target):
                _write_wanted(out, data, offset, wanted)
            cache.advance(offset + len(data))
            if digest is not None:
                digest.update(data)
            self.progress.add(len(data))

        try:
            read_part(handle, stored, write)
            if not part.whole:
                with storage_errors(target):
                    os.fdatasync(out)  # wait until everything written is on disk
        except (Damaged, OSError) as error:
            if part.whole:
                target.unlink(missing_ok=True)
            return error.with_traceback(None)  # which would keep all local variables in memory
        finally:
            os.close(out)
        if part.whole:
            self.batch.add(target, part)
        else:
            self.partial.add(part.sha256, part.size, (part.offset, part.end), digest)
        return None


def _write_wanted(out: int, data: memoryview, offset: int, wanted: Sequence[Range]) -> None:
    """Write the wanted ranges only: verified bytes must survive if this part is damaged."""
    for start, end in wanted:
        done, until = max(start, offset), min(end, offset + len(data))
        while done < until:
            done += os.pwrite(out, data[done - offset : until - offset], done)
