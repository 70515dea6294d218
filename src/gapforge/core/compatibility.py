"""What works together, and why not: each rule says its reason and the nearest combination that does.

A version that the catalog does not know is a warning, never a refusal: the catalog is older than the world.
Pure functions of a preset and the catalog; no network, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gapforge.core import tensorrt_fit
from gapforge.core.catalog import Catalog, TorchRelease
from gapforge.core.preset import TARGET_OS, Preset, PyTorch
from gapforge.core.problems import Problem, error, warning
from gapforge.core.text import josa
from gapforge.core.versions import key, local, major, minor, public, within

__all__ = ["Problem", "TorchBuild", "check_preset", "required_driver", "torch_build", "torch_problems"]

_NVENC = ("--enable-nvenc", "--enable-nvdec", "--enable-cuvid", "--enable-ffnvcodec")


@dataclass(frozen=True)
class TorchBuild:
    """What a PyTorch request amounts to: ``build`` is "cpu", "cu118", …, or "" when it cannot be told."""

    version: str
    build: str
    from_default: bool


def check_preset(preset: Preset, catalog: Catalog) -> list[Problem]:
    """Every incompatibility in the preset, errors first, then by JSON path."""
    problems = [
        *_base_images(preset, catalog),
        *python_problems(preset.python, (preset.os_id, preset.os_version), bool(preset.apt_sources), catalog),
        *(torch_problems(preset.pytorch, preset.cuda, preset.python, catalog) if preset.pytorch else ()),
        *_numpy(preset, catalog),
        *tensorrt_fit.check(preset, catalog),
        *_ffmpeg(preset, catalog),
        *_opencv(preset, catalog),
        *_architectures(preset, catalog),
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


def _list(items: Iterable[str]) -> str:
    return ", ".join(items)


def _nearest(version: str, known: Iterable[str]) -> str:
    """The known version next to ``version``: the newest that is not newer, else the oldest; "" for none."""
    ordered = sorted(known, key=key)
    older = [v for v in ordered if key(v) <= key(version)]
    return (older or ordered[:1] or [""])[-1]


def _unknown(path: str, what: str, known: str, ko: str, en: str) -> Problem:
    tail_ko = f"; 가까운 것은 {known}입니다" if known else ""
    tail_en = f"; the nearest it knows is {known}" if known else ""
    return warning("unknown", path, f"{josa(what, '은', '는')} 카탈로그에 없어 {ko} 확인할 수 없습니다{tail_ko}",
                   f"{what} is not in the catalog, so {en} cannot be checked{tail_en}")  # fmt: skip


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
            problems.append(
                error(
                    "base-cuda",
                    path,
                    f'기반 이미지에는 CUDA {josa(tag_cuda, "이", "가")} 있는데 프리셋의 cuda는 null입니다; "cuda": "{tag_cuda}"로 쓰거나 ubuntu:22.04를 쓰세요',
                    f'the base image has CUDA {tag_cuda} but the preset\'s cuda is null; write "cuda": "{tag_cuda}", or take ubuntu:22.04',
                )
            )
        elif minor(preset.cuda) != tag_cuda:
            fit = next((i for i in reversed(catalog.images) if minor(i.cuda) == minor(preset.cuda)), None)
            other = getattr(fit, role) if fit else f'"cuda": "{tag_cuda}"'
            problems.append(
                error(
                    "base-cuda",
                    path,
                    f"기반 이미지의 CUDA {josa(tag_cuda, '은', '는')} 프리셋의 CUDA {preset.cuda}와 다릅니다; {other}로 맞추세요",
                    f"the base image has CUDA {tag_cuda}, not the preset's CUDA {preset.cuda}; take {other}",
                )
            )
        problems += _base_cudnn(preset, catalog, role, rest)
        if role == "builder" and "devel" not in rest and preset.opencv and preset.opencv.cuda:
            problems.append(
                error(
                    "base-devel",
                    path,
                    f"{reference}에는 nvcc가 없어 OpenCV를 CUDA로 컴파일할 수 없습니다; -devel- 태그를 쓰세요",
                    f"{reference} has no nvcc, which OpenCV with CUDA needs; take the -devel- tag",
                )
            )
        if catalog.image(reference) is None and "cudnn" in rest:
            near = _nearest(preset.cuda, (i.cuda for i in catalog.images))
            known = next((getattr(i, role) for i in catalog.images if i.cuda == near), "")
            problems.append(_unknown(path, reference, known, "내용을", "what is in it"))
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
                f"프리셋은 cuDNN {josa(preset.cudnn, '을', '를')} 쓰지만 {reference}에는 cuDNN이 없습니다; cudnn이 든 태그를 쓰거나 libcudnn 패키지를 넣으세요",
                f"the preset uses cuDNN {preset.cudnn} but {reference} has none; take a tag with cudnn, or add a libcudnn package",
            )
        ]
    if not spelled:
        return []
    found = image.cudnn_major if image else spelled.group(1) or ("9" if key(preset.cuda) >= (12, 4) else "")
    if found and preset.cudnn and found != major(preset.cudnn):
        return [
            error(
                "base-cudnn",
                path,
                f'{reference}의 cuDNN은 {found}인데 프리셋은 {josa(preset.cudnn, "이라", "라")} 적혀 있습니다; "cudnn": "{found}"로 고치거나 다른 태그를 쓰세요',
                f'{reference} has cuDNN {found}, not {preset.cudnn}; write "cudnn": "{found}", or take another tag',
            )
        ]
    return []  # fmt: skip


def _apt(preset: Preset, role: str) -> tuple[str, ...]:
    return preset.apt_builder if role == "builder" else preset.apt_runtime


# --- Python and PyTorch -----------------------------------------------------------------------------------


def python_problems(python: str, os: tuple[str, str], extra_source: bool, catalog: Catalog) -> list[Problem]:
    """Whether the target's package archive has this Python; only Ubuntu 22.04 is known."""
    if os != TARGET_OS or extra_source:
        return []
    origin = catalog.ubuntu_pythons.get(python)
    if origin is None:
        return [
            error(
                "python-source",
                "$.python.version",
                f"Ubuntu 22.04의 저장소에는 Python {josa(python, '이', '가')} 없습니다; 3.10을 쓰거나 그 Python을 가진 저장소를 apt.sources에 더하세요",
                f"Ubuntu 22.04's archive has no Python {python}; take 3.10, or add to apt.sources an archive that has it",
            )
        ]
    if origin == "release-candidate":
        return [
            warning(
                "python-source",
                "$.python.version",
                f"Ubuntu 22.04의 Python {josa(python, '은', '는')} 정식판이 아닌 릴리스 후보 빌드입니다; 3.10이 안전합니다",
                f"Ubuntu 22.04's Python {python} is a release candidate build; 3.10 is the safe choice",
            )
        ]
    return []  # fmt: skip


