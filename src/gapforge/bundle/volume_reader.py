"""Read and verify volumes: head, index and trailer first, then the bytes of the parts."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gapforge.base.files import SHA256_HEX, open_regular, sha256_bytes
from gapforge.base.i18n import N_, _
from gapforge.base.parallel import on_all_cores, raise_if_stopped
from gapforge.bundle.cache_pressure import DropBehind
from gapforge.bundle.volume_format import (
    BUNDLE_ID,
    FORMAT,
    HEAD,
    MAX_INDEX,
    MAX_VOLUME_SIZE,
    MAX_VOLUMES,
    REPAIRED_BUNDLE,
    REPOSITORY,
    TRAILER,
    TRAILER_MAGIC,
    Damaged,
    StoredPart,
    Volume,
    VolumeIdentity,
    check_order,
    parse_document,
    parse_json,
    parse_number,
    parse_optional_text,
    parse_part,
    parse_presets,
    parse_text,
    too_large,
    unknown_form,
)

# In bytes. All threads together stay below the total, so that many cores do not need much memory.
_BUFFER, _ALL_BUFFERS, _LEAST_BUFFER = 2 << 20, 8 << 20, 64 << 10
_FIELDS = ("format", "bundle", "number", "volumes", "volume_size", "repairs", "views", "tool")


def read_volume(path: Path) -> tuple[Volume, list[StoredPart]]:
    """Return a volume and its parts after checking head, index and trailer.

    Raise Damaged or OSError. The bytes of the parts are not read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < len(HEAD) + TRAILER.size:
            raise Damaged(_("truncated: only {size} bytes", size=size))
        if _read_at(file, 0, len(HEAD)) != HEAD:
            raise Damaged(_("not a volume: the file begins with other bytes"))
        trailer = TRAILER.unpack(_read_at(file, size - TRAILER.size, TRAILER.size))
        magic, version, zero, offset, length, digest = trailer
        if magic != TRAILER_MAGIC:
            raise Damaged(_("truncated or damaged: there is no trailer at the end"))
        if version != FORMAT:
            raise Damaged(
                _(
                    "damaged, or format {version}; this gapforge reads format {format}",
                    version=version,
                    format=FORMAT,
                )
            )
        if zero or offset < len(HEAD) or offset + length + TRAILER.size != size:
            raise Damaged(_("truncated or damaged: the trailer does not match the file size"))
        if length > MAX_INDEX:
            raise too_large(length)
        index = _read_at(file, offset, length)
    if bytes.fromhex(sha256_bytes(index)) != digest:
        raise Damaged(_("checksum mismatch in the index of the volume"))
    identity, parts = _parse_index(parse_json(index))
    listed, found = sum(stored.part.length for stored in parts), offset - len(HEAD)
    if listed != found:
        raise Damaged(
            _(
                "the index lists {listed} bytes and the volume contains {found}",
                listed=listed,
                found=found,
            )
        )
    return Volume(path, size, digest.hex(), identity), parts


def _read_at(file: io.FileIO, offset: int, length: int) -> bytes:
    data = os.pread(file.fileno(), length, offset)
    if len(data) != length:
        raise Damaged(_("the file became shorter while it was read"))
    return data


def _parse_index(raw: Any) -> tuple[VolumeIdentity, list[StoredPart]]:
    raw = parse_document(raw, _FIELDS, ("pieces",), N_("index of the volume"))
    volumes = parse_number(raw["volumes"], 1, MAX_VOLUMES, N_("number of volumes"))
    identity = VolumeIdentity(
        bundle=parse_text(raw["bundle"], BUNDLE_ID, N_("bundle id")),
        number=parse_number(raw["number"], 1, volumes, N_("volume number")),
        volumes=volumes,
        volume_size=parse_number(raw["volume_size"], 1, MAX_VOLUME_SIZE, N_("volume size")),
        repairs=parse_optional_text(raw["repairs"], BUNDLE_ID, REPAIRED_BUNDLE),
        presets=parse_presets(raw["views"]),
        tool=parse_optional_text(raw["tool"], SHA256_HEX, REPOSITORY),
    )
    parts, position = [], len(HEAD)
    for row in raw["pieces"]:
        if type(row) is not list or len(row) not in (2, 5):
            raise unknown_form(N_("entry of the list of objects"))
        part = parse_part(row[:4])
        sha256 = part.sha256
        if len(row) == 5:
            sha256 = parse_text(row[4], SHA256_HEX, N_("SHA-256 of a part"))
        parts.append(StoredPart(part, sha256, position))
        position += part.length
    check_order([stored.part for stored in parts])
    return identity, parts


class _ThreadState(threading.local):
    """The buffer and the cache position of each reading thread."""

    def __init__(self) -> None:
        size = min(_BUFFER, max(_LEAST_BUFFER, _ALL_BUFFERS // (os.cpu_count() or 1)))
        self.buffer = memoryview(bytearray(size))
        self.cache = DropBehind(-1)


_thread = _ThreadState()


def read_part(
    handle: int, stored: StoredPart, write: Callable[[memoryview, int], None] | None = None
) -> None:
    """Read and verify one part of an open volume.

    ``write`` receives each chunk and its offset in the object, before the part is verified.
    Raise Damaged for a checksum mismatch, OSError if the medium cannot be read.
    """
    digest, done, part = hashlib.sha256(), 0, stored.part
    if _thread.cache.handle != handle:
        _thread.cache = DropBehind(handle)
    _thread.cache.seek(stored.position)
    while done < part.length:
        raise_if_stopped()
        chunk = _thread.buffer[: part.length - done]
        count = os.preadv(handle, [chunk], stored.position + done)
        if not count:
            raise Damaged(_("the volume ends before its last part"))
        digest.update(chunk[:count])
        if write is not None:
            write(chunk[:count], part.offset + done)
        done += count
        _thread.cache.advance(stored.position + done)
    found = digest.hexdigest()
    if found != stored.sha256:
        expected = stored.sha256
        raise Damaged(
            _(
                "checksum mismatch: expected {expected}, found {found}",
                expected=expected,
                found=found,
            )
        )


def damaged_parts(path: Path, parts: Sequence[StoredPart]) -> list[StoredPart]:
    """Return the parts of a volume that fail verification. Raise OSError if it is unreadable."""

    def is_damaged(stored: StoredPart) -> bool:
        try:
            read_part(handle, stored)
        except Damaged:
            return True
        return False

    with open_regular(path) as file:
        handle = file.fileno()
        damaged = on_all_cores(is_damaged, parts)
    return [stored for stored, bad in zip(parts, damaged, strict=True) if bad]


def find_files(
    folders: Sequence[Path], suffix: str, unlisted: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """Yield the files with this suffix in and below the folders, in sorted order.

    Links to folders are not followed and hidden files are left out. A path that is not a folder is
    yielded as it is. ``unlisted`` is called for each folder that cannot be listed.
    """
    for folder in folders:
        if not folder.is_dir():
            yield folder
            continue
        for where, below, names in os.walk(folder, onerror=unlisted):
            below.sort()
            for name in sorted(names):
                if name.lower().endswith(suffix) and not name.startswith("."):
                    yield Path(where, name)
