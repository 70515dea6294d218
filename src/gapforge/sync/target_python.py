"""Find the full version of the target's Python, which decides what packages fit.

``>=3.10.1`` and a dependency for Python before 3.10.4 need it; "3.10" alone would count as 3.10.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from gapforge.base.errors import Fault, ResolveError
from gapforge.base.i18n import N_, _
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


def found(
    preset: Preset,
    debs: Mapping[str, Mapping[str, str]],
    installed: Callable[[str], Mapping[str, str]],
) -> str:
    """Return the version that both images will have.

    ``debs`` has the packages that each role gets (name -> version), ``installed`` returns those of
    its base image. Raise ResolveError if a role has no such Python, or the roles have two: the
    build would end at once, or wheels would not fit the other image.
    """
    versions = {
        role: _version(preset, debs[role]) or _version(preset, installed(role)) for role in debs
    }
    missing = [role for role, version in versions.items() if not version]
    if missing:
        package = packages(preset)[1]
        problem = N_("is neither in the base image nor among the packages of apt.{role}")
        raise ResolveError(
            _("the images have no Python {python}", python=preset.python),
            faults=[Fault(package, _(problem, role=role)) for role in missing],
            hint=_(
                "use another python.version in presets/{name}.json, or add an archive that has "
                "python{python} to apt.sources",
                python=preset.python,
                name=preset.name,
            ),
        )
    if len(set(versions.values())) > 1:
        raise ResolveError(
            _("the images have different versions of Python {python}", python=preset.python),
            faults=[Fault(role, f"Python {version}") for role, version in versions.items()],
            hint=_(
                "use base images of one release in presets/{name}.json, or pin the package in "
                "apt.builder and apt.runtime (python{python}=VERSION)",
                python=preset.python,
                name=preset.name,
            ),
        )
    return next(iter(versions.values()))


def _version(preset: Preset, debs: Mapping[str, str]) -> str:
    """Return the version of the interpreter's package, as Python writes it; "" without one."""
    for package in packages(preset):
        if match := _RELEASE.match(debs.get(package, "")):
            return match[1] + (match[2] + match[3] if match[2] else "")
    return ""
