"""Create folders that gapforge may delete, and delete only those."""

from __future__ import annotations

import shutil
from pathlib import Path

from gapforge.base.errors import StorageError
from gapforge.base.i18n import _
from gapforge.base.storage_errors import storage_errors

MARKER = ".gapforge-folder"  # gapforge may delete a folder that contains this file


def mark_folder(folder: Path, purpose: str) -> Path:
    """Create ``folder`` if needed and put the marker in it, so that gapforge may delete it later.

    Raises StorageError for an existing folder with content but without the marker.
    """
    with storage_errors(folder / MARKER):
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / MARKER
        if not marker.exists():
            if any(folder.iterdir()):
                raise StorageError(
                    _("{folder} exists, is not empty and was not made by gapforge", folder=folder),
                    hint=_(
                        "ls -la {folder!q}; move the folder away or choose another place, "
                        "and run the same command again",
                        folder=folder,
                    ),
                )
            marker.write_text(f"gapforge may delete this folder: {purpose}\n")
    return folder


def remove_folder(folder: Path) -> None:
    """Delete a folder that contains the marker, or an empty one. Do nothing if it does not exist.

    A run that was killed right before creating or after removing the marker leaves an empty folder.
    Raises StorageError for any other folder.
    """
    if not folder.exists():
        return
    if not folder.is_symlink() and folder.is_dir() and not any(folder.iterdir()):
        with storage_errors(folder):
            folder.rmdir()
        return
    if folder.is_symlink() or not (folder / MARKER).is_file():
        raise StorageError(
            _(
                "{folder}: no {marker} in it; gapforge deletes only folders that it made itself",
                folder=folder,
                marker=MARKER,
            )
        )
    with storage_errors(folder):
        # The marker is removed last, so that an interrupted removal can be repeated.
        for entry in sorted(folder.iterdir()):
            if entry.name == MARKER:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        (folder / MARKER).unlink()
        folder.rmdir()
