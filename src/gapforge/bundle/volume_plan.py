"""What goes into which volume, decided before a byte is read: the same objects and size give the same volumes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gapforge.base.errors import BundleError
from gapforge.base.files import SHA256_HEX, sha256_bytes
from gapforge.base.i18n import _
from gapforge.bundle.volume_format import (
    BUNDLE_ID,
    FORMAT,
    HEAD,
    MAX_INDEX,
    MAX_VOLUME_SIZE,
    MAX_VOLUMES,
    TRAILER,
    Damaged,
    Identity,
    Span,
    View,
    check_order,
    compact,
    index_bytes,
    index_room,
    number_in,
    open_regular,
    parse_json,
    parse_span,
    parse_views,
    text_in,
    text_or_none,
    volume_name,
    volume_size,
)
from gapforge.trust.rollback_protection import TIME

MIN_PAYLOAD = 1024  # bytes that a volume must be able to hold besides its index
_HEAD_KEYS = (
    "format",
    "bundle",
    "volume_size",
    "repairs",
    "tool",
    "made",
)  # the first row of the hash tree
_PIECE_ROOM = 230  # bytes of index that a part of an object takes at most
_INDEX_LIMIT = MAX_INDEX - (64 << 10)
_WASTE = 64  # an object that fits the next volume is cut only when more than this part of a volume would stay empty


@dataclass(frozen=True)
class Plan:
    """A bundle: its spans by hash and offset, its views, and what each volume holds.

    ``repairs`` and ``tool``: see Identity.
    """

    bundle: str
    volume_size: int
    repairs: str
    views: tuple[View, ...]
    spans: tuple[Span, ...]
    volumes: tuple[tuple[Span, ...], ...]
    tool: str = ""

    def identity(self, number: int) -> Identity:
        """What volume ``number`` (from 1) says of itself."""
        return Identity(
            self.bundle,
            number,
            len(self.volumes),
            self.volume_size,
            self.repairs,
            self.views,
            self.tool,
        )

    def size(self, number: int) -> int:
        """The exact size in bytes of volume ``number``."""
        return volume_size(self.identity(number), self.volumes[number - 1])

    @property
    def payload(self) -> int:
        """Bytes of objects in the whole bundle."""
        return sum(span.length for span in self.spans)


@dataclass(frozen=True)
class Sealed:
    """A finished volume as the bundle's index lists it; ``sha256`` is that of the volume's own index."""

    number: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """A bundle's index file. ``made`` is when the bundle was signed (TIME), or "" when it never was."""

    plan: Plan
    sealed: tuple[Sealed, ...]
    made: str


def make_plan(
    spans: Iterable[Span],
    views: Iterable[View],
    volume_bytes: int,
    *,
    repairs: str = "",
    tool: str = "",
    most: int = 0,
) -> Plan:
    """Lay spans out over volumes of at most ``volume_bytes``.

    Raises BundleError when volumes of that size cannot even hold their own index, or the bundle has too many objects
    or more than ``most`` volumes (0: as many as can be).
    """
    ordered, named = tuple(sorted(set(spans))), tuple(sorted(set(views)))
    seed = {
        "format": FORMAT,
        "volume_size": volume_bytes,
        "repairs": repairs,
        "tool": tool,
        "spans": [span.to_json() for span in ordered],
        "views": [view.to_json() for view in named],
    }
    text = compact(seed)
    if len(text) > _INDEX_LIMIT:
        raise BundleError(
            _("a bundle of {count} objects is too large for its index", count=len(ordered)),
            hint=_("pack the presets one by one"),
        )
    identity = Identity(
        sha256_bytes(text)[:24], MAX_VOLUMES, MAX_VOLUMES, volume_bytes, repairs, named, tool
    )
    volumes = _layout(ordered, identity, most or MAX_VOLUMES)
    return Plan(identity.bundle, volume_bytes, repairs, named, ordered, volumes, tool)


