"""A new component touches its folder, its Dockerfile stage and presets only: the architecture document's walk-through,
taken out of the document and done to a copy of the project."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import samples
from gapforge.base.errors import LintError, PresetError
from gapforge.base.project import Project
from gapforge.cli.verbs import check
from gapforge.image import build, dockerfile, smoke_checks
from gapforge.image.plan import Plan
from gapforge.model import component
from gapforge.model import preset as presets
from gapforge.model.lock import LockedImage

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = {
    "docs/architecture.md": "## 구성 요소 추가하기",
    "docs/architecture.en.md": "## Adding a component",
}
BASE = "ubuntu22.04-cpu-torch2.5"
NAME = f"{BASE}-gstreamer"


def blocks(document: str) -> list[str]:
    """The indented blocks of the walk-through, without their indent: three files, three pieces of Dockerfile, a preset."""
    text = (ROOT / document).read_text(encoding="utf-8")
    section = text.split(DOCUMENTS[document] + "\n")[1].split("\n## ")[0]
    found = re.findall(r"(?m)(?:^ {4}.*\n|^\n(?=\n* {4}))+", section)
    return [
        "\n".join(line.removeprefix("    ") for line in block.strip("\n").split("\n")) + "\n"
        for block in found
    ]


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        elif isinstance(value, list):
            into[key] = [*into.get(key, []), *value]
        else:
            into[key] = value


def copy_of_the_project(root: Path) -> Project:
    root.mkdir()
    for name in ("presets", "components", "catalog", "examples"):
        shutil.copytree(
            ROOT / name, root / name, ignore=shutil.ignore_patterns("*.lock.json", "__pycache__")
        )
    shutil.copy(ROOT / "Dockerfile", root)
    return Project(root, root / "artifacts")


def write_folder(project: Project) -> None:
    description, build, look, *_ = blocks("docs/architecture.md")
    folder = project.components / "gstreamer"
    folder.mkdir()
    for name, text in (("component.json", description), ("build.sh", build), ("check.py", look)):
        (folder / name).write_text(text, encoding="utf-8")


def write_stage(project: Project, *, without: str = "") -> None:
    _, _, _, stage, dev, runtime, _ = blocks("docs/architecture.md")
    text = project.dockerfile.read_text(encoding="utf-8")
    for marker, more in (
        ("# devbase:", stage),
        ("COPY --from=opencv /out/dev/ /\n", dev),
        ("COPY --from=opencv /out/runtime/ /\n", runtime),
    ):
        assert text.count(marker) == 1, marker
        if more != without:
            text = text.replace(marker, more + "\n\n" + marker if more == stage else marker + more)
    project.dockerfile.write_text(text, encoding="utf-8")


def write_preset(project: Project) -> None:
    raw = json.loads(project.preset_file(BASE).read_text(encoding="utf-8"))
    merge(raw, json.loads(blocks("docs/architecture.md")[6]))
    raw["name"] = NAME
    project.preset_file(NAME).write_text(json.dumps(raw), encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path) -> Project:
    """A copy of the project with GStreamer dropped in."""
    project = copy_of_the_project(tmp_path / "project")
    write_folder(project)
    write_stage(project)
    write_preset(project)
    return project


def plan(project: Project, name: str) -> Plan:
    """The plan of a preset whose artifacts are a few bytes each."""
    preset = presets.find(project.presets, name)
    extra = [
        samples.entry("source", f"sources/{s}.tar", name=s, version="1.20.3")
        for s in preset.sources
        if s not in ("ffmpeg", "opencv")
    ]
    image = LockedImage(
        reference="made",
        manifest_digest="sha256:" + "1" * 64,
        config_digest="sha256:" + "2" * 64,
        os_id=preset.os_id,
        os_version=preset.os_version,
    )
    lock = replace(
        samples.lock(preset, extra=tuple(extra)), images={"builder": image, "runtime": image}
    )
    samples.lay_artifacts(project.artifacts_of(name), lock)
    options = build.Options(type="runtime")
    return build.plan_of(build.read_inputs(project, preset, options), options)


def checked(project: Project, *names: str) -> int:
    return check.run(
        argparse.Namespace(presets=list(names), all=not names, json=False, driver=None), project
    )


def test_both_documents_show_the_same_files() -> None:
    korean, english = (blocks(document) for document in DOCUMENTS)
    assert korean == english
    assert len(korean) == 7


def test_check_accepts_and_the_dockerfile_lints(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(place) == 0, capsys.readouterr().out
    assert f"{NAME}  sound" in capsys.readouterr().out
    preset = presets.find(place.presets, NAME)
    text = dockerfile.render(
        place.dockerfile.read_text(encoding="utf-8"), preset.application.secrets
    )
    assert dockerfile.lint(text) == []
    assert (
        text.index("AS gstreamer")
        < text.index("AS devbase")
        < text.index("COPY --from=gstreamer /out/dev/ /")
    )


def test_the_plan_has_its_inputs_options_and_check(place: Project) -> None:
    made = plan(place, NAME)
    files = {f.path: f for f in made.files}
    own = {
        path.removeprefix("inputs/gstreamer/")
        for path in files
        if path.startswith("inputs/gstreamer/")
    }
    assert own == {
        "build.sh",
        "common.sh",
        "sources/gstreamer/gstreamer.tar",
        "params/source-gstreamer.folder",
        *(f"params/{key}" for key in ("enabled", "python", "cuda", "epoch", "version", "meson")),
    }
    assert files["inputs/gstreamer/params/version"].text == "1.20\n"
    assert files["inputs/gstreamer/params/enabled"].text == "1\n"
    assert "meson\n" in files["inputs/apt-builder/params/packages"].text
    (expectation,) = [check for check in made.smoke if check["component"] == "gstreamer"]
    assert (
        expectation["enabled"],
        expectation["params"]["version"],
        expectation["versions"]["gstreamer"],
    ) == (True, "1.20", "1.20.3")


def test_presets_without_it_build_what_they_built_before(place: Project, tmp_path: Path) -> None:
    before = plan(copy_of_the_project(tmp_path / "untouched"), BASE)
    after = plan(place, BASE)
    old, new = (
        {f.path: f.sha256 for f in p.files if f.path != "Dockerfile"} for p in (before, after)
    )
    assert {
        path: new[path] for path in old
    } == old  # no byte of another component's inputs: its cache stays
    assert set(new) - set(old) == {
        f"inputs/gstreamer/{name}"
        for name in ("build.sh", "common.sh", "params/enabled", "params/python")
    }
    (expectation,) = [check for check in after.smoke if check["component"] == "gstreamer"]
    assert expectation["enabled"] is False


def test_its_scripts_are_valid(place: Project) -> None:
    folder = place.components / "gstreamer"
    assert (
        subprocess.run(["bash", "-n", folder / "build.sh"], capture_output=True, check=False).stderr
        == b""
    )
    helpers = (place.components / "common.sh").read_text(encoding="utf-8")
    for called in (
        "begin",
        "param",
        "unpack_source",
        "jobs_count",
        "keep_sources",
        "split_runtime",
        "finish",
    ):
        assert re.search(rf"\b{called}\b", (folder / "build.sh").read_text(encoding="utf-8"))
        assert re.search(rf"(?m)^{called}\(\)", helpers)
    prelude = (place.components / "check_prelude.py").read_text(encoding="utf-8")
    tree = ast.parse(prelude + (folder / "check.py").read_text(encoding="utf-8"))
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)][-1] == "version"


def test_only_its_folder_the_dockerfile_and_a_preset_are_touched(
    place: Project, tmp_path: Path
) -> None:
    untouched = copy_of_the_project(tmp_path / "untouched").root
    contents = [
        {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (untouched, place.root)
    ]
    changed = {
        path
        for path in {*contents[0], *contents[1]}
        if contents[0].get(path) != contents[1].get(path)
    }
    assert changed == {
        "Dockerfile",
        f"presets/{NAME}.json",
        *(f"components/gstreamer/{f}" for f in ("component.json", "build.sh", "check.py")),
    }
    assert not list((ROOT / "src").rglob("*gstreamer*"))


def test_a_folder_without_a_stage_is_not_silently_left_out(tmp_path: Path) -> None:
    project = copy_of_the_project(tmp_path / "project")
    write_folder(project)
    with pytest.raises(LintError) as caught:
        checked(project)
    assert [f.problem for f in caught.value.faults] == [
        "mounts inputs/gstreamer nowhere, so nothing builds that component"
    ]


@pytest.mark.parametrize(("index", "tree"), [(4, "dev"), (5, "runtime")])
def test_a_stage_that_no_image_takes_from(tmp_path: Path, index: int, tree: str) -> None:
    project = copy_of_the_project(tmp_path / "project")
    write_folder(project)
    write_stage(project, without=blocks("docs/architecture.md")[index])
    write_preset(project)
    with pytest.raises(LintError) as caught:
        plan(project, NAME)
    assert [f.problem for f in caught.value.faults] == [
        f"has the stage gstreamer but takes nothing of its /out/{tree}/"
    ]


def test_a_preset_or_a_stage_without_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = copy_of_the_project(tmp_path / "project")
    write_preset(project)
    assert checked(project, NAME) == 3
    screen = capsys.readouterr().out
    assert "$.components.gstreamer" in screen
    assert "$.sources.gstreamer" in screen
    write_stage(project)
    with pytest.raises(LintError, match="does not fit the components"):
        checked(project, BASE)


def test_what_does_not_fit_is_named_in_korean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    project = copy_of_the_project(tmp_path / "project")
    write_folder(project)
    with pytest.raises(LintError) as caught:
        checked(project)
    (fault,) = caught.value.faults
    assert (fault.problem, fault.expected) == (
        "inputs/gstreamer 마운트가 없어 이 구성 요소가 빌드되지 않음",
        "다음이 들어 있는 단계: RUN --mount=type=bind,source=inputs/gstreamer,target=/in bash /in/build.sh",
    )
    write_stage(project, without=blocks("docs/architecture.md")[4])
    write_preset(project)
    with pytest.raises(LintError) as caught:
        plan(project, NAME)
    (fault,) = caught.value.faults
    assert (fault.problem, fault.expected) == (
        "gstreamer 단계의 /out/dev/를 가져오는 COPY가 없음",
        "devbase 단계의 COPY --from=gstreamer /out/dev/ /",
    )
    raw = json.loads((project.presets / f"{NAME}.json").read_text(encoding="utf-8"))
    raw["components"]["gstraemer"] = raw["components"].pop("gstreamer")
    (fault,) = component.check_preset(presets.parse(raw), component.load_all(project.components))
    assert (fault.problem, fault.expected) == (
        '이 이름의 구성 요소가 없음 (혹시 "gstreamer"입니까?)',
        'component.json에 "preset": "components.gstraemer"가 있는 폴더 components/gstraemer',
    )
    folder = project.components / "gstreamer"
    (folder / "check.py").unlink()
    described = json.loads((folder / "component.json").read_text(encoding="utf-8"))
    (folder / "component.json").write_text(
        json.dumps({**described, "wheels": ["Big"]}), encoding="utf-8"
    )
    with pytest.raises(PresetError) as refused:
        component.load_all(project.components)
    assert refused.value.message == "구성 요소를 읽을 수 없습니다"
    assert [(f.where, f.problem, f.expected) for f in refused.value.faults] == [
        (
            "components/gstreamer/component.json: $.wheels[0]",
            '쓸 수 없는 값: "Big"',
            '이름, 예: "numpy", 또는 "*"',
        ),
        ("components/gstreamer/check.py", "없음", ""),
    ]


def test_the_project_s_own_dockerfile_fits_its_components() -> None:
    components = component.load_all(ROOT / "components")
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert component.check_dockerfile(text, components) == []
    assert (
        component.check_dockerfile(
            text.replace("inputs/apt-runtime", "inputs/apt-runtim"), components
        )
        != []
    )
    assert smoke_checks  # the check of a component needs no list either: it is found in its folder
