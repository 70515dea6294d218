"""Install gapforge's repository at a site from the archive in a bundle.

Replaced and removed files are kept in ``.gapforge/replaced/SHA256/``. New files are written beside
the project's files and then renamed, so a full disk changes nothing. A run that is killed between
two renames is finished by the next one: ``tool.pending.json`` is written first and ``tool.json``
last, and both list the files of an archive.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import BundleError, Fault, StorageError
from gapforge.base.files import (
    SHA256_HEX,
    contains,
    open_regular,
    read_regular,
    sha256_bytes,
    sha256_file,
)
from gapforge.base.flush import sync_files, sync_folder
from gapforge.base.i18n import _
from gapforge.base.marked_folders import mark_folder, remove_folder
from gapforge.base.path_checks import real_path, unsafe_path_reason
from gapforge.base.process_locks import exclusive
from gapforge.base.project import Project
from gapforge.base.storage_errors import free_bytes, storage_errors
from gapforge.base.strict_json import canonical_json, read_json
from gapforge.base.units import human_bytes
from gapforge.base.write_files import (
    atomic_file,
    link_or_copy,
    remove_empty_folders,
    remove_file,
    write_bytes,
    write_text,
)
from gapforge.bundle.disk_space import FILE_OVERHEAD
from gapforge.bundle.repository_archive import MAX_ARCHIVE_FILE, Member, archive_name, read_archive
from gapforge.bundle.repository_files import private_reason
from gapforge.store.store import Store

FORMAT = 1
INSTALLED, SAVED, LEFT = "installed", "saved", "left"
CHECKOUT, FOREIGN, ASKED, WAITS, ABSENT = "checkout", "foreign", "asked", "incomplete", "absent"
_STAGE = ".gapforge-new"  # on the disk of the project, so that files can be renamed


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What was done with the archive ``sha256``.

    ``state`` is INSTALLED (perhaps without a change), SAVED as the file ``saved``, or LEFT in the
    store; ``why`` is the reason if it is not installed. ``files`` counts its files, ``new`` the new
    ones. ``kept`` are the folders with the original ``replaced`` and ``removed`` files. ``local``
    are changed files of an earlier archive that are not in this one; they are unchanged.
    """

    sha256: str
    state: str
    why: str = ""
    files: int = 0
    new: int = 0
    replaced: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    kept: tuple[Path, ...] = ()
    saved: Path | None = None

    @property
    def changed(self) -> bool:
        return bool(self.new or self.replaced or self.removed)


@dataclass(kw_only=True)
class _Changes:
    """What will change, decided before a byte is written. ``checksums`` maps path to SHA-256."""

    checksums: dict[str, str] = field(default_factory=dict)
    new: list[Member] = field(default_factory=list)
    replaced: list[Member] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    local: list[str] = field(default_factory=list)
    modes: list[Member] = field(default_factory=list)


def install(
    project: Project, sha256: str, *, wanted: bool = True, complete: bool = True
) -> Installed:
    """Install the archive ``sha256`` of the store in the project folder.

    A git checkout and a folder with other files of the same names are not changed, nor any folder
    if not ``wanted``. An existing gapforge is replaced only when the bundle is ``complete``: new
    locks without their artifacts would break today's builds. Raise BundleError for an archive that
    gapforge did not make, StorageError if the folder cannot store the files.
    """
    store = Store(project.store)
    if not store.intact(sha256):
        return Installed(sha256=sha256, state=LEFT, why=ABSENT)
    if not wanted:
        return Installed(sha256=sha256, state=LEFT, why=ASKED)
    archive = store.path(sha256)
    members = read_archive(archive)
    if os.path.lexists(project.root / ".git"):
        return _save(project, archive, sha256, CHECKOUT)
    with storage_errors(project.state):
        project.state.mkdir(parents=True, exist_ok=True)
    with exclusive(project.state / "tool.lock", f"{project.root}"):
        for litter in project.state.glob(".tool.*.tmp"):  # of a run that was killed
            litter.unlink(missing_ok=True)
        known = _known(project)
        ours = bool(known) or (project.root / "src/gapforge/__init__.py").is_file()
        # Another medium of the bundle may have installed it, or a killed run may have begun.
        started = any(_is_about(file(project), sha256) for file in (_record, _pending))
        if ours and not complete and not started:
            return Installed(sha256=sha256, state=LEFT, why=WAITS)
        with open_regular(archive) as file:
            changes = _examine(project, file.fileno(), members, known)
            if not ours and changes.replaced:
                return _save(project, archive, sha256, FOREIGN)
            return _Install(project, sha256, file.fileno(), members, changes).run()


