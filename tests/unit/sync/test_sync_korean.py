"""Sync decides, requests and writes the same in every language; a few whole messages in Korean."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gapforge.base.errors import FetchError
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.cli.verbs import sync as sync_verb
from gapforge.model.lock import Entry, Lock
from gapforge.model.unresolved_item import APT_SOURCES, NO_ANSWER, Reason
from gapforge.store.store import Store
from gapforge.sync import apt_errors, lock_diff, lock_only
from gapforge.sync.download import Downloader, Want
from gapforge.sync.network import Network, NoAnswerError
from gapforge.sync.shared_steps import Options
from raised_errors import values_of
from samples import ROOT
from servers import file_server
from sync_world import NAME, World, install

BODY = random.Random(5).randbytes(60_000)
SHA = hashlib.sha256(BODY).hexdigest()
REGISTRY = {role: {"image": f"team/base-{role}:1"} for role in ("builder", "runtime")}


@pytest.fixture(autouse=True)
def korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")


def test_reason_in_korean() -> None:
    reason = Reason(code=NO_ANSWER, server="registry:docker.io", resolved_with="torch")
    assert reason.message() == (
        "torch와 함께 해결해야 합니다. docker.io 레지스트리에서 응답이 없습니다"
    )


@pytest.mark.parametrize("silent", [[], ["registry", "default"], ["torch"]])
def test_lock_has_same_bytes_in_every_language(
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
            for item in outcome.lock.unresolved:
                assert item.reason.message() in screen
    assert texts[0] == texts[1]


BAD = "b" * 64
DOWNLOADS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "absent": ({"status": 404}, {}, "404"),
    "forbidden": ({"status": 403}, {}, "403"),
    "teapot": ({"status": 418}, {}, "418"),
    "busy": ({"fail_times": 9}, {}, "503"),
    "truncated": ({"cut_after": 40_000, "cuts": 1}, {}, ""),
    "page": ({"content_type": "text/html"}, {"size": 5}, "웹 페이지"),
    "other size": ({}, {"size": 5}, str(len(BODY))),
    "other bytes": ({}, {"sha256": BAD}, SHA),
}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_downloads_retry_alike_in_every_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    behaviour, want, problem = DOWNLOADS[name]
    seen = []
    for language in ("en", "ko"):
        monkeypatch.setenv("GAPFORGE_LANG", language)
        with file_server() as site:
            url = site.add("/x.bin", BODY, **behaviour)
            loader = Downloader(
                Store(tmp_path / language), Network(retries=1), Progress("t", out=io.StringIO())
            )
            try:
                loader.fetch([Want("x.bin", (url,), **{"sha256": SHA, **want})])
                assert not problem
            except FetchError as error:
                (fault,) = error.faults
                assert fault.where == "x.bin" and url in fault.problem
                if language == "ko":
                    assert problem in fault.problem
            left = sorted(p.name for p in (tmp_path / language).rglob("*") if p.is_file())
            seen.append((site.log, left))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("language", ["ko", "en"])
def test_update_failures_are_recognised(monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    silence = "Err:1 http://x InRelease\n  Could not resolve 'x'\nE: Failed to fetch http://x"
    unsigned = "W: GPG error: http://x InRelease: NO_PUBKEY A4B469963BF863CC"
    error = apt_errors.update_failure(silence)
    assert isinstance(error, NoAnswerError)
    assert error.reason == Reason(code=NO_ANSWER, server=APT_SOURCES)
    error = apt_errors.update_failure(unsigned)
    assert type(error) is FetchError
    assert values_of(error.message) == {"key": "A4B469963BF863CC"}
    hint = values_of(apt_errors.update_failure("E: x is expired").hint)
    assert hint["accept_expired"] == apt_errors.ACCEPT_EXPIRED


@pytest.mark.parametrize("language", ["ko", "en"])
def test_lock_diff_tells_tool_from_package(monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    old, new = (
        Lock(
            preset=NAME,
            preset_sha256="0" * 64,
            images={},
            entries=(
                Entry(
                    kind="wheel",
                    path="wheels/pip.whl",
                    sha256=digit * 64,
                    size=1,
                    origin="index:default",
                    name="pip",
                    version="24.2",
                    roles=("install-tool",),
                ),
            ),
        )
        for digit in "ac"
    )
    (line,) = lock_diff.compare(old, new).changed
    item = {"ko": "wheel pip (설치 도구) 24.2", "en": "wheel pip (install tool) 24.2"}[language]
    assert values_of(line) == {"item": item, "old": "a" * 12, "new": "c" * 12}


# -- the shell scripts


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that has only the project's scripts."""
    scripts = ("scripts/bootstrap.sh", "scripts/common.sh")
    for name in ("deps_sync.sh", "quickstart", "tools/requirements.txt", *scripts):
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


@pytest.mark.parametrize(
    ("words", "env", "code", "texts"),
    [
        (
            ("deps_sync.sh", "x"),
            {"GAPFORGE_INTERPRETER": "/nowhere/python"},
            17,
            ["GAPFORGE_INTERPRETER=/nowhere/python", "unset GAPFORGE_INTERPRETER\n"],
        ),
        (("quickstart", "--nonsense"), {}, 2, ["--nonsense", "./quickstart --help\n"]),
        (("scripts/bootstrap.sh", "nonsense"), {}, 2, ["nonsense", "sync", "build", "test", "all"]),
    ],
)
@pytest.mark.parametrize("language", ["ko", "en"])
def test_scripts_reject_bad_arguments(
    folder: Path,
    words: tuple[str, ...],
    env: dict[str, str],
    code: int,
    texts: list[str],
    language: str,
) -> None:
    done = run(folder, *words, GAPFORGE_LANG=language, **env)
    assert done.returncode == code
    assert done.stderr.startswith({"ko": "오류: ", "en": "error: "}[language])
    assert all(text in done.stderr for text in texts)


def test_deps_sync_without_uv_and_network(folder: Path) -> None:
    done = run(folder, "deps_sync.sh", "x", GAPFORGE_OFFLINE="1")
    assert done.returncode == 17
    if f"{folder}/.gapforge/tools" not in done.stderr:
        pytest.skip("curl, apt-get or dpkg-deb is not installed")
    assert "GAPFORGE_OFFLINE" in done.stderr and "GAPFORGE_UV=/path/to/uv" in done.stderr
