"""Make projects that pack and sites that unpack, and carry small bundles between them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from fabricated_artifacts import fabricate, write_lock
from gapforge.base.files import sha256_bytes, sha256_file
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.bundle.check_signatures import SignatureCheck
from gapforge.bundle.contents import inventory_objects, preset_contents, request_contents
from gapforge.bundle.find_volumes import Scan, scan_media
from gapforge.bundle.pack import Packed, pack
from gapforge.bundle.repair_request import RepairRequest, requested_parts
from gapforge.bundle.unpack import ImportResult, unpack
from gapforge.bundle.volume_plan import make_plan
from gapforge.model import lock as locks
from gapforge.model import preset as documents
from gapforge.model.lock import Entry, Lock
from samples import PRESET, ROOT

RUN_ENV = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT / "src"),
    "GAPFORGE_LANG": "en",
    "LC_ALL": "C.UTF-8",
    "XDG_CONFIG_HOME": "/nonexistent/config",
}


class Sender:
    """A project with artifacts that can be packed."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def lock(self, name: str = PRESET) -> Lock:
        return locks.load(self.project.lock_file(name))

    def entry(self, path: str) -> Entry:
        return next(e for e in self.lock().entries if e.path == path)

    @property
    def objects(self) -> set[str]:
        """The objects in the store of a site after the import."""
        contents = preset_contents(self.project, [documents.find(self.project.presets, PRESET)])
        return {span.sha256 for span in contents.parts}

    def change(self, files: Mapping[str, bytes], *, only: bool = False) -> None:
        """Add files to the artifacts and the lock; with ``only``, replace all others."""
        lock = self.lock()
        folder = self.project.artifacts_of(PRESET)
        entries = {} if only else {e.path: e for e in lock.entries}
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
            entries[path] = Entry(
                kind="source",
                path=path,
                sha256=sha256_bytes(data),
                size=len(data),
                origin="generated",
            )
        made = Lock(
            preset=lock.preset,
            preset_sha256=lock.preset_sha256,
            images=lock.images,
            entries=tuple(sorted(entries.values(), key=lambda e: e.path)),
        )
        write_lock(self.project, made)

    def second(self) -> str:
        """Add a preset that shares files with the first one. Return its name."""
        name = next(n for n in documents.names(self.project.presets) if n != PRESET)
        # In full, because the project has neither the catalog nor components.
        document = documents.load(ROOT / "presets" / f"{name}.json").raw
        self.project.preset_file(name).write_text(json.dumps(document), encoding="utf-8")
        fabricate(self.project, documents.find(self.project.presets, name))
        return name


def sender(folder: Path, files: Mapping[str, bytes] | None = None) -> Sender:
    """Create a project; with ``files`` its preset has only these files."""
    here = folder / "sender"
    (here / "presets").mkdir(parents=True)
    for file in sorted((ROOT / "presets").glob("*.json")):
        if not file.name.endswith(".lock.json"):
            shutil.copy(file, here / "presets")
    made = Sender(Project(here, here / "artifacts"))
    fabricate(made.project, documents.find(made.project.presets, PRESET))
    if files is not None:
        made.change(files, only=True)
    return made


def site_at(folder: Path) -> Project:
    """Create a site that has only the preset."""
    (folder / "presets").mkdir(parents=True)
    shutil.copy(ROOT / "presets" / f"{PRESET}.json", folder / "presets")
    return Project(folder, folder / "artifacts")


def carry(
    made: Sender,
    *to: Path,
    size: int,
    inventory: Path | None = None,
    presets: tuple[str, ...] = (PRESET,),
) -> Packed:
    """Pack presets into folders."""
    held = inventory_objects(inventory) if inventory is not None else frozenset()
    named = [documents.find(made.project.presets, name) for name in presets]
    contents = preset_contents(made.project, named, held)
    plan = make_plan(contents.parts, contents.presets, size)
    return pack(made.project, plan, contents, to, Progress("pack", quiet=True))


def repair(made: Sender, request: RepairRequest, to: Path, *, size: int) -> Packed:
    """Pack a repair for a request."""
    spans, views, tool = requested_parts(request, [made.project.state / "bundles"])
    contents = request_contents(made.project, spans, views, tool)
    plan = make_plan(contents.parts, contents.presets, size, repairs=request.bundle, tool=tool)
    return pack(made.project, plan, contents, [to], Progress("pack", quiet=True))


def scan_at(site: Project, *folders: Path, only: str = "") -> Scan:
    """Scan media at a site without trusted signers."""
    return scan_media(folders, SignatureCheck.without_signers(site), only)


def receive(site: Project, *folders: Path, only: str = "") -> ImportResult:
    """Unpack at a site."""
    return unpack(site, scan_at(site, *folders, only=only), Progress("unpack", quiet=True))


def hashes(site: Project) -> set[str]:
    """Return the objects in the store. Fail for an object whose bytes do not match its name."""
    found = set()
    for path in (site.store / "sha256").rglob("*"):
        if path.is_file():
            assert sha256_file(path) == path.name, f"{path} does not match its name"
            found.add(path.name)
    return found


def names(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files in a folder, by name."""
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


def carried(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of packed files by name, without the custody page, which has a date."""
    return {name: sha256 for name, sha256 in names(folder).items() if ".custody.txt" not in name}
