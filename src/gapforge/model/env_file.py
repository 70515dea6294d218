"""Read the secrets and settings of `.env`.

The file is parsed, never sourced, and only the keys that the preset's application names are kept. A
non-empty environment variable, as a CI job sets it, takes precedence. Values appear in no message
and no repr; ``gapforge.base.temporary_secrets`` writes the only files that hold them.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base import limits, process
from gapforge.base.errors import Fault, SecretError, ToolError
from gapforge.base.files import read_regular
from gapforge.base.i18n import _, ngettext
from gapforge.base.system_errors import os_reason
from gapforge.base.temporary_secrets import temporary_files
from gapforge.model.preset import Secret

SETTING_SUFFIX = "_SOURCE"  # XAIVA_MEDIA_SOURCE and the like are settings of the project
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Quotes of word processors and web pages, which no parser of `.env` treats as quotes.
_TYPOGRAPHIC = frozenset(
    "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}"
    "\N{DOUBLE LOW-9 QUOTATION MARK}\N{DOUBLE HIGH-REVERSED-9 QUOTATION MARK}"
    "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"
    "\N{SINGLE LOW-9 QUOTATION MARK}\N{SINGLE HIGH-REVERSED-9 QUOTATION MARK}"
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    "\N{FULLWIDTH QUOTATION MARK}\N{FULLWIDTH APOSTROPHE}"
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


@dataclass(frozen=True, kw_only=True)
class SecretSet:
    """The values of the keys that the preset names, and the settings beside them.

    ``values`` has only keys with a value; ``origin`` names the source of each. ``settings`` are the
    ``…_SOURCE`` keys. ``warnings`` describe what is unsafe about how the file is kept.
    """

    secrets: tuple[Secret, ...]
    values: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def redactions(self) -> tuple[str, ...]:
        """Return every string that no output may show: the values and each of their lines."""
        found = set(self.values.values())
        for value in self.values.values():
            found.update(line.strip() for line in value.splitlines())
        return tuple(sorted((text for text in found if text), key=lambda text: (-len(text), text)))

    @contextmanager
    def files(self, dry: bool = False) -> Iterator[Mapping[str, Path]]:
        """Give a file for each secret mount, by key, for `--secret id=KEY,src=FILE`.

        Only keys with ``"pass": "secret"`` that have a value are there. See ``temporary_files``.
        """
        wanted = {s.key for s in self.secrets if s.passed == "secret"}
        values = {key: value for key, value in self.values.items() if key in wanted}
        with temporary_files(values, dry=dry) as files:
            yield files


def load(
    env_file: Path, secrets: Sequence[Secret], *, environ: Mapping[str, str] | None = None
) -> SecretSet:
    """Return what `.env` (which may be absent) and the environment set.

    A key that is set but empty counts as absent. Raise SecretError with every fault; a required key
    that has no value is one.
    """
    environ = os.environ if environ is None else environ
    parsed = _read(env_file)
    values: dict[str, str] = {}
    origin: dict[str, str] = {}
    faults: list[Fault] = []
    for secret in secrets:
        value, source = environ.get(secret.key, ""), "environment"
        if not value:
            value, source = parsed.get(secret.key, ""), env_file.name
        if "\0" in value:
            faults.append(Fault(secret.key, _("contains a NUL byte"), _("text")))
        elif value:
            values[secret.key], origin[secret.key] = value, source
        elif secret.required:
            problem = _(
                "required by the preset, but not set in {env_file} or the environment",
                env_file=env_file,
            )
            faults.append(Fault(secret.key, problem, _("a line {key}=VALUE", key=secret.key)))
    if faults:
        raise SecretError(
            _("required keys are missing"),
            faults=faults,
            hint=_(
                "cp .env.template {env_file!q} (unless it exists); chmod 600 {env_file!q}; "
                "fill in the keys",
                env_file=env_file,
            ),
        )
    named = {secret.key for secret in secrets}
    keys = {key for key in [*parsed, *environ] if key.endswith(SETTING_SUFFIX) and key not in named}
    settings = {key: environ.get(key) or parsed.get(key, "") for key in sorted(keys)}
    return SecretSet(
        secrets=tuple(secrets),
        values=values,
        settings={key: value for key, value in settings.items() if value},
        warnings=tuple(file_warnings(env_file)),
        origin=origin,
    )


def _read(env_file: Path) -> dict[str, str]:
    try:
        data = read_regular(env_file, limits.ENVIRONMENT, follow=True)
    except FileNotFoundError:
        return {}
    except IsADirectoryError:
        raise SecretError(
            _("{env_file} is a folder", env_file=env_file),
            hint=_("make it a file: see .env.template"),
        ) from None
    except OSError as error:
        raise SecretError(
            _("{file} cannot be read: {reason}", file=env_file, reason=os_reason(error)),
            hint=process.quoted(["ls", "-l", str(env_file)]),
        ) from None
    values, faults = parse(data, str(env_file))
    if faults:
        raise SecretError(
            ngettext(
                "{env_file} has {count} fault (values are not shown)",
                "{env_file} has {count} faults (values are not shown)",
                len(faults),
                env_file=env_file,
            ),
            faults=faults,
            hint=_("see .env.template for the format"),
        )
    return values


def parse(data: bytes, file: str = ".env") -> tuple[dict[str, str], list[Fault]]:
    r"""Return the keys and values of a `.env` file, and all faults with their line numbers.

    ``KEY=VALUE``, optionally after ``export``. Unquoted: literal, up to white space and ``#``; a
    value that begins with ``#`` or with typographic quotes must be quoted. In
    single quotes: literal, over several lines if need be. In double quotes: the same, with the
    escapes \n \r \t \\ \" \$. Nothing is expanded or run. No fault shows any text of the file but a
    repeated key. ``file`` is the name in the faults.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        where = _("{file}: line {number}", file=file, number=number)
        return {}, [Fault(where, _("not UTF-8 text"), "UTF-8")]
    parser = _Parser(file, text.replace("\r\n", "\n").split("\n"))
    parser.parse()
    return parser.values, parser.faults


