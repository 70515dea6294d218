"""Files: nothing escapes its folder, nothing half-written gets its name, only our own folders are deleted."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapforge.core import files
from gapforge.core.errors import BusyError, StorageError
from gapforge.core.files import (
    MARKER,
    atomic_file,
    canonical_json,
    content_mtime,
    exclusive,
    inside,
    link_or_copy,
    mark_folder,
    remove_folder,
    sha256_bytes,
    sha256_file,
    storage_errors,
    unsafe_path_reason,
    write_text,
)

pytestmark = pytest.mark.every_python

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "path", ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", "a\\b", "a\0b", "a\nb", "a\x9bb"]
)
def test_unsafe_paths(path: str, tmp_path: Path) -> None:
    assert unsafe_path_reason(path)
    with pytest.raises(StorageError):
        inside(tmp_path, path)


@pytest.mark.parametrize("path", ["a", "a/b.c", "..a", "a..b/c", "...", "a/…/한글"])
def test_safe_paths(path: str, tmp_path: Path) -> None:
    assert unsafe_path_reason(path) == "" and inside(tmp_path, path) == tmp_path / path


@given(st.text(alphabet="ab./\\\0\n", max_size=12))
def test_inside_never_leaves(path: str) -> None:
    root = Path("/nowhere/root")
    try:
        target = inside(root, path)
    except StorageError:
        return
    assert os.path.normpath(target) == str(root) or os.path.normpath(target).startswith("/nowhere/root/")


def test_inside_sees_through_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to("real")
    assert inside(root, "in/x") == root / "in/x"
    with pytest.raises(StorageError, match="symbolic link"):
        inside(root, "out/x")


def test_hashes(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"")
    assert sha256_file(file) == sha256_bytes(b"") == EMPTY
    data = os.urandom(3 * files.CHUNK + 17)
    file.write_bytes(data)
    seen: list[int] = []
    assert sha256_file(file, seen.append) == sha256_bytes(data)
    assert sum(seen) == len(data)
    with open(file, "rb", buffering=0) as opened:
        assert files.sha256_open(opened) == sha256_bytes(data)


def test_canonical_json_is_the_same_for_the_same_value() -> None:
    assert (
        canonical_json({"b": 1, "a": "한"}) == canonical_json({"a": "한", "b": 1}) == '{\n  "a": "한",\n  "b": 1\n}\n'
    )


def test_atomic_file_replaces_at_once(tmp_path: Path) -> None:
    target = tmp_path / "deep/er/file"
    write_text(target, "old")
    with atomic_file(target, 0o600) as file:
        file.write(b"new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(target.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_atomic_file_leaves_the_old_one_on_any_error(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "file"
    write_text(target, "old")
    with pytest.raises(StorageError if isinstance(error, OSError) else type(error)), atomic_file(target) as file:
        file.write(b"half")
        raise error
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_killed_writer_never_leaves_half_a_file(tmp_path: Path, root: Path) -> None:
    script = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {str(root / "src")!r})
        from pathlib import Path
        from gapforge.core.files import atomic_file
        with atomic_file(Path({str(tmp_path / "file")!r})) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"), (errno.EFBIG, "FAT32"), (errno.EISDIR, "a folder is where"),
        (errno.EIO, "does not answer"), (errno.ENODEV, "the disk is gone"), (errno.ENOTCONN, "the disk is gone"),
        (errno.ECONNABORTED, "the disk is gone"), (errno.ENOMEDIUM, "the disk is gone"),
        (errno.ETXTBSY, os.strerror(errno.ETXTBSY)),
    ],
)  # fmt: skip
def test_storage_errors_speak_plainly(number: int, words: str) -> None:
    with pytest.raises(StorageError, match=words) as error, storage_errors(Path("/x/y")):
        raise OSError(number, os.strerror(number))
    assert "/x/y" in error.value.message and error.value.exit_code == 15
    if number in (errno.ENOSPC, errno.EDQUOT):
        assert "df -h" in error.value.hint
    if number in (errno.EIO, errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED):
        assert "plug it in again" in error.value.hint
    if number == errno.EFBIG:
        assert "--volume-size fat32" in error.value.hint


def test_other_os_errors_stay_what_they_are() -> None:
    with pytest.raises(ConnectionResetError), storage_errors(Path("/x")):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    with pytest.raises(FileNotFoundError), storage_errors(Path("/x")), open("/no/such/file"):
        pass


def test_writing_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((StorageError, OSError)):
        write_text(tmp_path / "file" / "inner", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="a folder is where"):
        write_text(tmp_path / "folder", "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_link_or_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "s", tmp_path / "sub/t"
    source.write_text("x")
    assert link_or_copy(source, target) is True
    assert target.stat().st_ino == source.stat().st_ino
    assert link_or_copy(source, target) is True  # again, over itself
    assert os.listdir(target.parent) == ["t"]
    source.chmod(0o640)
    os.utime(source, (5, 5))

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "cross-device")

    monkeypatch.setattr(os, "link", no_links)
    assert link_or_copy(source, target) is False
    assert target.stat().st_ino != source.stat().st_ino
    assert target.stat().st_mtime == 5 and target.read_text() == "x"


def test_link_or_copy_failing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", full)
    (tmp_path / "s").write_text("x")
    with pytest.raises(StorageError, match="full"):
        link_or_copy(tmp_path / "s", tmp_path / "t")
    assert os.listdir(tmp_path) == ["s"]


def test_only_marked_folders_are_deleted(tmp_path: Path) -> None:
    alien = tmp_path / "alien"
    alien.mkdir()
    (alien / "file").write_text("x")
    with pytest.raises(StorageError, match="not made by gapforge"):
        mark_folder(alien, "test")
    with pytest.raises(StorageError, match="only its own"):
        remove_folder(alien)
    assert (alien / "file").exists()
    ours = mark_folder(tmp_path / "ours", "test")
    (ours / "sub").mkdir()
    (ours / "sub/f").write_text("x")
    (ours / "link").symlink_to(alien)
    mark_folder(ours, "test")  # again is fine
    (tmp_path / "alias").symlink_to(ours)
    with pytest.raises(StorageError):
        remove_folder(tmp_path / "alias")
    remove_folder(ours)
    assert not ours.exists() and (alien / "file").exists()
    remove_folder(ours)  # what is not there needs no deleting


def test_an_interrupted_removal_can_be_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = mark_folder(tmp_path / "ours", "test")
    (ours / "a").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(files.shutil, "rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            remove_folder(ours)
    assert (ours / MARKER).is_file()
    remove_folder(ours)
    assert not ours.exists()


def test_a_removal_that_was_killed_before_its_last_step_can_be_taken_up(tmp_path: Path) -> None:
    ours = mark_folder(tmp_path / "ours", "test")
    (ours / MARKER).unlink()
    (tmp_path / "link").symlink_to(ours)
    with pytest.raises(StorageError):
        remove_folder(tmp_path / "link")
    remove_folder(ours)
    assert not ours.exists()


def test_exclusive(tmp_path: Path, root: Path) -> None:
    lock = tmp_path / "locks/l"
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(root / "src")!r})
        from pathlib import Path
        from gapforge.core.files import exclusive
        with exclusive(Path({str(lock)!r}), "test"):
            print("held", flush=True)
            time.sleep(60)
    """)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(BusyError) as error, exclusive(lock, "build of x"):
            pass
        assert error.value.exit_code == 19 and "build of x" in error.value.message
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    with exclusive(lock, "test"):  # a killed holder blocks nobody
        pass


