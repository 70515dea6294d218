"""What works together, and why not: each rule says its reason and the nearest combination that does.

A version that the catalog does not know is a warning, never a refusal: the catalog is older than the world.
Pure functions of a preset and the catalog; no network, no clock.
"""

from __future__ import annotations

import re

from gapforge.base.i18n import _, template
from gapforge.compat import opencv, tensorrt
from gapforge.compat.catalog import Catalog
from gapforge.compat.findings import Problem, error, nearest_version, unknown, warning
from gapforge.compat.torch import (
    TorchBuild,
    build_cuda,
    numpy_problems,
    python_problems,
    torch_build,
    torch_builds_for,
    torch_problems,
    undeclared_problems,
)
from gapforge.compat.versions import key, major, minor
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset

__all__ = [
    "Problem",
    "TorchBuild",
    "build_cuda",
    "check_preset",
    "driver_problems",
    "python_problems",
    "required_driver",
    "torch_build",
    "torch_builds_for",
    "torch_problems",
]

_NVENC = ("--enable-nvenc", "--enable-nvdec", "--enable-cuvid", "--enable-ffnvcodec")


def check_preset(preset: Preset, catalog: Catalog) -> list[Problem]:
    """Every incompatibility in the preset, errors first, then by JSON path."""
    problems = [
        *_base_images(preset, catalog),
        *python_problems(
            preset.python, (preset.os_id, preset.os_version), bool(preset.apt_sources), catalog
        ),
        *(
            torch_problems(preset.pytorch, preset.cuda, preset.python, catalog)
            if preset.pytorch
            else ()
        ),
        *numpy_problems(preset, catalog),
        *undeclared_problems(preset),
        *tensorrt.check(preset, catalog),
        *_ffmpeg(preset, catalog),
        *opencv.check(preset, catalog),
    ]
    return sorted(
        dict.fromkeys(problems), key=lambda p: (p.severity != "error", p.path, template(p.text))
    )


def required_driver(preset: Preset, catalog: Catalog) -> str:
    """The least NVIDIA driver for Linux that runs everything in the image; "" without CUDA or when unknown."""
    if not preset.cuda:
        return ""
    found = [catalog.minor_drivers.get(major(preset.cuda), "")]
    headers = catalog.headers.get(_headers_version(preset))
    if headers:
        found.append(headers.driver)
    return max((driver for driver in found if driver), key=key, default="")


def driver_problems(preset: Preset, driver: str, catalog: Catalog) -> list[Problem]:
    """What a site's NVIDIA driver (such as "470.82.01") cannot run of the preset; nothing without CUDA."""
    path, cuda = "$.cuda", preset.cuda
    if not cuda:
        return []
    if not key(driver):
        return [
            error(
                "driver",
                path,
                _(
                    '"{driver}" is no driver version; write what nvidia-smi shows, such '
                    "as 470.82.01",
                    driver=driver,
                ),
            )
        ]
    least = catalog.minor_drivers.get(major(cuda), "")
    if least and key(driver) < key(least):
        runs = {m for m, needed in catalog.minor_drivers.items() if key(driver) >= key(needed)}
        fits = max(
            (minor(i.cuda) for i in catalog.images if major(i.cuda) in runs), key=key, default=""
        )
        return [
            error(
                "driver",
                path,
                (
                    _(
                        "driver {driver} is older than {least}, which CUDA {cuda} needs; "
                        "update it, or take CUDA {fits}",
                        driver=driver,
                        least=least,
                        cuda=cuda,
                        fits=fits,
                    )
                    if fits
                    else _(
                        "driver {driver} is older than {least}, which CUDA {cuda} needs; update it",
                        driver=driver,
                        least=least,
                        cuda=cuda,
                    )
                ),
            )
        ]
    version = _headers_version(preset)
    headers = catalog.headers.get(version)
    ffmpeg = preset.component("ffmpeg")
    if headers and headers.driver and ffmpeg and key(driver) < key(headers.driver):
        take = _headers_for(ffmpeg.text("version"), catalog)
        return [
            error(
                "driver",
                "$.sources.nv-codec-headers",
                _(
                    "driver {driver} is older than {headers_driver}, which "
                    "nv-codec-headers {version} need; update it, or take {take}",
                    driver=driver,
                    headers_driver=headers.driver,
                    version=version,
                    take=take,
                ),
            )
        ]
    own = _toolkit_driver(cuda, catalog)
    if own and key(driver) < key(own):
        return [
            warning(
                "driver",
                path,
                _(
                    "driver {driver} is older than CUDA {cuda}'s own {own}: code that is "
                    "compiled from PTX, and new features, do not run; {own} or newer is safe",
                    driver=driver,
                    cuda=cuda,
                    own=own,
                ),
            )
        ]
    return []


