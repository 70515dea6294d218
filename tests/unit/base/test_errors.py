"""Every cause has an exit code, and a rendered error names place, fault and next command."""

from __future__ import annotations

import json

import pytest

from gapforge.base import errors
from gapforge.base.errors import ERROR_CLASSES, Fault, GapforgeError, VerifyError


def test_exit_codes_and_causes_are_unique() -> None:
    codes = [cls.exit_code for cls in ERROR_CLASSES]
    assert (
        len(set(codes)) == len(codes) and 0 not in codes and all(0 < code < 256 for code in codes)
    )
    assert len({cls.cause for cls in ERROR_CLASSES}) == len(ERROR_CLASSES)


def test_every_error_class_is_listed() -> None:
    defined = {
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, GapforgeError)
    }
    assert defined - {GapforgeError} == set(ERROR_CLASSES)


def test_render_shows_faults_and_hint() -> None:
    error = VerifyError(
        "two faults",
        hint="./gapforge verify x",
        faults=[Fault("a/b", "changed", "1"), Fault("c", "missing")],
    )
    assert error.render() == (
        "error: two faults\n  a/b\n      changed; expected 1\n"
        "  c\n      missing\nnext: ./gapforge verify x"
    )
    assert json.loads(json.dumps(error.to_json())) == {
        "error": "verify",
        "exit_code": 5,
        "message": "two faults",
        "next": "./gapforge verify x",
        "faults": [
            {"where": "a/b", "problem": "changed", "expected": "1"},
            {"where": "c", "problem": "missing", "expected": ""},
        ],
    }
    assert VerifyError("x").render() == "error: x"


def test_render_in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    error = VerifyError(
        "두 가지가 다릅니다",
        hint="./gapforge verify x",
        faults=[Fault("a/b", "바뀜", "1"), Fault("c", "없음")],
    )
    assert error.render() == (
        "오류: 두 가지가 다릅니다\n  a/b\n      바뀜; 기대한 값: 1\n"
        "  c\n      없음\n다음: ./gapforge verify x"
    )
    assert set(error.to_json()) == {"error", "exit_code", "message", "faults", "next"}
