"""Lay out the build context that a plan describes.

It holds hard links to verified artifacts, generated files and a copy of the application's source.
The context is kept between builds and only what differs is touched, so that the engine uploads only
that.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from gapforge.base.errors import Fault, VerifyError
from gapforge.base.files import contains, content_mtime, sha256_file
from gapforge.base.i18n import _
from gapforge.base.marked_folders import MARKER, mark_folder
from gapforge.base.path_checks import inside
from gapforge.base.storage_errors import storage_errors
from gapforge.base.write_files import copy_file, link_or_copy, write_text
from gapforge.image.build_cache import set_cache_stamp
from gapforge.image.inputs_of_stages import ContextFile
from gapforge.image.plan import Plan
from gapforge.store.hash_files import hash_files

APPLICATION = "inputs/application/app"  # the application's source, from source_copy.copy_source
_IGNORE_FILE = ".dockerignore"


def lay_out(plan: Plan, context: Path, artifacts: Path) -> None:
    """Make ``context`` hold exactly the plan's files, besides the source of its application.

    ``artifacts`` is the verified artifacts/NAME. Raise StorageError when the disk is full or the
    folder does not carry our marker.
    """
    mark_folder(context, "the build context")
    with storage_errors(context):
        # The source of an application that the preset no longer has is not kept.
        kept = APPLICATION if plan.application_folder else ""
        _remove_others(context, {_IGNORE_FILE, *(file.path for file in plan.files)}, kept)
    _place_text(context / _IGNORE_FILE, f"{MARKER}\n{_IGNORE_FILE}\n")
    unread = {}
    for file in plan.files:
        target = inside(context, file.path)
        if file.origin == "text":
            _place_text(target, file.text)
            set_cache_stamp(target, file.sha256)
        else:
            source = inside(artifacts, file.source)
            if not _place_artifact(target, source, file.sha256):
                unread[file.path] = file
    _check_artifacts(plan, context, unread)
    for file in unread.values():
        target = context / file.path
        with storage_errors(target):
            try:
                set_cache_stamp(target, file.sha256)
            except PermissionError:
                # The file belongs to another user and a link shares its time stamp: make a copy.
                copy_file(inside(artifacts, file.source), target)
                _check_artifacts(plan, context, {file.path: file})
                set_cache_stamp(target, file.sha256)


def _check_artifacts(plan: Plan, context: Path, expected: Mapping[str, ContextFile]) -> None:
    """Hash the artifacts where the engine reads them, before they get their time stamps.

    Since the verification, another file may have got the name of one of them.
    """
    hashes = hash_files(context, expected, None, None)
    faults = []
    for path, (sha256, problem) in hashes.items():
        file = expected[path]
        if sha256 != file.sha256:
            (context / path).unlink(missing_ok=True)  # so that the next run places it again
            found = problem or f"sha256 {sha256}"
            faults.append(Fault(file.source, found, f"sha256 {file.sha256}"))
    if faults:
        raise VerifyError(
            _("artifacts/{name} changed after it was verified", name=plan.preset),
            faults=faults,
            hint=_("run the same command again when no other program writes there"),
        )


def _remove_others(context: Path, wanted: set[str], kept: str) -> None:
    """Delete every file but the wanted ones and those of the folder ``kept``, and empty folders."""
    keep = wanted | {MARKER}
    for folder, folders, files in os.walk(context, topdown=True):
        inner = Path(folder).relative_to(context).as_posix()
        prefix = "" if inner == "." else f"{inner}/"
        folders[:] = [name for name in folders if f"{prefix}{name}" != kept]
        for name in [*files, *(n for n in folders if Path(folder, n).is_symlink())]:
            if f"{prefix}{name}" not in keep:
                Path(folder, name).unlink()
    for folder, _folders, _files in os.walk(context, topdown=False):
        below = Path(folder).relative_to(context)
        if below != Path() and not (kept and below.is_relative_to(kept)):
            try:
                os.rmdir(folder)
            except OSError:
                continue  # not empty


def _place_text(target: Path, text: str) -> None:
    if not contains(target, text.encode()):
        write_text(target, text)


def _place_artifact(target: Path, source: Path, sha256: str) -> bool:
    """Link or copy the artifact into the context. Return whether its content there is verified."""
    with storage_errors(source):
        expected = source.stat()
        try:
            found = target.lstat()
        except OSError:
            found = None
        if found is not None and os.path.samestat(found, expected):
            return False
        if found is not None and _is_copy(target, found, expected.st_size, sha256):
            return True
        link_or_copy(source, target)
        return False


def _is_copy(target: Path, found: os.stat_result, size: int, sha256: str) -> bool:
    """Return whether the context has a copy of the artifact already.

    It is hashed: its size, time and mode can be kept while its content changes.
    """
    stamp = (size, content_mtime(sha256) * 10**9)
    if not stat.S_ISREG(found.st_mode) or (found.st_size, found.st_mtime_ns) != stamp:
        return False
    return found.st_mode & 0o777 == 0o444 and sha256_file(target) == sha256
