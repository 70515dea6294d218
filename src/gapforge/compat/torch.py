"""Check Python, PyTorch and NumPy against the base image and each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gapforge.base.i18n import _
from gapforge.compat.findings import (
    Finding,
    error,
    nearest_version,
    unknown,
    use,
    use_nearest,
    warning,
)
from gapforge.compat.gpu_code import runs, torch_code
from gapforge.model.catalog import Catalog, TorchRelease
from gapforge.model.preset import Preset, PyTorch
from gapforge.model.preset_rules import TARGET_OS
from gapforge.model.versions import key, local, major, minor, public

_PATH = "$.pytorch.torch"
_INDEX = "https://download.pytorch.org/whl/"


@dataclass(frozen=True)
class TorchBuild:
    """The PyTorch that a preset asks for; ``build`` is "cpu", "cu118", …, or "" if unknown."""

    version: str
    build: str


def check(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield every incompatibility of the preset's Python, PyTorch and NumPy."""
    os = (preset.os_id, preset.os_version)
    yield from check_python(preset.python, os, bool(preset.apt_sources), catalog)
    if preset.pytorch is None:
        return
    wanted = wanted_build(preset.pytorch, catalog)
    release = catalog.torch.get(wanted.version)
    yield from _check_index(preset.pytorch)
    if release is None:
        near = use_nearest(nearest_version(wanted.version, catalog.torch))
        yield unknown(_PATH, f"torch {wanted.version}", "Python, CUDA, GPU", near)
    else:
        yield from _check_build(wanted, release, catalog)
        yield from _check_python_wheels(release, preset.python, catalog)
        yield from _check_companions(preset.pytorch, release)
    yield from _check_cuda(wanted, preset, catalog)
    yield from _check_gpus(wanted, preset, catalog)
    yield from _check_numpy(preset, wanted.version, release)
    yield from _check_packaging(preset, wanted.version)


def check_python(
    python: str, os: tuple[str, str], extra_source: bool, catalog: Catalog
) -> list[Finding]:
    """Check that Ubuntu 22.04's archive has this Python; other systems are not checked."""
    origin = catalog.ubuntu_pythons.get(python)
    path = "$.python.version"
    if os != TARGET_OS or extra_source:
        return []
    if origin is None:
        reason = _("Ubuntu 22.04's archive has no Python {python}", python=python)
        suggestion = _("use Python 3.10, or add an archive that has it to apt.sources")
        return [error("python-source", path, reason, suggestion)]
    if origin == "release-candidate":
        reason = _("Ubuntu 22.04's Python {python} is a release candidate", python=python)
        return [warning("python-source", path, reason, use("Python 3.10"))]
    return []


def wanted_build(torch: PyTorch, catalog: Catalog) -> TorchBuild:
    """Return the build that a preset asks for: in the version, by the index, or the default."""
    version, build = public(torch.torch), local(torch.torch)
    release = catalog.torch.get(version)
    if not build and torch.index == "default":
        build = release.default_build if release else ""
    return TorchBuild(version, build or _index_build(torch.index))


def _build_cuda(build: str) -> str:
    """Return the CUDA of a build: "cu118" gives "11.8", "cpu" gives ""."""
    digits = build.removeprefix("cu")
    return f"{digits[:-1]}.{digits[-1]}" if digits.isdigit() else ""


def cuda_build(cuda: str) -> str:
    """Return the build for a CUDA: "11.8.0" gives "cu118", "" gives "cpu"."""
    return f"cu{minor(cuda).replace('.', '')}" if cuda else "cpu"


def builds_for(release: TorchRelease, cuda: str) -> list[str]:
    """Return the builds of a release for a CUDA base image, best first; ["cpu"] without CUDA."""
    if not cuda:
        return [b for b in release.builds if b == "cpu"]
    of_cuda = {b: _build_cuda(b) for b in release.builds if b != "cpu"}
    fitting = [
        b for b, c in of_cuda.items() if major(c) == major(cuda) and key(c) <= key(minor(cuda))
    ]
    return sorted(fitting, key=lambda b: key(of_cuda[b]), reverse=True)


