"""Fast import stays correct: hashes while writing, objects added in batches, page cache."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from bundles import PRESET, carry, hashes, receive, sender, site_at
from forged_volumes import HASH, forge, index_with
from gapforge.base import flush
from gapforge.base.errors import StorageError
from gapforge.base.progress import Progress
from gapforge.bundle import import_objects, partial_objects, volume_reader
from gapforge.bundle.cache_pressure import STEP, DropBehind
from gapforge.bundle.partial_objects import PartialObjects
from gapforge.bundle.volume_format import Part, StoredPart, describe_read_error
from gapforge.store import store as stores
from gapforge.store.store import Store
from gapforge.store.verify_artifacts import verify


def test_ordered_parts_are_hashed_while_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sender(tmp_path, {"sources/large": random.Random(3).randbytes(400_000)})
    carry(made, tmp_path / "medium", size=100_000)
    large = made.entry("sources/large").sha256
    files = sorted((tmp_path / "medium").glob("*.gfv"))
    assert len(files) > 3
    read: list[str] = []
    real = stores.sha256_file
    monkeypatch.setattr(
        stores, "sha256_file", lambda path, *more: read.append(path.name) or real(path, *more)
    )
    whole = site_at(tmp_path / "whole")
    assert receive(whole, tmp_path / "medium").complete
    assert not any(large in name for name in read)
    parts = site_at(tmp_path / "parts")
    for number, file in enumerate(reversed(files)):  # one run for each volume
        shutil.copy(file, tmp_path / f"{number}.gfv")
        receive(parts, tmp_path / f"{number}.gfv")
    assert any(large in name for name in read)
    for site in (whole, parts):
        assert hashes(site) == made.objects and verify(site.artifacts_of(PRESET)).ok


def test_hash_before_covers_all_bytes(tmp_path: Path) -> None:
    partial = PartialObjects(Store(tmp_path / "store"))
    data = random.Random(4).randbytes(30)
    name = hashlib.sha256(data).hexdigest()
    partial.data(name).write_bytes(data)

    def arrives(start: int, end: int) -> None:
        digest = partial.hash_before(name, start)
        if digest is not None:
            digest.update(data[start:end])
        partial.add(name, 30, (start, end), digest)

    arrives(10, 20)  # out of order: the bytes before it are missing
    assert partial.hash_before(name, 20) is None
    arrives(0, 10)
    assert partial.hash_before(name, 10) is not None and partial.hash_before(name, 20) is None
    arrives(20, 30)
    assert partial.complete(name, 30) and partial.hash_before(name, 30) is None
    damaged = bytearray(data)
    damaged[15] ^= 1
    partial.data(name).write_bytes(damaged)
    assert not partial.finish(name, 30) and not partial.store.has(name)  # hashed from the file


def test_scattered_parts_are_recorded_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume of one MB can contain ten thousand parts of an object; a record lists them all."""
    notes: list[Path] = []
    write = partial_objects.write_text
    monkeypatch.setattr(
        partial_objects,
        "write_text",
        lambda target, text: (notes.append(target), write(target, text)),
    )
    medium, count = tmp_path / "medium", 1500
    medium.mkdir()
    byte = hashlib.sha256(b"x").hexdigest()
    forge(
        medium / "x.gfv",
        index_with([[HASH, 10**6, 2 * n, 1, byte] for n in range(count)]),
        b"x" * count,
    )
    site = site_at(tmp_path / "site")
    start = time.monotonic()
    receive(site, medium)
    assert len(notes) < 150 + 2 * (time.monotonic() - start)
    held = PartialObjects(Store(site.store)).ranges(HASH, 10**6)  # as the next run reads it
    assert held == [(2 * n, 2 * n + 1) for n in range(count)]


