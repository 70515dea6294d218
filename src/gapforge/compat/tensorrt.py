"""Check TensorRT against CUDA, cuDNN, Python and GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from gapforge.base.i18n import _
from gapforge.compat.findings import Finding, error, nearest_version, unknown, warning
from gapforge.compat.gpu_code import tensorrt_supports
from gapforge.model.catalog import Catalog, TensorRTRelease, TensorRTTar
from gapforge.model.preset import Preset, TensorRT
from gapforge.model.versions import begins_with, key, major

_PATH = "$.tensorrt.version"


def short_version(version: str) -> str:
    """Return the first three numbers: "8.6.1.6" gives "8.6.1"."""
    return ".".join(version.split(".")[:3])


def _find_release(version: str, catalog: Catalog) -> TensorRTRelease | None:
    """Return the release ``version``, also shortened ("8.6.1") if only one release matches."""
    same = [r for v, r in catalog.tensorrt.items() if begins_with(v, version)]
    return catalog.tensorrt.get(version) or (same[0] if len(same) == 1 else None)


def is_recommended(version: str, cuda: str) -> bool:
    """Return whether gapforge chooses this pair: TensorRT 10 and newer only with CUDA 12 and newer.

    NVIDIA built 10.0 to 10.13 for CUDA 11.8 as well, but has ended that series. A preset that names
    such a file is built, with a warning.
    """
    return key(version) < (10,) or key(cuda) >= (12,)


def cudnn_fits(release: TensorRTRelease, cudnn: str) -> bool:
    """Return whether a cuDNN, "" for none, has the major version that the release needs."""
    return not release.cudnn_needed or (bool(cudnn) and major(cudnn) == major(release.cudnn))


def releases_for(
    cuda: str, cudnn: str, python: str, catalog: Catalog, *, confirmed: bool = False
) -> list[TensorRTRelease]:
    """Return the releases that fit, newest first.

    ``python`` may be "" if no binding is needed. ``confirmed`` omits releases whose CUDA range or
    Python versions are not documented.
    """
    found = []
    for release in catalog.tensorrt.values():
        tar = release.tar_for(cuda)
        binding = release.has_binding(python) if python else True
        if tar is None or binding is False or not cudnn_fits(release, cudnn):
            continue
        if not is_recommended(release.version, cuda):
            continue
        if not confirmed or (tar.supports_cuda(cuda) and (binding or not release.pythons)):
            found.append(release)
    return sorted(found, key=lambda r: key(r.version), reverse=True)


def best_fits(cuda: str, cudnn: str, python: str, catalog: Catalog) -> list[TensorRTRelease]:
    """Return the releases that fit best, newest first; the prompts and ``check`` suggest these.

    Confirmed ones are better than others, then those with a published checksum, then those that
    are built for the nearest CUDA, older ones first.
    """
    confirmed = releases_for(cuda, cudnn, python, catalog, confirmed=True)

    def rank(release: TensorRTRelease) -> tuple[bool, bool, int, bool]:
        tar = release.tar_for(cuda)
        assert tar is not None  # releases_for returns only releases with a tar file
        ours, built_for = ((*key(version), 0)[1] for version in (cuda, tar.cuda))
        return release not in confirmed, not tar.sha256, abs(ours - built_for), built_for > ours

    fitting = releases_for(cuda, cudnn, python, catalog)
    best = min(map(rank, fitting), default=None)
    return [release for release in fitting if rank(release) == best]


def nearest_release(cuda: str, cudnn: str, python: str, catalog: Catalog) -> TensorRTRelease | None:
    """Return the newest of ``best_fits``; None unless it is confirmed and has a checksum."""
    best = next(iter(best_fits(cuda, cudnn, python, catalog)), None)
    tar = best.tar_for(cuda) if best else None
    confirmed = releases_for(cuda, cudnn, python, catalog, confirmed=True)
    return best if best in confirmed and tar and tar.sha256 else None


def check(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield every incompatibility of the preset's TensorRT."""
    trt = preset.tensorrt
    if trt is None:
        return
    if not preset.cuda:
        suggestion = _("set a CUDA version, or set tensorrt to null")
        yield error("tensorrt-cuda", "$.tensorrt", _("TensorRT needs CUDA"), suggestion)
        return
    yield from _check_packages(trt)
    release = _find_release(trt.version, catalog)
    if release is None:
        near = _nearest_fit(trt.version, preset, catalog)
        suggestion = _for_cuda(preset.cuda, near) if near else ""
        yield unknown(_PATH, f"TensorRT {trt.version}", "CUDA, cuDNN", suggestion)
        return
    about_cuda = list(_check_cuda(preset, trt, release, catalog))
    yield from about_cuda
    if not about_cuda and not is_recommended(release.version, preset.cuda):
        yield not_recommended(release.version, preset, catalog)
    yield from _check_cudnn(preset, release, catalog)
    if trt.python:
        yield from _check_binding(preset, release)
    yield from _check_gpus(preset, release, catalog)


