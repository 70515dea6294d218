"""Test that presets and locks are parsed, and that every fault of bad input is reported."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import samples
from gapforge.base.errors import Fault, LockError, PresetError, UsageError
from gapforge.base.project import Project
from gapforge.cli import environment_defaults
from gapforge.cli.verbs import check
from gapforge.cli.verbs import list as list_verb
from gapforge.model import catalog, preset, schema
from gapforge.model import lock as locks
from gapforge.model.lock import Lock
from gapforge.model.preset_status import readiness_of
from gapforge.model.unresolved_item import OTHER, Reason, UnresolvedItem
from raised_errors import assert_error, values_of
from samples import ROOT

NAME = "debian12-cpu-quickstart"


@pytest.fixture
def place(tmp_path: Path) -> Project:
    (tmp_path / "presets").mkdir()
    for name in ("catalog", "components", "Dockerfile"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return Project(tmp_path, tmp_path / "artifacts")


def write_preset(place: Project, raw: Any, name: str = NAME) -> Path:
    file = place.presets / f"{name}.json"
    file.write_text(raw if isinstance(raw, str) else json.dumps(raw), encoding="utf-8")
    return file


def faults(place: Project, raw: Any, name: str = NAME) -> dict[str, Fault]:
    """Return the faults of a preset file by JSON path."""
    with pytest.raises(PresetError) as caught:
        preset.load(write_preset(place, raw, name))
    start = f"presets/{name}.json: "
    return {fault.where.removeprefix(start): fault for fault in caught.value.faults}


def test_load_reports_every_fault_with_nearest_key(place: Project) -> None:
    raw = samples.raw_preset(pythn={"version": "3.10"}, python={"version": "3"}, cuda="12.x")
    raw["base"]["runtime"] = {"imagee": "x"}
    found = faults(place, raw)
    assert found.keys() == {"$.pythn", "$.python.version", "$.cuda", "$.base.runtime"}
    assert '"python"' in found["$.pythn"].problem
    assert values_of(found["$.cuda"].problem) == {"value": '"12.x"'}
    assert '"image"' in found["$.base.runtime"].problem


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "line 1"),
        ("{", "line 1"),
        ("[1, 2", "line 1"),
        ('{"format": 1, "format": 1}', ""),
        ("\ufeff{}", "line 1"),
        ("[]", "$"),
        ("null", "$"),
        ("[" * 100000, ""),
    ],
)
def test_malformed_documents_have_one_fault(place: Project, text: str, where: str) -> None:
    (path,) = faults(place, text)
    assert path.startswith(where)


def test_unreadable_files_have_one_fault(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_preset(place, "{}")

    def only_fault() -> Fault:
        with pytest.raises(PresetError) as caught:
            preset.load(file)
        (fault,) = caught.value.faults
        assert fault.where == f"presets/{NAME}.json"
        return fault

    file.write_bytes(b"\xff\xfe{}")
    assert only_fault().expected == "UTF-8"
    file.unlink()
    file.mkdir()
    folder = only_fault()
    file.rmdir()
    missing = only_fault()
    write_preset(place, samples.raw_preset()).chmod(0)
    if os.geteuid() == 0:  # root can read every file

        def refuse(*args: object, **options: object) -> bytes:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(schema, "read_regular", refuse)
    denied = only_fault()
    assert len({folder.problem, missing.problem, denied.problem}) == 3
    assert "Permission denied" in denied.problem


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/etc/passwd", "..", "", "a\\b", "x\ny", "presets/../../x"]
)
def test_find_refuses_paths(place: Project, name: str) -> None:
    write_preset(place, samples.raw_preset())
    with pytest.raises(PresetError) as caught:
        preset.find(place.presets, name)
    assert_error(caught.value, PresetError, name=name)


def test_find_suggests_the_nearest_name(place: Project) -> None:
    write_preset(place, samples.raw_preset())
    with pytest.raises(PresetError) as caught:
        preset.find(place.presets, "debian12-cpu-quickstrat")
    assert_error(caught.value, PresetError, name="debian12-cpu-quickstrat")
    assert f'"{NAME}"' in caught.value.message
    assert caught.value.hint == "./gapforge list"


@pytest.mark.parametrize(
    "package",
    ["vim-", "libssl3-", "g++-", "vim=1.0-", "vim:amd64-", "vim*", "vim^", "a/sid", "lib."],
)
def test_package_names_give_apt_no_instructions(package: str) -> None:
    raw = samples.raw_preset()
    raw["apt"]["builder"] = raw["apt"]["runtime"] = [package]
    base = {"mmdebstrap": {"suite": "bookworm", "include": [package]}}
    raw["base"] = {"builder": base, "runtime": base}
    wrong = {
        fault.where.rpartition("$")[2] for fault in preset.faults_of(raw, NAME, samples.COMPONENTS)
    }
    assert wrong == {
        f".{where}[0]"
        for where in (
            "apt.builder",
            "apt.runtime",
            "base.builder.mmdebstrap.include",
            "base.runtime.mmdebstrap.include",
        )
    }


def test_usual_package_names_are_accepted() -> None:
    raw = samples.raw_preset()
    raw["apt"]["builder"] = ["g++", "libstdc++6", "libc6:amd64", "ab=1:2.0-1~x+y", "python3.11"]
    assert preset.faults_of(raw, NAME, samples.COMPONENTS) == []


def broken_in_every_way() -> Any:
    raw = samples.raw_preset(name="other", practice=False)
    raw["sources"]["x"] = {"urls": ["https://example.com/-"], "sha256": None}
    raw["sources"]["y"] = {
        "urls": ["https://example.com/y.tgz"],
        "sha256": "0" * 64,
        "trust": "first-use",
    }
    raw["sources"]["opencv"]["folder"] = "../../etc"
    raw["base"]["builder"] = {"archive": "/srv/base.tar"}
    raw["opencv"].update(contrib=True, cuda=True, architectures=[])
    raw["cuda"] = None
    raw["tensorrt"] = {"version": "8.6.1.6", "form": "tar"}
    raw["application"]["secrets"] = [
        {"key": "A", "pass": "secret"},
        {"key": "A", "pass": "build-arg"},
        {"key": "DOCKER_TOKEN", "pass": "build-arg"},
        {"key": "PATH", "pass": "build-arg"},
        {"key": "HOME", "pass": "secret"},
    ]
    del raw["sources"]["ffmpeg"]
    return raw


def test_load_reports_every_broken_rule(place: Project) -> None:
    raw = broken_in_every_way()
    with pytest.raises(PresetError) as caught:
        preset.load(write_preset(place, raw))
    paths = (
        "$.name",
        "$.os",
        "$.sources.x.sha256",
        "$.sources.x.urls[0]",
        "$.sources.y.trust",
        "$.sources.opencv.folder",
        "$.base.builder.archive",
        "$.opencv.architectures",
        "$.opencv.cuda",
        "$.application.secrets",
        "$.application.secrets[2].key",
        "$.application.secrets[3].key",
        "$.sources",
    )
    start = f"presets/{NAME}.json: "
    assert_error(
        caught.value,
        PresetError,
        where=[start + path for path in paths],
        count=13,
        hint={"stem": NAME},
    )
    found = {fault.where.removeprefix(start): fault for fault in caught.value.faults}
    assert values_of(found["$.name"].problem) == {"name": "other", "stem": NAME}
    assert values_of(found["$.os"].problem) == {"target": "debian 12"}
    assert values_of(found["$.sources.x.urls[0]"].problem) == {"file": "-"}
    assert values_of(found["$.application.secrets"].problem) == {"key": "A"}
    assert values_of(found["$.opencv.architectures"].problem) == {"option": "$.opencv.cuda"}
    assert values_of(found["$.opencv.cuda"].problem) == {"key": "cuda"}
    # The catalog has archives of this FFmpeg and OpenCV.
    assert values_of(found["$.sources"].problem)["source"] == "tensorrt"


@pytest.mark.parametrize(
    ("application", "where"),
    [
        ({"build": "meson", "meson": ["-Db_lto=true"]}, []),
        ({"build": "make", "make": ["CC=clang"], "command": ["server", "--port"]}, []),
        ({"build": "./tools/build.sh", "command": ["python3", "-m", "x"]}, []),
        ({"name": "application", "command": ["server"]}, []),
        ({"build": "autotools"}, ["$.application.build"]),
        ({"build": "./../build.sh"}, ["$.application.build"]),
        ({"build": "/bin/sh"}, ["$.application.build"]),
        ({"build": "./build.sh", "make": ["A=1"]}, ["$.application.make"]),
        ({"build": "meson", "cmake": ["-DA=1"]}, ["$.application.cmake"]),
        ({"meson": ["-Da=1"]}, ["$.application.meson"]),
        ({"command": []}, ["$.application.command"]),
        ({"name": "application"}, ["$.application.name"]),
        ({"name": "build-application"}, ["$.application.name"]),
        ({"command": ["application", "--serve"]}, ["$.application.command[0]"]),
        ({"command": ["/usr/local/bin/build-application"]}, ["$.application.command[0]"]),
    ],
)
def test_application_is_read_or_its_fault_named(
    place: Project, application: dict[str, Any], where: list[str]
) -> None:
    raw = samples.raw_preset()
    raw["application"] = {"name": "x", "source": "x", **application}
    if where:
        assert sorted(faults(place, raw)) == where
    else:
        read = preset.load(write_preset(place, raw)).application
        assert read.build == application.get("build", "cmake")
        assert read.command == tuple(application.get("command", ()))


@pytest.mark.parametrize(
    ("cuda", "torch", "index", "refused"),
    [
        ("12.1", "2.5.1+cpu", "https://h/whl/cpu", True),
        ("12.1", "2.5.1+cpu", "default", True),
        ("12.1", "2.5.1", "https://h/whl/cpu/", True),
        ("12.1", "2.5.1+cu121", "https://h/whl/cpu", False),  # `check` names the wrong index
        ("12.1", "2.5.1", "https://h/whl/cpux", False),
        (None, "2.5.1+cpu", "https://h/whl/cpu", False),
    ],
)
def test_torch_for_the_cpu_has_one_verdict(
    place: Project, cuda: str | None, torch: str, index: str, refused: bool
) -> None:
    """The check of a finished image with CUDA fails for it, so no preset with it is loaded."""
    raw = samples.raw_preset(cuda=cuda, pytorch={"torch": torch, "index": index})
    if not refused:
        assert preset.load(write_preset(place, raw, NAME)).pytorch is not None
        return
    found = faults(place, raw)
    assert list(found) == ["$.pytorch"]
    assert values_of(found["$.pytorch"].problem) == {"version": "2.5.1", "cuda": "12.1"}
    assert values_of(found["$.pytorch"].expected) == {"version": "2.5.1", "build": "cu121"}


def test_rules_are_the_same_in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    english = preset.faults_of(broken_in_every_way(), "p", samples.COMPONENTS)
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    korean = preset.faults_of(broken_in_every_way(), "p", samples.COMPONENTS)
    assert [f.where for f in korean] == [f.where for f in english]
    texts = {f.where: (f.problem, f.expected) for f in korean}
    assert texts["p: $.opencv.architectures"] == (
        "비어 있지만 $.opencv.cuda에 필요함",
        '컴파일할 GPU 아키텍처, 예: ["7.5", "8.6"]',
    )


def test_lock_faults_name_file_and_entry(place: Project) -> None:
    write_preset(place, samples.raw_preset())
    lock = place.lock_file(NAME)
    shown = f"presets/{lock.name}"
    with pytest.raises(LockError) as missing:
        locks.load(lock)
    assert_error(missing.value, LockError, shown=shown, hint={"preset": NAME})
    lock.write_text("{}", encoding="utf-8")
    with pytest.raises(LockError) as broken:
        locks.load(lock)
    assert_error(broken.value, LockError, shown=shown)
    assert f"{shown}: $.entries" in {fault.where for fault in broken.value.faults}
    whole = samples.lock(preset.find(place.presets, NAME))
    double = replace(whole, entries=(*whole.entries, whole.entries[0]))
    lock.write_text(double.render(), encoding="utf-8")
    with pytest.raises(LockError) as twice:
        locks.load(lock)
    assert whole.entries[0].path in twice.value.faults[0].problem
    with pytest.raises(LockError) as partial:
        item = UnresolvedItem("deb", "gcc", Reason(code=OTHER))
        replace(whole, unresolved=(item,)).require_complete("presets/a.lock.json")
    assert_error(
        partial.value,
        LockError,
        where=["deb gcc"],
        shown="presets/a.lock.json",
        count=1,
        hint={"preset": NAME},
    )


def test_check_and_list_report_broken_files(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write_preset(place, samples.raw_preset())
    write_preset(place, "{", "broken")
    place.lock_file(NAME).write_text("{}", encoding="utf-8")
    codes = [checked(place, name, capsys=capsys)[0] for name in (NAME, "broken", "../x")]
    assert codes == [4, 3, 3]
    assert readiness_of(place, preset.find(place.presets, NAME)).state == "broken-lock"
    other = replace(samples.lock(preset.find(place.presets, NAME)), preset="someone")
    place.lock_file(NAME).write_text(other.render(), encoding="utf-8")
    _, found = checked(place, NAME, capsys=capsys)
    assert '"someone"' in found["presets"][0]["lock"]["faults"][0]["problem"]
    list_verb.run(argparse.Namespace(json=False), place)
    (line,) = [
        text for text in capsys.readouterr().out.splitlines() if text.startswith("! broken:")
    ]
    assert "presets/broken.json" in line and line.endswith("./gapforge check broken")


def test_invalid_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_OFFLINE", "maybe")
    with pytest.raises(UsageError) as caught:
        environment_defaults.switch_default(argparse.Namespace(), "--offline")
    assert "GAPFORGE_OFFLINE" in caught.value.message and "maybe" in caught.value.message
    with pytest.raises(UsageError) as caught:
        environment_defaults.one_of("x", ("a", "b"), "--type", "build")
    for word in ("--type", "GAPFORGE_TYPE", '"x"', "a", "b"):
        assert word in caught.value.message


def checked(
    place: Project, *names: str, capsys: pytest.CaptureFixture[str], driver: str | None = None
) -> tuple[int, dict[str, Any]]:
    code = check.run(
        argparse.Namespace(presets=list(names), all=not names, json=True, driver=driver), place
    )
    return code, json.loads(capsys.readouterr().out)


def test_check_reports_all_presets_at_once(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write_preset(place, samples.raw_preset())
    write_preset(place, "{", "broken")
    (place.presets / "folder.json").mkdir()
    bad = json.loads(
        (ROOT / "presets/ubuntu22.04-cuda11.8-torch2.1.json").read_text(encoding="utf-8")
    )
    bad["name"], bad["opencv"]["version"], bad["cudnn"] = "bad", "4.9.0", "9.1"
    write_preset(place, bad, "bad")
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


def test_check_reports_stale_and_broken_locks(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write_preset(place, samples.raw_preset())
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


def test_check_refuses_what_the_site_refuses(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lock may name a base image of another operating system than the preset."""
    write_preset(place, samples.raw_preset())
    lock = samples.lock(preset.find(place.presets, NAME))
    images = {role: replace(image, os_version="20.04") for role, image in lock.images.items()}
    place.lock_file(NAME).write_text(replace(lock, images=images).render(), encoding="utf-8")
    code, found = checked(place, NAME, capsys=capsys)
    assert code == 3
    assert {fault["problem"] for fault in found["presets"][0]["faults"]} == {
        f"{image.os_id} 20.04" for image in lock.images.values()
    }


