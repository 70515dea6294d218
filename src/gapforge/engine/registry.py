"""Which engine to use, decided by looking: every docker client, what it can build with, which daemon answers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.core import process
from gapforge.core.errors import EngineError, Fault, ToolError, UsageError
from gapforge.core.project import Project
from gapforge.core.shapes import nearest
from gapforge.engine import private
from gapforge.engine.base import Engine, EngineInfo
from gapforge.engine.docker import (
    NO_DAEMON_HINT,
    BuildKitEngine,
    BuildxEngine,
    DockerEngine,
    client_env,
    hint_for,
    unreachable,
    version_of,
)  # fmt: skip

ENGINES: Mapping[str, type[DockerEngine]] = {"docker-buildkit": BuildKitEngine, "docker-buildx": BuildxEngine}
PROBE_TIMEOUT = 20.0  # seconds; a daemon that is starting may be slow, one that hangs must not hang us
LEAST_SERVER = (20, 10)  # the first whose own frontend knows RUN --mount without a `# syntax` line


@dataclass(frozen=True)
class Client:
    """A docker client and the engines that it can be, best first: (registry name, builder)."""

    path: str
    version: str
    builders: tuple[tuple[str, str], ...]


def choose(preferred: str = "", host: str = "", project: Project | None = None) -> Engine:
    """The engine to build with.

    ``preferred`` is a name from ENGINES or "docker" for either (else GAPFORGE_ENGINE, else the first that
    works); ``host`` is a DOCKER_HOST address. Without one, DOCKER_HOST and the docker context decide, and the
    project's private engine is used when the default socket does not answer. Raises EngineError with
    everything that was tried.
    """
    preferred = preferred or os.environ.get("GAPFORGE_ENGINE", "")
    if preferred not in ("", "docker", *ENGINES):
        names = ["docker", *ENGINES]
        raise UsageError(f'no engine is called "{preferred}"{nearest(preferred, names)}',
                         hint="use one of: " + ", ".join(names))  # fmt: skip
    tried: list[Fault] = []
    clients = [c for path in client_paths() if (c := _look(path, preferred, tried))]
    if not clients:
        raise _no_client(tried, preferred)
    said: list[str] = []  # what the clients said about daemons, for the message
    for address, own in _hosts(host, project):
        for client in clients:
            try:
                return _reach(client, address, own)
            except EngineError as error:
                said.append(error.message)
                where = f"{client.path} {client.version}" + (f" at {address}" if address else "")
                tried.append(Fault(where, error.message.strip().splitlines()[-1]))
    first = "\n".join(said)
    raise EngineError("no engine can be used: " + said[0], faults=tried,
                      hint=hint_for(first) if unreachable(first) else _other_hint(first))  # fmt: skip


def assumed() -> Engine:
    """Docker with its built-in BuildKit, not looked for: for showing the command where no engine is usable."""
    return BuildKitEngine(EngineInfo("docker-buildkit", "docker", "", "", "buildkit (built in)", ""))


def client_paths() -> list[str]:
    """Every docker client to look at, in order: GAPFORGE_DOCKER alone when set, else all on PATH."""
    named = os.environ.get("GAPFORGE_DOCKER", "")
    if "/" in named:
        return [named]
    found: dict[str, str] = {}
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        candidate = Path(folder or ".") / (named or "docker")
        # Not Path.is_file: a folder on PATH that this user may not enter is no error.
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            found.setdefault(str(candidate.resolve()), str(candidate.absolute()))  # /bin is often /usr/bin
    return list(found.values()) or ([named] if named else [])


def _look(path: str, preferred: str, tried: list[Fault]) -> Client | None:
    """What a client can build with, asked without a daemon; None (and a Fault in ``tried``) when nothing fits."""
    try:
        shown = process.run([path, "--version"], timeout=PROBE_TIMEOUT, check=False)
    except (ToolError, OSError) as error:
        tried.append(Fault(path, f"cannot be run: {error}"))
        return None
    text = (shown.output + shown.errors).strip()
    if "podman" in text.lower():
        tried.append(Fault(path, "is Podman's stand-in for docker; gapforge does not build with Podman yet",
                           "Docker's own client"))  # fmt: skip
        return None
    if shown.code != 0 or not text.startswith("Docker version"):
        tried.append(Fault(path, f"does not answer --version like a docker client: {text[:80]!r}"))
        return None
    version = version_of(text)
    builders: list[tuple[str, str]] = []
    if (18, 9) <= version < (23,):
        builders.append(("docker-buildkit", "buildkit (built in)"))
    if buildx := _buildx(path):
        builders.append(("docker-buildx", f"buildx {buildx}"))
    number = ".".join(map(str, version))
    if not builders:
        why = "has no buildx plugin, which clients from 23 on need for BuildKit" if version >= (23,) else \
              "is older than BuildKit (18.09)"  # fmt: skip
        tried.append(Fault(path, f"client {number} {why}", "a client with BuildKit or the plugin docker-buildx"))
        return None
    fitting = tuple(b for b in builders if preferred in ("", "docker", b[0]))
    if not fitting:
        tried.append(Fault(path, f"client {number} can be {builders[0][0]}, not {preferred}", preferred))
        return None
    return Client(path, number, fitting)


def _buildx(path: str) -> str:
    """The plugin's version; "" when the client has none or it does not run."""
    try:
        result = process.run([path, "buildx", "version"], timeout=PROBE_TIMEOUT, check=False)
    except ToolError:
        return ""
    match = re.search(r"docker/buildx v?(\d+(\.\d+)+)", result.output)
    return match[1] if result.code == 0 and match else ""


