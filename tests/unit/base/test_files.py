"""Paths stay in their folder, writes are atomic, and only marked folders are deleted."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapforge.base import files
from gapforge.base.errors import BusyError, StorageError
from gapforge.base.files import (
    MARKER,
    UnsuitableFile,
    atomic_file,
    canonical_json,
    content_mtime,
    exclusive,
    folder_in_use,
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
from raised_errors import assert_error, values_of

pytestmark = pytest.mark.every_python

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", "a\\b", "a\0b", "a\nb", "a\x9bb"],
)
def test_unsafe_path_is_refused(path: str, tmp_path: Path) -> None:
    assert unsafe_path_reason(path)
    with pytest.raises(StorageError):
        inside(tmp_path, path)


@pytest.mark.parametrize("path", ["a", "a/b.c", "..a", "a..b/c", "...", "a/…/한글"])
def test_safe_path_is_accepted(path: str, tmp_path: Path) -> None:
    assert unsafe_path_reason(path) == "" and inside(tmp_path, path) == tmp_path / path


@given(st.text(alphabet="ab./\\\0\n", max_size=12))
def test_inside_stays_in_root(path: str) -> None:
    root = Path("/nowhere/root")
    try:
        target = inside(root, path)
    except StorageError:
        return
    assert os.path.normpath(target) == str(root) or os.path.normpath(target).startswith(
        "/nowhere/root/"
    )


def test_inside_resolves_symbolic_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to("real")
    assert inside(root, "in/x") == root / "in/x"
    with pytest.raises(StorageError) as error:
        inside(root, "out/x")
    assert_error(error.value, StorageError, path="out/x", root=root)


def test_sha256_of_files_and_bytes(tmp_path: Path) -> None:
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


def test_canonical_json_ignores_key_order() -> None:
    assert (
        canonical_json({"b": 1, "a": "한"})
        == canonical_json({"a": "한", "b": 1})
        == '{\n  "a": "한",\n  "b": 1\n}\n'
    )


def test_atomic_file_replaces_target_at_end(tmp_path: Path) -> None:
    target = tmp_path / "deep/er/file"
    write_text(target, "old")
    with atomic_file(target, 0o600) as file:
        file.write(b"new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(target.parent) == ["file"]


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")]
)
def test_atomic_file_keeps_target_on_error(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "file"
    write_text(target, "old")
    with (
        pytest.raises(StorageError if isinstance(error, OSError) else type(error)),
        atomic_file(target) as file,
    ):
        file.write(b"half")
        raise error
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_killed_writer_leaves_no_target(tmp_path: Path, root: Path) -> None:
    script = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {str(root / "src")!r})
        from pathlib import Path
        from gapforge.base.files import atomic_file
        with atomic_file(Path({str(tmp_path / "file")!r})) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert not (tmp_path / "file").exists()


FULL, REMOVED, TOO_LARGE = "df -h /;", "plug the disk in again", "--volume-size fat32"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, FULL),
        (errno.EDQUOT, FULL),
        (errno.EROFS, ""),
        (errno.EACCES, ""),
        (errno.EFBIG, TOO_LARGE),
        (errno.EISDIR, ""),
        (errno.EIO, REMOVED),
        (errno.ENODEV, REMOVED),
        (errno.ENOTCONN, REMOVED),
        (errno.ECONNABORTED, REMOVED),
        (errno.ENOMEDIUM, REMOVED),
        (errno.ETXTBSY, ""),
    ],
)
def test_storage_error_names_path_and_hint(
    number: int, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # whose folder it is matters to others only
    with pytest.raises(StorageError) as error, storage_errors(Path("/x/y")):
        raise OSError(number, os.strerror(number))
    assert error.value.message.startswith("/x/y: ") and error.value.exit_code == 15
    assert hint in error.value.hint and bool(hint) == bool(error.value.hint)


def test_storage_error_reasons_differ_by_cause() -> None:
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)
    numbers += (errno.EISDIR, errno.ENOTDIR, errno.EIO, errno.ENODEV, errno.ETXTBSY)
    reasons = {files.storage_error(OSError(n, os.strerror(n)), Path("/x")).message for n in numbers}
    assert len(reasons) == len(numbers)


def test_other_system_errors_pass_unchanged() -> None:
    with pytest.raises(ConnectionResetError), storage_errors(Path("/x")):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    with pytest.raises(FileNotFoundError), storage_errors(Path("/x")), open("/no/such/file"):
        pass


def test_file_in_place_of_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((StorageError, OSError)):
        write_text(tmp_path / "file" / "inner", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        write_text(tmp_path / "folder", "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_link_or_copy_falls_back_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_link_or_copy_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", full)
    (tmp_path / "s").write_text("x")
    with pytest.raises(StorageError):
        link_or_copy(tmp_path / "s", tmp_path / "t")
    assert os.listdir(tmp_path) == ["s"]


def test_only_marked_folders_are_deleted(tmp_path: Path) -> None:
    alien = tmp_path / "alien"
    alien.mkdir()
    (alien / "file").write_text("x")
    with pytest.raises(StorageError) as error:
        mark_folder(alien, "test")
    assert_error(error.value, StorageError, folder=alien)
    with pytest.raises(StorageError) as error:
        remove_folder(alien)
    assert_error(error.value, StorageError, folder=alien, marker=MARKER)
    assert (alien / "file").exists()
    ours = mark_folder(tmp_path / "ours", "test")
    (ours / "sub").mkdir()
    (ours / "sub/f").write_text("x")
    (ours / "link").symlink_to(alien)
    mark_folder(ours, "test")  # again is fine
    (tmp_path / "alias").symlink_to(ours)
    with pytest.raises(StorageError) as error:
        remove_folder(tmp_path / "alias")
    assert_error(error.value, StorageError, folder=tmp_path / "alias", marker=MARKER)
    assert (ours / "sub/f").exists() and (ours / MARKER).exists(), "emptied through a link"
    remove_folder(ours)
    assert not ours.exists() and (alien / "file").exists()
    remove_folder(ours)  # a second time does nothing


def test_interrupted_removal_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = mark_folder(tmp_path / "ours", "test")
    (ours / "a").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(
            files.shutil, "rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt())
        )
        with pytest.raises(KeyboardInterrupt):
            remove_folder(ours)
    assert (ours / MARKER).is_file()
    remove_folder(ours)
    assert not ours.exists()


def test_folder_left_empty_by_kill_is_removed(tmp_path: Path) -> None:
    ours = mark_folder(tmp_path / "ours", "test")
    (ours / MARKER).unlink()
    (tmp_path / "link").symlink_to(ours)
    with pytest.raises(StorageError) as error:
        remove_folder(tmp_path / "link")
    assert_error(error.value, StorageError, folder=tmp_path / "link", marker=MARKER)
    assert ours.exists()
    remove_folder(ours)
    assert not ours.exists()


def test_exclusive_refuses_second_holder(tmp_path: Path, root: Path) -> None:
    lock = tmp_path / "locks/l"
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(root / "src")!r})
        from pathlib import Path
        from gapforge.base.files import exclusive
        with exclusive(Path({str(lock)!r}), "test"):
            print("held", flush=True)
            time.sleep(60)
    """)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(BusyError) as error, exclusive(lock, "build of x"):
            pass
        hint = {"pid": child.pid, "command": values_of(error.value.hint)["command"]}
        assert_error(error.value, BusyError, what="build of x", hint=hint)
        assert str(hint["command"]).startswith(f"{sys.executable} -c ")
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    with exclusive(lock, "test"):  # the system released the lock of the killed holder
        pass


