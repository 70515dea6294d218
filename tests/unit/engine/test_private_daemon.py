"""Which process is the private engine is never guessed; what needs root says so. (Real daemons: tests/live.)"""

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
from gapforge.base.errors import EngineError
from gapforge.base.files import canonical_json, mark_folder
from gapforge.base.project import Project
from gapforge.cli.verbs import engine as command
from gapforge.engine import private_daemon


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(private_daemon, "SOCKETS", tmp_path / "run")
    return Project(tmp_path / "p", tmp_path / "p" / "artifacts")


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def record(project: Project, pid: int, **changes: object) -> private_daemon.State:
    state = private_daemon.State(
        pid,
        private_daemon._start_ticks(pid),
        private_daemon._boot(),
        str(project.root.resolve()),
        "/run/x/docker.sock",
        True,
        "20.10.24",
        "overlay2",
        (),
    )
    state = replace(state, **changes)  # type: ignore[arg-type]
    folder = mark_folder(private_daemon.folder_of(project), "test")
    (folder / "state.json").write_text(canonical_json(asdict(state)))
    return state


def test_running_engine_is_recognised(own: Project, bystander: subprocess.Popen[bytes]) -> None:
    state = record(own, bystander.pid)
    assert private_daemon.status(own) == state
    assert private_daemon.running_host(own) == "unix:///run/x/docker.sock"


@pytest.mark.parametrize(
    "changes", [{"started": 1}, {"boot": "another boot"}, {"root": "/somewhere/else"}]
)
def test_process_that_only_has_the_number_is_never_killed(
    own: Project, bystander: subprocess.Popen[bytes], changes: dict[str, object]
) -> None:
    record(own, bystander.pid, **changes)
    assert private_daemon.status(own) is None
    assert private_daemon.running_host(own) == ""
    if os.geteuid() == 0:
        assert private_daemon.stop(own) is False
    assert bystander.poll() is None


def test_ended_process_and_zombie_are_not_running(own: Project) -> None:
    child = subprocess.Popen(["true"])
    record(own, child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert private_daemon.status(own) is None
    child.wait()
    assert private_daemon.status(own) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "null"])
def test_state_file_that_cannot_be_read(own: Project, text: str) -> None:
    folder = mark_folder(private_daemon.folder_of(own), "test")
    (folder / "state.json").write_text(text)
    assert private_daemon.status(own) is None


def test_socket_path_is_short_for_any_project(tmp_path: Path) -> None:
    deep = Project(tmp_path / ("x" * 200), tmp_path)
    assert len(str(private_daemon._socket_folder(deep) / "docker.sock")) < 108
    assert private_daemon._socket_folder(deep) != private_daemon._socket_folder(
        Project(tmp_path, tmp_path)
    )


def test_start_without_root(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EngineError) as caught:
        private_daemon.start(own)
    assert "sudo" in caught.value.hint


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_command_uses_sudo_only_when_it_asks_nothing(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    code = 1

    def run(argv: list[str], **_: object) -> process.Result:
        asked.append(argv)
        return process.Result(tuple(argv), code, "", "")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(process, "run", run)
    with pytest.raises(EngineError, match="asks for a password"):
        command.run(arguments("start", "--offline"), own)
    assert asked == [["sudo", "-n", "true"]]
    code = 0
    assert command.run(arguments("start", "--offline"), own) == 0
    assert asked[-1][:3] == ["sudo", "-n", "env"]
    assert asked[-1][-5:] == ["-m", "gapforge", "engine", "start", "--offline"]
    assert f"GAPFORGE_ROOT={own.root}" in asked[-1]


def test_status_of_nothing(own: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(arguments("status", "--json"), own) == 10
    assert json.loads(capsys.readouterr().out) == {"running": False}
    assert command.run(arguments("stop"), own) == 0
    assert "no private engine was running" in capsys.readouterr().out


def test_mounts_below_a_folder_are_seen_whatever_their_name() -> None:
    assert "/" in private_daemon._mounts_below(Path("/"))
    assert private_daemon._mounts_below(Path("/nonexistent")) == []


def test_errors_in_korean(
    own: Project, bystander: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    record(own, bystander.pid)  # offline
    with pytest.raises(EngineError) as caught:
        private_daemon.start(own, offline=False)
    assert caught.value.message == (
        f"전용 엔진이 이미 오프라인 상태로 실행 중입니다 (프로세스 {bystander.pid}). "
        "실행 중에는 온라인 상태로 바꿀 수 없습니다"
    )
    assert caught.value.hint == "먼저 중지하십시오: ./gapforge engine stop"
    monkeypatch.setattr(private_daemon, "status", lambda project: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EngineError) as caught:
        private_daemon.start(own)
    assert caught.value.message == "전용 엔진에는 root 권한이 필요합니다"
    with subprocess.Popen(["sh", "-c", "exit 3"]) as ended:
        ended.wait()
        with pytest.raises(private_daemon._NotUp) as why:
            private_daemon._wait(ended, own.root / "docker.sock")
    assert str(why.value) == "스스로 종료됨 (종료 코드 3)"


def test_sudo_keeps_every_variable_that_chooses_the_language(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
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
