"""Write transcripts of pages, docs/samples/transcripts: the commands and what they print.

``tests/heavy/pages`` and ``tests/live/test_carry_guide.py`` write them while they run the pages.
Paths, hosts and clock times of the machine are replaced, long output is cut; durations are real.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from page_blocks import Ran

# Output that is longer than LONGEST lines keeps its FIRST and LAST lines.
LONGEST, FIRST, LAST = 70, 6, 10
MASKS = (
    (r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2026-11-27T18:00:00Z"),
    (r"\b20\d{6}T\d{6}Z", "20261127T180000Z"),
    (r"\b20\d\d-\d\d-\d\d \d\d:\d\d UTC", "2026-11-27 18:00 UTC"),
    (r"\b(https?)://[^/\s]+", r"\1://mirror.example"),
    (r"/gapforge-[0-9a-f]{12}/docker\.sock", "/gapforge-0123456789ab/docker.sock"),
    (r"\x1b\[[0-9;]*m", ""),
    (r"[ \t]+$", ""),
)
# Notes of pip about the settings of this machine.
_NOTE = re.compile(r"WARNING: .*file:///.*|NOTE: .* settings of pip: .*")


class Transcript:
    """The transcript of one page. ``places`` maps folders of this machine to what is shown."""

    def __init__(self, file: Path, places: Mapping[str, str]) -> None:
        """Begin an empty file."""
        self.file, self.places = file, places
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("", encoding="utf-8")

    def note(self, line: str, text: str = "") -> None:
        """Write a comment, and text below it."""
        self._write(f"# {line}\n{text}\n")

    def ran(self, ran: Ran, prompt: str = "$") -> None:
        """Write a command, its output, its exit code and its duration."""
        command = masked(ran.command, self.places)
        output = shortened(masked(ran.output, self.places))
        self._write(f"{prompt} {command}\n{output}[exit code {ran.code}, {ran.seconds:.1f} s]\n\n")

    def _write(self, text: str) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(text)


def masked(text: str, places: Mapping[str, str]) -> str:
    """Return the text without folders, hosts and clock times of this machine."""
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    for pattern, shown in MASKS:
        text = re.sub(pattern, shown, text, flags=re.MULTILINE)
    return text


def shortened(output: str) -> str:
    """Return the output without the engine's log, and of long output only its ends."""
    lines = [line for line in output.splitlines() if not _NOTE.fullmatch(line)]
    log = [number for number, line in enumerate(lines) if re.match(r"#\d+ ", line)]
    if log:
        lines[log[0] : log[-1] + 1] = [f"[… {log[-1] - log[0] + 1:,} lines of the build log]"]
    if len(lines) > LONGEST:
        lines[FIRST:-LAST] = [f"[… {len(lines) - FIRST - LAST:,} lines]"]
    return "".join(f"{line}\n" for line in lines)
