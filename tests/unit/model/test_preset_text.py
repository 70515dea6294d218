"""Test the layout of written presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gapforge.model.preset_writer import render
from samples import ROOT

PRESETS = sorted(f for f in (ROOT / "presets").glob("*.json") if not f.name.endswith(".lock.json"))
NESTED = {"a": {"b": ["x" * 40] * 9, "c": None}, "d": [{"e": "y" * 90}, {"f": "한글" * 30}, {}]}


@pytest.mark.parametrize("value", [{}, {"a": []}, {"a": "x,"}, NESTED])
def test_written_text_parses_as_same_json(value: Any) -> None:
    assert json.loads(render(value)) == value


@pytest.mark.parametrize("file", PRESETS, ids=lambda f: f.stem)
def test_shipped_presets_keep_content_and_order(file: Path) -> None:
    raw = json.loads(file.read_text(encoding="utf-8"))
    text = render(raw)
    assert json.loads(text) == raw and list(json.loads(text)) == list(raw)
    assert text.count("\n") < 170


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_shipped_preset_fits_on_a_screen(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 60