def _hosts(host: str, project: Project | None) -> list[tuple[str, bool]]:
    """The addresses to ask in order ("" is the client's own default), each with whether it is our private engine."""
    own = private.running_host(project or Project.find())
    if host:
        return [(host, host == own)]
    hosts = [("", os.environ.get("DOCKER_HOST", "") == own != "")]
    chosen = os.environ.get("DOCKER_HOST") or _context() != "default"
    if own and not chosen:  # somebody who chose a daemon must hear that it is down, not get another
        hosts.append((own, True))
    return hosts


def _context() -> str:
    """The docker context that the user selected, without asking a client."""
    if named := os.environ.get("DOCKER_CONTEXT"):
        return named
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((folder / "config.json").read_bytes())
        return str(config.get("currentContext") or "default")
    except (OSError, ValueError, AttributeError):
        return "default"


def _reach(client: Client, host: str, own: bool) -> Engine:
    """The engine behind ``host``; EngineError when nothing answers or it is not usable."""
    try:
        asked = process.run([client.path, "version", "--format", "{{json .}}"], env=client_env(host),
                            timeout=PROBE_TIMEOUT, check=False)  # fmt: skip
    except ToolError as error:
        raise EngineError(f"the daemon does not answer: {error.message}") from error
    answer = _json(asked.output)
    server = answer.get("Server") or {}
    if not server:
        raise EngineError((asked.errors or asked.output or "no answer").strip())
    version = str(server.get("Version", ""))
    parts = " ".join(str(c.get("Name", "")) for c in server.get("Components") or ())
    if "podman" in parts.lower():
        raise EngineError(f"Podman {version} answers on this socket; gapforge does not build with Podman yet")
    if server.get("Os", "linux") != "linux":
        raise EngineError(f"the daemon builds {server['Os']} images; gapforge needs linux")
    if version_of(version) and version_of(version) < LEAST_SERVER:
        raise EngineError(f"the docker daemon {version} is too old: RUN --mount needs 20.10 or newer")
    info = _info(client, host)
    name, builder = client.builders[0]
    status = " ".join(str(item) for pair in info.get("DriverStatus") or () for item in pair)
    root = str(info.get("DockerRootDir", ""))
    return ENGINES[name](EngineInfo(
        name=name, client=client.path, client_version=client.version, server_version=version, builder=builder,
        root_dir=root if _is_local(host, answer) else "", host=host,
        image_store="containerd" if "io.containerd.snapshotter" in status else "classic",
        storage_driver=str(info.get("Driver", "")), private=own,
    ))  # fmt: skip


def _info(client: Client, host: str) -> dict[str, Any]:
    try:
        asked = process.run([client.path, "info", "--format", "{{json .}}"], env=client_env(host),
                            timeout=PROBE_TIMEOUT, check=False)  # fmt: skip
    except ToolError as error:
        raise EngineError(f"the daemon does not answer: {error.message}") from error
    info = _json(asked.output)
    if errors := info.get("ServerErrors"):
        raise EngineError("\n".join(map(str, errors)))
    return info


def _is_local(host: str, answer: Mapping[str, Any]) -> bool:
    """Whether the engine's folders are on this machine, as far as the address tells."""
    address = host or os.environ.get("DOCKER_HOST", "")
    if address:
        return address.startswith("unix://")
    return str((answer.get("Client") or {}).get("Context", "default")) in ("", "default")


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _no_client(tried: list[Fault], preferred: str) -> EngineError:
    if not tried:
        return EngineError("there is no docker client on PATH",
                           hint="install Docker (apt-get install docker.io), or name a client: GAPFORGE_DOCKER=/path/to/docker")  # fmt: skip
    podman = all("Podman" in fault.problem for fault in tried)
    hint = (
        "install Docker's client next to it and name it: GAPFORGE_DOCKER=/path/to/docker"
        if podman
        else "install the plugin (apt-get install docker-buildx), or name another client: GAPFORGE_DOCKER=/path/to/docker"
    )
    wanted = f" for {preferred}" if preferred in ENGINES else ""
    return EngineError(f"no docker client can be used{wanted}", faults=tried, hint=hint)


def _other_hint(text: str) -> str:
    if "Podman" in text:
        return "point DOCKER_HOST at a Docker daemon, or start this project's own engine: ./gapforge engine start"
    if "too old" in text:
        return "update Docker to 20.10 or newer, or start this project's own engine: ./gapforge engine start"
    return NO_DAEMON_HINT
