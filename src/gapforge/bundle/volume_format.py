"""Define the format of a volume: its constants, the entries of its index, and their JSON.

    16 bytes   HEAD
    …          the bytes of the parts, in the order of the index
    …          the index: compact JSON with sorted keys
    64 bytes   trailer: magic, version, zero, index offset, index length, SHA-256 of the index

The index contains the SHA-256 of each part, so the SHA-256 of the index covers every byte of the
volume and no byte is hashed twice. The index comes last so that a volume is written in one pass.

Everything parsed here comes from a medium that anybody may have changed. Each value is checked
before it is used, and no length in a file decides how much memory is allocated.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from gapforge.base.files import SHA256_HEX, read_regular, sha256_bytes
from gapforge.base.i18n import N_, _
from gapforge.base.storage_errors import is_gone
from gapforge.base.system_errors import error_text, unreadable
from gapforge.model.names import PRESET_NAME

FORMAT = 2
SUFFIX = ".gfv"
HEAD = b"gapforge-volume\n"
TRAILER_MAGIC = b"GFV-END\n"
TRAILER = struct.Struct(">8sIIQQ32s")
MAX_INDEX = 4 << 20  # bytes; the parsed index takes ten times as much memory
MAX_OBJECT = 1 << 44  # bytes; no file system at a site stores larger files
MAX_VOLUMES = 999_999
MAX_VOLUME_SIZE = 1 << 62  # bytes
MAX_PRESETS = 1000
BUNDLE_ID = re.compile(r"[0-9a-f]{24}")
REPAIRED_BUNDLE, REPOSITORY = N_("id of the repaired bundle"), N_("id of the repository archive")
_NO_SHA256 = "0" * 64


class Damaged(Exception):
    """A file of a bundle fails verification. The text says why; the caller names the file."""


def describe_read_error(error: Damaged | OSError) -> str:
    """Return why a file on a medium cannot be used, without the name of the file."""
    if isinstance(error, Damaged):
        return str(error)
    return _("the medium was removed") if is_gone(error) else unreadable(error)


@dataclass(frozen=True, order=True)
class Part:
    """``length`` bytes from ``offset`` of the object ``sha256``, which has ``size`` bytes."""

    sha256: str
    size: int
    offset: int
    length: int

    @classmethod
    def of_object(cls, sha256: str, size: int) -> Part:
        """Return the part that is the whole object."""
        return cls(sha256, size, 0, size)

    @property
    def whole(self) -> bool:
        return self.length == self.size

    @property
    def end(self) -> int:
        return self.offset + self.length

    def to_json(self) -> list[Any]:
        row = [self.sha256, self.size]
        return row if self.whole else [*row, self.offset, self.length]


@dataclass(frozen=True)
class StoredPart:
    """A part in a volume: ``position`` is its first byte in the file, ``sha256`` its checksum."""

    part: Part
    sha256: str
    position: int


@dataclass(frozen=True, order=True)
class BundledPreset:
    """One preset of a bundle, with the SHA-256 of its lock.json and of its SHA256SUMS.

    Both files are objects of the bundle.
    """

    preset: str
    lock: str
    sums: str

    def to_json(self) -> list[str]:
        return [self.preset, self.lock, self.sums]


@dataclass(frozen=True, kw_only=True)
class VolumeIdentity:
    """Which volume of which bundle a file is: ``number`` (from 1) of ``volumes``.

    ``repairs`` is the id of the bundle that this bundle repairs, or "". ``tool`` is the SHA-256 of
    the archive of gapforge's repository, or "" if the bundle does not contain it.
    """

    bundle: str
    number: int
    volumes: int
    volume_size: int
    repairs: str
    presets: tuple[BundledPreset, ...]
    tool: str = ""

    @property
    def original_bundle(self) -> str:
        """Return the bundle that the volume helps to import: its own, or the one it repairs."""
        return self.repairs or self.bundle

    @property
    def file(self) -> str:
        return volume_name(self.bundle, self.number)


@dataclass(frozen=True)
class Volume:
    """A volume whose head, index and trailer are valid. Its parts are not verified yet."""

    path: Path
    size: int
    index_sha256: str
    identity: VolumeIdentity


def volume_name(bundle: str, number: int) -> str:
    """Return the file name of a volume, such as ``ID-0001.gfv``."""
    return f"{bundle}-{number:04}{SUFFIX}"


def compact_json(value: Any) -> bytes:
    """Return the JSON form used in bundles: one ASCII line, sorted keys, a newline at the end."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode() + b"\n"


