"""The receiver program explains itself to a Python that is too old to run it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from gapforge.bundle import receiver_program


@pytest.mark.parametrize(
    ("settings", "korean"),
    [
        ({"LANG": "ko_KR.UTF-8"}, True),
        ({"LANG": "C", "GAPFORGE_LANG": "ko"}, True),
        ({}, False),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, False),
    ],
)
def test_old_python_gets_readable_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], korean: bool
) -> None:
    (tmp_path / "main.py").write_bytes(receiver_program._MAIN)
    for key in ("GAPFORGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(key, raising=False)
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("GAPFORGE_ROOT", str(tmp_path))
    monkeypatch.setattr("sys.version_info", (3, 8, 10))
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(tmp_path / "main.py"))
    message = str(caught.value)
    assert "Python 3.10" in message and message.isascii() is not korean
