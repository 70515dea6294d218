"""What works together, and why not: each rule says its reason and the nearest combination that does.

A version that the catalog does not know is a warning, never a refusal: the catalog is older than the world.
Pure functions of a preset and the catalog; no network, no clock.
"""

from __future__ import annotations

import re

from gapforge.base.text import josa
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
        *python_problems(preset.python, (preset.os_id, preset.os_version), bool(preset.apt_sources), catalog),
        *(torch_problems(preset.pytorch, preset.cuda, preset.python, catalog) if preset.pytorch else ()),
        *numpy_problems(preset, catalog),
        *undeclared_problems(preset),
        *tensorrt.check(preset, catalog),
        *_ffmpeg(preset, catalog),
        *opencv.check(preset, catalog),
    ]
    return sorted(dict.fromkeys(problems), key=lambda p: (p.severity != "error", p.path, p.en))


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
        return [error("driver", path, f'드라이버 버전이 아닌 값입니다: "{driver}"; nvidia-smi에 나오는 470.82.01 같은 값을 쓰십시오',
                      f'"{driver}" is no driver version; write what nvidia-smi shows, such as 470.82.01')]  # fmt: skip
    least = catalog.minor_drivers.get(major(cuda), "")
    if least and key(driver) < key(least):
        runs = {m for m, needed in catalog.minor_drivers.items() if key(driver) >= key(needed)}
        fits = max((minor(i.cuda) for i in catalog.images if major(i.cuda) in runs), key=key, default="")
        ko, en = (f" CUDA {josa(fits, '을', '를')} 쓰십시오", f", or take CUDA {fits}") if fits else ("", "")
        return [error("driver", path,
            f"드라이버 {josa(driver, '은', '는')} CUDA {cuda}에 필요한 {least}보다 오래되었습니다; 드라이버를 올리" + (f"거나{ko}" if ko else "십시오"),
            f"driver {driver} is older than {least}, which CUDA {cuda} needs; update it{en}")]  # fmt: skip
    version = _headers_version(preset)
    headers = catalog.headers.get(version)
    if headers and headers.driver and preset.ffmpeg and key(driver) < key(headers.driver):
        take = _headers_for(preset.ffmpeg.version, catalog)
        return [error("driver", "$.sources.nv-codec-headers",
            f"드라이버 {josa(driver, '은', '는')} nv-codec-headers {version}에 필요한 {headers.driver}보다 오래되었습니다; 드라이버를 올리거나 {josa(take, '을', '를')} 쓰십시오",
            f"driver {driver} is older than {headers.driver}, which nv-codec-headers {version} need; update it, or take {take}")]  # fmt: skip
    own = _toolkit_driver(cuda, catalog)
    if own and key(driver) < key(own):
        return [warning("driver", path,
            f"드라이버 {josa(driver, '은', '는')} CUDA {josa(cuda, '과', '와')} 함께 나온 {own}보다 오래되어, 실행 중에 PTX를 컴파일하는 코드와 새 기능은 동작하지 않습니다; {own} 이상이면 안전합니다",
            f"driver {driver} is older than CUDA {cuda}'s own {own}: code that is compiled from PTX, and new features, do not run; {own} or newer is safe")]  # fmt: skip
    return []


def _toolkit_driver(cuda: str, catalog: Catalog) -> str:
    """The driver that comes with the newest toolkit of a CUDA series; "" when it is not known or there is no CUDA."""
    newest = sorted(catalog.drivers, key=key, reverse=True)
    return next((catalog.drivers[c] for c in newest if cuda and minor(c) == minor(cuda)), "")


# --- base image -------------------------------------------------------------------------------------------


def _base_images(preset: Preset, catalog: Catalog) -> list[Problem]:
    problems: list[Problem] = []
    for role in ("builder", "runtime"):
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
                    f"기반 이미지에는 CUDA {josa(tag_cuda, '이', '가')} 있는데 프리셋의 cuda는 null입니다; {josa(right, '이라고', '라고')} 쓰거나 ubuntu:22.04를 쓰십시오",
                    f"the base image has CUDA {tag_cuda} but the preset's cuda is null; write {right}, or take ubuntu:22.04",
                )
            )
        elif minor(preset.cuda) != tag_cuda:
            fit = next((i for i in reversed(catalog.images) if minor(i.cuda) == minor(preset.cuda)), None)
            other = getattr(fit, role) if fit else f'"cuda": "{tag_cuda}"'
            problems.append(
                error(
                    "base-cuda",
                    path,
                    f"기반 이미지의 CUDA {josa(tag_cuda, '은', '는')} 프리셋의 CUDA {josa(preset.cuda, '과', '와')} 다릅니다; {josa(other, '을', '를')} 쓰십시오",
                    f"the base image has CUDA {tag_cuda}, not the preset's CUDA {preset.cuda}; take {other}",
                )
            )
        problems += _base_cudnn(preset, catalog, role, rest)
        if role == "builder" and "devel" not in rest and preset.opencv and preset.opencv.cuda:
            problems.append(
                error(
                    "base-devel",
                    path,
                    f"{reference}에는 nvcc가 없어 OpenCV를 CUDA로 컴파일할 수 없습니다; -devel- 태그를 쓰십시오",
                    f"{reference} has no nvcc, which OpenCV with CUDA needs; take the -devel- tag",
                )
            )
        if catalog.image(reference) is None and "cudnn" in rest:
            near = nearest_version(preset.cuda, (i.cuda for i in catalog.images))
            known = next((getattr(i, role) for i in catalog.images if i.cuda == near), "")
            problems.append(unknown(path, reference, known, "내용을", "what is in it"))
    return problems  # fmt: skip


