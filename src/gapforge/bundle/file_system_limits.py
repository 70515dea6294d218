"""What a disk takes: how large a file may be, how much room each file costs. Sticks and sites often have FAT32 or exFAT."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
# Bytes. FAT keeps a file's size in four, but fsck.fat counts clusters in four as well: to it a file that fills the last
# cluster below 4 GiB has none, and it "repairs" that by emptying the file. No cluster is larger than 64 KiB.
FAT_LIMIT = (1 << 32) - (1 << 16)
_FAT = frozenset({"vfat", "msdos", "fuse.fusefat"})


def file_system(folder: Path) -> str:
    """The type of the file system below a folder (that need not exist yet), "" when the system does not tell."""
    where, found, longest = folder.resolve(), "", -1
    try:
        text = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.partition(" ")[0]
        if len(fields) < 6 or not kind:
            continue
        point = Path(_plain(fields[4]))
        # Of two that are mounted at one place, the later one is seen.
        if (point == where or point in where.parents) and len(point.parts) >= longest:
            found, longest = kind, len(point.parts)
    return found


def file_limit(folder: Path) -> int:
    """The largest file in bytes that the disk below ``folder`` takes, 0 where no limit is known."""
    return FAT_LIMIT if file_system(folder) in _FAT else 0


def cluster(folder: Path) -> int:
    """Bytes that a disk hands out at a time: every file takes a multiple of them."""
    where = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return os.statvfs(where).f_frsize


def _plain(text: str) -> str:
    r"""A path of mountinfo, where blanks, tabs, newlines and backslashes are ``\ooo``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
