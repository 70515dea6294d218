"""`gapforge inventory`: a small file that says what this machine holds, to send back to where it is packed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from gapforge.base.errors import Fault, StorageError, UsageError, VerifyError
from gapforge.base.files import atomic_file
from gapforge.base.progress import Progress, human_bytes
from gapforge.base.project import Project
from gapforge.base.text import tr
from gapforge.model.preset import names as preset_names
from gapforge.model.schema import nearest
from gapforge.store import take_inventory
from gapforge.store.inventory import TITLE, Inventory, read_short_digest

HELP = {
    "ko": "이 컴퓨터에 있는 것을 모두 읽어 확인하고 작은 목록 파일로 적습니다 (네트워크 불필요)",
    "en": "read and verify what this machine holds, and write a small file that lists it (needs no network)",
}
DEFAULT = Path("inventory.txt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("presets", nargs="*", metavar="PRESET",
                        help=tr("이 프리셋들의 아티팩트만 (기본: 모두)", "only the artifacts of these (default: all)"))  # fmt: skip
    parser.add_argument("--all", action="store_true",
                        help=tr("보관소(artifacts/.store)와 모든 아티팩트 (기본)", "the store and all artifacts (the default)"))  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="FILE",
                        help=tr(f"쓸 파일 (기본: {DEFAULT})", f"the file to write (default: {DEFAULT})"))  # fmt: skip
    parser.add_argument("--read", type=Path, metavar="FILE",
                        help=tr("새로 만들지 않고, 받은 목록 파일이 온전한지 보고 요약합니다",
                                "take none; see whether one that was sent is whole, and show it"))  # fmt: skip
    parser.add_argument("--digest", metavar="TEXT",
                        help=tr("--read와 함께: 현장이 알려 준 확인 문자열과 비교합니다",
                                "with --read: compare with the digest that the site told you"))  # fmt: skip
    parser.add_argument("--jobs", type=int, metavar="N",
                        help=tr("동시에 읽을 파일 수 (기본: 모든 코어)", "files read at a time (default: all cores)"))  # fmt: skip
    parser.add_argument("--json", action="store_true", help=tr("결과를 JSON으로 출력", "print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0; 5 when something is damaged: the inventory is written all the same, without it."""
    if args.read is not None:
        return _read(args)
    if args.digest is not None:
        raise UsageError(tr("--digest는 --read와 함께만 씁니다", "--digest means nothing without --read"),
                         hint="./gapforge inventory --read FILE --digest TEXT")  # fmt: skip
    if args.all and args.presets:
        raise UsageError(tr("--all과 프리셋 이름은 함께 쓸 수 없습니다", "--all and preset names exclude each other"),
                         hint="./gapforge inventory --all")  # fmt: skip
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(tr(f"--jobs {args.jobs}: 쓸 수 없는 값입니다", f"--jobs {args.jobs} is not allowed"),
                         hint=tr("1 이상의 정수를 주십시오", "a whole number from 1"))  # fmt: skip
    names = list(dict.fromkeys(args.presets))
    for name in names:
        if "/" in name or name in ("", ".", "..", project.store.name) or not (project.artifacts / name).is_dir():
            raise UsageError(tr(f'"{name}"의 artifacts가 없습니다', f'there are no artifacts of "{name}"')
                             + nearest(name, preset_names(project.presets)),
                             hint=tr("./gapforge list; 이름을 주지 않으면 여기 있는 모든 것의 목록을 만듭니다",
                                     "./gapforge list; without a name the inventory is of everything here"))  # fmt: skip
    output = args.output or DEFAULT
    _refuse_bad_output(output, project)
    with Progress(tr("현장 목록", "inventory"), quiet=args.json) as progress:
        stock = take_inventory.take(project, names, jobs=args.jobs, progress=progress)
    with atomic_file(output) as file:
        for chunk in stock.inventory.chunks():
            file.write(chunk.encode())
    error = stock.error() if stock.faults else None
    if args.json:
        document = {**stock.to_json(), "file": str(output)}
        if error is not None:
            document["error"] = {k: v for k, v in error.to_json().items() if k != "faults"}
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _show(stock.inventory, str(output))
        print(tr(f"이 파일을 보내십시오: {output} ({human_bytes(output.stat().st_size)})",
                 f"send this file: {output} ({human_bytes(output.stat().st_size)})"))  # fmt: skip
    if error is None:
        return 0
    print(error.render(), file=sys.stderr)
    return error.exit_code


def _read(args: argparse.Namespace) -> int:
    if args.presets or args.all or args.output is not None:
        raise UsageError(tr("--read는 목록을 만들지 않으므로 프리셋, --all, --output과 함께 쓸 수 없습니다",
                            "--read takes no inventory, so presets, --all and --output mean nothing with it"),
                         hint=f"./gapforge inventory --read {args.read}")  # fmt: skip
    told = None if args.digest is None else read_short_digest(args.digest)
    inventory = Inventory.read(args.read)
    if told not in (None, inventory.digest):
        raise VerifyError(tr(f"{args.read}: 현장이 알려 준 목록이 아닙니다",
                             f"{args.read} is not the inventory that the site told you of"),
                          faults=[Fault(str(args.read), tr(f"확인 문자열이 {inventory.digest}임",
                                                           f"has the digest {inventory.digest}"), f"{told}")],
                          hint=tr("어느 것이 최신인지 물어 다시 받으십시오",
                                  "ask which one is the newest, and have it sent again"))  # fmt: skip
    if args.json:
        print(json.dumps({
            "ok": True, "file": str(args.read), "gapforge": inventory.tool, "objects": len(inventory),
            "bytes": inventory.total, "presets": [{"preset": n, "lock": h} for n, h in inventory.presets],
            "sha256": inventory.sha256, "digest": inventory.digest}, ensure_ascii=False, indent=2))  # fmt: skip
    else:
        _show(inventory, str(args.read))
    return 0


def _refuse_bad_output(output: Path, project: Project) -> None:
    """An inventory replaces an older one, nothing else; inside the artifacts it would be a stranger."""
    if project.artifacts.resolve() in output.resolve().parents:
        raise UsageError(tr(f"{output}: artifacts 안이어서 verify가 거부하게 됩니다",
                            f"{output} lies in the artifacts, where verify would refuse it"),
                         hint=tr("다른 곳을 정하십시오", "choose another place"))  # fmt: skip
    if output.is_symlink() or (output.exists() and not _is_inventory(output)):
        raise UsageError(tr(f"{output}: 현장 목록이 아닌 것이 이미 있어 그대로 둡니다",
                            f"{output} exists and is no inventory; it stays as it is"),
                         hint=tr("다른 이름을 정하십시오", "choose another name"))  # fmt: skip
    # Before the long reading, not after it.
    if output.parent.exists() and not os.access(output.parent, os.W_OK):
        raise StorageError(tr(f"{output}: 이곳에는 쓸 수 없습니다", f"{output}: nothing can be written there"),
                           hint=tr("--output으로 다른 곳을 정하십시오", "choose another place with --output"))  # fmt: skip


def _is_inventory(file: Path) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as source:
        return source.read(len(TITLE) + 1) == f"{TITLE} ".encode()


def _show(inventory: Inventory, shown: str) -> None:
    size, count = human_bytes(inventory.total), len(inventory)
    print(tr(f"{shown}: 파일 {count}개, {size}", f"{shown}: {count} files, {size}"))
    for name, sha256 in inventory.presets:
        print(f"  {name}  {tr('잠금', 'lock')} {sha256[:12]}")
    print(tr(f"확인 문자열: {inventory.digest}", f"digest: {inventory.digest}"))
