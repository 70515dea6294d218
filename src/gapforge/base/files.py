"""Careful ways to touch files: rooted paths, atomic writes, hashes, folders that carry our marker."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from gapforge.base.errors import BusyError, StorageError
from gapforge.base.i18n import N_, _
from gapforge.base.parallel import go_on, on_all_cores
from gapforge.base.system_errors import os_says

CHUNK = 1 << 20  # bytes read at a time; hashing speed is flat above this
MARKER = ".gapforge-folder"  # a folder that holds this file is ours to delete
_SYNCS = 16  # files that are synced at a time: the disk is asked once for all that wait for it
_SYNCFS = {
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "f2fs",
    "vfat",
    "exfat",
    "tmpfs",
}  # FUSE, say, would not reach the disk
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~:@=-]*")
SHA256_HEX = re.compile(r"[0-9a-f]{64}")
_NOT_IN_PATHS = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")


def unsafe_path_reason(path: str) -> str:
    """Why a relative path out of a preset, lock, archive or bundle may not be used; "" when it may."""
    if not path or _NOT_IN_PATHS.search(path):
        return _("is empty or holds a control character or backslash")
    pure = PurePosixPath(path)
    if pure.is_absolute():
        return _("is absolute; it must stay inside its folder")
    if ".." in path.split("/"):
        return _("holds '..'; it must stay inside its folder")
    return ""


def inside(root: Path, relative: str) -> Path:
    """``root/relative``, or StorageError when it would leave ``root`` (by ``..``, absolute, or a symlink)."""
    reason = unsafe_path_reason(relative)
    target = root / relative
    if not reason:
        resolved_root = root.resolve()
        resolved = target.parent.resolve() / target.name
        if resolved != resolved_root and resolved_root not in resolved.parents:
            reason = _("leads outside {root} through a symbolic link", root=root)
    if reason:
        raise StorageError(
            _(
                "unsafe path {relative!r} under {root}: it {reason}",
                relative=relative,
                root=root,
                reason=reason,
            )
        )
    return target


def read_regular(path: Path, most: int) -> bytes:
    """A small file that others may have put there. Raises ValueError saying why for a link, pipe, device or a file of
    more than ``most`` bytes, OSError as the system says it."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise ValueError(_("is a symbolic link, not a file"))
    if not stat.S_ISREG(mode):  # to open a device or pipe may do something already
        raise ValueError(_("is not a regular file"))
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError(_("is not a regular file"))
        data = bytearray()
        while len(data) <= most and (chunk := file.read(most + 1 - len(data))):
            data += chunk
    if len(data) > most:
        raise ValueError(_("has more than {most} bytes", most=most))
    return bytes(data)


def sha256_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The file's SHA-256 in lower-case hex; ``on_bytes`` is told of each chunk's length in bytes."""
    with open(path, "rb", buffering=0) as file:
        return sha256_open(file, on_bytes)


def sha256_open(
    file: io.RawIOBase | io.FileIO, on_bytes: Callable[[int], None] | None = None
) -> str:
    """SHA-256 of what is left to read of an unbuffered binary file, in lower-case hex."""
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := file.readinto(buffer):
        go_on()
        digest.update(view[:count])
        if on_bytes is not None:
            on_bytes(count)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of ``data`` in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def content_mtime(sha256: str) -> int:
    """The modification time (seconds) that a file of this content gets in a context.

    BuildKit does not look into a file whose size and time are unchanged, so different bytes must not look alike.
    """
    return 10**9 + int(sha256[:8], 16) % (5 * 10**8)


def canonical_json(value: Any) -> str:
    """JSON text that is the same for the same value: sorted keys, two spaces, UTF-8 kept, newline at the end."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@contextmanager
def atomic_file(target: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A file to write that becomes ``target`` only when the block ends without an error.

    The bytes are flushed to disk before the rename, and the temporary file is removed on any failure.
    Raises StorageError for a full or read-only disk.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode)
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_text(target: Path, text: str, mode: int = 0o644) -> None:
    """Write a small UTF-8 file atomically."""
    write_bytes(target, text.encode(), mode)


