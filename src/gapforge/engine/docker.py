"""Docker as an engine: through the BuildKit in its client and daemon, or through the buildx plugin."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from gapforge.base import process
from gapforge.base.errors import (
    BuildError,
    EngineError,
    GapforgeError,
    SecretError,
    StorageError,
    ToolError,
)
from gapforge.base.i18n import _
from gapforge.base.system_errors import os_says
from gapforge.engine.build_log import KEPT_LINES, BuildLog
from gapforge.engine.protocol import BuildRequest, EngineInfo, OnLine

ANSWER_TIMEOUT = 60.0  # seconds for questions that move no image bytes
REMOVE_TIMEOUT = 120.0  # seconds; removing an image or container deletes many files
REMOVE_PAUSES = (0.0, 0.3, 1.2)  # seconds before each attempt
TIMED_OUT = 124  # what timeout(1) exits with

# Variables that steer the client itself. One that a container or build argument wants too cannot travel in
# the client's environment.
_STEERING = re.compile(
    r"(DOCKER|BUILDKIT|BUILDX|MOBY|LD|OTEL)_.*|PATH|HOME|TMPDIR|SSL_CERT_(FILE|DIR)"
)

_LOST = re.compile(
    "cannot connect to the docker daemon|error during connect|is the docker daemon running|"
    "failed to connect to the docker api|unable to resolve docker endpoint|"
    "(minimum|maximum) supported api version"
)


class DockerEngine(ABC):
    """What both ways of building with Docker share; see ``gapforge.engine.protocol.Engine`` for the promises."""

    def __init__(self, info: EngineInfo) -> None:
        self.info = info

    @abstractmethod
    def build_verb(self) -> list[str]:
        """The words between the client and the options that all builds have."""

    def build_command(self, request: BuildRequest) -> tuple[list[str], dict[str, str]]:
        """The exact command and the variables to set for it, without secret values. Pure.

        Raises SecretError for a build argument whose name steers the docker client itself.
        """
        argv = [
            self.info.client,
            *self.build_verb(),
            "--network=none",
            "--progress=plain",
            "--pull=false",
        ]
        if request.no_cache:
            argv.append("--no-cache")
        argv += ["--file", str(request.dockerfile)]
        if request.target:
            argv += ["--target", request.target]
        for name, value in sorted(request.build_args.items()):
            argv += ["--build-arg", f"{name}={value}"]
        for name in sorted(request.build_arg_env):
            if _STEERING.fullmatch(name):
                raise SecretError(
                    _(
                        "the .env key {name} cannot be a build argument: it steers the "
                        "docker client itself",
                        name=name,
                    ),
                    hint=_(
                        "give it another name in .env and in the preset, or pass it as a "
                        "secret mount"
                    ),
                )
            argv += ["--build-arg", name]
        for key, file in sorted(request.secrets.items()):
            argv += ["--secret", ",".join((_csv(f"id={key}"), _csv(f"src={file}")))]
        for name, value in sorted(request.labels.items()):
            argv += ["--label", f"{name}={value}"]
        argv += ["--tag", request.tag, str(request.context)]
        return argv, {"DOCKER_BUILDKIT": "1", **self._host()}

    def build(self, request: BuildRequest, on_line: OnLine) -> None:
        """Build and load the image under ``request.tag``; BuildError when a step fails."""
        argv, variables = self.build_command(request)
        hidden = _secret_values(request)
        log = BuildLog()

        def take(line: str) -> None:
            shown = process.hide(line, hidden)
            log.feed(shown)
            on_line(shown)

        values = {name: request.secret_env.get(name) for name in request.build_arg_env}
        code = process.stream(argv, take, env={**self._client_env(), **variables, **values})
        if code != 0:
            raise self._build_failure(log, code, request)

    def load(self, feed: Callable[[IO[bytes]], None], on_line: OnLine) -> None:
        """Load a `docker load` archive that ``feed`` writes."""
        lines: list[str] = []

        def take(line: str) -> None:
            lines.append(line)
            on_line(line)

        code = process.stream([self.info.client, "load"], take, env=self._client_env(), feed=feed)
        if code != 0:
            raise self._failure("docker load", "\n".join(lines[-KEPT_LINES:]))

    def image_ids(self, name: str) -> tuple[str, ...]:
        """The digests that identify the local image ``name``; () when there is no such image."""
        found = self._inspect(name)
        if found is None:
            return ()
        described = (found.get("Descriptor") or {}).get("digest", "")
        return tuple(dict.fromkeys(i for i in (found.get("Id", ""), described) if i))

    def image_size(self, name: str) -> int:
        """Bytes that the image's layers take, unpacked. EngineError when there is no such image."""
        found = self._inspect(name)
        if found is None:
            raise EngineError(_("the engine has no image {name}", name=name))
        if self.info.image_store == "classic":
            return int(found["Size"])
        # The containerd store counts the packed layers in "Size"; history has what each takes unpacked.
        history = self._ask(
            "image", "history", "--no-trunc", "--human=false", "--format", "{{.Size}}", name
        )
        return sum(int(line) for line in history.split())

    def tag(self, name: str, new_name: str) -> None:
        """Give the image a second name."""
        self._ask("image", "tag", name, new_name)

    def untag(self, name: str) -> None:
        """Take a name away (an image's last name goes with the image); no error when there is none."""
        result = self._run(["image", "rm", "--no-prune", name], timeout=REMOVE_TIMEOUT)
        if result.code != 0 and "no such image" not in result.errors.lower():
            raise self._failure(f"docker image rm {name}", result.errors)

    def run(
        self,
        image: str,
        command: Sequence[str],
        *,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        user: str = "",
        gpus: bool = False,
        timeout: float = 600,
    ) -> tuple[int, str, str]:
        """Run a command in a fresh container with no network, remove it, return (code, stdout, stderr)."""
        name = f"gapforge-run-{secrets.token_hex(6)}"
        argv = ["run", "--rm", "--name", name, "--network", "none", "--pull", "never"]
        if stdin:
            argv.append("--interactive")
        if user:
            argv += ["--user", user]
        if gpus:
            argv += ["--gpus", "all"]
        values: dict[str, str] = {}
        for key, value in sorted((env or {}).items()):
            steering = _STEERING.fullmatch(key) is not None
            argv += ["--env", f"{key}={value}" if steering else key]
            if not steering:
                values[key] = value
        # The image's own entry point would come before the command; base images have one that prints a banner.
        argv += ["--entrypoint", command[0], image, *command[1:]]
        try:
            result = self._run(argv, timeout=timeout, stdin=stdin or None, env=values)
        except process.TimedOut:
            self._remove_container(name)
            said = process.quoted(command)
            return (
                TIMED_OUT,
                "",
                _(
                    "ended after {timeout:g} s without finishing: {said}",
                    timeout=timeout,
                    said=said,
                ),
            )
        except BaseException:
            self._remove_container(name)
            raise
        # 125 is the client's own failure; a command inside may exit with it too, but not with these words.
        if result.code == 125 and ("docker: " in result.errors or unreachable(result.errors)):
            self._remove_container(name, pauses=(0.0,))
            raise self._failure(f"docker run {image}", result.errors)
        return result.code, result.output, result.errors

    def _remove_container(self, name: str, pauses: Sequence[float] = REMOVE_PAUSES) -> None:
        """Never leave a container behind, whatever became of its client.

        A client that was killed early may have left a creation under way, so "no such container" is asked again.
        """
        for pause in pauses:
            time.sleep(pause)
            try:
                result = self._run(["rm", "--force", "--volumes", name], timeout=REMOVE_TIMEOUT)
            except GapforgeError:
                return  # the error that brought us here says more
            if "no such container" not in (result.errors + result.output).lower():
                return

    def _host(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.info.host} if self.info.host else {}

    def _client_env(self) -> dict[str, str | None]:
        return client_env(self.info.host)

    def _run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = ANSWER_TIMEOUT,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> process.Result:
        return process.run(
            [self.info.client, *argv],
            env={**(env or {}), **self._client_env()},
            timeout=timeout,
            stdin=stdin,
            check=False,
        )

    def _ask(self, *argv: str) -> str:
        try:
            result = self._run(argv)
        except ToolError as error:
            raise _silent(error) from error
        if result.code != 0:
            raise self._failure(f"docker {process.quoted(argv)}", result.errors)
        return result.output

    def _inspect(self, name: str) -> dict[str, Any] | None:
        try:
            result = self._run(["image", "inspect", "--format", "{{json .}}", name])
        except ToolError as error:
            raise _silent(error) from error
        if result.code == 0:
            parsed: dict[str, Any] = json.loads(result.output)
            return parsed
        if "no such image" in result.errors.lower():
            return None
        raise self._failure(f"docker image inspect {name}", result.errors)

    def _failure(self, what: str, text: str) -> GapforgeError:
        if "no space left on device" in text:
            return self._disk_full(what)
        if reason := unreachable(text):
            return EngineError(f"{what}: {reason}", hint=hint_for(text))
        said = text.strip()
        return EngineError(_("{what} failed:\n{said}", what=what, said=said))

    def _disk_full(self, what: str) -> StorageError:
        where = self.info.root_dir or _("its folder")
        return StorageError(
            _("{what}: the engine's disk is full ({where})", what=what, where=where),
            hint=_(
                "see what takes the room: docker system df; finished layers are kept, so "
                "make room and run the same command again"
            ),
        )

    def _build_failure(self, log: BuildLog, code: int, request: BuildRequest) -> GapforgeError:
        text = "\n".join((log.reason, *log.last))
        if "no space left on device" in text:
            return self._disk_full(_("the build"))
        if not log.failed_step and (reason := unreachable(text)):
            return EngineError(
                _("the build lost its engine: {reason}", reason=reason), hint=hint_for(text)
            )
        tail = log.tail()
        if not log.failed_step:
            return BuildError(
                _("the engine refused the build (exit code {code}):\n{tail}", code=code, tail=tail)
            )
        hint = _(
            "the lines above are the step's own last words; repair that, then run the "
            "same command again (finished steps are kept)"
        )
        if re.search(
            r"load metadata|resolve source metadata|docker-image://|pull access denied",
            f"{log.failed_step} {log.reason}",
        ):
            hint = _(
                "a base image is not in the engine under its local name, or the "
                "Dockerfile names one that must be pulled; builds never pull"
            )
        reason = f"\n    {log.reason}" if log.reason else ""
        target = _(" of target {target}", target=request.target) if request.target else ""
        return BuildError(
            _(
                "a step{target} failed: {failed_step}\n{tail}{reason}",
                target=target,
                failed_step=log.failed_step,
                tail=tail,
                reason=reason,
            ),
            hint=hint,
        )


