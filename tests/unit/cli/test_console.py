"""Tables, colour, the flags that every verb takes, completion and the manual page."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gapforge.base import output_mode
from gapforge.base.errors import Fault, PresetError
from gapforge.base.i18n import use_language
from gapforge.base.text_layout import label_rows, width
from gapforge.cli import completion, load_verbs, man_page
from gapforge.cli.main import main
from gapforge.cli.output import Row, print_error, show, show_table, table, warn
from gapforge.cli.verbs import build, doctor
from gapforge.doctor.check_result import FAIL, OK, CheckResult
from gapforge.image.smoke_checks import CheckResult as SmokeResult
from gapforge.model import preset as presets
from gapforge.model.schema import nearest
from samples import ROOT

HEAD = ("PRESET", "STATE", "요약")
ROWS = [
    ("ubuntu22.04-cuda12.4-torch2.5", "partially locked", "기준 구성: CUDA 12.4, PyTorch 2.5"),
    ("debian12-cpu-quickstart", "ready", "연습용: GPU와 레지스트리 없이 전 과정을 돌려 봅니다"),
]
WITHOUT_JSON = {"generate", "completion"}
CHECK = SmokeResult(component="ffmpeg", check="passes", ok=True, found="1", expected="2")
NOTES = ["the first note is a sentence with several words"]


@pytest.fixture(autouse=True)
def usual_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(key, raising=False)
    output_mode.set_mode()


@pytest.mark.parametrize("columns", [40, 59, 60, 80, 110])
def test_tables_fit_the_window(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = table(HEAD, [Row(ROWS[0], NOTES), Row(ROWS[1])])
    assert max(map(width, lines)) <= columns
    words = {word for row in [*ROWS, NOTES] for cell in row for word in cell.split()}
    assert words <= {word for line in lines for word in line.split()}, "a word was broken"
    assert (f"  STATE: {ROWS[1][1]}" in lines) is (columns < 60), "blocks below 60 columns only"


def test_long_word_gets_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """One long name of a file does not make blocks of all rows."""
    monkeypatch.setenv("COLUMNS", "60")
    name = "images/" + "a" * 64
    rows = [("get", "1 kB", "debs/x.deb"), ("have", "169.8 MB", name)]
    assert table(("", "", ""), list(map(Row, rows)), indent=2) == [
        "  get   1 kB      debs/x.deb",
        "  have  169.8 MB",
        f"        {name}",
    ]


@pytest.mark.parametrize("columns", [40, 80, None])
def test_labels_and_texts_fit_the_window(
    monkeypatch: pytest.MonkeyPatch, columns: int | None
) -> None:
    rows = [("상태", "ready"), ("summary", "one two three four five six seven " * 3)]
    lines = label_rows(rows, columns)
    assert columns is None or max(map(width, lines)) <= columns
    shown = " ".join(lines).split()
    assert shown.count("seven") == 3, "no word was broken or lost"
    assert lines[0] == ("  상태: ready" if columns == 40 else "  상태     ready")
    output_mode.set_mode(plain=True)
    assert label_rows(rows, columns)[0] == "  상태: ready", "nothing told by alignment"


def test_only_what_the_caller_allows_is_broken() -> None:
    rows = [("x", "a" * 50)]
    assert "a" * 50 in "\n".join(label_rows(rows, 40))
    broken = label_rows(rows, 40, broken=True)
    assert max(map(width, broken)) <= 40 and "".join(broken).count("a") == 50


def test_lines_are_wrapped_with_their_indent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show("  a long line of a pipe stays whole")
    monkeypatch.setenv("COLUMNS", "12")
    show("가나 다라 마바\n  ab cd ef gh ij")
    assert capsys.readouterr().out.splitlines() == [
        "  a long line of a pipe stays whole",
        "가나 다라",
        "  마바",
        "  ab cd ef",
        "    gh ij",
    ]


def test_errors_fit_the_window_but_commands_stay_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "./gapforge check a-preset-with-a-long-name another-preset"
    fault = Fault("presets/a.json", "a problem of several words in one line", "other words")
    error = PresetError("a message of several words in one line", faults=[fault], hint=command)
    print_error(error)
    assert capsys.readouterr().err.rstrip("\n") == error.render(), "lines of a pipe stay whole"
    monkeypatch.setenv("COLUMNS", "30")
    print_error(error)
    *problem, last = capsys.readouterr().err.splitlines()
    assert max(map(width, problem)) <= 30 and len(problem) == 6
    assert last == f"next: {command}"


def test_warnings_fit_the_window_as_errors_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "git add apps/a-folder-with-a-long-name/another-folder"
    warn("a warning of several words in one line", command)
    whole = capsys.readouterr().err
    assert whole == f"warning: a warning of several words in one line\nnext: {command}\n"
    monkeypatch.setenv("COLUMNS", "30")
    warn("a warning of several words in one line", command)
    assert capsys.readouterr().err.splitlines() == [
        "warning: a warning of",
        "  several words in one line",
        f"next: {command}",
    ]


def test_mark_is_printed_once_above_a_long_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    name = "presets/" + "a" * 30
    print_error(PresetError(name))
    assert capsys.readouterr().err.splitlines() == ["error:", f"  {name}"]


@pytest.mark.parametrize(
    ("word", "near"), [("--drivr", "--driver"), ("--preset", ""), ("--al", "--all")]
)
def test_dashes_do_not_make_flags_similar(word: str, near: str) -> None:
    flags = ["--all", "--driver", "--yes"]
    assert nearest(word, flags, prefix="--").rpartition(" ")[2].strip('"?') == near


def test_check_names_the_nearest_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "debian12-cpu-quikstart"]) == 3
    assert '"debian12-cpu-quickstart"' in capsys.readouterr().out.splitlines()[0]


def test_columns_count_hangul_twice() -> None:
    lines = table(("", "b"), [Row(("가나", "x")), Row(("ab", "y"))])
    assert lines == ["      B", "가나  x", "ab    y"]


def test_table_in_a_pipe_has_one_line_for_each_row() -> None:
    assert len(table(HEAD, list(map(Row, ROWS)))) == 1 + len(ROWS)


def test_plain_tells_nothing_by_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("FORCE_COLOR", "1")
    output_mode.set_mode(plain=True)
    lines = table(HEAD, [Row(ROWS[0], verdict="fail"), Row(ROWS[1], verdict="ok")])
    assert lines[:3] == [ROWS[0][0], f"  STATE: {ROWS[0][1]}", f"  요약: {ROWS[0][2]}"]
    assert table(("", "", ""), [Row(("get", "1 kB", "a.deb"))], indent=2) == ["  get 1 kB a.deb"]


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False),
        ({"FORCE_COLOR": "0"}, False),
    ],
)
def test_colour_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], coloured: bool
) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    rows = [Row(ROWS[0], verdict="ok"), Row(ROWS[1], verdict="fail")]
    assert ("\x1b[" in "".join(table(HEAD, rows))) is coloured


@pytest.mark.parametrize(
    "words", [["--verbose", "engine", "status", "--json"], ["engine", "status", "--json", "-v"]]
)
def test_verbose_before_and_after_the_verb(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    monkeypatch.setattr(output_mode, "set_mode", lambda **modes: seen.append(modes))
    assert main(words) == 0
    assert seen[-1] == {"quiet": False, "verbose": True, "plain": False}
    json.loads(capsys.readouterr().out)


def test_variables_set_the_mode_and_must_be_switches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GAPFORGE_QUIET", "1")
    assert main(["list"]) == 0 and output_mode.quiet()
    monkeypatch.setenv("GAPFORGE_QUIET", "maybe")
    assert main(["list"]) == 2


def test_quiet_prints_names_and_what_needs_attention(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --quiet, a table gives way to names, or to the rows that are not as they should be."""
    monkeypatch.setenv("GAPFORGE_ROOT", str(ROOT))
    assert main(["list", "--quiet"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert sorted(listed) == sorted(presets.names(ROOT / "presets"))
    assert main(["check", "--quiet", "debian12-cpu-quickstart", "none"]) == 3
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told if line[0] not in " 1"] == ["none"]
    output_mode.set_mode()
    fine = CheckResult(check="os", title="OS", status=OK, found="a", needed="a")
    bad = CheckResult(
        check="memory", title="memory", status=FAIL, found="y", needed="z", action="do this"
    )
    assert "OS" in doctor.render([fine, bad]).split()
    output_mode.set_mode(quiet=True)
    shown = doctor.render([fine, bad])
    assert "OS" not in shown.split() and {"memory", "y", "z", "do"} <= set(shown.split())
    assert len(doctor.render([fine]).splitlines()) == 1, "only the total"
    show_table(("a", "b"), [("c", "d")])
    build.print_checks([CHECK, replace(CHECK, check="failed", ok=False)])
    told = capsys.readouterr().out
    assert "passes" not in told and "failed" in told and "c  d" not in told


@pytest.mark.parametrize("verb", sorted(set(load_verbs.VERBS) - WITHOUT_JSON))
def test_json_is_alone_on_standard_output(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every verb with --json, in an empty project: a result or an error, and nothing beside it."""
    monkeypatch.setenv("GAPFORGE_ROOT", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    _parser, parsers = load_verbs.parsers_of(load_verbs.load([verb]))
    assert "--json" in parsers[verb].flags()
    words = {"engine": ["status"], "trust": ["list"], "unpack": [str(tmp_path)]}.get(verb, [])
    required = [a for a in parsers[verb]._actions if a.required and not a.option_strings]
    words = words or ["none"] * len(required)
    main([verb, *words, "--json"])
    assert isinstance(json.loads(capsys.readouterr().out), dict)


def commands() -> dict[str, completion.Command]:
    _parser, parsers = load_verbs.parsers_of(load_verbs.load())
    return {name: completion.command_of(parser) for name, parser in parsers.items()}


BASH = """
source /dev/stdin
for line in {lines}; do
    read -ra COMP_WORDS <<< "$line"
    [[ $line != *' ' ]] || COMP_WORDS+=("")
    COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMPREPLY=()
    _gapforge
    echo "${{COMPREPLY[*]}}"
done
"""


def test_bash_completes_verbs_flags_values_and_presets() -> None:
    lines = ["reh", "build --ty", "build --type ", "engine st", "check debian", "new x --from deb"]
    quoted = " ".join(f"'{ROOT}/gapforge {line}'" for line in lines)
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH.format(lines=quoted)],
        input=completion.script("bash", commands()),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "" and done.stdout.splitlines() == [
        "rehearse",
        "--type",
        "runtime dev",
        "start stop status",
        "debian12-cpu-quickstart",
        "debian12-cpu-quickstart",
    ]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_parse_their_script(shell: str) -> None:
    text = completion.script(shell, commands())
    for name, command in commands().items():
        assert name in text
        assert all((flag if shell == "zsh" else f"-l {flag[2:]}") in text for flag in command.flags)
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_manual_page_has_every_verb_and_flag(language: str) -> None:
    text = man_page.pages()[man_page.PAGES[language]]
    with use_language(language):
        flags = {flag for command in commands().values() for flag in command.flags}
    assert flags <= set(text.replace("\\-", "-").replace(",", " ").split())
    assert all(f"\n.SS {verb}" in text for verb in load_verbs.VERBS)
    assert not [line for line in text.splitlines() if line.startswith("'")]
