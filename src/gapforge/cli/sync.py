"""`gapforge sync`: fetch everything that presets need (the online half's one verb)."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gapforge.core import preset as presets
from gapforge.core.errors import UsageError
from gapforge.core.preset import Preset
from gapforge.core.progress import human_bytes
from gapforge.core.project import Project
from gapforge.core.store import Store
from gapforge.core.text import tr
from gapforge.sync import sync as syncing
from gapforge.sync.network import Network

HELP = {
    "ko": "프리셋에 필요한 모든 것을 받아 artifacts/에 둡니다 (네트워크가 있는 곳에서)",
    "en": "fetch everything that presets need into artifacts/ (where there is a network)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("presets", nargs="+", metavar="PRESET")
    parser.add_argument("--update", action="store_true",
                        help=tr("잠금 파일을 새로 만들고 바뀐 것을 보여 줍니다", "resolve anew and show what changed"))  # fmt: skip
    parser.add_argument("--dry-run", action="store_true",
                        help=tr("받을 파일과 크기만 보여 줍니다", "only list what would be fetched, with sizes"))  # fmt: skip
    parser.add_argument("--from", dest="provided", type=Path, metavar="DIR",
                        help=tr("직접 내려받은 파일이 있는 폴더 (해시로 확인)",
                                "folder with files that you downloaded (checked by hash)"))  # fmt: skip
    parser.add_argument("--json", action="store_true", help=tr("결과를 JSON으로 출력", "print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when every preset's artifacts are complete and verified."""
    network = Network.from_environment()
    wanted = [presets.find(project.presets, name) for name in dict.fromkeys(args.presets)]
    if args.provided is not None and not args.provided.is_dir():
        raise UsageError(f"--from {args.provided}: is not a folder", hint=f"ls -ld {args.provided}")
    documents = []
    for preset in wanted:
        if args.dry_run:
            documents.append(_dry_run(preset, project, args))
            continue
        options = syncing.Options(update=args.update, provided=args.provided, quiet=args.json)
        outcome = syncing.sync(preset, project, network, options)
        documents.append(outcome.to_json())
        if not args.json:
            _report(outcome)
    if args.json:
        print(json.dumps({"ok": True, "presets": documents}, ensure_ascii=False, indent=2))
    return 0


def _report(outcome: syncing.Outcome) -> None:
    for line in outcome.changes.lines() if outcome.resolved else ():
        print(line)
    if outcome.resolved and not outcome.changes:
        print(tr("바뀐 것이 없습니다", "nothing changed"))
    size = human_bytes(sum(e.size for e in outcome.lock.entries))
    print(f"{outcome.lock.preset}: {len(outcome.lock.entries)} {tr('개 파일', 'files')}, {size}, "
          f"{tr('받은 양', 'fetched')} {human_bytes(outcome.fetched)} -> {outcome.artifacts}")  # fmt: skip
    for path in outcome.strangers:
        print(tr(f"경고: {outcome.artifacts / path}: gapforge가 둔 파일이 아니어서 verify가 거부합니다. 옮기거나 지우십시오.",
                 f"warning: {outcome.artifacts / path}: gapforge did not put this file there and verify will refuse it; "
                 "move it away"), file=sys.stderr)  # fmt: skip


def _dry_run(preset: Preset, project: Project, args: argparse.Namespace) -> dict[str, object]:
    """What a sync would fetch. With a fitting lock it is exact and needs no network."""
    lock = None if args.update else syncing.usable_lock(preset, project)
    if lock is None:
        lines = syncing.outline(preset)
        if not args.json:
            print(tr(f"{preset.name}: 맞는 잠금 파일이 없습니다. 내려받을 때 다음을 정합니다:",
                     f"{preset.name}: no lock that fits; these would be resolved and fetched:"))  # fmt: skip
            print("\n".join(f"  {line}" for line in lines))
        return {"preset": preset.name, "locked": False, "wanted": lines}
    files = syncing.describe(lock, Store(project.store))
    total = sum(e.size for e in lock.entries)
    missing = sum(e.size for e, file in zip(lock.entries, files, strict=True) if not file["stored"])
    if not args.json:
        for entry, file in zip(lock.entries, files, strict=True):
            where = entry.urls[0] if entry.urls else f"{entry.origin} {entry.file}"
            print(f"  {human_bytes(entry.size):>9}  {tr('있음', 'have') if file['stored'] else tr('받음', 'get ')}  "
                  f"{entry.path}  <- {where}")  # fmt: skip
        print(f"{preset.name}: {len(files)} {tr('개 파일', 'files')}, {human_bytes(total)}; "
              f"{tr('받을 양', 'to fetch')} {human_bytes(missing)}")  # fmt: skip
    return {"preset": preset.name, "locked": True, "files": files, "bytes": total, "missing_bytes": missing}
