"""Turn errors of disks into errors with a cause and a next step."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gapforge.base.errors import StorageError
from gapforge.base.i18n import N_, _
from gapforge.base.system_errors import os_reason

_DENIED = N_("permission denied")
_UNRESPONSIVE = N_("the disk does not respond (input/output error)")
_REASONS = {
    errno.ENOSPC: N_("the disk is full"),
    errno.EDQUOT: N_("the disk quota is used up"),
    errno.EROFS: N_("the file system is read-only"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EFBIG: N_(
        "the file system does not support files of this size (the limit of FAT32 is 4 GiB)"
    ),
    errno.EIO: _UNRESPONSIVE,
    errno.EREMOTEIO: _UNRESPONSIVE,
    errno.EISDIR: N_("there is a folder where a file should be"),
    errno.ENOTDIR: N_("there is a file where a folder should be"),
}
# Errors of the block layer, FUSE (ECONNABORTED for the pending call, ENOTCONN for later ones) and
# network file systems after a disk was unplugged.
_GONE = frozenset(
    {
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOMEDIUM,
        errno.ENOTCONN,
        errno.ECONNABORTED,
        errno.ESHUTDOWN,
        errno.ESTALE,
        errno.EHOSTDOWN,
        errno.ETIMEDOUT,
    }
)


def is_gone(error: OSError) -> bool:
    """Return whether the error means that the disk itself was removed."""
    return error.errno in _GONE


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Raise errors of the disk in the block as StorageError with ``path``.

    Other errors that name a file, such as FileNotFoundError, and errors of network connections pass
    unchanged.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        # Errors of read(), write() and fsync() name no file.
        of_block = error.filename is None and not isinstance(error, ConnectionError)
        if number not in _GONE and number not in _REASONS and not of_block:
            raise
        raise storage_error(error, path) from error


def storage_error(error: OSError, path: Path | None = None) -> StorageError:
    """Return a StorageError with a hint for ``path``, or for the file that ``error`` names."""
    number = error.errno or 0
    named = path or error.filename
    where = str(named or _("input/output"))
    if number in _GONE:
        reason = _("the disk was removed")
    else:
        reason = _(_REASONS[number]) if number in _REASONS else os_reason(error)
    hint = ""
    if number in (errno.ENOSPC, errno.EDQUOT):
        hint = _space_hint(nearest_existing(Path(named)) if named else None)
    elif number in (errno.EACCES, errno.EPERM) and named:
        hint = _owner_hint(Path(named))
    elif number in _GONE or number in (errno.EIO, errno.EREMOTEIO):
        hint = _(
            "plug the disk in again or use another one, and run the same command again; "
            "finished work is kept"
        )
    elif number == errno.EFBIG:
        hint = _("use another disk; for FAT32, pack the volumes with --volume-size fat32")
    return StorageError(f"{where}: {reason}", hint=hint)


def _space_hint(folder: Path | None) -> str:
    """Return what makes room on the disk of ``folder``."""
    if folder is None:
        return _(
            "see which disk is full: df -h; free some space (./gapforge gc deletes what no lock "
            "uses) and run the same command again; finished work is kept"
        )
    return _(
        "free space on the disk of {folder} (df -h {folder!q}; in the project, ./gapforge gc "
        "deletes what no lock uses) and run the same command again; finished work is kept",
        folder=folder,
    )


def _owner_hint(path: Path) -> str:
    """Return whose ``path`` is, and the command that gives it to this user; "" for an own one."""
    place, user = nearest_existing(path), os.geteuid()
    if user and _owner(place) == user:
        place = place.parent  # a file cannot be replaced in a folder of somebody else's
    owner = _owner(place)
    if not user or owner in (user, None):
        return ""
    top = place
    while top != top.parent and _owner(top.parent) == owner:
        top = top.parent
    if _owner(top.parent) == user:  # for example all of .gapforge, after a command with sudo
        place = top
    return _(
        '{place} belongs to {owner}; to take it over: sudo chown -R "$(id -u):$(id -g)" '
        "{place!q}; then run the same command again",
        place=place,
        owner=_user_name(owner),
    )


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def _user_name(number: int | None) -> str:
    try:
        return pwd.getpwuid(number or 0).pw_name
    except (KeyError, OverflowError):
        return str(number)


def nearest_existing(path: Path) -> Path:
    """Return ``path`` or its nearest parent that exists, as an absolute path."""
    path = path.absolute()
    while path != path.parent and not os.path.lexists(path):
        path = path.parent
    return path


def free_bytes(folder: Path) -> int:
    """Return how many bytes this user can still write on the disk of an existing folder."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def full_disk(folders: Sequence[Path]) -> Path | None:
    """Return the first folder whose disk has no room for 1 MiB or for one more file."""
    for folder in map(nearest_existing, folders):
        with suppress(OSError):
            status = os.statvfs(folder)
            files_left = status.f_favail if status.f_files else 1
            if status.f_bavail * status.f_frsize < 1 << 20 or files_left < 1:
                return folder
    return None
