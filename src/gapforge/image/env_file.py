"""`.env`: parsed, never sourced, and only the keys that the preset's application names are kept.

A non-empty variable of the real environment beats the file, as a CI job sets it. Values appear in no message,
no repr and no file but those that `SecretSet.files` makes in memory-backed storage and removes.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import Fault, SecretError, ToolError
from gapforge.base.files import MARKER, mark_folder, remove_folder, storage_errors
from gapforge.base.i18n import _, ngettext
from gapforge.base.system_errors import os_says
from gapforge.model.preset import Secret

SETTING_SUFFIX = "_SOURCE"  # XAIVA_MEDIA_SOURCE and its like: settings of the project, no secrets
_FOLDER_PREFIX = "gapforge-secrets-"
_NEW_PREFIX = ".gapforge-new-"
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


@dataclass(frozen=True)
class SecretSet:
    """The values of the keys that the preset names, and the settings that `.env` may hold beside them.

    ``values`` has only keys that have a value. ``settings`` are the ``…_SOURCE`` keys. ``warnings`` say
    what is careless about the file. ``origin`` tells where each value came from.
    """

    secrets: tuple[Secret, ...]
    values: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def redactions(self) -> tuple[str, ...]:
        """Every string that no output may show: the values, and the lines of those that have several."""
        found = set(self.values.values())
        for value in self.values.values():
            found.update(line.strip() for line in value.splitlines())
        return tuple(sorted((text for text in found if text), key=lambda text: (-len(text), text)))

    @contextmanager
    def files(self, dry: bool = False) -> Iterator[Mapping[str, Path]]:
        """Key -> file with its value, for `--secret id=KEY,src=FILE`; gone when the block ends, however it ends.

        Only keys with ``"pass": "secret"`` that have a value are there. The folder is mode 0700 in
        memory-backed storage where there is any. ``dry`` makes nothing and gives the names that a build's
        command would show. Folders that a killed build left behind are removed first.
        """
        wanted = {
            s.key: self.values[s.key]
            for s in self.secrets
            if s.passed == "secret" and s.key in self.values
        }
        place = secret_storage()
        if dry or not wanted:
            yield {key: place / f"{_FOLDER_PREFIX}XXXXXXXX" / key for key in sorted(wanted)}
            return
        remove_stale(place)
        folder, handle = _locked_folder(place)
        try:
            with storage_errors(folder):
                paths = {
                    key: _write_private(folder / key, value)
                    for key, value in sorted(wanted.items())
                }
            yield paths
        finally:
            remove_folder(folder)
            os.close(handle)


def load(
    env_file: Path, secrets: Sequence[Secret], *, environ: Mapping[str, str] | None = None
) -> SecretSet:
    """Read `.env` (which need not exist) and the environment. Raises SecretError with every fault.

    A key that is set but empty counts as absent. A required key that has no value is a fault that names it.
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
            faults.append(Fault(secret.key, _("holds a NUL byte"), _("text")))
        elif value:
            values[secret.key], origin[secret.key] = value, source
        elif secret.required:
            faults.append(
                Fault(
                    secret.key,
                    _(
                        "is required by the preset and has no value in {env_file} or the "
                        "environment",
                        env_file=env_file,
                    ),
                    _("a line {key}=VALUE", key=secret.key),
                )
            )
    if faults:
        raise SecretError(
            _("required keys are missing"),
            faults=faults,
            hint=_(
                "cp .env.template {env_file} (unless it exists); chmod 600 {env_file}; "
                "fill in the keys",
                env_file=env_file,
            ),
        )
    named = {secret.key for secret in secrets}
    keys = {key for key in [*parsed, *environ] if key.endswith(SETTING_SUFFIX) and key not in named}
    settings = {key: environ.get(key) or parsed.get(key, "") for key in sorted(keys)}
    return SecretSet(
        tuple(secrets),
        values,
        {key: value for key, value in settings.items() if value},
        tuple(file_warnings(env_file)),
        origin,
    )


def _read(env_file: Path) -> dict[str, str]:
    try:
        data = env_file.read_bytes()
    except FileNotFoundError:
        return {}
    except IsADirectoryError:
        raise SecretError(
            _("{env_file} is a folder", env_file=env_file),
            hint=_("make it a file: see .env.template"),
        ) from None
    except OSError as error:
        raise SecretError(
            _("{env_file} cannot be read: {why}", env_file=env_file, why=os_says(error)),
            hint=f"ls -l {env_file}",
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
            hint=_("see .env.template for the form"),
        )
    return values


