"""Packing to and unpacking on real disks that are too small, or read-only (needs root for mounts)."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundles import PRESET, carry, hashes, receive, sender, site_at
from gapforge.base.errors import StorageError
from gapforge.base.project import Project
from gapforge.bundle.companion_files import companion_bytes
from gapforge.store.verify_artifacts import verify
from media import carried, gapforge, tree
from places import unmount

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Gives a function that mounts a tmpfs called so, with these options."""
    mounted: list[Path] = []

    def mount(name: str, options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        unmount(folder)


def test_small_sticks_and_a_small_site(tmp_path: Path, disk: Callable[[str, str], Path]) -> None:
    chance = random.Random(1)
    made = sender(tmp_path, {f"sources/{n}": chance.randbytes(700_000) for n in range(11)})
    one, two = disk("one", "size=6m"), disk("two", "size=6m")
    with pytest.raises(StorageError, match="do not fit"):
        carry(made, one, size=1_000_000)
    assert not list(one.iterdir())
    packed = carry(made, one, two, size=1_000_000)
    assert set(packed.folders.values()) == {one, two}
    for stick in (one, two):
        subprocess.run(["mount", "-o", "remount,ro", str(stick)], check=True)
    small = disk("small", "size=6m")
    (small / "site").mkdir()
    site = Project(small / "site", small / "site" / "artifacts")
    with pytest.raises(StorageError, match=r"are needed and .* are free"):
        receive(site, one, two)
    assert hashes(site) == set()
    first = receive(site, one)  # what fits is taken
    assert not first.complete and first.missing_volumes and first.imported
    subprocess.run(["mount", "-o", "remount,size=12m", str(small)], check=True)
    assert receive(site, two, one).complete and hashes(site) == made.objects
    assert verify(site.artifacts_of(PRESET)).ok


def test_damaged_volumes_on_a_full_stick_are_written_again(
    tmp_path: Path, disk: Callable[[str, str], Path]
) -> None:
    """A damaged volume's room is that of the new one, so both are never there at a time."""
    made = sender(tmp_path, {f"sources/{n}": random.Random(n).randbytes(900_000) for n in range(4)})
    stick = disk("stick", "size=8m")
    want = carry(made, tmp_path / "want", size=2_000_000)
    carry(made, stick, size=2_000_000)
    for file in stick.glob("*.gfv"):
        data = bytearray(file.read_bytes())
        data[1000] ^= 1
        file.write_bytes(data)
    status = os.statvfs(stick)
    # What pack wants besides, each volume's last cluster, and the page that the file which takes the rest may not fill.
    room = companion_bytes(want.plan) + len(want.plan.volumes) * (64 << 10) + status.f_frsize
    assert room < 2_000_000, "a further volume would fit"
    with open(stick / "films", "wb") as file:
        file.write(bytes(status.f_bavail * status.f_frsize - room))
    carry(made, stick, size=2_000_000)
    for number in range(1, len(want.plan.volumes) + 1):
        name = f"{want.plan.bundle}-{number:04}.gfv"
        assert (stick / name).read_bytes() == (tmp_path / "want" / name).read_bytes()


def test_packing_on_a_read_only_disk(tmp_path: Path, disk: Callable[[str, str], Path]) -> None:
    made, stick = sender(tmp_path), disk("stick", "size=5m")
    subprocess.run(["mount", "-o", "remount,ro", str(stick)], check=True)
    with pytest.raises(StorageError, match="read-only"):
        carry(made, stick, size=100_000)
    assert receive(site_at(tmp_path / "site"), _packed(tmp_path)).complete


def full_on_the_way(disk: Callable[[str, str], Path], name: str, files: int) -> Path:
    """A disk with room for bytes, as a look at it says, and for so many files only: full while it is written."""
    return disk(name, f"size=60m,nr_inodes={files}")


def more_room(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,nr_inodes=10000", str(folder)], check=True)


def test_a_stick_that_fills_up_while_it_is_packed(
    tmp_path: Path, disk: Callable[[str, str], Path]
) -> None:
    made = sender(tmp_path, {f"sources/{n}": random.Random(n).randbytes(900_000) for n in range(6)})
    before = tree(made.project.artifacts)
    stick = full_on_the_way(disk, "stick", 3)
    words = ["pack", PRESET, "--volume-size", "1M", "--to", stick]
    said = gapforge(made.project.root, *words, code=15)
    assert f"{stick}/" in said and "the disk is full" in said and f"(df -h {stick})" in said
    kept = carried(stick)
    assert kept and all(name.endswith(".gfv") and name[0] != "." for name in kept), (
        "what is whole stays, nothing else"
    )
    assert tree(made.project.artifacts) == before
    more_room(stick)
    assert f"{len(kept)} volumes already existed" in gapforge(made.project.root, *words)
    gapforge(made.project.root, "pack", PRESET, "--volume-size", "1M", "--to", tmp_path / "want")
    assert kept.items() < carried(stick).items() and carried(stick) == carried(tmp_path / "want")


def test_a_site_that_fills_up_while_it_is_unpacked(
    tmp_path: Path, disk: Callable[[str, str], Path]
) -> None:
    made = sender(tmp_path, {f"sources/{n}": random.Random(n).randbytes(90_000) for n in range(20)})
    carry(made, tmp_path / "stick", size=400_000)
    for files in (
        12,
        25,
        40,
        60,
    ):  # in the store's first folders, among the objects, and while the preset is laid out
        folder = full_on_the_way(disk, f"disk{files}", files)
        site = site_at(folder / "site")
        said = gapforge(site.root, "unpack", tmp_path / "stick", code=15)
        assert (
            str(folder) in said
            and "the disk is full" in said
            and "run the same command again" in said
        )
        assert (
            hashes(site) <= made.objects
            and not site.artifacts_of(PRESET).joinpath("lock.json").exists()
        )
        more_room(folder)
        gapforge(site.root, "unpack", tmp_path / "stick")
        gapforge(site.root, "verify", PRESET)
        assert hashes(site) >= made.objects and not list((site.store / "partial").iterdir())


def test_disks_that_are_full_or_read_only_from_the_start(
    tmp_path: Path, disk: Callable[[str, str], Path]
) -> None:
    made = sender(tmp_path, {f"sources/{n}": random.Random(n).randbytes(900_000) for n in range(6)})
    good = tmp_path / "good"
    gapforge(made.project.root, "pack", PRESET, "--volume-size", "1M", "--to", good)
    small, locked = disk("small", "size=2m"), disk("locked", "size=20m")
    said = gapforge(
        made.project.root, "pack", PRESET, "--volume-size", "1M", "--to", small, code=15
    )
    assert (
        "the volumes do not fit" in said
        and "next: name a further folder with --to" in said
        and not list(small.iterdir())
    )
    (small / "site").mkdir()
    site = Project(small / "site", small / "site" / "artifacts")
    said = gapforge(site.root, "unpack", good, code=15)
    assert "are needed and" in said and "nothing was imported" in said and hashes(site) == set()
    here = site_at(locked / "site")
    gapforge(here.root, "unpack", *sorted(good.glob("*.gfv"))[:2], code=21)
    before = tree(locked)
    subprocess.run(["mount", "-o", "remount,ro", str(locked)], check=True)
    said = gapforge(
        made.project.root, "pack", PRESET, "--volume-size", "1M", "--to", locked / "stick", code=15
    )
    assert "the file system is read-only" in said and str(locked) in said
    said = gapforge(here.root, "unpack", good, code=15)
    assert "the file system is read-only" in said and str(locked) in said
    assert tree(locked) == before
    subprocess.run(["mount", "-o", "remount,rw", str(locked)], check=True)
    gapforge(here.root, "unpack", good)
    gapforge(here.root, "verify", PRESET)


def _packed(folder: Path) -> Path:
    carry(sender(folder / "again"), folder / "plain", size=100_000)
    return folder / "plain"
