"""What comes by hand, through the real commands: each trouble has its message and exit code, and the store is unharmed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path

import pytest

from bundles import PRESET, Sender, carry, hashes, names, sender, site_at
from gapforge.base.project import Project
from gapforge.bundle.volume_format import TRAILER
from gapforge.bundle.volume_reader import read_volume
from gapforge.cli import main as cli
from gapforge.store.verify_artifacts import verify
from hostile import HASH, HOSTILE, forge, index_with

SIZE = 40_000


def volumes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gfv"))


class World:
    """A sender, a stick with its bundle, a site, and the commands."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.made: Sender = sender(folder)
        self.stick = folder / "stick"
        self.bundle = carry(self.made, self.stick, size=SIZE).plan.bundle
        self.files = volumes(self.stick)
        self.site: Project = site_at(folder / "site")
        self.good = self.after("good")

    def after(self, name: str) -> dict[str, str]:
        """Everything that a site holds after an undisturbed import."""
        site = site_at(self.folder / name)
        self.unpack(self.stick, site=site)
        return held(site)

    def gapforge(self, project: Project, *words: str | Path, code: int = 0) -> str:
        self.monkeypatch.setenv("GAPFORGE_ROOT", str(project.root))
        self.capsys.readouterr()
        result = cli.main([str(w) for w in words])
        shown = self.capsys.readouterr()
        said = shown.out + shown.err
        assert result == code, said
        assert "Traceback" not in said and "a bug in gapforge" not in said
        assert not code or "next: " in shown.err
        return said

    def unpack(self, *words: str | Path, code: int = 0, site: Project | None = None) -> str:
        return self.gapforge(site or self.site, "unpack", *words, code=code)

    def pack(self, *words: str | Path, code: int = 0) -> str:
        return self.gapforge(self.made.project, "pack", *words, code=code)

    def complete(self) -> None:
        assert held(self.site) == self.good and verify(self.site.artifacts_of(PRESET)).ok


