"""Describe the bundle that is rehearsed, and find the command that repairs it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapforge.base import limits
from gapforge.base.compressed import damage_as
from gapforge.base.errors import BundleError, Fault, LockError
from gapforge.base.files import open_buffered, read_regular, sha256_bytes, sha256_file
from gapforge.base.i18n import _, ngettext
from gapforge.base.process import quoted
from gapforge.base.project import Project
from gapforge.bundle.bundle_index import index_name, read_index
from gapforge.bundle.contents import Contents
from gapforge.bundle.find_volumes import Scan, scan_media
from gapforge.bundle.receiver_program import RECEIVER, receiver_bytes
from gapforge.bundle.repair_request import read_request
from gapforge.bundle.volume_format import BundledPreset, Damaged, Part
from gapforge.bundle.volume_reader import find_files, read_volume
from gapforge.model import lock as locks
from gapforge.store.inventory import Inventory

DEFAULT_VOLUME = 4_000_000_000  # bytes; the default of pack --volume-size


@dataclass(kw_only=True)
class RehearsedBundle:
    """A bundle in ``folders``.

    ``volume_folders`` are the folders, the same or below them, that hold its volumes. ``objects``
    are the SHA-256 of the objects in its volumes, ``tool`` that of gapforge itself or "".
    ``receiver`` is an undamaged receiver program, None without one. ``description`` is the bundle's
    part of the record. ``warnings`` are about faults that do not prevent a build at the site.
    """

    folders: tuple[Path, ...]
    volume_folders: tuple[Path, ...]
    views: tuple[BundledPreset, ...]
    objects: frozenset[str]
    volume_size: int
    tool: str
    receiver: Path | None
    description: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    @property
    def contains_gapforge(self) -> bool:
        """Return whether these folders contain gapforge: the repository, and a receiver."""
        return self.tool in self.objects and self.receiver is not None

    @property
    def presets(self) -> list[str]:
        """Return the names of the bundle's presets."""
        return [view.preset for view in self.views]


def examine_bundle(folders: Sequence[Path], preset: str) -> RehearsedBundle:
    """Examine the folders as unpack does. Raises BundleError without a bundle of ``preset``."""
    try:
        scan = scan_media(folders)
    except BundleError as error:
        raise BundleError(
            error.message,
            faults=error.faults,
            hint=_(
                "specify the folders of one bundle: ./gapforge rehearse {preset!q} --bundle DIR; "
                "or pack one: ./gapforge pack {preset!q} --to DIR",
                preset=preset,
            ),
        ) from None
    receiver, damaged = _find_receiver(folders)
    volume_size = next(
        (v.identity.volume_size for v in scan.volumes if v.identity.bundle == scan.bundle), 0
    )
    bundle = RehearsedBundle(
        folders=tuple(folders),
        volume_folders=_volume_folders(scan, folders),
        views=scan.presets,
        objects=frozenset(_objects(scan)),
        volume_size=volume_size,
        tool=scan.tool,
        receiver=receiver,
        description=describe_bundle(scan, folders, receiver),
    )
    if preset not in bundle.presets:
        raise BundleError(
            _(
                "bundle {bundle} does not contain {preset}; it contains {presets}",
                bundle=scan.bundle,
                preset=preset,
                presets=", ".join(bundle.presets) or _("no known preset"),
            ),
            hint=_("./gapforge pack {preset!q} --to DIR; or specify another folder", preset=preset),
        )
    bundle.warnings += [_("{file}: damaged", file=path) for path in damaged]
    if receiver is None:
        bundle.warnings.append(
            _(
                "no undamaged {receiver} is with the volumes: the site needs a gapforge of its own",
                receiver=RECEIVER,
            )
        )
    elif not bundle.description["receiver"]["of_this_gapforge"]:
        bundle.warnings.append(
            _(
                "{receiver} is not of this gapforge: another version packed it, or it was changed",
                receiver=receiver,
            )
        )
    return bundle


def describe_bundle(scan: Scan, folders: Sequence[Path], receiver: Path | None) -> dict[str, Any]:
    """Return the bundle's part of the record: its files, and what is missing or broken."""
    own = [v for v in scan.volumes if v.identity.original_bundle == scan.bundle]
    # Of several copies, the first.
    listed = {(v.identity.bundle, v.identity.number): v for v in reversed(own)}
    index = _find_index(scan.bundle, folders)
    program = read_regular(receiver, limits.STATE) if receiver is not None else b""
    return {
        "id": scan.bundle,
        "presets": {
            view.preset: {"lock_sha256": view.lock, "sha256sums_sha256": view.sums}
            for view in scan.presets
        },
        "index": {"file": index.name, "sha256": sha256_file(index)} if index is not None else None,
        "made": scan.index.made if scan.index is not None else "",
        "tool_sha256": scan.tool,
        "volumes": [
            {
                "number": v.identity.number,
                "of": v.identity.volumes,
                "file": v.path.name,
                "size": v.size,
                "index_sha256": v.index_sha256,
                "repairs": v.identity.repairs,
            }
            for _unused, v in sorted(
                listed.items(), key=lambda item: (bool(item[1].identity.repairs), item[0])
            )
        ],
        "missing": scan.missing(),
        "broken": {path.name: why for path, why in sorted(scan.broken.items())},
        "receiver": {
            "file": RECEIVER,
            "sha256": sha256_bytes(program),
            "of_this_gapforge": program == receiver_bytes(),
        }
        if receiver is not None
        else None,
    }


