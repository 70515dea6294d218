"""Test that JSON Schemas are current and accept the same documents as the parsers."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapforge.base.errors import Fault
from gapforge.model import catalog, catalog_shape, component
from gapforge.model import preset as presets
from gapforge.model.component import COMPONENT_SHAPE
from gapforge.model.lock import LOCK_SHAPE
from gapforge.model.preset_shape import preset_shape
from gapforge.model.schema import faults_of
from gapforge.tools import json_schemas, preset_schema_texts
from samples import ROOT

PRESETS = [
    f for f in sorted((ROOT / "presets").glob("*.json")) if not f.name.endswith(".lock.json")
]
COMPONENTS = component.load_all(ROOT / "components")
CATALOG = catalog.load(ROOT / "catalog")
SCHEMAS = json_schemas.schemas(COMPONENTS, CATALOG)
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMAS["schemas/preset.schema.json"]))


def test_schema_files_are_current() -> None:
    for path, text in SCHEMAS.items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, (
            f"{path} is not up to date: run ./gapforge generate"
        )
    assert {f"schemas/{f.name}" for f in (ROOT / "schemas").glob("*.json")} == set(SCHEMAS)


def test_every_schema_is_valid() -> None:
    for text in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(json.loads(text))


@pytest.mark.parametrize("file", PRESETS, ids=lambda f: f.stem)
def test_shipped_presets_are_valid(file: Path) -> None:
    VALIDATOR.validate(json.loads(file.read_text(encoding="utf-8")))


def test_locks_catalog_and_components_are_valid() -> None:
    shapes = {"lock": LOCK_SHAPE, "component": COMPONENT_SHAPE}
    shapes |= {f"catalog-{name}": shape for name, shape in catalog_shape.SHAPES.items()}
    files = [("lock", f) for f in (ROOT / "presets").glob("*.lock.json")]
    files += [("component", f) for f in (ROOT / "components").glob("*/component.json")]
    files += [(f"catalog-{f.stem}", f) for f in (ROOT / "catalog").glob("*.json")]
    assert len(files) > 8
    for kind, file in files:
        raw = json.loads(file.read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator({**shapes[kind].schema()}).validate(raw)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a document."""
    found = [path]
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for name, member in items:
        found += places(member, (*path, name))
    return found


WORDS = st.sampled_from(
    [
        "",
        " ",
        "x",
        "X",
        "12.4",
        "12",
        "12.x",
        "../etc",
        "/abs",
        "a/b",
        "tar",
        "deb",
        "linux/amd64",
        "ubuntu",
        "3.10",
        "default",
        "https://example.com/a b",
        "https://example.com/a",
        "ftp://x",
        "0" * 64,
        "g" * 64,
        "sha256:" + "0" * 64,
        "a\tb",
        "numpy==1.26.4",
        "numpy>=",
        "first-use",
        "secret",
        "한글",
        "-DX=1",
        "A_KEY",
        "a_key",
        "NAME==1",
        "lib++=1",
        "é",
        "\x7f",
    ]
)
VALUES = st.one_of(
    WORDS,
    st.none(),
    st.booleans(),
    st.integers(-2, 2**54),
    st.text(max_size=6).filter(lambda t: not t.endswith("\n")),
    st.lists(WORDS, max_size=2),
    st.dictionaries(WORDS, WORDS, max_size=2),
)
# In Python, "$" also matches before a final newline; in JSON Schema it does not.


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_parser_and_schema_agree_on_damaged_presets(data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(PRESETS))
    raw = copy.deepcopy(json.loads(file.read_text(encoding="utf-8")))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([p for p in places(raw) if p]))
        holder = raw
        for name in path[:-1]:
            holder = holder[name]
        action = data.draw(st.sampled_from(["replace", "replace", "remove", "add", "twice"]))
        if action == "replace":
            holder[path[-1]] = data.draw(VALUES)
        elif action == "remove":
            del holder[path[-1]]
        elif action == "twice" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[0]))
        elif isinstance(holder, dict):
            holder[data.draw(WORDS)] = data.draw(VALUES)
    faults: list[Fault] = []
    preset_shape(COMPONENTS).check(raw, "$", faults, "preset")
    wrong = [f"{e.json_path}: {e.message[:80]}" for e in VALIDATOR.iter_errors(raw)]
    assert bool(faults) == bool(wrong), (faults, wrong)


