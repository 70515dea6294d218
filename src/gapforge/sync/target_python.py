"""Find the full version of the target's Python, which decides what packages fit.

``>=3.10.1`` and a dependency for Python before 3.10.4 need it; "3.10" alone would count as 3.10.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gapforge.base.errors import Fault, ResolveError
from gapforge.base.i18n import _
from gapforge.model.preset import Preset

# The Python of each OS, as its archive has it (packages.debian.org, packages.ubuntu.com). It is
# what is expected before the package lists are known; what they have is compared with it.
OS_PYTHON = {
    ("debian", "11"): "3.9.2",
    ("debian", "12"): "3.11.2",
    ("debian", "13"): "3.13.5",
    ("ubuntu", "20.04"): "3.8.10",
    ("ubuntu", "22.04"): "3.10.12",
    ("ubuntu", "24.04"): "3.12.3",
}
_RELEASE = re.compile(r"(?:\d+:)?(\d+\.\d+\.\d+)(?:~?(a|b|rc)(\d+))?")


def packages(preset: Preset) -> tuple[str, ...]:
    """Return the packages that have the interpreter; the first has its exact version."""
    return f"python{preset.python}-minimal", f"python{preset.python}"


def expected(preset: Preset, debs: Mapping[str, str] | None = None) -> str:
    """Return the version in the locked ``debs`` (name -> version), or that of the OS.

    "" if neither has it.
    """
    known = _version(preset, debs or {})
    own = OS_PYTHON.get((preset.os_id, preset.os_version), "")
    return known or (own if own.startswith(f"{preset.python}.") else "")


def found(preset: Preset, role: str, debs: Mapping[str, str]) -> str:
    """Return the version in ``debs``, the packages of the finished ``role``.

    Raise ResolveError if they have no such Python: the build would end in its first stage.
    """
    version = _version(preset, debs)
    if version:
        return version
    raise ResolveError(
        _("the {role} image has no Python {python}", role=role, python=preset.python),
        faults=[
            Fault(
                packages(preset)[1],
                _("is neither in the base image nor among the packages of apt.{role}", role=role),
            )
        ],
        hint=_(
            "add python{python} to apt.builder and apt.runtime in presets/{name}.json, with an APT "
            "source that has it",
            python=preset.python,
            name=preset.name,
        ),
    )


def _version(preset: Preset, debs: Mapping[str, str]) -> str:
    """Return the version of the interpreter's package, as Python writes it; "" without one."""
    for package in packages(preset):
        if match := _RELEASE.match(debs.get(package, "")):
            return match[1] + (match[2] + match[3] if match[2] else "")
    return ""
