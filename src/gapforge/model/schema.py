"""What a JSON document may look like, said once: the same description validates it and becomes its JSON Schema.

Validation reports every fault in one go, each with its JSON path, what is allowed and the nearest match. Faults speak
the reader's language; the descriptions (``about``) go into the schemas, which are files and so have one language.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault
from gapforge.base.system_errors import json_says, unreadable
from gapforge.base.text import tr

Said = str | Mapping[str, str]  # a text for readers: the same in every language, or one for each of "ko" and "en"
ONE_LINE: Mapping[str, str] = {"ko": "한 줄짜리 문자열", "en": "text on one line"}

_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class Shape:
    """One kind of JSON value. ``about`` is the description that editors show."""

    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        """Append a Fault for each thing wrong with ``value``, which sits at JSON ``path`` in ``file``."""
        raise NotImplementedError

    def wanted(self) -> str:
        """What a value of this shape is, in the reader's language."""
        return _object()

    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema (draft 2020-12)."""
        raise NotImplementedError

    def _about(self) -> dict[str, Any]:
        return {"description": self.about} if self.about else {}


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _fault(faults: list[Fault], file: str, path: str, problem: str, expected: str) -> None:
    faults.append(Fault(f"{file}: {path}", problem, expected))


def _object() -> str:
    return tr("{ } 객체", "an object in { }")


def _not_allowed(value: Any) -> str:
    return tr(f"쓸 수 없는 값: {_show(value)}", f"{_show(value)} is not allowed")


def _no_object(value: Any) -> str:
    return tr(f"객체({{ }})가 아님: {_show(value)}", f"{_show(value)} is not an object")


def said(text: Said) -> str:
    """``text`` in the reader's language."""
    return text if isinstance(text, str) else tr(text["ko"], text["en"])


def one_of(words: Sequence[str]) -> str:
    """What is expected where only these are known; "" for none."""
    shown = ", ".join(words)
    return tr(f"{shown} 중 하나", f"one of: {shown}") if words else ""


def nearest(word: str, known: Sequence[str]) -> str:
    """What follows a sentence or fragment about an unknown word: the closest known one, or "".

    ``; did you mean "x"?`` in English; `` (혹시 "x"입니까?)`` in Korean, before the full stop if there is one.
    """
    match = [] if word in known else difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return tr(f' (혹시 "{match[0]}"입니까?)', f'; did you mean "{match[0]}"?') if match else ""


@dataclass(frozen=True)
class Text(Shape):
    """A string; ``pattern`` must match all of it, ``expected`` says the pattern in words."""

    about: str = ""
    pattern: str = r"[^\x00-\x1f\x7f]+"
    expected: Said = field(default_factory=lambda: ONE_LINE)

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, str):
            problem = tr(f"문자열이 아님: {_show(value)}", f"{_show(value)} is not text")
            _fault(faults, file, path, problem, self.wanted())
        elif not re.fullmatch(self.pattern, value):
            _fault(faults, file, path, _not_allowed(value), self.wanted())

    def wanted(self) -> str:
        return said(self.expected)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$", **self._about()}


@dataclass(frozen=True)
class Choice(Shape):
    """One of a few fixed values (strings or numbers)."""

    values: tuple[str | int, ...]
    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if isinstance(value, bool) or value not in self.values:
            close = nearest(value, [str(v) for v in self.values]) if isinstance(value, str) else ""
            problem = tr(
                f"정해진 값이 아님: {_show(value)}{close}", f"{_show(value)} is not one of the known values{close}"
            )
            _fault(faults, file, path, problem, self.wanted())

    def wanted(self) -> str:
        return tr(" 또는 ", " or ").join(json.dumps(v) for v in self.values)

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.values), **self._about()}


@dataclass(frozen=True)
class Flag(Shape):
    """true or false."""

    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, bool):
            problem = tr(f"true나 false가 아님: {_show(value)}", f"{_show(value)} is not true or false")
            _fault(faults, file, path, problem, self.wanted())

    def wanted(self) -> str:
        return tr("true 또는 false", "true or false")

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean", **self._about()}


@dataclass(frozen=True)
class Number(Shape):
    """A whole number from ``least`` to ``most``."""

    about: str = ""
    least: int = 0
    most: int = 2**53

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= self.most:
            _fault(faults, file, path, _not_allowed(value), self.wanted())

    def wanted(self) -> str:
        return tr(f"{self.least} 이상 {self.most} 이하의 정수", f"a whole number from {self.least} to {self.most}")

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most, **self._about()}


@dataclass(frozen=True)
class Nullable(Shape):
    """``null`` or the given shape."""

    shape: Shape
    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if value is not None:
            self.shape.check(value, path, faults, file)

    def wanted(self) -> str:
        return tr(f"null 또는 {self.shape.wanted()}", f"null or {self.shape.wanted()}")

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "null"}, self.shape.schema()], **self._about()}


@dataclass(frozen=True)
class Items(Shape):
    """A list whose members all have one shape."""

    item: Shape
    about: str = ""
    least: int = 0
    unique: bool = False

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, list):
            _fault(
                faults,
                file,
                path,
                tr(f"목록([ ])이 아님: {_show(value)}", f"{_show(value)} is not a list"),
                self.wanted(),
            )
            return
        if len(value) < self.least:
            _fault(faults, file, path, tr(f"항목이 {len(value)}개임", f"has {len(value)} members"),
                   tr(f"{self.least}개 이상", f"{self.least} or more"))  # fmt: skip
        for index, member in enumerate(value):
            self.item.check(member, f"{path}[{index}]", faults, file)
            if self.unique and member in value[:index]:
                _fault(faults, file, f"{path}[{index}]", tr(f"두 번 적혀 있음: {_show(member)}", f"{_show(member)} is listed twice"),
                       tr("항목마다 한 번", "each member once"))  # fmt: skip

    def wanted(self) -> str:
        return tr("[ ] 목록", "a list in [ ]")

    def schema(self) -> dict[str, Any]:
        result: dict[str, Any] = {"type": "array", "items": self.item.schema(), **self._about()}
        if self.least:
            result["minItems"] = self.least
        if self.unique:
            result["uniqueItems"] = True
        return result


