"""Add a component with the files of the architecture document to a copy of the project.

Only its folder, the Dockerfile and a preset change.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import samples
from gapforge.base.errors import LintError, PresetError
from gapforge.base.project import Project
from gapforge.cli.verbs import check, generate
from gapforge.image import dockerfile
from gapforge.image.dockerfile_lint import lint
from gapforge.image.plan import Plan
from gapforge.image.read_inputs import Options, read_inputs
from gapforge.model import component
from gapforge.model import preset as presets
from gapforge.model.lock import LockedImage
from samples import ROOT

DOCUMENTS = {
    "docs/architecture.md": "## 구성 요소 추가하기",
    "docs/architecture.en.md": "## Adding a component",
}
BASE = "ubuntu22.04-cpu-torch2.5"
NAME = f"{BASE}-gstreamer"
MESON = ["-Dexamples=disabled", "-Dtests=disabled"]


def blocks(document: str) -> list[str]:
    """Return the section's indented blocks: three files, four parts of a Dockerfile, a preset."""
    text = (ROOT / document).read_text(encoding="utf-8")
    section = text.split(DOCUMENTS[document] + "\n")[1].split("\n## ")[0]
    found = re.findall(r"(?m)(?:^ {4}.*\n|^\n(?=\n* {4}))+", section)
    return [
        "\n".join(line.removeprefix("    ") for line in block.strip("\n").split("\n")) + "\n"
        for block in found
    ]


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Add ``more`` to a document: objects key by key, lists at their end."""
    for key, value in more.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        elif isinstance(value, list):
            into[key] = [*into.get(key, []), *value]
        else:
            into[key] = value


def copy_project(root: Path) -> Project:
    root.mkdir()
    for name in ("presets", "components", "catalog", "examples"):
        shutil.copytree(
            ROOT / name, root / name, ignore=shutil.ignore_patterns("*.lock.json", "__pycache__")
        )
    shutil.copy(ROOT / "Dockerfile", root)
    return Project(root, root / "artifacts")


def write_folder(project: Project) -> Path:
    description, build_script, check_script, *_rest = blocks("docs/architecture.md")
    folder = project.components / "gstreamer"
    folder.mkdir()
    texts = {"component.json": description, "build.sh": build_script, "check.py": check_script}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def write_stage(project: Project, *, without: str = "") -> None:
    """Add the stage to the Dockerfile; leave the block ``without`` out."""
    stage, dev, mount, runtime = blocks("docs/architecture.md")[3:7]
    text = project.dockerfile.read_text(encoding="utf-8")
    for marker, more in (
        ("# devbase:", stage),
        ("COPY --from=opencv /out/dev/ /\n", dev),
        ("    --mount=type=bind,from=application,source=/out/runtime", mount),
        ("COPY --from=opencv /out/runtime/ /\n", runtime),
    ):
        assert text.count(marker) == 1, marker
        if more != without:
            before = more in (stage, mount)
            space = "\n\n" if more == stage else ""
            text = text.replace(marker, more + space + marker if before else marker + more)
    project.dockerfile.write_text(text, encoding="utf-8")


def write_preset(project: Project, **options: Any) -> None:
    """Write the preset of the document; ``options`` change GStreamer's, ... removes one."""
    raw = json.loads(project.preset_file(BASE).read_text(encoding="utf-8"))
    merge(raw, json.loads(blocks("docs/architecture.md")[7]))
    raw["name"] = NAME
    changed = {**raw["components"]["gstreamer"], **options}
    raw["components"]["gstreamer"] = {
        key: value for key, value in changed.items() if value is not ...
    }
    project.preset_file(NAME).write_text(json.dumps(raw), encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path) -> Project:
    """Make a copy of the project with GStreamer added."""
    project = copy_project(tmp_path / "project")
    write_folder(project)
    write_stage(project)
    write_preset(project)
    return project


