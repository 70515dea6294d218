"""`gapforge sync`: fetch everything that presets need (the online half's one verb)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gapforge.base.errors import UsageError
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.base.text import pad, tr, width
from gapforge.cli import hard_link_note as copies_made
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model import reasons
from gapforge.model.preset import Preset
from gapforge.model.unresolved import Unresolved, counts, unresolved
from gapforge.store import download_preview, known_sizes
from gapforge.store.store import Store
from gapforge.sync import partial_lock, source_archives
from gapforge.sync import sync as syncing
from gapforge.sync.network import Network
from gapforge.sync.options import Options, Outcome

HELP = {
    "ko": "프리셋에 필요한 모든 것을 받아 artifacts/에 둡니다 (온라인에서)",
    "en": "fetch everything that presets need into artifacts/ (where there is a network)",
}


FEW = 6  # names on one line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=tr("받을 프리셋", "presets to fetch"))
    parser.add_argument("--all", action="store_true", help=tr("모든 프리셋", "every preset"))
    parser.add_argument("--update", action="store_true",
                        help=tr("잠금 파일을 새로 만들고 바뀐 것을 보여 줍니다", "resolve anew and show what changed"))  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--lock-only", action="store_true",
                     help=tr("아무것도 받지 않고 알 수 있는 데까지 잠금 파일만 씁니다",
                             "fetch nothing; write the lock as far as it can be known"))  # fmt: skip
    how.add_argument("--dry-run", action="store_true",
                        help=tr("받을 파일과 크기만 보여 줍니다", "only list what would be fetched, with sizes"))  # fmt: skip
    parser.add_argument("--from", dest="provided", type=Path, metavar="DIR",
                        help=tr("직접 내려받은 파일이 있는 폴더 (해시로 확인)",
                                "folder with files that you downloaded (checked by hash)"))  # fmt: skip
    parser.add_argument("--json", action="store_true", help=tr("결과를 JSON으로 출력", "print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when every preset's artifacts are complete and verified; with --lock-only when every lock is written."""
    network = Network.from_environment()
    names = presets.names(project.presets) if args.all else list(dict.fromkeys(args.presets))
    if not names:
        raise UsageError(
            tr("프리셋 이름이 없습니다", "no preset is named"), hint="./gapforge list; ./deps_sync.sh PRESET"
        )
    wanted = [presets.find(project.presets, name) for name in names]
    if args.lock_only and args.provided is not None:
        raise UsageError(tr("--lock-only는 파일을 받지 않으므로 --from과 함께 쓸 수 없습니다",
                            "--lock-only takes no files, so --from means nothing with it"),
                         hint=f"./deps_sync.sh {names[0]} --lock-only")  # fmt: skip
    if args.provided is not None and not args.provided.is_dir():
        raise source_archives.not_a_folder(args.provided)
    documents = []
    copies = copied = 0
    for preset in wanted:
        if args.dry_run:
            documents.append(_dry_run(preset, project, args))
            continue
        options = Options(update=args.update, provided=args.provided, quiet=args.json)
        outcome = (partial_lock.pin if args.lock_only else syncing.sync)(preset, project, network, options)
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
    print(tr(f"{lock.preset}: presets/{lock.preset}.lock.json이 파일 {len(lock.entries)}개({size})를 고정합니다",
             f"{lock.preset}: presets/{lock.preset}.lock.json pins {len(lock.entries)} files, {size}"))  # fmt: skip
    open_: dict[tuple[str, str], list[str]] = {}
    for gap in lock.unresolved:
        open_.setdefault((gap.kind, gap.reason), []).append(gap.name)
    for (kind, reason), names in open_.items():
        few = ", ".join(names[:FEW]) + (
            tr(f" 외 {len(names) - FEW}개", f" and {len(names) - FEW} more") if names[FEW:] else ""
        )
        print(f"  {kind} {few}\n      {reasons.told(reason)}")
    if lock.unresolved:
        print(tr(f"  미정 {len(lock.unresolved)}개. 나머지는 그것들에 닿는 곳에서: ./deps_sync.sh {lock.preset}",
                 f"  {len(lock.unresolved)} not resolved; the rest where those can be reached: ./deps_sync.sh {lock.preset}"))  # fmt: skip