def test_objects_are_added_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed late keeps most of its objects."""
    monkeypatch.setattr(import_objects, "BATCH_OBJECTS", 5)
    named: list[int] = []
    real = Store.add_all
    monkeypatch.setattr(
        Store, "add_all", lambda self, files: named.append(len(files)) or real(self, files)
    )
    made = sender(tmp_path, {f"sources/{n}": bytes([n]) * 50 for n in range(40)})
    carry(made, tmp_path / "medium", size=10**9)
    site = site_at(tmp_path / "site")
    assert receive(site, tmp_path / "medium").complete and hashes(site) == made.objects
    assert sum(named) == len(made.objects) and len(named) > 5 and max(named) < 12


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EIO])
def test_failing_store_disk_blames_no_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=10**9)
    site = site_at(tmp_path / "site")

    def fsync(handle: int) -> None:
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patch:
        patch.setattr(flush, "_syncfs", lambda folder: False)
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StorageError):
            receive(site, tmp_path / "medium")
    assert hashes(site) == set()
    assert receive(site, tmp_path / "medium").complete and hashes(site) == made.objects


def test_drop_behind_covers_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advised: list[tuple[int, int]] = []
    monkeypatch.setattr(
        os,
        "posix_fadvise",
        lambda handle, start, length, advice: advised.append((start, start + length)),
    )
    cache = DropBehind(7)
    for position in range(0, 5 * STEP, STEP // 4):
        cache.advance(position)
    assert [end for _, end in advised] == [STEP, 2 * STEP, 3 * STEP, 4 * STEP]
    assert [start for start, _ in advised] == [
        0,
        0,
        STEP,
        2 * STEP,
    ]  # dirty pages are dropped with the next call
    cache.seek(100 * STEP)
    cache.advance(101 * STEP)
    assert advised[-1] == (100 * STEP, 101 * STEP)
    monkeypatch.undo()
    pipe = os.pipe()
    try:
        DropBehind(pipe[0]).advance(STEP)  # a pipe does not support this advice
    finally:
        os.close(pipe[0])
        os.close(pipe[1])


@pytest.mark.parametrize("when", ["between parts", "after the last part"])
def test_link_to_half_an_object_never_completes_it(tmp_path: Path, when: str) -> None:
    partial = PartialObjects(Store(tmp_path / "store"))
    data = random.Random(5).randbytes(20)
    name = hashlib.sha256(data).hexdigest()

    def arrives(start: int, end: int) -> None:
        handle = partial.open(name)
        digest = partial.hash_before(name, start)
        os.pwrite(handle, data[start:end], start)
        os.close(handle)
        if digest is not None:
            digest.update(data[start:end])
        partial.add(name, 20, (start, end), digest)

    def backup() -> None:
        os.link(partial.data(name), tmp_path / "backup")

    arrives(0, 10)
    if when == "between parts":
        backup()
    arrives(10, 20)
    if when == "after the last part":
        backup()
        assert not partial.finish(name, 20) and not partial.store.has(name)
    else:
        assert partial.ranges(name, 20) == [(10, 20)]
    for part in ((0, 10), (10, 20)):  # the parts come once more
        arrives(*part)
    assert partial.finish(name, 20)
    assert partial.store.path(name).read_bytes() == data


# -- batches


class Names:
    """A store that notes what it was given, and fails on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.given = folder, []  # type: ignore[var-annotated]
        self.error: OSError | None = None

    def add_all(self, files: dict[Path, str]) -> None:
        if self.error is not None:
            raise self.error
        self.given.append(dict(files))


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ((1, 1), []),
        ((1, 1, 1), [3]),
        ((99,), []),
        ((100,), [1]),
        ((60, 40), [2]),
        ((101, 1, 1, 1), [1, 3]),
    ],
)
def test_batch_is_named_when_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], batches: list[int]
) -> None:
    monkeypatch.setattr(import_objects, "BATCH_OBJECTS", 3)
    monkeypatch.setattr(import_objects, "BATCH_BYTES", 100)
    store, added = Names(tmp_path), []
    batch = import_objects.StoreBatch(store, added.append)  # type: ignore[arg-type]
    parts = [Part.of_object(f"{number:064}", size) for number, size in enumerate(sizes)]
    for part in parts:
        batch.add(tmp_path / part.sha256, part)
    assert list(map(len, store.given)) == batches
    assert added == parts[: sum(batches)]
    batch.flush()
    assert added == parts
    assert {path.name: sha256 for given in store.given for path, sha256 in given.items()} == {
        part.sha256: part.sha256 for part in parts
    }
    batch.flush()
    assert store.given[-1] == {}, "each file is named once"


