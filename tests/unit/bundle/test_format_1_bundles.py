"""Bundles, inventories and repair requests of version 0.1 still work.

Their volumes have format 2, as today; the locks in them have format 1. Version 0.1 wrote the data:
``pack PRESET --volume-size 65536`` with and without ``--with-tool`` and ``--sign``, of a preset
with five random files. The receiver programs were deleted.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bundles import PRESET, hashes, site_at
from gapforge.bundle.contents import inventory_objects
from gapforge.bundle.install_repository import INSTALLED
from gapforge.cli import main as cli
from gapforge.store.verify_artifacts import verify
from samples import ROOT
from signers import needs_ssh_keygen

DATA = ROOT / "tests/data/format-1"
BUNDLES = DATA / "bundles"
SIGNED = [pytest.param(name, marks=needs_ssh_keygen) for name in ("signed", "signed-with-tool")]


class Site:
    """A site of this version that gets bundles of version 0.1."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.project, self.capsys = site_at(folder / "site"), capsys
        shutil.copy(DATA / f"presets/{PRESET}.json", self.project.presets)
        monkeypatch.setenv("GAPFORGE_ROOT", str(self.project.root))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        monkeypatch.setenv("HOME", str(folder))

    def run(self, *words: str | Path, code: int = 0) -> dict[str, object]:
        """Run a command, check its exit code, and return its JSON."""
        self.capsys.readouterr()
        assert cli.main([*map(str, words), "--json"]) == code
        document = json.loads(self.capsys.readouterr().out)
        assert isinstance(document, dict)
        return document


@pytest.fixture
def site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Site:
    return Site(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("name", ["unsigned", "unsigned-with-tool", *SIGNED])
def test_old_bundle_is_imported_and_verified(site: Site, name: str) -> None:
    result = site.run("unpack", BUNDLES / name)
    assert result["presets"] == [PRESET] and result["imported"] == 7 + name.endswith("-with-tool")
    assert verify(site.project.artifacts_of(PRESET)).ok
    assert site.run("verify", PRESET)["ok"]
    if name.endswith("-with-tool"):
        assert isinstance(result["tool"], dict) and result["tool"]["state"] == INSTALLED
        assert (site.project.root / "src/gapforge/__init__.py").is_file()


@pytest.mark.parametrize("name", SIGNED)
def test_old_signatures_are_accepted(site: Site, name: str) -> None:
    site.run("unpack", BUNDLES / name.replace("signed", "unsigned"))
    assert cli.main(["trust", "add", str(BUNDLES / "release.pub")]) == 0
    site.run("unpack", BUNDLES / name.replace("signed", "unsigned"), code=22)
    result = site.run("unpack", BUNDLES / name)
    assert isinstance(result["signed"], list)
    assert [each["signer"] for each in result["signed"]] == ["release@example"]
    assert site.run("verify", PRESET)["ok"]


def test_old_bundle_is_repaired(site: Site, tmp_path: Path) -> None:
    """An old request and a new one ask for the same parts, and both can be answered."""
    (old_request,) = BUNDLES.glob("repair-*.json")
    first, second = sorted((BUNDLES / "unsigned").glob("*.gfv"))
    shutil.copytree(BUNDLES / "unsigned", tmp_path / "medium")
    (tmp_path / "medium" / second.name).unlink()
    result = site.run("unpack", first, code=21)
    assert Path(str(result["request"])).read_bytes() == old_request.read_bytes()
    site.run("unpack", second)
    shutil.copy(BUNDLES / "unsigned" / f"{first.name[:24]}.json", tmp_path)
    shutil.copy(old_request, tmp_path)
    request = tmp_path / old_request.name
    packed = site.run("pack", "--repair", request, "--to", tmp_path / "repair")
    assert packed["repairs"] == first.name[:24]
    shutil.rmtree(site.project.artifacts)
    site.run("unpack", first, code=21)
    assert site.run("unpack", tmp_path / "repair")["presets"] == [PRESET]


def test_old_inventory_is_read(site: Site, tmp_path: Path) -> None:
    site.run("unpack", BUNDLES / "unsigned")
    assert inventory_objects(BUNDLES / "inventory.txt") == hashes(site.project)
    inventory = tmp_path / "inventory.txt"
    assert cli.main(["inventory", "--output", str(inventory)]) == 0
    assert inventory_objects(inventory) == hashes(site.project)


def test_packing_again_writes_the_same_volumes(site: Site, tmp_path: Path) -> None:
    """The artifacts of version 0.1 give the volumes and the index that version 0.1 wrote."""
    site.run("unpack", BUNDLES / "unsigned")
    site.run("pack", PRESET, "--volume-size", "65536", "--to", tmp_path / "again")
    for file in (BUNDLES / "unsigned").iterdir():
        if not file.name.endswith(".custody.txt"):
            assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
