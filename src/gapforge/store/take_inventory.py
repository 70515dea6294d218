"""What this machine holds, read and verified on all cores, as an inventory.

A file counts only with the hash that was read from it just now. What is not what its place promises (a store object
with another name than its hash, an artifact that its lock knows otherwise) is a fault and is left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge import __version__
from gapforge.base.errors import Fault, LockError, VerifyError
from gapforge.base.files import SHA256_HEX
from gapforge.base.i18n import _, ngettext
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.text import printable
from gapforge.model import lock as locks
from gapforge.model.names import PRESET_NAME
from gapforge.store.inventory import Inventory
from gapforge.store.verify_artifacts import hash_all, walk
from gapforge.trust.trusted_signers import LOCK_SIGNATURE

LOCK_FILE = "lock.json"


@dataclass(frozen=True)
class Stock:
    """What was found. ``files`` and ``bytes`` count what was read (hard links to one file once)."""

    inventory: Inventory
    files: int
    bytes: int
    faults: tuple[Fault, ...]

    def error(self) -> VerifyError:
        """The error that names every fault."""
        count = len(self.faults)
        return VerifyError(
            ngettext(
                "{count} file is damaged or not what belongs there; the inventory was "
                "written without",
                "{count} files are damaged or not what belongs there; the inventory was "
                "written without",
                count,
            ),
            faults=self.faults,
            hint=_("send the inventory as it is: what is missing there will be packed again"),
        )

    def to_json(self) -> dict[str, Any]:
        """The result in JSON types."""
        return {
            "ok": not self.faults,
            "objects": len(self.inventory),
            "bytes": self.inventory.total,
            "presets": [
                {"preset": name, "lock": sha256} for name, sha256 in self.inventory.presets
            ],
            "sha256": self.inventory.sha256,
            "digest": self.inventory.digest,
            "read_files": self.files,
            "read_bytes": self.bytes,
            "faults": [fault.to_json() for fault in self.faults],
        }


def take(
    project: Project,
    names: Sequence[str] = (),
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Stock:
    """Read the artifacts of these presets, or without names the store and all folders of artifacts.

    ``jobs`` is the number of files read at a time (all cores when None). Raises VerifyError where a named preset has
    no artifacts, or there are none at all. Damaged files do not raise; see ``Stock.faults``.
    """
    root = project.artifacts
    folders = [name for name in names if _view(root / name)]
    missing = [name for name in names if name not in folders]
    if missing:
        listed, absent, wanted = ", ".join(missing), _("does not exist"), _("a folder")
        raise VerifyError(
            _("there are no artifacts of {listed}", listed=listed),
            faults=[Fault(str(root / name), absent, wanted) for name in missing],
            hint=_("./gapforge list; without a name the inventory is of all that is there"),
        )
    if not names:
        if not root.is_dir():
            raise VerifyError(
                _("{root} does not exist: this machine holds nothing", root=root),
                hint=_("GAPFORGE_ARTIFACTS names the folder where artifacts lie"),
            )
        folders = sorted(n for n in os.listdir(root) if n != project.store.name and _view(root / n))
    faults: list[Fault] = []
    sizes: dict[str, int] = {}  # path inside artifacts -> bytes
    expected: dict[str, str] = {}  # the hash that a path promises
    for folder in folders:
        _add(root, folder, sizes, faults)
        expected.update(_promised(root / folder, faults))
    if not names:
        objects = f"{project.store.name}/sha256"
        if os.path.lexists(root / objects):
            _add(root, objects, sizes, faults)
        for path in [p for p in sizes if p.startswith(objects + "/")]:
            prefix, _separator, name = path[len(objects) + 1 :].partition("/")
            if SHA256_HEX.fullmatch(name) and name.startswith(prefix) and len(prefix) == 2:
                expected[path] = name
            else:
                faults.append(
                    Fault(
                        path,
                        _("is no object of the store"),
                        _("a file that has its SHA-256 as its name"),
                    )
                )
                del sizes[path]
    hashes = _hashes(root, sizes, jobs or os.cpu_count() or 1, progress, faults)
    held: dict[str, int] = {}
    for path, sha256 in hashes.items():
        if expected.get(path, sha256) != sha256:
            faults.append(
                Fault(
                    path,
                    _("is damaged: has sha256 {sha256}", sha256=sha256),
                    f"sha256 {expected[path]}",
                )
            )
        else:
            held[sha256] = sizes[path]
    stated = {
        folder: hashes[f"{folder}/{LOCK_FILE}"]
        for folder in folders
        if PRESET_NAME.fullmatch(folder) and f"{folder}/{LOCK_FILE}" in hashes
    }
    read = {_identity(root / path): sizes[path] for path in hashes}
    shown = {Fault(printable(f.where), printable(f.problem), f.expected) for f in faults}
    return Stock(
        Inventory.of(__version__, stated, held), len(read), sum(read.values()), tuple(sorted(shown))
    )


def _view(folder: Path) -> bool:
    return "/" not in folder.name and folder.is_dir()


def _add(root: Path, folder: str, sizes: dict[str, int], faults: list[Fault]) -> None:
    """The regular files below a folder of artifacts; everything else there is a fault."""
    files, strange = walk(root / folder)
    sizes.update(
        {f"{folder}/{path}": size for path, size in files.items() if path != LOCK_SIGNATURE}
    )
    regular = _("a regular file")
    faults += [Fault(f"{folder}/{path}", what, regular) for path, what in strange.items()]


def _promised(view: Path, faults: list[Fault]) -> dict[str, str]:
    """The hashes that a view's own lock gives its files. Without a lock nothing is promised."""
    file = view / LOCK_FILE
    if file.is_symlink() or not file.is_file():
        return {}
    try:
        lock = locks.load(file, shown=f"{view.name}/{LOCK_FILE}")
    except LockError as error:
        faults += error.faults
        return {}
    return {f"{view.name}/{entry.path}": entry.sha256 for entry in lock.entries}


def _hashes(
    root: Path, sizes: dict[str, int], jobs: int, progress: Progress | None, faults: list[Fault]
) -> dict[str, str]:
    """Path -> SHA-256 of what could be read whole. Hard links to one file are read once."""
    same: dict[tuple[int, int], list[str]] = {}
    for path in sizes:
        same.setdefault(_identity(root / path), []).append(path)
    firsts = sorted((paths[0] for paths in same.values()), key=lambda path: (-sizes[path], path))
    if progress is not None:
        progress.total = sum(sizes[path] for path in firsts)
    found = hash_all(root, firsts, jobs, progress)
    hashes: dict[str, str] = {}
    for paths in same.values():
        sha256, problem = found[paths[0]]
        if not problem and _size(root / paths[0]) != sizes[paths[0]]:
            problem = _("changed while it was read")
        for path in paths:
            if problem:
                expected = _("a file that can be read and rests")
                faults.append(Fault(path, problem, expected))
            else:
                hashes[path] = sha256
    return hashes


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode; for a file that vanished, a pair that no other has."""
    try:
        status = os.lstat(path)
    except OSError:
        return -1, hash(path)
    return status.st_dev, status.st_ino


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return -1
