"""Test the private engine: start, isolation, stop, and recovery from kills at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gapforge.base.errors import EngineError, StorageError, ToolError
from gapforge.base.marked_folders import mark_folder
from gapforge.base.project import Project
from gapforge.engine import detect, private_daemon, private_daemon_state
from samples import ROOT


def traces(project: Project) -> list[str]:
    """Return mounts, processes, cgroups and sockets of this project's engine."""
    folder = str(private_daemon_state.folder_of(project))
    mounts = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if folder in line
    ]
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                if folder in (entry / "cmdline").read_text():
                    processes.append(entry.name)
            except OSError:
                continue
    tag = Path(private_daemon_state.socket_folder(project)).name
    groups = [
        str(p)
        for p in (*Path("/sys/fs/cgroup").glob(tag), *Path("/sys/fs/cgroup").glob(f"*/{tag}"))
    ]
    return mounts + processes + groups + [str(p) for p in Path("/run").glob(tag)]


def test_start_and_stop_are_idempotent(engine_project: Project) -> None:
    first = private_daemon.start(engine_project, offline=True)
    assert (
        private_daemon.start(engine_project, offline=True)
        == first
        == private_daemon_state.status(engine_project)
    )
    assert first.storage_driver != "vfs"
    with pytest.raises(EngineError, match=str(first.pid)):
        private_daemon.start(engine_project, offline=False)
    assert private_daemon.stop(engine_project) is True
    assert private_daemon.stop(engine_project) is False
    assert private_daemon_state.status(engine_project) is None
    assert traces(engine_project) == []


@pytest.mark.parametrize("offline", [True, False])
def test_offline_engine_has_no_interfaces(engine_project: Project, offline: bool) -> None:
    state = private_daemon.start(engine_project, offline=offline)
    devices = [
        line.split(":")[0].strip()
        for line in Path(f"/proc/{state.pid}/net/dev").read_text().splitlines()[2:]
    ]
    daemon = private_daemon._children(state.pid)[0]
    assert os.readlink(f"/proc/{daemon}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    same = os.readlink(f"/proc/{daemon}/ns/net") == os.readlink("/proc/self/ns/net")
    if offline:
        assert not same
        assert set(devices) <= {
            "lo",
            "sit0",
            "tunl0",
            "ip6tnl0",
            "gre0",
            "gretap0",
            "erspan0",
            "ip_vti0",
            "ip6_vti0",
            "ip6gre0",
        }
        assert (
            len(Path(f"/proc/{daemon}/net/route").read_text().splitlines()) <= 1
        )  # at most the heading
    else:
        assert same


@pytest.mark.parametrize("victim", ["outer", "daemon"])
def test_killed_daemon_leaves_nothing_and_starts_again(
    engine_project: Project, victim: str
) -> None:
    state = private_daemon.start(engine_project, offline=True)
    os.kill(
        state.pid if victim == "outer" else private_daemon._children(state.pid)[0], signal.SIGKILL
    )
    deadline = time.monotonic() + 60
    while private_daemon_state.status(engine_project) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert private_daemon_state.status(engine_project) is None
    again = private_daemon.start(engine_project, offline=True)
    assert again.pid != state.pid
    private_daemon.stop(engine_project)
    assert traces(engine_project) == []


def test_next_start_cleans_up_a_killed_one(engine_project: Project) -> None:
    code = (
        "from gapforge.base.project import Project; from pathlib import Path;"
        "from gapforge.engine import private_daemon as private;"
        f"p = Path({str(engine_project.root)!r}); private.start(Project(p, p), offline=True)"
    )
    source = str(Path(private_daemon.__file__).parents[2])
    for delay in (0.1, 0.25, 0.4):
        starter = subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}
        )
        time.sleep(delay)
        starter.kill()
        starter.wait()
    state = private_daemon.start(engine_project, offline=True)
    assert detect.choose(host=state.host, project=engine_project).info.private
    private_daemon.stop(engine_project)
    assert traces(engine_project) == []


