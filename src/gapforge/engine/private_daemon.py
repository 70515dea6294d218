"""A Docker daemon of the project's own, for machines where none runs and for tests.

It lives in PID, mount and (offline) network namespaces of its own: when its first process ends, the kernel
ends containerd and every container with it and takes all their mounts away, so nothing can be left behind.
/run, /etc/docker and /opt/containerd are covered by empty file systems in there, so it can neither find nor
disturb a system-wide Docker or containerd. It has no bridge and touches no firewall rule: builds have no
network in any case, and many restricted machines refuse both.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import EngineError, StorageError, ToolError
from gapforge.base.files import canonical_json, exclusive, mark_folder, remove_folder, write_text
from gapforge.base.i18n import _
from gapforge.base.project import Project

START_TIMEOUT = 90.0  # seconds until the daemon must answer; a cold disk is slow
STOP_TIMEOUT = 30.0  # seconds until it is killed
SOCKETS = Path(
    "/run"
)  # a unix socket's path ends at 107 bytes, so it cannot lie in a deep project folder
COVERED = (
    Path("/etc/docker"),
    Path("/opt/containerd"),
)  # where dockerd and containerd write without being asked
TAIL = 20  # lines of the log that a failure shows

# Runs inside the new namespaces. $1 is the socket's folder, $2 an empty folder to carry it across while /run is
# covered; the rest is the daemon's command line. Values come as arguments, never as text of the script.
_INSIDE = """
set -e
socket=$1 shelf=$2
shift 2
mount --bind "$socket" "$shelf"
mount -t tmpfs -o mode=755 gapforge /run
mkdir -p "$socket"
mount --bind "$shelf" "$socket"
umount "$shelf"
for folder in /etc/docker /opt/containerd; do
    mount -t tmpfs -o mode=700 gapforge "$folder"
done
exec "$@"
"""


@dataclass(frozen=True)
class State:
    """A private engine that runs. ``pid`` is its outermost process; ``started`` (clock ticks since boot) and
    ``boot`` tell it from a later process with the same number. ``root`` is the project it belongs to."""

    pid: int
    started: int
    boot: str
    root: str
    socket: str
    offline: bool
    version: str
    storage_driver: str
    made: tuple[str, ...]  # folders outside the project that we had to create

    @property
    def host(self) -> str:
        """The DOCKER_HOST address."""
        return f"unix://{self.socket}"


def folder_of(project: Project) -> Path:
    """Where the engine keeps its images, cache and log. Carries our marker."""
    return project.state / "engine"


def log_of(project: Project) -> Path:
    return folder_of(project) / "dockerd.log"


def _tag(project: Project) -> str:
    return "gapforge-" + hashlib.sha256(os.fsencode(project.root.resolve())).hexdigest()[:12]


def _socket_folder(project: Project) -> Path:
    return SOCKETS / _tag(project)


def _state_file(project: Project) -> Path:
    return folder_of(project) / "state.json"


def status(project: Project) -> State | None:
    """The project's engine if it runs; None when it does not, whatever a stale state file says."""
    state = _recorded(project)
    return state if state and _alive(state) else None


def running_host(project: Project) -> str:
    """The DOCKER_HOST address of the project's running engine, or ""."""
    state = status(project)
    return state.host if state else ""


