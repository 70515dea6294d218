"""JSON of others is parsed within limits, and nothing but ValueError is raised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gapforge.base import limits
from gapforge.base.files import UnsuitableFile
from gapforge.base.strict_json import canonical_json, parse_json, read_json

pytestmark = pytest.mark.every_python

DEEP, DIGITS = limits.JSON_DEPTH, limits.JSON_DIGITS


@pytest.mark.parametrize(
    "text",
    [
        "[" * (DEEP + 1) + "]" * (DEEP + 1),
        "[" * 200_000,
        "[" * 200_000 + "]" * 200_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "9" * (DIGITS + 1),
        "-" + "9" * 5000,
        "NaN",
        "-Infinity",
        "1e999",
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1, "b": 1}}',
        '"\\ud800"',
        '{"\\udfff": 1}',
        "[" + "0," * limits.JSON_VALUES + "0]",
        "",
        "{",
        "\ufeff{}",
    ],
    ids=lambda text: f"{text[:12]!r} of {len(text)}",
)
def test_json_beyond_the_limits_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - any ValueError is the promise
        parse_json(text.encode())
    assert isinstance(caught.value.args[0], str)


@pytest.mark.parametrize(
    "value",
    [
        json.loads("[" * DEEP + "]" * DEEP),
        int("9" * DIGITS),
        -int("9" * DIGITS),
        1.5,
        {"a": {"a": [{"a": None}]}},
        "\U0001f600",
        "a,b[c{",
    ],
    ids=lambda value: str(value)[:12],
)
def test_json_at_the_limits_is_parsed(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


def test_text_that_is_not_utf8_is_a_value_error() -> None:
    with pytest.raises(UnicodeDecodeError):
        parse_json(b'"\xff"')


def test_size_of_file_is_limited(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b"[1]      ")
    assert read_json(file, 9) == [1]
    with pytest.raises(UnsuitableFile):
        read_json(file, 8)


def test_canonical_json_ignores_key_order() -> None:
    assert (
        canonical_json({"b": 1, "a": "한"})
        == canonical_json({"a": "한", "b": 1})
        == '{\n  "a": "한",\n  "b": 1\n}\n'
    )
