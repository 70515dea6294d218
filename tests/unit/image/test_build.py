"""A build checks its inputs, tags only what passed, and has a dry run without an engine."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

import pytest

import samples
from checkout import copy_repository
from fabricated_artifacts import write_lock
from fake_docker import Fake
from gapforge.base import output_mode
from gapforge.base.errors import (
    BusyError,
    EngineError,
    LockError,
    SmokeError,
    TargetError,
    VerifyError,
)
from gapforge.base.files import sha256_file
from gapforge.base.progress import StatusLine
from gapforge.base.project import Project
from gapforge.cli.main import main
from gapforge.cli.verbs import build as build_verb
from gapforge.cli.verbs import check
from gapforge.engine import detect
from gapforge.engine.protocol import Engine
from gapforge.image import build, load_base_images, read_inputs, smoke_checks
from gapforge.image.inputs_of_stages import ContextTexts
from gapforge.image.plan import make_plan
from gapforge.image.smoke_checks import CheckResult
from gapforge.image.source_copy import copy_source
from gapforge.model import catalog as catalogs
from gapforge.model import preset as presets
from gapforge.model.names import ROLES
from gapforge.store.store import preset_in_use
from gapforge.store.verify_artifacts import VerifyReport
from raised_errors import assert_error, values_of
from samples import PRESET, ROOT
from tiny_image import make_layout


def test_base_image_of_another_os_is_refused(project: Project) -> None:
    preset = presets.find(project.presets, PRESET)
    lock = read_inputs.load_lock(project, preset)
    images = {role: replace(image, os_id="fedora") for role, image in lock.images.items()}
    file = project.artifacts_of(PRESET) / "lock.json"
    file.unlink()
    file.write_text(replace(lock, images=images).render())
    with pytest.raises(TargetError) as error:
        read_inputs.read_inputs(project, preset, read_inputs.Options(type="runtime"))
    assert_error(error.value, TargetError, hint={"name": PRESET})
    assert len(error.value.faults) == 2
    for fault in error.value.faults:
        assert (fault.problem, fault.expected) == ("fedora 12", "debian 12")


def test_lock_with_a_wheel_over_cv2_is_refused(project: Project) -> None:
    """A lock of an earlier version may have one; OpenCV would compile for an hour before."""
    preset = presets.find(project.presets, PRESET)
    shutil.copytree(Path(__file__).parents[3] / "components", project.components)
    shutil.copytree(samples.ROOT / "examples", project.root / "examples")
    preset = presets.find(project.presets, PRESET)
    lock = read_inputs.load_lock(project, preset)
    path = "wheels/opencv_python-4.10-py3-none-any.whl"
    wheel = samples.entry("wheel", path, name="opencv-python", version="4.10")
    changed = replace(lock, entries=tuple(sorted((*lock.entries, wheel), key=lambda e: e.path)))
    file = project.artifacts_of(PRESET) / "lock.json"
    file.unlink()
    file.write_text(changed.render())
    shown = f"artifacts/{PRESET}/lock.json"
    with pytest.raises(LockError) as error:
        read_inputs.read_inputs(project, preset, read_inputs.Options(type="runtime"))
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
    options = read_inputs.Options(type="runtime")
    inputs = read_inputs.read_inputs(project, preset, options)
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


@pytest.mark.parametrize(("days", "code"), [(0, 10), (2000, 20)])
@pytest.mark.parametrize("kind", ["gz", "xz", "bz2", ""])
def test_clock_behind_the_sources_is_said_before_the_build(
    project: Project, monkeypatch: pytest.MonkeyPatch, kind: str, days: int, code: int
) -> None:
    lock = read_inputs.load_lock(project, presets.find(project.presets, PRESET))
    entry = lock.of("source")[0]
    file = project.artifacts_of(PRESET) / entry.path
    released = 1_700_000_000
    with tarfile.open(file, f"w:{kind}") as archive:
        member = tarfile.TarInfo("tool-1.0")
        member.type, member.mtime = tarfile.DIRTYPE, released
        archive.addfile(member)
    changed = replace(entry, sha256=sha256_file(file), size=file.stat().st_size)
    entries = tuple(changed if item is entry else item for item in lock.entries)
    write_lock(project, replace(lock, entries=entries))
    shutil.copytree(samples.ROOT / "examples", project.root / "examples")
    for name in ("components", "Dockerfile", "catalog"):
        (project.root / name).symlink_to(samples.ROOT / name)
    monkeypatch.setenv("GAPFORGE_ROOT", str(project.root))
    monkeypatch.setattr(build_verb.detect, "choose", lambda name, project: None)
    monkeypatch.setattr(build_verb, "before_build", lambda *words: [])

    def no_engine(*words: object, **more: object) -> None:
        raise EngineError("no engine")

    monkeypatch.setattr(build_verb, "build", no_engine)
    monkeypatch.setattr(time, "time", lambda: released + 3600.0 - days * 86400)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(["build", PRESET, "--non-interactive", "--json"]) == code
    if days:
        assert "2023-11-14" in output.getvalue() and entry.path in output.getvalue()


def project_with_artifacts(tmp_path: Path) -> Project:
    copy_repository(tmp_path / "project")
    project = Project(tmp_path / "project", tmp_path / "project/artifacts")
    preset = presets.find(project.presets, PRESET)
    artifacts = project.artifacts_of(PRESET)
    image = make_layout(artifacts / "images/runtime", programs=())
    shutil.copytree(artifacts / "images/runtime", artifacts / "images/builder")
    images = {role: replace(image, os_id="debian", os_version="12") for role in ROLES}
    samples.lay_artifacts(artifacts, replace(samples.lock(preset), images=images))
    env = project.root / ".env"
    env.write_text("XAIVA_LICENSE_TOKEN=canary-5f2d9c71\n")
    env.chmod(0o600)
    return project


@pytest.mark.parametrize("kind", ["runtime", "dev"])
@pytest.mark.parametrize("passes", [True, False])
def test_image_is_tagged_only_after_smoke(
    tmp_path: Path, fake: Fake, passes: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_with_artifacts(tmp_path)
    preset = presets.find(project.presets, PRESET)
    options = read_inputs.Options(type=kind, tag="mine:1")
    inputs = read_inputs.read_inputs(project, preset, options)
    result = CheckResult(component="ffmpeg", check="x", ok=passes, found="1", expected="1")
    monkeypatch.setattr(smoke_checks, "run_checks", lambda *words: (result,))
    engine = detect.choose()
    steps: list[str] = []
    outcome = contextlib.nullcontext() if passes else pytest.raises(SmokeError)
    with outcome:
        build.build(
            project,
            engine,
            inputs,
            options,
            on_step=steps.append,
            on_output=lambda line: None,
            status=StatusLine(quiet=True),
        )
    folder = project.dist_of(PRESET) / kind
    report = json.loads((folder / "report.json").read_text())
    assert (report["passed"], report["image"]) == (passes, "mine:1" if passes else "")
    assert report["checks"] == [result.to_json()]
    assert report["secrets"] == ["XAIVA_LICENSE_TOKEN"]
    assert list(report["seconds"]) == ["base images", "build", "context", "smoke"]
    assert report["plan_sha256"] == sha256_file(folder / "plan.json")
    source = project.root / "examples/xaiva-media"
    assert report["application"] == {
        "folder": str(source),
        "chosen_by": "preset",
        "tree_sha256": copy_source(source, project.context_of(PRESET) / "again"),
    }
    assert (folder / "Dockerfile").read_bytes() == (
        project.context_of(PRESET) / "Dockerfile"
    ).read_bytes()
    assert len(steps) == 2
    unchecked = build.unchecked_name(inputs.plan(options), project)
    assert bool(engine.image_ids("mine:1")) is passes
    assert bool(engine.image_ids(unchecked)) is not passes
    editor = folder / "devcontainer.json"
    assert editor.exists() is (passes and kind == "dev")
    if editor.exists():
        settings = json.loads(editor.read_text())
        assert settings["image"] == "mine:1"
        assert settings["workspaceFolder"] == "/workspace/xaiva-media"
        assert settings["runArgs"] == ["--network=none"] and "hostRequirements" not in settings
    log = (folder / "build.log").read_text()
    assert "secret is ***" in log and "canary-5f2d9c71" not in log


def test_each_checkout_checks_and_tags_its_own_image(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkouts may build one preset in one engine, and any name may be moved meanwhile."""
    project = project_with_artifacts(tmp_path)
    preset = presets.find(project.presets, PRESET)
    options = read_inputs.Options(type="runtime", tag="mine:1")
    inputs = read_inputs.read_inputs(project, preset, options)
    engine = detect.choose()
    plan = inputs.plan(options)
    own = build.unchecked_name(plan, project)
    other = build.unchecked_name(plan, replace(project, root=tmp_path / "other"))
    checked: list[str] = []
    built: list[str] = []

    def run_checks(_engine: Engine, image: str, *_rest: object) -> tuple[CheckResult, ...]:
        checked.append(image)
        built.extend(engine.image_ids(own))
        # A real engine keeps an image that has lost its names.
        engine.tag(image, "kept:1")
        engine.tag(load_base_images.base_name(inputs.lock.images["runtime"].config_digest), own)
        engine.tag(own, other)
        return (CheckResult(component="x", check="x", ok=True, found="1", expected="1"),)

    monkeypatch.setattr(smoke_checks, "run_checks", run_checks)
    result = build.build(
        project,
        engine,
        inputs,
        options,
        on_step=lambda line: None,
        on_output=lambda line: None,
        status=StatusLine(quiet=True),
    )
    assert checked == built == list(result.image_ids) == list(engine.image_ids("mine:1"))
    assert own != other and engine.image_ids(other), "the image of the other checkout stays"


