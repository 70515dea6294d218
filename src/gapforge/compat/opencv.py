"""Check OpenCV against CUDA, cuDNN, the compiler, FFmpeg, NumPy and GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gapforge.base.i18n import _, localized
from gapforge.compat.catalog import Catalog, OpenCVNeed
from gapforge.compat.findings import (
    Finding,
    error,
    nearest_version,
    unknown,
    use,
    use_nearest,
    warning,
)
from gapforge.compat.torch import allows_numpy
from gapforge.compat.versions import key, minor, within
from gapforge.model.preset import OpenCV, Preset

_PATH = "$.opencv.version"


def check(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield every incompatibility of the preset's OpenCV, and of the compiler for its CUDA code."""
    opencv = preset.opencv
    if opencv is not None:
        yield from _check_numpy(preset, opencv, catalog)
        yield from _check_ffmpeg(preset, opencv, catalog)
    if opencv is not None and opencv.cuda and preset.cuda:
        yield from _check_cuda(preset.cuda, opencv, catalog)
        yield from _check_cudnn(preset.cudnn, opencv, catalog)
        yield from _check_architectures(preset.cuda, opencv, catalog)
    yield from _check_compiler(preset, catalog)


def oldest_for(cuda: str, cudnn: str, dnn: bool, catalog: Catalog) -> str:
    """Return the oldest OpenCV that builds with a CUDA and, for DNN, with a cuDNN; "" if unknown."""
    needs = [catalog.opencv_for(cuda), *(need.opencv for need in _needs(cuda, dnn, catalog))]
    if dnn and cudnn:
        needs += [opencv for start, opencv in catalog.opencv_cudnn if key(cudnn) >= key(start)]
    return max(needs, key=key)


def _needs(cuda: str, dnn: bool, catalog: Catalog) -> list[OpenCVNeed]:
    """Return what a CUDA version needs of OpenCV, the newest CUDA first."""
    number = key(minor(cuda))
    needs = [n for n in catalog.opencv_needs if number >= key(n.cuda) and (dnn or not n.dnn_only)]
    return needs[::-1]


def _check_numpy(preset: Preset, opencv: OpenCV, catalog: Catalog) -> Iterator[Finding]:
    """Yield a finding if NumPy is too new: cv2 may build with it, and fail when it is imported or used."""
    for numpy, needed in catalog.opencv_numpy:
        if key(opencv.version) < key(needed) and allows_numpy(preset, numpy):
            reason = _(
                "OpenCV {version} does not support NumPy {numpy}",
                version=opencv.version,
                numpy=numpy,
            )
            suggestion = use("numpy==1.26.4", f"OpenCV {needed}")
            yield warning("opencv-numpy", "$.python.packages", reason, suggestion)
            return


def _check_ffmpeg(preset: Preset, opencv: OpenCV, catalog: Catalog) -> Iterator[Finding]:
    if preset.ffmpeg is None or "-DWITH_FFMPEG=OFF" in opencv.cmake:
        return
    version, ffmpeg = opencv.version, preset.ffmpeg.version
    built = [f for v, f in catalog.opencv_ffmpeg_built if key(v) <= key(version)]
    newest_built = max(built, key=key, default="")
    for fails, last in sorted(catalog.opencv_ffmpeg_fails, key=lambda f: key(f[0]), reverse=True):
        if key(ffmpeg) >= key(fails) and key(version) <= key(last):
            newer = min((v for v in catalog.opencv if key(v) > key(last)), key=key, default="")
            reason = _(
                "OpenCV {version} does not compile with FFmpeg {fails} or newer",
                version=version,
                fails=fails,
            )
            older = f"FFmpeg {newest_built}" if newest_built else f"FFmpeg < {fails}"
            suggestion = use(f"OpenCV {newer}" if newer else "", older)
            yield error("opencv-ffmpeg", _PATH, reason, suggestion)
            return
    if newest_built and key(minor(ffmpeg)) > key(newest_built):
        fitting = [v for v, f in catalog.opencv_ffmpeg_built if key(f) >= key(minor(ffmpeg))]
        reason = _(
            "the catalog does not confirm OpenCV {version} with FFmpeg {ffmpeg}",
            version=version,
            ffmpeg=ffmpeg,
        )
        newer = f"OpenCV {min(fitting, key=key)}" if fitting else ""
        yield warning("opencv-ffmpeg", _PATH, reason, use(newer, f"FFmpeg <= {newest_built}"))


