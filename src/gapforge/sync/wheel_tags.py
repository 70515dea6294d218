"""Which wheels run on a target: platforms, wheel tags and their order."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gapforge.base.errors import ResolveError
from gapforge.base.i18n import _
from gapforge.model.preset import Preset

# The glibc version (2.N) of each base OS decides which manylinux wheels run there.
GLIBC = {
    ("debian", "11"): 31,
    ("debian", "12"): 36,
    ("debian", "13"): 40,  # 13 has 2.41; uv knows up to 2.40
    ("ubuntu", "20.04"): 31,
    ("ubuntu", "22.04"): 35,
    ("ubuntu", "24.04"): 39,
}
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def platform(preset: Preset) -> str:
    """Return uv's name for the target's platform.

    Raise ResolveError for an OS whose glibc is not known.
    """
    glibc = GLIBC.get((preset.os_id, preset.os_version))
    if glibc is None:
        known = ", ".join(f"{name} {version}" for name, version in sorted(GLIBC))
        raise ResolveError(
            _(
                "{os_id} {os_version} is not a known base OS for wheels; known are: {known}",
                os_id=preset.os_id,
                os_version=preset.os_version,
                known=known,
            )
        )
    return f"x86_64-manylinux_2_{glibc}"


def tags(python: str, glibc: int) -> list[str]:
    """Return the wheel tags of CPython ``python`` on x86-64 with glibc 2.``glibc``, best first."""
    minor = int(python.split(".")[1])
    platforms: list[str] = []
    for version in range(glibc, 4, -1):
        platforms.append(f"manylinux_2_{version}_x86_64")
        if version in LEGACY:
            platforms.append(f"{LEGACY[version]}_x86_64")
    platforms.append("linux_x86_64")
    result = [f"cp3{minor}-{abi}-{p}" for abi in (f"cp3{minor}", "abi3", "none") for p in platforms]
    result += [f"cp3{older}-abi3-{p}" for older in range(minor - 1, 1, -1) for p in platforms]
    generic = [f"py3{minor}", "py3", *(f"py3{older}" for older in range(minor - 1, -1, -1))]
    result += [f"{name}-none-{p}" for name in generic for p in platforms]
    return result + [f"cp3{minor}-none-any"] + [f"{name}-none-any" for name in generic]


def wheel_rank(file: str, order: Mapping[str, int]) -> tuple[int, int] | None:
    """Return the rank of a wheel, None if it does not run on the target.

    Lower is better, and a later build wins.
    """
    parts = file.removesuffix(".whl").split("-")
    if not file.endswith(".whl") or len(parts) not in (5, 6):
        return None
    build = re.match(r"[0-9]{1,18}", parts[2]) if len(parts) == 6 else None
    pythons, abis, platforms = (part.split(".") for part in parts[-3:])
    ranks = [
        order[tag]
        for p in pythons
        for a in abis
        for f in platforms
        if (tag := f"{p}-{a}-{f}") in order
    ]
    return (min(ranks), -int(build[0]) if build else 0) if ranks else None
