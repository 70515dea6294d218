"""What a base image must be, judged with the same functions by `sync`, by `check` and by a build.

They live here, and not with their callers, so that a site cannot refuse what `sync` accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gapforge.base.errors import Fault, TargetError
from gapforge.base.i18n import _
from gapforge.model.lock import LockedImage
from gapforge.model.preset import Preset

PLATFORM = "linux/amd64"
UNKNOWN_OS = "unknown"  # ID and VERSION_ID of an image that does not name them
# A processor of the site may lack what higher levels of x86-64 (v2, v3, v4) require.
_BASELINE = ("", "v1")
# Docker 20.10, which Debian 12 and Ubuntu 22.04 have, loads no layers in zstd.
_LOADABLE = ("", "gzip")


def select_manifest(entries: Sequence[Mapping[str, Any]], where: str) -> Mapping[str, Any]:
    """Return the entry of an image index whose image runs on every amd64 machine.

    Raise TargetError if the index has none. Attestations have the platform "unknown".
    """
    platforms = [_platform(entry.get("platform")) for entry in entries]
    for entry, platform in zip(entries, platforms, strict=True):
        if platform == PLATFORM:
            return entry
    named = [platform for platform in platforms if "unknown" not in platform]
    raise _unsupported(
        where,
        [Fault(where, _("has {platforms}", platforms=", ".join(named) or _("none")), PLATFORM)],
        _("specify an image that has a linux/amd64 variant"),
    )


def _platform(document: Any) -> str:
    """Return the platform of an index entry or an image configuration, "linux/amd64" or others."""
    if not isinstance(document, Mapping):
        return "?/?"
    variant = str(document.get("variant") or "")
    name = f"{document.get('os') or '?'}/{document.get('architecture') or '?'}"
    return name if name == PLATFORM and variant in _BASELINE else f"{name}/{variant}".rstrip("/")


def check_configuration(config: Mapping[str, Any], where: str) -> None:
    """Raise TargetError, with every fault, for an image configuration that no build can start from.

    ONBUILD instructions of a base image run in the build, where no lint has seen them.
    """
    faults, hints = [], []
    if (platform := _platform(config)) != PLATFORM:
        faults.append(Fault(where, _("is for {platform}", platform=platform), PLATFORM))
        hints.append(_("specify an image that has a linux/amd64 variant"))
    settings = config.get("config")
    triggers = settings.get("OnBuild") if isinstance(settings, Mapping) else None
    if triggers:
        found = _("has ONBUILD instructions: {triggers}", triggers=str(triggers)[:200])
        faults.append(Fault(where, found, _("an image without ONBUILD")))
        hints.append(_("specify the image that this one was made from"))
    if faults:
        raise _unsupported(where, faults, "; ".join(hints))


def check_compression(compressions: Iterable[str], where: str) -> None:
    """Raise TargetError if a layer has a compression that some engines cannot load.

    ``compressions`` has one name for each layer, such as "gzip" or "zstd", "" for none.
    """
    if wrong := sorted(set(compressions) - set(_LOADABLE)):
        raise _unsupported(
            where,
            [
                Fault(
                    where,
                    _("layers are compressed with {names}", names=", ".join(wrong)),
                    _("gzip, or no compression"),
                )
            ],
            _(
                "convert it, then use the new file: skopeo copy SOURCE "
                "docker-archive:FILE.tar:NAME:TAG (SOURCE is docker://NAME:TAG, oci:FOLDER or "
                "docker-archive:FILE)"
            ),
        )


def operating_system_faults(preset: Preset, images: Mapping[str, LockedImage]) -> list[Fault]:
    """Return a fault for each image, by role, whose operating system is not the preset's.

    One whose operating system is not known yet ("") has none.
    """
    return [
        Fault(
            _("base image of {role} ({reference})", role=role, reference=image.reference),
            f"{image.os_id} {image.os_version}",
            preset.os,
        )
        for role, image in sorted(images.items())
        if image.os_id and (image.os_id, image.os_version) != (preset.os_id, preset.os_version)
    ]


def check_operating_systems(preset: Preset, images: Mapping[str, LockedImage]) -> None:
    """Raise TargetError with the faults of ``operating_system_faults``, if there are any."""
    if faults := operating_system_faults(preset, images):
        raise TargetError(
            _("the operating system of a base image is not the preset's"),
            faults=faults,
            hint=_(
                "correct $.os or $.base in presets/{name}.json, or use a base image of that "
                "operating system",
                name=preset.name,
            ),
        )


def _unsupported(where: str, faults: Sequence[Fault], hint: str) -> TargetError:
    return TargetError(
        _("{image}: the base image cannot be used", image=where), faults=faults, hint=hint
    )
