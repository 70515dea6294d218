"""What `sync` and `unpack` say where a disk has no hard links."""

from __future__ import annotations

from gapforge.base.progress import human_bytes
from gapforge.base.text import tr


def note(files: int, size: int) -> str:
    """The line for ``files`` files of ``size`` bytes in all that are copies of what the store holds."""
    shown = human_bytes(size)
    return tr(f"참고: 하드 링크를 만들 수 없어(exFAT과 FAT32에는 없습니다) 파일 {files}개({shown})를 복사했습니다. 보관소와 합쳐 그만큼을 두 번 차지합니다.",
              f"note: hard links cannot be made here (exFAT and FAT32 have none), so {files} files ({shown}) are copies; "
              "together with the store they take that room twice")  # fmt: skip