def torch_build(torch: PyTorch, catalog: Catalog) -> TorchBuild:
    """Which build of PyTorch the preset asks for: by the local version, the index's address, or the default's."""
    version, build = public(torch.torch), local(torch.torch)
    if not build and torch.index != "default":
        match = re.search(r"/(cpu|cu[0-9]+)/?$", torch.index)
        build = match.group(1) if match else ""
    release = catalog.torch.get(version)
    if not build and torch.index == "default" and release:
        return TorchBuild(version, release.default_build, True)
    return TorchBuild(version, build, torch.index == "default")


def build_cuda(build: str) -> str:
    """The CUDA of a build: "cu118" gives "11.8", "cpu" gives ""."""
    digits = build.removeprefix("cu")
    return f"{digits[:-1]}.{digits[-1]}" if digits.isdigit() else ""


def torch_problems(torch: PyTorch, cuda: str, python: str, catalog: Catalog) -> list[Problem]:
    """CUDA × build, build × index, Python, and the torchvision and torchaudio that go with it."""
    asked = torch_build(torch, catalog)
    release = catalog.torch.get(asked.version)
    problems = _torch_index(torch, asked)
    if release is None:
        problems.append(_unknown("$.pytorch.torch", f"torch {asked.version}", _nearest(asked.version, catalog.torch),
                                 "Python과 CUDA 빌드를", "its Pythons and CUDA builds"))  # fmt: skip
    else:
        problems += _torch_release(torch, asked, release, python, catalog)
    return problems + _torch_cuda(asked, cuda, python, catalog)


