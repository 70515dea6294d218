"""Which TensorRT goes with which CUDA, cuDNN, Python and GPU."""

from __future__ import annotations

import re
from dataclasses import replace

from gapforge.base.i18n import _
from gapforge.compat.catalog import Catalog, TensorRTRelease, TensorRTTar
from gapforge.compat.findings import Problem, error, nearest_version, warning
from gapforge.compat.versions import key, major, minor, within
from gapforge.model.preset import Preset

_PATH = "$.tensorrt.version"


def short(version: str) -> str:
    """The three numbers people say: "8.6.1.6" gives "8.6.1"."""
    return ".".join(version.split(".")[:3])


def release_of(version: str, catalog: Catalog) -> TensorRTRelease | None:
    """The release called ``version``, also by its first numbers when only one matches ("8.6.1")."""
    if version in catalog.tensorrt:
        return catalog.tensorrt[version]
    same = [r for v, r in catalog.tensorrt.items() if v.startswith(version + ".")]
    return same[0] if len(same) == 1 else None


def fit(tar: TensorRTTar, cuda: str) -> str:
    """Whether a tar serves a CUDA: "yes", "no", or "unknown" where no range was published for it."""
    here = minor(cuda)
    if major(tar.cuda) != major(here):
        return "no"
    if tar.cuda_from:
        return "yes" if within(here, tar.cuda_from, tar.cuda_to) else "no"
    return "yes" if key(here) == key(tar.cuda) else "unknown"


def tar_for(release: TensorRTRelease, cuda: str) -> TensorRTTar | None:
    """The release's tar for a CUDA, one with a published range before one without; None when none serves."""
    ranked = {"yes": 0, "unknown": 1}
    fitting = [t for t in release.tars if cuda and fit(t, cuda) in ranked]
    return min(fitting, key=lambda t: ranked[fit(t, cuda)], default=None)


def paired(version: str, cuda: str) -> bool:
    """Whether gapforge pairs the two: TensorRT 10 and newer with CUDA 12 and newer.

    NVIDIA built 10.0 to 10.13 for CUDA 11.8 as well. That line has ended, so nothing here chooses it; a preset
    that names such a file by hand is built, with a warning.
    """
    return int(major(version)) < 10 or int(major(cuda)) >= 12


def cudnn_fits(release: TensorRTRelease, cudnn: str) -> bool:
    """Whether the base image's cuDNN is of the generation that the release needs."""
    return not release.cudnn_needed or (bool(cudnn) and major(cudnn) == major(release.cudnn))


def releases_for(
    cuda: str, cudnn: str, python: str, catalog: Catalog, *, sure: bool = False
) -> list[TensorRTRelease]:
    """The releases that fit, newest first; ``sure`` leaves out those whose CUDA or Python nobody published."""
    found = []
    for release in catalog.tensorrt.values():
        tar = tar_for(release, cuda)
        binds = release.binds(python) if python else True
        if (
            tar is None
            or binds is False
            or not cudnn_fits(release, cudnn)
            or not paired(release.version, cuda)
        ):
            continue
        if not sure or (fit(tar, cuda) == "yes" and (binds or not release.pythons)):
            found.append(release)
    return sorted(found, key=lambda r: key(r.version), reverse=True)


def check(preset: Preset, catalog: Catalog) -> list[Problem]:
    """Every incompatibility of the preset's TensorRT."""
    trt = preset.tensorrt
    if trt is None:
        return []
    if not preset.cuda:
        return [
            error(
                "tensorrt-cuda",
                "$.tensorrt",
                _("TensorRT needs CUDA; give the preset a CUDA, or set tensorrt to null"),
            )
        ]
    problems = [*_named(preset), *_debs(preset)]
    release = release_of(trt.version, catalog)
    if release is None:
        near = nearest_version(
            trt.version,
            (r.version for r in releases_for(preset.cuda, preset.cudnn, preset.python, catalog)),
        )
        tail = (
            _("; the nearest for CUDA {cuda} is {near}", cuda=preset.cuda, near=short(near))
            if near
            else ""
        )
        problems.append(
            warning(
                "unknown",
                _PATH,
                _(
                    "TensorRT {version} is not in the catalog, so its CUDA and cuDNN "
                    "cannot be checked{tail}",
                    version=trt.version,
                    tail=tail,
                ),
            )
        )
        return problems
    against_cuda = _cuda(preset, release, catalog)
    if not against_cuda and not paired(release.version, preset.cuda):
        against_cuda = [unpaired(release.version, preset, catalog)]
    problems += against_cuda
    problems += _cudnn(preset, release, catalog)
    if trt.python and release.binds(preset.python) is not True:
        problems.append(_binding(preset, release))
    return problems + _gpus(preset, release, catalog)


