"""``gapforge engine``: the project's own Docker daemon, for machines where none runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import EngineError, ToolError
from gapforge.base.files import canonical_json
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.base.text import tr
from gapforge.engine import private_daemon

HELP = {
    "ko": "이 프로젝트만의 Docker 데몬을 시작·중지·확인·삭제합니다",
    "en": "start, stop, look at or remove this project's own Docker daemon",
}

_KEPT = (
    "PATH",
    "GAPFORGE_ROOT",
    "GAPFORGE_ARTIFACTS",
    "GAPFORGE_DOCKERD",
    "GAPFORGE_LANG",
    "LANG",
    "LC_ALL",
    "LC_MESSAGES",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("start", "stop", "status", "remove"), metavar="ACTION",
                        help=tr("할 일: start, stop, status, remove(이미지와 빌드 캐시도 삭제합니다)",
                                "what to do: start, stop, status, or remove, which also deletes the engine's images and build cache"))  # fmt: skip
    parser.add_argument("--offline", action="store_true",
                        help=tr("start: 망분리 현장처럼 네트워크 인터페이스가 없는 엔진을 시작합니다",
                                "start: give the engine no network interface at all, as at a disconnected site"))  # fmt: skip
    parser.add_argument(
        "--json",
        action="store_true",
        help=tr("결과를 표준 출력에 JSON으로 출력", "print the result as JSON on standard output"),
    )


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0, also for a stop or remove that found nothing; `status` gives 10 (no engine) when it does not run."""
    if args.action != "status" and os.geteuid() != 0 and _needs_root(args, project):
        return _as_root(args, project)

    def note(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if args.action == "start":
        private_daemon.require_tools()
        _show(private_daemon.start(project, offline=args.offline, on_line=note), project, args.json)
    elif args.action == "status":
        state = private_daemon.status(project)
        _show(state, project, args.json)
        return 0 if state else EngineError.exit_code
    elif args.action == "stop":
        stopped = private_daemon.stop(project)
        _say(
            {"stopped": stopped},
            tr("전용 엔진을 중지했습니다", "the private engine is stopped")
            if stopped
            else tr("실행 중인 전용 엔진이 없습니다", "no private engine was running"),
            args.json,
        )
    else:
        freed = private_daemon.remove(project)
        _say(
            {"freed_bytes": freed},
            tr(
                f"전용 엔진을 삭제했습니다. {human_bytes(freed)}를 비웠습니다",
                f"the private engine is removed, {human_bytes(freed)} freed",
            ),
            args.json,
        )
    return 0


def _needs_root(args: argparse.Namespace, project: Project) -> bool:
    if args.action == "start":
        return private_daemon.status(project) is None
    running = private_daemon.status(project) or private_daemon.strays(project)
    return bool(running) or (args.action == "remove" and private_daemon.folder_of(project).exists())


def _as_root(args: argparse.Namespace, project: Project) -> int:
    """The same command through sudo, if it asks for no password; a question would hang scripts."""
    try:
        allowed = process.run(["sudo", "-n", "true"], timeout=30, check=False).code == 0
    except ToolError:
        allowed = False
    if not allowed:
        command = f"sudo ./gapforge engine {args.action}{' --offline' if args.offline else ''}"
        raise EngineError(tr("전용 엔진에는 root 권한이 필요한데, sudo가 없거나 암호를 묻습니다",
                             "a private engine needs root, and sudo is not there or asks for a password"),
                          hint=tr(f"{command}; rootless 데몬은 지원하지 않습니다",
                                  f"{command}; rootless daemons are not supported"))  # fmt: skip
    project.state.mkdir(parents=True, exist_ok=True)  # as ourselves: other verbs must be able to write there
    source = Path(__file__).resolve().parents[2]
    kept = [f"{name}={value}" for name in _KEPT if (value := os.environ.get(name)) is not None]
    argv = ["sudo", "-n", "env", *kept, f"PYTHONPATH={source}", f"GAPFORGE_ROOT={project.root}",
            sys.executable, "-m", "gapforge", "engine", args.action]  # fmt: skip
    argv += ["--offline"] if args.offline else []
    argv += ["--json"] if args.json else []
    result = process.run(argv, timeout=300, check=False)
    sys.stderr.write(result.errors)
    sys.stdout.write(result.output)
    return result.code


def _show(state: private_daemon.State | None, project: Project, as_json: bool) -> None:
    if state is None:
        _say(
            {"running": False},
            tr(
                "실행 중인 전용 엔진이 없습니다. 시작: ./gapforge engine start [--offline]",
                "no private engine is running; start one: ./gapforge engine start [--offline]",
            ),
            as_json,
        )
        return
    facts = {
        "running": True, "offline": state.offline, "host": state.host, "pid": state.pid, "version": state.version,
        "storage_driver": state.storage_driver, "folder": str(private_daemon.folder_of(project)), "log": str(private_daemon.log_of(project)),
    }  # fmt: skip
    network = tr("네트워크 인터페이스 없음", "no network interface") if state.offline else tr("온라인", "online")
    facts_line = f"Docker {state.version}, {state.storage_driver}, {network}"
    text = tr(f"전용 엔진이 실행 중입니다: {facts_line}, 프로세스 {state.pid}\n"
              f"gapforge는 스스로 찾습니다. docker 명령에는: export DOCKER_HOST={state.host}",
              f"the private engine is running: {facts_line}, process {state.pid}\n"
              f"gapforge finds it by itself; for docker: export DOCKER_HOST={state.host}")  # fmt: skip
    _say(facts, text, as_json)


def _say(facts: dict[str, object], text: str, as_json: bool) -> None:
    print(canonical_json(facts) if as_json else text, end="" if as_json else "\n", flush=True)
