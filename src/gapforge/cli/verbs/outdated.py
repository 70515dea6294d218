"""``gapforge outdated``: newer upstream releases of what a preset holds, and which still fit together (online)."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from gapforge.base.errors import Fault, FetchError, LockError, UsageError
from gapforge.base.files import unsafe_path_reason, write_text
from gapforge.base.i18n import N_, _
from gapforge.base.project import Project
from gapforge.base.text import pad, width
from gapforge.cli.print_error import print_error
from gapforge.compat import catalog as catalog_module
from gapforge.model import lock as lock_module
from gapforge.model import preset as preset_module
from gapforge.model import preset_text
from gapforge.model.lock import Lock
from gapforge.model.text_shapes import PRESET_NAME
from gapforge.sync.network import Network
from gapforge.sync.python_packages import Resolver
from gapforge.updates import compatible_updates, published_releases
from gapforge.updates.candidates import Search
from gapforge.updates.compatible_updates import CompatibleUpdates

HELP = N_(
    "Show upstream releases newer than a preset's, and which of them still fit together (online)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", metavar="PRESET", help=_("preset to compare"))
    parser.add_argument(
        "--write",
        metavar="NAME",
        help=_("write the newest combination that fits to presets/NAME.json"),
    )
    parser.add_argument(
        "--same-line",
        action="store_true",
        help=_("stay within each series (FFmpeg 5.1.x, torch 2.1.x)"),
    )
    parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0; 6 when some upstream could not be asked, after everything that was found."""
    target = _target(args.write, project) if args.write is not None else None
    preset = preset_module.find(project.presets, args.preset)
    catalog = catalog_module.load(project.catalog)
    network = Network.from_environment()
    network.require(_("looking for releases newer than {name}'s", name=preset.name), files=False)
    project.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="outdated-", dir=project.state) as room:
        resolver = Resolver(project, network, Path(room), refresh=True)
        search = Search(
            preset=preset,
            catalog=catalog,
            upstreams=published_releases.load(project.catalog),
            network=network,
            resolver=resolver,
            lock=_lock(project, preset.name),
            same_line=args.same_line,
        )
        updates = compatible_updates.find_updates(search)
    if target is not None and updates.together:
        _write(target, updates, preset.name)
    unasked = [item for item in updates.items if item.problem]
    if args.json:
        print(
            json.dumps(
                {
                    "ok": not unasked,
                    "preset": preset.name,
                    "components": [c.to_json() for c in updates.items],
                    "together": dict(updates.together),
                    "written": str(target) if target and updates.together else "",
                },
                ensure_ascii=False,
                indent=2,
            )
        )
    else:
        print(render(updates))
        if target is not None:
            print(
                _(
                    "\nwrote {target}\nnext: ./gapforge check {stem}; ./deps_sync.sh {stem}",
                    target=target,
                    stem=target.stem,
                )
                if updates.together
                else _("\nnothing newer fits; no preset was written")
            )
    if unasked and not args.json:
        names = ", ".join(item.name for item in unasked)
        error = FetchError(
            _("could not be asked upstream: {names}", names=names),
            hint=_(
                "run this where there is a network, or name mirrors: "
                "GAPFORGE_URL_MIRRORS, GAPFORGE_INDEX_URL, GAPFORGE_REGISTRY_MIRROR"
            ),
        )
        print_error(error)
    return FetchError.exit_code if unasked else 0


def render(updates: CompatibleUpdates) -> str:
    """The components as a table; why the newest does not fit stands below its line."""
    words = {
        "current": _("current"),
        "outdated": _("newer"),
        "held": _("held"),
        "unknown": _("unknown"),
    }
    rows = [(_("component"), _("has"), _("newest"), _("fits"), _("together"), "")]
    rows += [
        (
            c.name,
            c.current,
            c.newest or "?",
            c.fits or "-",
            updates.together.get(c.name, "-"),
            words[c.status],
        )
        for c in updates.items
    ]
    columns = [max(width(row[i]) for row in rows) for i in range(6)]
    text = []
    for index, row in enumerate(rows):
        text.append("  ".join(pad(cell, columns[i]) for i, cell in enumerate(row)).rstrip())
        if index:
            item = updates.items[index - 1]
            lines = dict.fromkeys(filter(None, (item.why, item.note, item.problem)))
            text += [f"    {line}" for line in lines]
    return "\n".join(text)


def _target(name: str, project: Project) -> Path:
    """Where the new preset goes; UsageError for a name that cannot be one, or is taken."""
    faults: list[Fault] = []
    PRESET_NAME.check(name, "--write", faults, "command line")
    if faults or unsafe_path_reason(name) or name.endswith(".lock"):
        raise UsageError(
            _('--write "{name}" is not a name for a preset', name=name),
            hint=_(
                "lower-case letters, digits, '.', '_' and '-', such as "
                "ubuntu22.04-cuda11.8-torch2.3"
            ),
        )
    file = project.preset_file(name)
    if file.exists():
        raise UsageError(
            _("{file} exists already", file=file),
            hint=_("choose another name; presets that were synced are not overwritten"),
        )
    return file


def _write(target: Path, updates: CompatibleUpdates, previous: str) -> None:
    """Write the combination, after the parser has accepted it. PresetError when it does not."""
    raw = compatible_updates.new_preset(updates, target.stem, previous)
    text = preset_text.render(raw)
    with tempfile.TemporaryDirectory() as room:
        trial = Path(room, target.name)
        trial.write_text(text, encoding="utf-8")
        components = target.parent.parent / "components"
        preset_module.load(trial, shown=f"presets/{target.name}", components=components)
    write_text(target, text)


def _lock(project: Project, name: str) -> Lock | None:
    try:
        return lock_module.load(project.lock_file(name))
    except LockError:
        return None
