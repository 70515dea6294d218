"""Find and remove what nothing in the store needs.

That is objects that neither a lock nor an unfinished import names, and what killed runs left. If a
lock or the record of an import cannot be read, gc stops: what it names is then unknown. Files
with a foreign name or type are reported and stay. Links are not followed below the store, and files
are removed relative to an open folder, so replacing a folder by a link meanwhile has no effect.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.errors import Fault, LockError, StorageError
from gapforge.base.files import SHA256_HEX, sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.marked_folders import MARKER, remove_folder
from gapforge.base.process_locks import exclusive
from gapforge.base.project import Project
from gapforge.base.system_errors import os_reason, unexaminable, unlistable
from gapforge.base.text_layout import printable
from gapforge.base.units import HOUR
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.lock import LOCK_FILE
from gapforge.model.names import PRESET_NAME
from gapforge.store import incomplete_bundles, sha256sums
from gapforge.store.incomplete_bundles import BUNDLE_PART, UnfinishedImport
from gapforge.store.store import Store

LOCK_SUFFIX = ".lock.json"
# A base image's folder that changed since then may belong to a sync into another artifacts folder.
BUSY_SECONDS = HOUR
_PREFIX = re.compile(r"[0-9a-f]{2}")
_DOWNLOAD = re.compile(r"([0-9a-f]{64}|url-[0-9a-f]{40})\.(?:part|json)")
_TEMPORARY = re.compile(r"\.?(?:copy|bytes|place)-[a-z0-9_.-]+")
_WORK = re.compile(r"work-[0-9]+")
OBJECT, DOWNLOAD, WORK = "object", "download", "work"

OnDone = Callable[[int], None]


@dataclass(frozen=True)
class Unreferenced:
    """A file or folder that nothing needs.

    ``kind`` is "object" (verified), "download" (not verified yet) or "work" (a folder of a killed
    sync). ``size`` is in bytes. ``freed`` is what removal gives back, less than ``size`` if other
    hard links remain.
    """

    kind: str
    path: Path
    size: int
    freed: int


@dataclass(frozen=True)
class IncompleteBundle:
    """An incomplete bundle, and the ``count`` objects of ``size`` bytes that stay for it alone."""

    bundle: str
    presets: tuple[str, ...]
    count: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What gc would remove, and what it only reports.

    ``unreferenced`` is sorted by size, largest first. ``foreign`` are files in the store that are
    not gapforge's, ``orphans`` names of artifacts folders without a preset, ``unfinished_syncs``
    presets whose sync was interrupted: no lock names its downloads yet. ``kept`` counts the objects
    of locks and ``incomplete_bundles``.
    """

    unreferenced: tuple[Unreferenced, ...] = ()
    foreign: tuple[Fault, ...] = ()
    orphans: tuple[str, ...] = ()
    unfinished_syncs: tuple[str, ...] = ()
    incomplete_bundles: tuple[IncompleteBundle, ...] = ()
    kept: int = 0
    kept_bytes: int = 0

    def of(self, kind: str) -> tuple[Unreferenced, ...]:
        """Return what is unreferenced of one kind."""
        return tuple(item for item in self.unreferenced if item.kind == kind)

    @property
    def size(self) -> int:
        """Bytes of all that is unreferenced."""
        return sum(item.size for item in self.unreferenced)

    @property
    def freed(self) -> int:
        """Bytes that removal gives back to the disk."""
        return sum(item.freed for item in self.unreferenced)


@dataclass(frozen=True)
class References:
    """What all locks name: files by SHA-256, and base images by manifest digest (hex)."""

    files: frozenset[str]
    images: frozenset[str]
    imports: tuple[UnfinishedImport, ...] = ()

    def include(self, sha256: str) -> bool:
        """Return whether a file with this content must stay."""
        return sha256 in self.files or any(sha256 in record.objects for record in self.imports)


@contextmanager
def exclude_sync(project: Project) -> Iterator[None]:
    """Prevent every sync while the block runs. Raises BusyError if one is running."""
    if not project.store.is_dir():
        yield  # nothing to protect, and taking the lock would create a store
        return
    with exclusive(Store(project.store).lock_file, f"{project.store}"):
        yield