class BuildKitEngine(DockerEngine):
    """``docker build`` with the BuildKit that Docker 20.10 to 22 have built in; needs no plugin."""

    def build_verb(self) -> list[str]:
        return ["build"]


class BuildxEngine(DockerEngine):
    """``docker buildx build``, always with the daemon's own BuildKit.

    The builder "default" is the one of the current context. A docker-container builder, which users may have
    selected, cannot see local images and would ask a registry for the base.
    """

    def build_verb(self) -> list[str]:
        verb = ["buildx", "build", "--builder", "default", "--load"]
        if version_of(self.info.builder) >= (
            0,
            10,
        ):  # which began to attach provenance, with the time in it
            verb.append("--provenance=false")
        return verb


def no_daemon_hint() -> str:
    """How to come by a daemon."""
    return _(
        "start Docker (sudo systemctl start docker), or this project's own engine: "
        "./gapforge engine start"
    )


def _silent(error: ToolError) -> EngineError:
    return EngineError(
        _("the engine does not answer: {message}", message=error.message), hint=no_daemon_hint()
    )


def client_env(host: str) -> dict[str, str | None]:
    """What the client's environment must hold to reach ``host`` ("" leaves the user's choice as it is)."""
    variables: dict[str, str | None] = {"DOCKER_CLI_HINTS": "false"}
    if host:
        # DOCKER_HOST beats a context; TLS settings belong to the address that they were made for.
        variables |= {"DOCKER_HOST": host}
        if host.startswith("unix://"):
            variables |= {"DOCKER_TLS": None, "DOCKER_TLS_VERIFY": None}
    return variables


