"""Describe the bundle that is rehearsed, and find the command that repairs it."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base import limits
from gapforge.base.compression import damage_as
from gapforge.base.errors import BundleError, Fault, LockError
from gapforge.base.files import read_regular, sha256_bytes, sha256_file
from gapforge.base.i18n import _, ngettext
from gapforge.base.process import quoted
from gapforge.base.project import Project
from gapforge.bundle.bundle_index import index_name, read_index
from gapforge.bundle.check_signatures import SignatureCheck
from gapforge.bundle.contents import Contents
from gapforge.bundle.find_volumes import Scan, scan_media
from gapforge.bundle.receiver_program import RECEIVER, receiver_bytes
from gapforge.bundle.repair_request import read_request
from gapforge.bundle.volume_format import BundledPreset, Damaged, Part
from gapforge.bundle.volume_reader import find_files, read_volume
from gapforge.model import lock as locks
from gapforge.model.lock import LOCK_FILE
from gapforge.store.inventory import Inventory
from gapforge.trust import ssh_signatures

DEFAULT_VOLUME = 4_000_000_000  # bytes; the default of pack --volume-size


@dataclass(frozen=True)
class Receiver:
    """An undamaged receiver program. Its bytes are kept, because the medium may change."""

    path: Path
    program: bytes

    @property
    def sha256(self) -> str:
        return sha256_bytes(self.program)

    @property
    def of_this_gapforge(self) -> bool:
        return self.program == receiver_bytes()


@dataclass(frozen=True, kw_only=True)
class RehearsedBundle:
    """A bundle in ``folders``.

    ``objects`` are the SHA-256 of the objects in its volumes, ``tool`` that of gapforge itself or
    "". ``signatures`` are the signature files beside the volumes. ``description`` is the bundle's
    part of the record. ``pack_command`` repairs the bundle in place. ``warnings`` are about faults
    that do not prevent a build at the site.
    """

    folders: tuple[Path, ...]
    views: tuple[BundledPreset, ...]
    objects: frozenset[str]
    tool: str
    receiver: Receiver | None
    signatures: tuple[Path, ...]
    description: dict[str, Any]
    pack_command: str
    warnings: tuple[str, ...]

    @property
    def contains_gapforge(self) -> bool:
        """Return whether these folders contain gapforge: the repository, and a receiver."""
        return self.tool in self.objects and self.receiver is not None

    @property
    def presets(self) -> list[str]:
        """Return the names of the bundle's presets."""
        return [view.preset for view in self.views]


def examine_bundle(
    project: Project, folders: Sequence[Path], preset: str, inventory: Path | None
) -> RehearsedBundle:
    """Examine the folders as unpack does. Raise BundleError without a bundle of ``preset``.

    ``inventory`` lists what the bundle leaves to the site.
    """
    try:
        scan = scan_media(folders, SignatureCheck.without_signers(project))
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
    names = [view.preset for view in scan.presets]
    if preset not in names:
        raise BundleError(
            _(
                "bundle {bundle} does not contain {preset}; it contains {presets}",
                bundle=scan.bundle,
                preset=preset,
                presets=", ".join(names) or _("no known preset"),
            ),
            hint=_("./gapforge pack {preset!q} --to DIR; or specify another folder", preset=preset),
        )
    searched = [folder for folder in folders if folder.is_dir()]
    receiver, damaged = _find_receiver(searched)
    warnings = [_("{file}: damaged", file=path) for path in damaged]
    if receiver is None:
        warnings.append(
            _(
                "no undamaged {receiver} is with the volumes: the site needs a gapforge of its own",
                receiver=RECEIVER,
            )
        )
    elif not receiver.of_this_gapforge:
        warnings.append(
            _(
                "{receiver} is not of this gapforge: another version packed it, or it was changed",
                receiver=receiver.path,
            )
        )
    return RehearsedBundle(
        folders=tuple(folders),
        views=scan.presets,
        objects=frozenset(_objects(scan)),
        tool=scan.tool,
        receiver=receiver,
        signatures=tuple(find_files(searched, ssh_signatures.SUFFIX)),
        description=_describe(scan, _find_index(scan.bundle, searched), receiver),
        pack_command=_pack_command(scan, folders, inventory),
        warnings=tuple(warnings),
    )


def _describe(scan: Scan, index: Path | None, receiver: Receiver | None) -> dict[str, Any]:
    """Return the bundle's part of the record: its files, and what is missing or broken."""
    own = [v for v in scan.volumes if v.identity.original_bundle == scan.bundle]
    # Of several copies, the first.
    listed = {(v.identity.bundle, v.identity.number): v for v in reversed(own)}
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
            "sha256": receiver.sha256,
            "of_this_gapforge": receiver.of_this_gapforge,
        }
        if receiver is not None
        else None,
    }


def _find_index(bundle: str, folders: Sequence[Path]) -> Path | None:
    """Return the first undamaged copy of the bundle's index file."""
    for path in find_files(folders, ".json"):
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


def _find_receiver(folders: Sequence[Path]) -> tuple[Receiver | None, list[Path]]:
    """Return the first undamaged receiver program, and the damaged ones."""
    undamaged: list[Receiver] = []
    damaged: list[Path] = []
    for path in find_files(folders, RECEIVER):
        if path.name != RECEIVER:
            continue
        try:
            receiver = Receiver(path, read_regular(path, limits.STATE))
            with (
                damage_as(lambda cause: ValueError(str(cause))),
                zipfile.ZipFile(io.BytesIO(receiver.program)) as archive,
            ):
                good = archive.testzip() is None and "__main__.py" in archive.namelist()
        except (OSError, ValueError):
            good = False
        if good:
            undamaged.append(receiver)
        else:
            damaged.append(path)
    return next(iter(undamaged), None), damaged


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

    Raise BundleError with the objects that the bundle's presets need and leave to the site, and
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
        for file in (project.lock_file(view.preset), project.artifacts_of(view.preset) / LOCK_FILE):
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
    sizes = {span.sha256: span.size for span in spans}
    missing: Counter[str] = Counter()
    for span in spans:
        missing[span.sha256] += span.length
    return sorted(
        Fault(
            contents.name(sha256),
            _("missing")
            if missing[sha256] == size
            else _("{count} of {size} bytes missing", count=missing[sha256], size=size),
        )
        for sha256, size in sizes.items()
    )


def _pack_command(scan: Scan, folders: Sequence[Path], inventory: Path | None) -> str:
    """Return the command that repairs the bundle in place: pack keeps good volumes."""
    words = ["./gapforge", "pack", *(view.preset for view in scan.presets)]
    if scan.tool:
        words.append("--with-tool")
    if inventory is not None:
        words += ["--for", str(inventory)]
    sizes = (v.identity.volume_size for v in scan.volumes if v.identity.bundle == scan.bundle)
    if (size := next(sizes, DEFAULT_VOLUME)) not in (0, DEFAULT_VOLUME):
        words += ["--volume-size", str(size)]
    return quoted([*words, "--to", *map(str, _volume_folders(scan, folders))])