def plan(project: Project, name: str, kind: str = "runtime") -> Plan:
    """Return the plan of a preset whose artifacts are a few bytes each."""
    preset = presets.find(project.presets, name)
    others = [source for source in preset.sources if source not in ("ffmpeg", "opencv")]
    extra = tuple(
        samples.entry("source", f"sources/{s}.tar", name=s, version="1.20.3") for s in others
    )
    image = LockedImage(
        reference="made",
        manifest_digest="sha256:" + "1" * 64,
        config_digest="sha256:" + "2" * 64,
        os_id=preset.os_id,
        os_version=preset.os_version,
    )
    lock = replace(samples.lock(preset, extra=extra), images={"builder": image, "runtime": image})
    samples.lay_artifacts(project.artifacts_of(name), lock)
    options = Options(type=kind)
    return read_inputs(project, preset, options).plan(options)


def checked(project: Project, *names: str, json_output: bool = False) -> int:
    arguments = {"presets": list(names), "all": not names, "json": json_output, "driver": None}
    return check.run(argparse.Namespace(**arguments), project)


def test_both_documents_show_the_same_files() -> None:
    korean, english = (blocks(document) for document in DOCUMENTS)
    assert korean == english
    assert len(korean) == 8


def test_check_accepts_and_dockerfile_lints(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(place, json_output=True) == 0
    reports = {report["name"]: report for report in json.loads(capsys.readouterr().out)["presets"]}
    assert reports[NAME]["ok"]
    preset = presets.find(place.presets, NAME)
    text = dockerfile.render(
        place.dockerfile.read_text(encoding="utf-8"), preset.application.secrets, NAME
    )
    assert lint(text) == []
    assert (
        text.index("AS gstreamer")
        < text.index("AS devbase")
        < text.index("COPY --from=gstreamer /out/dev/ /")
    )


def test_plan_has_its_inputs_options_and_check(place: Project) -> None:
    made = plan(place, NAME)
    files = {file.path: file for file in made.files}
    own = {
        path.removeprefix("inputs/gstreamer/"): file
        for path, file in files.items()
        if "inputs/gstreamer/" in path
    }
    options = (
        "enabled",
        "python",
        "cuda",
        "epoch",
        "version",
        "meson",
        "debug",
        "source-gstreamer.folder",
    )
    inputs = ("build.sh", "common.sh", "split_runtime.py", "sources/gstreamer/gstreamer.tar")
    assert own.keys() == {*inputs, *(f"params/{option}" for option in options)}
    assert own["params/version"].text == "1.20\n"
    assert own["params/enabled"].text == "1\n"
    assert own["params/meson"].text == "".join(f"{option}\n" for option in MESON)
    assert own["params/debug"].text == "0\n"
    assert "meson\n" in files["inputs/apt-builder/params/packages"].text
    (expectation,) = [expected for expected in made.smoke if expected["component"] == "gstreamer"]
    assert expectation["enabled"]
    assert expectation["params"]["version"] == "1.20"
    assert (expectation["params"]["meson"], expectation["params"]["debug"]) == (MESON, False)
    assert expectation["versions"]["gstreamer"] == "1.20.3"


def test_absent_flag_has_its_default(place: Project) -> None:
    write_preset(place, debug=..., meson=...)
    texts = {file.path: file.text for file in plan(place, NAME).files}
    assert texts["inputs/gstreamer/params/debug"] == "1\n"
    assert "inputs/gstreamer/params/meson" not in texts


def test_checks_of_runtime_images_get_no_dev_options(place: Project) -> None:
    file = place.components / "gstreamer" / "component.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    raw["options"]["debug"]["runtime"] = False
    file.write_text(json.dumps(raw), encoding="utf-8")
    found = {}
    for kind in ("runtime", "dev"):
        made = plan(place, NAME, kind)
        (expectation,) = [e for e in made.smoke if e["component"] == "gstreamer"]
        found[kind] = expectation["params"]
        assert "inputs/gstreamer/params/debug" in {file.path for file in made.files}
    assert "debug" in found["dev"] and "debug" not in found["runtime"]
    assert found["runtime"]["meson"] == MESON


def test_every_wrong_option_is_reported(place: Project) -> None:
    write_preset(place, version=..., meson="-Dtests=disabled", debug="yes", mesn=[])
    with pytest.raises(PresetError) as caught:
        presets.find(place.presets, NAME)
    faults = {f.where.rpartition("$.components.gstreamer.")[2]: f for f in caught.value.faults}
    assert faults.keys() == {"version", "meson", "debug", "mesn"}
    assert faults["version"].expected == "GStreamer's version; the source archive must have it"
    assert '"meson"' in faults["mesn"].problem


def test_missing_source_is_reported(place: Project) -> None:
    raw = json.loads(place.preset_file(NAME).read_text(encoding="utf-8"))
    del raw["sources"]["gstreamer"]
    place.preset_file(NAME).write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(PresetError) as caught:
        presets.find(place.presets, NAME)
    (fault,) = caught.value.faults
    assert fault.where.endswith("$.sources")
    assert '"gstreamer"' in fault.problem and "$.components.gstreamer" in fault.problem


def test_generated_files_follow_the_description(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (place.root / "schemas").mkdir()
    (place.root / "docs").mkdir()
    shutil.copy(ROOT / generate.REVIEW, place.root / generate.REVIEW)
    for path in ("schemas/preset.schema.json", *generate.DOCUMENTS.values()):
        shutil.copy(ROOT / path, place.root / path)
    assert checked(place, json_output=True) == 0
    assert json.loads(capsys.readouterr().out)["stale_files"] == ["schemas/preset.schema.json"]
    assert checked(place, NAME) == 0
    assert "schemas/preset.schema.json" in capsys.readouterr().out
    with pytest.raises(PresetError) as caught:
        generate.run(argparse.Namespace(check=True), place)
    stale = {fault.where for fault in caught.value.faults}
    assert {"schemas/preset.schema.json", *generate.DOCUMENTS.values()} <= stale
    assert generate.run(argparse.Namespace(check=False), place) == 0
    schema = json.loads((place.root / "schemas/preset.schema.json").read_text(encoding="utf-8"))
    options = schema["properties"]["components"]["properties"]["gstreamer"]["anyOf"][1][
        "properties"
    ]
    assert options["meson"]["description"] == "options for meson"
    assert options["debug"]["type"] == "boolean"
    overview = (place.root / "docs/package-versions.en.md").read_text(encoding="utf-8")
    assert "| GStreamer |" in overview and "| 1.20 |" in overview
    capsys.readouterr()
    assert checked(place, json_output=True) == 0
    assert json.loads(capsys.readouterr().out)["stale_files"] == []


def test_other_presets_keep_their_inputs(place: Project, tmp_path: Path) -> None:
    before = plan(copy_project(tmp_path / "untouched"), BASE)
    after = plan(place, BASE)
    old, new = (
        {f.path: f.sha256 for f in p.files if f.path != "Dockerfile"} for p in (before, after)
    )
    assert {path: new[path] for path in old} == old, "the caches of the other components stay valid"
    added = ("build.sh", "common.sh", "split_runtime.py", "params/enabled", "params/python")
    assert set(new) - set(old) == {f"inputs/gstreamer/{name}" for name in added}
    (expectation,) = [expected for expected in after.smoke if expected["component"] == "gstreamer"]
    assert expectation["enabled"] is False


def test_its_scripts_are_valid(place: Project) -> None:
    folder = place.components / "gstreamer"
    script = (folder / "build.sh").read_text(encoding="utf-8")
    assert (
        subprocess.run(["bash", "-n", folder / "build.sh"], capture_output=True, check=False).stderr
        == b""
    )
    helpers = (place.components / "common.sh").read_text(encoding="utf-8")
    for called in (
        "begin",
        "param_list",
        "flag",
        "unpack_source",
        "jobs_count",
        "keep_sources",
        "split_runtime",
        "finish",
    ):
        assert re.search(rf"\b{called}\b", script)
        assert re.search(rf"(?m)^{called}\(\)", helpers)
    library = ast.parse((place.components / "checklib.py").read_text(encoding="utf-8"))
    tree = ast.parse((folder / "check.py").read_text(encoding="utf-8"))
    (names,) = [
        node.names
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "checklib"
    ]
    assert {name.name for name in names} <= {
        node.name for node in library.body if isinstance(node, ast.FunctionDef)
    }


def test_its_check_passes_the_type_checker(place: Project) -> None:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        str(place.components / "gstreamer" / "check.py"),
    ]
    done = subprocess.run(
        command,
        cwd=place.root,
        env={"MYPYPATH": str(place.components), "MYPY_CACHE_DIR": str(place.root / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_its_folder_dockerfile_and_preset_change(place: Project, tmp_path: Path) -> None:
    untouched = copy_project(tmp_path / "untouched").root
    contents = [
        {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (untouched, place.root)
    ]
    changed = {
        path
        for path in {*contents[0], *contents[1]}
        if contents[0].get(path) != contents[1].get(path)
    }
    own = {f"components/gstreamer/{name}" for name in ("component.json", "build.sh", "check.py")}
    assert changed == {"Dockerfile", f"presets/{NAME}.json", *own}
    assert not list((ROOT / "src").rglob("*gstreamer*"))


def test_folder_without_stage_is_refused(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    write_folder(project)
    with pytest.raises(LintError) as caught:
        checked(project)
    (fault,) = caught.value.faults
    assert fault.where == "Dockerfile" and "inputs/gstreamer" in fault.problem
    assert (
        "RUN --mount=type=bind,source=inputs/gstreamer,target=/in bash /in/build.sh"
        in fault.expected
    )


@pytest.mark.parametrize(
    ("index", "way", "stage"),
    [
        (4, "COPY --from=gstreamer /out/dev/ /", "devbase"),
        (
            5,
            "--mount=type=bind,from=gstreamer,source=/out/runtime,target=/trees/gstreamer",
            "needs",
        ),
        (6, "COPY --from=gstreamer /out/runtime/ /", "runtime"),
    ],
)
def test_tree_that_no_stage_takes_is_refused(
    tmp_path: Path, index: int, way: str, stage: str
) -> None:
    project = copy_project(tmp_path / "project")
    write_folder(project)
    write_stage(project, without=blocks("docs/architecture.md")[index])
    write_preset(project)
    with pytest.raises(LintError) as caught:
        plan(project, NAME)
    (fault,) = caught.value.faults
    assert "gstreamer" in fault.problem
    assert way in fault.expected and stage in fault.expected


def test_preset_or_stage_without_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = copy_project(tmp_path / "project")
    write_preset(project)
    assert checked(project, NAME) == 3
    screen = capsys.readouterr().out
    assert "$.components.gstreamer" in screen
    assert "$.sources.gstreamer" in screen
    write_stage(project)
    with pytest.raises(LintError) as caught:
        checked(project, BASE)
    assert {fault.where for fault in caught.value.faults} == {"Dockerfile"}


def test_unknown_component_suggests_the_nearest(place: Project) -> None:
    raw = copy.deepcopy(dict(presets.find(place.presets, NAME).raw))
    raw["components"]["gstraemer"] = raw["components"].pop("gstreamer")
    (fault,) = component.check_preset(presets.parse(raw), component.load_all(place.components))
    assert fault.where.endswith("$.components.gstraemer")
    assert '"gstreamer"' in fault.problem and "components/gstraemer" in fault.expected


def test_every_fault_of_a_description_is_reported(place: Project) -> None:
    folder = place.components / "gstreamer"
    (folder / "check.py").unlink()
    described = json.loads((folder / "component.json").read_text(encoding="utf-8"))
    (folder / "component.json").write_text(
        json.dumps({**described, "wheels": ["Big"]}), encoding="utf-8"
    )
    with pytest.raises(PresetError) as refused:
        component.load_all(place.components)
    assert [fault.where for fault in refused.value.faults] == [
        "components/gstreamer/component.json: $.wheels[0]",
        "components/gstreamer/check.py",
    ]


def test_dockerfile_matches_the_components() -> None:
    components = component.load_all(ROOT / "components")
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert component.check_dockerfile(text, components) == []
    assert (
        component.check_dockerfile(
            text.replace("inputs/apt-runtime", "inputs/apt-runtim"), components
        )
        != []
    )
