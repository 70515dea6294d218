"""Names that several rooms compare: of presets, of Python packages, and of roles."""

from __future__ import annotations

import re

PRESET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
ROLES = ("builder", "runtime")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def normalized(package: str) -> str:
    """Return a Python package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def package_of(requirement: str) -> str:
    """Return the normalized name of the package in a requirement such as "Pillow[x]>=10"."""
    match = _PACKAGE.match(requirement)
    return normalized(match[0] if match else requirement)
