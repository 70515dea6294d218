"""An image without an application, through every step that reads a preset; no engine is needed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import samples
import wizard_screens
from fake_docker import Fake
from gapforge.base.project import Project
from gapforge.cli import main as cli
from gapforge.image import build_context, smoke_checks
from gapforge.image.smoke_checks import CheckResult
from gapforge.model import preset as presets
from gapforge.model.names import ROLES
from gapforge.rehearsal.record import Record
from gapforge.wizard.choices import Choices
from gapforge.wizard.facts import read_facts
from tiny_image import make_layout

NAME = "bare"
WITHOUT: tuple[dict[str, Any], ...] = ({"application": ...}, {"application": None})
PASSED = CheckResult(component="ffmpeg", check="x", ok=True, found="1", expected="1")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project with complete artifacts of a preset without an application, and a .env."""
    for name in ("catalog", "components", "Dockerfile"):
        (tmp_path / name).symlink_to(samples.ROOT / name)
    monkeypatch.setenv("GAPFORGE_ROOT", str(tmp_path))
    project = Project(tmp_path, tmp_path / "artifacts")
    (tmp_path / ".env").write_text("XAIVA_LICENSE_TOKEN=canary-5f2d9c71\n")
    (tmp_path / ".env").chmod(0o600)
    write(project, **WITHOUT[0])
    return project


def write(project: Project, **changes: Any) -> None:
    """Write the preset with the changes, its artifacts and its lock."""
    project.presets.mkdir(exist_ok=True)
    raw = samples.raw_preset(name=NAME, **changes)
    project.preset_file(NAME).write_text(json.dumps(raw), encoding="utf-8")
    preset = presets.find(project.presets, NAME)
    artifacts = project.artifacts_of(NAME)
    shutil.rmtree(artifacts, ignore_errors=True)
    image = make_layout(artifacts / "images/runtime", programs=())
    shutil.copytree(artifacts / "images/runtime", artifacts / "images/builder")
    images = {role: replace(image, os_id="debian", os_version="12") for role in ROLES}
    lock = replace(samples.lock(preset), images=images)
    samples.lay_artifacts(artifacts, lock)
    project.lock_file(NAME).write_text(lock.render(), encoding="utf-8")


