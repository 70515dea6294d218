"""What each question offers: only what still fits the answers so far. Pure functions; no terminal."""

from __future__ import annotations

from dataclasses import dataclass

from gapforge.base.i18n import _
from gapforge.compat import tensorrt
from gapforge.compat.catalog import Catalog, CudaImage, TensorRTRelease, TorchRelease
from gapforge.compat.rules import python_problems, torch_builds_for
from gapforge.compat.versions import key, minor, within
from gapforge.model.preset import TARGET_OS
from gapforge.store.known_sizes import DownloadSize, KnownSizes

NONE = "none"
PLAIN_BASE = "ubuntu:22.04"


@dataclass(frozen=True)
class Choices:
    """Answers, by flag or at the prompt; None is "not said".

    ``base`` is an image reference, ``torch`` and ``tensorrt`` a version or "none", ``type`` "runtime" or "dev".
    """

    preset: str | None = None
    base: str | None = None
    python: str | None = None
    torch: str | None = None
    tensorrt: str | None = None
    type: str | None = None


@dataclass(frozen=True)
class Option:
    """One line of a question: ``value`` is the answer, the rest is shown. One option of a list is ``default``."""

    value: str
    label: str
    note: str = ""
    default: bool = False


@dataclass(frozen=True)
class Base:
    """What the chosen base image brings. ``cuda`` and ``cudnn`` are "" for a base without."""

    builder: str
    runtime: str
    cuda: str
    cudnn: str


def base_of(reference: str, catalog: Catalog) -> Base | None:
    """The base that ``reference`` names: a tag of the catalog, "ubuntu:22.04", or a CUDA version ("12.4");
    None for an image that the catalog does not know."""
    if reference in (PLAIN_BASE, "cpu", NONE):
        return Base(PLAIN_BASE, PLAIN_BASE, "", "")
    image = catalog.image(reference)
    if image is None:
        same = [i for i in catalog.images if reference in (i.cuda, minor(i.cuda))]
        image = max(same, key=lambda i: key(i.cuda), default=None)
    if image is None:
        return None
    cudnn = minor(image.cudnn) if image.cudnn else image.cudnn_major
    return Base(image.builder, image.runtime, minor(image.cuda), cudnn)


def base_options(catalog: Catalog, holdings: KnownSizes | None = None) -> list[Option]:
    """One base image for each CUDA, newest first, and one without; default: the newest that OpenCV is confirmed with.

    ``holdings`` adds to every option of every question what it would add to download, where that is known.
    """
    newest: dict[str, CudaImage] = {}
    for image in catalog.images:
        known = newest.get(minor(image.cuda))
        if known is None or key(image.cuda) > key(known.cuda):
            newest[minor(image.cuda)] = image
    images = sorted(newest.values(), key=lambda i: key(i.cuda), reverse=True)
    first, last = catalog.opencv_confirmed
    default = next(
        (i for i in images if within(minor(i.cuda), first, last)), images[0] if images else None
    )
    options = []
    for image in images:
        note = [f"cuDNN {image.cudnn or image.cudnn_major}"]
        if least := catalog.minor_drivers.get(image.cuda.split(".")[0]):
            note.append(_("driver {least} or newer", least=least))
        if not catalog.opencv_for(image.cuda):
            note.append(_("not confirmed with OpenCV"))
        note.append(holdings.image(image.builder, image.runtime).note if holdings else "")
        options.append(Option(image.builder, f"CUDA {image.cuda}", _listed(note), image is default))
    note = [PLAIN_BASE, holdings.image(PLAIN_BASE).note if holdings else ""]
    options.append(Option(PLAIN_BASE, _("no CUDA"), _listed(note), not options))
    return options


def python_options(base: Base, catalog: Catalog) -> list[Option]:
    """The Pythons of the target that some PyTorch goes with; default: the newest without a reservation."""
    found = sorted(catalog.ubuntu_pythons, key=key, reverse=True)
    served = [p for p in found if torch_releases(base, p, catalog)] or found
    calm = [p for p in served if not python_problems(p, TARGET_OS, False, catalog)]
    default = (calm or served or [""])[0]
    options = []
    for python in served:
        notes = [p.text for p in python_problems(python, TARGET_OS, False, catalog)]
        options.append(Option(python, f"Python {python}", "; ".join(notes), python == default))
    return options


