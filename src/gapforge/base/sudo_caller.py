"""The user who called sudo, and the files that root makes in their project."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Caller:
    """The user and the group of a person who called sudo."""

    user: int
    group: int

    @property
    def home(self) -> Path | None:
        """The user's home folder; None for a number without a name, as in a container."""
        try:
            return Path(pwd.getpwuid(self.user).pw_dir)
        except (KeyError, OverflowError):
            return None

    def prefix(self) -> list[str]:
        """Return the words before a command that run it as this user, with the user's groups."""
        groups = "--clear-groups" if self.home is None else "--init-groups"
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.group}", groups, "--"]


def sudo_caller() -> Caller | None:
    """Return who called sudo, None if this process is not root or root did not come from sudo."""
    numbers = [os.environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID")]
    if os.geteuid() != 0 or not all(n.isascii() and n.isdecimal() for n in numbers):
        return None
    user, group = map(int, numbers)
    return Caller(user, group) if user != 0 else None


def give_to_caller(*folders: Path, keep: Collection[Path] = (), linked: bool = True) -> None:
    """Under sudo, give what root owns in these folders to the caller, whose commands write there.

    Only folders in a folder of the caller's are changed, and in there no other disk, and nothing in
    ``keep``; files with several names only if ``linked``. Files that cannot be given, as on file
    systems without owners, stay as they are.
    """
    caller = sudo_caller()
    if caller is None:
        return
    for folder in folders:
        with contextlib.suppress(OSError):
            if folder.parent.stat().st_uid == caller.user and not folder.is_symlink():
                _give(folder, caller, keep, linked)


def _give(top: Path, caller: Caller, keep: Collection[Path], linked: bool) -> None:
    device = top.stat().st_dev
    for path, folders, names, handle in os.fwalk(top, follow_symlinks=False):
        here = Path(path)
        folders[:] = [
            name
            for name in folders
            if here / name not in keep
            and os.stat(name, dir_fd=handle, follow_symlinks=False).st_dev == device
        ]
        # Names are relative to the open folder, so that no link can lead out of the project.
        for name in (*folders, *names):
            with contextlib.suppress(OSError):
                status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                several = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
                if status.st_uid == 0 and (linked or not several):
                    os.chown(name, caller.user, caller.group, dir_fd=handle, follow_symlinks=False)
    if top.stat().st_uid == 0:
        os.chown(top, caller.user, caller.group, follow_symlinks=False)