def find_references(project: Project, drop: str = "") -> References:
    """Return what the locks in presets/ and artifacts/*/ name, and all imports except of ``drop``.

    Raises LockError, with all faults, unless every lock and record can be read.
    """
    files: set[str] = set()
    images: set[str] = set()
    faults: list[Fault] = []
    for file in _lock_files(project, faults):
        try:
            lock, data = locks.read(file, shown=str(file))
        except LockError as error:
            faults += error.faults or (Fault(str(file), error.message),)
            continue
        digest = sha256_bytes(data)
        wanted = {entry.path: entry.sha256 for entry in lock.entries}
        files.update(wanted.values())
        # Two files of artifacts that no lock lists: the lock itself, and SHA256SUMS of all others.
        wanted[LOCK_FILE] = digest
        files.update((digest, sha256_bytes(sha256sums.render(wanted))))
        images.update(
            image.manifest_digest.removeprefix("sha256:") for image in lock.images.values()
        )
    if faults:
        raise LockError(
            _("not every lock can be read, so it is unknown what to keep; nothing was deleted"),
            faults=faults,
            hint=_(
                "repair the files above (git checkout -- presets/; ./deps_sync.sh NAME; or "
                "copy artifacts/NAME again), then: ./gapforge gc"
            ),
        )
    return References(frozenset(files), frozenset(images), _unfinished_imports(project, drop))


def _unfinished_imports(project: Project, drop: str) -> tuple[UnfinishedImport, ...]:
    found, faults = incomplete_bundles.read_all(project.store)
    dropped = str(incomplete_bundles.record_file(project.store, drop))
    faults = [fault for fault in faults if fault.where != dropped]
    if not faults:
        return tuple(record for record in found if record.bundle != drop)
    names = [Path(fault.where).name for fault in faults]
    damaged = next(filter(None, map(incomplete_bundles.FILE.fullmatch, names)), None)
    if damaged is not None:
        hint = _(
            "import the bundle's volumes again: ./gapforge unpack FOLDER; or give the bundle up: "
            "./gapforge gc --drop {bundle!q}",
            bundle=damaged[1],
        )
    else:
        hint = _(
            "look at it (ls -ld {path!q}) and move it away, then import the bundle's volumes "
            "again: ./gapforge unpack FOLDER",
            path=faults[0].where,
        )
    raise LockError(
        _(
            "not every record of an unfinished import can be read, so it is unknown what to "
            "keep; nothing was deleted"
        ),
        faults=faults,
        hint=hint,
    )


def _lock_files(project: Project, faults: list[Fault]) -> list[Path]:
    """Return every lock file; a place of a lock that cannot be read becomes a fault."""
    if not project.presets.is_dir():
        expected = _("the presets and their locks")
        faults.append(Fault(str(project.presets), _("not a folder"), expected))
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
    found += [folder / LOCK_FILE for folder in artifacts_folders(project, faults)]
    regular = []
    for file in found:
        try:
            os.lstat(file)
        except FileNotFoundError:
            continue  # artifacts without a lock, or being copied now
        except OSError as error:
            faults.append(Fault(str(file), unexaminable(error)))
            continue
        try:
            if not stat.S_ISREG(os.stat(file).st_mode):  # reading a pipe would block
                faults.append(Fault(str(file), _("not a regular file")))
                continue
        except OSError as error:
            faults.append(Fault(str(file), unexaminable(error)))
            continue
        regular.append(file)
    return regular


