"""Hashing beside reading and writing: hashlib releases Python's lock, so threads use further cores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

BUFFER = 2 << 20  # bytes
DEPTH = 4  # buffers that are read, hashed or written at a time


class Lane:
    """A thread that hashes what it is given, in the order given."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hash")

    def update(self, digest: hashlib._Hash, data: memoryview) -> Future[None]:
        """``data`` must stay as it is until the result is there."""
        return self._pool.submit(digest.update, data)

    def finish(self, digest: hashlib._Hash) -> str:
        """The hash in hex, after all that was given to it."""
        return self._pool.submit(digest.hexdigest).result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def lanes() -> Iterator[tuple[Lane, Lane]]:
    """Two threads: one for whole objects, one for pieces of them."""
    whole, part = Lane(), Lane()
    try:
        yield whole, part
    finally:
        whole.close()
        part.close()


class Ring:
    """A few buffers that are used in turn; one is given out again when nothing needs its bytes any more."""

    def __init__(self) -> None:
        self._buffers = [memoryview(bytearray(BUFFER)) for _ in range(DEPTH)]
        self._users: list[list[Future[None]]] = [[] for _ in range(DEPTH)]
        self._next = 0

    def take(self) -> memoryview:
        """A buffer of BUFFER bytes that is free."""
        self._next = (self._next + 1) % DEPTH
        self.drain(self._next)
        return self._buffers[self._next]

    def used_by(self, future: Future[None]) -> None:
        """The last buffer taken is needed until ``future`` is done."""
        self._users[self._next].append(future)

    def drain(self, number: int) -> None:
        users, self._users[number] = self._users[number], []
        for future in users:
            future.result()
