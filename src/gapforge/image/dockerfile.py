"""Fills the project's Dockerfile with what a preset asks for, and refuses a Dockerfile that could reach the network.

The lint reads as BuildKit reads: instructions in any case, lines that go on, escapes and quotes inside flags.
It knows what is allowed, rather than what is not; what it does not know, it refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gapforge.base.errors import Fault, LintError
from gapforge.base.text import tr
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
_OUR_IMAGE = re.compile(r"localhost/gapforge/[a-z0-9._/:-]+")  # no engine looks for localhost/ in a registry
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
            faults.append(Fault(_SHOWN, tr(f'"{marker}" 줄이 {count}번 있음', f'has the line "{marker}" {count} times'),
                                tr("정확히 한 번", "exactly once")))  # fmt: skip
    for number, line in enumerate(lines, 1):
        if re.match(r"\s*#\s*gapforge\s*:", line) and line not in (BUILD_ARGS, SECRET_MOUNTS):
            faults.append(Fault(_at(number), tr(f'"{line.strip()}": 표시 줄이 아님', f'"{line.strip()}" is no marker line'),
                                tr(f'"{BUILD_ARGS}" 또는 "{SECRET_MOUNTS}"',
                                   f'"{BUILD_ARGS}" or "{SECRET_MOUNTS}"')))  # fmt: skip
    raise_for(faults, what=tr("시크릿을 채워 넣을 수 없습니다", "cannot be filled in"))
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
    return f"    --mount=type=secret,id={secret.key}{',required=true' if secret.required else ''} \\"


def raise_for(faults: Sequence[Fault], *, what: str = "") -> None:
    """Raise LintError with all faults; nothing when there are none. ``what`` goes on after "the Dockerfile" (in Korean
    after a colon); without it the Dockerfile could reach the network."""
    if faults:
        what = what or tr("네트워크에 닿을 수 있습니다", "could reach the network")
        raise LintError(tr(f"Dockerfile: {what}", f"the Dockerfile {what}"), faults=faults,
                        hint=tr("Dockerfile을 고친 뒤 같은 명령을 다시 실행하십시오",
                                "correct Dockerfile; then run the same command again"))  # fmt: skip


def _at(line: int) -> str:
    return tr(f"{_SHOWN}: {line}행", f"{_SHOWN}: line {line}")


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
    arguments: dict[str, bool] = field(default_factory=dict)  # ARG before the first FROM -> has a foreign default


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
            _fault(state, number, tr("제어 문자나 특수한 공백 문자가 있음", "holds a control character or unusual white space"),
                   tr("보통 공백과 \\r 없는 줄 끝", "spaces, and line ends without \\r"))  # fmt: skip
        comment = line.strip().lower()
        # A directive counts only at the top, but nobody needs such a comment elsewhere; builders also read
        # the frontend from a "//" comment, behind a "#!" line, or from JSON.
        if re.match(r"(#|//)\s*syntax\s*=", comment):
            _fault(state, number, tr("프런트엔드(syntax)를 지정함. 빌더가 내려받으려 함",
                                     "names a frontend (syntax), which the builder would pull"),
                   tr("이런 줄이 없음", "no such line"))  # fmt: skip
        elif re.match(r"#\s*escape\s*=", comment):
            _fault(state, number, tr("이스케이프 문자를 바꿈", "changes the escape character"),
                   tr("이런 줄이 없음", "no such line"))  # fmt: skip
        elif number == 1 and comment.startswith(("#!", "//", "{")):
            _fault(state, number, tr("일부 빌더가 헤더로 읽음", "is read as a header by some builders"),
                   tr("주석 또는 명령", "a comment or an instruction"))  # fmt: skip
        if re.search(r"\\\\[ \t]*$", line) and not comment.startswith("#"):
            _fault(state, number, tr("역슬래시 두 개로 끝나서 빌더마다 다르게 읽음",
                                     "ends in two backslashes, which builders read differently"),
                   tr("하나이거나 없음", "one, or none"))  # fmt: skip


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
    name, _, rest = text.strip().replace("\t", " ").partition(" ")
    return _Instruction(line, name.upper(), rest.strip())


def _check(instruction: _Instruction, state: _State) -> None:
    line, name, rest = instruction.line, instruction.name, instruction.rest
    if name == "ADD":
        remote = re.search(r"[a-z+]+://|git@|\$", rest, re.IGNORECASE)
        problem = (
            tr("네트워크에서 받아 오는 ADD임", "is an ADD that fetches from the network")
            if remote
            else tr("ADD임. 네트워크에서 받아 올 수 있음", "is ADD, which can fetch from the network")
        )
        _fault(state, line, problem, tr("컨텍스트 안 파일의 COPY", "COPY of a file in the context"))
    elif name == "ONBUILD":
        _fault(state, line, tr("ONBUILD임. 검사가 보지 못하는 곳에서 실행됨", "is ONBUILD, which runs where no lint looks"),
               tr("명령 자체를 적음", "the instruction itself"))  # fmt: skip
    elif name not in _INSTRUCTIONS:
        known = " ".join(sorted(_INSTRUCTIONS))
        _fault(state, line, tr(f'"{name[:40]}": 모르는 명령임', f'"{name[:40]}" is not known'),
               tr(f"다음 중 하나: {known}", f"one of: {known}"))  # fmt: skip
    elif name == "FROM":
        _check_from(instruction, state)
    elif name == "ARG" and not state.stages:
        for word in rest.split():
            key, separator, default = word.partition("=")
            foreign = not _NAME.fullmatch(key) or (separator != "" and not _OUR_IMAGE.fullmatch(default))
            state.arguments[key] = state.arguments.get(key, False) or foreign
    if name in ("RUN", "COPY") and re.search(r"(?<!<)<<(?!<)", rest):
        _fault(state, line, tr("heredoc이 있음. 빌더마다 그 줄을 다르게 읽음",
                               "has a heredoc, whose lines builders read differently"),
               tr("컨텍스트 안의 파일", "a file in the context"))  # fmt: skip
    if name == "RUN":
        _check_run(instruction, state)
    elif name == "COPY":
        _check_copy(instruction, state)


def _check_from(instruction: _Instruction, state: _State) -> None:
    flags, rest = _flags(instruction.rest)
    words = rest.split()
    for flag in flags:
        _fault(state, instruction.line, tr(f'FROM에 "{flag}" 플래그가 있음', f'FROM has the flag "{flag}"'),
               tr("플래그 없음", "no flag"))  # fmt: skip
    named = len(words) == 3 and words[1].upper() == "AS"
    if not (named or len(words) == 1):
        _fault(state, instruction.line, tr(f'"FROM {rest[:60]}": 형식이 다름', f'"FROM {rest[:60]}" has another form'),
               "FROM BASE AS STAGE")  # fmt: skip  # no tr: as a Dockerfile says it
        state.stages.append("")
        return
    base = words[0]
    variable = re.fullmatch(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))", base)
    if variable:
        key = variable[1] or variable[2]
        if key not in state.arguments:
            _fault(state, instruction.line, tr(f"FROM ${key}: 첫 FROM 앞에 ARG {key} 줄이 없음",
                                               f"FROM ${key}: no ARG {key} stands before the first FROM"),
                   f"ARG {key}")  # fmt: skip
        elif state.arguments[key]:
            _fault(state, instruction.line, tr(f"FROM ${key}: 이 ARG의 기본값은 빌더가 내려받으려 하는 이미지임",
                                               f"FROM ${key}: its ARG has a default that the builder would pull"),
                   tr(f"기본값이 없거나 localhost/gapforge/로 시작하는 ARG {key}",
                      f"ARG {key} without a default, or with one that begins with localhost/gapforge/"))  # fmt: skip
    elif base != "scratch" and base.lower() not in state.stages:
        _fault(state, instruction.line, tr(f'FROM "{base}": 빌더가 레지스트리에서 찾으려 하는 이미지임',
                                           f'FROM "{base}" is an image that the builder would look for in a registry'),
               tr("앞 단계, scratch 또는 gapforge의 $ARG", "an earlier stage, scratch, or an $ARG of ours"))  # fmt: skip
    stage = words[2].lower() if named else ""
    if named and not _STAGE.fullmatch(stage):
        _fault(state, instruction.line, tr(f'"{words[2]}": 단계 이름으로 쓸 수 없음', f'"{words[2]}" is no name for a stage'),
               tr("영문자, 숫자, '.', '_', '-'", "letters, digits, '.', '_', '-'"))  # fmt: skip
    state.stages.append(stage)


def _check_run(instruction: _Instruction, state: _State) -> None:
    flags, _ = _flags(instruction.rest)
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        name = name.strip().lower()
        if name == "network":
            _fault(state, instruction.line, tr(f'RUN이 네트워크를 따로 정함 ("{flag}")',
                                               f'RUN has a network of its own ("{flag}")'),
                   tr("--network 없음 (빌드에는 네트워크가 없음)", "no --network; the build has none"))  # fmt: skip
        elif name != "mount":
            _fault(state, instruction.line, tr(f'RUN에 "{flag}" 플래그가 있음', f'RUN has the flag "{flag}"'),
                   tr("--mount만", "--mount only"))  # fmt: skip
        elif not value:
            _fault(state, instruction.line, tr("RUN의 --mount에 값이 없음", "RUN has --mount without a value"),
                   "--mount=type=…")  # fmt: skip
        else:
            _check_mount(instruction, value, state)


def _check_mount(instruction: _Instruction, value: str, state: _State) -> None:
    options: dict[str, list[str]] = {}
    for part in value.split(","):
        key, _, word = part.partition("=")
        options.setdefault(key.strip().lower(), []).append(word.strip())
    for kind in options.get("type", ["bind"]):
        if kind.lower() not in _MOUNT_TYPES:
            _fault(state, instruction.line, tr(f'RUN --mount의 type이 "{kind}"임', f'RUN --mount has the type "{kind}"'),
                   tr(" 또는 ", " or ").join(sorted(_MOUNT_TYPES)))  # fmt: skip
    for source in options.get("from", []):
        _check_origin(instruction, "RUN --mount", source, state)


def _check_copy(instruction: _Instruction, state: _State) -> None:
    flags, _ = _flags(instruction.rest)
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        name = name.strip().lower()
        if name not in _COPY_FLAGS:
            _fault(state, instruction.line, tr(f'COPY에 "{flag}" 플래그가 있음', f'COPY has the flag "{flag}"'),
                   "--" + ", --".join(sorted(_COPY_FLAGS)))  # fmt: skip
        elif name == "from":
            _check_origin(instruction, "COPY", value.strip(), state)


def _check_origin(instruction: _Instruction, what: str, source: str, state: _State) -> None:
    earlier = state.stages[:-1]  # a stage cannot copy from itself
    known = source.lower() in earlier if source else False
    if source.isascii() and source.isdigit():
        known = int(source) < len(earlier)
    if not known:
        _fault(state, instruction.line,
               tr(f'{what} from "{source}": 앞 단계가 아니므로 빌더가 레지스트리에서 이미지를 찾으려 함',
                  f'{what} from "{source}": that is no earlier stage, so the builder would look for an image in a registry'),
               tr("앞 단계", "an earlier stage"))  # fmt: skip


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
