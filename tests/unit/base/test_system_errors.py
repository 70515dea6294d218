"""Errors of the system and of Python's parsers are translated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gapforge.base.system_errors import error_text, json_reason, os_reason


def raised(text: bytes) -> Exception:
    try:
        json.loads(text.decode("ascii"))
    except ValueError as error:
        return error
    raise AssertionError("no error")


def test_system_errors_are_translated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "a").read_bytes()
    unknown = OSError(4711, "Nobody knows")
    assert (os_reason(caught.value), os_reason(unknown)) == (
        "No such file or directory",
        "Nobody knows",
    )
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert (os_reason(caught.value), os_reason(unknown)) == (
        "그런 파일이나 폴더가 없음",
        "Nobody knows",
    )
    assert error_text(caught.value) == f"{tmp_path}/a: 그런 파일이나 폴더가 없음"


def test_parser_errors_are_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    broken, binary = raised(b'{"a": 1,'), raised(b"{\xff")
    assert error_text(broken) == str(broken) and error_text(binary) == str(binary)
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert error_text(broken) == "1행 9열: 큰따옴표로 묶은 키가 와야 함"
    assert (
        isinstance(broken, json.JSONDecodeError)
        and json_reason(broken) == "큰따옴표로 묶은 키가 와야 함"
    )
    assert error_text(binary) == "ASCII 텍스트가 아님(바이트 위치 1)"
    assert error_text(ValueError("other errors stay")) == "other errors stay"
