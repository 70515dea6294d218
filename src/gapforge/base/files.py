"""Rooted paths, atomic writes, checksums, marked folders, lock files and clear storage errors."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import io
import json
import os
import pwd
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from gapforge.base import limits
from gapforge.base.errors import BusyError, StorageError
from gapforge.base.i18n import N_, _
from gapforge.base.parallel import on_all_cores, raise_if_stopped
from gapforge.base.system_errors import os_reason
from gapforge.base.text import printable

CHUNK = 1 << 20  # bytes read at a time; hashing speed is flat above this
MARKER = ".gapforge-folder"  # gapforge may delete a folder that contains this file
MOUNTS = Path("/proc/self/mountinfo")  # names may have any bytes: read it with surrogateescape
# Errors of os.link() across devices, and where there are no or too many hard links.
# FUSE file systems without an operation say ENOSYS.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES, errno.ENOSYS)
_NO_MODE = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS)
_SYNCS = 16  # parallel fsync calls: the disk flushes once for all that wait
# File systems whose syncfs() reaches the disk. That of FUSE, for example, does not.
_SYNCFS = {"ext2", "ext3", "ext4", "xfs", "f2fs", "vfat", "exfat", "tmpfs"}
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~:@=-]*")
SHA256_HEX = re.compile(r"[0-9a-f]{64}")
_NOT_IN_PATHS = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")


def unsafe_path_reason(path: str) -> str:
    """Return why a relative path from an untrusted file is unsafe, or "" if it is safe."""
    if not path or _NOT_IN_PATHS.search(path):
        return _("empty, or contains a control character or a backslash")
    if path.startswith("/"):
        return _("an absolute path; expected a path inside the folder")
    parts = path.split("/")
    if ".." in parts:
        return _("contains '..'; expected a path inside the folder")
    return _too_long(path, parts)


def _too_long(path: str, parts: Sequence[str]) -> str:
    """Return which limit of file systems a path exceeds, or ""."""
    if len(parts) > limits.PATH_DEPTH:
        return _(
            "{count} folders deep; the limit is {most}", count=len(parts), most=limits.PATH_DEPTH
        )
    try:
        sizes = [len(os.fsencode(part)) for part in parts]
    except UnicodeEncodeError:
        return _("contains half of a Unicode character (\\ud800 to \\udfff)")
    if max(sizes) > limits.NAME_BYTES:
        return _(
            "a name of {count} bytes; the limit is {most}", count=max(sizes), most=limits.NAME_BYTES
        )
    if len(os.fsencode(path)) > limits.PATH_BYTES:
        return _(
            "{count} bytes long; the limit is {most}",
            count=len(os.fsencode(path)),
            most=limits.PATH_BYTES,
        )
    return ""


def given_path(text: str | Path) -> Path:
    """Return a path that a person wrote: ``~`` and ``~user`` become home folders that exist.

    Path.expanduser fails for a user whom the machine does not know.
    """
    return Path(os.path.expanduser(text))


def real_path(path: Path) -> Path:
    """Return the absolute path with every symbolic link followed. It need not exist.

    Raise StorageError with the path for links that form a loop. (Path.resolve raises RuntimeError,
    or nothing, depending on the version of Python.)
    """
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise storage_error(error, path) from None
    return Path(os.path.realpath(path))


def inside(root: Path, relative: str) -> Path:
    """Return ``root/relative``. Raise StorageError if it is outside ``root``, also by a link."""
    reason, hint = unsafe_path_reason(relative), ""
    target = root / relative
    if not reason:
        resolved_root = real_path(root)
        resolved = real_path(target.parent) / target.name
        if resolved != resolved_root and resolved_root not in resolved.parents:
            reason = _("leads outside {root} through a symbolic link", root=root)
            hint = _(
                "replace the link by a folder, and run the same command again: ls -ld {folder!q}",
                folder=target.parent,
            )
    if reason:
        raise StorageError(
            _("unsafe path {path!r} in {root}: {reason}", path=relative, root=root, reason=reason),
            hint=hint,
        )
    return target


class UnsuitableFile(OSError):
    """A path does not name a regular file, or the file is larger than its limit.

    ``strerror`` is the reason, in the reader's language.
    """

    def __init__(self, path: Path, reason: str) -> None:
        """Make the error of a file with its reason."""
        super().__init__(errno.EINVAL, reason, str(path))


@contextmanager
def open_regular(path: Path, *, follow: bool = False) -> Iterator[io.FileIO]:
    """Open a regular file for reading, unbuffered.

    A pipe or device is refused without being opened, which could block or have effects of its own.
    A symbolic link is refused unless ``follow``, for files that belong to the user. Raise
    UnsuitableFile, or another OSError.
    """
    mode = (os.stat if follow else os.lstat)(path).st_mode
    if stat.S_ISLNK(mode):
        raise UnsuitableFile(path, _("symbolic link instead of a regular file"))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise UnsuitableFile(path, _("not a regular file"))
    # The name may stand for something else by now: do not follow it, and do not wait.
    no_link = 0 if follow else os.O_NOFOLLOW
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | no_link)
    with open(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnsuitableFile(path, _("not a regular file"))
        yield file


@contextmanager
def open_buffered(path: Path, *, follow: bool = False) -> Iterator[io.BufferedReader]:
    """Open a regular file as ``open_regular`` does, for code that expects complete reads."""
    with open_regular(path, follow=follow) as raw:
        file: io.BufferedReader = io.BufferedReader(raw)
        yield file


def read_regular(path: Path, most: int, *, follow: bool = False) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes.

    ``follow`` and the errors are those of ``open_regular``; a larger file is an UnsuitableFile.
    """
    with open_regular(path, follow=follow) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise UnsuitableFile(path, _("more than {most} bytes", most=most))
        data = bytearray()  # the kernel states no size for files of its own, and others may grow
        while len(data) <= most and (chunk := file.read(min(CHUNK, most + 1 - len(data)))):
            data += chunk
    if len(data) > most:
        raise UnsuitableFile(path, _("more than {most} bytes", most=most))
    return bytes(data)


