"""Flush files and folders to the disk, so that a power failure loses nothing."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gapforge.base.files import system_text
from gapforge.base.parallel import on_all_cores
from gapforge.base.storage_errors import storage_errors

_SYNCS = 16  # parallel fsync calls: the disk flushes once for all that wait
# File systems whose syncfs() reaches the disk. That of FUSE, for example, does not.
_SYNCFS = {"ext2", "ext3", "ext4", "xfs", "f2fs", "vfat", "exfat", "tmpfs"}
MOUNTS = Path("/proc/self/mountinfo")  # names may have any bytes: read it with surrogateescape


def sync_files(files: Sequence[Path]) -> None:
    """Flush the bytes of all these files, which are in one folder, to the disk.

    One syncfs() replaces the calls of fsync(), each of which waits for the disk, where it gives the
    same guarantee.
    """
    if len(files) > 1 and _syncfs_suffices(files[0].parent) and _syncfs(files[0].parent):
        return
    on_all_cores(_sync_file, files, _SYNCS)


def _sync_file(path: Path) -> None:
    with storage_errors(path), open(path, "rb", buffering=0) as file:
        os.fsync(file.fileno())


def _syncfs(folder: Path) -> bool:
    """Call syncfs() and return whether it exists and succeeded."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return bool(ctypes.CDLL(None).syncfs(handle) == 0)
    except (AttributeError, OSError):
        return False
    finally:
        os.close(handle)


def _syncfs_suffices(folder: Path) -> bool:
    """Return whether syncfs() guarantees here what fsync() does.

    It reports write errors since Linux 5.8, and flushes the disk's own cache on the file systems in
    ``_SYNCFS``.
    """
    if [int(part) for part in re.findall(r"\d+", os.uname().release)[:2]] < [5, 8]:
        return False
    device = folder.stat().st_dev
    try:
        mounts = system_text(MOUNTS, "surrogateescape").split("\n")
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    fields = [line.split(" ") for line in mounts]
    types = {words[words.index("-") + 1] for words in fields if words[2:3] == [number]}
    return bool(types) and types <= _SYNCFS


def mount_point(field: str) -> str:
    r"""Return a path of ``MOUNTS``, where spaces, tabs, newlines and backslashes are ``\ooo``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def sync_folder(folder: Path) -> None:
    """Flush renames in ``folder`` to the disk, if the file system supports that."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)
