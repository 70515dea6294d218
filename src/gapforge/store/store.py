"""The store: each verified object once, named by its SHA-256, shared by all presets.

    artifacts/.store/sha256/ab/<hex>    verified files, read-only
    artifacts/.store/partial/           unverified files; may be deleted while no sync runs

A file gets its final name by one rename, after its SHA-256 is known. ``artifacts/NAME`` holds hard
links.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.errors import Fault, FetchError, StorageError
from gapforge.base.files import (
    CHUNK,
    SHA256_HEX,
    content_mtime,
    open_regular,
    sha256_bytes,
    sha256_file,
)
from gapforge.base.flush import sync_files, sync_folder
from gapforge.base.i18n import _
from gapforge.base.parallel import on_all_cores
from gapforge.base.path_checks import SAFE_NAME, inside, unsafe_path_reason
from gapforge.base.process_locks import folder_in_use
from gapforge.base.project import Project
from gapforge.base.storage_errors import storage_errors
from gapforge.base.write_files import copy_file, remove_empty_folders, set_mode

# Files that people and unpack add to artifacts: the signature of the lock.
ADDED = frozenset({"lock.json.sig"})
OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class ViewResult:
    """A folder written by ``Store.view``.

    ``strangers`` are unexpected files in it. ``copies`` of its files, ``copied`` bytes, are not
    hard links and need their space twice.
    """

    strangers: tuple[str, ...] = ()
    copies: int = 0
    copied: int = 0


def preset_in_use(project: Project, preset: str, *, changes: bool) -> AbstractContextManager[None]:
    """Keep artifacts/NAME from being changed during the block, or with ``changes`` from being read.

    sync and unpack change it, and a build reads it from the verification on. Raise BusyError.
    """
    folder = project.artifacts_of(preset)
    return folder_in_use(
        folder, _("a command that uses the artifacts of {preset}", preset=preset), changes=changes
    )


class Store:
    """A content store in a folder. Methods raise StorageError if the file system refuses.

    One process at a time may write (it holds ``lock_file`` with ``files.exclusive``); any may read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock_file = folder / "lock"
        self._verified: set[str] = set()  # hashed by this process already
        self._guard = threading.Lock()
        self._partial: Path | None = None  # the folder, after it was created

    def path(self, sha256: str) -> Path:
        """Return the path of an object; it need not exist."""
        if not SHA256_HEX.fullmatch(sha256):
            raise ValueError(f"not a SHA-256: {sha256!r}")
        return self.folder / "sha256" / sha256[:2] / sha256

    def partial(self, key: str) -> Path:
        """Return the path for unverified bytes called ``key`` (SHA-256 or plain name)."""
        if self._partial is None:
            folder = self.folder / "partial"
            with storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            if folder.is_symlink():
                raise StorageError(
                    _("{folder} is a symbolic link", folder=folder),
                    hint=_("rm {folder!q}; then run the same command again", folder=folder),
                )
            self._partial = folder
        return (
            inside(self._partial, key)
            if "/" in key or not SAFE_NAME.fullmatch(key)
            else self._partial / key
        )

    def _new(self, kind: str) -> tuple[int, Path]:
        """Create a file in ``partial``. Return its handle and its path."""
        name = self.partial(kind)
        with storage_errors(name):
            handle, path = tempfile.mkstemp(prefix=f"{kind}-", dir=name.parent)
        return handle, Path(path)

    def has(self, sha256: str, size: int = -1) -> bool:
        """Return whether the object exists with ``size`` bytes (-1: any), unread."""
        try:
            return self.path(sha256).stat().st_size == size or (
                size < 0 and self.path(sha256).is_file()
            )
        except OSError:
            return False

    def intact(self, sha256: str, size: int = -1, on_bytes: OnBytes | None = None) -> bool:
        """Return whether the object exists with the right content; it is hashed once per process.

        A damaged object (by a bad disk, or written through a hard link) is removed, so that it is
        downloaded again. One whose content is right stays: ``size`` is what is wrong then.
        """
        if not self.has(sha256):
            return False
        with self._guard:
            verified = sha256 in self._verified
        if not verified:
            if sha256_file(self.path(sha256), on_bytes) != sha256:
                self.discard(sha256)
                return False
            with self._guard:
                self._verified.add(sha256)
        return self.has(sha256, size)

    def missing(
        self, wanted: Iterable[tuple[str, int]], *, jobs: int = 0, on_bytes: OnBytes | None = None
    ) -> set[str]:
        """Return the SHA-256 of those (sha256, size) pairs that are missing or damaged.

        ``jobs`` is the number of threads (0: all cores).
        """
        # The largest first, so that all cores end together.
        pairs = sorted(set(wanted), key=lambda pair: (-pair[1], pair[0]))
        found = on_all_cores(lambda pair: self.intact(pair[0], pair[1], on_bytes), pairs, jobs)
        return {pair[0] for pair, good in zip(pairs, found, strict=True) if not good}

    def discard(self, sha256: str) -> None:
        """Remove an object; nothing happens if it does not exist."""
        with self._guard:
            self._verified.discard(sha256)
        with storage_errors(self.path(sha256)):
            self.path(sha256).unlink(missing_ok=True)

    def add(self, file: Path, expected: str = "", *, known: str = "") -> str:
        """Move ``file`` (same file system) into the store and return its SHA-256.

        ``known`` is the SHA-256 that the caller computed while writing; without it the file is
        hashed here. Raises FetchError, and leaves ``file`` in place, on a checksum mismatch.
        """
        sha256 = known or sha256_file(file)
        if expected and sha256 != expected:
            raise FetchError(
                _("{file}: checksum mismatch", file=file.name),
                faults=[Fault(file.name, f"sha256 {sha256}", f"sha256 {expected}")],
            )
        target = self.path(sha256)
        with storage_errors(target):
            if self.intact(sha256, file.stat().st_size):
                file.unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                sync_files([file])
                _seal(file, sha256)
                os.replace(file, target)
                sync_folder(target.parent)
                with self._guard:
                    self._verified.add(sha256)
        return sha256

    def add_all(self, files: Mapping[Path, str]) -> None:
        """Move files whose SHA-256 the caller computed into the store.

        All are synced, then all get their names: far faster than ``add`` for many small files.
        """
        fresh = {}
        for file, sha256 in files.items():
            if self.intact(sha256, file.stat().st_size):
                file.unlink()
            else:
                fresh[file] = self.path(sha256)
        sync_files(list(fresh))
        folders = {target.parent for target in fresh.values()}
        for folder in folders:
            with storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
        for file, target in fresh.items():
            with storage_errors(target):
                _seal(file, target.name)
                os.replace(file, target)
        for folder in folders:
            sync_folder(folder)
        with self._guard:
            self._verified.update(target.name for target in fresh.values())

    def add_copy(self, file: Path, expected: str = "", on_bytes: OnBytes | None = None) -> str:
        """Copy a file into the store, and hash the copy; the original is only read."""
        handle, temporary = self._new("copy")
        try:
            with (
                storage_errors(temporary),
                os.fdopen(handle, "wb") as target,
                open_regular(file, follow=True) as source,
            ):
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    if on_bytes is not None:
                        on_bytes(len(chunk))
            try:
                return self.add(temporary, expected)
            except FetchError as error:
                faults = [Fault(str(file), fault.problem, fault.expected) for fault in error.faults]
                raise FetchError(_("{file}: checksum mismatch", file=file), faults=faults) from None
        finally:
            temporary.unlink(missing_ok=True)

    def add_bytes(self, data: bytes) -> str:
        """Put a small generated file into the store and return its SHA-256."""
        sha256 = sha256_bytes(data)
        handle, temporary = self._new("bytes")
        with storage_errors(temporary), os.fdopen(handle, "wb") as file:
            file.write(data)
        return self.add(temporary, sha256, known=sha256)

    def links(self) -> bool:
        """Return whether the file system supports hard links, by creating one."""
        handle, first = self._new("place")
        os.close(handle)
        second = first.with_name(f"{first.name}-2")
        with storage_errors(first):
            try:
                os.link(first, second)
            except OSError:
                return False
            else:
                second.unlink(missing_ok=True)
                return True
            finally:
                first.unlink(missing_ok=True)

    def place(self, sha256: str, target: Path) -> bool:
        """Make ``target`` the object's file. Return True for a hard link, False for a copy.

        ``target`` appears by one rename from ``partial``, so no temporary file is ever beside it.
        """
        source = self.path(sha256)
        try:
            if os.path.samefile(source, target) and not target.is_symlink():
                return True
        except OSError:
            pass
        temporary = self.partial(f"place-{secrets.token_hex(8)}")
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            linked = True
            try:
                try:
                    os.link(source, temporary)
                except OSError:  # hard links are not supported, or there are too many of them
                    linked = False
                    if _same_copy(source, target, sha256):
                        return False
                    copy_file(source, temporary)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        return linked

    def view(
        self, folder: Path, files: Mapping[str, str], previous: Collection[str] = (), last: str = ""
    ) -> ViewResult:
        """Make ``folder`` contain ``files`` (relative path -> SHA-256); report what else is in it.

        Paths in ``previous`` (of the last sync) that are no longer wanted are removed. Other files
        are not touched; verify reports them. The file ``last`` is placed after everything else: it
        tells the next run about ``previous``, so it must not change before those are removed. All
        names are on disk before ``last`` has its own.
        """
        copies = copied = 0
        changed: set[Path] = set()
        checked = ""  # the last folder known to be inside; checking takes longer than linking

        def place(path: str) -> None:
            nonlocal copies, copied, checked
            parent = path.rpartition("/")[0]
            known = parent == checked != "" and not unsafe_path_reason(path)
            target = folder / path if known else inside(folder, path)
            checked = parent
            changed.add(target.parent)
            if not self.place(files[path], target):
                copies, copied = copies + 1, copied + target.stat().st_size

        for path in sorted(set(files) - {last}):
            place(path)
        checked = ""
        for path in sorted(set(previous) - set(files)):
            _remove_with_empty_folders(folder, path)
        if last in files:
            for parent in changed:
                sync_folder(parent)
            place(last)
            sync_folder(folder)
        strangers = _files_and_links(folder) - set(files) - ADDED
        return ViewResult(tuple(sorted(strangers)), copies, copied)


def _seal(file: Path, sha256: str) -> None:
    """Give a file the mode and time of an object. A link in its place is refused."""
    with open_regular(file) as opened:
        set_mode(opened.fileno(), 0o444)
        moment = content_mtime(sha256)
        os.utime(opened.fileno(), (moment, moment))


def _remove_with_empty_folders(folder: Path, path: str) -> None:
    stale = inside(folder, path)
    with storage_errors(stale):
        if stale.is_symlink() or stale.is_file():
            stale.unlink()
        remove_empty_folders(stale, folder)


def _files_and_links(folder: Path) -> set[str]:
    """Return the relative paths of everything below ``folder`` except folders."""
    found: set[str] = set()
    for where, folders, names in os.walk(folder):
        paths = [os.path.join(where, name) for name in names]
        paths += filter(os.path.islink, (os.path.join(where, name) for name in folders))
        found.update(os.path.relpath(path, folder) for path in paths)
    return found


def _same_copy(source: Path, target: Path, sha256: str) -> bool:
    """Return whether ``target`` is a copy with this content. Equal sizes are hashed."""
    try:
        if target.is_symlink() or target.stat().st_size != source.stat().st_size:
            return False
    except OSError:
        return False
    return sha256_file(target) == sha256
