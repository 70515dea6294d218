"""Paths of the project folder and of the files and folders in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.path_checks import inside

# Of Ubuntu 22.04. __main__.py states it once more, for an older Python that cannot import this.
LEAST_PYTHON = (3, 10)


@dataclass(frozen=True)
class Project:
    """The project folder. ``artifacts`` is ``root/artifacts`` or GAPFORGE_ARTIFACTS."""

    root: Path
    artifacts: Path

    @classmethod
    def find(cls) -> Project:
        """Return the project of GAPFORGE_ROOT and GAPFORGE_ARTIFACTS, else of this checkout."""
        here = Path(__file__).resolve().parents[3]
        root = Path(os.environ.get("GAPFORGE_ROOT") or here).absolute()
        artifacts = os.environ.get("GAPFORGE_ARTIFACTS")
        return cls(root, Path(artifacts).absolute() if artifacts else root / "artifacts")

    @property
    def presets(self) -> Path:
        return self.root / "presets"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog"

    @property
    def components(self) -> Path:
        return self.root / "components"

    @property
    def dockerfile(self) -> Path:
        """Return the Dockerfile template with the marker lines that a plan replaces."""
        return self.root / "Dockerfile"

    @property
    def env_file(self) -> Path:
        return self.root / ".env"

    @property
    def store(self) -> Path:
        return self.artifacts / ".store"

    @property
    def state(self) -> Path:
        """Working state that may be deleted at any time: build contexts, private engine, tools."""
        return self.root / ".gapforge"

    @property
    def dist(self) -> Path:
        """Results for people: reports, logs, records and custody pages."""
        return self.root / "dist"

    def preset_file(self, name: str) -> Path:
        return inside(self.presets, f"{name}.json")

    def lock_file(self, name: str) -> Path:
        return inside(self.presets, f"{name}.lock.json")

    def artifacts_of(self, name: str) -> Path:
        return inside(self.artifacts, name)

    def dist_of(self, name: str) -> Path:
        return inside(self.dist, name)

    def context_of(self, name: str) -> Path:
        return inside(self.state / "context", name)
