"""Fills the project's Dockerfile with what a preset asks for, and refuses a Dockerfile that could reach the network.

The lint reads as BuildKit reads: instructions in any case, lines that go on, escapes and quotes inside flags.
It knows what is allowed, rather than what is not; what it does not know, it refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gapforge.base.errors import Fault, LintError
from gapforge.base.i18n import _
from gapforge.model.preset import Secret

BUILD_ARGS = "# gapforge:build-args"
SECRET_MOUNTS = "    # gapforge:secret-mounts"  # noqa: S105 - a marker line, no secret
_SHOWN = "Dockerfile"

_INSTRUCTIONS = frozenset(
    [
        "FROM",
        "RUN",
        "COPY",
        "ARG",
        "ENV",
        "LABEL",
        "WORKDIR",
        "USER",
        "ENTRYPOINT",
        "CMD",
        "SHELL",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "EXPOSE",
        "VOLUME",
    ]
)
_COPY_FLAGS = frozenset(("from", "chown", "chmod", "link"))
_MOUNT_TYPES = frozenset(("bind", "cache", "secret", "tmpfs"))
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OUR_IMAGE = re.compile(
    r"localhost/gapforge/[a-z0-9._/:-]+"
)  # no engine looks for localhost/ in a registry
_STAGE = re.compile(r"[a-z][a-z0-9._-]*")
_ODD_SPACE = re.compile(
    r"[^\S \t\n]|[\x00-\x08\x0b-\x1f\x7f\u200b\u2060\ufeff]"
)  # some reader takes each for white space


def render(template: str, secrets: Sequence[Secret]) -> str:
    """The Dockerfile for these secrets: an ``ARG`` or a secret mount for each, in place of the two marker lines.

    Pure. Raises LintError when a marker line is missing, stands twice or is not known, since a secret that is
    silently not passed is the worst answer.
    """
    lines = template.split("\n")
    faults = []
    for marker in (BUILD_ARGS, SECRET_MOUNTS):
        if (count := lines.count(marker)) != 1:
            faults.append(
                Fault(
                    _SHOWN,
                    _('has the line "{marker}" {count} times', marker=marker, count=count),
                    _("exactly once"),
                )
            )
    for number, line in enumerate(lines, 1):
        if re.match(r"\s*#\s*gapforge\s*:", line) and line not in (BUILD_ARGS, SECRET_MOUNTS):
            faults.append(
                Fault(
                    _at(number),
                    _('"{line}" is no marker line', line=line.strip()),
                    _(
                        '"{build_args}" or "{secret_mounts}"',
                        build_args=BUILD_ARGS,
                        secret_mounts=SECRET_MOUNTS,
                    ),
                )
            )
    raise_for(faults, what=_("cannot be filled in"))
    result: list[str] = []
    for line in lines:
        if line == BUILD_ARGS:
            result += [f"ARG {s.key}" for s in secrets if s.passed == "build-arg"]
        elif line == SECRET_MOUNTS:
            result += [_mount(s) for s in secrets if s.passed == "secret"]
        else:
            result.append(line)
    return "\n".join(result)


def _mount(secret: Secret) -> str:
    return (
        f"    --mount=type=secret,id={secret.key}{',required=true' if secret.required else ''} \\"
    )


def raise_for(faults: Sequence[Fault], *, what: str = "") -> None:
    """Raise LintError with all faults; nothing when there are none. ``what`` goes on after "the Dockerfile" (in Korean
    after a colon); without it the Dockerfile could reach the network."""
    if faults:
        what = what or _("could reach the network")
        raise LintError(
            _("the Dockerfile {what}", what=what),
            faults=faults,
            hint=_("correct Dockerfile; then run the same command again"),
        )


def _at(line: int) -> str:
    return _("{shown}: line {line}", shown=_SHOWN, line=line)


@dataclass(frozen=True)
class _Instruction:
    """One instruction: where it begins, its upper-case name, and the rest with continued lines joined."""

    line: int
    name: str
    rest: str


@dataclass
class _State:
    """What is known so far of the Dockerfile."""

    faults: list[Fault] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)  # lower-case names, "" for a stage without one
    arguments: dict[str, bool] = field(
        default_factory=dict
    )  # ARG before the first FROM -> has a foreign default


def lint(text: str) -> list[Fault]:
    """Every way in which this Dockerfile could reach the network or run what is not ours; [] when there is none."""
    state = _State()
    _check_text(text, state)
    for instruction in _instructions(text):
        _check(instruction, state)
    return state.faults


def _fault(state: _State, line: int, problem: str, expected: str) -> None:
    state.faults.append(Fault(_at(line), problem, expected))


def _check_text(text: str, state: _State) -> None:
    """What is wrong with lines, whatever instruction they belong to."""
    for number, line in enumerate(text.split("\n"), 1):
        if _ODD_SPACE.search(line):
            _fault(
                state,
                number,
                _("holds a control character or unusual white space"),
                _("spaces, and line ends without \\r"),
            )
        comment = line.strip().lower()
        # A directive counts only at the top, but nobody needs such a comment elsewhere; builders also read
        # the frontend from a "//" comment, behind a "#!" line, or from JSON.
        if re.match(r"(#|//)\s*syntax\s*=", comment):
            _fault(
                state,
                number,
                _("names a frontend (syntax), which the builder would pull"),
                _("no such line"),
            )
        elif re.match(r"#\s*escape\s*=", comment):
            _fault(state, number, _("changes the escape character"), _("no such line"))
        elif number == 1 and comment.startswith(("#!", "//", "{")):
            _fault(
                state,
                number,
                _("is read as a header by some builders"),
                _("a comment or an instruction"),
            )
        if re.search(r"\\\\[ \t]*$", line) and not comment.startswith("#"):
            _fault(
                state,
                number,
                _("ends in two backslashes, which builders read differently"),
                _("one, or none"),
            )


def _instructions(text: str) -> Iterator[_Instruction]:
    """The instructions, continued lines joined as BuildKit joins them: comments and empty lines between are skipped."""
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


def _check(instruction: _Instruction, state: _State) -> None:
    line, name, rest = instruction.line, instruction.name, instruction.rest
    if name == "ADD":
        remote = re.search(r"[a-z+]+://|git@|\$", rest, re.IGNORECASE)
        problem = (
            _("is an ADD that fetches from the network")
            if remote
            else _("is ADD, which can fetch from the network")
        )
        _fault(state, line, problem, _("COPY of a file in the context"))
    elif name == "ONBUILD":
        _fault(
            state,
            line,
            _("is ONBUILD, which runs where no lint looks"),
            _("the instruction itself"),
        )
    elif name not in _INSTRUCTIONS:
        known = " ".join(sorted(_INSTRUCTIONS))
        _fault(
            state,
            line,
            _('"{name}" is not known', name=name[:40]),
            _("one of: {known}", known=known),
        )
    elif name == "FROM":
        _check_from(instruction, state)
    elif name == "ARG" and not state.stages:
        for word in rest.split():
            key, separator, default = word.partition("=")
            foreign = not _NAME.fullmatch(key) or (
                separator != "" and not _OUR_IMAGE.fullmatch(default)
            )
            state.arguments[key] = state.arguments.get(key, False) or foreign
    if name in ("RUN", "COPY") and re.search(r"(?<!<)<<(?!<)", rest):
        _fault(
            state,
            line,
            _("has a heredoc, whose lines builders read differently"),
            _("a file in the context"),
        )
    if name == "RUN":
        _check_run(instruction, state)
    elif name == "COPY":
        _check_copy(instruction, state)


def _check_from(instruction: _Instruction, state: _State) -> None:
    flags, rest = _flags(instruction.rest)
    words = rest.split()
    for flag in flags:
        _fault(state, instruction.line, _('FROM has the flag "{flag}"', flag=flag), _("no flag"))
    named = len(words) == 3 and words[1].upper() == "AS"
    if not (named or len(words) == 1):
        _fault(
            state,
            instruction.line,
            _('"FROM {rest}" has another form', rest=rest[:60]),
            "FROM BASE AS STAGE",
        )
        state.stages.append("")
        return
    base = words[0]
    variable = re.fullmatch(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))", base)
    if variable:
        key = variable[1] or variable[2]
        if key not in state.arguments:
            _fault(
                state,
                instruction.line,
                _("FROM ${key}: no ARG {key} stands before the first FROM", key=key),
                f"ARG {key}",
            )
        elif state.arguments[key]:
            _fault(
                state,
                instruction.line,
                _("FROM ${key}: its ARG has a default that the builder would pull", key=key),
                _(
                    "ARG {key} without a default, or with one that begins with localhost/gapforge/",
                    key=key,
                ),
            )
    elif base != "scratch" and base.lower() not in state.stages:
        _fault(
            state,
            instruction.line,
            _('FROM "{base}" is an image that the builder would look for in a registry', base=base),
            _("an earlier stage, scratch, or an $ARG of ours"),
        )
    stage = words[2].lower() if named else ""
    if named and not _STAGE.fullmatch(stage):
        _fault(
            state,
            instruction.line,
            _('"{word}" is no name for a stage', word=words[2]),
            _("letters, digits, '.', '_', '-'"),
        )
    state.stages.append(stage)


def _check_run(instruction: _Instruction, state: _State) -> None:
    flags, _unused = _flags(instruction.rest)
    for flag in flags:
        name, _separator, value = flag.removeprefix("--").partition("=")
        name = name.strip().lower()
        if name == "network":
            _fault(
                state,
                instruction.line,
                _('RUN has a network of its own ("{flag}")', flag=flag),
                _("no --network; the build has none"),
            )
        elif name != "mount":
            _fault(
                state,
                instruction.line,
                _('RUN has the flag "{flag}"', flag=flag),
                _("--mount only"),
            )
        elif not value:
            _fault(state, instruction.line, _("RUN has --mount without a value"), "--mount=type=…")
        else:
            _check_mount(instruction, value, state)


def _check_mount(instruction: _Instruction, value: str, state: _State) -> None:
    options: dict[str, list[str]] = {}
    for part in value.split(","):
        key, _separator, word = part.partition("=")
        options.setdefault(key.strip().lower(), []).append(word.strip())
    for kind in options.get("type", ["bind"]):
        if kind.lower() not in _MOUNT_TYPES:
            _fault(
                state,
                instruction.line,
                _('RUN --mount has the type "{kind}"', kind=kind),
                _(" or ").join(sorted(_MOUNT_TYPES)),
            )
    for source in options.get("from", []):
        _check_origin(instruction, "RUN --mount", source, state)


def _check_copy(instruction: _Instruction, state: _State) -> None:
    flags, _unused = _flags(instruction.rest)
    for flag in flags:
        name, _separator, value = flag.removeprefix("--").partition("=")
        name = name.strip().lower()
        if name not in _COPY_FLAGS:
            _fault(
                state,
                instruction.line,
                _('COPY has the flag "{flag}"', flag=flag),
                "--" + ", --".join(sorted(_COPY_FLAGS)),
            )
        elif name == "from":
            _check_origin(instruction, "COPY", value.strip(), state)


def _check_origin(instruction: _Instruction, what: str, source: str, state: _State) -> None:
    earlier = state.stages[:-1]  # a stage cannot copy from itself
    known = source.lower() in earlier if source else False
    if source.isascii() and source.isdigit():
        known = int(source) < len(earlier)
    if not known:
        _fault(
            state,
            instruction.line,
            _(
                '{what} from "{source}": that is no earlier stage, so the builder would '
                "look for an image in a registry",
                what=what,
                source=source,
            ),
            _("an earlier stage"),
        )


def _flags(rest: str) -> tuple[list[str], str]:
    """The flags of an instruction, unquoted and unescaped as BuildKit does it, and what follows them.

    A flag whose "=" has white space around it is joined again, so that ``--network = host`` is seen for what
    its writer meant.
    """
    flags = []
    rest = rest.lstrip()
    while rest.startswith("--") and not re.match(r"--(\s|$)", rest):
        word, rest = _word(rest)
        rest = rest.lstrip()
        if "=" not in word and rest.startswith("="):
            value, rest = _word(rest[1:].lstrip())
            word, rest = f"{word}={value}", rest.lstrip()
        elif word.endswith("=") and rest:
            value, rest = _word(rest)
            word, rest = word + value, rest.lstrip()
        flags.append(word)
    return flags, rest


def _word(text: str) -> tuple[str, str]:
    """The first word with quotes and escapes taken away, and the text behind it."""
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
