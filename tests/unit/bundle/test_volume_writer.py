"""Volumes contain exactly the parts of the plan, and are named only after all is verified."""

from __future__ import annotations

import hashlib
import os
import random
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from gapforge.base.errors import BundleError
from gapforge.base.files import sha256_bytes
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.bundle import volume_writer
from gapforge.bundle.contents import Contents, _Source
from gapforge.bundle.place_volumes import KeptVolume, Placement
from gapforge.bundle.volume_format import BundledPreset, Part
from gapforge.bundle.volume_plan import Plan, make_plan
from gapforge.bundle.volume_reader import damaged_parts, read_volume
from gapforge.bundle.volume_writer import VolumeWriter
from gapforge.store.store import Store
from raised_errors import assert_error, values_of

SIZE = 2500  # bytes of a volume
PRESETS = (BundledPreset("one", "1" * 64, "2" * 64), BundledPreset("two", "3" * 64, "4" * 64))


class World:
    """Objects in a store, their plan, and a folder for the volumes."""

    def __init__(self, folder: Path, *objects: bytes, size: int = SIZE) -> None:
        self.project = Project(folder / "project", folder / "project/artifacts")
        self.store, self.to = Store(self.project.store), folder / "medium"
        self.to.mkdir()
        self.objects = {sha256_bytes(data): data for data in objects}
        for data in objects:
            self.store.add_bytes(data)
        parts = [Part.of_object(sha256, len(data)) for sha256, data in self.objects.items()]
        self.plan: Plan = make_plan(parts, PRESETS, size)
        self.contents = Contents(project=self.project, parts=parts, presets=list(PRESETS))
        self.progress = Progress("pack", quiet=True)

    def path(self, number: int) -> Path:
        return self.to / f"{self.plan.bundle}-{number:04}.gfv"

    def writer(self, *kept: int) -> VolumeWriter:
        held = {}
        for number in kept:
            volume, stored = read_volume(self.path(number))
            entry = volume_writer.VolumeEntry(number, volume.size, volume.index_sha256)
            held[number] = KeptVolume(entry, {each.part: each.sha256 for each in stored})
        folders = dict.fromkeys(self.plan.numbers, self.to)
        return VolumeWriter(self.plan, self.contents, Placement(folders, held), self.progress)

    def write(self, *kept: int) -> Any:
        with self.writer(*kept) as writer:
            return writer.run()

    def payloads(self) -> list[bytes]:
        """Return the bytes of the parts of each volume, as the plan wants them."""
        return [
            b"".join(self.objects[part.sha256][part.offset : part.end] for part in parts)
            for parts in self.plan.volumes
        ]

    def check(self, entries: Any) -> None:
        """Check every byte of every volume."""
        assert [entry.number for entry in entries] == list(self.plan.numbers)
        assert sorted(self.to.iterdir()) == [self.path(n) for n in self.plan.numbers]
        for entry, payload in zip(entries, self.payloads(), strict=True):
            path = self.path(entry.number)
            volume, stored = read_volume(path)
            assert volume.identity == self.plan.identity(entry.number)
            assert [each.part for each in stored] == list(self.plan.volumes[entry.number - 1])
            assert damaged_parts(path, stored) == []
            assert path.read_bytes()[16 : 16 + len(payload)] == payload
            assert (entry.size, entry.sha256) == (volume.size, volume.index_sha256)
            assert entry.size == path.stat().st_size == self.plan.size(entry.number)


