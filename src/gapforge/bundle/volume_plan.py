"""Decide which parts are in which volume. The same objects and size give the same volumes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gapforge.base.errors import BundleError
from gapforge.base.files import sha256_bytes
from gapforge.base.i18n import _
from gapforge.bundle.volume_format import (
    FORMAT,
    HEAD,
    MAX_INDEX,
    MAX_VOLUMES,
    TRAILER,
    BundledPreset,
    Part,
    VolumeIdentity,
    compact_json,
    index_entry_size,
    volume_index,
    volume_size,
)

MIN_PAYLOAD = 1024  # bytes that a volume must be able to hold besides its index
_MAX_ENTRY = 230  # bytes of index that the entry of a part takes at most
_INDEX_LIMIT = MAX_INDEX - (64 << 10)
# An object that would fit in the next volume is split only if more than this fraction (1/64) of a
# volume would stay empty.
_WASTE = 64


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A bundle: its parts by checksum and offset, its presets, and the parts of each volume.

    ``repairs`` and ``tool`` are explained at VolumeIdentity. ``volume_size`` is in bytes.
    """

    bundle: str
    volume_size: int
    repairs: str
    presets: tuple[BundledPreset, ...]
    parts: tuple[Part, ...]
    volumes: tuple[tuple[Part, ...], ...]
    tool: str = ""

    @property
    def numbers(self) -> range:
        """Return the numbers of the volumes, from 1."""
        return range(1, len(self.volumes) + 1)

    def identity(self, number: int) -> VolumeIdentity:
        """Return the identity of volume ``number``."""
        return VolumeIdentity(
            bundle=self.bundle,
            number=number,
            volumes=len(self.volumes),
            volume_size=self.volume_size,
            repairs=self.repairs,
            presets=self.presets,
            tool=self.tool,
        )

    def size(self, number: int) -> int:
        """Return the exact size in bytes of volume ``number``."""
        return volume_size(self.identity(number), self.volumes[number - 1])

    @property
    def payload(self) -> int:
        """Bytes of objects in the whole bundle."""
        return sum(part.length for part in self.parts)


def make_plan(
    parts: Iterable[Part],
    presets: Iterable[BundledPreset],
    volume_bytes: int,
    *,
    repairs: str = "",
    tool: str = "",
    max_volumes: int = MAX_VOLUMES,
) -> Plan:
    """Distribute parts over volumes of at most ``volume_bytes``.

    Raise BundleError if volumes of that size cannot hold their own index, if there are too many
    objects for one bundle, or if more than ``max_volumes`` volumes are needed.
    """
    ordered, named = tuple(sorted(set(parts))), tuple(sorted(set(presets)))
    text = compact_json(
        {
            "format": FORMAT,
            "volume_size": volume_bytes,
            "repairs": repairs,
            "tool": tool,
            "spans": [part.to_json() for part in ordered],
            "views": [preset.to_json() for preset in named],
        }
    )
    if len(text) > _INDEX_LIMIT:
        raise BundleError(
            _("a bundle of {count} objects is too large for its index", count=len(ordered)),
            hint=_("pack fewer presets at a time"),
        )
    identity = VolumeIdentity(
        bundle=sha256_bytes(text)[:24],
        number=MAX_VOLUMES,
        volumes=MAX_VOLUMES,
        volume_size=volume_bytes,
        repairs=repairs,
        presets=named,
        tool=tool,
    )
    return Plan(
        bundle=identity.bundle,
        volume_size=volume_bytes,
        repairs=repairs,
        presets=named,
        parts=ordered,
        volumes=_distribute(ordered, identity, max_volumes),
        tool=tool,
    )


def _distribute(
    parts: Sequence[Part], identity: VolumeIdentity, max_volumes: int
) -> tuple[tuple[Part, ...], ...]:
    fixed = len(HEAD) + TRAILER.size + len(volume_index(identity, (), ()))
    capacity = identity.volume_size - fixed
    if capacity < _MAX_ENTRY + MIN_PAYLOAD:
        raise BundleError(
            _(
                "volumes of {volume_size} bytes are too small for their own index",
                volume_size=identity.volume_size,
            ),
            hint=_("--volume-size {least} or more", least=fixed + _MAX_ENTRY + MIN_PAYLOAD + 16),
        )
    volumes: list[list[Part]] = [[]]
    used = listed = 0
    for part in parts:
        rest: Part | None = part
        while rest is not None:
            entry = index_entry_size(rest)
            needed = entry + rest.length
            if used + needed <= capacity and listed + entry <= _INDEX_LIMIT - fixed:
                volumes[-1].append(rest)
                used, listed, rest = used + needed, listed + entry, None
                continue
            space = capacity - used - _MAX_ENTRY
            can_split = (
                MIN_PAYLOAD <= space < rest.length and listed + _MAX_ENTRY <= _INDEX_LIMIT - fixed
            )
            if can_split and (needed > capacity or space > identity.volume_size // _WASTE):
                volumes[-1].append(replace(rest, length=space))
                rest = replace(rest, offset=rest.offset + space, length=rest.length - space)
            volumes.append([])
            used = listed = 0
            # Checked here and not at the end: an index may claim millions of volumes.
            if len(volumes) > max_volumes:
                raise BundleError(
                    _("more than {limit} volumes are needed", limit=max_volumes),
                    hint=_("choose a larger --volume-size"),
                )
    return tuple(tuple(volume) for volume in volumes)
