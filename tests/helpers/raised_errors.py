"""Compare a raised error by its class, arguments and faults, not by its wording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gapforge.base.errors import GapforgeError
from gapforge.base.i18n import Message


def values_of(text: str) -> Mapping[str, object]:
    """Return the arguments that a message was made of. A plain text has none."""
    return text.values if isinstance(text, Message) else {}


def assert_error(
    error: BaseException,
    expected: type[GapforgeError],
    *,
    where: Iterable[str] | None = None,
    hint: Mapping[str, Any] | None = None,
    **values: Any,
) -> None:
    """Assert that ``error`` is of exactly this class and that its message has these arguments.

    ``where`` lists the places of all its faults in any order. ``hint`` lists arguments of the next
    step.
    """
    assert type(error) is expected, repr(error)
    assert isinstance(error, GapforgeError)
    found = values_of(error.message)
    assert {name: found.get(name) for name in values} == values, (error.message, found)
    if where is not None:
        assert sorted(fault.where for fault in error.faults) == sorted(where)
    if hint is not None:
        found = values_of(error.hint)
        assert {name: found.get(name) for name in hint} == dict(hint), (error.hint, found)
