"""What may leave the store: objects that no lock and no unfinished import names, and what killed runs left half-made.

Nothing is guessed. A lock or an import's record that cannot be read stops everything, since what it names is then unknown; a file whose
name or kind is not ours is named and stays; links are not followed below the store. Removal goes by folder handles,
so that a folder that is swapped for a link meanwhile leads nowhere else.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.errors import Fault, LockError, StorageError
from gapforge.base.files import MARKER, SHA256_HEX, exclusive, remove_folder, sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.system_errors import os_says, unexaminable, unlistable, unreadable
from gapforge.base.text import printable
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.names import PRESET_NAME
from gapforge.store import unfinished_imports
from gapforge.store.store import Store

LOCK_FILE, LOCK_SUFFIX = "lock.json", ".lock.json"
BUSY_SECONDS = 3600  # a base image's folder that changed since may belong to a sync into another artifacts folder
_PREFIX = re.compile(r"[0-9a-f]{2}")
_DOWNLOAD = re.compile(r"([0-9a-f]{64}|url-[0-9a-f]{40})\.(?:part|json)")
_CARRIED = re.compile(
    r"\.?bundle-([0-9a-f]{64})\.[a-z0-9_.]+"
)  # parts of an object that comes in volumes
_TEMPORARY = re.compile(r"(?:copy|bytes|place)-[0-9]+(?:-[0-9]+)?")
_WORK = re.compile(r"work-[0-9]+")
OBJECT, DOWNLOAD, WORK = "object", "download", "work"

OnDone = Callable[[int], None]


@dataclass(frozen=True)
class Loose:
    """One thing that nothing needs. ``kind`` is "object" (verified, no lock names it), "download" (unverified bytes
    of a file that no lock names) or "work" (a folder of a killed sync).

    ``size`` is in bytes, ``freed`` what its removal gives back: less than ``size`` where other hard links remain.
    """

    kind: str
    path: Path
    size: int
    freed: int


@dataclass(frozen=True)
class Waiting:
    """A bundle that is not here to its end, and what the store keeps for it alone: ``count`` objects, ``size`` bytes."""

    bundle: str
    presets: tuple[str, ...]
    count: int
    size: int


@dataclass(frozen=True)
class Waste:
    """What gc would remove (``loose``, largest first) and what it only names.

    ``strange`` are files in the store that are not ours, ``orphans`` views (names of folders in artifacts) whose
    preset is gone, ``unfinished`` presets with a sync that was cut: what it fetched is in no lock yet.
    ``kept`` and ``kept_bytes`` count the objects that locks name, or the bundles of ``imports``.
    """

    loose: tuple[Loose, ...] = ()
    strange: tuple[Fault, ...] = ()
    orphans: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    imports: tuple[Waiting, ...] = ()
    kept: int = 0
    kept_bytes: int = 0

    def of(self, kind: str) -> tuple[Loose, ...]:
        """What is loose of one kind."""
        return tuple(item for item in self.loose if item.kind == kind)

    @property
    def size(self) -> int:
        """Bytes of all that is loose."""
        return sum(item.size for item in self.loose)

    @property
    def freed(self) -> int:
        """Bytes that the disk gets back."""
        return sum(item.freed for item in self.loose)


@dataclass(frozen=True)
class Named:
    """What all locks name: files by SHA-256, and base images by manifest digest (hex); and what bundles wait for."""

    files: frozenset[str]
    images: frozenset[str]
    imports: tuple[unfinished_imports.Unfinished, ...] = ()

    def keeps(self, sha256: str) -> bool:
        """Whether a file of this content must stay."""
        return sha256 in self.files or any(sha256 in one.objects for one in self.imports)


@contextmanager
def holding(project: Project) -> Iterator[None]:
    """Keep every sync out while the block runs, as a sync keeps out gc. Raises BusyError when one is at work."""
    if not project.store.is_dir():
        yield  # nothing to hold, and a look must not make a store
        return
    with exclusive(Store(project.store).lock_file, f"{project.store}"):
        yield


def named(project: Project, drop: str = "") -> Named:
    """What the locks in presets/ and artifacts/*/ name, and unfinished imports except that of bundle ``drop``.

    Raises LockError, with all faults, unless each can be read.
    """
    files: set[str] = set()
    images: set[str] = set()
    faults: list[Fault] = []
    for file in _lock_files(project, faults):
        try:
            lock = locks.load(file, shown=str(file))
            digest = sha256_bytes(file.read_bytes())
        except LockError as error:
            faults += error.faults or (Fault(str(file), error.message),)
            continue
        except OSError as error:
            faults.append(Fault(str(file), unreadable(error)))
            continue
        wanted = {entry.path: entry.sha256 for entry in lock.entries}
        files.update(wanted.values())
        # The two files of a view that a lock cannot list: the lock itself, and SHA256SUMS as sync writes it.
        wanted[LOCK_FILE] = digest
        sums = "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(wanted.items()))
        files.update((digest, sha256_bytes(sums.encode())))
        images.update(
            image.manifest_digest.removeprefix("sha256:") for image in lock.images.values()
        )
    if faults:
        raise LockError(
            _(
                "not every lock can be read, so nobody knows what the store must keep; "
                "nothing was deleted"
            ),
            faults=faults,
            hint=_(
                "repair what is named (git checkout -- presets/; ./deps_sync.sh NAME; or "
                "copy artifacts/NAME again), then: ./gapforge gc"
            ),
        )
    return Named(frozenset(files), frozenset(images), _waiting(project, drop))


def _waiting(project: Project, drop: str) -> tuple[unfinished_imports.Unfinished, ...]:
    found, faults = unfinished_imports.unfinished(project.store)
    faults = [
        fault
        for fault in faults
        if fault.where != str(unfinished_imports.file_of(project.store, drop))
    ]
    if faults:
        damaged = [
            Path(fault.where).stem
            for fault in faults
            if unfinished_imports.FILE.fullmatch(Path(fault.where).name)
        ]
        where = faults[0].where
        again = _("bring the bundle's volumes again: ./gapforge unpack FOLDER")
        hint = (
            _(
                "{again}; or give the bundle up: ./gapforge gc --drop {damaged}",
                again=again,
                damaged=damaged[0],
            )
            if damaged
            else _(
                "see what it is and move it away (ls -ld {where}), then {again}",
                where=where,
                again=again,
            )
        )
        raise LockError(
            _(
                "not every record of an unfinished import can be read, so nobody knows "
                "what the store must keep; nothing was deleted"
            ),
            faults=faults,
            hint=hint,
        )
    return tuple(one for one in found if one.bundle != drop)


def _lock_files(project: Project, faults: list[Fault]) -> list[Path]:
    """Every lock file; what stands where a lock may be and cannot be looked into becomes a fault."""
    if not project.presets.is_dir():
        faults.append(
            Fault(str(project.presets), _("is not a folder"), _("the presets and their locks"))
        )
        return []
    try:
        found = [
            project.presets / name
            for name in sorted(os.listdir(project.presets))
            if name.endswith(LOCK_SUFFIX) and not name.startswith(".")
        ]
    except OSError as error:
        faults.append(Fault(str(project.presets), unlistable(error)))
        return []
    found += [folder / LOCK_FILE for folder in views(project, faults)]
    regular = []
    for file in found:
        try:
            os.lstat(file)
        except FileNotFoundError:
            continue  # a view that was copied without its lock, or is being copied now
        except OSError as error:
            faults.append(Fault(str(file), unexaminable(error)))
            continue
        try:
            if not stat.S_ISREG(os.stat(file).st_mode):  # a pipe would be waited for
                faults.append(Fault(str(file), _("is not a regular file")))
                continue
        except OSError as error:
            faults.append(Fault(str(file), unexaminable(error)))
            continue
        regular.append(file)
    return regular


def views(project: Project, faults: list[Fault]) -> list[Path]:
    """The folders in artifacts that may be views, sorted.

    A preset's name that leads nowhere (a link to a disk that is not mounted) becomes a fault; other names that
    cannot be looked into, such as lost+found, are no views.
    """
    found = []
    try:
        listed = sorted(os.listdir(project.artifacts))
    except FileNotFoundError:
        return []
    except OSError as error:
        faults.append(Fault(str(project.artifacts), unlistable(error)))
        return []
    for name in listed:
        path = project.artifacts / name
        if name == project.store.name:
            continue
        try:
            if path.is_symlink() and not path.exists():
                there = os.readlink(path)
                faults.append(
                    Fault(str(path), _("leads to {there}, which is not there", there=there))
                )
            elif path.is_dir() and (
                PRESET_NAME.fullmatch(name) or os.access(path, os.R_OK | os.X_OK)
            ):
                found.append(path)
        except OSError as error:
            faults.append(Fault(str(path), unexaminable(error)))
    return found


def look(project: Project, drop: str = "") -> Waste:
    """What gc would remove now, with the unfinished import of bundle ``drop`` given up; call it within ``holding``.

    Raises LockError unless every lock can be read.
    """
    wanted = named(project, drop)
    known = set(presets.names(project.presets))
    orphans = tuple(
        path.name
        for path in views(project, [])
        if path.name not in known and PRESET_NAME.fullmatch(path.name)
    )
    journals = project.state / "sync"
    unfinished = (
        tuple(sorted(file.stem for file in journals.glob("*.json"))) if journals.is_dir() else ()
    )
    loose: list[Loose] = []
    strange: list[Fault] = []
    kept = kept_bytes = 0
    held = {one.bundle: [0, 0] for one in wanted.imports}
    for path, status in _objects(project.store, strange):
        if wanted.keeps(path.name):
            kept, kept_bytes = kept + 1, kept_bytes + status.st_size
            for one in wanted.imports if path.name not in wanted.files else ():
                if path.name in one.objects:
                    held[one.bundle] = [
                        held[one.bundle][0] + 1,
                        held[one.bundle][1] + status.st_size,
                    ]
        else:
            loose.append(_file(OBJECT, path, status))
    if project.store.is_dir():
        loose += _partials(project.store / "partial", wanted, strange)
        loose += _images(project.state / "images", wanted)
        strange += [
            Fault(str(path), _what(path, status), _("the record of an unfinished import"))
            for path, status in _listed(project.store / "imports", strange)
            if not unfinished_imports.FILE.fullmatch(path.name)
        ]
    loose.sort(key=lambda item: (-item.size, str(item.path)))
    named_so = tuple(Fault(printable(f.where), printable(f.problem), f.expected) for f in strange)
    waiting = tuple(Waiting(one.bundle, one.presets, *held[one.bundle]) for one in wanted.imports)
    return Waste(tuple(loose), named_so, orphans, unfinished, waiting, kept, kept_bytes)


def sweep(project: Project, waste: Waste, on_done: OnDone | None = None) -> int:
    """Remove what is loose and return the bytes that the disk got back; call it within ``holding``.

    Locks are read once more: what one names by now stays. ``on_done`` is told of the bytes of each thing. It may be
    cut at any moment and taken up by another gc. Raises StorageError naming everything that could not be removed.
    """
    wanted = named(project)
    freed, faults = 0, []
    folders: dict[Path, list[Loose]] = {}
    for item in waste.loose:
        carried = _CARRIED.fullmatch(item.path.name)
        key = carried[1] if carried else item.path.name.partition(".")[0]
        if not wanted.keeps(key) and key not in wanted.images:
            folders.setdefault(item.path.parent, []).append(item)
    for folder, items in sorted(folders.items()):
        try:
            with _handle(folder, project) as handle:
                for item in items:
                    try:
                        _remove(item, handle)
                    except FileNotFoundError:
                        continue
                    except (OSError, StorageError) as error:
                        reason = os_says(error) if isinstance(error, OSError) else error.message
                        faults.append(Fault(str(item.path), _stays(reason)))
                        continue
                    freed += item.freed
                    if on_done is not None:
                        on_done(item.size)
        except OSError as error:
            faults += [Fault(str(item.path), _stays(os_says(error))) for item in items]
            continue
        if folder.parent.name == "sha256":
            try:
                folder.rmdir()
            except OSError:
                pass  # not empty
    if faults:
        raise StorageError(
            _("{count} of {loose} could not be removed", count=len(faults), loose=len(waste.loose)),
            faults=sorted(faults),
            hint=_("see who owns them (ls -la); then: ./gapforge gc --yes"),
        )
    return freed


def _remove(item: Loose, handle: int) -> None:
    if item.kind != WORK:
        if not stat.S_ISREG(os.stat(item.path.name, dir_fd=handle, follow_symlinks=False).st_mode):
            raise StorageError(_("is no regular file any more"))
        os.unlink(item.path.name, dir_fd=handle)
    elif (item.path / MARKER).exists():
        remove_folder(item.path)
    else:
        os.rmdir(item.path.name, dir_fd=handle)


@contextmanager
def _handle(folder: Path, project: Project) -> Iterator[int]:
    """A folder below the store or our state, opened part by part without following a link."""
    root = project.store if project.store in folder.parents else project.state
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folder.relative_to(root).parts:
            inner = os.open(
                part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle
            )
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def _file(kind: str, path: Path, status: os.stat_result) -> Loose:
    return Loose(kind, path, status.st_size, status.st_size if status.st_nlink == 1 else 0)


def _objects(store: Path, strange: list[Fault]) -> Iterator[tuple[Path, os.stat_result]]:
    """Every object of the store; what is not one goes into ``strange``."""
    for prefix, status in _listed(store / "sha256", strange):
        if not _PREFIX.fullmatch(prefix.name) or not stat.S_ISDIR(status.st_mode):
            strange.append(
                Fault(
                    str(prefix),
                    _what(prefix, status),
                    _("a folder with two hex digits as its name"),
                )
            )
            continue
        for path, inner in _listed(prefix, strange):
            name = path.name
            if (
                SHA256_HEX.fullmatch(name)
                and name.startswith(prefix.name)
                and stat.S_ISREG(inner.st_mode)
            ):
                yield path, inner
            else:
                strange.append(
                    Fault(
                        str(path), _what(path, inner), _("a file that has its SHA-256 as its name")
                    )
                )


def _partials(folder: Path, wanted: Named, strange: list[Fault]) -> Iterator[Loose]:
    for path, status in _listed(folder, strange):
        download = _DOWNLOAD.fullmatch(path.name) or _CARRIED.fullmatch(path.name)
        if stat.S_ISREG(status.st_mode) and (download or _TEMPORARY.fullmatch(path.name)):
            if not (download and wanted.keeps(download[1])):
                yield _file(DOWNLOAD, path, status)
        elif stat.S_ISDIR(status.st_mode) and _WORK.fullmatch(path.name) and _ours(path):
            yield _folder(path)
        else:
            strange.append(Fault(str(path), _what(path, status), _("what sync or unpack makes")))


def _images(folder: Path, wanted: Named) -> Iterator[Loose]:
    """Folders of base images whose fetching was cut. Where they belong to a lock, the next sync takes them up."""
    for path, status in _listed(folder, []):
        name = path.name
        if (
            stat.S_ISDIR(status.st_mode)
            and SHA256_HEX.fullmatch(name)
            and name not in wanted.images
            and _ours(path)
        ):
            newest = max((s.st_mtime for s in _below(path)), default=status.st_mtime)
            if time.time() - max(newest, status.st_mtime) > BUSY_SECONDS:
                yield _folder(path)


def _listed(folder: Path, strange: list[Fault]) -> list[tuple[Path, os.stat_result]]:
    """What lies in a folder, by name; nothing for one that is not there. A link in place of the folder is strange."""
    if folder.is_symlink():
        strange.append(Fault(str(folder), _link(folder), _("a folder")))
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted((folder / e.name, e.stat(follow_symlinks=False)) for e in entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EACCES, errno.EPERM):
            strange.append(Fault(str(folder), unlistable(error), _("a folder")))
            return []
        raise


def _ours(folder: Path) -> bool:
    """Whether we may delete it: it carries our marker, or is empty (killed before, or just after, the marker)."""
    try:
        return (folder / MARKER).is_file() or not any(folder.iterdir())
    except OSError:
        return False


def _folder(folder: Path) -> Loose:
    found = [s for s in _below(folder) if stat.S_ISREG(s.st_mode)]
    return Loose(
        WORK,
        folder,
        sum(s.st_size for s in found),
        sum(s.st_size for s in found if s.st_nlink == 1),
    )


def _below(folder: Path) -> Iterator[os.stat_result]:
    """Everything below a folder; what cannot be looked into counts as nothing."""
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                yield os.lstat(Path(where) / name)
            except OSError:
                continue


def _what(path: Path, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return _link(path)
    if stat.S_ISDIR(status.st_mode):
        return _("is a folder that is not ours")
    if stat.S_ISREG(status.st_mode):
        return _("is a file that is not ours")
    return _("is no regular file")


def _link(path: Path) -> str:
    there = os.readlink(path)
    return _("is a symbolic link to {there}", there=there)


def _stays(reason: str | None) -> str:
    return _("cannot be removed: {reason}", reason=reason)
