"""Refuse a Dockerfile that could reach the network.

The lint reads a Dockerfile as BuildKit does: instructions in any case, continued lines, escapes and
quotes inside flags. It knows what is allowed, rather than what is forbidden, and refuses the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gapforge.base.errors import Fault
from gapforge.base.i18n import _
from gapforge.image.dockerfile import at_line

_INSTRUCTIONS = {"FROM", "RUN", "COPY", "ARG", "ENV", "LABEL", "WORKDIR", "USER", "SHELL"}
_INSTRUCTIONS |= {"ENTRYPOINT", "CMD", "STOPSIGNAL", "HEALTHCHECK", "EXPOSE", "VOLUME"}
_COPY_FLAGS = frozenset(("from", "chown", "chmod", "link"))
_MOUNT_TYPES = frozenset(("bind", "cache", "secret", "tmpfs"))
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(rf"\$(?:\{{({_NAME.pattern})\}}|({_NAME.pattern}))")
# No engine looks for a name below localhost/ in a registry.
_OUR_IMAGE = re.compile(r"localhost/gapforge/[a-z0-9._/:-]+")
_STAGE = re.compile(r"[a-z][a-z0-9._-]*")
# Each of these is white space for some builder.
_ODD_SPACE = re.compile(r"[^\S \t\n]|[\x00-\x08\x0b-\x1f\x7f\u200b\u2060\ufeff]")


@dataclass(frozen=True)
class _Instruction:
    """One instruction: its first line, its upper-case name, and the rest with lines joined."""

    line: int
    name: str
    rest: str


def lint(text: str) -> list[Fault]:
    """Return every way in which this Dockerfile could reach the network or run a foreign image."""
    return _Lint().check(text)


class _Lint:
    """The state of one lint.

    ``stages`` holds the lower-case names so far, "" for a stage without one. ``arguments`` maps
    each ARG before the first FROM to whether its default is a foreign image.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.stages: list[str] = []
        self.arguments: dict[str, bool] = {}
        self.line = 0  # of the instruction or line that is being checked

    def check(self, text: str) -> list[Fault]:
        for number, line in enumerate(text.split("\n"), 1):
            self.line = number
            self._check_line(line)
        for instruction in _instructions(text):
            self.line = instruction.line
            self._check_instruction(instruction.name, instruction.rest)
        return self.faults

    def _fault(self, problem: str, expected: str) -> None:
        self.faults.append(Fault(at_line(self.line), problem, expected))

    def _check_line(self, line: str) -> None:
        """Check what is wrong in a line, whatever instruction it belongs to."""
        if _ODD_SPACE.search(line):
            self._fault(
                _("control character or unusual white space"),
                _("spaces, and line ends without \\r"),
            )
        comment = line.strip().lower()
        # A directive counts only at the top, but nobody needs such a comment elsewhere; builders
        # also read the frontend from a "//" comment, behind a "#!" line, or from JSON.
        if re.match(r"(#|//)\s*syntax\s*=", comment):
            self._fault(
                _("a frontend (syntax) is named, which the builder would pull"), _("no such line")
            )
        elif re.match(r"#\s*escape\s*=", comment):
            self._fault(_("the escape character is changed"), _("no such line"))
        elif self.line == 1 and comment.startswith(("#!", "//", "{")):
            self._fault(
                _("some builders read this line as a header"), _("a comment or an instruction")
            )
        if re.search(r"\\\\[ \t]*$", line) and not comment.startswith("#"):
            self._fault(
                _("two backslashes at the end, which builders read differently"), _("one, or none")
            )

    def _check_instruction(self, name: str, rest: str) -> None:
        if name in ("RUN", "COPY") and re.search(r"(?<!<)<<(?!<)", rest):
            self._fault(
                _("a heredoc, whose lines builders read differently"), _("a file in the context")
            )
        if name == "FROM":
            self._check_from(rest)
        elif name == "ARG" and not self.stages:
            self._read_arguments(rest)
        elif name == "RUN":
            self._check_run(rest)
        elif name == "COPY":
            self._check_copy(rest)
        elif name == "ADD":
            remote = re.search(r"[a-z+]+://|git@|\$", rest, re.IGNORECASE)
            self._fault(
                _("this ADD fetches from the network")
                if remote
                else _("ADD can fetch from the network"),
                _("COPY of a file in the context"),
            )
        elif name == "ONBUILD":
            self._fault(_("ONBUILD runs where no lint can check it"), _("the instruction itself"))
        elif name not in _INSTRUCTIONS:
            self._fault(
                _('unknown instruction "{name}"', name=name[:40]),
                _("one of: {known}", known=" ".join(sorted(_INSTRUCTIONS))),
            )

    def _read_arguments(self, rest: str) -> None:
        for word in rest.split():
            key, separator, default = word.partition("=")
            foreign = not _NAME.fullmatch(key) or (
                separator != "" and not _OUR_IMAGE.fullmatch(default)
            )
            self.arguments[key] = self.arguments.get(key, False) or foreign

    def _check_from(self, rest: str) -> None:
        flags, operands = _split_flags(rest)
        words = operands.split()
        for flag in flags:
            self._fault(_('FROM has the flag "{flag}"', flag=flag), _("no flag"))
        named = len(words) == 3 and words[1].upper() == "AS"
        if not (named or len(words) == 1):
            self._fault(
                _('invalid form "FROM {operands}"', operands=operands[:60]), "FROM BASE AS STAGE"
            )
            self.stages.append("")
            return
        self._check_base(words[0])
        stage = words[2].lower() if named else ""
        if named and not _STAGE.fullmatch(stage):
            self._fault(
                _('invalid stage name "{name}"', name=words[2]), _("letters, digits, '.', '_', '-'")
            )
        self.stages.append(stage)

    def _check_base(self, base: str) -> None:
        if variable := _VARIABLE.fullmatch(base):
            key = variable[1] or variable[2]
            if key not in self.arguments:
                self._fault(
                    _("FROM ${key}: there is no ARG {key} before the first FROM", key=key),
                    f"ARG {key}",
                )
            elif self.arguments[key]:
                self._fault(
                    _("FROM ${key}: its ARG has a default that the builder would pull", key=key),
                    _(
                        "ARG {key} without a default, or with one that begins with "
                        "localhost/gapforge/",
                        key=key,
                    ),
                )
        elif base != "scratch" and base.lower() not in self.stages:
            self._fault(
                _(
                    'FROM "{base}" is an image that the builder would look for in a registry',
                    base=base,
                ),
                _("an earlier stage, scratch, or an $ARG of gapforge"),
            )

    def _check_run(self, rest: str) -> None:
        for flag, name, value in _parsed_flags(rest):
            if name == "network":
                self._fault(
                    _('RUN chooses its own network ("{flag}")', flag=flag),
                    _("no --network; the build has none"),
                )
            elif name != "mount":
                self._fault(_('RUN has the flag "{flag}"', flag=flag), _("--mount only"))
            elif not value:
                self._fault(_("RUN has --mount without a value"), "--mount=type=…")
            else:
                self._check_mount(value)

    def _check_mount(self, value: str) -> None:
        options: dict[str, list[str]] = {}
        for option in value.split(","):
            key, _separator, word = option.partition("=")
            options.setdefault(key.strip().lower(), []).append(word.strip())
        for kind in options.get("type", ["bind"]):
            if kind.lower() not in _MOUNT_TYPES:
                self._fault(
                    _('RUN --mount has the type "{kind}"', kind=kind),
                    _(" or ").join(sorted(_MOUNT_TYPES)),
                )
        for source in options.get("from", []):
            self._check_origin("RUN --mount", source)

    def _check_copy(self, rest: str) -> None:
        for flag, name, value in _parsed_flags(rest):
            if name not in _COPY_FLAGS:
                self._fault(
                    _('COPY has the flag "{flag}"', flag=flag),
                    "--" + ", --".join(sorted(_COPY_FLAGS)),
                )
            elif name == "from":
                self._check_origin("COPY", value.strip())

    def _check_origin(self, instruction: str, source: str) -> None:
        """Check that the ``from`` of a COPY or mount is an earlier stage."""
        earlier = self.stages[:-1]
        known = source.lower() in earlier if source else False
        if source.isascii() and source.isdigit():
            known = int(source) < len(earlier)
        if not known:
            self._fault(
                _(
                    '{instruction} from "{source}": not an earlier stage, so the builder would '
                    "look for an image in a registry",
                    instruction=instruction,
                    source=source,
                ),
                _("an earlier stage"),
            )


