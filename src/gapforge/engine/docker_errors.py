"""Turn what the docker client printed into an error with the next command to run."""

from __future__ import annotations

import os
import re

from gapforge.base.errors import BuildError, EngineError, GapforgeError, StorageError, ToolError
from gapforge.base.i18n import _
from gapforge.engine.build_log import FULL_DISK, BuildLog

_LOST = re.compile(
    "cannot connect to the docker daemon|error during connect|is the docker daemon running|"
    "failed to connect to the docker api|unable to resolve docker endpoint|"
    "(minimum|maximum) supported api version"
)
_PULLED = re.compile("load metadata|resolve source metadata|docker-image://|pull access denied")


def command_failed(command: str, output: str, root_dir: str) -> GapforgeError:
    """Return the error for a failed docker command, such as "docker load".

    ``root_dir`` is the folder with the engine's images, "" if it is unknown.
    """
    if FULL_DISK.search(output):
        return _disk_full(command, root_dir)
    if reason := unreachable(output):
        return EngineError(f"{command}: {reason}", hint=hint_for(output))
    return EngineError(_("{command} failed:\n{output}", command=command, output=output.strip()))


def build_failed(log: BuildLog, code: int, target: str, root_dir: str) -> GapforgeError:
    """Return the error for a failed build of a target, with the failed step's last lines."""
    text = "\n".join((log.reason, *log.last))
    if log.disk_full:
        return _disk_full(_("the build"), root_dir)
    if not log.failed_step:
        if reason := unreachable(text):
            return EngineError(
                _(
                    "the connection to the engine was lost during the build: {reason}",
                    reason=reason,
                ),
                hint=hint_for(text),
            )
        return BuildError(
            _(
                "the engine refused the build (exit code {code}):\n{lines}",
                code=code,
                lines=log.tail(),
            )
        )
    if _PULLED.search(f"{log.failed_step} {log.reason}"):
        hint = _(
            "a base image is not in the engine under its local name, or the "
            "Dockerfile names one that must be pulled; builds never pull"
        )
    else:
        hint = _(
            "the lines above are the last output of the step; correct the cause, then run the "
            "same command again (finished steps are kept)"
        )
    lines = "\n".join(filter(None, (log.tail(), log.reason and f"    {log.reason}")))
    if target:
        message = _(
            "a step of target {target} failed: {step}\n{lines}",
            target=target,
            step=log.failed_step,
            lines=lines,
        )
    else:
        message = _("a step failed: {step}\n{lines}", step=log.failed_step, lines=lines)
    return BuildError(message, hint=hint)


def no_answer(error: ToolError) -> EngineError:
    """Return the error for a client that could not be run or did not finish."""
    return EngineError(
        _("the engine does not answer: {message}", message=error.message), hint=no_daemon_hint()
    )


def unreachable(output: str) -> str:
    """Return why the client could not reach its daemon, in one line; "" if it could."""
    for line in output.splitlines():
        lower = line.lower()
        if "permission denied" in lower and (
            "docker" in lower and ("socket" in lower or "dial unix" in lower)
        ):
            return _("permission denied on the engine's socket: {line}", line=line.strip())
        if _LOST.search(lower):
            return line.strip()
    return ""


def hint_for(output: str) -> str:
    """Return the next command for an engine that cannot be used, by what the client printed."""
    lower = output.lower()
    if "permission denied" in lower:
        return _(
            "become a member of the docker group: sudo usermod -aG docker {user!q}; then "
            "log in again, or in this shell: newgrp docker",
            user=os.environ.get("USER") or os.getuid(),
        )
    if "api version" in lower:
        return _(
            "the versions of docker client and daemon differ too much; use the client that came "
            "with the daemon (GAPFORGE_DOCKER=/usr/bin/docker)"
        )
    if "docker endpoint" in lower:
        return _("the docker context does not exist: docker context ls; or unset DOCKER_CONTEXT")
    return no_daemon_hint()


def no_daemon_hint() -> str:
    """Return how to start a daemon."""
    return _(
        "start Docker (sudo systemctl start docker), or this project's own engine: "
        "./gapforge engine start"
    )


def _disk_full(operation: str, root_dir: str) -> StorageError:
    message = (
        _("{operation}: the engine's disk is full ({folder})", operation=operation, folder=root_dir)
        if root_dir
        else _("{operation}: the engine's disk is full", operation=operation)
    )
    return StorageError(
        message,
        hint=_(
            "see what uses the space: docker system df; remove old build cache (docker builder "
            "prune) or images, or all of a private engine (./gapforge engine remove), and run the "
            "same command again; finished layers are kept"
        ),
    )
