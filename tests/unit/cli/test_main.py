"""One clear message and a documented exit code for everything; never a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from gapforge.base.errors import ERROR_CLASSES, EngineError
from gapforge.base.text import width
from gapforge.cli import main as cli
from samples import ROOT

pytestmark = pytest.mark.every_python


def fake_verb(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    module = types.SimpleNamespace(
        HELP="x",
        run=run,
        add_arguments=lambda parser: parser.add_argument("--json", action="store_true"),
    )
    monkeypatch.setitem(sys.modules, "gapforge.cli.verbs.list", module)


def raiser(error: BaseException) -> object:
    def run(args: object, project: object) -> int:
        raise error

    return run


def test_exit_codes_are_unique() -> None:
    codes = [c.exit_code for c in ERROR_CLASSES]
    assert len(codes) == len(set(codes)) and 0 not in codes


def test_a_known_error_gives_its_message_hint_and_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_verb(monkeypatch, raiser(EngineError("no engine", hint="./gapforge engine start")))
    assert cli.main(["list"]) == EngineError.exit_code
    shown = capsys.readouterr().err
    assert "error: no engine" in shown and "next: ./gapforge engine start" in shown


def test_a_bug_is_saved_to_a_file_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("GAPFORGE_ROOT", str(tmp_path))
    fake_verb(monkeypatch, raiser(ZeroDivisionError("x")))
    assert cli.main(["list"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and "last-error.txt" in shown
    assert "ZeroDivisionError" in (tmp_path / ".gapforge" / "last-error.txt").read_text()


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (PermissionError(13, "Permission denied", "/x"), 15)],
)
def test_interrupts_and_system_errors_have_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    fake_verb(monkeypatch, raiser(error))
    assert cli.main(["list"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_json_errors_are_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    fake_verb(monkeypatch, raiser(EngineError("no engine")))
    assert cli.main(["list", "--json"]) == EngineError.exit_code
    assert json.loads(capsys.readouterr().out)["error"] == "engine"


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verfy"]) == 2
    assert 'did you mean "verify"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "launcher", ["gapforge", "build.py", "scripts/build.py", "src/gapforge/__main__.py"]
)
def test_launchers_work_from_anywhere_without_site_packages(launcher: str, tmp_path: Path) -> None:
    argv = (
        [str(ROOT / launcher)]
        if launcher == "gapforge"
        else [sys.executable, "-I", "-S", str(ROOT / launcher)]
    )
    done = subprocess.run(
        [*argv, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_launcher_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "gf").symlink_to(ROOT / "gapforge")
    done = subprocess.run(
        [str(tmp_path / "gf"), "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("gapforge ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--foo"], "오류: 모르는 인자입니다: --foo\n다음: ./gapforge --help\n"),
        (
            ["verify", "--jobs", "x"],
            "오류: --jobs: int 값이 아닙니다: 'x'\n다음: ./gapforge verify --help\n",
        ),
        (["verify", "--foo"], "오류: 모르는 인자입니다: --foo\n다음: ./gapforge verify --help\n"),
        (
            ["trust"],
            "오류: 인자가 빠졌습니다: ACTION, KEY|NAME|PRESET\n다음: ./gapforge trust --help\n",
        ),
        (
            ["verify", "--jobs"],
            "오류: --jobs: 값이 하나 필요합니다\n다음: ./gapforge verify --help\n",
        ),
        (
            ["verify", "--all=3"],
            "오류: --all: 값을 쓰지 않는 옵션에 값이 있습니다: '3'\n다음: ./gapforge verify --help\n",
        ),
        (
            ["verify", "--all", "x"],
            "오류: --all과 프리셋 이름은 함께 쓸 수 없습니다\n다음: ./gapforge verify --all\n",
        ),
        (["qqqqq"], '오류: "qqqqq": 없는 명령입니다\n다음: ./gapforge --help\n'),
    ],
)
def test_a_wrong_command_line_in_korean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert cli.main(words) == 2
    assert capsys.readouterr().err == said


def test_help_in_korean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    with pytest.raises(SystemExit):
        cli.main(["verify", "--help"])
    shown = capsys.readouterr().out
    assert all(
        word in shown
        for word in ("사용법: gapforge verify", "\n인자:\n", "\n옵션:\n", "이 도움말을 출력")
    )
    assert not any(word in shown for word in ("usage", "options", "positional", "show"))


@pytest.mark.parametrize("verb", ["", *cli.VERBS])
def test_every_argument_is_explained_in_korean_in_the_columns_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*filter(None, [verb]), "--help"])
    shown = capsys.readouterr().out.partition("\n종료 코드")[0]
    assert [line for line in shown.splitlines() if width(line) > 80] == []
    usage, _, rest = shown.partition("\n\n")
    first, *others = usage.splitlines()
    assert {width(line) - width(line.lstrip()) for line in others} <= {
        width(first.partition(" [")[0]) + 1
    }
    for entry in re.split(
        r"\n {2,4}(?=\S)", rest.partition("\n인자:" if "\n인자:" in rest else "\n옵션:")[2]
    )[1:]:
        assert re.search("[가-힣]", entry) or entry.strip() == "VERB", (
            f"not explained in Korean: {entry}"
        )


def test_a_bug_in_korean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    monkeypatch.setenv("GAPFORGE_ROOT", str(tmp_path))
    fake_verb(monkeypatch, raiser(ZeroDivisionError("x")))
    assert cli.main(["list"]) == 1
    assert capsys.readouterr().err == (
        "오류: gapforge의 버그입니다: ZeroDivisionError: x\n"
        f"다음: 이 파일과 함께 알려 주십시오: {tmp_path}/.gapforge/last-error.txt\n"
    )
