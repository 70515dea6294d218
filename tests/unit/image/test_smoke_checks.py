"""Smoke checks: a component's answer becomes results, and each failure becomes one fault."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from gapforge.base import process
from gapforge.base.errors import SmokeError, ToolError
from gapforge.cli.verbs import build as build_verb
from gapforge.image import smoke_checks
from gapforge.image.smoke_checks import CheckResult
from raised_errors import assert_error, values_of
from samples import ROOT

EXPECTED = {"component": "ffmpeg", "enabled": True}


class OneAnswer:
    """An engine whose containers all give the same answer."""

    def __init__(self, code: int, output: str) -> None:
        self.answer = (code, output, "")

    def run(self, *words: object, **more: object) -> tuple[int, str, str]:
        return self.answer


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize(
    ("code", "output", "check", "found"),
    [
        (0, "", "check reports something", ""),
        (3, "", "check runs to its end", "3"),
        (0, "what", "output is readable", "what"),
        (0, '{"check": "import", "ok": false, "found": "none", "expected": "5"}', "import", "none"),
    ],
)
def test_unusable_answer_is_a_failed_check(
    code: int,
    output: str,
    check: str,
    found: str,
    language: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    engine: Any = OneAnswer(code, output)
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], ROOT / "components")
    assert [result.to_json()["check"] for result in results] == [check]  # in every language
    assert found in results[0].found
    with pytest.raises(SmokeError) as error:
        smoke_checks.raise_for_failures(results, "x:y")
    assert_error(error.value, SmokeError, where=[f"ffmpeg: {results[0].title}"], image="x:y")
    assert values_of(error.value.faults[0].problem) == {"found": results[0].found}
    build_verb.print_checks(results)
    row = rf"^\S+  ffmpeg +{re.escape(results[0].title)}  "
    assert re.search(row, capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("ok", ["true", "false"])
def test_exit_code_counts_after_results(ok: str) -> None:
    """A check that crashes after its first result did not look at the rest."""
    line = f'{{"check": "version", "ok": {ok}, "found": "5", "expected": "5"}}'
    engine: Any = OneAnswer(1, line)
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], ROOT / "components")
    assert [(r.check, r.ok) for r in results] == [
        ("version", ok == "true"),
        ("check runs to its end", False),
    ]
    with pytest.raises(SmokeError):
        smoke_checks.raise_for_failures(results, "x:y")


def test_results_of_a_check_that_ends_are_all_kept() -> None:
    lines = [
        f'{{"check": "{n}", "ok": true, "found": "5", "expected": "5"}}' for n in ("one", "two")
    ]
    engine: Any = OneAnswer(0, "\n".join(lines))
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], ROOT / "components")
    assert [(r.check, r.ok) for r in results] == [("one", True), ("two", True)]
    smoke_checks.raise_for_failures(results, "x:y")


def test_disabled_component_is_not_checked() -> None:
    engine: Any = OneAnswer(1, "")
    disabled = {**EXPECTED, "enabled": False}
    assert smoke_checks.run_checks(engine, "x:y", [disabled], ROOT / "components") == ()
    smoke_checks.raise_for_failures([], "x:y")


class Recorder:
    """An engine that records what it is asked to run, and answers with one good result."""

    def __init__(self, errors: str = "", code: int = 0) -> None:
        self.asked: list[dict[str, Any]] = []
        self.code, self.errors = code, errors

    def run(self, image: str, command: list[str], **more: Any) -> tuple[int, str, str]:
        self.asked.append({"image": image, "command": command, **more})
        return self.code, '{"check": "a", "ok": true, "found": "1", "expected": "1"}', self.errors


def test_check_is_sent_with_its_library_and_what_to_expect() -> None:
    engine: Any = Recorder()
    expected = {**EXPECTED, "params": {"version": "5.1 – β"}}
    smoke_checks.run_checks(engine, "x:y", [expected], ROOT / "components")
    asked = engine.asked[0]
    assert (asked["image"], asked["command"]) == ("x:y", ["python3", "-I", "-"])
    assert json.loads(asked["env"]["GAPFORGE_EXPECT"]) == {**expected, "gpu": False}
    assert asked["timeout"] == smoke_checks.TIME_LIMIT and asked["stdin"].isascii()
    for name in ("checklib.py", "ffmpeg/check.py"):
        text = (ROOT / "components" / name).read_text()
        assert repr(f"components/{name}") in asked["stdin"] and ascii(text) in asked["stdin"]


@pytest.mark.parametrize(
    ("nvidia_smi", "runs"),
    [
        ("echo 'GPU 0: NVIDIA L4 (UUID: x)'", [False, True]),
        ("echo 'No devices were found'", [False]),
        ("echo 'GPU 0: NVIDIA L4'; exit 9", [False]),
        ("echo 'GPU 0: NVIDIA L4'; kill -9 $$", [False]),
        ("", [False]),
    ],
)
def test_checks_run_with_the_gpu_where_its_driver_answers(
    tmp_path: Path, nvidia_smi: str, runs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    if nvidia_smi:
        (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\n[ "$1" = -L ] && {nvidia_smi}\n')
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if nvidia_smi else str(tmp_path))
    engine: Any = Recorder()
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], ROOT / "components")
    assert [asked["gpus"] for asked in engine.asked] == runs
    assert [json.loads(asked["env"]["GAPFORGE_EXPECT"])["gpu"] for asked in engine.asked] == runs
    assert len(results) == len(runs)


def test_driver_that_does_not_answer_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*words: object, **more: object) -> None:
        raise ToolError("timed out")

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(process, "run", hang)
    engine: Any = Recorder()
    smoke_checks.run_checks(engine, "x:y", [EXPECTED], ROOT / "components")
    assert [asked["gpus"] for asked in engine.asked] == [False]


@pytest.mark.parametrize("code", [1, 137, -9])
def test_failed_check_shows_the_end_of_its_messages(code: int) -> None:
    engine: Any = Recorder("\n".join("abcdef") + "\n", code)
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], ROOT / "components")
    assert [result.ok for result in results] == [True, False]
    assert values_of(results[1].found) == {"code": code, "last": "c | d | e | f"}
    silent: Any = Recorder("", code)
    found = smoke_checks.run_checks(silent, "x:y", [EXPECTED], ROOT / "components")[1].found
    assert values_of(found)["code"] == code and values_of(found)["last"]


def test_engine_that_cannot_run_the_check_is_a_failed_check() -> None:
    class Broken:
        def run(self, *words: object, **more: object) -> None:
            raise ToolError("no such image")

    engine: Any = Broken()
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], ROOT / "components")
    assert [(r.component, r.check, r.ok) for r in results] == [
        ("ffmpeg", "check runs to its end", False)
    ]
    assert values_of(results[0].found) == {"code": 1, "last": "no such image"}


@pytest.mark.parametrize(
    "line",
    [
        '{"check": "a", "ok": true, "found": "1"}',
        '{"check": "a", "found": "1", "expected": "1"}',
        '["check"]',
        "null",
        "x" * 300,
    ],
)
def test_line_of_another_form_is_a_failed_check(line: str) -> None:
    good = '{"check": "b", "ok": true, "found": "1", "expected": "1"}'
    engine: Any = OneAnswer(0, f"{line}\n\n{good}")
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], ROOT / "components")
    assert [(r.check, r.ok) for r in results] == [("output is readable", False), ("b", True)]
    assert results[0].found == line[:200]


@pytest.mark.parametrize("ok", ["1", '"true"', "[true]", "null"])
def test_only_true_is_ok(ok: str) -> None:
    engine: Any = OneAnswer(0, f'{{"check": "a", "ok": {ok}, "found": "1", "expected": "1"}}')
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], ROOT / "components")
    assert [result.ok for result in results] == [False]


def test_titles_of_our_own_checks_are_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    engine: Any = OneAnswer(1, '{"check": "import", "ok": true, "found": "1", "expected": "1"}')
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], ROOT / "components")
    assert results[0].title == "import"
    assert results[1].title != results[1].check == "check runs to its end"


def test_failures_are_counted_among_all_results() -> None:
    results = [
        CheckResult(component="c", check=str(n), ok=n < 3, found="f", expected="e")
        for n in range(5)
    ]
    with pytest.raises(SmokeError) as error:
        smoke_checks.raise_for_failures(results, "x:y")
    assert_error(error.value, SmokeError, where=["c: 3", "c: 4"], count=2, total=5, image="x:y")
    assert {fault.expected for fault in error.value.faults} == {"e"}
