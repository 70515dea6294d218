"""Check a site's NVIDIA driver against what a preset needs."""

from __future__ import annotations

from gapforge.base.i18n import _
from gapforge.compat import ffmpeg
from gapforge.compat.catalog import Catalog
from gapforge.compat.findings import Finding, error, warning
from gapforge.compat.versions import key, major, minor
from gapforge.model.preset import Preset

_PATH = "$.cuda"


def required_driver(preset: Preset, catalog: Catalog) -> str:
    """Return the oldest Linux driver that runs the whole image; "" without CUDA or if unknown."""
    if not preset.cuda:
        return ""
    headers = catalog.headers.get(ffmpeg.headers_version(preset))
    needed = (catalog.lowest_driver(preset.cuda), headers.driver if headers else "")
    return max(needed, key=key)


def check_driver(preset: Preset, driver: str, catalog: Catalog) -> list[Finding]:
    """Return what a driver such as "470.82.01" cannot run of the preset; nothing without CUDA."""
    cuda = preset.cuda
    if not cuda:
        return []
    lowest = catalog.lowest_driver(cuda)
    if lowest and key(driver) < key(lowest):
        return [_too_old(_PATH, driver, lowest, f"CUDA {cuda}", _newest_cuda(driver, catalog))]
    headers = catalog.headers.get(ffmpeg.headers_version(preset))
    options = preset.component("ffmpeg")
    if headers and options and key(driver) < key(headers.driver):
        name = f"nv-codec-headers {headers.version}"
        other = ffmpeg.headers_for(options.text("version"), catalog)
        return [_too_old("$.sources.nv-codec-headers", driver, headers.driver, name, other)]
    toolkit_driver = catalog.toolkit_driver(cuda)
    if toolkit_driver and key(driver) < key(toolkit_driver):
        reason = _(
            "driver {driver} is older than {toolkit_driver}, the driver of CUDA {cuda}: code that "
            "is compiled from PTX and new features do not work",
            driver=driver,
            toolkit_driver=toolkit_driver,
            cuda=cuda,
        )
        suggestion = _("use driver {toolkit_driver} or newer", toolkit_driver=toolkit_driver)
        return [warning("driver", _PATH, reason, suggestion)]
    return []


def _newest_cuda(driver: str, catalog: Catalog) -> str:
    """Return the newest CUDA with a base image that a driver runs ("CUDA 11.8"); "" if none."""
    majors = {m for m, needed in catalog.minor_drivers.items() if key(driver) >= key(needed)}
    fitting = [minor(i.cuda) for i in catalog.images if major(i.cuda) in majors]
    return f"CUDA {max(fitting, key=key)}" if fitting else ""


def _too_old(path: str, driver: str, needed: str, product: str, other: str) -> Finding:
    reason = _(
        "driver {driver} is older than {needed}, which {product} needs",
        driver=driver,
        needed=needed,
        product=product,
    )
    suggestion = (
        _("update the driver, or use {name}", name=other) if other else _("update the driver")
    )
    return error("driver", path, reason, suggestion)
