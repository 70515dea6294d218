"""Sticks and sites on real FAT32 and exFAT file systems (through FUSE; needs root)."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from bundles import PRESET, carried, carry, hashes, sender, site_at
from fabricated_artifacts import write_lock
from gapforge.base.project import Project
from gapforge.bundle import disk_space
from gapforge.bundle.import_objects import StoreBatch
from gapforge.bundle.volume_writer import _VolumeFile
from gapforge.model.lock import Entry
from gapforge.store.store import Store
from gapforge_process import Method, argv, environment, gapforge, run_and_kill, tree
from mounts import drivers, exfat, fat, image, need, run

MB = 1_000_000


def files(count: int, size: int) -> dict[str, bytes]:
    return {f"sources/{n}": random.Random(n).randbytes(size) for n in range(count)}


def test_largest_fat32_volume_fits_on_fat32(tmp_path: Path) -> None:
    """FAT32 takes a file of the limit and its checker finds no fault. It refuses 4 GiB."""
    need("mkfs.vfat", "fsck.vfat", "mcopy")
    if shutil.disk_usage(tmp_path).free < 5 << 30:
        pytest.skip("needs 5 GiB of disk")
    stick = image(tmp_path / "stick.img", 4_400 << 20, "mkfs.vfat", "-F", "32", "-s", "128")
    name = "0123456789abcdef01234567-0001.gfv"
    for size, taken in ((disk_space.FAT_LIMIT, True), (1 << 32, False)):
        volume = tmp_path / name
        with open(volume, "wb") as file:
            file.truncate(size)
        said = run("mcopy", "-o", "-i", stick, volume, "::/", code=None)
        listed = run("mdir", "-b", "-i", stick)
        assert (name in listed) is taken and ("too big" in said) is not taken, said + listed
        if taken:
            assert f" 1 files, {(disk_space.FAT_LIMIT >> 16) + 1}/" in run("fsck.vfat", "-n", stick)
            run("mdel", "-i", stick, f"::/{name}")
    stick.unlink()  # pytest would keep its 4 GiB


def test_bundle_survives_copies_over_fat32(tmp_path: Path) -> None:
    """Pack, copy the volumes to FAT32 and back with mtools, and unpack."""
    need("mkfs.vfat", "fsck.vfat", "mcopy")
    made = sender(tmp_path, files(6, 900_000))
    gapforge(made.project.root, "pack", PRESET, "--volume-size", "1M", "--to", tmp_path / "out")
    stick = image(tmp_path / "stick.img", 300 << 20, "mkfs.vfat", "-F", "32")
    run("mcopy", "-s", "-i", stick, tmp_path / "out", "::/")
    run("fsck.vfat", "-n", stick)
    run("mcopy", "-s", "-i", stick, "::/out", tmp_path / "back")
    assert carried(tmp_path / "back") == carried(tmp_path / "out")
    site = site_at(tmp_path / "site")
    gapforge(site.root, "unpack", tmp_path / "back")
    gapforge(site.root, "verify", PRESET)


def test_pack_to_and_unpack_from_fat32(tmp_path: Path) -> None:
    need("mkfs.vfat", "fsck.vfat", "fusefat")
    made = sender(tmp_path, files(6, 900_000))
    carry(made, tmp_path / "want", size=2 * MB)
    stick = image(tmp_path / "stick.img", 300 << 20, "mkfs.vfat", "-F", "32")
    with fat(tmp_path / "stick", stick) as folder:
        assert disk_space.file_system(folder) == "fuse.fusefat"
        gapforge(made.project.root, "pack", PRESET, "--volume-size", "2M", "--to", folder)
    run("fsck.vfat", "-n", stick)
    with fat(tmp_path / "again", stick) as folder:
        assert carried(folder) == carried(tmp_path / "want")
        site = site_at(tmp_path / "site")
        gapforge(site.root, "unpack", folder)
        gapforge(site.root, "verify", PRESET)


def test_pack_refuses_volumes_above_the_fat_limit(tmp_path: Path) -> None:
    """A volume of 5 GB is refused before the object is read or a byte is written."""
    need("mkfs.vfat", "fusefat")
    made = sender(tmp_path, {"sources/small": b"small"})
    huge = made.project.artifacts_of(PRESET) / "sources/huge"
    with open(huge, "wb") as file:
        # A checksum mismatch, so reading it would be another error.
        file.truncate(5_000_000_000)
    lock = made.lock()
    entry = Entry(
        kind="source", path="sources/huge", sha256="ab" * 32, size=5_000_000_000, origin="generated"
    )
    write_lock(made.project, dataclasses.replace(lock, entries=(entry, *lock.entries)))
    with fat(
        tmp_path / "stick", image(tmp_path / "stick.img", 300 << 20, "mkfs.vfat", "-F", "32")
    ) as folder:
        for more in ([], ["--dry-run"]):
            said = gapforge(
                made.project.root,
                "pack",
                PRESET,
                "--volume-size",
                "8G",
                "--to",
                folder,
                *more,
                code=15,
            )
            assert str(folder) in said and str(disk_space.FAT_LIMIT) in said
            assert "--volume-size fat32" in said and not list(folder.iterdir())
        gapforge(
            made.project.root, "pack", PRESET, "--volume-size", "fat32", "--to", folder, code=15
        )
        assert not list(folder.iterdir())


def test_pack_explains_a_file_size_limit(tmp_path: Path) -> None:
    """The system refuses bytes beyond a limit that mountinfo does not show."""
    made = sender(tmp_path, files(6, 900_000))
    words = argv("pack", PRESET, "--volume-size", "4M", "--to", tmp_path / "stick")
    limit = f'ulimit -f {3 * MB // 1024}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", limit, "bash", *words],
        env=environment(made.project.root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 15, done.stderr
    assert "4 GiB" in done.stderr and "--volume-size fat32" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "stick").glob("*.gfv"))
    assert not list((tmp_path / "stick").glob(".*.part"))
    gapforge(made.project.root, "pack", PRESET, "--volume-size", "2M", "--to", tmp_path / "stick")


def test_pack_to_and_unpack_from_exfat(tmp_path: Path) -> None:
    need("mkfs.exfat", "mount.exfat-fuse", "losetup")
    made = sender(tmp_path, files(6, 900_000))
    carry(made, tmp_path / "want", size=2 * MB)
    stick = image(tmp_path / "stick.img", 100 << 20, "mkfs.exfat")
    with exfat(tmp_path / "stick", stick) as folder:
        assert disk_space.max_file_size(folder) == 0 and not Store(folder).links()
        shutil.rmtree(folder / "partial")
        gapforge(made.project.root, "pack", PRESET, "--volume-size", "2M", "--to", folder)
    with exfat(tmp_path / "again", stick) as folder:  # as after unplugging the stick
        assert carried(folder) == carried(tmp_path / "want")
        gapforge(made.project.root, "pack", PRESET, "--volume-size", "2M", "--to", folder)
        site = site_at(tmp_path / "site")
        gapforge(site.root, "unpack", folder)
        gapforge(site.root, "verify", PRESET)


def test_site_on_exfat_uses_copies(tmp_path: Path) -> None:
    """There are no hard links on exFAT: the copies are reported and counted."""
    need("mkfs.exfat", "mount.exfat-fuse", "losetup")
    made = sender(tmp_path, files(20, 900_000))
    gapforge(made.project.root, "pack", PRESET, "--volume-size", "4M", "--to", tmp_path / "out")
    volumes = sorted((tmp_path / "out").glob("*.gfv"))
    disk = image(tmp_path / "disk.img", 60 << 20, "mkfs.exfat")
    with exfat(tmp_path / "disk", disk) as folder:
        site = site_at(folder / "site")
        room = os.statvfs(folder)
        filler = folder / "films"
        filler.write_bytes(bytes(room.f_bavail * room.f_frsize - 25 * MB))
        said = gapforge(site.root, "unpack", tmp_path / "out", code=15)
        assert str(folder) in said and hashes(site) == set()
        filler.unlink()
        gapforge(site.root, "unpack", *volumes[:2], code=21)
        gapforge(site.root, "gc", "--yes")
        said = gapforge(site.root, "unpack", *volumes[2:])
        count = len(tree(site.artifacts_of(PRESET)))
        note = rf"\b{count} files \(18\.0 MB\)"
        assert re.search(note, said), said
        assert re.search(note, gapforge(site.root, "unpack", tmp_path / "out"))
        gapforge(site.root, "verify", PRESET)
        objects = hashes(site)
        gapforge(site.root, "gc", "--yes")
        assert hashes(site) == objects
        used = room.f_bavail - os.statvfs(folder).f_bavail
        assert 36 * MB < used * room.f_frsize < 39 * MB
    with exfat(tmp_path / "again", disk) as folder:
        site = Project(folder / "site", folder / "site/artifacts")
        gapforge(site.root, "verify", PRESET)
        assert hashes(site) >= made.objects and not list((site.store / "partial").iterdir())


@pytest.mark.parametrize(
    "at",
    [
        # Objects are written, but none has its name.
        (StoreBatch.add, 2),
        # The objects of two volumes have their names.
        (Store.add_all, 2),
        # The preset is being laid out.
        (Store.place, 5),
    ],
    ids=["written", "named", "laid-out"],
)
def test_killed_import_on_exfat_is_completed(tmp_path: Path, at: tuple[Method, int]) -> None:
    need("mkfs.exfat", "mount.exfat-fuse", "losetup")
    made = sender(tmp_path, files(12, 900_000))
    carry(made, tmp_path / "out", size=3 * MB)
    with exfat(tmp_path / "disk", image(tmp_path / "disk.img", 60 << 20, "mkfs.exfat")) as folder:
        site = site_at(folder / "site")
        code, said = run_and_kill(site.root, at, "unpack", tmp_path / "out")
        assert code == -signal.SIGKILL, said
        here = hashes(site)  # asserts the checksum of every object
        assert bool(here) == (at[0] != StoreBatch.add)
        assert (here >= made.objects) == (at[0] == Store.place)
        assert not site.artifacts_of(PRESET).joinpath("lock.json").exists()
        gapforge(site.root, "unpack", tmp_path / "out")
        gapforge(site.root, "verify", PRESET)
        assert not list((site.store / "partial").iterdir())


def test_unplugged_stick_is_reported_and_continued(tmp_path: Path) -> None:
    """Kill the FUSE program during pack and unpack, as if the stick had been unplugged."""
    need("mkfs.exfat", "mount.exfat-fuse", "losetup")
    made = sender(tmp_path, files(60, 900_000))
    carry(made, tmp_path / "want", size=5 * MB)
    before = tree(made.project.artifacts)
    stick = image(tmp_path / "stick.img", 200 << 20, "mkfs.exfat")
    with exfat(tmp_path / "stick", stick) as folder:
        second_volume = (_VolumeFile.write, 10)
        said = unplugged(
            made.project.root,
            folder,
            second_volume,
            "pack",
            PRESET,
            "--volume-size",
            "5M",
            "--to",
            folder,
        )
    assert str(tmp_path / "stick") in said
    assert tree(made.project.artifacts) == before
    with exfat(tmp_path / "again", stick) as folder:
        gapforge(made.project.root, "pack", PRESET, "--volume-size", "5M", "--to", folder)
        assert carried(folder) == carried(tmp_path / "want")
        site = site_at(tmp_path / "site")
        two_are_imported = (Store.add_all, 2)
        said = unplugged(site.root, folder, two_are_imported, "unpack", folder)
    assert 0 < len(hashes(site)) < len(made.objects)
    with exfat(tmp_path / "third", stick) as folder:
        gapforge(site.root, "unpack", folder)
    gapforge(site.root, "verify", PRESET)
    assert hashes(site) >= made.objects and not list((site.store / "partial").iterdir())


def unplugged(root: Path, folder: Path, at: tuple[Method, int], *words: str | Path) -> str:
    """Run a command, unplug its stick early, and return the output."""
    (driver,) = drivers(folder)
    code, said = run_and_kill(root, at, *words, victim=driver)
    assert code in (15, 21) and "Traceback" not in said, said
    return said