def _report(outcome: Outcome) -> None:
    for line in outcome.changes.lines() if outcome.resolved else ():
        print(line)
    if outcome.resolved and not outcome.changes:
        print(tr("바뀐 것이 없습니다", "nothing changed"))
    size = human_bytes(sum(e.size for e in outcome.lock.entries))
    fetched, count = human_bytes(outcome.fetched), len(outcome.lock.entries)
    print(tr(f"{outcome.lock.preset}: 파일 {count}개, {size}, 받은 양 {fetched} -> {outcome.artifacts}",
             f"{outcome.lock.preset}: {count} files, {size}, fetched {fetched} -> {outcome.artifacts}"))  # fmt: skip
    for path in outcome.strangers:
        print(tr(f"경고: {outcome.artifacts / path}: gapforge가 둔 파일이 아니어서 verify가 거부합니다. 옮기거나 지우십시오.",
                 f"warning: {outcome.artifacts / path}: gapforge did not put this file there and verify will refuse it; "
                 "move it away"), file=sys.stderr)  # fmt: skip


def _dry_run(preset: Preset, project: Project, args: argparse.Namespace) -> dict[str, object]:
    """What a sync would fetch, without the network. With a fitting lock it is exact."""
    lock = None if args.update else locks.usable(project.lock_file(preset.name), preset)
    if lock is None:
        shown, left = download_preview.of_preset(preset, known_sizes.look(project)), unresolved(preset, None)
    else:
        shown, left = download_preview.of_lock(preset, lock, Store(project.store)), unresolved(preset, lock)
    if not args.json:
        _print(shown, left)
    return {**shown.to_json(), "unresolved": [item.to_json() for item in left]}


def _print(shown: download_preview.Preview, left: Sequence[Unresolved]) -> None:
    if shown.locked and not shown.exact:
        print(tr(f"{shown.preset}: 잠금 파일이 일부만 정해져 있어 동기화가 나머지를 먼저 해석합니다. 지금 아는 것은 다음과 같습니다:",
                 f"{shown.preset}: the lock is partial, so sync resolves the rest first; what is known now:"))  # fmt: skip
    elif not shown.exact:
        print(tr(f"{shown.preset}: 맞는 잠금 파일이 없어 동기화가 먼저 해석합니다. 프리셋이 말하는 것은 다음과 같습니다:",
                 f"{shown.preset}: no lock that fits, so sync resolves first; what the preset itself says:"))  # fmt: skip
    have, get = tr("있음", "have"), tr("받을 것", "get")
    column = max(width(have), width(get))
    for item in shown.items:
        size = "-" if item.size is None else human_bytes(item.size)
        state = pad(have if item.stored else get, column)
        name = item.name if shown.exact or "/" in item.name else f"{item.kind} {item.name}"
        print(f"  {size:>9}  {state}  {name}  <- {item.where[0]}")
        for other in item.where[1:]:
            print(f"  {'':>9}  {'':{column}}    {tr('또는', 'or')} {other}")
        if item.note:
            print(f"  {'':>9}  {'':{column}}    {item.note}")
    total, missing = human_bytes(shown.total), human_bytes(shown.missing)
    print(tr(f"{shown.preset}: {len(shown.items)}개, {total}; 받을 양 {missing}", f"{shown.preset}: {len(shown.items)} files, {total}; to fetch {missing}")
          if shown.exact else
          tr(f"{shown.preset}: 크기를 아는 것만 {total}, 받을 양 {missing}; 크기를 모르는 것 {len(shown.unknown)}개",
             f"{shown.preset}: {total} of known size, {missing} of it to fetch; {len(shown.unknown)} items of unknown size"))  # fmt: skip
    if left:
        print(
            tr(
                f"동기화가 정할 것: {counts(left)}와 그 의존성",
                f"left for sync to resolve: {counts(left)}, and what they depend on",
            )
        )