def held(site: Project) -> dict[str, str]:
    """Path -> SHA-256 of all that is below artifacts."""
    hashes(site)  # fails for an object whose bytes are not what its name says
    return {
        str(p.relative_to(site.artifacts)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in site.artifacts.rglob("*")
        if p.is_file()
    }


@pytest.fixture
def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    return World(tmp_path, monkeypatch, capsys)


def flip(file: Path, at: int, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << bit
    file.write_bytes(data)


def test_missing(world: World) -> None:
    gone = [world.files[1], world.files[3]]
    for file in gone:
        file.rename(world.folder / file.name)
    said = world.unpack(world.stick, code=21)
    assert "is not complete; volumes not seen: 2, 4; all that is good was imported" in said
    assert (
        f"preset {PRESET}" in said
        and "bring the other volumes" in said
        and "pack --repair repair-" in said
    )
    assert not world.site.artifacts_of(PRESET).exists() and hashes(world.site)
    assert "volumes not seen" not in world.unpack(
        *[world.folder / file.name for file in gone], code=0
    )
    world.complete()


def test_duplicated(world: World) -> None:
    again = world.folder / "again"
    again.mkdir()
    for file in world.files[:3]:
        shutil.copy(file, again)
        shutil.copy(file, world.stick / f"Copy of {file.name}")
    said = world.unpack(again, world.stick, again, world.stick)
    assert "warning" not in said
    world.complete()


def test_duplicated_and_one_of_the_copies_damaged(world: World) -> None:
    shutil.copy(world.files[0], world.stick / "0.gfv")
    shutil.copy(world.files[1], world.stick / "z.gfv")
    flip(world.stick / "0.gfv", 1000)
    flip(world.stick / "z.gfv", 3)
    said = world.unpack(world.stick)
    assert (
        f"warning: {world.stick / '0.gfv'}" in said and f"warning: {world.stick / 'z.gfv'}" in said
    )
    assert str(world.files[0]) not in said and str(world.files[1]) not in said
    world.complete()


def test_renamed(world: World) -> None:
    for n, file in enumerate(world.files):
        file.rename(world.stick / f"{'ABCDEFGHIJKLM'[-n]} (1)~{n}.GFV")
    world.unpack(world.stick)
    world.complete()


def test_re_ordered(world: World) -> None:
    """The names of two volumes exchanged, the folders in any order, each volume in a folder of its own."""
    a, b = world.files[0], world.files[-1]
    a.rename(world.stick / "x")
    b.rename(a)
    (world.stick / "x").rename(b)
    folders = []
    for n, file in enumerate(world.files):
        folders.append(world.folder / f"one{n}")
        folders[-1].mkdir()
        file.rename(folders[-1] / file.name)
    random.Random(1).shuffle(folders)
    for folder in folders[:-1]:
        world.unpack(folder, code=21)
    world.unpack(folders[-1])
    world.complete()


@pytest.mark.parametrize("left", [0, 5, 79, 20_000, -1])
def test_truncated(world: World, left: int) -> None:
    file = world.files[2]
    whole = file.read_bytes()
    file.write_bytes(whole[:left])
    said = world.unpack(world.stick, code=21)
    assert str(file) in said and "is cut short" in said and said.count(".gfv") == 1
    assert not world.site.artifacts_of(PRESET).exists()
    file.write_bytes(whole)
    world.unpack(file)
    world.complete()


def test_volumes_of_another_bundle(world: World) -> None:
    other = sender(world.folder / "other", {"sources/x": b"x" * 100})
    packed = carry(other, world.folder / "stick2", size=SIZE)
    shutil.copy(volumes(world.folder / "stick2")[0], world.stick / "0001.gfv")
    said = world.unpack(world.stick, code=21)
    assert "these are volumes of different bundles; nothing was imported" in said
    assert (
        world.bundle in said and packed.plan.bundle in said and "next: name one: --bundle " in said
    )
    assert not world.site.artifacts.exists()
    said = world.unpack(world.stick, "--bundle", "0" * 24, code=21)
    assert "no usable volume of bundle 000" in said
    world.unpack(world.stick, "--bundle", world.bundle)
    world.complete()


def test_a_volume_that_was_exchanged_for_the_same_number_of_another_bundle(world: World) -> None:
    """Under the name that the bundle's own one had."""
    other = sender(world.folder / "other", {"sources/x": b"x" * 90_000})
    carry(other, world.folder / "stick2", size=SIZE)
    shutil.copy(volumes(world.folder / "stick2")[1], world.files[1])
    assert "different bundles" in world.unpack(world.stick, code=21)
    assert "volumes not seen: 2" in world.unpack(world.stick, "--bundle", world.bundle, code=21)


@pytest.mark.parametrize("part", ["head", "payload", "index", "trailer"])
@pytest.mark.parametrize("with_index", [True, False])
def test_a_flipped_bit_and_its_repair(world: World, part: str, with_index: bool) -> None:
    """Found, the right volume named, and mended by what `pack --repair` makes, to the same bytes as without it."""
    chance = random.Random(part)
    file = chance.choice(world.files)
    data = file.read_bytes()
    end = len(data) - TRAILER.size
    offset = TRAILER.unpack(data[end:])[3]
    at = {
        "head": chance.randrange(16),
        "payload": chance.randrange(16, offset),
        "index": chance.randrange(offset, end),
        "trailer": chance.randrange(end, len(data)),
    }[part]
    flip(file, at, chance.randrange(8))
    if not with_index:
        (world.stick / f"{world.bundle}.json").unlink()
    said = world.unpack(world.stick, code=21)
    assert str(file) in said and not any(
        str(other) in said for other in world.files if other != file
    )
    request = world.site.artifacts / f"repair-{world.bundle}.json"
    world.pack("--repair", request, "--volume-size", "65536", "--to", world.folder / "mend")
    world.unpack(world.folder / "mend")
    assert not request.exists()
    world.complete()


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_volumes_touch_nothing(world: World, kind: str) -> None:
    """Beside a good bundle: the bad one is named, and everything of the good one comes in."""
    forge(
        world.stick / "evil.gfv",
        HOSTILE[kind],
        b"p" * 20,
        raw={
            "more digits than a number has": b'{"n":' + b"9" * 100_000 + b"}\n",
            "deep": b"[" * 500_000 + b"]" * 500_000 + b"\n",
            "spaces": b'{"format": 1}',
            "no ASCII": b'{"\xff":1}\n',
        }.get(kind, b""),
    )
    before = outside(world)
    said = world.unpack(world.stick)
    assert f"warning: {world.stick / 'evil.gfv'}" in said and said.count("warning") == 1
    assert outside(world) == before
    world.complete()


def outside(world: World) -> dict[str, str]:
    """All files of the test's folder that are not below the site's artifacts."""
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in world.folder.rglob("*")
        if p.is_file() and world.site.artifacts not in p.parents and p.parent.name != "custody"
    }


def test_links_in_place_of_volumes_and_of_folders_in_the_store(world: World) -> None:
    victim = world.folder / "victim"
    victim.mkdir()
    (victim / "precious").write_text("precious")
    real = world.folder / "real.gfv"
    world.files[0].rename(real)
    world.files[0].symlink_to(real)
    assert "is a symbolic link" in world.unpack(world.stick, code=21)
    world.files[0].unlink()
    real.rename(world.files[0])
    parts = world.site.store / "partial"
    for name in list(parts.iterdir()):
        name.unlink()
    wanted = read_volume(world.files[0])[1][0].part.sha256
    (parts / f"bundle-{wanted}.part").symlink_to(victim / "precious")
    (parts / f"bundle-{wanted}.whole.part").symlink_to(victim / "precious")
    world.unpack(world.stick)
    assert (victim / "precious").read_text() == "precious"
    world.complete()


def test_same_name_and_other_bytes(world: World) -> None:
    """A hash is only a name until its bytes were read: neither what is here nor what comes is taken on trust."""
    world.unpack(world.stick)
    victim = world.made.entry("debs/nasm_2.16.01-1_amd64.deb")
    evil = world.folder / "evil"
    evil.mkdir()
    views = [list(v) for v in ((PRESET, HASH, HASH),)]
    forge(
        evil / "1.gfv", index_with([[victim.sha256, victim.size]], views=views), b"e" * victim.size
    )
    world.unpack(evil, code=21)
    assert verify(world.site.artifacts_of(PRESET)).ok and victim.sha256 in hashes(world.site)
    new = site_at(world.folder / "new")
    said = world.unpack(evil, code=21, site=new)
    assert f"is damaged; it fails object {victim.sha256[:12]}" in said and hashes(new) == set()
    half = victim.size // 2
    forge(
        evil / "1.gfv",
        index_with(
            [
                [victim.sha256, victim.size, 0, half, hashlib.sha256(b"e" * half).hexdigest()],
                [
                    victim.sha256,
                    victim.size,
                    half,
                    victim.size - half,
                    hashlib.sha256(b"e" * (victim.size - half)).hexdigest(),
                ],
            ],
            views=views,
        ),
        b"e" * victim.size,
    )
    said = world.unpack(evil, code=21, site=new)
    assert "holds parts that do not make up object" in said and hashes(new) == set()


def test_packing_again_beside_the_wrong_things(world: World) -> None:
    """Volumes on the stick that are damaged, renamed, or of another bundle: pack makes its own anew and leaves others."""
    want = names(world.stick)
    flip(world.files[0], 100)
    os.truncate(world.files[1], 50)
    world.files[2].rename(world.stick / "mine.gfv")
    world.pack(PRESET, "--volume-size", "65536", "--to", world.folder / "other")
    for file in (world.folder / "other").glob("*.gfv"):
        shutil.copy(file, world.stick)
    kept = names(world.stick)
    carry(world.made, world.stick, size=SIZE)
    after = names(world.stick)
    assert {name: after[name] for name in want} == want
    assert {name: sha for name, sha in after.items() if name not in want} == {
        name: sha for name, sha in kept.items() if name not in want
    }
