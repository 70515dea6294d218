"""Check OpenCV against CUDA, cuDNN, FFmpeg, NumPy and GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from gapforge.base.i18n import _, localized
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
from gapforge.model.catalog import Catalog, OpenCVNeed
from gapforge.model.preset import Options, Preset
from gapforge.model.versions import key, minor, within


def check(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield every incompatibility of the preset's OpenCV."""
    opencv = preset.component("opencv")
    if opencv is not None:
        yield from _check_numpy(preset, opencv, catalog)
        yield from _check_ffmpeg(preset, opencv, catalog)
    if opencv is not None and opencv.flag("cuda") and preset.cuda:
        yield from _check_cuda(preset.cuda, opencv, catalog)
        yield from _check_cudnn(preset.cudnn, opencv, catalog)
        yield from _check_architectures(preset.cuda, opencv, catalog)


def oldest_for(cuda: str, cudnn: str, dnn: bool, catalog: Catalog) -> str:
    """Return the oldest OpenCV for a CUDA and, with DNN, for a cuDNN; "" if unknown."""
    needs = [catalog.opencv_for(cuda), *(need.opencv for need in _needs(cuda, dnn, catalog))]
    if dnn and cudnn:
        needs += [opencv for start, opencv in catalog.opencv_cudnn if key(cudnn) >= key(start)]
    return max(needs, key=key)


def _needs(cuda: str, dnn: bool, catalog: Catalog) -> list[OpenCVNeed]:
    """Return what a CUDA version needs of OpenCV, the newest CUDA first."""
    number = key(minor(cuda))
    needs = [n for n in catalog.opencv_needs if number >= key(n.cuda) and (dnn or not n.dnn_only)]
    return needs[::-1]


def _check_numpy(preset: Preset, opencv: Options, catalog: Catalog) -> Iterator[Finding]:
    """Yield a finding if NumPy is too new: cv2 may build with it and fail at its import."""
    version = opencv.text("version")
    for numpy, needed in catalog.opencv_numpy:
        if key(version) < key(needed) and allows_numpy(preset, numpy):
            reason = _(
                "OpenCV {version} does not support NumPy {numpy}", version=version, numpy=numpy
            )
            suggestion = use(f"numpy<{numpy}", f"OpenCV {needed}")
            yield warning("opencv-numpy", "$.python.packages", reason, suggestion)
            return


def _check_ffmpeg(preset: Preset, opencv: Options, catalog: Catalog) -> Iterator[Finding]:
    ffmpeg = preset.component("ffmpeg")
    if ffmpeg is None or "-DWITH_FFMPEG=OFF" in opencv.list("cmake"):
        return
    version, ffmpeg_version = opencv.text("version"), ffmpeg.text("version")
    built = [f for v, f in catalog.opencv_ffmpeg_built if key(v) <= key(version)]
    newest_built = max(built, key=key, default="")
    for fails, last in sorted(catalog.opencv_ffmpeg_fails, key=lambda f: key(f[0]), reverse=True):
        if key(ffmpeg_version) >= key(fails) and key(version) <= key(last):
            newer = min((v for v in catalog.opencv if key(v) > key(last)), key=key, default="")
            reason = _(
                "OpenCV {version} does not compile with FFmpeg {fails} or newer",
                version=version,
                fails=fails,
            )
            older = f"FFmpeg {newest_built}" if newest_built else f"FFmpeg < {fails}"
            suggestion = use(f"OpenCV {newer}" if newer else "", older)
            yield error("opencv-ffmpeg", f"{opencv.path}.version", reason, suggestion)
            return
    if newest_built and key(minor(ffmpeg_version)) > key(newest_built):
        fitting = [
            v for v, f in catalog.opencv_ffmpeg_built if key(f) >= key(minor(ffmpeg_version))
        ]
        reason = _(
            "the catalog does not confirm OpenCV {version} with FFmpeg {ffmpeg}",
            version=version,
            ffmpeg=ffmpeg_version,
        )
        newer = f"OpenCV {min(fitting, key=key)}" if fitting else ""
        yield warning(
            "opencv-ffmpeg",
            f"{opencv.path}.version",
            reason,
            use(newer, f"FFmpeg <= {newest_built}"),
        )


def _check_cuda(cuda: str, opencv: Options, catalog: Catalog) -> Iterator[Finding]:
    version, dnn, path = opencv.text("version"), opencv.flag("dnn"), f"{opencv.path}.version"
    if version not in catalog.opencv:
        near = nearest_version(version, catalog.opencv)
        yield unknown(path, f"OpenCV {version}", "CUDA", use_nearest(near))
    fails = False
    too_new = [n for n in _needs(cuda, dnn, catalog) if key(version) < key(n.opencv)]
    for need in too_new[:1]:
        fails = True
        name = f"OpenCV {version} DNN" if need.dnn_only else f"OpenCV {version}"
        reason = _(
            "{name} does not build with CUDA {cuda} ({why})",
            name=name,
            cuda=cuda,
            why=localized(**need.why),
        )
        suggestion = use(f"OpenCV {need.opencv}", f"CUDA < {need.cuda}")
        yield error("opencv-cuda", path, reason, suggestion)
    first, last = catalog.opencv_confirmed
    for failing_cuda, last_opencv in catalog.opencv_fails:
        if key(minor(cuda)) >= key(failing_cuda) and key(version) <= key(last_opencv):
            fails = True
            reason = _(
                "OpenCV {version} does not build with CUDA {fails} or newer",
                version=version,
                fails=failing_cuda,
            )
            works = f"OpenCV {catalog.opencv_for(last)}, CUDA {last}"
            yield error("opencv-cuda", path, reason, _confirmed(works))
    built = any(minor(c) == minor(cuda) and key(version) >= key(o) for o, c in catalog.opencv_built)
    if not fails and not built and not within(minor(cuda), first, last):
        known = catalog.opencv_for(cuda)
        confirmed = _confirmed(f"OpenCV {known}" if known else f"CUDA {first}-{last}")
        reason = _(
            "the catalog does not confirm OpenCV {version} with CUDA {cuda}",
            version=version,
            cuda=cuda,
        )
        yield warning("opencv-cuda", path, reason, confirmed)


def _confirmed(name: str) -> str:
    return _("confirmed: {name}", name=name)


def _check_cudnn(cudnn: str, opencv: Options, catalog: Catalog) -> Iterator[Finding]:
    rule, version = "opencv-cudnn", opencv.text("version")
    if not opencv.flag("dnn"):
        return
    if not cudnn:
        reason = _("OpenCV's DNN needs cuDNN for CUDA (without it, DNN uses only the CPU)")
        suggestion = _("use a base image with cuDNN, or set dnn to false")
        yield error(rule, f"{opencv.path}.dnn", reason, suggestion)
        return
    for needing, needed in catalog.opencv_cudnn:
        if key(cudnn) >= key(needing) and key(version) < key(needed):
            reason = _(
                "OpenCV {version} DNN does not build with cuDNN {cudnn}",
                version=version,
                cudnn=needing,
            )
            yield error(rule, f"{opencv.path}.version", reason, use(f"OpenCV {needed}", "cuDNN 8"))
            return


def _check_architectures(cuda: str, opencv: Options, catalog: Catalog) -> Iterator[Finding]:
    number = key(minor(cuda))
    suggested = ", ".join(catalog.suggested_architectures(minor(cuda)))
    for index, compute in enumerate(opencv.list("architectures")):
        path = f"{opencv.path}.architectures[{index}]"
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