@pytest.fixture(params=["small", "large"])
def copying(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Copy objects from memory, or in chunks that are smaller than most parts."""
    way: str = request.param
    monkeypatch.setattr(volume_writer, "SMALL", 1 << 20 if way == "small" else 0)
    monkeypatch.setattr(volume_writer, "_BUFFER", 700)
    return way


def objects(*sizes: int) -> list[bytes]:
    chance = random.Random(3)
    return [chance.randbytes(size) for size in sizes]


@pytest.mark.parametrize(
    "sizes",
    [
        (),
        (0,),
        (0, 1, 700, 701, 1400),
        (9000,),
        (700, 1400, 2100, 5000),
        (1, 2, 3, 9000, 4, 5, 6, 3000),
        (*range(20),),
    ],
)
def test_volumes_contain_the_parts_of_the_plan(
    tmp_path: Path, copying: str, sizes: tuple[int, ...]
) -> None:
    world = World(tmp_path, *objects(*sizes))
    world.check(world.write())
    assert world.progress.done == sum(sizes)


def test_kept_volumes_are_not_written_again(tmp_path: Path, copying: str) -> None:
    world = World(tmp_path, *objects(9000, 10, 700, 300))
    first = world.write()
    count = len(world.plan.volumes)
    assert count > 4
    for kept in ((1,), (count,), (2, 3), tuple(world.plan.numbers), tuple(range(1, count, 2))):
        before = {number: world.path(number).stat().st_ino for number in kept}
        for number in set(world.plan.numbers) - set(kept):
            world.path(number).unlink()
        world.progress.done = 0
        entries = world.write(*kept)
        assert entries == first
        world.check(entries)
        assert {number: world.path(number).stat().st_ino for number in kept} == before
        written = [n for n in world.plan.numbers if n not in kept]
        assert world.progress.done == sum(len(world.payloads()[n - 1]) for n in written)


def test_only_what_is_needed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object in kept volumes is read if a volume has only a part of it."""
    world = World(tmp_path, *objects(100, 200, 9000))
    world.write()
    read: list[str] = []
    real = Contents.path
    monkeypatch.setattr(
        Contents, "path", lambda self, part: read.append(part.sha256) or real(self, part)
    )
    world.write(*world.plan.numbers)
    split = {part.sha256 for parts in world.plan.volumes for part in parts if not part.whole}
    assert set(read) == split and split < set(world.objects)


def test_texts_are_not_read_from_files(tmp_path: Path, copying: str) -> None:
    """Locks and checksums are written from memory, whatever their size is."""
    data = objects(3000, 10)
    world = World(tmp_path, *data)
    for each in data:
        world.store.path(sha256_bytes(each)).unlink()
        world.contents.texts[sha256_bytes(each)] = each
    world.check(world.write())


@pytest.mark.parametrize("size", [700, 9000])
@pytest.mark.parametrize("change", ["other bytes", "longer", "shorter"])
def test_object_that_does_not_match_names_no_volume(
    tmp_path: Path, copying: str, monkeypatch: pytest.MonkeyPatch, size: int, change: str
) -> None:
    (data,) = objects(size)
    world = World(tmp_path, data, b"another")
    part = Part.of_object(sha256_bytes(data), size)
    wrong = {"other bytes": data[:-1] + b"\0", "longer": data + b"xy", "shorter": data[:-2]}[change]
    file = world.store.path(part.sha256)
    file.chmod(0o644)
    file.write_bytes(wrong)
    real = Contents.path
    monkeypatch.setattr(  # the size changes after it was compared
        Contents,
        "path",
        lambda self, each: file if each.sha256 == part.sha256 else real(self, each),
    )
    world.contents._sources[part.sha256] = _Source("the object")
    with pytest.raises(BundleError) as caught:
        world.write()
    # One byte more than expected is read of a small object, however long the file is.
    seen = wrong[: size + 1] if copying == "small" else wrong
    assert_error(caught.value, BundleError, name="the object", where=[str(file)])
    (fault,) = caught.value.faults
    assert values_of(fault.problem) == {"size": len(seen), "sha256": sha256_bytes(seen)}
    assert values_of(fault.expected) == {"size": size, "sha256": part.sha256}
    assert values_of(caught.value.hint) == {"presets": "one two"}
    assert [path for path in world.to.iterdir() if path.name.startswith(".")] == []
    for path in world.to.iterdir():
        assert part.sha256 not in {each.part.sha256 for each in read_volume(path)[1]}
    world.contents._sources[part.sha256] = _Source("the object", "two")
    with pytest.raises(BundleError) as caught:
        world.write()
    assert values_of(caught.value.hint) == {"presets": "two"}


def test_removed_object_is_named(tmp_path: Path, copying: str) -> None:
    data = objects(700, 9000)
    world = World(tmp_path, *data)
    for each in data:
        world.store.path(sha256_bytes(each)).unlink()
    with pytest.raises(BundleError) as caught:
        world.write()
    first = min(map(sha256_bytes, data))
    assert_error(caught.value, BundleError, name=world.contents.name(first))
    assert list(world.to.iterdir()) == []


def test_kept_volume_with_other_bytes_is_named(tmp_path: Path, copying: str) -> None:
    world = World(tmp_path, *objects(9000))
    world.write()
    (sha256,) = world.objects
    writer = world.writer(2)
    kept = writer.kept[2]
    (part,) = kept.checksums
    wrong = KeptVolume(kept.entry, {part: "0" * 64})
    with pytest.raises(BundleError) as caught, world.writer(2) as writer:
        writer.kept = {2: wrong}
        writer.run()
    name = world.contents.name(sha256)
    assert_error(caught.value, BundleError, path=world.path(2), name=name)
    assert values_of(caught.value.hint) == {"path": world.path(2)}


def test_volume_is_named_when_its_last_object_is_verified(
    tmp_path: Path, copying: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume whose last part goes on in the next one waits for that."""
    world = World(tmp_path, *objects(5000, 100, 100))
    named: list[tuple[int, str]] = []
    verified: list[str] = []
    verify, publish = VolumeWriter._verify, volume_writer._VolumeFile.publish
    monkeypatch.setattr(
        VolumeWriter,
        "_verify",
        lambda self, part, size, sha256: (
            verify(self, part, size, sha256),
            verified.append(part.sha256),
        ),
    )

    def publishing(self: Any) -> None:
        publish(self)
        assert {part.sha256 for part in world.plan.volumes[self.number - 1]} <= set(verified)
        named.append((self.number, self.target.name))

    monkeypatch.setattr(volume_writer._VolumeFile, "publish", publishing)
    world.check(world.write())
    assert named == [(n, world.path(n).name) for n in world.plan.numbers]


def test_file_that_takes_few_bytes_at_a_time_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, *objects(3000, 10))
    real = os.fdopen

    class Slow:
        """A file that writes at most 100 bytes at a time."""

        def __init__(self, *words: Any, **named: Any) -> None:
            self.file = real(*words, **named)

        def write(self, data: memoryview) -> int:
            return int(self.file.write(data[:100]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    monkeypatch.setattr(os, "fdopen", Slow)
    world.check(world.write())


def test_medium_that_was_removed_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files cannot be closed or removed then; the first error says so already."""
    world = World(tmp_path, *objects(3000))

    def gone(*_words: object, **_named: object) -> None:
        raise OSError("gone")

    writer = world.writer()

    def begin(writer: VolumeWriter) -> None:
        """Finish the first volume, and open the second one."""
        first = writer._volume(1)
        assert first is not None
        first.checksums = ["0" * 64] * len(world.plan.volumes[0])
        writer._volume(2)

    with pytest.raises(KeyboardInterrupt), writer:
        begin(writer)
        assert len(list(world.to.iterdir())) == 2
        monkeypatch.setattr(Path, "unlink", gone)
        raise KeyboardInterrupt
    monkeypatch.undo()
    with pytest.raises(KeyboardInterrupt), world.writer() as writer:
        begin(writer)
        raise KeyboardInterrupt
    assert len(list(world.to.iterdir())) == 2, "those of the first run"
    assert writer.open is not None and writer.open.file.closed
    assert [volume.file.closed for volume in writer.waiting] == [True]
    for thread in (writer.object_hash, writer.part_hash):
        with pytest.raises(RuntimeError):
            thread.finish(hashlib.sha256())
    with pytest.raises(RuntimeError):
        writer.pool.submit(int)


def test_objects_are_read_ahead_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few small ones; large ones wait for their turn."""
    monkeypatch.setattr(volume_writer, "SMALL", 100)
    monkeypatch.setattr(volume_writer, "_AHEAD", 3)
    data = objects(*range(95, 106))
    world = World(tmp_path, *data, size=100_000)
    large = b"y" * 500
    text = sha256_bytes(large)
    world.contents.texts[text] = large
    world.plan = make_plan([*world.contents.parts, Part.of_object(text, 500)], PRESETS, 100_000)
    submitted: list[str] = []
    with world.writer() as writer:
        submit = writer.pool.submit
        monkeypatch.setattr(
            writer.pool,
            "submit",
            lambda work, part: (submitted.append(part.sha256), submit(work, part))[1],
        )
        seen = []
        for count, (parts, future) in enumerate(writer._objects(), 1):
            (sha256,) = {part.sha256 for _number, part in parts}
            assert (future is not None) is (parts[0][1].size <= 100 or sha256 == text)
            if future is not None:
                assert sha256_bytes(future.result()) == sha256
            seen.append(sha256)
            order = [part.sha256 for part in world.plan.parts][: count + 2]
            ahead = [
                part.sha256 for part in world.plan.parts if part.size <= 100 or text == part.sha256
            ]
            assert submitted == [sha256 for sha256 in order if sha256 in ahead]
        assert seen == [part.sha256 for part in world.plan.parts]


# -- threads and buffers


def test_hashes_are_updated_in_order() -> None:
    thread = volume_writer._HashThread()
    one, two = hashlib.sha256(), hashlib.sha256()
    for number in range(50):
        thread.update(one, memoryview(bytes([number])))
        thread.update(two, memoryview(b"x"))
    assert thread.finish(one) == sha256_bytes(bytes(range(50)))
    assert thread.finish(two) == sha256_bytes(b"x" * 50)
    thread.close()
    with pytest.raises(RuntimeError):
        thread.finish(one)


def test_buffer_is_used_again_after_its_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_writer, "_BUFFER", 10)
    ring = volume_writer._BufferRing()
    waited: list[str] = []

    class Reader(Future[None]):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def result(self, timeout: float | None = None) -> None:
            waited.append(self.name)

    taken = []
    for number in range(4):
        taken.append(ring.take())
        for reader in "ab":
            ring.used_by(Reader(f"{number}{reader}"))
    assert len({id(buffer) for buffer in taken}) == 4 and waited == []
    assert {len(buffer) for buffer in taken} == {10}
    assert ring.take() is taken[0] and waited == ["0a", "0b"]
    ring.used_by(Reader("4"))
    assert [ring.take() is taken[number] for number in (1, 2, 3, 0)] == [True] * 4
    assert waited == ["0a", "0b", "1a", "1b", "2a", "2b", "3a", "3b", "4"]
