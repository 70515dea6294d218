"""Shapes of JSON documents: one description validates a document and becomes its JSON Schema.

Validation reports all faults, each with its JSON path, what is allowed and the nearest match, in
the reader's language. The descriptions (``about``) are for the schemas and are English.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from gapforge.base import limits, strict_json
from gapforge.base.errors import Fault
from gapforge.base.files import read_regular
from gapforge.base.i18n import N_, _, language
from gapforge.base.system_errors import json_reason, unreadable

ONE_LINE = N_("text on one line")


class Shape:
    """One kind of JSON value. ``about`` is the description that editors show."""

    about: str = ""
    json_type: ClassVar[type | None] = None  # of its values, for the shapes that AnyOf may have

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        """Append the faults of ``value``, which is at the JSON ``path`` in ``file``."""
        raise NotImplementedError

    def wanted(self) -> str:
        """Return what a value of this shape is, in the reader's language."""
        return _("an object in { }")

    def schema(self) -> dict[str, Any]:
        """Return the shape as JSON Schema (draft 2020-12)."""
        raise NotImplementedError

    def _about(self) -> dict[str, Any]:
        return {"description": self.about} if self.about else {}


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


class _EnoughFaults(Exception):
    """A document has as many faults as are reported."""


def _fault(faults: list[Fault], file: str, path: str, problem: str, expected: str) -> None:
    if len(faults) >= limits.FAULTS:
        raise _EnoughFaults
    faults.append(Fault(f"{file}: {path}", problem, expected))


def faults_of(value: Any, shape: Shape, shown: str) -> list[Fault]:
    """Return the faults of a document, up to the limit. ``shown`` is its name in messages."""
    faults: list[Fault] = []
    try:
        shape.check(value, "$", faults, shown)
    except _EnoughFaults:
        faults.append(Fault(shown, _("further faults are not shown")))
    return faults


def _not_allowed(value: Any) -> str:
    return _("{value} is not allowed", value=_show(value))


def _no_object(value: Any) -> str:
    return _("{value} is not an object", value=_show(value))


def one_of(words: Sequence[str]) -> str:
    """Return "one of: …" for a fault's expected value, "" for no words."""
    shown = ", ".join(words)
    return _("one of: {shown}", shown=shown) if words else ""


def nearest(word: str, known: Sequence[str], *, prefix: str = "") -> str:
    """Return a suggestion to append to a message about an unknown word, or "".

    For example ``; did you mean "x"?``. ``prefix`` is what all words begin with, as "--" of flags,
    and does not make them similar.
    """
    if word in known:
        return ""
    bare = [name.removeprefix(prefix) for name in known]
    match = difflib.get_close_matches(word.removeprefix(prefix), bare, n=1, cutoff=0.6)
    return _('; did you mean "{match}"?', match=prefix + match[0]) if match else ""


@dataclass(frozen=True)
class Text(Shape):
    """A string; ``pattern`` must match all of it, ``expected`` says the pattern in words.

    ``most`` is its limit in characters. Patterns take time in proportion to the text.
    """

    json_type = str

    about: str = ""
    pattern: str = r"[^\x00-\x1f\x7f]+"
    expected: str = ONE_LINE
    most: int = limits.TEXT

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, str):
            problem = _("{value} is not text", value=_show(value))
            _fault(faults, file, path, problem, self.wanted())
        elif len(value) > self.most:
            problem = _("has {count} characters", count=len(value))
            _fault(faults, file, path, problem, _("at most {most}", most=self.most))
        elif not self.matches(value):
            _fault(faults, file, path, _not_allowed(value), self.wanted())

    def matches(self, text: str) -> bool:
        """Return whether ``text`` is of this shape."""
        return len(text) <= self.most and re.fullmatch(self.pattern, text) is not None

    def wanted(self) -> str:
        return _(self.expected)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", **self.restrictions(), **self._about()}

    def restrictions(self) -> dict[str, Any]:
        """Return pattern and length as JSON Schema."""
        return {"pattern": f"^(?:{self.pattern})$", "maxLength": self.most}


