"""Use Docker as an engine, through its built-in BuildKit or through the buildx plugin.

The Protocol ``Engine`` documents the methods.
"""

from __future__ import annotations

import re
import secrets
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from gapforge.base import limits, process
from gapforge.base.errors import EngineError, GapforgeError, SecretError, ToolError
from gapforge.base.files import read_regular
from gapforge.base.i18n import _
from gapforge.base.strict_json import parse_json
from gapforge.base.system_errors import os_reason
from gapforge.engine.build_log import KEPT_LINES, BuildLog
from gapforge.engine.docker_errors import build_failed, command_failed, no_answer, unreachable
from gapforge.engine.protocol import BuildRequest, EngineInfo, OnLine
from gapforge.model.names import STEERING

ANSWER_TIMEOUT = 60.0  # seconds for questions that move no image bytes
REMOVE_TIMEOUT = 120.0  # seconds; removing an image or container deletes many files
REMOVE_PAUSES = (0.0, 0.3, 1.2)  # seconds before each attempt
TIMED_OUT = 124  # what timeout(1) exits with


def client_env(host: str) -> dict[str, str | None]:
    """Return what the docker client's environment must hold to reach ``host``.

    None removes a variable. "" leaves the user's choice of daemon as it is.
    """
    variables: dict[str, str | None] = {"DOCKER_CLI_HINTS": "false"}
    if host:
        # DOCKER_HOST beats a context; TLS settings belong to the address that they were made for.
        variables |= {"DOCKER_HOST": host}
        if host.startswith("unix://"):
            variables |= {"DOCKER_TLS": None, "DOCKER_TLS_VERIFY": None}
    return variables


