"""``gapforge list``: the presets, what they are, and how far each has come on this machine."""

from __future__ import annotations

import argparse
import json
from typing import Any

from gapforge.base.errors import PresetError
from gapforge.base.i18n import N_, _, localized
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.base.text import pad, width
from gapforge.model import preset as presets
from gapforge.model.preset import Preset
from gapforge.model.preset_status import Readiness, readiness_of

HELP = N_("List the presets and how far each has come: synced, ready, size.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Print every preset; 0 also when some have faults (``check`` judges them)."""
    rows: list[tuple[Preset, Readiness]] = []
    faulty: dict[str, PresetError] = {}
    for name in presets.names(project.presets):
        try:
            preset = presets.load(project.preset_file(name))
        except PresetError as error:
            faulty[name] = error
            continue
        rows.append((preset, readiness_of(project, preset)))
    rows.sort(key=lambda row: (row[0].practice, row[0].name))
    if args.json:
        document = {
            "presets": [_to_json(preset, ready) for preset, ready in rows],
            "faulty": {name: [f.to_json() for f in error.faults] for name, error in faulty.items()},
        }
        print(json.dumps(document, ensure_ascii=False, indent=2))
        return 0
    for line in lines(rows):
        print(line)
    for name, trouble in faulty.items():
        print(f"! {name}: {trouble.message}; ./gapforge check {name}")
    if not rows and not faulty:
        print(_("there is no preset"))
    return 0


def lines(rows: list[tuple[Preset, Readiness]]) -> list[str]:
    """The table: name, state, size, summary; columns aligned by terminal width."""
    cells = []
    for preset, ready in rows:
        summary = localized(ko=preset.summary_ko, en=preset.summary_en)
        size = human_bytes(ready.size) if ready.locked else "-"
        cells.append((preset.name, ready.label, size, summary))
    head = (_("PRESET"), _("STATE"), _("SIZE"), _("SUMMARY"))
    table = [head, *cells] if cells else []
    columns = [max(width(row[i]) for row in table) for i in range(3)] if table else []
    return ["  ".join([*(pad(row[i], columns[i]) for i in range(3)), row[3]]) for row in table]


def _to_json(preset: Preset, ready: Readiness) -> dict[str, Any]:
    return {
        "name": preset.name,
        "summary": {"ko": preset.summary_ko, "en": preset.summary_en},
        "practice": preset.practice,
        "os": f"{preset.os_id} {preset.os_version}",
        "cuda": preset.cuda,
        "python": preset.python,
        "torch": preset.pytorch.torch if preset.pytorch else "",
        "tensorrt": preset.tensorrt.version if preset.tensorrt else "",
        "state": ready.state,
        "ready": ready.ready,
        "size": ready.size,
        "files": ready.files,
        "missing": list(ready.missing),
    }
