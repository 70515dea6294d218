"""Results come in order, and the first error stops all threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gapforge.base.files import sha256_file
from gapforge.base.parallel import on_all_cores, raise_if_stopped
from gapforge.bundle.volume_format import Part, StoredPart
from gapforge.bundle.volume_reader import read_part


@pytest.mark.parametrize("jobs", [0, 1, 3, 50])
def test_results_have_the_order_of_items(jobs: int) -> None:
    assert on_all_cores(lambda n: n * n, range(40), jobs) == [n * n for n in range(40)]
    assert on_all_cores(lambda n: n, [], jobs) == []


def test_items_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)
    assert sorted(on_all_cores(lambda _: meeting.wait(), range(3), 3)) == [0, 1, 2]


def test_first_error_stops_all_work() -> None:
    done = []

    def work(number: int) -> None:
        done.append(number)
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        on_all_cores(work, range(10_000), 2)
    assert len(done) < 10_000


@pytest.mark.parametrize("long", ["hashing", "reading"])
def test_error_stops_long_running_work(tmp_path: Path, long: str) -> None:
    """Ctrl-C or a failing disk does not wait until gigabytes are read from a slow medium."""
    file, size = tmp_path / "huge", 1 << 38  # sparse; reading it takes minutes
    with open(file, "wb") as made:
        made.truncate(size)
    handle = os.open(file, os.O_RDONLY)
    begun = threading.Event()

    def reads() -> None:
        read_part(
            handle,
            StoredPart(Part("a" * 64, size, 0, size), "a" * 64, 0),
            lambda data, offset: begun.set(),
        )

    def hashes() -> None:
        sha256_file(file, lambda count: begun.set())

    def fails() -> None:
        assert begun.wait(20)
        raise ValueError("interrupted")

    work: list[Callable[[], None]] = [hashes if long == "hashing" else reads, fails]
    start = time.monotonic()
    with pytest.raises(ValueError, match="interrupted"):
        on_all_cores(lambda item: item(), work, 2)
    os.close(handle)
    assert time.monotonic() - start < 10
    raise_if_stopped()  # outside of on_all_cores this never raises
