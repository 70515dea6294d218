"""List the answers that each question offers: only those that fit the previous answers."""

from __future__ import annotations

from dataclasses import dataclass

from gapforge.base.i18n import _
from gapforge.compat import tensorrt
from gapforge.compat.driver import usual_need
from gapforge.compat.torch import builds_for, check_python
from gapforge.model.catalog import Catalog, CudaImage, TorchRelease
from gapforge.model.preset_rules import TARGET_OS
from gapforge.model.versions import NONE, key, minor, within
from gapforge.store.known_sizes import DownloadSize, KnownSizes

PLAIN_BASE = "ubuntu:22.04"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The user's answers, by flag or at the prompt; None for a question that is not answered.

    ``base`` is an image reference, ``torch`` and ``tensorrt`` a version or "none", ``type``
    "runtime" or "dev".
    """

    preset: str | None = None
    base: str | None = None
    python: str | None = None
    torch: str | None = None
    tensorrt: str | None = None
    type: str | None = None


@dataclass(frozen=True)
class MenuItem:
    """One answer that a question offers. One item of each menu is the default.

    ``state`` is one or two words beside the label, ``note`` the rest.
    """

    value: str
    label: str
    note: str = ""
    default: bool = False
    state: str = ""


@dataclass(frozen=True)
class Base:
    """A pair of base images and their ``cuda`` and ``cudnn`` versions, "" for none."""

    builder: str
    runtime: str
    cuda: str
    cudnn: str


def find_base(reference: str, catalog: Catalog) -> Base | None:
    """Return the base images for a tag, a CUDA version or "ubuntu:22.04"; None if unknown."""
    if reference in (PLAIN_BASE, "cpu", NONE):
        return Base(PLAIN_BASE, PLAIN_BASE, "", "")
    same_cuda = [i for i in catalog.images if reference in (i.cuda, minor(i.cuda))]
    newest = max(same_cuda, key=lambda i: key(i.cuda), default=None)
    image = catalog.image(reference) or newest
    if image is None:
        return None
    cudnn = minor(image.cudnn) if image.cudnn else image.cudnn_major
    return Base(image.builder, image.runtime, minor(image.cuda), cudnn)


def base_menu(catalog: Catalog, sizes: KnownSizes | None = None) -> list[MenuItem]:
    """Return the newest image of each CUDA series, newest first, and one without CUDA.

    The default is the newest that is confirmed with OpenCV. With ``sizes`` each item, here and in
    the other menus, shows how much it would add to the download, if that is known.
    """
    by_series: dict[str, CudaImage] = {}
    for image in sorted(catalog.images, key=lambda i: key(i.cuda), reverse=True):
        by_series.setdefault(minor(image.cuda), image)
    images = list(by_series.values())
    confirmed = (i for i in images if within(minor(i.cuda), *catalog.opencv_confirmed))
    default = next(confirmed, images[0] if images else None)
    menu = []
    for image in images:
        lowest = usual_need(image.cuda, catalog).lowest
        notes = [
            f"cuDNN {image.cudnn or image.cudnn_major}",
            _("driver {lowest} or newer", lowest=lowest) if lowest else "",
            "" if catalog.opencv_for(image.cuda) else _("not confirmed with OpenCV"),
            sizes.image(image.builder, image.runtime).note if sizes else "",
        ]
        menu.append(MenuItem(image.builder, f"CUDA {image.cuda}", _joined(notes), image is default))
    notes = [PLAIN_BASE, sizes.image(PLAIN_BASE).note if sizes else ""]
    return [*menu, MenuItem(PLAIN_BASE, _("no CUDA"), _joined(notes), not menu)]


def python_menu(base: Base, catalog: Catalog) -> list[MenuItem]:
    """Return the Pythons that have a PyTorch; the default is the newest without a finding."""
    known = sorted(catalog.ubuntu_pythons, key=key, reverse=True)
    offered = [p for p in known if torch_releases(base, p, catalog)] or known
    notes = {p: [f.text for f in check_python(p, TARGET_OS, False, catalog)] for p in offered}
    default = next((p for p in offered if not notes[p]), offered[0] if offered else "")
    return [MenuItem(p, f"Python {p}", "; ".join(notes[p]), p == default) for p in offered]


def torch_releases(base: Base, python: str, catalog: Catalog) -> list[tuple[TorchRelease, str]]:
    """Return the PyTorch releases for a base image, newest first, each with its best build."""
    found = []
    for release in catalog.torch.values():
        builds = builds_for(release, base.cuda)
        if builds and python in release.pythons:
            found.append((release, builds[0]))
    return sorted(found, key=lambda pair: key(pair[0].torch), reverse=True)


def torch_menu(
    base: Base, python: str, catalog: Catalog, sizes: KnownSizes | None = None
) -> list[MenuItem]:
    """Return the newest release of each PyTorch series (default: the newest of all), and none."""
    menu: dict[str, MenuItem] = {}
    for release, build in torch_releases(base, python, catalog):
        if minor(release.torch) in menu:
            continue
        audio = release.torchaudio
        notes = [
            build,
            f"torchvision {release.torchvision}",
            f"torchaudio {audio}" if audio else _("no torchaudio"),
            _wheel_size(release, build, python, sizes).note if sizes else "",
        ]
        label = f"PyTorch {release.torch}"
        menu[minor(release.torch)] = MenuItem(release.torch, label, _joined(notes), not menu)
    return [*menu.values(), MenuItem(NONE, _("without PyTorch"), "", not menu)]


def _wheel_size(release: TorchRelease, build: str, python: str, sizes: KnownSizes) -> DownloadSize:
    """Return the size of a release's wheels, from PyTorch's index or the default one."""
    size = sizes.packages(python, *release.packages(build).items())
    if size.size is None and build == release.default_build:
        return sizes.packages(python, *release.packages().items())
    return size


def tensorrt_menu(
    base: Base, python: str, catalog: Catalog, sizes: KnownSizes | None = None
) -> list[MenuItem]:
    """Return the TensorRT releases that fit, newest first, and none.

    The default is ``tensorrt.nearest_release``. A build for a newer CUDA than the base image's is
    offered only if NVIDIA documents that it supports it.
    """
    releases = tensorrt.releases_for(base.cuda, base.cudnn, python, catalog)
    nearest = tensorrt.nearest_release(base.cuda, base.cudnn, python, catalog)
    default = nearest.version if nearest else ""
    menu = []
    for release in releases:
        tar = release.tar_for(base.cuda)
        assert tar is not None  # releases_for returns only releases with a tar file
        supported = tar.supports_cuda(base.cuda)
        if not supported and key(tar.cuda) > key(base.cuda):
            continue
        binding_unknown = release.pythons and release.has_binding(python) is None
        notes = [
            _("built for CUDA {cuda}", cuda=tar.cuda),
            "" if supported else _("not confirmed with this CUDA"),
            _("Python {python} not confirmed", python=python) if binding_unknown else "",
            sizes.file(tar.sha256, tar.size).note if sizes else "",
            "" if tar.sha256 else _("no published checksum"),
        ]
        label, is_default = f"TensorRT {release.version}", release.version == default
        menu.append(MenuItem(release.version, label, _joined(notes), is_default))
    return [*menu, MenuItem(NONE, _("without TensorRT"), "", not default)]


def type_menu() -> list[MenuItem]:
    """Return the two images: runtime (the default) and dev."""
    return [
        MenuItem("runtime", "Runtime", _("for deployment: no compiler, no headers"), True),
        MenuItem("dev", "Dev", _("for development: tools, headers and sources"), False),
    ]


def _joined(notes: list[str]) -> str:
    return ", ".join(note for note in notes if note)
