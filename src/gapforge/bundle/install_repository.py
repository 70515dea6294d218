"""Laying out gapforge's repository at a site, out of the archive that a bundle carried.

Nothing is lost: what is replaced or removed is kept first, in ``.gapforge/replaced/HASH/``. New files are written
beside the project's and then renamed, so a full disk changes nothing, and a run that is killed between two renames
is finished by the next: what to remove is known from ``tool.json``, which is written last, and from
``tool.pending.json``, which is written first.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import BundleError, Fault, StorageError
from gapforge.base.files import (
    SHA256_HEX,
    canonical_json,
    exclusive,
    free_bytes,
    link_or_copy,
    mark_folder,
    remove_folder,
    sha256_bytes,
    sha256_file,
    storage_errors,
    sync_folder,
    unsafe_path_reason,
    write_bytes,
    write_text,
)
from gapforge.base.i18n import _
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.bundle.repository_archive import Member, archive_name, private_reason, read_archive
from gapforge.store.store import Store

FORMAT = 1
INSTALLED, SAVED, LEFT = "installed", "saved", "left"
CHECKOUT, FOREIGN, ASKED, WAITS, ABSENT = "checkout", "foreign", "asked", "incomplete", "absent"
_STAGE = ".gapforge-new"  # beside the project's files, so that a rename is enough
_ROOM_EACH = 8 << 10  # bytes that a file takes on a disk beyond its size


@dataclass(frozen=True)
class Installed:
    """What became of the archive.

    ``state`` is "installed" (which may have changed nothing), "saved" as the file ``saved``, or "left" in the
    store; ``why`` says why not installed. ``kept`` are the folders that hold the ``replaced`` and ``removed`` files as they were;
    ``local`` are files that an earlier archive brought, this one does not, and somebody changed: they stay.
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


@dataclass
class _Work:
    """What has to be done, decided before a byte is written. Paths map to hashes."""

    hashes: dict[str, str] = field(default_factory=dict)
    new: list[Member] = field(default_factory=list)
    replaced: list[Member] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    local: list[str] = field(default_factory=list)
    modes: list[Member] = field(default_factory=list)


def install(
    project: Project, sha256: str, *, wanted: bool = True, complete: bool = True
) -> Installed:
    """Lay out the archive ``sha256`` of the store in the project folder.

    Not where git works, where other files have its names, or where not ``wanted``; and where gapforge is already, not
    before the bundle is ``complete``: new locks without their artifacts would stop what builds today. Raises
    BundleError for an archive that gapforge did not make, StorageError when the folder cannot take it.
    """
    store = Store(project.store)
    if not store.intact(sha256):
        return Installed(sha256, LEFT, ABSENT)
    if not wanted:
        return Installed(sha256, LEFT, ASKED)
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
        # Not for what is laid out already, by another stick of the bundle, nor what a killed run began.
        if (
            ours
            and not complete
            and not any(_named(file(project), sha256) for file in (_record, _pending))
        ):
            return Installed(sha256, LEFT, WAITS)
        with open(archive, "rb", buffering=0) as file:
            work = _examine(project, file.fileno(), members, known)
            if not ours and work.replaced:
                return _save(project, archive, sha256, FOREIGN)
            return _Install(project, sha256, file.fileno(), members, work).run()


def _save(project: Project, archive: Path, sha256: str, why: str) -> Installed:
    target = project.state / "bundles" / archive_name(sha256)
    if not target.is_file() or sha256_file(target) != sha256:
        write_bytes(target, archive.read_bytes())
    return Installed(sha256, SAVED, why, saved=target)


def _record(project: Project) -> Path:
    return project.state / "tool.json"


def _pending(project: Project) -> Path:
    return project.state / "tool.pending.json"


