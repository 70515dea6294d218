"""Running gapforge in the place, as the site's people do: a plain Python, their environment, no network."""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapforge.base import process
from gapforge.base.errors import (
    ERROR,
    ERROR_CLASSES,
    EXPECTED,
    NEXT,
    Fault,
    GapforgeError,
    InternalError,
    ToolError,
)
from gapforge.base.i18n import _, language, spellings
from gapforge.model.preset import Preset

# What a child keeps of this machine's environment: all else (proxies, mirrors, folders, tokens of other programs) is
# nothing that a site has. GAPFORGE_DOCKER only says which client of this machine talks to the engine.
_KEPT = (
    "PATH",
    "HOME",
    "TERM",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "GAPFORGE_DOCKER",
)
_SITE_PYTHON = (3, 10)
_ASK = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
_FOLDERS = (
    Path("/usr/bin"),
    Path("/usr/local/bin"),
)  # under sudo or a version manager PATH may lack them
_REMEMBERED = 5000  # lines of a child's output in which its error is looked for


@dataclass(frozen=True)
class Python:
    """The interpreter that stands for the site's."""

    path: str
    version: str

    def to_json(self) -> dict[str, str]:
        return {"path": self.path, "version": self.version, "flags": "-I -S"}


def site_python() -> Python:
    """Python 3.10, the site's, where this machine has one; else the Python that runs us."""
    for path in _candidates():
        try:  # a version manager's stand-in exists without the Python behind it
            asked = process.run([path, "-I", "-S", "-c", _ASK], timeout=30, check=False)
        except (ToolError, OSError):
            continue
        version = asked.output.strip()
        if asked.code == 0 and version.startswith("{}.{}.".format(*_SITE_PYTHON)):
            return Python(path, version)
    return Python(sys.executable, ".".join(map(str, sys.version_info[:3])))


def _candidates() -> Iterator[str]:
    name = "python{}.{}".format(*_SITE_PYTHON)
    if sys.version_info[:2] == _SITE_PYTHON:
        yield sys.executable
    folders = [
        Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder
    ]
    folders += _FOLDERS
    home = Path.home()
    folders += sorted(home.glob(".pyenv/versions/3.10.*/bin")) + sorted(
        home.glob(".local/share/uv/python/cpython-3.10*/bin")
    )
    yield from dict.fromkeys(str(folder / name) for folder in folders if (folder / name).exists())


def can_leave_network() -> bool:
    """Whether a child can be given a network namespace of its own, with nothing in it."""
    try:
        return (
            os.geteuid() == 0
            and process.run(["unshare", "--net", "true"], timeout=30, check=False).code == 0
        )
    except ToolError:
        return False


@dataclass
class Children:
    """Runs children in ``place``. ``project`` is what the place is a copy of: messages about the one speak of the other.

    ``show`` gets every line of their output, which ``log`` keeps too. Children hide secrets themselves.
    """

    project: Path
    place: Path
    python: Python
    preset: Preset
    offline: bool
    show: Callable[[str], None]
    log: Callable[[str], None]
    extra: dict[str, str] = field(default_factory=dict)

    def run(self, program: Path, *words: str) -> None:
        """Run one of our programs to its end. What it fails with is raised here: same class, message, faults, hint."""
        apart = ["unshare", "--net"] if self.offline else []
        argv = [*apart, self.python.path, "-I", "-S", "-u", str(program), *words]
        lines: deque[str] = deque(maxlen=_REMEMBERED)

        def take(line: str) -> None:
            lines.append(line)
            self.log(line)
            self.show(line)

        self.log(f"$ {process.quoted(argv)}")
        code = process.stream(argv, take, env=self.environment(), cwd=self.place)
        if code != 0:
            raise error_of(code, [self._here(line) for line in lines])

    def environment(self) -> Mapping[str, str | None]:
        """This machine's variables that a site has as well, over those that it has not. The keys that the preset's
        application names stay: a CI job has its tokens there, and a site will have its own."""
        kept = {*_KEPT, *(secret.key for secret in self.preset.application.secrets)}
        cleaned: dict[str, str | None] = {key: None for key in os.environ if key not in kept}
        return {**cleaned, "GAPFORGE_LANG": language(), **self.extra}

    def _here(self, line: str) -> str:
        return line.replace(str(self.place), str(self.project))


def error_of(code: int, lines: Sequence[str]) -> GapforgeError:
    """The error that a child of ours printed last (see GapforgeError.render) and ended with, as an error again.

    In whichever language it speaks.
    """
    kinds = {kind.exit_code: kind for kind in ERROR_CLASSES}
    kind = kinds.get(code, InternalError)
    errors, nexts, expecteds = spellings(ERROR), spellings(NEXT), spellings(EXPECTED)
    start = max(
        (number for number, line in enumerate(lines) if line.startswith(errors)), default=-1
    )
    if start < 0:
        last = "\n".join(lines[-12:]).rstrip()
        last = f":\n{last}" if last else ""
        return kind(
            _("ended with exit code {code} and no message of its own{last}", code=code, last=last)
        )
    message, faults, hint = [_without(errors, lines[start])], [], ""
    rest = deque(lines[start + 1 :])
    while rest:
        line = rest.popleft()
        if line.startswith(nexts):
            hint = _without(nexts, line)
            break
        if re.match(r" {2}\S", line) and rest and re.match(r" {6}\S", rest[0]):
            problem, *expected = re.split("|".join(expecteds), rest.popleft().strip(), maxsplit=1)
            faults.append(Fault(line.strip(), problem, *expected))
        else:
            message.append(line)
    return kind("\n".join(message), hint=hint, faults=faults)


def _without(words: tuple[str, ...], line: str) -> str:
    """What comes after the one of these words that begins the line."""
    return next(line.removeprefix(word) for word in words if line.startswith(word))


def report_of(raw: Any, of: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the record repeats of a build's report: (the image, the engine).

    ``of`` is what it must be a report of. Raises InternalError for another, and for one that says no success.
    """
    try:
        checks = raw["checks"]
        passed = sum(check["ok"] is True for check in checks)
        good = (
            raw["passed"] is True
            and passed == len(checks) > 0
            and all(raw[key] == of[key] for key in of)
        )
        image = {
            "type": raw["type"],
            "image": raw["image"],
            "image_ids": raw["image_ids"],
            "size_bytes": raw["size_bytes"],
            "checks": len(checks),
            "checks_passed": passed,
            "plan_sha256": raw["plan_sha256"],
            "application": raw["application"],
            "seconds": raw["seconds"],
        }
        engine = {key: raw["engine"][key] for key in ("name", "builder", "client_version")}
    except (KeyError, TypeError):
        good, image, engine = False, {}, {}
    if not good:
        raise InternalError(
            _("the build of {type} ended well, but its report does not say so", type=of["type"])
        )
    return image, engine
