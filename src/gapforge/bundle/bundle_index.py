"""Write and read the index of a bundle, ID.json: its objects, presets and volumes.

Its ``root`` is the root of a hash tree over all rows. The signature of a bundle signs this file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base.errors import BundleError
from gapforge.base.files import SHA256_HEX
from gapforge.base.i18n import N_, _
from gapforge.bundle.volume_format import (
    BUNDLE_ID,
    FORMAT,
    MAX_INDEX,
    MAX_VOLUME_SIZE,
    REPAIRED_BUNDLE,
    REPOSITORY,
    Damaged,
    check_order,
    compact_json,
    parse_document,
    parse_number,
    parse_optional_text,
    parse_part,
    parse_presets,
    parse_text,
    read_json,
    volume_name,
)
from gapforge.bundle.volume_plan import Plan, make_plan
from gapforge.trust.rollback_protection import TIME

# The fields of the first row of the hash tree, and the lists whose rows follow it.
_FIELDS = ("format", "bundle", "volume_size", "repairs", "tool", "made")
_LISTS = ("objects", "views", "volumes")


@dataclass(frozen=True)
class VolumeEntry:
    """A finished volume as the index lists it. ``sha256`` is that of the volume's own index."""

    number: int
    size: int
    sha256: str


@dataclass(frozen=True)
class BundleIndex:
    """The index of a bundle. ``made`` is the time of its signature (UTC), "" if it is unsigned."""

    plan: Plan
    volumes: tuple[VolumeEntry, ...]
    made: str

    def render(self) -> bytes:
        """Return the bytes of the index file."""
        return render_index(self.plan, self.volumes, self.made)


def index_name(bundle: str) -> str:
    """Return the file name of the index of a bundle."""
    return f"{bundle}.json"


def tree_root(rows: Iterable[bytes]) -> str:
    """Return the root (hex) of a hash tree over at least one row.

    Leaves and nodes have different prefixes, so that one cannot be taken for the other.
    """
    level = [hashlib.sha256(b"\0" + row).digest() for row in rows]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        nodes = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs]
        level = nodes + (level[-1:] if len(level) % 2 else [])
    return level[0].hex()


def render_index(plan: Plan, volumes: Sequence[VolumeEntry], made: str = "") -> bytes:
    """Return the bytes of the index file.

    A signed bundle has a time in ``made``: a signature alone does not tell an old bundle from a
    new one.
    """
    document: dict[str, Any] = {
        "format": FORMAT,
        "bundle": plan.bundle,
        "volume_size": plan.volume_size,
        "repairs": plan.repairs,
        "tool": plan.tool,
        "made": made,
        "objects": [part.to_json() for part in plan.parts],
        "views": [preset.to_json() for preset in plan.presets],
        "volumes": [
            [volume_name(plan.bundle, entry.number), entry.size, entry.sha256] for entry in volumes
        ],
    }
    return compact_json({**document, "root": root_of(document)})


def root_of(document: dict[str, Any]) -> str:
    """Return the root of the hash tree over the rows of an index."""
    rows = [{key: document[key] for key in _FIELDS}]
    return tree_root(map(compact_json, [*rows, *(row for key in _LISTS for row in document[key])]))


def read_index(path: Path) -> BundleIndex:
    """Return the index in a file after checking everything in it. Raise Damaged or OSError."""
    raw = parse_document(read_json(path), (*_FIELDS, "root"), _LISTS, N_("index of the bundle"))
    if raw["root"] != root_of(raw):
        raise Damaged(_("checksum mismatch: the root of the hash tree is wrong"))
    parts = [parse_part(row) for row in raw["objects"]]
    check_order(parts)
    repairs = parse_optional_text(raw["repairs"], BUNDLE_ID, REPAIRED_BUNDLE)
    tool = parse_optional_text(raw["tool"], SHA256_HEX, REPOSITORY)
    volume_bytes = parse_number(raw["volume_size"], 1, MAX_VOLUME_SIZE, N_("volume size"))
    if sum(part.length for part in parts) // volume_bytes > MAX_INDEX // 64:
        raise Damaged(_("the objects need more volumes than the index lists"))
    presets, listed = parse_presets(raw["views"]), max(1, len(raw["volumes"]))
    try:
        plan = make_plan(
            parts, presets, volume_bytes, repairs=repairs, tool=tool, max_volumes=listed
        )
    except BundleError as error:
        raise Damaged(_("no bundle can be like this: {why}", why=error.message)) from None
    if plan.bundle != raw["bundle"] or len(raw["volumes"]) != len(plan.volumes):
        raise Damaged(_("the index does not match the bundle id in it"))
    volumes = []
    for number, row in zip(plan.numbers, raw["volumes"], strict=True):
        expected = [volume_name(plan.bundle, number), plan.size(number)]
        if type(row) is not list or len(row) != 3 or row[:2] != expected:
            raise Damaged(
                _("the entry of volume {number} does not match the bundle", number=number)
            )
        sha256 = parse_text(row[2], SHA256_HEX, N_("SHA-256 of a volume"))
        volumes.append(VolumeEntry(number, row[1], sha256))
    made = parse_optional_text(raw["made"], TIME, N_("time of signing"))
    return BundleIndex(plan, tuple(volumes), made)
