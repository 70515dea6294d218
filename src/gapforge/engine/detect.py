"""Choose the engine: probe every docker client, its builders, and the daemons that answer."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base import limits, process
from gapforge.base.errors import EngineError, Fault, ToolError
from gapforge.base.i18n import _
from gapforge.base.path_checks import given_path, real_path
from gapforge.base.project import Project
from gapforge.base.strict_json import parse_json, read_json
from gapforge.engine import private_daemon_state
from gapforge.engine.docker import (
    BuildKitEngine,
    BuildxEngine,
    DockerEngine,
    client_env,
    version_of,
)
from gapforge.engine.docker_errors import hint_for, no_daemon_hint, unreachable
from gapforge.engine.protocol import LEAST_DOCKER, Engine, EngineInfo

ENGINES: Mapping[str, type[DockerEngine]] = {
    "docker-buildkit": BuildKitEngine,
    "docker-buildx": BuildxEngine,
}
NAMES = ("docker", *ENGINES)  # "docker" is whichever of them works
BUILT_IN = "buildkit (built in)"
# Seconds. A daemon that is starting may be slow, but one that hangs must not hang gapforge.
PROBE_TIMEOUT = 20.0


@dataclass(frozen=True)
class Client:
    """A docker client, and the best engine that it can be: a key of ENGINES."""

    path: str
    version: str
    engine: str
    builder: str


class _ClientError(Exception):
    """Why one client cannot be used."""

    def __init__(self, path: str, problem: str, expected: str = "", *, podman: bool = False):
        super().__init__(problem)
        self.fault, self.podman = Fault(path, problem, expected), podman


class _DaemonError(EngineError):
    """Why one daemon cannot be used.

    ``output`` is what client or daemon printed, ``old`` marks a daemon that is too old; both choose
    the hint.
    """

    def __init__(self, message: str, output: str = "", *, old: bool = False) -> None:
        super().__init__(message)
        self.output, self.old = output, old


def choose(preferred: str = "", host: str = "", project: Project | None = None) -> Engine:
    """Return the engine to build with.

    ``preferred`` is one of NAMES, "" for the first that works; ``host`` is a DOCKER_HOST address.
    Without one, DOCKER_HOST and the docker context decide, and the project's private engine is used
    when the default socket does not answer. Raise EngineError with everything that was tried.
    """
    clients, tried = _usable_clients(preferred)
    refused: list[_DaemonError] = []
    for address, private in _addresses(host, project):
        for client in clients:
            try:
                return _probe_daemon(client, address, private)
            except _DaemonError as error:
                refused.append(error)
                where = f"{client.path} {client.version}"
                if address:
                    where = _("{client} at {address}", client=where, address=address)
                tried.append(Fault(where, error.message.strip().splitlines()[-1]))
    raise EngineError(
        _("no engine can be used: {reason}", reason=refused[0].message),
        faults=tried,
        hint=_daemon_hint(refused),
    )


def assumed() -> Engine:
    """Return Docker with built-in BuildKit, unprobed, to show a command without an engine."""
    return BuildKitEngine(
        EngineInfo(
            name="docker-buildkit",
            client="docker",
            client_version="",
            server_version="",
            builder=BUILT_IN,
            root_dir="",
        )
    )


def _client_paths() -> list[str]:
    """Return the docker clients to probe: GAPFORGE_DOCKER alone if set, else all on PATH."""
    named = os.environ.get("GAPFORGE_DOCKER", "")
    if "/" in named:
        return [named]
    found: dict[str, str] = {}
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        candidate = Path(folder or ".") / (named or "docker")
        # Not Path.is_file: a folder on PATH that this user may not enter is no error.
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            # Resolved, since /bin is often /usr/bin.
            found.setdefault(str(real_path(candidate)), str(candidate.absolute()))
    return list(found.values()) or ([named] if named else [])


def _usable_clients(preferred: str) -> tuple[list[Client], list[Fault]]:
    """Return the clients that can build with the preferred engine, and why the others cannot.

    Raise EngineError if there is none.
    """
    clients: list[Client] = []
    errors: list[_ClientError] = []
    for path in _client_paths():
        try:
            clients.append(_probe_client(path, preferred))
        except _ClientError as error:
            errors.append(error)
    if not clients:
        raise _no_client(errors, preferred)
    return clients, [error.fault for error in errors]


def _probe_client(path: str, preferred: str) -> Client:
    """Return a client with its engine, asked without a daemon; raise _ClientError without any."""
    try:
        result = process.run([path, "--version"], timeout=PROBE_TIMEOUT, check=False)
    except (ToolError, OSError) as error:
        raise _ClientError(path, _("cannot be run: {error}", error=error)) from None
    text = (result.output + result.errors).strip()
    if "podman" in text.lower():
        raise _ClientError(
            path,
            _("this is Podman's replacement for docker; gapforge does not build with Podman yet"),
            _("Docker's own client"),
            podman=True,
        )
    if result.code != 0 or not text.startswith("Docker version"):
        raise _ClientError(
            path, _("not a docker client: --version prints {start!r}", start=text[:80])
        )
    version = version_of(text)
    builders: dict[str, str] = {}  # by engine, best first
    if (18, 9) <= version < (23,):
        builders["docker-buildkit"] = BUILT_IN
    if buildx := _buildx_version(path):
        builders["docker-buildx"] = f"buildx {buildx}"
    number = ".".join(map(str, version))
    if not builders:
        raise _ClientError(
            path,
            _(
                "client {number} has no buildx plugin, which clients from 23 on need for BuildKit",
                number=number,
            )
            if version >= (23,)
            else _("client {number} is older than BuildKit (18.09)", number=number),
            _("a client with BuildKit or the plugin docker-buildx"),
        )
    engine = next(iter(builders)) if preferred in ("", "docker") else preferred
    if engine not in builders:
        raise _ClientError(
            path,
            _(
                "client {number} can be {other}, not {preferred}",
                number=number,
                other=next(iter(builders)),
                preferred=preferred,
            ),
            preferred,
        )
    return Client(path, number, engine, builders[engine])


def _buildx_version(path: str) -> str:
    """Return the plugin's version, "" when the client has none or it does not run."""
    try:
        result = process.run([path, "buildx", "version"], timeout=PROBE_TIMEOUT, check=False)
    except ToolError:
        return ""
    match = re.search(r"docker/buildx v?(\d+(\.\d+)+)", result.output)
    return match[1] if result.code == 0 and match else ""


