"""Test `gapforge show`: everything that a preset leaves out, and where each value comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import samples
from gapforge.base.text_layout import width
from gapforge.cli.main import main
from gapforge.model import preset as presets
from samples import ROOT, raw_preset

SHORT = {
    "format": 1,
    "name": "own",
    "summary": "한 언어",
    "os": {"id": "ubuntu", "version": "22.04"},
    "base": {"builder": {"image": "ubuntu:22.04"}, "runtime": {"image": "ubuntu:22.04"}},
    "python": {"version": "3.10"},
    "pytorch": {"torch": "2.5.1+cpu"},
    "ffmpeg": {"version": "5.1.9", "configure": ["--enable-libx265", "--enable-gpl"]},
    "apt": {"builder": ["libpugixml-dev"]},
    "application": {"source": "apps/own"},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("catalog", "components"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    presets = tmp_path / "presets"
    presets.mkdir()
    (presets / "own.json").write_text(json.dumps(SHORT), encoding="utf-8")
    full = raw_preset(name="full")
    (presets / "full.json").write_text(json.dumps(full), encoding="utf-8")
    monkeypatch.setenv("GAPFORGE_ROOT", str(tmp_path))
    return tmp_path


def shown(
    capsys: pytest.CaptureFixture[str], name: str
) -> dict[str, list[tuple[object, str, str]]]:
    """Return value, origin and what it belongs to, by path."""
    assert main(["show", name, "--json"]) == 0
    found: dict[str, list[tuple[object, str, str]]] = {}
    for value in json.loads(capsys.readouterr().out)["values"]:
        row = (value["value"], value["from"], value.get("of", ""))
        found.setdefault(value["path"], []).append(row)
    return found


@pytest.mark.usefixtures("project")
def test_each_value_names_its_origin(capsys: pytest.CaptureFixture[str]) -> None:
    values = shown(capsys, "own")
    assert values["os.version"] == [("22.04", "preset", "")]
    assert values["practice"] == [(False, "default", "")]
    assert values["application.name"] == [("own", "default", "")]
    assert values["pytorch.torchvision"] == [("0.20.1+cpu", "catalog", "")]
    assert values["sources.ffmpeg.version"] == [("5.1.9", "catalog", "")]
    assert values["epoch"] == [(None, "lock", "")]
    builder = {(origin, of): names for names, origin, of in values["apt.builder"]}
    assert builder["preset", ""] == ["libpugixml-dev"]
    assert "nasm" in builder["component", "ffmpeg"]  # type: ignore[operator]
    assert builder["option", "ffmpeg configure --enable-libx265"] == ["libx265-dev"]


def test_runtime_packages_are_named_with_what_is_known(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only names without a lock, then what a build may install, then what the last one needed."""
    assert shown(capsys, "own")["apt.runtime"] == [(["python3.10"], "component", "python")]
    named = shown(capsys, "full")["apt.runtime"]
    assert {origin for _names, origin, _of in named} <= {"preset", "component"}
    preset = presets.find(project / "presets", "full")
    lock = samples.lock(preset)
    (project / "presets" / "full.lock.json").write_text(lock.render(), encoding="utf-8")
    rows = shown(capsys, "full")["apt.runtime"]
    assert [row for row in rows if row not in named] == [(["libssl3"], "candidate", "")]
    folder = project / "dist" / "full" / "runtime"
    folder.mkdir(parents=True)
    users = {"libssl3": {"libssl.so.3": ["/usr/local/bin/x", "/usr/local/bin/a b"]}}
    check = {"component": "libraries", "details": users}
    report = {"passed": True, "preset_sha256": preset.sha256, "lock_sha256": lock.sha256}
    for change, origin, of in (
        ({}, "build", "/usr/local/bin/a b libssl.so.3"),
        ({"passed": False}, "candidate", ""),
        ({"lock_sha256": "0" * 64}, "candidate", ""),
        ({"preset_sha256": "0" * 64}, "candidate", ""),
        ({"checks": [{"component": "ffmpeg"}]}, "candidate", ""),
    ):
        document = {**report, "checks": [{"component": "ffmpeg"}, check], **change}
        (folder / "report.json").write_text(json.dumps(document), encoding="utf-8")
        rows = shown(capsys, "full")["apt.runtime"]
        assert [row for row in rows if row not in named] == [(["libssl3"], origin, of)], change
    assert main(["show", "full"]) == 0 and "libssl.so.3" not in capsys.readouterr().out


@pytest.mark.usefixtures("project")
def test_preset_in_full_has_nothing_of_the_catalog(capsys: pytest.CaptureFixture[str]) -> None:
    origins = {row[1] for rows in shown(capsys, "full").values() for row in rows}
    assert "catalog" not in origins


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("language", ["ko", "en"])
def test_lines_fit_the_window(
    columns: int, language: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("GAPFORGE_LANG", language)
    assert main(["show", "own"]) == 0
    for line in capsys.readouterr().out.splitlines():
        assert width(line) <= columns or len(line.split()) == 1, line
    monkeypatch.delenv("COLUMNS")
    values = shown(capsys, "own")
    assert main(["show", "own"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + sum(map(len, values.values())), "one line for each value in a pipe"