def artifacts_folders(project: Project, faults: list[Fault]) -> list[Path]:
    """Return the folders in artifacts that may belong to a preset, sorted.

    A preset's name that is a dangling link (to a disk that is not mounted) becomes a fault. Other
    unreadable folders, such as lost+found, are skipped.
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
                problem = _("symbolic link to {target}, which is missing", target=os.readlink(path))
                faults.append(Fault(str(path), problem))
            elif path.is_dir() and (
                PRESET_NAME.fullmatch(name) or os.access(path, os.R_OK | os.X_OK)
            ):
                found.append(path)
        except OSError as error:
            faults.append(Fault(str(path), unexaminable(error)))
    return found


def find_garbage(project: Project, drop: str = "") -> Garbage:
    """Return what gc would remove now if the unfinished import of bundle ``drop`` is given up.

    Call it within ``exclude_sync``. Raises LockError unless every lock can be read.
    """
    references = find_references(project, drop)
    known = set(presets.names(project.presets))
    orphans = [
        path.name
        for path in artifacts_folders(project, [])
        if path.name not in known and PRESET_NAME.fullmatch(path.name)
    ]
    journals = project.state / "sync"
    unreferenced: list[Unreferenced] = []
    foreign: list[Fault] = []
    kept: dict[str, int] = {}
    for path, status in _objects(project.store, foreign):
        if references.include(path.name):
            kept[path.name] = status.st_size
        else:
            unreferenced.append(_file(OBJECT, path, status))
    if project.store.is_dir():
        unreferenced += _partial_files(project.store / "partial", references, foreign)
        unreferenced += _image_folders(project.state / "images", references)
        expected = _("the record of an unfinished import")
        foreign += [
            Fault(str(path), _describe(path, status), expected)
            for path, status in _listed(project.store / "imports", foreign)
            if not incomplete_bundles.FILE.fullmatch(path.name)
        ]
    unreferenced.sort(key=lambda item: (-item.size, str(item.path)))
    return Garbage(
        unreferenced=tuple(unreferenced),
        foreign=tuple(Fault(printable(f.where), printable(f.problem), f.expected) for f in foreign),
        orphans=tuple(orphans),
        unfinished_syncs=tuple(sorted(file.stem for file in journals.glob("*.json"))),
        incomplete_bundles=tuple(
            _incomplete_bundle(record, references, kept) for record in references.imports
        ),
        kept=len(kept),
        kept_bytes=sum(kept.values()),
    )


def _incomplete_bundle(
    record: UnfinishedImport, references: References, kept: dict[str, int]
) -> IncompleteBundle:
    sizes = [kept[sha256] for sha256 in record.objects - references.files if sha256 in kept]
    return IncompleteBundle(record.bundle, record.presets, len(sizes), sum(sizes))


def remove_garbage(project: Project, garbage: Garbage, on_done: OnDone | None = None) -> int:
    """Remove what is unreferenced, and return the bytes that the disk got back.

    Call it within ``exclude_sync``. Locks are read again: what one names by now stays. ``on_done``
    receives the bytes of each removed item. An interrupted run can be continued by another.
    Raises StorageError with everything that could not be removed.
    """
    references = find_references(project)
    freed, faults = 0, []
    folders: dict[Path, list[Unreferenced]] = {}
    for item in garbage.unreferenced:
        part = BUNDLE_PART.fullmatch(item.path.name)
        key = part[1] if part else item.path.name.partition(".")[0]
        if not references.include(key) and key not in references.images:
            folders.setdefault(item.path.parent, []).append(item)
    for folder, items in sorted(folders.items()):
        try:
            with _open_folder(folder, project) as handle:
                for item in items:
                    try:
                        _remove(item, handle)
                    except FileNotFoundError:
                        continue
                    except (OSError, StorageError) as error:
                        faults.append(_not_removed(item, error))
                        continue
                    freed += item.freed
                    if on_done is not None:
                        on_done(item.size)
        except OSError as error:
            faults += [_not_removed(item, error) for item in items]
            continue
        if folder.parent.name == "sha256":
            with suppress(OSError):  # not empty
                folder.rmdir()
    if faults:
        raise StorageError(
            _(
                "{count} of {total} could not be removed",
                count=len(faults),
                total=len(garbage.unreferenced),
            ),
            faults=sorted(faults),
            hint=_("look who owns them (ls -la); then: ./gapforge gc --yes"),
        )
    return freed


def _not_removed(item: Unreferenced, error: OSError | StorageError) -> Fault:
    why = os_reason(error) if isinstance(error, OSError) else error.message
    return Fault(str(item.path), _("cannot be removed: {why}", why=why))


def _remove(item: Unreferenced, handle: int) -> None:
    if item.kind != WORK:
        if not stat.S_ISREG(os.stat(item.path.name, dir_fd=handle, follow_symlinks=False).st_mode):
            raise StorageError(_("no longer a regular file"))
        os.unlink(item.path.name, dir_fd=handle)
    elif (item.path / MARKER).exists():
        remove_folder(item.path)
    else:
        os.rmdir(item.path.name, dir_fd=handle)


@contextmanager
def _open_folder(folder: Path, project: Project) -> Iterator[int]:
    """Open a folder below the store or the state, part by part, without following a link."""
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


def _file(kind: str, path: Path, status: os.stat_result) -> Unreferenced:
    return Unreferenced(kind, path, status.st_size, status.st_size if status.st_nlink == 1 else 0)


def _objects(store: Path, foreign: list[Fault]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every object of the store; add everything else to ``foreign``."""
    for prefix, status in _listed(store / "sha256", foreign):
        if not _PREFIX.fullmatch(prefix.name) or not stat.S_ISDIR(status.st_mode):
            expected = _("a folder with two hex digits as its name")
            foreign.append(Fault(str(prefix), _describe(prefix, status), expected))
            continue
        for path, inner in _listed(prefix, foreign):
            name = path.name
            if (
                SHA256_HEX.fullmatch(name)
                and name.startswith(prefix.name)
                and stat.S_ISREG(inner.st_mode)
            ):
                yield path, inner
            else:
                expected = _("a file named by its SHA-256")
                foreign.append(Fault(str(path), _describe(path, inner), expected))