def not_recommended(version: str, preset: Preset, catalog: Catalog) -> Finding:
    """Return the warning for a TensorRT 10 that is built for CUDA 11."""
    reason = _(
        "TensorRT {name} is for CUDA 12 (its builds for CUDA 11.8 ended with 10.13)",
        name=short_version(version),
    )
    return warning("tensorrt-pair", _PATH, reason, _alternative(version, preset, catalog))


def _for_cuda(cuda: str, version: str) -> str:
    name = short_version(version)
    return _("use TensorRT {name} with CUDA {cuda}", name=name, cuda=cuda)


def _alternative(version: str, preset: Preset, catalog: Catalog) -> str:
    """Suggest the nearest of the releases that fit best to the preset's CUDA, cuDNN and Python."""
    near = _nearest_fit(version, preset, catalog)
    if near:
        return _for_cuda(preset.cuda, near)
    return _("the catalog has no TensorRT for CUDA {cuda}", cuda=preset.cuda)


def _nearest_fit(version: str, preset: Preset, catalog: Catalog) -> str:
    fitting = best_fits(preset.cuda, preset.cudnn, preset.python, catalog)
    return nearest_version(version, (release.version for release in fitting))


def _check_cuda(
    preset: Preset, trt: TensorRT, release: TensorRTRelease, catalog: Catalog
) -> Iterator[Finding]:
    name, cuda, used = short_version(release.version), preset.cuda, _used_cuda(preset, trt)
    tars = [tar for tar in release.tars if not used or tar.cuda == used]
    supported = [tar.supports_cuda(cuda) for tar in tars]
    alternative = _alternative(release.version, preset, catalog)
    other = release.tar_for(cuda)
    if True in supported:
        return
    if None in supported:
        reason = _(
            "NVIDIA published no CUDA range for TensorRT {name}'s build for CUDA {built_for}, so "
            "CUDA {cuda} is not confirmed",
            name=name,
            built_for=tars[supported.index(None)].cuda,
            cuda=cuda,
        )
        confirmed = releases_for(cuda, preset.cudnn, preset.python, catalog, confirmed=True)
        yield warning("tensorrt-cuda", _PATH, reason, alternative if confirmed else "")
    elif other and not is_recommended(release.version, cuda):
        finding = not_recommended(release.version, preset, catalog)
        yield replace(finding, rule="tensorrt-cuda", severity="error")
    elif used and other:
        reason = _("this file of TensorRT {name} is for CUDA {used}", name=name, used=used)
        suggestion = _("use {name} with CUDA {cuda}", name=other.file, cuda=cuda)
        yield error("tensorrt-cuda", "$.sources.tensorrt", reason, suggestion)
    else:
        ranges = " / ".join(map(_range, release.tars))
        reason = _("TensorRT {name} needs CUDA {ranges}", name=name, ranges=ranges)
        yield error("tensorrt-cuda", _PATH, reason, alternative)


def _range(tar: TensorRTTar) -> str:
    several = tar.cuda_from and tar.cuda_from != tar.cuda_to
    return f"{tar.cuda_from}-{tar.cuda_to}" if several else tar.cuda


