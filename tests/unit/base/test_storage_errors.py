"""Errors of disks name the path, the cause and the next step."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gapforge.base.errors import StorageError
from gapforge.base.storage_errors import storage_error, storage_errors
from gapforge.base.write_files import write_text

pytestmark = pytest.mark.every_python
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
    reasons = {storage_error(OSError(n, os.strerror(n)), Path("/x")).message for n in numbers}
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


def test_storage_error_in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    error = storage_error(OSError(errno.ENODEV, "No such device"), Path("/d/f"))
    assert error.render() == (
        "오류: /d/f: 디스크가 분리되었습니다\n"
        "다음: 디스크를 다시 연결하거나 다른 디스크를 쓰고, 같은 명령을 다시 실행하십시오. "
        "완료된 작업은 남아 있습니다"
    )