@dataclass(frozen=True)
class Choice(Shape):
    """One of a few fixed values (strings or numbers)."""

    values: tuple[str | int, ...]
    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if isinstance(value, bool) or value not in self.values:
            close = nearest(value, [str(v) for v in self.values]) if isinstance(value, str) else ""
            problem = _(
                "{value} is not one of the known values{close}", value=_show(value), close=close
            )
            _fault(faults, file, path, problem, self.wanted())

    def wanted(self) -> str:
        return _(" or ").join(json.dumps(v) for v in self.values)

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.values), **self._about()}


@dataclass(frozen=True)
class Flag(Shape):
    """true or false."""

    json_type = bool

    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, bool):
            problem = _("{value} is not true or false", value=_show(value))
            _fault(faults, file, path, problem, self.wanted())

    def wanted(self) -> str:
        return _("true or false")

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean", **self._about()}


@dataclass(frozen=True)
class Number(Shape):
    """A whole number from ``least`` to ``most``."""

    about: str = ""
    least: int = 0
    most: int = 2**53

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not self.least <= value <= self.most
        ):
            _fault(faults, file, path, _not_allowed(value), self.wanted())

    def wanted(self) -> str:
        return _("a whole number from {least} to {most}", least=self.least, most=self.most)

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
        return _("null or {wanted}", wanted=self.shape.wanted())

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "null"}, self.shape.schema()], **self._about()}


@dataclass(frozen=True)
class AnyOf(Shape):
    """A value of one of several shapes, no two of which are of the same JSON type."""

    shapes: tuple[Shape, ...]
    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        for shape in self.shapes:
            if type(value) is shape.json_type:
                shape.check(value, path, faults, file)
                return
        _fault(faults, file, path, _not_allowed(value), self.wanted())

    def wanted(self) -> str:
        return _(" or ").join(shape.wanted() for shape in self.shapes)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [shape.schema() for shape in self.shapes], **self._about()}


@dataclass(frozen=True)
class Items(Shape):
    """A list whose members all have one shape."""

    json_type = list

    item: Shape
    about: str = ""
    least: int = 0
    unique: bool = False

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, list):
            _fault(
                faults, file, path, _("{value} is not a list", value=_show(value)), self.wanted()
            )
            return
        if len(value) < self.least:
            _fault(
                faults,
                file,
                path,
                _("has {count} members", count=len(value)),
                _("{least} or more", least=self.least),
            )
        seen: set[str] = set()
        for index, member in enumerate(value):
            self.item.check(member, f"{path}[{index}]", faults, file)
            if self.unique and _seen_before(member, seen):
                _fault(
                    faults,
                    file,
                    f"{path}[{index}]",
                    _("{member} is listed twice", member=_show(member)),
                    _("each member once"),
                )

    def wanted(self) -> str:
        return _("a list in [ ]")

    def schema(self) -> dict[str, Any]:
        result: dict[str, Any] = {"type": "array", "items": self.item.schema(), **self._about()}
        if self.least:
            result["minItems"] = self.least
        if self.unique:
            result["uniqueItems"] = True
        return result


def _seen_before(member: Any, seen: set[str]) -> bool:
    """Return whether ``seen`` contains ``member``, and add it."""
    text = json.dumps(member, sort_keys=True)
    known = text in seen
    seen.add(text)
    return known


@dataclass(frozen=True)
class Table(Shape):
    """An object with free keys that match ``key``, whose values all have one shape."""

    json_type = dict

    value: Shape
    key: Text = field(default_factory=Text)
    about: str = ""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, dict):
            _fault(faults, file, path, _no_object(value), self.wanted())
            return
        for name, member in value.items():
            if not self.key.matches(name):
                problem = _("the key {name} is not allowed", name=_show(name))
                _fault(faults, file, path, problem, self.key.wanted())
                continue
            self.value.check(member, f"{path}.{name}", faults, file)

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "propertyNames": self.key.restrictions(),
            "additionalProperties": self.value.schema(),
            **self._about(),
        }


