"""Lays out the build context that a plan describes: hard links to verified artifacts, generated files, the source.

The context is kept between builds and only what differs is touched, so that an engine uploads only that.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gapforge.base.errors import StorageError
from gapforge.base.files import (
    MARKER,
    content_mtime,
    inside,
    link_or_copy,
    mark_folder,
    storage_errors,
    write_text,
)
from gapforge.base.i18n import _
from gapforge.image.plan import ContextFile, Plan

APPLICATION = (
    "inputs/application/app"  # the application's source; laid out by application_source.copy_into
)
_IGNORE = f"{MARKER}\n.dockerignore\n"


def lay_out(plan: Plan, context: Path, artifacts: Path) -> None:
    """Make ``context`` hold exactly the plan's files (and leave the application's source alone).

    ``artifacts`` is the verified artifacts/NAME. Raises StorageError when the disk is full or a folder is
    not ours.
    """
    mark_folder(context, "the build context")
    wanted = {file.path: file for file in plan.files}
    wanted[".dockerignore"] = ContextFile(".dockerignore", "text", "", _IGNORE, "")
    with storage_errors(context):
        _remove_others(context, set(wanted))
    for path, file in wanted.items():
        target = inside(context, path)
        if file.origin == "text":
            _place_text(target, file.text, file.sha256)
        else:
            _place_artifact(target, inside(artifacts, file.source), file.sha256)


def _remove_others(context: Path, wanted: set[str]) -> None:
    """Delete what no plan file names; empty folders go too."""
    keep = wanted | {MARKER}
    for folder, folders, files in os.walk(context, topdown=True):
        inner = Path(folder).relative_to(context).as_posix()
        prefix = "" if inner == "." else f"{inner}/"
        folders[:] = [name for name in folders if f"{prefix}{name}" != APPLICATION]
        for name in [*files, *(n for n in folders if Path(folder, n).is_symlink())]:
            if f"{prefix}{name}" not in keep:
                Path(folder, name).unlink()
    for folder, _folders, _files in os.walk(context, topdown=False):
        if Path(folder) not in (context, context / APPLICATION) and APPLICATION not in folder:
            try:
                os.rmdir(folder)
            except OSError:
                continue  # not empty


def _place_text(target: Path, text: str, sha256: str) -> None:
    data = text.encode()
    try:
        same = stat.S_ISREG(target.lstat().st_mode) and target.read_bytes() == data
    except OSError:
        same = False
    if not same:
        write_text(target, text)
    if sha256:
        _date(target, sha256)


def _place_artifact(target: Path, source: Path, sha256: str) -> None:
    """Link the artifact into the context under content-derived time; a copy where it may not be dated."""
    with storage_errors(source):
        status = source.stat()
        try:
            present = target.lstat()
        except OSError:
            present = None
        when = content_mtime(sha256)
        if present is not None and stat.S_ISREG(present.st_mode):
            same_inode = (present.st_dev, present.st_ino) == (status.st_dev, status.st_ino)
            same_look = present.st_size == status.st_size and present.st_mtime_ns == when * 10**9
            if same_look and (same_inode or present.st_mode & 0o777 == 0o444):
                return
        link_or_copy(source, target)
        try:
            _date(target, sha256)
        except PermissionError:
            # Somebody else's file: a link shares his times, so take a copy that is ours.
            copy = target.with_name(f".{target.name}.copy")
            copy.write_bytes(b"")
            os.chmod(copy, 0o600)
            with open(source, "rb") as reader, open(copy, "wb") as writer:
                while chunk := reader.read(1 << 20):
                    writer.write(chunk)
            os.replace(copy, target)
            _date(target, sha256)


def _date(target: Path, sha256: str) -> None:
    """Content-derived time and a fixed mode: BuildKit compares size and time, and its cache key has the mode."""
    when = content_mtime(sha256) * 10**9
    status = target.stat()
    if status.st_mtime_ns != when:
        os.utime(target, ns=(when, when))
    if status.st_mode & 0o777 != 0o444:
        os.chmod(target, 0o444)


def application_folder(context: Path) -> Path:
    """Where the application's source goes in the context."""
    if not (context / MARKER).is_file():
        raise StorageError(_("{context} is not a build context of gapforge", context=context))
    return context / APPLICATION