def _recorded(project: Project) -> State | None:
    try:
        raw = json.loads(_state_file(project).read_bytes())
        state = State(**{**raw, "made": tuple(raw["made"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    # A project copied with its .gapforge brings the state of an engine that is not its own.
    return state if state.root == str(project.root.resolve()) else None


def _alive(state: State) -> bool:
    # 0 is "there was no such process", which two dead engines would have in common.
    return state.boot == _boot() and 0 != _start_ticks(state.pid) == state.started


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when there is none (a zombie is none)."""
    try:
        # The program's name stands in parentheses and may hold anything, so count from the last one.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def start(
    project: Project, *, offline: bool = False, on_line: Callable[[str], None] = lambda line: None
) -> State:
    """Start the project's engine and return when it answers; one that runs already is returned as it is.

    ``offline`` gives it a network namespace without any interface. Needs root. Raises EngineError with the end
    of the daemon's log when it does not come up, or when it runs in the other mode.
    """
    if (running := status(project)) is not None:
        return _same_mode(running, offline)
    if os.geteuid() != 0:
        raise EngineError(
            _("a private engine needs root"),
            hint=_("sudo ./gapforge engine start; or use a Docker that an administrator set up"),
        )
    if SOCKETS in project.root.resolve().parents:
        raise EngineError(
            _(
                "a private engine cannot live below {sockets}; the project is at {root}",
                sockets=SOCKETS,
                root=project.root,
            )
        )
    dockerd = _dockerd()
    with exclusive(project.state / "engine.lock", _work()):
        if (running := status(project)) is not None:
            return _same_mode(running, offline)
        _clean_up(project)
        return _start(project, dockerd, offline, on_line)


def _work() -> str:
    return _("starting or stopping the private engine")


def _same_mode(running: State, offline: bool) -> State:
    if running.offline == offline:
        return running
    modes = _("offline"), _("online")
    now, then = modes if running.offline else modes[::-1]
    raise EngineError(
        _(
            "the private engine runs {now} already (process {pid}); it cannot become "
            "{then} while it runs",
            now=now,
            pid=running.pid,
            then=then,
        ),
        hint=_("stop it first: ./gapforge engine stop"),
    )


def _dockerd() -> str:
    named = os.environ.get("GAPFORGE_DOCKERD") or "dockerd"
    places = (
        os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    )  # a user's PATH often lacks sbin
    found = shutil.which(named, path=places)
    if not found and "GAPFORGE_DOCKERD" in os.environ:
        raise ToolError(
            _("GAPFORGE_DOCKERD={named} is not a program", named=named),
            hint=_("unset it, or name a dockerd that exists"),
        )
    if not found:
        raise process.missing(named)
    return found


def _start(project: Project, dockerd: str, offline: bool, on_line: Callable[[str], None]) -> State:
    folder = mark_folder(folder_of(project), "the private engine's images, build cache and log")
    shelf = folder / "shelf"
    shelf.mkdir(exist_ok=True)
    sockets = mark_folder(_socket_folder(project), "the private engine's socket")
    made = tuple(str(p) for p in COVERED if not p.exists())
    for covered in COVERED:
        covered.mkdir(parents=True, exist_ok=True)
    # A configuration of our own, which users may edit: the system's /etc/docker/daemon.json is about another daemon.
    if not (folder / "daemon.json").exists():
        write_text(folder / "daemon.json", "{}\n")
    sock = sockets / "docker.sock"
    group = os.environ.get("SUDO_GID") or str(os.getgid())
    daemon = [
        dockerd,
        f"--config-file={folder / 'daemon.json'}",
        f"--host=unix://{sock}",
        f"--group={group}",
        _data_root(project),
        "--exec-root=/run/docker",
        "--pidfile=/run/docker.pid",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        f"--cgroup-parent=/{_tag(project)}",
        "--exec-opt=native.cgroupdriver=cgroupfs",
    ]
    apart = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        *(["--net"] if offline else []),
    ]
    argv = [*apart, "--", "sh", "-c", _INSIDE, "gapforge-engine", str(sockets), str(shelf), *daemon]
    path = f"{Path(dockerd).parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    network = _("no network") if offline else _("online")
    on_line(
        _(
            "starting a private engine ({network}): {dockerd}, data in {folder}",
            network=network,
            dockerd=dockerd,
            folder=folder,
        )
    )
    child = process.spawn(
        argv, log_of(project), env={"PATH": path, "DOCKER_HOST": None, "DOCKER_TMPDIR": None}
    )
    state = State(
        child.pid,
        _start_ticks(child.pid),
        _boot(),
        str(project.root.resolve()),
        str(sock),
        offline,
        "",
        "",
        made,
    )
    try:
        _record(
            project, state
        )  # at once, so that an interrupted start can be cleaned up by the next one
        version, driver = _wait(child, sock)
    except BaseException as error:
        _end(state)
        child.wait()
        tail = _log_tail(project)
        _clean_up(project)
        if isinstance(error, _NotUp):
            log = log_of(project)
            raise EngineError(
                _("the private engine did not start: {error}\n{tail}", error=error, tail=tail),
                hint=_("read the whole log: {log}", log=log),
            ) from None
        raise
    child.returncode = (
        0  # it is meant to outlive us; without this Python warns about a child that was left
    )
    state = State(**{**asdict(state), "version": version, "storage_driver": driver})
    _record(project, state)
    if driver == "vfs":
        on_line(
            _(
                "warning: this file system ({folder}) has no overlay mounts, so the "
                "engine uses vfs: every layer is a full copy, slow and large; put the "
                "project on ext4 or xfs",
                folder=folder,
            )
        )
    return state


class _NotUp(Exception):
    pass


def _record(project: Project, state: State) -> None:
    write_text(_state_file(project), canonical_json(asdict(state)))


def _wait(child: subprocess.Popen[bytes], sock: Path) -> tuple[str, str]:
    """(version, storage driver) once the daemon answers."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if (code := child.poll()) is not None:
            raise _NotUp(_("it ended with exit code {code}", code=code))
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            info = json.loads(ask(sock, "/info"))
            return str(info["ServerVersion"]), str(info["Driver"])
        time.sleep(0.1)
    raise _NotUp(_("no answer after {start_timeout:g} s", start_timeout=START_TIMEOUT))


def ask(sock: Path, path: str, timeout: float = 10.0) -> bytes:
    """The body of a GET from the daemon behind a unix socket. Raises OSError when nothing listens."""
    connection = http.client.HTTPConnection("localhost", timeout=timeout)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(timeout)
        connection.sock.connect(str(sock))
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(_("{path}: status {status}", path=path, status=answer.status))
        return body
    finally:
        connection.close()


def _log_tail(project: Project) -> str:
    try:
        lines = log_of(project).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-TAIL:])


def stop(project: Project) -> bool:
    """End the project's engine and everything it started; False when it was not running."""
    running = bool(status(project) or strays(project))
    if os.geteuid() != 0:
        if not running:
            return False
        raise EngineError(
            _("the private engine belongs to root"), hint="sudo ./gapforge engine stop"
        )
    if not running and not folder_of(project).exists():
        return False
    with exclusive(project.state / "engine.lock", _work()):
        if (state := status(project)) is not None:
            _end(state)
        _clean_up(project)
    return running


def strays(project: Project) -> list[int]:
    """Outer processes of engines of this project that no state file tells of.

    There is one when a start was killed before it could write the file, or the file was deleted. It is known
    by its own command line, which names this project's folder.
    """
    recorded = status(project)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or (recorded and int(entry.name) == recorded.pid):
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if (
                words[0] == b"unshare"
                and os.fsencode(_data_root(project)) in words
                and _start_ticks(int(entry.name))
            ):
                found.append(int(entry.name))
    return found


def _data_root(project: Project) -> str:
    return f"--data-root={folder_of(project) / 'data'}"


def _end(state: State) -> None:
    """Ask the daemon to end, then make it: the kernel ends all that is in its PID namespace with it."""
    for sign, patience in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, STOP_TIMEOUT)):
        # The outer process only waits for the daemon, so a polite signal goes to the daemon itself.
        targets = (
            _children(state.pid) if sign == signal.SIGTERM else [*_children(state.pid), state.pid]
        )
        for pid in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(
                    state.pid, os.WNOHANG
                )  # when it is our own child it would stay as a zombie
            if not _alive(state):
                return
            time.sleep(0.05)
    raise EngineError(
        _("the private engine (process {pid}) cannot be ended", pid=state.pid),
        hint=_("look at it: ps -fp {pid}", pid=state.pid),
    )


