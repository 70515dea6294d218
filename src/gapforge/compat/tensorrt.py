"""Which TensorRT goes with which CUDA, cuDNN, Python and GPU."""

from __future__ import annotations

import re
from dataclasses import replace

from gapforge.base.text import josa
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


def releases_for(cuda: str, cudnn: str, python: str, catalog: Catalog, *, sure: bool = False) -> list[TensorRTRelease]:
    """The releases that fit, newest first; ``sure`` leaves out those whose CUDA or Python nobody published."""
    found = []
    for release in catalog.tensorrt.values():
        tar = tar_for(release, cuda)
        binds = release.binds(python) if python else True
        if tar is None or binds is False or not cudnn_fits(release, cudnn) or not paired(release.version, cuda):
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
                "TensorRT에는 CUDA가 필요합니다; 프리셋에 CUDA를 넣거나 tensorrt를 null로 하십시오",
                "TensorRT needs CUDA; give the preset a CUDA, or set tensorrt to null",
            )
        ]
    problems = [*_named(preset), *_debs(preset)]
    release = release_of(trt.version, catalog)
    if release is None:
        near = nearest_version(
            trt.version, (r.version for r in releases_for(preset.cuda, preset.cudnn, preset.python, catalog))
        )
        tail_ko, tail_en = (
            (
                f"; CUDA {preset.cuda}에 맞는 가까운 것은 {short(near)}입니다",
                f"; the nearest for CUDA {preset.cuda} is {short(near)}",
            )
            if near
            else ("", "")
        )
        problems.append(
            warning(
                "unknown",
                _PATH,
                f"TensorRT {josa(trt.version, '은', '는')} 카탈로그에 없어 CUDA와 cuDNN을 확인할 수 없습니다{tail_ko}",
                f"TensorRT {trt.version} is not in the catalog, so its CUDA and cuDNN cannot be checked{tail_en}",
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
    return problems + _gpus(preset, release, catalog)  # fmt: skip


def _binding(preset: Preset, release: TensorRTRelease) -> Problem:
    name, named = short(release.version), ", ".join(release.pythons)
    if release.binds(preset.python) is False:
        return error(
            "tensorrt-python",
            "$.python.version",
            f"TensorRT {name}에는 Python {preset.python}용 바인딩이 없습니다; Python {josa(named, '을', '를')} 쓰거나 tensorrt.python을 false로 하십시오",
            f"TensorRT {name} has no binding for Python {preset.python}; take Python {named}, or set tensorrt.python to false",
        )
    ko, en = (f"; 확인된 것은 Python {named}입니다", f"; Python {named} is confirmed") if named else ("", "")
    return warning("tensorrt-python", "$.python.version",
        f"TensorRT {name}의 파일에 Python {preset.python}용 바인딩이 있는지는 카탈로그에 없어 알 수 없습니다{ko}",
        f"whether TensorRT {name} has a binding for Python {preset.python} is not in the catalog{en}")  # fmt: skip


def _instead(version: str, preset: Preset, catalog: Catalog) -> tuple[str, str]:
    """What to take with this CUDA and cuDNN, as the tail of a sentence in both languages."""
    for sure in (True, False):
        fitting = [r.version for r in releases_for(preset.cuda, preset.cudnn, preset.python, catalog, sure=sure)]
        if fitting:
            take = short(nearest_version(version, fitting))
            return (f"CUDA {preset.cuda}에는 {josa(take, '을', '를')} 쓰십시오", f"with CUDA {preset.cuda} take {take}")
    return (
        f"CUDA {preset.cuda}에 맞는 TensorRT는 카탈로그에 없습니다",
        f"the catalog knows no TensorRT for CUDA {preset.cuda}",
    )


def unpaired(version: str, preset: Preset, catalog: Catalog) -> Problem:
    """The warning for TensorRT 10 built for CUDA 11; an override that asks for it is refused with the same words."""
    ko, en = _instead(version, preset, catalog)
    name = short(version)
    return warning("tensorrt-pair", _PATH,
        f"TensorRT {josa(name, '은', '는')} CUDA 12와 함께 씁니다(CUDA 11.8용 빌드는 10.13에서 끝났습니다); {ko}",
        f"TensorRT {name} goes with CUDA 12 (its builds for CUDA 11.8 ended with 10.13); {en}")  # fmt: skip


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
        ko = en = ""
        if releases_for(preset.cuda, preset.cudnn, preset.python, catalog, sure=True):
            sure_ko, sure_en = _instead(release.version, preset, catalog)
            ko, en = f"; 확실하게 하려면 {sure_ko}", f"; to be sure, {sure_en}"
        return [warning("tensorrt-cuda", _PATH,
            f"TensorRT {name}의 CUDA {tar.cuda}용 빌드가 CUDA {preset.cuda}에서 동작하는지는 공개된 범위가 없어 확인되지 않았습니다{ko}",
            f"no range was published for TensorRT {name}'s CUDA {tar.cuda} build, so CUDA {preset.cuda} is not confirmed{en}")]  # fmt: skip
    other = tar_for(release, preset.cuda)
    if other and not paired(release.version, preset.cuda):
        return [replace(unpaired(release.version, preset, catalog), rule="tensorrt-cuda", severity="error")]
    if used and other:
        return [
            error(
                "tensorrt-cuda",
                "$.sources.tensorrt",
                f"TensorRT {name}의 이 파일은 CUDA {used}용입니다; CUDA {preset.cuda}에는 {josa(other.file, '을', '를')} 쓰십시오",
                f"this TensorRT {name} file is for CUDA {used}; with CUDA {preset.cuda} take {other.file}",
            )
        ]
    ranges = _ranges(release)
    ko, en = _instead(release.version, preset, catalog)
    return [error("tensorrt-cuda", _PATH, f"TensorRT {name}에는 CUDA {josa(ranges, '이', '가')} 필요합니다; {ko}",
                  f"TensorRT {name} needs CUDA {ranges}; {en}")]  # fmt: skip


def _ranges(release: TensorRTRelease) -> str:
    spans = [f"{t.cuda_from}-{t.cuda_to}" if t.cuda_from and t.cuda_from != t.cuda_to else t.cuda for t in release.tars]
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
    match = re.search(r"TensorRT-(?:Enterprise-)?([0-9]+(?:\.[0-9]+)+)", source.file) if source else None
    stated = preset.tensorrt.version
    if not match or match.group(1) == stated or match.group(1).startswith(stated + "."):
        return []
    return [error("tensorrt-file", "$.sources.tensorrt",
        f"파일은 TensorRT {match.group(1)}인데 프리셋의 버전은 {stated}입니다; 둘을 같게 하십시오",
        f"the file is TensorRT {match.group(1)} but the preset says {stated}; make them the same")]  # fmt: skip


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
                f"버전을 고정하지 않은 패키지({', '.join(loose)}) 때문에 apt가 다른 CUDA용 빌드를 섞을 수 있습니다; 모두 같은 버전으로 고정하십시오",
                f"{', '.join(loose)} has no version, so apt may mix builds for another CUDA; pin every package to one version",
            )
        )
    if len(pinned) > 1:
        problems.append(
            error(
                "tensorrt-pin",
                "$.tensorrt.runtime",
                f"TensorRT 패키지의 버전이 서로 다릅니다({', '.join(sorted(pinned))}); 하나로 맞추십시오",
                f"the TensorRT packages have different versions ({', '.join(sorted(pinned))}); pin all to one",
            )
        )
    return problems  # fmt: skip