@dataclass(frozen=True)
class Record(Shape):
    """An object with known keys.

    An unknown key is a fault with the nearest known one, unless ``others`` describes further keys.
    """

    json_type = dict

    required: Mapping[str, Shape]
    optional: Mapping[str, Shape] = field(default_factory=dict)
    about: str = ""
    others: Table | None = None

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        if not isinstance(value, dict):
            _fault(faults, file, path, _no_object(value), self.wanted())
            return
        known = {**self.required, **self.optional}
        unknown = {name: member for name, member in value.items() if name not in known}
        if self.others is not None:
            self.others.check(unknown, path, faults, file)
        else:
            for name in unknown:
                problem = _("unknown key{close}", close=nearest(name, list(known)))
                _fault(faults, file, f"{path}.{name}", problem, one_of(sorted(known)))
        for name, shape in known.items():
            if name in value:
                shape.check(value[name], f"{path}.{name}", faults, file)
            elif name in self.required:
                # The description, where it is in the reader's language: those of components are.
                about = _(shape.about)
                readable = language() == "en" or about != shape.about
                wanted = (about if readable else "") or shape.wanted()
                _fault(faults, file, f"{path}.{name}", _("is missing"), wanted)

    def schema(self) -> dict[str, Any]:
        properties = {**self.required, **self.optional}
        result: dict[str, Any] = {
            "type": "object",
            "properties": {name: shape.schema() for name, shape in properties.items()},
            "required": sorted(self.required),
            "additionalProperties": False,
        }
        if self.others is not None:
            further = self.others.schema()
            result |= {key: further[key] for key in ("propertyNames", "additionalProperties")}
        return {**result, **self._about()}


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
            problem = _(
                "has more than one of the keys that decide its kind: {both}",
                both=_(" and ").join(both),
            )
        else:
            problem = _("has none of the keys that decide its kind{close}", close=close)
        _fault(faults, file, path, problem, _("exactly one of {kinds}", kinds=kinds))

    def schema(self) -> dict[str, Any]:
        return {"oneOf": [record.schema() for record in self.kinds.values()], **self._about()}


def read_json(
    file: Path, shape: Shape, shown: str, most: int = limits.DESCRIPTION
) -> tuple[Any, list[Fault]]:
    """Return the parsed document and all its faults, (None, [fault]) for an unreadable file.

    ``shown`` is the file's name in messages, ``most`` the limit of its size in bytes. No content of
    the file raises an error.
    """
    data, faults = read_file(file, shown, most)
    return parse_json(data, shape, shown) if data is not None else (None, faults)


def read_file(file: Path, shown: str, most: int) -> tuple[bytes | None, list[Fault]]:
    """Return the bytes of a document, (None, [fault]) for an unreadable file."""
    try:
        return read_regular(file, most, follow=True), []
    except FileNotFoundError:
        return None, [Fault(shown, _("does not exist"))]
    except IsADirectoryError:
        return None, [Fault(shown, _("is a folder"), _("a JSON file"))]
    except OSError as error:
        return None, [Fault(shown, unreadable(error))]


def parse_json(data: bytes, shape: Shape, shown: str) -> tuple[Any, list[Fault]]:
    """Return the document in ``data`` and all its faults, as ``read_json`` does for a file."""
    try:
        value = strict_json.parse_json(data)
    except UnicodeDecodeError as error:
        return None, [
            Fault(shown, _("is not UTF-8 text (byte {start})", start=error.start), "UTF-8")
        ]
    except json.JSONDecodeError as error:
        where = _(
            "{shown}: line {lineno}, column {colno}",
            shown=shown,
            lineno=error.lineno,
            colno=error.colno,
        )
        why = json_reason(error)
        return None, [Fault(where, _("is not JSON: {why}", why=why))]
    except ValueError as error:  # a key that occurs twice, or more than a limit
        return None, [Fault(shown, error.args[0])]
    return value, faults_of(value, shape, shown)
