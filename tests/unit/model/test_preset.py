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
from gapforge.base.errors import LockError, PresetError, UsageError
from gapforge.base.project import Project
from gapforge.cli import environment_defaults
from gapforge.cli.verbs import check
from gapforge.cli.verbs import list as list_verb
from gapforge.model import lock as locks
from gapforge.model import preset
from gapforge.model.lock import Lock
from gapforge.model.preset_status import look
from raised import assert_error, values_of

ROOT = Path(__file__).resolve().parents[3]
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
    assert (
        'presets/debian12-cpu-quickstart.json: $.pythn unknown key; did you mean "python"?' in text
    )
    assert "$.python.version" in text
    assert '$.cuda "12.x" is not allowed' in text
    assert 'did you mean "image"?' in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("{", "line 1"),
        ("[1, 2", "is not JSON"),
        ('{"format": 1, "format": 1}', 'the key "format" stands twice'),
        ("\ufeff{}", "is not JSON"),
        ("[]", "is not an object"),
        ("null", "is not an object"),
        ("[" * 100000, "nested too deeply"),
    ],
)
def test_malformed_documents(place: Project, text: str, says: str) -> None:
    (only,) = faults(place, text)
    assert says in only


def test_not_text_a_folder_unreadable_and_missing(
    place: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/etc/passwd", "..", "", "a\\b", "x\ny", "presets/../../x"]
)
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
    for expected in (
        "$.name",
        "$.os",
        "$.sources.opencv.folder",
        "$.sources.x.sha256",
        'has no "ffmpeg"',
    ):
        assert expected in text


KOREAN_FAULTS = {
    "$.name": ('"other"인데 파일은 debian12-cpu-quickstart.json임', '"debian12-cpu-quickstart"'),
    "$.os": (
        "debian 12는 대상 운영 체제가 아님",
        'ubuntu 22.04, 또는 넘기지 않을 연습용 이미지라면 "practice": true',
    ),
    "$.sources.x.sha256": ("null임", '해시, 또는 처음 받은 것을 기록하려면 "trust": "first-use"'),
    "$.sources.x.urls[0]": ('쓸 수 있는 파일 이름으로 끝나지 않음("-")', '옆에 "file" 키'),
    "$.sources.y.trust": ("해시와 함께 적혀 있음", "둘 중 하나"),
    "$.base.builder.archive": (
        "절대 경로임(프리셋을 한 컴퓨터에서만 쓸 수 있게 됨)",
        "프로젝트 안의 경로",
    ),
    "$.opencv.architectures": ("cuda가 true인데 비어 있음", 'GPU 아키텍처, 예: ["7.5", "8.6"]'),
    "$.opencv.cuda": ("true인데 프리셋에 CUDA가 없음", '"cuda" 버전, 또는 false'),
    "$.application.secrets": ('두 번 적혀 있음: "A"', "키마다 한 번"),
}


def broken_in_every_way() -> Any:
    raw = samples.raw_preset(name="other", practice=False)
    raw["sources"]["x"] = {"urls": ["https://example.com/-"], "sha256": None}
    raw["sources"]["y"] = {
        "urls": ["https://example.com/y.tgz"],
        "sha256": "0" * 64,
        "trust": "first-use",
    }
    raw["base"]["builder"] = {"archive": "/srv/base.tar"}
    raw["opencv"].update(contrib=True, cuda=True, architectures=[])
    raw["cuda"] = None
    raw["tensorrt"] = {"version": "8.6.1.6", "form": "tar"}
    raw["application"]["secrets"] = [
        {"key": "A", "pass": "secret"},
        {"key": "A", "pass": "build-arg"},
    ]
    del raw["sources"]["ffmpeg"]
    return raw


