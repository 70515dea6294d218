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
from gapforge.base.system_errors import says
from gapforge.base.text import tr

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
PRESET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NO_HASH = "0" * 64
Words = Callable[[], str]  # asked only when something is wrong: an index has a hundred thousand values


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
        return [self.sha256, self.size] if self.whole else [self.sha256, self.size, self.offset, self.length]


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
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def index_bytes(identity: Identity, spans: Sequence[Span], hashes: Sequence[str]) -> bytes:
    """The index of a volume that holds ``spans`` with these piece hashes."""
    pieces = [span.to_json() + ([] if span.whole else [sha256]) for span, sha256 in zip(spans, hashes, strict=True)]
    return compact({
        "format": FORMAT, "bundle": identity.bundle, "number": identity.number, "volumes": identity.volumes,
        "volume_size": identity.volume_size, "repairs": identity.repairs, "pieces": pieces,
        "views": [view.to_json() for view in identity.views], "tool": identity.tool,
    })  # fmt: skip


def index_room(span: Span) -> int:
    """How many bytes of index this span takes."""
    return len(json.dumps(span.to_json() + ([] if span.whole else [_NO_HASH]), separators=(",", ":"))) + 1


def trailer(index: bytes, offset: int) -> bytes:
    """The last bytes of a volume whose index begins at ``offset``."""
    return TRAILER.pack(TRAILER_MAGIC, FORMAT, 0, offset, len(index), bytes.fromhex(sha256_bytes(index)))


def volume_size(identity: Identity, spans: Sequence[Span]) -> int:
    """The exact size in bytes that the volume will have."""
    index = index_bytes(identity, spans, [_NO_HASH] * len(spans))
    return len(HEAD) + sum(span.length for span in spans) + len(index) + TRAILER.size


def parse_json(data: bytes) -> Any:
    """JSON out of a bundle. Raises Damaged for anything unusual; large numbers and depth cost nothing."""

    # One object, rows that hold a hash, few values besides: any other shape could take far more memory than its text.
    if data.count(b"{") > 1 or data.count(b"[") > len(data) // 64 + 16 or data.count(b",") > len(data) // 10 + 100_000:
        raise Damaged(tr("gapforge가 쓰는 JSON의 형태가 아님", "is not shaped like the JSON that gapforge writes"))

    def refuse(text: str) -> NoReturn:
        raise ValueError(tr(f"쓸 수 없는 숫자 {text[:20]}", f"holds the number {text[:20]}"))

    def number(text: str) -> int:
        return int(text) if len(text) <= 19 else refuse(text)

    try:
        value = json.loads(data.decode("ascii"), parse_int=number, parse_float=refuse, parse_constant=refuse)
        if compact(value) != data:
            raise Damaged(tr("gapforge가 쓰는 방식으로 적혀 있지 않음", "is not written the way gapforge writes it"))
    except RecursionError:
        raise Damaged(tr("너무 깊이 중첩됨", "is nested too deeply")) from None
    except (ValueError, MemoryError) as error:
        why = says(error)[:100]
        raise Damaged(
            tr(f"gapforge가 쓰는 JSON이 아님: {why}", f"is not the JSON that gapforge writes: {why}")
        ) from None
    return value


def number_in(value: Any, least: int, most: int, what: Words) -> int:
    """``value`` when it is a whole number in range; Damaged otherwise."""
    if type(value) is not int or not least <= value <= most:
        raise Damaged(tr(f"{what()}: 있을 수 없는 값 {str(value)[:40]} ({least}~{most})",
                         f"declares {what()} {str(value)[:40]}, which cannot be ({least} to {most})"))  # fmt: skip
    return value


def text_in(value: Any, pattern: re.Pattern[str], what: Words) -> str:
    """``value`` when it is a text of this form; Damaged otherwise."""
    if type(value) is not str or not pattern.fullmatch(value):
        raise Damaged(tr(f"{what()}: 허용되지 않는 값 {str(value)[:60]!r}",
                         f"declares {what()} {str(value)[:60]!r}, which is not allowed"))  # fmt: skip
    return value