def _torch_index(torch: PyTorch, asked: TorchBuild) -> list[Problem]:
    own = local(torch.torch)
    if own and torch.index == "default":
        return [
            error(
                "torch-index",
                "$.pytorch.index",
                f"기본 인덱스에는 torch {torch.torch} 같은 +{own} 빌드가 없습니다; index를 https://download.pytorch.org/whl/{own} 으로 쓰세요",
                f"the default index has no +{own} builds such as torch {torch.torch}; set index to https://download.pytorch.org/whl/{own}",
            )
        ]
    match = re.search(r"/(cpu|cu[0-9]+)/?$", torch.index)
    if own and match and match.group(1) != own:
        return [
            error(
                "torch-index",
                "$.pytorch.index",
                f"torch {josa(torch.torch, '은', '는')} 인덱스 {match.group(1)}에 없습니다; 주소의 끝을 {own}으로 맞추세요",
                f"torch {torch.torch} is not in the index for {match.group(1)}; end the address with {own}",
            )
        ]
    return []  # fmt: skip


def _torch_release(
    torch: PyTorch, asked: TorchBuild, release: TorchRelease, python: str, catalog: Catalog
) -> list[Problem]:
    problems: list[Problem] = []
    if asked.build and asked.build not in release.builds:
        cuda = build_cuda(asked.build)
        other = _nearest(asked.version, (v for v, r in catalog.torch.items() if asked.build in r.builds))
        hint_ko = f"; {josa(asked.build, '은', '는')} torch {other}에 있습니다" if other else ""
        hint_en = f"; {asked.build} exists for torch {other}" if other else ""
        problems.append(
            error(
                "torch-build",
                "$.pytorch.torch",
                f"torch {asked.version}에는 CUDA {cuda or '?'} 빌드({asked.build})가 없고 {_list(release.builds)}만 있습니다{hint_ko}",
                f"torch {asked.version} has no {asked.build} build, only {_list(release.builds)}{hint_en}",
            )
        )
    if python not in release.pythons:
        other = _nearest(asked.version, (v for v, r in catalog.torch.items() if python in r.pythons))
        hint_ko = f", 또는 torch {other}" if other else ""
        hint_en = f", or torch {other}" if other else ""
        problems.append(
            error(
                "torch-python",
                "$.pytorch.torch",
                f"torch {josa(asked.version, '은', '는')} Python {python}용 휠이 없습니다; Python {_list(release.pythons)}{josa(hint_ko, '을', '를')} 쓰세요",
                f"torch {asked.version} has no wheels for Python {python}; take Python {_list(release.pythons)}{hint_en}",
            )
        )
    for name, asked_for, goes_with in (
        ("torchvision", torch.torchvision, release.torchvision),
        ("torchaudio", torch.torchaudio, release.torchaudio),
    ):
        if not asked_for:
            continue
        path = f"$.pytorch.{name}"
        suffix = f"+{local(torch.torch)}" if local(torch.torch) else ""
        if not goes_with:
            problems.append(
                error(
                    "torch-pair",
                    path,
                    f"torch {asked.version}에 맞는 {josa(name, '은', '는')} 나온 적이 없습니다; {josa(name, '을', '를')} 빼세요",
                    f"no {name} was released for torch {asked.version}; leave {name} out",
                )
            )
        elif public(asked_for) != goes_with:
            problems.append(
                error(
                    "torch-pair",
                    path,
                    f"{name} {josa(public(asked_for), '은', '는')} torch {josa(asked.version, '과', '와')} 맞지 않습니다; {name} {goes_with}{josa(suffix, '을', '를')} 쓰세요",
                    f"{name} {public(asked_for)} does not go with torch {asked.version}; take {name} {goes_with}{suffix}",
                )
            )
        elif local(asked_for) != local(torch.torch):
            problems.append(
                error(
                    "torch-pair",
                    path,
                    f"{name} {josa(asked_for, '과', '와')} torch {josa(torch.torch, '은', '는')} 서로 다른 빌드입니다; {name} {goes_with}{josa(suffix, '을', '를')} 쓰세요",
                    f"{name} {asked_for} and torch {torch.torch} are different builds; take {name} {goes_with}{suffix}",
                )
            )
    return problems  # fmt: skip


