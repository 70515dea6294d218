"""Which engine to use, decided by looking: every docker client, what it can build with, which daemon answers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base import process
from gapforge.base.errors import EngineError, Fault, ToolError, UsageError
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.engine import private_daemon
from gapforge.engine.docker import (
    BuildKitEngine,
    BuildxEngine,
    DockerEngine,
    client_env,
    hint_for,
    no_daemon_hint,
    unreachable,
    version_of,
)
from gapforge.engine.protocol import Engine, EngineInfo
from gapforge.model.schema import nearest

ENGINES: Mapping[str, type[DockerEngine]] = {
    "docker-buildkit": BuildKitEngine,
    "docker-buildx": BuildxEngine,
}
PROBE_TIMEOUT = (
    20.0  # seconds; a daemon that is starting may be slow, one that hangs must not hang us
)
LEAST_SERVER = (20, 10)  # the first whose own frontend knows RUN --mount without a `# syntax` line


@dataclass(frozen=True)
class Client:
    """A docker client and the engines that it can be, best first: (registry name, builder)."""

    path: str
    version: str
    builders: tuple[tuple[str, str], ...]


class _Unusable(EngineError):
    """Why one daemon is of no use. ``said`` is what the client or the daemon said itself, in no language of ours;
    ``old`` is a daemon that is too old. Both choose the hint."""

    def __init__(self, message: str, said: str = "", *, old: bool = False) -> None:
        super().__init__(message)
        self.said, self.old = said, old


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
        called = f'"{preferred}"'
        raise UsageError(
            _(
                "no engine is called {called}{nearest}",
                called=called,
                nearest=nearest(preferred, names),
            ),
            hint=_("use one of: ") + ", ".join(names),
        )
    tried: list[Fault] = []
    podman: list[str] = []
    clients = [c for path in client_paths() if (c := _look(path, preferred, tried, podman))]
    if not clients:
        raise _no_client(tried, preferred, podman)
    refused: list[_Unusable] = []
    for address, own in _hosts(host, project):
        for client in clients:
            try:
                return _reach(client, address, own)
            except _Unusable as error:
                refused.append(error)
                where = f"{client.path} {client.version}"
                if address:
                    where = _("{where} at {address}", where=where, address=address)
                tried.append(Fault(where, error.message.strip().splitlines()[-1]))
    said = "\n".join(error.said for error in refused)
    raise EngineError(
        _("no engine can be used: ") + refused[0].message,
        faults=tried,
        hint=hint_for(said)
        if unreachable(said)
        else _other_hint(said, any(e.old for e in refused)),
    )


def assumed() -> Engine:
    """Docker with its built-in BuildKit, not looked for: for showing the command where no engine is usable."""
    return BuildKitEngine(
        EngineInfo("docker-buildkit", "docker", "", "", "buildkit (built in)", "")
    )


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
            found.setdefault(
                str(candidate.resolve()), str(candidate.absolute())
            )  # /bin is often /usr/bin
    return list(found.values()) or ([named] if named else [])


def _look(path: str, preferred: str, tried: list[Fault], podman: list[str]) -> Client | None:
    """What a client can build with, asked without a daemon; None (and a Fault in ``tried``) when nothing fits.

    Its path goes to ``podman`` when it is Podman's.
    """
    try:
        shown = process.run([path, "--version"], timeout=PROBE_TIMEOUT, check=False)
    except (ToolError, OSError) as error:
        tried.append(Fault(path, _("cannot be run: {error}", error=error)))
        return None
    text = (shown.output + shown.errors).strip()
    if "podman" in text.lower():
        podman.append(path)
        tried.append(
            Fault(
                path,
                _("is Podman's stand-in for docker; gapforge does not build with Podman yet"),
                _("Docker's own client"),
            )
        )
        return None
    if shown.code != 0 or not text.startswith("Docker version"):
        start = text[:80]
        tried.append(
            Fault(path, _("does not answer --version like a docker client: {start!r}", start=start))
        )
        return None
    version = version_of(text)
    builders: list[tuple[str, str]] = []
    if (18, 9) <= version < (23,):
        builders.append(("docker-buildkit", "buildkit (built in)"))
    if buildx := _buildx(path):
        builders.append(("docker-buildx", f"buildx {buildx}"))
    number = ".".join(map(str, version))
    if not builders:
        if version >= (23,):
            why = _(
                "client {number} has no buildx plugin, which clients from 23 on need for BuildKit",
                number=number,
            )
        else:
            why = _("client {number} is older than BuildKit (18.09)", number=number)
        tried.append(Fault(path, why, _("a client with BuildKit or the plugin docker-buildx")))
        return None
    fitting = tuple(b for b in builders if preferred in ("", "docker", b[0]))
    if not fitting:
        other = builders[0][0]
        tried.append(
            Fault(
                path,
                _(
                    "client {number} can be {other}, not {preferred}",
                    number=number,
                    other=other,
                    preferred=preferred,
                ),
                preferred,
            )
        )
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
    own = private_daemon.running_host(project or Project.find())
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


def _silent(error: ToolError) -> _Unusable:
    return _Unusable(_("the daemon does not answer: {message}", message=error.message))


def _reach(client: Client, host: str, own: bool) -> Engine:
    """The engine behind ``host``; _Unusable when nothing answers or it is not usable."""
    try:
        asked = process.run(
            [client.path, "version", "--format", "{{json .}}"],
            env=client_env(host),
            timeout=PROBE_TIMEOUT,
            check=False,
        )
    except ToolError as error:
        raise _silent(error) from error
    answer = _json(asked.output)
    server = answer.get("Server") or {}
    if not server:
        said = (asked.errors or asked.output).strip()
        raise _Unusable(said or _("no answer"), said)
    version = str(server.get("Version", ""))
    parts = " ".join(str(c.get("Name", "")) for c in server.get("Components") or ())
    if "podman" in parts.lower():
        raise _Unusable(
            _(
                "Podman {version} answers on this socket; gapforge does not build with Podman yet",
                version=version,
            ),
            parts,
        )
    if server.get("Os", "linux") != "linux":
        system = server["Os"]
        raise _Unusable(_("the daemon builds {system} images; gapforge needs linux", system=system))
    if version_of(version) and version_of(version) < LEAST_SERVER:
        raise _Unusable(
            _(
                "the docker daemon {version} is too old: RUN --mount needs 20.10 or newer",
                version=version,
            ),
            old=True,
        )
    info = _info(client, host)
    name, builder = client.builders[0]
    status = " ".join(str(item) for pair in info.get("DriverStatus") or () for item in pair)
    root = str(info.get("DockerRootDir", ""))
    return ENGINES[name](
        EngineInfo(
            name=name,
            client=client.path,
            client_version=client.version,
            server_version=version,
            builder=builder,
            root_dir=root if _is_local(host, answer) else "",
            host=host,
            image_store="containerd" if "io.containerd.snapshotter" in status else "classic",
            storage_driver=str(info.get("Driver", "")),
            private=own,
        )
    )


def _info(client: Client, host: str) -> dict[str, Any]:
    try:
        asked = process.run(
            [client.path, "info", "--format", "{{json .}}"],
            env=client_env(host),
            timeout=PROBE_TIMEOUT,
            check=False,
        )
    except ToolError as error:
        raise _silent(error) from error
    info = _json(asked.output)
    if errors := info.get("ServerErrors"):
        said = "\n".join(map(str, errors))
        raise _Unusable(said, said)
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


def _no_client(tried: list[Fault], preferred: str, podman: list[str]) -> EngineError:
    if not tried:
        return EngineError(
            _("there is no docker client on PATH"),
            hint=_(
                "install Docker (apt-get install docker.io), or name a client: "
                "GAPFORGE_DOCKER=/path/to/docker"
            ),
        )
    if len(podman) == len(tried):
        hint = _("install Docker's client next to it and name it: GAPFORGE_DOCKER=/path/to/docker")
    else:
        hint = _(
            "install the plugin (apt-get install docker-buildx), or name another client: "
            "GAPFORGE_DOCKER=/path/to/docker"
        )
    wanted = _(" for {preferred}", preferred=preferred) if preferred in ENGINES else ""
    return EngineError(
        _("no docker client can be used{wanted}", wanted=wanted), faults=tried, hint=hint
    )


def _other_hint(said: str, old: bool) -> str:
    if "podman" in said.lower():
        return _(
            "point DOCKER_HOST at a Docker daemon, or start this project's own engine: "
            "./gapforge engine start"
        )
    if old or "too old" in said:
        return _(
            "update Docker to 20.10 or newer, or start this project's own engine: "
            "./gapforge engine start"
        )
    return no_daemon_hint()