def _children(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found.append(int(entry.name))
    return found


def _clean_up(project: Project) -> None:
    """Take away what an engine that no longer runs has left outside its folder, and its state."""
    state = _recorded(project)
    for pid in strays(project):
        _end(State(pid, _start_ticks(pid), _boot(), "", "", False, "", "", ()))
    remove_folder(_socket_folder(project))
    _remove_cgroups(_tag(project))
    for name in state.made if state else ():
        with contextlib.suppress(OSError):  # not empty, so somebody else uses it by now
            os.rmdir(name)
    _state_file(project).unlink(missing_ok=True)


def _remove_cgroups(tag: str) -> None:
    top = Path("/sys/fs/cgroup")
    for group in (*top.glob(tag), *top.glob(f"*/{tag}")):
        for folder, _folders, _files in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def remove(project: Project) -> int:
    """Stop the engine and delete its images, cache and log; returns the bytes freed on its disk.

    Raises StorageError when something is still mounted in there (deleting would reach through the mount).
    """
    folder = folder_of(project)
    if folder.exists() and os.geteuid() != 0:
        raise EngineError(
            _("the private engine's folder belongs to root"), hint="sudo ./gapforge engine remove"
        )
    stop(project)
    if not folder.exists():
        return 0
    if mounted := _mounts_below(folder):
        count, first = len(mounted), mounted[0]
        raise StorageError(
            _(
                "{folder}: {count} file systems are still mounted below it, such as {first}",
                folder=folder,
                count=count,
                first=first,
            ),
            hint=_("umount {first}; then run the same command again", first=first),
        )
    size = _disk_use(folder)
    remove_folder(folder)
    (project.state / "engine.lock").unlink(missing_ok=True)
    return size


def _disk_use(folder: Path) -> int:
    """Bytes that the folder takes on its disk."""
    size = 0
    for parent, _folders, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_blocks * 512  # noqa: PTH118 - many thousand files
    return size


def _mounts_below(folder: Path) -> list[str]:
    root = str(folder.resolve())
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        where = line.split(" ")[4].encode().decode("unicode_escape")  # spaces are written \040
        if where == root or where.startswith(root + "/"):
            found.append(where)
    return found


def require_tools() -> None:
    """Raise ToolError, naming the package, when a program that a private engine needs is missing."""
    _dockerd()
    for program in ("unshare", "mount", "sh"):
        if not shutil.which(program):
            raise ToolError(
                _("{program} is not installed", program=program),
                hint=_("install it first: apt-get install util-linux mount"),
            )
