"""What this machine has: asked once, carefully, and handed on as plain data that ``doctor`` judges.

Every probe copes with a missing, failing or hanging program: it leaves the field empty or says why. Nothing
here decides whether what was found is good enough.
"""

from __future__ import annotations

import grp
import json
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

from gapforge.base import process
from gapforge.base.errors import ToolError
from gapforge.base.i18n import _
from gapforge.base.system_errors import says

QUESTION_TIMEOUT = (
    20.0  # seconds; nvidia-smi takes several on a cold machine, and hangs when the driver does
)
NVIDIA_VENDOR = "0x10de"


@dataclass(frozen=True)
class System:
    """The machine itself. ``memory`` and ``available`` are bytes (0 unknown); ``now`` is seconds since 1970."""

    os_id: str
    os_version: str
    architecture: str
    python: tuple[int, ...]
    cores: int
    memory: int
    available: int
    umask: int
    now: float
    newest_file: float  # time stamp of the newest project file, which a right clock has passed


@dataclass(frozen=True)
class EngineFacts:
    """What looking for an engine gave. ``problem`` is "" when one is usable, else why not; ``hint`` what to do."""

    name: str = ""
    client: str = ""
    client_version: str = ""
    server_version: str = ""
    builder: str = ""
    root_dir: str = ""
    host: str = ""
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Socket:
    """The docker socket. ``group`` owns it; ``member`` says whether this process has that group, ``listed``
    whether the user would have it after logging in again."""

    path: str
    remote: bool = False
    exists: bool = False
    usable: bool = False
    group: str = ""
    member: bool = False
    listed: bool = False


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver describes it; ``compute`` is "" where an old driver does not tell."""

    name: str
    compute: str


@dataclass(frozen=True)
class Nvidia:
    """The NVIDIA side. ``driver`` is "" when none answers; ``problem`` says what nvidia-smi complained of.

    ``devices`` counts NVIDIA display devices on the PCI bus, whether or not a driver runs them.
    """

    driver: str = ""
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    devices: int = 0
    runtimes: tuple[str, ...] = ()
    toolkit: str = ""
    hook: bool = False
    cdi: bool = False


@dataclass(frozen=True)
class Volume:
    """The file system that a folder is (or would be) on. Bytes; ``inodes`` is -1 where it has no fixed number."""

    path: str
    device: int
    free: int
    inodes: int
    writable: bool


@dataclass(frozen=True)
class EnvFile:
    """``.env``: whether it is there, its permission bits, and whether this user may read it."""

    path: str
    exists: bool = False
    mode: int = 0
    owned: bool = True
    readable: bool = False


def system(project_files: tuple[Path, ...] = ()) -> System:
    """The operating system, memory, cores and clock."""
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
    """The socket that a docker client would use by default."""
    host = os.environ.get("DOCKER_HOST", "")
    if host and not host.startswith("unix://"):
        return Socket(host, remote=True)
    path = host.removeprefix("unix://") or "/var/run/docker.sock"
    status = _stat(Path(path))
    if status is None or not stat.S_ISSOCK(status.st_mode):
        return Socket(path)
    group, listed = str(status.st_gid), False
    try:
        entry = grp.getgrgid(status.st_gid)
        group = entry.gr_name
        listed = _user() in entry.gr_mem
    except KeyError:
        pass
    member = status.st_gid in (os.getegid(), *os.getgroups())
    return Socket(
        path,
        exists=True,
        usable=os.access(path, os.R_OK | os.W_OK),
        group=group,
        member=member,
        listed=listed,
    )


def nvidia(client: str = "", host: str = "") -> Nvidia:
    """Driver, GPUs and container toolkit. ``client`` is the docker client to ask for its runtimes, if any."""
    driver, gpus, problem = _nvidia_smi()
    if not driver:
        driver = _kernel_driver(Path("/proc/driver/nvidia/version"))
    return Nvidia(
        driver=driver,
        gpus=gpus,
        problem=problem,
        devices=_pci_devices(Path("/sys/bus/pci/devices")),
        runtimes=_runtimes(client, host) if client else (),
        toolkit=_toolkit_version(),
        hook=any(
            _on_path(name) for name in ("nvidia-container-runtime-hook", "nvidia-container-toolkit")
        ),
        cdi=any(list(Path(folder).glob("nvidia*")) for folder in ("/etc/cdi", "/var/run/cdi")),
    )


def volume(path: Path) -> Volume | None:
    """The file system of ``path``, or of its nearest existing parent; None when nobody may ask."""
    place = path
    while True:
        try:
            data = os.statvfs(place)
            device = os.stat(place).st_dev
            break
        except OSError:
            if place.parent == place:
                return None
            place = place.parent
    return Volume(
        str(path),
        device,
        data.f_bavail * data.f_frsize,
        data.f_favail if data.f_files else -1,
        os.access(place, os.W_OK | os.X_OK),
    )


def can_link(source: Path, folder: Path) -> bool | None:
    """Whether ``source`` can be hard-linked into ``folder`` (tried, and taken back); None when that cannot be tried.

    Asking is no substitute: another owner (fs.protected_hardlinks), exFAT and network disks refuse in their own ways.
    """
    place = folder
    while not place.is_dir():
        if place.parent == place:
            return None
        place = place.parent
    if not source.is_file() or not os.access(place, os.W_OK | os.X_OK):
        return None
    try:
        with tempfile.TemporaryDirectory(prefix=".gapforge-doctor-", dir=place) as room:
            try:
                os.link(source, Path(room, "link"))
            except OSError:
                return False
    except OSError:
        return None
    return True


def env_file(path: Path) -> EnvFile:
    """What can be said of ``.env`` without reading it."""
    status = _stat(path)
    if status is None:
        return EnvFile(str(path))
    return EnvFile(
        str(path),
        True,
        stat.S_IMODE(status.st_mode),
        status.st_uid == os.geteuid(),
        os.access(path, os.R_OK),
    )


def parse_gpus(listing: str) -> tuple[str, tuple[Gpu, ...]]:
    """Driver version and GPUs out of nvidia-smi's CSV lines ``name, driver[, compute capability]``."""
    driver, gpus = "", []
    for line in listing.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < 2 or not re.fullmatch(r"[0-9]+(\.[0-9]+)+", cells[1]):
            continue
        compute = cells[2] if len(cells) > 2 and re.fullmatch(r"[0-9]+\.[0-9]+", cells[2]) else ""
        driver = cells[1]
        gpus.append(Gpu(cells[0], compute))
    return driver, tuple(gpus)


