"""Shapes: every fault at once, and the JSON Schema that says the same as the validator."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapforge.base.errors import Fault
from gapforge.model.schema import (
    Choice,
    Flag,
    Items,
    Nullable,
    Number,
    Record,
    Shape,
    Table,
    Text,
    Variant,
    nearest,
)

WORD = Text("a word", r"[a-z]+", "lower-case letters")
INNER = Record({"n": Number("a number", 1, 5)}, {"flag": Flag()})
EVERY: dict[str, Shape] = {
    "text": Text(),
    "word": WORD,
    "choice": Choice(("a", "b", 3)),
    "flag": Flag(),
    "number": Number("x", 0, 10),
    "nullable": Nullable(WORD),
    "items": Items(WORD, least=1, unique=True),
    "table": Table(Number(), WORD),
    "record": INNER,
    "variant": Variant(
        {"urls": Record({"urls": Items(WORD)}), "made": Record({"made": Flag()}, {"by": WORD})}
    ),
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.sampled_from(["a", "b", "ab", "A", "", "a\nb", "urls", "made"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["n", "flag", "urls", "made", "by", "x", "A"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def faults(shape: Shape, value: Any) -> list[Fault]:
    found: list[Fault] = []
    shape.check(value, "$", found, "f.json")
    return found


@pytest.mark.parametrize("name", sorted(EVERY))
def test_schema_is_a_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(EVERY[name].schema())


@given(name=st.sampled_from(sorted(EVERY)), value=JSON)
def test_schema_and_validator_agree(name: str, value: Any) -> None:
    valid = jsonschema.Draft202012Validator(EVERY[name].schema()).is_valid(value)
    assert valid == (faults(EVERY[name], value) == []), (value, faults(EVERY[name], value))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("word", 3, "is not text"),
        ("word", "A", "is not allowed"),
        ("word", "a\n", "is not allowed"),
        ("choice", "c", "known values"),
        ("choice", True, "known values"),
        ("flag", 1, "not true or false"),
        ("number", True, "not allowed"),
        ("number", 11, "not allowed"),
        ("number", 1.5, "not allowed"),
        ("nullable", 1, "not text"),
        ("items", [], "has 0 members"),
        ("items", "ab", "not a list"),
        ("items", ["a", "a"], "listed twice"),
        ("table", {"A": 1}, "the key"),
        ("table", [], "not an object"),
        ("record", [], "not an object"),
        ("record", {}, "is missing"),
        ("record", {"n": 1, "x": 1}, "unknown key"),
        ("variant", {}, "has none"),
        ("variant", {"urls": [], "made": True}, '"urls" and "made"'),
        ("variant", 1, "not an object"),
    ],
)
def test_faults(name: str, value: Any, words: str) -> None:
    found = faults(EVERY[name], value)
    assert len(found) == 1 and words in found[0].problem, found
    assert found[0].where.startswith("f.json: $")


def test_all_faults_at_once_each_with_its_path() -> None:
    shape = Record({"a": Items(INNER), "b": WORD})
    found = faults(shape, {"a": [{"n": 9}, {"n": 1, "flagg": True}, 3], "b": "B", "c": 1})
    assert sorted(fault.where.removeprefix("f.json: ") for fault in found) == [
        "$.a[0].n",
        "$.a[1].flagg",
        "$.a[2]",
        "$.b",
        "$.c",
    ]
    assert any('did you mean "flag"?' in fault.problem for fault in found)


def test_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nearest("componets", ["components", "other"]) == '; did you mean "components"?'
    assert nearest("zzz", ["components"]) == ""
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert nearest("componets", ["components", "other"]) == ' (혹시 "components"입니까?)'
    assert nearest("zzz", ["components"]) == ""


def test_fault_in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    (found,) = faults(EVERY["record"], {"n": 1, "flga": True})
    assert found == Fault("f.json: $.flga", '알 수 없는 키 (혹시 "flag"입니까?)', "flag, n 중 하나")


@given(name=st.sampled_from(sorted(EVERY)), value=JSON)
def test_both_languages_find_the_same_faults_and_one_schema(name: str, value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAPFORGE_LANG", "en")
        found, schema = faults(EVERY[name], value), EVERY[name].schema()
        patch.setenv("GAPFORGE_LANG", "ko")
        assert [f.where for f in faults(EVERY[name], value)] == [f.where for f in found]
        assert EVERY[name].schema() == schema
