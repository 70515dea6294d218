"""Read `.gapforgeignore`: which files of the application's source are not copied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gapforge.base import limits
from gapforge.base.errors import Fault, SourceError
from gapforge.base.files import read_regular
from gapforge.base.i18n import _
from gapforge.base.system_errors import error_text

NAME = ".gapforgeignore"


def read_patterns(source: Path) -> list[re.Pattern[str]]:
    """Return the patterns of the folder's ignore file, none when there is no such file.

    Raise SourceError for an unreadable file and for every line that is not a pattern.
    """
    file = source / NAME
    if not file.is_file() or file.is_symlink():
        return []
    try:
        lines = read_regular(file, limits.IGNORE_RULES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            _("{file} cannot be read: {reason}", file=file, reason=error_text(error)),
            hint=_("make it UTF-8 text, one pattern per line"),
        ) from None
    faults, patterns = [], []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        where = _("{file}: line {number}", file=file, number=number)
        if not text or text.startswith("#"):
            continue
        if text.startswith("!"):
            problem = _('"{text}" cancels a pattern', text=text)
            faults.append(Fault(where, problem, _("only patterns to leave out")))
        elif ".." in text.split("/") or "\\" in text:
            problem = _('"{text}" is not a pattern', text=text)
            faults.append(Fault(where, problem, _("names with *, ? and **")))
        else:
            patterns.append(_pattern(text))
    if faults:
        raise SourceError(
            _("{file} cannot be used", file=file),
            faults=faults,
            hint=_("correct it, then run the same command again"),
        )
    return patterns


def is_ignored(patterns: Sequence[re.Pattern[str]], path: str, is_folder: bool) -> bool:
    """Return whether a path (relative to the source folder) matches a pattern."""
    text = path + "/" if is_folder else path
    return any(pattern.fullmatch(text) for pattern in patterns)


def _pattern(glob: str) -> re.Pattern[str]:
    """Return a glob as a pattern on paths, where the path of a folder ends in "/".

    ``*`` and ``?`` stay inside a name, ``**`` does not. Without a "/" before its end the glob
    matches a name at any depth; with one it counts from the top folder.
    """
    folders_only = glob.endswith("/")
    body = glob.strip("/")
    anchored = "/" in body or glob.startswith("/")
    expressions = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.split(r"(\*\*/|\*\*|\*|\?)", body)
    text = "".join(expressions.get(token, re.escape(token)) for token in tokens)
    return re.compile(
        ("" if anchored else "(?:.*/)?") + text + ("/" if folders_only else "/?"), re.DOTALL
    )
