"""Presets: bad input of every kind gives one clear message with every fault."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import samples
from gapforge.cli import check
from gapforge.cli import list as list_verb
from gapforge.core import preset
from gapforge.core.errors import PresetError
from gapforge.core.lock import Lock
from gapforge.core.project import Project
from gapforge.core.readiness import look

ROOT = Path(__file__).resolve().parents[2]
NAME = "debian12-cpu-quickstart"


@pytest.fixture
def place(tmp_path: Path) -> Project:
    (tmp_path / "presets").mkdir()
    for name in ("catalog", "components", "Dockerfile"):
        (tmp_path / name).symlink_to(ROOT / name)
    return Project(tmp_path, tmp_path / "artifacts")


def put(place: Project, raw: Any, name: str = NAME) -> Path:
    file = place.presets / f"{name}.json"
    file.write_text(raw if isinstance(raw, str) else json.dumps(raw), encoding="utf-8")
    return file


def faults(place: Project, raw: Any, name: str = NAME) -> list[str]:
    with pytest.raises(PresetError) as caught:
        preset.load(put(place, raw, name))
    return [f"{f.where} {f.problem}; {f.expected}" for f in caught.value.faults]


def test_every_fault_at_once_with_path_and_nearest_match(place: Project) -> None:
    raw = samples.raw_preset(pythn={"version": "3.10"}, python={"version": "3"}, cuda="12.x")
    raw["base"]["runtime"] = {"imagee": "x"}
    found = faults(place, raw)
    assert len(found) == 4
    text = "\n".join(found)
    assert 'presets/debian12-cpu-quickstart.json: $.pythn unknown key; did you mean "python"?' in text
    assert "$.python.version" in text
    assert '$.cuda "12.x" is not allowed' in text
    assert 'did you mean "image"?' in text


@pytest.mark.parametrize(("text", "says"), [
    ("", "is not JSON"), ("{", "line 1"), ("[1, 2", "is not JSON"), ('{"format": 1, "format": 1}', 'the key "format" stands twice'),
    ("\ufeff{}", "is not JSON"), ("[]", "is not an object"), ("null", "is not an object"), ("[" * 100000, "nested too deeply"),
])  # fmt: skip
def test_malformed_documents(place: Project, text: str, says: str) -> None:
    (only,) = faults(place, text)
    assert says in only


def test_not_text_a_folder_unreadable_and_missing(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(place, "{}")
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(PresetError) as caught:
        preset.load(file)
    assert "is not UTF-8" in caught.value.faults[0].problem
    file.unlink()
    file.mkdir()
    with pytest.raises(PresetError) as caught:
        preset.load(file)
    assert caught.value.faults[0].problem == "is a folder"
    file.rmdir()
    with pytest.raises(PresetError) as caught:
        preset.load(file)
    assert caught.value.faults[0].problem == "does not exist"
    put(place, samples.raw_preset()).chmod(0)
    if os.geteuid() == 0:  # root may read anything: let the system say no in its place

        def refuse(self: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PresetError) as caught:
        preset.load(file)
    assert caught.value.faults[0].problem == "cannot be read: Permission denied"


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/passwd", "..", "", "a\\b", "x\ny", "presets/../../x"])
def test_names_that_would_leave_the_folder(place: Project, name: str) -> None:
    put(place, samples.raw_preset())
    with pytest.raises(PresetError) as caught:
        preset.find(place.presets, name)
    assert caught.value.exit_code == 3


def test_an_unknown_name_says_the_nearest(place: Project) -> None:
    put(place, samples.raw_preset())
    with pytest.raises(PresetError, match='did you mean "debian12-cpu-quickstart"'):
        preset.find(place.presets, "debian12-cpu-quickstrat")


def test_what_a_shape_alone_cannot_see(place: Project) -> None:
    raw = samples.raw_preset(name="other", practice=False)
    raw["sources"]["opencv"]["folder"] = "../../etc"
    raw["sources"]["x"] = {"urls": ["https://example.com/x.tgz"], "sha256": None}
    del raw["sources"]["ffmpeg"]
    text = "\n".join(faults(place, raw))
    for expected in ("$.name", "$.os", "$.sources.opencv.folder", "$.sources.x.sha256", 'has no "ffmpeg"'):
        assert expected in text


def checked(
    place: Project, *names: str, capsys: pytest.CaptureFixture[str], driver: str | None = None
) -> tuple[int, dict[str, Any]]:
    code = check.run(argparse.Namespace(presets=list(names), all=not names, json=True, driver=driver), place)
    return code, json.loads(capsys.readouterr().out)


def test_check_tells_everything_in_one_run(place: Project, capsys: pytest.CaptureFixture[str]) -> None:
    put(place, samples.raw_preset())
    put(place, "{", "broken")
    (place.presets / "folder.json").mkdir()
    bad = json.loads((ROOT / "presets/ubuntu22.04-cuda11.8-torch2.1.json").read_text(encoding="utf-8"))
    bad["name"], bad["opencv"]["version"], bad["cudnn"] = "bad", "4.9.0", "9.1"
    put(place, bad, "bad")
    code, found = checked(place, capsys=capsys)
    by_name = {p["name"]: p for p in found["presets"]}
    assert code == found["exit_code"] == 3
    assert [by_name[n]["exit_code"] for n in ("bad", "broken", "folder", NAME)] == [9, 3, 3, 0]
    assert {p["rule"] for p in by_name["bad"]["problems"]} >= {"base-cudnn", "opencv-cudnn", "tensorrt-cudnn"}
    assert by_name["bad"]["sources"] == {"pinned": 6, "first_use": 1, "first_use_names": ["opencv-cache-ippicv"]}
    assert found["catalog"]["without_source"] == []
    assert checked(place, "bad", capsys=capsys)[0] == 9
    assert checked(place, "../x", capsys=capsys)[0] == 3
    assert checked(place, NAME, capsys=capsys)[0] == 0


def test_check_sees_stale_and_broken_locks(place: Project, capsys: pytest.CaptureFixture[str]) -> None:
    put(place, samples.raw_preset())
    lock = place.lock_file(NAME)
    current = preset.find(place.presets, NAME)
    lock.write_text(
        Lock(NAME, current.sha256, {}, (samples.entry("wheel", "wheels/a.whl"),)).render(), encoding="utf-8"
    )
    code, found = checked(place, NAME, capsys=capsys)
    assert (code, found["presets"][0]["lock"]["state"], found["presets"][0]["lock"]["entries"]) == (0, "partial", 1)
    lock.write_text(samples.lock(current).render(), encoding="utf-8")
    code, found = checked(place, NAME, capsys=capsys)
    assert (code, found["presets"][0]["lock"]["state"], found["totals"]["unresolved"]) == (0, "partial", 2)
    lock.write_text(Lock(NAME, "0" * 64, {}, ()).render(), encoding="utf-8")
    code, found = checked(place, NAME, capsys=capsys)
    assert (code, found["presets"][0]["lock"]["state"]) == (4, "stale")
    lock.write_text("{}", encoding="utf-8")
    code, found = checked(place, NAME, capsys=capsys)
    assert (code, found["presets"][0]["lock"]["state"]) == (4, "unreadable")
    assert check.run(argparse.Namespace(presets=[NAME], all=False, json=False, driver=None), place) == 4
    assert f"./deps_sync.sh {NAME} --update" in capsys.readouterr().out


def test_check_lists_what_no_lock_or_a_part_of_one_leaves_open(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = samples.raw_preset()
    put(place, raw)
    _, found = checked(place, NAME, capsys=capsys)
    report = found["presets"][0]
    assert report["lock"]["state"] == "not-synced"
    kinds = Counter(item["kind"] for item in report["unresolved"])
    assert kinds["image"] == 2
    assert kinds["wheel"] == len(raw["python"]["packages"])
    assert kinds["deb"] == len({*raw["apt"]["builder"], *raw["apt"]["runtime"]})
    assert [item["name"] for item in report["unresolved"] if item["kind"] == "source"] == [
        "ffmpeg"
    ]  # opencv has its hash

    current = preset.find(place.presets, NAME)
    whole = samples.lock(current)
    wheels = [samples.entry("wheel", f"wheels/{n}.whl", name=n) for n in ("pillow", "TQDM")]
    full = replace(whole, entries=(*whole.entries, *wheels))
    place.lock_file(NAME).write_text(full.render(), encoding="utf-8")
    _, found = checked(place, NAME, capsys=capsys)
    assert (found["presets"][0]["lock"]["state"], found["presets"][0]["unresolved"]) == ("current", [])
    trusted = tuple(replace(e, trust="first-use") if e.name == "opencv" else e for e in full.entries)
    partial = replace(
        full,
        images={"builder": full.images["builder"]},
        entries=tuple(e for e in trusted if e.kind not in ("deb", "index")),
    )
    place.lock_file(NAME).write_text(partial.render(), encoding="utf-8")
    code, found = checked(place, NAME, capsys=capsys)
    report = found["presets"][0]
    assert (code, report["lock"]["state"]) == (0, "partial")
    assert {(i["kind"], i["name"]) for i in report["unresolved"] if i["kind"] != "deb"} == {("image", "runtime")}
    assert sum(i["kind"] == "deb" for i in report["unresolved"]) == kinds["deb"]
    opencv = next(e for e in partial.entries if e.name == "opencv")
    assert found["totals"]["first_use_bytes"] == opencv.size
    assert found["totals"]["pinned_bytes"] == sum(e.size for e in partial.entries) - opencv.size
    assert check.run(argparse.Namespace(presets=[NAME], all=False, json=False, driver=None), place) == 0
    assert "not resolved yet: 1 base image, " in capsys.readouterr().out


def test_check_against_a_sites_driver(place: Project, capsys: pytest.CaptureFixture[str]) -> None:
    raw = json.loads((ROOT / "presets/ubuntu22.04-cuda12.4-torch2.5.json").read_text(encoding="utf-8"))
    raw["ffmpeg"]["configure"].append("--enable-libnpp")
    put(place, raw, raw["name"])
    assert checked(place, raw["name"], capsys=capsys)[0] == 0
    code, found = checked(place, raw["name"], capsys=capsys, driver="470.82.01")
    assert code == 9
    assert [p["rule"] for p in found["presets"][0]["problems"]] == ["nonfree", "driver"]
    assert found["presets"][0]["redistributable"] is False


def test_the_shipped_presets_have_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = checked(Project(ROOT, ROOT / "artifacts"), capsys=capsys)
    assert (code, found["totals"]["faults"], found["totals"]["facts_without_source"]) == (0, 0, 0)
    for report in found["presets"]:
        assert report["redistributable"], report["name"]
        assert report["practice"] or report["name"].startswith("ubuntu22.04-")
    assert {r["name"] for r in found["presets"]} >= {f"ubuntu22.04-{s}" for s in (
        "cuda11.8-torch2.1", "cuda11.8-torch2.0", "cuda12.1-torch2.1", "cuda12.4-torch2.5", "cuda12.6-torch2.7",
        "cuda12.8-torch2.8", "cpu-torch2.5")}  # fmt: skip


def test_list_and_readiness(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """``project`` holds whole artifacts of the practice preset."""
    practice = preset.find(project.presets, NAME)
    assert look(project, practice).ready
    list_verb.run(argparse.Namespace(json=True), project)
    found = {p["name"]: p for p in json.loads(capsys.readouterr().out)["presets"]}
    assert found[NAME]["ready"]
    assert found["ubuntu22.04-cuda11.8-torch2.1"]["state"] == "not-synced"
    victim = next(f for f in (project.artifacts_of(NAME) / "wheels").glob("*.whl"))
    victim.write_bytes(b"")
    state = look(project, practice)
    assert (state.state, list(state.missing)) == ("incomplete", [f"wheels/{victim.name}"])
    put(project, samples.raw_preset(epoch=5))
    assert look(project, preset.find(project.presets, NAME)).state == "stale"


def test_list_aligns_wide_characters(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from gapforge.core.text import width

    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    rows = [(p := preset.find(project.presets, n), look(project, p)) for n in preset.names(project.presets)]
    table = list_verb.lines(rows)
    starts = {
        width(line[: line.index(text)]) for line, text in zip(table[1:], (p.summary_ko for p, _ in rows), strict=True)
    }
    assert len(starts) == 1
