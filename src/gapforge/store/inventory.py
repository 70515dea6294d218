"""An inventory: what a site holds, as a small text file that travels back by mail, and a digest for a phone.

    gapforge-inventory 1
    gapforge 0.3.0
    preset NAME SHA256-OF-ITS-LOCK        sorted by name
    objects COUNT BYTES
    SHA256 SIZE                           sorted; at most 84 bytes a line
    sha256 HASH-OF-EVERYTHING-ABOVE

It says nothing of the machine or the day: the same holdings give the same bytes. Objects are kept as packed bytes,
40 a piece, so that an inventory of a million needs little memory whoever wrote it.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from gapforge.base.errors import Fault, UsageError, VerifyError
from gapforge.base.files import SHA256_HEX
from gapforge.base.i18n import _
from gapforge.model.names import PRESET_NAME

FORMAT = 1
TITLE = "gapforge-inventory"
MOST_OBJECTS = 1_000_000
MOST_PRESETS = 10_000
MOST_BYTES = 100_000_000  # of text; a million objects with the longest sizes are 84 MB
LARGEST = 2**63 - 1  # bytes of one object, and of all together
LONGEST_LINE = 400
TOOL_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,39}")

_NUMBER = "(0|[1-9][0-9]{0,18})"
_HEX = "([0-9a-f]{64})"
_FIRST = re.compile(rf"{TITLE} ([0-9]{{1,9}})".encode())
_TOOL = re.compile(f"gapforge ({TOOL_VERSION.pattern})".encode())
_PRESET = re.compile(f"preset ({PRESET_NAME.pattern}) {_HEX}".encode())
_COUNT = re.compile(f"objects {_NUMBER} {_NUMBER}".encode())
_OBJECT = re.compile(f"{_HEX} {_NUMBER}".encode())
_LAST = re.compile(f"sha256 {_HEX}".encode())
_SIZE = struct.Struct(">Q")
_BLOCK = 4096  # object lines that are rendered at a time

# Digits and letters that look or sound like no other of them (I, L, O and U are left out).
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SAME = str.maketrans("OIL", "011", " -\t\r\n")
_GROUP, _GROUPS = 4, 8


@dataclass(frozen=True)
class Inventory:
    """What a site holds: ``presets`` are (name, SHA-256 of the lock file) pairs by name; objects are SHA-256 and size.

    ``tool`` is the version of gapforge that took it. Make one with ``of``, ``parse`` or ``read``.
    """

    tool: str
    presets: tuple[tuple[str, str], ...]
    _hashes: bytes  # 32 bytes an object, ascending
    _sizes: bytes  # 8 bytes an object, in the same order

    @classmethod
    def of(cls, tool: str, presets: Mapping[str, str], objects: Mapping[str, int]) -> Inventory:
        """The inventory of these presets (name -> SHA-256 of the lock) and objects (SHA-256 -> bytes).

        Raises ValueError for what an inventory cannot say.
        """
        good = (
            TOOL_VERSION.fullmatch(tool)
            and all(
                PRESET_NAME.fullmatch(n) and SHA256_HEX.fullmatch(h) for n, h in presets.items()
            )
            and all(SHA256_HEX.fullmatch(h) and size >= 0 for h, size in objects.items())
            and len(presets) <= MOST_PRESETS
            and len(objects) <= MOST_OBJECTS
            and sum(objects.values()) <= LARGEST
        )
        if not good:
            raise ValueError("an inventory cannot hold this")
        ordered = sorted(objects)
        return cls(
            tool,
            tuple(sorted(presets.items())),
            b"".join(map(bytes.fromhex, ordered)),
            b"".join(_SIZE.pack(objects[sha256]) for sha256 in ordered),
        )

    def __len__(self) -> int:
        return len(self._sizes) // _SIZE.size

    def __contains__(self, sha256: str) -> bool:
        return self.size_of(sha256) is not None

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """(SHA-256, bytes) of every object, by hash."""
        for index, (size,) in enumerate(_SIZE.iter_unpack(self._sizes)):
            yield self._hashes[32 * index : 32 * index + 32].hex(), size

    def size_of(self, sha256: str) -> int | None:
        """Bytes of the object with this hash; None when the site does not hold it."""
        if not SHA256_HEX.fullmatch(sha256):
            raise ValueError(f"not a SHA-256: {sha256!r}")
        wanted, low, high = bytes.fromhex(sha256), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            found = self._hashes[32 * middle : 32 * middle + 32]
            if found == wanted:
                return int(_SIZE.unpack_from(self._sizes, middle * _SIZE.size)[0])
            low, high = (middle + 1, high) if found < wanted else (low, middle)
        return None

    @property
    def total(self) -> int:
        """Bytes of all objects together."""
        return sum(size for (size,) in _SIZE.iter_unpack(self._sizes))

    @property
    def sha256(self) -> str:
        """The hash of the text without its last line, which states it."""
        digest = hashlib.sha256()
        for chunk in self._body():
            digest.update(chunk.encode())
        return digest.hexdigest()

    @property
    def digest(self) -> str:
        """The short digest to photograph or read out: see ``short_digest``."""
        return short_digest(self.sha256)

    def chunks(self) -> Iterator[str]:
        """The text in pieces, for files."""
        digest = hashlib.sha256()
        for chunk in self._body():
            digest.update(chunk.encode())
            yield chunk
        yield f"sha256 {digest.hexdigest()}\n"

    def render(self) -> str:
        """The whole text: same holdings, same bytes."""
        return "".join(self.chunks())

    def _body(self) -> Iterator[str]:
        yield f"{TITLE} {FORMAT}\ngapforge {self.tool}\n"
        yield "".join(f"preset {name} {sha256}\n" for name, sha256 in self.presets)
        yield f"objects {len(self)} {self.total}\n"
        block: list[str] = []
        for sha256, size in self:
            block.append(f"{sha256} {size}\n")
            if len(block) == _BLOCK:
                yield "".join(block)
                block.clear()
        yield "".join(block)

    @classmethod
    def parse(cls, text: str, shown: str = "") -> Inventory:
        """The inventory that ``text`` is. Raises VerifyError for anything that ``render`` would not have written.

        Only line ends may differ (a mail program may have made them CRLF). ``shown`` is the name for messages.
        """
        shown = shown or _("the inventory")
        if len(text) > MOST_BYTES:
            _refuse(shown, 0, _("is longer than {most_bytes} bytes", most_bytes=MOST_BYTES))
        if not text.isascii():
            _refuse(shown, 0, _("holds characters that are not ASCII"))
        return _parse(_lines(text), shown)

    @classmethod
    def read(cls, file: Path, shown: str = "") -> Inventory:
        """The inventory in ``file``, read a line at a time. Raises VerifyError as ``parse`` does, OSError for the disk."""
        shown = shown or str(file)
        if not file.exists():
            raise UsageError(
                _("{shown} does not exist", shown=shown),
                hint=_("at the site: ./gapforge inventory --all"),
            )
        if not file.is_file():
            _refuse(shown, 0, _("is no regular file"))
        with open(file, "rb") as source:
            return _parse(iter(lambda: source.readline(LONGEST_LINE + 2), b""), shown)


def short_digest(sha256: str) -> str:
    """Eight groups of four letters and digits for a SHA-256: its first 155 bits and a check letter.

    The check letter finds every single wrong letter, and every two neighbours that changed places.
    """
    number = int(sha256, 16) >> 101
    letters = [(number >> (5 * (30 - index))) & 31 for index in range(31)]
    check = 0
    for index, value in enumerate(letters):
        check ^= _times(value, index)
    text = "".join(_LETTERS[value] for value in (*letters, check))
    return "-".join(text[at : at + _GROUP] for at in range(0, _GROUP * _GROUPS, _GROUP))


def read_short_digest(text: str) -> str:
    """A short digest as ``short_digest`` writes it, from what a person typed: case, spaces, O for 0 and I or L for 1
    do not matter. Raises UsageError for one that was misread."""
    plain = text.upper().translate(_SAME)
    if len(plain) != _GROUP * _GROUPS or any(letter not in _LETTERS for letter in plain):
        raise UsageError(
            _(
                "{text!r} is not a digest of an inventory: expected {groups} groups of "
                "{group} letters and digits",
                text=text,
                groups=_GROUPS,
                group=_GROUP,
            ),
            hint=_("read it out again; I, L, O and U do not occur"),
        )
    total = 0
    for index, letter in enumerate(plain):
        total ^= _times(_LETTERS.index(letter), index)
    if total:
        raise UsageError(
            _("{text!r} was misread: its check letter does not fit", text=text),
            hint=_("read it out again"),
        )
    return "-".join(plain[at : at + _GROUP] for at in range(0, _GROUP * _GROUPS, _GROUP))


def _times(value: int, power: int) -> int:
    """``value`` times the generator to this power, in the field of 32 elements (x^5 + x^2 + 1)."""
    for _round in range(power):
        value <<= 1
        if value & 32:
            value ^= 0b100101
    return value


def _lines(text: str) -> Iterator[bytes]:
    """The lines of an ASCII text with their ends, one at a time."""
    start = 0
    while start < len(text):
        end = text.find("\n", start, start + LONGEST_LINE + 2)
        end = end + 1 if end >= 0 else min(len(text), start + LONGEST_LINE + 2)
        yield text[start:end].encode("ascii")
        start = end


def _parse(lines: Iterable[bytes], shown: str) -> Inventory:
    numbered = _Lines(lines, shown)
    title = numbered.match(_FIRST, f'"{TITLE} {FORMAT}"')
    if int(title[1]) != FORMAT:
        _refuse(
            shown,
            1,
            _("is in format {title}", title=int(title[1])),
            _("format {format}", format=FORMAT),
            hint=_("take it with the gapforge of the same version as this one"),
        )
    tool = numbered.match(_TOOL, '"gapforge VERSION"')[1].decode()
    presets: list[tuple[str, str]] = []
    while found := numbered.try_match(_PRESET):
        name = found[1].decode()
        if presets and name <= presets[-1][0]:
            _refuse(
                shown,
                numbered.number,
                _("names preset {name} twice or out of order", name=name),
                _("presets sorted, each once"),
            )
        if len(presets) == MOST_PRESETS:
            _refuse(shown, numbered.number, _("names too many presets"), _at_most(MOST_PRESETS))
        presets.append((name, found[2].decode()))
    head = numbered.match(_COUNT, _('"preset NAME SHA256" or "objects COUNT BYTES"'))
    count, total = int(head[1]), int(head[2])
    if count > MOST_OBJECTS:
        _refuse(
            shown,
            numbered.number,
            _("announces {count} objects", count=count),
            _at_most(MOST_OBJECTS),
        )
    if total > LARGEST:
        _refuse(
            shown, numbered.number, _("announces {total} bytes", total=total), _at_most(LARGEST)
        )
    hashes, sizes, before = bytearray(), bytearray(), b""
    for _round in range(count):
        line = numbered.match(_OBJECT, '"SHA256 SIZE"')
        if line[1] <= before:
            _refuse(
                shown,
                numbered.number,
                _("holds an object twice or out of order"),
                _("objects sorted, each once"),
            )
        before, size = line[1], int(line[2])
        if size > total:  # also keeps it within the eight bytes that it is kept in
            _refuse(
                shown,
                numbered.number,
                _("holds an object of {size} bytes", size=size),
                _("{total} bytes for all of them", total=total),
            )
        hashes += bytes.fromhex(before.decode())
        sizes += _SIZE.pack(size)
        total -= size
    if total:
        _refuse(
            shown,
            numbered.number,
            _("announces {total} bytes more than its objects have", total=total),
        )
    expected = numbered.digest.hexdigest()
    last = numbered.match(_LAST, _('"sha256 HASH" after {count} objects', count=count))
    if last[1].decode() != expected:
        _refuse(
            shown,
            numbered.number,
            _("states sha256 {last}", last=last[1].decode()),
            _("sha256 {expected} of the lines above", expected=expected),
        )
    if numbered.more():
        _refuse(shown, numbered.number + 1, _("goes on after its last line"), _("nothing more"))
    return Inventory(tool, tuple(presets), bytes(hashes), bytes(sizes))


class _Lines:
    """Lines with their number, and the hash of those that were taken."""

    def __init__(self, lines: Iterable[bytes], shown: str) -> None:
        self._lines, self._shown = iter(lines), shown
        self._next: bytes | None = None
        self.number = 0
        self.digest = hashlib.sha256()

    def try_match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """The next line if it has this form; it stays the next one otherwise."""
        if self._next is None:
            self._next = next(self._lines, b"")
        ended = self._next.endswith(b"\n")
        line = self._next[:-1].removesuffix(b"\r") if ended else self._next
        # Only the last line may lack its end, which some mail programs drop.
        found = pattern.fullmatch(line) if ended or pattern is _LAST else None
        if found is not None:
            self.number, self._next = self.number + 1, None
            self.digest.update(line + b"\n")
        return found

    def match(self, pattern: re.Pattern[bytes], expected: str) -> re.Match[bytes]:
        """The next line, which must have this form."""
        found = self.try_match(pattern)
        if found is None:
            problem = _("is cut short") if not self._next else _("has another form")
            _refuse(self._shown, self.number + 1, problem, expected)
        return found

    def more(self) -> bool:
        """Whether anything is left."""
        return bool(self._next or next(self._lines, b""))


def _at_most(count: int) -> str:
    return _("at most {count}", count=count)


def _refuse(shown: str, line: int, problem: str, expected: str = "", hint: str = "") -> NoReturn:
    where = _("{shown}: line {line}", shown=shown, line=line) if line else shown
    hint = hint or _("have the file sent again as an attachment, and compare the digest")
    raise VerifyError(
        _("{shown} is not an inventory that can be used", shown=shown),
        faults=[Fault(where, problem, expected)],
        hint=hint,
    )
