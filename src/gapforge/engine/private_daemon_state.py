"""Find the project's private engine: its folders, its state file, and whether it runs.

Which process is the engine is never guessed: the state file tells it from a later process with the
same number.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from gapforge.base.files import system_text
from gapforge.base.path_checks import real_path
from gapforge.base.project import Project
from gapforge.base.strict_json import canonical_json, read_json
from gapforge.base.write_files import write_text

# The path of a unix socket ends at 107 bytes, so it cannot lie in a deep project folder.
SOCKETS = Path("/run")


@dataclass(frozen=True, kw_only=True)
class State:
    """A private engine.

    ``pid`` is its outermost process; ``started`` (clock ticks since boot) and ``boot`` identify
    that process. ``root`` is the project. ``made`` lists folders outside the project that were
    created for it.
    """

    pid: int
    started: int
    boot: str
    root: str = ""
    socket: str = ""
    offline: bool = False
    version: str = ""
    storage_driver: str = ""
    made: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """Return the DOCKER_HOST address."""
        return f"unix://{self.socket}"

    @property
    def runs(self) -> bool:
        # start_ticks is 0 when there is no such process, which is no proof of being the same.
        return self.boot == boot_id() and 0 != start_ticks(self.pid) == self.started


def folder_of(project: Project) -> Path:
    """Return where the engine keeps its images, cache and log. Carries our marker."""
    return project.state / "engine"


def folders_in(project: Project) -> set[Path]:
    """Return the folders of the project's engine and of the engines of its simulated sites."""
    return {folder_of(project), *project.state.glob("rehearsal/*/.gapforge/engine")}


def log_of(project: Project) -> Path:
    return folder_of(project) / "dockerd.log"


def tag_of(project: Project) -> str:
    """Return a short name that no other project's engine has."""
    return "gapforge-" + hashlib.sha256(os.fsencode(real_path(project.root))).hexdigest()[:12]


def socket_folder(project: Project) -> Path:
    return SOCKETS / tag_of(project)


def data_root_option(project: Project) -> str:
    """Return the option of dockerd that names the project, by which a stray engine is found."""
    return f"--data-root={folder_of(project) / 'data'}"


def status(project: Project) -> State | None:
    """Return the project's engine if it runs, None if not, even if a stale state file is there."""
    state = read_state(project)
    return state if state and state.runs else None


def running_host(project: Project) -> str:
    """Return the DOCKER_HOST address of the project's running engine, or ""."""
    state = status(project)
    return state.host if state else ""


def read_state(project: Project) -> State | None:
    """Return what the state file holds, None if it is missing, invalid, or of another project.

    A project that was copied with its .gapforge brings the state of another engine.
    """
    try:
        raw = read_json(_state_file(project))
        state = State(**{**raw, "made": tuple(raw["made"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return state if state.root == str(real_path(project.root)) else None


def write_state(project: Project, state: State) -> None:
    write_text(_state_file(project), canonical_json(asdict(state)))


def delete_state(project: Project) -> None:
    _state_file(project).unlink(missing_ok=True)


def strays(project: Project) -> list[int]:
    """Return the outer processes of this project's engines that no state file names.

    There is one when a start was killed before it could write the file, or when the file was
    deleted. It is known by its command line, which names this project's folder.
    """
    recorded = status(project)
    option = data_root_option(project)
    found = []
    for pid in processes():
        with contextlib.suppress(OSError):
            words = system_text(Path(f"/proc/{pid}/cmdline"), "surrogateescape").split("\0")
            if words[0] == "unshare" and option in words and start_ticks(pid):
                found.append(pid)
    return [pid for pid in found if recorded is None or pid != recorded.pid]


def processes() -> Iterator[int]:
    """Yield the number of every process."""
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def boot_id() -> str:
    return system_text(Path("/proc/sys/kernel/random/boot_id")).strip()


def start_ticks(pid: int) -> int:
    """Return when the process started, in clock ticks since boot; 0 for none or a zombie."""
    try:
        fields = status_fields(pid)
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def status_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the process state on (the third field)."""
    # The program's name is in parentheses and may contain anything, so count from the last one.
    return system_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _state_file(project: Project) -> Path:
    return folder_of(project) / "state.json"
