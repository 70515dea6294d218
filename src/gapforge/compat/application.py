"""Check whether the builder image has the build system of the application."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gapforge.base.i18n import _
from gapforge.compat.findings import Finding, warning
from gapforge.model.catalog import Catalog
from gapforge.model.names import normalized
from gapforge.model.preset import Preset

# APT packages that contain the program. Python packages have its own name.
_PACKAGES = {"cmake": ("cmake",), "meson": ("meson",), "make": ("make", "build-essential")}


def check(preset: Preset, _catalog: Catalog) -> Iterator[Finding]:
    """Yield a warning if nothing installs the build system: only the base image could have it."""
    build = preset.application.build
    wanted = _PACKAGES.get(build, ())
    debs = {re.split("[:=]", package)[0] for package in preset.apt_builder}
    wheels = {normalized(re.split(r"[^\w.-]", text)[0]) for text in preset.packages}
    if wanted and not debs & set(wanted) and build not in wheels:
        yield warning(
            "application-build-system",
            "$.application.build",
            _("apt.builder does not list {build}, which builds the application", build=build),
            _('add "{package}" to apt.builder, unless the base image has it', package=wanted[0]),
        )
