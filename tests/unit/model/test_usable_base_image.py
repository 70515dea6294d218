"""Test what a base image must be, and that both ends of the carry ask the same functions."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from gapforge.base.errors import TargetError
from gapforge.model import usable_base_image
from raised_errors import values_of

SOURCE = Path(__file__).resolve().parents[3] / "src" / "gapforge"


def entry(platform: str, digest: str = "d") -> dict[str, Any]:
    names = ("os", "architecture", "variant")
    return {"digest": digest, "platform": dict(zip(names, platform.split("/"), strict=False))}


@pytest.mark.parametrize("baseline", ["linux/amd64", "linux/amd64/v1"])
def test_baseline_is_taken_wherever_it_stands(baseline: str) -> None:
    others = [entry("linux/amd64/v3"), entry("linux/arm64/v8"), entry("unknown/unknown")]
    for position in range(4):
        entries = [*others[:position], entry(baseline, "right"), *others[position:]]
        assert usable_base_image.select_manifest(entries, "x")["digest"] == "right"


def test_index_without_baseline_is_refused() -> None:
    entries = [entry("linux/amd64/v3"), entry("linux/arm64/v8"), entry("unknown/unknown")]
    with pytest.raises(TargetError) as caught:
        usable_base_image.select_manifest(entries, "x")
    (fault,) = caught.value.faults
    assert values_of(fault.problem) == {"platforms": "linux/amd64/v3, linux/arm64/v8"}
    with pytest.raises(TargetError):
        usable_base_image.select_manifest([{"digest": "d"}], "x")


CONFIG: dict[str, Any] = {"os": "linux", "architecture": "amd64"}


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "arm64"},
        {"os": "windows"},
        {"os": None},
        {"variant": "v3"},
        {"config": {"OnBuild": ["ADD http://host/x /"]}},
    ],
)
def test_configuration_that_no_build_can_use(change: dict[str, Any]) -> None:
    with pytest.raises(TargetError) as caught:
        usable_base_image.check_configuration({**CONFIG, **change}, "x")
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    "change", [{}, {"variant": "v1"}, {"config": None}, {"config": {"OnBuild": []}}]
)
def test_usual_configuration_passes(change: dict[str, Any]) -> None:
    assert usable_base_image.check_configuration({**CONFIG, **change}, "x") is None


def test_compression_that_docker_20_cannot_load() -> None:
    usable_base_image.check_compression(["", "gzip", ""], "x")
    with pytest.raises(TargetError) as caught:
        usable_base_image.check_compression(["gzip", "zstd", "xz", "zstd"], "x")
    assert values_of(caught.value.faults[0].problem) == {"names": "xz, zstd"}
    assert "skopeo copy" in caught.value.hint


def calls(folder: str) -> set[str]:
    """Return the rules that the modules of a package call."""
    return {
        node.func.attr
        for file in (SOURCE / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "usable_base_image"
    }


def test_sync_and_build_apply_the_same_rules() -> None:
    rules = {
        name
        for name, value in vars(usable_base_image).items()
        if callable(value)
        and name.startswith(("check_", "select_"))
        and getattr(value, "__module__", "") == usable_base_image.__name__
    }
    assert len(rules) >= 4
    assert calls("sync") == rules
    assert calls("image") | calls("engine") == rules


def test_only_the_rules_refuse_a_base_image() -> None:
    """A TargetError that a package of the site raises itself would be a rule of the site alone."""
    raising = {
        file.relative_to(SOURCE).as_posix()
        for package in ("image", "engine", "store", "doctor")
        for file in (SOURCE / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("TargetError", "CompatibilityError")
    }
    assert raising == set()
