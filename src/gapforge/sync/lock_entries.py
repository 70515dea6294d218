"""Entries of a lock made from what was found, and whether a base image is the one that was meant. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gapforge.base.errors import CompatibilityError, Fault, ResolveError
from gapforge.base.i18n import _
from gapforge.model.lock import Entry, LockedImage
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset
from gapforge.sync.apt import DebFile

BUILDER, RUNTIME = ROLES


def image_entries(role: str, files: Mapping[str, tuple[str, int]]) -> list[Entry]:
    """The entries of a base image's layout: path -> (sha256, size)."""
    return [
        Entry(
            kind="image",
            path=f"images/{role}/{path}",
            sha256=sha256,
            size=size,
            origin="image",
            name=role,
            roles=(role,),
        )
        for path, (sha256, size) in sorted(files.items())
    ]


def deb_entries(closures: Mapping[str, Sequence[DebFile]]) -> list[Entry]:
    """The .debs of all roles; one that both roles need is one entry. ResolveError for two of the same name."""
    entries: dict[str, Entry] = {}
    for role in ROLES:
        for deb in closures[role]:
            path = f"debs/{deb.file}"
            if path in entries and entries[path].sha256 != deb.sha256:
                raise ResolveError(
                    _("builder and runtime need different files of the name {file}", file=deb.file),
                    hint=_("give both roles bases with the same APT sources"),
                )
            roles = (*entries[path].roles, role) if path in entries else (role,)
            entries[path] = Entry(
                kind="deb",
                path=path,
                sha256=deb.sha256,
                size=deb.size,
                origin=deb.origin,
                name=deb.package,
                version=deb.version,
                architecture=deb.architecture,
                roles=roles,
            )
    return list(entries.values())


def same_image(image: LockedImage, locked: LockedImage) -> bool:
    """Whether ``image`` is the locked one, of which perhaps only the manifest was read."""
    if locked.os_id:
        return image == locked
    return (image.reference, image.manifest_digest, image.config_digest) == (
        locked.reference,
        locked.manifest_digest,
        locked.config_digest,
    )


def check_base(preset: Preset, role: str, image: LockedImage) -> list[str]:
    """Warnings about a builder that does not say its CUDA or cuDNN.

    Raises CompatibilityError for an image that says another one than the preset, which is how a moved tag shows
    (11.8.0-cudnn8 changed its cuDNN). A preset without ``cuda`` or ``cudnn`` takes any.
    """
    faults, warnings = [], []
    for what, said, found in (
        ("CUDA", preset.cuda, image.cuda),
        ("cuDNN", preset.cudnn, image.cudnn),
    ):
        if said and found and not f"{found}.".startswith(f"{said}."):
            faults.append(
                Fault(
                    _("base image of {role} ({reference})", role=role, reference=image.reference),
                    _("has {what} {found}", what=what, found=found),
                    f"{what} {said}",
                )
            )
        elif said and not found and role == BUILDER:
            warnings.append(
                _(
                    "{reference} does not say which {what} it has; the preset says {said}",
                    reference=image.reference,
                    what=what,
                    said=said,
                )
            )
    if faults:
        raise CompatibilityError(
            _("the base image is not what presets/{name}.json says", name=preset.name),
            faults=faults,
            hint=_(
                "under base.{role} name an image that has it, by digest if its tag has "
                "moved; or correct cuda and cudnn (cudnn null takes any), then: "
                "./gapforge check {name}",
                role=role,
                name=preset.name,
            ),
        )
    return warnings
