"""Find out what this machine has, as plain data that the checks judge."""

from __future__ import annotations

import grp
import os
import platform
import pwd
import re
import stat
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.files import system_text
from gapforge.base.text_layout import whole_number


@dataclass(frozen=True, kw_only=True)
class System:
    """The machine itself.

    ``memory`` and ``available`` are bytes, 0 for unknown; ``now`` is seconds since 1970.
    ``newest_file`` is the time stamp of the newest project file, which a correct clock has passed.
    """

    os_id: str
    os_version: str
    architecture: str
    python: tuple[int, ...]
    cores: int
    memory: int
    available: int
    umask: int
    now: float
    newest_file: float


@dataclass(frozen=True, kw_only=True)
class Socket:
    """The docker socket.

    ``group`` owns it; ``member`` is whether this process has that group, ``listed`` whether the
    user will have it after logging in again.
    """

    path: str
    remote: bool = False
    exists: bool = False
    usable: bool = False
    group: str = ""
    member: bool = False
    listed: bool = False


@dataclass(frozen=True, kw_only=True)
class Volume:
    """The file system that a folder is, or would be, on.

    ``free`` is bytes; ``inodes`` is the number of free ones, -1 where it is not fixed.
    """

    path: str
    device: int
    free: int
    inodes: int
    writable: bool


@dataclass(frozen=True, kw_only=True)
class EnvFile:
    """``.env``: whether it exists, its permission bits, its owner, and whether it is readable."""

    path: str
    exists: bool = False
    mode: int = 0
    owned: bool = True
    readable: bool = False


def system(project_files: tuple[Path, ...] = ()) -> System:
    """Return the operating system, memory, cores and clock."""
    release = _os_release(Path("/etc/os-release")) or _os_release(Path("/usr/lib/os-release"))
    memory = _meminfo(Path("/proc/meminfo"))
    limit = _memory_limit()
    total, available = memory.get("MemTotal", 0), memory.get("MemAvailable", 0)
    if limit:
        total, available = min(total, limit), min(available, limit)
    stamps = [s.st_mtime for f in project_files if (s := _stat(f)) is not None]
    return System(
        os_id=release.get("ID", ""),
        os_version=release.get("VERSION_ID", ""),
        architecture=platform.machine(),
        python=tuple(sys.version_info[:3]),
        cores=len(os.sched_getaffinity(0)),
        memory=total,
        available=available,
        umask=_umask(),
        now=time.time(),
        newest_file=max(stamps, default=0.0),
    )


def docker_socket() -> Socket:
    """Return the socket that a docker client would use by default."""
    host = os.environ.get("DOCKER_HOST", "")
    if host and not host.startswith("unix://"):
        return Socket(path=host, remote=True)
    path = host.removeprefix("unix://") or "/var/run/docker.sock"
    status = _stat(Path(path))
    if status is None or not stat.S_ISSOCK(status.st_mode):
        return Socket(path=path)
    group, listed = str(status.st_gid), False
    try:
        entry = grp.getgrgid(status.st_gid)
        group = entry.gr_name
        listed = _user() in entry.gr_mem
    except KeyError:
        pass
    member = status.st_gid in (os.getegid(), *os.getgroups())
    return Socket(
        path=path,
        exists=True,
        usable=os.access(path, os.R_OK | os.W_OK),
        group=group,
        member=member,
        listed=listed,
    )


def volume(path: Path) -> Volume | None:
    """Return the file system of ``path``, or of its nearest accessible parent; None without one."""
    for place in (path, *path.parents):
        try:
            data = os.statvfs(place)
            device = place.stat().st_dev
        except OSError:
            continue
        return Volume(
            path=str(path),
            device=device,
            free=data.f_bavail * data.f_frsize,
            inodes=data.f_favail if data.f_files else -1,
            writable=os.access(place, os.W_OK | os.X_OK),
        )
    return None


def can_link(source: Path, folder: Path) -> bool | None:
    """Return whether ``source`` can be hard-linked into ``folder``; None when it cannot be tried.

    It is tried and undone, since another owner (fs.protected_hardlinks), exFAT and network disks
    refuse each in their own way.
    """
    place = next((p for p in (folder, *folder.parents) if p.is_dir()), None)
    if place is None or not source.is_file() or not os.access(place, os.W_OK | os.X_OK):
        return None
    try:
        with tempfile.TemporaryDirectory(prefix=".gapforge-doctor-", dir=place) as temporary:
            try:
                os.link(source, Path(temporary, "link"))
            except OSError:
                return False
    except OSError:
        return None
    return True


def env_file(path: Path) -> EnvFile:
    """Return the facts about ``.env`` that need no reading."""
    status = _stat(path)
    if status is None:
        return EnvFile(path=str(path))
    return EnvFile(
        path=str(path),
        exists=True,
        mode=stat.S_IMODE(status.st_mode),
        owned=status.st_uid == os.geteuid(),
        readable=os.access(path, os.R_OK),
    )


def _os_release(file: Path) -> dict[str, str]:
    try:
        lines = system_text(file).splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _unused, value in pairs}


def _meminfo(file: Path) -> dict[str, int]:
    try:
        lines = system_text(file).splitlines()
    except OSError:
        return {}
    found = (re.match(r"(\w+):\s+(\d+) kB", line) for line in lines)
    return {match[1]: int(match[2]) * 1024 for match in found if match}


def _memory_limit() -> int:
    """Return the control group's limit in bytes, 0 for none, as a component's build reads it."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = system_text(Path(name)).strip()
        except OSError:
            continue
        limit = whole_number(text)
        return limit if limit is not None and limit < 1 << 60 else 0
    return 0


def _umask() -> int:
    """Return the umask. It is read, not set and restored: another thread may write a file."""
    try:
        status = system_text(Path("/proc/self/status"))
        match = re.search(r"^Umask:\s+([0-7]+)", status, re.MULTILINE)
    except OSError:
        match = None
    return int(match[1], 8) if match else 0o022


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