def torch_builds_for(release: TorchRelease, cuda: str) -> list[str]:
    """The builds of a release that a CUDA base takes, best first; ["cpu"] without CUDA."""
    if not cuda:
        return [b for b in release.builds if b == "cpu"]
    fitting = [b for b in release.builds if build_cuda(b) and major(build_cuda(b)) == major(cuda)
               and key(build_cuda(b)) <= key(minor(cuda))]  # fmt: skip
    return sorted(fitting, key=lambda b: key(build_cuda(b)), reverse=True)


def _torch_cuda(asked: TorchBuild, cuda: str, python: str, catalog: Catalog) -> list[Problem]:
    path, own = "$.pytorch.torch", build_cuda(asked.build)
    if not asked.build:
        return []
    if not cuda:
        if asked.build == "cpu":
            return []
        return [
            warning(
                "torch-cuda",
                path,
                f"CUDA가 없는 프리셋인데 torch {asked.version}의 {asked.build} 빌드는 CUDA 라이브러리를 함께 가져옵니다; {asked.version}+cpu와 인덱스 https://download.pytorch.org/whl/cpu 를 쓰세요",
                f"the preset has no CUDA but torch {asked.version}'s {asked.build} build brings the CUDA libraries along; take {asked.version}+cpu from https://download.pytorch.org/whl/cpu",
            )
        ]
    if asked.build == "cpu":
        fit = torch_builds_for(catalog.torch[asked.version], cuda) if asked.version in catalog.torch else []
        take = f"{asked.version}+{fit[0]}" if fit else f"+cu{minor(cuda).replace('.', '')}"
        return [
            warning(
                "torch-cuda",
                path,
                f"torch {asked.version}+cpu는 GPU를 쓰지 못합니다; CUDA {cuda}에는 {josa(take, '이', '가')} 맞습니다",
                f"torch {asked.version}+cpu cannot use a GPU; with CUDA {cuda} take {take}",
            )
        ]
    if major(own) != major(cuda):
        take = _torch_instead(asked.version, cuda, python, catalog)
        return [
            error(
                "torch-cuda",
                path,
                f"torch {asked.version}의 {asked.build} 빌드에는 CUDA {josa(major(own), '이', '가')} 필요합니다; CUDA {cuda}에는 {josa(take, '을', '를')} 쓰세요"
                if take
                else f"torch {asked.version}의 {asked.build} 빌드에는 CUDA {josa(major(own), '이', '가')} 필요합니다; CUDA {own} 기반 이미지를 쓰세요",
                f"torch {asked.version}'s {asked.build} build needs CUDA {major(own)}; "
                + (f"with CUDA {cuda} take {take}" if take else f"take a base image with CUDA {own}"),
            )
        ]
    if key(own) > key(minor(cuda)):
        take = _torch_instead(asked.version, cuda, python, catalog)
        return [
            warning(
                "torch-cuda",
                path,
                f"torch {asked.version}의 CUDA {josa(own, '은', '는')} 기반 이미지의 CUDA {cuda}보다 새것이라 더 새 드라이버가 필요할 수 있습니다"
                + (f"; {josa(take, '이', '가')} 맞습니다" if take else ""),
                f"torch {asked.version} carries CUDA {own}, newer than the base image's {cuda}, and may need a newer driver"
                + (f"; {take} fits" if take else ""),
            )
        ]
    return []  # fmt: skip


