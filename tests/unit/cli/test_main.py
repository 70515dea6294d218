"""Errors end with a message and an exit code, and help is complete in both languages."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

from gapforge.base.errors import ERROR_CLASSES, EngineError
from gapforge.base.text_layout import width
from gapforge.cli import main as cli
from gapforge.cli.argument_parser import Parser
from samples import ROOT

pytestmark = pytest.mark.every_python


def fake_verb(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    module = types.SimpleNamespace(
        HELP="x",
        EXAMPLES=("./gapforge list",),
        run=run,
        add_arguments=lambda parser: parser.add_argument("--json", action="store_true"),
    )
    monkeypatch.setitem(sys.modules, "gapforge.cli.verbs.list", module)


def raiser(error: BaseException) -> object:
    def run(args: object, project: object) -> int:
        raise error

    return run


def test_known_error_prints_message_and_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_verb(monkeypatch, raiser(EngineError("no engine", hint="./gapforge engine start")))
    assert cli.main(["list"]) == EngineError.exit_code
    shown = capsys.readouterr().err
    assert "error: no engine" in shown and "next: ./gapforge engine start" in shown


def test_bug_saves_traceback_in_file(
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


def test_error_with_json_flag_is_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_verb(monkeypatch, raiser(EngineError("no engine")))
    assert cli.main(["list", "--json"]) == EngineError.exit_code
    assert json.loads(capsys.readouterr().out)["error"] == "engine"


@pytest.mark.parametrize("name", ["GAPFORGE_ROOT", "GAPFORGE_ARTIFACTS"])
def test_variable_of_a_folder_that_is_a_file_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(name, str(tmp_path / "file"))
    assert cli.main(["list"]) == 2
    shown = capsys.readouterr().err
    assert f"{name} " in shown and str(tmp_path / "file") in shown and f"export {name}=" in shown
    monkeypatch.setenv(name, str(tmp_path / "not there yet"))
    assert cli.main(["list"]) == 0


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verfy"]) == 2
    assert '"verify"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "launcher", ["gapforge", "build.py", "scripts/build.py", "src/gapforge/__main__.py"]
)
def test_launchers_work_isolated_from_any_folder(launcher: str, tmp_path: Path) -> None:
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


def test_launcher_works_through_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "gf").symlink_to(ROOT / "gapforge")
    done = subprocess.run(
        [str(tmp_path / "gf"), "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("gapforge ")


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize(
    ("words", "named", "command"),
    [
        (["--foo"], "--foo", "./gapforge"),
        (["verify", "--foo"], "--foo", "./gapforge verify"),
        (["verify", "--jobs", "x"], "'x'", "./gapforge verify"),
        (["verify", "--jobs"], "--jobs", "./gapforge verify"),
        (["verify", "--all=3"], "'3'", "./gapforge verify"),
        (["trust"], "ACTION, KEY|NAME|PRESET", "./gapforge trust"),
        (["trust", "lst"], '"list"', "./gapforge trust"),
        (["build", "x", "--type", "devv"], '"dev"', "./gapforge build"),
        (["--plian", "list"], '"--plain"', "./gapforge list"),
        (["qqqqq"], '"qqqqq"', "./gapforge"),
    ],
)
def test_wrong_command_line_names_argument(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    named: str,
    command: str,
    language: str,
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    assert cli.main(words) == 2
    message, hint = capsys.readouterr().err.splitlines()
    assert named in message and hint.endswith(f" {command} --help")
    assert bool(re.search("[가-힣]{2}", message)) is (language == "ko")
    assert language == "en" or "argument" not in message


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


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("columns", [40, 80, 110])
def test_overview_fits_window_and_names_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, language: str
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        cli.main(["help"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if width(line) > columns] == []
    first_words = {line.split()[0].rstrip(":") for line in lines if line.startswith("  ")}
    assert set(cli.VERBS) <= first_words
    assert {str(error.exit_code) for error in ERROR_CLASSES} <= first_words
    if columns >= 60:
        rows = [line for line in lines if re.match(r"  \S", line)]
        explained = [row for row in rows if re.search("[가-힣]{2}", row)]
        assert explained == (rows if language == "ko" else [])


def test_help_of_a_verb_is_its_help_flag(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for words in (["help", "verify"], ["verify", "--help"]):
        with pytest.raises(SystemExit):
            cli.main(words)
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and "gapforge verify --all" in shown[0]


@pytest.mark.parametrize("verb", cli.VERBS)
def test_examples_of_help_are_accepted(verb: str) -> None:
    module = importlib.import_module(f"gapforge.cli.verbs.{verb}")
    parser = Parser(prog=f"gapforge {verb}")
    module.add_arguments(parser)
    for example in module.EXAMPLES:
        words = shlex.split(example.replace("python3 build.py", "./gapforge build"))
        named = words[words.index("./gapforge") + 1 :]
        assert named[0] == verb
        parser.parse_args(list(itertools.takewhile(lambda word: word != ">", named[1:])))


@pytest.mark.parametrize("verb", cli.VERBS)
def test_korean_help_explains_every_argument(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    shown = re.split("\n종료 코드|\n예:", capsys.readouterr().out)[0]
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
