"""Check that ``gapforge new`` writes a preset for one's own application, or nothing at all."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gapforge.base.project import Project
from gapforge.cli import main as cli
from gapforge.model import preset as presets
from samples import ROOT

TEMPLATE = "ubuntu22.04-cuda12.4-torch2.5"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make a project with the presets, catalog and components of this repository."""
    for folder in ("presets", "catalog", "components", "schemas", "docs", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    monkeypatch.setenv("GAPFORGE_ROOT", str(tmp_path))
    return Project(tmp_path, tmp_path / "artifacts")


def written(place: Project, name: str = "mine") -> dict[str, Any]:
    """Return the document with everything that the short file leaves out."""
    return dict(presets.load(place.preset_file(name)).raw)


def test_new_preset_has_versions_of_template_and_own_application(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    source = place.root / "apps" / "Player"
    source.mkdir(parents=True)
    (source / "meson.build").touch()
    assert cli.main(["new", "mine", "--from", TEMPLATE, "--app-source", str(source)]) == 0
    raw, template = written(place), written(place, TEMPLATE)
    assert raw["name"] == "mine" and not raw["practice"]
    assert raw["application"] == {"name": "player", "source": "apps/Player", "build": "meson"}
    for key in ("os", "cuda", "pytorch", "tensorrt", "sources", "ffmpeg", "opencv"):
        assert raw[key] == template[key]
    assert "./deps_sync.sh mine" in capsys.readouterr().out
    assert cli.main(["check", "mine"]) == 0


@pytest.mark.parametrize(
    ("files", "build"),
    [
        (("CMakeLists.txt", "Makefile"), None),
        (("meson.build",), "meson"),
        (("GNUmakefile",), "make"),
        (("build.sh",), None),
    ],
)
def test_new_preset_names_the_build_system_of_the_source(
    place: Project, files: tuple[str, ...], build: str | None
) -> None:
    source = place.root / "apps" / "player"
    source.mkdir(parents=True)
    for name in files:
        (source / name).write_text("")
    assert cli.main(["new", "mine", "--from", TEMPLATE, "--app-source", str(source)]) == 0
    assert written(place)["application"].get("build") == build


def test_new_preset_takes_versions_and_check(place: Project) -> None:
    words = ["--tensorrt", "none", "--app-name", "tool", "--check", "tool --input '{clip}'"]
    words += ["--command", "tool serve", "--app-build", "./make.sh"]
    assert cli.main(["new", "mine", "--from", TEMPLATE, "--summary", "My tool", *words]) == 0
    raw = written(place)
    assert raw["tensorrt"] is None and raw["summary"] == {"ko": "My tool", "en": "My tool"}
    check = ["tool", "--input", "{clip}"]
    assert raw["application"] == {
        "name": "tool",
        "source": "apps/tool",
        "build": "./make.sh",
        "command": ["tool", "serve"],
        "check": check,
    }


def test_new_by_base_image_takes_nearest_preset(place: Project) -> None:
    base = "nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04"
    assert cli.main(["new", "mine", "--base", base]) == 0
    assert written(place)["cuda"] == "11.8"


def test_source_outside_project_is_explained(
    place: Project, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path_factory.mktemp("my apps") / "video player"
    source.mkdir()
    assert cli.main(["new", "mine", "--from", TEMPLATE, "--app-source", str(source)]) == 0
    shown = capsys.readouterr().out
    assert f"'{source}'" in shown and f"VIDEO_PLAYER_SOURCE={source}" in shown
    assert written(place)["application"]["source"] == "apps/video-player"
    words = ["--from", TEMPLATE, "--app-source", str(source), "--json"]
    assert cli.main(["new", "other", *words]) == 0
    told = json.loads(capsys.readouterr().out)["source"]
    assert (told["folder"], told["setting"]) == (str(source), "VIDEO_PLAYER_SOURCE")


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["mine"], 2, "./gapforge list"),
        (["mine", "--from", "debian12-cpu-quickstart"], 2, "--practice"),
        (["mine", "--from", "ubuntu22.04-cuda12.4-torch2.6"], 3, TEMPLATE),
        ([TEMPLATE, "--from", TEMPLATE], 2, f"presets/{TEMPLATE}.json"),
        (["../mine", "--from", TEMPLATE], 2, '"../mine"'),
        (["mine", "--from", TEMPLATE, "--app-source", "/nowhere"], 2, "/nowhere"),
        (["mine", "--from", TEMPLATE, "--app-source", "none", "--check", "x"], 2, "--check"),
        (["mine", "--from", TEMPLATE, "--tensorrt", "8.5.3"], 9, "TensorRT"),
        (["mine", "--from", TEMPLATE, "--check", "it's"], 2, "--check"),
        (["mine", "--from", TEMPLATE, "--app-build", "cmaek"], 2, '"cmake"'),
        (["mine", "--from", TEMPLATE, "--torch", "newest"], 2, "newest"),
        (["mine", "--from", TEMPLATE, "--app-name", "Not A Name"], 3, "$.application.name"),
    ],
)
def test_refusal_writes_nothing(
    place: Project, capsys: pytest.CaptureFixture[str], words: list[str], code: int, named: str
) -> None:
    before = sorted(path.name for path in place.presets.iterdir())
    assert cli.main(["new", *words]) == code
    assert named in capsys.readouterr().err
    assert sorted(path.name for path in place.presets.iterdir()) == before


def test_image_without_an_application_is_written_short(place: Project) -> None:
    assert cli.main(["new", "mine", "--from", TEMPLATE, "--app-source", "none"]) == 0
    made = presets.load(place.preset_file("mine"))
    short = json.loads(place.preset_file("mine").read_text(encoding="utf-8"))
    assert made.application is None
    assert made.pytorch is not None and made.pytorch.torchvision
    assert not {"application", "practice", "platform"} & set(short)
    assert short["pytorch"] == {"torch": made.pytorch.torch}
    assert cli.main(["check", "mine"]) == 0


def test_terminal_is_asked_for_template_and_source(
    place: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    offered = [n for n in presets.names(place.presets) if n != "debian12-cpu-quickstart"]
    number = offered.index(TEMPLATE) + 1
    source = place.root / "examples/xaiva-media"
    monkeypatch.setattr("sys.stdin", Terminal(f"{number}\n{source}\n"))
    assert cli.main(["new", "mine"]) == 0
    made = presets.load(place.preset_file("mine"))
    assert made.application is not None
    assert (made.application.source, made.cuda) == ("examples/xaiva-media", "12.4")
    monkeypatch.setattr("sys.stdin", Terminal(""))
    assert cli.main(["new", "other"]) == 2


def test_practice_preset_is_made_on_request(place: Project) -> None:
    words = ["--from", "debian12-cpu-quickstart", "--practice"]
    words += ["--app-source", str(place.root / "examples/xaiva-media")]
    assert cli.main(["new", "mine", *words]) == 0
    assert written(place)["practice"] is True
    assert cli.main(["check", "mine"]) == 0