def _layout(spans: Sequence[Span], identity: Identity, most: int) -> tuple[tuple[Span, ...], ...]:
    fixed = len(HEAD) + TRAILER.size + len(index_bytes(identity, (), ()))
    capacity = identity.volume_size - fixed
    if capacity < _PIECE_ROOM + MIN_PAYLOAD:
        least = fixed + _PIECE_ROOM + MIN_PAYLOAD + 16
        raise BundleError(
            _(
                "volumes of {volume_size} bytes are too small for their own index",
                volume_size=identity.volume_size,
            ),
            hint=_("--volume-size {least} or more", least=least),
        )
    volumes: list[list[Span]] = [[]]
    used = listed = 0
    for span in spans:
        rest: Span | None = span
        while rest is not None:
            need = index_room(rest)
            if used + need + rest.length <= capacity and listed + need <= _INDEX_LIMIT - fixed:
                volumes[-1].append(rest)
                used, listed, rest = used + need + rest.length, listed + need, None
                continue
            room = capacity - used - _PIECE_ROOM
            fits_next = need + rest.length <= capacity
            enough = room >= MIN_PAYLOAD and listed + _PIECE_ROOM <= _INDEX_LIMIT - fixed
            if (
                enough
                and room < rest.length
                and (not fits_next or room > identity.volume_size // _WASTE)
            ):
                volumes[-1].append(replace(rest, length=room))
                rest = replace(rest, offset=rest.offset + room, length=rest.length - room)
            volumes.append([])
            used = listed = 0
            if (
                len(volumes) > most
            ):  # said here, not at the end: an index may claim millions of them
                raise BundleError(
                    _("more than {most} volumes are needed", most=most),
                    hint=_("choose a larger --volume-size"),
                )
    return tuple(tuple(volume) for volume in volumes)


def index_name(bundle: str) -> str:
    """The name of the bundle's index file."""
    return f"{bundle}.json"


def tree_root(rows: Iterable[bytes]) -> str:
    """The root of a hash tree over ``rows`` (at least one); leaves and nodes cannot be taken for one another."""
    level = [hashlib.sha256(b"\0" + row).digest() for row in rows]
    while len(level) > 1:
        paired = [
            hashlib.sha256(b"\1" + a + b).digest()
            for a, b in zip(level[::2], level[1::2], strict=False)
        ]
        level = paired + (level[-1:] if len(level) % 2 else [])
    return level[0].hex()


def render_index(plan: Plan, sealed: Sequence[Sealed], made: str = "") -> bytes:
    """The bundle's index file: everything in it, and the root of a hash tree over its rows.

    ``made`` is for bundles that are signed: a signature alone does not tell an old bundle from a new one.
    """
    document: dict[str, Any] = {
        "format": FORMAT,
        "bundle": plan.bundle,
        "volume_size": plan.volume_size,
        "repairs": plan.repairs,
        "tool": plan.tool,
        "made": made,
        "objects": [span.to_json() for span in plan.spans],
        "views": [view.to_json() for view in plan.views],
        "volumes": [[volume_name(plan.bundle, one.number), one.size, one.sha256] for one in sealed],
    }
    return compact({**document, "root": _root_of(document)})


def _root_of(document: dict[str, Any]) -> str:
    head = {key: document[key] for key in _HEAD_KEYS}
    return tree_root(
        [
            compact(head),
            *(compact(row) for key in ("objects", "views", "volumes") for row in document[key]),
        ]
    )


def read_index(path: Path) -> Index:
    """A bundle's index file with every promise of it checked. Raises Damaged or OSError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_INDEX:
            raise Damaged(
                _(
                    "has {size} bytes; no more than {max_index} are read",
                    size=size,
                    max_index=MAX_INDEX,
                )
            )
        raw = parse_json(os.pread(file.fileno(), size, 0))
    keys = {*_HEAD_KEYS, "objects", "views", "volumes", "root"}
    if type(raw) is not dict or set(raw) != keys or raw["format"] != FORMAT:
        raise Damaged(_("is not the index of a bundle"))
    if any(type(raw[key]) is not list for key in ("objects", "views", "volumes")):
        raise Damaged(_("is not the index of a bundle"))
    if raw["root"] != _root_of(raw):
        raise Damaged(_("is damaged: its hash tree has another root"))
    spans = [parse_span(row) for row in raw["objects"]]
    check_order(spans)
    repairs = text_or_none(raw["repairs"], BUNDLE_ID, lambda: _("the mended bundle"))
    tool = text_or_none(raw["tool"], SHA256_HEX, lambda: _("gapforge itself as"))
    bytes_each = number_in(raw["volume_size"], 1, MAX_VOLUME_SIZE, lambda: _("a volume size"))
    if sum(span.length for span in spans) // bytes_each > MAX_INDEX // 64:
        raise Damaged(_("declares more volumes than it lists"))
    try:
        views, listed = parse_views(raw["views"]), max(1, len(raw["volumes"]))
        plan = make_plan(spans, views, bytes_each, repairs=repairs, tool=tool, most=listed)
    except BundleError as error:
        raise Damaged(_("cannot be made: {message}", message=error.message)) from None
    if plan.bundle != raw["bundle"] or len(raw["volumes"]) != len(plan.volumes):
        raise Damaged(_("does not describe the bundle that it names"))
    sealed = []
    for number, row in enumerate(raw["volumes"], 1):
        if (
            type(row) is not list
            or len(row) != 3
            or row[:2] != [volume_name(plan.bundle, number), plan.size(number)]
        ):
            raise Damaged(_("lists volume {number} in another form", number=number))
        sealed.append(Sealed(number, row[1], text_in(row[2], SHA256_HEX, lambda: _("a volume"))))
    return Index(plan, tuple(sealed), text_or_none(raw["made"], TIME, lambda: _("the moment")))