def parse(data: bytes, shown: str = ".env") -> tuple[dict[str, str], list[Fault]]:
    """The keys and values of a `.env` file, and all faults with their line numbers; never raises.

    ``KEY=VALUE``, optionally after ``export``. Unquoted: as it stands up to white space and ``#``. In single
    quotes: as it stands, over several lines if need be. In double quotes: the same with \\n \\r \\t \\\\ \\" \\$.
    Nothing is expanded or run. No fault shows any of the file's text but a key that is repeated.
    """
    faults: list[Fault] = []
    values: dict[str, str] = {}
    first_line: dict[str, int] = {}
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad = data[: error.start].count(b"\n") + 1
        return {}, [
            Fault(_("{shown}: line {bad}", shown=shown, bad=bad), _("is not UTF-8 text"), "UTF-8")
        ]
    lines = text.replace("\r\n", "\n").split("\n")
    number = 0
    while number < len(lines):
        start = number + 1
        line = lines[number]
        number += 1

        def fault(problem: str, expected: str = "", at: int = start) -> None:
            faults.append(Fault(_("{shown}: line {at}", shown=shown, at=at), problem, expected))

        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if any(ord(char) < 32 and char != "\t" for char in line):
            fault(_("holds a control character"), _("text"))
            continue
        head, separator, rest = line.partition("=")
        words = head.split()
        if words[:1] == ["export"]:
            words = words[1:]
        if not separator:
            fault(_('has no "="'), "KEY=VALUE")
            continue
        if len(words) != 1 or not _KEY.fullmatch(words[0]):
            fault(
                _('has no usable key before "="'),
                _("letters, digits and '_', not beginning with a digit"),
            )
            continue
        key = words[0]
        rest = rest.lstrip(" \t")
        if rest[:1] in ("'", '"'):
            value, tail, number, wrong = _quoted(rest, lines, number)
            if wrong[0]:
                fault(*wrong)
                continue
            if tail.strip() and not re.match(r"\s+#", tail):
                fault(
                    _("has text after the closing quote"),
                    _("nothing, or a comment that begins with ' #'"),
                    number,
                )
                continue
        else:
            value = "" if rest.startswith("#") else re.split(r"\s#", rest, maxsplit=1)[0].strip()
        if key in first_line:
            fault(
                _("sets {key} again", key=key),
                _("each key once (it is set in line {first_line})", first_line=first_line[key]),
            )
            continue
        first_line[key] = start
        values[key] = value
    return values, faults


def _quoted(rest: str, lines: Sequence[str], number: int) -> tuple[str, str, int, tuple[str, str]]:
    """(value, what follows the closing quote, next line's index, what is wrong and what would be right). May run over
    several lines."""
    quote, text = rest[0], rest[1:]
    following = number
    value: list[str] = []
    position = 0
    while True:
        if position >= len(text):
            if following >= len(lines):
                # Go on with the line after the opening one, so that later faults are found too.
                return (
                    "",
                    "",
                    number,
                    (_("opens a {quote} that is never closed", quote=quote), _("a closing quote")),
                )
            value.append("\n")
            text, position = lines[following], 0
            following += 1
            continue
        char = text[position]
        position += 1
        if char == quote:
            return "".join(value), text[position:], following, ("", "")
        if quote == '"' and char == "\\":
            escaped = text[position : position + 1]
            if escaped not in _ESCAPES:
                return (
                    "",
                    "",
                    number,
                    (_("has an unknown escape in double quotes"), _('\\n \\r \\t \\\\ \\" or \\$')),
                )
            value.append(_ESCAPES[escaped])
            position += 1
        else:
            value.append(char)


def file_warnings(env_file: Path) -> list[str]:
    """What is careless about how `.env` is kept: readable by others, or known to git."""
    try:
        mode = env_file.stat().st_mode
    except OSError:
        return []
    warnings = []
    if stat.S_IMODE(mode) & 0o077:
        warnings.append(
            _(
                "{env_file} can be read by others (mode {s_imode:04o}); chmod 600 {env_file}",
                env_file=env_file,
                s_imode=stat.S_IMODE(mode),
            )
        )
    if _tracked(env_file):
        warnings.append(
            _(
                "{env_file} is tracked by git, so its values are in the history of every "
                "clone; git rm --cached {name}, and change the values",
                env_file=env_file,
                name=env_file.name,
            )
        )
    return warnings


def _tracked(env_file: Path) -> bool:
    """Whether git knows the file; False where there is no git or no repository."""
    command = [
        "git",
        "-C",
        str(env_file.absolute().parent),
        "ls-files",
        "--error-unmatch",
        "--",
        env_file.name,
    ]
    try:
        return process.run(command, check=False, timeout=20).code == 0
    except ToolError:
        return False


def secret_storage() -> Path:
    """The best folder for short-lived secrets: memory-backed where there is one, else the temporary folder."""
    for place in (os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"):
        if place and Path(place).is_dir() and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    return Path(tempfile.gettempdir())


def remove_stale(place: Path) -> None:
    """Delete secret folders of ours whose process is gone (`kill -9` skips every clean-up)."""
    for folder in sorted(place.glob(f"{_FOLDER_PREFIX}*")):
        try:
            if folder.lstat().st_uid != os.geteuid():
                continue
            handle = os.open(folder / MARKER, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_folder(folder)
        except BlockingIOError:
            continue  # its build still runs
        finally:
            os.close(handle)


def _locked_folder(place: Path) -> tuple[Path, int]:
    """A new private folder and a handle that locks its marker for as long as this process lives."""
    with storage_errors(place):
        new = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX, dir=place))  # mode 0700
        try:
            mark_folder(new, "secrets of a running build")
            handle = os.open(new / MARKER, os.O_RDWR)
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Only now does it get the name that remove_stale looks for: it never sees an unlocked one of ours.
            folder = place / new.name.replace(_NEW_PREFIX, _FOLDER_PREFIX, 1)
            new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return folder, handle


def _write_private(path: Path, value: str) -> Path:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(value.encode("utf-8", "surrogateescape"))
    return path
