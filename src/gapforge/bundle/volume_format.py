"""One volume file: a head, the pieces' bytes, an index of them, and a trailer that finds and seals the index.

    16 bytes   HEAD
    …          the pieces, one after the other, in the index's order
    …          the index: compact JSON with sorted keys
    64 bytes   magic, version, zero, index offset, index length, SHA-256 of the index

The index holds the hash of each piece, so the SHA-256 of the index stands for every byte of the volume, and no
byte needs to be hashed twice. The payload comes first so that a volume is written in one pass.
Everything read here came by a stick that anybody may have touched: nothing in it is believed before it is checked,
and no length in it decides how much memory is used.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from gapforge.base.files import SHA256_HEX, sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.system_errors import says
from gapforge.model.names import PRESET_NAME

FORMAT = 2
SUFFIX = ".gfv"
HEAD = b"gapforge-volume\n"
TRAILER_MAGIC = b"GFV-END\n"
TRAILER = struct.Struct(">8sIIQQ32s")
MAX_INDEX = 4 << 20  # bytes; what is parsed takes ten times as much memory
MAX_OBJECT = 1 << 44  # bytes; no file system that a site has takes larger files
MAX_VOLUMES = 999_999
MAX_VOLUME_SIZE = 1 << 62  # bytes
MAX_VIEWS = 1000
BUNDLE_ID = re.compile(r"[0-9a-f]{24}")
_NO_HASH = "0" * 64
Words = Callable[
    [], str
]  # asked only when something is wrong: an index has a hundred thousand values


class Damaged(Exception):
    """Why something of a bundle cannot be believed. Callers add which file it is."""


@dataclass(frozen=True, order=True)
class Span:
    """``length`` bytes from ``offset`` of the object ``sha256``, which has ``size`` bytes."""

    sha256: str
    size: int
    offset: int
    length: int

    @property
    def whole(self) -> bool:
        return self.length == self.size

    @property
    def end(self) -> int:
        return self.offset + self.length

    def to_json(self) -> list[Any]:
        return (
            [self.sha256, self.size]
            if self.whole
            else [self.sha256, self.size, self.offset, self.length]
        )


@dataclass(frozen=True)
class Piece:
    """A span as it lies in a volume: ``sha256`` is the hash of these bytes, ``position`` where they begin."""

    span: Span
    sha256: str
    position: int


@dataclass(frozen=True, order=True)
class View:
    """One preset of the bundle: the hashes of its lock.json and its SHA256SUMS, which are objects too."""

    preset: str
    lock: str
    sums: str

    def to_json(self) -> list[str]:
        return [self.preset, self.lock, self.sums]


@dataclass(frozen=True)
class Identity:
    """What a volume says of itself: its bundle, its ``number`` (from 1) of ``volumes``, and the bundle's views.

    ``repairs`` is the bundle that this one mends, or "". ``tool`` is the object that is gapforge's own repository,
    or "" when the bundle does not carry it.
    """

    bundle: str
    number: int
    volumes: int
    volume_size: int
    repairs: str
    views: tuple[View, ...]
    tool: str = ""

    @property
    def root(self) -> str:
        """The bundle that this volume serves: its own, or the one that it mends."""
        return self.repairs or self.bundle

    @property
    def file(self) -> str:
        return volume_name(self.bundle, self.number)


@dataclass(frozen=True)
class Volume:
    """A volume whose head, index and trailer are in order. Its payload is not looked at yet."""

    path: Path
    size: int
    index_sha256: str
    identity: Identity


def volume_name(bundle: str, number: int) -> str:
    """``ID-0001.gfv``"""
    return f"{bundle}-{number:04}{SUFFIX}"


def compact(value: Any) -> bytes:
    """JSON as bundles hold it: one line, sorted keys, ASCII, a newline at the end."""
    return (
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
    )


def index_bytes(identity: Identity, spans: Sequence[Span], hashes: Sequence[str]) -> bytes:
    """The index of a volume that holds ``spans`` with these piece hashes."""
    pieces = [
        span.to_json() + ([] if span.whole else [sha256])
        for span, sha256 in zip(spans, hashes, strict=True)
    ]
    return compact(
        {
            "format": FORMAT,
            "bundle": identity.bundle,
            "number": identity.number,
            "volumes": identity.volumes,
            "volume_size": identity.volume_size,
            "repairs": identity.repairs,
            "pieces": pieces,
            "views": [view.to_json() for view in identity.views],
            "tool": identity.tool,
        }
    )


def index_room(span: Span) -> int:
    """How many bytes of index this span takes."""
    return (
        len(json.dumps(span.to_json() + ([] if span.whole else [_NO_HASH]), separators=(",", ":")))
        + 1
    )


def trailer(index: bytes, offset: int) -> bytes:
    """The last bytes of a volume whose index begins at ``offset``."""
    return TRAILER.pack(
        TRAILER_MAGIC, FORMAT, 0, offset, len(index), bytes.fromhex(sha256_bytes(index))
    )


def volume_size(identity: Identity, spans: Sequence[Span]) -> int:
    """The exact size in bytes that the volume will have."""
    index = index_bytes(identity, spans, [_NO_HASH] * len(spans))
    return len(HEAD) + sum(span.length for span in spans) + len(index) + TRAILER.size


def parse_json(data: bytes) -> Any:
    """JSON out of a bundle. Raises Damaged for anything unusual; large numbers and depth cost nothing."""

    # One object, rows that hold a hash, few values besides: any other shape could take far more memory than its text.
    if (
        data.count(b"{") > 1
        or data.count(b"[") > len(data) // 64 + 16
        or data.count(b",") > len(data) // 10 + 100_000
    ):
        raise Damaged(_("is not shaped like the JSON that gapforge writes"))

    def refuse(text: str) -> NoReturn:
        raise ValueError(_("holds the number {text}", text=text[:20]))

    def number(text: str) -> int:
        return int(text) if len(text) <= 19 else refuse(text)

    try:
        value = json.loads(
            data.decode("ascii"), parse_int=number, parse_float=refuse, parse_constant=refuse
        )
        if compact(value) != data:
            raise Damaged(_("is not written the way gapforge writes it"))
    except RecursionError:
        raise Damaged(_("is nested too deeply")) from None
    except (ValueError, MemoryError) as error:
        why = says(error)[:100]
        raise Damaged(_("is not the JSON that gapforge writes: {why}", why=why)) from None
    return value


def number_in(value: Any, least: int, most: int, what: Words) -> int:
    """``value`` when it is a whole number in range; Damaged otherwise."""
    if type(value) is not int or not least <= value <= most:
        raise Damaged(
            _(
                "declares {what} {value}, which cannot be ({least} to {most})",
                what=what(),
                value=str(value)[:40],
                least=least,
                most=most,
            )
        )
    return value


def text_in(value: Any, pattern: re.Pattern[str], what: Words) -> str:
    """``value`` when it is a text of this form; Damaged otherwise."""
    if type(value) is not str or not pattern.fullmatch(value):
        raise Damaged(
            _("declares {what} {value!r}, which is not allowed", what=what(), value=str(value)[:60])
        )
    return value


def text_or_none(value: Any, pattern: re.Pattern[str], what: Words) -> str:
    """``value`` when it is "" or a text of this form; Damaged otherwise."""
    return "" if type(value) is str and not value else text_in(value, pattern, what)


def parse_span(row: Any) -> Span:
    """A span out of JSON. Raises Damaged when no object can have it."""
    if type(row) is not list or len(row) not in (2, 4):
        raise Damaged(_("holds a piece of another form"))
    sha256 = text_in(row[0], SHA256_HEX, lambda: _("an object"))
    size = number_in(
        row[1], 0, MAX_OBJECT, lambda: _("for object {sha256} the size", sha256=sha256[:12])
    )
    if len(row) == 2:
        return Span(sha256, size, 0, size)
    offset = number_in(
        row[2], 0, size, lambda: _("for object {sha256} the offset", sha256=sha256[:12])
    )
    length = number_in(
        row[3], 1, size - offset, lambda: _("for object {sha256} the length", sha256=sha256[:12])
    )
    if length == size:
        raise Damaged(_("writes a whole object as a part"))
    return Span(sha256, size, offset, length)


def parse_views(raw: Any) -> tuple[View, ...]:
    """The views out of JSON. A preset's name becomes a folder's, so it is checked here."""
    if type(raw) is not list or len(raw) > MAX_VIEWS:
        raise Damaged(_("does not list its presets"))
    views = []
    for row in raw:
        if type(row) is not list or len(row) != 3:
            raise Damaged(_("describes a preset in another form"))
        views.append(
            View(
                text_in(row[0], PRESET_NAME, lambda: _("a preset named")),
                text_in(row[1], SHA256_HEX, lambda: _("the lock")),
                text_in(row[2], SHA256_HEX, lambda: _("the sums")),
            )
        )
    if len({view.preset for view in views}) != len(views):
        raise Damaged(_("names a preset twice"))
    return tuple(views)


def check_order(spans: Sequence[Span]) -> None:
    """Raise Damaged unless the spans are sorted, apart, and agree on each object's size."""
    for before, after in pairwise(spans):
        same = before.sha256 == after.sha256
        if before.sha256 > after.sha256 or (
            same and (before.end > after.offset or before.size != after.size)
        ):
            raise Damaged(
                _("lists object {sha256} twice or out of order", sha256=after.sha256[:12])
            )
        if same and not (before.size and after.size):
            raise Damaged(_("lists object {sha256} twice", sha256=after.sha256[:12]))