def system_text(path: Path, errors: str = "replace") -> str:
    """Return a text file of the kernel or the distribution. Raise OSError."""
    return read_regular(path, limits.SYSTEM, follow=True).decode("utf-8", errors)


def contains(path: Path, data: bytes) -> bool:
    """Return whether ``path`` is a regular file, no link to one, with exactly this content."""
    try:
        return read_regular(path, len(data)) == data
    except OSError:
        return False


def sha256_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return the file's SHA-256 in lower-case hex. ``on_bytes`` gets the size of each chunk."""
    with open_regular(path, follow=True) as file:
        return sha256_open(file, on_bytes)


def sha256_open(
    file: io.RawIOBase | io.FileIO, on_bytes: Callable[[int], None] | None = None
) -> str:
    """Return the SHA-256 of an unbuffered binary file from its position on, in lower-case hex."""
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := file.readinto(buffer):
        raise_if_stopped()
        digest.update(view[:count])
        if on_bytes is not None:
            on_bytes(count)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def content_mtime(sha256: str) -> int:
    """Return the modification time, in seconds, of a file with this content in a build context.

    BuildKit does not read a file again whose size and time are unchanged, so the time depends on
    the content.
    """
    return 10**9 + int(sha256[:8], 16) % (5 * 10**8)


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, indented, UTF-8, with a newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def new_file(target: Path, suffix: str = ".tmp") -> tuple[int, Path]:
    """Create a file beside ``target`` for writing. Return its handle and its path.

    Its name is random and it is created exclusively, so that nobody can plant a link or a file of
    the user's under it. Only this user can open it.
    """
    handle, name = tempfile.mkstemp(prefix=_prefix(target), suffix=suffix, dir=target.parent)
    return handle, Path(name)


def publish(handle: int, temporary: Path, target: Path, mode: int = 0o644) -> None:
    """Give a file of ``new_file`` its final name, after its bytes are on the disk.

    Raise StorageError if ``temporary`` is no longer the name of that file.
    """
    with storage_errors(target):
        set_mode(handle, mode)
        os.fsync(handle)
        if not os.path.samestat(os.fstat(handle), os.lstat(temporary)):
            raise StorageError(
                _("{file} was replaced while it was written", file=temporary),
                hint=_("ls -la {folder!q}; somebody else writes into it", folder=target.parent),
            )
        os.replace(temporary, target)
        sync_folder(target.parent)


def set_mode(handle: int, mode: int) -> None:
    """Set the mode of an open file, if its file system has modes (FAT has none)."""
    try:
        os.fchmod(handle, mode)
    except OSError as error:
        if error.errno not in _NO_MODE:
            raise


def _prefix(target: Path) -> str:
    """Return how temporary names for ``target`` begin, short enough for a file system."""
    return f".{os.fsencode(target.name)[:200].decode('utf-8', 'ignore')}."


