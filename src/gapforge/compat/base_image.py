"""Check the base images against the preset's CUDA and cuDNN."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gapforge.base.i18n import _
from gapforge.compat.findings import Finding, error, nearest_version, unknown, use, use_nearest
from gapforge.model.catalog import Catalog
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset
from gapforge.model.versions import begins_with, key, major, minor

_CUDA_IMAGE = re.compile(r"(?:^|/)nvidia/cuda:([0-9]+\.[0-9]+)(?:\.[0-9]+)?-(.*)$")

# How the names of public images, and the suites of mmdebstrap, name an operating system.
_OS_IN_TAG = re.compile(
    r"(?:^|[:-])(ubuntu|debian|rockylinux|almalinux|centos|fedora|ubi|alpine)[:-]?([0-9]+(?:\.[0-9]+)*)"
)
_OS_IDS = {"rockylinux": "rocky", "ubi": "rhel"}
_CODENAMES = {
    "bullseye": ("debian", "11"),
    "bookworm": ("debian", "12"),
    "trixie": ("debian", "13"),
    "focal": ("ubuntu", "20.04"),
    "jammy": ("ubuntu", "22.04"),
    "noble": ("ubuntu", "24.04"),
}


def check(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield every contradiction between a CUDA base image and the rest of the preset."""
    opencv = preset.component("opencv")
    for role in ROLES:
        image = preset.base(role).image
        yield from _check_os(preset, role)
        match = _CUDA_IMAGE.search(image)
        if not match:
            continue
        image_cuda, tag = match.groups()
        path = f"$.base.{role}.image"
        yield from _check_cuda(preset, catalog, role, image_cuda)
        yield from _check_cudnn(preset, catalog, role, tag)
        if role == "builder" and "devel" not in tag and opencv and opencv.flag("cuda"):
            reason = _("{image} has no nvcc, which OpenCV with CUDA needs", image=image)
            yield error("base-devel", path, reason, _("use the -devel- tag"))
        if catalog.image(image) is None and "cudnn" in tag:
            near = use_nearest(_nearest_image(preset.cuda, role, catalog))
            yield unknown(path, image, "CUDA, cuDNN", near)


def _nearest_image(cuda: str, role: str, catalog: Catalog) -> str:
    """Return the newest image of this CUDA series in the catalog, else of the nearest series."""
    near = nearest_version(minor(cuda), (minor(image.cuda) for image in catalog.images))
    fitting = [getattr(i, role) for i in catalog.images if minor(i.cuda) == near]
    return fitting[-1] if fitting else ""


def _check_os(preset: Preset, role: str) -> Iterator[Finding]:
    """Yield an error if the name of the base image says another operating system than the preset.

    `sync` reads the operating system from the image itself; a name is known before the download.
    """
    base = preset.base(role)
    os_id = os_version = ""
    if match := _OS_IN_TAG.search(base.image.rpartition("/")[2]):
        os_id, os_version = _OS_IDS.get(match[1], match[1]), match[2]
    named = [name for name in (base.suite, *re.split(r"[:@-]", base.image)) if name in _CODENAMES]
    if named:
        os_id, os_version = _CODENAMES[named[0]]
    same = os_id == preset.os_id and begins_with(os_version, preset.os_version)
    if not os_id or same:
        return
    found = f"{os_id} {os_version}"
    reason = _("the base image is {found}, but os is {wanted}", found=found, wanted=preset.os)
    suggestion = _("use a base image of {wanted}", wanted=preset.os)
    yield error("base-os", f"$.base.{role}", reason, suggestion)


def _check_cuda(preset: Preset, catalog: Catalog, role: str, image_cuda: str) -> Iterator[Finding]:
    path = f"$.base.{role}.image"
    if not preset.cuda:
        reason = _("the base image has CUDA {image_cuda}, but cuda is null", image_cuda=image_cuda)
        yield error("base-cuda", path, reason, use(f'"cuda": "{image_cuda}"', "ubuntu:22.04"))
    elif minor(preset.cuda) != image_cuda:
        same = [i for i in catalog.images if minor(i.cuda) == minor(preset.cuda)]
        reason = _(
            "the base image has CUDA {image_cuda}, but cuda is {cuda}",
            image_cuda=image_cuda,
            cuda=preset.cuda,
        )
        fitting = getattr(same[-1], role) if same else f'"cuda": "{image_cuda}"'
        yield error("base-cuda", path, reason, use(fitting))


def _check_cudnn(preset: Preset, catalog: Catalog, role: str, tag: str) -> Iterator[Finding]:
    image, path = preset.base(role).image, f"$.base.{role}.image"
    match = re.search(r"cudnn([0-9]*)", tag)
    if not match:
        packages = preset.apt_builder if role == "builder" else preset.apt_runtime
        if preset.cudnn and not any(p.startswith("libcudnn") for p in packages):
            reason = _(
                "the preset uses cuDNN {cudnn}, but {image} has none",
                cudnn=preset.cudnn,
                image=image,
            )
            suggestion = _("use a tag with cudnn, or add a libcudnn package")
            yield error("base-cudnn", path, reason, suggestion)
        return
    known = catalog.image(image)
    by_tag = match[1] or ("9" if key(preset.cuda) >= (12, 4) else "")
    found = known.cudnn_major if known else by_tag
    if found and preset.cudnn and found != major(preset.cudnn):
        reason = _(
            "{image} has cuDNN {image_cudnn}, but cudnn is {cudnn}",
            image=image,
            image_cudnn=found,
            cudnn=preset.cudnn,
        )
        suggestion = _('use "cudnn": "{image_cudnn}" or another tag', image_cudnn=found)
        yield error("base-cudnn", path, reason, suggestion)
