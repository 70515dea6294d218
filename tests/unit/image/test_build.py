"""A build checks its inputs, tags only what passed, and has a dry run without an engine."""

from __future__ import annotations

import contextlib
import json
import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

import samples
from conftest import PRESET
from engine_fakes import Fake
from gapforge.base.errors import LockError, SmokeError, TargetError
from gapforge.base.files import sha256_file
from gapforge.base.project import Project
from gapforge.cli.verbs import build as build_verb
from gapforge.cli.verbs import check
from gapforge.compat import catalog as catalogs
from gapforge.engine import detect
from gapforge.image import build, build_inputs, smoke_checks
from gapforge.image.smoke_checks import CheckResult
from gapforge.model import preset as presets
from gapforge.model.names import ROLES
from places import copy_repository
from raised import assert_error
from tiny_image import make_layout

ROOT = Path(__file__).resolve().parents[3]


def test_base_image_of_another_os_is_refused(project: Project) -> None:
    preset = presets.find(project.presets, PRESET)
    lock = build_inputs.load_lock(project, preset)
    images = {role: replace(image, os_id="fedora") for role, image in lock.images.items()}
    shutil.copytree(Path(__file__).parents[3] / "components", project.components)
    file = project.artifacts_of(PRESET) / "lock.json"
    file.unlink()
    file.write_text(replace(lock, images=images).render())
    with pytest.raises(TargetError) as error:
        build_inputs.read_inputs(project, preset, build_inputs.Options(type="runtime"))
    assert_error(error.value, TargetError, hint={"name": PRESET})
    assert len(error.value.faults) == 2
    for fault in error.value.faults:
        assert (fault.problem, fault.expected) == ("fedora 12", "debian 12")


def test_lock_with_a_wheel_over_cv2_is_refused(project: Project) -> None:
    """A lock of an earlier version may have one; OpenCV would compile for an hour before."""
    preset = presets.find(project.presets, PRESET)
    shutil.copytree(Path(__file__).parents[3] / "components", project.components)
    preset = presets.find(project.presets, PRESET)
    lock = build_inputs.load_lock(project, preset)
    path = "wheels/opencv_python-4.10-py3-none-any.whl"
    wheel = samples.entry("wheel", path, name="opencv-python", version="4.10")
    changed = replace(lock, entries=tuple(sorted((*lock.entries, wheel), key=lambda e: e.path)))
    file = project.artifacts_of(PRESET) / "lock.json"
    file.unlink()
    file.write_text(changed.render())
    shown = f"artifacts/{PRESET}/lock.json"
    with pytest.raises(LockError) as error:
        build_inputs.read_inputs(project, preset, build_inputs.Options(type="runtime"))
    assert_error(error.value, LockError, where=[f"{shown}: {path}"], hint={"name": PRESET})
    project.lock_file(PRESET).write_text(changed.render())
    report = check.examine(project, PRESET, catalogs.load(ROOT / "catalog"), samples.COMPONENTS)
    assert [f.where for f in report.faults] == [f"presets/{PRESET}.lock.json: {path}"]


def test_dry_run_needs_no_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_repository(tmp_path / "project")
    project = Project(tmp_path / "project", tmp_path / "project/artifacts")
    preset = presets.find(project.presets, PRESET)
    samples.lay_artifacts(project.artifacts_of(PRESET), samples.lock(preset))
    options = build_inputs.Options(type="runtime")
    inputs = build_inputs.read_inputs(project, preset, options)
    monkeypatch.setenv("PATH", str(tmp_path))
    outputs = []
    for language in ("en", "ko"):
        monkeypatch.setenv("GAPFORGE_LANG", language)
        arguments = Namespace(engine="", json=False)
        assert build_verb._dry_run(arguments, project, inputs, options) == 0
        outputs.append(capsys.readouterr().out.splitlines())
    english, korean = outputs
    assert len(english) == len(korean)
    assert english[-1] == korean[-1] and " docker build " in english[-1]
    assert f"{PRESET} ({preset.sha256[:12]})" in english[0]
    assert f"gapforge/{PRESET}:runtime (--target runtime)" in english[1]
    assert not project.context_of(PRESET).exists()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake(tmp_path / "fake")
    monkeypatch.setenv("GAPFORGE_DOCKER", str(made.client))
    return made


@pytest.mark.parametrize("passes", [True, False])
def test_image_is_tagged_only_after_smoke(
    tmp_path: Path, fake: Fake, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_repository(tmp_path / "project")
    project = Project(tmp_path / "project", tmp_path / "project/artifacts")
    preset = presets.find(project.presets, PRESET)
    artifacts = project.artifacts_of(PRESET)
    image = make_layout(artifacts / "images/runtime", programs=())
    shutil.copytree(artifacts / "images/runtime", artifacts / "images/builder")
    images = {role: replace(image, os_id="debian", os_version="12") for role in ROLES}
    samples.lay_artifacts(artifacts, replace(samples.lock(preset), images=images))
    (project.root / ".env").write_text("XAIVA_LICENSE_TOKEN=canary-5f2d9c71\n")
    options = build_inputs.Options(type="runtime", tag="mine:1")
    inputs = build_inputs.read_inputs(project, preset, options)
    result = CheckResult(component="ffmpeg", check="x", ok=passes, found="1", expected="1")
    monkeypatch.setattr(smoke_checks, "run_checks", lambda *words: (result,))
    engine = detect.choose()
    steps: list[str] = []
    outcome = contextlib.nullcontext() if passes else pytest.raises(SmokeError)
    with outcome:
        build.build(
            project, engine, inputs, options, on_step=steps.append, on_output=lambda line: None
        )
    folder = project.dist_of(PRESET) / "runtime"
    report = json.loads((folder / "report.json").read_text())
    assert (report["passed"], report["image"]) == (passes, "mine:1" if passes else "")
    assert report["checks"] == [result.to_json()]
    assert report["secrets"] == ["XAIVA_LICENSE_TOKEN"]
    assert list(report["seconds"]) == ["base images", "build", "context", "smoke"]
    assert report["plan_sha256"] == sha256_file(folder / "plan.json")
    assert (folder / "Dockerfile").read_bytes() == (
        project.context_of(PRESET) / "Dockerfile"
    ).read_bytes()
    assert len(steps) == 2
    unchecked = f"localhost/gapforge/unchecked/{PRESET}:runtime"
    assert bool(engine.image_ids("mine:1")) is passes
    assert bool(engine.image_ids(unchecked)) is not passes
    log = (folder / "build.log").read_text()
    assert "secret is ***" in log and "canary-5f2d9c71" not in log
