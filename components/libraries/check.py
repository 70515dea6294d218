"""Check that the image has each package that owns a library which its files need."""

from __future__ import annotations

import re

from checklib import RUNTIME, guarded, installed_packages, needed_libraries, run, tail


def owners() -> tuple[object, ...]:
    """Look for each package of the list, or for the library if the base image has it otherwise.

    The details are the files, by package and library. The component apt checks which files of
    Python packages can do without a library.
    """
    code, output = run("/sbin/ldconfig", "-p")
    if code != 0:
        return False, tail(output)
    present = set(re.findall(r"(?m)^\t(\S+) \(", output))
    installed = {package for (package,) in installed_packages("Package")}
    users: dict[str, dict[str, list[str]]] = {}
    missing = []
    for package, _version, library, file in needed_libraries():
        users.setdefault(package, {}).setdefault(library, []).append(file)
        lacking = package not in installed and library not in present
        if lacking and package != "-" and "-packages/" not in file:
            missing.append(f"{file} needs {library} of {package}")
    found = "; ".join(missing[:5]) or ", ".join(sorted(users)) or "none"
    return not missing, found, users


if RUNTIME:
    guarded("packages of libraries", "every one is installed", owners)
else:
    guarded("packages of libraries", "only of a runtime image", lambda: (True, "no runtime image"))
