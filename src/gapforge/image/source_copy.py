"""Copy the application's source into the build context."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.errors import SourceError, StorageError
from gapforge.base.files import (
    CHUNK,
    MARKER,
    content_mtime,
    open_regular,
    real_path,
    sha256_bytes,
    sha256_file,
    storage_errors,
)
from gapforge.base.i18n import _
from gapforge.base.system_errors import os_reason
from gapforge.image.build_cache import set_cache_stamp
from gapforge.image.source_files import SourceItem, list_files


@dataclass(frozen=True, kw_only=True)
class CopyResult:
    """What a copy did: paths written and removed, number of files, bytes of all files.

    ``tree_sha256`` depends only on names, contents, links and executable bits.
    """

    tree_sha256: str
    files: int
    bytes: int
    written: tuple[str, ...]
    removed: tuple[str, ...]


def copy_source(source: Path, target: Path) -> CopyResult:
    """Make ``target`` (inside a folder that carries our marker) equal to the source.

    ``list_files`` decides what is copied. Unchanged files are not touched. Modes become 0644 or
    0755 and times follow content, so that neither umask nor checkout time makes the engine build
    again. Raise SourceError as ``list_files`` does, and StorageError for the target.
    """
    source, target = real_path(source), target.absolute()
    _prepare_target(source, target)
    items = list_files(source).items
    removed = _remove_others(target, {item.path: item for item in items})
    written: list[str] = []
    size = 0
    tree = hashlib.sha256()
    for item in items:
        identity, count, changed = _copy_item(source, target, item)
        size += count
        if changed:
            written.append(item.path)
        record = f"{item.kind}\0{item.path}\0{int(item.executable)}\0{identity}\n"
        tree.update(record.encode("utf-8", "surrogateescape"))
    files = sum(item.kind == "file" for item in items)
    return CopyResult(
        tree_sha256=tree.hexdigest(),
        files=files,
        bytes=size,
        written=tuple(written),
        removed=tuple(removed),
    )


def _prepare_target(source: Path, target: Path) -> None:
    if not any((parent / MARKER).is_file() for parent in target.parents):
        raise StorageError(
            _(
                "{target} is not inside a folder of gapforge; nothing is written there",
                target=target,
            )
        )
    context = real_path(target)
    if context.is_relative_to(source) or source.is_relative_to(context):
        raise SourceError(
            _(
                "the application's source {source} and the build context {context} lie "
                "inside each other",
                source=source,
                context=context,
            ),
            hint=_("--app-source DIR with the application's own folder"),
        )
    with storage_errors(target):
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            target.unlink()
        target.mkdir(parents=True, exist_ok=True)


def _copy_item(source: Path, target: Path, item: SourceItem) -> tuple[str, int, bool]:
    """Return the item's identity (SHA-256 or link text), its bytes, and whether it was changed."""
    copy = target / item.path
    if item.kind == "folder":
        with storage_errors(copy):
            copy.mkdir(parents=True, exist_ok=True)
            copy.chmod(0o755)
        return "", 0, False
    if item.kind == "file":
        return _copy_file(source / item.path, copy, 0o755 if item.executable else 0o644)
    changed = not copy.is_symlink() or os.readlink(copy) != item.link
    if changed:
        with storage_errors(copy):
            copy.unlink(missing_ok=True)
            copy.symlink_to(item.link)
    when = content_mtime(sha256_bytes(os.fsencode(item.link)))
    os.utime(copy, (when, when), follow_symlinks=False)
    return item.link, 0, changed


def _copy_file(source: Path, target: Path, mode: int) -> tuple[str, int, bool]:
    """Return SHA-256 and bytes of what the target holds, and whether it was changed."""
    try:
        digest = sha256_file(source)
        count = source.stat().st_size
    except OSError as error:
        raise SourceError(
            _("{file} cannot be read: {reason}", file=source, reason=os_reason(error)),
            hint=_("run the same command again"),
        ) from None
    with storage_errors(target):
        changed = not _holds(target, count, digest)
        if changed:
            digest, count = _write_copy(source, target)
        set_cache_stamp(target, digest, mode)
    return digest, count, changed


def _holds(target: Path, size: int, digest: str) -> bool:
    """Return whether the target is a file of its own with this content."""
    try:
        status = target.lstat()
    except OSError:
        return False
    own = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    return own and status.st_size == size and sha256_file(target) == digest


def _write_copy(source: Path, target: Path) -> tuple[str, int]:
    """Copy while hashing, so that an editor that saves meanwhile does no harm.

    Not flushed to disk: a context is compared by content every time, and flushing thousands of
    files is slow.
    """
    # The name of the target may already have as many bytes as a file system allows.
    handle, name = tempfile.mkstemp(prefix=".gapforge-", dir=target.parent)
    temporary = Path(name)
    digest, count = hashlib.sha256(), 0
    try:
        with open(handle, "wb") as writer, open_regular(source) as reader:
            while chunk := reader.read(CHUNK):
                digest.update(chunk)
                writer.write(chunk)
                count += len(chunk)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return digest.hexdigest(), count


def _remove_others(target: Path, wanted: Mapping[str, SourceItem]) -> list[str]:
    """Delete what the source does not have, or has as another kind; return the paths."""
    removed: list[str] = []

    def visit(folder: str) -> None:
        with os.scandir(target / folder) as entries:
            found = sorted(entries, key=lambda e: e.name)
        for entry in found:
            path = folder + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            kind = "folder" if is_folder else "link" if entry.is_symlink() else "file"
            item = wanted.get(path)
            if item is not None and item.kind == kind:
                if is_folder:
                    visit(path + "/")
                continue
            removed.append(path)
            if is_folder:
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)

    with storage_errors(target):
        visit("")
    return removed
