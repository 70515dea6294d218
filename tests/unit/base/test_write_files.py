"""Writes are atomic and never go through a link."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gapforge.base.errors import StorageError
from gapforge.base.write_files import (
    atomic_file,
    link_or_copy,
    new_file,
    open_own,
    open_replaced,
    publish,
    remove_litter,
    write_text,
)
from raised_errors import assert_error
from samples import ROOT

pytestmark = pytest.mark.every_python


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


def test_killed_writer_leaves_no_target(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT / "src")!r})
        from pathlib import Path
        from gapforge.base.write_files import atomic_file
        with atomic_file(Path({str(tmp_path / "file")!r})) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert not (tmp_path / "file").exists()


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


@pytest.mark.parametrize("plant", [os.symlink, os.link, None])
def test_open_own_never_opens_what_others_planted(tmp_path: Path, plant: object) -> None:
    victim, path = tmp_path / "victim", tmp_path / "own"
    victim.write_bytes(b"precious")
    if plant is None:
        os.mkfifo(path)
    else:
        plant(victim, path)  # type: ignore[operator]
    handle = open_own(path)
    os.write(handle, b"new")
    os.close(handle)
    assert victim.read_bytes() == b"precious" and path.read_bytes() == b"new"
    handle = open_own(path)  # a later run continues it
    assert os.fstat(handle).st_size == 3
    os.close(handle)


def test_publish_refuses_a_name_that_others_replaced(tmp_path: Path) -> None:
    target = tmp_path / "target"
    handle, temporary = new_file(target)
    os.write(handle, b"mine")
    temporary.unlink()
    temporary.write_bytes(b"theirs")
    with pytest.raises(StorageError) as caught:
        publish(handle, temporary, target)
    os.close(handle)
    assert_error(caught.value, StorageError, file=temporary)
    assert not target.exists()


def test_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("\ud55c" * 85)
    write_text(target, "x")
    left = new_file(target)
    os.close(left[0])
    remove_litter(target)
    assert os.listdir(tmp_path) == [target.name]


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_log_replaces_a_link(tmp_path: Path, plant: object) -> None:
    victim, log = tmp_path / "victim", tmp_path / "folder" / "build.log"
    victim.write_bytes(b"precious")
    log.parent.mkdir()
    plant(victim, log)  # type: ignore[operator]
    with open_replaced(log) as lines:
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