@pytest.mark.parametrize("passes", [True, False])
def test_smoke_prints_one_document(
    tmp_path: Path,
    fake: Fake,
    passes: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A failed check must not add the error as a second one."""
    project = project_with_artifacts(tmp_path)
    monkeypatch.setenv("GAPFORGE_ROOT", str(project.root))
    lock = read_inputs.load_lock(project, presets.find(project.presets, PRESET))
    base = load_base_images.base_name(lock.images["runtime"].config_digest)
    load_base_images.ensure(
        detect.choose(),
        project.artifacts_of(PRESET) / "images/runtime",
        lock.images["runtime"],
        lambda line: None,
    )
    result = CheckResult(component="ffmpeg", check="x", ok=passes, found="1", expected="1")
    monkeypatch.setattr(smoke_checks, "run_checks", lambda *words: (result,))
    assert main(["smoke", PRESET, "--image", base, "--json"]) == (0 if passes else 12)
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["checks"]) == (passes, [result.to_json()])
    assert len(document.get("faults", ())) == (not passes)


@pytest.mark.parametrize("changed", ["lock.json", "debs/Packages"])
def test_what_was_read_before_the_verification_must_equal_it(
    tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_with_artifacts(tmp_path)
    preset = presets.find(project.presets, PRESET)
    inputs = read_inputs.read_inputs(project, preset, read_inputs.Options(type="runtime"))
    lock, folder = inputs.lock, project.artifacts_of(PRESET)
    report = VerifyReport(
        preset=PRESET, artifacts=folder, files=0, bytes=0, seconds=0, faults=(), lock=lock
    )
    monkeypatch.setattr(read_inputs, "verify", lambda *words, **options: report)
    read_inputs.verify_artifacts(project, inputs, quiet=True)
    if changed == "lock.json":
        inputs.lock = replace(inputs.lock, images={})
    else:
        index = inputs.texts.packages_index.replace("Package:", "Package: x-", 1)
        inputs.texts = replace(inputs.texts, packages_index=index)
    with pytest.raises(VerifyError) as error:
        read_inputs.verify_artifacts(project, inputs, quiet=True)
    assert_error(error.value, VerifyError, name=PRESET, where=[changed])


def test_build_and_changes_of_its_artifacts_exclude_each_other(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_with_artifacts(tmp_path)
    result = CheckResult(component="ffmpeg", check="x", ok=True, found="1", expected="1")
    tried: list[BusyError] = []

    def run_checks(*words: object) -> tuple[CheckResult, ...]:
        with pytest.raises(BusyError) as error, preset_in_use(project, PRESET, changes=True):
            pass
        tried.append(error.value)
        return (result,)

    monkeypatch.setattr(smoke_checks, "run_checks", run_checks)
    monkeypatch.setattr(build_verb, "verify_artifacts", lambda *words, quiet: None)
    parser = ArgumentParser()
    build_verb.add_arguments(parser)
    words = ["--preset", PRESET, "--non-interactive"]
    args = parser.parse_args(words, Namespace(verb="build"))
    with preset_in_use(project, PRESET, changes=True), pytest.raises(BusyError):
        build_verb.run(args, project)
    assert not tried
    assert build_verb.run(args, project) == 0
    assert [values_of(error.hint)["pid"] for error in tried] == [os.getpid()]


@pytest.mark.parametrize("quiet", [True, False])
def test_only_a_quiet_build_prints_no_progress(
    tmp_path: Path,
    fake: Fake,
    quiet: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = project_with_artifacts(tmp_path)
    result = CheckResult(component="ffmpeg", check="x", ok=True, found="1", expected="1")
    monkeypatch.setattr(smoke_checks, "run_checks", lambda *words: (result,))
    verified: list[bool] = []
    monkeypatch.setattr(
        build_verb, "verify_artifacts", lambda *words, quiet: verified.append(quiet)
    )
    parser = ArgumentParser()
    build_verb.add_arguments(parser)
    words = ["--preset", PRESET, "--non-interactive"]
    monkeypatch.setattr(output_mode, "_mode", output_mode.Mode(quiet=quiet))
    assert build_verb.run(parser.parse_args(words, Namespace(verb="build")), project) == 0
    assert verified == [quiet]
    captured = capsys.readouterr()
    progress = [line for line in captured.err.splitlines() if "practice" not in line]
    assert bool(progress) is not quiet, progress
    assert ("#5 " in captured.err) is not quiet, "the engine's output"
    assert f"gapforge/{PRESET}:runtime" in captured.out
    assert ("next: docker run " in captured.out) is not quiet


def test_command_that_runs_an_image() -> None:
    gpu, bare = samples.preset(cuda="12.4"), samples.preset(application=None)
    for preset, kind, host, flags in (
        (samples.preset(), "runtime", "", ""),
        (samples.preset(), "dev", "", "-it "),
        (bare, "runtime", "", "-it "),
        (gpu, "runtime", "unix:///run/own.sock", "--gpus all "),
    ):
        plan = make_plan(
            preset,
            samples.lock(preset),
            (),
            ContextTexts("FROM x\n", {}),
            type=kind,
            tag="own:1",
            application_folder="",
        )
        start = f"env DOCKER_HOST={host} " if host else ""
        expected = f"{start}docker run --rm --network none {flags}own:1"
        assert build_verb.run_command(plan, preset, host) == expected
