"""Test the order in which ``build`` finds out what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from gapforge.base.errors import CompatibilityError, EngineError, LockError, UsageError, VerifyError
from gapforge.base.project import Project
from gapforge.cli import environment_defaults
from gapforge.cli.main import main
from gapforge.cli.verbs import build
from gapforge.doctor import machine_probes
from gapforge.doctor.machine_probes import Volume
from gapforge.engine import detect
from samples import ROOT

NAME = "debian12-cpu-quickstart"
ENGINE = SimpleNamespace(info=detect.assumed().info, image_ids=lambda _name: ["sha256:1"])


@pytest.fixture
def quickstart(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Complete the project of the tests, so that a build reads all its inputs."""
    for folder in ("components", "examples", "catalog"):
        shutil.copytree(ROOT / folder, project.root / folder, dirs_exist_ok=True)
    shutil.copy(ROOT / "Dockerfile", project.root)
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


@pytest.mark.parametrize(
    ("verb", "flag", "value", "nearest"),
    [
        ("build", "--engine", "dokcer", "docker"),
        ("smoke", "--engine", "docker-buildks", "docker-buildkit"),
        ("doctor", "--engine", "podman", ""),
        ("build", "--type", "runtim", "runtime"),
        ("build", "--tag", "My App:1", ""),
        ("build", "--python", "three", ""),
        ("build", "--torch", "2.1.2 ", ""),
        ("build", "--tensorrt", "newest", ""),
        ("build", "--tag", "app:", ""),
        ("build", "--tag", "app:" + "x" * 129, ""),
        ("build", "--tag", "host:5000/app@sha256:" + "0" * 64, ""),
    ],
)
@pytest.mark.parametrize("by_flag", [True, False])
def test_impossible_flag_value_is_refused_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    flag: str,
    value: str,
    nearest: str,
    by_flag: bool,
) -> None:
    monkeypatch.setenv("GAPFORGE_ROOT", str(tmp_path))  # not even the preset exists
    if not by_flag:
        monkeypatch.setenv(environment_defaults.variable(flag), value)
    words = [verb, NAME, *([flag, value] if by_flag else [])]
    assert main(words) == UsageError.exit_code
    told = capsys.readouterr().err
    assert value in told and f'"{nearest}"' in told if nearest else value in told


@pytest.mark.parametrize(
    "name", ["app", "app:1.0", "host:5000/team/app:v1_2", "a__b/c--d:X", "Host.io/a"]
)
def test_names_that_an_engine_accepts(name: str) -> None:
    environment_defaults.image_name(name, "--tag", "build")


@pytest.mark.parametrize(("flag", "value"), [("--torch", "1.13.1"), ("--tensorrt", "8.4.3.1")])
def test_versions_that_do_not_fit_together_are_no_usage_error(
    quickstart: Project, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    """The flag selects a version that exists; what is wrong is the combination."""
    shutil.copy(ROOT / "presets/ubuntu22.04-cuda12.4-torch2.5.json", quickstart.presets)
    words = ["build", "ubuntu22.04-cuda12.4-torch2.5", flag, value, "--dry-run"]
    assert main(words) == CompatibilityError.exit_code
    assert value in capsys.readouterr().err


def test_dry_run_with_other_versions_creates_no_preset(
    quickstart: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(quickstart.presets.iterdir())
    assert main(["build", NAME, "--torch", "2.5.1", "--dry-run"]) == LockError.exit_code
    assert sorted(quickstart.presets.iterdir()) == before
    said = capsys.readouterr().err
    assert "debian12-cpu-torch2.5" in said and "created" not in said