def _instructions(text: str) -> Iterator[_Instruction]:
    """Yield the instructions with continued lines joined as BuildKit does it.

    Comments and empty lines between continued lines are skipped.
    """
    start, joined = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        start = start or number
        continued = re.search(r"\\[ \t]*$", line)
        joined += line[: continued.start()] if continued else line
        if not continued:
            yield _instruction(start, joined)
            start, joined = 0, ""
    if joined.strip():
        yield _instruction(start, joined)


def _instruction(line: int, text: str) -> _Instruction:
    name, _separator, rest = text.strip().replace("\t", " ").partition(" ")
    return _Instruction(line, name.upper(), rest.strip())


def _parsed_flags(rest: str) -> Iterator[tuple[str, str, str]]:
    """Yield each flag of an instruction as it is written, its lower-case name, and its value."""
    for flag in _split_flags(rest)[0]:
        name, _separator, value = flag.removeprefix("--").partition("=")
        yield flag, name.strip().lower(), value


def _split_flags(rest: str) -> tuple[list[str], str]:
    """Return the flags of an instruction, unquoted as BuildKit does it, and what follows them.

    A flag with white space around its "=" is joined, so that ``--network = host`` is recognised as
    what its writer meant.
    """
    flags = []
    rest = rest.lstrip()
    while rest.startswith("--") and not re.match(r"--(\s|$)", rest):
        word, rest = _first_word(rest)
        rest = rest.lstrip()
        if "=" not in word and rest.startswith("="):
            value, rest = _first_word(rest[1:].lstrip())
            word, rest = f"{word}={value}", rest.lstrip()
        elif word.endswith("=") and rest:
            value, rest = _first_word(rest)
            word, rest = word + value, rest.lstrip()
        flags.append(word)
    return flags, rest


def _first_word(text: str) -> tuple[str, str]:
    """Return the first word without its quotes and escapes, and the text behind it."""
    result, quote, position = [], "", 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\" and position < len(text):
            result.append(text[position])
            position += 1
        elif quote:
            if char == quote:
                quote = ""
            else:
                result.append(char)
        elif char in "'\"":
            quote = char
        elif char in " \t":
            return "".join(result), text[position:]
        else:
            result.append(char)
    return "".join(result), ""
