"""Test the questions in a window: keys of a script, screens as text, and a terminal's modes."""

from __future__ import annotations

import argparse
import io
import itertools
import os
import pty
import re
import subprocess
import termios
from contextlib import suppress
from dataclasses import replace

import pytest

from fabricated_artifacts import fabricate
from gapforge.base import output_mode
from gapforge.base.errors import EngineError
from gapforge.base.project import Project
from gapforge.base.text_layout import width
from gapforge.cli.verbs import build
from gapforge.doctor.check_result import Check, CheckResult
from gapforge.wizard import ask
from gapforge.wizard.ask import wants_plain
from gapforge.wizard.choices import Choices
from gapforge.wizard.facts import MEASURED_MINUTES, MEASURED_MINUTES_CUDA, Facts, read_facts
from gapforge.wizard.questions import BUILD, STOP, Questions
from gapforge.wizard.screen import Drawn, command_lines
from gapforge.wizard.terminal import Terminal, first_key
from samples import ROOT
from wizard_screens import Recorder, answer, record

PRACTICE = "debian12-cpu-quickstart"
REFERENCE = "ubuntu22.04-cuda11.8-torch2.1"
BY_HAND = ["end", "enter", *"12.6", "enter", "enter", "enter", "enter"]  # up to the last question
ENGINE = Check("engine", "engine", "docker 20.10").fail("not running", "./gapforge engine start")
DISK = Check("disk", "disk (engine)", "about 12 GB").ok("20 GB free")


def problems(name: str) -> list[CheckResult]:
    return [ENGINE, DISK]


def cursor(window: Recorder) -> str:
    """Return the line under the cursor."""
    return window.screens[-1].lines[window.screens[-1].cursor]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([], PRACTICE),
        (["down", "up", "up"], PRACTICE),
        (["down"], "ubuntu22.04-cpu-torch2.5"),
        (["end"], "manual"),
        (["end", "home"], PRACTICE),
        (["3"], "ubuntu22.04-cuda11.8-torch2.0"),
        ([*"11.8"], "ubuntu22.04-cuda11.8-torch2.0"),
        ([*"11.8", "down"], REFERENCE),
        ([*"11.8", "down", "down", "page-down"], REFERENCE),
        ([*"CUDA 11.8 2.1"], REFERENCE),
        ([*"xyz", "backspace", "backspace", "backspace"], PRACTICE),
        ([*"12", "escape"], PRACTICE),
        ([*"12", "clear", "down"], "ubuntu22.04-cpu-torch2.5"),
        (["unknown", "right", ""], PRACTICE),
    ],
)
def test_keys_move_and_filter(facts: Facts, keys: list[str], expected: str) -> None:
    window = Recorder([*keys])
    questions = answer(facts, window)
    assert f"  {expected}" in cursor(window)
    assert questions.asked == []
    assert answer(facts, Recorder([*keys, "enter"])).asked[0] == ("preset", expected)


def test_nothing_is_chosen_without_a_match(facts: Facts) -> None:
    window = Recorder([*"quickstrat", "enter", "enter"])
    assert answer(facts, window).asked == []
    assert '"quickstrat"' in window.text
    assert window.screens[-1].cursor == -1


@pytest.mark.parametrize("back", [["left"], ["escape"], ["b", "enter"], [*"12", "escape", "left"]])
def test_back_asks_the_question_before(facts: Facts, back: list[str]) -> None:
    window = Recorder(["end", "enter", "down", "enter", *back])
    questions = answer(facts, window)
    assert questions.asked == [("preset", "manual")]
    assert "[2/6]" in window.text
    assert answer(facts, Recorder([*back, *back])).asked == []  # the first question stays


@pytest.mark.parametrize("quit", [["quit"], ["q", "enter"]])
def test_quit_ends_at_once(facts: Facts, quit: list[str]) -> None:
    window = Recorder([*quit, "enter", "enter"])
    assert answer(facts, window).current is not None
    assert len(window.keys) == 2


def test_skipped_steps_are_told_with_the_reason(facts: Facts) -> None:
    window = Recorder(["end", "enter", "end", "enter", "enter", "enter"])
    questions = answer(facts, window, Choices(type="dev"))
    told = dict(questions.rows)
    assert told["TensorRT"] == "without TensorRT (the only choice)"
    assert told["image type"] == "Dev (given)"
    chosen = answer(facts, Recorder(["enter"]))
    assert dict(chosen.rows)["Python"] == "3.11 (of the preset)"
    unready = answer(facts, Recorder(["down", "enter"]))
    assert "asked as soon as" in dict(unready.rows)["image type"]
    assert unready.current is not None and unready.current.items[0].value == "end"


