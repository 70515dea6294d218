"""`gapforge pack`: volumes that carry presets' objects across the gap, or just the bytes that a site asks for."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gapforge.base.errors import UsageError
from gapforge.base.files import sha256_bytes
from gapforge.base.process import quoted
from gapforge.base.progress import Progress, human_bytes, human_time
from gapforge.base.project import Project
from gapforge.base.text import tr, utc
from gapforge.bundle import contents as bundles
from gapforge.bundle import custody_facts
from gapforge.bundle.contents import Contents
from gapforge.bundle.file_system_limits import FAT_LIMIT
from gapforge.bundle.media_count import sticks
from gapforge.bundle.pack import Packed, pack, place
from gapforge.bundle.receiver_program import RECEIVER, receiver_bytes
from gapforge.bundle.repair_request import read_request, wanted_spans
from gapforge.bundle.repository_archive import keep_archive, make_archive, untracked
from gapforge.bundle.sign_bundle import Seal
from gapforge.bundle.volume_format import MAX_VOLUME_SIZE, volume_name
from gapforge.bundle.volume_plan import Plan, index_name, make_plan
from gapforge.cli.write_custody_page import add_operator, operator_of, write_pages
from gapforge.model import preset as presets
from gapforge.trust import ssh_agent, ssh_signatures
from gapforge.trust.ssh_signatures import SigningKey

HELP = {
    "ko": "프리셋을 현장으로 나를 볼륨 파일을 만듭니다 (네트워크 불필요)",
    "en": "make volume files that carry presets across the gap (needs no network)",
}

NAMED_SIZES = {"fat32": FAT_LIMIT, "dvd": 4_700_372_992}
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
         "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}  # fmt: skip
LEAST_VOLUME = 64 << 10
SHOWN = 12  # names in one line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=tr("나를 프리셋", "presets to carry"))
    parser.add_argument("--for", dest="inventory", type=Path, metavar="INVENTORY",
                        help=tr("현장이 보낸 목록; 현장에 있는 객체는 뺍니다",
                                "the site's inventory; what it has is left out"))  # fmt: skip
    parser.add_argument("--repair", type=Path, metavar="REQUEST",
                        help=tr("현장의 복구 요청 파일이 말하는 바이트만 담습니다",
                                "just the bytes that a site's repair request names"))  # fmt: skip
    parser.add_argument("--volume-size", default="4G", metavar="SIZE",
                        help=tr("볼륨 하나의 최대 크기: 4G(기본), fat32, dvd, 바이트 수",
                                "largest size of a volume: 4G (default), fat32, dvd, or bytes"))  # fmt: skip
    parser.add_argument("--to", nargs="+", action="extend", type=Path, default=[], metavar="DIR",
                        help=tr("볼륨을 둘 폴더; 여럿이면 차례로 채웁니다",
                                "folders for the volumes, filled in this order"))  # fmt: skip
    parser.add_argument("--sign", metavar="KEY",
                        help=tr("이 SSH 키로 색인과 잠금에 서명합니다. 개인 키 파일, 또는 ssh-agent가 가진 키의 .pub",
                                "sign the index and the locks with this SSH key: a private key's file, or the .pub of one "
                                "that ssh-agent holds"))  # fmt: skip
    parser.add_argument("--dry-run", action="store_true",
                        help=tr("무엇이 어디에 놓일지만 보여 줍니다", "only show what would go where"))  # fmt: skip
    parser.add_argument("--speed", metavar="SIZE",
                        help=tr("매체의 초당 쓰기 속도(예: 30M); 걸릴 시간을 보여 줍니다",
                                "what the medium writes a second (30M, say); shows how long it takes"))  # fmt: skip
    parser.add_argument("--with-tool", action="store_true",
                        help=tr("gapforge 저장소(코드, 프리셋, 잠금)도 함께 담습니다",
                                "carry gapforge's repository too: code, presets and locks"))  # fmt: skip
    add_operator(parser)
    parser.add_argument("--json", action="store_true", help=tr("결과를 JSON으로 출력", "print the result as JSON"))


def size_of(text: str, flag: str) -> int:
    """Bytes of "4G" (decimal, as media are sold), "4GiB", "fat32", "dvd" or a number. Raises UsageError."""
    word = text.strip().lower()
    if word in NAMED_SIZES:
        return NAMED_SIZES[word]
    match = re.fullmatch(r"(\d{1,15})([kmgt]i?|)b?", word)
    if match is None or int(match[1]) == 0:
        raise UsageError(tr(f'{flag} "{text}": 크기가 아닙니다', f'{flag} "{text}" is not a size'),
                         hint=tr(f"{flag} 4G, 또는 4GiB, fat32, dvd, 바이트 수", f"{flag} 4G, or 4GiB, fat32, dvd, or bytes"))  # fmt: skip
    return int(match[1]) * UNITS[match[2]]


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when every volume is written, or the dry run shown."""
    volume_size = size_of(args.volume_size, "--volume-size")
    if volume_size < LEAST_VOLUME:
        raise UsageError(tr(f"--volume-size {args.volume_size}: 너무 작습니다", f"--volume-size {args.volume_size} is too small"),
                         hint=tr(f"{LEAST_VOLUME}바이트 이상이어야 합니다", f"{LEAST_VOLUME} bytes or more"))  # fmt: skip
    if volume_size > MAX_VOLUME_SIZE:  # unpack believes no larger one
        raise UsageError(tr(f"--volume-size {args.volume_size}: 너무 큽니다", f"--volume-size {args.volume_size} is too large"),
                         hint=tr("매체 하나의 크기면 충분합니다", "the size of one medium is enough"))  # fmt: skip
    speed = size_of(args.speed, "--speed") if args.speed else 0
    operator = operator_of(args)
    if not args.to and not args.dry_run:
        raise UsageError(tr("볼륨을 둘 폴더가 없습니다", "pack needs a folder for the volumes"),
                         hint="./gapforge pack PRESET --to FOLDER")  # fmt: skip
    sign = args.sign if args.sign is not None else os.environ.get("GAPFORGE_SIGN_KEY") or None
    key = ssh_signatures.signing_key_of(sign) if sign is not None else None
    contents, repairs, tool = _contents(args, project)
    loose = untracked(project) if args.with_tool else []
    plan = make_plan(contents.spans, contents.views, volume_size, repairs=repairs, tool=tool)
    if args.dry_run:
        signatures = len(plan.views) + 1 if key is not None else 0
        folders: Mapping[int, Path] = {}
        if args.to:
            folders = place(plan, args.to, check=False, signatures=signatures, listed=contents.listed).folders
        document = _document(plan, folders, speed)
        if not args.json:
            _show(plan, folders, speed)
            _show_untracked(loose)
    else:
        with ssh_agent.held(key) as ready:
            packed, pages = _write(args, project, plan, contents, ready, operator)
        signer = packed.beside.key.fingerprint if packed.beside.key is not None else ""
        document = {**_document(plan, packed.folders, speed), "kept": list(packed.kept), "made": packed.beside.made,
                    "signer": signer, "receiver_sha256": sha256_bytes(receiver_bytes()),
                    "index": [str(path) for path in packed.index], "custody": [str(path) for path in pages]}  # fmt: skip
        if not args.json:
            _show(plan, packed.folders, 0)
            _show_untracked(loose)
            _what_next(packed, pages)
    if args.json:
        if document["tool"] is not None:
            document["tool"]["untracked"] = loose
        print(json.dumps({"ok": True, **document}, ensure_ascii=False, indent=2))
    return 0


