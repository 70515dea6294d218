"""Which Python, PyTorch build and NumPy go with a base image."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gapforge.base.i18n import _
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


def python_problems(
    python: str, os: tuple[str, str], extra_source: bool, catalog: Catalog
) -> list[Problem]:
    """Whether the target's package archive has this Python; only Ubuntu 22.04 is known."""
    if os != TARGET_OS or extra_source:
        return []
    origin = catalog.ubuntu_pythons.get(python)
    if origin is None:
        return [
            error(
                "python-source",
                "$.python.version",
                _(
                    "Ubuntu 22.04's archive has no Python {python}; take 3.10, or add to "
                    "apt.sources an archive that has it",
                    python=python,
                ),
            )
        ]
    if origin == "release-candidate":
        return [
            warning(
                "python-source",
                "$.python.version",
                _(
                    "Ubuntu 22.04's Python {python} is a release candidate build; 3.10 "
                    "is the safe choice",
                    python=python,
                ),
            )
        ]
    return []


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
        problems.append(
            unknown(
                "$.pytorch.torch",
                f"torch {asked.version}",
                nearest_version(asked.version, catalog.torch),
                _("its Pythons and CUDA builds"),
            )
        )
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
                _(
                    "the default index has no +{own} builds such as torch {torch}; set "
                    "index to https://download.pytorch.org/whl/{own}",
                    own=own,
                    torch=torch.torch,
                ),
            )
        ]
    match = re.search(r"/(cpu|cu[0-9]+)/?$", torch.index)
    if own and match and match.group(1) != own:
        return [
            error(
                "torch-index",
                "$.pytorch.index",
                _(
                    "torch {torch} is not in the index for {group}; end the address with {own}",
                    torch=torch.torch,
                    group=match.group(1),
                    own=own,
                ),
            )
        ]
    return []


def _torch_release(
    torch: PyTorch, asked: TorchBuild, release: TorchRelease, python: str, catalog: Catalog
) -> list[Problem]:
    problems: list[Problem] = []
    if asked.build and asked.build not in release.builds:
        other = nearest_version(
            asked.version, (v for v, r in catalog.torch.items() if asked.build in r.builds)
        )
        rest = (
            _("; {build} exists for torch {other}", build=asked.build, other=other) if other else ""
        )
        problems.append(
            error(
                "torch-build",
                "$.pytorch.torch",
                _(
                    "torch {version} has no {build} build, only {builds}{rest}",
                    version=asked.version,
                    build=asked.build,
                    builds=", ".join(release.builds),
                    rest=rest,
                ),
            )
        )
    if python not in release.pythons:
        other = nearest_version(
            asked.version, (v for v, r in catalog.torch.items() if python in r.pythons)
        )
        rest = _(", or torch {other}", other=other) if other else ""
        problems.append(
            error(
                "torch-python",
                "$.pytorch.torch",
                _(
                    "torch {version} has no wheels for Python {python}; take Python "
                    "{pythons}{rest}",
                    version=asked.version,
                    python=python,
                    pythons=", ".join(release.pythons),
                    rest=rest,
                ),
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
                    _(
                        "no {name} was released for torch {version}; leave {name} out",
                        name=name,
                        version=asked.version,
                    ),
                )
            )
        elif public(asked_for) != goes_with:
            problems.append(
                error(
                    "torch-pair",
                    path,
                    _(
                        "{name} {asked_for} does not go with torch {version}; take "
                        "{name} {goes_with}{suffix}",
                        name=name,
                        asked_for=public(asked_for),
                        version=asked.version,
                        goes_with=goes_with,
                        suffix=suffix,
                    ),
                )
            )
        elif local(asked_for) != local(torch.torch):
            problems.append(
                error(
                    "torch-pair",
                    path,
                    _(
                        "{name} {asked_for} and torch {torch} are different builds; take "
                        "{name} {goes_with}{suffix}",
                        name=name,
                        asked_for=asked_for,
                        torch=torch.torch,
                        goes_with=goes_with,
                        suffix=suffix,
                    ),
                )
            )
    return problems


