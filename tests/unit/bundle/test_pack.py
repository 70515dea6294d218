"""In which order pack writes what, and what it removes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bundles import PRESET, Sender, sender
from gapforge.base.errors import BusyError
from gapforge.base.process_locks import exclusive
from gapforge.base.progress import Progress
from gapforge.bundle import pack as packing
from gapforge.bundle.companion_files import CompanionFiles
from gapforge.bundle.contents import preset_contents
from gapforge.bundle.pack import Packed, pack
from gapforge.bundle.receiver_program import RECEIVER, receiver_bytes
from gapforge.bundle.volume_plan import make_plan
from gapforge.model import preset as documents

SIZE = 3000


class Signer:
    """A signer that notes when it is asked."""

    def __init__(self, events: list[Any]) -> None:
        self.events = events

    def prepare(self, project: object, plan: Any, contents: object, to: object) -> dict[str, bytes]:
        self.events.append("prepare")
        return {"prepared": b"prepared"}

    def finish(self, plan: Any, volumes: Sequence[Any]) -> CompanionFiles:
        self.events.append("finish")
        return CompanionFiles({"index": b"index", "sig": b"sig"}, stale=("old", "older"))


class World:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: Sender = sender(folder, {f"sources/{n}": bytes([n]) * 2000 for n in range(4)})
        self.to, self.state = folder / "to", self.made.project.state / "bundles"
        project = self.made.project
        self.contents = preset_contents(project, [documents.find(project.presets, PRESET)])
        self.plan = make_plan(self.contents.parts, self.contents.presets, SIZE)
        self.events: list[Any] = []
        self.placed: list[dict[str, Any]] = []
        self.progress = Progress("pack", quiet=True)
        place, write = packing.place_volumes, packing.write_companion

        def placing(*words: Any, **named: Any) -> Any:
            self.placed.append(named)
            return place(*words, **named)

        def writing(target: Path, data: bytes) -> None:
            write(target, data)
            self.events.append(target)

        monkeypatch.setattr(packing, "place_volumes", placing)
        monkeypatch.setattr(packing, "write_companion", writing)

    def pack(self, *to: Path, signer: Signer | None = None) -> Packed:
        self.events.clear()
        self.progress.done = self.progress.total = 0
        return pack(
            self.made.project,
            self.plan,
            self.contents,
            to or (self.to,),
            self.progress,
            signer,  # type: ignore[arg-type]
        )

    def volume(self, number: int, folder: Path | None = None) -> Path:
        return (folder or self.to) / f"{self.plan.bundle}-{number:04}.gfv"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_signed_files_are_kept_before_they_are_handed_out(world: World) -> None:
    for folder in (world.state, world.to):
        folder.mkdir(parents=True)
        for name in ("old", "older", "mine"):
            (folder / name).write_bytes(b"")
    packed = world.pack(signer=Signer(world.events))
    assert world.events == [
        "prepare",
        world.state / "prepared",
        "finish",
        *(folder / name for folder in (world.state, world.to) for name in ("index", "sig")),
        world.to / RECEIVER,
    ]
    assert world.placed == [{"signatures": 2, "listed": 4}]
    for folder in (world.state, world.to):
        assert not (folder / "old").exists() and not (folder / "older").exists()
        assert (folder / "mine").exists() and (folder / "index").read_bytes() == b"index"
    assert (world.to / RECEIVER).read_bytes() == receiver_bytes()
    assert packed.companions.stale == ("old", "older")
    world.pack()
    assert world.placed[1] == {"signatures": 0, "listed": 4}


def test_work_is_what_is_not_kept(world: World) -> None:
    count = len(world.plan.volumes)
    packed = world.pack()
    assert packed.kept == () and packed.plan is world.plan
    assert [entry.number for entry in packed.volumes] == list(range(1, count + 1))
    assert packed.folders == dict.fromkeys(range(1, count + 1), world.to)
    assert packed.index == (world.to / f"{world.plan.bundle}.json",)
    assert world.progress.total == sum(map(world.plan.size, world.plan.numbers))
    world.volume(2).unlink()
    again = world.pack()
    assert again.kept == (1, *range(3, count + 1))
    assert world.progress.total == world.plan.size(2)
    assert again.volumes == packed.volumes


def test_leftovers_and_damaged_volumes_are_removed_from_every_folder(
    world: World, tmp_path: Path
) -> None:
    """Their space was counted for the new ones; those of other bundles stay."""
    other = tmp_path / "other"
    world.pack()
    other.mkdir()
    world.volume(1).write_bytes(b"damaged")
    good = world.volume(2).read_bytes()
    world.volume(2, other).write_bytes(b"a damaged copy of a good volume")
    world.volume(1, other).write_bytes(b"damaged")
    left = [
        folder / f".{world.volume(number).name}.x1234567.part"
        for folder in (world.to, other)
        for number in (1, len(world.plan.volumes))
    ]
    kept = [other / f".{'0' * 24}-0001.gfv.x1234567.part", other / f".{world.volume(1).name}"]
    for file in (*left, *kept):
        file.write_bytes(b"")
    packed = world.pack(world.to, other)
    assert not any(file.exists() for file in left) and all(file.exists() for file in kept)
    assert packed.folders[1] == world.to and not world.volume(1, other).exists()
    assert world.volume(2).read_bytes() == good and world.volume(2, other).exists()
    assert set(packed.kept) == set(world.plan.numbers) - {1}


def test_index_and_receiver_are_in_each_folder_with_a_volume(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, folders = packing.place_volumes, [tmp_path / name for name in ("one", "two", "empty")]

    def halves(plan: Any, to: Sequence[Path], **named: Any) -> Any:
        placed = place(plan, to, **named)
        chosen = {number: folders[number % 2] for number in plan.numbers}
        return packing.Placement(chosen, placed.kept)

    monkeypatch.setattr(packing, "place_volumes", halves)
    packed = world.pack(*folders)
    index = f"{world.plan.bundle}.json"
    assert packed.index == (folders[1] / index, folders[0] / index)
    for folder in folders[:2]:
        assert (folder / index).is_file() and (folder / RECEIVER).is_file()
    assert list(folders[2].iterdir()) == []


def test_one_pack_of_a_bundle_at_a_time(world: World, tmp_path: Path) -> None:
    world.state.mkdir(parents=True)
    with exclusive(world.state / f"{world.plan.bundle}.lock", "x"), pytest.raises(BusyError):
        world.pack()
    assert not world.to.exists()
    world.pack(tmp_path / "deep/er")