def volume_index(
    identity: VolumeIdentity, parts: Sequence[Part], checksums: Sequence[str]
) -> bytes:
    """Return the index of a volume that contains ``parts``, whose SHA-256 are ``checksums``."""
    return compact_json(
        {
            "format": FORMAT,
            "bundle": identity.bundle,
            "number": identity.number,
            "volumes": identity.volumes,
            "volume_size": identity.volume_size,
            "repairs": identity.repairs,
            "pieces": [_index_row(*each) for each in zip(parts, checksums, strict=True)],
            "views": [preset.to_json() for preset in identity.presets],
            "tool": identity.tool,
        }
    )


def _index_row(part: Part, sha256: str) -> list[Any]:
    return part.to_json() if part.whole else [*part.to_json(), sha256]


def index_entry_size(part: Part) -> int:
    """Return how many bytes of the index the entry of this part takes."""
    return len(json.dumps(_index_row(part, _NO_SHA256), separators=(",", ":"))) + 1


def trailer_bytes(index: bytes, offset: int) -> bytes:
    """Return the trailer of a volume whose index begins at ``offset``."""
    digest = bytes.fromhex(sha256_bytes(index))
    return TRAILER.pack(TRAILER_MAGIC, FORMAT, 0, offset, len(index), digest)


def volume_size(identity: VolumeIdentity, parts: Sequence[Part]) -> int:
    """Return the exact size in bytes that the volume will have."""
    index = volume_index(identity, parts, [_NO_SHA256] * len(parts))
    return len(HEAD) + sum(part.length for part in parts) + len(index) + TRAILER.size


def parse_json(data: bytes) -> Any:
    """Return the value of JSON from a bundle. Raise Damaged unless gapforge would write it so.

    Large numbers and deep nesting are rejected before they cost time or memory.
    """
    # The documents have one object, rows that contain a checksum, and few other values. JSON of
    # another structure could take far more memory than its text.
    if (
        data.count(b"{") > 1
        or data.count(b"[") > len(data) // 64 + 16
        or data.count(b",") > len(data) // 10 + 100_000
    ):
        raise Damaged(_("not JSON as gapforge writes it: unusual structure"))

    def refuse(text: str) -> NoReturn:
        raise ValueError(_("the number {number} is not allowed", number=text[:20]))

    def whole_number(text: str) -> int:
        return int(text) if len(text) <= 19 else refuse(text)

    try:
        value = json.loads(
            data.decode("ascii"), parse_int=whole_number, parse_float=refuse, parse_constant=refuse
        )
        if compact_json(value) != data:
            raise Damaged(_("not JSON as gapforge writes it: other spacing or order"))
    except RecursionError:
        raise Damaged(_("the JSON is nested too deeply")) from None
    except (ValueError, MemoryError) as error:
        why = error_text(error)[:100]
        raise Damaged(_("not JSON as gapforge writes it: {why}", why=why)) from None
    return value


def parse_number(value: Any, least: int, most: int, field: str, **values: object) -> int:
    """Return ``value`` if it is a whole number in the range. Raise Damaged naming ``field``."""
    if type(value) is not int or not least <= value <= most:
        field, shown = _(field, **values), str(value)[:40]
        raise Damaged(
            _(
                "{field} is {value}; the allowed range is {least} to {most}",
                field=field,
                value=shown,
                least=least,
                most=most,
            )
        )
    return value