class _LineError(Exception):
    """A line cannot be used. ``line`` is the place if it is not the line where the key is."""

    def __init__(self, problem: str, expected: str, line: int = 0) -> None:
        super().__init__(problem)
        self.problem, self.expected, self.line = problem, expected, line


class _Parser:
    """The state of one parse; ``next`` is the index of the next line to read."""

    def __init__(self, file: str, lines: Sequence[str]) -> None:
        self.file, self.lines = file, lines
        self.next = 0
        self.values: dict[str, str] = {}
        self.faults: list[Fault] = []
        self._first_line: dict[str, int] = {}  # of each key

    def parse(self) -> None:
        while self.next < len(self.lines) and len(self.faults) < limits.FAULTS:
            line = self.lines[self.next]
            self.next += 1
            start = self.next
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                self._parse_line(line, start)
            except _LineError as error:
                where = _("{file}: line {number}", file=self.file, number=error.line or start)
                self.faults.append(Fault(where, error.problem, error.expected))

    def _parse_line(self, line: str, start: int) -> None:
        _refuse_control_characters(line)
        key, rest = _split_key(line)
        if rest[:1] in ("'", '"'):
            value, tail = self._quoted(rest[0], rest[1:])
            if tail.strip() and not re.match(r"\s+#", tail):
                raise _LineError(
                    _("text after the closing quote"),
                    _("nothing, or a comment that begins with ' #'"),
                    self.next,
                )
        else:
            value = _unquoted(rest)
        if key in self._first_line:
            raise _LineError(
                _("{key} is set again", key=key),
                _("each key once (it is set in line {number})", number=self._first_line[key]),
            )
        self._first_line[key] = start
        self.values[key] = value

    def _quoted(self, quote: str, text: str) -> tuple[str, str]:
        """Return a quoted value, which may continue on the next lines, and what follows it.

        ``text`` begins after the opening quote. Lines are consumed only when the closing quote is
        found, so that the faults of the lines behind an unclosed quote are found too.
        """
        value: list[str] = []
        following, position = self.next, 0
        while True:
            if position >= len(text):
                if following >= len(self.lines):
                    raise _LineError(
                        _("the quote {quote} is not closed", quote=quote), _("a closing quote")
                    )
                value.append("\n")
                text, position = self.lines[following], 0
                following += 1
                _refuse_control_characters(text, following)
                continue
            char = text[position]
            position += 1
            if char == quote:
                self.next = following
                return "".join(value), text[position:]
            if quote == '"' and char == "\\":
                char = text[position : position + 1]
                if char not in _ESCAPES:
                    raise _LineError(
                        _("unknown escape in double quotes"), _('\\n \\r \\t \\\\ \\" or \\$')
                    )
                char = _ESCAPES[char]
                position += 1
            value.append(char)


