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
from gapforge.base.i18n import N_, _
from gapforge.base.process import quoted
from gapforge.base.progress import Progress, human_bytes, human_time
from gapforge.base.project import Project
from gapforge.base.text import utc
from gapforge.bundle import contents as bundles
from gapforge.bundle import custody_facts
from gapforge.bundle.bundle_index import index_name
from gapforge.bundle.contents import Contents
from gapforge.bundle.custody_facts import Handover
from gapforge.bundle.disk_space import FAT_LIMIT
from gapforge.bundle.pack import Packed, pack
from gapforge.bundle.place_volumes import count_media, place_volumes
from gapforge.bundle.receiver_program import RECEIVER, receiver_bytes
from gapforge.bundle.repair_request import read_request, requested_parts
from gapforge.bundle.repository_archive import keep_archive, make_archive
from gapforge.bundle.repository_files import untracked_files
from gapforge.bundle.sign_bundle import BundleSigner
from gapforge.bundle.volume_format import MAX_VOLUME_SIZE, volume_name
from gapforge.bundle.volume_plan import Plan, make_plan
from gapforge.cli.write_custody_page import add_operator, operator_of, write_pages
from gapforge.model import preset as presets
from gapforge.trust import ssh_agent, ssh_signatures
from gapforge.trust.ssh_signatures import SigningKey

HELP = N_("make volume files that carry presets across the gap (needs no network)")

NAMED_SIZES = {"fat32": FAT_LIMIT, "dvd": 4_700_372_992}
UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}
LEAST_VOLUME = 64 << 10
SHOWN = 12  # names in one line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=_("presets to carry"))
    parser.add_argument(
        "--for",
        dest="inventory",
        type=Path,
        metavar="INVENTORY",
        help=_("the site's inventory; what it has is left out"),
    )
    parser.add_argument(
        "--repair",
        type=Path,
        metavar="REQUEST",
        help=_("just the bytes that a site's repair request names"),
    )
    parser.add_argument(
        "--volume-size",
        default="4G",
        metavar="SIZE",
        help=_("largest size of a volume: 4G (default), fat32, dvd, or bytes"),
    )
    parser.add_argument(
        "--to",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="DIR",
        help=_("folders for the volumes, filled in this order"),
    )
    parser.add_argument(
        "--sign",
        metavar="KEY",
        help=_(
            "sign the index and the locks with this SSH key: a private key's file, or "
            "the .pub of one that ssh-agent holds"
        ),
    )
    parser.add_argument("--dry-run", action="store_true", help=_("only show what would go where"))
    parser.add_argument(
        "--speed",
        metavar="SIZE",
        help=_("what the medium writes a second (30M, say); shows how long it takes"),
    )
    parser.add_argument(
        "--with-tool",
        action="store_true",
        help=_("carry gapforge's repository too: code, presets and locks"),
    )
    add_operator(parser)
    parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))