def text_or_none(value: Any, pattern: re.Pattern[str], what: Words) -> str:
    """``value`` when it is "" or a text of this form; Damaged otherwise."""
    return "" if type(value) is str and not value else text_in(value, pattern, what)


def parse_span(row: Any) -> Span:
    """A span out of JSON. Raises Damaged when no object can have it."""
    if type(row) is not list or len(row) not in (2, 4):
        raise Damaged(tr("조각의 형식이 다름", "holds a piece of another form"))
    sha256 = text_in(row[0], SHA256_HEX, lambda: tr("객체", "an object"))
    size = number_in(
        row[1], 0, MAX_OBJECT, lambda: tr(f"객체 {sha256[:12]}의 크기", f"for object {sha256[:12]} the size")
    )
    if len(row) == 2:
        return Span(sha256, size, 0, size)
    offset = number_in(
        row[2], 0, size, lambda: tr(f"객체 {sha256[:12]}의 위치", f"for object {sha256[:12]} the offset")
    )
    length = number_in(
        row[3], 1, size - offset, lambda: tr(f"객체 {sha256[:12]}의 길이", f"for object {sha256[:12]} the length")
    )
    if length == size:
        raise Damaged(tr("객체 전체를 일부로 적음", "writes a whole object as a part"))
    return Span(sha256, size, offset, length)


def parse_views(raw: Any) -> tuple[View, ...]:
    """The views out of JSON. A preset's name becomes a folder's, so it is checked here."""
    if type(raw) is not list or len(raw) > MAX_VIEWS:
        raise Damaged(tr("프리셋 목록이 올바르지 않음", "does not list its presets"))
    views = []
    for row in raw:
        if type(row) is not list or len(row) != 3:
            raise Damaged(tr("프리셋 항목의 형식이 다름", "describes a preset in another form"))
        views.append(View(text_in(row[0], PRESET_NAME, lambda: tr("프리셋 이름", "a preset named")),
                          text_in(row[1], SHA256_HEX, lambda: tr("잠금", "the lock")),
                          text_in(row[2], SHA256_HEX, lambda: tr("SHA256SUMS", "the sums"))))  # fmt: skip
    if len({view.preset for view in views}) != len(views):
        raise Damaged(tr("같은 프리셋이 두 번 나옴", "names a preset twice"))
    return tuple(views)


def check_order(spans: Sequence[Span]) -> None:
    """Raise Damaged unless the spans are sorted, apart, and agree on each object's size."""
    for before, after in pairwise(spans):
        same = before.sha256 == after.sha256
        if before.sha256 > after.sha256 or (same and (before.end > after.offset or before.size != after.size)):
            raise Damaged(tr(f"객체 {after.sha256[:12]}: 두 번 나오거나 순서가 틀림",
                             f"lists object {after.sha256[:12]} twice or out of order"))  # fmt: skip
        if same and not (before.size and after.size):
            raise Damaged(tr(f"객체 {after.sha256[:12]}: 두 번 나옴", f"lists object {after.sha256[:12]} twice"))


@contextmanager
def open_regular(path: Path) -> Iterator[io.FileIO]:
    """A file of a carrier, unbuffered. Damaged for a link, pipe or device; OSError as the system says it."""
    kind = os.lstat(path).st_mode
    if stat.S_ISLNK(kind):
        raise Damaged(tr("파일이 아니라 심볼릭 링크임", "is a symbolic link, not a file"))
    if not stat.S_ISREG(kind):  # to open a device may already do something
        raise Damaged(tr("일반 파일이 아님", "is not a regular file"))
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Damaged(tr("일반 파일이 아님", "is not a regular file"))
        yield file


