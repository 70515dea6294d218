"""Pack to and unpack on real disks that are too small or read-only (needs root for mounts)."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundles import PRESET, carried, carry, hashes, receive, sender, site_at
from gapforge.base.errors import StorageError
from gapforge.base.project import Project
from gapforge.bundle.companion_files import companion_bytes
from gapforge.store.verify_artifacts import verify
from gapforge_process import gapforge, tree
from mounts import unmount

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Return a function that mounts a tmpfs under a name with mount options."""
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


def test_bundle_needs_two_sticks_and_space(
    tmp_path: Path, disk: Callable[[str, str], Path]
) -> None:
    chance = random.Random(1)
    made = sender(tmp_path, {f"sources/{n}": chance.randbytes(700_000) for n in range(11)})
    # Each stick also holds the receiver program of almost 2 MB.
    one, two = disk("one", "size=7m"), disk("two", "size=7m")
    with pytest.raises(StorageError):
        carry(made, one, size=1_000_000)
    assert not list(one.iterdir())
    packed = carry(made, one, two, size=1_000_000)
    assert set(packed.folders.values()) == {one, two}
    for stick in (one, two):
        subprocess.run(["mount", "-o", "remount,ro", str(stick)], check=True)
    small = disk("small", "size=6m")
    (small / "site").mkdir()
    site = Project(small / "site", small / "site" / "artifacts")
    with pytest.raises(StorageError):
        receive(site, one, two)
    assert hashes(site) == set()
    first = receive(site, one)  # the volumes of one stick fit
    assert not first.complete and first.missing_volumes and first.imported
    subprocess.run(["mount", "-o", "remount,size=12m", str(small)], check=True)
    assert receive(site, two, one).complete and hashes(site) == made.objects
    assert verify(site.artifacts_of(PRESET)).ok


def test_pack_replaces_damaged_volumes_on_full_stick(
    tmp_path: Path, disk: Callable[[str, str], Path]
) -> None:
    """The new volume takes the space of the damaged one; both never exist at the same time."""
    size = 4_000_000
    made = sender(tmp_path, {f"sources/{n}": random.Random(n).randbytes(900_000) for n in range(8)})
    stick = disk("stick", "size=16m")
    want = carry(made, tmp_path / "want", size=size)
    carry(made, stick, size=size)
    for file in stick.glob("*.gfv"):
        data = bytearray(file.read_bytes())
        data[1000] ^= 1
        file.write_bytes(data)
    status = os.statvfs(stick)
    # The receiver and other small files, each volume's last cluster, and one page for "films".
    room = companion_bytes(want.plan) + len(want.plan.volumes) * (64 << 10) + status.f_frsize
    assert room < size, "another volume would fit"
    with open(stick / "films", "wb") as file:
        file.write(bytes(status.f_bavail * status.f_frsize - room))
    carry(made, stick, size=size)
    for number in range(1, len(want.plan.volumes) + 1):
        name = f"{want.plan.bundle}-{number:04}.gfv"
        assert (stick / name).read_bytes() == (tmp_path / "want" / name).read_bytes()


def test_pack_refuses_read_only_disk(tmp_path: Path, disk: Callable[[str, str], Path]) -> None:
    made, stick = sender(tmp_path), disk("stick", "size=5m")
    subprocess.run(["mount", "-o", "remount,ro", str(stick)], check=True)
    with pytest.raises(StorageError, match=str(stick)):
        carry(made, stick, size=100_000)
    assert receive(site_at(tmp_path / "site"), _packed(tmp_path)).complete


def disk_that_fills(disk: Callable[[str, str], Path], name: str, files: int) -> Path:
    """Mount a disk with enough free bytes but only ``files`` inodes, so that it fills up later."""
    return disk(name, f"size=60m,nr_inodes={files}")


def more_room(folder: Path) -> None:
    """Allow more files on the disk."""
    subprocess.run(["mount", "-o", "remount,nr_inodes=10000", str(folder)], check=True)


def test_pack_continues_after_a_full_stick(
    tmp_path: Path, disk: Callable[[str, str], Path]
) -> None:
    made = sender(tmp_path, {f"sources/{n}": random.Random(n).randbytes(900_000) for n in range(6)})
    before = tree(made.project.artifacts)
    stick = disk_that_fills(disk, "stick", 3)
    words = ["pack", PRESET, "--volume-size", "1M", "--to", stick]
    said = gapforge(made.project.root, *words, code=15)
    assert f"{stick}/" in said and f"df -h {stick}" in said
    kept = carried(stick)
    assert kept and all(name.endswith(".gfv") and name[0] != "." for name in kept)
    assert tree(made.project.artifacts) == before
    more_room(stick)
    times = {name: (stick / name).stat().st_mtime_ns for name in kept}
    gapforge(made.project.root, *words)
    assert times == {name: (stick / name).stat().st_mtime_ns for name in kept}
    gapforge(made.project.root, "pack", PRESET, "--volume-size", "1M", "--to", tmp_path / "want")
    assert kept.items() < carried(stick).items() and carried(stick) == carried(tmp_path / "want")


def test_unpack_continues_after_a_full_disk(
    tmp_path: Path, disk: Callable[[str, str], Path]
) -> None:
    made = sender(tmp_path, {f"sources/{n}": random.Random(n).randbytes(90_000) for n in range(20)})
    carry(made, tmp_path / "stick", size=400_000)
    # Full in the store's first folders, among the objects, and while the preset is laid out.
    for files in (12, 25, 40, 60):
        folder = disk_that_fills(disk, f"disk{files}", files)
        site = site_at(folder / "site")
        said = gapforge(site.root, "unpack", tmp_path / "stick", code=15)
        assert str(folder) in said
        assert hashes(site) <= made.objects
        assert not site.artifacts_of(PRESET).joinpath("lock.json").exists()
        more_room(folder)
        gapforge(site.root, "unpack", tmp_path / "stick")
        gapforge(site.root, "verify", PRESET)
        assert hashes(site) >= made.objects and not list((site.store / "partial").iterdir())


def test_full_and_read_only_disks_stay_unchanged(
    tmp_path: Path, disk: Callable[[str, str], Path]
) -> None:
    made = sender(tmp_path, {f"sources/{n}": random.Random(n).randbytes(900_000) for n in range(6)})
    good = tmp_path / "good"
    gapforge(made.project.root, "pack", PRESET, "--volume-size", "1M", "--to", good)
    small, locked = disk("small", "size=2m"), disk("locked", "size=20m")
    words = ["pack", PRESET, "--volume-size", "1M", "--to"]
    said = gapforge(made.project.root, *words, small, code=15)
    assert "--to" in said and not list(small.iterdir())
    (small / "site").mkdir()
    site = Project(small / "site", small / "site" / "artifacts")
    gapforge(site.root, "unpack", good, code=15)
    assert hashes(site) == set()
    here = site_at(locked / "site")
    gapforge(here.root, "unpack", *sorted(good.glob("*.gfv"))[:2], code=21)
    before = tree(locked)
    subprocess.run(["mount", "-o", "remount,ro", str(locked)], check=True)
    assert str(locked) in gapforge(made.project.root, *words, locked / "stick", code=15)
    assert str(locked) in gapforge(here.root, "unpack", good, code=15)
    assert tree(locked) == before
    subprocess.run(["mount", "-o", "remount,rw", str(locked)], check=True)
    gapforge(here.root, "unpack", good)
    gapforge(here.root, "verify", PRESET)


def _packed(folder: Path) -> Path:
    carry(sender(folder / "again"), folder / "plain", size=100_000)
    return folder / "plain"
