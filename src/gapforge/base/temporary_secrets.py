"""Keep secret values in private files for as long as another program reads them.

The files lie in memory-backed storage where there is any, and they are removed however the command
ends: a folder that a killed command left behind is removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gapforge.base.marked_folders import MARKER, mark_folder, remove_folder
from gapforge.base.storage_errors import storage_errors

_FOLDER_PREFIX = "gapforge-secrets-"
_NEW_PREFIX = ".gapforge-new-"


@contextmanager
def temporary_files(values: Mapping[str, str], *, dry: bool = False) -> Iterator[dict[str, Path]]:
    """Give one file per value, by key; they are deleted when the block ends.

    The folder has mode 0700 and the files 0600. ``dry`` writes nothing and gives the names that a
    build's command would show.
    """
    storage = secret_storage()
    if dry or not values:
        yield {key: storage / f"{_FOLDER_PREFIX}XXXXXXXX" / key for key in sorted(values)}
        return
    remove_stale(storage)
    folder, handle = _locked_folder(storage)
    try:
        with storage_errors(folder):
            files = {key: _write(folder / key, value) for key, value in sorted(values.items())}
        yield files
    finally:
        remove_folder(folder)
        os.close(handle)


def secret_storage() -> Path:
    """Return the best folder for short-lived secrets: in memory, or else the temporary folder."""
    for place in (os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"):
        if place and Path(place).is_dir() and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    return Path(tempfile.gettempdir())


def remove_stale(storage: Path) -> None:
    """Delete our secret folders whose process has ended (`kill -9` skips every clean-up)."""
    for folder in sorted(storage.glob(f"{_FOLDER_PREFIX}*")):
        try:
            if folder.lstat().st_uid != os.geteuid():
                continue
            handle = os.open(folder / MARKER, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_folder(folder)
        except BlockingIOError:
            continue  # its command still runs
        finally:
            os.close(handle)


def _locked_folder(storage: Path) -> tuple[Path, int]:
    """Make a private folder; return it and a handle that locks it while the process lives."""
    with storage_errors(storage):
        new = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX, dir=storage))  # mode 0700
        try:
            mark_folder(new, "secrets of a running command")
            handle = os.open(new / MARKER, os.O_RDWR)
            fcntl.flock(handle, fcntl.LOCK_EX)
            # remove_stale looks for this name, so a folder gets it only once it is locked.
            folder = storage / new.name.replace(_NEW_PREFIX, _FOLDER_PREFIX, 1)
            new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return folder, handle


def _write(path: Path, value: str) -> Path:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(value.encode("utf-8", "surrogateescape"))
    return path