@contextmanager
def open_regular(path: Path) -> Iterator[io.FileIO]:
    """A file of a carrier, unbuffered. Damaged for a link, pipe or device; OSError as the system says it."""
    kind = os.lstat(path).st_mode
    if stat.S_ISLNK(kind):
        raise Damaged(_("is a symbolic link, not a file"))
    if not stat.S_ISREG(kind):  # to open a device may already do something
        raise Damaged(_("is not a regular file"))
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Damaged(_("is not a regular file"))
        yield file


def read_volume(path: Path) -> tuple[Volume, list[Piece]]:
    """A volume and its pieces, with head, index and trailer checked. Raises Damaged or OSError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < len(HEAD) + TRAILER.size:
            raise Damaged(_("is cut short: it has {size} bytes", size=size))
        if _at(file, 0, len(HEAD)) != HEAD:
            raise Damaged(_("does not begin like a volume"))
        magic, version, zero, offset, length, digest = TRAILER.unpack(
            _at(file, size - TRAILER.size, TRAILER.size)
        )
        if magic != TRAILER_MAGIC:
            raise Damaged(_("is cut short or damaged: it does not end like a volume"))
        if version != FORMAT:
            raise Damaged(
                _(
                    "is of format {version} or damaged; this gapforge reads format {format}",
                    version=version,
                    format=FORMAT,
                )
            )
        if zero or offset < len(HEAD) or offset + length + TRAILER.size != size:
            raise Damaged(_("is cut short or damaged: its trailer does not fit its size"))
        if length > MAX_INDEX:
            raise Damaged(
                _(
                    "has an index of {length} bytes; no more than {max_index} are read",
                    length=length,
                    max_index=MAX_INDEX,
                )
            )
        index = _at(file, offset, length)
    if bytes.fromhex(sha256_bytes(index)) != digest:
        raise Damaged(_("has a damaged index: its hash is another"))
    identity, pieces = _parse_index(parse_json(index))
    payload = sum(piece.span.length for piece in pieces)
    if payload != offset - len(HEAD):
        raise Damaged(
            _(
                "lists {payload} bytes and holds {offset}",
                payload=payload,
                offset=offset - len(HEAD),
            )
        )
    return Volume(path, size, digest.hex(), identity), pieces


def _at(file: io.FileIO, offset: int, length: int) -> bytes:
    data = os.pread(file.fileno(), length, offset)
    if len(data) != length:
        raise Damaged(_("became shorter while it was read"))
    return data


def _parse_index(raw: Any) -> tuple[Identity, list[Piece]]:
    keys = {
        "format",
        "bundle",
        "number",
        "volumes",
        "volume_size",
        "repairs",
        "pieces",
        "views",
        "tool",
    }
    if (
        type(raw) is not dict
        or set(raw) != keys
        or raw["format"] != FORMAT
        or type(raw["pieces"]) is not list
    ):
        raise Damaged(_("has an index of another form"))
    volumes = number_in(raw["volumes"], 1, MAX_VOLUMES, lambda: _("a number of volumes"))
    identity = Identity(
        text_in(raw["bundle"], BUNDLE_ID, lambda: _("the bundle")),
        number_in(raw["number"], 1, volumes, lambda: _("its number")),
        volumes,
        number_in(raw["volume_size"], 1, MAX_VOLUME_SIZE, lambda: _("a volume size")),
        text_or_none(raw["repairs"], BUNDLE_ID, lambda: _("the mended bundle")),
        parse_views(raw["views"]),
        text_or_none(raw["tool"], SHA256_HEX, lambda: _("gapforge itself as")),
    )
    pieces, position = [], len(HEAD)
    for row in raw["pieces"]:
        if type(row) is not list or len(row) not in (2, 5):
            raise Damaged(_("holds a piece of another form"))
        span = parse_span(row[:4])
        sha256 = text_in(row[4], SHA256_HEX, lambda: _("a piece")) if len(row) == 5 else span.sha256
        pieces.append(Piece(span, sha256, position))
        position += span.length
    check_order([piece.span for piece in pieces])
    return identity, pieces