def test_folder_in_use_has_several_readers_or_one_writer(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    with folder_in_use(folder, "x", changes=True):
        for changes in (True, False):
            with pytest.raises(BusyError) as error, folder_in_use(folder, "x", changes=changes):
                pass
            assert values_of(error.value.hint)["pid"] == os.getpid()
    assert not folder.exists(), "made for nothing"
    with folder_in_use(folder, "x", changes=True):
        (folder / "file").touch()
    reading = folder_in_use(folder, "x", changes=False)
    with reading, folder_in_use(folder, "x", changes=False), pytest.raises(BusyError):
        folder_in_use(folder, "x", changes=True).__enter__()
    with folder_in_use(folder, "x", changes=True):
        pass
    assert list(folder.iterdir()) == [folder / "file"]


@given(st.binary(max_size=30))
def test_content_mtime_is_stable_and_in_range(data: bytes) -> None:
    when = content_mtime(sha256_bytes(data))
    assert when == content_mtime(sha256_bytes(data)) and 10**9 <= when < 15 * 10**8


def test_storage_error_in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    error = files.storage_error(OSError(errno.ENODEV, "No such device"), Path("/d/f"))
    assert error.render() == (
        "오류: /d/f: 디스크가 분리되었습니다\n"
        "다음: 디스크를 다시 연결하거나 다른 디스크를 쓰고, 같은 명령을 다시 실행하십시오. "
        "완료된 작업은 남아 있습니다"
    )


def test_read_regular_refuses_links_and_large_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert files.read_regular(tmp_path / "file", 5) == b"12345"
    assert files.read_regular(tmp_path / "link", 5, follow=True) == b"12345"
    for path, most in ((tmp_path / "link", 10), (tmp_path / "file", 4)):
        with pytest.raises(UnsuitableFile):
            files.read_regular(path, most)
    with pytest.raises(IsADirectoryError):
        files.read_regular(tmp_path, 10)


@pytest.mark.parametrize("follow", [True, False])
def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path, follow: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UnsuitableFile):
            files.read_regular(path, 10, follow=follow)
    with pytest.raises(UnsuitableFile):
        sha256_file(tmp_path / "pipe")


