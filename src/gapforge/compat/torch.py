"""Which Python, PyTorch build and NumPy go with a base image."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gapforge.base.text import josa
from gapforge.compat.catalog import Catalog, TorchRelease
from gapforge.compat.findings import Problem, error, nearest_version, unknown, warning
from gapforge.compat.versions import key, local, major, minor, public
from gapforge.model.preset import TARGET_OS, Preset, PyTorch


@dataclass(frozen=True)
class TorchBuild:
    """What a PyTorch request amounts to: ``build`` is "cpu", "cu118", …, or "" when it cannot be told."""

    version: str
    build: str
    from_default: bool


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
                f"Ubuntu 22.04의 저장소에는 Python {josa(python, '이', '가')} 없습니다; 3.10을 쓰거나 그 버전이 있는 저장소를 apt.sources에 추가하십시오",
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
        problems.append(unknown("$.pytorch.torch", f"torch {asked.version}", nearest_version(asked.version, catalog.torch),
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
                f"기본 인덱스에는 torch {torch.torch} 같은 +{own} 빌드가 없습니다; index를 다음 주소로 바꾸십시오: https://download.pytorch.org/whl/{own}",
                f"the default index has no +{own} builds such as torch {torch.torch}; set index to https://download.pytorch.org/whl/{own}",
            )
        ]
    match = re.search(r"/(cpu|cu[0-9]+)/?$", torch.index)
    if own and match and match.group(1) != own:
        return [
            error(
                "torch-index",
                "$.pytorch.index",
                f"torch {josa(torch.torch, '은', '는')} 인덱스 {match.group(1)}에 없습니다; 주소의 끝을 {own}에 맞추십시오",
                f"torch {torch.torch} is not in the index for {match.group(1)}; end the address with {own}",
            )
        ]
    return []  # fmt: skip


def _torch_release(
    torch: PyTorch, asked: TorchBuild, release: TorchRelease, python: str, catalog: Catalog
) -> list[Problem]:
    problems: list[Problem] = []
    if asked.build and asked.build not in release.builds:
        other = nearest_version(asked.version, (v for v, r in catalog.torch.items() if asked.build in r.builds))
        ko, en = (
            (f"; {asked.build} 빌드는 torch {other}에 있습니다", f"; {asked.build} exists for torch {other}")
            if other
            else ("", "")
        )
        problems.append(
            error(
                "torch-build",
                "$.pytorch.torch",
                f"torch {asked.version}에는 {asked.build} 빌드가 없고 {', '.join(release.builds)}만 있습니다{ko}",
                f"torch {asked.version} has no {asked.build} build, only {', '.join(release.builds)}{en}",
            )
        )
    if python not in release.pythons:
        other = nearest_version(asked.version, (v for v, r in catalog.torch.items() if python in r.pythons))
        ko, en = (f" 또는 torch {other}", f", or torch {other}") if other else ("", "")
        problems.append(
            error(
                "torch-python",
                "$.pytorch.torch",
                f"torch {asked.version}에는 Python {python}용 wheel이 없습니다; Python {josa(', '.join(release.pythons) + ko, '을', '를')} 쓰십시오",
                f"torch {asked.version} has no wheels for Python {python}; take Python {', '.join(release.pythons)}{en}",
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
                    f"torch {asked.version}에 맞는 {josa(name, '은', '는')} 나온 적이 없습니다; {josa(name, '을', '를')} 빼십시오",
                    f"no {name} was released for torch {asked.version}; leave {name} out",
                )
            )
        elif public(asked_for) != goes_with:
            problems.append(
                error(
                    "torch-pair",
                    path,
                    f"{name} {josa(public(asked_for), '은', '는')} torch {josa(asked.version, '과', '와')} 맞지 않습니다; {name} {josa(goes_with + suffix, '을', '를')} 쓰십시오",
                    f"{name} {public(asked_for)} does not go with torch {asked.version}; take {name} {goes_with}{suffix}",
                )
            )
        elif local(asked_for) != local(torch.torch):
            problems.append(
                error(
                    "torch-pair",
                    path,
                    f"{name} {josa(asked_for, '과', '와')} torch {josa(torch.torch, '은', '는')} 서로 다른 빌드입니다; {name} {josa(goes_with + suffix, '을', '를')} 쓰십시오",
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
                f"CUDA가 없는 프리셋인데 torch {asked.version}의 {asked.build} 빌드는 CUDA 라이브러리까지 설치합니다; {asked.version}+cpu를 쓰십시오(인덱스 https://download.pytorch.org/whl/cpu)",
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
                f"torch {asked.version}의 {asked.build} 빌드에는 CUDA {josa(major(own), '이', '가')} 필요합니다; CUDA {cuda}에는 {josa(take, '을', '를')} 쓰십시오"
                if take
                else f"torch {asked.version}의 {asked.build} 빌드에는 CUDA {josa(major(own), '이', '가')} 필요합니다; CUDA {own} 기반 이미지를 쓰십시오",
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
                f"torch {asked.version}의 CUDA {josa(own, '은', '는')} 기반 이미지의 CUDA {cuda}보다 높아 더 새로운 드라이버가 필요할 수 있습니다"
                + (f"; {josa(take, '이', '가')} 맞습니다" if take else ""),
                f"torch {asked.version} carries CUDA {own}, newer than the base image's {cuda}, and may need a newer driver"
                + (f"; {take} fits" if take else ""),
            )
        ]
    return []  # fmt: skip


def _torch_instead(version: str, cuda: str, python: str, catalog: Catalog) -> str:
    """The nearest ``VERSION+BUILD`` for this CUDA and Python; "" when there is none."""
    fitting = {v: torch_builds_for(r, cuda) for v, r in catalog.torch.items() if python in r.pythons}
    near = nearest_version(version, (v for v, builds in fitting.items() if builds))
    return f"torch {near}+{fitting[near][0]}" if near else ""


def numpy_allowed(preset: Preset, version: str) -> bool:
    """Whether the resolver may choose this NumPy or a newer one for the preset: nothing pins it below."""
    pins = re.findall(r"(==|~=|<=|<)\s*([0-9][0-9.]*)", _numpy_asked(preset))
    limit = key(version)
    return not any((op in ("==", "~=", "<=") and key(v) < limit) or (op == "<" and key(v) <= limit) for op, v in pins)


def _numpy_asked(preset: Preset) -> str:
    return next((p for p in preset.packages if re.match(r"numpy\s*([=<>~!]|$)", p, re.I)), "")


def numpy_problems(preset: Preset, catalog: Catalog) -> list[Problem]:
    """PyTorch below 2.3 needs NumPy 1, said or unsaid."""
    if not preset.pytorch:
        return []
    version = public(preset.pytorch.torch)
    release = catalog.torch.get(version)
    limit = release.numpy_below if release else ("2" if key(version) < (2, 3) else "")
    if not limit:
        return []
    if not numpy_allowed(preset, limit):
        return []
    asked = _numpy_asked(preset)
    return [error("numpy", "$.python.packages",
        f"torch {josa(version, '은', '는')} NumPy {limit}에서 동작하지 않는데 " + (josa(f'"{asked}"', "은", "는") + f" {limit}.x를 허용합니다" if asked else "NumPy 버전이 정해져 있지 않습니다") + "; numpy==1.26.4를 쓰십시오",
        f"torch {version} does not work with NumPy {limit}, and " + (f'"{asked}" allows it' if asked else "no NumPy is pinned") + "; take numpy==1.26.4")]  # fmt: skip


def undeclared_problems(preset: Preset) -> list[Problem]:
    """What PyTorch imports without its wheels asking for it (seen by installing 2.1.2: torchvision did not load)."""
    version = public(preset.pytorch.torch) if preset.pytorch else ""
    if (
        not version
        or key(version) >= (2, 2)
        or any(re.match(r"packaging\s*([=<>~!]|$)", p, re.I) for p in preset.packages)
    ):
        return []
    return [error("packaging", "$.python.packages",
        f"torch {josa(version, '은', '는')} packaging을 쓰면서도 의존성으로 요구하지 않아, 없으면 torchvision을 불러올 수 없습니다; packaging==24.1을 추가하십시오",
        f"torch {version} imports packaging without asking for it, and torchvision does not load when it is absent; add packaging==24.1")]  # fmt: skip