def test_batch_without_names_is_a_store_error(tmp_path: Path) -> None:
    store, added = Names(tmp_path), []
    store.error = OSError(errno.EIO, os.strerror(errno.EIO))
    batch = import_objects.StoreBatch(store, added.append)  # type: ignore[arg-type]
    batch.add(tmp_path / "x", Part.of_object("1" * 64, 1))
    with pytest.raises(StorageError):
        batch.flush()
    assert added == []


# -- parts


def whole(data: bytes, position: int = 0) -> StoredPart:
    part = Part.of_object(hashlib.sha256(data).hexdigest(), len(data))
    return StoredPart(part, part.sha256, position)


def piece(data: bytes, start: int, end: int) -> StoredPart:
    """Return a part of an object that lies at the same place in the volume."""
    part = Part(hashlib.sha256(data).hexdigest(), len(data), start, end - start)
    return StoredPart(part, hashlib.sha256(data[start:end]).hexdigest(), start)


@pytest.fixture
def importer(tmp_path: Path) -> import_objects.ObjectImporter:
    store = Store(tmp_path / "store")
    store.partial("x")
    return import_objects.ObjectImporter(store, Progress("unpack", quiet=True))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_intact_parts_of_a_damaged_volume_are_imported(
    tmp_path: Path, importer: import_objects.ObjectImporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, before = tmp_path / "volume", open_files()
    good, bad, last = b"good object", b"bad object", b"the last one"
    volume.write_bytes(good + bad.upper() + last)
    parts = [whole(good), whole(bad, 11), whole(last, 21)]
    assert importer.import_parts(volume, parts) == ([parts[1]], "")
    assert importer.imported == {parts[0].part.sha256: 11, parts[2].part.sha256: 12}
    assert importer.store.has(parts[0].part.sha256) and importer.store.has(parts[2].part.sha256)
    assert importer.progress.done == len(volume.read_bytes())
    assert not list((importer.store.folder / "partial").iterdir())
    assert importer.import_parts(volume, []) == ([], "")
    # A medium that fails is not damage of a part.
    real = os.preadv

    def preadv(handle: int, buffers: object, offset: int) -> int:
        if offset == 11:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(handle, buffers, offset)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", preadv)
    failed, why = importer.import_parts(volume, parts)
    assert failed == [parts[1]] and why == describe_read_error(
        OSError(errno.EIO, os.strerror(errno.EIO))
    )
    volume.unlink()
    failed, why = importer.import_parts(volume, parts)
    assert failed == parts and why
    assert open_files() == before
    assert not list((importer.store.folder / "partial").iterdir())


def test_object_is_finished_when_its_last_part_is_here(
    tmp_path: Path, importer: import_objects.ObjectImporter
) -> None:
    data, wrong = b"0123456789" * 2, b"0123456789abcdefghij"
    volume, before = tmp_path / "volume", open_files()
    volume.write_bytes(data)
    first, second = piece(data, 0, 12), piece(data, 12, 20)
    assert importer.import_parts(volume, [first]) == ([], "")
    assert importer.finish(first.part) and importer.imported == {}, "it is not complete"
    assert importer.import_parts(volume, [second]) == ([], "")
    assert importer.finish(second.part) and importer.imported == {first.part.sha256: 20}
    assert importer.store.path(first.part.sha256).read_bytes() == data
    importer.imported.clear()
    assert importer.finish(first.part) and importer.imported == {}, "it is in the store"
    # Parts whose checksums are right, but not that of the object.
    volume.write_bytes(wrong)
    name = "f" * 64
    parts = [
        StoredPart(Part(name, 20, at, 10), hashlib.sha256(wrong[at : at + 10]).hexdigest(), at)
        for at in (0, 10)
    ]
    assert importer.import_parts(volume, parts) == ([], "")
    assert not importer.finish(parts[0].part)
    assert not importer.store.has(name) and importer.imported == {}
    assert open_files() == before


def test_only_missing_bytes_of_a_part_are_written(
    tmp_path: Path, importer: import_objects.ObjectImporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verified bytes stay, even if the part that comes again is damaged."""
    data = b"0123456789" * 2
    volume, name = tmp_path / "volume", hashlib.sha256(data).hexdigest()
    volume.write_bytes(data)
    written: list[tuple[bytes, int]] = []
    synced: list[int] = []
    real, sync = os.pwrite, os.fdatasync
    monkeypatch.setattr(volume_reader, "_BUFFER", 5)

    def pwrite(handle: int, part: bytes, offset: int) -> int:
        count = real(handle, part[:4], offset)  # a disk may take less than it was given
        written.append((bytes(part[:count]), offset))
        return count

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fdatasync", lambda handle: (synced.append(handle), sync(handle)))
    importer.import_parts(volume, [piece(data, 5, 8)])
    assert written == [(b"567", 5)] and len(synced) == 1
    written.clear()
    volume.write_bytes(data[:19] + b"x")
    failed, why = importer.import_parts(volume, [piece(data, 2, 20)])
    assert len(failed) == 1 and why == ""
    assert written == [(b"234", 2), (b"8901", 8), (b"2345", 12), (b"6", 16), (b"78x", 17)]
    assert importer.partial.ranges(name, 20) == [(5, 8)]
    written.clear()
    volume.write_bytes(data)
    importer.import_parts(volume, [piece(data, 5, 8)])
    assert written == [] and importer.progress.done == 3 + 18, "it is not even read"
    importer.import_parts(volume, [piece(data, 0, 6), piece(data, 6, 20)])
    assert importer.finish(piece(data, 0, 6).part)
    assert importer.store.path(name).read_bytes() == data


def test_kept_bytes_are_hashed_from_the_disk(
    tmp_path: Path, importer: import_objects.ObjectImporter
) -> None:
    """They were verified when they came, but the disk may have changed them since."""
    data = b"0123456789" * 2
    volume, name = tmp_path / "volume", hashlib.sha256(data).hexdigest()
    volume.write_bytes(data)
    importer.import_parts(volume, [piece(data, 5, 8)])
    with open(importer.partial.data(name), "r+b") as file:
        file.seek(6)
        file.write(b"x")
    importer.import_parts(volume, [piece(data, 0, 12), piece(data, 12, 20)])
    assert not importer.finish(piece(data, 0, 12).part) and not importer.store.has(name)


def test_written_bytes_leave_the_page_cache(
    tmp_path: Path, importer: import_objects.ObjectImporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, calls = b"0123456789" * 2, []
    (tmp_path / "volume").write_bytes(data)
    monkeypatch.setattr(volume_reader, "_BUFFER", 8)

    class Cache:
        def __init__(self, handle: int) -> None:
            calls.append(("open", os.readlink(f"/proc/self/fd/{handle}")))

        def seek(self, position: int) -> None:
            calls.append(("seek", position))

        def advance(self, position: int) -> None:
            calls.append(("advance", position))

    monkeypatch.setattr(import_objects, "DropBehind", Cache)
    importer.import_parts(tmp_path / "volume", [piece(data, 2, 20)])
    file = str(importer.partial.data(hashlib.sha256(data).hexdigest()))
    ends = [("advance", position) for position in (10, 18, 20)]
    assert calls == [("open", file), ("seek", 2), *ends]


def test_whole_object_ends_what_an_earlier_bundle_split(
    tmp_path: Path, importer: import_objects.ObjectImporter
) -> None:
    data = b"0123456789" * 2
    (tmp_path / "volume").write_bytes(data)
    importer.import_parts(tmp_path / "volume", [piece(data, 0, 12)])
    importer.import_parts(tmp_path / "volume", [whole(data)])
    assert importer.imported == {hashlib.sha256(data).hexdigest(): 20}
    assert not list((importer.store.folder / "partial").iterdir())