def allows_numpy(preset: Preset, version: str) -> bool:
    """Return whether the preset's constraints allow this NumPy version or a newer one."""
    limit = key(version)
    constraints = re.findall(r"(==|~=|<=|<)\s*([0-9][0-9.]*)", _numpy_requirement(preset))
    return not any(key(v) < limit or (op == "<" and key(v) == limit) for op, v in constraints)


def _numpy_requirement(preset: Preset) -> str:
    return next((p for p in preset.packages if _names(p, "numpy")), "")


def _names(requirement: str, package: str) -> bool:
    return re.match(rf"{package}\s*([=<>~!]|$)", requirement, re.IGNORECASE) is not None


def _index_build(index: str) -> str:
    """Return the build that a PyTorch index has, from its URL; "" if the URL does not tell."""
    match = re.search(r"/(cpu|cu[0-9]+)/?$", index)
    return match[1] if match else ""


def _check_index(torch: PyTorch) -> Iterator[Finding]:
    build, index_build = local(torch.torch), _index_build(torch.index)
    path = "$.pytorch.index"
    if build and torch.index == "default":
        reason = _("the default index has no torch {version}", version=torch.torch)
        yield error("torch-index", path, reason, use(f'"index": "{_INDEX}{build}"'))
    elif build and index_build and index_build != build:
        reason = _(
            "torch {version} is not in the index for {index_build}",
            version=torch.torch,
            index_build=index_build,
        )
        suggestion = _("end the index URL with {build}", build=build)
        yield error("torch-index", path, reason, suggestion)


def _check_build(wanted: TorchBuild, release: TorchRelease, catalog: Catalog) -> Iterator[Finding]:
    if not wanted.build or wanted.build in release.builds:
        return
    having = (v for v, r in catalog.torch.items() if wanted.build in r.builds)
    other = nearest_version(wanted.version, having)
    reason = _(
        "torch {version} has no {build} build, only {builds}",
        version=wanted.version,
        build=wanted.build,
        builds=", ".join(release.builds),
    )
    yield error("torch-build", _PATH, reason, use(f"torch {other}+{wanted.build}" if other else ""))


def _check_python_wheels(release: TorchRelease, python: str, catalog: Catalog) -> Iterator[Finding]:
    if python in release.pythons:
        return
    having = (v for v, r in catalog.torch.items() if python in r.pythons)
    other = nearest_version(release.torch, having)
    reason = _(
        "torch {version} has no wheels for Python {python}", version=release.torch, python=python
    )
    suggestion = use(f"Python {', '.join(release.pythons)}", f"torch {other}" if other else "")
    yield error("torch-python", _PATH, reason, suggestion)


def _check_companions(torch: PyTorch, release: TorchRelease) -> Iterator[Finding]:
    """Yield what is wrong with the torchvision and torchaudio that the preset names."""
    fitting = release.packages(local(torch.torch))
    for name, wanted in (("torchvision", torch.torchvision), ("torchaudio", torch.torchaudio)):
        path = f"$.pytorch.{name}"
        if wanted in ("", fitting.get(name)):
            continue
        if name not in fitting:
            reason = _("there is no {name} for torch {version}", name=name, version=release.torch)
            yield error("torch-pair", path, reason, _("remove {name}", name=name))
            continue
        if public(wanted) != public(fitting[name]):
            reason = _(
                "{name} {wanted} is not compatible with torch {version}",
                name=name,
                wanted=public(wanted),
                version=release.torch,
            )
        else:
            reason = _(
                "{name} {wanted} and torch {version} are different builds",
                name=name,
                wanted=wanted,
                version=torch.torch,
            )
        yield error("torch-pair", path, reason, use(f"{name} {fitting[name]}"))


