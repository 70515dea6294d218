"""Check what may be passed on, by the licences that presets and locks state."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from gapforge.compat.redistribution import (
    ALLOWED,
    CONDITIONS,
    FORBIDDEN,
    UNKNOWN,
    Judgement,
    judge,
    redistributable,
    verdict_of,
)
from gapforge.model import catalog as catalogs
from gapforge.model import lock as locks
from gapforge.model.lock import Entry, Lock
from gapforge.model.preset import parse
from samples import ROOT

CATALOG = catalogs.load(ROOT / "catalog")
PRACTICE = json.loads((ROOT / "presets/debian12-cpu-quickstart.json").read_text(encoding="utf-8"))
CUDA = json.loads((ROOT / "presets/ubuntu22.04-cuda12.4-torch2.5.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("licence", "verdict"),
    [
        ("MIT", ALLOWED),
        ("BSD-3-Clause", ALLOWED),
        ("Apache Software License, BSD License", ALLOWED),
        ("Python Software Foundation License", ALLOWED),
        ("MPL-2.0 AND MIT", CONDITIONS),
        ("LGPL-2.1-or-later", CONDITIONS),
        ("GNU General Public License v3 (GPLv3)", CONDITIONS),
        ("NVIDIA Proprietary Software", UNKNOWN),
        ("MIT AND LicenseRef-NVIDIA-Proprietary", UNKNOWN),
        ("LicenseRef-Intel-Simplified-Software-License", UNKNOWN),
        ("mitigated terms", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_verdict_follows_from_the_licence(licence: str, verdict: str) -> None:
    assert verdict_of(licence) == verdict


def judgements(raw: dict[str, Any], lock: Lock | None = None) -> dict[str, Judgement]:
    return {
        judgement.part: judgement for judgement in judge(parse(raw, None, CATALOG), lock, CATALOG)
    }


def test_nonfree_ffmpeg_forbids_redistribution() -> None:
    raw = copy.deepcopy(PRACTICE)
    raw["ffmpeg"]["configure"].append("--enable-libnpp")
    found = judgements(raw)
    assert found["FFmpeg"].verdict == FORBIDDEN
    assert redistributable(list(found.values())) is False


def test_nvidia_parts_are_unknown_never_allowed() -> None:
    found = judgements(CUDA)
    nvidia = [found[part] for part in found if part.startswith(("CUDA", "TensorRT"))]
    assert [judgement.verdict for judgement in nvidia] == [UNKNOWN, UNKNOWN]
    assert redistributable(list(found.values())) is None


def test_gpl_changes_the_licence_of_ffmpeg() -> None:
    assert judgements(PRACTICE)["FFmpeg"].licence == "LGPL-2.1-or-later"
    raw = copy.deepcopy(PRACTICE)
    raw["ffmpeg"]["configure"].append("--enable-gpl")
    assert judgements(raw)["FFmpeg"].licence == "GPL-2.0-or-later"


def wheel(name: str, licence: str) -> Entry:
    path = f"wheels/{name}-1.0-py3-none-any.whl"
    return Entry(
        kind="wheel",
        path=path,
        sha256="0" * 64,
        size=1,
        origin="index:default",
        name=name,
        licence=licence,
    )


def test_wheels_are_judged_by_the_lock() -> None:
    lock = locks.load(ROOT / "presets/debian12-cpu-quickstart.lock.json")
    entries = (wheel("a", "MIT"), wheel("b", "MIT"), wheel("c", ""), wheel("d", "Secret"))
    made = replace(lock, entries=entries)
    found = judgements(PRACTICE, made)
    assert {part: found[part].verdict for part in ("a, b", "c", "d")} == {
        "a, b": ALLOWED,
        "c": UNKNOWN,
        "d": UNKNOWN,
    }


def test_everything_known_is_redistributable() -> None:
    known = [Judgement(part="x", licence="MIT", verdict=ALLOWED, reason="")]
    assert redistributable(known) is True
    assert redistributable([*known, replace(known[0], verdict=UNKNOWN)]) is None
