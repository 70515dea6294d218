"""Choose the folder of each volume, and count the media that a bundle needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import StorageError
from gapforge.base.i18n import _
from gapforge.base.units import human_bytes
from gapforge.bundle.bundle_index import VolumeEntry
from gapforge.bundle.companion_files import MAX_BLOCK, companion_bytes, existing_companion_bytes
from gapforge.bundle.disk_space import block_size, disk_of, max_file_size, rounded_up
from gapforge.bundle.volume_format import Damaged, Part, volume_name
from gapforge.bundle.volume_plan import Plan
from gapforge.bundle.volume_reader import damaged_parts, read_volume

# Bytes, as media are sold.
MEDIUM_SIZES = tuple(size * 10**9 for size in (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048))
_USABLE = 0.97  # of the capacity of a medium; its file system takes the rest


@dataclass(frozen=True)
class KeptVolume:
    """A verified volume of an earlier run, and the SHA-256 of its parts."""

    entry: VolumeEntry
    checksums: Mapping[Part, str]


@dataclass(frozen=True)
class Placement:
    """The folder of each volume by number, and the volumes that are there already."""

    folders: Mapping[int, Path]
    kept: Mapping[int, KeptVolume] = field(default_factory=dict)


def place_volumes(
    plan: Plan, to: Sequence[Path], *, verify: bool = True, signatures: int = 0, listed: int = 0
) -> Placement:
    """Return the folder of each volume: where it is already, else the first with enough space.

    Without ``verify`` existing volumes are not read. Each folder keeps space for the companion
    files: ``signatures`` of them, and a custody page that lists ``listed`` files.
    Raise StorageError if the volumes do not fit.
    """
    _require_file_size(plan, to)
    kept: dict[int, KeptVolume] = {}
    folders: dict[int, Path] = {}
    existing: dict[int, Path] = {}
    for number in plan.numbers:
        for folder in to:
            path = folder / volume_name(plan.bundle, number)
            if not path.is_file():
                continue
            existing.setdefault(number, path)
            found = _kept_volume(path, plan, number) if verify else None
            if found is not None:
                kept[number], folders[number] = found, folder
                break
    disks = _Disks(plan, to, signatures, listed)
    too_much = 0
    for number in plan.numbers:
        if number not in folders:
            needed = disks.needed(plan.size(number), existing.get(number))
            chosen = disks.take(needed)
            if chosen is None:
                too_much += min(needed.values())
            else:
                folders[number] = chosen
    if too_much:
        raise StorageError(
            _(
                "the volumes do not fit: {missing} of space missing ({folders})",
                missing=human_bytes(too_much),
                folders=disks.describe(),
            ),
            hint=_("add a folder to --to, or free some space"),
        )
    return Placement(folders, kept)


class _Disks:
    """The free space of the folders while volumes are placed. Folders may share a disk."""

    def __init__(self, plan: Plan, to: Sequence[Path], signatures: int, listed: int) -> None:
        self.block = max([MAX_BLOCK, *map(block_size, to)])
        self.free: dict[int, int] = {}
        self.disk: dict[Path, int] = {}
        for folder in to:
            self.disk[folder], free = disk_of(folder)
            self.free.setdefault(self.disk[folder], free)
        companions = companion_bytes(plan, self.block, listed) + signatures * self.block
        for folder in to:
            existing = existing_companion_bytes(folder, plan, self.block)
            self.free[self.disk[folder]] -= max(0, companions - existing)

    def needed(self, size: int, replaced: Path | None) -> dict[Path, int]:
        """Return how many bytes a volume needs in each folder, in the order of preference.

        A damaged volume of the same name is replaced where it is, if there is enough space.
        """
        needed = dict.fromkeys(self.disk, size + self.block)
        if replaced is None:
            return needed
        freed = rounded_up(replaced.stat().st_size, block_size(replaced))
        return {replaced.parent: needed.pop(replaced.parent) - freed, **needed}

    def take(self, needed: Mapping[Path, int]) -> Path | None:
        """Reserve space in the first folder that has enough, and return it."""
        for folder, count in needed.items():
            if self.free[self.disk[folder]] >= count:
                self.free[self.disk[folder]] -= count
                return folder
        return None

    def describe(self) -> str:
        return ", ".join(
            _("{folder}: {free} free", folder=folder, free=human_bytes(max(0, self.free[disk])))
            for folder, disk in self.disk.items()
        )


def _require_file_size(plan: Plan, to: Sequence[Path]) -> None:
    largest = max(map(plan.size, plan.numbers))
    for folder in to:
        limit = max_file_size(folder)
        if limit and largest > limit:
            raise StorageError(
                _(
                    "{folder} is on a FAT file system, which stores files of up to {limit} bytes; "
                    "the largest volume would have {largest} bytes",
                    folder=folder,
                    limit=limit,
                    largest=largest,
                ),
                hint=_("use --volume-size fat32; nothing was written"),
            )


def _kept_volume(path: Path, plan: Plan, number: int) -> KeptVolume | None:
    """Return the volume in ``path`` if it is intact and equal to the one that would be written."""
    try:
        volume, stored = read_volume(path)
        parts = tuple(each.part for each in stored)
        if volume.identity != plan.identity(number) or parts != plan.volumes[number - 1]:
            return None
        if damaged_parts(path, stored):
            return None
    except (Damaged, OSError):
        return None
    entry = VolumeEntry(number, volume.size, volume.index_sha256)
    return KeptVolume(entry, {each.part: each.sha256 for each in stored})


def count_media(plan: Plan) -> list[tuple[int, int]]:
    """Return (size in bytes, number of media needed) for each usual size of a medium.

    Sizes that cannot hold the largest volume are left out, and the list ends with the first size of
    which one medium is enough.
    """
    counts: list[tuple[int, int]] = []
    sizes = [plan.size(number) for number in plan.numbers]
    for size in MEDIUM_SIZES:
        usable = int(size * _USABLE) - companion_bytes(plan)
        if max(sizes) > usable:
            continue
        if not counts or counts[-1][1] > 1:
            counts.append((size, _first_fit(sizes, usable)))
    return counts


def _first_fit(sizes: Sequence[int], usable: int) -> int:
    """Return how many media of ``usable`` bytes the volumes fill, each on the first that fits."""
    free: list[int] = []
    for size in sizes:
        for number, left in enumerate(free):
            if size <= left:
                free[number] -= size
                break
        else:
            free.append(usable - size)
    return len(free)