@given(st.binary(max_size=30))
def test_content_times_are_plausible_and_stable(data: bytes) -> None:
    when = content_mtime(sha256_bytes(data))
    assert when == content_mtime(sha256_bytes(data)) and 10**9 <= when < 15 * 10**8


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (errno.ENOSPC, "오류: /d/f: 디스크가 가득 찼습니다\n다음: 공간을 비운 뒤(df -h /d) 같은 명령을 다시 실행하십시오. 끝난 작업은 남아 있습니다"),
        (errno.ENODEV, "오류: /d/f: 디스크가 사라졌습니다\n다음: 다시 꽂거나 다른 디스크를 쓰고, 같은 명령을 다시 실행하십시오. 끝난 작업은 남아 있습니다"),
        (errno.EACCES, "오류: /d/f: 권한이 없습니다"),
        (errno.ELOOP, "오류: /d/f: 심볼릭 링크를 따라갈 수 없음"),
    ],
)  # fmt: skip
def test_what_a_disk_says_in_korean(monkeypatch: pytest.MonkeyPatch, number: int, shown: str) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert files.storage_error(OSError(number, os.strerror(number)), Path("/d/f")).render() == shown


def test_an_unsafe_path_in_korean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    with pytest.raises(StorageError) as caught:
        files.inside(tmp_path, "../x")
    assert (
        caught.value.message == f"{tmp_path} 아래에 둘 수 없는 경로입니다. '../x': '..'이 있음 (폴더 안에 머물러야 함)"
    )
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="파일이 아니라 심볼릭 링크임"):
        files.read_regular(tmp_path / "link", 10)
    assert files.unsafe_path_reason("a/b") == ""
