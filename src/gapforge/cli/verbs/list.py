"""``gapforge list``: list the presets and the state of each on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from gapforge.base import output_mode
from gapforge.base.i18n import N_, _, localized
from gapforge.base.project import Project
from gapforge.cli.argument_parser import add_json
from gapforge.cli.output import Row, print_json, show, table
from gapforge.model import preset as presets
from gapforge.model.preset import Preset
from gapforge.model.preset_status import Readiness, readiness_of
from gapforge.store import known_sizes
from gapforge.store.download_preview import size_of, size_text

HELP = N_("list the presets with their state and size on this machine")
EXAMPLES = ("./gapforge list", "./gapforge list --json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Print every preset. Return 0 even if some have faults, which are for ``check``."""
    known = known_sizes.read_known_sizes(project)
    loaded, faulty = presets.load_all(project.presets)
    found = [(preset, readiness_of(project, preset)) for preset in loaded.values()]
    found.sort(key=lambda row: (row[0].practice, row[0].name))
    if args.json:
        document = {
            "presets": [_to_json(p, r, *size_of(project, p, r, known)) for p, r in found],
            "faulty": {name: [f.to_json() for f in error.faults] for name, error in faulty.items()},
        }
        print_json(document)
        return 0
    rows = [(preset, ready, size_text(project, preset, ready, known)) for preset, ready in found]
    for line in lines(rows):
        print(line)
    for name, fault in faulty.items():
        show(f"! {name}: {fault.message}; ./gapforge check {name}")
    if not rows and not faulty:
        print(_("there are no presets"))
    return 0


def lines(rows: list[tuple[Preset, Readiness, str]]) -> list[str]:
    """Return the table of presets: name, state, size and summary; only names with ``--quiet``."""
    if output_mode.quiet() or not rows:
        return [preset.name for preset, _ready, _size in rows]
    head = (_("preset"), _("state"), _("size"), _("summary"))
    shown = []
    for preset, ready, size in rows:
        summary = localized(ko=preset.summary_ko, en=preset.summary_en)
        shown.append(Row((preset.name, ready.label, size or "-", summary)))
    return table(head, shown)


def _to_json(preset: Preset, ready: Readiness, size: int, exact: bool) -> dict[str, Any]:
    """Return the facts of a preset; ``size`` is in bytes, and ``exact`` unless more is unknown."""
    return {
        "name": preset.name,
        "summary": {"ko": preset.summary_ko, "en": preset.summary_en},
        "practice": preset.practice,
        "os": preset.os,
        "cuda": preset.cuda,
        "python": preset.python,
        "torch": preset.pytorch.torch if preset.pytorch else "",
        "tensorrt": preset.tensorrt.version if preset.tensorrt else "",
        "state": ready.state,
        "ready": ready.ready,
        "size": ready.size,
        "total": {"bytes": size, "exact": exact},
        "files": ready.files,
        "missing": list(ready.missing),
    }
