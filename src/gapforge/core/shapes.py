"""What a JSON document may look like, said once: the same description validates it and becomes its JSON Schema.

Validation reports every fault in one go, each with its JSON path, what is allowed and the nearest match.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapforge.core.errors import Fault


class Shape:
    """One kind of JSON value. ``about`` is the description that editors show."""

    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        """Append a Fault for each thing wrong with ``value``, which sits at JSON ``path`` in ``file``."""
        raise NotImplementedError

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


def nearest(word: str, known: Sequence[str]) -> str:
    """``; did you mean "x"?`` for the closest known word, or ""."""
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f'; did you mean "{match[0]}"?' if match else ""


@dataclass(frozen=True)
class Text(Shape):
    """A string; ``pattern`` must match all of it, ``expected`` says the pattern in words."""

    about: str = ""
    pattern: str = r"[^\x00-\x1f\x7f]+"
    expected: str = "text on one line"

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, str):
            _fault(faults, file, path, f"{_show(value)} is not text", self.expected)
        elif not re.fullmatch(self.pattern, value):
            _fault(faults, file, path, f"{_show(value)} is not allowed", self.expected)

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
            allowed = " or ".join(json.dumps(v) for v in self.values)
            _fault(faults, file, path, f"{_show(value)} is not one of the known values{close}", allowed)

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.values), **self._about()}


@dataclass(frozen=True)
class Flag(Shape):
    """true or false."""

    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, bool):
            _fault(faults, file, path, f"{_show(value)} is not true or false", "true or false")

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
            _fault(faults, file, path, f"{_show(value)} is not allowed",
                   f"a whole number from {self.least} to {self.most}")  # fmt: skip

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
            _fault(faults, file, path, f"{_show(value)} is not a list", "a list in [ ]")
            return
        if len(value) < self.least:
            _fault(faults, file, path, f"has {len(value)} members", f"{self.least} or more")
        for index, member in enumerate(value):
            self.item.check(member, f"{path}[{index}]", faults, file)
            if self.unique and member in value[:index]:
                _fault(faults, file, f"{path}[{index}]", f"{_show(member)} is listed twice", "each member once")

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
            _fault(faults, file, path, f"{_show(value)} is not an object", "an object in { }")
            return
        for name, member in value.items():
            if not re.fullmatch(self.key.pattern, name):
                _fault(faults, file, path, f"the key {_show(name)} is not allowed", self.key.expected)
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
            _fault(faults, file, path, f"{_show(value)} is not an object", "an object in { }")
            return
        known = {**self.required, **self.optional}
        for name in value:
            if name not in known:
                close = nearest(name, list(known))
                _fault(faults, file, f"{path}.{name}", f"unknown key{close}", "one of: " + ", ".join(sorted(known)))
        for name, shape in known.items():
            if name in value:
                shape.check(value[name], f"{path}.{name}", faults, file)
            elif name in self.required:
                _fault(faults, file, f"{path}.{name}", "is missing", shape.about or type(shape).__name__)

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
            _fault(faults, file, path, f"{_show(value)} is not an object", "an object in { }")
            return
        present = [key for key in self.kinds if key in value]
        if len(present) == 1:
            self.kinds[present[0]].check(value, path, faults, file)
            return
        found = "has none" if not present else "has " + " and ".join(f'"{key}"' for key in present)
        close = "".join(nearest(key, list(self.kinds)) for key in value)[:80] if not present else ""
        _fault(faults, file, path, f"{found} of the keys that say what it is{close}",
               "exactly one of " + ", ".join(f'"{key}"' for key in self.kinds))  # fmt: skip

    def schema(self) -> dict[str, Any]:
        return {"oneOf": [record.schema() for record in self.kinds.values()], **self._about()}


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f'the key "{key}" stands twice in one object')
        result[key] = value
    return result


def read_json(file: Path, shape: Shape, shown: str) -> tuple[Any, list[Fault]]:
    """The parsed document and all its faults; never raises for what the file holds.

    ``shown`` is the name that messages use. A file that cannot be read or is no JSON gives (None, [fault]).
    """
    try:
        text = file.read_bytes().decode("utf-8")
        value = json.loads(text, object_pairs_hook=_no_duplicates)
    except FileNotFoundError:
        return None, [Fault(shown, "does not exist")]
    except IsADirectoryError:
        return None, [Fault(shown, "is a folder", "a JSON file")]
    except OSError as error:
        return None, [Fault(shown, f"cannot be read: {error.strerror}")]
    except UnicodeDecodeError as error:
        return None, [Fault(shown, f"is not UTF-8 text (byte {error.start})", "UTF-8")]
    except json.JSONDecodeError as error:
        return None, [Fault(f"{shown}: line {error.lineno}, column {error.colno}", f"is not JSON: {error.msg}")]
    except RecursionError:
        return None, [Fault(shown, "is nested too deeply")]
    except ValueError as error:
        return None, [Fault(shown, str(error), "each key once")]
    faults: list[Fault] = []
    shape.check(value, "$", faults, shown)
    return value, faults