def _toolkit_driver(cuda: str, catalog: Catalog) -> str:
    """The driver that comes with the newest toolkit of a CUDA series; "" when it is not known or there is no CUDA."""
    newest = sorted(catalog.drivers, key=key, reverse=True)
    return next((catalog.drivers[c] for c in newest if cuda and minor(c) == minor(cuda)), "")


# --- base image -------------------------------------------------------------------------------------------


def _base_images(preset: Preset, catalog: Catalog) -> list[Problem]:
    problems: list[Problem] = []
    opencv = preset.component("opencv")
    for role in ROLES:
        reference = preset.base(role).image
        match = re.search(r"(?:^|/)nvidia/cuda:([0-9]+\.[0-9]+)(?:\.[0-9]+)?-(.*)$", reference)
        path = f"$.base.{role}.image"
        if not match:
            continue
        tag_cuda, rest = match.groups()
        if not preset.cuda:
            right = f'"cuda": "{tag_cuda}"'
            problems.append(
                error(
                    "base-cuda",
                    path,
                    _(
                        "the base image has CUDA {tag_cuda} but the preset's cuda is "
                        "null; write {right}, or take ubuntu:22.04",
                        tag_cuda=tag_cuda,
                        right=right,
                    ),
                )
            )
        elif minor(preset.cuda) != tag_cuda:
            fit = next(
                (i for i in reversed(catalog.images) if minor(i.cuda) == minor(preset.cuda)), None
            )
            other = getattr(fit, role) if fit else f'"cuda": "{tag_cuda}"'
            problems.append(
                error(
                    "base-cuda",
                    path,
                    _(
                        "the base image has CUDA {tag_cuda}, not the preset's CUDA "
                        "{cuda}; take {other}",
                        tag_cuda=tag_cuda,
                        cuda=preset.cuda,
                        other=other,
                    ),
                )
            )
        problems += _base_cudnn(preset, catalog, role, rest)
        if role == "builder" and "devel" not in rest and opencv and opencv.flag("cuda"):
            problems.append(
                error(
                    "base-devel",
                    path,
                    _(
                        "{reference} has no nvcc, which OpenCV with CUDA needs; take the "
                        "-devel- tag",
                        reference=reference,
                    ),
                )
            )
        if catalog.image(reference) is None and "cudnn" in rest:
            near = nearest_version(preset.cuda, (i.cuda for i in catalog.images))
            known = next((getattr(i, role) for i in catalog.images if i.cuda == near), "")
            problems.append(unknown(path, reference, known, _("what is in it")))
    return problems


def _base_cudnn(preset: Preset, catalog: Catalog, role: str, rest: str) -> list[Problem]:
    reference = preset.base(role).image
    image = catalog.image(reference)
    spelled = re.search(r"cudnn([0-9]*)", rest)
    path = f"$.base.{role}.image"
    if (
        preset.cudnn
        and not spelled
        and not any(p.startswith("libcudnn") for p in _apt(preset, role))
    ):
        return [
            error(
                "base-cudnn",
                path,
                _(
                    "the preset uses cuDNN {cudnn} but {reference} has none; take a tag "
                    "with cudnn, or add a libcudnn package",
                    cudnn=preset.cudnn,
                    reference=reference,
                ),
            )
        ]
    if not spelled:
        return []
    found = (
        image.cudnn_major
        if image
        else spelled.group(1) or ("9" if key(preset.cuda) >= (12, 4) else "")
    )
    if found and preset.cudnn and found != major(preset.cudnn):
        right = f'"cudnn": "{found}"'
        return [
            error(
                "base-cudnn",
                path,
                _(
                    "{reference} has cuDNN {found}, not {cudnn}; write {right}, or take "
                    "another tag",
                    reference=reference,
                    found=found,
                    cudnn=preset.cudnn,
                    right=right,
                ),
            )
        ]
    return []


def _apt(preset: Preset, role: str) -> tuple[str, ...]:
    return preset.apt_builder if role == "builder" else preset.apt_runtime


# --- FFmpeg -----------------------------------------------------------------------------------------------


