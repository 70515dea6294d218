"""Test that JSON Schemas are current and accept the same documents as the parsers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapforge.base.errors import Fault
from gapforge.model import catalog, component
from gapforge.model.component import COMPONENT_SHAPE
from gapforge.model.lock import LOCK_SHAPE
from gapforge.model.preset_shape import preset_shape
from gapforge.tools import json_schemas

ROOT = Path(__file__).resolve().parents[3]
PRESETS = [
    f for f in sorted((ROOT / "presets").glob("*.json")) if not f.name.endswith(".lock.json")
]
COMPONENTS = component.load_all(ROOT / "components")
SCHEMAS = json_schemas.schemas(COMPONENTS)
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
    shapes |= {f"catalog-{name}": shape for name, shape in catalog.SHAPES.items()}
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
