"""Damage of every kind through the real commands: exit codes, messages, and an intact store."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path

import pytest

from bundles import PRESET, Sender, carry, hashes, names, sender, site_at
from forged_volumes import HASH, HOSTILE, forge, index_with
from gapforge.base.errors import StorageError
from gapforge.base.project import Project
from gapforge.bundle.volume_format import TRAILER
from gapforge.bundle.volume_reader import read_volume
from gapforge.cli import main as cli
from gapforge.store.verify_artifacts import verify

SIZE = 40_000


def volumes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gfv"))


class World:
    """A project that packs, a medium with its bundle, a site, and the commands."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.made: Sender = sender(folder)
        self.medium = folder / "medium"
        self.bundle = carry(self.made, self.medium, size=SIZE).plan.bundle
        self.files = volumes(self.medium)
        self.site: Project = site_at(folder / "site")
        self.good = self.after("good")

    def after(self, name: str) -> dict[str, str]:
        """Everything that a site holds after an undisturbed import."""
        site = site_at(self.folder / name)
        self.unpack(self.medium, site=site)
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
    """Return the SHA-256 of all files in artifacts/, by path."""
    hashes(site)  # fails for an object that does not match its name
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


def test_missing_volumes_are_imported_later(world: World) -> None:
    gone = [world.files[1], world.files[3]]
    for file in gone:
        file.rename(world.folder / file.name)
    said = world.unpack(world.medium, code=21)
    assert ": 2, 4;" in said and f"preset {PRESET}" in said and "pack --repair repair-" in said
    assert not world.site.artifacts_of(PRESET).exists() and hashes(world.site)
    world.unpack(*[world.folder / file.name for file in gone], code=0)
    world.complete()


def test_duplicated_volumes_are_imported_once(world: World) -> None:
    again = world.folder / "again"
    again.mkdir()
    for file in world.files[:3]:
        shutil.copy(file, again)
        shutil.copy(file, world.medium / f"Copy of {file.name}")
    said = world.unpack(again, world.medium, again, world.medium)
    assert "warning" not in said
    world.complete()


def test_damaged_copy_beside_intact_one(world: World) -> None:
    shutil.copy(world.files[0], world.medium / "0.gfv")
    shutil.copy(world.files[1], world.medium / "z.gfv")
    flip(world.medium / "0.gfv", 1000)
    flip(world.medium / "z.gfv", 3)
    said = world.unpack(world.medium)
    assert (
        f"warning: {world.medium / '0.gfv'}" in said
        and f"warning: {world.medium / 'z.gfv'}" in said
    )
    assert str(world.files[0]) not in said and str(world.files[1]) not in said
    world.complete()


def test_renamed_volumes_are_imported(world: World) -> None:
    for n, file in enumerate(world.files):
        file.rename(world.medium / f"{'ABCDEFGHIJKLM'[-n]} (1)~{n}.GFV")
    world.unpack(world.medium)
    world.complete()


def test_reordered_volumes_are_imported(world: World) -> None:
    """Two volumes have each other's name, each is in its own folder, in random order."""
    a, b = world.files[0], world.files[-1]
    a.rename(world.medium / "x")
    b.rename(a)
    (world.medium / "x").rename(b)
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
def test_truncated_volume_is_named(world: World, left: int) -> None:
    file = world.files[2]
    whole = file.read_bytes()
    file.write_bytes(whole[:left])
    said = world.unpack(world.medium, code=21)
    assert str(file) in said and said.count(".gfv") == 1
    assert not world.site.artifacts_of(PRESET).exists()
    file.write_bytes(whole)
    world.unpack(file)
    world.complete()


def test_volume_of_another_bundle_is_rejected(world: World) -> None:
    other = sender(world.folder / "other", {"sources/x": b"x" * 100})
    packed = carry(other, world.folder / "medium2", size=SIZE)
    shutil.copy(volumes(world.folder / "medium2")[0], world.medium / "0001.gfv")
    said = world.unpack(world.medium, code=21)
    least = min(world.bundle, packed.plan.bundle)
    assert world.bundle in said and packed.plan.bundle in said and f"--bundle {least}" in said
    assert not world.site.artifacts.exists()
    assert "0" * 24 in world.unpack(world.medium, "--bundle", "0" * 24, code=21)
    world.unpack(world.medium, "--bundle", world.bundle)
    world.complete()


