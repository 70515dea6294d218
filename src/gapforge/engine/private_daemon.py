"""Start and stop a Docker daemon of the project's own, for machines without one and for tests.

It lives in PID, mount and (offline) network namespaces of its own: when its first process ends, the
kernel ends containerd and every container with it and removes all their mounts, so nothing can be
left behind. In there /run, /etc/docker and /opt/containerd are covered by empty file systems, so it
can neither find nor disturb a system-wide Docker or containerd. It has no bridge and changes no
firewall rule: builds have no network in any case, and many restricted machines refuse both.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import EngineError, StorageError, ToolError
from gapforge.base.files import open_regular, system_text
from gapforge.base.flush import MOUNTS, mount_point
from gapforge.base.i18n import _
from gapforge.base.marked_folders import mark_folder, remove_folder
from gapforge.base.path_checks import real_path
from gapforge.base.process_locks import exclusive
from gapforge.base.project import Project
from gapforge.base.strict_json import parse_json
from gapforge.base.sudo_caller import sudo_caller
from gapforge.base.write_files import write_text
from gapforge.engine import private_daemon_state
from gapforge.engine.private_daemon_state import (
    State,
    boot_id,
    data_root_option,
    delete_state,
    folder_of,
    log_of,
    processes,
    read_state,
    socket_folder,
    start_ticks,
    status,
    status_fields,
    strays,
    tag_of,
    write_state,
)

START_TIMEOUT = 90.0  # seconds until the daemon must answer; a cold disk is slow
STOP_TIMEOUT = 30.0  # seconds until it is killed
COVERED = (Path("/etc/docker"), Path("/opt/containerd"))  # where the daemons write unasked
_SHELF = "shelf"  # an empty folder in the engine's
_TAIL = 20  # lines of the log that a failure shows
_TAIL_BYTES = 64 << 10

# Runs inside the new namespaces. $1 is the socket's folder, $2 an empty folder that keeps it while
# /run is covered; the rest is the daemon's command line. Values come as arguments, never as text of
# the script.
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


class _StartError(Exception):
    """The daemon ended or did not answer in time."""


def start(
    project: Project, *, offline: bool = False, on_line: Callable[[str], None] = lambda line: None
) -> State:
    """Start the project's engine, wait until it answers, and return it.

    An engine that runs already is returned as it is. ``offline`` gives it a network namespace
    without any interface. Needs root. Raise EngineError with the end of the daemon's log when it
    does not start, or when it runs in the other mode.
    """
    if (running := status(project)) is not None:
        return _require_mode(running, offline)
    if os.geteuid() != 0:
        raise EngineError(
            _("a private engine needs root"),
            hint=_("sudo ./gapforge engine start; or use a Docker that an administrator set up"),
        )
    sockets = private_daemon_state.SOCKETS
    if sockets in real_path(project.root).parents:
        raise EngineError(
            _(
                "a private engine cannot work below {sockets}; the project is at {root}",
                sockets=sockets,
                root=project.root,
            )
        )
    dockerd = _find_dockerd()
    with _lock(project):
        if (running := status(project)) is not None:
            return _require_mode(running, offline)
        _clean_up(project)
        return _start(project, dockerd, offline, on_line)


def stop(project: Project) -> bool:
    """End the project's engine and everything it started; return whether it was running."""
    running = bool(status(project) or strays(project))
    if os.geteuid() != 0:
        if not running:
            return False
        raise EngineError(
            _("the private engine belongs to root"), hint="sudo ./gapforge engine stop"
        )
    if not running and not folder_of(project).exists():
        return False
    with _lock(project):
        _stop(project)
    return running


def _stop(project: Project) -> None:
    if (state := status(project)) is not None:
        _end(state)
    _clean_up(project)


def remove(project: Project) -> int:
    """Stop the engine and delete its images, cache and log; return the bytes freed on its disk.

    Raise StorageError when something is still mounted in there, since deleting would reach through
    the mount.
    """
    folder = folder_of(project)
    if folder.exists() and os.geteuid() != 0:
        raise EngineError(
            _("the private engine's folder belongs to root"), hint="sudo ./gapforge engine remove"
        )
    if not folder.exists():
        stop(project)
        return 0
    with _lock(project):
        _stop(project)
        if mounted := mounts_below(folder):
            raise StorageError(
                _(
                    "{folder}: {count} file systems are still mounted below it, such as {first}",
                    folder=folder,
                    count=len(mounted),
                    first=mounted[0],
                ),
                hint=_("sudo umount {first!q}; then run the same command again", first=mounted[0]),
            )
        size = _disk_use(folder)
        remove_folder(folder)
    return size


