"""Prove that the pip of the lock installs the locked wheels, as the build at the site will do it.

uv resolves and pip installs, and they differ: uv accepts the requirement ``PyYAML (>=5.1.*)`` in a
wheel, pip 24.1 and newer refuse the wheel. The build runs the pip of the lock with the options of
``pip_install`` in components/common.sh; here the same wheel of pip gets the same options for the
target's Python and platform. As the target's Python may be missing on this machine, pip only goes
as far as before it writes files (``--dry-run``).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import Fault, ResolveError
from gapforge.base.i18n import _
from gapforge.base.write_files import write_text
from gapforge.model.lock import Entry
from gapforge.model.preset import Preset
from gapforge.sync.python_packages import requirements_text
from gapforge.sync.wheel_tags import GLIBC, tags

# The options of pip and pip_install in components/common.sh except the place; a test compares.
GENERAL = ("--isolated", "--no-input", "--no-cache-dir", "--disable-pip-version-check")
INSTALL = (
    *("--no-index", "--no-deps", "--no-compile", "--ignore-installed", "--no-warn-script-location"),
    "--root-user-action=ignore",
)
SECONDS = 1800  # hashing some GB of wheels from a slow disk
_LAST = 12  # lines of pip's output in a message


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The wheels of a lock in ``folder``, and the pip among them that installs ``wheels``.

    ``python`` is the full version of the target's Python.
    """

    preset: Preset
    folder: Path
    pip: Entry
    wheels: Sequence[Entry]
    python: str

    def check(self) -> None:
        """Raise ResolveError with every wheel that pip refuses, ToolError if pip does not run."""
        if not self.wheels or self._install(self.wheels, "all").code == 0:
            return
        process.run(self._pip("--version"), env=_ENVIRONMENT, timeout=60)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda wheel: self._install([wheel], wheel.name), self.wheels))
        refused = list(zip(self.wheels, results, strict=True))
        faults = [
            Fault(wheel.path, _reason(result)) for wheel, result in refused if result.code != 0
        ] or [Fault("pip", _reason(self._install(self.wheels, "all")))]
        raise ResolveError(
            _(
                "pip {version}, which installs the wheels at the site, refuses some of them",
                version=self.pip.version,
            ),
            faults=faults,
            hint=_(
                "require another version of the package in presets/{name}.json (python.packages), "
                "then: ./deps_sync.sh {name!q} --update",
                name=self.preset.name,
            ),
        )

    def _install(self, wheels: Sequence[Entry], name: str) -> process.Result:
        """Return what pip says of installing exactly ``wheels``."""
        requirements = self.folder / f"{name}.txt"
        pins = requirements_text((wheel.name, wheel.version, wheel.sha256) for wheel in wheels)
        write_text(requirements, pins)
        major, minor = self.python.split(".")[:2]
        known = tags(self.preset.python, GLIBC[self.preset.os_id, self.preset.os_version])
        platforms = dict.fromkeys(tag.split("-", 2)[2] for tag in known)
        target = [
            *("--dry-run", "--target", str(self.folder / "target"), "--only-binary", ":all:"),
            *("--implementation", "cp", "--python-version", self.python),
            *("--abi", f"cp{major}{minor}"),
            *(option for name in platforms if name != "any" for option in ("--platform", name)),
        ]
        command = self._pip("install", *INSTALL, "--quiet", "--require-hashes")
        command += ["--find-links", str(self.folder), *target, "-r", str(requirements)]
        return process.run(command, env=_ENVIRONMENT, timeout=SECONDS, check=False)

    def _pip(self, *arguments: str) -> list[str]:
        return [sys.executable, f"{self.folder / self.pip.file}/pip", *GENERAL, *arguments]


_ENVIRONMENT = {"PIP_CONFIG_FILE": "/dev/null", "PYTHONPATH": None, "PYTHONHOME": None}


def _reason(result: process.Result) -> str:
    """Return the end of what pip printed as one line."""
    lines = (result.errors.strip() or result.output.strip()).splitlines()[-_LAST:]
    return " ".join(re.sub(r"^(ERROR|WARNING): ", "", line.strip()) for line in lines)
