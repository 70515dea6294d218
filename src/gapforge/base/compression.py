"""Tell compressed files apart, read them, and turn what damaged ones raise into one error."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from gapforge.base import process
from gapforge.base.files import CHUNK

MAGIC_LENGTH = 6  # bytes that ``compression`` needs
# The first bytes of each format: RFC 1952, bzip2's and xz's file formats, RFC 8878.
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
# What tarfile, zipfile and the decompressors raise for changed bytes, as seen with generated
# input. bz2 and gzip also raise OSError, without an error number.
_RAISED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    TypeError,
    IndexError,
    struct.error,
    NotImplementedError,
    RuntimeError,
)
_READERS: Mapping[str, Callable[..., Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}


def compression(start: bytes) -> str:
    """Return "gzip", "bzip2", "xz" or "zstd" by the first MAGIC_LENGTH bytes, "" for none."""
    return next((name for magic, name in _MAGIC if start.startswith(magic)), "")


@contextmanager
def damage_as(error: Callable[[Exception], Exception]) -> Iterator[None]:
    """Raise ``error(cause)`` when a reader of the block finds an archive damaged.

    The block reads a compressed file or a tar or zip archive, and does nothing else. Errors of the
    operating system are not damage and pass.
    """
    try:
        yield
    except OSError as cause:
        if cause.errno is not None:
            raise
        raise error(cause) from cause
    except _RAISED as cause:
        raise error(cause) from cause


@contextmanager
def uncompressed(stored: IO[bytes], kind: str) -> Iterator[IO[bytes]]:
    """Yield the content of a file with the compression ``kind``.

    zstd needs the program ``zstd``.
    """
    if kind == "zstd":

        def feed(pipe: IO[bytes]) -> None:
            while chunk := stored.read(CHUNK):
                pipe.write(chunk)

        with process.piped(["zstd", "-dc"], feed=feed) as output:
            yield output
    elif kind:
        with _READERS[kind](stored) as output:
            yield output
    else:
        yield stored