def _cudnn(preset: Preset, release: TensorRTRelease, catalog: Catalog) -> list[Problem]:
    if not release.cudnn_needed:
        return []
    name = short(release.version)
    if not cudnn_fits(release, preset.cudnn):
        ko, en = _instead(release.version, preset, catalog)
        why_ko, why_en = ((f"기반 이미지의 cuDNN은 {preset.cudnn}입니다", f"the base image has cuDNN {preset.cudnn}") if preset.cudnn
                          else ("기반 이미지에 cuDNN이 없습니다", "the base image has none"))  # fmt: skip
        return [error("tensorrt-cudnn", _PATH, f"TensorRT {name}에는 cuDNN {josa(major(release.cudnn), '이', '가')} 필요한데 {why_ko}; {ko}",
                      f"TensorRT {name} needs cuDNN {major(release.cudnn)} and {why_en}; {en}")]  # fmt: skip
    if "." in preset.cudnn and key(preset.cudnn)[:2] < key(release.cudnn)[:2]:
        return [warning("tensorrt-cudnn", _PATH,
            f"TensorRT {name}의 검증에 쓰인 cuDNN은 {release.cudnn}인데 기반 이미지의 cuDNN은 {preset.cudnn}입니다",
            f"TensorRT {name} was tested with cuDNN {release.cudnn}; the base image has {preset.cudnn}")]  # fmt: skip
    return []


def _gpus(preset: Preset, release: TensorRTRelease, catalog: Catalog) -> list[Problem]:
    if preset.opencv is None:
        return []
    problems = []
    for compute in preset.opencv.architectures:
        since = next((start for below, start in catalog.tensorrt_dropped if key(compute) < key(below)
                      and key(release.version) >= key(start)), "")  # fmt: skip
        if since:
            known = catalog.architectures.get(compute)
            name = known.name if known else compute
            problems.append(warning("tensorrt-gpu", "$.opencv.architectures",
                f"TensorRT {since}부터 {name}(compute {compute}) 지원이 중단되어, 그 GPU에서는 OpenCV만 동작하고 TensorRT는 동작하지 않습니다",
                f"TensorRT dropped {name} (compute {compute}) in {since}: on such a GPU OpenCV runs and TensorRT does not"))  # fmt: skip
    return problems
