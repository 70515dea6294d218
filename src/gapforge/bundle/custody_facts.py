"""Gathers what a custody page says: from locks, presets, and what pack and unpack did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gapforge import __version__
from gapforge.base.addresses import without_credentials
from gapforge.base.errors import GapforgeError
from gapforge.base.files import SHA256_HEX, sha256_bytes, sha256_file
from gapforge.base.i18n import _, ngettext
from gapforge.base.project import Project
from gapforge.bundle.contents import Contents
from gapforge.bundle.custody_page import (
    CARRIED,
    HELD,
    IMPORT,
    LACKING,
    PACK,
    Custody,
    Item,
    PresetFacts,
    VolumeFacts,
)
from gapforge.bundle.find_volumes import Scan
from gapforge.bundle.install_repository import ABSENT, INSTALLED, LEFT, SAVED, Installed
from gapforge.bundle.pack import Packed
from gapforge.bundle.receiver_program import RECEIVER, receiver_bytes
from gapforge.bundle.unpack import Unpacked, lock_of
from gapforge.bundle.volume_format import View, volume_name
from gapforge.bundle.volume_plan import index_name
from gapforge.compat import catalog as catalogs
from gapforge.compat.rules import check_preset
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.lock import Entry, Lock
from gapforge.model.preset import Preset
from gapforge.store.store import Store

_LARGEST = 64 << 20  # bytes of a file beside the volumes that is hashed for the page


def of_pack(
    project: Project,
    packed: Packed,
    contents: Contents,
    moment: str,
    *,
    operator: str,
    signer: str = "",
) -> Custody:
    """What was packed."""
    plan = packed.plan
    carried = {span.sha256 for span in plan.spans}

    def state(sha256: str) -> str:
        return CARRIED if sha256 in carried else HELD

    tool = ""
    if plan.tool:
        tool = _("carried by this bundle") if plan.tool in carried else _("the site has it")
    return Custody(
        PACK,
        plan.bundle,
        moment,
        __version__,
        tuple(_preset(project, view, contents.locks.get(view.lock), state) for view in plan.views),
        tuple(
            VolumeFacts(volume_name(plan.bundle, one.number), one.size, one.sha256)
            for one in packed.sealed
        ),
        operator,
        signer,
        plan.repairs,
        tuple(sorted({sha256_file(path) for path in packed.index})),
        (sha256_bytes(receiver_bytes()),),
        plan.tool,
        tool,
    )


def of_import(
    project: Project,
    scan: Scan,
    result: Unpacked,
    folders: Sequence[Path],
    moment: str,
    *,
    operator: str,
    signer: str = "",
    tool: Installed | None = None,
    request: Path | None = None,
) -> Custody:
    """What was imported, and what lacks."""
    store = Store(project.store)

    def state(sha256: str) -> str:
        return CARRIED if sha256 in result.objects else HELD if store.has(sha256) else LACKING

    places = list(
        dict.fromkeys([*(f for f in folders if f.is_dir()), *(v.path.parent for v in scan.volumes)])
    )
    repairs = sorted({volume.identity.bundle for volume in scan.volumes} - {scan.bundle})
    return Custody(
        IMPORT,
        scan.bundle,
        moment,
        __version__,
        tuple(_preset(project, view, _arrived(store, view, result), state) for view in scan.views),
        tuple(_seen(scan, result)),
        operator,
        signer,
        "",
        _beside(places, index_name(scan.bundle)),
        _beside(places, RECEIVER),
        scan.tool,
        _tool(tool) if scan.tool else "",
        result.imported,
        result.imported_bytes,
        result.already,
        (request.name, sha256_file(request)) if request is not None else ("", ""),
        tuple(_lack(name, count) for name, count in result.incomplete.items())
        + tuple(_("mended by bundle {bundle}", bundle=bundle) for bundle in repairs),
    )


def _lack(name: str, count: int) -> str:
    if count < 0:
        return _("{name}: lacks its lock, and more", name=name)
    return ngettext(
        "{name}: lacks {count} object", "{name}: lacks {count} objects", count, name=name
    )


def _tool(tool: Installed | None) -> str:
    if tool is None:
        return _("could not be installed")
    if tool.state == INSTALLED:
        return _("installed") if tool.changed else _("was installed already")
    if tool.state == SAVED:
        return _("saved as a file")
    assert tool.state == LEFT
    return _("not here") if tool.why == ABSENT else _("not installed")


def _seen(scan: Scan, result: Unpacked) -> Iterable[VolumeFacts]:
    """Volumes that were read, copies of one only once; then those that could not be, and those that nobody brought."""
    listed: dict[tuple[str, int, str], VolumeFacts] = {}
    for volume in scan.volumes:
        key = (volume.identity.bundle, volume.identity.number, volume.index_sha256)
        fact = VolumeFacts(
            volume.identity.file,
            volume.size,
            volume.index_sha256,
            result.broken.get(volume.path, ""),
        )
        if key not in listed or not fact.trouble:
            listed[key] = fact
    yield from listed.values()
    for path in sorted(scan.broken):
        yield VolumeFacts(path.name, trouble=result.broken.get(path, scan.broken[path]))
    for number in result.missing_volumes:
        yield VolumeFacts(volume_name(scan.bundle, number), trouble=_("no whole copy was seen"))


def _arrived(store: Store, view: View, result: Unpacked) -> Lock | None:
    """The lock that unpack has verified and read in this run."""
    if view.preset not in result.presets and result.incomplete.get(view.preset, -1) < 0:
        return None
    try:
        return locks.load(store.path(view.lock), shown=lock_of(view.preset))
    except GapforgeError:
        return None


def _beside(folders: Iterable[Path], name: str) -> tuple[str, ...]:
    """The hashes of the files of this name in the folders: one, unless copies differ."""
    found = set()
    for folder in folders:
        path = folder / name
        try:
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _LARGEST:
                found.add(sha256_file(path))
        except OSError:
            continue
    return tuple(sorted(found))


def _preset(
    project: Project, view: View, lock: Lock | None, state: Callable[[str], str]
) -> PresetFacts:
    preset = _known(project, lock)
    items = (
        tuple(_item(entry, lock, preset, state) for entry in lock.entries)
        if lock is not None
        else None
    )
    return PresetFacts(
        view.preset,
        view.lock,
        items,
        preset.practice if preset else None,
        _redistributable(project, preset) if preset else None,
    )


def _known(project: Project, lock: Lock | None) -> Preset | None:
    """The preset that the lock was made for, if it is here."""
    if lock is None:
        return None
    try:
        preset = presets.load(project.preset_file(lock.preset))
    except (GapforgeError, OSError):
        return None
    return preset if preset.sha256 == lock.preset_sha256 else None


def _redistributable(project: Project, preset: Preset) -> bool | None:
    try:
        return not any(
            problem.rule == "nonfree"
            for problem in check_preset(preset, catalogs.load(project.catalog))
        )
    except (GapforgeError, OSError):
        return None


def _item(entry: Entry, lock: Lock, preset: Preset | None, state: Callable[[str], str]) -> Item:
    source = (
        preset.sources.get(entry.name) if preset and entry.kind in ("source", "tensorrt") else None
    )
    name, origin = entry.name or entry.file, entry.origin
    if entry.kind == "image":
        name = (
            f"{entry.name or 'image'}: {'blob' if SHA256_HEX.fullmatch(entry.file) else entry.file}"
        )
        image = next((lock.images[role] for role in entry.roles if role in lock.images), None)
        origin = image.reference if image else entry.origin
    elif entry.origin == "url" and entry.urls:
        origin = without_credentials(entry.urls[0])
    return Item(
        entry.kind,
        name,
        entry.version,
        entry.licence or (source.licence if source else ""),
        entry.size,
        entry.sha256,
        origin,
        state(entry.sha256),
        bool(entry.trust),
        bool(source and source.gated),
    )
