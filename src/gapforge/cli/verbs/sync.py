"""`gapforge sync`: fetch everything that presets need (the online half's one verb)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gapforge.base.errors import UsageError
from gapforge.base.i18n import N_, _
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.base.text import pad, width
from gapforge.cli import hard_link_note as copies_made
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.preset import Preset
from gapforge.model.to_resolve import ToResolve, counts, list_to_resolve
from gapforge.model.unresolved_item import Reason
from gapforge.store import download_preview, known_sizes
from gapforge.store.store import Store
from gapforge.sync import lock_only, source_archives
from gapforge.sync import sync as syncing
from gapforge.sync.network import Network
from gapforge.sync.options import Options, Outcome

HELP = N_("fetch everything that presets need into artifacts/ (where there is a network)")


FEW = 6  # names on one line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=_("presets to fetch"))
    parser.add_argument("--all", action="store_true", help=_("every preset"))
    parser.add_argument(
        "--update", action="store_true", help=_("resolve anew and show what changed")
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--lock-only",
        action="store_true",
        help=_("fetch nothing; write the lock as far as it can be known"),
    )
    how.add_argument(
        "--dry-run", action="store_true", help=_("only list what would be fetched, with sizes")
    )
    parser.add_argument(
        "--from",
        dest="provided",
        type=Path,
        metavar="DIR",
        help=_("folder with files that you downloaded (checked by hash)"),
    )
    parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when every preset's artifacts are complete and verified; with --lock-only when every lock is written."""
    network = Network.from_environment()
    names = presets.names(project.presets) if args.all else list(dict.fromkeys(args.presets))
    if not names:
        raise UsageError(_("no preset is named"), hint="./gapforge list; ./deps_sync.sh PRESET")
    wanted = [presets.find(project.presets, name) for name in names]
    if args.lock_only and args.provided is not None:
        raise UsageError(
            _("--lock-only takes no files, so --from means nothing with it"),
            hint=f"./deps_sync.sh {names[0]} --lock-only",
        )
    if args.provided is not None and not args.provided.is_dir():
        raise source_archives.not_a_folder(args.provided)
    documents = []
    copies = copied = 0
    for preset in wanted:
        if args.dry_run:
            documents.append(_dry_run(preset, project, args))
            continue
        options = Options(update=args.update, provided=args.provided, quiet=args.json)
        outcome = (lock_only.pin if args.lock_only else syncing.sync)(
            preset, project, network, options
        )
        documents.append(outcome.to_json())
        copies, copied = copies + outcome.copies, copied + outcome.copied
        if not args.json:
            (_report_lock if args.lock_only else _report)(outcome)
    if copies and not args.json:
        print(copies_made.note(copies, copied))
    if args.json:
        print(json.dumps({"ok": True, "presets": documents}, ensure_ascii=False, indent=2))
    return 0


def _report_lock(outcome: Outcome) -> None:
    lock = outcome.lock
    size = human_bytes(sum({e.sha256: e.size for e in lock.entries}.values()))
    print(
        _(
            "{preset}: presets/{preset}.lock.json pins {count} files, {size}",
            preset=lock.preset,
            count=len(lock.entries),
            size=size,
        )
    )
    names_by_reason: dict[tuple[str, Reason], list[str]] = {}
    for item in lock.unresolved:
        names_by_reason.setdefault((item.kind, item.reason), []).append(item.name)
    for (kind, reason), names in names_by_reason.items():
        few = ", ".join(names[:FEW]) + (
            _(" and {more} more", more=len(names) - FEW) if names[FEW:] else ""
        )
        print(f"  {kind} {few}\n      {reason.message()}")
    if lock.unresolved:
        print(
            _(
                "  {count} not resolved; the rest where those can be reached: "
                "./deps_sync.sh {preset}",
                count=len(lock.unresolved),
                preset=lock.preset,
            )
        )


def _report(outcome: Outcome) -> None:
    for line in outcome.changes.lines() if outcome.resolved else ():
        print(line)
    if outcome.resolved and not outcome.changes:
        print(_("nothing changed"))
    size = human_bytes(sum(e.size for e in outcome.lock.entries))
    fetched, count = human_bytes(outcome.fetched), len(outcome.lock.entries)
    print(
        _(
            "{preset}: {count} files, {size}, fetched {fetched} -> {artifacts}",
            preset=outcome.lock.preset,
            count=count,
            size=size,
            fetched=fetched,
            artifacts=outcome.artifacts,
        )
    )
    for path in outcome.strangers:
        print(
            _(
                "warning: {path}: gapforge did not put this file there and verify will "
                "refuse it; move it away",
                path=outcome.artifacts / path,
            ),
            file=sys.stderr,
        )


def _dry_run(preset: Preset, project: Project, args: argparse.Namespace) -> dict[str, object]:
    """What a sync would fetch, without the network. With a fitting lock it is exact."""
    lock = None if args.update else locks.load_matching(project.lock_file(preset.name), preset)
    if lock is None:
        shown, left = (
            download_preview.of_preset(preset, known_sizes.read_known_sizes(project)),
            list_to_resolve(preset, None),
        )
    else:
        shown, left = (
            download_preview.of_lock(preset, lock, Store(project.store)),
            list_to_resolve(preset, lock),
        )
    if not args.json:
        _print(shown, left)
    return {**shown.to_json(), "unresolved": [item.to_json() for item in left]}


def _print(shown: download_preview.Preview, left: Sequence[ToResolve]) -> None:
    if shown.locked and not shown.exact:
        print(
            _(
                "{preset}: the lock is partial, so sync resolves the rest first; what is "
                "known now:",
                preset=shown.preset,
            )
        )
    elif not shown.exact:
        print(
            _(
                "{preset}: no lock that fits, so sync resolves first; what the preset itself says:",
                preset=shown.preset,
            )
        )
    have, get = _("have"), _("get")
    column = max(width(have), width(get))
    for item in shown.items:
        size = "-" if item.size is None else human_bytes(item.size)
        state = pad(have if item.stored else get, column)
        name = item.name if shown.exact or "/" in item.name else f"{item.kind} {item.name}"
        print(f"  {size:>9}  {state}  {name}  <- {item.where[0]}")
        for other in item.where[1:]:
            print(f"  {'':>9}  {'':{column}}    " + _("or") + f" {other}")
        if item.note:
            print(f"  {'':>9}  {'':{column}}    {item.note}")
    total, missing = human_bytes(shown.total), human_bytes(shown.missing)
    print(
        _(
            "{preset}: {count} files, {total}; to fetch {missing}",
            preset=shown.preset,
            count=len(shown.items),
            total=total,
            missing=missing,
        )
        if shown.exact
        else _(
            "{preset}: {total} of known size, {missing} of it to fetch; {count} items of "
            "unknown size",
            preset=shown.preset,
            total=total,
            missing=missing,
            count=len(shown.unknown),
        )
    )
    if left:
        print(_("left for sync to resolve: {left}, and what they depend on", left=counts(left)))
