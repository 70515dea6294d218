"""Keep processes of gapforge from working on the same files at the same time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gapforge.base.errors import BusyError
from gapforge.base.files import system_text
from gapforge.base.i18n import _
from gapforge.base.storage_errors import storage_errors
from gapforge.base.text_layout import printable


@contextmanager
def exclusive(lock_file: Path, what: str) -> Iterator[None]:
    """Lock ``lock_file`` during the block. Raise BusyError at once if another process has it.

    The system releases the lock when the process ends in any way, so a killed run never blocks the
    next one.
    """
    with storage_errors(lock_file):
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        _lock(handle, fcntl.LOCK_EX, what)
        yield
    finally:
        os.close(handle)


@contextmanager
def folder_in_use(folder: Path, what: str, *, changes: bool) -> Iterator[None]:
    """Lock a folder during the block: several processes may read it, or one may change it.

    Raise BusyError at once if another process changes it, or with ``changes`` if one reads it.
    The folder itself is locked, so this works without permission to write to it. ``changes``
    creates a missing folder, and removes it again if it is still empty.
    """
    with storage_errors(folder):
        new = changes and not folder.exists()
        if new:
            folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle, fcntl.LOCK_EX if changes else fcntl.LOCK_SH, what)
        yield
    finally:
        os.close(handle)
        if new:
            with suppress(OSError):  # not empty
                folder.rmdir()


def _lock(handle: int, kind: int, what: str) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(handle)
        hint = (
            _(
                "wait until process {pid} ends ({command}), and run the same command again",
                pid=holder[0],
                command=holder[1],
            )
            if holder
            else _("wait until it ends, and run the same command again")
        )
        raise BusyError(
            _("another gapforge process is running: {what}", what=what), hint=hint
        ) from None


def _holder(handle: int) -> tuple[int, str] | None:
    """Return the process that locks an open file, and its command, if Linux shows them."""
    status = os.fstat(handle)
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        # Such as: 1: FLOCK  ADVISORY  WRITE 4711 08:01:123456 0 EOF
        locks = [line.split() for line in system_text(Path("/proc/locks")).splitlines()]
        pids = [int(words[4]) for words in locks if words[1] == "FLOCK" and words[5] == inode]
        words = system_text(Path(f"/proc/{pids[0]}/cmdline")).split("\0")
    except (OSError, ValueError, IndexError):
        return None
    return pids[0], printable(" ".join(words).strip())[:200]
