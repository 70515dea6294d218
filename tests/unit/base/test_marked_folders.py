"""Only folders that gapforge marked are deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gapforge.base.errors import StorageError
from gapforge.base.marked_folders import MARKER, mark_folder, remove_folder
from raised_errors import assert_error

pytestmark = pytest.mark.every_python


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
        patched.setattr(shutil, "rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
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
