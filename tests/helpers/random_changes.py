"""Change valid input at random, as damage, mistakes and malice do, for readers of files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

LONG = (
    "9" * 5000,
    "1." * 20_000 + "!",
    "-" * 50_000,
    " " * 50_000 + "x",
    "a/" * 3000,
    "\n \n" * 20_000,
    ",<=x" * 5000,
    "\ud55c" * 3000,
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.0, 1.5, 2**53, 2**63, 10**18, 10**30, 1e308),
    *("", ".", "..", "/", "a//b", "../../x", "\0", "a\nb", "\x1b[2J", "\u202e", "sha256:", "~"),
    *([], {}, [[]], [{}], {"": 0}),
    *LONG,
)
BYTES = (
    *(b"\0", b"\n", b"\r\n", b"\xff", b"\xc3\x28", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x1b[2J"),
    *(
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"NaN",
        b"1e999",
        b"\\ud800",
        b'"',
        b"'",
        b":",
        b"=",
        b"#",
    ),
    *(text.encode() for text in LONG),
)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return ``data`` with one to three changes."""
    changes: tuple[Callable[[bytes, random.Random], bytes], ...] = (
        _cut,
        _flip,
        _insert,
        _repeat,
        _exchange_line,
        _in_json,
        _in_json,
        _in_json,
        _key_twice,
    )
    for _round in range(chance.randint(1, 3)):
        data = chance.choice(changes)(data, chance)[: 4 << 20]
    return data


def _cut(data: bytes, chance: random.Random) -> bytes:
    start = chance.randint(0, len(data))
    return data[:start] + data[chance.randint(start, len(data)) :]


def _flip(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _insert(data: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(data))
    return data[:at] + chance.choice(BYTES) + data[at:]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    start = chance.randint(0, len(data))
    piece = data[start : start + chance.choice((1, 10, 200))]
    return data[:start] + piece * chance.choice((2, 100, 5000)) + data[start:]


def _exchange_line(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    one, other = (chance.randrange(len(lines)) for _each in range(2))
    lines[one], lines[other] = lines[other], chance.choice((lines[one], lines[other], b""))
    return b"\n".join(lines)


def _in_json(data: bytes, chance: random.Random) -> bytes:
    """Replace, remove, rename or move a value somewhere in the document."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return _insert(data, chance)
    places = list(_places(document))
    if not places:
        return json.dumps(chance.choice(VALUES)).encode()
    holder, key = chance.choice(places)
    action = chance.randrange(5)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[chance.choice(("", "x", "format", key + "s", LONG[0]))] = holder.pop(key)
    elif action == 2:
        other, name = chance.choice(places)
        if name in other if isinstance(other, dict) else name < len(other):
            holder[key] = json.loads(json.dumps(other[name]))
    elif action == 3 and isinstance(holder, list):
        holder.extend(holder * chance.choice((1, 50)))
    else:
        holder[key] = chance.choice(VALUES)
    return json.dumps(document, ensure_ascii=chance.random() < 0.5).encode("utf-8", "replace")


def _places(value: Any) -> Any:
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, member in list(pairs):
        yield value, key
        yield from _places(member)


def _key_twice(data: bytes, chance: random.Random) -> bytes:
    start = data.find(b"{")
    return (
        data if start < 0 else data[: start + 1] + b'"format": 1, "format": 2,' + data[start + 1 :]
    )
