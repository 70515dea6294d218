"""A build in Korean: whole messages, and the launchers' own texts, which no catalogue holds."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest

from gapforge.base.errors import SourceError
from gapforge.base.marked_folders import mark_folder
from gapforge.image.application_source import choose
from gapforge.image.source_copy import copy_source
from gapforge.model.preset import Application
from samples import ROOT

APP = Application(name="xaiva-media", source="examples/xaiva-media")


@pytest.fixture(autouse=True)
def korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")


def test_missing_source_folder_in_korean(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as error:
        choose(APP, settings={"XAIVA_MEDIA_SOURCE": "elsewhere"}, root=tmp_path)
    assert f"{tmp_path}/elsewhere" in error.value.message
    assert "(.env 또는 환경 변수)" in error.value.message
    assert [fault.where for fault in error.value.faults] == [
        "--app-source",
        ".env의 XAIVA_MEDIA_SOURCE",
        "프리셋",
    ]


def test_uncopyable_files_in_korean(tmp_path: Path) -> None:
    source, target = tmp_path / "app", mark_folder(tmp_path / "context", "test") / "app"
    source.mkdir()
    os.mkfifo(source / "pipe")
    (source / "etc").symlink_to("/etc")
    with pytest.raises(SourceError) as error:
        copy_source(source, target)
    assert error.value.hint == f"삭제하거나 {source}/.gapforgeignore에 적으십시오"
    assert [(fault.where, fault.expected) for fault in error.value.faults] == [
        ("etc", "폴더 안을 가리키는 링크"),
        ("pipe", "파일, 폴더 또는 링크"),
    ]


@pytest.mark.parametrize("script", ["src/gapforge/__main__.py", "build.py"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_launchers_refuse_an_old_python(
    script: str, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    monkeypatch.setattr(sys, "version_info", (3, 9))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    message = str(end.value.code)
    assert "Python 3.10" in message and message.isascii() is (language == "en")
