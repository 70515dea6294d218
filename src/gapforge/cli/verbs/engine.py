"""``gapforge engine``: manage the private engine, for machines without a Docker daemon."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import EngineError, ToolError
from gapforge.base.i18n import N_, _
from gapforge.base.project import Project
from gapforge.base.strict_json import canonical_json
from gapforge.base.units import human_bytes
from gapforge.cli.argument_parser import add_json
from gapforge.cli.output import say
from gapforge.engine import private_daemon, private_daemon_state

HELP = N_("start, stop, show or remove the private engine, a Docker daemon of this project")
EXAMPLES = (
    "./gapforge engine start --offline",
    "./gapforge engine status",
    "./gapforge engine remove",
)

# Variables that sudo passes on. GAPFORGE_ROOT is always set.
_LANGUAGE = ("GAPFORGE_LANG", "LANG", "LC_ALL", "LC_MESSAGES")
_KEPT = ("PATH", "GAPFORGE_ARTIFACTS", "GAPFORGE_DOCKERD", *_LANGUAGE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "action",
        choices=("start", "stop", "status", "remove"),
        metavar="ACTION",
        help=_(
            "start, stop, status, or remove, which also deletes the images and the build "
            "cache of the engine"
        ),
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help=_("start: give the engine no network interface, as at a site"),
    )
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Do the action and return 0."""
    if args.action != "status" and os.geteuid() != 0 and _needs_root(args, project):
        return _as_root(args, project)
    if args.action == "start":
        private_daemon.require_tools()
        _show(private_daemon.start(project, offline=args.offline, on_line=say), project, args.json)
    elif args.action == "status":
        state = private_daemon_state.status(project)
        _show(state, project, args.json)
    elif args.action == "stop":
        stopped = private_daemon.stop(project)
        text = (
            _("the private engine was stopped") if stopped else _("no private engine was running")
        )
        _print({"stopped": stopped}, text, args.json)
    else:
        freed = private_daemon.remove(project)
        text = _("the private engine was removed; {size} freed", size=human_bytes(freed))
        _print({"freed_bytes": freed}, text, args.json)
    return 0


def _needs_root(args: argparse.Namespace, project: Project) -> bool:
    if args.action == "start":
        return private_daemon_state.status(project) is None
    running = private_daemon_state.status(project) or private_daemon_state.strays(project)
    return bool(running) or (
        args.action == "remove" and private_daemon_state.folder_of(project).exists()
    )


def _as_root(args: argparse.Namespace, project: Project) -> int:
    """Run the same command with sudo, unless it needs a password, which would block a script."""
    try:
        allowed = process.run(["sudo", "-n", "true"], timeout=30, check=False).code == 0
    except ToolError:
        allowed = False
    if not allowed:
        command = f"sudo ./gapforge engine {args.action}{' --offline' if args.offline else ''}"
        raise EngineError(
            _("a private engine needs root, and sudo is not installed or asks for a password"),
            hint=_("{command}; rootless daemons are not supported", command=command),
        )
    project.state.mkdir(parents=True, exist_ok=True)  # owned by this user, for other verbs
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
        text = _("no private engine is running; start one: ./gapforge engine start [--offline]")
        _print({"running": False}, text, as_json)
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
    text = _(
        "the private engine is running: Docker {version}, {storage_driver}, {network}, process "
        "{pid}\ngapforge uses it automatically; for docker: export DOCKER_HOST={host}",
        version=state.version,
        storage_driver=state.storage_driver,
        network=_("no network interface") if state.offline else _("online"),
        pid=state.pid,
        host=state.host,
    )
    _print(facts, text, as_json)


def _print(facts: dict[str, object], text: str, as_json: bool) -> None:
    print(canonical_json(facts) if as_json else text, end="" if as_json else "\n", flush=True)