def _addresses(host: str, project: Project | None) -> list[tuple[str, bool]]:
    """Return the addresses to try in order, each with whether it is our private engine.

    "" is the client's own default.
    """
    private = private_daemon_state.running_host(project or Project.find())
    if host:
        return [(host, host == private)]
    default = os.environ.get("DOCKER_HOST", "")
    addresses = [("", private != "" and default == private)]
    # Whoever chose a daemon must learn that it is down, not get another one.
    if private and not default and _context() == "default":
        addresses.append((private, True))
    return addresses


def _context() -> str:
    """Return the docker context that the user selected, without asking a client."""
    if named := os.environ.get("DOCKER_CONTEXT"):
        return named
    folder = Path(os.environ.get("DOCKER_CONFIG") or given_path("~") / ".docker")
    try:
        config = read_json(folder / "config.json", limits.SYSTEM, follow=True)
        return str(config.get("currentContext") or "default")
    except (OSError, ValueError, AttributeError):
        return "default"


def _probe_daemon(client: Client, host: str, private: bool) -> Engine:
    """Return the engine behind ``host``; raise _DaemonError if there is no usable one."""
    output, answer = _ask_daemon(client, host, "version")
    server = answer.get("Server") or {}
    if not server:
        raise _DaemonError(output or _("no answer"), output)
    version = str(server.get("Version", ""))
    parts = " ".join(str(c.get("Name", "")) for c in server.get("Components") or ())
    if "podman" in parts.lower():
        raise _DaemonError(
            _(
                "Podman {version} answers on this socket; gapforge does not build with Podman yet",
                version=version,
            ),
            parts,
        )
    if (system := server.get("Os", "linux")) != "linux":
        raise _DaemonError(
            _("the daemon builds {system} images; gapforge needs linux", system=system)
        )
    if version_of(version) and version_of(version) < version_of(LEAST_DOCKER):
        raise _DaemonError(
            _(
                "the docker daemon {version} is too old: RUN --mount needs {needed} or newer",
                version=version,
                needed=LEAST_DOCKER,
            ),
            old=True,
        )
    _output, info = _ask_daemon(client, host, "info")
    if errors := info.get("ServerErrors"):
        output = "\n".join(map(str, errors))
        raise _DaemonError(output, output)
    status = " ".join(str(item) for pair in info.get("DriverStatus") or () for item in pair)
    return ENGINES[client.engine](
        EngineInfo(
            name=client.engine,
            client=client.path,
            client_version=client.version,
            server_version=version,
            builder=client.builder,
            root_dir=str(info.get("DockerRootDir", "")) if _is_local(host, answer) else "",
            host=host,
            image_store="containerd" if "io.containerd.snapshotter" in status else "classic",
            storage_driver=str(info.get("Driver", "")),
            private=private,
        )
    )