def _used_cuda(preset: Preset, trt: TensorRT) -> str:
    """Return the CUDA in the names of the preset's TensorRT file or packages; "" if none."""
    source = preset.sources.get("tensorrt")
    names = [*([source.file] if source else []), *trt.builder, *trt.runtime]
    matches = (re.search(r"[-+.]cuda-?([0-9]+\.[0-9]+)", name) for name in names)
    return next((match[1] for match in matches if match), "")


def _check_packages(trt: TensorRT) -> Iterator[Finding]:
    """Yield a finding for .deb packages without a version or with different ones."""
    if trt.form != "deb":
        return
    rule, path = "tensorrt-pin", "$.tensorrt.runtime"
    packages = sorted({*trt.builder, *trt.runtime})
    unpinned = [p for p in packages if "=" not in p]
    versions = sorted({p.split("=", 1)[1] for p in packages if "=" in p})
    if unpinned:
        reason = _(
            "no version of {packages} is pinned, so apt may mix builds for different CUDA versions",
            packages=", ".join(unpinned),
        )
        yield warning(rule, path, reason, _("pin all TensorRT packages to the same version"))
    if len(versions) > 1:
        reason = _(
            "the TensorRT packages have different versions ({versions})",
            versions=", ".join(versions),
        )
        yield error(rule, path, reason, _("pin all TensorRT packages to the same version"))


def _check_cudnn(preset: Preset, release: TensorRTRelease, catalog: Catalog) -> Iterator[Finding]:
    name = short_version(release.version)
    if not release.cudnn_needed:
        return
    if not cudnn_fits(release, preset.cudnn):
        needed = major(release.cudnn)
        if preset.cudnn:
            reason = _(
                "TensorRT {name} needs cuDNN {needed}, but the base image has {found}",
                name=name,
                needed=needed,
                found=preset.cudnn,
            )
        else:
            reason = _(
                "TensorRT {name} needs cuDNN {needed}, but the base image has none",
                name=name,
                needed=needed,
            )
        alternative = _alternative(release.version, preset, catalog)
        yield error("tensorrt-cudnn", _PATH, reason, alternative)
    elif "." in preset.cudnn and key(preset.cudnn)[:2] < key(release.cudnn)[:2]:
        reason = _(
            "TensorRT {name} was tested with cuDNN {tested}, but the base image has {found}",
            name=name,
            tested=release.cudnn,
            found=preset.cudnn,
        )
        yield warning("tensorrt-cudnn", _PATH, reason)


def _check_binding(preset: Preset, release: TensorRTRelease) -> Iterator[Finding]:
    name, python, path = short_version(release.version), preset.python, "$.python.version"
    documented = ", ".join(release.pythons)
    exists = release.has_binding(python)
    if exists is False:
        reason = _("TensorRT {name} has no binding for Python {python}", name=name, python=python)
        suggestion = _("use Python {pythons}, or set tensorrt.python to false", pythons=documented)
        yield error("tensorrt-python", path, reason, suggestion)
    elif exists is None:
        reason = _(
            "the catalog does not know whether TensorRT {name} has a binding for Python {python}",
            name=name,
            python=python,
        )
        suggestion = _("confirmed: Python {pythons}", pythons=documented) if documented else ""
        yield warning("tensorrt-python", path, reason, suggestion)


def _check_gpus(preset: Preset, release: TensorRTRelease, catalog: Catalog) -> Iterator[Finding]:
    opencv = preset.component("opencv")
    if opencv is None:
        return
    for compute in opencv.list("architectures"):
        supported = tensorrt_supports(release.version, compute, catalog)
        if supported:
            continue
        known = catalog.architectures.get(compute)
        path = f"{opencv.path}.architectures"
        if supported is None:
            name = f"TensorRT {short_version(release.version)}"
            yield unknown(path, f"compute {compute}", name, "")
            continue
        reason = _(
            "TensorRT {version} does not support {name} (compute {compute}): on this GPU OpenCV "
            "works, but TensorRT does not",
            version=short_version(release.version),
            name=known.name if known else compute,
            compute=compute,
        )
        yield warning("tensorrt-gpu", path, reason)