def _torch_instead(version: str, cuda: str, python: str, catalog: Catalog) -> str:
    """The nearest ``VERSION+BUILD`` for this CUDA and Python; "" when there is none."""
    fitting = {v: torch_builds_for(r, cuda) for v, r in catalog.torch.items() if python in r.pythons}
    near = _nearest(version, (v for v, builds in fitting.items() if builds))
    return f"torch {near}+{fitting[near][0]}" if near else ""


def _numpy(preset: Preset, catalog: Catalog) -> list[Problem]:
    if not preset.pytorch:
        return []
    version = public(preset.pytorch.torch)
    release = catalog.torch.get(version)
    limit = release.numpy_below if release else ("2" if key(version) < (2, 3) else "")
    if not limit:
        return []
    asked = next((p for p in preset.packages if re.match(r"numpy\s*([=<>~!]|$)", p, re.I)), "")
    pins = re.findall(r"(==|~=|<=|<)\s*([0-9][0-9.]*)", asked)
    if any(
        (op in ("==", "~=", "<=") and key(v) < key(limit)) or (op == "<" and key(v) <= key(limit)) for op, v in pins
    ):
        return []
    return [error("numpy", "$.python.packages",
        f"torch {josa(version, '은', '는')} NumPy {limit}에서 동작하지 않는데 " + (f"\"{asked}\"는 {limit}.x를 허용합니다" if asked else "NumPy 버전이 정해져 있지 않습니다") + "; numpy==1.26.4를 쓰세요",
        f"torch {version} does not work with NumPy {limit}, and " + (f'"{asked}" allows it' if asked else "no NumPy is pinned") + "; take numpy==1.26.4")]  # fmt: skip


# --- FFmpeg -----------------------------------------------------------------------------------------------


