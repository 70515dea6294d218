"""Judge Python packages by the modules that the image builds itself, such as cv2.

pip installs a package with the same module over the files of the component and reports nothing: the
OpenCV that was built with CUDA is then replaced by the one of PyPI without CUDA. A module is not
built without the packages that it needs, such as NumPy.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence

from gapforge.base.errors import Fault
from gapforge.base.i18n import _
from gapforge.model.lock import Lock
from gapforge.model.names import normalized
from gapforge.model.preset import Preset


def reasons(
    preset: Preset, packages: Iterable[str], requirers: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return why the image must not get some of these packages, by package.

    ``requirers`` has the packages that require one, as far as they are known.
    """
    known = list(packages)
    found = {}
    for component in preset.described or ():
        module = component.installs_module(preset)
        if module is None:
            continue
        for package in known:
            name = normalized(package)
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in module.wheels):
                names = {"package": package, "module": module.name, "component": component.title}
                by = ", ".join(requirers.get(package, ()))
                found[package] = (
                    _(
                        "{package}, which {by} requires, would replace {module} of {component}",
                        by=by,
                        **names,
                    )
                    if by
                    else _("{package} would replace {module} of {component}", **names)
                )
    return found


def lacking(preset: Preset, packages: Iterable[str]) -> dict[str, str]:
    """Return why a build needs packages that are not among these, by package."""
    known = set(map(normalized, packages))
    found = {}
    for component in preset.described or ():
        if module := component.installs_module(preset):
            for package in sorted({*module.needs} - known):
                found[package] = _(
                    "{module} of {component} is built with {package}",
                    module=module.name,
                    component=component.title,
                    package=package,
                )
    return found


def suggestion(packages: Iterable[str], preset: Preset) -> str:
    """Return what to write in the preset, so that no dependency brings these packages."""
    names = sorted({*preset.without, *map(normalized, packages)})
    return _('add "without": {packages} to "python" in the preset', packages=json.dumps(names))


def faults_of_lock(preset: Preset, lock: Lock, shown: str) -> list[Fault]:
    """Return a fault for each wheel of a lock that would replace a module of the image."""
    wheels = {entry.name: entry.path for entry in lock.of("wheel")}
    return [
        Fault(f"{shown}: {wheels[package]}", reason, suggestion([package], preset))
        for package, reason in reasons(preset, wheels, {}).items()
    ]
