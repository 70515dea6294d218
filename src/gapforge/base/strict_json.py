"""Parse JSON that a person, a medium or another program hands over, and write JSON."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from gapforge.base import limits
from gapforge.base.files import read_regular
from gapforge.base.i18n import _

_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text.

    Raise ValueError (JSONDecodeError and UnicodeDecodeError among them) also for a key that occurs
    twice, half of a Unicode character, and what exceeds the limits. Nothing else is raised.
    """
    # Every value but the first follows one of these. Texts contain them too, so the count is a
    # bound, and it costs nothing.
    if sum(map(data.count, (b",", b"[", b"{"))) > limits.JSON_VALUES:
        raise ValueError(_("more than {most} values", most=limits.JSON_VALUES))
    text = data.decode("utf-8")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_no_duplicates,
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_refuse,
        )
        # A whole pair is a character; half of one can be written nowhere.
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(_("contains half of a Unicode character (\\ud800 to \\udfff)")) from None
    except RecursionError:
        raise ValueError(_("is nested too deeply")) from None
    if _deeper_than(value, limits.JSON_DEPTH):
        raise ValueError(_("is nested too deeply"))
    return value


def read_json(path: Path, most: int = limits.STATE, *, follow: bool = False) -> Any:
    """Return the value of a JSON file of at most ``most`` bytes.

    ``follow`` is that of ``read_regular``. Raise OSError, and ValueError as ``parse_json`` does.
    """
    return parse_json(read_regular(path, most, follow=follow))


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, indented, UTF-8, with a newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(_('the key "{key}" occurs twice in one object', key=key[:60]))
        result[key] = value
    return result


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > limits.JSON_DIGITS:
        _refuse(digits)
    return int(digits)


def _fraction(text: str) -> float:
    if not math.isfinite(value := float(text)):
        _refuse(text)
    return value


def _refuse(number: str) -> NoReturn:
    raise ValueError(_("the number {number} is not allowed", number=number[:20]))


def _deeper_than(value: Any, most: int) -> bool:
    level = [value]
    for _depth in range(most + 1):
        level = [each for each in level if isinstance(each, (dict, list))]
        if not level:
            return False
        level = [
            member
            for each in level
            for member in (each.values() if isinstance(each, dict) else each)
        ]
    return True
