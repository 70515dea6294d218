"""``gapforge sync``: resolve presets and download their files (needs a network)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gapforge.base import output_mode
from gapforge.base.errors import UsageError
from gapforge.base.i18n import N_, _
from gapforge.base.process import quoted
from gapforge.base.project import Project
from gapforge.base.text_layout import first_names
from gapforge.base.units import human_bytes
from gapforge.cli.argument_parser import add_json
from gapforge.cli.output import Row, copies_note, print_json, show, table, warn, warn_unexpected
from gapforge.image import read_inputs
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.preset import Preset
from gapforge.model.to_resolve import ToResolve, counts, list_to_resolve
from gapforge.model.unresolved_item import Reason
from gapforge.store import download_preview, known_sizes
from gapforge.sync import lock_only, source_archives
from gapforge.sync import sync as syncing
from gapforge.sync.network import Network
from gapforge.sync.shared_steps import Options, Outcome

HELP = N_("download everything that presets need into artifacts/ (needs a network)")
EXAMPLES = (
    "./gapforge sync NAME --dry-run",
    "./gapforge sync NAME",
    "./gapforge sync NAME --from ~/Downloads",
)
FEW = 6  # number of names on one line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=_("presets to download"))
    parser.add_argument("--all", action="store_true", help=_("every preset"))
    parser.add_argument(
        "--update", action="store_true", help=_("resolve again and show what changed")
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--lock-only",
        action="store_true",
        help=_("download nothing; write the lock, which may be partial"),
    )
    how.add_argument(
        "--dry-run", action="store_true", help=_("only list the downloads with their sizes")
    )
    parser.add_argument(
        "--from",
        dest="provided",
        type=Path,
        metavar="DIR",
        help=_("folder with files that you downloaded; their checksums are verified"),
    )
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Download each preset, or with --lock-only write each lock, and return 0."""
    network = Network.from_environment().with_credentials(project.env_file)
    for warning in network.credentials.warnings:
        warn(warning)
    wanted = _wanted(args, project)
    if args.dry_run:
        documents = [_dry_run(preset, project, args) for preset in wanted]
    else:
        documents = _sync(wanted, project, network, args)
    if args.json:
        print_json({"ok": True, "presets": documents})
    return 0


def _wanted(args: argparse.Namespace, project: Project) -> list[Preset]:
    """Return the presets to sync. Raise UsageError for none, or for flags that do not fit."""
    names = presets.names(project.presets) if args.all else list(dict.fromkeys(args.presets))
    if not names:
        raise UsageError(_("sync needs a preset"), hint="./gapforge list; ./deps_sync.sh PRESET")
    wanted = [presets.find(project.presets, name) for name in names]
    if args.lock_only and args.provided is not None:
        raise UsageError(
            _("--lock-only and --from exclude each other"),
            hint=f"./deps_sync.sh {quoted([names[0]])} --lock-only",
        )
    if args.provided is not None and not args.provided.is_dir():
        raise source_archives.not_a_folder(args.provided)
    return wanted


def _sync(
    wanted: Sequence[Preset], project: Project, network: Network, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Sync each preset, or write its lock, and print what came of it. Return it as JSON."""
    for preset in wanted:
        read_inputs.check_project(project, preset)
    pin = lock_only.pin if args.lock_only else syncing.sync
    report = _report_lock if args.lock_only else _report
    options = Options(update=args.update, provided=args.provided, quiet=args.json)
    outcomes = []
    for preset in wanted:
        outcome = pin(preset, project, network, options)
        outcomes.append(outcome)
        if not args.json:
            report(outcome)
    copies = sum(outcome.copies for outcome in outcomes)
    if copies and not args.json:
        print(copies_note(copies, sum(outcome.copied for outcome in outcomes)))
    return [outcome.to_json() for outcome in outcomes]


def _report_lock(outcome: Outcome) -> None:
    lock = outcome.lock
    size = human_bytes(lock.size)
    show(
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
        show(f"  {kind} {first_names(names, FEW)}\n      {reason.message()}")
    if lock.unresolved:
        print(
            _(
                "  {count} unresolved items; to resolve them where their servers are "
                "reachable: ./deps_sync.sh {preset!q}",
                count=len(lock.unresolved),
                preset=lock.preset,
            )
        )


def _report(outcome: Outcome) -> None:
    for line in outcome.changes.lines() if outcome.resolved else ():
        show(line)
    if outcome.resolved and not outcome.changes:
        print(_("nothing changed"))
    print(
        _(
            "{preset}: {count} files, {size}, downloaded {downloaded} -> {folder}",
            preset=outcome.lock.preset,
            count=len(outcome.lock.entries),
            size=human_bytes(outcome.lock.size),
            downloaded=human_bytes(outcome.fetched),
            folder=outcome.artifacts,
        )
    )
    for path in outcome.strangers:
        warn_unexpected(outcome.artifacts / path)


def _dry_run(preset: Preset, project: Project, args: argparse.Namespace) -> dict[str, Any]:
    """Show what a sync would download, without a network. With a current lock it is exact."""
    lock = None if args.update else locks.load_matching(project.lock_file(preset.name), preset)
    preview = download_preview.preview(preset, lock, known_sizes.read_known_sizes(project))
    unresolved = list_to_resolve(preset, lock)
    if not args.json:
        _print_preview(preview, unresolved)
    return {**preview.to_json(), "unresolved": [item.to_json() for item in unresolved]}


def _print_preview(preview: download_preview.Preview, unresolved: Sequence[ToResolve]) -> None:
    preset = preview.preset
    if preview.locked and not preview.exact:
        show(_("{preset}: partial lock; sync resolves the rest. Known now:", preset=preset))
    elif not preview.exact:
        show(_("{preset}: no current lock; sync resolves first. From the preset:", preset=preset))
    if not output_mode.quiet():
        _print_files(preview)
    show(
        _(
            "{preset}: {count} files, {total}; to download: {missing}",
            preset=preset,
            count=len(preview.items),
            total=preview.amount(preview.total),
            missing=preview.amount(preview.missing),
        )
        if preview.exact
        else _(
            "{preset}: {total}; to download: {missing}; of unknown size: {items}",
            preset=preset,
            total=preview.amount(preview.total),
            missing=preview.amount(preview.missing),
            items=preview.what_is_unknown,
        )
    )
    if unresolved:
        items = counts(item.kind for item in unresolved)
        show(_("still to be resolved by sync: {items}, and their dependencies", items=items))


def _print_files(preview: download_preview.Preview) -> None:
    """Print the files with their sizes below the address that they come from."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for item in preview.items:
        others = [_("or {address}", address=other) for other in item.where[1:]]
        size = "-" if item.size is None else human_bytes(item.size)
        name = item.name if preview.exact or "/" in item.name else f"{item.kind} {item.name}"
        row = Row((_("have") if item.stored else _("get"), size, name))
        groups.setdefault((item.where[0], *others, item.note), []).append(row)
    for (address, *others), rows in groups.items():
        show("\n    ".join((address, *filter(None, others))))
        print("\n".join(table(("", "", ""), rows, indent=2)))