def _save(project: Project, archive: Path, sha256: str, why: str) -> Installed:
    target = project.state / "bundles" / archive_name(sha256)
    if not target.is_file() or sha256_file(target) != sha256:
        write_bytes(target, read_regular(archive, MAX_ARCHIVE_FILE))
    return Installed(sha256=sha256, state=SAVED, why=why, saved=target)


def _record(project: Project) -> Path:
    return project.state / "tool.json"


def _pending(project: Project) -> Path:
    return project.state / "tool.pending.json"


def _is_about(file: Path, sha256: str) -> bool:
    """Return whether a record is about this archive."""
    try:
        return bool(read_json(file)["archive"] == sha256)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _known(project: Project) -> dict[str, set[str]]:
    """Return the SHA-256 of the files that archives installed, by path, also of killed runs."""
    known: dict[str, set[str]] = {}
    for file in (_record(project), _pending(project)):
        try:
            raw = read_json(file)
            pairs = list(raw["files"].items()) if raw["format"] == FORMAT else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # an invalid record: nothing is removed
        for path, sha256 in pairs:
            fits = isinstance(sha256, str) and SHA256_HEX.fullmatch(sha256)
            if fits and not unsafe_path_reason(path) and not private_reason(path):
                known.setdefault(path, set()).add(sha256)
    return known


def _render(sha256: str, hashes: Mapping[str, str]) -> str:
    return canonical_json({"format": FORMAT, "archive": sha256, "files": dict(hashes)})


def _examine(
    project: Project, handle: int, members: list[Member], known: Mapping[str, set[str]]
) -> _Changes:
    """Compare the folder with the archive. Raise StorageError naming every path in the way."""
    changes, faults, root = _Changes(), [], project.root
    names = {member.name for member in members}
    for path in sorted(set(known) - names):
        target = root / path
        if _behind_link(root, path) or target.is_symlink() or not target.is_file():
            continue
        (changes.removed if sha256_file(target) in known[path] else changes.local).append(path)
    removed = set(changes.removed)
    for member in members:
        sha256 = sha256_bytes(_data(handle, member))
        changes.checksums[member.name] = sha256
        target = root / member.name
        if why := _obstacle(root, member.name, removed):
            faults.append(Fault(str(target), why))
            continue
        try:
            status = os.lstat(target)
        except (FileNotFoundError, NotADirectoryError):
            changes.new.append(member)
            continue
        if stat.S_ISDIR(status.st_mode):
            changes.new.append(member)  # empty once what is removed is gone
        elif (
            not stat.S_ISREG(status.st_mode)
            or status.st_size != member.size
            or sha256_file(target) != sha256
        ):
            changes.replaced.append(member)
        elif bool(status.st_mode & 0o100) != member.executable:
            changes.modes.append(member)
    if faults:
        raise StorageError(
            _(
                "the gapforge repository cannot be installed in {root}, nothing was written",
                root=root,
            ),
            faults=faults,
            hint=_(
                "move these files to another folder and run the same command again; or run unpack "
                "with --no-tool"
            ),
        )
    return changes


def _behind_link(root: Path, path: str) -> bool:
    try:
        return real_path((root / path).parent) != real_path(root).joinpath(*path.split("/")[:-1])
    except StorageError:
        return True


def _obstacle(root: Path, path: str, removed: set[str]) -> str:
    """Return why no file can be written there, "" if it can. ``removed`` paths do not count."""
    if _behind_link(root, path):
        return _("a folder of the path is a symbolic link, which is not followed")
    parts = path.split("/")
    for count in range(1, len(parts)):
        parent = "/".join(parts[:count])
        if (
            os.path.lexists(root / parent)
            and not (root / parent).is_dir()
            and parent not in removed
        ):
            return _("{parent} is a file, but the archive needs a folder there", parent=parent)
    target = root / path
    if target.is_dir() and not target.is_symlink():
        for where, folders, files in os.walk(target):
            stays = any(Path(where, name).is_symlink() for name in folders)
            stays |= any(
                Path(where, name).relative_to(root).as_posix() not in removed for name in files
            )
            if stays or not (folders or files or Path(where) == target):
                return _("a folder is where the archive has a file")
    return ""