def _write(args: argparse.Namespace, project: Project, plan: Plan, contents: Contents, key: SigningKey | None,
           operator: str) -> tuple[Packed, list[Path]]:  # fmt: skip
    """Write the volumes and their custody page, signed where there is a key; gives where the page is too."""
    seal = None
    if key is not None:
        if key.public.touched:
            print(tr("보안 키가 깜박이면 만지십시오", "touch the security key when it blinks"), file=sys.stderr)
        seal = Seal(key, [args.repair.absolute().parent] if args.repair is not None else [])
    with Progress(tr(f"묶음 {plan.bundle} 담기", f"pack {plan.bundle}"), quiet=args.json) as progress:
        if plan.tool in contents.texts:
            keep_archive(project, contents.texts[plan.tool])
        packed = pack(project, plan, contents, args.to, progress, seal)
    signer = packed.beside.key.fingerprint if packed.beside.key is not None else ""
    facts = custody_facts.of_pack(project, packed, contents, utc(), operator=operator, signer=signer)
    folders = [*(path.parent for path in packed.index), project.state / "bundles"]
    return packed, write_pages(project, facts, folders, key)


def _contents(args: argparse.Namespace, project: Project) -> tuple[Contents, str, str]:
    """What to pack, the bundle that it mends or "", and the object that is this repository or ""."""
    if args.repair is not None:
        if args.presets or args.inventory or args.with_tool:
            raise UsageError(tr("--repair는 복구 요청에 적힌 것을 담으므로 프리셋, --for, --with-tool과 함께 쓸 수 없습니다",
                                "--repair takes what the request names, so presets, --for and --with-tool do not go with it"),
                             hint=f"./gapforge pack --repair {args.repair} --to FOLDER")  # fmt: skip
        request = read_request(args.repair)
        places = [args.repair.absolute().parent, project.state / "bundles", *args.to]
        spans, views, tool = wanted_spans(request, places)
        return bundles.of_request(project, spans, views, tool), request.bundle, tool
    if not args.presets:
        raise UsageError(
            tr("프리셋 이름이 없습니다", "no preset is named"), hint="./gapforge list; ./gapforge pack PRESET"
        )
    held = bundles.site_objects(args.inventory) if args.inventory is not None else frozenset()
    named = [presets.find(project.presets, name) for name in dict.fromkeys(args.presets)]
    contents, tool = bundles.of_presets(project, named, held), ""
    if args.with_tool:
        archive = make_archive(project, {view.preset: contents.texts[view.lock] for view in contents.views})
        tool = contents.carry_tool(archive, held)
    return contents, "", tool


