"""Fetching in Korean: whole messages, and the same decisions, requests and locks as in English."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gapforge.base.errors import Fault, FetchError, GapforgeError, GatedError
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.cli.verbs import sync as sync_verb
from gapforge.model.lock import Entry, Lock
from gapforge.model.preset import SourceArchive
from gapforge.model.unresolved_item import APT_SOURCES, NO_ANSWER, Reason
from gapforge.store.store import Store
from gapforge.sync import apt_errors, lock_diff, lock_only, source_archives
from gapforge.sync.download import Downloader, Want
from gapforge.sync.network import Network, NoAnswerError
from gapforge.sync.options import Options
from raised import assert_error
from servers import file_server
from syncworld import NAME, World, install

ROOT = Path(__file__).resolve().parents[3]
BODY = random.Random(5).randbytes(60_000)
SHA = hashlib.sha256(BODY).hexdigest()
REGISTRY = {role: {"image": f"team/base-{role}:1"} for role in ("builder", "runtime")}


@pytest.fixture(autouse=True)
def korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")


def said(error: GapforgeError) -> tuple[str, list[tuple[str, str, str]], str]:
    return error.message, [(f.where, f.problem, f.expected) for f in error.faults], error.hint


# -- why a lock leaves something open


@pytest.mark.parametrize("silent", [[], ["registry", "default"], ["torch"]])
def test_a_lock_has_the_same_bytes_in_every_language(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    silent: list[str],
) -> None:
    texts = []
    with file_server() as site:
        world = World(site)
        install(site.url, monkeypatch.setattr)
        world.silent = silent
        for language in ("ko", "en"):
            monkeypatch.setenv("GAPFORGE_LANG", language)
            project = Project(tmp_path / language, tmp_path / language / "artifacts")
            torch = {
                "torch": "2.1.2+cu118",
                "torchvision": "0.16.2+cu118",
                "index": "https://wheels.example/cu118",
            }
            world.publish()
            preset = world.write_preset(
                project.root, base=REGISTRY, **({"pytorch": torch} if silent == ["torch"] else {})
            )
            world.publish()
            outcome = lock_only.pin(preset, project, Network(retries=0), Options(quiet=True))
            assert outcome.lock.unresolved
            texts.append(project.lock_file(NAME).read_text())
            sync_verb._report_lock(outcome)
            screen = capsys.readouterr().out
            for gap in outcome.lock.unresolved:
                assert gap.reason.message() in screen
            assert outcome.to_json()["unresolved"] == [
                gap.to_json() for gap in outcome.lock.unresolved
            ]
    assert texts[0] == texts[1]


# -- downloads

BAD = "b" * 64
TROUBLES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "absent": ({"status": 404}, {}, "서버 응답 404: 파일이 없음"),
    "forbidden": ({"status": 403}, {}, "서버 응답 403: 접근이 거부됨"),
    "teapot": ({"status": 418}, {}, "서버 응답 418: 쓸 수 없는 응답"),
    "busy": ({"fail_times": 9}, {}, "서버 응답 503 (2번 시도함)"),
    "cut": ({"cut_after": 40_000, "cuts": 1}, {}, ""),
    "page": (
        {"content_type": "text/html"},
        {"size": 5},
        "파일 대신 웹 페이지가 옴(로그인이나 오류 페이지로 보임)",
    ),
    "other size": ({}, {"size": 5}, f"그곳의 파일은 {len(BODY)}바이트임(기대한 크기 5)"),
    "other bytes": ({}, {"sha256": BAD}, f"그곳의 파일은 sha256이 {SHA}임(기대한 값 {BAD})"),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_what_is_final_and_what_is_tried_again_depends_on_no_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    how, want, problem = TROUBLES[name]
    seen = []
    for language in ("ko", "en"):
        monkeypatch.setenv("GAPFORGE_LANG", language)
        with file_server() as site:
            url = site.add("/x.bin", BODY, **how)
            loader = Downloader(
                Store(tmp_path / language), Network(retries=1), Progress("t", out=io.StringIO())
            )
            try:
                loader.fetch([Want("x.bin", (url,), **{"sha256": SHA, **want})])
                assert not problem
            except FetchError as error:
                if language == "ko":
                    assert said(error) == (
                        "파일 1개를 받지 못했습니다",
                        [("x.bin", f"{url}: {problem}", "")],
                        "같은 명령을 다시 실행하십시오. 이미 받은 것은 그대로 두고 끊긴 파일은 멈춘 곳부터 이어 받습니다. "
                        "또는 파일을 폴더에 모아 --from FOLDER를 붙이십시오",
                    )
            kept = sorted(p.name for p in (tmp_path / language).rglob("*") if p.is_file())
            seen.append((site.log, kept))
    assert seen[0] == seen[1]


def test_what_a_person_has_to_bring(tmp_path: Path) -> None:
    with file_server() as site:
        world = World(site)
        preset = world.write_preset(tmp_path)
        url = site.add("/T.tar.gz", b"", status=403)
    source = SourceArchive(
        name="tensorrt",
        file="T.tar.gz",
        urls=(url, "http://b.example/T.tar.gz"),
        sha256=SHA,
        folder="",
        version="8.6",
        licence="",
        size=5000,
        gated="log in at NVIDIA",
    )
    tried = [Fault("T.tar.gz", "서버 응답 403: 접근이 거부됨")]
    error = source_archives.gated_error(
        preset, [(source, Want("T.tar.gz", source.urls, SHA, 5000))], tried
    )
    assert_error(error, GatedError, count=1, name=NAME, hint={"name": NAME}, where=["T.tar.gz"])
    (fault,) = error.faults
    for text in ("tensorrt 8.6", "log in at NVIDIA", url, "http://b.example/T.tar.gz"):
        assert text in fault.problem
    assert SHA in fault.expected and "5000" in fault.expected


# -- what other programs say


def test_apt_s_updates_are_told_apart_as_in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = "Err:1 http://x InRelease\n  Could not resolve 'x'\nE: Failed to fetch http://x"
    unsigned = "W: GPG error: http://x InRelease: NO_PUBKEY A4B469963BF863CC"
    error = apt_errors.update_failure(silence)
    assert isinstance(error, NoAnswerError)
    assert error.reason == Reason(code=NO_ANSWER, server=APT_SOURCES)
    assert error.message == "패키지 색인을 받지 못했습니다"
    error = apt_errors.update_failure(unsigned)
    assert type(error) is FetchError
    assert error.message == "패키지 색인에 서명한 키가 주어진 키 가운데 없습니다: A4B469963BF863CC"
    assert apt_errors.update_failure("E: x is expired").hint.startswith("시계(지금 20")
    monkeypatch.setenv("GAPFORGE_LANG", "en")
    assert apt_errors.update_failure(unsigned).message.startswith(
        "a package index is signed with the key A4B469963BF863CC"
    )


# -- what differs, and the base image


def test_changes_are_the_same_things_in_both_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = Entry(
        kind="wheel",
        path="wheels/pip.whl",
        sha256="a" * 64,
        size=1,
        origin="index:default",
        name="pip",
        version="24.2",
        roles=("install-tool",),
    )
    other = Entry(
        kind="wheel",
        path="wheels/pip.whl",
        sha256="c" * 64,
        size=1,
        origin="index:default",
        name="pip",
        version="24.2",
        roles=("install-tool",),
    )
    old, new = (
        Lock(preset=NAME, preset_sha256="0" * 64, images={}, entries=(entry,))
        for entry in (tool, other)
    )
    assert lock_diff.compare(old, new).changed == (
        f"wheel pip (설치 도구) 24.2: 내용이 바뀜, sha256 {'a' * 12} -> {'c' * 12}",
    )
    monkeypatch.setenv("GAPFORGE_LANG", "en")
    assert lock_diff.compare(old, new).changed == (
        f"wheel pip (install tool) 24.2: other bytes, sha256 {'a' * 12} -> {'c' * 12}",
    )


def test_the_verb_s_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with file_server() as site:
        world = World(site)
        install(site.url, monkeypatch.setattr)
        world.publish()
        world.write_preset(tmp_path)
        args = argparse.Namespace(
            presets=[NAME],
            all=False,
            dry_run=False,
            lock_only=False,
            update=False,
            provided=None,
            json=False,
        )
        project = Project(tmp_path, tmp_path / "artifacts")
        assert sync_verb.run(args, project) == 0
    files = len(json.loads(project.lock_file(NAME).read_text())["entries"])
    assert f"{NAME}: 파일 {files}개, " in capsys.readouterr().out


# -- the shell scripts


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The project's own scripts, in a folder where nothing is set up."""
    for name in ("deps_sync.sh", "quickstart", "tools/requirements.txt", "scripts/bootstrap.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def run(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "GAPFORGE_LANG": "ko",
        **env,
    }
    return subprocess.run(
        ["bash", *words], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_scripts(folder: Path) -> None:
    done = run(folder, "deps_sync.sh", "x", GAPFORGE_INTERPRETER="/nowhere/python")
    assert (done.returncode, done.stderr) == (
        17,
        "오류: GAPFORGE_INTERPRETER=/nowhere/python: Python 3.10 이상이 아닙니다\n다음: unset GAPFORGE_INTERPRETER\n",
    )
    done = run(
        folder, "deps_sync.sh", "x", GAPFORGE_INTERPRETER="/nowhere/python", GAPFORGE_LANG="en"
    )
    assert (done.returncode, done.stderr) == (
        17,
        "error: GAPFORGE_INTERPRETER=/nowhere/python is not a Python 3.10 or newer\nnext: unset GAPFORGE_INTERPRETER\n",
    )
    done = run(folder, "quickstart", "--nonsense")
    assert (done.returncode, done.stderr) == (
        2,
        "오류: 모르는 인자입니다: --nonsense\n다음: ./quickstart --help\n",
    )
    done = run(folder, "scripts/bootstrap.sh", "nonsense")
    assert (done.returncode, done.stderr) == (
        2,
        "오류: 모르는 인자입니다: nonsense (쓸 수 있는 값: sync, build, test, all)\n",
    )


def test_no_uv_and_no_network(folder: Path) -> None:
    done = run(folder, "deps_sync.sh", "x", GAPFORGE_OFFLINE="1")
    if "없는 프로그램이 있습니다" in done.stderr:
        pytest.skip("curl, apt-get or dpkg-deb is not installed")
    assert done.returncode == 17
    assert done.stderr.endswith(
        f"오류: {folder}/.gapforge/tools에 uv가 없는데 GAPFORGE_OFFLINE이 설정되어 있습니다\n"
        "다음: unset GAPFORGE_OFFLINE. 또는 uv를 지정하십시오: GAPFORGE_UV=/path/to/uv\n"
    )