def read_volume(path: Path) -> tuple[Volume, list[Piece]]:
    """A volume and its pieces, with head, index and trailer checked. Raises Damaged or OSError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < len(HEAD) + TRAILER.size:
            raise Damaged(tr(f"잘려 있음: {size}바이트뿐임", f"is cut short: it has {size} bytes"))
        if _at(file, 0, len(HEAD)) != HEAD:
            raise Damaged(tr("시작이 볼륨과 다름", "does not begin like a volume"))
        magic, version, zero, offset, length, digest = TRAILER.unpack(_at(file, size - TRAILER.size, TRAILER.size))
        if magic != TRAILER_MAGIC:
            raise Damaged(
                tr("잘렸거나 손상됨: 끝이 볼륨과 다름", "is cut short or damaged: it does not end like a volume")
            )
        if version != FORMAT:
            raise Damaged(tr(f"형식 {version}이거나 손상됨; 이 gapforge가 읽는 형식은 {FORMAT}",
                             f"is of format {version} or damaged; this gapforge reads format {FORMAT}"))  # fmt: skip
        if zero or offset < len(HEAD) or offset + length + TRAILER.size != size:
            raise Damaged(tr("잘렸거나 손상됨: 꼬리표가 파일 크기와 맞지 않음",
                             "is cut short or damaged: its trailer does not fit its size"))  # fmt: skip
        if length > MAX_INDEX:
            raise Damaged(tr(f"색인이 {length}바이트임; {MAX_INDEX}바이트까지만 읽음",
                             f"has an index of {length} bytes; no more than {MAX_INDEX} are read"))  # fmt: skip
        index = _at(file, offset, length)
    if bytes.fromhex(sha256_bytes(index)) != digest:
        raise Damaged(tr("색인이 손상됨: 해시가 다름", "has a damaged index: its hash is another"))
    identity, pieces = _parse_index(parse_json(index))
    payload = sum(piece.span.length for piece in pieces)
    if payload != offset - len(HEAD):
        raise Damaged(tr(f"색인에는 {payload}바이트가 있다고 하지만 실제로는 {offset - len(HEAD)}바이트임",
                         f"lists {payload} bytes and holds {offset - len(HEAD)}"))  # fmt: skip
    return Volume(path, size, digest.hex(), identity), pieces


def _at(file: io.FileIO, offset: int, length: int) -> bytes:
    data = os.pread(file.fileno(), length, offset)
    if len(data) != length:
        raise Damaged(tr("읽는 동안 짧아짐", "became shorter while it was read"))
    return data


def _parse_index(raw: Any) -> tuple[Identity, list[Piece]]:
    keys = {"format", "bundle", "number", "volumes", "volume_size", "repairs", "pieces", "views", "tool"}
    if type(raw) is not dict or set(raw) != keys or raw["format"] != FORMAT or type(raw["pieces"]) is not list:
        raise Damaged(tr("색인의 형식이 다름", "has an index of another form"))
    volumes = number_in(raw["volumes"], 1, MAX_VOLUMES, lambda: tr("볼륨 수", "a number of volumes"))
    identity = Identity(
        text_in(raw["bundle"], BUNDLE_ID, lambda: tr("묶음", "the bundle")),
        number_in(raw["number"], 1, volumes, lambda: tr("볼륨 번호", "its number")),
        volumes,
        number_in(raw["volume_size"], 1, MAX_VOLUME_SIZE, lambda: tr("볼륨 크기", "a volume size")),
        text_or_none(raw["repairs"], BUNDLE_ID, lambda: tr("복구할 묶음", "the mended bundle")),
        parse_views(raw["views"]),
        text_or_none(raw["tool"], SHA256_HEX, lambda: tr("gapforge 저장소", "gapforge itself as")),
    )
    pieces, position = [], len(HEAD)
    for row in raw["pieces"]:
        if type(row) is not list or len(row) not in (2, 5):
            raise Damaged(tr("조각의 형식이 다름", "holds a piece of another form"))
        span = parse_span(row[:4])
        sha256 = text_in(row[4], SHA256_HEX, lambda: tr("조각", "a piece")) if len(row) == 5 else span.sha256
        pieces.append(Piece(span, sha256, position))
        position += span.length
    check_order([piece.span for piece in pieces])
    return identity, pieces