def torch_builds_for(release: TorchRelease, cuda: str) -> list[str]:
    """The builds of a release that a CUDA base takes, best first; ["cpu"] without CUDA."""
    if not cuda:
        return [b for b in release.builds if b == "cpu"]
    fitting = [
        b
        for b in release.builds
        if build_cuda(b)
        and major(build_cuda(b)) == major(cuda)
        and key(build_cuda(b)) <= key(minor(cuda))
    ]
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
                _(
                    "the preset has no CUDA but torch {version}'s {build} build brings "
                    "the CUDA libraries along; take {version}+cpu from "
                    "https://download.pytorch.org/whl/cpu",
                    version=asked.version,
                    build=asked.build,
                ),
            )
        ]
    if asked.build == "cpu":
        fit = (
            torch_builds_for(catalog.torch[asked.version], cuda)
            if asked.version in catalog.torch
            else []
        )
        take = f"{asked.version}+{fit[0]}" if fit else f"+cu{minor(cuda).replace('.', '')}"
        return [
            warning(
                "torch-cuda",
                path,
                _(
                    "torch {version}+cpu cannot use a GPU; with CUDA {cuda} take {take}",
                    version=asked.version,
                    cuda=cuda,
                    take=take,
                ),
            )
        ]
    if major(own) != major(cuda):
        take = _torch_instead(asked.version, cuda, python, catalog)
        return [
            error(
                "torch-cuda",
                path,
                _(
                    "torch {version}'s {build} build needs CUDA {own}; with CUDA {cuda} "
                    "take {take}",
                    version=asked.version,
                    build=asked.build,
                    own=major(own),
                    cuda=cuda,
                    take=take,
                )
                if take
                else _(
                    "torch {version}'s {build} build needs CUDA {major}; take a base "
                    "image with CUDA {own}",
                    version=asked.version,
                    build=asked.build,
                    major=major(own),
                    own=own,
                ),
            )
        ]
    if key(own) > key(minor(cuda)):
        take = _torch_instead(asked.version, cuda, python, catalog)
        return [
            warning(
                "torch-cuda",
                path,
                _(
                    "torch {version} carries CUDA {own}, newer than the base image's "
                    "{cuda}, and may need a newer driver; {take} fits",
                    version=asked.version,
                    own=own,
                    cuda=cuda,
                    take=take,
                )
                if take
                else _(
                    "torch {version} carries CUDA {own}, newer than the base image's "
                    "{cuda}, and may need a newer driver",
                    version=asked.version,
                    own=own,
                    cuda=cuda,
                ),
            )
        ]
    return []


def _torch_instead(version: str, cuda: str, python: str, catalog: Catalog) -> str:
    """The nearest ``VERSION+BUILD`` for this CUDA and Python; "" when there is none."""
    fitting = {
        v: torch_builds_for(r, cuda) for v, r in catalog.torch.items() if python in r.pythons
    }
    near = nearest_version(version, (v for v, builds in fitting.items() if builds))
    return f"torch {near}+{fitting[near][0]}" if near else ""


def numpy_allowed(preset: Preset, version: str) -> bool:
    """Whether the resolver may choose this NumPy or a newer one for the preset: nothing pins it below."""
    pins = re.findall(r"(==|~=|<=|<)\s*([0-9][0-9.]*)", _numpy_asked(preset))
    limit = key(version)
    return not any(
        (op in ("==", "~=", "<=") and key(v) < limit) or (op == "<" and key(v) <= limit)
        for op, v in pins
    )


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
    return [
        error(
            "numpy",
            "$.python.packages",
            _(
                'torch {version} does not work with NumPy {limit}, and "{asked}" allows '
                "it; take numpy==1.26.4",
                version=version,
                limit=limit,
                asked=asked,
            )
            if asked
            else _(
                "torch {version} does not work with NumPy {limit}, and no NumPy is "
                "pinned; take numpy==1.26.4",
                version=version,
                limit=limit,
            ),
        )
    ]


def undeclared_problems(preset: Preset) -> list[Problem]:
    """What PyTorch imports without its wheels asking for it (seen by installing 2.1.2: torchvision did not load)."""
    version = public(preset.pytorch.torch) if preset.pytorch else ""
    if (
        not version
        or key(version) >= (2, 2)
        or any(re.match(r"packaging\s*([=<>~!]|$)", p, re.I) for p in preset.packages)
    ):
        return []
    return [
        error(
            "packaging",
            "$.python.packages",
            _(
                "torch {version} imports packaging without asking for it, and "
                "torchvision does not load when it is absent; add packaging==24.1",
                version=version,
            ),
        )
    ]
