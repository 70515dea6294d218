"""Write and read inventories: the objects that a site has, as a text file for mail, and a digest.

    gapforge-inventory 1
    gapforge 0.3.0
    preset NAME SHA256-OF-ITS-LOCK        sorted by name
    objects COUNT BYTES
    SHA256 SIZE                           sorted; at most 84 bytes a line
    sha256 HASH-OF-EVERYTHING-ABOVE

It names no machine and no date, so the same objects give the same bytes. In memory each object
takes 40 packed bytes, so a million objects need little memory, whoever wrote the file.
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
from gapforge.base.files import SHA256_HEX, open_buffered
from gapforge.base.i18n import _
from gapforge.model.names import PRESET_NAME

FORMAT = 1
TITLE = "gapforge-inventory"
MAX_OBJECTS = 1_000_000
MAX_PRESETS = 10_000
MAX_BYTES = 100_000_000  # of text; a million objects with the longest sizes are 84 MB
MAX_SIZE = 2**63 - 1  # bytes of one object, and of all together
MAX_LINE = 400
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

# Digits and letters without those that look like others (I, L, O) and without U.
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SAME = str.maketrans("OIL", "011", " -\t\r\n")
_GROUP, _GROUPS = 4, 8


@dataclass(frozen=True)
class Inventory:
    """The objects of a site. Iteration yields (SHA-256, bytes) by SHA-256.

    ``presets`` are (name, SHA-256 of the lock file) by name, ``tool`` is the version of gapforge
    that took the inventory. Create one with ``of``, ``parse`` or ``read``.
    """

    tool: str
    presets: tuple[tuple[str, str], ...]
    _hashes: bytes  # 32 bytes an object, ascending
    _sizes: bytes  # 8 bytes an object, in the same order

    @classmethod
    def of(cls, tool: str, presets: Mapping[str, str], objects: Mapping[str, int]) -> Inventory:
        """Return the inventory of presets (name -> lock's SHA-256) and objects (SHA-256 -> bytes).

        Raises ValueError for what the format does not allow.
        """
        good = (
            TOOL_VERSION.fullmatch(tool)
            and all(
                PRESET_NAME.fullmatch(n) and SHA256_HEX.fullmatch(h) for n, h in presets.items()
            )
            and all(SHA256_HEX.fullmatch(h) and size >= 0 for h, size in objects.items())
            and len(presets) <= MAX_PRESETS
            and len(objects) <= MAX_OBJECTS
            and sum(objects.values()) <= MAX_SIZE
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
        """Return the number of objects."""
        return len(self._sizes) // _SIZE.size

    def __contains__(self, sha256: str) -> bool:
        """Return whether the site has the object."""
        return self.size_of(sha256) is not None

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Yield (SHA-256, bytes) of every object, sorted by SHA-256."""
        for index, (size,) in enumerate(_SIZE.iter_unpack(self._sizes)):
            yield self._hashes[32 * index : 32 * index + 32].hex(), size

    def size_of(self, sha256: str) -> int | None:
        """Return the bytes of an object, None if the site does not have it."""
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
        """Return the bytes of all objects together."""
        return sum(size for (size,) in _SIZE.iter_unpack(self._sizes))

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the text without its last line, which states it."""
        digest = hashlib.sha256()
        for chunk in self._body():
            digest.update(chunk.encode())
        return digest.hexdigest()

    @property
    def digest(self) -> str:
        """Return the inventory digest to read out or photograph: see ``short_digest``."""
        return short_digest(self.sha256)

    def chunks(self) -> Iterator[str]:
        """Yield the text in parts, to write a file."""
        digest = hashlib.sha256()
        for chunk in self._body():
            digest.update(chunk.encode())
            yield chunk
        yield f"sha256 {digest.hexdigest()}\n"

    def render(self) -> str:
        """Return the whole text."""
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
        """Return the inventory in ``text``. ``shown`` is the file's name in messages.

        Raises VerifyError for anything that ``render`` would not write; only line ends may differ,
        since mail programs change them to CRLF.
        """
        shown = shown or _("the inventory")
        if len(text) > MAX_BYTES:
            _refuse(shown, 0, _("more than {count} bytes", count=MAX_BYTES))
        if not text.isascii():
            _refuse(shown, 0, _("characters that are not ASCII"))
        return _parse(_lines(text), shown)

    @classmethod
    def read(cls, file: Path, shown: str = "") -> Inventory:
        """Return the inventory in ``file``, read by lines. Raises as ``parse``, and OSError."""
        shown = shown or str(file)
        if not file.exists():
            raise UsageError(
                _("{file} does not exist", file=shown),
                hint=_("at the site: ./gapforge inventory --all"),
            )
        if not file.is_file():
            _refuse(shown, 0, _("not a regular file"))
        with open_buffered(file, follow=True) as source:
            return _parse(iter(lambda: source.readline(MAX_LINE + 2), b""), shown)


def short_digest(sha256: str) -> str:
    """Return the digest of a SHA-256: 155 bits and a check character, in eight groups of four.

    The check character detects every single wrong character and every swap of two neighbours.
    """
    number = int(sha256, 16) >> 101
    letters = [(number >> (5 * (30 - index))) & 31 for index in range(31)]
    check = 0
    for index, value in enumerate(letters):
        check ^= _times(value, index)
    text = "".join(_LETTERS[value] for value in (*letters, check))
    return "-".join(text[at : at + _GROUP] for at in range(0, _GROUP * _GROUPS, _GROUP))


def read_short_digest(text: str) -> str:
    """Return a digest that a person typed in the form of ``short_digest``.

    Case, spaces, O for 0, and I or L for 1 do not matter. Raises UsageError for a wrong one.
    """
    plain = text.upper().translate(_SAME)
    if len(plain) != _GROUP * _GROUPS or any(letter not in _LETTERS for letter in plain):
        raise UsageError(
            _(
                "{text!r} is not an inventory digest: expected {groups} groups of {size} letters "
                "and digits",
                text=text,
                groups=_GROUPS,
                size=_GROUP,
            ),
            hint=_("read the digest again; it never contains I, L, O and U"),
        )
    total = 0
    for index, letter in enumerate(plain):
        total ^= _times(_LETTERS.index(letter), index)
    if total:
        raise UsageError(
            _("{text!r} is not correct: its check character differs", text=text),
            hint=_("read the digest again"),
        )
    return "-".join(plain[at : at + _GROUP] for at in range(0, _GROUP * _GROUPS, _GROUP))


def _times(value: int, power: int) -> int:
    """Multiply by the generator to this power, in the field of 32 elements (x^5 + x^2 + 1)."""
    for _round in range(power):
        value <<= 1
        if value & 32:
            value ^= 0b100101
    return value


def _lines(text: str) -> Iterator[bytes]:
    """Yield the lines of an ASCII text with their ends."""
    start = 0
    while start < len(text):
        end = text.find("\n", start, start + MAX_LINE + 2)
        end = end + 1 if end >= 0 else min(len(text), start + MAX_LINE + 2)
        yield text[start:end].encode("ascii")
        start = end


def _parse(lines: Iterable[bytes], shown: str) -> Inventory:
    numbered = _Lines(lines, shown)
    title = numbered.match(_FIRST, f'"{TITLE} {FORMAT}"')
    if int(title[1]) != FORMAT:
        numbered.refuse(
            _("format {format}", format=int(title[1])),
            _("format {format}", format=FORMAT),
            hint=_("take the inventory with the same version of gapforge as this one"),
        )
    tool = numbered.match(_TOOL, '"gapforge VERSION"')[1].decode()
    presets = _parse_presets(numbered)
    head = numbered.match(_COUNT, _('"preset NAME SHA256" or "objects COUNT BYTES"'))
    count, total = int(head[1]), int(head[2])
    if count > MAX_OBJECTS:
        numbered.refuse(_("{count} objects", count=count), _at_most(MAX_OBJECTS))
    if total > MAX_SIZE:
        numbered.refuse(_("{count} bytes", count=total), _at_most(MAX_SIZE))
    hashes, sizes = _parse_objects(numbered, count, total)
    expected = numbered.digest.hexdigest()
    last = numbered.match(_LAST, _('"sha256 HASH" after {count} objects', count=count))
    if (stated := last[1].decode()) != expected:
        wanted = _("sha256 {sha256} of the lines above", sha256=expected)
        numbered.refuse(f"sha256 {stated}", wanted)
    if numbered.more():
        _refuse(shown, numbered.number + 1, _("more lines after the last one"), _("nothing more"))
    return Inventory(tool, presets, hashes, sizes)


def _parse_presets(lines: _Lines) -> tuple[tuple[str, str], ...]:
    presets: list[tuple[str, str]] = []
    while found := lines.try_match(_PRESET):
        name = found[1].decode()
        if presets and name <= presets[-1][0]:
            problem = _("preset {preset} twice or out of order", preset=name)
            lines.refuse(problem, _("presets sorted, each once"))
        if len(presets) == MAX_PRESETS:
            lines.refuse(_("too many presets"), _at_most(MAX_PRESETS))
        presets.append((name, found[2].decode()))
    return tuple(presets)


def _parse_objects(lines: _Lines, count: int, total: int) -> tuple[bytes, bytes]:
    """Return the packed hashes and sizes of ``count`` objects with ``total`` bytes."""
    hashes, sizes, before, rest = bytearray(), bytearray(), b"", total
    for _round in range(count):
        line = lines.match(_OBJECT, '"SHA256 SIZE"')
        if line[1] <= before:
            lines.refuse(_("object twice or out of order"), _("objects sorted, each once"))
        before, size = line[1], int(line[2])
        if size > rest:  # also keeps the size within its eight bytes
            problem = _("object of {count} bytes", count=size)
            lines.refuse(problem, _("{count} bytes for the remaining objects", count=rest))
        hashes += bytes.fromhex(before.decode())
        sizes += _SIZE.pack(size)
        rest -= size
    if rest:
        lines.refuse(_("{count} bytes more than the objects have", count=rest))
    return bytes(hashes), bytes(sizes)


class _Lines:
    """Lines with their number, and the hash of those that were read."""

    def __init__(self, lines: Iterable[bytes], shown: str) -> None:
        self._lines, self._shown = iter(lines), shown
        self._next: bytes | None = None
        self.number = 0
        self.digest = hashlib.sha256()

    def try_match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Read the next line if it has this form; otherwise it remains the next one."""
        if self._next is None:
            self._next = next(self._lines, b"")
        ended = self._next.endswith(b"\n")
        line = self._next[:-1].removesuffix(b"\r") if ended else self._next
        # Only the last line may lack its end, which some mail programs remove.
        found = pattern.fullmatch(line) if ended or pattern is _LAST else None
        if found is not None:
            self.number, self._next = self.number + 1, None
            self.digest.update(line + b"\n")
        return found

    def match(self, pattern: re.Pattern[bytes], expected: str) -> re.Match[bytes]:
        """Read the next line, which must have this form."""
        found = self.try_match(pattern)
        if found is None:
            problem = _("truncated") if not self._next else _("another form")
            _refuse(self._shown, self.number + 1, problem, expected)
        return found

    def refuse(self, problem: str, expected: str = "", hint: str = "") -> NoReturn:
        """Raise VerifyError for the line that was read last."""
        _refuse(self._shown, self.number, problem, expected, hint)

    def more(self) -> bool:
        """Return whether anything is left."""
        return bool(self._next or next(self._lines, b""))


def _at_most(count: int) -> str:
    return _("at most {count}", count=count)


def _refuse(shown: str, line: int, problem: str, expected: str = "", hint: str = "") -> NoReturn:
    where = _("{file}: line {line}", file=shown, line=line) if line else shown
    raise VerifyError(
        _("{file} is not a usable inventory", file=shown),
        faults=[Fault(where, problem, expected)],
        hint=hint or _("request the file again as an attachment, and compare the digest"),
    )
