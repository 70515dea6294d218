"""The receiver program: what it says under a Python that is too old."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from gapforge.bundle import receiver_program


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"LANG": "ko_KR.UTF-8"}, "오류: "),
        ({"LANG": "C", "GAPFORGE_LANG": "ko"}, "오류: "),
        ({}, "error: "),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, "error: "),
    ],
)
def test_old_python_is_reported_in_both_languages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], start: str
) -> None:
    (tmp_path / "main.py").write_bytes(receiver_program._main())
    for key in ("GAPFORGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(key, raising=False)
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("sys.version_info", (3, 8, 10))
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(tmp_path / "main.py"))
    text = str(caught.value)
    assert text.startswith(start) and "Python 3.10" in text
