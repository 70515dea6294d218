"""Run work on all cores with threads.

Threads suffice, because hashing, reading and writing release Python's global interpreter lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _ThreadState(threading.local):
    stop: threading.Event | None = None


_thread = _ThreadState()


class Stopped(Exception):
    """Ends the work of one thread. ``on_all_cores`` catches it and raises the first error."""


def raise_if_stopped() -> None:
    """Raise Stopped in a thread of ``on_all_cores`` whose other work has failed or was interrupted.

    Long-running work calls this regularly.
    """
    if _thread.stop is not None and _thread.stop.is_set():
        raise Stopped


def on_all_cores(
    work: Callable[[Item], Result], items: Sequence[Item], jobs: int = 0
) -> list[Result]:
    """Run ``work`` on each item with ``jobs`` threads (0: one per core). Return the results.

    The first exception stops all threads (see ``raise_if_stopped``) and is raised. Unlike
    ``Executor.map`` this makes no future per item: a future takes more memory than most items.
    """
    results: dict[int, Result] = {}
    numbers = iter(range(len(items)))  # shared by the threads: each takes the next one
    stop = threading.Event()

    def take_items() -> None:
        _thread.stop = stop
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
            for future in [pool.submit(take_items) for _ in range(threads)]:
                future.result()
        except BaseException:
            stop.set()
            raise
    return [results[number] for number in range(len(items))]