def torch_releases(base: Base, python: str, catalog: Catalog) -> list[tuple[TorchRelease, str]]:
    """Releases with a build for this base and wheels for this Python, newest first, each with its best build."""
    found = []
    for release in catalog.torch.values():
        builds = torch_builds_for(release, base.cuda)
        if builds and python in release.pythons:
            found.append((release, builds[0]))
    return sorted(found, key=lambda pair: key(pair[0].torch), reverse=True)


def torch_options(
    base: Base, python: str, catalog: Catalog, holdings: KnownSizes | None = None
) -> list[Option]:
    """The newest patch of each PyTorch series that fits, newest first, and none; default: the newest."""
    options: list[Option] = []
    seen: set[str] = set()
    for release, build in torch_releases(base, python, catalog):
        if minor(release.torch) in seen:
            continue
        seen.add(minor(release.torch))
        parts = [build, f"torchvision {release.torchvision}"]
        parts.append(
            f"torchaudio {release.torchaudio}" if release.torchaudio else _("no torchaudio")
        )
        parts.append(_torch_held(release, build, holdings).note if holdings else "")
        options.append(
            Option(release.torch, f"PyTorch {release.torch}", _listed(parts), not options)
        )
    return [*options, Option(NONE, _("without PyTorch"), "", not options)]


def _torch_held(release: TorchRelease, build: str, holdings: KnownSizes) -> DownloadSize:
    """The three wheels under their names in PyTorch's index, else in the default one."""
    trio = {
        "torch": release.torch,
        "torchvision": release.torchvision,
        "torchaudio": release.torchaudio,
    }
    held = holdings.packages(
        *((name, f"{version}+{build}") for name, version in trio.items() if version)
    )
    if held.size is None and build == release.default_build:
        return holdings.packages(*((name, version) for name, version in trio.items() if version))
    return held


def tensorrt_options(
    base: Base, python: str, catalog: Catalog, holdings: KnownSizes | None = None
) -> list[Option]:
    """The TensorRT releases that fit, newest first, and none; default: the newest whose range is published.

    A build for a newer CUDA than the base's is offered only where NVIDIA published that it serves.
    """
    releases = tensorrt.releases_for(base.cuda, base.cudnn, python, catalog) if base.cuda else []
    sure = (
        [
            r
            for r in tensorrt.releases_for(base.cuda, base.cudnn, python, catalog, sure=True)
            if _hash(r, base.cuda)
        ]
        if base.cuda
        else []
    )
    default = sure[0].version if sure else NONE
    options = []
    for release in releases:
        tar = tensorrt.tar_for(release, base.cuda)
        assert tar is not None  # releases_for gives only those with a tar
        if tensorrt.fit(tar, base.cuda) != "yes" and key(tar.cuda) > key(base.cuda):
            continue
        note = [_("built for CUDA {cuda}", cuda=tar.cuda)]
        if tensorrt.fit(tar, base.cuda) != "yes":
            note.append(_("not confirmed with this CUDA"))
        if release.pythons and release.binds(python) is None:
            note.append(_("its binding for Python {python} not confirmed", python=python))
        note.append(holdings.file(tar.sha256, tar.size).note if holdings else "")
        if not tar.sha256:
            note.append(_("no published hash"))
        options.append(
            Option(
                release.version,
                f"TensorRT {release.version}",
                _listed(note),
                release.version == default,
            )
        )
    return [*options, Option(NONE, _("without TensorRT"), "", default == NONE)]


def type_options() -> list[Option]:
    """Runtime (default) or dev."""
    return [
        Option("runtime", "Runtime", _("for deployment: no compiler, no headers"), True),
        Option("dev", "Dev", _("for development: tools, headers and sources"), False),
    ]


def _listed(notes: list[str]) -> str:
    return ", ".join(note for note in notes if note)


def _hash(release: TensorRTRelease, cuda: str) -> str:
    tar = tensorrt.tar_for(release, cuda)
    return tar.sha256 if tar else ""