def _check_cuda(cuda: str, opencv: OpenCV, catalog: Catalog) -> Iterator[Finding]:
    version = opencv.version
    if version not in catalog.opencv:
        near = nearest_version(version, catalog.opencv)
        yield unknown(_PATH, f"OpenCV {version}", "CUDA", use_nearest(near))
    fails = False
    too_new = [n for n in _needs(cuda, opencv.dnn, catalog) if key(version) < key(n.opencv)]
    for need in too_new[:1]:
        fails = True
        reason = _(
            "{name} does not build with CUDA {cuda} ({why})",
            name=f"OpenCV {version} DNN" if need.dnn_only else f"OpenCV {version}",
            cuda=cuda,
            why=localized(ko=need.why_ko, en=need.why_en),
        )
        suggestion = use(f"OpenCV {need.opencv}", f"CUDA < {need.cuda}")
        yield error("opencv-cuda", _PATH, reason, suggestion)
    first, last = catalog.opencv_confirmed
    for failing_cuda, last_opencv in catalog.opencv_fails:
        if key(minor(cuda)) >= key(failing_cuda) and key(version) <= key(last_opencv):
            fails = True
            reason = _(
                "OpenCV {version} does not build with CUDA {fails} or newer",
                version=version,
                fails=failing_cuda,
            )
            yield error("opencv-cuda", _PATH, reason, _confirmed(f"OpenCV 4.11.0, CUDA {last}"))
    built = any(minor(c) == minor(cuda) and key(version) >= key(o) for o, c in catalog.opencv_built)
    if not fails and not built and not within(minor(cuda), first, last):
        known = catalog.opencv_for(cuda)
        confirmed = _confirmed(f"OpenCV {known}" if known else f"CUDA {first}-{last}")
        reason = _(
            "the catalog does not confirm OpenCV {version} with CUDA {cuda}",
            version=version,
            cuda=cuda,
        )
        yield warning("opencv-cuda", _PATH, reason, confirmed)


def _confirmed(name: str) -> str:
    return _("confirmed: {name}", name=name)


def _check_cudnn(cudnn: str, opencv: OpenCV, catalog: Catalog) -> Iterator[Finding]:
    rule = "opencv-cudnn"
    if not opencv.dnn:
        return
    if not cudnn:
        reason = _("OpenCV's DNN needs cuDNN for CUDA; without it, DNN uses only the CPU")
        suggestion = _("use a base image with cuDNN, or set dnn to false")
        yield error(rule, "$.opencv.dnn", reason, suggestion)
        return
    for needing, needed in catalog.opencv_cudnn:
        if key(cudnn) >= key(needing) and key(opencv.version) < key(needed):
            reason = _(
                "OpenCV {version} DNN does not build with cuDNN {cudnn}",
                version=opencv.version,
                cudnn=needing,
            )
            yield error(rule, _PATH, reason, use(f"OpenCV {needed}", "cuDNN 8"))
            return


def _check_compiler(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield a finding if nvcc, which OpenCV and FFmpeg filters use, rejects the newest GCC of the builder image."""
    nvcc = (preset.opencv is not None and preset.opencv.cuda) or (
        preset.ffmpeg is not None and "--enable-cuda-nvcc" in preset.ffmpeg.configure
    )
    if not nvcc or not preset.cuda:
        return
    newest_allowed = catalog.host_gcc.get(minor(preset.cuda))
    packages = (re.match(r"g(?:cc|\+\+)-([0-9]+)(?:=|$)", p) for p in preset.apt_builder)
    default = catalog.os_gcc.get(f"{preset.os_id} {preset.os_version}", "")
    used = max((match[1] for match in packages if match), key=key, default=default)
    if newest_allowed and key(used) > key(newest_allowed):
        reason = _(
            "the nvcc of CUDA {cuda} supports GCC up to {newest}, but the builder image has {used}",
            cuda=preset.cuda,
            newest=newest_allowed,
            used=used,
        )
        yield error("compiler", "$.apt.builder", reason, use(f"g++-{newest_allowed}"))


def _check_architectures(cuda: str, opencv: OpenCV, catalog: Catalog) -> Iterator[Finding]:
    number = key(minor(cuda))
    suggested = ", ".join(catalog.suggested_architectures(minor(cuda)))
    for index, compute in enumerate(opencv.architectures):
        path = f"$.opencv.architectures[{index}]"
        known = catalog.architectures.get(compute)
        if known is None:
            near = nearest_version(compute, catalog.architectures)
            yield unknown(path, f"compute {compute}", "CUDA", use_nearest(near))
            continue
        first, dropped = known.first_cuda, known.dropped_in
        if first and number < key(first):
            reason = _(
                "{name} (compute {compute}) needs CUDA {first_cuda}",
                name=known.name,
                compute=compute,
                first_cuda=first,
            )
            other_cuda = f"CUDA >= {first}"
        elif dropped and number >= key(dropped):
            reason = _(
                "CUDA {dropped_in} dropped {name} (compute {compute})",
                dropped_in=dropped,
                name=known.name,
                compute=compute,
            )
            other_cuda = f"CUDA < {dropped}"
        else:
            continue
        suggestion = use(f"compute {suggested}" if suggested else other_cuda)
        yield error("architecture", path, reason, suggestion)
