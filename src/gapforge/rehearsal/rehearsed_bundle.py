"""The bundle that is rehearsed: what lies in its folders, described for the record, and how to make good what lacks."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapforge.base.errors import BundleError, Fault, LockError
from gapforge.base.files import sha256_bytes, sha256_file
from gapforge.base.i18n import _
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

DEFAULT_VOLUME = 4_000_000_000  # bytes; what pack takes without --volume-size


@dataclass
class Carried:
    """A bundle in ``folders``; ``homes`` are those of them, or below them, where its volumes lie. ``described`` is its part
    of the record; ``receiver`` a whole copy of gapforge that came with it, None without one; ``warnings`` tell what is
    not in order though a site could do without."""

    folders: tuple[Path, ...]
    homes: tuple[Path, ...]
    views: tuple[BundledPreset, ...]
    spans: frozenset[str]
    volume_size: int
    tool: str  # the object that is gapforge itself, "" without one
    receiver: Path | None
    described: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    @property
    def brings_gapforge(self) -> bool:
        """Whether a site that has nothing gets gapforge from these folders: its repository, and a program to unpack it."""
        return self.tool in self.spans and self.receiver is not None

    @property
    def presets(self) -> list[str]:
        return [view.preset for view in self.views]


def examine(folders: Sequence[Path], preset: str) -> Carried:
    """Look the folders over, as unpack does. Raises BundleError when there is no bundle that carries ``preset``."""
    try:
        scan = scan_media(folders)
    except BundleError as error:
        raise BundleError(
            error.message,
            faults=error.faults,
            hint=_(
                "name the folders of one bundle: ./gapforge rehearse {preset} --bundle "
                "DIR; or make one: ./gapforge pack {preset} --to DIR",
                preset=preset,
            ),
        ) from None
    receiver, bad = _receiver(folders)
    volume_size = next(
        (v.identity.volume_size for v in scan.volumes if v.identity.bundle == scan.bundle), 0
    )
    carried = Carried(
        tuple(folders),
        _homes(scan, folders),
        scan.presets,
        frozenset(_spans(scan)),
        volume_size,
        scan.tool,
        receiver,
        describe(scan, folders, receiver),
    )
    if preset not in carried.presets:
        names = ", ".join(carried.presets) or _("nothing known")
        raise BundleError(
            _(
                "bundle {bundle} does not carry {preset}; it carries {names}",
                bundle=scan.bundle,
                preset=preset,
                names=names,
            ),
            hint=_("./gapforge pack {preset} --to DIR; or name another folder", preset=preset),
        )
    carried.warnings += [_("{path} is damaged", path=path) for path in bad]
    if receiver is None:
        carried.warnings.append(
            _(
                "there is no whole {receiver} with the volumes: the site needs a "
                "gapforge of its own",
                receiver=RECEIVER,
            )
        )
    elif not carried.described["receiver"]["of_this_gapforge"]:
        carried.warnings.append(
            _(
                "{receiver} is not what this gapforge writes: another version packed it, "
                "or it was changed",
                receiver=receiver,
            )
        )
    return carried


def describe(scan: Scan, folders: Sequence[Path], receiver: Path | None) -> dict[str, Any]:
    """A bundle in the record: what identifies each file of it, and what is missing or broken."""
    own = [v for v in scan.volumes if v.identity.original_bundle == scan.bundle]
    listed = {
        (v.identity.bundle, v.identity.number): v for v in reversed(own)
    }  # the first of several copies
    index = _index(scan.bundle, folders)
    program = receiver.read_bytes() if receiver is not None else b""
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


def _index(bundle: str, folders: Sequence[Path]) -> Path | None:
    """The first whole copy of the bundle's index file."""
    for path in find_files([f for f in folders if f.is_dir()], ".json"):
        if path.name == index_name(bundle):
            try:
                read_index(path)
            except (Damaged, OSError):
                continue
            return path
    return None


def _homes(scan: Scan, folders: Sequence[Path]) -> tuple[Path, ...]:
    """Where pack must write to mend the bundle, for it looks no deeper than the folders that it is given."""
    files = [*(volume.path for volume in scan.volumes), *scan.broken]
    homes: list[Path] = []
    for folder in folders:
        homes += [f.parent for f in files if folder in (f, *f.parents)] or [folder]
    return tuple(dict.fromkeys(homes))


