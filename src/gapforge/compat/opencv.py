"""Which OpenCV goes with which CUDA, cuDNN, compiler, FFmpeg and NumPy, and which GPUs it can be compiled for."""

from __future__ import annotations

import re

from gapforge.base.i18n import _, localized
from gapforge.compat.catalog import Catalog
from gapforge.compat.findings import Problem, error, nearest_version, unknown, warning
from gapforge.compat.torch import numpy_allowed
from gapforge.compat.versions import key, minor, within
from gapforge.model.preset import Options, Preset


def check(preset: Preset, catalog: Catalog) -> list[Problem]:
    """Every incompatibility of the preset's OpenCV."""
    return [
        *_numpy(preset, catalog),
        *_ffmpeg(preset, catalog),
        *_opencv(preset, catalog),
        *_compiler(preset, catalog),
        *_architectures(preset, catalog),
    ]


def _numpy(preset: Preset, catalog: Catalog) -> list[Problem]:
    """cv2 of an OpenCV older than NumPy 2's support may build and still fail when it is imported or used."""
    opencv = preset.component("opencv")
    if opencv is None:
        return []
    version, path = opencv.text("version"), "$.python.packages"
    for numpy, least in catalog.opencv_numpy:
        if key(version) < key(least) and numpy_allowed(preset, numpy):
            return [
                warning(
                    "opencv-numpy",
                    path,
                    _(
                        "NumPy {numpy} is supported from OpenCV {least} on and the "
                        "preset has {version}; take numpy==1.26.4, or OpenCV {least}",
                        numpy=numpy,
                        least=least,
                        version=version,
                    ),
                )
            ]
    return []


def _ffmpeg(preset: Preset, catalog: Catalog) -> list[Problem]:
    opencv, built = preset.component("opencv"), preset.component("ffmpeg")
    if opencv is None or built is None or "-DWITH_FFMPEG=OFF" in opencv.list("cmake"):
        return []
    version, ffmpeg = opencv.text("version"), built.text("version")
    path = f"{opencv.path}.version"
    for fails, last in sorted(catalog.opencv_ffmpeg_fails, key=lambda f: key(f[0]), reverse=True):
        if key(ffmpeg) >= key(fails) and key(version) <= key(last):
            newer = next((v for v in sorted(catalog.opencv, key=key) if key(v) > key(last)), "")
            older = max(
                (f for v, f in catalog.opencv_ffmpeg_built if key(v) <= key(version)),
                key=key,
                default="",
            )
            below = f"FFmpeg {older}" if older else _("FFmpeg < {fails}", fails=fails)
            return [
                error(
                    "opencv-ffmpeg",
                    path,
                    _(
                        "OpenCV {version} does not compile with FFmpeg {fails} or newer; "
                        "take OpenCV {newer}, or {below}",
                        version=version,
                        fails=fails,
                        newer=newer,
                        below=below,
                    ),
                )
            ]
    known = max(
        (f for v, f in catalog.opencv_ffmpeg_built if key(v) <= key(version)), key=key, default=""
    )
    if known and key(minor(ffmpeg)) > key(known):
        fits = [v for v, f in catalog.opencv_ffmpeg_built if key(f) >= key(minor(ffmpeg))]
        rest = _("OpenCV {least} or ", least=min(fits, key=key)) if fits else ""
        return [
            warning(
                "opencv-ffmpeg",
                path,
                _(
                    "OpenCV {version} with FFmpeg {ffmpeg} is not confirmed in the "
                    "catalog; to be sure take {rest}FFmpeg up to {known}",
                    version=version,
                    ffmpeg=ffmpeg,
                    rest=rest,
                    known=known,
                ),
            )
        ]
    return []


def _opencv(preset: Preset, catalog: Catalog) -> list[Problem]:
    opencv, cuda = preset.component("opencv"), preset.cuda
    if opencv is None or not opencv.flag("cuda") or not cuda:
        return []
    problems: list[Problem] = []
    path, version = f"{opencv.path}.version", opencv.text("version")
    if version not in catalog.opencv:
        problems.append(
            unknown(
                path,
                f"OpenCV {version}",
                nearest_version(version, catalog.opencv),
                _("its range of CUDA"),
            )
        )
    for need in reversed(catalog.opencv_needs):  # the newest CUDA first: one sentence is enough
        if (
            key(minor(cuda)) >= key(need.cuda)
            and key(version) < key(need.opencv)
            and (opencv.flag("dnn") or not need.dnn_only)
        ):
            problems.append(
                error(
                    "opencv-cuda",
                    path,
                    (
                        _(
                            "OpenCV {version} DNN does not build under CUDA {cuda} "
                            "({why_en}); take OpenCV {opencv}, or a CUDA below {need_cuda}",
                            version=version,
                            cuda=cuda,
                            why_en=localized(ko=need.why_ko, en=need.why_en),
                            opencv=need.opencv,
                            need_cuda=need.cuda,
                        )
                        if need.dnn_only
                        else _(
                            "OpenCV {version} does not build under CUDA {cuda} "
                            "({why_en}); take OpenCV {opencv}, or a CUDA below {need_cuda}",
                            version=version,
                            cuda=cuda,
                            why_en=localized(ko=need.why_ko, en=need.why_en),
                            opencv=need.opencv,
                            need_cuda=need.cuda,
                        )
                    ),
                )
            )
            break
    for fails, last in catalog.opencv_fails:
        if key(minor(cuda)) >= key(fails) and key(version) <= key(last):
            problems.append(
                error(
                    "opencv-cuda",
                    path,
                    _(
                        "OpenCV {version} does not build under CUDA {fails} or newer; "
                        "OpenCV 4.11.0 with CUDA {opencv_confirmed} is confirmed",
                        version=version,
                        fails=fails,
                        opencv_confirmed=catalog.opencv_confirmed[1],
                    ),
                )
            )
    first, last = catalog.opencv_confirmed
    built = any(minor(c) == minor(cuda) and key(version) >= key(o) for o, c in catalog.opencv_built)
    if (
        not built
        and not within(minor(cuda), first, last)
        and not any(p.rule == "opencv-cuda" for p in problems)
    ):
        take = catalog.opencv_for(cuda)
        confirmed = (
            f"OpenCV {take}" if take else _("CUDA {first} to {last}", first=first, last=last)
        )
        problems.append(
            warning(
                "opencv-cuda",
                path,
                _(
                    "OpenCV {version} with CUDA {cuda} is not confirmed in the catalog; "
                    "{confirmed} is",
                    version=version,
                    cuda=cuda,
                    confirmed=confirmed,
                ),
            )
        )
    return problems + _opencv_cudnn(opencv, preset.cudnn, catalog)


