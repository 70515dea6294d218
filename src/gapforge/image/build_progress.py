"""Show which steps of a build run, for how long, and how long they will still take.

The time left is that of the last build of the same step for the same preset. The durations are in
`.gapforge/build-times.json`; without the file, the time left is not shown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from gapforge.base.errors import StorageError
from gapforge.base.i18n import _
from gapforge.base.progress import StatusLine
from gapforge.base.strict_json import canonical_json, read_json
from gapforge.base.units import human_time
from gapforge.base.write_files import write_text
from gapforge.engine.build_log import RunningStep, RunningSteps

FORMAT = 1
PLAIN_INTERVAL = 30.0  # seconds between lines without a terminal
LEAST_SECONDS, MOST_SECONDS = 2.0, 1e6  # other durations are not remembered
MOST_PRESETS, MOST_STEPS, MOST_KEY = 50, 60, 200
LARGEST_FILE = 2 * MOST_PRESETS * MOST_STEPS * MOST_KEY  # bytes
TICK = 0.5  # seconds between two looks at the clock


class BuildTimes:
    """The durations of steps in seconds, by preset and key of the step, in one file.

    An unreadable file counts as empty, and one that cannot be written is no error. Only the presets
    that were built last are kept.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def of(self, preset: str) -> Mapping[str, float]:
        """Return the durations of the last build of each step of a preset."""
        return self._read().get(preset, {})

    def remember(self, preset: str, seconds: Mapping[str, float]) -> None:
        """Record the durations of the steps that were built now."""
        long = {
            key: value
            for key, value in seconds.items()
            if LEAST_SECONDS <= value < MOST_SECONDS and len(key) <= MOST_KEY
        }
        if not long:
            return
        known = self._read()
        steps = {key: value for key, value in known.pop(preset, {}).items() if key not in long}
        known[preset] = dict([*steps.items(), *long.items()][-MOST_STEPS:])
        # Objects in JSON have no order that canonical_json keeps: a list has one.
        presets = [{"preset": name, "seconds": times} for name, times in known.items()]
        document = {"format": FORMAT, "presets": presets[-MOST_PRESETS:]}
        with suppress(StorageError, OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, canonical_json(document))

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            document = read_json(self.file, LARGEST_FILE)
            if document["format"] != FORMAT:
                return {}
            return {
                str(one["preset"]): {
                    str(key): float(value)
                    for key, value in one["seconds"].items()
                    if 0 < value < MOST_SECONDS
                }
                for one in document["presets"][-MOST_PRESETS:]
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}


class BuildStatus:
    """Follows the engine's log and shows the running steps on ``line``.

    ``last`` has the durations of the last build by key of the step. As a context manager it also
    shows them while the engine prints nothing.
    """

    def __init__(self, line: StatusLine, last: Mapping[str, float]) -> None:
        self.line, self.last = line, last
        self.steps = RunningSteps()
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> BuildStatus:
        self.line.shown = time.monotonic()
        self._clock.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._clock.join()
        self.line.clear()

    def feed(self, line: str) -> None:
        """Add one line of the engine's log."""
        with self._guard:
            self.steps.feed(line, time.monotonic())

    def tick(self) -> None:
        """Show the running steps if it is time."""
        if self.line.due():
            self.line.show(self.text())

    def text(self) -> str:
        """Return the running steps in words, "" for none."""
        now = time.monotonic()
        with self._guard:
            steps = [self._step_text(step, now) for step in self.steps.now()]
        return _("running: {steps}", steps=", ".join(steps)) if steps else ""

    def _step_text(self, step: RunningStep, now: float) -> str:
        """Return such as "opencv 3 min 12 s (45 %, 2 min 10 s left)"."""
        passed = now - step.began
        details = [] if step.percent is None else [f"{step.percent} %"]
        left = self.last.get(step.key, 0.0) - passed
        if left > 0:
            details.append(_("{time} left", time=human_time(left)))
        text = f"{step.name} {human_time(passed)}"
        return f"{text} ({', '.join(details)})" if details else text

    def _run(self) -> None:
        while not self._ended.wait(TICK):
            self.tick()