def _document(plan: Plan, folders: Mapping[int, Path], speed: int) -> dict[str, Any]:
    sizes = {number: plan.size(number) for number in range(1, len(plan.volumes) + 1)}
    return {
        "bundle": plan.bundle, "repairs": plan.repairs, "presets": [view.preset for view in plan.views],
        "tool": _tool(plan), "objects": len(plan.spans), "payload": plan.payload, "bytes": sum(sizes.values()), "index_file": index_name(plan.bundle),
        "volumes": [{"number": number, "file": volume_name(plan.bundle, number), "size": size,
                     "folder": str(folders[number]) if number in folders else None}
                    for number, size in sizes.items()],
        "sticks": [{"size": size, "count": count} for size, count in sticks(plan)],
        "seconds": round(sum(sizes.values()) / speed) if speed else None,
    }  # fmt: skip


def _tool(plan: Plan) -> dict[str, Any] | None:
    """gapforge's own archive: ``bytes`` of it travel, none where the site has it."""
    size = sum(span.length for span in plan.spans if span.sha256 == plan.tool)
    return {"sha256": plan.tool, "bytes": size} if plan.tool else None


def _show(plan: Plan, folders: Mapping[int, Path], speed: int) -> None:
    sizes = [plan.size(number) for number in range(1, len(plan.volumes) + 1)]
    names = ", ".join(view.preset for view in plan.views)
    total = human_bytes(sum(sizes))
    print(tr(f"묶음 {plan.bundle} ({names}): 객체 {len(plan.spans)}개, 볼륨 {len(sizes)}개, {total}",
             f"bundle {plan.bundle} ({names}): {len(plan.spans)} objects in {len(sizes)} volumes, {total}"))  # fmt: skip
    if tool := _tool(plan):
        told = (
            human_bytes(tool["bytes"])
            if tool["bytes"]
            else tr("현장에 있으므로 담지 않음", "the site has it, so it is left out")
        )
        print(tr(f"gapforge 저장소 {plan.tool[:12]}: {told}", f"gapforge itself, {plan.tool[:12]}: {told}"))
    for number, size in enumerate(sizes, 1):
        where = f"  -> {folders[number]}" if number in folders else ""
        print(f"  {human_bytes(size):>9}  {volume_name(plan.bundle, number)}{where}")
    if not folders and (needed := sticks(plan)):
        print(tr("필요한 매체: ", "sticks needed: ") + tr(", 또는 ", ", or ").join(
            tr(f"{size // 10**9} GB {count}개", f"{count} of {size // 10**9} GB") for size, count in needed))  # fmt: skip
    if speed:
        took = human_time(sum(sizes) / speed)
        print(tr(f"초당 {human_bytes(speed)}로 쓰면 {took}", f"{took} at {human_bytes(speed)} a second"))


def _show_untracked(names: Sequence[str]) -> None:
    """Files that nobody has added to git travel too; perhaps nobody meant them to."""
    if names:
        more = f" +{len(names) - SHOWN}" if len(names) > SHOWN else ""
        print(tr(f"git에 없지만 함께 가는 파일 {len(names)}개: ", f"{len(names)} files that git does not know travel too: ")
              + ", ".join(names[:SHOWN]) + more)  # fmt: skip


def _what_next(packed: Packed, pages: Sequence[Path]) -> None:
    if packed.kept:
        print(tr(f"이미 있던 볼륨 {len(packed.kept)}개는 읽어서 확인하고 그대로 두었습니다",
                 f"{len(packed.kept)} volumes were there already; they were read and kept"))  # fmt: skip
    if pages:
        print(
            tr(f"반출입 확인서: {pages[0]}, 볼륨 옆에도 있습니다", f"custody page: {pages[0]}, and beside the volumes")
        )
    if packed.beside.key is not None:
        signer, made = packed.beside.key.fingerprint, packed.beside.made
        print(tr(f"{made}에 {signer}의 키로 서명했습니다. {RECEIVER}의 sha256은 {sha256_bytes(receiver_bytes())}",
                 f"signed {made} by {signer}; sha256 of {RECEIVER}: {sha256_bytes(receiver_bytes())}"))  # fmt: skip
    places = list(dict.fromkeys(str(folder) for _, folder in sorted(packed.folders.items())))
    folders, receiver = quoted(places), quoted([f"{places[0]}/{RECEIVER}"])
    print(tr(f"현장에서: ./gapforge unpack {folders}  (gapforge가 없으면: python3 {receiver} unpack {folders})",
             f"at the site: ./gapforge unpack {folders}  (without gapforge: python3 {receiver} unpack {folders})"))  # fmt: skip
