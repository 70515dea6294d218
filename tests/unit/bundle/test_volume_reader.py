"""A volume is read only if all of it has one form, and each part only with its checksum."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forged_volumes import HASH, forge, index_with
from gapforge.base import parallel
from gapforge.base.files import sha256_bytes
from gapforge.bundle import volume_reader
from gapforge.bundle.cache_pressure import DropBehind
from gapforge.bundle.volume_format import (
    FORMAT,
    HEAD,
    TRAILER,
    TRAILER_MAGIC,
    Damaged,
    Part,
    StoredPart,
    VolumeIdentity,
    compact_json,
)
from gapforge.bundle.volume_reader import damaged_parts, find_files, read_part, read_volume
from raised_errors import values_of


def damage(path: Path) -> dict[str, Any]:
    """Return the arguments of the error that a volume is refused with."""
    with pytest.raises(Damaged) as caught:
        read_volume(path)
    return dict(values_of(caught.value.args[0])) or {"": str(caught.value)}


# -- the form of a volume


def write_volume(path: Path, **changes: Any) -> bytes:
    """Write a volume with an empty payload and this trailer; return its index."""
    index = changes.pop("index", compact_json(index_with()))
    payload = changes.pop("payload", b"")
    fields = {
        "magic": TRAILER_MAGIC,
        "version": FORMAT,
        "zero": 0,
        "offset": len(HEAD) + len(payload),
        "length": len(index),
        "digest": bytes.fromhex(sha256_bytes(index)),
        **changes,
    }
    path.write_bytes(HEAD + payload + index + TRAILER.pack(*fields.values()))
    return bytes(index)


def test_volume_of_one_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.gfv"
    rows = [
        [HASH, 5],
        ["b" * 64, 100, 10, 20, "c" * 64],
        ["b" * 64, 100, 40, 1, "d" * 64],
        ["e" * 64, 0],
    ]
    index = compact_json(index_with(rows, number=2, volumes=3, repairs="cd" * 12, tool="7" * 64))
    forge(path, None, b"p" * 26, raw=index)
    volume, parts = read_volume(path)
    assert volume.identity == VolumeIdentity(
        bundle="ab" * 12,
        number=2,
        volumes=3,
        volume_size=10**6,
        repairs="cd" * 12,
        presets=volume.identity.presets,
        tool="7" * 64,
    )
    assert [preset.to_json() for preset in volume.identity.presets] == index_with()["views"]
    assert (volume.path, volume.size) == (path, path.stat().st_size)
    assert volume.index_sha256 == sha256_bytes(index)
    start = len(HEAD)
    assert parts == [
        StoredPart(Part.of_object(HASH, 5), HASH, start),
        StoredPart(Part("b" * 64, 100, 10, 20), "c" * 64, start + 5),
        StoredPart(Part("b" * 64, 100, 40, 1), "d" * 64, start + 25),
        StoredPart(Part.of_object("e" * 64, 0), "e" * 64, start + 26),
    ]


def test_each_fault_of_the_form_has_its_own_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.gfv"
    index = write_volume(path)
    assert read_volume(path)[1] == []
    good, seen = path.read_bytes(), []
    least = len(HEAD) + TRAILER.size
    for size in (0, 5, least - 1):
        path.write_bytes(good[:size])
        assert damage(path) == {"size": size}
    path.write_bytes(HEAD + bytes(TRAILER.size))
    seen.append(damage(path))  # long enough to have a trailer
    write_volume(path, magic=b"GFV-ENE\n")
    assert damage(path) == seen[0]
    path.write_bytes(b"x" + good[1:])
    seen.append(damage(path))
    for version in (1, 3):
        write_volume(path, version=version)
        assert damage(path) == {"version": version, "format": FORMAT}
    size = len(index)
    for change in (
        {"zero": 1},
        {"offset": len(HEAD) - 1, "length": size + 1},
        {"offset": len(HEAD) - 1},
        {"offset": len(HEAD) + 1},
        {"length": size - 1},
        {"length": size + 1},
    ):
        write_volume(path, **change)
        seen.append(damage(path))
    assert len({tuple(reason.items()) for reason in seen[2:]}) == 1
    write_volume(path, digest=b"x" * 32)
    seen.append(damage(path))
    assert len({tuple(reason.items()) for reason in seen}) == 4
    write_volume(path, payload=b"more")
    assert damage(path) == {"listed": 0, "found": 4}
    write_volume(path, index=compact_json(index_with([[HASH, 5]])), payload=b"four")
    assert damage(path) == {"listed": 5, "found": 4}
    write_volume(path)
    monkeypatch.setattr(volume_reader, "MAX_INDEX", size)
    read_volume(path)
    monkeypatch.setattr(volume_reader, "MAX_INDEX", size - 1)
    assert damage(path)["size"] == size


def test_volume_that_becomes_shorter_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.gfv"
    write_volume(path)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda *words: real(*words)[:-1])
    with pytest.raises(Damaged):
        read_volume(path)


PART = ["b" * 64, 100, 10, 20]


@pytest.mark.parametrize(
    ("change", "payload"),
    [
        ({"format": FORMAT + 1}, 0),
        ({"format": FORMAT - 1}, 0),
        ({"more": 1}, 0),
        ({"pieces": {}}, 0),
        ({"pieces": [[]]}, 0),
        ({"pieces": [[HASH]]}, 0),
        ({"pieces": ["xy"]}, 0),
        ({"pieces": [PART]}, 20),  # without its checksum
        ({"pieces": [[*PART, "c" * 63]]}, 20),
        ({"pieces": [[*PART, None]]}, 20),
        ({"pieces": [[*PART, "c" * 64, 1]]}, 20),
        ({"pieces": [["b" * 64, 1], [HASH, 1]]}, 2),
        ({"number": 0}, 0),
        ({"number": 2}, 0),
        ({"volumes": 0}, 0),
        ({"volumes": 1_000_000}, 0),
        ({"volume_size": 0}, 0),
        ({"volume_size": (1 << 62) + 1}, 0),
        ({"bundle": ""}, 0),
        ({"repairs": "x"}, 0),
        ({"tool": "x"}, 0),
        ({"views": {}}, 0),
    ],
)
def test_index_in_another_form_is_refused(
    tmp_path: Path, change: dict[str, Any], payload: int
) -> None:
    path = tmp_path / "x.gfv"
    forge(path, {**index_with(), **change}, b"p" * payload)
    with pytest.raises(Damaged):
        read_volume(path)
    forge(path, {key: value for key, value in index_with().items() if key not in change})
    if "more" not in change:
        with pytest.raises(Damaged):
            read_volume(path)


@pytest.mark.parametrize(
    "change",
    [{"number": 3, "volumes": 3}, {"volumes": 999_999}, {"volume_size": 1}, {"repairs": "c" * 24}],
)
def test_index_at_the_limits_is_read(tmp_path: Path, change: dict[str, Any]) -> None:
    forge(tmp_path / "x.gfv", index_with(**change))
    assert read_volume(tmp_path / "x.gfv")[1] == []


# -- the bytes of a part


@pytest.fixture
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_reader._thread, "buffer", memoryview(bytearray(4)))


def test_part_is_read_in_chunks_at_its_place(tmp_path: Path, small_buffer: None) -> None:
    data = bytes(range(50)) * 20
    (tmp_path / "x").write_bytes(data)
    part = Part(HASH, 100, 60, 10)
    stored = StoredPart(part, sha256_bytes(data[7:17]), 7)
    got: list[tuple[bytes, int]] = []
    handle = os.open(tmp_path / "x", os.O_RDONLY)
    try:
        read_part(handle, stored, lambda chunk, offset: got.append((bytes(chunk), offset)))
        assert got == [(data[7:11], 60), (data[11:15], 64), (data[15:17], 68)]
        read_part(handle, stored)
        read_part(handle, StoredPart(Part.of_object(HASH, 1000), sha256_bytes(data), 0))
        got.clear()
        empty = StoredPart(Part.of_object(sha256_bytes(b""), 0), sha256_bytes(b""), 7)
        read_part(handle, empty, lambda chunk, offset: got.append((bytes(chunk), offset)))
        assert got == []
    finally:
        os.close(handle)


def test_part_is_read_on_after_few_bytes(
    tmp_path: Path, small_buffer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may return less than was asked for."""
    data = bytes(range(50))
    (tmp_path / "x").write_bytes(data)
    real = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda handle, buffers, at: real(handle, [buffers[0][:3]], at)
    )
    stored = StoredPart(Part.of_object(HASH, 8), sha256_bytes(data[:8]), 0)
    got: list[tuple[bytes, int]] = []
    with open(tmp_path / "x", "rb") as file:
        read_part(file.fileno(), stored, lambda chunk, at: got.append((bytes(chunk), at)))
    assert got == [(data[:3], 0), (data[3:6], 3), (data[6:8], 6)]