def _base_cudnn(preset: Preset, catalog: Catalog, role: str, rest: str) -> list[Problem]:
    reference = preset.base(role).image
    image = catalog.image(reference)
    spelled = re.search(r"cudnn([0-9]*)", rest)
    path = f"$.base.{role}.image"
    if preset.cudnn and not spelled and not any(p.startswith("libcudnn") for p in _apt(preset, role)):
        return [
            error(
                "base-cudnn",
                path,
                f"프리셋은 cuDNN {josa(preset.cudnn, '을', '를')} 쓰지만 {reference}에는 cuDNN이 없습니다; cudnn이 든 태그를 쓰거나 libcudnn 패키지를 추가하십시오",
                f"the preset uses cuDNN {preset.cudnn} but {reference} has none; take a tag with cudnn, or add a libcudnn package",
            )
        ]
    if not spelled:
        return []
    found = image.cudnn_major if image else spelled.group(1) or ("9" if key(preset.cuda) >= (12, 4) else "")
    if found and preset.cudnn and found != major(preset.cudnn):
        right = f'"cudnn": "{found}"'
        return [
            error(
                "base-cudnn",
                path,
                f"{reference}의 cuDNN은 {found}인데 프리셋에는 {josa(preset.cudnn, '이라고', '라고')} 적혀 있습니다; {josa(right, '이라고', '라고')} 쓰거나 다른 태그를 쓰십시오",
                f"{reference} has cuDNN {found}, not {preset.cudnn}; write {right}, or take another tag",
            )
        ]
    return []  # fmt: skip


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
    if preset.ffmpeg is None:
        return []
    version, options = preset.ffmpeg.version, preset.ffmpeg.configure
    problems: list[Problem] = []
    for option in options:
        name = option.split("=")[0]
        if name in catalog.nonfree or name == "--enable-nonfree":
            problems.append(
                warning(
                    "nonfree",
                    "$.ffmpeg.configure",
                    f"{option} 옵션을 쓰면 FFmpeg 바이너리가 nonfree가 되어 이미지를 재배포할 수 없습니다; nvenc, nvdec, cuvid는 이 옵션 없이도 동작합니다",
                    f"{option} makes the FFmpeg binary nonfree, so the image may not be redistributed; nvenc, nvdec and cuvid work without it",
                )
            )
    if "--enable-cuda-nvcc" in options and preset.cuda:
        for start, below, compute, fails in catalog.nvcc_default:
            own_flags = any(o.startswith("--nvccflags") for o in options)
            if key(start) <= key(version) < key(below) and key(preset.cuda) >= key(fails) and not own_flags:
                problems.append(
                    error(
                        "ffmpeg-nvcc",
                        "$.ffmpeg.configure",
                        f"FFmpeg {version}의 nvcc 기본값 compute_{josa(compute.replace('.', ''), '은', '는')} CUDA {preset.cuda}에 없습니다; 추가하십시오: --nvccflags=-gencode arch=compute_75,code=sm_75 -O2",
                        f"FFmpeg {version} asks nvcc for compute_{compute.replace('.', '')}, which CUDA {preset.cuda} has not; add --nvccflags=-gencode arch=compute_75,code=sm_75 -O2",
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
                f"nvenc, nvdec, cuvid에는 nv-codec-headers 소스가 필요합니다; sources에 {josa(take, '을', '를')} 추가하십시오",
                f"nvenc, nvdec and cuvid need the source nv-codec-headers; add {take}",
            )
        )
    elif headers:
        problems += _headers(preset, version, headers, catalog)
    return problems  # fmt: skip


def _headers(preset: Preset, version: str, headers: str, catalog: Catalog) -> list[Problem]:
    path = "$.sources.nv-codec-headers"
    rule = next((r for r in catalog.headers_for if key(r.start) <= key(version) < key(r.below)), None)
    problems: list[Problem] = []
    if rule is None:
        problems.append(unknown(path, f"FFmpeg {version}", nearest_version(version, (r.start for r in catalog.headers_for)),
                                 "nv-codec-headers를", "its nv-codec-headers"))  # fmt: skip
    elif not rule.takes(headers):
        take = _headers_for(version, catalog)
        problems.append(error("headers", path,
            f"FFmpeg {josa(version, '은', '는')} nv-codec-headers {josa(headers, '과', '와')} 함께 컴파일되지 않습니다; {josa(take, '을', '를')} 쓰십시오",
            f"FFmpeg {version} does not build with nv-codec-headers {headers}; take {take}"))  # fmt: skip
    known = catalog.headers.get(headers)
    toolkit = _toolkit_driver(preset.cuda, catalog)
    if known and known.driver and toolkit and key(known.driver) > key(toolkit):
        problems.append(warning("headers-driver", path,
            f"nv-codec-headers {headers}에는 드라이버 {known.driver} 이상이 필요한데 CUDA {preset.cuda}의 드라이버는 {toolkit}입니다; {josa(_headers_for(version, catalog), '은', '는')} 더 낮은 드라이버에서도 동작합니다",
            f"nv-codec-headers {headers} need driver {known.driver}, newer than CUDA {preset.cuda}'s own {toolkit}; {_headers_for(version, catalog)} need less"))  # fmt: skip
    return problems


def _headers_for(version: str, catalog: Catalog) -> str:
    """The headers with the lowest driver requirement that this FFmpeg takes, from series 11.1 on."""
    rule = next((r for r in catalog.headers_for if key(r.start) <= key(version) < key(r.below)), None)
    fitting = [h for h in catalog.headers if rule and key(h) >= (11, 1) and rule.takes(h)]
    series = {minor(h) for h in fitting}
    best = max((h for h in fitting if minor(h) == min(series, key=key)), key=key, default="11.1.5.2")
    return f"nv-codec-headers {best}"
