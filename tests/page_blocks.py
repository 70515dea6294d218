"""The blocks of a page that tests run: shell commands, and JSON that a reader adds to a preset.

The line above a block says what happens to it: ``<!-- run: PLACE [EXIT CODE] -->``,
``<!-- add to: FILE -->`` or ``<!-- not run: WHY -->``.
"""

from __future__ import annotations

import json
import re
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


def add_to(file: Path, text: str) -> None:
    """Add JSON to a preset as a reader does: objects key by key, lists at their end."""
    document = _added(json.loads(file.read_text(encoding="utf-8")), json.loads(text))
    file.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _added(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _added(old.get(key), value) for key, value in new.items()}}
    return [*old, *new] if isinstance(old, list) and isinstance(new, list) else new