def _headers_package(preset: Preset) -> str:
    """The distribution's package of nv-codec-headers, as apt.builder names it (perhaps with a version); or ""."""
    return next((p for p in preset.apt_builder if p.partition("=")[0] == "libffmpeg-nvenc-dev"), "")


def _headers_version(preset: Preset) -> str:
    source = preset.sources.get("nv-codec-headers")
    text = (source.version or source.file) if source else _headers_package(preset)
    match = re.search(r"([0-9]+(?:\.[0-9]+){2,3})", text)
    return match.group(1) if match else ""


def _ffmpeg(preset: Preset, catalog: Catalog) -> list[Problem]:
    ffmpeg = preset.component("ffmpeg")
    if ffmpeg is None:
        return []
    version, options = ffmpeg.text("version"), ffmpeg.list("configure")
    problems: list[Problem] = []
    for option in options:
        name = option.split("=")[0]
        if name in catalog.nonfree or name == "--enable-nonfree":
            problems.append(
                warning(
                    "nonfree",
                    f"{ffmpeg.path}.configure",
                    _(
                        "{option} makes the FFmpeg binary nonfree, so the image may not "
                        "be redistributed; nvenc, nvdec and cuvid work without it",
                        option=option,
                    ),
                )
            )
    if "--enable-cuda-nvcc" in options and preset.cuda:
        for start, below, compute, fails in catalog.nvcc_default:
            own_flags = any(o.startswith("--nvccflags") for o in options)
            if (
                key(start) <= key(version) < key(below)
                and key(preset.cuda) >= key(fails)
                and not own_flags
            ):
                problems.append(
                    error(
                        "ffmpeg-nvcc",
                        f"{ffmpeg.path}.configure",
                        _(
                            "FFmpeg {version} asks nvcc for compute_{replace}, which "
                            "CUDA {cuda} has not; add --nvccflags=-gencode "
                            "arch=compute_75,code=sm_75 -O2",
                            version=version,
                            replace=compute.replace(".", ""),
                            cuda=preset.cuda,
                        ),
                    )
                )
    headers = _headers_version(preset)
    wants = any(o in _NVENC for o in options)
    if wants and "nv-codec-headers" not in preset.sources and not _headers_package(preset):
        take = _headers_for(version, catalog)
        problems.append(
            error(
                "headers",
                "$.sources",
                _("nvenc, nvdec and cuvid need the source nv-codec-headers; add {take}", take=take),
            )
        )
    elif headers:
        problems += _headers(preset, version, headers, catalog)
    return problems


def _headers(preset: Preset, version: str, headers: str, catalog: Catalog) -> list[Problem]:
    path = "$.sources.nv-codec-headers"
    rule = next(
        (r for r in catalog.headers_for if key(r.start) <= key(version) < key(r.below)), None
    )
    problems: list[Problem] = []
    if rule is None:
        problems.append(
            unknown(
                path,
                f"FFmpeg {version}",
                nearest_version(version, (r.start for r in catalog.headers_for)),
                _("its nv-codec-headers"),
            )
        )
    elif not rule.takes(headers):
        take = _headers_for(version, catalog)
        problems.append(
            error(
                "headers",
                path,
                _(
                    "FFmpeg {version} does not build with nv-codec-headers {headers}; take {take}",
                    version=version,
                    headers=headers,
                    take=take,
                ),
            )
        )
    known = catalog.headers.get(headers)
    toolkit = _toolkit_driver(preset.cuda, catalog)
    if known and known.driver and toolkit and key(known.driver) > key(toolkit):
        problems.append(
            warning(
                "headers-driver",
                path,
                _(
                    "nv-codec-headers {headers} need driver {driver}, newer than CUDA "
                    "{cuda}'s own {toolkit}; {version} need less",
                    headers=headers,
                    driver=known.driver,
                    cuda=preset.cuda,
                    toolkit=toolkit,
                    version=_headers_for(version, catalog),
                ),
            )
        )
    return problems


def _headers_for(version: str, catalog: Catalog) -> str:
    """The headers with the lowest driver requirement that this FFmpeg takes, from series 11.1 on."""
    rule = next(
        (r for r in catalog.headers_for if key(r.start) <= key(version) < key(r.below)), None
    )
    fitting = [h for h in catalog.headers if rule and key(h) >= (11, 1) and rule.takes(h)]
    series = {minor(h) for h in fitting}
    best = max(
        (h for h in fitting if minor(h) == min(series, key=key)), key=key, default="11.1.5.2"
    )
    return f"nv-codec-headers {best}"