def test_rules_in_korean(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    english = preset.faults_of(broken_in_every_way(), "p")
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert [f.where for f in preset.faults_of(broken_in_every_way(), "p")] == [
        f.where for f in english
    ]
    with pytest.raises(PresetError) as caught:
        preset.load(put(place, broken_in_every_way()))
    assert caught.value.message == f"presets/{NAME}.json에 잘못된 곳이 12개 있습니다"
    assert caught.value.hint == f"고친 뒤: ./gapforge check {NAME}"
    found = {
        f.where.removeprefix(f"presets/{NAME}.json: "): (f.problem, f.expected)
        for f in caught.value.faults
    }
    assert {path: text for path, text in found.items() if path != "$.sources"} == KOREAN_FAULTS
    assert {
        (f.problem, f.expected) for f in caught.value.faults if f.where.endswith("$.sources")
    } == {
        ('"ffmpeg" 없음($.ffmpeg 빌드에 필요함)', '이름이 "ffmpeg"인 소스'),
        ('"tensorrt" 없음(form이 "tar"인 $.tensorrt에 필요함)', '이름이 "tensorrt"인 소스'),
        ('"opencv-contrib" 없음($.opencv.contrib에 필요함)', '이름이 "opencv-contrib"인 소스'),
    }


def test_what_cannot_be_found_or_read_in_korean(
    place: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    put(place, samples.raw_preset())
    with pytest.raises(PresetError) as caught:
        preset.find(place.presets, "debian12-cpu-quickstrat")
    assert (
        caught.value.message
        == f'"debian12-cpu-quickstrat" 프리셋이 없습니다 (혹시 "{NAME}"입니까?)'
    )
    assert (caught.value.faults[0].problem, caught.value.faults[0].expected) == (
        "없음",
        f"{NAME} 중 하나",
    )
    with pytest.raises(PresetError, match=r"^프리셋 이름이 아닙니다: '\.\./x'$"):
        preset.find(place.presets, "../x")


def test_lock_that_is_missing_broken_or_repeats_a_path(place: Project) -> None:
    put(place, samples.raw_preset())
    file = place.lock_file(NAME)
    shown = f"presets/{file.name}"
    with pytest.raises(LockError) as missing:
        locks.load(file)
    assert_error(missing.value, LockError, shown=shown, hint={"preset": NAME})
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(LockError) as broken:
        locks.load(file)
    assert_error(broken.value, LockError, shown=shown, hint={"name": NAME})
    assert f"{shown}: $.entries" in [fault.where for fault in broken.value.faults]
    whole = samples.lock(preset.find(place.presets, NAME))
    double = replace(whole, entries=(*whole.entries, whole.entries[0]))
    file.write_text(double.render(), encoding="utf-8")
    with pytest.raises(LockError) as twice:
        locks.load(file)
    assert values_of(twice.value.faults[0].problem) == {"path": whole.entries[0].path}


def test_check_and_list_decide_the_same_in_korean(
    place: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(place, samples.raw_preset())
    put(place, "{", "broken")
    place.lock_file(NAME).write_text("{}", encoding="utf-8")
    codes = [checked(place, name, capsys=capsys)[0] for name in (NAME, "broken", "../x")]
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert (
        [checked(place, name, capsys=capsys)[0] for name in (NAME, "broken", "../x")]
        == codes
        == [4, 3, 3]
    )
    assert look(place, preset.find(place.presets, NAME)).state == "broken-lock"
    place.lock_file(NAME).write_text(
        replace(samples.lock(preset.find(place.presets, NAME)), preset="someone").render(),
        encoding="utf-8",
    )
    _, found = checked(place, NAME, capsys=capsys)
    assert found["presets"][0]["lock"]["faults"][0]["problem"] == '다른 프리셋 "someone"의 것임'
    list_verb.run(argparse.Namespace(json=False), place)
    assert (
        "! broken: presets/broken.json에 잘못된 곳이 1개 있습니다; ./gapforge check broken"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("language", "neither", "expected"),
    [
        (
            "en",
            'GAPFORGE_OFFLINE="maybe" is neither yes nor no',
            '--type (or GAPFORGE_TYPE) is "x"; expected a or b',
        ),
        (
            "ko",
            'GAPFORGE_OFFLINE의 값이 예도 아니오도 아닙니다: "maybe"',
            '--type(또는 GAPFORGE_TYPE)의 값을 쓸 수 없습니다: "x"; 기대한 값: a 또는 b',
        ),
    ],
)
def test_variables_that_mean_nothing(
    monkeypatch: pytest.MonkeyPatch, language: str, neither: str, expected: str
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    monkeypatch.setenv("GAPFORGE_OFFLINE", "maybe")
    with pytest.raises(UsageError) as caught:
        environment_defaults.switch_default(argparse.Namespace(), "--offline")
    assert caught.value.message == neither
    with pytest.raises(UsageError) as caught:
        environment_defaults.one_of("x", ("a", "b"), "--type", "build")
    assert caught.value.message == expected


def checked(
    place: Project, *names: str, capsys: pytest.CaptureFixture[str], driver: str | None = None
) -> tuple[int, dict[str, Any]]:
    code = check.run(
        argparse.Namespace(presets=list(names), all=not names, json=True, driver=driver), place
    )
    return code, json.loads(capsys.readouterr().out)


def test_check_tells_everything_in_one_run(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    put(place, samples.raw_preset())
    put(place, "{", "broken")
    (place.presets / "folder.json").mkdir()
    bad = json.loads(
        (ROOT / "presets/ubuntu22.04-cuda11.8-torch2.1.json").read_text(encoding="utf-8")
    )
    bad["name"], bad["opencv"]["version"], bad["cudnn"] = "bad", "4.9.0", "9.1"
    put(place, bad, "bad")
    code, found = checked(place, capsys=capsys)
    by_name = {p["name"]: p for p in found["presets"]}
    assert code == found["exit_code"] == 3
    assert [by_name[n]["exit_code"] for n in ("bad", "broken", "folder", NAME)] == [9, 3, 3, 0]
    assert {p["rule"] for p in by_name["bad"]["problems"]} >= {
        "base-cudnn",
        "opencv-cudnn",
        "tensorrt-cudnn",
    }
    assert by_name["bad"]["sources"] == {
        "pinned": 6,
        "first_use": 1,
        "first_use_names": ["opencv-cache-ippicv"],
    }
    assert found["catalog"]["without_source"] == []
    assert checked(place, "bad", capsys=capsys)[0] == 9
    assert checked(place, "../x", capsys=capsys)[0] == 3
    assert checked(place, NAME, capsys=capsys)[0] == 0


def test_check_sees_stale_and_broken_locks(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    put(place, samples.raw_preset())
    lock = place.lock_file(NAME)
    current = preset.find(place.presets, NAME)
    lock.write_text(
        Lock(
            preset=NAME,
            preset_sha256=current.sha256,
            images={},
            entries=(samples.entry("wheel", "wheels/a.whl"),),
        ).render(),
        encoding="utf-8",
    )
    code, found = checked(place, NAME, capsys=capsys)
    assert (code, found["presets"][0]["lock"]["state"], found["presets"][0]["lock"]["entries"]) == (
        0,
        "partial",
        1,
    )
    lock.write_text(samples.lock(current).render(), encoding="utf-8")
    code, found = checked(place, NAME, capsys=capsys)
    assert (code, found["presets"][0]["lock"]["state"], found["totals"]["unresolved"]) == (
        0,
        "partial",
        2,
    )
    lock.write_text(
        Lock(preset=NAME, preset_sha256="0" * 64, images={}, entries=()).render(), encoding="utf-8"
    )
    code, found = checked(place, NAME, capsys=capsys)
    assert (code, found["presets"][0]["lock"]["state"]) == (4, "stale")
    lock.write_text("{}", encoding="utf-8")
    code, found = checked(place, NAME, capsys=capsys)
    assert (code, found["presets"][0]["lock"]["state"]) == (4, "unreadable")
    assert (
        check.run(argparse.Namespace(presets=[NAME], all=False, json=False, driver=None), place)
        == 4
    )
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
    assert (found["presets"][0]["lock"]["state"], found["presets"][0]["unresolved"]) == (
        "current",
        [],
    )
    trusted = tuple(
        replace(e, trust="first-use") if e.name == "opencv" else e for e in full.entries
    )
    partial = replace(
        full,
        images={"builder": full.images["builder"]},
        entries=tuple(e for e in trusted if e.kind not in ("deb", "index")),
    )
    place.lock_file(NAME).write_text(partial.render(), encoding="utf-8")
    code, found = checked(place, NAME, capsys=capsys)
    report = found["presets"][0]
    assert (code, report["lock"]["state"]) == (0, "partial")
    assert {(i["kind"], i["name"]) for i in report["unresolved"] if i["kind"] != "deb"} == {
        ("image", "runtime")
    }
    assert sum(i["kind"] == "deb" for i in report["unresolved"]) == kinds["deb"]
    opencv = next(e for e in partial.entries if e.name == "opencv")
    assert found["totals"]["first_use_bytes"] == opencv.size
    assert found["totals"]["pinned_bytes"] == sum(e.size for e in partial.entries) - opencv.size
    assert (
        check.run(argparse.Namespace(presets=[NAME], all=False, json=False, driver=None), place)
        == 0
    )
    assert "not resolved yet: 1 base image, " in capsys.readouterr().out


def test_check_against_a_sites_driver(place: Project, capsys: pytest.CaptureFixture[str]) -> None:
    raw = json.loads(
        (ROOT / "presets/ubuntu22.04-cuda12.4-torch2.5.json").read_text(encoding="utf-8")
    )
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
    assert {r["name"] for r in found["presets"]} >= {
        f"ubuntu22.04-{s}"
        for s in (
            "cuda11.8-torch2.1",
            "cuda11.8-torch2.0",
            "cuda12.1-torch2.1",
            "cuda12.4-torch2.5",
            "cuda12.6-torch2.7",
            "cuda12.8-torch2.8",
            "cpu-torch2.5",
        )
    }


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
    from gapforge.base.text import width

    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    rows = [
        (p := preset.find(project.presets, n), look(project, p))
        for n in preset.names(project.presets)
    ]
    table = list_verb.lines(rows)
    starts = {
        width(line[: line.index(text)])
        for line, text in zip(table[1:], (p.summary_ko for p, _ in rows), strict=True)
    }
    assert len(starts) == 1
