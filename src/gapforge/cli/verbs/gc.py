"""`gapforge gc`: show what no lock names any more, and delete it when told to."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from gapforge.base.errors import UsageError
from gapforge.base.progress import Progress, human_bytes
from gapforge.base.project import Project
from gapforge.base.text import josa, tr
from gapforge.store import gc, unfinished_imports
from gapforge.store.gc import DOWNLOAD, OBJECT, WORK, Loose, Waste

HELP = {
    "ko": "어느 잠금 파일도 쓰지 않는 것을 보관소(artifacts/.store)에서 보여 주고 지웁니다",
    "en": "show what no lock names in the store (artifacts/.store), and delete it",
}
FEW = 5  # of the largest that are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help=tr("묻지 않고 지웁니다", "delete without asking"))
    parser.add_argument("--drop", default="", metavar="BUNDLE",
                        help=tr("다 들여오지 않은 이 묶음을 포기합니다", "give up this bundle, which is not imported to its end"))  # fmt: skip
    parser.add_argument("--json", action="store_true",
                        help=tr("결과를 JSON으로 출력 (--yes가 없으면 지우지 않음)",
                                "print the result as JSON (deletes nothing without --yes)"))  # fmt: skip


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when everything was shown, and deleted where that was asked for."""
    with gc.holding(project):
        known = unfinished_imports.bundles(project.store)
        if args.drop and args.drop not in known:
            found = ", ".join(known) or tr("없음", "none")
            raise UsageError(tr(f"--drop {args.drop}: 이런 묶음은 들여오는 중이 아닙니다 (들여오는 중: {found})",
                                f"--drop {args.drop}: no import of such a bundle is unfinished (unfinished: {found})"),
                             hint="./gapforge gc")  # fmt: skip
        waste = gc.look(project, args.drop)
        if not args.json:
            _show(waste)
        delete = bool(waste.loose or args.drop) and (args.yes or (not args.json and _asked()))
        freed = 0
        if delete:
            if args.drop:
                unfinished_imports.forget(project.store, args.drop)
            what = tr("비움", "removed")
            with Progress(what, waste.size, quiet=args.json or not sys.stderr.isatty()) as progress:
                freed = gc.sweep(project, waste, progress.add)
    if args.json:
        print(json.dumps(_to_json(waste, deleted=delete, freed=freed), ensure_ascii=False, indent=2))
    elif delete:
        print(tr(f"지웠습니다. {human_bytes(freed)}를 비웠습니다", f"deleted; {human_bytes(freed)} are free again"))
    elif waste.loose or args.drop:
        command = f"./gapforge gc --drop {args.drop} --yes" if args.drop else "./gapforge gc --yes"
        print(tr(f"아무것도 지우지 않았습니다. 지우려면: {command}", f"nothing was deleted; to delete: {command}"))
    return 0


