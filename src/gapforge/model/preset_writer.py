"""Write a preset's JSON as people do: keys in their order, short lists and objects on one line."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, UsageError
from gapforge.base.i18n import _
from gapforge.base.path_checks import unsafe_path_reason
from gapforge.base.project import Project
from gapforge.base.write_files import write_text
from gapforge.model import catalog as catalogs
from gapforge.model import preset as presets
from gapforge.model.preset import Preset
from gapforge.model.preset_defaults import shortened
from gapforge.model.text_shapes import PRESET_NAME

_ONE_LINE = 110  # columns up to which a list or object stays on one line
_ONE_OBJECT = 160  # an object of plain values: a base image with its digest has 150
_FILLED = 120  # columns of a line in a long list


def render(raw: Mapping[str, Any]) -> str:
    """Return the text of a preset file: the same document always gives the same bytes."""
    return _render(raw, "") + "\n"


def new_file(project: Project, name: str) -> Path:
    """Return the file of a new preset. Raise UsageError if the name is invalid or in use."""
    faults: list[Fault] = []
    PRESET_NAME.check(name, "name", faults, "command line")
    if faults or unsafe_path_reason(name) or name.endswith(".lock"):
        raise UsageError(
            _('"{name}" is not a valid preset name', name=name),
            hint=_(
                "lower-case letters, digits, '.', '_' and '-', such as "
                "ubuntu22.04-cuda11.8-torch2.3"
            ),
        )
    file = project.preset_file(name)
    if file.exists():
        raise UsageError(_("{file} exists already", file=file), hint=_("choose another name"))
    return file


def write_new(file: Path, raw: Mapping[str, Any]) -> Preset:
    """Write a new preset of the project, without what is filled in anyway, and return it.

    Raise PresetError, and write nothing, if it has faults.
    """
    catalog = catalogs.of_presets(file.parent.parent / "catalog")
    text = render(shortened(raw, catalog))
    with tempfile.TemporaryDirectory() as room:
        trial = Path(room, file.name)
        trial.write_text(text, encoding="utf-8")
        components = file.parent.parent / "components"
        preset = presets.load(trial, shown=f"presets/{file.name}", components=components)
    write_text(file, text)
    return preset


def _render(value: Any, indent: str) -> str:
    plain = json.dumps(value, ensure_ascii=False)
    members = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    flat = all(not isinstance(member, dict | list) for member in members)
    most = _ONE_OBJECT if flat and isinstance(value, dict) else _ONE_LINE
    if not members or (indent and len(indent + plain) <= most):
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
