"""Nobody can make pack or unpack write through a link, by planting names on a medium or a share."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundles import PRESET, Sender, carry, receive, sender, site_at
from gapforge.base.errors import StorageError
from gapforge.bundle.pack import Packed
from gapforge.store.verify_artifacts import verify
from raised_errors import assert_error

SIZE = 40_000
BIG = random.Random(3).randbytes(100_000)
_watched: list[list[tuple[str, int]]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _watched:
        path, _mode, flags = arguments
        if isinstance(path, (str, bytes, os.PathLike)) and isinstance(flags, int):
            _watched[-1].append((os.fsdecode(path), flags))


@contextmanager
def created(*roots: Path) -> Iterator[dict[str, int]]:
    """Give the files that the block creates below the folders, with the flags of open()."""
    if not getattr(sys, "_gapforge_hears", False):
        sys.addaudithook(_hear)  # cannot be removed
        sys._gapforge_hears = True  # type: ignore[attr-defined]
    found: dict[str, int] = {}
    _watched.append([])
    try:
        yield found
    finally:
        for path, flags in _watched.pop():
            if flags & os.O_CREAT and any(Path(path).is_relative_to(root) for root in roots):
                found[path] = flags


def bundle(tmp_path: Path) -> tuple[Sender, Path]:
    made = sender(tmp_path, {"sources/big.tar": BIG, "sources/small": b"small"})
    return made, tmp_path / "medium"


def pack(made: Sender, medium: Path) -> Packed:
    return carry(made, medium, size=SIZE)


def is_shared(path: str) -> bool:
    """Return whether a file is meant to be opened again: a lock, or an object that grows."""
    name = os.path.basename(path)
    return name == "lock" or name.endswith(".lock") or name.startswith("bundle-")


def test_every_new_file_is_created_exclusively_under_a_random_name(tmp_path: Path) -> None:
    made, medium = bundle(tmp_path)
    runs = []
    for number in range(2):
        shutil.rmtree(medium, ignore_errors=True)
        site = site_at(tmp_path / f"site{number}")
        with created(tmp_path) as files:
            pack(made, medium)
            assert receive(site, medium).complete
        runs.append({path: flags for path, flags in files.items() if not is_shared(path)})
    for files in runs:
        assert len(files) > 10
        assert [path for path, flags in files.items() if not flags & os.O_EXCL] == []
        assert [path for path, flags in files.items() if not flags & os.O_NOFOLLOW] == []
    names = [{os.path.basename(path) for path in files} for files in runs]
    assert names[0] & names[1] == set()
    assert not [p for p in medium.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("plant", [os.link, os.symlink])
def test_planted_parts_of_objects_are_not_written_through(tmp_path: Path, plant: object) -> None:
    made, medium = bundle(tmp_path)
    pack(made, medium)
    site, victim = site_at(tmp_path / "site"), tmp_path / "precious"
    victim.write_bytes(b"precious")
    victim.chmod(0o640)
    partial = site.store / "partial"
    partial.mkdir(parents=True)
    sha256 = made.entry("sources/big.tar").sha256
    plant(victim, partial / f"bundle-{sha256}.part")  # type: ignore[operator]
    # clear_litter removes files that no record is about.
    (partial / f"bundle-{sha256}.json").write_text(
        f'{{"ranges": [[0, 8]], "size": {len(BIG)}}}', encoding="utf-8"
    )
    assert receive(site, medium).complete and verify(site.artifacts_of(PRESET)).ok
    assert victim.read_bytes() == b"precious" and victim.stat().st_mode & 0o777 == 0o640


def test_linked_folder_of_partial_files_is_refused(tmp_path: Path) -> None:
    made, medium = bundle(tmp_path)
    pack(made, medium)
    site = site_at(tmp_path / "site")
    site.store.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (site.store / "partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError) as caught:
        receive(site, medium)
    assert_error(caught.value, StorageError, folder=site.store / "partial")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("kind", ["index", "receiver", "volume"])
def test_link_with_final_name_is_replaced(tmp_path: Path, kind: str) -> None:
    made, medium = bundle(tmp_path)
    packed = pack(made, medium)
    name = {
        "index": packed.index[0].name,
        "receiver": "gapforge-receive.pyz",
        "volume": next(medium.glob("*.gfv")).name,
    }[kind]
    good = (medium / name).read_bytes()
    (medium / name).unlink()
    (tmp_path / "precious").write_bytes(b"precious")
    (medium / name).symlink_to(tmp_path / "precious")
    pack(made, medium)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (medium / name).is_symlink() and (medium / name).read_bytes() == good


def test_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    made, medium = bundle(tmp_path)
    packed = pack(made, medium)
    volume = next(medium.glob("*.gfv")).name
    left = [
        medium / f".{volume}.abcd1234.part",
        medium / f".{packed.index[0].name}.abcd1234.tmp",
        medium / ".gapforge-receive.pyz.abcd1234.tmp",
    ]
    for file in left:
        file.write_bytes(b"x")
    pack(made, medium)
    assert not [file for file in left if file.exists()]