def _receiver(folders: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """(the first whole receiver, the damaged ones)."""
    whole, bad = None, []
    for path in find_files([f for f in folders if f.is_dir()], RECEIVER):
        if path.name != RECEIVER:
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                good = archive.testzip() is None and "__main__.py" in archive.namelist()
        except (
            OSError,
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            EOFError,
            ValueError,
        ):
            good = False
        if not good:
            bad.append(path)
        elif whole is None:
            whole = path
    return whole, bad


def _spans(scan: Scan) -> Iterator[str]:
    """The objects of which the volumes that are here hold something."""
    for volume in scan.volumes:
        try:
            yield from (piece.part.sha256 for piece in read_volume(volume.path)[1])
        except (Damaged, OSError):
            continue  # unpack says it


def at_the_site(
    project: Project, carried: Carried, inventory: Inventory
) -> list[tuple[str, Path | bytes]]:
    """The objects that a site with this inventory has, from here: of its store what is here, for unpack to use.

    Raises BundleError naming what the bundle's presets need, the site has, and nobody here can stand in for.
    """
    contents, needed = _known(project, carried)
    found: list[tuple[str, Path | bytes]] = []
    lacking = []
    for sha256, size in inventory:
        path = contents.path(Part(sha256, size, 0, size))
        if path is not None:
            found.append((sha256, path))
        elif sha256 in contents.texts:
            found.append((sha256, contents.texts[sha256]))
        elif sha256 in needed and sha256 not in carried.spans:
            lacking.append(
                Fault(
                    contents.name(sha256),
                    _("the site has it, the bundle leaves it out, and it is not here"),
                    _("{size} bytes, sha256 {sha256}", size=size, sha256=sha256),
                )
            )
    if lacking:
        names = " ".join(carried.presets)
        raise BundleError(
            _(
                "{count} objects that the site has are not here, so its part cannot be played",
                count=len(lacking),
            ),
            faults=lacking,
            hint=_(
                "online: ./deps_sync.sh {names}; or rehearse the whole: ./gapforge pack "
                "{names} --to DIR",
                names=names,
            ),
        )
    return found


def _known(project: Project, carried: Carried) -> tuple[Contents, set[str]]:
    """(where things are here, what the bundle's presets need), by the very locks that the bundle carries."""
    contents, needed = Contents(project), set()
    if carried.tool:
        contents.add_kept_repository(carried.tool)
    for view in carried.views:
        for file in (
            project.lock_file(view.preset),
            project.artifacts_of(view.preset) / "lock.json",
        ):
            try:
                text = file.read_bytes()
                if sha256_bytes(text) == view.lock:
                    lock = locks.load(file)
                    known = contents.add_lock(lock, text)
                    needed |= {known.lock, known.sums, *(entry.sha256 for entry in lock.entries)}
                    break
            except (LockError, OSError):
                continue
    return contents, needed


def what_lacks(project: Project, place: Project, carried: Carried) -> list[Fault]:
    """The objects that an unpack in the place asked for in vain, by the names that people know."""
    requests = sorted(place.artifacts.glob("repair-*.json"))
    try:
        spans = read_request(requests[0]).parts if requests else ()
    except BundleError:
        return []
    contents, _unused = _known(project, carried)
    lacks: dict[str, int] = {}
    sizes = {span.sha256: span.size for span in spans}
    for span in spans:
        lacks[span.sha256] = lacks.get(span.sha256, 0) + span.length
    return sorted(
        Fault(contents.name(sha256), _lack(lacks[sha256], size)) for sha256, size in sizes.items()
    )


def _lack(lacking: int, size: int) -> str:
    if lacking == size:
        return _("did not come")
    return _("{lacking} of its {size} bytes did not come", lacking=lacking, size=size)


def pack_again(carried: Carried, inventory: Path | None) -> str:
    """The command that makes good the bundle where it lies: pack keeps what is whole and writes the rest."""
    words = ["./gapforge", "pack", *carried.presets]
    if carried.tool:
        words.append("--with-tool")
    if inventory is not None:
        words += ["--for", str(inventory)]
    if carried.volume_size not in (0, DEFAULT_VOLUME):
        words += ["--volume-size", str(carried.volume_size)]
    return quoted([*words, "--to", *map(str, carried.homes)])