def _binding(preset: Preset, release: TensorRTRelease) -> Problem:
    name, named = short(release.version), ", ".join(release.pythons)
    if release.binds(preset.python) is False:
        return error(
            "tensorrt-python",
            "$.python.version",
            _(
                "TensorRT {name} has no binding for Python {python}; take Python "
                "{named}, or set tensorrt.python to false",
                name=name,
                python=preset.python,
                named=named,
            ),
        )
    rest = _("; Python {named} is confirmed", named=named) if named else ""
    return warning(
        "tensorrt-python",
        "$.python.version",
        _(
            "whether TensorRT {name} has a binding for Python {python} is not in the catalog{rest}",
            name=name,
            python=preset.python,
            rest=rest,
        ),
    )


def _instead(version: str, preset: Preset, catalog: Catalog) -> str:
    """What to take with this CUDA and cuDNN, as the tail of a sentence in both languages."""
    for sure in (True, False):
        fitting = [
            r.version
            for r in releases_for(preset.cuda, preset.cudnn, preset.python, catalog, sure=sure)
        ]
        if fitting:
            take = short(nearest_version(version, fitting))
            return _("with CUDA {cuda} take {take}", cuda=preset.cuda, take=take)
    return _("the catalog knows no TensorRT for CUDA {cuda}", cuda=preset.cuda)


def unpaired(version: str, preset: Preset, catalog: Catalog) -> Problem:
    """The warning for TensorRT 10 built for CUDA 11; an override that asks for it is refused with the same words."""
    rest = _instead(version, preset, catalog)
    name = short(version)
    return warning(
        "tensorrt-pair",
        _PATH,
        _(
            "TensorRT {name} goes with CUDA 12 (its builds for CUDA 11.8 ended with 10.13); {rest}",
            name=name,
            rest=rest,
        ),
    )


def _cuda(preset: Preset, release: TensorRTRelease, catalog: Catalog) -> list[Problem]:
    assert preset.tensorrt is not None
    name = short(release.version)
    used = _used_cuda(preset)
    tars = [t for t in release.tars if not used or t.cuda == used]
    served = {fit(t, preset.cuda) for t in tars} or {"no"}
    if "yes" in served:
        return []
    if "unknown" in served:
        tar = next(t for t in tars if fit(t, preset.cuda) == "unknown")
        rest = ""
        if releases_for(preset.cuda, preset.cudnn, preset.python, catalog, sure=True):
            sure = _instead(release.version, preset, catalog)
            rest = _("; to be sure, {sure}", sure=sure)
        return [
            warning(
                "tensorrt-cuda",
                _PATH,
                _(
                    "no range was published for TensorRT {name}'s CUDA {cuda} build, so "
                    "CUDA {preset_cuda} is not confirmed{rest}",
                    name=name,
                    cuda=tar.cuda,
                    preset_cuda=preset.cuda,
                    rest=rest,
                ),
            )
        ]
    other = tar_for(release, preset.cuda)
    if other and not paired(release.version, preset.cuda):
        return [
            replace(
                unpaired(release.version, preset, catalog), rule="tensorrt-cuda", severity="error"
            )
        ]
    if used and other:
        return [
            error(
                "tensorrt-cuda",
                "$.sources.tensorrt",
                _(
                    "this TensorRT {name} file is for CUDA {used}; with CUDA {cuda} take {file}",
                    name=name,
                    used=used,
                    cuda=preset.cuda,
                    file=other.file,
                ),
            )
        ]
    ranges = _ranges(release)
    rest = _instead(release.version, preset, catalog)
    return [
        error(
            "tensorrt-cuda",
            _PATH,
            _("TensorRT {name} needs CUDA {ranges}; {rest}", name=name, ranges=ranges, rest=rest),
        )
    ]


