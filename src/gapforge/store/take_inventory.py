"""Take an inventory of this machine: read and hash what it holds, on all cores.

A file counts only with the checksum that was just read from it. A store object whose name is not
its checksum, and an artifact that differs from its lock, are faults and are left out.
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
from gapforge.base.text_layout import printable
from gapforge.model import lock as locks
from gapforge.model.lock import LOCK_FILE
from gapforge.model.names import PRESET_NAME
from gapforge.store.hash_files import find_files, hash_files
from gapforge.store.inventory import Inventory
from gapforge.trust.trusted_signers import LOCK_SIGNATURE


@dataclass(frozen=True)
class TakenInventory:
    """An inventory and what was read for it; hard links to one file count once in both numbers."""

    inventory: Inventory
    files: int
    bytes: int
    faults: tuple[Fault, ...]

    def error(self) -> VerifyError:
        """Return the error that names every fault."""
        return VerifyError(
            ngettext(
                "{count} file is damaged or unexpected; the inventory was written without it",
                "{count} files are damaged or unexpected; the inventory was written without them",
                len(self.faults),
            ),
            faults=self.faults,
            hint=_("send the inventory as it is: what is not in it will be packed again"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the result in JSON types."""
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


def take_inventory(
    project: Project,
    names: Sequence[str] = (),
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> TakenInventory:
    """Read the artifacts of these presets; without names, the store and all artifacts.

    ``jobs`` is the number of files read at a time (all cores when None). Raises VerifyError if a
    named preset has no artifacts, or if there are none at all. Damaged files do not raise; see
    ``TakenInventory.faults``.
    """
    root = project.artifacts
    folders = _folders_to_read(project, names)
    faults: list[Fault] = []
    sizes: dict[str, int] = {}  # path inside artifacts -> bytes
    expected: dict[str, str] = {}  # path inside artifacts -> SHA-256
    for folder in folders:
        _add_files(root, folder, sizes, faults)
        expected.update(_locked_checksums(root / folder, faults))
    if not names:
        expected.update(_store_checksums(root, f"{project.store.name}/sha256", sizes, faults))
    checksums = _hash_once(root, sizes, jobs, progress, faults)
    held: dict[str, int] = {}
    for path, sha256 in checksums.items():
        if expected.get(path, sha256) == sha256:
            held[sha256] = sizes[path]
        else:
            problem = _("checksum mismatch: sha256 {sha256}", sha256=sha256)
            faults.append(Fault(path, problem, f"sha256 {expected[path]}"))
    locked = {
        folder: checksums[f"{folder}/{LOCK_FILE}"]
        for folder in folders
        if PRESET_NAME.fullmatch(folder) and f"{folder}/{LOCK_FILE}" in checksums
    }
    read = {_identity(root / path): sizes[path] for path in checksums}
    shown = {Fault(printable(f.where), printable(f.problem), f.expected) for f in faults}
    inventory = Inventory.of(__version__, locked, held)
    return TakenInventory(inventory, len(read), sum(read.values()), tuple(sorted(shown)))


def _folders_to_read(project: Project, names: Sequence[str]) -> list[str]:
    root = project.artifacts
    missing = [name for name in names if not (root / name).is_dir()]
    if missing:
        absent, wanted = _("does not exist"), _("a folder")
        raise VerifyError(
            _("no artifacts of {presets}", presets=", ".join(missing)),
            faults=[Fault(str(root / name), absent, wanted) for name in missing],
            hint=_("./gapforge list; without a name, the inventory covers all presets"),
        )
    if names:
        return list(names)
    if not root.is_dir():
        raise VerifyError(
            _("{folder} does not exist: this machine has no artifacts", folder=root),
            hint=_("set GAPFORGE_ARTIFACTS to the folder of the artifacts"),
        )
    return sorted(
        name for name in os.listdir(root) if name != project.store.name and (root / name).is_dir()
    )


def _add_files(root: Path, folder: str, sizes: dict[str, int], faults: list[Fault]) -> None:
    """Add the regular files below a folder to ``sizes``, and everything else to ``faults``."""
    found = find_files(root / folder)
    sizes.update(
        {f"{folder}/{path}": size for path, size in found.regular.items() if path != LOCK_SIGNATURE}
    )
    regular = _("a regular file")
    for path, problem in {**found.special, **found.unreadable}.items():
        faults.append(Fault(f"{folder}/{path}", problem, regular))


def _locked_checksums(artifacts: Path, faults: list[Fault]) -> dict[str, str]:
    """Return the checksums in the artifacts' own lock; nothing without a lock."""
    file = artifacts / LOCK_FILE
    if file.is_symlink() or not file.is_file():
        return {}
    try:
        lock = locks.load(file, shown=f"{artifacts.name}/{LOCK_FILE}")
    except LockError as error:
        faults += error.faults
        return {}
    return {f"{artifacts.name}/{entry.path}": entry.sha256 for entry in lock.entries}


def _store_checksums(
    root: Path, objects: str, sizes: dict[str, int], faults: list[Fault]
) -> dict[str, str]:
    """Add the store's objects to ``sizes``, and return the checksums that their names state."""
    checksums = {}
    if os.path.lexists(root / objects):
        _add_files(root, objects, sizes, faults)
    for path in [path for path in sizes if path.startswith(objects + "/")]:
        prefix, _separator, name = path[len(objects) + 1 :].partition("/")
        if SHA256_HEX.fullmatch(name) and name.startswith(prefix) and len(prefix) == 2:
            checksums[path] = name
        else:
            expected = _("a file named by its SHA-256")
            faults.append(Fault(path, _("not an object of the store"), expected))
            del sizes[path]
    return checksums


def _hash_once(
    root: Path,
    sizes: dict[str, int],
    jobs: int | None,
    progress: Progress | None,
    faults: list[Fault],
) -> dict[str, str]:
    """Return the SHA-256 of each path that could be read. Hard links to one file are read once."""
    same: dict[tuple[int, int], list[str]] = {}
    for path in sizes:
        same.setdefault(_identity(root / path), []).append(path)
    firsts = sorted((paths[0] for paths in same.values()), key=lambda path: (-sizes[path], path))
    if progress is not None:
        progress.total = sum(sizes[path] for path in firsts)
    found = hash_files(root, firsts, jobs, progress)
    checksums: dict[str, str] = {}
    for paths in same.values():
        sha256, problem = found[paths[0]]
        if not problem and _size(root / paths[0]) != sizes[paths[0]]:
            problem = _("changed while it was read")
        for path in paths:
            if problem:
                faults.append(Fault(path, problem, _("a readable file that does not change")))
            else:
                checksums[path] = sha256
    return checksums


def _identity(path: Path) -> tuple[int, int]:
    """Return device and inode; for a file that vanished, a pair that no other file has."""
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
