"""Test the order in which ``build`` finds out what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from gapforge.base.errors import EngineError, VerifyError
from gapforge.base.project import Project
from gapforge.cli.main import main
from gapforge.cli.verbs import build
from gapforge.doctor import machine_probes
from gapforge.doctor.machine_probes import Volume
from gapforge.engine import detect

NAME = "debian12-cpu-quickstart"
ENGINE = SimpleNamespace(info=detect.assumed().info, image_ids=lambda _name: ["sha256:1"])


@pytest.fixture
def quickstart(project: Project, root: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Complete the project of the tests, so that a build reads all its inputs."""
    for folder in ("components", "examples", "catalog"):
        shutil.copytree(root / folder, project.root / folder, dirs_exist_ok=True)
    shutil.copy(root / "Dockerfile", project.root)
    monkeypatch.setenv("GAPFORGE_ROOT", str(project.root))
    return project


def test_missing_engine_is_reported_before_every_byte_is_verified(
    quickstart: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = next((quickstart.artifacts_of(NAME) / "wheels").glob("*.whl"))
    wheel.write_bytes(bytes(wheel.stat().st_size))

    def absent(*_words: object, **_named: object) -> None:
        raise EngineError("no engine can be used", hint="./gapforge engine start")

    words = ["build", NAME, "--non-interactive"]
    with monkeypatch.context() as patched:
        patched.setattr(build.detect, "choose", absent)
        assert main(words) == EngineError.exit_code
    monkeypatch.setattr(build.detect, "choose", lambda *_words, **_named: ENGINE)
    assert main(words) == VerifyError.exit_code


@pytest.mark.parametrize(("free", "told"), [(60 * 10**9, False), (1_500_000, True)])
def test_full_disk_is_told_before_every_byte_is_verified(
    quickstart: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    free: int,
    told: bool,
) -> None:
    order: list[str] = []
    monkeypatch.setattr(build.detect, "choose", lambda *_words, **_named: ENGINE)
    disk = Volume(path="/", device=1, free=free, inodes=-1, writable=True)
    monkeypatch.setattr(machine_probes, "volume", lambda _path: disk)

    def verified(*_words: object, **_named: object) -> None:
        order.append(capsys.readouterr().err)
        raise VerifyError("stop here")

    monkeypatch.setattr(build, "verify_artifacts", verified)
    assert main(["build", NAME, "--non-interactive"]) == VerifyError.exit_code
    assert ("1.5 MB" in order[0] and "df -h" in order[0]) == told
