"""Follow BuildKit's plain progress log, to report which step failed and why."""

from __future__ import annotations

import re
from collections import deque

from gapforge.base.i18n import _

KEPT_LINES = 25  # of the failed step, or of the whole log when no step failed

_STEP = re.compile(r"#(\d+) (\[[^\]]+\] .+)")
_ERROR = re.compile(r"#(\d+) ERROR:? ?(.*)")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")  # Docker 20.10 prints one after each step's title
_OUTPUT = re.compile(r"#(\d+) (?:\d+\.\d+ )?(.*)")


class BuildLog:
    """The log so far. ``failed_step`` is "" while the log does not name a failed step."""

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self.failed_step = ""
        self.reason = ""
        self._outputs: dict[str, deque[str]] = {}
        self._failed = ""

    def feed(self, line: str) -> None:
        """Add one line of the log."""
        if line.strip():
            self.last.append(line)
        if match := _ERROR.match(line):
            # Sibling steps are only CANCELED, so the first ERROR is the cause.
            if not self._failed:
                self._failed, self.reason = match[1], match[2]
                self.failed_step = self.titles.get(match[1], _("step #{number}", number=match[1]))
        elif match := _STEP.match(line):
            self.titles[match[1]] = match[2]
        elif (match := _OUTPUT.match(line)) and not _DIGEST.fullmatch(match[2]):
            self._outputs.setdefault(match[1], deque(maxlen=KEPT_LINES)).append(match[2])

    def tail(self) -> str:
        """Return the last lines of the failed step, or of the log when no step failed."""
        lines = self._outputs.get(self._failed) or self.last
        return "\n".join(f"    {line}" for line in lines)