def require_tools() -> None:
    """Raise ToolError, naming the package, when a program of a private engine is missing."""
    _find_dockerd()
    for program in ("unshare", "mount", "sh"):
        if not shutil.which(program):
            raise ToolError(
                _("{program} is not installed", program=program),
                hint=_("install it first: apt-get install util-linux mount"),
            )


def _lock(project: Project) -> contextlib.AbstractContextManager[None]:
    return exclusive(project.state / "engine.lock", _("starting or stopping the private engine"))


def _require_mode(running: State, offline: bool) -> State:
    if running.offline == offline:
        return running
    message = (
        _(
            "the private engine runs offline already (process {pid}); it cannot become online "
            "while it runs",
            pid=running.pid,
        )
        if running.offline
        else _(
            "the private engine runs online already (process {pid}); it cannot become offline "
            "while it runs",
            pid=running.pid,
        )
    )
    raise EngineError(message, hint=_("stop it first: ./gapforge engine stop"))


def _find_dockerd() -> str:
    named = os.environ.get("GAPFORGE_DOCKERD") or "dockerd"
    # A user's PATH often lacks sbin.
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(named, path=path)
    if not found and "GAPFORGE_DOCKERD" in os.environ:
        raise ToolError(
            _("GAPFORGE_DOCKERD={name} is not a program", name=named),
            hint=_("unset it, or name a dockerd that exists"),
        )
    if not found:
        raise process.missing(named)
    return found


def _start(project: Project, dockerd: str, offline: bool, on_line: Callable[[str], None]) -> State:
    folder = mark_folder(folder_of(project), "the private engine's images, build cache and log")
    sockets = _private_folder(project)
    (folder / _SHELF).mkdir(exist_ok=True)
    made = tuple(str(p) for p in COVERED if not p.exists())
    for covered in COVERED:
        covered.mkdir(parents=True, exist_ok=True)
    # Its own configuration, which users may edit: /etc/docker/daemon.json is for another daemon.
    if not (folder / "daemon.json").exists():
        write_text(folder / "daemon.json", "{}\n")
    on_line(
        _(
            "starting a private engine (no network): {dockerd}, data in {folder}",
            dockerd=dockerd,
            folder=folder,
        )
        if offline
        else _(
            "starting a private engine (online): {dockerd}, data in {folder}",
            dockerd=dockerd,
            folder=folder,
        )
    )
    path = f"{Path(dockerd).parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    child = process.spawn(
        _command(project, dockerd, offline),
        log_of(project),
        env={"PATH": path, "DOCKER_HOST": None, "DOCKER_TMPDIR": None},
    )
    state = State(
        pid=child.pid,
        started=start_ticks(child.pid),
        boot=boot_id(),
        root=str(real_path(project.root)),
        socket=str(sockets / "docker.sock"),
        offline=offline,
        made=made,
    )
    try:
        # Written at once, so that the next start can clean up after an interrupted one.
        write_state(project, state)
        version, driver = _wait(child, sockets / "docker.sock")
    except BaseException as error:
        _end(state)
        child.wait()
        lines = _log_tail(project)
        _clean_up(project)
        if isinstance(error, _StartError):
            raise EngineError(
                _("the private engine did not start: {reason}\n{lines}", reason=error, lines=lines),
                hint=_("read the complete log: {log}", log=log_of(project)),
            ) from None
        raise
    # It outlives this process; without this Python warns about a child that was left.
    child.returncode = 0
    state = replace(state, version=version, storage_driver=driver)
    write_state(project, state)
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


def _private_folder(project: Project) -> Path:
    """Create the folder of the socket, which only root and the user who called sudo can enter.

    Who can connect to the socket is root on this machine, and a group may have other members.
    """
    folder = mark_folder(socket_folder(project), "the private engine's socket")
    os.chmod(folder, 0o700)
    if (caller := sudo_caller()) is not None:
        os.chown(folder, caller.user, caller.group)
    return folder


