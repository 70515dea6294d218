"""Read `.gapforgeignore`: which files of the application's source are not copied.

Its lines mean what they mean in a ``.gitignore`` in the same folder (gitignore(5)). A pattern is
matched by a set of positions that moves through the path byte by byte, so that no pattern takes
more than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base import limits
from gapforge.base.errors import Fault, SourceError
from gapforge.base.files import read_regular
from gapforge.base.i18n import _
from gapforge.base.system_errors import error_text

NAME = ".gapforgeignore"

_SLASH = ord("/")
_ALL = frozenset(range(256))
_IN_NAME = _ALL - {_SLASH}
# POSIX classes in brackets, for ASCII as git has them.
_CLASSES = {
    b"alnum": rb"[A-Za-z0-9]",
    b"alpha": rb"[A-Za-z]",
    b"blank": rb"[ \t]",
    b"cntrl": rb"[\x00-\x1f\x7f]",
    b"digit": rb"[0-9]",
    b"graph": rb"[\x21-\x7e]",
    b"lower": rb"[a-z]",
    b"print": rb"[\x20-\x7e]",
    b"punct": rb"[!-/:-@\[-`{-~]",
    b"space": rb"[ \t\n\v\f\r]",
    b"upper": rb"[A-Z]",
    b"xdigit": rb"[0-9A-Fa-f]",
}
_MOST_KNOWN_MOVES = 10_000  # per pattern


class _NeverMatches(ValueError):
    """A pattern that no path can match; the text says why."""


@dataclass(frozen=True)
class _Glob:
    """A glob. ``tokens`` are sets of bytes, each for one byte or for any number of them.

    ``skips`` maps the position of a token to the positions where matching may go on without a byte.
    """

    tokens: tuple[tuple[frozenset[int], bool], ...]  # bytes, and whether they may repeat
    skips: tuple[tuple[int, int], ...]  # position, bits of the positions after it
    _moves: dict[tuple[int, int], int] = field(default_factory=dict, compare=False)

    def matches(self, text: bytes) -> bool:
        """Return whether the whole text matches."""
        positions = self._with_skips(1)
        for byte in text:
            key = (positions, byte)
            if key not in self._moves:
                if len(self._moves) >= _MOST_KNOWN_MOVES:
                    self._moves.clear()
                self._moves[key] = self._move(positions, byte)
            positions = self._moves[key]
            if not positions:
                return False
        return bool(positions >> len(self.tokens) & 1)

    def _move(self, positions: int, byte: int) -> int:
        after = 0
        for number, (accepted, repeats) in enumerate(self.tokens):
            if positions >> number & 1 and byte in accepted:
                after |= 1 << number if repeats else 2 << number
        return self._with_skips(after)

    def _with_skips(self, positions: int) -> int:
        for number, targets in self.skips:  # ascending, so one pass finds all
            if positions >> number & 1:
                positions |= targets
        return positions


@dataclass(frozen=True, kw_only=True)
class _Pattern:
    """One line: literal bytes, then a glob. It is about names, or about paths if it has a slash."""

    start: bytes
    rest: _Glob
    cancels: bool
    folders_only: bool
    has_slash: bool

    def matches(self, path: bytes, is_folder: bool) -> bool:
        """Return whether the line is about this path, relative to the source folder."""
        if self.folders_only and not is_folder:
            return False
        text = path if self.has_slash else path[path.rfind(b"/") + 1 :]
        return text.startswith(self.start) and self.rest.matches(text[len(self.start) :])


class IgnoreRules:
    """The lines of an ignore file. The last one that matches a path decides about it."""

    def __init__(self, patterns: Sequence[_Pattern] = ()) -> None:
        self._patterns = tuple(reversed(patterns))

    def verdict(self, path: str, is_folder: bool) -> bool | None:
        """Return True to leave the path out, False to keep it, None if no line is about it.

        A path in a folder that is left out must not be asked for.
        """
        raw = path.encode("utf-8", "surrogateescape")
        for pattern in self._patterns:
            if pattern.matches(raw, is_folder):
                return not pattern.cancels
        return None


def read_rules(source: Path) -> IgnoreRules:
    """Return the rules of the folder's ignore file, none when there is no such file.

    Raise SourceError for an unreadable file and for every line that matches nothing.
    """
    file = source / NAME
    try:
        data = read_regular(file, limits.IGNORE_FILE)
        data.decode("utf-8")
    except FileNotFoundError:
        return IgnoreRules()
    except (OSError, ValueError) as error:
        raise SourceError(
            _("{file} cannot be read: {reason}", file=file, reason=error_text(error)),
            hint=_("make it UTF-8 text, one pattern per line"),
        ) from None
    faults, patterns = [], []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            patterns += _read_line(line.removesuffix(b"\r"))
        except _NeverMatches as reason:
            faults.append(
                Fault(
                    _("{file}: line {number}", file=file, number=number),
                    _(
                        '"{text}" matches nothing: {reason}',
                        text=line[:80].decode("utf-8", "replace"),
                        reason=reason.args[0],
                    ),
                    _("a pattern as in .gitignore"),
                )
            )
    if faults:
        raise SourceError(
            _("{file} cannot be used", file=file),
            faults=faults,
            hint=_("correct it, then run the same command again"),
        )
    return IgnoreRules(patterns)


def _read_line(line: bytes) -> list[_Pattern]:
    """Return the pattern of a line, [] for an empty line and a comment."""
    if line.startswith(b"#"):
        return []
    if len(line) > limits.IGNORE_LINE:
        raise _NeverMatches(_("the line has more than {most} bytes", most=limits.IGNORE_LINE))
    # Spaces at the end count only after a backslash, which must not be escaped itself.
    text = line.rstrip(b" ")
    if (len(text) - len(text.rstrip(b"\\"))) % 2 and text != line:
        text += b" "
    if not text:
        return []
    glob = text.removeprefix(b"!")
    folders_only = glob.endswith(b"/")
    glob = glob.removesuffix(b"/")
    has_slash = b"/" in glob
    glob = glob.removeprefix(b"/")
    parts = glob.split(b"/")
    if b"" in parts:
        raise _NeverMatches(_("there is no name between two slashes"))
    if b"." in parts or b".." in parts:
        raise _NeverMatches(_('paths have no "." and ".."; "/name" is a name in this folder'))
    start = re.split(rb"[*?\[\\]", glob, maxsplit=1)[0]
    return [
        _Pattern(
            start=start,
            rest=_compiled(glob[len(start) :], in_path=has_slash),
            cancels=text.startswith(b"!"),
            folders_only=folders_only,
            has_slash=has_slash,
        )
    ]


def _compiled(glob: bytes, *, in_path: bool) -> _Glob:
    """Return a glob. ``**`` crosses slashes only ``in_path`` and only as a whole name."""
    tokens: list[tuple[frozenset[int], bool]] = []
    skips: dict[int, int] = {}
    position = 0
    while position < len(glob):
        character = glob[position : position + 1]
        if character == b"*":
            end = position + 1
            while glob[end : end + 1] == b"*":
                end += 1
            before, after = glob[:position], glob[end:]
            alone = before[-1:] in (b"", b"/") and (not after or after.startswith((b"/", b"\\/")))
            crosses = in_path and end > position + 1 and alone
            if crosses and after.startswith(b"/"):  # "**/" may also match no folder
                skips[len(tokens)] = 10 << len(tokens)  # to "**", and to what follows "/"
                tokens.append((frozenset(), False))
            skips[len(tokens)] = 2 << len(tokens)
            tokens.append((_ALL if crosses else _IN_NAME, True))
            position = end
            continue
        if character == b"[":
            accepted, position = _bracket(glob, position + 1)
        elif character == b"?":
            accepted, position = _IN_NAME, position + 1
        else:
            position += character == b"\\"
            if position == len(glob):
                raise _NeverMatches(_("it ends with a backslash"))
            accepted, position = frozenset((glob[position],)), position + 1
        tokens.append((accepted, False))
    return _Glob(tuple(tokens), tuple(sorted(skips.items())))


def _bracket(glob: bytes, start: int) -> tuple[frozenset[int], int]:
    """Return the bytes that a bracket expression accepts, and the position after it."""
    negated = glob[start : start + 1] in (b"!", b"^")
    position = first = start + negated
    accepted: set[int] = set()
    lower: int | None = None  # the character before, where a range may begin
    while position == first or glob[position : position + 1] != b"]":
        if position >= len(glob):
            raise _NeverMatches(_('"[" has no "]"'))
        byte = glob[position]
        is_range = lower is not None and byte == ord("-")
        if glob.startswith(b"[:", position):
            end = glob.find(b"]", position + 2)
            if end < 0:
                raise _NeverMatches(_('"[" has no "]"'))
            if end > position + 2 and glob[end - 1 : end] == b":":
                accepted |= _class(glob[position + 2 : end - 1])
                position, lower = end + 1, None
                continue
        if is_range and glob[position + 1 : position + 2] not in (b"", b"]"):
            position, upper = _bracket_byte(glob, position + 1)
            accepted |= set(range(lower or 0, upper + 1))
            lower = None
        else:
            position, lower = _bracket_byte(glob, position)
            accepted.add(lower)
    return (_ALL - accepted if negated else frozenset(accepted)) - {_SLASH}, position + 1


def _bracket_byte(glob: bytes, position: int) -> tuple[int, int]:
    """Return the position after a character of a bracket expression, and the character."""
    position += glob[position] == ord("\\")
    if position >= len(glob):
        raise _NeverMatches(_('"[" has no "]"'))
    return position + 1, glob[position]


def _class(name: bytes) -> set[int]:
    if name not in _CLASSES:
        shown = name.decode("utf-8", "replace")
        raise _NeverMatches(_("[:{name}:] is not a class of characters", name=shown))
    return {byte for byte in range(256) if re.match(_CLASSES[name], bytes((byte,)))}
