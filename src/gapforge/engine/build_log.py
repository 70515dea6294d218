"""Reads BuildKit's plain progress log as it streams by, to say afterwards which step failed and why."""

from __future__ import annotations

import re
from collections import deque

from gapforge.base.i18n import _

KEPT_LINES = 25  # of the failed step, or of the whole log when no step failed

_STEP = re.compile(r"#(\d+) (\[[^\]]+\] .+)")
_ERROR = re.compile(r"#(\d+) ERROR:? ?(.*)")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")  # 20.10 prints each step's after its title
_OUTPUT = re.compile(r"#(\d+) (?:\d+\.\d+ )?(.*)")


class BuildLog:
    """Feed it every line; ``failed_step`` is "" when the log does not say which step failed."""

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self.failed_step = ""
        self.reason = ""
        self._outputs: dict[str, deque[str]] = {}
        self._failed = ""

    def feed(self, line: str) -> None:
        """Take one line of the log."""
        if line.strip():
            self.last.append(line)
        if match := _ERROR.match(line):
            # Sibling steps are only CANCELED, so the first ERROR is the cause.
            if not self._failed:
                self._failed, self.reason = match[1], match[2]
                self.failed_step = self.titles.get(match[1], _("step #{match}", match=match[1]))
        elif match := _STEP.match(line):
            self.titles[match[1]] = match[2]
        elif (match := _OUTPUT.match(line)) and not _DIGEST.fullmatch(match[2]):
            self._outputs.setdefault(match[1], deque(maxlen=KEPT_LINES)).append(match[2])

    def tail(self) -> str:
        """The failed step's own last lines; the log's when no step failed."""
        own = self._outputs.get(self._failed)
        return "\n".join(f"    {line}" for line in (own or self.last))
