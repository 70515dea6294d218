"""Follow BuildKit's plain progress log: which steps run, and which one failed and why.

The plain log is the one that every supported Docker writes (20.10 to 29, with and without buildx).
It shows one step at a time: what a second step does appears when the first one is silent, or after
ten seconds at the latest (seen with 20.10).
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from gapforge.base.i18n import _

FULL_DISK = re.compile(
    "no space left on device|disk quota exceeded|don't have enough free space", re.IGNORECASE
)
KEPT_LINES = 25  # of the failed step, or of the whole log when no step failed

_STEP = re.compile(r"#(\d+) (\[[^\]]+\] .+)")
_ERROR = re.compile(r"#(\d+) ERROR:? ?(.*)")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")  # Docker 20.10 prints one after each step's title
_OUTPUT = re.compile(r"#(\d+) (?:\d+\.\d+ )?(.*)")
_LINE = re.compile(r"#([1-9]\d{0,5}) (.+)")  # buildx uses #0 for its own name
_ENDED = re.compile(r"DONE (\d{1,7}\.\d+)s|CACHED|CANCELED|ERROR\b.*")
_TIMED = re.compile(r"(\d{1,7}\.\d+) (.*)")  # seconds since the step began, and its output
_NINJA = re.compile(r"\[(\d{1,7})/(\d{1,7})\]")
_CMAKE_MAKE = re.compile(r"\[ *(\d{1,3})%\]")
_STAGE = re.compile(r"\[(?:.* )?(\S+) \d+/\d+\] ")  # "[linux/amd64 opencv 2/2] RUN …"


class BuildLog:
    """The log so far. ``failed_step`` is "" while the log does not name a failed step."""

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self.failed_step = ""
        self.reason = ""
        self._outputs: dict[str, deque[str]] = {}
        self._failed = ""
        self._full: set[str] = set()  # the steps that found the disk full

    def feed(self, line: str) -> None:
        """Add one line of the log."""
        if line.strip():
            self.last.append(line)
        if FULL_DISK.search(line):
            step = _OUTPUT.match(line)
            self._full.add(step[1] if step else "")
        if match := _ERROR.match(line):
            # Sibling steps are only CANCELED, so the first ERROR is the cause.
            if not self._failed:
                self._failed, self.reason = match[1], match[2]
                self.failed_step = self.titles.get(match[1], _("step #{number}", number=match[1]))
        elif match := _STEP.match(line):
            self.titles[match[1]] = match[2]
        elif (match := _OUTPUT.match(line)) and not _DIGEST.fullmatch(match[2]):
            self._outputs.setdefault(match[1], deque(maxlen=KEPT_LINES)).append(match[2])

    @property
    def disk_full(self) -> bool:
        """Return whether the failed step, or the client, found the disk full."""
        return bool(self._full & {self._failed, ""})

    def tail(self) -> str:
        """Return the last lines of the failed step, or of the log when no step failed."""
        lines = self._outputs.get(self._failed) or self.last
        return "\n".join(f"    {line}" for line in lines)


@dataclass
class RunningStep:
    """A step that runs.

    ``key`` identifies it in every build of the Dockerfile: "opencv 2/2". ``name`` is its stage, or
    what the engine does itself. ``began`` is in the seconds of the caller's clock; ``percent`` is
    None while the step does not say how much it has done.
    """

    key: str
    name: str
    began: float
    percent: int | None = None


class RunningSteps:
    """The steps that run, in the order of their beginning.

    ``seconds`` has the durations, as the engine states them, of the steps that ended successfully
    and were not cached, by key.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: dict[str, RunningStep] = {}

    def feed(self, line: str, now: float) -> None:
        """Add one line of the log, which arrived at ``now``."""
        match = _LINE.match(line)
        if match is None:
            return
        number, text = match.groups()
        if ended := _ENDED.fullmatch(text):
            step = self._running.pop(number, None)
            if step is not None and ended[1]:
                self.seconds[step.key] = float(ended[1])
        elif timed := _TIMED.fullmatch(text):
            if step := self._running.get(number):
                # Lines of a step that was not shown are late: the latest one is the most exact.
                step.began = min(step.began, now - float(timed[1]))
                step.percent = _percent(timed[2], step.percent)
        elif number not in self._running and text != "..." and not _DIGEST.fullmatch(text):
            self._running[number] = _new_step(text, now)

    def now(self) -> list[RunningStep]:
        """Return the steps that run."""
        return sorted(self._running.values(), key=lambda step: step.began)


def _new_step(title: str, now: float) -> RunningStep:
    """Return the step with this title, such as "[opencv 2/2] RUN …" or "exporting to image"."""
    if stage := _STAGE.match(title):
        return RunningStep(title[1 : title.index("]")], stage[1], now)
    name = title.removeprefix("[internal] ").partition(" for ")[0]
    return RunningStep(title, name, now)


def _percent(text: str, known: int | None) -> int | None:
    """Return how much of its work a program says it has done, or ``known``."""
    if match := _NINJA.match(text):
        done, total = int(match[1]), int(match[2])
        return 100 * done // total if 0 < total >= done else known
    if (match := _CMAKE_MAKE.match(text)) and int(match[1]) <= 100:
        return int(match[1])
    return known
