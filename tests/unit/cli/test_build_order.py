"""Test the order in which ``build`` finds out what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gapforge.base.errors import EngineError, VerifyError
from gapforge.base.project import Project
from gapforge.cli.main import main
from gapforge.cli.verbs import build


def test_missing_engine_is_reported_before_every_byte_is_verified(
    project: Project, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("components", "examples", "catalog"):
        shutil.copytree(root / folder, project.root / folder, dirs_exist_ok=True)
    shutil.copy(root / "Dockerfile", project.root)
    monkeypatch.setenv("GAPFORGE_ROOT", str(project.root))
    name = "debian12-cpu-quickstart"
    wheel = next((project.artifacts_of(name) / "wheels").glob("*.whl"))
    wheel.write_bytes(bytes(wheel.stat().st_size))

    def absent(*_words: object, **_named: object) -> None:
        raise EngineError("no engine can be used", hint="./gapforge engine start")

    words = ["build", name, "--non-interactive"]
    with monkeypatch.context() as patched:
        patched.setattr(build.detect, "choose", absent)
        assert main(words) == EngineError.exit_code
    monkeypatch.setattr(build.detect, "choose", lambda *_words, **_named: None)
    assert main(words) == VerifyError.exit_code
