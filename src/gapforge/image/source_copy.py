"""Copy the application's source into the build context."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gapforge.base.errors import SourceError, StorageError
from gapforge.base.files import CHUNK, content_mtime, open_regular, sha256_bytes, sha256_file
from gapforge.base.i18n import _
from gapforge.base.marked_folders import MARKER
from gapforge.base.path_checks import real_path
from gapforge.base.storage_errors import storage_errors
from gapforge.base.system_errors import os_reason
from gapforge.image.build_cache import set_cache_stamp
from gapforge.image.source_files import SourceItem, list_files


def copy_source(source: Path, target: Path) -> str:
    """Make ``target`` (inside a folder that carries our marker) equal to the source.

    ``list_files`` decides what is copied. Unchanged files are not touched. Modes become 0644 or
    0755 and times follow content, so that neither umask nor checkout time makes the engine build
    again. Return the checksum of the tree, which depends only on names, contents, links and
    executable bits. Raise SourceError as ``list_files`` does, and StorageError for the target.
    """
    source, target = real_path(source), target.absolute()
    _prepare_target(source, target)
    items = list_files(source).items
    _remove_others(target, {item.path: item for item in items})
    tree = hashlib.sha256()
    for item in items:
        identity = _copy_item(source, target, item)
        record = f"{item.kind}\0{item.path}\0{int(item.executable)}\0{identity}\n"
        tree.update(record.encode("utf-8", "surrogateescape"))
    return tree.hexdigest()


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


def _copy_item(source: Path, target: Path, item: SourceItem) -> str:
    """Return the SHA-256 of a file, the text of a link, or "" for a folder."""
    copy = target / item.path
    if item.kind == "folder":
        with storage_errors(copy):
            copy.mkdir(parents=True, exist_ok=True)
            copy.chmod(0o755)
        return ""
    if item.kind == "file":
        return _copy_file(source / item.path, copy, 0o755 if item.executable else 0o644)
    if not copy.is_symlink() or os.readlink(copy) != item.link:
        with storage_errors(copy):
            copy.unlink(missing_ok=True)
            copy.symlink_to(item.link)
    when = content_mtime(sha256_bytes(os.fsencode(item.link)))
    os.utime(copy, (when, when), follow_symlinks=False)
    return item.link


def _copy_file(source: Path, target: Path, mode: int) -> str:
    """Return the SHA-256 of what the target holds."""
    try:
        digest = sha256_file(source)
        size = source.stat().st_size
    except OSError as error:
        raise SourceError(
            _("{file} cannot be read: {reason}", file=source, reason=os_reason(error)),
            hint=_("run the same command again"),
        ) from None
    with storage_errors(target):
        if not _holds(target, size, digest):
            digest = _write_copy(source, target)
        set_cache_stamp(target, digest, mode)
    return digest


def _holds(target: Path, size: int, digest: str) -> bool:
    """Return whether the target is a file of its own with this content."""
    try:
        status = target.lstat()
    except OSError:
        return False
    own = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    return own and status.st_size == size and sha256_file(target) == digest


def _write_copy(source: Path, target: Path) -> str:
    """Copy while hashing, so that an editor that saves meanwhile does no harm; return the SHA-256.

    Not flushed to disk: a context is compared by content every time, and flushing thousands of
    files is slow.
    """
    # The name of the target may already have as many bytes as a file system allows.
    handle, name = tempfile.mkstemp(prefix=".gapforge-", dir=target.parent)
    temporary = Path(name)
    digest = hashlib.sha256()
    try:
        with open(handle, "wb") as writer, open_regular(source) as reader:
            while chunk := reader.read(CHUNK):
                digest.update(chunk)
                writer.write(chunk)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def _remove_others(target: Path, wanted: Mapping[str, SourceItem]) -> None:
    """Delete what the source does not have, or has as another kind."""

    def visit(folder: str) -> None:
        with os.scandir(target / folder) as entries:
            found = list(entries)
        for entry in found:
            path = folder + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            kind = "folder" if is_folder else "link" if entry.is_symlink() else "file"
            item = wanted.get(path)
            if item is not None and item.kind == kind:
                if is_folder:
                    visit(path + "/")
            elif is_folder:
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)

    with storage_errors(target):
        visit("")
