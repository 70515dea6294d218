"""The private engine is recognised by its state file. (Real daemons: tests/live.)"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from gapforge.base import process
from gapforge.base.errors import BusyError, EngineError
from gapforge.base.marked_folders import mark_folder
from gapforge.base.project import Project
from gapforge.base.strict_json import canonical_json
from gapforge.cli.verbs import engine as command
from gapforge.engine import private_daemon, private_daemon_state
from raised_errors import assert_error, values_of


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(private_daemon_state, "SOCKETS", tmp_path / "run")
    return Project(tmp_path / "p", tmp_path / "p" / "artifacts")


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def record(project: Project, pid: int, **changes: object) -> private_daemon_state.State:
    state = private_daemon_state.State(
        pid=pid,
        started=private_daemon_state.start_ticks(pid),
        boot=private_daemon_state.boot_id(),
        root=str(project.root.resolve()),
        socket="/run/x/docker.sock",
        offline=True,
        version="20.10.24",
        storage_driver="overlay2",
    )
    state = replace(state, **changes)  # type: ignore[arg-type]
    folder = mark_folder(private_daemon_state.folder_of(project), "test")
    (folder / "state.json").write_text(canonical_json(asdict(state)))
    return state


def test_running_engine_is_recognised(own: Project, bystander: subprocess.Popen[bytes]) -> None:
    state = record(own, bystander.pid)
    assert private_daemon_state.status(own) == state
    assert private_daemon_state.running_host(own) == "unix:///run/x/docker.sock"


@pytest.mark.parametrize(
    "changes", [{"started": 1}, {"boot": "another boot"}, {"root": "/somewhere/else"}]
)
def test_other_process_with_number_is_kept(
    own: Project, bystander: subprocess.Popen[bytes], changes: dict[str, object]
) -> None:
    record(own, bystander.pid, **changes)
    assert private_daemon_state.status(own) is None
    assert private_daemon_state.running_host(own) == ""
    if os.geteuid() == 0:
        assert private_daemon.stop(own) is False
    assert bystander.poll() is None


def test_ended_process_is_not_running(own: Project) -> None:
    child = subprocess.Popen(["true"])
    record(own, child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert private_daemon_state.status(own) is None
    child.wait()
    assert private_daemon_state.status(own) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "null"])
def test_invalid_state_file_means_not_running(own: Project, text: str) -> None:
    folder = mark_folder(private_daemon_state.folder_of(own), "test")
    (folder / "state.json").write_text(text)
    assert private_daemon_state.status(own) is None


def test_socket_path_is_short_and_unique(tmp_path: Path) -> None:
    deep = Project(tmp_path / ("x" * 200), tmp_path)
    assert len(str(private_daemon_state.socket_folder(deep) / "docker.sock")) < 108
    assert private_daemon_state.socket_folder(deep) != private_daemon_state.socket_folder(
        Project(tmp_path, tmp_path)
    )


def test_start_needs_root(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EngineError) as caught:
        private_daemon.start(own)
    assert "sudo" in caught.value.hint


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_verb_uses_sudo_without_password_only(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    code = 1

    def run(argv: list[str], **_: object) -> process.Result:
        asked.append(argv)
        return process.Result(tuple(argv), code, "", "")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(process, "run", run)
    with pytest.raises(EngineError):
        command.run(arguments("start", "--offline"), own)
    assert asked == [["sudo", "-n", "true"]]
    code = 0
    assert command.run(arguments("start", "--offline"), own) == 0
    assert asked[-1][:3] == ["sudo", "-n", "env"]
    assert asked[-1][-5:] == ["-m", "gapforge", "engine", "start", "--offline"]
    assert f"GAPFORGE_ROOT={own.root}" in asked[-1]


def test_status_and_stop_without_engine(own: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(arguments("status", "--json"), own) == 0
    assert json.loads(capsys.readouterr().out) == {"running": False}
    assert command.run(arguments("stop", "--json"), own) == 0
    assert json.loads(capsys.readouterr().out) == {"stopped": False}


def test_mounts_below_a_folder() -> None:
    assert "/" in private_daemon.mounts_below(Path("/"))
    assert private_daemon.mounts_below(Path("/nonexistent")) == []


@pytest.mark.parametrize(
    "name", ["엔진 (1)", "a\\b", "line\nend", "x\x1c\u2028y", os.fsdecode(b"\xff")]
)
def test_mounts_below_a_folder_with_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    point = os.fsencode(folder / "data")
    for byte in (b"\\", b" ", b"\t", b"\n"):
        point = point.replace(byte, b"\\%03o" % ord(byte))
    mounts = tmp_path / "mountinfo"
    mounts.write_bytes(
        b"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / %s rw - ext4 /dev/b rw\n" % point
    )
    monkeypatch.setattr(private_daemon, "MOUNTS", mounts)
    assert private_daemon.mounts_below(folder) == [str(folder / "data")]


def test_remove_waits_for_no_other_command(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another command starts the engine, its folder is not deleted."""
    folder = mark_folder(private_daemon_state.folder_of(own), "test")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with private_daemon._lock(own), pytest.raises(BusyError):
        private_daemon.remove(own)
    assert folder.is_dir()
    before = os.stat(own.state / "engine.lock").st_ino
    private_daemon.remove(own)
    assert not folder.exists()
    assert os.stat(own.state / "engine.lock").st_ino == before, "two commands would have two locks"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
@pytest.mark.parametrize("sudo", [True, False])
def test_only_the_caller_reaches_the_socket(
    own: Project, monkeypatch: pytest.MonkeyPatch, sudo: bool
) -> None:
    if sudo:
        monkeypatch.setenv("SUDO_UID", "12345")
        monkeypatch.setenv("SUDO_GID", "100")  # a group that has other members
    else:
        monkeypatch.delenv("SUDO_UID", raising=False)
    own.root.mkdir()
    private_daemon_state.SOCKETS.mkdir()
    folder = private_daemon_state.socket_folder(own)
    folder.mkdir(mode=0o755)
    assert private_daemon._private_folder(own) == folder
    status = folder.stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o700, 12345 if sudo else 0)


def test_running_engine_keeps_its_mode(own: Project, bystander: subprocess.Popen[bytes]) -> None:
    record(own, bystander.pid)  # offline
    with pytest.raises(EngineError) as caught:
        private_daemon.start(own, offline=False)
    assert_error(caught.value, EngineError, pid=bystander.pid)
    assert "runs offline already" in caught.value.message
    assert "./gapforge engine stop" in caught.value.hint
    assert private_daemon.start(own, offline=True).pid == bystander.pid


def test_daemon_that_ends_is_reported(own: Project) -> None:
    with subprocess.Popen(["sh", "-c", "exit 3"]) as ended:
        ended.wait()
        with pytest.raises(private_daemon._StartError) as caught:
            private_daemon._wait(ended, own.root / "docker.sock")
    assert values_of(caught.value.args[0]) == {"code": 3}


def test_sudo_keeps_the_language(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str], **_: object) -> process.Result:
        asked.append(argv)
        return process.Result(tuple(argv), 0, "", "")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(process, "run", run)
    chosen = ("GAPFORGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    for name in chosen:
        monkeypatch.setenv(name, "ko_KR.UTF-8")
    command.run(arguments("start"), own)
    assert {f"{name}=ko_KR.UTF-8" for name in chosen} <= set(asked[-1])
