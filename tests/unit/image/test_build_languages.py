"""What the build says, in Korean: whole sentences out of their parts, and no decision that depends on the language."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import samples
from conftest import PRESET
from fabric import FILES
from gapforge.base.errors import (
    GapforgeError,
    LintError,
    SmokeError,
    SourceError,
    TargetError,
    VerifyError,
)
from gapforge.base.files import mark_folder
from gapforge.base.project import Project
from gapforge.cli.verbs import build as build_command
from gapforge.image import build, env_file, smoke_checks
from gapforge.image.application_source import choose, copy_into
from gapforge.image.dockerfile import lint, raise_for, render
from gapforge.model import preset as presets
from gapforge.model.preset import Application, Secret
from gapforge.store.verify_artifacts import VerifyReport, verify
from places import copy_repository

APP = Application("xaiva-media", "examples/xaiva-media", (), (), ())


@pytest.fixture(autouse=True)
def korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")


def in_both(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for language in ("en", "ko"):
        monkeypatch.setenv("GAPFORGE_LANG", language)
        yield language


def texts(error: GapforgeError) -> list[tuple[str, str, str]]:
    return [(fault.where, fault.problem, fault.expected) for fault in error.faults]


def test_no_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as error:
        choose(APP, settings={"XAIVA_MEDIA_SOURCE": "elsewhere"}, root=tmp_path)
    assert error.value.message == (
        f"xaiva-media의 소스를 쓸 수 없습니다. {tmp_path}/elsewhere: 폴더가 없음 "
        "(지정한 곳: XAIVA_MEDIA_SOURCE (.env 또는 환경 변수))"
    )
    assert texts(error.value) == [
        ("--app-source", "주어지지 않음", ""),
        (".env의 XAIVA_MEDIA_SOURCE", "elsewhere", ""),
        ("프리셋", "examples/xaiva-media (보지 않음)", ""),
    ]
    assert error.value.hint.startswith("--app-source DIR 또는 .env에 XAIVA_MEDIA_SOURCE=DIR.")


def test_the_report_names_what_chose_the_source_in_one_language(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "CMakeLists.txt").touch()
    (tmp_path / "app" / ".env").touch()
    chosen = choose(APP, settings={"XAIVA_MEDIA_SOURCE": "app"}, root=tmp_path)
    assert chosen.chosen_by == "XAIVA_MEDIA_SOURCE (.env or environment)"
    assert chosen.chosen_by_text == "XAIVA_MEDIA_SOURCE (.env 또는 환경 변수)"
    assert chosen.warnings == (
        f"{tmp_path}/app/.env 파일이 응용 프로그램 소스 안에 있습니다. 이 파일은 빌드에 복사하지 않습니다",
    )
    other = choose(APP, flag=str(tmp_path / "app"), root=tmp_path)
    assert other.chosen_by == other.chosen_by_text == "--app-source"


def test_what_cannot_be_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "app", mark_folder(tmp_path / "context", "test") / "app"
    source.mkdir()
    os.mkfifo(source / "pipe")
    (source / "away").symlink_to("../elsewhere")
    (source / "etc").symlink_to("/etc")
    with pytest.raises(SourceError) as error:
        copy_into(source, target)
    assert error.value.message == f"{source}: 빌드에 쓸 수 없는 것이 들어 있습니다"
    assert error.value.hint == f"지우거나 {source}/.gapforgeignore에 적으십시오"
    assert texts(error.value) == [
        (
            "away",
            '"../elsewhere"에 대한 심볼릭 링크임: 폴더 밖을 가리킴',
            "폴더 안을 가리키는 링크",
        ),
        (
            "etc",
            '"/etc"에 대한 심볼릭 링크임: 절대 경로여서 이미지 안에서는 다른 곳을 가리킴',
            "폴더 안을 가리키는 링크",
        ),
        ("pipe", "일반 파일이 아님 (장치, 파이프 또는 소켓)", "파일, 폴더 또는 링크"),
    ]


WRONG_ENV = 'A\n1=x\nB="x\\q"\nC="x" y\nD=1\nD=2\nE=\'never\n'


def test_faults_of_env() -> None:
    values, faults = env_file.parse(WRONG_ENV.encode())
    assert values == {"D": "1"}
    assert [(fault.where, fault.problem, fault.expected) for fault in faults] == [
        (".env: 1행", '"="가 없음', "KEY=VALUE"),
        (".env: 2행", '"=" 앞에 쓸 수 있는 키가 없음', "숫자로 시작하지 않는 영문자, 숫자, '_'"),
        (".env: 3행", "큰따옴표 안에 모르는 이스케이프가 있음", '\\n \\r \\t \\\\ \\" 또는 \\$'),
        (".env: 4행", "닫는 따옴표 뒤에 글자가 있음", "아무것도 없거나 ' #'으로 시작하는 주석"),
        (".env: 6행", "D: 다시 설정됨", "키마다 한 번 (5행에 있음)"),
        (".env: 7행", "따옴표 ' 뒤에 닫는 따옴표가 없음", "닫는 따옴표"),
    ]


def test_what_would_be_right_does_not_hang_on_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "en")
    faults = {fault.problem: fault.expected for fault in env_file.parse(WRONG_ENV.encode())[1]}
    assert faults["opens a ' that is never closed"] == "a closing quote"
    assert faults["has an unknown escape in double quotes"] == '\\n \\r \\t \\\\ \\" or \\$'


def test_a_required_key_without_value(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    with pytest.raises(GapforgeError) as error:
        env_file.load(file, [Secret("TOKEN", "secret", True)], environ={})
    assert error.value.message == "필요한 키의 값이 없습니다"
    assert texts(error.value) == [
        ("TOKEN", f"프리셋에 필요한 값이 {file}에도 환경 변수에도 없음", "TOKEN=VALUE 줄")
    ]


def damaged(project: Project, monkeypatch: pytest.MonkeyPatch) -> VerifyReport:
    """Every kind of fault: gone, strange, longer, shorter, changed, one too many, and a folder that nobody may list."""
    folder = project.artifacts_of(PRESET)
    gone, pipe, longer, shorter, changed = [
        path for path in sorted(FILES) if not path.startswith("debs/")
    ][:5]
    for path in (gone, pipe, longer, shorter, changed):
        data = FILES[path][1]
        (folder / path).unlink(missing_ok=True)
        if path == pipe:
            os.mkfifo(folder / path)
        elif path != gone:
            part = {
                longer: data + b"x",
                shorter: data[:-1],
                changed: bytes([data[0] ^ 1]) + data[1:],
            }
            (folder / path).write_bytes(part[path])
    (folder / "stranger").write_text("12345")
    (folder / "closed").mkdir(exist_ok=True)
    listed = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).rstrip("/").endswith("/closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        return verify(folder)


def test_verify_decides_the_same_in_both_languages(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        [
            (fault["file"], fault["kind"])
            for fault in damaged(project, monkeypatch).to_json()["faults"]
        ]
        for _ in in_both(monkeypatch)
    ]
    assert found[0] == found[1]
    kinds = {kind for _, kind in found[0]}
    assert kinds == {"missing", "not-a-file", "grown", "short", "changed", "extra", "unreadable"}
    assert ("closed", "unreadable") in found[0]


def test_faults_of_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    report = damaged(project, monkeypatch)
    error = report.error()
    assert error.message == f"{report.artifacts}: 잠금과 다른 것이 7개 있습니다"
    assert error.hint.startswith("매체에서 다시 복사: closed ") and error.hint.endswith(
        f"; 또는 온라인에서: ./deps_sync.sh {PRESET}; 폴더에 있어서는 안 되는 파일(“남는 파일”)을 삭제; "
        f"그다음: ./gapforge verify {PRESET}"
    )
    said = {fault.kind: fault.to_fault() for fault in report.faults}
    assert (said["extra"].problem, said["extra"].expected) == (
        "남는 파일: 5바이트",
        "이 이름의 파일이 없음",
    )
    assert (said["not-a-file"].problem, said["not-a-file"].expected) == (
        "파일이 아님: 파이프",
        "일반 파일",
    )
    assert said["missing"].problem == "빠짐: 파일이 없음" and said["missing"].expected.endswith(
        "바이트"
    )
    assert said["unreadable"].problem == "읽지 못함: 폴더를 읽을 수 없음: 권한이 없음"
    assert said["changed"].problem.startswith("내용이 바뀜: sha256 ")


def test_no_artifacts(tmp_path: Path) -> None:
    with pytest.raises(VerifyError) as error:
        verify(tmp_path / "none")
    assert (
        error.value.message == f"{tmp_path}/none: 폴더가 없습니다. 아직 받거나 복사하지 않았습니다"
    )


WRONG_DOCKERFILE = """\
# syntax=docker/dockerfile:1
ARG BASE=ubuntu:22.04
FROM $BASE AS one
FROM debian
ADD https://example.org/x /
RUN --network=host --security=insecure --mount=type=ssh true
COPY --from=nowhere /x /
NONSENSE
"""


def test_lint_finds_the_same_in_both_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    english, korean = (lint(WRONG_DOCKERFILE) for _ in in_both(monkeypatch))
    assert len(korean) == len(english) == 9 and not set(korean) & set(english)


def test_faults_of_a_dockerfile() -> None:
    faults = lint(WRONG_DOCKERFILE)
    assert [
        (fault.where.removeprefix("Dockerfile: "), fault.problem, fault.expected)
        for fault in faults
    ] == [
        ("1행", "프런트엔드(syntax)를 지정함. 빌더가 내려받으려 함", "이런 줄이 없음"),
        (
            "3행",
            "FROM $BASE: 이 ARG의 기본값은 빌더가 내려받으려 하는 이미지임",
            "기본값이 없거나 localhost/gapforge/로 시작하는 ARG BASE",
        ),
        (
            "4행",
            'FROM "debian": 빌더가 레지스트리에서 찾으려 하는 이미지임',
            "앞 단계, scratch 또는 gapforge의 $ARG",
        ),
        ("5행", "네트워크에서 받아 오는 ADD임", "컨텍스트 안 파일의 COPY"),
        (
            "6행",
            'RUN이 네트워크를 따로 정함 ("--network=host")',
            "--network 없음 (빌드에는 네트워크가 없음)",
        ),
        ("6행", 'RUN에 "--security=insecure" 플래그가 있음', "--mount만"),
        ("6행", 'RUN --mount의 type이 "ssh"임', "bind 또는 cache 또는 secret 또는 tmpfs"),
        (
            "7행",
            'COPY from "nowhere": 앞 단계가 아니므로 빌더가 레지스트리에서 이미지를 찾으려 함',
            "앞 단계",
        ),
        ("8행", '"NONSENSE": 모르는 명령임', faults[-1].expected),
    ]
    with pytest.raises(LintError) as error:
        raise_for(faults)
    assert error.value.message == "Dockerfile: 네트워크에 닿을 수 있습니다"
    with pytest.raises(LintError, match=r"^Dockerfile: 시크릿을 채워 넣을 수 없습니다$"):
        render("", [])


class OneAnswer:
    """An engine whose containers all answer the same."""

    def __init__(self, code: int, output: str) -> None:
        self.answer = (code, output, "")

    def run(self, *words: object, **more: object) -> tuple[int, str, str]:
        return self.answer


@pytest.mark.parametrize(
    ("code", "output", "check", "told"),
    [
        (
            0,
            "",
            "check reports something",
            ("ffmpeg: 검사가 결과를 냄", "실제값: 결과 없음", "결과 하나 이상"),
        ),
        (
            3,
            "",
            "check runs to its end",
            ("ffmpeg: 검사가 끝까지 실행됨", "실제값: 종료 코드 3: 메시지 없음", "종료 코드 0"),
        ),
        (
            0,
            "what",
            "output is readable",
            ("ffmpeg: 출력을 읽을 수 있음", "실제값: what", "한 줄에 JSON 객체 하나"),
        ),
        (
            0,
            '{"check": "import", "ok": false, "found": "none", "expected": "5"}',
            "import",
            ("ffmpeg: import", "실제값: none", "5"),
        ),
    ],
)
def test_failed_checks(
    root: Path,
    code: int,
    output: str,
    check: str,
    told: tuple[str, str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine: Any = OneAnswer(code, output)
    results = smoke_checks.run_checks(
        engine, "x:y", [{"component": "ffmpeg", "enabled": True}], root / "components"
    )
    assert [result.to_json()["check"] for result in results] == [check]  # in any language
    with pytest.raises(SmokeError) as error:
        smoke_checks.raise_for(results, "x:y")
    assert (
        error.value.message
        == "검사 1개 중 1개가 실패했습니다. 이미지에 태그를 붙이지 않았습니다 (x:y에 남아 있음)"
    )
    assert texts(error.value) == [told]
    build_command.print_checks(results)
    assert f"실패  ffmpeg  {told[0].partition(': ')[2]}  " in capsys.readouterr().out


def test_another_operating_system(project: Project) -> None:
    preset = presets.find(project.presets, PRESET)
    lock = build.load_lock(project, preset)
    build.check_target(preset, lock)
    image = next(iter(lock.images.values()))
    object.__setattr__(image, "os_id", "fedora")
    with pytest.raises(TargetError) as error:
        build.check_target(preset, lock)
    assert error.value.message == "기반 이미지의 운영체제가 대상 운영체제가 아닙니다"
    assert texts(error.value)[0][1:] == ("fedora 12임", "debian 12")


def test_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_repository(tmp_path / "project")
    project = Project(tmp_path / "project", tmp_path / "project/artifacts")
    preset = presets.find(project.presets, PRESET)
    samples.lay_artifacts(project.artifacts_of(PRESET), samples.lock(preset))
    options = build.Options(type="runtime")
    inputs = build.read_inputs(project, preset, options)

    class Args:
        engine, json = "", False

    outputs = []
    monkeypatch.setenv("PATH", str(tmp_path))  # no engine
    for _ in in_both(monkeypatch):
        assert build_command._dry_run(Args, project, inputs, options) == 0  # type: ignore[arg-type]
        outputs.append(capsys.readouterr().out.splitlines())
    english, korean = outputs
    assert len(english) == len(korean) and english[-1] == korean[-1]
    assert english[0] == f"preset       {PRESET} ({preset.sha256[:12]})"
    assert korean[0] == f"프리셋       {PRESET} ({preset.sha256[:12]})"
    assert [line.split("  ")[0] for line in korean[1:4]] == ["이미지", "기반 이미지", "기반 이미지"]
    assert any(line.startswith("소스 폴더    ") and line.endswith(" (프리셋)") for line in korean)


@pytest.mark.parametrize("script", ["gapforge.py", "build.py"])
def test_an_old_python(root: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    for _ in in_both(monkeypatch):
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
            patch.setattr(sys, "version_info", (3, 9))
            runpy.run_path(str(root / script), run_name="__main__")
        said.append(end.value.code)
    assert said == [
        "error: gapforge needs Python 3.10 or newer; Ubuntu 22.04 has it as /usr/bin/python3",
        "오류: gapforge는 Python 3.10 이상이 필요합니다. Ubuntu 22.04에는 /usr/bin/python3에 있습니다",
    ]
