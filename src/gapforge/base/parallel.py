"""Work for all cores: hashing, reading and writing release Python's lock, so threads are enough."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Mine(threading.local):
    stop: threading.Event | None = None


_mine = _Mine()


class Stopped(Exception):
    """Raised by ``go_on``; it never leaves ``on_all_cores``, which raises what stopped the work."""


def go_on() -> None:
    """To be called now and then by work that takes long: ends it when other work has failed, or a person has had enough."""
    if _mine.stop is not None and _mine.stop.is_set():
        raise Stopped


def on_all_cores(
    work: Callable[[Item], Result], items: Sequence[Item], jobs: int = 0
) -> list[Result]:
    """What ``work`` gives for each item, begun in the items' order on ``jobs`` threads (0: as many as cores).

    The first exception ends it, after what is at work (see ``go_on``). Unlike ``Executor.map`` it makes no object for each item that
    waits: a future takes more memory than most items.
    """
    results: dict[int, Result] = {}
    numbers = iter(range(len(items)))  # shared: each thread takes the next one
    stop = threading.Event()

    def share() -> None:
        _mine.stop = stop
        try:
            for number in numbers:
                if stop.is_set():
                    return
                results[number] = work(items[number])
        except Stopped:
            return
        except BaseException:
            stop.set()
            raise

    threads = min(jobs or os.cpu_count() or 1, len(items))
    if not threads:
        return []
    with ThreadPoolExecutor(threads) as pool:
        try:
            for future in [pool.submit(share) for _ in range(threads)]:
                future.result()
        except BaseException:
            stop.set()
            raise
    return [results[number] for number in range(len(items))]