def _refuse_control_characters(line: str, number: int = 0) -> None:
    """Raise _LineError, for line ``number``, if a line contains a control character but tab."""
    if any(ord(char) < 32 and char != "\t" for char in line):
        raise _LineError(_("contains a control character"), _("text"), number)


def _unquoted(text: str) -> str:
    """Return a value without quotes, which ends before white space and "#".

    Refuses what would be cut or kept in another way than its author expects: a value that begins
    with "#", and typographic quotes or invisible characters around it.
    """
    if re.match(r"\s*#\S", text):
        raise _LineError(_('the value begins with "#"'), _("the value in quotes: KEY='#…'"))
    value = re.split(r"(?:^|[ \t])#", text, maxsplit=1)[0].strip(" \t")
    for char in (value[:1], value[-1:]):
        if char in _TYPOGRAPHIC:
            raise _LineError(
                _("the value has typographic quotes"), _("straight quotes: KEY='…' or KEY=\"…\"")
            )
        if char and unicodedata.category(char) in ("Cf", "Zs", "Zl", "Zp"):
            raise _LineError(
                _("an invisible character before or after the value"),
                _("the value in quotes, or without this character"),
            )
    return value


def _split_key(line: str) -> tuple[str, str]:
    """Return the key of a line and the text behind "="."""
    head, separator, rest = line.partition("=")
    words = head.split()
    if words[:1] == ["export"]:
        words = words[1:]
    if not separator:
        raise _LineError(_('"=" is missing'), "KEY=VALUE")
    if len(words) != 1 or not _KEY.fullmatch(words[0]):
        raise _LineError(
            _('no valid key before "="'), _("letters, digits and '_', not beginning with a digit")
        )
    return words[0], rest.lstrip(" \t")


def file_warnings(env_file: Path) -> list[str]:
    """Return warnings about how `.env` is kept: readable by others, or tracked by git."""
    try:
        mode = stat.S_IMODE(env_file.stat().st_mode)
    except OSError:
        return []
    warnings = []
    if mode & 0o077:
        warnings.append(
            _(
                "{env_file} can be read by others (mode {mode:04o}); chmod 600 {env_file!q}",
                env_file=env_file,
                mode=mode,
            )
        )
    if _is_tracked(env_file):
        warnings.append(
            _(
                "{env_file} is tracked by git, so its values are in the history of every "
                "clone; git rm --cached {name!q}, and change the values",
                env_file=env_file,
                name=env_file.name,
            )
        )
    return warnings


def _is_tracked(env_file: Path) -> bool:
    """Return whether git tracks the file; False without git or a repository."""
    folder = str(env_file.absolute().parent)
    command = ["git", "-C", folder, "ls-files", "--error-unmatch", "--", env_file.name]
    try:
        return process.run(command, check=False, timeout=20).code == 0
    except ToolError:
        return False
