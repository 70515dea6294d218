"""Measure what presets with shared files need on the disk and on the way to a site."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from bundles import PRESET, Sender, sender, site_at
from fabricated_artifacts import fabricate
from gapforge.base.project import Project
from gapforge.bundle.volume_format import HEAD, TRAILER
from gapforge.bundle.volume_reader import read_volume
from gapforge.model import preset as presets
from gapforge.model import preset_writer
from gapforge_process import gapforge, tree
from samples import ROOT

MB = 1_000_000
SMALL = {f"debs/small{n}.deb": random.Random(f"s{n}").randbytes(5000 + 997 * n) for n in range(60)}


def own(name: str, megabytes: int) -> dict[str, bytes]:
    chance = random.Random(name)
    return {f"wheels/{name}-{n}.whl": chance.randbytes(megabytes * MB // 3) for n in range(3)}


def lay(made: Sender, name: str, files: Mapping[str, bytes]) -> None:
    """Write ``files`` as the artifacts of a preset, with its lock."""
    shutil.rmtree(made.project.artifacts_of(name), ignore_errors=True)
    kinds = {path: ("source", data) for path, data in files.items()}
    fabricate(made.project, presets.find(made.project.presets, name), kinds)


def used(folder: Path) -> int:
    """Return the bytes of disk below a folder, each inode once, as du counts."""
    found = {
        (s.st_dev, s.st_ino): s.st_blocks * 512
        for s in (os.lstat(p) for p in (folder, *folder.rglob("*")))
    }
    counted = sum(found.values())
    du = subprocess.run(
        ["du", "-s", "--block-size=1", str(folder)], capture_output=True, text=True, check=True
    )
    assert int(du.stdout.split()[0]) == counted
    return counted


def content(folder: Path) -> dict[str, int]:
    """Return SHA-256 -> size of every file of a preset."""
    return {sha256: (folder / path).stat().st_size for path, (sha256, _, _) in tree(folder).items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sender:
    made = sender(tmp_path_factory.mktemp("bytes"))
    write_presets(made.project)
    return made


def full_site(folder: Path) -> Project:
    site = site_at(folder)
    write_presets(site)
    return site


def write_presets(project: Project) -> None:
    """Write every preset in full, because the project has neither the catalog nor components."""
    for name in presets.names(ROOT / "presets"):
        if name != PRESET:
            raw = presets.load(ROOT / "presets" / f"{name}.json").raw
            project.preset_file(name).write_text(preset_writer.render(raw), encoding="utf-8")


@pytest.mark.timeout(600)
def test_second_preset_costs_only_its_difference(
    made: Sender, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shared files are on the disk once (within 1 %) and not in the bundle (within 0.1 %)."""
    first, second = presets.names(made.project.presets)[:2]
    shared = {
        f"wheels/shared{n}.whl": random.Random(n).randbytes(20 * MB) for n in range(6)
    } | SMALL
    lay(made, first, {**shared, **own("a", 20)})
    lay(made, second, {**shared, **own("b", 15)})
    site = full_site(tmp_path / "site")
    gapforge(made.project.root, "pack", first, "--to", tmp_path / "one")
    gapforge(site.root, "unpack", tmp_path / "one")
    alone = used(site.artifacts)

    inventory = tmp_path / "inventory"
    gapforge(site.root, "inventory", "--output", inventory)
    gapforge(
        made.project.root,
        "pack",
        second,
        "--for",
        inventory,
        "--volume-size",
        "4M",
        "--to",
        tmp_path / "two",
    )
    here, there = (
        content(made.project.artifacts_of(first)),
        content(made.project.artifacts_of(second)),
    )
    missing = sum(size for sha256, size in there.items() if sha256 not in here)
    volumes = sorted((tmp_path / "two").glob("*.gfv"))
    carried = sum(v.stat().st_size for v in volumes)
    payload = sum(piece.part.length for v in volumes for piece in read_volume(v)[1])
    index = carried - payload  # indexes, heads and trailers
    over = (carried - index) / missing - 1
    gapforge(site.root, "unpack", tmp_path / "two")
    for name in (first, second):
        gapforge(site.root, "verify", name)

    everything = sum({**here, **there}.values())
    grew, both = used(site.artifacts) - alone, used(site.artifacts)
    more = both / everything - 1
    with capsys.disabled():
        print(
            f"\npresets of {sum(here.values()) / MB:.1f} and {sum(there.values()) / MB:.1f} MB "
            f"with {everything / MB:.1f} MB of distinct files: {both / MB:.1f} MB on disk "
            f"({more:+.3%}); the second added {grew / MB:.2f} MB for {missing / MB:.2f} MB"
        )
        print(
            f"{carried} bytes in {len(volumes)} volumes for {missing} missing bytes: "
            f"{payload} of objects ({over:+.4%}), {index} of index ({index / missing:.4%})"
        )
    assert 0 <= more < 0.01
    assert abs(over) <= 0.001 and index < 0.001 * missing + len(volumes) * (
        len(HEAD) + TRAILER.size
    )
    assert missing <= grew < 1.01 * missing + 100_000


