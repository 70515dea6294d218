"""Define what gapforge needs of an engine: a Protocol, and the data that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

LEAST_DOCKER = "20.10"  # the first whose own frontend has RUN --mount without a `# syntax` line
OnLine = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What a probe found out about an engine.

    ``name`` is a key of ``detect.ENGINES``, ``client`` the program that is called. ``builder`` is
    "buildkit (built in)" or "buildx X.Y.Z". ``root_dir`` is where the engine keeps images, "" when
    unknown or remote. ``host`` is the address of the daemon, "" for the client's own default.
    ``image_store`` is "classic" or "containerd", which names images by manifest digest. ``private``
    marks the project's own engine (`gapforge engine start`).
    """

    name: str
    client: str
    client_version: str
    server_version: str
    builder: str
    root_dir: str
    host: str = ""
    image_store: str = "classic"
    storage_driver: str = ""
    private: bool = False


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """One image to build.

    ``secrets`` maps a secret id to the file that holds its value. ``build_arg_env`` names the build
    arguments whose value is taken from ``secret_env``, and never on the command line; one that
    ``secret_env`` lacks stays unset.
    """

    context: Path
    dockerfile: Path
    target: str
    tag: str
    build_args: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: Mapping[str, Path]
    build_arg_env: tuple[str, ...]
    secret_env: Mapping[str, str]
    no_cache: bool = False


class Engine(Protocol):
    """An engine. Every method raises EngineError when the engine cannot be reached."""

    @property
    def info(self) -> EngineInfo:
        """Return what the probe found."""

    def build_command(self, request: BuildRequest) -> tuple[list[str], dict[str, str]]:
        """Return the exact command and the variables to set for it, without secret values."""

    def build(self, request: BuildRequest, on_line: OnLine) -> None:
        """Build and load the image under ``request.tag``.

        Each line of the log goes to ``on_line`` with secret values hidden. Raise BuildError naming
        the failed step, StorageError for a full disk.
        """

    def load(self, feed: Callable[[IO[bytes]], None], on_line: OnLine) -> None:
        """Load a `docker load` archive that ``feed`` writes.

        ``feed`` runs in a thread of its own; an error in it is raised here.
        """

    def image_ids(self, name: str) -> tuple[str, ...]:
        """Return the digests ("sha256:…") that identify the local image ``name``, or ().

        They are the config digest, and the manifest digest where the engine names images by it.
        """

    def image_config(self, name: str) -> dict[str, Any]:
        """Return os, architecture, variant and config of a local image, as OCI names them.

        Raise EngineError without the image.
        """

    def image_size(self, name: str) -> int:
        """Return the bytes of the image's unpacked layers. Raise EngineError without the image."""

    def tag(self, name: str, new_name: str) -> None:
        """Give the image a second name."""

    def untag(self, name: str) -> None:
        """Remove a name, and the image with its last name; a missing name is no error."""

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
        """Run a command in a new container with no network; return (code, stdout, stderr).

        The image's entry point is not used, and the container is removed. Code 124 means that the
        command was stopped after ``timeout`` seconds.
        """