def _command(project: Project, dockerd: str, offline: bool) -> list[str]:
    """Return the command line that starts the daemon in namespaces of its own."""
    folder, sockets = folder_of(project), socket_folder(project)
    namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    namespaces += ["--net"] if offline else []
    caller = sudo_caller()
    group = caller.group if caller else os.getgid()  # nobody else gets to the socket in its folder
    return [
        *("unshare", *namespaces, "--"),
        *("sh", "-c", _INSIDE, "gapforge-engine", str(sockets), str(folder / _SHELF)),
        dockerd,
        f"--config-file={folder / 'daemon.json'}",
        f"--host=unix://{sockets / 'docker.sock'}",
        f"--group={group}",
        data_root_option(project),
        "--exec-root=/run/docker",
        "--pidfile=/run/docker.pid",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        f"--cgroup-parent=/{tag_of(project)}",
        "--exec-opt=native.cgroupdriver=cgroupfs",
    ]


def _wait(child: subprocess.Popen[bytes], sock: Path) -> tuple[str, str]:
    """Return version and storage driver once the daemon answers; raise _StartError if it fails."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if (code := child.poll()) is not None:
            raise _StartError(_("it ended with exit code {code}", code=code))
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            info = parse_json(_ask(sock, "/info"))
            return str(info["ServerVersion"]), str(info["Driver"])
        time.sleep(0.1)
    raise _StartError(_("no answer after {timeout:g} s", timeout=START_TIMEOUT))


def _ask(sock: Path, path: str, timeout: float = 10.0) -> bytes:
    """Return the body of a GET from the daemon behind a unix socket; raise OSError without one."""
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
        with open_regular(log_of(project)) as log:
            log.seek(-min(_TAIL_BYTES, os.fstat(log.fileno()).st_size), os.SEEK_END)
            lines = log.read(_TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-_TAIL:])


def _end(state: State) -> None:
    """Ask the daemon to end, then kill it: the kernel ends all that is in its PID namespace."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        # The outer process only waits for the daemon, so SIGTERM goes to the daemon itself.
        targets = _children(state.pid) + ([state.pid] if sign == signal.SIGKILL else [])
        for pid in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < deadline:
            # If it is our own child it would stay as a zombie.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(state.pid, os.WNOHANG)
            if not state.runs:
                return
            time.sleep(0.05)
    raise EngineError(
        _("the private engine (process {pid}) cannot be stopped", pid=state.pid),
        hint=_("look at it: ps -fp {pid}", pid=state.pid),
    )


def _children(pid: int) -> list[int]:
    """Return the direct children of a process."""
    found = []
    for candidate in processes():
        with contextlib.suppress(OSError, IndexError, ValueError):
            if int(status_fields(candidate)[1]) == pid:
                found.append(candidate)
    return found


def _clean_up(project: Project) -> None:
    """Remove what an engine that no longer runs has left outside its folder, and its state."""
    state = read_state(project)
    for pid in strays(project):
        _end(State(pid=pid, started=start_ticks(pid), boot=boot_id()))
    remove_folder(socket_folder(project))
    _remove_cgroups(tag_of(project))
    for name in state.made if state else ():
        with contextlib.suppress(OSError):  # not empty, so another program uses it by now
            os.rmdir(name)
    delete_state(project)


def _remove_cgroups(tag: str) -> None:
    top = Path("/sys/fs/cgroup")
    for group in (*top.glob(tag), *top.glob(f"*/{tag}")):
        for folder, _folders, _files in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _disk_use(folder: Path) -> int:
    """Return the bytes that the folder takes on its disk."""
    size = 0
    for parent, _folders, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return size


def mounts_below(folder: Path) -> list[str]:
    """Return the mount points at or below a folder."""
    root = str(real_path(folder))
    found = []
    for line in system_text(MOUNTS, "surrogateescape").split("\n"):
        fields = line.split(" ")
        where = mount_point(fields[4]) if len(fields) > 4 else ""
        if where == root or where.startswith(root + "/"):
            found.append(where)
    return found
