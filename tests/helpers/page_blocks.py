"""Find and run the blocks of a page: shell commands, and JSON that a reader adds to a preset.

The line above a block says what happens to it: ``<!-- run: PLACE [EXIT CODE] -->``,
``<!-- add to: FILE -->`` or ``<!-- not run: WHY -->``.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samples import ROOT

_BLOCK = re.compile(r"^([^\n]*)\n```(?:sh|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (?:run: ([\w-]+)(?: (\d+))?|add to: (\S+)|not run: .+) -->")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of a page. ``code`` is the exit code of its last command.

    ``place`` is "" if it is not run. ``file`` is the preset to which its JSON is added, or "".
    """

    text: str
    place: str = ""
    code: int = 0
    file: str = ""

    @property
    def commands(self) -> list[str]:
        """The commands of the block, each as it is written on the page."""
        return re.findall(r"^(?:.*\\\n)*.+", self.text, re.MULTILINE) if self.place else []


def blocks(path: str) -> list[Block]:
    """Return the blocks of a page in its order. Every block must have a mark."""
    found = []
    for line, text in _BLOCK.findall((ROOT / path).read_text(encoding="utf-8")):
        mark = _MARK.fullmatch(line)
        assert mark, f"{path}: no mark above the block\n{text}"
        place, code, file = mark.groups()
        found.append(Block(text=text, place=place or "", code=int(code or 0), file=file or ""))
    assert found
    return found


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command printed on both streams, its exit code, and its duration."""

    command: str
    output: str
    code: int
    seconds: float


def run(
    command: str,
    *,
    cwd: Path,
    env: Mapping[str, str],
    inside: Sequence[str] = (),
    timeout: float | None = None,
) -> Ran:
    """Run a command in a shell, without a terminal. ``inside`` is put before the shell."""
    start = time.monotonic()
    done = subprocess.run(
        [*inside, "bash", "-euo", "pipefail", "-c", command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    seconds = time.monotonic() - start
    return Ran(command=command, output=done.stdout, code=done.returncode, seconds=seconds)


def add_to(file: Path, text: str) -> None:
    """Add JSON to a preset as a reader does: objects key by key, lists at their end."""
    document = _added(json.loads(file.read_text(encoding="utf-8")), json.loads(text))
    file.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _added(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _added(old.get(key), value) for key, value in new.items()}}
    return [*old, *new] if isinstance(old, list) and isinstance(new, list) else new
