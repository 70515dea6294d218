"""Check FFmpeg against nv-codec-headers, nvcc and licence terms."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gapforge.base.i18n import _
from gapforge.compat.findings import (
    Finding,
    error,
    nearest_version,
    unknown,
    use,
    use_nearest,
    warning,
)
from gapforge.model.catalog import Catalog
from gapforge.model.preset import Options, Preset
from gapforge.model.preset_defaults import HEADERS_PACKAGE, NVENC
from gapforge.model.versions import key

_HEADERS = "$.sources.nv-codec-headers"


def check(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield every incompatibility of the preset's FFmpeg."""
    ffmpeg = preset.component("ffmpeg")
    if ffmpeg is None:
        return
    path = f"{ffmpeg.path}.configure"
    for option in nonfree_options(ffmpeg, catalog):
        reason = _(
            "{option} makes the FFmpeg binary nonfree, so the image must not be redistributed",
            option=option,
        )
        yield warning("nonfree", path, reason, _("nvenc, nvdec and cuvid work without it"))
    yield from _check_nvcc(preset, ffmpeg, catalog)
    yield from _check_headers(preset, ffmpeg, catalog)


def nonfree_options(ffmpeg: Options, catalog: Catalog) -> list[str]:
    """Return the options that make FFmpeg's binary nonfree, as the preset writes them."""
    nonfree = (*catalog.nonfree, "--enable-nonfree")
    return [o for o in ffmpeg.list("configure") if o.partition("=")[0] in nonfree]


def headers_version(preset: Preset) -> str:
    """Return the version of nv-codec-headers in the preset; "" if there are none."""
    source = preset.sources.get("nv-codec-headers")
    text = (source.version or source.file) if source else _headers_package(preset)
    match = re.search(r"[0-9]+(\.[0-9]+){2,3}", text)
    return match[0] if match else ""


def suggested_headers(ffmpeg: str, catalog: Catalog) -> str:
    """Return the name and version of the nv-codec-headers to use with an FFmpeg."""
    return f"nv-codec-headers {catalog.headers_choice(ffmpeg)}"


def _headers_package(preset: Preset) -> str:
    """Return the Ubuntu package of nv-codec-headers in apt.builder, "" if it is not there."""
    return next((p for p in preset.apt_builder if p.partition("=")[0] == HEADERS_PACKAGE), "")


def _check_nvcc(preset: Preset, ffmpeg: Options, catalog: Catalog) -> Iterator[Finding]:
    version, options = ffmpeg.text("version"), ffmpeg.list("configure")
    has_flags = any(option.startswith("--nvccflags") for option in options)
    if "--enable-cuda-nvcc" not in options or has_flags or not preset.cuda:
        return
    for default in catalog.nvcc_default:
        if default.contains(version) and key(preset.cuda) >= key(default.fails_from_cuda):
            reason = _(
                "FFmpeg {version} compiles for compute_{compute} by default, which CUDA {cuda} "
                "does not support",
                version=version,
                compute=default.compute.replace(".", ""),
                cuda=preset.cuda,
            )
            flags = "--nvccflags=-gencode arch=compute_75,code=sm_75 -O2"
            yield error(
                "ffmpeg-nvcc", f"{ffmpeg.path}.configure", reason, _("add {name}", name=flags)
            )


def _check_headers(preset: Preset, ffmpeg: Options, catalog: Catalog) -> Iterator[Finding]:
    version, headers = ffmpeg.text("version"), headers_version(preset)
    suggested = suggested_headers(version, catalog)
    named = "nv-codec-headers" in preset.sources or _headers_package(preset)
    if not named and any(option in NVENC for option in ffmpeg.list("configure")):
        reason = _("nvenc, nvdec and cuvid need the source nv-codec-headers")
        yield error("headers", "$.sources", reason, _("add {name}", name=suggested))
    if not headers:
        return
    accepted = catalog.headers_range(version)
    if accepted is None:
        near = nearest_version(version, (r.start for r in catalog.headers_for))
        yield unknown(_HEADERS, f"FFmpeg {version}", "nv-codec-headers", use_nearest(near))
    elif not accepted.accepts(headers):
        reason = _(
            "FFmpeg {version} does not build with nv-codec-headers {headers}",
            version=version,
            headers=headers,
        )
        yield error("headers", _HEADERS, reason, use(suggested))
