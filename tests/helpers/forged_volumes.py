"""Write volumes of an attacker: all hashes are right, and one value is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bundles import PRESET
from gapforge.bundle.volume_format import FORMAT, HEAD, compact_json, trailer_bytes


def forge(path: Path, index: Any, payload: bytes = b"", *, raw: bytes = b"") -> None:
    """Write a volume with this index, and with right hashes around it."""
    data = raw or compact_json(index)
    offset = len(HEAD) + len(payload)
    path.write_bytes(HEAD + payload + data + trailer_bytes(data, offset))


def index_with(pieces: Any = (), **changes: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "bundle": "ab" * 12,
        "number": 1,
        "volumes": 1,
        "volume_size": 10**6,
        "repairs": "",
        "tool": "",
        "pieces": list(pieces),
        "views": [[PRESET, "1" * 64, "2" * 64]],
        **changes,
    }


HASH = "a" * 64
HOSTILE: dict[str, Any] = {
    "size 2^63": index_with([[HASH, 2**63]]),
    "a part of size 2^63": index_with([[HASH, 2**63, 2**62, 1, HASH]]),
    "more digits than a number has": None,
    "a length beyond the file": index_with([[HASH, 5000]]),
    "a negative offset": index_with([[HASH, 100, -5, 10, HASH]]),
    "beyond the object": index_with([[HASH, 100, 95, 10, HASH]]),
    "a path for a hash": index_with([["../../../../etc/passwd", 3]]),
    "an absolute path for a hash": index_with([["/etc/passwd", 3]]),
    "a long name that begins like a hash": index_with([[HASH + "/../x", 3]]),
    "a preset that leads out": index_with(views=[["../../x", "1" * 64, "2" * 64]]),
    "an absolute preset": index_with(views=[["/tmp/x", "1" * 64, "2" * 64]]),
    "a preset that is the store": index_with(views=[[".store", "1" * 64, "2" * 64]]),
    "a preset twice": index_with(views=[[PRESET, "1" * 64, "2" * 64]] * 2),
    "overlapping parts": index_with([[HASH, 100, 0, 10, HASH], [HASH, 100, 5, 10, HASH]]),
    "an object twice": index_with([[HASH, 0], [HASH, 0]]),
    "true for a number": index_with(number=True),
    "a float": index_with(number=1.0),
    "volume 2 of 1": index_with(number=2),
    "a billion volumes": index_with(volumes=10**9),
    "no object": [],
    "other keys": {**index_with(), "path": "/etc/passwd"},
    "a bundle that leads out": index_with(bundle="../" * 8),
    "a tool that leads out": index_with(tool="../" * 8),
    "a tool of another kind": index_with(tool=None),
    "deep": None,
    "spaces": None,
    "no ASCII": None,
}