def test_volume_replaced_by_another_bundle(world: World) -> None:
    """It has the name of the bundle's own volume."""
    other = sender(world.folder / "other", {"sources/x": b"x" * 90_000})
    carry(other, world.folder / "medium2", size=SIZE)
    shutil.copy(volumes(world.folder / "medium2")[1], world.files[1])
    assert "--bundle" in world.unpack(world.medium, code=21)
    assert ": 2;" in world.unpack(world.medium, "--bundle", world.bundle, code=21)


@pytest.mark.parametrize("part", ["head", "payload", "index", "trailer"])
@pytest.mark.parametrize("with_index", [True, False])
def test_flipped_bit_and_its_repair(world: World, part: str, with_index: bool) -> None:
    """The volume is named, and `pack --repair` restores the same bytes."""
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
        (world.medium / f"{world.bundle}.json").unlink()
    said = world.unpack(world.medium, code=21)
    assert str(file) in said and not any(
        str(other) in said for other in world.files if other != file
    )
    request = world.site.artifacts / f"repair-{world.bundle}.json"
    world.pack("--repair", request, "--volume-size", "65536", "--to", world.folder / "mend")
    world.unpack(world.folder / "mend")
    assert not request.exists()
    world.complete()


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_volume_changes_nothing(world: World, kind: str) -> None:
    """Beside an intact bundle: the volume is named, and the bundle is imported."""
    forge(
        world.medium / "evil.gfv",
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
    said = world.unpack(world.medium)
    assert f"warning: {world.medium / 'evil.gfv'}" in said and said.count("warning") == 1
    assert outside(world) == before
    world.complete()


def outside(world: World) -> dict[str, str]:
    """Return all files of the test outside the artifacts of the site."""
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in world.folder.rglob("*")
        if p.is_file() and world.site.artifacts not in p.parents and p.parent.name != "custody"
    }


def test_links_are_not_followed(world: World) -> None:
    victim = world.folder / "victim"
    victim.mkdir()
    (victim / "precious").write_text("precious")
    real = world.folder / "real.gfv"
    world.files[0].rename(real)
    world.files[0].symlink_to(real)
    assert f"{world.files[0]}\n" in world.unpack(world.medium, code=21)
    world.files[0].unlink()
    real.rename(world.files[0])
    parts = world.site.store / "partial"
    for name in list(parts.iterdir()):
        name.unlink()
    wanted = read_volume(world.files[0])[1][0].part.sha256
    (parts / f"bundle-{wanted}.part").symlink_to(victim / "precious")
    (parts / f"bundle-{wanted}.whole.part").symlink_to(victim / "precious")
    world.unpack(world.medium)
    assert (victim / "precious").read_text() == "precious"
    world.complete()


@pytest.mark.parametrize("link", ["", "debs"])
def test_artifacts_behind_a_link_are_not_written(world: World, link: str) -> None:
    """The link may lead to artifacts that another project verified and still uses."""
    elsewhere = world.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    place = world.site.artifacts_of(PRESET) / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(elsewhere)
    said = world.unpack(world.medium, code=StorageError.exit_code)
    assert str(world.site.artifacts_of(PRESET)) in said
    assert [path.name for path in elsewhere.iterdir()] == ["precious"]
    place.unlink()
    world.unpack(world.medium)
    world.complete()


def test_wrong_bytes_under_known_checksum(world: World) -> None:
    """A checksum is only a name until its bytes are verified, in the store and in a volume."""
    world.unpack(world.medium)
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
    assert f"object {victim.sha256[:12]}" in said and hashes(new) == set()
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
    assert f"parts of object {victim.sha256[:12]}" in said and hashes(new) == set()


def test_packing_beside_foreign_volumes(world: World) -> None:
    """pack writes its own damaged volumes again, and keeps renamed and foreign volumes."""
    want = names(world.medium)
    flip(world.files[0], 100)
    os.truncate(world.files[1], 50)
    world.files[2].rename(world.medium / "mine.gfv")
    world.pack(PRESET, "--volume-size", "65536", "--to", world.folder / "other")
    for file in (world.folder / "other").glob("*.gfv"):
        shutil.copy(file, world.medium)
    kept = names(world.medium)
    carry(world.made, world.medium, size=SIZE)
    after = names(world.medium)
    assert {name: after[name] for name in want} == want
    assert {name: sha for name, sha in after.items() if name not in want} == {
        name: sha for name, sha in kept.items() if name not in want
    }