def _check_cuda(wanted: TorchBuild, preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    version, cuda, own = wanted.version, preset.cuda, _build_cuda(wanted.build)
    if not wanted.build or wanted.build == cuda_build(cuda):
        return
    if not cuda:
        reason = _(
            "the preset has no CUDA, but torch {version}+{build} installs the CUDA libraries",
            version=version,
            build=wanted.build,
        )
        suggestion = use(f"torch {version}+cpu ({_INDEX}cpu)")
        yield warning("torch-cuda", _PATH, reason, suggestion)
    elif major(own) != major(cuda):
        reason = _(
            "torch {version}+{build} needs CUDA {needed}, but the base image has CUDA {cuda}",
            version=version,
            build=wanted.build,
            needed=major(own),
            cuda=cuda,
        )
        other = _nearest_fitting(version, preset, catalog)
        suggestion = use(other) or _("use a base image with CUDA {cuda}", cuda=own)
        yield error("torch-cuda", _PATH, reason, suggestion)
    elif key(own) > key(minor(cuda)):
        reason = _(
            "torch {version} contains CUDA {own}, which is newer than the base image's {cuda} and "
            "may need a newer driver",
            version=version,
            own=own,
            cuda=cuda,
        )
        yield warning("torch-cuda", _PATH, reason, use(_nearest_fitting(version, preset, catalog)))


def _check_gpus(wanted: TorchBuild, preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield a finding if torch has no code for a GPU for which the preset compiles OpenCV."""
    opencv = preset.component("opencv")
    named = opencv.list("architectures") if opencv and opencv.flag("cuda") else ()
    if not named or not preset.cuda or wanted.build in ("", "cpu"):
        return
    name = f"torch {wanted.version}+{wanted.build}"
    code = torch_code(wanted.version, wanted.build, catalog)
    if code is None:
        if wanted.version in catalog.torch:  # else it is unknown in every respect
            yield unknown(_PATH, name, "GPU", "")
        return
    lacking = [compute for compute in named if not runs(compute, code)]
    if lacking:
        reason = _(
            "{name} has no code for compute {compute}, for which the preset compiles OpenCV: on "
            "such a GPU every operation of PyTorch fails",
            name=name,
            compute=", ".join(lacking),
        )
        other = _nearest_fitting(wanted.version, preset, catalog, named)
        remove = _("remove {compute} from opencv.architectures", compute=", ".join(lacking))
        yield error("torch-gpu", _PATH, reason, use(other) or remove)


def _nearest_fitting(
    version: str, preset: Preset, catalog: Catalog, gpus: tuple[str, ...] = ()
) -> str:
    """Return the nearest "torch VERSION+BUILD" for the preset's CUDA and Python; "" if none.

    It has code for all ``gpus``.
    """
    builds = {
        v: fitting[0]
        for v, release in catalog.torch.items()
        if preset.python in release.pythons
        and (
            fitting := [
                build
                for build in builds_for(release, preset.cuda)
                if all(runs(gpu, torch_code(v, build, catalog) or ()) for gpu in gpus)
            ]
        )
    }
    near = nearest_version(version, builds)
    return f"torch {near}+{builds[near]}" if near else ""


def _check_numpy(preset: Preset, version: str, release: TorchRelease | None) -> Iterator[Finding]:
    """Yield a finding if the resolver may choose a NumPy that is too new for PyTorch."""
    limit = release.numpy_below if release else ("2" if key(version) < (2, 3) else "")
    if not limit or not allows_numpy(preset, limit):
        return
    requirement = _numpy_requirement(preset)
    if requirement:
        reason = _(
            'torch {version} does not work with NumPy {limit}, but "{requirement}" allows it',
            version=version,
            limit=limit,
            requirement=requirement,
        )
    else:
        reason = _(
            "torch {version} does not work with NumPy {limit}, but NumPy is not pinned",
            version=version,
            limit=limit,
        )
    yield error("numpy", "$.python.packages", reason, use(f"numpy<{limit}"))


def _check_packaging(preset: Preset, version: str) -> Iterator[Finding]:
    """Yield a finding if packaging is absent: without it torchvision did not load (torch 2.1.2)."""
    if key(version) < (2, 2) and not any(_names(p, "packaging") for p in preset.packages):
        reason = _(
            "torch {version} needs packaging but does not declare it, and torchvision does not "
            "load without it",
            version=version,
        )
        suggestion = _("add {name}", name="packaging==24.1")
        yield error("packaging", "$.python.packages", reason, suggestion)
