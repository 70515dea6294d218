"""Test that shapes report every fault, and that their JSON Schemas accept the same documents."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapforge.base import limits
from gapforge.base.errors import Fault
from gapforge.model.schema import (
    AnyOf,
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
    faults_of,
    nearest,
    read_json,
)
from raised_errors import values_of

WORD = Text("a word", r"[a-z]+", "lower-case letters")
INNER = Record({"n": Number("a number", 1, 5)}, {"flag": Flag()})
EVERY: dict[str, Shape] = {
    "text": Text(),
    "word": WORD,
    "choice": Choice(("a", "b", 3)),
    "flag": Flag(),
    "number": Number("x", 0, 10),
    "nullable": Nullable(WORD),
    "any": AnyOf((WORD, Flag(), Items(WORD))),
    "items": Items(WORD, least=1, unique=True),
    "table": Table(Number(), WORD),
    "record": INNER,
    "open": Record({"n": Number()}, others=Table(WORD, WORD)),
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
def test_every_schema_is_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(EVERY[name].schema())


@given(name=st.sampled_from(sorted(EVERY)), value=JSON)
def test_schema_and_validator_agree(name: str, value: Any) -> None:
    valid = jsonschema.Draft202012Validator(EVERY[name].schema()).is_valid(value)
    assert valid == (faults(EVERY[name], value) == []), (value, faults(EVERY[name], value))


@pytest.mark.parametrize(
    ("name", "value", "path", "data"),
    [
        ("word", 3, "$", ("3",)),
        ("word", "A", "$", ('"A"',)),
        ("word", "a\n", "$", ('"a\\n"',)),
        ("choice", "c", "$", ('"c"', '"a"', '"b"', "3")),
        ("choice", True, "$", ("true",)),
        ("flag", 1, "$", ("1",)),
        ("number", True, "$", ("true",)),
        ("number", 11, "$", ("11", "0", "10")),
        ("number", 1.5, "$", ("1.5",)),
        ("nullable", 1, "$", ("1",)),
        ("any", 1, "$", ("1",)),
        ("any", "A", "$", ('"A"',)),
        ("any", [2], "$[0]", ("2",)),
        ("items", [], "$", ("0", "1")),
        ("items", "ab", "$", ('"ab"',)),
        ("items", ["a", "a"], "$[1]", ('"a"',)),
        ("table", {"A": 1}, "$", ('"A"',)),
        ("table", [], "$", ("[]",)),
        ("record", [], "$", ("[]",)),
        ("record", {}, "$.n", ()),
        ("record", {"n": 1, "flga": True}, "$.flga", ('"flag"', "flag", "n")),
        ("open", {"n": 1, "x": "A"}, "$.x", ('"A"',)),
        ("open", {"n": 1, "X": "a"}, "$", ('"X"',)),
        ("variant", {"url": []}, "$", ('"urls"', '"made"')),
        ("variant", {"urls": [], "made": True}, "$", ('"urls"', '"made"')),
        ("variant", 1, "$", ("1",)),
    ],
)
@pytest.mark.parametrize("language", ["en", "ko"])
def test_one_fault_names_place_and_values(
    monkeypatch: pytest.MonkeyPatch,
    language: str,
    name: str,
    value: Any,
    path: str,
    data: tuple[str, ...],
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    (fault,) = faults(EVERY[name], value)
    assert fault.where == f"f.json: {path}"
    assert [word for word in data if word not in f"{fault.problem} {fault.expected}"] == []


def test_all_faults_are_reported_with_their_paths() -> None:
    shape = Record({"a": Items(INNER), "b": WORD})
    found = faults(shape, {"a": [{"n": 9}, {"n": 1, "flagg": True}, 3], "b": "B", "c": 1})
    assert sorted(fault.where.removeprefix("f.json: ") for fault in found) == [
        "$.a[0].n",
        "$.a[1].flagg",
        "$.a[2]",
        "$.b",
        "$.c",
    ]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_nearest_suggests_only_similar_words(
    monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    assert '"components"' in nearest("componets", ["components", "other"])
    assert nearest("zzz", ["components"]) == ""
    assert nearest("train", ["train", "trains"]) == "", "the word is known"


def test_faults_in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    (fault,) = faults(EVERY["record"], {"n": 1, "flga": True})
    assert (fault.problem, fault.expected) == (
        '알 수 없는 키(혹시 "flag"입니까?)',
        "flag, n 중 하나",
    )
    (fault,) = faults(EVERY["items"], "ab")
    assert (fault.problem, fault.expected) == ('목록([ ])이 아님: "ab"', "[ ] 목록")


@given(name=st.sampled_from(sorted(EVERY)), value=JSON)
def test_language_changes_no_fault_and_no_schema(name: str, value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAPFORGE_LANG", "en")
        found, schema = faults(EVERY[name], value), EVERY[name].schema()
        patch.setenv("GAPFORGE_LANG", "ko")
        assert [f.where for f in faults(EVERY[name], value)] == [f.where for f in found]
        assert EVERY[name].schema() == schema


def test_missing_key_is_described_by_its_shape() -> None:
    shape = Record({"about": Number("bytes"), "bare": Nullable(Flag()), "list": Items(WORD)})
    about, bare, items = faults(shape, {})
    assert about.expected == "bytes"
    assert bare.expected == Nullable(Flag()).wanted()
    assert items.expected == Items(WORD).wanted()


def test_long_values_are_shortened() -> None:
    assert len(faults(WORD, "A" * 10_000)[0].problem) < 120


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [
        (b"{", 1, 2),
        (b"[1 2]", 1, 4),
        (b'"abc', 1, 1),
        ("\ufeff{}".encode(), 1, 1),
        (b"\n", 2, 1),
        (b'{"a": 1, "a": 2}', None, None),
        (b"\xff", None, None),
        (b'"\\ud800"', None, None),
        (b"[" * 100_000, None, None),
    ],
)
@pytest.mark.parametrize("language", ["en", "ko"])
def test_unreadable_json_is_one_fault(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    language: str,
    data: bytes,
    line: int | None,
    column: int | None,
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    file = tmp_path / "x.json"
    file.write_bytes(data)
    value, (fault,) = read_json(file, Record({"word": WORD}), "x.json")
    assert value is None
    position = {"shown": "x.json", "lineno": line, "colno": column} if line else {}
    assert values_of(fault.where) == position and fault.where.startswith("x.json")


def test_reasons_of_the_json_parser_are_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    file = tmp_path / "x.json"
    file.write_bytes(b"[1 2]")
    _, (fault,) = read_json(file, Record({"word": WORD}), "x.json")
    assert (fault.where, fault.problem) == ("x.json: 1행 4열", "JSON이 아님: ','가 와야 함")


def test_missing_file_and_folder_are_faults(tmp_path: Path) -> None:
    for path in (tmp_path / "no.json", tmp_path):
        value, (fault,) = read_json(path, WORD, "shown")
        assert (value, fault.where) == (None, "shown")


@given(st.binary(max_size=60))
def test_any_bytes_give_faults_not_errors(data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        value, found = read_json(Path(file.name), Record({"word": WORD}), "x")
        assert value is None or isinstance(found, list)
        assert found


def test_length_of_text_is_limited() -> None:
    shape = Text("a word", r"[a-z]+", "lower-case letters", 5)
    assert faults(shape, "abcde") == [] and len(faults(shape, "abcdef")) == 1
    assert len(faults(Text(), "a" * (limits.TEXT + 1))) == 1
    assert len(faults(Table(Flag(), shape), {"abcdef": True})) == 1


def test_faults_are_limited() -> None:
    """A document of a megabyte can have a hundred thousand."""
    found = faults_of({str(n): n for n in range(100_000)}, INNER, "f.json")
    assert len(found) == limits.FAULTS + 1 and found[-1].where == "f.json"


def test_repeated_members_are_found_in_long_lists() -> None:
    words = ["".join(each) for each in itertools.product("abcdefghijklmnopqrst", repeat=4)]
    assert faults(Items(WORD, unique=True), words) == []
    (fault,) = faults(Items(WORD, unique=True), [*words, words[7]])
    assert fault.where == f"f.json: $[{len(words)}]"