def write_bytes(target: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a small file atomically."""
    with atomic_file(target, mode) as file:
        file.write(data)


def remove_litter(target: Path) -> None:
    """Remove what killed runs were writing beside ``target`` with ``atomic_file``."""
    with storage_errors(target):
        for litter in target.parent.glob(f".{target.name}.*.tmp"):
            litter.unlink(missing_ok=True)


def free_bytes(folder: Path) -> int:
    """How many bytes this user may still write on the disk of an existing folder."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


_DENIED = N_("permission denied")
_SILENT = N_("the disk does not answer (input/output error)")
_REASONS = {
    errno.ENOSPC: N_("the disk is full"),
    errno.EDQUOT: N_("the disk quota is used up"),
    errno.EROFS: N_("the file system is read-only"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EFBIG: N_("the file is larger than this file system takes (FAT32 ends at 4 GiB)"),
    errno.EIO: _SILENT,
    errno.EREMOTEIO: _SILENT,
    errno.EISDIR: N_("a folder is where a file should be"),
    errno.ENOTDIR: N_("a file is where a folder should be"),
}
# A disk that was pulled out: what the kernel's block layer, its FUSE (ECONNABORTED for the call that was under way,
# ENOTCONN for those after it) and network file systems say.
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
    """Whether this says that the disk itself went away, rather than that something on it is wrong."""
    return error.errno in _GONE


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a disk into one clear StorageError that names ``path``.

    What names a file of its own (it does not exist, say) and what a network connection says stay what they are.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        # read(), write() and fsync() name no file.
        ours = error.filename is None and not isinstance(error, ConnectionError)
        if number not in _GONE and number not in _REASONS and not ours:
            raise
        raise storage_error(error, path) from error


def storage_error(error: OSError, path: Path | None = None) -> StorageError:
    """What the operating system says about ``path`` (else the file that it names itself), and what to do about it."""
    number = error.errno or 0
    where = str(path or error.filename or _("input/output"))
    if number in _GONE:
        reason = _("the disk is gone")
    else:
        reason = _(_REASONS[number]) if number in _REASONS else os_says(error)
    hint = ""
    if number in (errno.ENOSPC, errno.EDQUOT):
        hint = _(
            "make room (df -h {parent}), then run the same command again; finished work is kept",
            parent=Path(where).parent,
        )
    elif number in _GONE or number in (errno.EIO, errno.EREMOTEIO):
        hint = _(
            "plug it in again or take another, then run the same command again; finished "
            "work is kept"
        )
    elif number == errno.EFBIG:
        hint = _("take another disk; pack makes volumes that FAT32 takes with --volume-size fat32")
    return StorageError(f"{where}: {reason}", hint=hint)


def link_or_copy(source: Path, target: Path) -> bool:
    """Make ``target`` the same bytes as ``source`` atomically; True when it is a hard link, False for a copy.

    An existing ``target`` is replaced. Copies are made where the file system has no hard links or they
    would cross devices.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            try:
                os.link(source, temporary)
                linked = True
            except OSError as error:
                if error.errno not in (
                    errno.EXDEV,
                    errno.EPERM,
                    errno.EMLINK,
                    errno.EOPNOTSUPP,
                    errno.EACCES,
                ):
                    raise
                shutil.copyfile(source, temporary)
                shutil.copystat(source, temporary)
                linked = False
            os.replace(temporary, target)
            temporary.unlink(
                missing_ok=True
            )  # rename() of two links to one inode leaves both names
            return linked
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def mark_folder(folder: Path, purpose: str) -> Path:
    """Create ``folder`` (if needed) and put our marker in it, so that we may delete it later.

    An existing folder that has content but no marker is refused with StorageError.
    """
    with storage_errors(folder / MARKER):
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / MARKER
        if not marker.exists():
            if any(folder.iterdir()):
                raise StorageError(
                    _("{folder} exists, is not empty and was not made by gapforge", folder=folder),
                    hint=_(
                        "move it away, or choose another place; then run the same "
                        "command again (ls -la {folder})",
                        folder=folder,
                    ),
                )
            marker.write_text(f"gapforge may delete this folder: {purpose}\n")
    return folder


def remove_folder(folder: Path) -> None:
    """Delete a folder that carries our marker; StorageError for any other, nothing for one that is not there.

    One that is empty goes too: killed just before it got its marker, or just after that was removed.
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
                "{folder} does not carry {marker}; gapforge deletes only its own folders",
                folder=folder,
                marker=MARKER,
            )
        )
    with storage_errors(folder):
        # The marker goes last, so that an interrupted removal can be taken up again.
        for entry in sorted(folder.iterdir()):
            if entry.name == MARKER:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        (folder / MARKER).unlink()
        folder.rmdir()


@contextmanager
def exclusive(lock_file: Path, what: str) -> Iterator[None]:
    """Hold ``lock_file`` while the block runs; BusyError at once when another process holds it.

    The lock ends with the process, however it ends, so a killed run never blocks the next one.
    """
    with storage_errors(lock_file):
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                _("another gapforge is at work: {what}", what=what),
                hint=_("wait for it to end, then run the same command again"),
            ) from None
        yield
    finally:
        os.close(handle)


def sync_files(files: Sequence[Path]) -> None:
    """All bytes of these files, which lie in one folder, are on the disk after this.

    Where that is as good, the file system is asked once for all of them: each fsync() waits for the disk anew.
    """
    if len(files) > 1 and _one_sync_will_do(files[0].parent) and _syncfs(files[0].parent):
        return
    on_all_cores(_sync_file, files, _SYNCS)


def _sync_file(path: Path) -> None:
    with storage_errors(path), open(path, "rb", buffering=0) as file:
        os.fsync(file.fileno())


def _syncfs(folder: Path) -> bool:
    """Whether syncfs() is there and says that all is on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return bool(ctypes.CDLL(None).syncfs(handle) == 0)
    except (AttributeError, OSError):
        return False
    finally:
        os.close(handle)


def _one_sync_will_do(folder: Path) -> bool:
    """Whether syncfs() promises here what fsync() does: it tells of errors (Linux 5.8), and the disk's own cache counts."""
    if [int(part) for part in re.findall(r"\d+", os.uname().release)[:2]] < [5, 8]:
        return False
    device = folder.stat().st_dev
    try:
        mounts = [
            line.split()
            for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
        ]
    except OSError:
        return False
    mine = {
        words[words.index("-") + 1]
        for words in mounts
        if words[2] == f"{os.major(device)}:{os.minor(device)}"
    }
    return bool(mine) and mine <= _SYNCFS


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut; quietly nothing where the file system cannot."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
