"""``gapforge gc``: show the objects that no lock uses, and delete them on request."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from gapforge.base.errors import UsageError
from gapforge.base.i18n import N_, _
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.units import human_bytes
from gapforge.cli.output import print_json, show_table, warn
from gapforge.store import gc, incomplete_bundles
from gapforge.store.gc import DOWNLOAD, OBJECT, WORK, Garbage, Unreferenced

HELP = N_("show the objects in the store (artifacts/.store) that no lock uses, and delete them")
EXAMPLES = ("./gapforge gc", "./gapforge gc --yes")
FEW = 5  # number of the largest objects that are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("--yes", action="store_true", help=_("delete without asking"))
    parser.add_argument(
        "--drop",
        default="",
        metavar="BUNDLE",
        help=_("abandon the unfinished import of this bundle"),
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help=_("print the result as JSON; deletes nothing without --yes"),
    )


def run(args: argparse.Namespace, project: Project) -> int:
    """Print what can be deleted, and delete it if that is confirmed. Return 0."""
    with gc.exclude_sync(project):
        _check_bundle(args.drop, project)
        garbage = gc.find_garbage(project, args.drop)
        if not args.json:
            _show(garbage)
        delete = bool(garbage.unreferenced or args.drop) and (
            args.yes or (not args.json and _confirmed())
        )
        freed = _delete(garbage, args, project) if delete else 0
    if args.json:
        print_json(_to_json(garbage, deleted=delete, freed=freed))
    elif delete:
        print(_("deleted; {size} freed", size=human_bytes(freed)))
    elif garbage.unreferenced or args.drop:
        command = f"./gapforge gc --drop {args.drop} --yes" if args.drop else "./gapforge gc --yes"
        print(_("nothing was deleted; to delete: {command}", command=command))
    return 0


def _check_bundle(bundle: str, project: Project) -> None:
    """Raise UsageError unless the bundle to abandon is "" or has an unfinished import."""
    known = incomplete_bundles.recorded_bundles(project.store)
    if bundle and bundle not in known:
        raise UsageError(
            _(
                "--drop {bundle}: this bundle has no unfinished import (unfinished: {known})",
                bundle=bundle,
                known=", ".join(known) or _("none"),
            ),
            hint="./gapforge gc",
        )


def _delete(garbage: Garbage, args: argparse.Namespace, project: Project) -> int:
    """Abandon the bundle of --drop and delete the garbage. Return the bytes that were freed."""
    if args.drop:
        incomplete_bundles.forget(project.store, args.drop)
    quiet = args.json or not sys.stderr.isatty()
    with Progress(_("removed"), garbage.size, quiet=quiet) as progress:
        return gc.remove_garbage(project, garbage, progress.add)


def _confirmed() -> bool:
    """Ask at a terminal whether to delete. Return False without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        answer = input(_("delete? [y/N] "))
    except EOFError:
        print()
        return False
    return answer.strip().lower() in _("y yes").split()


def _show(garbage: Garbage) -> None:
    about = {
        OBJECT: _("files that no lock uses"),
        DOWNLOAD: _("unfinished downloads of files that no lock uses"),
        WORK: _("working folders of interrupted syncs"),
    }
    totals = [(_("used by locks and kept"), str(garbage.kept), human_bytes(garbage.kept_bytes))]
    largest: list[tuple[str, str]] = []
    for kind, title in about.items():
        items = garbage.of(kind)
        if items:
            totals.append((title, str(len(items)), _size(items)))
        largest += [(human_bytes(item.size), _shown(item)) for item in items[:FEW]]
        if rest := items[FEW:]:
            largest.append((_size(rest), _("the other {count}", count=len(rest))))
    show_table((_("what"), _("files"), _("size")), totals)
    show_table((_("size"), _("to be deleted")), largest)
    if not garbage.unreferenced:
        print(_("there is nothing to delete"))
    if garbage.unreferenced:
        print(_("disk space to be freed: {size}", size=human_bytes(garbage.freed)))
    linked = [item for item in garbage.unreferenced if item.freed < item.size]
    if linked:
        size = human_bytes(sum(item.size - item.freed for item in linked))
        print(
            _(
                "  {count} of them ({size}) have other hard links (in artifacts/ or "
                ".gapforge/context/), so their disk space is not freed",
                count=len(linked),
                size=size,
            )
        )
    for name in garbage.orphans:
        print(
            _(
                "note: artifacts/{name}: there is no preset of this name; the objects of its "
                "lock are kept. If nobody needs the folder, delete it and run this again",
                name=name,
            )
        )
    for name in garbage.unfinished_syncs:
        print(
            _(
                "note: a sync of {preset} was interrupted; no lock uses its downloads yet, "
                "so they would be downloaded again. To finish it first: ./deps_sync.sh {preset!q}",
                preset=name,
            )
        )
    for one in garbage.incomplete_bundles:
        print(
            _(
                "note: the import of bundle {bundle} ({presets}) is unfinished, so {count} files "
                "({size}) of it are kept. To continue: ./gapforge unpack FOLDER; to abandon it: "
                "./gapforge gc --drop {bundle!q}",
                bundle=one.bundle,
                presets=", ".join(one.presets),
                count=one.count,
                size=human_bytes(one.size),
            )
        )
    for fault in garbage.foreign:
        warn(_("{where}: {problem}; not deleted", where=fault.where, problem=fault.problem))


def _size(items: Sequence[Unreferenced]) -> str:
    return human_bytes(sum(item.size for item in items))


def _shown(item: Unreferenced) -> str:
    """Return an object's checksum, or the folder and name of another file."""
    folder, name = item.path.parent.name, item.path.name
    return name if item.kind == OBJECT else f"{folder}/{name}"


def _to_json(garbage: Garbage, *, deleted: bool, freed: int) -> dict[str, Any]:
    return {
        "ok": True,
        "deleted": deleted,
        "count": len(garbage.unreferenced),
        "bytes": garbage.size,
        "frees": garbage.freed,
        "freed": freed,
        "loose": [
            {"kind": item.kind, "path": str(item.path), "size": item.size, "frees": item.freed}
            for item in garbage.unreferenced
        ],
        "kept": {"count": garbage.kept, "bytes": garbage.kept_bytes},
        "views_without_preset": list(garbage.orphans),
        "unfinished_syncs": list(garbage.unfinished_syncs),
        "unfinished_imports": [
            {
                "bundle": one.bundle,
                "presets": list(one.presets),
                "count": one.count,
                "bytes": one.size,
            }
            for one in garbage.incomplete_bundles
        ],
        "left_alone": [fault.to_json() for fault in garbage.foreign],
    }
