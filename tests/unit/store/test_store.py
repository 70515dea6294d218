"""The store: verified bytes only, once, whatever interrupts it or meddles with it."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from gapforge.base import flush
from gapforge.base.errors import FetchError, StorageError
from gapforge.base.files import content_mtime
from gapforge.store.store import Store, ViewResult


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: Store, data: bytes) -> str:
    return store.add_bytes(data)


def test_added_file_is_moved_and_read_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    file = store.partial("x")
    file.write_bytes(b"hello")
    assert store.add(file, sha(b"hello")) == sha(b"hello")
    stat = store.path(sha(b"hello")).stat()
    assert not file.exists()
    assert (stat.st_mode & 0o777, stat.st_mtime) == (0o444, content_mtime(sha(b"hello")))


def test_wrong_file_is_not_added(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    file = store.partial("x")
    file.write_bytes(b"hellO")
    with pytest.raises(FetchError) as error:
        store.add(file, sha(b"hello"))
    assert sha(b"hellO") in error.value.render() and sha(b"hello") in error.value.render()
    assert file.exists()
    assert not list((tmp_path / "store").rglob("sha256/*/*"))


def several(store: Store, count: int = 5) -> dict[Path, str]:
    """Files in ``partial`` that are not in the store yet."""
    files = {}
    for number in range(count):
        data = b"object %d" % number
        file = store.partial(f"several-{number}")
        file.write_bytes(data)
        files[file] = sha(data)
    return files


def test_add_all_adds_many_files(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    there = put(store, b"object 3")
    files = several(store)
    store.path(sha(b"object 1")).parent.mkdir(exist_ok=True)  # of another object
    store.add_all(files)
    assert there in files.values() and not list((store.folder / "partial").iterdir())
    for sha256 in files.values():
        assert store.intact(sha256) and Store(store.folder).intact(sha256)
        stat = store.path(sha256).stat()
        assert (stat.st_mode & 0o777, stat.st_mtime) == (0o444, content_mtime(sha256))
    store.add_all({})


@pytest.mark.parametrize("one_sync", [True, False])
def test_add_all_syncs_before_renaming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_sync: bool
) -> None:
    store = Store(tmp_path / "store")
    files = several(store)
    inodes = {file.stat().st_ino for file in files}
    synced: set[int] = set()
    real_fsync, real_replace, named = os.fsync, os.replace, []

    def fsync(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        real_fsync(handle)

    def syncfs(folder: Path) -> bool:
        synced.update(file.stat().st_ino for file in folder.iterdir())
        return True

    def replace(source: Path, target: Path) -> None:
        assert inodes <= synced, "named before it was synced"
        named.append(target)
        real_replace(source, target)

    monkeypatch.setattr(flush, "_syncfs_suffices", lambda folder: one_sync)
    monkeypatch.setattr(flush, "_syncfs", syncfs)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    store.add_all(files)
    assert len(named) == len(files)
    assert {path.parent.stat().st_ino for path in named} <= synced, "a folder that was not synced"


def test_full_disk_leaves_files_unnamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    files = several(store)
    bad = list(files)[2].stat().st_ino

    def fsync(handle: int) -> None:
        if os.fstat(handle).st_ino == bad:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(
        flush, "_syncfs", lambda folder: False
    )  # it says that something went wrong, not what
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match=r"several-2: the disk is full"):
        store.add_all(files)
    assert not any(store.has(sha256) for sha256 in files.values()) and all(
        file.exists() for file in files
    )


def test_syncfs_is_used_only_if_sufficient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path.stat().st_dev
    mount = f"1 2 {os.major(device)}:{os.minor(device)} / / rw - {{}} none rw"
    cases = {
        ("ext4", "5.15.0-1-generic"): True,
        ("ext4", "5.4.0"): False,
        ("fuseblk", "6.1.0"): False,
    }
    for (kind, release), good in cases.items():
        monkeypatch.setattr(flush, "system_text", lambda *_path, kind=kind: mount.format(kind))
        monkeypatch.setattr(os, "uname", lambda release=release: SimpleNamespace(release=release))
        assert flush._syncfs_suffices(tmp_path) is good
    elsewhere = "1 2 0:99999 / / rw - ext4 none rw\n"
    monkeypatch.setattr(flush, "system_text", lambda *_path: elsewhere)
    assert flush._syncfs_suffices(tmp_path) is False


def test_add_copy_keeps_the_original(tmp_path: Path) -> None:
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
def test_damaged_object_is_removed(tmp_path: Path, damage: bytes) -> None:
    put(Store(tmp_path), b"hello")
    store = Store(tmp_path)  # another process: it has hashed nothing yet
    path = store.path(sha(b"hello"))
    path.chmod(0o644)
    path.write_bytes(damage)
    assert store.missing([(sha(b"hello"), 5)]) == {sha(b"hello")}
    assert not path.exists()
    store.discard(sha(b"hello"))  # another process removed it


def test_damaged_object_is_replaced(tmp_path: Path) -> None:
    put(Store(tmp_path), b"hello")
    Store(tmp_path).path(sha(b"hello")).chmod(0o644)
    Store(tmp_path).path(sha(b"hello")).write_bytes(b"hellO")
    store = Store(tmp_path)
    put(store, b"hello")
    assert store.path(sha(b"hello")).read_bytes() == b"hello"


def test_store_does_not_write_through_symlink(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for name in ("../../outside", ".."):
        with pytest.raises(StorageError):
            store.partial(name)
    with pytest.raises(ValueError, match="SHA-256"):
        store.path("../../etc/passwd")


def test_view_writes_files_and_removes_previous(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "artifacts" / "p"
    first = {"a/x": put(store, b"1"), "a/b/y": put(store, b"2")}
    assert store.view(folder, first) == ViewResult()
    second = {"a/x": put(store, b"3")}
    assert store.view(folder, second, previous=list(first)) == ViewResult()
    assert (folder / "a/x").read_bytes() == b"3"
    assert not (folder / "a/b").exists(), "a folder that became empty goes with its last file"
    assert os.path.samefile(folder / "a/x", store.path(second["a/x"]))


def test_view_reports_and_keeps_strangers(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "p"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "notes.txt").write_text("mine")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "way").symlink_to("/etc")
    old = {"a/x": put(store, b"1")}
    store.view(folder, old)
    assert store.view(folder, {}, previous=["a/x"]).strangers == ("a/notes.txt", "link", "way")
    assert (folder / "a" / "notes.txt").read_text() == "mine"


def test_view_replaces_files_of_wanted_names(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "p"
    files = {"x": put(store, b"1"), "y": put(store, b"2")}
    folder.mkdir()
    (folder / "x").write_bytes(b"edited")
    (folder / "y").symlink_to(store.path(files["y"]))  # right bytes, but it would break when copied
    assert store.view(folder, files) == ViewResult()
    assert (folder / "x").read_bytes() == b"1"
    assert not (folder / "y").is_symlink()


def test_view_refuses_paths_outside_folder(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "p"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    for path in ("../x", "/x", "out/x"):
        with pytest.raises(StorageError):
            store.view(folder, {path: put(store, b"1")})
    with pytest.raises(StorageError):
        store.view(folder, {}, previous=["../store/lock"])


def test_place_copies_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "p"
    files = {"x": put(store, b"1"), "a/y": put(store, b"four")}
    assert store.links()

    def no_links(*_: object) -> None:
        raise OSError(1, "no links on this disk")

    monkeypatch.setattr(os, "link", no_links)
    assert not store.links() and not list(store.partial("x").parent.iterdir())
    assert store.view(folder, files) == ViewResult((), 2, 5)
    inode = (folder / "x").stat().st_ino
    assert store.view(folder, files) == ViewResult((), 2, 5), (
        "copies take their room twice, made now or before"
    )
    assert (folder / "x").stat().st_ino == inode, "a right copy is not made again"
    (folder / "x").chmod(0o644)
    (folder / "x").write_bytes(b"2")
    store.view(folder, files)
    assert (folder / "x").read_bytes() == b"1"


def test_copy_is_synced_before_its_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    sha256 = store.add_bytes(b"copied")
    synced: list[tuple[int, bytes]] = []
    fsync, replace = os.fsync, os.replace

    def no_links(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def syncing(handle: int) -> None:
        fsync(handle)
        synced.append((os.fstat(handle).st_ino, os.pread(handle, 100, 0)))

    def naming(source: Path, target: Path) -> None:
        assert (os.stat(source).st_ino, b"copied") in synced
        replace(source, target)

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", naming)
    assert not store.place(sha256, tmp_path / "view" / "a")
    assert (tmp_path / "view" / "a").read_bytes() == b"copied"


def test_change_through_hard_link_is_detected(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("verified", [True, False])
def test_wrong_size_does_not_remove_a_good_object(tmp_path: Path, verified: bool) -> None:
    store = Store(tmp_path)
    put(store, b"hello")
    store = store if verified else Store(tmp_path)
    assert store.missing([(sha(b"hello"), 6)]) == {sha(b"hello")}
    assert store.intact(sha(b"hello"), 5)