def size_of(text: str, flag: str) -> int:
    """Bytes of "4G" (decimal, as media are sold), "4GiB", "fat32", "dvd" or a number. Raises UsageError."""
    word = text.strip().lower()
    if word in NAMED_SIZES:
        return NAMED_SIZES[word]
    match = re.fullmatch(r"(\d{1,15})([kmgt]i?|)b?", word)
    if match is None or int(match[1]) == 0:
        raise UsageError(
            _('{flag} "{text}" is not a size', flag=flag, text=text),
            hint=_("{flag} 4G, or 4GiB, fat32, dvd, or bytes", flag=flag),
        )
    return int(match[1]) * UNITS[match[2]]


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when every volume is written, or the dry run shown."""
    volume_size = size_of(args.volume_size, "--volume-size")
    if volume_size < LEAST_VOLUME:
        raise UsageError(
            _("--volume-size {volume_size} is too small", volume_size=args.volume_size),
            hint=_("{least_volume} bytes or more", least_volume=LEAST_VOLUME),
        )
    if volume_size > MAX_VOLUME_SIZE:  # unpack believes no larger one
        raise UsageError(
            _("--volume-size {volume_size} is too large", volume_size=args.volume_size),
            hint=_("the size of one medium is enough"),
        )
    speed = size_of(args.speed, "--speed") if args.speed else 0
    operator = operator_of(args)
    if not args.to and not args.dry_run:
        raise UsageError(
            _("pack needs a folder for the volumes"), hint="./gapforge pack PRESET --to FOLDER"
        )
    sign = args.sign if args.sign is not None else os.environ.get("GAPFORGE_SIGN_KEY") or None
    key = ssh_signatures.signing_key_of(sign) if sign is not None else None
    contents, repairs, tool = _contents(args, project)
    loose = untracked_files(project) if args.with_tool else []
    plan = make_plan(contents.parts, contents.presets, volume_size, repairs=repairs, tool=tool)
    if args.dry_run:
        signatures = len(plan.presets) + 1 if key is not None else 0
        folders: Mapping[int, Path] = {}
        if args.to:
            folders = place_volumes(
                plan, args.to, verify=False, signatures=signatures, listed=contents.listed
            ).folders
        document = _document(plan, folders, speed)
        if not args.json:
            _show(plan, folders, speed)
            _show_untracked(loose)
    else:
        with ssh_agent.held(key) as ready:
            packed, pages = _write(args, project, plan, contents, ready, operator)
        signer = packed.companions.signer
        document = {
            **_document(plan, packed.folders, speed),
            "kept": list(packed.kept),
            "made": packed.companions.made,
            "signer": signer,
            "receiver_sha256": sha256_bytes(receiver_bytes()),
            "index": [str(path) for path in packed.index],
            "custody": [str(path) for path in pages],
        }
        if not args.json:
            _show(plan, packed.folders, 0)
            _show_untracked(loose)
            _what_next(packed, pages)
    if args.json:
        if document["tool"] is not None:
            document["tool"]["untracked"] = loose
        print(json.dumps({"ok": True, **document}, ensure_ascii=False, indent=2))
    return 0


def _write(
    args: argparse.Namespace,
    project: Project,
    plan: Plan,
    contents: Contents,
    key: SigningKey | None,
    operator: str,
) -> tuple[Packed, list[Path]]:
    """Write the volumes and their custody page, signed where there is a key; gives where the page is too."""
    seal = None
    if key is not None:
        if key.public.touched:
            print(_("touch the security key when it blinks"), file=sys.stderr)
        seal = BundleSigner(key, [args.repair.absolute().parent] if args.repair is not None else [])
    with Progress(_("pack {bundle}", bundle=plan.bundle), quiet=args.json) as progress:
        if plan.tool in contents.texts:
            keep_archive(project, contents.texts[plan.tool])
        packed = pack(project, plan, contents, args.to, progress, seal)
    signer = packed.companions.signer
    facts = custody_facts.pack_facts(project, packed, contents, Handover(utc(), operator, signer))
    folders = [*(path.parent for path in packed.index), project.state / "bundles"]
    return packed, write_pages(project, facts, folders, key)


def _contents(args: argparse.Namespace, project: Project) -> tuple[Contents, str, str]:
    """What to pack, the bundle that it mends or "", and the object that is this repository or ""."""
    if args.repair is not None:
        if args.presets or args.inventory or args.with_tool:
            raise UsageError(
                _(
                    "--repair takes what the request names, so presets, --for and "
                    "--with-tool do not go with it"
                ),
                hint=f"./gapforge pack --repair {args.repair} --to FOLDER",
            )
        request = read_request(args.repair)
        places = [args.repair.absolute().parent, project.state / "bundles", *args.to]
        spans, views, tool = requested_parts(request, places)
        return bundles.request_contents(project, spans, views, tool), request.bundle, tool
    if not args.presets:
        raise UsageError(_("no preset is named"), hint="./gapforge list; ./gapforge pack PRESET")
    held = bundles.inventory_objects(args.inventory) if args.inventory is not None else frozenset()
    named = [presets.find(project.presets, name) for name in dict.fromkeys(args.presets)]
    contents, tool = bundles.preset_contents(project, named, held), ""
    if args.with_tool:
        archive = make_archive(
            project, {view.preset: contents.texts[view.lock] for view in contents.presets}
        )
        tool = contents.add_repository(archive, held)
    return contents, "", tool


def _document(plan: Plan, folders: Mapping[int, Path], speed: int) -> dict[str, Any]:
    sizes = {number: plan.size(number) for number in range(1, len(plan.volumes) + 1)}
    return {
        "bundle": plan.bundle,
        "repairs": plan.repairs,
        "presets": [view.preset for view in plan.presets],
        "tool": _tool(plan),
        "objects": len(plan.parts),
        "payload": plan.payload,
        "bytes": sum(sizes.values()),
        "index_file": index_name(plan.bundle),
        "volumes": [
            {
                "number": number,
                "file": volume_name(plan.bundle, number),
                "size": size,
                "folder": str(folders[number]) if number in folders else None,
            }
            for number, size in sizes.items()
        ],
        "sticks": [{"size": size, "count": count} for size, count in count_media(plan)],
        "seconds": round(sum(sizes.values()) / speed) if speed else None,
    }


def _tool(plan: Plan) -> dict[str, Any] | None:
    """gapforge's own archive: ``bytes`` of it travel, none where the site has it."""
    size = sum(span.length for span in plan.parts if span.sha256 == plan.tool)
    return {"sha256": plan.tool, "bytes": size} if plan.tool else None


