"""``gapforge pack``: write the volumes of a bundle, or those of a repair request."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base.errors import UsageError
from gapforge.base.files import sha256_bytes
from gapforge.base.i18n import N_, _, ngettext
from gapforge.base.process import quoted
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.text_layout import first_names, utc
from gapforge.base.units import human_bytes, human_time
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
from gapforge.bundle.repository_files import Untracked, untracked_files
from gapforge.bundle.sign_bundle import BundleSigner
from gapforge.bundle.volume_format import MAX_VOLUME_SIZE, volume_name
from gapforge.bundle.volume_plan import Plan, make_plan
from gapforge.cli import environment_defaults
from gapforge.cli.argument_parser import add_json, require_folder
from gapforge.cli.custody_pages import add_operator, operator_of, write_pages
from gapforge.cli.output import print_json, say, show, show_table, warn
from gapforge.model import preset as presets
from gapforge.trust import private_ssh_agent, ssh_signatures
from gapforge.trust.ssh_signatures import SigningKey

HELP = N_("write the volumes that carry presets to a site (needs no network)")
EXAMPLES = (
    "./gapforge pack NAME --to /media/usb1 /media/usb2 --with-tool",
    "./gapforge pack NAME --for inventory.txt --to /media/usb --sign ~/.ssh/id_ed25519.pub",
)

NAMED_SIZES = {"fat32": FAT_LIMIT, "dvd": 4_700_372_992}
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
UNITS = {**_DECIMAL, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
LEAST_VOLUME = 64 << 10
SHOWN = 12  # number of names on one line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=_("presets to pack"))
    parser.add_argument(
        "--for",
        dest="inventory",
        type=Path,
        metavar="INVENTORY",
        help=_("inventory of the site, whose objects are omitted"),
    )
    parser.add_argument(
        "--repair", type=Path, metavar="REQUEST", help=_("only pack the parts of a repair request")
    )
    parser.add_argument(
        "--volume-size",
        default="4G",
        metavar="SIZE",
        help=_("maximum size of a volume: 4G (default), fat32, dvd, or bytes"),
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
            "sign the index and the locks with this SSH key: the file of a private key, or "
            "the .pub file of a key in ssh-agent"
        ),
    )
    parser.add_argument(
        "--dry-run", action="store_true", help=_("only show the volumes and their folders")
    )
    parser.add_argument(
        "--speed",
        metavar="SIZE",
        help=_("write speed of the medium per second, such as 30M, to show the duration"),
    )
    parser.add_argument(
        "--with-tool",
        action="store_true",
        help=_("also pack the repository of gapforge: code, presets and locks"),
    )
    add_operator(parser)
    add_json(parser)


def size_of(text: str, flag: str) -> int:
    """Return the bytes of "4G" (decimal), "4GiB", "fat32", "dvd" or a number. Raise UsageError."""
    word = text.strip().lower()
    if word in NAMED_SIZES:
        return NAMED_SIZES[word]
    match = re.fullmatch(r"(\d{1,15})([kmgt]i?|)b?", word)
    if match is None or int(match[1]) == 0:
        raise UsageError(
            _('{flag} "{text}" is not a size', flag=flag, text=text),
            hint=_("expected such as {flag} 4G, 4GiB, fat32, dvd, or bytes", flag=flag),
        )
    return int(match[1]) * UNITS[match[2]]


def run(args: argparse.Namespace, project: Project) -> int:
    """Write the volumes, or show them with --dry-run, and return 0."""
    volume_size = _volume_size(args.volume_size)
    speed = size_of(args.speed, "--speed") if args.speed else 0
    operator = operator_of(args)
    if not args.to and not args.dry_run:
        raise UsageError(
            _("pack needs a folder for the volumes"), hint="./gapforge pack PRESET --to FOLDER"
        )
    for folder in args.to:
        require_folder("--to", folder, hint="./gapforge pack PRESET --to FOLDER")
    sign = environment_defaults.sign_key(args.sign)
    key = ssh_signatures.signing_key_of(sign) if sign is not None else None
    wanted = _wanted(args, project)
    contents, untracked = wanted.contents, wanted.untracked
    plan = make_plan(
        contents.parts, contents.presets, volume_size, repairs=wanted.repairs, tool=wanted.tool
    )
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
            _show_untracked(untracked)
    else:
        with private_ssh_agent.unlocked(key) as ready:
            packed, pages = _write(args, project, plan, contents, ready, operator)
        document = {
            **_document(plan, packed.folders, speed),
            "kept": list(packed.kept),
            "made": packed.companions.made,
            "signer": packed.companions.signer,
            "receiver_sha256": sha256_bytes(receiver_bytes()),
            "index": [str(path) for path in packed.index],
            "custody": [str(path) for path in pages],
        }
        if not args.json:
            _show(plan, packed.folders, 0)
            _show_untracked(untracked)
            _show_next_steps(packed, pages)
    if args.json:
        if untracked is not None:
            document["tool"] |= {"untracked": untracked.packed, "left_out": untracked.left_out}
        print_json({"ok": True, **document})
    return 0


def _volume_size(text: str) -> int:
    size = size_of(text, "--volume-size")
    if size < LEAST_VOLUME:
        raise UsageError(
            _("--volume-size {size} is too small", size=text),
            hint=_("{bytes} bytes or more", bytes=LEAST_VOLUME),
        )
    if size > MAX_VOLUME_SIZE:  # unpack refuses larger ones
        raise UsageError(
            _("--volume-size {size} is too large", size=text), hint=_("use the size of one medium")
        )
    return size


def _write(
    args: argparse.Namespace,
    project: Project,
    plan: Plan,
    contents: Contents,
    key: SigningKey | None,
    operator: str,
) -> tuple[Packed, list[Path]]:
    """Write the volumes and their custody page, signed if there is a key. Return the pages too."""
    signer = None
    if key is not None:
        if key.public.needs_touch:
            say(_("touch the security key when it blinks"))
        signer = BundleSigner(
            key=key, folders=[args.repair.absolute().parent] if args.repair is not None else []
        )
    with Progress(_("pack {bundle}", bundle=plan.bundle), quiet=args.json) as progress:
        if plan.tool in contents.texts:
            keep_archive(project, contents.texts[plan.tool])
        packed = pack(project, plan, contents, args.to, progress, signer)
    handover = Handover(utc(), operator, packed.companions.signer)
    facts = custody_facts.pack_facts(project, packed, contents, handover)
    folders = [*(path.parent for path in packed.index), project.state / "bundles"]
    return packed, write_pages(project, facts, folders, key)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What to pack, and the bundle that it repairs or "".

    ``tool`` is the object of the repository or "", ``untracked`` what git does not track of it.
    """

    contents: Contents
    repairs: str = ""
    tool: str = ""
    untracked: Untracked | None = None


