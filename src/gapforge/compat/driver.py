"""Tell which NVIDIA driver an image needs: the only rule for it.

- CUDA 11 and newer programs run with every driver of the same or a newer major version, from the
  one that the catalog's ``minor_compatibility`` names (450.80.02 for 11.x, 525.60.13 for 12.x):
  CUDA's minor version compatibility. Code that is compiled from PTX and new features of the driver
  need the driver that came with the toolkit. Before CUDA 11 everything needs that one.
- The headers that FFmpeg's NVENC and NVDEC are compiled with need a driver of their own.
- NVIDIA's images contain a forward compatibility package (``cuda-compat``). It works only on data
  center GPUs and only with some branches of the driver, so it lowers nothing here.

https://docs.nvidia.com/deploy/cuda-compatibility/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gapforge.base.i18n import _
from gapforge.compat import ffmpeg
from gapforge.compat.findings import Finding, error, warning
from gapforge.model.catalog import Catalog, Headers
from gapforge.model.preset import Preset
from gapforge.model.versions import key, major, minor

TOO_OLD, LIMITED, ENOUGH, UNKNOWN = "too old", "limited", "enough", "unknown"

_CUDA, _HEADERS = "$.cuda", "$.sources.nv-codec-headers"


@dataclass(frozen=True, kw_only=True)
class DriverNeed:
    """What an image needs of the Linux driver; "" for nothing or unknown.

    ``for_cuda`` is the oldest driver that runs programs of ``cuda``, ``full`` the oldest that runs
    all features of it, and ``for_headers`` the oldest for nv-codec-headers ``headers``.
    """

    cuda: str = ""
    for_cuda: str = ""
    full: str = ""
    headers: str = ""
    for_headers: str = ""

    @property
    def lowest(self) -> str:
        """Return the oldest driver that runs the whole image; "" without CUDA or if unknown."""
        return max(self.for_cuda, self.for_headers, key=key) if self.for_cuda else ""

    @property
    def reason(self) -> str:
        """Return which part of the image needs which driver; the same in both languages."""
        parts = [f"CUDA {self.cuda}: {self.for_cuda}"] if self.for_cuda else []
        if self.for_headers:
            parts.append(f"nv-codec-headers {self.headers}: {self.for_headers}")
        return ", ".join(parts)

    def verdict(self, driver: str) -> str:
        """Return whether a driver runs CUDA's programs: TOO_OLD, LIMITED, ENOUGH or UNKNOWN."""
        if not self.for_cuda:
            return UNKNOWN
        if key(driver) < key(self.for_cuda):
            return TOO_OLD
        return LIMITED if self.full and key(driver) < key(self.full) else ENOUGH

    def runs_encoders(self, driver: str) -> bool:
        """Return whether a driver is new enough for the headers of NVENC and NVDEC."""
        return key(driver) >= key(self.for_headers)


def driver_need(preset: Preset, catalog: Catalog) -> DriverNeed:
    """Return what the preset's image needs of the driver, as far as the catalog knows."""
    if not preset.cuda:
        return DriverNeed()
    image = catalog.image(preset.runtime.image) or catalog.image(preset.builder.image)
    headers = catalog.headers.get(ffmpeg.headers_version(preset))
    used = headers if preset.component("ffmpeg") else None
    return _need(
        preset.cuda, image.driver if image else _toolkit_driver(preset.cuda, catalog), used, catalog
    )


def usual_need(cuda: str, catalog: Catalog) -> DriverNeed:
    """Return what an image with this CUDA needs if FFmpeg's headers are the usual ones.

    Those are the headers from 11.1 on that need the oldest driver, as in the shipped presets.
    """
    headers = catalog.headers.get(catalog.headers_choice(""))
    return _need(cuda, _toolkit_driver(cuda, catalog), headers, catalog)


def check(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield a warning if the headers need a newer driver than the one that came with CUDA."""
    need = driver_need(preset, catalog)
    if need.full and need.for_headers and not need.runs_encoders(need.full):
        reason = _(
            "nv-codec-headers {headers} need driver {driver}, which is newer than "
            "{toolkit_driver}, the driver of CUDA {cuda}",
            headers=need.headers,
            driver=need.for_headers,
            toolkit_driver=need.full,
            cuda=need.cuda,
        )
        suggestion = _("{name} work with older drivers", name=_other_headers(preset, catalog))
        yield warning("headers-driver", _HEADERS, reason, suggestion)


def check_driver(preset: Preset, driver: str, catalog: Catalog) -> list[Finding]:
    """Return what a driver such as "470.82.01" cannot run of the preset; nothing without CUDA."""
    need = driver_need(preset, catalog)
    verdict = need.verdict(driver)
    if verdict == TOO_OLD:
        other = _newest_cuda(driver, catalog)
        return [_too_old(_CUDA, driver, need.for_cuda, f"CUDA {need.cuda}", other)]
    if not need.runs_encoders(driver):
        name = f"nv-codec-headers {need.headers}"
        other = _other_headers(preset, catalog)
        return [_too_old(_HEADERS, driver, need.for_headers, name, other)]
    if verdict == LIMITED:
        reason = _(
            "driver {driver} is older than {toolkit_driver}, the driver of CUDA {cuda}: code that "
            "is compiled from PTX and new features do not work",
            driver=driver,
            toolkit_driver=need.full,
            cuda=need.cuda,
        )
        suggestion = _("use driver {toolkit_driver} or newer", toolkit_driver=need.full)
        return [warning("driver", _CUDA, reason, suggestion)]
    return []


def _need(cuda: str, full: str, headers: Headers | None, catalog: Catalog) -> DriverNeed:
    known = headers if headers and headers.driver else None
    return DriverNeed(
        cuda=cuda,
        for_cuda=catalog.minor_drivers.get(major(cuda), "") or full,
        full=full,
        headers=known.version if known else "",
        for_headers=known.driver if known else "",
    )


def _toolkit_driver(cuda: str, catalog: Catalog) -> str:
    """Return the driver of the newest toolkit of this CUDA series (12.4.x); "" if unknown."""
    same = [c for c in catalog.drivers if cuda and minor(c) == minor(cuda)]
    return catalog.drivers[max(same, key=key)] if same else ""


def _other_headers(preset: Preset, catalog: Catalog) -> str:
    options = preset.component("ffmpeg")
    return ffmpeg.suggested_headers(options.text("version") if options else "", catalog)


def _newest_cuda(driver: str, catalog: Catalog) -> str:
    """Return the newest CUDA with a base image that a driver runs ("CUDA 11.8"); "" if none."""
    series = {minor(image.cuda) for image in catalog.images}
    fitting = [c for c in series if _need(c, "", None, catalog).verdict(driver) == ENOUGH]
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
