"""The store: verified bytes only, once, whatever interrupts it or meddles with it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from gapforge.core.errors import FetchError, StorageError
from gapforge.core.files import content_mtime
from gapforge.core.store import Laid, Store


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: Store, data: bytes) -> str:
    return store.add_bytes(data)


def test_added_file_is_moved_read_only_and_dated_by_its_content(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    file = store.partial("x")
    file.write_bytes(b"hello")
    assert store.add(file, sha(b"hello")) == sha(b"hello")
    stat = store.path(sha(b"hello")).stat()
    assert not file.exists()
    assert (stat.st_mode & 0o777, stat.st_mtime) == (0o444, content_mtime(sha(b"hello")))


def test_wrong_file_never_gets_a_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    file = store.partial("x")
    file.write_bytes(b"hellO")
    with pytest.raises(FetchError) as error:
        store.add(file, sha(b"hello"))
    assert sha(b"hellO") in error.value.render() and sha(b"hello") in error.value.render()
    assert file.exists()
    assert not list((tmp_path / "store").rglob("sha256/*/*"))


def test_copy_leaves_the_original_alone(tmp_path: Path) -> None:
    store, mine = Store(tmp_path / "store"), tmp_path / "mine.tar"
    mine.write_bytes(b"data")
    os.utime(mine, (5, 5))
    store.add_copy(mine, sha(b"data"))
    assert mine.stat().st_mtime == 5 and mine.stat().st_nlink == 1
    mine.write_bytes(b"changed later")
    assert store.intact(sha(b"data"))
    with pytest.raises(FetchError) as error:
        store.add_copy(mine, sha(b"data"))
    assert "mine.tar" in error.value.render()
    assert not any(p.is_file() for p in store.partial("x").parent.iterdir())


@pytest.mark.parametrize("damage", [b"hellO", b"hell", b"hello!", b""])
def test_damaged_object_is_found_and_thrown_out(tmp_path: Path, damage: bytes) -> None:
    put(Store(tmp_path), b"hello")
    store = Store(tmp_path)  # another process: it has hashed nothing yet
    path = store.path(sha(b"hello"))
    path.chmod(0o644)
    path.write_bytes(damage)
    assert store.missing([(sha(b"hello"), 5)]) == {sha(b"hello")}
    assert not path.exists()


def test_damaged_object_is_replaced_by_a_good_one(tmp_path: Path) -> None:
    put(Store(tmp_path), b"hello")
    Store(tmp_path).path(sha(b"hello")).chmod(0o644)
    Store(tmp_path).path(sha(b"hello")).write_bytes(b"hellO")
    store = Store(tmp_path)
    put(store, b"hello")
    assert store.path(sha(b"hello")).read_bytes() == b"hello"


def test_a_symlink_out_of_the_store_is_no_way_to_write(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(StorageError):
        store.partial("../../outside")
    with pytest.raises(ValueError, match="SHA-256"):
        store.path("../../etc/passwd")


def test_view_makes_exactly_the_files_and_removes_its_own_old_ones(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "artifacts" / "p"
    first = {"a/x": put(store, b"1"), "a/b/y": put(store, b"2")}
    assert store.view(folder, first) == Laid()
    second = {"a/x": put(store, b"3")}
    assert store.view(folder, second, previous=list(first)) == Laid()
    assert (folder / "a/x").read_bytes() == b"3"
    assert not (folder / "a/b").exists(), "a folder that became empty goes with its last file"
    assert os.path.samefile(folder / "a/x", store.path(second["a/x"]))


def test_view_reports_strangers_and_does_not_touch_them(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "p"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "notes.txt").write_text("mine")
    (folder / "link").symlink_to("/etc/passwd")
    old = {"a/x": put(store, b"1")}
    store.view(folder, old)
    assert store.view(folder, {}, previous=["a/x"]).strangers == ("a/notes.txt", "link")
    assert (folder / "a" / "notes.txt").read_text() == "mine"


def test_view_replaces_changed_and_foreign_files_of_a_wanted_name(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "p"
    files = {"x": put(store, b"1"), "y": put(store, b"2")}
    folder.mkdir()
    (folder / "x").write_bytes(b"edited")
    (folder / "y").symlink_to(store.path(files["y"]))  # right bytes, but it would break when copied
    assert store.view(folder, files) == Laid()
    assert (folder / "x").read_bytes() == b"1"
    assert not (folder / "y").is_symlink()


def test_view_refuses_to_leave_its_folder(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "p"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    for path in ("../x", "/x", "out/x"):
        with pytest.raises(StorageError):
            store.view(folder, {path: put(store, b"1")})
    with pytest.raises(StorageError):
        store.view(folder, {}, previous=["../store/lock"])


def test_copies_where_hard_links_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "p"
    files = {"x": put(store, b"1"), "a/y": put(store, b"four")}
    assert store.links()

    def no_links(*_: object) -> None:
        raise OSError(1, "no links on this disk")

    monkeypatch.setattr(os, "link", no_links)
    assert not store.links() and not list(store.partial("x").parent.iterdir())
    assert store.view(folder, files) == Laid((), 2, 5)
    inode = (folder / "x").stat().st_ino
    assert store.view(folder, files) == Laid((), 2, 5), "copies take their room twice, made now or before"
    assert (folder / "x").stat().st_ino == inode, "a right copy is not made again"
    (folder / "x").chmod(0o644)
    (folder / "x").write_bytes(b"2")
    store.view(folder, files)
    assert (folder / "x").read_bytes() == b"1"


def test_an_intruder_through_the_hard_link_is_seen(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "p"
    files = {"x": put(store, b"1")}
    store.view(folder, files)
    (folder / "x").chmod(0o644)
    (folder / "x").write_bytes(b"2")
    fresh = Store(tmp_path / "store")
    assert fresh.missing([(files["x"], 1)]) == {files["x"]}
    put(fresh, b"1")
    fresh.view(folder, files)
    assert (folder / "x").read_bytes() == b"1"