def test_part_with_another_checksum_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    found, expected = sha256_bytes(b"01234"), sha256_bytes(b"x")
    with open(tmp_path / "x", "rb") as file:
        with pytest.raises(Damaged) as caught:
            read_part(file.fileno(), StoredPart(Part.of_object(HASH, 5), expected, 0))
        assert values_of(caught.value.args[0]) == {"expected": expected, "found": found}
        with pytest.raises(Damaged) as caught:
            read_part(file.fileno(), StoredPart(Part.of_object(HASH, 11), found, 0))
        assert values_of(caught.value.args[0]) == {}, "the volume ends before"


def test_stopped_thread_reads_no_further(
    tmp_path: Path, small_buffer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    chunks: list[int] = []

    def stop() -> None:
        if len(chunks) == 1:
            raise parallel.Stopped

    monkeypatch.setattr(volume_reader, "raise_if_stopped", stop)
    with open(tmp_path / "x", "rb") as file, pytest.raises(parallel.Stopped):
        read_part(
            file.fileno(),
            StoredPart(Part.of_object(HASH, 10), HASH, 0),
            lambda chunk, offset: chunks.append(offset),
        )
    assert chunks == [0]


def test_page_cache_follows_the_position_in_the_volume(
    tmp_path: Path, small_buffer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int, int]] = []

    def record(name: str) -> Callable[[DropBehind, int], None]:
        return lambda self, position: calls.append((name, self.handle, position))

    for name in ("seek", "advance"):
        monkeypatch.setattr(DropBehind, name, record(name))
    (tmp_path / "x").write_bytes(b"0123456789")
    with open(tmp_path / "x", "rb") as file, open(tmp_path / "x", "rb") as other:
        one, two = file.fileno(), other.fileno()
        for handle, start, end in ((one, 1, 6), (one, 6, 8), (two, 0, 2)):
            checksum = sha256_bytes(b"0123456789"[start:end])
            read_part(handle, StoredPart(Part.of_object(HASH, end - start), checksum, start))
    assert calls == [
        ("seek", one, 1),
        ("advance", one, 5),
        ("advance", one, 6),
        ("seek", one, 6),
        ("advance", one, 8),
        ("seek", two, 0),
        ("advance", two, 2),
    ]


