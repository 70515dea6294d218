"""Running steps, from recorded logs of BuildKit and a clock that the test moves.

The recordings in tests/data are ``docker build --progress=plain`` of Docker 20.10.24 with seconds
since the start: two stages side by side, one silent and one of ninja; the same again, cached; and a
failure of the second while the first runs.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gapforge.base import progress
from gapforge.base.progress import StatusLine
from gapforge.engine.build_log import BuildLog, RunningSteps
from gapforge.image import build_progress
from gapforge.image.build_progress import MOST_PRESETS, MOST_STEPS, BuildStatus, BuildTimes

DATA = Path(__file__).resolve().parents[2] / "data"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def recording(name: str) -> list[tuple[float, str]]:
    lines = (DATA / f"buildkit-20.10-{name}.jsonl").read_text().splitlines()
    return [(float(at), str(line)) for at, line in map(json.loads, lines)]


def replay(
    status: BuildStatus,
    clock: Clock,
    lines: list[tuple[float, str]],
    each_second: Callable[[float], None],
) -> None:
    """Feed a recording, and call ``each_second`` at every second of it."""
    start, second = clock.now, 0.0
    for at, line in lines:
        while second + 1 <= at:
            second += 1
            clock.now = start + second
            each_second(second)
        clock.now = start + at
        status.feed(line)


def test_stages_side_by_side_with_percent_and_time_left(clock: Clock) -> None:
    last = {"opencv 1/1": 30.0, "ffmpeg 1/1": 15.0}
    status = BuildStatus(StatusLine(out=Terminal()), last)
    seen: dict[float, str] = {}
    replay(
        status,
        clock,
        recording("two-stages"),
        lambda second: seen.__setitem__(second, status.text()),
    )
    assert seen[5] == "running: opencv 4 s (15 %, 26 s left)"
    assert seen[9] == "running: opencv 8 s (35 %, 22 s left)"
    # BuildKit shows the silent stage after ten seconds, with the true times of its lines.
    assert seen[11] == "running: opencv 10 s (45 %, 20 s left), ffmpeg 7 s (8 s left)"
    assert seen[16] == "running: opencv 15 s (70 %, 15 s left)"
    assert seen[21] == "running: opencv 20 s (95 %, 10 s left)"
    assert status.text() == "", "nothing runs at the end"
    assert status.steps.seconds == {
        key: pytest.approx(seconds, abs=0.01)
        for key, seconds in {
            **status.steps.seconds,
            "opencv 1/1": 21.0,
            "ffmpeg 1/1": 14.5,
            "toolchain 2/2": 0.2,
        }.items()
    }


def test_exceeded_estimate_is_not_shown(clock: Clock) -> None:
    status = BuildStatus(StatusLine(out=Terminal()), {"opencv 2/2": 10.0})
    status.feed("#9 [opencv 2/2] RUN x")
    clock.now += 9
    assert status.text() == "running: opencv 9 s (1 s left)"
    clock.now += 1
    assert status.text() == "running: opencv 10 s"


def test_cached_steps_have_no_duration(clock: Clock) -> None:
    status = BuildStatus(StatusLine(out=Terminal()), {})
    replay(status, clock, recording("cached"), lambda second: None)
    assert status.text() == ""
    assert not [key for key in status.steps.seconds if key.startswith(("opencv", "ffmpeg"))]


def test_failed_and_cancelled_steps_have_no_duration(clock: Clock) -> None:
    status, log = BuildStatus(StatusLine(out=Terminal()), {}), BuildLog()
    for _at, line in recording("failed"):
        status.feed(line)
        log.feed(line)
    assert status.text() == ""
    assert not [key for key in status.steps.seconds if key.startswith(("opencv", "ffmpeg"))]
    assert log.failed_step.startswith("[opencv 1/1] RUN")


def test_plain_line_every_thirty_seconds(clock: Clock) -> None:
    out = io.StringIO()
    status = BuildStatus(StatusLine(interval=30, out=out), {"opencv 2/2": 215.0})
    status.feed("#9 [opencv 2/2] RUN x")
    for _second in range(100):
        clock.now += 1
        status.tick()
    assert out.getvalue().splitlines() == [
        "running: opencv 30 s (3 min 05 s left)",
        "running: opencv 1 min 00 s (2 min 35 s left)",
        "running: opencv 1 min 30 s (2 min 05 s left)",
    ]


def test_live_line_makes_way_for_the_log_and_comes_back(clock: Clock) -> None:
    out = Terminal()
    line = StatusLine(interval=30, out=out)
    status = BuildStatus(line, {})
    status.feed("#9 [opencv 2/2] RUN x")
    clock.now += 1
    status.tick()
    line.note("#9 0.1 a line")
    clock.now += 1
    status.tick()
    status.feed("#9 DONE 2.0s")
    clock.now += 1
    status.tick()
    line.note("#9 DONE 2.0s")
    first, second = "running: opencv 1 s", "running: opencv 2 s"
    wiped = "\r" + " " * len(first) + "\r"
    assert out.getvalue() == (f"\r{first}{wiped}#9 0.1 a line\n\r{second}{wiped}#9 DONE 2.0s\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_build_prints_no_status(clock: Clock, terminal: bool) -> None:
    out = Terminal() if terminal else io.StringIO()
    line = StatusLine(interval=30, out=out, quiet=True)
    with BuildStatus(line, {}) as status:
        status.feed("#9 [opencv 2/2] RUN x")
        clock.now += 100
        status.tick()
        line.note("a milestone")
    assert out.getvalue() == ""


def test_status_is_written_in_korean(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    status = BuildStatus(StatusLine(out=Terminal()), {"opencv 2/2": 215.0})
    status.feed("#9 [opencv 2/2] RUN x")
    clock.now += 30
    status.feed("#9 30.0 [450/1000] Building")
    assert status.text() == "실행 중: opencv 30초 (45 %, 3분 05초 남음)"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("columns", "variable", "longest"),
    [(40, "", 39), (40, "80", 39), (0, "", 79), (0, "60", 59), (0, "0", 79)],
)
def test_line_fits_the_terminal_and_comes_without_output(
    monkeypatch: pytest.MonkeyPatch, columns: int, variable: str, longest: int
) -> None:
    """A real terminal, and the thread that looks at the clock. Nobody sets the size of some.

    COLUMNS is about another terminal, such as that of a shell whose window was resized since.
    """
    monkeypatch.setenv("COLUMNS", variable)
    monkeypatch.setattr(build_progress, "TICK", 0.01)
    monkeypatch.setattr(progress, "LIVE_INTERVAL", 0.01)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    received = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(master, 4096):
                received.extend(chunk)
        except OSError:  # the terminal was closed
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with os.fdopen(slave, "w") as terminal, BuildStatus(StatusLine(out=terminal), {}) as status:
        for number in range(1, 9):
            status.feed(f"#{number} [stage-number-{number} 2/2] RUN x")
        until = threading.Event()
        for _ in range(500):
            if received.count(b"\r") >= 3:
                break
            until.wait(0.01)
    reader.join(10)
    os.close(master)
    lines = received.decode().split("\r")
    assert len(lines) >= 3 and lines[1].startswith("running: stage-number-1 0 s")
    assert max(map(len, lines)) == longest
    assert lines[-1] == "" and lines[-2].strip() == "", "the line is removed at the end"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['#0 building with "default" instance using docker driver'], ""),
        (["#5 [internal] load metadata for localhost/base:1"], "load metadata"),
        (["#5 [linux/amd64 opencv 2/2] RUN x"], "opencv"),
        (["#5 [2/3] RUN x"], "[2/3] RUN x"),
        (["#5 exporting to image", "#5 exporting layers", "#5 exporting layers 3.1s"], "exporting"),
        (["#5 ...", "", "------", "#x y", "#5", "#99999999999 z"], ""),
        (["#5 sha256:" + "0" * 64], ""),
    ],
)
def test_step_is_shown_by_its_title(clock: Clock, lines: list[str], expected: str) -> None:
    status = BuildStatus(StatusLine(out=Terminal()), {})
    for line in lines:
        status.feed(line)
    assert expected in status.text() and bool(status.text()) == bool(expected)


@pytest.mark.parametrize(
    ("output", "percent"),
    [
        ("[45/100] Building CXX object", 45),
        ("[ 45%] Building CXX object", 45),
        ("[100%] Linking", 100),
        ("[0/0] x", None),
        ("[9/3] x", None),
        ("[101%] x", None),
        ("see [1/2]", None),
        ("[" + "9" * 5000 + "/" + "9" * 5000 + "]", None),
    ],
)
def test_percent_of_build_tools(output: str, percent: int | None) -> None:
    steps = RunningSteps()
    steps.feed("#3 [opencv 2/2] RUN x", 100.0)
    steps.feed(f"#3 5.0 {output}", 110.0)
    (step,) = steps.now()
    assert (step.percent, step.began) == (percent, 100.0)


def test_output_cannot_end_its_step() -> None:
    steps = RunningSteps()
    steps.feed("#3 [application 1/1] RUN x", 0.0)
    for text in ("#3 DONE 1.0s", "DONE 1.0s", "CACHED", "ERROR: x"):
        steps.feed(f"#3 0.5 {text}", 1.0)
    assert len(steps.now()) == 1 and steps.seconds == {}


# -- the durations of the last build


def test_times_survive_and_are_replaced_step_by_step(tmp_path: Path) -> None:
    file = tmp_path / ".gapforge" / "build-times.json"
    BuildTimes(file).remember("a", {"opencv 2/2": 215.5, "ffmpeg 1/1": 90.0, "short 1/1": 0.5})
    BuildTimes(file).remember("b", {"opencv 2/2": 3600.0})
    BuildTimes(file).remember("a", {"opencv 2/2": 200.0})
    BuildTimes(file).remember("c", {})
    assert BuildTimes(file).of("a") == {"opencv 2/2": 200.0, "ffmpeg 1/1": 90.0}
    assert BuildTimes(file).of("b") == {"opencv 2/2": 3600.0}
    assert BuildTimes(file).of("c") == {}


def test_times_are_bounded(tmp_path: Path) -> None:
    file = tmp_path / "build-times.json"
    times = BuildTimes(file)
    for number in range(MOST_PRESETS + 5):
        times.remember(f"p{number}", {"x": 5.0})
    times.remember("p6", {"x": 6.0})
    times.remember("many", {f"step {n}": 5.0 for n in range(MOST_STEPS + 9)})
    times.remember("long", {"k" * 5000: 5.0, "nan": float("nan"), "inf": float("inf")})
    names = [one["preset"] for one in json.loads(file.read_text())["presets"]]
    assert len(names) == MOST_PRESETS and names[-2:] == ["p6", "many"] and "p5" not in names
    assert len(times.of("many")) == MOST_STEPS and times.of("long") == {}
    assert file.stat().st_size < build_progress.LARGEST_FILE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 2, "presets": []}',
        '{"format": 1, "presets": [1]}',
        '{"format": 1, "presets": [{"preset": "a", "seconds": {"x": "y"}}]}',
        '{"format": 1, "presets": [{"preset": "a", "seconds": {"x": NaN, "y": -1, "z": 1e99}}]}',
        "[" * 100_000,
        " " * (build_progress.LARGEST_FILE + 1),
    ],
)
def test_unusable_file_of_times_counts_as_empty(tmp_path: Path, text: str) -> None:
    file = tmp_path / "build-times.json"
    file.write_text(text)
    assert BuildTimes(file).of("a") == {}
    BuildTimes(file).remember("a", {"x": 5.0})
    assert BuildTimes(file).of("a") == {"x": 5.0}


def test_times_that_cannot_be_written_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    times = BuildTimes(tmp_path / "state" / "build-times.json")
    times.remember("a", {"x": 5.0})
    assert times.of("a") == {}
    os.mkfifo(tmp_path / "fifo")
    assert BuildTimes(tmp_path / "fifo").of("a") == {}