def _wanted(args: argparse.Namespace, project: Project) -> _Wanted:
    """Return what the flags ask for. Raise UsageError if they do not fit together."""
    if args.repair is not None:
        if args.presets or args.inventory or args.with_tool:
            raise UsageError(
                _("--repair excludes presets, --for and --with-tool"),
                hint=f"./gapforge pack --repair {quoted([args.repair])} --to FOLDER",
            )
        request = read_request(args.repair)
        places = [args.repair.absolute().parent, project.state / "bundles", *args.to]
        spans, views, tool = requested_parts(request, places)
        contents = bundles.request_contents(project, spans, views, tool)
        return _Wanted(contents=contents, repairs=request.bundle, tool=tool)
    if not args.presets:
        raise UsageError(_("pack needs a preset"), hint="./gapforge list; ./gapforge pack PRESET")
    held = bundles.inventory_objects(args.inventory) if args.inventory is not None else frozenset()
    named = [presets.find(project.presets, name) for name in dict.fromkeys(args.presets)]
    contents = bundles.preset_contents(project, named, held)
    if not args.with_tool:
        return _Wanted(contents=contents)
    locks = {view.preset: contents.texts[view.lock] for view in contents.presets}
    tool = contents.add_repository(make_archive(project, locks, named), held)
    return _Wanted(contents=contents, tool=tool, untracked=untracked_files(project, named))


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
    """Return Gapforge's own archive: ``bytes`` of it travel, none where the site has it."""
    size = sum(span.length for span in plan.parts if span.sha256 == plan.tool)
    return {"sha256": plan.tool, "bytes": size} if plan.tool else None


def _show(plan: Plan, folders: Mapping[int, Path], speed: int) -> None:
    sizes = [plan.size(number) for number in range(1, len(plan.volumes) + 1)]
    show(
        ngettext(
            "bundle {bundle} ({presets}): {objects} objects in {count} volume, {size}",
            "bundle {bundle} ({presets}): {objects} objects in {count} volumes, {size}",
            len(sizes),
            bundle=plan.bundle,
            presets=", ".join(view.preset for view in plan.presets),
            objects=len(plan.parts),
            size=human_bytes(sum(sizes)),
        )
    )
    if tool := _tool(plan):
        packed = human_bytes(tool["bytes"]) if tool["bytes"] else _("omitted; the site has it")
        show(_("repository of gapforge, {sha256}: {size}", sha256=plan.tool[:12], size=packed))
    rows = [
        (volume_name(plan.bundle, number), human_bytes(size), str(folders.get(number, "")))
        for number, size in enumerate(sizes, 1)
    ]
    show_table((_("volume"), _("size"), _("folder") if folders else ""), rows)
    if not folders and (needed := count_media(plan)):
        choices = [
            _("{count} of {size} GB", count=count, size=size // 10**9) for size, count in needed
        ]
        show(_("media needed: {choices}", choices=_(", or ").join(choices)))
    if speed:
        duration = human_time(sum(sizes) / speed)
        print(_("{duration} at {speed}/s", duration=duration, speed=human_bytes(speed)))


def _show_untracked(untracked: Untracked | None) -> None:
    """Print the files that git does not track: those that are packed, and those that are not."""
    if untracked is None:
        return
    if untracked.packed:
        print(
            ngettext(
                "{count} untracked file of the presets and components is packed too: {files}",
                "{count} untracked files of the presets and components are packed too: {files}",
                len(untracked.packed),
                files=first_names(untracked.packed, SHOWN),
            )
        )
    if untracked.left_out:
        warn(
            _(
                "git does not track these, so they are not packed: {files}",
                files=first_names(untracked.left_out, SHOWN),
            ),
            _("to pack one: git add {file!q}", file=untracked.left_out[0]),
        )


def _show_next_steps(packed: Packed, pages: Sequence[Path]) -> None:
    if packed.kept:
        print(
            ngettext(
                "{count} volume already existed and was verified",
                "{count} volumes already existed and were verified",
                len(packed.kept),
            )
        )
    if pages:
        print(_("custody page: {page}, and beside the volumes", page=pages[0]))
    if packed.companions.signer:
        print(
            _(
                "signed {time} by {signer}; sha256 of {receiver}: {sha256}",
                time=packed.companions.made,
                signer=packed.companions.signer,
                receiver=RECEIVER,
                sha256=sha256_bytes(receiver_bytes()),
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