def open_own(path: Path) -> int:
    """Open a file that several runs write, or create it. Return a handle for reading and writing.

    What is not a regular file with one name is removed first: writing through a link that somebody
    planted would change another file.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with storage_errors(path):
        if is_own(path):
            handle = os.open(path, flags)
            status = os.fstat(handle)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                return handle
            os.close(handle)
        path.unlink(missing_ok=True)
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)


def is_own(path: Path) -> bool:
    """Return whether ``path`` is a regular file with one name, which ``open_own`` would keep."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


@contextmanager
def open_replaced(path: Path, mode: int = 0o666) -> Iterator[TextIO]:
    """Replace ``path`` by a new text file and open it for writing. Raise StorageError.

    ``mode`` is reduced by the umask.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(handle, "w", encoding="utf-8") as file:
            yield file


@contextmanager
def atomic_file(target: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Open a file that is renamed to ``target`` when the block ends without an error.

    The bytes are flushed to disk before the rename, and the rename before the block ends: a power
    failure brings no earlier file back. On any failure the temporary file is removed.
    Raises StorageError for a full or read-only disk.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = new_file(target)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                publish(handle, temporary, target, mode)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(target: Path, text: str, mode: int = 0o644) -> None:
    """Write a small UTF-8 file atomically."""
    write_bytes(target, text.encode(), mode)


def write_bytes(target: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a small file atomically."""
    with atomic_file(target, mode) as file:
        file.write(data)


def remove_file(target: Path) -> None:
    """Delete a file or link for good, if it exists: a power failure does not bring it back."""
    with storage_errors(target):
        target.unlink(missing_ok=True)
        sync_folder(target.parent)


def remove_litter(target: Path, suffix: str = ".tmp") -> None:
    """Remove the files of ``new_file`` that killed runs left beside ``target``."""
    prefix = _prefix(target)
    with storage_errors(target), suppress(FileNotFoundError):
        for name in os.listdir(target.parent):
            if name.startswith(prefix) and name.endswith(suffix):
                (target.parent / name).unlink(missing_ok=True)


