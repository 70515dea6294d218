"""Import onto disks without hard links, with small file limits or large clusters, also killed."""

from __future__ import annotations

import errno
import json
import os
import re
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from bundles import PRESET, carry, hashes, receive, sender, site_at
from gapforge.base.errors import StorageError
from gapforge.bundle import disk_space
from gapforge.bundle.disk_space import ImportSpace
from gapforge.bundle.place_volumes import place_volumes
from gapforge.bundle.volume_format import Part
from gapforge.cli import main as cli
from gapforge.store.store import Store
from gapforge.store.verify_artifacts import verify
from raised_errors import assert_error

SIZE = 40_000
Status = namedtuple("Status", "f_bavail f_frsize")


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


def mounts(monkeypatch: pytest.MonkeyPatch, file: Path, *points: tuple[Path | str, str]) -> None:
    lines = ["22 1 254:0 / / rw,relatime shared:1 master:7 - ext4 /dev/root rw", "garbage"]
    lines += [
        f"{n} 22 7:{n} / {point} rw - {kind} /dev/x rw"
        for n, (point, kind) in enumerate(points, 30)
    ]
    file.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(disk_space, "MOUNTS", file)


def test_disk_of_link_to_nothing_is_that_of_its_folder(tmp_path: Path) -> None:
    link = tmp_path / "unplugged"
    link.symlink_to(tmp_path / "gone/stick")
    assert disk_space.block_size(link) == disk_space.block_size(tmp_path)
    assert disk_space.disk_of(link)[0] == tmp_path.stat().st_dev


