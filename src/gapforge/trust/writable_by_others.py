"""Judge whether other users could change a file, as OpenSSH judges its own files.

OpenSSH (``safe_path`` in misc.c) wants the file and every folder around it, up to the home folder,
to belong to root or the user, and to be writable by nobody else. As in Debian's OpenSSH, the group
may write if it is the user's own: the same name and no other member. A folder with the sticky bit,
such as /tmp, may be writable, because others cannot rename what is not theirs in it.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from gapforge.base.i18n import _
from gapforge.base.sudo_caller import sudo_caller


def writable_by_others(file: Path, home: Path) -> tuple[Path, str] | None:
    """Return the file or folder through which others could change ``file``, and why; or None.

    Raise OSError if one of them cannot be examined.
    """
    caller = sudo_caller()
    allowed = {0, os.geteuid(), *([caller.user] if caller else [])}
    for path in _path_and_folders(file, home):
        status = os.stat(path)
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid not in allowed:
            return path, _("belongs to {owner}", owner=_name(status.st_uid))
        if stat.S_ISDIR(status.st_mode) and mode & stat.S_ISVTX:
            continue
        if mode & stat.S_IWOTH:
            return path, _("writable by all users (mode {mode:04o})", mode=mode)
        if mode & stat.S_IWGRP and not _own_group(status.st_gid, status.st_uid):
            return path, _("writable by its group (mode {mode:04o})", mode=mode)
    return None


def _path_and_folders(file: Path, home: Path) -> Iterator[Path]:
    """Yield the file, and the folders of its name and of what the name links to."""
    real, top = Path(os.path.realpath(file)), Path(os.path.realpath(home))
    yield real
    seen: set[Path] = set()
    for folder in (real.parent, Path(os.path.realpath(file.parent))):
        for path in (folder, *folder.parents):
            if path not in seen:
                seen.add(path)
                yield path
            if path == top:
                break


def _own_group(group: int, user: int) -> bool:
    """Return whether the group is the user's own, which nobody else is a member of."""
    if group == user == 0:
        return True
    try:
        name, entry = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return entry.gr_name == name and set(entry.gr_mem) <= {name}


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
