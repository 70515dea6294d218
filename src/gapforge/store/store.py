"""The store: every verified byte once, by SHA-256, shared by all presets.

    artifacts/.store/sha256/ab/<hex>    verified files, read-only
    artifacts/.store/partial/           what is not verified yet; may be deleted when no sync runs

A file gets its final name only after its hash is known, by one rename. ``artifacts/NAME`` holds hard links.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.errors import Fault, FetchError
from gapforge.base.files import (
    CHUNK,
    SAFE_NAME,
    SHA256_HEX,
    content_mtime,
    inside,
    sha256_bytes,
    sha256_file,
    storage_errors,
    sync_files,
    sync_folder,
    unsafe_path_reason,
)
from gapforge.base.i18n import _
from gapforge.base.parallel import on_all_cores

BESIDE = frozenset(
    {"lock.json.sig"}
)  # what people and unpack put into a view besides: the signature of its lock
OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Laid:
    """A folder that ``view`` made. ``strangers`` lie in it and are not the view's. ``copies`` of its files, ``copied``
    bytes, are no hard links, so what they hold takes its room twice."""

    strangers: tuple[str, ...] = ()
    copies: int = 0
    copied: int = 0


class Store:
    """A content store in a folder. Methods raise StorageError for what the disk refuses.

    One process at a time may write (sync holds ``lock_file`` with ``files.exclusive``); reading is free.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock_file = folder / "lock"
        self._verified: set[str] = set()  # hashed by this process; no need to hash again
        self._guard = threading.Lock()
        self._partial: Path | None = None  # the folder, once it was made

    def path(self, sha256: str) -> Path:
        """Where the file with this hash is, or would be."""
        if not SHA256_HEX.fullmatch(sha256):
            raise ValueError(f"not a SHA-256: {sha256!r}")
        return self.folder / "sha256" / sha256[:2] / sha256

    def partial(self, key: str) -> Path:
        """The place for unverified bytes called ``key`` (a hash or plain name); its folder exists."""
        if self._partial is None:
            folder = self.folder / "partial"
            with storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            self._partial = folder
        return (
            inside(self._partial, key)
            if "/" in key or not SAFE_NAME.fullmatch(key)
            else self._partial / key
        )

    def has(self, sha256: str, size: int = -1) -> bool:
        """Whether the file is there, and of ``size`` bytes (-1: any). Looks at no content: see ``intact``."""
        try:
            return self.path(sha256).stat().st_size == size or (
                size < 0 and self.path(sha256).is_file()
            )
        except OSError:
            return False

    def intact(self, sha256: str, size: int = -1, on_bytes: OnBytes | None = None) -> bool:
        """Whether the file is there with the right content; hashes it once a process.

        A file whose content is wrong (a bad disk, somebody wrote through a hard link) is removed, so
        that it is fetched again.
        """
        if not self.has(sha256):
            return False
        with self._guard:
            if sha256 in self._verified:
                return True
        good = self.has(sha256, size) and sha256_file(self.path(sha256), on_bytes) == sha256
        if not good:
            self.discard(sha256)
            return False
        with self._guard:
            self._verified.add(sha256)
        return True

    def missing(
        self, wanted: Iterable[tuple[str, int]], *, jobs: int = 0, on_bytes: OnBytes | None = None
    ) -> set[str]:
        """The hashes out of (sha256, size) pairs that are absent or damaged; hashes on ``jobs`` threads (0: all cores)."""
        pairs = sorted(
            set(wanted), key=lambda pair: (-pair[1], pair[0])
        )  # large first: cores end together
        found = on_all_cores(lambda pair: self.intact(pair[0], pair[1], on_bytes), pairs, jobs)
        return {pair[0] for pair, good in zip(pairs, found, strict=True) if not good}

    def discard(self, sha256: str) -> None:
        """Remove one file from the store; no error when it is not there."""
        with self._guard:
            self._verified.discard(sha256)
        with storage_errors(self.path(sha256)):
            self.path(sha256).unlink(missing_ok=True)

    def add(self, file: Path, expected: str = "", *, known: str = "") -> str:
        """Move ``file`` (same file system) into the store and return its SHA-256.

        ``known`` is the hash that the caller computed while writing it; without it the file is hashed
        here. Raises FetchError, and leaves ``file`` where it is, when the hash is not ``expected``.
        """
        sha256 = known or sha256_file(file)
        if expected and sha256 != expected:
            raise FetchError(
                _("{name} is not the expected file", name=file.name),
                faults=[
                    Fault(file.name, _("has sha256 {sha256}", sha256=sha256), f"sha256 {expected}")
                ],
            )
        target = self.path(sha256)
        with storage_errors(target):
            if self.intact(sha256, file.stat().st_size):
                file.unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
                os.chmod(file, 0o444)
                moment = content_mtime(sha256)
                os.utime(file, (moment, moment))
                os.replace(file, target)
                sync_folder(target.parent)
                with self._guard:
                    self._verified.add(sha256)
        return sha256

    def add_all(self, files: Mapping[Path, str]) -> None:
        """Move files whose SHA-256 the caller computed into the store: all are synced, then all get their names.

        Far faster than ``add`` for many small files, since the disk is waited for once.
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
                os.chmod(file, 0o444)
                moment = content_mtime(target.name)
                os.utime(file, (moment, moment))
                os.replace(file, target)
        for folder in folders:
            sync_folder(folder)
        with self._guard:
            self._verified.update(target.name for target in fresh.values())

    def add_copy(self, file: Path, expected: str = "", on_bytes: OnBytes | None = None) -> str:
        """Copy a file that is not ours into the store, hashing the copy; the original is only read."""
        temporary = self.partial(f"copy-{os.getpid()}-{threading.get_ident()}")
        try:
            with (
                storage_errors(temporary),
                open(file, "rb") as source,
                open(temporary, "wb") as target,
            ):
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    if on_bytes is not None:
                        on_bytes(len(chunk))
            try:
                return self.add(temporary, expected)
            except FetchError as error:
                faults = [Fault(str(file), fault.problem, fault.expected) for fault in error.faults]
                raise FetchError(
                    _("{file} is not the expected file", file=file), faults=faults
                ) from None
        finally:
            temporary.unlink(missing_ok=True)

    def add_bytes(self, data: bytes) -> str:
        """Put a small generated file into the store and return its SHA-256."""
        sha256 = sha256_bytes(data)
        temporary = self.partial(f"bytes-{os.getpid()}-{threading.get_ident()}")
        with storage_errors(temporary):
            temporary.write_bytes(data)
        return self.add(temporary, sha256, known=sha256)

    def links(self) -> bool:
        """Whether this disk makes hard links (exFAT, FAT32 and some network disks make none), found by making one."""
        first, second = (self.partial(f"place-{os.getpid()}-{n}") for n in (1, 2))
        with storage_errors(first):
            try:
                second.unlink(missing_ok=True)
                first.touch()
                try:
                    os.link(first, second)
                except OSError:
                    return False
                return True
            finally:
                first.unlink(missing_ok=True)
                second.unlink(missing_ok=True)

    def place(self, sha256: str, target: Path) -> bool:
        """Make ``target`` the file with this hash. True when it is a hard link, False for a copy, where links cannot be.

        ``target`` appears by one rename out of ``partial``, so nothing half-made is ever beside it.
        """
        source = self.path(sha256)
        try:
            if os.path.samefile(source, target) and not target.is_symlink():
                return True
        except OSError:
            pass
        temporary = self.partial(f"place-{os.getpid()}")
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            linked = True
            try:
                try:
                    os.link(source, temporary)
                except (
                    OSError
                ):  # no hard links here (exFAT, some network disks), or too many of them
                    linked = False
                    if _same_copy(source, target, sha256):
                        return False
                    shutil.copy2(source, temporary)
                    sync_files(
                        [temporary]
                    )  # after a power cut a name must not stand for bytes that never came
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        return linked

    def view(
        self, folder: Path, files: Mapping[str, str], previous: Collection[str] = (), last: str = ""
    ) -> Laid:
        """Make ``folder`` hold ``files`` (relative path -> SHA-256), and tell what else lies in it.

        Paths in ``previous`` (what the last sync put there) that are not wanted any more are removed.
        Files that we never wrote are not touched; verify reports them as faults. The file ``last`` is placed when
        all else is done: what tells the next run of ``previous`` must not change while any of that is left.
        """
        copies = copied = 0
        looked_at = (
            ""  # the last folder that was found to lie inside; looking takes longer than linking
        )

        def place(path: str) -> None:
            nonlocal copies, copied, looked_at
            beside = path.rpartition("/")[0]
            known = beside == looked_at != "" and not unsafe_path_reason(path)
            target = folder / path if known else inside(folder, path)
            looked_at = beside
            if not self.place(files[path], target):
                copies, copied = copies + 1, copied + target.stat().st_size

        for path in sorted(set(files) - {last}):
            place(path)
        looked_at = ""
        for path in sorted(set(previous) - set(files)):
            stale = inside(folder, path)
            with storage_errors(stale):
                if stale.is_symlink() or stale.is_file():
                    stale.unlink()
                for parent in stale.parents:
                    if parent == folder or not parent.is_dir() or any(parent.iterdir()):
                        break
                    parent.rmdir()
        if last in files:
            place(last)
        found: set[str] = set()
        for where, below, names in os.walk(folder):
            found.update(os.path.join(where, name) for name in names)
            found.update(
                path
                for path in (os.path.join(where, name) for name in below)
                if os.path.islink(path)
            )
        strangers = {os.path.relpath(path, folder) for path in found} - set(files) - BESIDE
        return Laid(tuple(sorted(strangers)), copies, copied)


def _same_copy(source: Path, target: Path, sha256: str) -> bool:
    """Whether ``target`` already is a copy with this content (compared by hash only when the size fits)."""
    try:
        if target.is_symlink() or target.stat().st_size != source.stat().st_size:
            return False
    except OSError:
        return False
    return sha256_file(target) == sha256