def _find_index(bundle: str, folders: Sequence[Path]) -> Path | None:
    """Return the first undamaged copy of the bundle's index file."""
    for path in find_files([f for f in folders if f.is_dir()], ".json"):
        if path.name == index_name(bundle):
            try:
                read_index(path)
            except (Damaged, OSError):
                continue
            return path
    return None


def _volume_folders(scan: Scan, folders: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders of the volumes. pack does not search below those that it is given."""
    files = [*(volume.path for volume in scan.volumes), *scan.broken]
    found: list[Path] = []
    for folder in folders:
        found += [f.parent for f in files if folder in (f, *f.parents)] or [folder]
    return tuple(dict.fromkeys(found))


def _find_receiver(folders: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """Return the first undamaged receiver program, and the damaged ones."""
    undamaged, damaged = None, []
    for path in find_files([f for f in folders if f.is_dir()], RECEIVER):
        if path.name != RECEIVER:
            continue
        try:
            with (
                open_buffered(path) as file,
                damage_as(lambda cause: ValueError(str(cause))),
                zipfile.ZipFile(file) as archive,
            ):
                good = archive.testzip() is None and "__main__.py" in archive.namelist()
        except (OSError, ValueError):
            good = False
        if not good:
            damaged.append(path)
        elif undamaged is None:
            undamaged = path
    return undamaged, damaged


def _objects(scan: Scan) -> Iterator[str]:
    """Yield the SHA-256 of the objects of which the volumes contain at least a part."""
    for volume in scan.volumes:
        try:
            yield from (piece.part.sha256 for piece in read_volume(volume.path)[1])
        except (Damaged, OSError):
            continue  # unpack reports it


def objects_at_site(
    project: Project, bundle: RehearsedBundle, inventory: Inventory
) -> list[tuple[str, Path | bytes]]:
    """Return the objects of a site's inventory that are on this machine, for unpack to use.

    Raises BundleError with the objects that the bundle's presets need and leave to the site, and
    that this machine lacks.
    """
    contents, needed = _read_contents(project, bundle)
    found: list[tuple[str, Path | bytes]] = []
    missing = []
    for sha256, size in inventory:
        path = contents.path(Part(sha256, size, 0, size))
        if path is not None:
            found.append((sha256, path))
        elif sha256 in contents.texts:
            found.append((sha256, contents.texts[sha256]))
        elif sha256 in needed and sha256 not in bundle.objects:
            missing.append(
                Fault(
                    contents.name(sha256),
                    _("in the site's inventory, not in the bundle, and not on this machine"),
                    _("{size} bytes, sha256 {sha256}", size=size, sha256=sha256),
                )
            )
    if missing:
        raise BundleError(
            ngettext(
                "{count} object of the site is not on this machine, so it cannot be simulated",
                "{count} objects of the site are not on this machine, so it cannot be simulated",
                len(missing),
            ),
            faults=missing,
            hint=_(
                "online: ./deps_sync.sh {presets}; or rehearse a bundle with all objects: "
                "./gapforge pack {presets} --to DIR",
                presets=" ".join(bundle.presets),
            ),
        )
    return found


def _read_contents(project: Project, bundle: RehearsedBundle) -> tuple[Contents, set[str]]:
    """Return where objects are on this machine, and which the bundle's presets need.

    Only locks with the checksums that the bundle states are used.
    """
    contents, needed = Contents(project=project), set()
    if bundle.tool:
        contents.add_kept_repository(bundle.tool)
    for view in bundle.views:
        for file in (
            project.lock_file(view.preset),
            project.artifacts_of(view.preset) / "lock.json",
        ):
            try:
                text = read_regular(file, limits.LOCK, follow=True)
                if sha256_bytes(text) == view.lock:
                    lock = locks.load(file)
                    known = contents.add_lock(lock, text)
                    needed |= {known.lock, known.sums, *(entry.sha256 for entry in lock.entries)}
                    break
            except (LockError, OSError):
                continue
    return contents, needed


def missing_objects(project: Project, site: Project, bundle: RehearsedBundle) -> list[Fault]:
    """Return the objects in the repair request that unpack wrote at the site, by their names."""
    requests = sorted(site.artifacts.glob("repair-*.json"))
    try:
        spans = read_request(requests[0]).parts if requests else ()
    except BundleError:
        return []
    contents, _needed = _read_contents(project, bundle)
    missing: dict[str, int] = {}
    sizes = {span.sha256: span.size for span in spans}
    for span in spans:
        missing[span.sha256] = missing.get(span.sha256, 0) + span.length
    return sorted(
        Fault(contents.name(sha256), _describe_missing(missing[sha256], size))
        for sha256, size in sizes.items()
    )


def _describe_missing(count: int, size: int) -> str:
    if count == size:
        return _("missing")
    return _("{count} of {size} bytes missing", count=count, size=size)


def pack_command(bundle: RehearsedBundle, inventory: Path | None) -> str:
    """Return the command that repairs the bundle in place: pack keeps good volumes."""
    words = ["./gapforge", "pack", *bundle.presets]
    if bundle.tool:
        words.append("--with-tool")
    if inventory is not None:
        words += ["--for", str(inventory)]
    if bundle.volume_size not in (0, DEFAULT_VOLUME):
        words += ["--volume-size", str(bundle.volume_size)]
    return quoted([*words, "--to", *map(str, bundle.volume_folders)])
