"""Entries of a lock made from what was found, and whether a base image is the one that was meant. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gapforge.base.errors import CompatibilityError, Fault, ResolveError
from gapforge.base.text import tr
from gapforge.model.lock import Entry, LockedImage
from gapforge.model.preset import Preset
from gapforge.sync.apt import DebFile

ROLES = BUILDER, RUNTIME = ("builder", "runtime")


def image_entries(role: str, files: Mapping[str, tuple[str, int]]) -> list[Entry]:
    """The entries of a base image's layout: path -> (sha256, size)."""
    return [Entry("image", f"images/{role}/{path}", sha256, size, "image", name=role, roles=(role,))
            for path, (sha256, size) in sorted(files.items())]  # fmt: skip


def deb_entries(closures: Mapping[str, Sequence[DebFile]]) -> list[Entry]:
    """The .debs of all roles; one that both roles need is one entry. ResolveError for two of the same name."""
    entries: dict[str, Entry] = {}
    for role in ROLES:
        for deb in closures[role]:
            path = f"debs/{deb.file}"
            if path in entries and entries[path].sha256 != deb.sha256:
                raise ResolveError(tr(f"builder와 runtime에 이름은 같고 내용은 다른 파일이 필요합니다: {deb.file}",
                                      f"builder and runtime need different files of the name {deb.file}"),
                                   hint=tr("두 역할에 APT 소스가 같은 기반 이미지를 쓰십시오",
                                           "give both roles bases with the same APT sources"))  # fmt: skip
            roles = (*entries[path].roles, role) if path in entries else (role,)
            entries[path] = Entry("deb", path, deb.sha256, deb.size, deb.origin, deb.package, deb.version,
                                  deb.architecture, roles)  # fmt: skip
    return list(entries.values())


def same_image(image: LockedImage, locked: LockedImage) -> bool:
    """Whether ``image`` is the locked one, of which perhaps only the manifest was read."""
    if locked.os_id:
        return image == locked
    return (image.reference, image.manifest_digest, image.config_digest) == (
        locked.reference, locked.manifest_digest, locked.config_digest)  # fmt: skip


def check_base(preset: Preset, role: str, image: LockedImage) -> list[str]:
    """Warnings about a builder that does not say its CUDA or cuDNN.

    Raises CompatibilityError for an image that says another one than the preset, which is how a moved tag shows
    (11.8.0-cudnn8 changed its cuDNN). A preset without ``cuda`` or ``cudnn`` takes any.
    """
    faults, warnings = [], []
    for what, said, found in (("CUDA", preset.cuda, image.cuda), ("cuDNN", preset.cudnn, image.cudnn)):
        if said and found and not f"{found}.".startswith(f"{said}."):
            faults.append(Fault(tr(f"{role} 기반 이미지 ({image.reference})", f"base image of {role} ({image.reference})"),
                                tr(f"{what} {found}임", f"has {what} {found}"), f"{what} {said}"))  # fmt: skip
        elif said and not found and role == BUILDER:
            warnings.append(tr(f"{image.reference}에 {what} 버전이 나와 있지 않습니다. 프리셋의 값은 {said}입니다",
                               f"{image.reference} does not say which {what} it has; the preset says {said}"))  # fmt: skip
    if faults:
        raise CompatibilityError(
            tr(f"기반 이미지가 presets/{preset.name}.json에 적힌 것과 다릅니다",
               f"the base image is not what presets/{preset.name}.json says"), faults=faults,
            hint=tr(f"base.{role}에 맞는 이미지를 적거나(태그가 옮겨졌으면 다이제스트로) cuda와 cudnn을 고친 뒤"
                    f"(cudnn이 null이면 무엇이든 받습니다): ./gapforge check {preset.name}",
                    f"under base.{role} name an image that has it, by digest if its tag has moved; or correct cuda and "
                    f"cudnn (cudnn null takes any), then: ./gapforge check {preset.name}"))  # fmt: skip
    return warnings
