"""``gapforge engine``: the project's own Docker daemon, for machines where none runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import EngineError, ToolError
from gapforge.base.files import canonical_json
from gapforge.base.i18n import N_, _
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.engine import private_daemon, private_daemon_state

HELP = N_("start, stop, look at or remove this project's own Docker daemon")

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
    parser.add_argument(
        "action",
        choices=("start", "stop", "status", "remove"),
        metavar="ACTION",
        help=_(
            "what to do: start, stop, status, or remove, which also deletes the engine's "
            "images and build cache"
        ),
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help=_("start: give the engine no network interface at all, as at a disconnected site"),
    )
    parser.add_argument(
        "--json", action="store_true", help=_("print the result as JSON on standard output")
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
        state = private_daemon_state.status(project)
        _show(state, project, args.json)
        return 0 if state else EngineError.exit_code
    elif args.action == "stop":
        stopped = private_daemon.stop(project)
        _say(
            {"stopped": stopped},
            _("the private engine is stopped") if stopped else _("no private engine was running"),
            args.json,
        )
    else:
        freed = private_daemon.remove(project)
        _say(
            {"freed_bytes": freed},
            _("the private engine is removed, {freed} freed", freed=human_bytes(freed)),
            args.json,
        )
    return 0


def _needs_root(args: argparse.Namespace, project: Project) -> bool:
    if args.action == "start":
        return private_daemon_state.status(project) is None
    running = private_daemon_state.status(project) or private_daemon_state.strays(project)
    return bool(running) or (
        args.action == "remove" and private_daemon_state.folder_of(project).exists()
    )


def _as_root(args: argparse.Namespace, project: Project) -> int:
    """The same command through sudo, if it asks for no password; a question would hang scripts."""
    try:
        allowed = process.run(["sudo", "-n", "true"], timeout=30, check=False).code == 0
    except ToolError:
        allowed = False
    if not allowed:
        command = f"sudo ./gapforge engine {args.action}{' --offline' if args.offline else ''}"
        raise EngineError(
            _("a private engine needs root, and sudo is not there or asks for a password"),
            hint=_("{command}; rootless daemons are not supported", command=command),
        )
    project.state.mkdir(
        parents=True, exist_ok=True
    )  # as ourselves: other verbs must be able to write there
    source = Path(__file__).resolve().parents[2]
    kept = [f"{name}={value}" for name in _KEPT if (value := os.environ.get(name)) is not None]
    argv = [
        "sudo",
        "-n",
        "env",
        *kept,
        f"PYTHONPATH={source}",
        f"GAPFORGE_ROOT={project.root}",
        sys.executable,
        "-m",
        "gapforge",
        "engine",
        args.action,
    ]
    argv += ["--offline"] if args.offline else []
    argv += ["--json"] if args.json else []
    result = process.run(argv, timeout=300, check=False)
    sys.stderr.write(result.errors)
    sys.stdout.write(result.output)
    return result.code


def _show(state: private_daemon_state.State | None, project: Project, as_json: bool) -> None:
    if state is None:
        _say(
            {"running": False},
            _("no private engine is running; start one: ./gapforge engine start [--offline]"),
            as_json,
        )
        return
    facts = {
        "running": True,
        "offline": state.offline,
        "host": state.host,
        "pid": state.pid,
        "version": state.version,
        "storage_driver": state.storage_driver,
        "folder": str(private_daemon_state.folder_of(project)),
        "log": str(private_daemon_state.log_of(project)),
    }
    network = _("no network interface") if state.offline else _("online")
    facts_line = f"Docker {state.version}, {state.storage_driver}, {network}"
    text = _(
        "the private engine is running: {facts_line}, process {pid}\ngapforge finds it by "
        "itself; for docker: export DOCKER_HOST={host}",
        facts_line=facts_line,
        pid=state.pid,
        host=state.host,
    )
    _say(facts, text, as_json)


def _say(facts: dict[str, object], text: str, as_json: bool) -> None:
    print(canonical_json(facts) if as_json else text, end="" if as_json else "\n", flush=True)
