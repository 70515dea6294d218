"""Comparing version numbers such as "12.4.1", "2.1.2+cu118" and "8.6.1.6-1+cuda11.8"."""

from __future__ import annotations

import re


def key(version: str) -> tuple[int, ...]:
    """Return the leading dotted number as integers, for comparison; () when there is none.

    Trailing zeros do not count: "4.10" and "4.10.0" are the same version.
    """
    match = re.match(r"[0-9]+(\.[0-9]+)*", version)
    if not match:
        return ()
    parts = [int(part) for part in match.group().split(".")]
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
    parts = version.split(".")
    return ".".join([*parts, "0"][:2])


def major(version: str) -> str:
    """Return the first number: "11.8.0" gives "11"."""
    return version.split(".", 1)[0]


def within(version: str, least: str, most: str) -> bool:
    """Whether ``version`` lies from ``least`` to ``most``, where "12.0.16" as ``most`` includes 12.0.16.1.

    An empty bound does not bind.
    """
    number = key(version)
    if least and number < key(least):
        return False
    if not most:
        return True
    depth = len(most.split("."))
    padded = (number + (0,) * depth)[:depth]
    ceiling = (key(most) + (0,) * depth)[:depth]
    return padded <= ceiling
