"""Test component descriptions and the preset options that they declare."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import samples
from gapforge.base.errors import Fault, PresetError
from gapforge.model import component, preset
from gapforge.model.component import Component
from gapforge.model.preset_shape import preset_shape
from samples import ROOT

SHIPPED = component.load_all(ROOT / "components")
DESCRIPTION: dict[str, Any] = {
    "format": 2,
    "name": "codec",
    "summary": "a codec",
    "options": {
        "version": {"type": "version", "required": True, "about": "its version"},
        "profile": {
            "type": "enum",
            "choices": ["fast", "small"],
            "default": "fast",
            "about": "what to optimize",
        },
        "label": {"type": "text", "about": "a label"},
        "cuda": {
            "type": "flag",
            "about": "use the GPU",
            "needs": {"options": ["levels"], "preset": ["cuda"]},
        },
        "levels": {"type": "list", "of": "dotted", "about": "levels"},
        "docs": {
            "type": "flag",
            "default": True,
            "runtime": False,
            "about": "documents in the dev image",
        },
        "cmake": {"type": "flags", "default": ["-DX=1"], "about": "options for cmake"},
    },
    "sources": ["codec"],
    "needs": {"sources": ["codec"]},
}


def describe(folder: Path, **changes: Any) -> Path:
    """Write a component into ``folder``/components, without the keys whose value is ``...``."""
    raw = {key: value for key, value in {**DESCRIPTION, **changes}.items() if value is not ...}
    place = folder / "components" / "codec"
    place.mkdir(parents=True, exist_ok=True)
    for script in component.SCRIPTS:
        (place / script).touch()
    (place / "component.json").write_text(json.dumps(raw), encoding="utf-8")
    return place.parent


def codec(folder: Path, **changes: Any) -> tuple[Component, ...]:
    return component.load_all(describe(folder, **changes))


def preset_with(options: Any, **changes: Any) -> dict[str, Any]:
    raw = samples.raw_preset(ffmpeg=..., opencv=..., components={"codec": options}, **changes)
    raw["sources"] = {"codec": {"apt-source": "codec"}}
    return raw


def faults(raw: Any, components: tuple[Component, ...]) -> dict[str, Fault]:
    return {f.where.removeprefix("p: "): f for f in preset.faults_of(raw, "p", components)}


def test_options_are_typed_and_have_defaults(tmp_path: Path) -> None:
    components = codec(tmp_path)
    raw = preset_with({"version": "1.2", "levels": ["3.1"]})
    assert faults(raw, components) == {}
    made = preset.parse(raw, components).component("codec")
    assert made is not None
    assert (made.text("version"), made.text("profile"), made.text("label")) == ("1.2", "fast", "")
    assert (made.flag("cuda"), made.flag("docs"), made.flag("version")) == (False, True, False)
    assert (made.list("levels"), made.list("cmake"), made.list("other")) == (
        ("3.1",),
        ("-DX=1",),
        (),
    )
    assert made.path == "$.components.codec"


def test_every_wrong_option_is_a_fault(tmp_path: Path) -> None:
    wrong = {
        "profil": "x",
        "profile": "big",
        "label": 3,
        "cuda": "yes",
        "levels": ["x"],
        "cmake": "-DX=2",
    }
    found = faults(preset_with(wrong), codec(tmp_path))
    assert found.keys() == {
        f"$.components.codec.{path}"
        for path in ("version", "profil", "profile", "label", "cuda", "levels[0]", "cmake")
    }
    assert found["$.components.codec.version"].expected == "its version"
    assert '"profile"' in found["$.components.codec.profil"].problem
    assert '"fast"' in found["$.components.codec.profile"].expected


@pytest.mark.parametrize(
    ("options", "changes", "paths"),
    [
        ({"cuda": True, "levels": ["1"]}, {"cuda": "12.4"}, set()),
        ({"cuda": False}, {}, set()),
        ({"cuda": True}, {"cuda": "12.4"}, {"$.components.codec.levels"}),
        (
            {"cuda": True, "levels": []},
            {},
            {"$.components.codec.levels", "$.components.codec.cuda"},
        ),
    ],
)
def test_set_option_needs_other_options(
    tmp_path: Path, options: dict[str, Any], changes: dict[str, Any], paths: set[str]
) -> None:
    raw = preset_with({"version": "1", **options}, **changes)
    assert faults(raw, codec(tmp_path)).keys() == paths


def test_component_needs_its_source(tmp_path: Path) -> None:
    raw = preset_with({"version": "1"})
    raw["sources"] = {}
    (fault,) = faults(raw, codec(tmp_path)).values()
    assert fault.where == "p: $.sources"
    assert '"codec"' in fault.problem and '"codec"' in fault.expected


@pytest.mark.parametrize("value", [None, ...])
def test_unused_component_needs_nothing(tmp_path: Path, value: Any) -> None:
    components = codec(tmp_path)
    raw = (
        preset_with(value)
        if value is None
        else samples.raw_preset(ffmpeg=..., opencv=..., sources={})
    )
    assert faults(raw, components) == {}
    assert preset.parse(raw, components).component("codec") is None
    assert not components[0].enabled(preset.parse(raw, components))


def test_options_are_accepted_in_one_of_two_places(tmp_path: Path) -> None:
    components = codec(tmp_path)
    inside = preset_with({"version": "1"})
    outside = {**{k: v for k, v in inside.items() if k != "components"}, "codec": {"version": "1"}}
    assert faults(outside, components) == {}
    first, second = (preset.parse(raw, components).component("codec") for raw in (inside, outside))
    assert first is not None and second is not None
    assert first.values == second.values and second.path == "$.codec"
    both = {**inside, "codec": {"version": "2"}}
    assert faults(both, components).keys() == {"$.components.codec"}


def test_shipped_options_may_move_into_components() -> None:
    raw = samples.raw_preset()
    moved = samples.raw_preset(
        ffmpeg=..., opencv=..., components={k: raw[k] for k in ("ffmpeg", "opencv")}
    )
    assert faults(moved, SHIPPED) == {}
    plain, other = (preset.parse(document, SHIPPED) for document in (raw, moved))
    for piece in SHIPPED:
        assert piece.part(plain) == piece.part(other)


def test_unknown_key_suggests_the_nearest(tmp_path: Path) -> None:
    raw = samples.raw_preset(opencvv={"version": "1"})
    (fault,) = faults(raw, SHIPPED).values()
    assert fault.where == "p: $.opencvv" and '"opencv"' in fault.problem


def test_schema_and_parser_agree(tmp_path: Path) -> None:
    components = codec(tmp_path)
    validator = jsonschema.Draft202012Validator(preset_shape(components).schema())
    good: dict[str, Any] = {
        "version": "1",
        "levels": ["1"],
        "cmake": [],
        "profile": "small",
        "docs": False,
    }
    assert validator.is_valid(preset_with(good))
    for key, value in (
        ("version", 1),
        ("levels", "1"),
        ("cmake", [""]),
        ("profile", "x"),
        ("docs", 1),
        ("other", "x"),
    ):
        raw = preset_with({**good, key: value})
        assert not validator.is_valid(raw) and faults(raw, components), key
    schema = preset_shape(components).schema()["properties"]["codec"]
    assert schema["description"] == "a codec"
    assert schema["anyOf"][1]["properties"]["docs"]["description"] == "documents in the dev image"


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"a": {"type": "enum", "about": "x"}}, "$.options.a.choices"),
        ({"a": {"type": "text", "choices": ["b"], "about": "x"}}, "$.options.a.choices"),
        ({"a": {"type": "flag", "of": "name", "about": "x"}}, "$.options.a.of"),
        ({"a": {"type": "flag", "default": "yes", "about": "x"}}, "$.options.a.default"),
        (
            {"a": {"type": "list", "of": "dotted", "default": ["x"], "about": "x"}},
            "$.options.a.default",
        ),
        (
            {"a": {"type": "text", "default": "b", "required": True, "about": "x"}},
            "$.options.a.default",
        ),
        (
            {"a": {"type": "flag", "about": "x", "needs": {"options": ["b"]}}},
            "$.options.a.needs.options",
        ),
        ({"a": {"type": "number", "about": "x"}}, "$.options.a.type"),
        ({"a": {"type": "flag"}}, "$.options.a.about"),
        ({"A": {"type": "flag", "about": "x"}}, "$.options.A"),
    ],
)
def test_invalid_description_is_refused(tmp_path: Path, options: dict[str, Any], path: str) -> None:
    with pytest.raises(PresetError) as caught:
        codec(tmp_path, options=options)
    where = {f.where.removeprefix("components/codec/component.json: ") for f in caught.value.faults}
    assert where in ({path}, {path.rpartition(".")[0]})


@pytest.mark.parametrize(
    ("stated", "path"),
    [
        ({"file": "VERSION"}, "$.versions.codec"),
        ({"pattern": "(.*)"}, "$.versions.codec"),
        ({"file": "VERSION", "pattern": "("}, "$.versions.codec.pattern"),
        ({"file": "VERSION", "pattern": "1.2"}, "$.versions.codec.pattern"),
        ({"option": "label2"}, "$.versions.codec.option"),
        ({"file": "../VERSION", "pattern": "(.*)"}, "$.versions.codec.file"),
    ],
)
def test_invalid_stated_version_is_refused(
    tmp_path: Path, stated: dict[str, str], path: str
) -> None:
    with pytest.raises(PresetError) as caught:
        codec(tmp_path, versions={"codec": stated})
    where = {f.where.removeprefix("components/codec/component.json: ") for f in caught.value.faults}
    assert where == {path}


def test_description_of_format_1_is_accepted(tmp_path: Path) -> None:
    pair = {"ko": "코덱", "en": "a codec"}
    components = codec(
        tmp_path, format=1, summary=pair, preset="components.codec", options=..., needs=...
    )
    (piece,) = components
    assert (piece.summary, piece.title, piece.options) == ("a codec", "codec", None)
    raw = preset_with({"version": "1", "meson": "-Da=b", "any": True, "more": ["x"]})
    assert faults(raw, components) == {}
    made = preset.parse(raw, components)
    assert piece.part(made) == {"version": "1", "meson": "-Da=b", "any": True, "more": ("x",)}


def test_without_descriptions_options_are_not_checked(tmp_path: Path) -> None:
    """The receiver program reads presets without a project."""
    raw = samples.raw_preset(codec={"anything": ["x"]}, name="x")
    file = tmp_path / "presets" / "x.json"
    file.parent.mkdir()
    file.write_text(json.dumps(raw), encoding="utf-8")
    made = preset.load(file)
    codec_options = made.component("codec")
    assert codec_options is not None and codec_options.list("anything") == ("x",)
    assert made.sha256 == preset.parse(raw, SHIPPED).sha256
    file.write_text(json.dumps({**raw, "codec": 3}), encoding="utf-8")
    with pytest.raises(PresetError):
        preset.load(file)


def test_changed_description_is_read_again(tmp_path: Path) -> None:
    folder = describe(tmp_path)
    first = component.described(folder)
    assert first is component.described(folder)
    describe(tmp_path, summary="another codec")
    os.utime(folder / "codec/component.json", ns=(1, 1))
    second = component.described(folder)
    assert second is not None and second[0].summary == "another codec"
    shutil.rmtree(folder)
    assert component.described(folder) is None


def test_unreadable_description_checks_no_options(tmp_path: Path) -> None:
    folder = describe(tmp_path)
    (folder / "codec/component.json").write_text("{", encoding="utf-8")
    components = component.described(folder)
    assert components is not None
    assert faults(preset_with({"anything": "x"}), components) == {}
    with pytest.raises(PresetError) as caught:
        component.load_all(folder)
    assert caught.value.faults[0].where.startswith("components/codec/component.json")


def test_shipped_descriptions_are_english() -> None:
    for file in (ROOT / "components").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert not [c for c in file.read_text(encoding="utf-8") if "\uac00" <= c <= "\ud7a3"], (
                file
            )