def test_check_lists_unresolved_items(place: Project, capsys: pytest.CaptureFixture[str]) -> None:
    raw = samples.raw_preset()
    write_preset(place, raw)
    _, found = checked(place, NAME, capsys=capsys)
    report = found["presets"][0]
    assert report["lock"]["state"] == "not-synced"
    kinds = Counter(item["kind"] for item in report["unresolved"])
    assert kinds["image"] == 2
    assert kinds["wheel"] == len(raw["python"]["packages"])
    assert kinds["deb"] == len({*raw["apt"]["builder"], *raw["apt"]["runtime"]})
    assert [item["name"] for item in report["unresolved"] if item["kind"] == "source"] == [
        "ffmpeg"
    ]  # opencv has a checksum

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
    assert ": 1 base image, " in capsys.readouterr().out


def test_check_uses_the_driver_of_a_site(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = json.loads(
        (ROOT / "presets/ubuntu22.04-cuda12.4-torch2.5.json").read_text(encoding="utf-8")
    )
    raw["ffmpeg"]["configure"] += ["--enable-libnpp", "--enable-nonfree"]
    write_preset(place, raw, raw["name"])
    assert checked(place, raw["name"], capsys=capsys)[0] == 0
    code, found = checked(place, raw["name"], capsys=capsys, driver="470.82.01")
    assert code == 9
    assert [p["rule"] for p in found["presets"][0]["problems"]] == ["nonfree", "nonfree", "driver"]
    assert found["presets"][0]["redistributable"] is False


def test_shipped_presets_have_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = checked(Project(ROOT, ROOT / "artifacts"), capsys=capsys)
    assert (code, found["totals"]["faults"], found["totals"]["facts_without_source"]) == (0, 0, 0)
    for report in found["presets"]:
        assert report["redistributable"] is None, report["name"]
        cuda = any(part["part"].startswith("CUDA") for part in report["licences"])
        assert cuda == ("-cuda" in report["name"])
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


def test_list_shows_readiness(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """``project`` has complete artifacts of the practice preset."""
    practice = preset.find(project.presets, NAME)
    assert readiness_of(project, practice).ready
    list_verb.run(argparse.Namespace(json=True), project)
    found = {p["name"]: p for p in json.loads(capsys.readouterr().out)["presets"]}
    assert found[NAME]["ready"]
    assert found[NAME]["total"] == {"bytes": found[NAME]["size"], "exact": True}
    assert found["ubuntu22.04-cuda11.8-torch2.1"]["state"] == "not-synced"
    assert not found["ubuntu22.04-cuda11.8-torch2.1"]["total"]["exact"]
    victim = next(f for f in (project.artifacts_of(NAME) / "wheels").glob("*.whl"))
    victim.write_bytes(b"")
    state = readiness_of(project, practice)
    assert (state.state, list(state.missing)) == ("incomplete", [f"wheels/{victim.name}"])
    write_preset(project, samples.raw_preset(epoch=5))
    assert readiness_of(project, preset.find(project.presets, NAME)).state == "stale"


def test_list_aligns_wide_characters(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from gapforge.base.text_layout import width

    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    rows = [
        (p := preset.find(project.presets, n), readiness_of(project, p), "at least 2.1 GB")
        for n in preset.names(project.presets)
    ]
    table = list_verb.lines(rows)
    starts = {
        width(line[: line.index(text)])
        for line, text in zip(table[1:], (p.summary_ko for p, _ready, _size in rows), strict=True)
    }
    assert len(starts) == 1


@pytest.mark.parametrize(
    "version", ["9" * 5000, "1." * 20_000 + "!", "1." * 20_000, "1" + "-" * 20_000 + "!"]
)
@pytest.mark.parametrize("part", ["cuda", "tensorrt", "opencv", "python", "sources"])
def test_long_version_is_a_fault_at_once(place: Project, version: str, part: str) -> None:
    raw = samples.raw_preset()
    if part == "cuda":
        raw["cuda"] = version
    elif part == "tensorrt":
        raw["tensorrt"] = {"version": version, "form": "deb", "runtime": ["libnvinfer8"]}
    else:
        holder = raw["sources"]["opencv"] if part == "sources" else raw[part]
        holder["version"] = version
    path = "$.sources.opencv.version" if part == "sources" else f"$.{part}.version"
    assert faults(place, raw).keys() == {"$.cuda" if part == "cuda" else path}


@pytest.mark.parametrize("version", ["8-rc.1", "8~x", "9" * 128, "8.6.1.6-1+cuda11.8"])
def test_check_answers_for_every_valid_version(place: Project, version: str) -> None:
    """Not only digits and dots are valid."""
    raw = samples.raw_preset(
        cuda="11.8", tensorrt={"version": version, "form": "deb", "runtime": ["libnvinfer8"]}
    )
    report = check.examine(
        place, write_preset(place, raw).stem, catalog.load(place.catalog), samples.COMPONENTS, ""
    )
    assert report.faults == () and report.problems


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_is_no_file_is_a_fault(place: Project, make: Callable[[Path], None]) -> None:
    for file, read in ((place.preset_file(NAME), preset.load), (place.lock_file(NAME), locks.load)):
        make(file)
        with pytest.raises((PresetError, LockError)) as caught:
            read(file)
        assert [fault.where for fault in caught.value.faults] == [f"presets/{file.name}"]


def test_sparse_files_are_refused_unread(place: Project) -> None:
    for file in (place.preset_file(NAME), place.lock_file(NAME)):
        with open(file, "wb") as sparse:
            sparse.truncate(3 << 29)
    tracemalloc.start()
    with pytest.raises(PresetError):
        preset.load(place.preset_file(NAME))
    with pytest.raises(LockError):
        locks.load(place.lock_file(NAME))
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


Change = Callable[[list[dict[str, Any]]], None]


def _path(value: str) -> Change:
    return lambda entries: entries[0].update(path=value)


def _second(**values: Any) -> Change:
    return lambda entries: entries[1].update(**values)


@pytest.mark.parametrize(
    ("change", "index", "key"),
    [
        (_path("/".join(["d"] * 1500)), 0, "path"),
        (_path("x" * 300), 0, "path"),
        (_path("a/./b"), 0, "path"),
        (_path("debs//gcc_1_amd64.deb"), 0, "path"),
        (_path("debs/"), 0, "path"),
        (_path("SHA256SUMS"), 0, "path"),
        (_path("SHA256SUMS/x"), 0, "path"),
        (_path("lock.json/x"), 0, "path"),
        (_path("debs"), 0, "path"),
        (lambda e: e[1].update(path=e[0]["path"]), 1, "path"),
        (lambda e: e[1].update(path=e[0]["path"] + "/x"), 0, "path"),
        (lambda e: e[1].update(sha256=e[0]["sha256"], size=e[0]["size"] + 1), 1, "size"),
        (_second(size=True), 1, "size"),
        (_second(size=1.0), 1, "size"),
        (_second(size=10**18), 1, "size"),
    ],
)
def test_impossible_entry_of_lock_is_a_fault(
    place: Project, change: Change, index: int, key: str
) -> None:
    raw = json.loads(samples.lock(samples.preset()).render())
    change(raw["entries"])
    file = place.lock_file(NAME)
    file.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(LockError) as caught:
        locks.load(file)
    where = f"presets/{NAME}.lock.json: $.entries[{index}].{key}"
    assert where in [fault.where for fault in caught.value.faults]


@pytest.mark.parametrize("source", ["apps/none", "catalog", "../../etc"])
def test_check_refuses_a_source_folder_that_a_build_refuses(
    place: Project, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = samples.raw_preset()
    raw["application"]["source"] = source
    write_preset(place, raw)
    code, found = checked(place, NAME, capsys=capsys)
    assert code == PresetError.exit_code
    (fault,) = found["presets"][0]["faults"]
    assert fault["where"] == f"presets/{NAME}.json: $.application.source"
    assert source in fault["problem"]
    (place.root / "elsewhere").mkdir()
    (place.root / "elsewhere/CMakeLists.txt").touch()
    place.env_file.write_text(f"XAIVA_MEDIA_SOURCE={place.root}/elsewhere\n")
    place.env_file.chmod(0o600)
    assert checked(place, NAME, capsys=capsys)[0] == 0


def test_near_placeholder_of_the_check_is_named(place: Project) -> None:
    raw = samples.raw_preset()
    raw["application"]["check"] = ["app", "--in={klip}", "{print}", "{clip}"]
    (fault,) = faults(place, raw).values()
    assert fault.where.endswith("$.application.check[1]") and '"clip"' in fault.problem
