"""Check that no Python package replaces a module that the image builds, such as cv2."""

from __future__ import annotations

from collections.abc import Iterator

from gapforge.base.i18n import _
from gapforge.compat.findings import Finding, error, warning
from gapforge.model import doubled_modules
from gapforge.model.catalog import Catalog
from gapforge.model.names import package_of
from gapforge.model.preset import Preset

_PATH = "$.python.packages[{index}]"


def check(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield a finding for each package that replaces a module or requires one that does.

    Most of what packages require is known only when they are resolved; sync then checks it by the
    same rule.
    """
    for index, requirement in enumerate(preset.packages):
        path, package = _PATH.format(index=index), package_of(requirement)
        for reason in doubled_modules.reasons(preset, [package], {}).values():
            yield error("module", path, reason, _("remove {name}", name=package))
        if package in preset.without:
            reason = _('{package} is in "without", too', package=package)
            yield error("module", path, reason, _("name it in one of them"))
        brought = [p for p in catalog.requires.get(package, ()) if p not in preset.without]
        found = doubled_modules.reasons(preset, brought, {name: [package] for name in brought})
        for name, reason in found.items():
            yield warning("module", path, reason, doubled_modules.suggestion([name], preset))