def _nvidia_smi() -> tuple[str, tuple[Gpu, ...], str]:
    if not _on_path("nvidia-smi"):
        return "", (), ""
    said = ""
    # Drivers before 510 do not know compute_cap and then answer nothing at all.
    for fields in ("name,driver_version,compute_cap", "name,driver_version"):
        try:
            result = process.run(
                ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
                check=False,
                timeout=QUESTION_TIMEOUT,
            )
        except (ToolError, OSError) as error:
            return "", (), says(error)
        driver, gpus = parse_gpus(result.output)
        if gpus:
            return driver, gpus, ""
        said = said or (result.output + result.errors).strip()
    return "", (), said.splitlines()[-1] if said else _("nvidia-smi says nothing")


def _kernel_driver(file: Path) -> str:
    try:
        match = re.search(
            r"Kernel Module.*?\s([0-9]+(?:\.[0-9]+)+)\s",
            file.read_text(encoding="utf-8", errors="replace"),
        )
    except OSError:
        return ""
    return match[1] if match else ""


def _pci_devices(folder: Path) -> int:
    count = 0
    for device in folder.glob("*"):
        try:
            vendor = (device / "vendor").read_text().strip()
            display = (device / "class").read_text().strip().startswith("0x03")
        except OSError:
            continue
        count += vendor == NVIDIA_VENDOR and display
    return count


def _runtimes(client: str, host: str) -> tuple[str, ...]:
    try:
        result = process.run(
            [client, "info", "--format", "{{json .Runtimes}}"],
            check=False,
            timeout=QUESTION_TIMEOUT,
            env={"DOCKER_HOST": host} if host else None,
        )
        found = json.loads(result.output or "{}")
    except (ToolError, OSError, ValueError):
        return ()
    return tuple(sorted(found)) if isinstance(found, dict) else ()


def _toolkit_version() -> str:
    if not _on_path("nvidia-ctk"):
        return ""
    try:
        result = process.run(["nvidia-ctk", "--version"], check=False, timeout=QUESTION_TIMEOUT)
    except (ToolError, OSError):
        return ""
    match = re.search(r"version\s+v?([0-9]+(?:\.[0-9]+)+)", result.output)
    return match[1] if match else ""


def _on_path(program: str) -> bool:
    return any(
        os.access(Path(folder or ".", program), os.X_OK)
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
    )


def _os_release(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _unused, value in pairs}


def _meminfo(file: Path) -> dict[str, int]:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    found = (re.match(r"(\w+):\s+(\d+) kB", line) for line in lines)
    return {match[1]: int(match[2]) * 1024 for match in found if match}


def _memory_limit() -> int:
    """The control group's limit in bytes, 0 for none: the same files that a component's build looks at."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() and int(text) < 1 << 60 else 0
    return 0


def _umask() -> int:
    """This process's umask. Read, not set and set back: another thread may be writing a file."""
    try:
        match = re.search(
            r"^Umask:\s+([0-7]+)", Path("/proc/self/status").read_text(), re.MULTILINE
        )
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
