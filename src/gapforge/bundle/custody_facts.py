"""Collect the facts of a custody page from locks, presets, and the result of pack or unpack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gapforge import __version__
from gapforge.base.addresses import without_credentials
from gapforge.base.errors import GapforgeError
from gapforge.base.files import SHA256_HEX, sha256_bytes, sha256_file
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.bundle.bundle_index import index_name
from gapforge.bundle.contents import Contents
from gapforge.bundle.custody_page import (
    IMPORT,
    MISSING,
    PACK,
    PRESENT,
    TRANSFERRED,
    Custody,
    Item,
    PresetFacts,
    VolumeFacts,
)
from gapforge.bundle.find_volumes import Scan
from gapforge.bundle.install_repository import ABSENT, INSTALLED, LEFT, SAVED, Installed
from gapforge.bundle.pack import Packed
from gapforge.bundle.receiver_program import RECEIVER, receiver_bytes
from gapforge.bundle.unpack import ImportResult, lock_label, missing_objects
from gapforge.bundle.volume_format import BundledPreset, volume_name
from gapforge.compat.redistribution import judge, redistributable
from gapforge.model import catalog as catalogs
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.lock import Entry, Lock
from gapforge.model.preset import Preset
from gapforge.store.store import Store

_MAX_COMPANION = 64 << 20  # bytes of a file beside the volumes that is hashed for the page


@dataclass(frozen=True)
class Handover:
    """When (UTC) and by whom a bundle was packed or imported, and who signed it."""

    moment: str
    operator: str
    signer: str = ""


def pack_facts(project: Project, packed: Packed, contents: Contents, handover: Handover) -> Custody:
    """Return the facts about a bundle that was packed."""
    plan = packed.plan
    carried = {part.sha256 for part in plan.parts}
    tool_state = ""
    if plan.tool:
        in_bundle = plan.tool in carried
        tool_state = _("in this bundle") if in_bundle else _("the site has it already")

    def state(sha256: str) -> str:
        return TRANSFERRED if sha256 in carried else PRESENT

    return Custody(
        action=PACK,
        bundle=plan.bundle,
        moment=handover.moment,
        version=__version__,
        presets=tuple(
            _preset_facts(project, bundled, contents.locks.get(bundled.lock), state)
            for bundled in plan.presets
        ),
        volumes=tuple(
            VolumeFacts(volume_name(plan.bundle, entry.number), entry.size, entry.sha256)
            for entry in packed.volumes
        ),
        operator=handover.operator,
        signer=handover.signer,
        repairs=plan.repairs,
        indexes=tuple(sorted({sha256_file(path) for path in packed.index})),
        receivers=(sha256_bytes(receiver_bytes()),),
        tool=plan.tool,
        tool_state=tool_state,
    )


def import_facts(
    project: Project,
    scan: Scan,
    result: ImportResult,
    folders: Sequence[Path],
    handover: Handover,
    *,
    repository: Installed | None = None,
    request: Path | None = None,
) -> Custody:
    """Return the facts about an import: what was imported, and what is missing."""
    store = Store(project.store)

    def state(sha256: str) -> str:
        return (
            TRANSFERRED if sha256 in result.objects else PRESENT if store.has(sha256) else MISSING
        )

    media = dict.fromkeys(folder for folder in folders if folder.is_dir())
    media.update(dict.fromkeys(volume.path.parent for volume in scan.volumes))
    repairs = {volume.identity.bundle for volume in scan.volumes} - {scan.bundle}
    return Custody(
        action=IMPORT,
        bundle=scan.bundle,
        moment=handover.moment,
        version=__version__,
        presets=tuple(
            _preset_facts(project, bundled, _imported_lock(store, bundled, result), state)
            for bundled in scan.presets
        ),
        volumes=tuple(_volume_facts(scan, result)),
        operator=handover.operator,
        signer=handover.signer,
        indexes=_checksums(media, index_name(scan.bundle)),
        receivers=_checksums(media, RECEIVER),
        tool=scan.tool,
        tool_state=_repository_state(repository) if scan.tool else "",
        imported=result.imported,
        imported_bytes=result.imported_bytes,
        already=result.already,
        request=request.name if request is not None else "",
        request_sha256=sha256_file(request) if request is not None else "",
        notes=(
            *(f"{name}: {missing_objects(count)}" for name, count in result.incomplete.items()),
            *(_("repaired by bundle {bundle}", bundle=bundle) for bundle in sorted(repairs)),
        ),
    )


def _repository_state(repository: Installed | None) -> str:
    if repository is None:
        return _("could not be installed")
    if repository.state == INSTALLED:
        return _("installed") if repository.changed else _("was installed already")
    if repository.state == SAVED:
        return _("saved as a file")
    assert repository.state == LEFT
    return _("missing") if repository.why == ABSENT else _("not installed")


def _volume_facts(scan: Scan, result: ImportResult) -> Iterable[VolumeFacts]:
    """Yield readable volumes (equal copies once), unreadable ones, and missing ones."""
    seen: dict[tuple[str, int, str], VolumeFacts] = {}
    for volume in scan.volumes:
        key = (volume.identity.bundle, volume.identity.number, volume.index_sha256)
        trouble = result.broken.get(volume.path, "")
        if key not in seen or not trouble:
            file = volume.identity.file
            seen[key] = VolumeFacts(file, volume.size, volume.index_sha256, trouble)
    yield from seen.values()
    for path in sorted(scan.broken):
        yield VolumeFacts(path.name, trouble=result.broken.get(path, scan.broken[path]))
    for number in result.missing_volumes:
        name = volume_name(scan.bundle, number)
        yield VolumeFacts(name, trouble=_("no intact copy was seen"))


def _imported_lock(store: Store, bundled: BundledPreset, result: ImportResult) -> Lock | None:
    """Return the lock that unpack has verified and read in this run."""
    preset = bundled.preset
    if preset not in result.presets and result.incomplete.get(preset, -1) < 0:
        return None
    try:
        return locks.load(store.path(bundled.lock), shown=lock_label(preset))
    except GapforgeError:
        return None


def _checksums(folders: Iterable[Path], name: str) -> tuple[str, ...]:
    """Return the SHA-256 of the files of this name: one, unless copies differ."""
    found = set()
    for folder in folders:
        path = folder / name
        try:
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MAX_COMPANION:
                found.add(sha256_file(path))
        except OSError:
            continue
    return tuple(sorted(found))


def _preset_facts(
    project: Project, bundled: BundledPreset, lock: Lock | None, state: Callable[[str], str]
) -> PresetFacts:
    preset = _preset(project, lock)
    items = None
    if lock is not None:
        items = tuple(_item(entry, lock, preset, state(entry.sha256)) for entry in lock.entries)
    return PresetFacts(
        name=bundled.preset,
        lock=bundled.lock,
        items=items,
        practice=preset.practice if preset else None,
        redistributable=_redistributable(project, preset, lock) if preset else None,
    )


def _preset(project: Project, lock: Lock | None) -> Preset | None:
    """Return the preset of a lock if it is on this machine in the same state."""
    if lock is None:
        return None
    try:
        preset = presets.load(project.preset_file(lock.preset))
    except (GapforgeError, OSError):
        return None
    return preset if preset.sha256 == lock.preset_sha256 else None


def _redistributable(project: Project, preset: Preset, lock: Lock | None) -> bool | None:
    try:
        catalog = catalogs.load(project.catalog)
    except (GapforgeError, OSError):
        return None
    return redistributable(judge(preset, lock, catalog))


def _item(entry: Entry, lock: Lock, preset: Preset | None, state: str) -> Item:
    source = None
    if preset and entry.kind in ("source", "tensorrt"):
        source = preset.sources.get(entry.name)
    name, origin = entry.name or entry.file, entry.origin
    if entry.kind == "image":
        file = "blob" if SHA256_HEX.fullmatch(entry.file) else entry.file
        name = f"{entry.name or 'image'}: {file}"
        image = next((lock.images[role] for role in entry.roles if role in lock.images), None)
        origin = image.reference if image else entry.origin
    elif entry.origin == "url" and entry.urls:
        origin = without_credentials(entry.urls[0])
    return Item(
        kind=entry.kind,
        name=name,
        version=entry.version,
        licence=entry.licence or (source.licence if source else ""),
        size=entry.size,
        sha256=entry.sha256,
        origin=origin,
        state=state,
        first_use=bool(entry.trust),
        gated=bool(source and source.gated),
    )