def _show(plan: Plan, folders: Mapping[int, Path], speed: int) -> None:
    sizes = [plan.size(number) for number in range(1, len(plan.volumes) + 1)]
    names = ", ".join(view.preset for view in plan.presets)
    total = human_bytes(sum(sizes))
    print(
        _(
            "bundle {bundle} ({names}): {count} objects in {sizes} volumes, {total}",
            bundle=plan.bundle,
            names=names,
            count=len(plan.parts),
            sizes=len(sizes),
            total=total,
        )
    )
    if tool := _tool(plan):
        told = (
            human_bytes(tool["bytes"]) if tool["bytes"] else _("the site has it, so it is left out")
        )
        print(_("gapforge itself, {tool}: {told}", tool=plan.tool[:12], told=told))
    for number, size in enumerate(sizes, 1):
        where = f"  -> {folders[number]}" if number in folders else ""
        print(f"  {human_bytes(size):>9}  {volume_name(plan.bundle, number)}{where}")
    if not folders and (needed := count_media(plan)):
        print(
            _("sticks needed: ")
            + _(", or ").join(
                _("{count} of {size} GB", count=count, size=size // 10**9) for size, count in needed
            )
        )
    if speed:
        took = human_time(sum(sizes) / speed)
        print(_("{took} at {speed} a second", took=took, speed=human_bytes(speed)))


def _show_untracked(names: Sequence[str]) -> None:
    """Files that nobody has added to git travel too; perhaps nobody meant them to."""
    if names:
        more = f" +{len(names) - SHOWN}" if len(names) > SHOWN else ""
        print(
            _("{count} files that git does not know travel too: ", count=len(names))
            + ", ".join(names[:SHOWN])
            + more
        )


def _what_next(packed: Packed, pages: Sequence[Path]) -> None:
    if packed.kept:
        print(
            _("{count} volumes were there already; they were read and kept", count=len(packed.kept))
        )
    if pages:
        print(_("custody page: {page}, and beside the volumes", page=pages[0]))
    if packed.companions.key is not None:
        signer, made = packed.companions.key.fingerprint, packed.companions.made
        print(
            _(
                "signed {made} by {signer}; sha256 of {receiver}: {receiver_bytes}",
                made=made,
                signer=signer,
                receiver=RECEIVER,
                receiver_bytes=sha256_bytes(receiver_bytes()),
            )
        )
    places = list(dict.fromkeys(str(folder) for _unused, folder in sorted(packed.folders.items())))
    folders, receiver = quoted(places), quoted([f"{places[0]}/{RECEIVER}"])
    print(
        _(
            "at the site: ./gapforge unpack {folders}  (without gapforge: python3 "
            "{receiver} unpack {folders})",
            folders=folders,
            receiver=receiver,
        )
    )