@pytest.fixture
def engine(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Return a fake engine; the artifacts count as verified and the checks as passed."""
    monkeypatch.setattr("gapforge.cli.verbs.build.verify_artifacts", lambda *words, quiet: None)
    monkeypatch.setattr(smoke_checks, "run_checks", lambda *words: (PASSED,))
    return fake


def document(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert cli.main([*words, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("changes", WITHOUT, ids=["left out", "null"])
def test_plan_has_nothing_of_an_application(
    place: Project, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write(place, **changes)
    plan = document(capsys, "plan", NAME)
    assert plan["application_folder"] == plan["application_chosen_by"] == ""
    assert plan["secrets"] == plan["secrets_set"] == []
    assert "XAIVA" not in plan["command"]
    inputs = [file["path"] for file in plan["context"] if "inputs/application/" in file["path"]]
    assert {path.partition("/params/")[2] for path in inputs} == {"", "enabled", "python"}
    smoke = {check["component"]: check for check in plan["smoke"]}
    assert not smoke["application"]["enabled"] and smoke["ffmpeg"]["enabled"]
    assert all(check["application"] is None for check in smoke.values())
    assert cli.main(["plan", NAME]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert not [row for row in rows if row[:1] == ["application"]]


def test_source_without_an_application_is_refused(
    place: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for verb in ("plan", "build", "rehearse"):
        refused = document(capsys, verb, NAME, "--app-source", str(place.root), code=2)
        assert "--app-source" in refused["next"]
    assert not (place.dist_of(NAME) / "rehearsal.json").exists(), "refused before the first step"


def test_source_in_the_environment_is_for_presets_with_an_application(
    place: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = place.root / "elsewhere"
    source.mkdir()
    (source / "CMakeLists.txt").touch()
    monkeypatch.setenv("GAPFORGE_APP_SOURCE", str(source))
    assert document(capsys, "plan", NAME)["application_folder"] == ""
    asked = []
    record = Record(
        preset=NAME, preset_sha256="", practice=False, gapforge="", command=(), types=()
    )
    monkeypatch.setattr(
        "gapforge.cli.verbs.rehearse.rehearse",
        lambda project, preset, options, **more: asked.append(options.app_source) or record,
    )
    document(capsys, "rehearse", NAME)
    write(place, application={"source": "apps/own"})
    assert document(capsys, "plan", NAME)["application_folder"] == str(source)
    document(capsys, "rehearse", NAME)
    assert asked == [None, source]


@pytest.mark.parametrize("kind", ["runtime", "dev"])
def test_built_image_runs_python_and_its_report_names_no_application(
    place: Project, engine: Fake, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = document(capsys, "build", NAME, "--type", kind, "--non-interactive")
    assert report["passed"] and report["application"] is None and report["secrets"] == []
    folder = place.dist_of(NAME) / kind
    text = (folder / "Dockerfile").read_text()
    assert text.endswith('CMD ["python3"]\n') and "XAIVA" not in text
    assert "canary" not in (folder / "build.log").read_text()
    if kind == "dev":
        editor = json.loads((folder / "devcontainer.json").read_text())
        assert editor["workspaceFolder"] == "/workspace" and "postCreateCommand" not in editor
        # A volume below the mounted folder would make a folder of root in the user's own files.
        assert "mounts" not in editor


def test_source_of_a_former_application_leaves_the_context(
    place: Project, engine: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    source = place.root / "apps/own"
    source.mkdir(parents=True)
    (source / "CMakeLists.txt").touch()
    write(place, application={"source": "apps/own"})
    document(capsys, "build", NAME, "--non-interactive")
    copied = place.context_of(NAME) / build_context.APPLICATION
    assert (copied / "CMakeLists.txt").exists()
    write(place, application=None)
    document(capsys, "build", NAME, "--non-interactive")
    assert not copied.exists(), "the engine would read it, and the context is to equal the plan"


def test_checks_in_the_image_are_those_of_the_other_components(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    class Engine:
        def run(self, image: str, command: list[str], **more: Any) -> tuple[int, str, str]:
            asked.append(json.loads(more["env"]["GAPFORGE_EXPECT"])["component"])
            return 0, json.dumps({"check": "x", "ok": True, "found": "", "expected": ""}), ""

    smoke = document(capsys, "plan", NAME)["smoke"]
    results = smoke_checks.run_checks(Engine(), "x", smoke, place.components)  # type: ignore[arg-type]
    assert all(result.ok for result in results)
    assert "application" not in asked and {"ffmpeg", "opencv", "python"} <= set(asked)


def test_check_show_list_and_doctor(place: Project, capsys: pytest.CaptureFixture[str]) -> None:
    report = document(capsys, "check", NAME)["presets"][0]
    assert report["ok"] and report["faults"] == []
    licences = report["licences"]
    values = document(capsys, "show", NAME)["values"]
    assert {"path": "application", "value": None, "from": "default"} in values
    # The packages that build an application are not needed.
    reasons = {value.get("of", "") for value in values if value["path"] == "apt.builder"}
    assert reasons and not [reason for reason in reasons if reason.startswith("application")]
    assert [preset["name"] for preset in document(capsys, "list")["presets"]] == [NAME]
    cli.main(["doctor", NAME, "--json"])  # this machine may have faults of its own
    checks = {
        line["check"]: line["status"] for line in json.loads(capsys.readouterr().out)["lines"]
    }
    assert checks["artifacts"] == "ok" and checks.get("env") != "fail"
    write(place, application={"source": "apps/own"})
    (place.root / "apps/own").mkdir(parents=True)
    (place.root / "apps/own/CMakeLists.txt").touch()
    assert document(capsys, "check", NAME)["presets"][0]["licences"] == licences


def test_wizard_and_new_keep_it_without_one(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = wizard_screens.answer(
        read_facts(place, lambda name: ()), wizard_screens.Recorder(["enter"] * 4), Choices()
    )
    assert questions.result().preset == NAME
    words = ["--from", NAME, "--practice", "--app-source", "none"]
    document(capsys, "new", "next", *words)
    assert presets.load(place.preset_file("next")).application is None