def test_preset_with_artifacts_is_offered_first(facts: Facts) -> None:
    name = "ubuntu22.04-cuda12.8-torch2.8"
    project, preset = facts.project, facts.presets[name]
    fabricate(project, preset)
    question = answer(read_facts(project, facts.look), Recorder([])).current
    assert question is not None
    names = [item.value for item in question.items]
    assert names[:2] == [name, PRACTICE]
    assert question.default == 0


def test_problems_of_the_machine_are_told_before_the_build(facts: Facts) -> None:
    looked: list[str] = []

    def look(name: str) -> list[CheckResult]:
        looked.append(name)
        return problems(name)

    window = Recorder(["enter", "enter", "escape", "enter"])
    questions = answer(replace(facts, look=look), window)
    assert looked == [PRACTICE]  # once, although the question was shown twice
    assert "./gapforge engine start" in window.text
    assert "20 GB free" in window.text
    assert questions.current is not None
    assert questions.current.items[questions.current.default].value == STOP
    healthy = answer(
        replace(facts, look=lambda name: [DISK]), Recorder(["enter", "enter", "enter"])
    )
    assert healthy.outcome == BUILD


def test_machine_that_cannot_be_checked_is_told(facts: Facts) -> None:
    def look(name: str) -> list[CheckResult]:
        raise EngineError("broken", hint="docker version")

    window = Recorder(["enter", "enter"])
    answer(replace(facts, look=look), window)
    assert "docker version" in window.text


def test_last_build_tells_the_time(facts: Facts) -> None:
    report = facts.project.dist / PRACTICE / "runtime" / "report.json"
    report.parent.mkdir(parents=True)
    report.write_text('{"seconds": {"build": 100.0, "smoke": 84}}')
    window = Recorder(["enter", "enter"])
    answer(facts, window)
    assert "3 min 04 s" in window.text
    report.write_text('{"seconds": []}')
    answer(facts, window := Recorder(["enter", "enter"]))
    assert "two cores" in window.text


def test_measured_times_are_those_of_the_readme() -> None:
    text = (ROOT / "README.en.md").read_text(encoding="utf-8")
    assert f"| {MEASURED_MINUTES_CUDA} min on two cores for one GPU architecture" in text
    minutes, seconds = map(int, re.findall(r"(\d+) min (\d+) s to build and check", text)[0])
    assert round(minutes + seconds / 60) == MEASURED_MINUTES