def _opencv_cudnn(opencv: Options, have: str, catalog: Catalog) -> list[Problem]:
    """Check OpenCV's DNN against the preset's cuDNN ``have``, "" for none."""
    version = opencv.text("version")
    if not opencv.flag("dnn"):
        return []
    if not have:
        return [
            error(
                "opencv-cudnn",
                f"{opencv.path}.dnn",
                _(
                    "OpenCV's DNN on CUDA needs cuDNN and the preset has none, so DNN "
                    "would silently be CPU only; take a base image with cudnn, or set "
                    "dnn to false"
                ),
            )
        ]
    for cudnn, least in catalog.opencv_cudnn:
        if key(have) >= key(cudnn) and key(version) < key(least):
            return [
                error(
                    "opencv-cudnn",
                    f"{opencv.path}.version",
                    _(
                        "OpenCV {version}'s DNN does not build with cuDNN {cudnn}; take "
                        "OpenCV {opencv}, or a base image with cuDNN 8",
                        version=version,
                        cudnn=cudnn,
                        opencv=least,
                    ),
                )
            ]
    return []


def _compiler(preset: Preset, catalog: Catalog) -> list[Problem]:
    """nvcc refuses a host compiler that is newer than it knows; OpenCV's kernels and FFmpeg's filters both use it."""
    opencv, ffmpeg = preset.component("opencv"), preset.component("ffmpeg")
    nvcc = (opencv is not None and opencv.flag("cuda")) or (
        ffmpeg is not None and "--enable-cuda-nvcc" in ffmpeg.list("configure")
    )
    if not nvcc or not preset.cuda:
        return []
    most = catalog.host_gcc.get(minor(preset.cuda))
    named = [
        m.group(1)
        for p in preset.apt_builder
        if (m := re.match(r"g(?:cc|\+\+)-([0-9]+)(?:=|$)", p))
    ]
    default = catalog.os_gcc.get(f"{preset.os_id} {preset.os_version}", "")
    used = max(named, key=key, default=default)
    if not most or not used or key(used) <= key(most):
        return []
    return [
        error(
            "compiler",
            "$.apt.builder",
            _(
                "CUDA {cuda}'s nvcc takes GCC up to {most} and the builder has {used}; "
                "take the package g++-{most}",
                cuda=preset.cuda,
                most=most,
                used=used,
            ),
        )
    ]


def _architectures(preset: Preset, catalog: Catalog) -> list[Problem]:
    opencv = preset.component("opencv")
    if opencv is None or not opencv.flag("cuda") or not preset.cuda:
        return []
    problems: list[Problem] = []
    cuda = minor(preset.cuda)
    suggested = ", ".join(catalog.suggested_architectures(cuda))

    def instead(rest: str) -> str:
        """What fits this CUDA or, where the catalog does not say, another CUDA."""
        if suggested:
            return _("with CUDA {cuda} take {suggested}", cuda=cuda, suggested=suggested)
        return _("take {rest}", rest=rest)

    for index, compute in enumerate(opencv.list("architectures")):
        path = f"{opencv.path}.architectures[{index}]"
        known = catalog.architectures.get(compute)
        if known is None:
            problems.append(
                unknown(
                    path,
                    f"compute {compute}",
                    nearest_version(compute, catalog.architectures),
                    _("its CUDA"),
                )
            )
        elif known.first_cuda and key(cuda) < key(known.first_cuda):
            rest = instead(_("CUDA {first_cuda} or newer", first_cuda=known.first_cuda))
            problems.append(
                error(
                    "architecture",
                    path,
                    _(
                        "{name} (compute {compute}) needs CUDA {first_cuda}; {rest}",
                        name=known.name,
                        compute=compute,
                        first_cuda=known.first_cuda,
                        rest=rest,
                    ),
                )
            )
        elif known.dropped_in and key(cuda) >= key(known.dropped_in):
            rest = instead(_("a CUDA older than {dropped_in}", dropped_in=known.dropped_in))
            problems.append(
                error(
                    "architecture",
                    path,
                    _(
                        "CUDA {dropped_in} dropped {name} (compute {compute}); {rest}",
                        dropped_in=known.dropped_in,
                        name=known.name,
                        compute=compute,
                        rest=rest,
                    ),
                )
            )
    return problems