def members(schema: dict[str, Any], path: str = "$") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield each property, list member and table value: path, schema, whether it is optional."""
    named = [(f".{n}", s, n not in schema["required"]) for n, s in properties(schema)]
    named += [("[]", schema["items"], False)] if "items" in schema else []
    if isinstance(schema.get("additionalProperties"), dict):
        named.append((".*", schema["additionalProperties"], False))
    for name, member, optional in named:
        yield path + name, member, optional
        yield from members(member, path + name)
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from members(one, path)


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from schema.get("properties", {}).items()


DOCUMENTED = list(members(json.loads(SCHEMAS["schemas/preset.schema.json"])))


def is_object(schema: dict[str, Any]) -> bool:
    kinds = (*schema.get("anyOf", ()), *schema.get("oneOf", ()))
    return schema.get("type") == "object" or (
        any(k.get("type") == "object" for k in kinds)
        and not any(k.get("type") == "string" for k in kinds)
    )


def test_every_member_of_a_preset_is_described_in_both_languages() -> None:
    assert len(DOCUMENTED) > 125
    for path, schema, _optional in DOCUMENTED:
        english, _blank, korean = schema.get("description", "").partition("\n\n")
        assert english and not re.search("[가-힣]", english), path
        assert re.search("[가-힣]", korean), path


def test_every_value_of_a_preset_has_valid_examples() -> None:
    for path, schema, _optional in DOCUMENTED:
        examples = schema.get("examples", [])
        assert examples or is_object(schema), path
        assert len(examples) == len({json.dumps(value) for value in examples}), path
        for value in examples:
            jsonschema.Draft202012Validator(schema).validate(value)


def test_examples_are_all_versions_and_options_that_are_known() -> None:
    examples = {path: schema.get("examples", []) for path, schema, _optional in DOCUMENTED}
    torch = {f"{t.torch}+{build}" for t in CATALOG.torch.values() for build in t.builds}
    for path, known in (
        ("$.pytorch.torch", torch),
        ("$.tensorrt.version", set(CATALOG.tensorrt)),
        ("$.ffmpeg.version", set(CATALOG.ffmpeg)),
        ("$.opencv.version", set(CATALOG.opencv)),
        ("$.components.opencv.version", set(CATALOG.opencv)),
        ("$.opencv.architectures[]", set(CATALOG.architectures)),
        ("$.base.builder.image", {image.builder for image in CATALOG.images}),
        ("$.ffmpeg.configure[]", {"--enable-libx264", "--enable-nvenc", "--disable-doc"}),
        ("$.opencv.cmake[]", {"-DWITH_TBB=ON", "-DWITH_GTK=OFF"}),
    ):
        assert known and known - set(examples[path]) == set(), path


# A preset with every part that an option of it can be in.
FULL: dict[str, Any] = {
    "format": 1,
    "name": "full",
    "summary": "one line",
    "os": {"id": "debian", "version": "12"},
    "base": {"builder": {"mmdebstrap": {"suite": "bookworm"}}, "runtime": {"image": "debian:12"}},
    "python": {"version": "3.11"},
    "apt": {"sources": [{"name": "a", "uri": "https://example.com/", "suite": "/"}]},
    "sources": {"x": {"urls": ["https://example.com/x.tar.xz"], "sha256": "0" * 64}},
    "application": {"source": "app", "secrets": [{"key": "A", "pass": "secret"}]},
    "tensorrt": {"version": "10.3.0.26", "form": "tar"},
    "pytorch": {"torch": "2.5.1+cu124", "index": "default"},
    "ffmpeg": {"version": "5.1"},
    "components": {"opencv": {"version": "4.9.0"}},
}


def holders(value: Any, path: str) -> list[dict[str, Any]]:
    """Return the objects at a path of a document."""
    found = [value]
    for name in re.findall(r"\.[^.\[]+|\[\]", path.removeprefix("$")):
        if name == "[]":
            found = [member for one in found for member in one]
        elif name == ".*":
            found = [member for one in found for member in one.values()]
        else:
            found = [one[name[1:]] for one in found if isinstance(one, dict) and name[1:] in one]
    return [one for one in found if isinstance(one, dict)]


def meaning(raw: dict[str, Any]) -> Any:
    """Return what a preset means, without how it is written. An empty option is as none."""
    made = presets.parse(raw, COMPONENTS, CATALOG)
    options = {
        name: {key: value for key, value in part.values.items() if value not in (False, ())}
        for name, part in made.components.items()
    }
    return replace(made, raw={}, sha256="", origins={}, components={}), options


# The same with other bases in the roles, and options of components in the other places.
SWAPPED: dict[str, Any] = {
    **{key: value for key, value in FULL.items() if key != "ffmpeg"},
    "base": {"builder": FULL["base"]["runtime"], "runtime": FULL["base"]["builder"]},
    "opencv": FULL["components"]["opencv"],
    "components": {"ffmpeg": FULL["ffmpeg"]},
}


def test_defaults_mean_the_same_as_leaving_out() -> None:
    defaults = {path: s["default"] for path, s, _optional in DOCUMENTED if "default" in s}
    assert {path for path, _schema, optional in DOCUMENTED if optional} >= set(defaults)
    tested = set()
    for full in (FULL, SWAPPED):
        for path, default in defaults.items():
            parent, _dot, name = path.rpartition(".")
            absent, given = copy.deepcopy(full), copy.deepcopy(full)
            for holder in holders(absent, parent):
                holder.pop(name, None)
            for holder in holders(given, parent):
                # Of a variant, only the kind with the option has it.
                if parent.startswith("$.base") and "private" in path and "image" not in holder:
                    continue
                holder[name] = copy.deepcopy(default)
                tested.add(path)
            assert meaning(absent) == meaning(given), path
            assert faults_of(given, preset_shape(COMPONENTS), "full") == [], path
    assert tested == set(defaults)


def test_every_value_that_gapforge_fills_in_is_a_default() -> None:
    defaults = {path: s["default"] for path, s, _optional in DOCUMENTED if "default" in s}
    filled = preset_schema_texts.filled_in()
    assert len(filled) > 10
    assert {path: defaults[path] for path in filled} == filled
    for path, schema, optional in DOCUMENTED:
        if optional and ("boolean" in str(schema.get("type")) and path != "$.tensorrt.python"):
            assert schema["default"] is False, path