@pytest.mark.parametrize("lost", ["state file", "whole folder"])
def test_engine_with_deleted_state_is_found(engine_project: Project, lost: str) -> None:
    """A user may delete .gapforge at any time, also while the engine runs."""
    private_daemon.start(engine_project, offline=True)
    if lost == "state file":
        private_daemon_state._state_file(engine_project).unlink()
    else:
        subprocess.run(["rm", "-rf", str(engine_project.state)], check=True)
    assert private_daemon_state.status(engine_project) is None
    assert len(private_daemon_state.strays(engine_project)) == 1
    again = private_daemon.start(engine_project, offline=True)
    assert private_daemon_state.strays(engine_project) == []
    assert private_daemon._ask(Path(again.socket), "/_ping") == b"OK"
    private_daemon_state._state_file(engine_project).unlink()
    assert private_daemon.stop(engine_project) is True
    assert traces(engine_project) == []


def test_engines_of_two_projects_are_independent(engine_project: Project) -> None:
    with tempfile.TemporaryDirectory(prefix="gapforge-live-", dir="/var/tmp") as folder:
        other = Project(Path(folder), Path(folder) / "artifacts")
        try:
            one, two = (
                private_daemon.start(engine_project, offline=True),
                private_daemon.start(other, offline=False),
            )
            assert one.host != two.host
            private_daemon.stop(engine_project)
            assert detect.choose(host=two.host, project=other).info.private
            assert private_daemon._ask(Path(two.socket), "/_ping") == b"OK"
        finally:
            private_daemon.remove(other)
    assert traces(other) == []


def test_docker_folders_of_the_system_stay_unchanged(engine_project: Project) -> None:
    def seen() -> list[tuple[str, float]]:
        folders = [
            p
            for p in (
                Path("/etc/docker"),
                Path("/opt/containerd"),
                Path("/run/docker"),
                Path("/run/containerd"),
                Path("/var/lib/docker"),
                Path("/var/lib/containerd"),
            )
            if p.exists()
        ]
        return [(str(p), p.stat().st_mtime) for f in folders for p in (f, *f.iterdir())]

    before, forward = seen(), Path("/proc/sys/net/ipv4/ip_forward").read_text()
    private_daemon.start(engine_project, offline=False)
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forward
    private_daemon.stop(engine_project)
    assert seen() == before


def test_failed_start_shows_the_log(engine_project: Project) -> None:
    folder = mark_folder(private_daemon_state.folder_of(engine_project), "test")
    (folder / "daemon.json").write_text('{"no-such-setting": 1}')
    with pytest.raises(EngineError) as caught:
        private_daemon.start(engine_project)
    assert "no-such-setting" in caught.value.message
    assert "dockerd.log" in caught.value.hint
    assert private_daemon_state.status(engine_project) is None
    assert traces(engine_project) == []


def test_missing_dockerd_is_reported(
    engine_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_DOCKERD", "/nonexistent/dockerd")
    with pytest.raises(ToolError, match="GAPFORGE_DOCKERD=/nonexistent/dockerd"):
        private_daemon.start(engine_project)
    assert traces(engine_project) == []


def test_remove_does_not_follow_mounts(engine_project: Project) -> None:
    private_daemon.start(engine_project, offline=True)
    private_daemon.stop(engine_project)
    folder = private_daemon_state.folder_of(engine_project)
    precious = engine_project.root / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    trap = folder / "a trap"
    trap.mkdir()
    subprocess.run(["mount", "--bind", str(precious), str(trap)], check=True)
    try:
        with pytest.raises(StorageError, match="a trap"):
            private_daemon.remove(engine_project)
    finally:
        subprocess.run(["umount", str(trap)], check=True)
    assert (precious / "file").exists()
    private_daemon.remove(engine_project)
    assert not folder.exists()


def test_start_refuses_a_foreign_folder(engine_project: Project) -> None:
    folder = private_daemon_state.folder_of(engine_project)
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(StorageError, match=str(folder)):
        private_daemon.start(engine_project)
    (folder / "thesis.tex").unlink()
    folder.rmdir()


def test_engine_commands_report_json(engine_project: Project) -> None:
    env = {**os.environ, "GAPFORGE_ROOT": str(engine_project.root)}

    def call(*words: str) -> tuple[int, dict[str, object]]:
        done = subprocess.run(
            [str(ROOT / "gapforge"), "engine", *words, "--json"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    assert call("status") == (0, {"running": False})
    code, facts = call("start", "--offline")
    assert (code, facts["running"], facts["offline"]) == (0, True, True)
    assert call("status")[0] == 0
    assert call("stop") == (0, {"stopped": True})
    assert call("remove")[0] == 0
    assert not private_daemon_state.folder_of(engine_project).exists()
