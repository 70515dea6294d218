"""Base images as OCI layouts: from a registry, a `docker save` archive, or packages."""

from __future__ import annotations

from pathlib import Path

from gapforge.base.errors import CompatibilityError, Fault, FetchError, ResolveError, StorageError
from gapforge.base.files import sha256_file
from gapforge.base.i18n import _
from gapforge.base.path_checks import inside
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.storage_errors import storage_errors
from gapforge.model import debian_control
from gapforge.model.lock import LockedImage
from gapforge.model.preset import BaseImage, Preset
from gapforge.model.versions import begins_with
from gapforge.sync import mmdebstrap_base, oci_layout, registry_images
from gapforge.sync.base_image_facts import facts, read_files
from gapforge.sync.docker_archive import import_archive
from gapforge.sync.network import Network


def fetch(
    base: BaseImage,
    project: Project,
    epoch: int,
    destination: Path,
    network: Network,
    progress: Progress,
) -> LockedImage:
    """Fill ``destination``, a new or empty folder, with the base image as an OCI layout.

    Every byte is verified. ``epoch`` (seconds since 1970) is the date of an image that is made
    here. Raise FetchError if the image is not available or not the pinned one, TargetError for
    another platform, ToolError for a missing program.
    """
    with storage_errors(destination):
        destination.mkdir(parents=True, exist_ok=True)
        if any(destination.iterdir()):
            raise StorageError(
                _("{destination}: a base image needs an empty folder", destination=destination)
            )
    if base.image:
        reference = registry_images.copy(base, project, destination, network, progress)
    elif base.archive:
        reference = _from_archive(base, project, destination, progress)
    else:
        network.require(_("making the base image {suite}", suite=base.suite))
        mmdebstrap_base.make(base, epoch, destination, network, progress)
        _check_included(base, destination)
        reference = base.label
    image = describe(destination, reference)
    contents = [f"{image.os_id} {image.os_version}"]
    contents += [f"CUDA {image.cuda}"] if image.cuda else []
    contents += [f"cuDNN {image.cudnn}"] if image.cudnn else []
    progress.note(
        _("base image {label}: {contents}", label=base.label, contents=", ".join(contents))
    )
    return image


def _check_included(base: BaseImage, destination: Path) -> None:
    """Raise ResolveError for packages of ``include`` that APT did not take as names."""
    files = read_files(oci_layout.read_layout(destination))
    if absent := debian_control.absent(base.include, files.installed()):
        raise ResolveError(
            _("the base image {label} lacks packages that the preset includes", label=base.label),
            faults=[
                Fault(name, _("is not a package of {suite}", suite=base.suite)) for name in absent
            ],
            hint=_("correct $.base.*.mmdebstrap.include in the preset"),
        )


def describe(folder: Path, reference: str) -> LockedImage:
    """Return what the image in the layout ``folder`` contains, as the lock records it.

    Raise FetchError.
    """
    layout = oci_layout.read_layout(folder)
    found = facts(layout, read_files(layout))
    return LockedImage(
        reference=reference,
        manifest_digest=layout.manifest.digest,
        config_digest=layout.config_blob.digest,
        os_id=found.os_id,
        os_version=found.os_version,
        cuda=found.cuda,
        cudnn=found.cudnn,
    )


def installed(folder: Path) -> dict[str, str]:
    """Return the packages that the image in the layout ``folder`` has: name -> version."""
    stanzas = read_files(oci_layout.read_layout(folder)).installed()
    return {stanza.get("package", ""): stanza.get("version", "") for stanza in stanzas}


def is_same(image: LockedImage, locked: LockedImage) -> bool:
    """Return whether ``image`` is the locked one, of which perhaps only the manifest was read."""
    if locked.os_id:
        return image == locked
    return (image.reference, image.manifest_digest, image.config_digest) == (
        locked.reference,
        locked.manifest_digest,
        locked.config_digest,
    )


def check_base(preset: Preset, role: str, image: LockedImage) -> list[str]:
    """Return a warning for CUDA and for cuDNN if the builder image does not state its version.

    Raise CompatibilityError for an image with another version than the preset's, which is how a
    moved tag shows (11.8.0-cudnn8 changed its cuDNN). A preset without ``cuda`` or ``cudnn``
    accepts any.
    """
    faults, warnings = [], []
    for product, wanted, found in (
        ("CUDA", preset.cuda, image.cuda),
        ("cuDNN", preset.cudnn, image.cudnn),
    ):
        if wanted and found and not begins_with(found, wanted):
            faults.append(
                Fault(
                    _("base image of {role} ({reference})", role=role, reference=image.reference),
                    _("has {product} {found}", product=product, found=found),
                    f"{product} {wanted}",
                )
            )
        elif wanted and not found and role == "builder":
            warnings.append(
                _(
                    "{reference} does not state its {product} version; the preset has {wanted}",
                    reference=image.reference,
                    product=product,
                    wanted=wanted,
                )
            )
    if faults:
        raise CompatibilityError(
            _("the base image does not match presets/{name}.json", name=preset.name),
            faults=faults,
            hint=_(
                "specify a matching image under base.{role} (by digest if its tag has "
                "moved), or correct cuda and cudnn (cudnn null accepts any version), then: "
                "./gapforge check {name!q}",
                role=role,
                name=preset.name,
            ),
        )
    return warnings


def _from_archive(base: BaseImage, project: Project, destination: Path, progress: Progress) -> str:
    """Import the archive that the preset names. Return the image's reference for the lock."""
    absolute = base.archive.startswith("/")
    file = Path(base.archive) if absolute else inside(project.root, base.archive)
    if not file.is_file():
        raise FetchError(
            _("base image archive {archive} does not exist", archive=base.archive),
            faults=[Fault(str(file), _("does not exist"))],
            hint=_(
                "on the machine that has the image: docker save NAME:TAG -o {name!q}; then "
                "copy it to {file}",
                name=file.name,
                file=file,
            ),
        )
    with storage_errors(file):
        actual = sha256_file(file, progress.add)
    if base.archive_sha256 and actual != base.archive_sha256:
        raise FetchError(
            _(
                "base image archive {archive} is not the one that the preset names",
                archive=base.archive,
            ),
            faults=[Fault(str(file), _("SHA-256 is {actual}", actual=actual), base.archive_sha256)],
            hint=_(
                "copy the right file, or write its checksum into the preset: sha256sum {file!q}",
                file=file,
            ),
        )
    name = import_archive(file, destination)
    return f"{name or base.archive}@sha256:{actual}"
