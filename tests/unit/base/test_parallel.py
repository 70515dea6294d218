"""Work on all cores: results in order, the first error ends it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gapforge.base.files import sha256_file
from gapforge.base.parallel import go_on, on_all_cores
from gapforge.bundle.volume_format import Part, StoredPart
from gapforge.bundle.volume_reader import read_part


@pytest.mark.parametrize("jobs", [0, 1, 3, 50])
def test_results_come_in_the_items_order(jobs: int) -> None:
    assert on_all_cores(lambda n: n * n, range(40), jobs) == [n * n for n in range(40)]
    assert on_all_cores(lambda n: n, [], jobs) == []


def test_several_are_at_work_at_a_time() -> None:
    meeting = threading.Barrier(3, timeout=20)
    on_all_cores(lambda _: meeting.wait(), range(3), 3)


def test_an_error_ends_it() -> None:
    done = []

    def work(number: int) -> None:
        done.append(number)
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        on_all_cores(work, range(10_000), 2)
    assert len(done) < 10_000


@pytest.mark.parametrize("long", ["hashing", "reading"])
def test_what_is_at_work_does_not_go_on_for_minutes(tmp_path: Path, long: str) -> None:
    """A volume has gigabytes in one piece: Ctrl-C, or a disk that fails, must not wait for a slow stick to give them all."""
    file, size = tmp_path / "huge", 1 << 38  # a hole; to read it takes minutes
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
    go_on()  # whoever is not at work for others is never stopped