def free_bytes(folder: Path) -> int:
    """Return how many bytes this user can still write on the disk of an existing folder."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


_DENIED = N_("permission denied")
_UNRESPONSIVE = N_("the disk does not respond (input/output error)")
_REASONS = {
    errno.ENOSPC: N_("the disk is full"),
    errno.EDQUOT: N_("the disk quota is used up"),
    errno.EROFS: N_("the file system is read-only"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EFBIG: N_(
        "the file system does not support files of this size (the limit of FAT32 is 4 GiB)"
    ),
    errno.EIO: _UNRESPONSIVE,
    errno.EREMOTEIO: _UNRESPONSIVE,
    errno.EISDIR: N_("there is a folder where a file should be"),
    errno.ENOTDIR: N_("there is a file where a folder should be"),
}
# Errors of the block layer, FUSE (ECONNABORTED for the pending call, ENOTCONN for later ones) and
# network file systems after a disk was unplugged.
_GONE = frozenset(
    {
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOMEDIUM,
        errno.ENOTCONN,
        errno.ECONNABORTED,
        errno.ESHUTDOWN,
        errno.ESTALE,
        errno.EHOSTDOWN,
        errno.ETIMEDOUT,
    }
)


def is_gone(error: OSError) -> bool:
    """Return whether the error means that the disk itself was removed."""
    return error.errno in _GONE


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Raise errors of the disk in the block as StorageError with ``path``.

    Other errors that name a file, such as FileNotFoundError, and errors of network connections pass
    unchanged.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        # Errors of read(), write() and fsync() name no file.
        of_block = error.filename is None and not isinstance(error, ConnectionError)
        if number not in _GONE and number not in _REASONS and not of_block:
            raise
        raise storage_error(error, path) from error


def storage_error(error: OSError, path: Path | None = None) -> StorageError:
    """Return a StorageError with a hint for ``path``, or for the file that ``error`` names."""
    number = error.errno or 0
    named = path or error.filename
    where = str(named or _("input/output"))
    if number in _GONE:
        reason = _("the disk was removed")
    else:
        reason = _(_REASONS[number]) if number in _REASONS else os_reason(error)
    hint = ""
    if number in (errno.ENOSPC, errno.EDQUOT):
        hint = _space_hint(nearest_existing(Path(named)) if named else None)
    elif number in (errno.EACCES, errno.EPERM) and named:
        hint = _owner_hint(Path(named))
    elif number in _GONE or number in (errno.EIO, errno.EREMOTEIO):
        hint = _(
            "plug the disk in again or use another one, and run the same command again; "
            "finished work is kept"
        )
    elif number == errno.EFBIG:
        hint = _("use another disk; for FAT32, pack the volumes with --volume-size fat32")
    return StorageError(f"{where}: {reason}", hint=hint)


def _space_hint(folder: Path | None) -> str:
    """Return what makes room on the disk of ``folder``."""
    if folder is None:
        return _(
            "see which disk is full: df -h; free some space (./gapforge gc deletes what no lock "
            "uses) and run the same command again; finished work is kept"
        )
    return _(
        "free space on the disk of {folder} (df -h {folder!q}; in the project, ./gapforge gc "
        "deletes what no lock uses) and run the same command again; finished work is kept",
        folder=folder,
    )


def _owner_hint(path: Path) -> str:
    """Return whose ``path`` is, and the command that gives it to this user; "" for an own one."""
    place, user = nearest_existing(path), os.geteuid()
    if user and _owner(place) == user:
        place = place.parent  # a file cannot be replaced in a folder of somebody else's
    owner = _owner(place)
    if not user or owner in (user, None):
        return ""
    top = place
    while top != top.parent and _owner(top.parent) == owner:
        top = top.parent
    if _owner(top.parent) == user:  # for example all of .gapforge, after a command with sudo
        place = top
    return _(
        '{place} belongs to {owner}; to take it over: sudo chown -R "$(id -u):$(id -g)" '
        "{place!q}; then run the same command again",
        place=place,
        owner=_user_name(owner),
    )


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def _user_name(number: int | None) -> str:
    try:
        return pwd.getpwuid(number or 0).pw_name
    except (KeyError, OverflowError):
        return str(number)


def nearest_existing(path: Path) -> Path:
    """Return ``path`` or its nearest parent that exists, as an absolute path."""
    path = path.absolute()
    while path != path.parent and not os.path.lexists(path):
        path = path.parent
    return path


def full_disk(folders: Sequence[Path]) -> Path | None:
    """Return the first folder whose disk has no room for 1 MiB or for one more file."""
    for folder in map(nearest_existing, folders):
        with suppress(OSError):
            status = os.statvfs(folder)
            files_left = status.f_favail if status.f_files else 1
            if status.f_bavail * status.f_frsize < 1 << 20 or files_left < 1:
                return folder
    return None


def link_or_copy(source: Path, target: Path) -> bool:
    """Replace ``target`` atomically with a hard link to ``source``, or with a copy of it.

    Returns whether it is a hard link. Copies are made across devices and on file systems without
    hard links.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{_prefix(target)}{secrets.token_hex(8)}.tmp")
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            copy_file(source, target)
            return False
        try:
            os.replace(temporary, target)
        finally:  # rename() does nothing when both names are links to one inode
            temporary.unlink(missing_ok=True)
        return True


def copy_file(source: Path, target: Path) -> None:
    """Replace ``target`` atomically with a copy of a regular file, with its mode and time."""
    with open_regular(source) as reader:
        status = os.fstat(reader.fileno())
        with atomic_file(target, stat.S_IMODE(status.st_mode)) as writer:
            shutil.copyfileobj(reader, writer, CHUNK)
            writer.flush()
            os.utime(writer.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))


def mark_folder(folder: Path, purpose: str) -> Path:
    """Create ``folder`` if needed and put the marker in it, so that gapforge may delete it later.

    Raises StorageError for an existing folder with content but without the marker.
    """
    with storage_errors(folder / MARKER):
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / MARKER
        if not marker.exists():
            if any(folder.iterdir()):
                raise StorageError(
                    _("{folder} exists, is not empty and was not made by gapforge", folder=folder),
                    hint=_(
                        "ls -la {folder!q}; move the folder away or choose another place, "
                        "and run the same command again",
                        folder=folder,
                    ),
                )
            marker.write_text(f"gapforge may delete this folder: {purpose}\n")
    return folder


def remove_folder(folder: Path) -> None:
    """Delete a folder that contains the marker, or an empty one. Do nothing if it does not exist.

    A run that was killed right before creating or after removing the marker leaves an empty folder.
    Raises StorageError for any other folder.
    """
    if not folder.exists():
        return
    if not folder.is_symlink() and folder.is_dir() and not any(folder.iterdir()):
        with storage_errors(folder):
            folder.rmdir()
        return
    if folder.is_symlink() or not (folder / MARKER).is_file():
        raise StorageError(
            _(
                "{folder}: no {marker} in it; gapforge deletes only folders that it made itself",
                folder=folder,
                marker=MARKER,
            )
        )
    with storage_errors(folder):
        # The marker is removed last, so that an interrupted removal can be repeated.
        for entry in sorted(folder.iterdir()):
            if entry.name == MARKER:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        (folder / MARKER).unlink()
        folder.rmdir()