def version_of(text: str) -> tuple[int, ...]:
    """The first dotted number in ``text`` as a tuple: "buildx v0.13.1+ds1" is (0, 13, 1); () without one."""
    match = re.search(r"\d+(\.\d+)+", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def unreachable(text: str) -> str:
    """Why the client could not reach its daemon, in one line; "" when ``text`` does not say so."""
    for line in text.splitlines():
        low = line.lower()
        if "permission denied" in low and (
            "docker" in low and ("socket" in low or "dial unix" in low)
        ):
            return _("permission denied on the engine's socket: ") + line.strip()
        if _LOST.search(low):
            return line.strip()
    return ""


def hint_for(text: str) -> str:
    """The next command for what the client said about an engine that it cannot use."""
    low = text.lower()
    if "permission denied" in low:
        user = os.environ.get("USER") or "$USER"
        return _(
            "become a member of the docker group: sudo usermod -aG docker {user}; then "
            "log in again, or in this shell: newgrp docker",
            user=user,
        )
    if "api version" in low:
        return _(
            "the docker client and daemon are too far apart; use the client that came "
            "with the daemon (GAPFORGE_DOCKER=/usr/bin/docker)"
        )
    if "docker endpoint" in low:
        return _("the docker context does not exist: docker context ls; or unset DOCKER_CONTEXT")
    return no_daemon_hint()


def _csv(field: str) -> str:
    """``--secret`` is read as one line of CSV; a comma or quote in a path must be quoted."""
    if "\n" in field or "\r" in field:
        raise SecretError(_("a secret's file name holds a line break: {field!r}", field=field))
    return '"' + field.replace('"', '""') + '"' if any(c in field for c in ',"') else field


def _secret_values(request: BuildRequest) -> list[str]:
    """Every form in which a secret of this request might turn up in the log."""
    values = [
        request.secret_env[name] for name in request.build_arg_env if name in request.secret_env
    ]
    for key, file in request.secrets.items():
        try:
            values.append(Path(file).read_bytes().decode("utf-8", "replace"))
        except OSError as error:
            raise SecretError(
                _(
                    "the secret {key} cannot be read from {file}: {why}",
                    key=key,
                    file=file,
                    why=os_says(error),
                )
            ) from error
    forms: list[str] = []
    for value in values:
        forms += [
            value.strip(),
            *(line.strip() for line in value.splitlines()),
            urllib.parse.quote(value.strip(), safe=""),
        ]
    return forms
