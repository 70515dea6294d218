"""Which OpenCV goes with which CUDA, cuDNN, compiler, FFmpeg and NumPy, and which GPUs it can be compiled for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gapforge.base.text import josa
from gapforge.compat.catalog import Catalog
from gapforge.compat.findings import Problem, error, nearest_version, unknown, warning
from gapforge.compat.torch import numpy_allowed
from gapforge.compat.versions import key, minor, within
from gapforge.model.preset import Preset


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
    if preset.opencv is None:
        return []
    version, path = preset.opencv.version, "$.python.packages"
    for numpy, least in catalog.opencv_numpy:
        if key(version) < key(least) and numpy_allowed(preset, numpy):
            return [warning("opencv-numpy", path,
                f"NumPy {josa(numpy, '은', '는')} OpenCV {least}부터 지원되는데 프리셋은 OpenCV {version}입니다; numpy==1.26.4나 OpenCV {josa(least, '을', '를')} 쓰십시오",
                f"NumPy {numpy} is supported from OpenCV {least} on and the preset has {version}; take numpy==1.26.4, or OpenCV {least}")]  # fmt: skip
    return []


def _ffmpeg(preset: Preset, catalog: Catalog) -> list[Problem]:
    if preset.opencv is None or preset.ffmpeg is None or "-DWITH_FFMPEG=OFF" in preset.opencv.cmake:
        return []
    version, ffmpeg, path = preset.opencv.version, preset.ffmpeg.version, "$.opencv.version"
    for fails, last in sorted(catalog.opencv_ffmpeg_fails, key=lambda f: key(f[0]), reverse=True):
        if key(ffmpeg) >= key(fails) and key(version) <= key(last):
            newer = next((v for v in sorted(catalog.opencv, key=key) if key(v) > key(last)), "")
            older = max((f for v, f in catalog.opencv_ffmpeg_built if key(v) <= key(version)), key=key, default="")
            below_ko = f"FFmpeg {older}" if older else f"{fails}보다 낮은 FFmpeg"
            below_en = f"FFmpeg {older}" if older else f"FFmpeg < {fails}"
            return [error("opencv-ffmpeg", path,
                f"OpenCV {josa(version, '은', '는')} FFmpeg {fails} 이상에서 컴파일되지 않습니다; OpenCV {newer} 또는 {josa(below_ko, '을', '를')} 쓰십시오",
                f"OpenCV {version} does not compile with FFmpeg {fails} or newer; take OpenCV {newer}, or {below_en}")]  # fmt: skip
    known = max((f for v, f in catalog.opencv_ffmpeg_built if key(v) <= key(version)), key=key, default="")
    if known and key(minor(ffmpeg)) > key(known):
        fits = [v for v, f in catalog.opencv_ffmpeg_built if key(f) >= key(minor(ffmpeg))]
        ko, en = (f"OpenCV {min(fits, key=key)} 또는 ", f"OpenCV {min(fits, key=key)} or ") if fits else ("", "")
        return [warning("opencv-ffmpeg", path,
            f"OpenCV {josa(version, '과', '와')} FFmpeg {ffmpeg}의 조합은 카탈로그에서 확인되지 않았습니다; 확인된 것은 {ko}FFmpeg {known}까지입니다",
            f"OpenCV {version} with FFmpeg {ffmpeg} is not confirmed in the catalog; to be sure take {en}FFmpeg up to {known}")]  # fmt: skip
    return []


def _opencv(preset: Preset, catalog: Catalog) -> list[Problem]:
    opencv, cuda = preset.opencv, preset.cuda
    if opencv is None or not opencv.cuda or not cuda:
        return []
    problems: list[Problem] = []
    path, version = "$.opencv.version", opencv.version
    if version not in catalog.opencv:
        problems.append(
            unknown(
                path,
                f"OpenCV {version}",
                nearest_version(version, catalog.opencv),
                "CUDA 지원 범위를",
                "its range of CUDA",
            )
        )
    for need in reversed(catalog.opencv_needs):  # the newest CUDA first: one sentence is enough
        if key(minor(cuda)) >= key(need.cuda) and key(version) < key(need.opencv) and (opencv.dnn or not need.dnn_only):
            part = " DNN" if need.dnn_only else ""
            problems.append(
                error(
                    "opencv-cuda",
                    path,
                    f"CUDA {need.cuda}부터는 {part and 'DNN에 '}OpenCV {need.opencv} 이상이 필요합니다({need.why_ko}); CUDA {cuda}에는 OpenCV {need.opencv}, OpenCV {version}에는 {need.cuda}보다 낮은 CUDA를 쓰십시오",
                    f"OpenCV {version}{part} does not build under CUDA {cuda} ({need.why_en}); take OpenCV {need.opencv}, or a CUDA below {need.cuda}",
                )
            )
            break
    for fails, last in catalog.opencv_fails:
        if key(minor(cuda)) >= key(fails) and key(version) <= key(last):
            problems.append(
                error(
                    "opencv-cuda",
                    path,
                    f"OpenCV {josa(version, '은', '는')} CUDA {fails} 이상에서 빌드되지 않습니다; OpenCV 4.11.0과 CUDA {catalog.opencv_confirmed[1]}의 조합은 확인되었습니다",
                    f"OpenCV {version} does not build under CUDA {fails} or newer; OpenCV 4.11.0 with CUDA {catalog.opencv_confirmed[1]} is confirmed",
                )
            )
    first, last = catalog.opencv_confirmed
    built = any(minor(c) == minor(cuda) and key(version) >= key(o) for o, c in catalog.opencv_built)
    if not built and not within(minor(cuda), first, last) and not any(p.rule == "opencv-cuda" for p in problems):
        take = catalog.opencv_for(cuda)
        ko, en = (f"OpenCV {take}",) * 2 if take else (f"CUDA {first}에서 {last}까지", f"CUDA {first} to {last}")
        problems.append(
            warning(
                "opencv-cuda",
                path,
                f"OpenCV {josa(version, '과', '와')} CUDA {cuda}의 조합은 카탈로그에서 확인되지 않았습니다; 확인된 것은 {ko}입니다",
                f"OpenCV {version} with CUDA {cuda} is not confirmed in the catalog; {en} is",
            )
        )
    return problems + _opencv_cudnn(preset, catalog)  # fmt: skip


def _opencv_cudnn(preset: Preset, catalog: Catalog) -> list[Problem]:
    assert preset.opencv is not None
    if not preset.opencv.dnn:
        return []
    if not preset.cudnn:
        return [
            error(
                "opencv-cudnn",
                "$.opencv.dnn",
                "OpenCV DNN의 CUDA 백엔드에는 cuDNN이 필요한데 프리셋의 cudnn이 비어 있어 CPU로만 동작하게 됩니다; cuDNN이 든 기반 이미지를 쓰거나 dnn을 false로 하십시오",
                "OpenCV's DNN on CUDA needs cuDNN and the preset has none, so DNN would silently be CPU only; take a base image with cudnn, or set dnn to false",
            )
        ]
    for cudnn, opencv in catalog.opencv_cudnn:
        if key(preset.cudnn) >= key(cudnn) and key(preset.opencv.version) < key(opencv):
            return [
                error(
                    "opencv-cudnn",
                    "$.opencv.version",
                    f"OpenCV {preset.opencv.version}의 DNN은 cuDNN {josa(cudnn, '과', '와')} 함께 컴파일되지 않습니다; OpenCV {opencv} 또는 cuDNN 8 기반 이미지를 쓰십시오",
                    f"OpenCV {preset.opencv.version}'s DNN does not build with cuDNN {cudnn}; take OpenCV {opencv}, or a base image with cuDNN 8",
                )
            ]
    return []  # fmt: skip


def _compiler(preset: Preset, catalog: Catalog) -> list[Problem]:
    """nvcc refuses a host compiler that is newer than it knows; OpenCV's kernels and FFmpeg's filters both use it."""
    nvcc = (preset.opencv is not None and preset.opencv.cuda) or (
        preset.ffmpeg is not None and "--enable-cuda-nvcc" in preset.ffmpeg.configure
    )
    if not nvcc or not preset.cuda:
        return []
    most = catalog.host_gcc.get(minor(preset.cuda))
    named = [m.group(1) for p in preset.apt_builder if (m := re.match(r"g(?:cc|\+\+)-([0-9]+)(?:=|$)", p))]
    default = catalog.os_gcc.get(f"{preset.os_id} {preset.os_version}", "")
    used = max(named, key=key, default=default)
    if not most or not used or key(used) <= key(most):
        return []
    return [error("compiler", "$.apt.builder",
        f"CUDA {preset.cuda}의 nvcc는 GCC {most}까지만 받는데 빌더의 GCC는 {used}입니다; g++-{most} 패키지를 쓰십시오",
        f"CUDA {preset.cuda}'s nvcc takes GCC up to {most} and the builder has {used}; take the package g++-{most}")]  # fmt: skip


def _architectures(preset: Preset, catalog: Catalog) -> list[Problem]:
    if preset.opencv is None or not preset.opencv.cuda or not preset.cuda:
        return []
    problems: list[Problem] = []
    cuda = minor(preset.cuda)
    names: Sequence[str] = preset.opencv.architectures
    suggested = ", ".join(catalog.suggested_architectures(cuda))

    def instead(ko: str, en: str) -> tuple[str, str]:
        """What fits this CUDA or, where the catalog does not say, another CUDA."""
        if suggested:
            return f"CUDA {cuda}에는 {josa(suggested, '을', '를')}", f"with CUDA {cuda} take {suggested}"
        return ko, f"take {en}"

    for index, compute in enumerate(names):
        path = f"$.opencv.architectures[{index}]"
        known = catalog.architectures.get(compute)
        if known is None:
            problems.append(
                unknown(
                    path, f"compute {compute}", nearest_version(compute, catalog.architectures), "CUDA를", "its CUDA"
                )
            )
        elif known.first_cuda and key(cuda) < key(known.first_cuda):
            ko, en = instead(f"CUDA {known.first_cuda} 이상을", f"CUDA {known.first_cuda} or newer")
            problems.append(
                error(
                    "architecture",
                    path,
                    f"{known.name}(compute {compute})에는 CUDA {known.first_cuda} 이상이 필요합니다; {ko} 쓰십시오",
                    f"{known.name} (compute {compute}) needs CUDA {known.first_cuda}; {en}",
                )
            )
        elif known.dropped_in and key(cuda) >= key(known.dropped_in):
            ko, en = instead(f"{known.dropped_in}보다 낮은 CUDA를", f"a CUDA older than {known.dropped_in}")
            problems.append(
                error(
                    "architecture",
                    path,
                    f"CUDA {known.dropped_in}부터 {known.name}(compute {compute}) 지원이 없습니다; {ko} 쓰십시오",
                    f"CUDA {known.dropped_in} dropped {known.name} (compute {compute}); {en}",
                )
            )
    return problems  # fmt: skip
