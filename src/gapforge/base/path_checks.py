"""Check, expand and resolve paths, also those that an untrusted file names."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

from gapforge.base import limits
from gapforge.base.errors import StorageError
from gapforge.base.i18n import _
from gapforge.base.storage_errors import storage_error

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~:@=-]*")
_NOT_IN_PATHS = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")


def unsafe_path_reason(path: str) -> str:
    """Return why a relative path from an untrusted file is unsafe, or "" if it is safe."""
    if not path or _NOT_IN_PATHS.search(path):
        return _("empty, or contains a control character or a backslash")
    if path.startswith("/"):
        return _("an absolute path; expected a path inside the folder")
    parts = path.split("/")
    if ".." in parts:
        return _("contains '..'; expected a path inside the folder")
    return _too_long(path, parts)


def _too_long(path: str, parts: Sequence[str]) -> str:
    """Return which limit of file systems a path exceeds, or ""."""
    if len(parts) > limits.PATH_DEPTH:
        return _(
            "{count} folders deep; the limit is {most}", count=len(parts), most=limits.PATH_DEPTH
        )
    try:
        sizes = [len(os.fsencode(part)) for part in parts]
    except UnicodeEncodeError:
        return _("contains half of a Unicode character (\\ud800 to \\udfff)")
    if max(sizes) > limits.NAME_BYTES:
        return _(
            "a name of {count} bytes; the limit is {most}", count=max(sizes), most=limits.NAME_BYTES
        )
    if len(os.fsencode(path)) > limits.PATH_BYTES:
        return _(
            "{count} bytes long; the limit is {most}",
            count=len(os.fsencode(path)),
            most=limits.PATH_BYTES,
        )
    return ""


def given_path(text: str | Path) -> Path:
    """Return a path that a person wrote: ``~`` and ``~user`` become home folders that exist.

    Path.expanduser fails for a user whom the machine does not know.
    """
    return Path(os.path.expanduser(text))


def real_path(path: Path) -> Path:
    """Return the absolute path with every symbolic link followed. It need not exist.

    Raise StorageError with the path for links that form a loop. (Path.resolve raises RuntimeError,
    or nothing, depending on the version of Python.)
    """
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise storage_error(error, path) from None
    return Path(os.path.realpath(path))


def inside(root: Path, relative: str) -> Path:
    """Return ``root/relative``. Raise StorageError if it is outside ``root``, also by a link."""
    reason, hint = unsafe_path_reason(relative), ""
    target = root / relative
    if not reason:
        resolved_root = real_path(root)
        resolved = real_path(target.parent) / target.name
        if resolved != resolved_root and resolved_root not in resolved.parents:
            reason = _("leads outside {root} through a symbolic link", root=root)
            hint = _(
                "replace the link by a folder, and run the same command again: ls -ld {folder!q}",
                folder=target.parent,
            )
    if reason:
        raise StorageError(
            _("unsafe path {path!r} in {root}: {reason}", path=relative, root=root, reason=reason),
            hint=hint,
        )
    return target
