"""Find the files below a folder, and hash them on all cores. Symbolic links are never followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.files import open_regular, sha256_open
from gapforge.base.i18n import _
from gapforge.base.parallel import on_all_cores
from gapforge.base.progress import Progress
from gapforge.base.system_errors import unexaminable, unlistable, unreadable


@dataclass
class FoundFiles:
    """The content of a folder by relative path.

    ``regular`` holds sizes in bytes. ``special`` says what else is there (link, pipe, device), and
    ``unreadable`` why something cannot be examined.
    """

    regular: dict[str, int] = field(default_factory=dict)
    special: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def find_files(root: Path) -> FoundFiles:
    """Return everything below ``root`` except folders."""
    found = FoundFiles()
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            found.unreadable[folder.rstrip("/") or "."] = unlistable(error)
            continue
        for entry in entries:
            path = folder + entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                found.unreadable[path] = unexaminable(error)
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(path + "/")
            elif stat.S_ISREG(status.st_mode):
                found.regular[path] = status.st_size
            else:
                found.special[path] = _describe(status.st_mode, root / path)
    return found


def _describe(mode: int, path: Path) -> str:
    if stat.S_ISLNK(mode):
        return _("symbolic link to {target}", target=os.readlink(path))
    kinds: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISFIFO, _("pipe")),
        (stat.S_ISSOCK, _("socket")),
        (stat.S_ISBLK, _("block device")),
        (stat.S_ISCHR, _("character device")),
    )
    return next((name for test, name in kinds if test(mode)), _("unknown file type"))


def hash_files(
    root: Path, paths: Iterable[str], jobs: int | None, progress: Progress | None
) -> dict[str, tuple[str, str]]:
    """Return for each path (SHA-256, ""), or ("", problem) if the file cannot be read.

    ``jobs`` is the number of files read at a time (all cores when None).
    """

    def hash_file(path: str) -> tuple[str, str]:
        def on_bytes(count: int) -> None:
            if progress is not None:
                progress.add(count, path)

        try:
            # The file may have become a link or pipe since it was listed.
            with open_regular(root / path) as file:
                return sha256_open(file, on_bytes), ""
        except OSError as error:
            return "", unreadable(error)

    paths = list(paths)
    return dict(zip(paths, on_all_cores(hash_file, paths, jobs or 0), strict=True))