def _ask_daemon(client: Client, host: str, verb: str) -> tuple[str, dict[str, Any]]:
    """Return the messages and the JSON answer of ``docker version`` or ``docker info``."""
    try:
        result = process.run(
            [client.path, verb, "--format", "{{json .}}"],
            env=client_env(host),
            timeout=PROBE_TIMEOUT,
            check=False,
        )
    except ToolError as error:
        raise _DaemonError(
            _("the daemon does not answer: {message}", message=error.message)
        ) from error
    try:
        value = parse_json(result.output.encode() or b"{}")
    except ValueError:
        value = {}
    output = (result.errors or result.output).strip()
    return output, value if isinstance(value, dict) else {}


def _is_local(host: str, answer: Mapping[str, Any]) -> bool:
    """Return whether the engine's folders are on this machine, as far as the address tells."""
    address = host or os.environ.get("DOCKER_HOST", "")
    if address:
        return address.startswith("unix://")
    return str((answer.get("Client") or {}).get("Context", "default")) in ("", "default")


def _no_client(errors: Sequence[_ClientError], preferred: str) -> EngineError:
    if not errors:
        return EngineError(
            _("there is no docker client on PATH"),
            hint=_(
                "install Docker (apt-get install docker.io), or name a client: "
                "GAPFORGE_DOCKER=/path/to/docker"
            ),
        )
    if all(error.podman for error in errors):
        hint = _(
            "install Docker's client besides Podman and name it: GAPFORGE_DOCKER=/path/to/docker"
        )
    else:
        hint = _(
            "install the plugin (apt-get install docker-buildx), or name another client: "
            "GAPFORGE_DOCKER=/path/to/docker"
        )
    message = (
        _("no docker client can be used for {engine}", engine=preferred)
        if preferred in ENGINES
        else _("no docker client can be used")
    )
    return EngineError(message, faults=[error.fault for error in errors], hint=hint)


def _daemon_hint(refused: Sequence[_DaemonError]) -> str:
    output = "\n".join(error.output for error in refused)
    if unreachable(output):
        return hint_for(output)
    if "podman" in output.lower():
        return _(
            "point DOCKER_HOST at a Docker daemon, or start this project's own engine: "
            "./gapforge engine start"
        )
    if "too old" in output or any(error.old for error in refused):
        return _(
            "update Docker to {needed} or newer, or start this project's own engine: "
            "./gapforge engine start",
            needed=LEAST_DOCKER,
        )
    return no_daemon_hint()