def _ranges(release: TensorRTRelease) -> str:
    spans = [
        f"{t.cuda_from}-{t.cuda_to}" if t.cuda_from and t.cuda_from != t.cuda_to else t.cuda
        for t in release.tars
    ]
    return " / ".join(spans)


def _used_cuda(preset: Preset) -> str:
    """The CUDA that the preset's own file or packages are built for; "" when they do not say."""
    assert preset.tensorrt is not None
    source = preset.sources.get("tensorrt")
    names = [source.file] if source else []
    names += [*preset.tensorrt.builder, *preset.tensorrt.runtime]
    for name in names:
        if match := re.search(r"[-+.]cuda-?([0-9]+\.[0-9]+)", name):
            return match.group(1)
    return ""


def _named(preset: Preset) -> list[Problem]:
    """The file's own name against the version that the preset states."""
    assert preset.tensorrt is not None
    source = preset.sources.get("tensorrt")
    match = (
        re.search(r"TensorRT-(?:Enterprise-)?([0-9]+(?:\.[0-9]+)+)", source.file)
        if source
        else None
    )
    stated = preset.tensorrt.version
    if not match or match.group(1) == stated or match.group(1).startswith(stated + "."):
        return []
    return [
        error(
            "tensorrt-file",
            "$.sources.tensorrt",
            _(
                "the file is TensorRT {group} but the preset says {stated}; make them the same",
                group=match.group(1),
                stated=stated,
            ),
        )
    ]


def _debs(preset: Preset) -> list[Problem]:
    trt = preset.tensorrt
    if trt is None or trt.form != "deb":
        return []
    packages = [*trt.builder, *trt.runtime]
    loose = sorted({p for p in packages if "=" not in p})
    pinned = {p.split("=", 1)[1] for p in packages if "=" in p}
    problems = []
    if loose:
        problems.append(
            warning(
                "tensorrt-pin",
                "$.tensorrt.runtime",
                _(
                    "{loose} has no version, so apt may mix builds for another CUDA; pin "
                    "every package to one version",
                    loose=", ".join(loose),
                ),
            )
        )
    if len(pinned) > 1:
        problems.append(
            error(
                "tensorrt-pin",
                "$.tensorrt.runtime",
                _(
                    "the TensorRT packages have different versions ({pinned}); pin all to one",
                    pinned=", ".join(sorted(pinned)),
                ),
            )
        )
    return problems


def _cudnn(preset: Preset, release: TensorRTRelease, catalog: Catalog) -> list[Problem]:
    if not release.cudnn_needed:
        return []
    name = short(release.version)
    if not cudnn_fits(release, preset.cudnn):
        rest = _instead(release.version, preset, catalog)
        why = (
            _("the base image has cuDNN {cudnn}", cudnn=preset.cudnn)
            if preset.cudnn
            else _("the base image has none")
        )
        return [
            error(
                "tensorrt-cudnn",
                _PATH,
                _(
                    "TensorRT {name} needs cuDNN {cudnn} and {why}; {rest}",
                    name=name,
                    cudnn=major(release.cudnn),
                    why=why,
                    rest=rest,
                ),
            )
        ]
    if "." in preset.cudnn and key(preset.cudnn)[:2] < key(release.cudnn)[:2]:
        return [
            warning(
                "tensorrt-cudnn",
                _PATH,
                _(
                    "TensorRT {name} was tested with cuDNN {cudnn}; the base image has "
                    "{preset_cudnn}",
                    name=name,
                    cudnn=release.cudnn,
                    preset_cudnn=preset.cudnn,
                ),
            )
        ]
    return []


def _gpus(preset: Preset, release: TensorRTRelease, catalog: Catalog) -> list[Problem]:
    opencv = preset.component("opencv")
    if opencv is None:
        return []
    problems = []
    for compute in opencv.list("architectures"):
        since = next(
            (
                start
                for below, start in catalog.tensorrt_dropped
                if key(compute) < key(below) and key(release.version) >= key(start)
            ),
            "",
        )
        if since:
            known = catalog.architectures.get(compute)
            name = known.name if known else compute
            problems.append(
                warning(
                    "tensorrt-gpu",
                    f"{opencv.path}.architectures",
                    _(
                        "TensorRT dropped {name} (compute {compute}) in {since}: on such "
                        "a GPU OpenCV runs and TensorRT does not",
                        name=name,
                        compute=compute,
                        since=since,
                    ),
                )
            )
    return problems
