"""Smoke checks: a component's answer becomes results, and each failure becomes one fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gapforge.base.errors import SmokeError
from gapforge.cli.verbs import build as build_verb
from gapforge.image import smoke_checks
from raised import assert_error, values_of

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
    root: Path,
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
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], root / "components")
    assert [result.to_json()["check"] for result in results] == [check]  # in every language
    assert found in results[0].found
    with pytest.raises(SmokeError) as error:
        smoke_checks.raise_for_failures(results, "x:y")
    assert_error(error.value, SmokeError, where=[f"ffmpeg: {results[0].title}"], image="x:y")
    assert values_of(error.value.faults[0].problem) == {"found": results[0].found}
    build_verb.print_checks(results)
    assert f"ffmpeg  {results[0].title}  " in capsys.readouterr().out


@pytest.mark.parametrize("ok", ["true", "false"])
def test_exit_code_counts_after_results(root: Path, ok: str) -> None:
    """A check that crashes after its first result did not look at the rest."""
    line = f'{{"check": "version", "ok": {ok}, "found": "5", "expected": "5"}}'
    engine: Any = OneAnswer(1, line)
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], root / "components")
    assert [(r.check, r.ok) for r in results] == [
        ("version", ok == "true"),
        ("check runs to its end", False),
    ]
    with pytest.raises(SmokeError):
        smoke_checks.raise_for_failures(results, "x:y")


def test_results_of_a_check_that_ends_are_all_kept(root: Path) -> None:
    lines = [
        f'{{"check": "{n}", "ok": true, "found": "5", "expected": "5"}}' for n in ("one", "two")
    ]
    engine: Any = OneAnswer(0, "\n".join(lines))
    results = smoke_checks.run_checks(engine, "x:y", [EXPECTED], root / "components")
    assert [(r.check, r.ok) for r in results] == [("one", True), ("two", True)]
    smoke_checks.raise_for_failures(results, "x:y")


def test_disabled_component_is_not_checked(root: Path) -> None:
    engine: Any = OneAnswer(1, "")
    disabled = {**EXPECTED, "enabled": False}
    assert smoke_checks.run_checks(engine, "x:y", [disabled], root / "components") == ()
    smoke_checks.raise_for_failures([], "x:y")