@pytest.mark.timeout(600)
def test_shared_wheel_is_stored_once(
    made: Sender, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = presets.names(made.project.presets)[:5]
    wheel = {"wheels/shared.whl": random.Random("wheel").randbytes(100 * MB)}
    for n, name in enumerate(names):
        lay(made, name, {**wheel, **own(name, 3 + n)})
    gapforge(made.project.root, "pack", *names, "--to", tmp_path / "all")
    site = full_site(tmp_path / "site")
    gapforge(site.root, "unpack", tmp_path / "all")
    objects: dict[str, int] = {}
    for name in names:
        objects |= content(made.project.artifacts_of(name))
        gapforge(site.root, "verify", name)
    once, disk = sum(objects.values()), used(site.artifacts)
    with capsys.disabled():
        print(
            f"\n{len(names)} presets that share a wheel of 100 MB: {once / MB:.1f} MB of distinct "
            f"files, {disk / MB:.1f} MB on disk ({disk / once - 1:+.3%}); copies would need "
            f"{sum(used(site.artifacts_of(n)) for n in names) / MB:.1f} MB"
        )
    assert once <= disk < 1.01 * once
    before = used(site.artifacts)
    gapforge(site.root, "unpack", tmp_path / "all")
    assert used(site.artifacts) == before


@pytest.mark.parametrize("how", ["cp -r", "rsync -a", "tar"])
def test_copied_preset_folder_is_complete(made: Sender, tmp_path: Path, how: str) -> None:
    first, second = presets.names(made.project.presets)[:2]
    wheel = {"wheels/shared.whl": random.Random("copied").randbytes(3 * MB)}
    lay(made, first, {**wheel, **SMALL})
    lay(made, second, wheel)
    gapforge(made.project.root, "pack", first, second, "--to", tmp_path / "stick")
    site = full_site(tmp_path / "site")
    gapforge(site.root, "unpack", tmp_path / "stick")
    assert (site.artifacts_of(first) / "wheels/shared.whl").stat().st_nlink == 3
    other = full_site(tmp_path / "other")
    other.artifacts.mkdir()
    source, target = str(site.artifacts_of(first)), str(other.artifacts_of(first))
    if how == "tar":
        subprocess.run(  # noqa: S602 - our own paths
            f"tar -C {site.artifacts} -c {first} | tar -C {other.artifacts} -x",
            shell=True,
            check=True,
        )
    elif how == "rsync -a":
        if not shutil.which("rsync"):
            pytest.skip("needs rsync (scripts/bootstrap.sh test)")
        subprocess.run(["rsync", "-a", source, str(other.artifacts)], check=True)
    else:
        subprocess.run(["cp", "-r", source, target], check=True)
    shutil.rmtree(site.artifacts)
    gapforge(other.root, "verify", first)
    assert (
        not other.store.exists()
        and (other.artifacts_of(first) / "wheels/shared.whl").stat().st_nlink == 1
    )
