"""Shapes: every fault at once, and the JSON Schema that says the same as the validator."""

from __future__ import annotations

from pathlib import Path
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
    read_json,
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


@pytest.mark.parametrize(
    ("name", "value", "problem", "expected"),
    [
        ("text", 3, "문자열이 아님: 3", "한 줄짜리 문자열"),
        ("word", "A", '쓸 수 없는 값: "A"', "소문자"),
        ("choice", "c", '정해진 값이 아님: "c"', '"a" 또는 "b" 또는 3'),
        ("flag", 1, "true나 false가 아님: 1", "true 또는 false"),
        ("number", 11, "쓸 수 없는 값: 11", "0 이상 10 이하의 정수"),
        ("items", "ab", '목록([ ])이 아님: "ab"', "[ ] 목록"),
        ("items", [], "항목이 0개임", "1개 이상"),
        ("items", ["a", "a"], '두 번 적혀 있음: "a"', "항목마다 한 번"),
        ("table", {"A": 1}, '쓸 수 없는 키: "A"', "소문자"),
        ("record", [], "객체({ })가 아님: []", "{ } 객체"),
        ("record", {}, "없음", "1 이상 5 이하의 정수"),
        ("record", {"n": 1, "flga": True}, '알 수 없는 키 (혹시 "flag"입니까?)', "flag, n 중 하나"),
        (
            "variant",
            {"url": []},
            '종류를 정하는 키가 없음 (혹시 "urls"입니까?)',
            '"urls", "made" 중 하나만',
        ),
        (
            "variant",
            {"urls": [], "made": True},
            '종류를 정하는 키가 2개임: "urls", "made"',
            '"urls", "made" 중 하나만',
        ),
    ],
)
def test_faults_in_korean(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any, problem: str, expected: str
) -> None:
    shape = Text("a word", r"[a-z]+", {"ko": "소문자", "en": "lower-case letters"})
    shapes = {**EVERY, "word": shape, "table": Table(Number(), shape)}
    before = faults(shapes[name], value)
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    (found,) = faults(shapes[name], value)
    assert (found.problem, found.expected) == (problem, expected)
    assert [f.where for f in before] == [found.where]


@given(name=st.sampled_from(sorted(EVERY)), value=JSON)
def test_both_languages_find_the_same_faults_and_one_schema(name: str, value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAPFORGE_LANG", "en")
        found, schema = faults(EVERY[name], value), EVERY[name].schema()
        patch.setenv("GAPFORGE_LANG", "ko")
        assert [f.where for f in faults(EVERY[name], value)] == [f.where for f in found]
        assert EVERY[name].schema() == schema


@pytest.mark.parametrize(
    ("data", "where", "problem"),
    [
        (b"{", "x.json: 1행 2열", "JSON이 아님: 큰따옴표로 묶은 키가 와야 함"),
        (b"[1 2]", "x.json: 1행 4열", "JSON이 아님: ','가 와야 함"),
        (b'"abc', "x.json: 1행 1열", "JSON이 아님: 문자열이 닫히지 않음"),
        ("\ufeff{}".encode(), "x.json: 1행 1열", "JSON이 아님: 맨 앞에 BOM이 있음"),
        (b'{"a": 1, "a": 2}', "x.json", '한 객체 안에 같은 키가 두 번 있음: "a"'),
        (b"\xff", "x.json", "UTF-8 텍스트가 아님(바이트 위치 0)"),
        (b"[" * 100_000, "x.json", "너무 깊게 중첩되어 있음"),
    ],
)
def test_unreadable_json_in_korean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, where: str, problem: str
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    file = tmp_path / "x.json"
    file.write_bytes(data)
    _, (found,) = read_json(file, Record({"word": WORD}), "x.json")
    assert (found.where, found.problem) == (where, problem)


def test_a_missing_key_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Record({"about": Number("bytes"), "bare": Nullable(Flag()), "list": Items(WORD)})
    assert [f.expected for f in faults(shape, {})] == [
        "bytes",
        "null or true or false",
        "a list in [ ]",
    ]
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    assert [f.expected for f in faults(shape, {})][1:] == ["null 또는 true 또는 false", "[ ] 목록"]


def test_long_values_are_cut() -> None:
    assert len(faults(WORD, "A" * 10_000)[0].problem) < 120


@pytest.mark.parametrize(
    ("data", "where", "words"),
    [
        (b"{", "line 1, column 2", "is not JSON"),
        (b'{"a": 1, "a": 2}', "", "stands twice"),
        (b"\xff", "", "not UTF-8"),
        (b"[" * 100_000, "", "nested too deeply"),
        (b"", "line 1", "is not JSON"),
        (b'{"word": NaN}', "", ""),
    ],
)
def test_unreadable_json(tmp_path: Path, data: bytes, where: str, words: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(data)
    _, found = read_json(file, Record({"word": WORD}), "x.json")
    assert (
        len(found) == 1
        and where in found[0].where
        and words in found[0].problem
        and "x.json" in found[0].where
    )


def test_missing_and_folder(tmp_path: Path) -> None:
    assert read_json(tmp_path / "no.json", WORD, "no.json")[1][0].problem == "does not exist"
    assert read_json(tmp_path, WORD, "dir")[1][0].problem == "is a folder"


@given(st.binary(max_size=60))
def test_any_bytes_give_faults_not_errors(data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        value, found = read_json(Path(file.name), Record({"word": WORD}), "x")
        assert value is None or isinstance(found, list)
        assert found


def test_a_word_that_is_right_is_not_suggested() -> None:
    """Where a known name is refused for another reason, "did you mean" it helps nobody."""
    assert nearest("train", ["train", "trains"]) == ""
    assert nearest("trian", ["train"]) == '; did you mean "train"?'