@dataclass(frozen=True)
class Table(Shape):
    """An object with free keys that match ``key``, whose values all have one shape."""

    value: Shape
    key: Text = field(default_factory=Text)
    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, dict):
            _fault(faults, file, path, _no_object(value), self.wanted())
            return
        for name, member in value.items():
            if not re.fullmatch(self.key.pattern, name):
                problem = tr(f"쓸 수 없는 키: {_show(name)}", f"the key {_show(name)} is not allowed")
                _fault(faults, file, path, problem, self.key.wanted())
                continue
            self.value.check(member, f"{path}.{name}", faults, file)

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^(?:{self.key.pattern})$"},
            "additionalProperties": self.value.schema(),
            **self._about(),
        }


@dataclass(frozen=True)
class Record(Shape):
    """An object with known keys. An unknown key is a fault, with the nearest known one."""

    required: Mapping[str, Shape]
    optional: Mapping[str, Shape] = field(default_factory=dict)
    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, dict):
            _fault(faults, file, path, _no_object(value), self.wanted())
            return
        known = {**self.required, **self.optional}
        for name in value:
            if name not in known:
                close = nearest(name, list(known))
                problem = tr(f"알 수 없는 키{close}", f"unknown key{close}")
                _fault(faults, file, f"{path}.{name}", problem, one_of(sorted(known)))
        for name, shape in known.items():
            if name in value:
                shape.check(value[name], f"{path}.{name}", faults, file)
            elif name in self.required:
                # The schema's description where the reader's language is the schema's.
                wanted = tr(shape.wanted(), shape.about or shape.wanted())
                _fault(faults, file, f"{path}.{name}", tr("없음", "is missing"), wanted)

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {k: s.schema() for k, s in {**self.required, **self.optional}.items()},
            "required": sorted(self.required),
            "additionalProperties": False,
            **self._about(),
        }


@dataclass(frozen=True)
class Variant(Shape):
    """An object that is one of several records, told apart by which distinguishing key it has."""

    kinds: Mapping[str, Record]  # distinguishing key -> its record
    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, dict):
            _fault(faults, file, path, _no_object(value), self.wanted())
            return
        present = [key for key in self.kinds if key in value]
        if len(present) == 1:
            self.kinds[present[0]].check(value, path, faults, file)
            return
        close = "".join(nearest(key, list(self.kinds)) for key in value)[:80] if not present else ""
        kinds = ", ".join(f'"{key}"' for key in self.kinds)
        if present:
            both = [f'"{key}"' for key in present]
            problem = tr(f"종류를 정하는 키가 {len(both)}개임: {', '.join(both)}",
                         f"has {' and '.join(both)} of the keys that say what it is")  # fmt: skip
        else:
            problem = tr(f"종류를 정하는 키가 없음{close}", f"has none of the keys that say what it is{close}")
        _fault(faults, file, path, problem, tr(f"{kinds} 중 하나만", f"exactly one of {kinds}"))

    def schema(self) -> dict[str, Any]:
        return {"oneOf": [record.schema() for record in self.kinds.values()], **self._about()}


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(
                tr(f'한 객체 안에 같은 키가 두 번 있음: "{key}"', f'the key "{key}" stands twice in one object')
            )
        result[key] = value
    return result


def read_json(file: Path, shape: Shape, shown: str) -> tuple[Any, list[Fault]]:
    """The parsed document and all its faults; never raises for what the file holds.

    ``shown`` is the name that messages use. A file that cannot be read or is no JSON gives (None, [fault]).
    """
    try:
        text = file.read_bytes().decode("utf-8")
        value = json.loads(text, object_pairs_hook=_no_duplicates)
        if _HALF.search(text):  # a whole pair is a character; half of one can be written nowhere
            json.dumps(value, ensure_ascii=False).encode()
    except FileNotFoundError:
        return None, [Fault(shown, tr("없음", "does not exist"))]
    except IsADirectoryError:
        return None, [Fault(shown, tr("폴더임", "is a folder"), tr("JSON 파일", "a JSON file"))]
    except OSError as error:
        return None, [Fault(shown, unreadable(error))]
    except UnicodeDecodeError as error:
        return None, [Fault(shown, tr(f"UTF-8 텍스트가 아님(바이트 위치 {error.start})",
                                      f"is not UTF-8 text (byte {error.start})"), "UTF-8")]  # fmt: skip
    except UnicodeEncodeError:
        return None, [Fault(shown, tr("반쪽짜리 유니코드 문자가 있음 (\\ud800-\\udfff)",
                                      "holds half of a Unicode character (\\ud800 to \\udfff)"))]  # fmt: skip
    except json.JSONDecodeError as error:
        where = tr(f"{shown}: {error.lineno}행 {error.colno}열", f"{shown}: line {error.lineno}, column {error.colno}")
        why = json_says(error)
        return None, [Fault(where, tr(f"JSON이 아님: {why}", f"is not JSON: {why}"))]
    except RecursionError:
        return None, [Fault(shown, tr("너무 깊게 중첩되어 있음", "is nested too deeply"))]
    except ValueError as error:
        return None, [Fault(shown, str(error), tr("키마다 한 번", "each key once"))]
    faults: list[Fault] = []
    shape.check(value, "$", faults, shown)
    return value, faults
