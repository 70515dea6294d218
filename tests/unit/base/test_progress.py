"""Progress shows right numbers, a live line only at a terminal, and is thread-safe."""

from __future__ import annotations

import io
import threading

import pytest

from gapforge.base import progress as module
from gapforge.base.progress import Progress
from gapforge.base.text_layout import width
from gapforge.base.units import human_time


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def test_plain_lines_come_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = Clock(monkeypatch), io.StringIO()
    with Progress("fetch", 1000, out=out) as progress:
        for _ in range(4):
            clock.now += 3
            progress.add(100, "x.whl")
        assert out.getvalue() == "fetch: 400 B of 1.0 kB (40 %), 33 B/s, 18 s left, x.whl\n"
    assert "\r" not in out.getvalue() and out.getvalue().endswith(
        "fetch: done, 400 B in 12 s, 33 B/s\n"
    )


def test_live_line_is_replaced_and_cleared_for_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = Clock(monkeypatch), Terminal()
    with Progress("fetch", 0, out=out) as progress:
        clock.now += 1
        progress.add(5000, "a very long name")
        clock.now += 1
        progress.add(0, "b")
        progress.note("a note")
    lines = out.getvalue().split("\r")
    assert lines[1].startswith("fetch: 5.0 kB, 5.0 kB/s, a very long name")
    assert lines[2].rstrip().endswith("b") and len(lines[2]) >= len(
        lines[1]
    )  # the longer one is wiped out
    assert "\ra note\n" in out.getvalue()


def test_failure_prints_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    with pytest.raises(ValueError), Progress("fetch", out=out):
        raise ValueError
    assert out.getvalue().startswith("fetch: stopped")


def test_quiet_progress_prints_nothing() -> None:
    out = Terminal()
    with Progress("fetch", 10, out=out, quiet=True) as progress:
        progress.add(10)
        progress.note("x")
    assert out.getvalue() == "" and progress.done == 10


def test_exceeded_total_is_not_shown() -> None:
    progress = Progress("fetch", 10, out=io.StringIO())
    progress.add(10)
    assert "(100 %)" in progress.line() and "0 s left" in progress.line()
    progress.add(15)
    assert (
        " of " not in progress.line()
        and "%" not in progress.line()
        and "left" not in progress.line()
    )


def test_closing_twice_prints_once() -> None:
    out = io.StringIO()
    progress = Progress("fetch", out=out)
    progress.close()
    progress.close()
    assert out.getvalue().count("done") == 1


def test_counting_is_thread_safe() -> None:
    progress = Progress("fetch", out=io.StringIO())
    threads = [
        threading.Thread(target=lambda: [progress.add(1) for _ in range(5000)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.done == 40_000


def test_progress_in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert [human_time(seconds) for seconds in (45, 185, 7800)] == [
        "45초",
        "3분 05초",
        "2시간 10분",
    ]
    clock, out = Clock(monkeypatch), io.StringIO()
    with Progress("받기", 1000, out=out) as progress:
        clock.now += 12
        progress.add(400, "x.whl")
    assert out.getvalue().splitlines() == [
        "받기: 400 B / 1.0 kB (40 %), 33 B/s, 18초 남음, x.whl",
        "받기: 완료, 400 B, 12초, 33 B/s",
    ]


def test_live_line_of_wide_letters_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = Clock(monkeypatch), Terminal()
    with Progress("받기", out=out) as progress:
        for detail in ("가" * 100, "b"):
            clock.now += 1
            progress.add(1000, detail)
    lines = out.getvalue().split("\r")
    assert width(lines[1]) in (module.LIVE_COLUMNS - 1, module.LIVE_COLUMNS) and width(
        lines[2]
    ) == width(lines[1])
