"""``gapforge outdated``: list newer upstream releases and which of them are compatible."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from gapforge.base import output_mode
from gapforge.base.errors import FetchError, LockError
from gapforge.base.i18n import N_, _
from gapforge.base.project import Project
from gapforge.cli.argument_parser import add_json
from gapforge.cli.output import Row, print_error, print_json, table
from gapforge.model import catalog as catalog_module
from gapforge.model import lock as lock_module
from gapforge.model import preset as preset_module
from gapforge.model import preset_writer
from gapforge.model.lock import Lock
from gapforge.sync.network import Network
from gapforge.sync.python_packages import Resolver
from gapforge.updates import compatible_updates, published_releases
from gapforge.updates.candidates import Search
from gapforge.updates.compatible_updates import CompatibleUpdates

HELP = N_("list upstream releases newer than a preset's and which are compatible (needs a network)")
EXAMPLES = ("./gapforge outdated NAME", "./gapforge outdated NAME --same-line --write NEW")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("preset", metavar="PRESET", help=_("preset to compare"))
    parser.add_argument(
        "--write",
        metavar="NAME",
        help=_("write the newest compatible combination to presets/NAME.json"),
    )
    parser.add_argument(
        "--same-line",
        action="store_true",
        help=_("stay within each series (FFmpeg 5.1.x, torch 2.1.x)"),
    )
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Print the releases. Return 0, or 6 if an upstream did not answer."""
    target = preset_writer.new_file(project, args.write) if args.write is not None else None
    preset = preset_module.find(project.presets, args.preset)
    catalog = catalog_module.load(project.catalog)
    network = Network.from_environment().with_credentials(project.env_file)
    network.require(
        _("finding releases newer than those of {preset}", preset=preset.name), files=False
    )
    project.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="outdated-", dir=project.state) as room:
        resolver = Resolver(project=project, network=network, workdir=Path(room), refresh=True)
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
        raw = compatible_updates.new_preset(updates, target.stem, preset.name)
        preset_writer.write_new(target, raw)
    failed = [component.name for component in updates.items if component.problem]
    if args.json:
        print_json(
            {
                "ok": not failed,
                "preset": preset.name,
                "components": [c.to_json() for c in updates.items],
                "together": dict(updates.together),
                "written": str(target) if target and updates.together else "",
            }
        )
        return FetchError.exit_code if failed else 0
    print(render(updates))
    if target is not None:
        print()
        print(_written(target) if updates.together else _("nothing newer is compatible"))
    if not failed:
        return 0
    error = FetchError(
        _("no upstream answered for: {components}", components=", ".join(failed)),
        hint=_(
            "run this where there is a network, or set mirrors: "
            "GAPFORGE_URL_MIRRORS, GAPFORGE_INDEX_URL, GAPFORGE_REGISTRY_MIRROR"
        ),
    )
    print_error(error)
    return error.exit_code


def render(updates: CompatibleUpdates) -> str:
    """Return the components as a table, with reasons in the lines below a component.

    With ``--quiet``, those that are current are left out.
    """
    words = {
        "current": _("current"),
        "outdated": _("newer"),
        "held": _("held"),
        "unknown": _("unknown"),
    }
    shown = [c for c in updates.items if not output_mode.quiet() or c.status != "current"]
    head = (_("component"), _("has"), _("newest"), _("fits"), _("together"), _("state"))
    rows = [
        Row(
            (
                c.name,
                c.current,
                c.newest or "?",
                c.fits or "-",
                updates.together.get(c.name, "-"),
                words[c.status],
            ),
            notes=list(dict.fromkeys(filter(None, (c.why, c.note, c.problem)))),
        )
        for c in shown
    ]
    return "\n".join(table(head, rows) if rows else [_("all are current")])


def _written(target: Path) -> str:
    return _(
        "wrote {file}\nnext: ./gapforge check {preset!q}; ./deps_sync.sh {preset!q}",
        file=target,
        preset=target.stem,
    )


def _lock(project: Project, name: str) -> Lock | None:
    try:
        return lock_module.load(project.lock_file(name))
    except LockError:
        return None
