"""Work on all cores: results in order, the first error ends it."""

from __future__ import annotations

import threading

import pytest

from gapforge.core.cores import on_all_cores


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