def test_name_that_becomes_a_pipe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the examination and the opening of a name, something else can get it."""
    file, real = tmp_path / "file", os.open
    file.write_bytes(b"1")

    def late(path: object, flags: int, *rest: int) -> int:
        file.unlink()
        os.mkfifo(file)
        return real(file, flags, *rest)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(UnsuitableFile):
        files.read_regular(file, 10)


def test_size_is_bounded_before_the_file_is_read(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(3 << 29)
    tracemalloc.start()
    with pytest.raises(UnsuitableFile):
        files.read_regular(tmp_path / "sparse", 1000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_short_reads_do_not_cut_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system or the kernel may return less than was asked for."""
    (tmp_path / "file").write_bytes(bytes(range(100)))

    class Slow(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 7, 7))

    @contextmanager
    def slow(path: Path, *, follow: bool = False) -> Iterator[io.FileIO]:
        with Slow(path) as file:
            yield file

    monkeypatch.setattr(files, "open_regular", slow)
    assert files.read_regular(tmp_path / "file", 100) == bytes(range(100))
    with pytest.raises(UnsuitableFile):
        files.read_regular(tmp_path / "file", 99)


def test_contains_compares_all_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert files.contains(tmp_path / "file", b"12345")
    for name, data in (("file", b"1234"), ("file", b"123456"), ("link", b"12345"), ("no", b"")):
        assert not files.contains(tmp_path / name, data)


@pytest.mark.parametrize(
    "path", ["a/" * 64 + "a", "x" * 256, "\ud55c" * 86, "/".join(["y" * 250] * 9), "a\ud800"]
)
def test_path_that_no_file_system_has_is_unsafe(path: str) -> None:
    assert unsafe_path_reason(path)


@pytest.mark.parametrize("path", ["a/" * 63 + "a", "x" * 255, "\ud55c" * 85])
def test_path_at_the_limit_is_safe(path: str) -> None:
    assert unsafe_path_reason(path) == ""


@pytest.mark.parametrize("plant", [os.symlink, os.link, None])
def test_open_own_never_opens_what_others_planted(tmp_path: Path, plant: object) -> None:
    victim, path = tmp_path / "victim", tmp_path / "own"
    victim.write_bytes(b"precious")
    if plant is None:
        os.mkfifo(path)
    else:
        plant(victim, path)  # type: ignore[operator]
    handle = files.open_own(path)
    os.write(handle, b"new")
    os.close(handle)
    assert victim.read_bytes() == b"precious" and path.read_bytes() == b"new"
    handle = files.open_own(path)  # a later run continues it
    assert os.fstat(handle).st_size == 3
    os.close(handle)


def test_publish_refuses_a_name_that_others_replaced(tmp_path: Path) -> None:
    target = tmp_path / "target"
    handle, temporary = files.new_file(target)
    os.write(handle, b"mine")
    temporary.unlink()
    temporary.write_bytes(b"theirs")
    with pytest.raises(StorageError) as caught:
        files.publish(handle, temporary, target)
    os.close(handle)
    assert_error(caught.value, StorageError, file=temporary)
    assert not target.exists()


def test_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("\ud55c" * 85)
    write_text(target, "x")
    left = files.new_file(target)
    os.close(left[0])
    files.remove_litter(target)
    assert os.listdir(tmp_path) == [target.name]


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_log_replaces_a_link(tmp_path: Path, plant: object) -> None:
    victim, log = tmp_path / "victim", tmp_path / "folder" / "build.log"
    victim.write_bytes(b"precious")
    log.parent.mkdir()
    plant(victim, log)  # type: ignore[operator]
    with files.open_replaced(log) as lines:
        lines.write("new")
    assert victim.read_bytes() == b"precious" and log.read_bytes() == b"new"


def test_copy_keeps_time_and_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"data")
    source.chmod(0o440)
    os.utime(source, (5, 7))

    def no_links(*names: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    assert link_or_copy(source, target) is False
    status = target.stat()
    assert (target.read_bytes(), status.st_mtime, status.st_mode & 0o777) == (b"data", 7, 0o440)
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


def test_real_path_follows_links_and_names_loops(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    assert files.real_path(tmp_path / "link/absent") == (tmp_path / "folder/absent").resolve()
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for name in ("one", "two", "one/below"):
        with pytest.raises(StorageError) as caught:
            files.real_path(tmp_path / name)
        assert str(tmp_path / name) in caught.value.render()


def test_given_path_keeps_an_unknown_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    assert files.given_path("~/a") == Path("/home/x/a")
    assert files.given_path("~nosuchuser/a") == Path("~nosuchuser/a")
    assert files.given_path(Path("a/~")) == Path("a/~")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP])
def test_file_system_without_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(handle: int, mode: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fchmod", refuse)
    with atomic_file(tmp_path / "volume") as file:
        file.write(b"x")
    assert (tmp_path / "volume").read_bytes() == b"x"
