"""Write a preset's JSON as people do: keys in their order, short lists and objects on one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_ONE_LINE = 100  # columns up to which a list or object of plain values stays on one line
_FILLED = 110  # columns of a line in a long list


def render(raw: Mapping[str, Any]) -> str:
    """Return the text of a preset file: the same document always gives the same bytes."""
    return _render(raw, "") + "\n"


def _render(value: Any, indent: str) -> str:
    plain = json.dumps(value, ensure_ascii=False)
    members = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    flat = all(not isinstance(member, dict | list) for member in members)
    if not members or (flat and indent and len(indent + plain) <= _ONE_LINE):
        return plain
    inner = indent + "  "
    if isinstance(value, dict):
        rows = [
            f"{inner}{json.dumps(k, ensure_ascii=False)}: {_render(v, inner)}"
            for k, v in value.items()
        ]
        return "{\n" + ",\n".join(rows) + "\n" + indent + "}"
    rows = [""]
    for member in (
        _render(m, inner) for m in value
    ):  # words fill the line; each object has its own
        if rows[-1] and (not flat or len(rows[-1] + member) > _FILLED):
            rows.append("")
        rows[-1] += (" " if rows[-1] else inner) + member + ","
    return "[\n" + "\n".join(rows).rstrip(",") + "\n" + indent + "]"