def _partial_files(
    folder: Path, references: References, foreign: list[Fault]
) -> Iterator[Unreferenced]:
    for path, status in _listed(folder, foreign):
        download = _DOWNLOAD.fullmatch(path.name) or BUNDLE_PART.fullmatch(path.name)
        if stat.S_ISREG(status.st_mode) and (download or _TEMPORARY.fullmatch(path.name)):
            if not (download and references.include(download[1])):
                yield _file(DOWNLOAD, path, status)
        elif stat.S_ISDIR(status.st_mode) and _WORK.fullmatch(path.name) and _is_ours(path):
            yield _folder(path)
        else:
            expected = _("a file of sync or unpack")
            foreign.append(Fault(str(path), _describe(path, status), expected))


def _image_folders(folder: Path, references: References) -> Iterator[Unreferenced]:
    """Yield folders of interrupted base image downloads that no sync will continue."""
    for path, status in _listed(folder, []):
        name = path.name
        if (
            stat.S_ISDIR(status.st_mode)
            and SHA256_HEX.fullmatch(name)
            and name not in references.images
            and _is_ours(path)
        ):
            newest = max((inner.st_mtime for inner in _below(path)), default=status.st_mtime)
            if time.time() - max(newest, status.st_mtime) > BUSY_SECONDS:
                yield _folder(path)


def _listed(folder: Path, foreign: list[Fault]) -> list[tuple[Path, os.stat_result]]:
    """Return a folder's content by name, nothing if it does not exist. A link is foreign."""
    if folder.is_symlink():
        foreign.append(Fault(str(folder), _describe_link(folder), _("a folder")))
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted((folder / e.name, e.stat(follow_symlinks=False)) for e in entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EACCES, errno.EPERM):
            foreign.append(Fault(str(folder), unlistable(error), _("a folder")))
            return []
        raise


def _is_ours(folder: Path) -> bool:
    """Return whether a folder may be deleted: it has our marker, or is still empty."""
    try:
        return (folder / MARKER).is_file() or not any(folder.iterdir())
    except OSError:
        return False


def _folder(folder: Path) -> Unreferenced:
    files = [status for status in _below(folder) if stat.S_ISREG(status.st_mode)]
    freed = sum(status.st_size for status in files if status.st_nlink == 1)
    return Unreferenced(WORK, folder, sum(status.st_size for status in files), freed)


def _below(folder: Path) -> Iterator[os.stat_result]:
    """Yield everything below a folder; what cannot be examined counts as nothing."""
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with suppress(OSError):
                yield os.lstat(Path(where) / name)


def _describe(path: Path, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return _describe_link(path)
    if stat.S_ISDIR(status.st_mode):
        return _("not a folder of gapforge")
    if stat.S_ISREG(status.st_mode):
        return _("not a file of gapforge")
    return _("not a regular file")


def _describe_link(path: Path) -> str:
    return _("symbolic link to {target}", target=os.readlink(path))
