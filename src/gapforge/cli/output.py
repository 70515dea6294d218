"""Print results as JSON, tables and lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gapforge.base.errors import ERROR_FILE, GapforgeError
from gapforge.base.i18n import _
from gapforge.base.progress import human_bytes
from gapforge.base.text import pad, printable, width


def print_json(document: Any, *, sort_keys: bool = False) -> None:
    """Print a document in JSON types on standard output."""
    print(json.dumps(document, ensure_ascii=False, indent=2, sort_keys=sort_keys))


def say(line: str) -> None:
    """Print a line on standard error at once."""
    print(line, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning on standard error."""
    say(_("warning: ") + text)


def warn_unexpected(file: Path) -> None:
    """Print a warning about an unexpected file in the artifacts."""
    warn(
        _(
            "{file}: unexpected file, which verify refuses; move it to another folder",
            file=printable(str(file)),
        )
    )


def print_error(error: GapforgeError) -> None:
    """Print ``error`` on standard error, and write the first one to the file that rehearse sets."""
    print(error.render(), file=sys.stderr)
    if file := os.environ.get(ERROR_FILE):
        with suppress(OSError), open(file, "x", encoding="utf-8") as output:
            json.dump(error.to_json(), output)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines whose columns are aligned by terminal width."""
    columns = [max(map(width, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(map(pad, row, columns)).rstrip() for row in rows]


def copies_note(files: int, size: int) -> str:
    """Return the line that reports ``files`` copies of ``size`` bytes instead of hard links."""
    return _(
        "note: this file system has no hard links (as exFAT and FAT32), so {files} files "
        "({size}) are copies and use the disk space a second time",
        files=files,
        size=human_bytes(size),
    )
