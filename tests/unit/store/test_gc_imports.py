"""gc keeps and reports the objects of incomplete bundles until the bundle is given up."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from bundles import PRESET, Sender, carry, hashes, receive, scan_at, sender, site_at
from gapforge.base.errors import BundleError
from gapforge.base.files import sha256_bytes
from gapforge.base.project import Project
from gapforge.bundle import unpack as unpacking
from gapforge.bundle.volume_reader import read_volume
from gapforge.cli import main as cli
from gapforge.store import incomplete_bundles
from gapforge.store.inventory import Inventory
from gapforge.store.store import Store
from gapforge.store.verify_artifacts import verify
from gapforge.sync.unfinished_sync import clear_leftovers
from raised_errors import assert_error

SIZE = 40_000
LOOSE = b"nobody needs this"


class Half:
    """A site that imported some volumes of a bundle, the last object only in part."""

    def __init__(self, folder: Path) -> None:
        self.made: Sender = sender(folder)
        self.stick = folder / "stick"
        packed = carry(self.made, self.stick, size=SIZE)
        self.bundle = packed.plan.bundle
        self.files = sorted(self.stick.glob("*.gfv"))
        packed.index[0].unlink()  # no index: only what was seen is known
        self.site: Project = site_at(folder / "site")
        assert len(self.files) > 6 and not receive(self.site, *self.files[:5]).complete
        Store(self.site.store).add_bytes(LOOSE)

    @property
    def record(self) -> Path:
        return incomplete_bundles.record_file(self.site.store, self.bundle)

    def parts(self) -> list[str]:
        return sorted(p.name for p in (self.site.store / "partial").iterdir())


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Half:
    made = Half(tmp_path)
    monkeypatch.setenv("GAPFORGE_ROOT", str(made.site.root))
    return made


def test_gc_between_imports_keeps_objects(half: Half, capsys: pytest.CaptureFixture[str]) -> None:
    before, parts = hashes(half.site), half.parts()
    assert parts and len(before) > 1
    assert cli.main(["gc", "--yes"]) == 0
    assert hashes(half.site) == before - {sha256_bytes(LOOSE)} and half.parts() == parts
    said = capsys.readouterr()
    assert f"bundle {half.bundle} ({PRESET})" in said.out
    assert f" {len(before) - 1} files" in said.out
    assert (
        "./gapforge unpack FOLDER" in said.out and f"./gapforge gc --drop {half.bundle}" in said.out
    )
    assert not said.err, "the parts of a cut object are not strange"
    assert cli.main(["gc", "--json"]) == 0
    waiting = json.loads(capsys.readouterr().out)["unfinished_imports"]
    assert [(w["bundle"], w["presets"], w["count"]) for w in waiting] == [
        (half.bundle, [PRESET], len(before) - 1)
    ]
    carried = sum(f.stat().st_size for f in half.files[5:])
    result = receive(half.site, *half.files[5:])
    assert (
        result.complete
        and result.imported_bytes < carried + SIZE
        and verify(half.site.artifacts_of(PRESET)).ok
    )
    assert not half.record.parent.exists() and not half.parts()
    assert cli.main(["gc", "--yes"]) == 0
    assert "nothing to delete" in capsys.readouterr().out and hashes(half.site) >= half.made.objects


def test_record_is_written_before_first_object(
    half: Half, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = site_at(tmp_path / "other")
    seen: list[bool] = []

    def add(self: Store, *_: object, **__: object) -> str:
        seen.append(incomplete_bundles.record_file(site.store, half.bundle).exists())
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "add", add)
    with pytest.raises(KeyboardInterrupt):
        receive(site, half.stick)
    assert seen and all(seen)


def test_gc_keeps_objects_of_partial_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects that no lock names, which the inventory listed: the bundle's lock needs them."""
    made = sender(tmp_path)
    site = site_at(tmp_path / "site")
    had = (made.project.artifacts_of(PRESET) / "debs/nasm_2.16.01-1_amd64.deb").read_bytes()
    Store(site.store).add_bytes(had)
    inventory = tmp_path / "inventory"
    inventory.write_text(Inventory.of("0.1.0", {}, {sha256_bytes(had): len(had)}).render())
    monkeypatch.setenv("GAPFORGE_ROOT", str(site.root))
    carry(made, tmp_path / "stick", size=SIZE, inventory=inventory)
    lock = made.lock()
    files = sorted((tmp_path / "stick").glob("*.gfv"))
    with_lock = [f for f in files if sha256_bytes(lock.render().encode()) in _objects(f)]
    assert not receive(site, *with_lock).complete and sha256_bytes(had) in hashes(site)
    assert cli.main(["gc", "--yes"]) == 0
    assert sha256_bytes(had) in hashes(site)
    assert receive(site, *files).complete