def _asked() -> bool:
    """The answer of a person at a terminal; no where there is none."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        answer = input(tr("지울까요? [y/N] ", "delete? [y/N] "))
    except EOFError:
        print()
        return False
    return answer.strip().lower() in ("y", "yes", "예", "네")


def _show(waste: Waste) -> None:
    print(tr(f"잠금이 쓰는 파일: {waste.kept}개, {human_bytes(waste.kept_bytes)} (그대로 둡니다)",
             f"named by locks: {waste.kept} files, {human_bytes(waste.kept_bytes)} (stay)"))  # fmt: skip
    if not waste.loose:
        print(tr("지울 것이 없습니다", "there is nothing to delete"))
    about = {
        OBJECT: tr("어느 잠금도 쓰지 않는 파일", "files that no lock names"),
        DOWNLOAD: tr("어느 잠금에도 없는 파일의 받다 만 조각", "unfinished downloads of files that no lock names"),
        WORK: tr("중단된 동기화의 작업 폴더", "work folders of syncs that were cut"),
    }
    for kind, words in about.items():
        items = waste.of(kind)
        if not items:
            continue
        count, size = len(items), human_bytes(sum(item.size for item in items))
        print(f"{words}: " + tr(f"{count}개, {size}", f"{count}, {size}"))
        for item in items[:FEW]:
            print(f"  {human_bytes(item.size):>9}  {_shown(item)}")
        if len(items) > FEW:
            rest = human_bytes(sum(item.size for item in items[FEW:]))
            print(f"  {rest:>9}  " + tr(f"나머지 {len(items) - FEW}개", f"the other {len(items) - FEW}"))
    if waste.loose:
        print(tr(f"디스크에서 비는 양: {human_bytes(waste.freed)}", f"the disk gets back: {human_bytes(waste.freed)}"))
    linked = [item for item in waste.loose if item.freed < item.size]
    if linked:
        size = human_bytes(sum(item.size - item.freed for item in linked))
        print(tr(f"  {len(linked)}개({size})는 다른 하드 링크(artifacts/의 폴더나 .gapforge/context/)가 남아 있어 공간이 비지 않습니다",
                 f"  {len(linked)} of them ({size}) have other hard links (a folder in artifacts/, .gapforge/context/), which keep the room"))  # fmt: skip
    for name in waste.orphans:
        print(tr(f"참고: artifacts/{name}: 이 이름의 프리셋이 없습니다. 그 잠금이 쓰는 파일은 남깁니다. 필요 없으면 폴더를 지운 뒤 다시 실행하십시오",
                 f"note: artifacts/{name}: there is no preset of this name; what its lock names stays. "
                 "If nobody needs the folder, delete it and run this again"))  # fmt: skip
    for name in waste.unfinished:
        print(tr(f"참고: {name}의 동기화가 중단된 채입니다. 지금까지 받은 것은 아직 잠금에 없으므로 지우면 다시 받아야 합니다. 먼저 끝내려면: ./deps_sync.sh {name}",
                 f"note: a sync of {name} was cut; what it has fetched is in no lock yet, and would be fetched again. "
                 f"To finish it first: ./deps_sync.sh {name}"))  # fmt: skip
    for one in waste.imports:
        what = f"{one.bundle} ({', '.join(one.presets)})"
        size = human_bytes(one.size)
        print(tr(f"참고: 묶음 {josa(what, '을', '를')} 아직 다 들여오지 않아 그 파일 {one.count}개({size})를 남깁니다. 마저 들여오려면: ./gapforge unpack FOLDER; 포기하려면: ./gapforge gc --drop {one.bundle}",
                 f"note: bundle {what} is not imported to its end, so {one.count} files ({size}) of it stay. "
                 f"To go on: ./gapforge unpack FOLDER; to give it up: ./gapforge gc --drop {one.bundle}"))  # fmt: skip
    for fault in waste.strange:
        print(tr(f"경고: {fault.where}: gapforge의 것이 아니어서 손대지 않습니다 ({fault.problem})",
                 f"warning: {fault.where}: {fault.problem}; it is left alone"), file=sys.stderr)  # fmt: skip


def _shown(item: Loose) -> str:
    return f"{item.path.parent.name}/{item.path.name}" if item.kind != OBJECT else f"sha256 {item.path.name}"


def _to_json(waste: Waste, *, deleted: bool, freed: int) -> dict[str, Any]:
    return {
        "ok": True,
        "deleted": deleted,
        "count": len(waste.loose),
        "bytes": waste.size,
        "frees": waste.freed,
        "freed": freed,
        "loose": [
            {"kind": item.kind, "path": str(item.path), "size": item.size, "frees": item.freed} for item in waste.loose
        ],
        "kept": {"count": waste.kept, "bytes": waste.kept_bytes},
        "views_without_preset": list(waste.orphans),
        "unfinished_syncs": list(waste.unfinished),
        "unfinished_imports": [
            {"bundle": one.bundle, "presets": list(one.presets), "count": one.count, "bytes": one.size}
            for one in waste.imports
        ],
        "left_alone": [fault.to_json() for fault in waste.strange],
    }