def _data(handle: int, member: Member) -> bytes:
    data = os.pread(handle, member.size, member.offset)
    if len(data) != member.size:
        raise BundleError(
            _("the archive of the gapforge repository became shorter while it was read"),
            hint=_("run the same command again"),
        )
    return data


class _Install:
    def __init__(
        self, project: Project, sha256: str, handle: int, members: list[Member], changes: _Changes
    ) -> None:
        self.project, self.root, self.sha256, self.handle = project, project.root, sha256, handle
        self.members, self.changes = members, changes
        self.kept: dict[Path, None] = {}

    def run(self) -> Installed:
        changes = self.changes
        if changes.new or changes.replaced or changes.removed:
            self._require_space()
            write_text(_pending(self.project), _render(self.sha256, changes.checksums))
            for path in [*(member.name for member in changes.replaced), *changes.removed]:
                self._keep(path)
            stage = self._stage([*changes.new, *changes.replaced])
            for path in changes.removed:
                self._remove(path)
            self._move(stage, [*changes.new, *changes.replaced])
        remove_folder(self.root / _STAGE)
        for member in changes.modes:
            try:
                os.chmod(self.root / member.name, 0o755 if member.executable else 0o644)
            except OSError:
                pass  # some file systems have no modes; python3 gapforge works without
        record = _render(self.sha256, changes.checksums)
        if not contains(_record(self.project), record.encode()):
            write_text(_record(self.project), record)
        remove_file(_pending(self.project))
        return Installed(
            sha256=self.sha256,
            state=INSTALLED,
            files=len(self.members),
            new=len(changes.new),
            replaced=tuple(member.name for member in changes.replaced),
            removed=tuple(changes.removed),
            local=tuple(changes.local),
            kept=tuple(self.kept),
        )

    def _require_space(self) -> None:
        need = sum(m.size + FILE_OVERHEAD for m in [*self.changes.new, *self.changes.replaced])
        free = free_bytes(self.root)
        if need > free:
            raise StorageError(
                _(
                    "{root}: {need} are needed for the gapforge repository and {free} are free",
                    root=self.root,
                    need=human_bytes(need),
                    free=human_bytes(free),
                ),
                hint=_(
                    "free some space (df -h {root!q}) and run the same command again",
                    root=self.root,
                ),
            )

    def _keep(self, path: str) -> None:
        """Keep a file as it is now, in a folder where no other file of this name was kept."""
        source, number = self.root / path, 1
        while True:
            suffix = f".{number}" if number > 1 else ""
            folder = self.project.state / "replaced" / f"{self.sha256[:12]}{suffix}"
            target = folder / path
            if not os.path.lexists(target):
                break
            if _same(source, target):
                self.kept[folder] = None
                return
            number += 1
        if source.is_symlink():
            with storage_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                os.symlink(os.readlink(source), target)
        elif source.is_file():
            if not link_or_copy(source, target):
                sync_files([target])
            sync_folder(target.parent)
        else:
            raise StorageError(
                _("{file}: neither a file nor a folder", file=source),
                hint=_("move it to another folder: ls -l {file!q}", file=source),
            )
        self.kept[folder] = None

    def _stage(self, members: list[Member]) -> Path:
        stage = self.root / _STAGE
        remove_folder(stage)
        mark_folder(stage, "new files of gapforge before they are renamed")
        for member in members:
            mode = 0o755 if member.executable else 0o644
            write_bytes(stage / "files" / member.name, _data(self.handle, member), mode)
        return stage / "files"

    def _remove(self, path: str) -> None:
        target = self.root / path
        with storage_errors(target):
            remove_file(target)
            remove_empty_folders(target, self.root)

    def _move(self, stage: Path, members: list[Member]) -> None:
        folders: dict[Path, None] = {}
        for member in sorted(members, key=lambda member: member.name.startswith("src/")):
            # The program comes last: until then the old one is complete and can run this again.
            target = self.root / member.name
            with storage_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.is_dir() and not target.is_symlink():
                    target.rmdir()
                _put(stage / member.name, target)
            folders[target.parent] = None
        for folder in folders:
            sync_folder(folder)


def _put(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # a folder of the project may be on another disk
            raise
        mode = stat.S_IMODE(source.stat().st_mode)
        with open_regular(source) as data, atomic_file(target, mode) as file:
            shutil.copyfileobj(data, file)


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    return one.is_file() and other.is_file() and sha256_file(one) == sha256_file(other)
