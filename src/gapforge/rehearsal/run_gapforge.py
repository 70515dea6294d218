"""Run gapforge in the simulated site: plain Python, clean environment, no network."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapforge.base import process
from gapforge.base.errors import (
    ERROR_CLASSES,
    ERROR_FILE,
    Fault,
    GapforgeError,
    InternalError,
    ToolError,
)
from gapforge.base.i18n import _, language
from gapforge.base.path_checks import given_path
from gapforge.base.project import LEAST_PYTHON
from gapforge.base.strict_json import read_json
from gapforge.base.sudo_caller import Caller
from gapforge.model.preset import Preset

# The variables that a site has too. Others (proxies, mirrors, tokens) are removed.
# GAPFORGE_DOCKER only selects this machine's client of the engine.
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
_PRINT_VERSION = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
# PATH may lack these under sudo or a version manager.
_FOLDERS = (Path("/usr/bin"), Path("/usr/local/bin"))
_SHOWN = 12  # last lines of a program that ended without an error document


@dataclass(frozen=True)
class Python:
    """The interpreter that stands for the site's."""

    path: str
    version: str

    def to_json(self) -> dict[str, str]:
        """Return the interpreter and its flags."""
        return {"path": self.path, "version": self.version, "flags": "-I -S"}


def site_python(user: Caller | None = None) -> Python:
    """Return Python 3.10, the site's version, if ``user`` can run one, else the running Python.

    The running Python may be in root's home, where ``user`` cannot run it: then the system's.
    """
    for path in _candidates((user and user.home) or given_path("~")):
        version = _version_of(path, user)
        if version.startswith("{}.{}.".format(*LEAST_PYTHON)):
            return Python(path, version)
    if user is not None:
        for path in (sys.executable, *(str(folder / "python3") for folder in _FOLDERS)):
            if version := _version_of(path, user):
                return Python(path, version)
    return Python(sys.executable, ".".join(map(str, sys.version_info[:3])))


def _version_of(path: str, user: Caller | None) -> str:
    """Return the version of a Python, "" if it does not run: a version manager's may be missing."""
    argv = [*(user.prefix() if user else []), path, "-I", "-S", "-c", _PRINT_VERSION]
    try:
        done = process.run(argv, timeout=30, check=False)
    except (ToolError, OSError):
        return ""
    return done.output.strip() if done.code == 0 else ""


def _candidates(home: Path) -> Iterator[str]:
    release = "{}.{}".format(*LEAST_PYTHON)
    name = f"python{release}"
    if sys.version_info[:2] == LEAST_PYTHON:
        yield sys.executable
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    folders = [*(Path(folder) for folder in path if folder), *_FOLDERS]
    for pattern in (".pyenv/versions/{}.*/bin", ".local/share/uv/python/cpython-{}*/bin"):
        folders += sorted(home.glob(pattern.format(release)))
    yield from dict.fromkeys(str(folder / name) for folder in folders if (folder / name).exists())


def can_leave_network() -> bool:
    """Return whether a program can be started in a network namespace without interfaces."""
    try:
        return (
            os.geteuid() == 0
            and process.run(["unshare", "--net", "true"], timeout=30, check=False).code == 0
        )
    except ToolError:
        return False


@dataclass(kw_only=True)
class SiteRunner:
    """Runs gapforge's programs in the folder ``site``, a copy of the folder ``project``.

    They run as ``user``, who must own the site and the folder around it, or as root with None.
    Paths of the site in error messages are shown as paths of the project. ``show`` and ``log``
    receive every line of output. The programs hide secrets themselves.
    """

    project: Path
    site: Path
    python: Python
    preset: Preset
    offline: bool
    user: Caller | None = None
    show: Callable[[str], None]
    log: Callable[[str], None]
    extra: dict[str, str] = field(default_factory=dict)

    def run(self, program: Path, *words: str) -> None:
        """Run a program to its end. Raises the error that it failed with."""
        before = ["unshare", "--net"] if self.offline else []
        before += self.user.prefix() if self.user else []
        argv = [*before, self.python.path, "-I", "-S", "-u", str(program), *words]
        last: deque[str] = deque(maxlen=_SHOWN)

        def on_line(line: str) -> None:
            last.append(line)
            self.log(line)
            self.show(line)

        self.log(f"$ {process.quoted(argv)}")
        error_file = self.site.with_name(f"{self.site.name}.error.json")
        error_file.unlink(missing_ok=True)
        try:
            env = {**self.environment(), ERROR_FILE: str(error_file)}
            code = process.stream(argv, on_line, env=env, cwd=self.site)
            if code != 0:
                raise error_of(code, self._read_error(error_file), list(map(self._here, last)))
        finally:
            error_file.unlink(missing_ok=True)

    def environment(self) -> Mapping[str, str | None]:
        """Return this machine's variables that a site has too, and None for each other one.

        The secrets' keys stay: a CI job has its tokens in the environment, and so has a site.
        """
        kept = {*_KEPT, *(secret.key for secret in self.preset.secrets)}
        values = {key: value if key in kept else None for key, value in os.environ.items()}
        if self.user is not None:  # instead of root's
            values["HOME"] = str(self.user.home or self.site)
            values["XDG_RUNTIME_DIR"] = None
        return {**values, "GAPFORGE_LANG": language(), **self.extra}

    def _read_error(self, file: Path) -> Any:
        """Return the error document with the project's paths, None if the program wrote none."""
        try:
            return self._here_all(read_json(file))
        except (OSError, ValueError):
            return None

    def _here_all(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._here_all(member) for key, member in value.items()}
        if isinstance(value, list):
            return [self._here_all(member) for member in value]
        return self._here(value) if isinstance(value, str) else value

    def _here(self, text: str) -> str:
        return text.replace(str(self.site), str(self.project))


def error_of(code: int, document: Any, last_lines: Sequence[str] = ()) -> GapforgeError:
    """Return the error of a program that ended with ``code``, from its error document.

    An old or killed program wrote none: then its last lines of output are the message.
    """
    kind = {known.exit_code: known for known in ERROR_CLASSES}.get(code, InternalError)
    try:
        if document["exit_code"] == code:
            faults = [Fault(**fault) for fault in document["faults"]]
            return kind(document["message"], hint=document["next"], faults=faults)
    except (KeyError, TypeError):
        pass
    output = "\n".join(last_lines).rstrip()
    message = _("ended with exit code {code}, without an error message", code=code)
    return kind(f"{message}:\n{output}" if output else message)


def facts_of_report(
    report: Any, expected: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the record repeats of a build's report: (image, engine).

    Raises InternalError unless the report is of a success and has all values of ``expected``.
    """
    try:
        checks = report["checks"]
        passed = sum(check["ok"] is True for check in checks)
        succeeded = (
            report["passed"] is True
            and passed == len(checks) > 0
            and all(report[key] == value for key, value in expected.items())
        )
        image = {
            "type": report["type"],
            "image": report["image"],
            "image_ids": report["image_ids"],
            "size_bytes": report["size_bytes"],
            "checks": len(checks),
            "checks_passed": passed,
            "plan_sha256": report["plan_sha256"],
            "application": report["application"],
            "seconds": report["seconds"],
        }
        engine = {key: report["engine"][key] for key in ("name", "builder", "client_version")}
    except (KeyError, TypeError):
        succeeded, image, engine = False, {}, {}
    if not succeeded:
        raise InternalError(
            _(
                "the build of {type} exited with 0, but its report does not confirm success",
                type=expected["type"],
            )
        )
    return image, engine