def _named(file: Path, sha256: str) -> bool:
    """Whether a record is about this very archive."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8"))["archive"] == sha256)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _known(project: Project) -> dict[str, set[str]]:
    """Path -> the hashes with which archives were laid out there, also by a run that was killed."""
    known: dict[str, set[str]] = {}
    for file in (_record(project), _pending(project)):
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            pairs = list(raw["files"].items()) if raw["format"] == FORMAT else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # then nothing is removed
        for path, sha256 in pairs:
            fits = isinstance(sha256, str) and SHA256_HEX.fullmatch(sha256)
            if fits and not unsafe_path_reason(path) and not private_reason(path):
                known.setdefault(path, set()).add(sha256)
    return known


def _render(sha256: str, hashes: Mapping[str, str]) -> str:
    return canonical_json({"format": FORMAT, "archive": sha256, "files": dict(hashes)})


def _examine(
    project: Project, handle: int, members: list[Member], known: Mapping[str, set[str]]
) -> _Work:
    """Compare the folder with the archive. Raises StorageError naming every place that cannot take its file."""
    work, faults, root = _Work(), [], project.root
    names = {member.name for member in members}
    for path in sorted(set(known) - names):
        target = root / path
        if _behind_link(root, path) or target.is_symlink() or not target.is_file():
            continue
        (work.removed if sha256_file(target) in known[path] else work.local).append(path)
    removed = set(work.removed)
    for member in members:
        sha256 = sha256_bytes(_data(handle, member))
        work.hashes[member.name] = sha256
        target = root / member.name
        if why := _obstacle(root, member.name, removed):
            faults.append(Fault(str(target), why))
            continue
        try:
            status = os.lstat(target)
        except (FileNotFoundError, NotADirectoryError):
            work.new.append(member)
            continue
        if stat.S_ISDIR(status.st_mode):
            work.new.append(member)  # empty once what is removed is gone
        elif (
            not stat.S_ISREG(status.st_mode)
            or status.st_size != member.size
            or sha256_file(target) != sha256
        ):
            work.replaced.append(member)
        elif bool(status.st_mode & 0o100) != member.executable:
            work.modes.append(member)
    if faults:
        raise StorageError(
            _("{root} cannot take gapforge's files; nothing of them was written", root=root),
            faults=faults,
            hint=_(
                "move away what is named, then run the same command again; or unpack with --no-tool"
            ),
        )
    return work


def _behind_link(root: Path, path: str) -> bool:
    try:
        return (root / path).parent.resolve() != root.resolve().joinpath(*path.split("/")[:-1])
    except (OSError, RuntimeError):
        return True


def _obstacle(root: Path, path: str, removed: set[str]) -> str:
    """Why no file can be put there; "" when it can. What is about to be removed is no obstacle."""
    if _behind_link(root, path):
        return _("lies behind a symbolic link, which is not followed")
    parts = path.split("/")
    for count in range(1, len(parts)):
        parent = "/".join(parts[:count])
        if (
            os.path.lexists(root / parent)
            and not (root / parent).is_dir()
            and parent not in removed
        ):
            return _("needs a folder where the file {parent} is", parent=parent)
    target = root / path
    if target.is_dir() and not target.is_symlink():
        for where, folders, files in os.walk(target):
            stays = any(Path(where, name).is_symlink() for name in folders)
            stays |= any(
                Path(where, name).relative_to(root).as_posix() not in removed for name in files
            )
            if stays or not (folders or files or Path(where) == target):
                return _("is a folder where the archive has a file")
    return ""


def _data(handle: int, member: Member) -> bytes:
    data = os.pread(handle, member.size, member.offset)
    if len(data) != member.size:
        raise BundleError(
            _("the archive of gapforge became shorter while it was read"),
            hint=_("run the same command again"),
        )
    return data


class _Install:
    def __init__(
        self, project: Project, sha256: str, handle: int, members: list[Member], work: _Work
    ) -> None:
        self.project, self.root, self.sha256, self.handle = project, project.root, sha256, handle
        self.members, self.work = members, work
        self.kept: dict[Path, None] = {}

    def run(self) -> Installed:
        work = self.work
        if work.new or work.replaced or work.removed:
            self._make_sure_of_room()
            write_text(_pending(self.project), _render(self.sha256, work.hashes))
            for path in [*(member.name for member in work.replaced), *work.removed]:
                self._keep(path)
            stage = self._stage([*work.new, *work.replaced])
            for path in work.removed:
                self._remove(path)
            self._move(stage, [*work.new, *work.replaced])
        remove_folder(self.root / _STAGE)
        for member in work.modes:
            try:
                os.chmod(self.root / member.name, 0o755 if member.executable else 0o644)
            except OSError:
                pass  # not on every file system; the launchers can be run by their interpreters too
        record = _render(self.sha256, work.hashes)
        if (
            not _record(self.project).is_file()
            or _record(self.project).read_text(encoding="utf-8") != record
        ):
            write_text(_record(self.project), record)
        _pending(self.project).unlink(missing_ok=True)
        return Installed(
            self.sha256,
            INSTALLED,
            files=len(self.members),
            new=len(work.new),
            replaced=tuple(member.name for member in work.replaced),
            removed=tuple(work.removed),
            local=tuple(work.local),
            kept=tuple(self.kept),
        )

    def _make_sure_of_room(self) -> None:
        need = sum(m.size + _ROOM_EACH for m in [*self.work.new, *self.work.replaced])
        free = free_bytes(self.root)
        if need > free:
            raise StorageError(
                _(
                    "{root}: {need} are needed for gapforge and {free} are free",
                    root=self.root,
                    need=human_bytes(need),
                    free=human_bytes(free),
                ),
                hint=_("make room (df -h {root}), then run the same command again", root=self.root),
            )

    def _keep(self, path: str) -> None:
        """Keep a file as it is now; never over another one that was kept before."""
        source, number = self.root / path, 1
        while True:
            folder = (
                self.project.state
                / "replaced"
                / (self.sha256[:12] + (f".{number}" if number > 1 else ""))
            )
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
            link_or_copy(source, target)
        else:
            raise StorageError(
                _("{source} is neither a file nor a folder", source=source),
                hint=_("move it away: ls -l {source}", source=source),
            )
        self.kept[folder] = None

    def _stage(self, members: list[Member]) -> Path:
        stage = self.root / _STAGE
        remove_folder(stage)
        mark_folder(stage, "gapforge's files before they are put in place")
        for member in members:
            mode = 0o755 if member.executable else 0o644
            write_bytes(stage / "files" / member.name, _data(self.handle, member), mode)
        return stage / "files"

    def _remove(self, path: str) -> None:
        target = self.root / path
        with storage_errors(target):
            target.unlink(missing_ok=True)
            for parent in target.parents:
                if parent == self.root or not parent.is_dir() or any(parent.iterdir()):
                    break
                parent.rmdir()

    def _move(self, stage: Path, members: list[Member]) -> None:
        folders: dict[Path, None] = {}
        for member in sorted(members, key=lambda member: member.name.startswith("src/")):
            # The program last: until then the old one is there whole, and can run this again.
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
        if error.errno != errno.EXDEV:  # a folder of the project may be another disk
            raise
        link_or_copy(source, target)


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    return one.is_file() and other.is_file() and sha256_file(one) == sha256_file(other)
