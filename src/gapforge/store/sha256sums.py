"""Write and read SHA256SUMS, the file that ``sha256sum -c`` verifies without gapforge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


@dataclass
class Sums:
    """The content of a SHA256SUMS file: path -> SHA-256, and the lines that cannot be used.

    ``malformed`` holds line numbers, ``repeated`` a line number and the path that it lists again.
    """

    files: dict[str, str] = field(default_factory=dict)
    malformed: list[int] = field(default_factory=list)
    repeated: list[tuple[int, str]] = field(default_factory=list)


def render(files: Mapping[str, str]) -> bytes:
    """Return the content of SHA256SUMS for ``files`` (path -> SHA-256), sorted by path."""
    return "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(files.items())).encode()


def parse(data: bytes) -> Sums:
    """Return what a SHA256SUMS file lists. Raises UnicodeDecodeError unless it is UTF-8 text."""
    sums = Sums()
    for number, line in enumerate(data.decode("utf-8").split("\n"), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            if line:
                sums.malformed.append(number)
        elif match[2] in sums.files:
            sums.repeated.append((number, match[2]))
        else:
            sums.files[match[2]] = match[1]
    return sums