@pytest.mark.parametrize(
    ("cores", "size"),
    [(None, 2 << 20), (1, 2 << 20), (4, 2 << 20), (8, 1 << 20), (128, 64 << 10), (999, 64 << 10)],
)
def test_buffers_of_many_threads_stay_small(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, size: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert len(volume_reader._ThreadState().buffer) == size


def test_damaged_parts_are_told_from_good_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(40))
    path = tmp_path / "x"
    path.write_bytes(data)
    stored = [
        StoredPart(Part(HASH, 100, at, 10), sha256_bytes(data[at : at + 10]), at)
        for at in (0, 10, 20, 30)
    ]
    assert damaged_parts(path, stored) == []
    changed = bytearray(data)
    changed[15] ^= 1
    path.write_bytes(changed[:39])
    assert damaged_parts(path, stored) == [stored[1], stored[3]]

    def preadv(*_words: object) -> int:
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(OSError, match="x"):  # not damage: the medium cannot be read
        damaged_parts(path, stored)


# -- the files of a medium


def test_files_are_found_in_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for name in (
        *("one/b.gfv", "one/A.GFV", "one/.hidden.gfv", "one/c.json", "one/z/x.gfv"),
        *("one/a/y.gfv", "one/a/w.gfv", "two/0.gfv"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (one / "link").symlink_to(two)
    file, absent = tmp_path / "c.bin", tmp_path / "absent"
    file.write_bytes(b"")
    found = list(find_files([file, one, absent, two], ".gfv"))
    assert found == [
        file,
        *(one / name for name in ("A.GFV", "b.gfv", "a/w.gfv", "a/y.gfv", "z/x.gfv")),
        absent,
        two / "0.gfv",
    ]
