"""The inputs of a build are checked, and a dry run shows all without an engine."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

import samples
from conftest import PRESET
from gapforge.base.errors import TargetError
from gapforge.base.project import Project
from gapforge.cli.verbs import build as build_verb
from gapforge.image import build_inputs
from gapforge.model import preset as presets
from places import copy_repository
from raised import assert_error


def test_base_image_of_another_os_is_refused(project: Project) -> None:
    preset = presets.find(project.presets, PRESET)
    lock = build_inputs.load_lock(project, preset)
    build_inputs.check_target(preset, lock)
    images = {role: replace(image, os_id="fedora") for role, image in lock.images.items()}
    with pytest.raises(TargetError) as error:
        build_inputs.check_target(preset, replace(lock, images=images))
    assert_error(error.value, TargetError, hint={"name": PRESET})
    assert len(error.value.faults) == 2
    for fault in error.value.faults:
        assert (fault.problem, fault.expected) == ("fedora 12", "debian 12")


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