def test_file_system_is_that_of_the_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stick, odd = tmp_path / "stick", tmp_path / "a b"
    (stick / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to(stick)
    escaped = str(odd).replace(" ", "\\040")
    mounts(
        monkeypatch,
        tmp_path / "info",
        (stick, "ext4"),
        (stick, "vfat"),
        (escaped, "exfat"),
        (f"{stick}2", "msdos"),
    )
    assert disk_space.file_system(tmp_path) == "ext4"
    assert [
        disk_space.file_system(p)
        for p in (stick, stick / "in", stick / "not/there", tmp_path / "link")
    ] == ["vfat"] * 4
    assert (
        disk_space.file_system(odd / "x") == "exfat"
        and disk_space.file_system(Path(f"{stick}2")) == "msdos"
    )
    assert [disk_space.max_file_size(p) for p in (stick, odd, Path(f"{stick}2"), tmp_path)] == [
        2**32 - 2**16,
        0,
        2**32 - 2**16,
        0,
    ]
    monkeypatch.setattr(disk_space, "MOUNTS", tmp_path / "none")
    assert disk_space.file_system(stick) == "" and disk_space.max_file_size(stick) == 0


@pytest.mark.parametrize("kind", ["vfat", "msdos", "fuse.fusefat"])
def test_a_fat_stick_is_known_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    made = sender(tmp_path)
    monkeypatch.setattr(disk_space, "FAT_LIMIT", 70_000)
    mounts(monkeypatch, tmp_path / "info", (tmp_path / "stick", kind))
    monkeypatch.setenv("GAPFORGE_ROOT", str(made.project.root))
    (tmp_path / "stick").mkdir()
    for more in ([], ["--dry-run"]):
        assert (
            cli.main(
                ["pack", PRESET, "--volume-size", "80000", "--to", str(tmp_path / "stick"), *more]
            )
            == 15
        )
        said = capsys.readouterr().err
        assert "70000 bytes" in said and "--volume-size fat32" in said
        assert not list((tmp_path / "stick").iterdir())
    assert (
        cli.main(["pack", PRESET, "--volume-size", "70000", "--to", str(tmp_path / "stick")]) == 0
    )


def test_object_too_large_for_fat_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    site = site_at(tmp_path / "site")
    monkeypatch.setattr(disk_space, "FAT_LIMIT", 120_000)
    mounts(monkeypatch, tmp_path / "info", (tmp_path / "site", "vfat"))
    with pytest.raises(StorageError) as caught:
        receive(site, tmp_path / "stick")
    assert_error(caught.value, StorageError, limit=120_000, size=128_000)
    assert hashes(site) == set()


def test_disk_without_hard_links_is_reported_once(
    tmp_path: Path,
    no_links: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = sender(tmp_path)
    made.second()
    names = tuple(p.name for p in made.project.artifacts.iterdir())
    carry(made, tmp_path / "stick", size=SIZE, presets=names)
    site = site_at(tmp_path / "site")
    monkeypatch.setenv("GAPFORGE_ROOT", str(site.root))
    assert cli.main(["unpack", str(tmp_path / "stick")]) == 0
    files = [p for name in names for p in site.artifacts_of(name).rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files)
    said = capsys.readouterr().out
    assert len(re.findall(rf" {len(files)} files \([\d.]+ kB\) are copies", said)) == 1
    assert cli.main(["unpack", str(tmp_path / "stick"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["copies"] == {"files": len(files), "bytes": size}
    assert all(verify(site.artifacts_of(name)).ok for name in names)


def test_site_with_hard_links_reports_no_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    carry(sender(tmp_path), tmp_path / "stick", size=SIZE)
    monkeypatch.setenv("GAPFORGE_ROOT", str(site_at(tmp_path / "site").root))
    assert cli.main(["unpack", str(tmp_path / "stick")]) == 0
    assert "hard links" not in capsys.readouterr().out
    assert cli.main(["unpack", str(tmp_path / "stick"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["copies"] == {"files": 0, "bytes": 0}


def test_room_for_the_copies_is_counted_first(
    tmp_path: Path, no_links: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=10**9)
    site = site_at(tmp_path / "site")
    size = sum(entry.size for entry in made.lock().entries)
    monkeypatch.setattr(os, "statvfs", lambda _: Status(int(1.9 * size), 1))
    with pytest.raises(StorageError):
        receive(site, tmp_path / "stick")
    assert hashes(site) == set()
    monkeypatch.setattr(os, "statvfs", lambda _: Status(3 * size, 1))
    assert receive(site, tmp_path / "stick").copied > size


def test_room_for_copies_of_what_came_before(
    tmp_path: Path, no_links: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last stick is small, but what it completes is copied as a whole."""
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    files = sorted((tmp_path / "stick").glob("*.gfv"))
    site = site_at(tmp_path / "site")
    receive(site, *files[:-1])
    monkeypatch.setattr(os, "statvfs", lambda _: Status(200_000, 1))
    with pytest.raises(StorageError, match="are needed") as caught:
        receive(site, files[-1])
    assert "all objects are in the store" in caught.value.hint
    assert not site.artifacts_of(PRESET).exists() and hashes(site) >= made.objects
    monkeypatch.undo()
    assert receive(site, files[-1]).complete and verify(site.artifacts_of(PRESET)).ok


def test_large_clusters_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = carry(sender(tmp_path), tmp_path / "x", size=SIZE).plan
    store = Store(tmp_path / "store")
    monkeypatch.setattr(os, "statvfs", lambda _: Status(9, 1 << 20))
    room = ImportSpace(store)
    for n in range(5):
        room.add(Part(f"{n:064}", 10, 0, 10), 10)
        room.add(Part(f"{n:064}", 10, 0, 10), 10)  # a repair that brings the same
    assert room.bytes == 50 and room.needed == 50 + (5 << 20)
    room.require()
    for n in range(5, 10):
        room.add(Part(f"{n:064}", 10, 0, 10), 10)
    with pytest.raises(StorageError, match="are needed"):
        room.require()
    with pytest.raises(StorageError):
        place_volumes(plan, [tmp_path / "y"])


def test_an_update_that_is_cut_anywhere_leaves_no_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock lists the files of the last layout, so it must be the last file to change."""
    made = sender(tmp_path, {f"sources/old{n}": b"%d" % n for n in range(4)})
    carry(made, tmp_path / "one", size=SIZE)
    made.change(
        {f"{folder}/new": folder.encode() for folder in ("a", "sources", "wheels")}, only=True
    )
    carry(made, tmp_path / "two", size=SIZE)
    real, cut = os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal left
        if site.artifacts_of(PRESET) in Path(target).parents:
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        real(source, target)

    while True:
        site, left = site_at(tmp_path / f"site{cut}"), 99
        receive(site, tmp_path / "one")
        left = cut
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            try:
                receive(site, tmp_path / "two")
                break
            except KeyboardInterrupt:
                pass
        result = receive(site, tmp_path / "two")
        assert result.unexpected == {} and verify(site.artifacts_of(PRESET)).ok, (
            f"cut at file {cut}"
        )
        cut += 1
    assert cut == 5
