"""Reading the payload of a volume against its index."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gapforge.base.i18n import _
from gapforge.base.parallel import on_all_cores, raise_if_stopped
from gapforge.bundle.hashing import BUFFER
from gapforge.bundle.page_cache import Flow
from gapforge.bundle.volume_format import Damaged, Piece, open_regular

# In bytes: the buffers of all threads, so that many cores do not mean much memory; and the least that each of them has.
_TOGETHER, _LEAST = 8 << 20, 64 << 10


class _Own(threading.local):
    """What each thread that reads has for itself; it goes with the thread."""

    def __init__(self) -> None:
        size = min(BUFFER, max(_LEAST, _TOGETHER // (os.cpu_count() or 1)))
        self.buffer = memoryview(bytearray(size))
        self.flow = Flow(-1)


_own = _Own()


def read_piece(
    handle: int, piece: Piece, write: Callable[[memoryview, int], None] | None = None
) -> None:
    """Read a piece out of an open volume; ``write`` gets each part and its offset in the object.

    Raises Damaged when the bytes have another hash than the index says, OSError as the system says it.
    """
    digest, done = hashlib.sha256(), 0
    if _own.flow.handle != handle:
        _own.flow = Flow(handle)
    _own.flow.begin(piece.position)
    while done < piece.span.length:
        raise_if_stopped()
        wanted = _own.buffer[: piece.span.length - done]
        count = os.preadv(handle, [wanted], piece.position + done)
        if not count:
            raise Damaged(_("ends too early"))
        digest.update(wanted[:count])
        if write is not None:
            write(wanted[:count], piece.span.offset + done)
        done += count
        _own.flow.reached(piece.position + done)
    if digest.hexdigest() != piece.sha256:
        raise Damaged(
            _(
                "has sha256 {digest} instead of {sha256}",
                digest=digest.hexdigest(),
                sha256=piece.sha256,
            )
        )


def damaged_pieces(path: Path, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces of a volume whose bytes are not what its index says. Raises OSError when it cannot be read."""

    def bad(piece: Piece) -> bool:
        try:
            read_piece(handle, piece)
        except Damaged:
            return True
        return False

    with open_regular(path) as file:
        handle = file.fileno()
        return [
            piece for piece, is_bad in zip(pieces, on_all_cores(bad, pieces), strict=True) if is_bad
        ]


def volume_files(
    folders: Sequence[Path], suffix: str, unlisted: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """Everything whose name ends so in these folders and below (links to folders are not followed), or itself.

    ``unlisted`` is told of each folder that cannot be listed; its error names it.
    """
    for folder in folders:
        if not folder.is_dir():
            yield folder
            continue
        for where, below, names in os.walk(folder, onerror=unlisted):
            below.sort()
            yield from (
                Path(where, name)
                for name in sorted(names)
                if name.lower().endswith(suffix) and name[0] != "."
            )
