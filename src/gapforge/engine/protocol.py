"""The Protocol that every engine fulfils, and the data it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class EngineInfo:
    """What a probe found. ``name`` is the engine's registry name, ``client`` the program it calls."""

    name: str
    client: str
    client_version: str
    server_version: str
    builder: str  # "buildkit (built in)" or "buildx X.Y.Z"
    root_dir: str  # where the engine keeps images, "" when unknown or remote
    host: str = ""  # the address that was asked for, "" when the client's own default answered
    image_store: str = "classic"  # or "containerd", which names images by manifest digest
    storage_driver: str = ""
    private: bool = False  # the project's own engine (`gapforge engine start`)


@dataclass(frozen=True)
class BuildRequest:
    """One image to build. ``secrets`` maps a secret id to a file that holds its value;
    ``build_arg_env`` names build arguments whose value is taken from ``secret_env`` (never on the
    command line; one that ``secret_env`` lacks stays unset)."""

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
    """What gapforge needs of an engine. Every method raises EngineError when the engine cannot be reached."""

    @property
    def info(self) -> EngineInfo:
        """What the probe found."""

    def build_command(self, request: BuildRequest) -> tuple[list[str], dict[str, str]]:
        """The exact command and the variables to set for it, without secret values. Pure."""

    def build(self, request: BuildRequest, on_line: OnLine) -> None:
        """Build and load the image under ``request.tag``; each line of the log goes to ``on_line``, secret
        values hidden. BuildError names the failed step, StorageError a full disk."""

    def load(self, feed: Callable[[IO[bytes]], None], on_line: OnLine) -> None:
        """Load a `docker load` archive that ``feed`` writes (from a thread of its own; what it raises is
        raised here)."""

    def image_ids(self, name: str) -> tuple[str, ...]:
        """Digests ("sha256:…") that identify the local image ``name``: config digest, and the manifest
        digest where the engine names images by it. () when there is no such image."""

    def image_size(self, name: str) -> int:
        """Bytes that the image's layers take, unpacked."""

    def tag(self, name: str, new_name: str) -> None:
        """Give the image a second name."""

    def untag(self, name: str) -> None:
        """Take a name away; no error when there is none."""

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
        """Run a command (not the image's entry point) in a fresh container with no network, remove it,
        return (code, stdout, stderr). Code 124 means that it was ended after ``timeout`` seconds."""
