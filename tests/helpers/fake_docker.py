"""Install a docker client without a daemon, and read the calls that it got."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).resolve().parent / "fake_docker_client.py"


class Fake:
    """One fake docker in a folder of its own.

    Settings: client and server (versions), buildx (version or ""), banner (output of --version),
    down (output when no daemon answers), up_hosts (each DOCKER_HOST that answers even then), store
    ("containerd"), load_as, load_error, build_error, component, os, slow.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir(parents=True)
        self.client = folder / "docker"
        shutil.copy(PROGRAM, self.client)
        self.client.chmod(0o755)
        self.settings: dict[str, Any] = {"client": "20.10.24", "server": "20.10.24", "buildx": ""}
        self.set(**settings)

    def set(self, **settings: Any) -> None:
        self.settings |= settings
        (self.folder / "fake.json").write_text(
            json.dumps({**self.settings, "state": str(self.state)})
        )

    def calls(self) -> list[dict[str, Any]]:
        file = self.state / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def argvs(self) -> list[list[str]]:
        return [call["argv"] for call in self.calls()]
