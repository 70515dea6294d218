"""A reader of Korean gets a rehearsal's page and errors in Korean, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles import PRESET, carry, sender
from gapforge.base.errors import BundleError, Fault
from gapforge.rehearsal.record import Record
from gapforge.rehearsal.rehearsed_bundle import examine_bundle


def test_korean_page_of_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    record = Record(
        preset=PRESET,
        preset_sha256="0" * 64,
        practice=True,
        gapforge="0.1",
        command=("./gapforge", "rehearse", PRESET),
        types=("runtime",),
    )
    fault = Fault("a", "다름", "같음")
    record.fail("unpack", BundleError("다 오지 않았습니다", faults=[fault], hint="다시"))
    record.end()
    lines = record.page().splitlines()
    assert lines[0].endswith(f": {PRESET}") and "다 오지 않았습니다" in lines
    assert fault.lines() in record.page() and lines[6].split() == ["다음", "다시"]
    assert lines[7].endswith(f"./gapforge rehearse {PRESET}")
    assert not any(word in record.page() for word in ("failed", "next", "NOT", "exit code"))


def test_korean_error_of_wrong_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sender(tmp_path)
    bundle = carry(made, tmp_path / "medium", size=10**9).plan.bundle
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    with pytest.raises(BundleError) as caught:
        examine_bundle(made.project, [tmp_path / "medium"], "my-stack", None)
    error = caught.value
    assert all(word in error.message for word in (bundle, "my-stack", PRESET))
    assert not error.message.isascii() and not error.hint.isascii()
