"""Both ways of building with Docker fulfil the Engine Protocol, with a fake docker."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine_contract import CHECKS, Check, load_base
from fake_docker import Fake
from gapforge.engine import detect

KINDS = {
    "docker-buildkit": {"client": "20.10.24", "server": "20.10.24"},
    "docker-buildx": {"client": "28.5.2", "server": "28.5.2", "buildx": "0.29.1"},
    "docker-buildx, containerd store": {
        "client": "29.1.0",
        "server": "29.1.0",
        "buildx": "0.30.0",
        "store": "containerd",
    },
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_engine_fulfils_the_protocol(
    kind: str, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(tmp_path / "fake", **KINDS[kind])
    monkeypatch.setenv("GAPFORGE_DOCKER", str(fake.client))
    engine = detect.choose()
    assert engine.info.name == kind.split(",")[0]
    base, _ = load_base(engine, tmp_path / "base", programs=())
    check(engine, base, tmp_path / "work")
