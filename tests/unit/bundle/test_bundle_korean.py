"""Messages about bundles in Korean: whole sentences, and the same decisions as in English."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles import PRESET, carry, receive, sender, site_at
from forged_volumes import HASH, HOSTILE, forge
from gapforge.base.errors import Fault
from gapforge.bundle.volume_format import Damaged
from gapforge.bundle.volume_reader import read_volume


def test_damaged_volume_is_described_in_korean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    forge(tmp_path / "x.gfv", HOSTILE["beyond the object"], b"p" * 20)
    with pytest.raises(Damaged) as caught:
        read_volume(tmp_path / "x.gfv")
    assert str(caught.value) == f"객체 {HASH[:12]}의 조각 길이: 허용 범위를 벗어난 값 10 (1~5)"


def test_incomplete_bundle_is_described_in_korean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = carry(sender(tmp_path), tmp_path / "medium", size=40_000)
    first, *others = sorted((tmp_path / "medium").glob("*.gfv"))
    for file in others:
        file.unlink()
    results = {}
    for language in ("ko", "en"):
        monkeypatch.setenv("GAPFORGE_LANG", language)
        results[language] = receive(site_at(tmp_path / language), first)
    korean, english = results["ko"], results["en"]
    assert korean.request == english.request and korean.objects == english.objects
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    error = korean.error(Path("r.json"))
    numbers = ", ".join(str(number) for number in packed.plan.numbers[1:])
    assert error.message == (
        f"불완전한 번들입니다: {packed.plan.bundle}. 아직 없는 볼륨: {numbers}. "
        "온전한 것은 모두 반입했습니다"
    )
    problem = "잠금 파일과 그 밖의 객체가 누락됨"
    if korean.incomplete[PRESET] > 0:
        problem = f"객체 {korean.incomplete[PRESET]}개가 누락됨"
    assert error.faults == (Fault(f"프리셋 {PRESET}", problem),)