def version_of(text: str) -> tuple[int, ...]:
    """Return the first dotted number: "buildx v0.13.1+ds1" is (0, 13, 1); () without one."""
    match = re.search(r"\d+(\.\d+)+", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


class DockerEngine(ABC):
    """What both ways of building with Docker share."""

    def __init__(self, info: EngineInfo) -> None:
        self.info = info

    @abstractmethod
    def build_verb(self) -> list[str]:
        """Return the words between the client and the options that all builds have."""

    def build_command(self, request: BuildRequest) -> tuple[list[str], dict[str, str]]:
        """Raise SecretError for a build argument whose name steers the docker client itself."""
        argv = [self.info.client, *self.build_verb()]
        argv += ["--network=none", "--progress=plain", "--pull=false"]
        if request.no_cache:
            argv.append("--no-cache")
        argv += ["--file", str(request.dockerfile)]
        if request.target:
            argv += ["--target", request.target]
        for name, value in sorted(request.build_args.items()):
            argv += ["--build-arg", f"{name}={value}"]
        for name in sorted(request.build_arg_env):
            if STEERING.fullmatch(name):
                raise SecretError(
                    _(
                        "the .env key {name} cannot be a build argument: it changes how the "
                        "docker client works",
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
        host = {"DOCKER_HOST": self.info.host} if self.info.host else {}
        return argv, {"DOCKER_BUILDKIT": "1", **host}

    def build(self, request: BuildRequest, on_line: OnLine) -> None:
        argv, variables = self.build_command(request)
        hidden = _secret_values(request)
        log = BuildLog()

        def forward(line: str) -> None:
            safe = process.hide(line, hidden)
            log.feed(safe)
            on_line(safe)

        values = {name: request.secret_env.get(name) for name in request.build_arg_env}
        code = process.stream(argv, forward, env={**self._env, **variables, **values})
        if code != 0:
            raise build_failed(log, code, request.target, self.info.root_dir)

    def load(self, feed: Callable[[IO[bytes]], None], on_line: OnLine) -> None:
        lines: list[str] = []

        def forward(line: str) -> None:
            lines.append(line)
            on_line(line)

        argv = [self.info.client, "load"]
        code = process.stream(argv, forward, env=self._env, feed=feed)
        if code != 0:
            raise self._failure("docker load", "\n".join(lines[-KEPT_LINES:]))

    def image_ids(self, name: str) -> tuple[str, ...]:
        found = self._inspect(name)
        if found is None:
            return ()
        described = (found.get("Descriptor") or {}).get("digest", "")
        return tuple(dict.fromkeys(i for i in (found.get("Id", ""), described) if i))

    def image_config(self, name: str) -> dict[str, Any]:
        found = self._inspect_present(name)
        keys = {
            "os": "Os",
            "architecture": "Architecture",
            "variant": "Variant",
            "config": "Config",
        }
        return {key: found.get(engine_key) for key, engine_key in keys.items()}

    def image_size(self, name: str) -> int:
        found = self._inspect_present(name)
        if self.info.image_store == "classic":
            return int(found["Size"])
        # The containerd store counts packed layers in "Size"; the history has unpacked sizes.
        history = self._ask(
            "image", "history", "--no-trunc", "--human=false", "--format", "{{.Size}}", name
        )
        return sum(int(line) for line in history.split())

    def tag(self, name: str, new_name: str) -> None:
        self._ask("image", "tag", name, new_name)

    def untag(self, name: str) -> None:
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
        gpus: bool = False,
        timeout: float = 600,
    ) -> tuple[int, str, str]:
        name = f"gapforge-run-{secrets.token_hex(6)}"
        argv = ["run", "--rm", "--name", name, "--network", "none", "--pull", "never"]
        argv += ["--interactive"] if stdin else []
        argv += ["--gpus", "all"] if gpus else []
        values: dict[str, str] = {}
        for key, value in sorted((env or {}).items()):
            if STEERING.fullmatch(key):
                argv += ["--env", f"{key}={value}"]
            else:
                argv += ["--env", key]
                values[key] = value
        # The image's own entry point would come before the command, and that of a base image may
        # print a banner.
        argv += ["--entrypoint", command[0], image, *command[1:]]
        try:
            result = self._run(argv, timeout=timeout, stdin=stdin or None, env=values)
        except process.TimedOut:
            self._remove_container(name)
            message = _(
                "stopped after {timeout:g} s: {command}",
                timeout=timeout,
                command=process.quoted(command),
            )
            return TIMED_OUT, "", message
        except BaseException:
            self._remove_container(name)
            raise
        # 125 is the client's own failure. The command may exit with it too, without this output.
        if result.code == 125 and ("docker: " in result.errors or unreachable(result.errors)):
            self._remove_container(name, pauses=(0.0,))
            raise self._failure(f"docker run {image}", result.errors)
        return result.code, result.output, result.errors

    def _remove_container(self, name: str, pauses: Sequence[float] = REMOVE_PAUSES) -> None:
        """Remove a container, whatever its client has done.

        The daemon may still be creating the container of a client that was killed early, so "no
        such container" is not believed at once.
        """
        for pause in pauses:
            time.sleep(pause)
            try:
                result = self._run(["rm", "--force", "--volumes", name], timeout=REMOVE_TIMEOUT)
            except GapforgeError:
                return  # the error that is being handled says more
            if "no such container" not in (result.errors + result.output).lower():
                return

    @property
    def _env(self) -> dict[str, str | None]:
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
            env={**(env or {}), **self._env},
            timeout=timeout,
            stdin=stdin,
            check=False,
        )

    def _ask(self, *argv: str) -> str:
        result = self._query(*argv)
        if result.code != 0:
            raise self._failure(f"docker {process.quoted(argv)}", result.errors)
        return result.output

    def _query(self, *argv: str) -> process.Result:
        try:
            return self._run(argv)
        except ToolError as error:
            raise no_answer(error) from error

    def _inspect(self, name: str) -> dict[str, Any] | None:
        result = self._query("image", "inspect", "--format", "{{json .}}", name)
        if result.code == 0:
            parsed: dict[str, Any] = parse_json(result.output.encode())
            return parsed
        if "no such image" in result.errors.lower():
            return None
        raise self._failure(f"docker image inspect {name}", result.errors)

    def _inspect_present(self, name: str) -> dict[str, Any]:
        found = self._inspect(name)
        if found is None:
            raise EngineError(_("the engine has no image {name}", name=name))
        return found

    def _failure(self, command: str, output: str) -> GapforgeError:
        return command_failed(command, output, self.info.root_dir)


class BuildKitEngine(DockerEngine):
    """``docker build`` with the BuildKit that Docker 20.10 to 22 contain; needs no plugin."""

    def build_verb(self) -> list[str]:
        return ["build"]


class BuildxEngine(DockerEngine):
    """``docker buildx build``, always with the daemon's own BuildKit.

    The builder "default" is the one of the current context. A docker-container builder, which users
    may have selected, cannot see local images and would ask a registry for the base image.
    """

    def build_verb(self) -> list[str]:
        verb = ["buildx", "build", "--builder", "default", "--load"]
        # From this version on buildx attaches provenance, with the time in it.
        if version_of(self.info.builder) >= (0, 10):
            verb.append("--provenance=false")
        return verb


def _csv(field: str) -> str:
    """Return a field of ``--secret``, which docker reads as one line of CSV."""
    if "\n" in field or "\r" in field:
        raise SecretError(_("a secret's file name contains a line break: {field!r}", field=field))
    return '"' + field.replace('"', '""') + '"' if any(c in field for c in ',"') else field


def _secret_values(request: BuildRequest) -> list[str]:
    """Return every form in which a secret of this request might appear in the log."""
    values = [request.secret_env[key] for key in request.build_arg_env if key in request.secret_env]
    for key, file in request.secrets.items():
        try:
            data = read_regular(file, limits.ENVIRONMENT)
            values.append(data.decode("utf-8", "replace"))
        except OSError as error:
            raise SecretError(
                _(
                    "the secret {key} cannot be read from {file}: {reason}",
                    key=key,
                    file=file,
                    reason=os_reason(error),
                )
            ) from error
    forms: list[str] = []
    for value in values:
        forms += [value.strip(), *(line.strip() for line in value.splitlines())]
        forms.append(urllib.parse.quote(value.strip(), safe=""))
    return forms