def remove_empty_folders(path: Path, top: Path) -> None:
    """Remove the folders of ``path`` below ``top`` that are empty, from the innermost one on."""
    for folder in path.parents:
        if folder == top or not folder.is_dir() or any(folder.iterdir()):
            break
        folder.rmdir()


@contextmanager
def exclusive(lock_file: Path, what: str) -> Iterator[None]:
    """Lock ``lock_file`` during the block. Raise BusyError at once if another process has it.

    The system releases the lock when the process ends in any way, so a killed run never blocks the
    next one.
    """
    with storage_errors(lock_file):
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        _lock(handle, fcntl.LOCK_EX, what)
        yield
    finally:
        os.close(handle)


@contextmanager
def folder_in_use(folder: Path, what: str, *, changes: bool) -> Iterator[None]:
    """Lock a folder during the block: several processes may read it, or one may change it.

    Raise BusyError at once if another process changes it, or with ``changes`` if one reads it.
    The folder itself is locked, so this works without permission to write to it. ``changes``
    creates a missing folder, and removes it again if it is still empty.
    """
    with storage_errors(folder):
        new = changes and not folder.exists()
        if new:
            folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle, fcntl.LOCK_EX if changes else fcntl.LOCK_SH, what)
        yield
    finally:
        os.close(handle)
        if new:
            with suppress(OSError):  # not empty
                folder.rmdir()


def _lock(handle: int, kind: int, what: str) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(handle)
        hint = (
            _(
                "wait until process {pid} ends ({command}), and run the same command again",
                pid=holder[0],
                command=holder[1],
            )
            if holder
            else _("wait until it ends, and run the same command again")
        )
        raise BusyError(
            _("another gapforge process is running: {what}", what=what), hint=hint
        ) from None


def _holder(handle: int) -> tuple[int, str] | None:
    """Return the process that locks an open file, and its command, if Linux shows them."""
    status = os.fstat(handle)
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        # Such as: 1: FLOCK  ADVISORY  WRITE 4711 08:01:123456 0 EOF
        locks = [line.split() for line in system_text(Path("/proc/locks")).splitlines()]
        pids = [int(words[4]) for words in locks if words[1] == "FLOCK" and words[5] == inode]
        words = system_text(Path(f"/proc/{pids[0]}/cmdline")).split("\0")
    except (OSError, ValueError, IndexError):
        return None
    return pids[0], printable(" ".join(words).strip())[:200]


def sync_files(files: Sequence[Path]) -> None:
    """Flush the bytes of all these files, which are in one folder, to the disk.

    One syncfs() replaces the calls of fsync(), each of which waits for the disk, where it gives the
    same guarantee.
    """
    if len(files) > 1 and _syncfs_suffices(files[0].parent) and _syncfs(files[0].parent):
        return
    on_all_cores(_sync_file, files, _SYNCS)


def _sync_file(path: Path) -> None:
    with storage_errors(path), open(path, "rb", buffering=0) as file:
        os.fsync(file.fileno())


def _syncfs(folder: Path) -> bool:
    """Call syncfs() and return whether it exists and succeeded."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return bool(ctypes.CDLL(None).syncfs(handle) == 0)
    except (AttributeError, OSError):
        return False
    finally:
        os.close(handle)


def _syncfs_suffices(folder: Path) -> bool:
    """Return whether syncfs() guarantees here what fsync() does.

    It reports write errors since Linux 5.8, and flushes the disk's own cache on the file systems in
    ``_SYNCFS``.
    """
    if [int(part) for part in re.findall(r"\d+", os.uname().release)[:2]] < [5, 8]:
        return False
    device = folder.stat().st_dev
    try:
        mounts = system_text(MOUNTS, "surrogateescape").split("\n")
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    fields = [line.split(" ") for line in mounts]
    types = {words[words.index("-") + 1] for words in fields if words[2:3] == [number]}
    return bool(types) and types <= _SYNCFS


def mount_point(field: str) -> str:
    r"""Return a path of ``MOUNTS``, where spaces, tabs, newlines and backslashes are ``\ooo``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def sync_folder(folder: Path) -> None:
    """Flush renames in ``folder`` to the disk, if the file system supports that."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)
