"""What a ``.gitignore`` leaves out, for a copy of the repository where git is not there to be asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = ".gitignore"


@dataclass(frozen=True)
class Rule:
    """One line: paths below ``base`` ("" or "folder/") that ``pattern`` matches are out, or with ``keeps`` in again."""

    base: str
    pattern: re.Pattern[str]
    keeps: bool
    folders_only: bool


def rules_in(file: Path, base: str = "") -> list[Rule]:
    """The rules of one file, which stands in the folder ``base``; none where there is no such file."""
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []
    return [rule for line in lines if (rule := _rule(line.removesuffix("\r"), base)) is not None]


def is_ignored(path: str, folder: bool, rules: Sequence[Rule]) -> bool:
    """Whether the last rule that speaks of ``path`` leaves it out. Its parents are judged by the caller's walk."""
    for rule in reversed(rules):
        if rule.folders_only and not folder:
            continue
        if path.startswith(rule.base) and rule.pattern.fullmatch(path[len(rule.base) :]):
            return not rule.keeps
    return False


def _rule(line: str, base: str) -> Rule | None:
    while line.endswith(" ") and not line.endswith("\\ "):
        line = line[:-1]
    if not line or line.startswith("#"):
        return None
    keeps = line.startswith("!")
    line = line[1:] if keeps else line
    folders_only = line.endswith("/")
    line = line.rstrip("/") if folders_only else line
    anywhere = "/" not in line
    text = "".join(_translated(line.removeprefix("/")))
    try:
        return Rule(
            base,
            re.compile(("(?:.*/)?" if anywhere else "") + text, re.DOTALL),
            keeps,
            folders_only,
        )
    except re.error:
        return None  # git matches nothing with it either


def _translated(text: str) -> Iterator[str]:
    """The regular expression's parts for a pattern."""
    at = 0
    while at < len(text):
        rest = text[at:]
        if rest.startswith("**/") and (at == 0 or text[at - 1] == "/"):
            yield "(?:.*/)?"
            at += 3
        elif rest == "**" and at and text[at - 1] == "/":
            yield ".+"
            at += 2
        elif rest[0] == "*":
            yield "[^/]*"
            at += len(rest) - len(rest.lstrip("*"))
        elif rest[0] == "?":
            yield "[^/]"
            at += 1
        elif rest[0] == "[" and (group := re.match(r"\[([!^]?)(\]?(?:\\.|[^\]\\])*)\]", rest)):
            yield f"(?!/)[{'^' if group[1] else ''}{group[2].replace('[', chr(92) + '[')}]"
            at += group.end()
        else:
            escaped = rest[0] == "\\" and len(rest) > 1
            yield re.escape(rest[1] if escaped else rest[0])
            at += 2 if escaped else 1