def _headers_version(preset: Preset) -> str:
    source = preset.sources.get("nv-codec-headers")
    if source is None:
        return ""
    match = re.search(r"([0-9]+(?:\.[0-9]+){2,3})", source.version or source.file)
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
                    f"{josa(option, '은', '는')} --enable-nonfree를 요구하므로 이 이미지는 재배포할 수 없습니다; nvenc, nvdec, cuvid는 없이도 됩니다",
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
                        f"FFmpeg {version}의 nvcc 기본값 compute_{josa(compute.replace('.', ''), '은', '는')} CUDA {preset.cuda}에 없습니다; --nvccflags=-gencode arch=compute_75,code=sm_75 -O2 를 더하세요",
                        f"FFmpeg {version} asks nvcc for compute_{compute.replace('.', '')}, which CUDA {preset.cuda} has not; add --nvccflags=-gencode arch=compute_75,code=sm_75 -O2",
                    )
                )
    headers = _headers_version(preset)
    wants = any(o in _NVENC for o in options)
    if wants and not headers:
        take = _headers_for(version, catalog)
        problems.append(
            error(
                "headers",
                "$.sources",
                f"nvenc/nvdec/cuvid에는 nv-codec-headers 소스가 필요합니다; {josa(take, '을', '를')} sources에 넣으세요",
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
        problems.append(_unknown(path, f"FFmpeg {version}", _nearest(version, (r.start for r in catalog.headers_for)),
                                 "nv-codec-headers를", "its nv-codec-headers"))  # fmt: skip
    elif not rule.takes(headers):
        take = _headers_for(version, catalog)
        problems.append(error("headers", path,
            f"FFmpeg {josa(version, '은', '는')} nv-codec-headers {josa(headers, '과', '와')} 컴파일되지 않습니다; {josa(take, '을', '를')} 쓰세요",
            f"FFmpeg {version} does not build with nv-codec-headers {headers}; take {take}"))  # fmt: skip
    known = catalog.headers.get(headers)
    toolkit = next((catalog.drivers[c] for c in sorted(catalog.drivers, key=key, reverse=True)
                    if preset.cuda and minor(c) == minor(preset.cuda)), "")  # fmt: skip
    if known and known.driver and toolkit and key(known.driver) > key(toolkit):
        problems.append(warning("headers-driver", path,
            f"nv-codec-headers {headers}에는 드라이버 {known.driver} 이상이 필요한데 CUDA {preset.cuda}의 드라이버는 {toolkit}입니다; {josa(_headers_for(version, catalog), '은', '는')} 더 낮은 드라이버에서도 됩니다",
            f"nv-codec-headers {headers} need driver {known.driver}, newer than CUDA {preset.cuda}'s own {toolkit}; {_headers_for(version, catalog)} need less"))  # fmt: skip
    return problems


def _headers_for(version: str, catalog: Catalog) -> str:
    """The headers with the lowest driver requirement that this FFmpeg takes, from series 11.1 on."""
    rule = next((r for r in catalog.headers_for if key(r.start) <= key(version) < key(r.below)), None)
    fitting = [h for h in catalog.headers if rule and key(h) >= (11, 1) and rule.takes(h)]
    series = {minor(h) for h in fitting}
    best = max((h for h in fitting if minor(h) == min(series, key=key)), key=key, default="11.1.5.2")
    return f"nv-codec-headers {best}"


# --- OpenCV and GPUs --------------------------------------------------------------------------------------


def _opencv(preset: Preset, catalog: Catalog) -> list[Problem]:
    opencv, cuda = preset.opencv, preset.cuda
    if opencv is None or not opencv.cuda or not cuda:
        return []
    problems: list[Problem] = []
    path, version = "$.opencv.version", opencv.version
    if version not in catalog.opencv:
        problems.append(
            _unknown(
                path, f"OpenCV {version}", _nearest(version, catalog.opencv), "CUDA 지원 범위를", "its range of CUDA"
            )
        )
    for need in reversed(catalog.opencv_needs):  # the newest CUDA first: one sentence is enough
        if key(minor(cuda)) >= key(need.cuda) and key(version) < key(need.opencv) and (opencv.dnn or not need.dnn_only):
            part = " DNN" if need.dnn_only else ""
            below = f"CUDA {need.cuda}"
            problems.append(
                error(
                    "opencv-cuda",
                    path,
                    f"{below}부터는 OpenCV {need.opencv} 이상이{part and ' DNN에'} 필요합니다({need.why_ko}); CUDA {cuda}에는 OpenCV {need.opencv}, OpenCV {version}에는 {below}보다 낮은 CUDA를 쓰세요",
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
                    f"OpenCV {josa(version, '은', '는')} CUDA {fails} 이상에서 빌드되지 않습니다; CUDA {catalog.opencv_confirmed[1]}에는 OpenCV 4.11.0이 확인되었습니다",
                    f"OpenCV {version} does not build under CUDA {fails} or newer; OpenCV 4.11.0 with CUDA {catalog.opencv_confirmed[1]} is confirmed",
                )
            )
    first, last = catalog.opencv_confirmed
    if not within(minor(cuda), first, last) and not any(p.rule == "opencv-cuda" for p in problems):
        problems.append(
            warning(
                "opencv-cuda",
                path,
                f"OpenCV {josa(version, '과', '와')} CUDA {cuda}의 조합은 카탈로그에서 확인되지 않았습니다; 확인된 범위는 CUDA {first}~{last}입니다",
                f"OpenCV {version} with CUDA {cuda} is not confirmed in the catalog; CUDA {first} to {last} is",
            )
        )
    return problems + _opencv_cudnn(preset, catalog) + _compiler(preset, catalog)  # fmt: skip


def _opencv_cudnn(preset: Preset, catalog: Catalog) -> list[Problem]:
    assert preset.opencv is not None
    if not preset.opencv.dnn:
        return []
    if not preset.cudnn:
        return [
            error(
                "opencv-cudnn",
                "$.opencv.dnn",
                "OpenCV DNN의 CUDA 백엔드에는 cuDNN이 필요한데 프리셋의 cudnn이 비어 있어 CPU로만 동작하게 됩니다; cudnn이 든 기반 이미지를 쓰거나 dnn을 false로 하세요",
                "OpenCV's DNN on CUDA needs cuDNN and the preset has none, so DNN would silently be CPU only; take a base image with cudnn, or set dnn to false",
            )
        ]
    for cudnn, opencv in catalog.opencv_cudnn:
        if key(preset.cudnn) >= key(cudnn) and key(preset.opencv.version) < key(opencv):
            return [
                error(
                    "opencv-cudnn",
                    "$.opencv.version",
                    f"OpenCV {preset.opencv.version}의 DNN은 cuDNN {cudnn}에서 컴파일되지 않습니다; OpenCV {opencv} 또는 cuDNN 8 기반 이미지를 쓰세요",
                    f"OpenCV {preset.opencv.version}'s DNN does not build with cuDNN {cudnn}; take OpenCV {opencv}, or a base image with cuDNN 8",
                )
            ]
    return []  # fmt: skip


def _compiler(preset: Preset, catalog: Catalog) -> list[Problem]:
    most = catalog.host_gcc.get(minor(preset.cuda))
    named = [m.group(1) for p in preset.apt_builder if (m := re.match(r"g(?:cc|\+\+)-([0-9]+)(?:=|$)", p))]
    default = catalog.os_gcc.get(f"{preset.os_id} {preset.os_version}", "")
    used = max(named, key=key, default=default)
    if not most or not used or key(used) <= key(most):
        return []
    return [error("compiler", "$.apt.builder",
        f"CUDA {preset.cuda}의 nvcc는 GCC {most}까지만 받는데 빌더의 GCC는 {used}입니다; g++-{most} 패키지를 쓰세요",
        f"CUDA {preset.cuda}'s nvcc takes GCC up to {most} and the builder has {used}; take the package g++-{most}")]  # fmt: skip


def _architectures(preset: Preset, catalog: Catalog) -> list[Problem]:
    if preset.opencv is None or not preset.opencv.cuda or not preset.cuda:
        return []
    problems: list[Problem] = []
    cuda = minor(preset.cuda)
    names: Sequence[str] = preset.opencv.architectures
    for index, compute in enumerate(names):
        path = f"$.opencv.architectures[{index}]"
        known = catalog.architectures.get(compute)
        suggested = _list(catalog.suggested_architectures(cuda))
        if known is None:
            problems.append(
                _unknown(path, f"compute {compute}", _nearest(compute, catalog.architectures), "CUDA를", "its CUDA")
            )
        elif known.first_cuda and key(cuda) < key(known.first_cuda):
            problems.append(
                error(
                    "architecture",
                    path,
                    f"{known.name}(compute {compute})에는 CUDA {known.first_cuda} 이상이 필요합니다; CUDA {cuda}에는 {josa(suggested, '을', '를')} 쓰세요",
                    f"{known.name} (compute {compute}) needs CUDA {known.first_cuda}; with CUDA {cuda} take {suggested}",
                )
            )
        elif known.dropped_in and key(cuda) >= key(known.dropped_in):
            problems.append(
                error(
                    "architecture",
                    path,
                    f"CUDA {josa(known.dropped_in, '이', '가')} {known.name}(compute {compute}) 지원을 없앴습니다; CUDA {cuda}에는 {josa(suggested, '을', '를')} 쓰세요",
                    f"CUDA {known.dropped_in} dropped {known.name} (compute {compute}); with CUDA {cuda} take {suggested}",
                )
            )
    return problems  # fmt: skip