def _objects(volume: Path) -> set[str]:
    return {piece.part.sha256 for piece in read_volume(volume)[1]}


def test_gc_drop_removes_incomplete_bundle(half: Half, capsys: pytest.CaptureFixture[str]) -> None:
    before = hashes(half.site)
    assert cli.main(["gc", "--drop", half.bundle]) == 0
    assert f"to delete: ./gapforge gc --drop {half.bundle} --yes" in capsys.readouterr().out
    assert hashes(half.site) == before and half.record.exists(), "nobody agreed yet"
    assert cli.main(["gc", "--drop", half.bundle, "--yes"]) == 0
    assert not hashes(half.site) and not half.parts() and not half.record.parent.exists()
    assert receive(half.site, half.stick).complete, "and it may come again"


@pytest.mark.parametrize("name", ["0" * 24, "../lock", "", "*"])
def test_gc_drop_refuses_unknown_bundle(
    half: Half, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(half.site.root.rglob("*"))
    assert cli.main(["gc", "--yes", f"--drop={name}"]) == (2 if name else 0)
    said = capsys.readouterr().err
    assert not name or (half.bundle in said and "next: ./gapforge gc" in said)
    assert not name or sorted(half.site.root.rglob("*")) == before


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "numbers", "deep", "link", "folder"])
def test_unreadable_import_record_stops_gc(
    half: Half, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = half.record.read_text()
    half.record.unlink()
    if damage == "link":
        half.record.symlink_to("/etc/passwd")
    elif damage == "folder":
        half.record.mkdir()
    else:
        half.record.write_text(
            {
                "cut": text[: len(text) // 2],
                "empty": "",
                "other": text.replace(half.bundle, "0" * 24),
                "numbers": text.replace('"objects": [', '"objects": [1,'),
                "deep": "[" * 99_999,
            }[damage]
        )
    before, parts = hashes(half.site), half.parts()
    assert cli.main(["gc", "--yes"]) == 4
    said = capsys.readouterr().err
    assert (
        str(half.record) in said
        and f"./gapforge gc --drop {half.bundle}" in said
        and "nothing was deleted" in said
    )
    assert hashes(half.site) == before and half.parts() == parts
    if damage in ("cut", "link"):  # the volumes come again and say anew what they name
        if damage == "link":
            half.record.unlink()
        assert not receive(half.site, *half.files[:5]).complete
        assert cli.main(["gc", "--yes"]) == 0 and hashes(half.site) == before - {
            sha256_bytes(LOOSE)
        }
    elif damage != "folder":
        assert cli.main(["gc", "--yes", "--drop", half.bundle]) == 0 and not hashes(half.site)


@pytest.mark.parametrize(
    ("number", "bundle", "read"),
    [
        (1, "b" * 24, True),
        (0, "b" * 24, False),
        (2, "b" * 24, False),
        (1, "a" * 24, False),
        (1, "c" * 24, False),
    ],
)
def test_record_of_another_format_or_bundle_is_damaged(
    tmp_path: Path, number: int, bundle: str, read: bool
) -> None:
    file = incomplete_bundles.record_file(tmp_path, "b" * 24)
    file.parent.mkdir()
    record = {"format": number, "bundle": bundle, "presets": ["p"], "objects": ["0" * 64]}
    file.write_text(json.dumps(record))
    found, faults = incomplete_bundles.read_all(tmp_path)
    assert ([one.bundle for one in found] == [bundle]) is read
    assert [fault.where for fault in faults] == ([] if read else [str(file)])


def test_foreign_imports_folder_stops_gc(half: Half, capsys: pytest.CaptureFixture[str]) -> None:
    half.record.unlink()
    half.record.parent.rmdir()
    half.record.parent.write_text("mine")
    before = hashes(half.site)
    assert cli.main(["gc", "--yes"]) == 4 and hashes(half.site) == before
    said = capsys.readouterr().err
    assert (
        f"ls -ld {half.record.parent}" in said and "--drop" not in said
    )  # no bundle is called "imports"


def test_gc_reports_foreign_files_beside_records(
    half: Half, capsys: pytest.CaptureFixture[str]
) -> None:
    (half.record.parent / "notes.txt").write_text("mine")
    assert cli.main(["gc", "--yes"]) == 0
    assert "notes.txt: " in capsys.readouterr().err
    assert receive(half.site, half.stick).complete and (half.record.parent / "notes.txt").exists()


def test_temporary_record_of_killed_run_is_removed(half: Half) -> None:
    (half.record.parent / f".{half.record.name}.abc.tmp").write_text("half")
    assert receive(half.site, half.stick).complete
    assert not half.record.parent.exists()


def test_temporary_files_of_killed_run_are_removed(half: Half) -> None:
    for name in ("place-7", "bytes-7-8", "copy-7-8", "place-7-1"):
        (half.site.store / "partial" / name).write_text("half")
    assert receive(half.site, half.stick).complete
    assert not half.parts()


def test_gc_drop_keeps_other_incomplete_bundle(half: Half, tmp_path: Path) -> None:
    chance = random.Random(1)
    other = sender(tmp_path / "other", {f"sources/{n}": chance.randbytes(30_000) for n in range(4)})
    packed = carry(other, tmp_path / "stick2", size=SIZE)
    receive(half.site, sorted((tmp_path / "stick2").glob("*.gfv"))[0])
    before = hashes(half.site)
    assert cli.main(["gc", "--yes", "--drop", packed.plan.bundle]) == 0
    kept = hashes(half.site)
    assert (
        kept < before
        and half.record.exists()
        and incomplete_bundles.recorded_bundles(half.site.store) == [half.bundle]
    )
    assert receive(half.site, half.stick).complete


def test_volumes_with_too_many_objects_are_refused(
    half: Half, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(unpacking, "MAX_OBJECTS", 5)
    site = site_at(tmp_path / "other")
    with pytest.raises(BundleError) as caught:
        receive(site, half.stick)
    assert_error(caught.value, BundleError, limit=5)
    assert not hashes(site) and scan_at(site, half.stick).bundle == half.bundle


def test_damaged_record_is_replaced_by_next(tmp_path: Path) -> None:
    bundle = "a" * 24
    file = incomplete_bundles.record_file(tmp_path, bundle)
    file.parent.mkdir()
    file.write_text("{")
    assert [fault.where for fault in incomplete_bundles.read_all(tmp_path)[1]] == [str(file)]
    incomplete_bundles.remember(tmp_path, bundle, ["x"], ["b" * 64])
    found, faults = incomplete_bundles.read_all(tmp_path)
    assert [record.bundle for record in found] == [bundle] and not faults


@pytest.mark.parametrize("damaged", [False, True])
def test_sync_keeps_old_parts_of_an_unfinished_import(tmp_path: Path, damaged: bool) -> None:
    partial = tmp_path / "partial"
    partial.mkdir()
    needed, given_up = "a" * 64, "b" * 64
    incomplete_bundles.remember(tmp_path, "1" * 24, ["p"], [needed])
    if damaged:
        (tmp_path / "imports" / f"{'2' * 24}.json").write_text("{")
    for name in (needed, given_up):
        for suffix in (".part", ".json"):
            file = partial / f"bundle-{name}{suffix}"
            file.write_bytes(b"x")
            os.utime(file, (5, 5))
    clear_leftovers(partial)
    left = {path.name[7:71] for path in partial.iterdir()}
    assert left == ({needed, given_up} if damaged else {needed})
    assert (partial / f"bundle-{needed}.part").exists()
