"""Read regular files within limits, and compute checksums."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gapforge.base import limits
from gapforge.base.i18n import _
from gapforge.base.parallel import raise_if_stopped

CHUNK = 1 << 20  # bytes read at a time; hashing speed is flat above this
SHA256_HEX = re.compile(r"[0-9a-f]{64}")


class UnsuitableFile(OSError):
    """A path does not name a regular file, or the file is larger than its limit.

    ``strerror`` is the reason, in the reader's language.
    """

    def __init__(self, path: Path, reason: str) -> None:
        """Make the error of a file with its reason."""
        super().__init__(errno.EINVAL, reason, str(path))


@contextmanager
def open_regular(path: Path, *, follow: bool = False) -> Iterator[io.FileIO]:
    """Open a regular file for reading, unbuffered.

    A pipe or device is refused without being opened, which could block or have effects of its own.
    A symbolic link is refused unless ``follow``, for files that belong to the user. Raise
    UnsuitableFile, or another OSError.
    """
    mode = (os.stat if follow else os.lstat)(path).st_mode
    if stat.S_ISLNK(mode):
        raise UnsuitableFile(path, _("symbolic link instead of a regular file"))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise UnsuitableFile(path, _("not a regular file"))
    # The name may stand for something else by now: do not follow it, and do not wait.
    no_link = 0 if follow else os.O_NOFOLLOW
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | no_link)
    with open(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnsuitableFile(path, _("not a regular file"))
        yield file


@contextmanager
def open_buffered(path: Path, *, follow: bool = False) -> Iterator[io.BufferedReader]:
    """Open a regular file as ``open_regular`` does, for code that expects complete reads."""
    with open_regular(path, follow=follow) as raw:
        file: io.BufferedReader = io.BufferedReader(raw)
        yield file


def read_regular(path: Path, most: int, *, follow: bool = False) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes.

    ``follow`` and the errors are those of ``open_regular``; a larger file is an UnsuitableFile.
    """
    with open_regular(path, follow=follow) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise UnsuitableFile(path, _("more than {most} bytes", most=most))
        data = bytearray()  # the kernel states no size for files of its own, and others may grow
        while len(data) <= most and (chunk := file.read(min(CHUNK, most + 1 - len(data)))):
            data += chunk
    if len(data) > most:
        raise UnsuitableFile(path, _("more than {most} bytes", most=most))
    return bytes(data)


def system_text(path: Path, errors: str = "replace") -> str:
    """Return a text file of the kernel or the distribution. Raise OSError."""
    return read_regular(path, limits.SYSTEM, follow=True).decode("utf-8", errors)


def contains(path: Path, data: bytes) -> bool:
    """Return whether ``path`` is a regular file, no link to one, with exactly this content."""
    try:
        return read_regular(path, len(data)) == data
    except OSError:
        return False


def sha256_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return the file's SHA-256 in lower-case hex. ``on_bytes`` gets the size of each chunk."""
    with open_regular(path, follow=True) as file:
        return sha256_open(file, on_bytes)


def sha256_open(
    file: io.RawIOBase | io.FileIO, on_bytes: Callable[[int], None] | None = None
) -> str:
    """Return the SHA-256 of an unbuffered binary file from its position on, in lower-case hex."""
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := file.readinto(buffer):
        raise_if_stopped()
        digest.update(view[:count])
        if on_bytes is not None:
            on_bytes(count)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def content_mtime(sha256: str) -> int:
    """Return the modification time, in seconds, of a file with this content in a build context.

    BuildKit does not read a file again whose size and time are unchanged, so the time depends on
    the content.
    """
    return 10**9 + int(sha256[:8], 16) % (5 * 10**8)
