"""Check whether the versions in a preset are compatible.

A version that is not in the catalog is a warning, never an error: newer versions appear all the
time. Everything here is a pure function of a preset and the catalog.
"""

from __future__ import annotations

from gapforge.compat import (
    archive_matches_version,
    base_image,
    build_packages,
    driver,
    ffmpeg,
    host_compiler,
    opencv,
    replaced_modules,
    tensorrt,
    torch,
)
from gapforge.compat.findings import Finding
from gapforge.model.catalog import Catalog
from gapforge.model.preset import Preset

_PARTS = (
    base_image,
    torch,
    replaced_modules,
    tensorrt,
    archive_matches_version,
    ffmpeg,
    driver,
    opencv,
    host_compiler,
    build_packages,
)


def check_preset(preset: Preset, catalog: Catalog) -> list[Finding]:
    """Return every incompatibility in the preset, errors first, then by JSON path."""
    findings = dict.fromkeys(found for part in _PARTS for found in part.check(preset, catalog))
    return sorted(findings, key=lambda f: (f.severity != "error", f.path, f.rule))
