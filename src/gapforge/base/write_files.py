"""Write, copy and remove files: atomically, and never through a link."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

from gapforge.base.errors import StorageError
from gapforge.base.files import CHUNK, open_regular
from gapforge.base.flush import sync_folder
from gapforge.base.i18n import _
from gapforge.base.storage_errors import storage_errors

# Errors of os.link() across devices, and where there are no or too many hard links.
# FUSE file systems without an operation say ENOSYS.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES, errno.ENOSYS)
_NO_MODE = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS)


def new_file(target: Path, suffix: str = ".tmp") -> tuple[int, Path]:
    """Create a file beside ``target`` for writing. Return its handle and its path.

    Its name is random and it is created exclusively, so that nobody can plant a link or a file of
    the user's under it. Only this user can open it.
    """
    handle, name = tempfile.mkstemp(prefix=_prefix(target), suffix=suffix, dir=target.parent)
    return handle, Path(name)


def publish(handle: int, temporary: Path, target: Path, mode: int = 0o644) -> None:
    """Give a file of ``new_file`` its final name, after its bytes are on the disk.

    Raise StorageError if ``temporary`` is no longer the name of that file.
    """
    with storage_errors(target):
        set_mode(handle, mode)
        os.fsync(handle)
        if not os.path.samestat(os.fstat(handle), os.lstat(temporary)):
            raise StorageError(
                _("{file} was replaced while it was written", file=temporary),
                hint=_("ls -la {folder!q}; somebody else writes into it", folder=target.parent),
            )
        os.replace(temporary, target)
        sync_folder(target.parent)


def set_mode(handle: int, mode: int) -> None:
    """Set the mode of an open file, if its file system has modes (FAT has none)."""
    try:
        os.fchmod(handle, mode)
    except OSError as error:
        if error.errno not in _NO_MODE:
            raise


def _prefix(target: Path) -> str:
    """Return how temporary names for ``target`` begin, short enough for a file system."""
    return f".{os.fsencode(target.name)[:200].decode('utf-8', 'ignore')}."


def open_own(path: Path) -> int:
    """Open a file that several runs write, or create it. Return a handle for reading and writing.

    What is not a regular file with one name is removed first: writing through a link that somebody
    planted would change another file.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with storage_errors(path):
        if is_own(path):
            handle = os.open(path, flags)
            status = os.fstat(handle)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                return handle
            os.close(handle)
        path.unlink(missing_ok=True)
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)


def is_own(path: Path) -> bool:
    """Return whether ``path`` is a regular file with one name, which ``open_own`` would keep."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


@contextmanager
def open_replaced(path: Path, mode: int = 0o666) -> Iterator[TextIO]:
    """Replace ``path`` by a new text file and open it for writing. Raise StorageError.

    ``mode`` is reduced by the umask.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(handle, "w", encoding="utf-8") as file:
            yield file


@contextmanager
def atomic_file(target: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Open a file that is renamed to ``target`` when the block ends without an error.

    The bytes are flushed to disk before the rename, and the rename before the block ends: a power
    failure brings no earlier file back. On any failure the temporary file is removed.
    Raises StorageError for a full or read-only disk.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = new_file(target)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                publish(handle, temporary, target, mode)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(target: Path, text: str, mode: int = 0o644) -> None:
    """Write a small UTF-8 file atomically."""
    write_bytes(target, text.encode(), mode)


def write_bytes(target: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a small file atomically."""
    with atomic_file(target, mode) as file:
        file.write(data)


def remove_file(target: Path) -> None:
    """Delete a file or link for good, if it exists: a power failure does not bring it back."""
    with storage_errors(target):
        target.unlink(missing_ok=True)
        sync_folder(target.parent)


def remove_litter(target: Path, suffix: str = ".tmp") -> None:
    """Remove the files of ``new_file`` that killed runs left beside ``target``."""
    prefix = _prefix(target)
    with storage_errors(target), suppress(FileNotFoundError):
        for name in os.listdir(target.parent):
            if name.startswith(prefix) and name.endswith(suffix):
                (target.parent / name).unlink(missing_ok=True)


def remove_empty_folders(path: Path, top: Path) -> None:
    """Remove the folders of ``path`` below ``top`` that are empty, from the innermost one on."""
    for folder in path.parents:
        if folder == top or not folder.is_dir() or any(folder.iterdir()):
            break
        folder.rmdir()


def link_or_copy(source: Path, target: Path) -> bool:
    """Replace ``target`` atomically with a hard link to ``source``, or with a copy of it.

    Returns whether it is a hard link. Copies are made across devices and on file systems without
    hard links.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{_prefix(target)}{secrets.token_hex(8)}.tmp")
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            copy_file(source, target)
            return False
        try:
            os.replace(temporary, target)
        finally:  # rename() does nothing when both names are links to one inode
            temporary.unlink(missing_ok=True)
        return True


def copy_file(source: Path, target: Path) -> None:
    """Replace ``target`` atomically with a copy of a regular file, with its mode and time."""
    with open_regular(source) as reader:
        status = os.fstat(reader.fileno())
        with atomic_file(target, stat.S_IMODE(status.st_mode)) as writer:
            shutil.copyfileobj(reader, writer, CHUNK)
            writer.flush()
            os.utime(writer.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
