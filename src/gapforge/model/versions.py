"""Compare version numbers such as "12.4.1", "2.1.2+cu118" and "8.6.1.6-1+cuda11.8"."""

from __future__ import annotations

import re
from functools import lru_cache

from gapforge.base import limits

NONE = "none"  # in flags and answers: an image without PyTorch or TensorRT


@lru_cache(maxsize=4096)
def key(version: str) -> tuple[int, ...]:
    """Return the leading dotted number as integers, for comparison; () if there is none.

    Trailing zeros are dropped: "4.10" and "4.10.0" are the same version.
    """
    match = re.match(r"[0-9]+(\.[0-9]+)*", version[: limits.VERSION])
    parts = [int(part) for part in match[0].split(".")] if match else []
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def public(version: str) -> str:
    """Return the version without its local part: "2.1.2+cu118" gives "2.1.2"."""
    return version.split("+", 1)[0]


def local(version: str) -> str:
    """Return the local part: "2.1.2+cu118" gives "cu118", "2.1.2" gives ""."""
    return version.partition("+")[2]


def minor(version: str) -> str:
    """Return the first two numbers: "11.8.0" gives "11.8", "12" gives "12.0"."""
    return ".".join([*version.split("."), "0"][:2])


def major(version: str) -> str:
    """Return the first number: "11.8.0" gives "11"."""
    return version.split(".", 1)[0]


def begins_with(version: str, start: str) -> bool:
    """Return whether ``version`` is ``start`` or a part of that series, as 5.1.9 of 5.1."""
    return f"{version}.".startswith(f"{start}.")


def within(version: str, least: str, most: str) -> bool:
    """Return whether ``version`` is from ``least`` to ``most``; "" means no limit.

    ``most`` includes every version that begins with it: "12.0.16" includes 12.0.16.1.
    """
    number = key(version)
    if least and number < key(least):
        return False
    depth = len(most.split(".")) if most else 0
    padding = (0,) * depth
    return (number + padding)[:depth] <= (key(most) + padding)[:depth]