def parse_text(value: Any, pattern: re.Pattern[str], field: str) -> str:
    """Return ``value`` if it is a text that matches. Raise Damaged naming ``field``."""
    if type(value) is not str or not pattern.fullmatch(value):
        field, shown = _(field), str(value)[:60]
        raise Damaged(_("{field} is {value!r}, which is not allowed", field=field, value=shown))
    return value


def parse_optional_text(value: Any, pattern: re.Pattern[str], field: str) -> str:
    """Return ``value`` if it is "" or a text that matches. Raise Damaged naming ``field``."""
    return "" if type(value) is str and not value else parse_text(value, pattern, field)


def parse_part(row: Any) -> Part:
    """Return the part that a JSON row describes. Raise Damaged if no object can have it."""
    if type(row) is not list or len(row) not in (2, 4):
        raise unknown_form(N_("entry of the list of objects"))
    sha256 = parse_text(row[0], SHA256_HEX, N_("SHA-256 of an object"))
    shown = {"sha256": sha256[:12]}
    size = parse_number(row[1], 0, MAX_OBJECT, N_("size of object {sha256}"), **shown)
    if len(row) == 2:
        return Part.of_object(sha256, size)
    offset = parse_number(row[2], 0, size, N_("offset in object {sha256}"), **shown)
    length = parse_number(
        row[3], 1, size - offset, N_("length of a part of object {sha256}"), **shown
    )
    if length == size:
        raise Damaged(_("the whole object {sha256} is listed as a part", **shown))
    return Part(sha256, size, offset, length)


def parse_presets(rows: Any) -> tuple[BundledPreset, ...]:
    """Return the presets that JSON rows describe. Raise Damaged for a name that is not allowed.

    The name of a preset becomes the name of a folder.
    """
    if type(rows) is not list or len(rows) > MAX_PRESETS:
        raise unknown_form(N_("list of presets"))
    presets = []
    for row in rows:
        if type(row) is not list or len(row) != 3:
            raise unknown_form(N_("list of presets"))
        presets.append(
            BundledPreset(
                parse_text(row[0], PRESET_NAME, N_("name of a preset")),
                parse_text(row[1], SHA256_HEX, N_("SHA-256 of a lock")),
                parse_text(row[2], SHA256_HEX, N_("SHA-256 of a SHA256SUMS")),
            )
        )
    if len({preset.preset for preset in presets}) != len(presets):
        raise Damaged(_("a preset is listed twice"))
    return tuple(presets)


def parse_document(
    value: Any, fields: Iterable[str], lists: Collection[str], what: str
) -> dict[str, Any]:
    """Return ``value`` if it is a JSON object of our format with these fields and lists.

    Raise Damaged naming ``what`` for anything else.
    """
    if (
        type(value) is not dict
        or set(value) != {*fields, *lists}
        or value["format"] != FORMAT
        or any(type(value[key]) is not list for key in lists)
    ):
        raise unknown_form(what)
    return value


def unknown_form(what: str) -> Damaged:
    """Return the error for a value whose form this version of gapforge does not know."""
    return Damaged(_("{what}: unknown form", what=_(what)))


def check_order(parts: Sequence[Part]) -> None:
    """Raise Damaged unless the parts are sorted, do not overlap, and agree on object sizes."""
    for before, after in pairwise(parts):
        same = before.sha256 == after.sha256
        if (
            before.sha256 > after.sha256
            or (same and (before.end > after.offset or before.size != after.size))
            or (same and not (before.size and after.size))
        ):
            sha256 = after.sha256[:12]
            raise Damaged(_("object {sha256} is listed twice or out of order", sha256=sha256))


def read_json(path: Path) -> Any:
    """Return the value of a small JSON file of a bundle. Raise Damaged or OSError."""
    return parse_json(read_regular(path, MAX_INDEX))


def too_large(size: int) -> Damaged:
    """Return the error for an index or a request that exceeds the limit."""
    return Damaged(_("{size} bytes of JSON; the limit is {limit}", size=size, limit=MAX_INDEX))
