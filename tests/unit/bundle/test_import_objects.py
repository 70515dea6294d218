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
from gapforge.base import files as careful
from gapforge.base.errors import StorageError
from gapforge.bundle import import_objects, partial_objects
from gapforge.bundle.cache_pressure import STEP, DropBehind
from gapforge.bundle.partial_objects import PartialObjects
from gapforge.store import store as stores
from gapforge.store.store import Store
from gapforge.store.verify_artifacts import verify
from hostile import HASH, forge, index_with


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
        patch.setattr(careful, "_syncfs", lambda folder: False)
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
