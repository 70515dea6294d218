"""What `sync` and `unpack` say where a disk has no hard links."""

from __future__ import annotations

from gapforge.base.i18n import _
from gapforge.base.progress import human_bytes


def note(files: int, size: int) -> str:
    """The line for ``files`` files of ``size`` bytes in all that are copies of what the store holds."""
    shown = human_bytes(size)
    return _(
        "note: hard links cannot be made here (exFAT and FAT32 have none), so {files} "
        "files ({shown}) are copies; together with the store they take that room twice",
        files=files,
        shown=shown,
    )
