"""`gapforge gc`: show what no lock names any more, and delete it when told to."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from gapforge.base.errors import UsageError
from gapforge.base.i18n import N_, _
from gapforge.base.progress import Progress, human_bytes
from gapforge.base.project import Project
from gapforge.store import gc, unfinished_imports
from gapforge.store.gc import DOWNLOAD, OBJECT, WORK, Garbage, Unreferenced

HELP = N_("show what no lock names in the store (artifacts/.store), and delete it")
FEW = 5  # of the largest that are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help=_("delete without asking"))
    parser.add_argument(
        "--drop",
        default="",
        metavar="BUNDLE",
        help=_("give up this bundle, which is not imported to its end"),
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help=_("print the result as JSON (deletes nothing without --yes)"),
    )


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when everything was shown, and deleted where that was asked for."""
    with gc.exclude_sync(project):
        known = unfinished_imports.recorded_bundles(project.store)
        if args.drop and args.drop not in known:
            found = ", ".join(known) or _("none")
            raise UsageError(
                _(
                    "--drop {drop}: no import of such a bundle is unfinished (unfinished: {found})",
                    drop=args.drop,
                    found=found,
                ),
                hint="./gapforge gc",
            )
        garbage = gc.find_garbage(project, args.drop)
        if not args.json:
            _show(garbage)
        delete = bool(garbage.unreferenced or args.drop) and (
            args.yes or (not args.json and _asked())
        )
        freed = 0
        if delete:
            if args.drop:
                unfinished_imports.forget(project.store, args.drop)
            what = _("removed")
            with Progress(
                what, garbage.size, quiet=args.json or not sys.stderr.isatty()
            ) as progress:
                freed = gc.remove_garbage(project, garbage, progress.add)
    if args.json:
        print(
            json.dumps(_to_json(garbage, deleted=delete, freed=freed), ensure_ascii=False, indent=2)
        )
    elif delete:
        print(_("deleted; {freed} are free again", freed=human_bytes(freed)))
    elif garbage.unreferenced or args.drop:
        command = f"./gapforge gc --drop {args.drop} --yes" if args.drop else "./gapforge gc --yes"
        print(_("nothing was deleted; to delete: {command}", command=command))
    return 0


def _asked() -> bool:
    """The answer of a person at a terminal; no where there is none."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        answer = input(_("delete? [y/N] "))
    except EOFError:
        print()
        return False
    return answer.strip().lower() in _("y yes").split()


def _show(garbage: Garbage) -> None:
    print(
        _(
            "named by locks: {kept} files, {kept_bytes} (stay)",
            kept=garbage.kept,
            kept_bytes=human_bytes(garbage.kept_bytes),
        )
    )
    if not garbage.unreferenced:
        print(_("there is nothing to delete"))
    about = {
        OBJECT: _("files that no lock names"),
        DOWNLOAD: _("unfinished downloads of files that no lock names"),
        WORK: _("work folders of syncs that were cut"),
    }
    for kind, words in about.items():
        items = garbage.of(kind)
        if not items:
            continue
        count, size = len(items), human_bytes(sum(item.size for item in items))
        print(f"{words}: " + _("{count}, {size}", count=count, size=size))
        for item in items[:FEW]:
            print(f"  {human_bytes(item.size):>9}  {_shown(item)}")
        if len(items) > FEW:
            rest = human_bytes(sum(item.size for item in items[FEW:]))
            print(f"  {rest:>9}  " + _("the other {more}", more=len(items) - FEW))
    if garbage.unreferenced:
        print(_("the disk gets back: {freed}", freed=human_bytes(garbage.freed)))
    linked = [item for item in garbage.unreferenced if item.freed < item.size]
    if linked:
        size = human_bytes(sum(item.size - item.freed for item in linked))
        print(
            _(
                "  {count} of them ({size}) have other hard links (a folder in "
                "artifacts/, .gapforge/context/), which keep the room",
                count=len(linked),
                size=size,
            )
        )
    for name in garbage.orphans:
        print(
            _(
                "note: artifacts/{name}: there is no preset of this name; what its lock "
                "names stays. If nobody needs the folder, delete it and run this again",
                name=name,
            )
        )
    for name in garbage.unfinished_syncs:
        print(
            _(
                "note: a sync of {name} was cut; what it has fetched is in no lock yet, "
                "and would be fetched again. To finish it first: ./deps_sync.sh {name}",
                name=name,
            )
        )
    for one in garbage.incomplete_bundles:
        what = f"{one.bundle} ({', '.join(one.presets)})"
        size = human_bytes(one.size)
        print(
            _(
                "note: bundle {what} is not imported to its end, so {count} files "
                "({size}) of it stay. To go on: ./gapforge unpack FOLDER; to give it up: "
                "./gapforge gc --drop {bundle}",
                what=what,
                count=one.count,
                size=size,
                bundle=one.bundle,
            )
        )
    for fault in garbage.foreign:
        print(
            _(
                "warning: {where}: {problem}; it is left alone",
                where=fault.where,
                problem=fault.problem,
            ),
            file=sys.stderr,
        )


def _shown(item: Unreferenced) -> str:
    return (
        f"{item.path.parent.name}/{item.path.name}"
        if item.kind != OBJECT
        else f"sha256 {item.path.name}"
    )


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