@pytest.mark.parametrize("language", ["en", "ko"])
def test_screens_fit_the_window(
    facts: Facts, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    facts = replace(facts, look=problems)
    scripts = (BY_HAND, ["enter", "enter", "page-down", "page-up"], [*"11.8", "down", "enter"])
    for columns, rows in itertools.product((20, 40, 80, 110), (8, 24, 50)):
        windows = [Recorder(keys, columns, rows) for keys in scripts]
        for window in windows:
            answer(facts, window)
        assert all(window.screens[-1].cursor >= 0 for window in windows)
        for screen in itertools.chain.from_iterable(window.screens for window in windows):
            assert len(screen.lines) <= rows
            assert max(map(width, screen.lines)) <= columns
            if screen.cursor >= 0:
                assert screen.lines[screen.cursor].startswith(">"), "the cursor is not visible"


def test_all_of_a_long_summary_can_be_seen(facts: Facts) -> None:
    window = Recorder(["enter", "enter", *["page-down"] * 8], 40, 20)
    answer(replace(facts, look=problems), window)
    seen = {line for screen in window.screens for line in screen.lines}
    tall = Recorder(["enter", "enter"], 40, 100)
    answer(replace(facts, look=problems), tall)
    assert set(tall.screens[-1].lines) <= seen


def test_recording_is_the_same_every_time(facts: Facts) -> None:
    assert record(facts.project, BY_HAND, 80) == record(facts.project, BY_HAND, 80)


def test_resized_window_is_drawn_again(facts: Facts) -> None:
    window = Recorder([(40, 24), "down", (30, 10)])
    answer(facts, window)
    widths = [max(map(width, screen.lines)) for screen in window.screens]
    assert widths[0] > 40 >= widths[1] > 30 >= widths[-1]
    assert "ubuntu22.04-cpu-torch2.5"[:20] in cursor(window)


def test_suspended_window_is_drawn_again(facts: Facts) -> None:
    window = Recorder(["suspend"])
    answer(facts, window)
    assert (window.suspended, len(window.screens)) == (1, 2)


@pytest.mark.parametrize("columns", [20, 40, 200])
def test_command_stays_one_command_in_every_width(columns: int) -> None:
    words = ["python3", "build.py", "--app-source", "/a folder/it's", "--tag", "a:1", "--quiet"]
    script = "printf '%s\\n' " + "\n".join(command_lines(words, columns)).lstrip()
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == words


def test_command_has_the_given_flags(facts: Facts) -> None:
    given = Choices(base="registry.site/base:1")
    window = Recorder(["enter", "enter"])
    questions = answer(facts, window, given, flags=["--tag", "app:1"])
    assert questions.command()[2:] == [
        *[PRACTICE, "--base", "registry.site/base:1", "--type", "runtime"],
        *["--tag", "app:1", "--non-interactive"],
    ]
    pasted = argparse.ArgumentParser()
    build.add_arguments(pasted)
    args = pasted.parse_args(questions.command()[2:])
    assert (args.name, args.base, args.type) == (PRACTICE, "registry.site/base:1", "runtime")
    assert args.tag == "app:1" and args.non_interactive
    assert build.further_flags(args) == ["--tag", "app:1"]
    assert questions.result() == Choices(preset=args.name, base=args.base, type=args.type)


@pytest.mark.parametrize(
    ("text", "final", "expected"),
    [
        ("", True, ("", "")),
        ("\x1b[Ab", False, ("up", "b")),
        ("\x1bOB", False, ("down", "")),
        ("\x1b", False, ("", "\x1b")),
        ("\x1b", True, ("escape", "")),
        ("\x1b[", False, ("", "\x1b[")),
        ("\x1b[1;5Ax", False, ("unknown", "x")),
        ("\x1b[6~", False, ("page-down", "")),
        ("\r", False, ("enter", "")),
        ("\x03", False, ("quit", "")),
        ("한글", False, ("한", "글")),
        ("\x00", False, ("unknown", "")),
    ],
)
def test_key_is_taken_from_what_the_terminal_sends(
    text: str, final: bool, expected: tuple[str, str]
) -> None:
    assert first_key(text, final=final) == expected


def test_terminal_is_restored_whatever_happens() -> None:
    master, slave = pty.openpty()
    with (
        open(slave, encoding="utf-8") as stdin,
        open(os.dup(slave), "w", encoding="utf-8") as stdout,
    ):
        before = termios.tcgetattr(slave)
        with pytest.raises(KeyboardInterrupt), Terminal(stdin, stdout) as terminal:
            assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
            os.write(master, "\x1b[B한\x1b".encode())
            assert [terminal.key() for _ in range(3)] == ["down", "한", "escape"]
            terminal.show(Drawn(("first", "> second"), 1))
            raise KeyboardInterrupt
        assert termios.tcgetattr(slave) == before
        shown = ""
        while "\x1b[?1049l" not in shown:
            shown += os.read(master, 4096).decode()
    os.close(master)
    assert shown.index("\x1b[?1049h") < shown.index("first") < shown.index("\x1b[?1049l")
    assert shown.rstrip().endswith("\x1b[?25h\x1b[?1049l")


def test_terminal_that_went_away_ends_the_input() -> None:
    master, slave = pty.openpty()
    stdin, stdout = open(slave, encoding="utf-8"), open(os.dup(slave), "w", encoding="utf-8")  # noqa: SIM115
    # What could not be shown fails again when the stream is closed.
    with (
        suppress(OSError),
        stdin,
        stdout,
        pytest.raises(EOFError),
        Terminal(stdin, stdout) as terminal,
    ):
        os.close(master)
        terminal.key()


@pytest.mark.parametrize(
    ("environ", "terminal", "plain"),
    [
        ({"TERM": "xterm"}, True, False),
        ({"TERM": "xterm"}, False, True),
        ({"TERM": "dumb"}, True, True),
        ({}, True, True),
    ],
)
def test_plain_prompts_where_a_window_does_not_work(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], terminal: bool, plain: bool
) -> None:
    monkeypatch.delenv("TERM", raising=False)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)

    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    assert wants_plain(Stream(), Stream()) == plain


def test_plain_prompts_on_request(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminals(io.StringIO):  # without a file descriptor, which a window needs
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(output_mode, "_mode", output_mode.Mode(plain=True))
    out = Terminals()
    given = Choices(preset=PRACTICE, type="dev")
    assert given == ask.ask(place, given, stdin=Terminals("\n"), stdout=out, look=lambda name: ())
    assert "\x1b" not in out.getvalue()


def test_same_answers_in_a_window_and_plainly(facts: Facts) -> None:
    out = io.StringIO()
    typed = "manual\n3\n\n\n\nstop\n"
    window = Recorder(["enter" if key == "\n" else key for key in typed])
    first = answer(facts, window)
    second = Questions(facts, Choices())
    ask.answer_plainly(
        second, io.StringIO(typed), lambda text="", end="\n": print(text, end=end, file=out)
    )
    assert first.asked == second.asked
    assert first.rows == second.rows
