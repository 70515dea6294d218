"""Check whether the versions in a preset are compatible.

A version that is not in the catalog is a warning, never an error: newer versions appear all the
time. Everything here is a pure function of a preset and the catalog.
"""

from __future__ import annotations

from gapforge.compat import (
    base_image,
    doubled_modules,
    driver,
    ffmpeg,
    host_compiler,
    opencv,
    option_libraries,
    stated_archive_versions,
    tensorrt,
    torch,
)
from gapforge.compat.findings import Finding
from gapforge.model.catalog import Catalog
from gapforge.model.preset import Preset

_PARTS = (
    base_image,
    torch,
    doubled_modules,
    tensorrt,
    stated_archive_versions,
    ffmpeg,
    driver,
    opencv,
    host_compiler,
    option_libraries,
)


def check_preset(preset: Preset, catalog: Catalog) -> list[Finding]:
    """Return every incompatibility in the preset, errors first, then by JSON path."""
    findings = dict.fromkeys(found for part in _PARTS for found in part.check(preset, catalog))
    return sorted(findings, key=lambda f: (f.severity != "error", f.path, f.rule))
