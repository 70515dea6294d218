"""Every byte of artifacts/NAME against its lock, on all cores, with all faults in one report.

Nothing is repaired and nothing is followed: a symbolic link, a device or a pipe where a file belongs is a
fault, even when it leads to the right bytes, because it may lead elsewhere a moment later.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, LockError, VerifyError
from gapforge.base.files import MARKER, sha256_bytes, sha256_open
from gapforge.base.i18n import _, ngettext
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.system_errors import os_says, unexaminable, unreadable
from gapforge.base.text import printable
from gapforge.model import lock as locks
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset
from gapforge.trust.trusted_signers import LOCK_SIGNATURE, Signer, Signers, check_lock

LOCK, SUMS = "lock.json", "SHA256SUMS"
_UNLISTED = frozenset(
    {LOCK, SUMS, MARKER, LOCK_SIGNATURE}
)  # files that no lock can list: they describe the others
_SUMS_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_SHOWN_IN_HINT = 6  # file names that fit in a hint; the faults name all of them


@dataclass(frozen=True, order=True)
class FileFault:
    """One file that is not as the lock says. ``expected`` and ``actual`` are hashes, sizes or words.

    ``kind`` is "missing", "extra", "changed", "short" (cut off), "grown", "unreadable", "not-a-file",
    "sums" (SHA256SUMS disagrees with the lock) or "lock" (lock.json is not the project's).
    """

    file: str
    kind: str
    expected: str
    actual: str

    def to_json(self) -> dict[str, str]:
        return {
            "file": self.file,
            "kind": self.kind,
            "expected": self.expected,
            "actual": self.actual,
        }

    def to_fault(self) -> Fault:
        return Fault(self.file, f"{_word(self.kind)}: {self.actual}", self.expected)


def _word(kind: str) -> str:
    return {
        "missing": _("missing"),
        "extra": _("extra"),
        "changed": _("changed"),
        "short": _("cut short"),
        "grown": _("too long"),
        "unreadable": _("unreadable"),
        "not-a-file": _("not a file"),
        "lock": _("another lock"),
        "sums": _("SHA256SUMS and the lock disagree"),
    }[kind]


@dataclass(frozen=True)
class VerifyReport:
    """What was found. ``files`` and ``bytes`` count what was read; ``seconds`` is how long that took.

    ``signer`` is the trusted signer of the lock, None where nobody is trusted.
    """

    preset: str
    artifacts: Path
    files: int
    bytes: int
    seconds: float
    faults: tuple[FileFault, ...]
    lock: Lock
    signer: Signer | None = None

    @property
    def ok(self) -> bool:
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """The report in JSON types; ``rate`` is in bytes per second."""
        return {
            "preset": self.preset,
            "artifacts": str(self.artifacts),
            "ok": self.ok,
            "files": self.files,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "rate": round(self.bytes / self.seconds) if self.seconds > 0 else 0,
            "faults": [fault.to_json() for fault in self.faults],
            "signer": self.signer.name if self.signer is not None else "",
        }

    def error(self) -> VerifyError:
        """The error that carries all faults and says how to mend them here or online."""
        count = len(self.faults)
        return VerifyError(
            ngettext(
                "{artifacts} is not what its lock says: {count} fault",
                "{artifacts} is not what its lock says: {count} faults",
                count,
                artifacts=self.artifacts,
            ),
            faults=[fault.to_fault() for fault in self.faults],
            hint=self._hint(),
        )

    def raise_for_faults(self) -> VerifyReport:
        """Itself when all is well; VerifyError with every fault otherwise."""
        if self.faults:
            raise self.error()
        return self

    def _hint(self) -> str:
        bad = sorted({f.file for f in self.faults if f.kind != "extra"})
        extra = sorted({f.file for f in self.faults if f.kind == "extra"})
        steps = []
        if bad:
            shown, rest = printable(" ".join(bad[:_SHOWN_IN_HINT])), len(bad) - _SHOWN_IN_HINT
            more = _(" and the other {rest}", rest=rest) if rest > 0 else ""
            steps.append(
                _(
                    "copy from the carrier again: {shown}{more}; or online: "
                    "./deps_sync.sh {preset}",
                    shown=shown,
                    more=more,
                    preset=self.preset,
                )
            )
        if extra:
            steps.append(_("remove what does not belong there (listed as extra)"))
        done = "; ".join(steps)
        return _("{done}; then: ./gapforge verify {preset}", done=done, preset=self.preset)


def verify(
    artifacts: Path,
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
    project_lock: Path | None = None,
    preset: Preset | None = None,
    trusted: tuple[Project, Signers] | None = None,
) -> VerifyReport:
    """Read every file of ``artifacts`` and compare it with the lock; the report holds all faults.

    ``jobs`` is the number of files read at a time (all cores when None). ``project_lock`` is
    presets/NAME.lock.json: where that file exists it is what everything is compared with, and an artifacts
    lock that differs is a fault. With ``preset``, a lock made for another state of it is refused.
    With ``trusted`` signers the artifacts' own lock, which one of them signed, is what everything is compared with;
    TrustError when none of them did.
    Raises VerifyError when ``artifacts`` is no folder, LockError when there is no usable lock or it belongs
    to another preset or another state of it. Faults in files do not raise; see ``raise_for_faults``.
    """
    artifacts = artifacts.absolute()
    name = preset.name if preset is not None else artifacts.name
    if not artifacts.is_dir():
        found = _("is not a folder") if artifacts.exists() else _("does not exist")
        raise VerifyError(
            _(
                "{artifacts} {found}: nothing was synced or copied there",
                artifacts=artifacts,
                found=found,
            ),
            hint=_(
                "online: ./deps_sync.sh {name}; offline: cp -r CARRIER/{name} {parent}/",
                name=name,
                parent=artifacts.parent,
            ),
        )
    started = time.monotonic()
    signer = None
    if (
        trusted is not None and trusted[1] and (artifacts / LOCK).exists()
    ):  # before a word of it is believed
        signer = check_lock(trusted[0], artifacts, name, trusted[1])
    if trusted is not None and trusted[1]:
        lock, faults = _signed_lock(artifacts, project_lock)
    else:
        lock, faults = _choose_lock(artifacts, project_lock)
    lock.require_complete(
        f"presets/{name}.lock.json"
        if project_lock and project_lock.exists()
        else str(artifacts / LOCK)
    )
    if preset is not None:
        check_preset_state(lock, preset)
    wanted = {entry.path: entry for entry in lock.entries}
    present, odd, closed = _look_over(artifacts)

    tasks: list[str] = []
    for path, entry in wanted.items():
        if path in odd or path in closed:
            continue
        if path not in present:
            faults.append(FileFault(path, "missing", _bytes(entry.size), _("no such file")))
        elif present[path] != entry.size:
            kind = "short" if present[path] < entry.size else "grown"
            faults.append(FileFault(path, kind, _bytes(entry.size), _bytes(present[path])))
        else:
            tasks.append(path)
    for kind, unusable in (("not-a-file", odd), ("unreadable", closed)):
        faults += [
            FileFault(path, kind, _("a regular file"), what) for path, what in unusable.items()
        ]
    for path, size in present.items():
        if path not in wanted and path not in _UNLISTED:
            faults.append(FileFault(path, "extra", _("nothing of this name"), _bytes(size)))
    faults += _check_sums(artifacts, lock, present)

    tasks.sort(
        key=lambda path: (-wanted[path].size, path)
    )  # the largest first, so that no core ends alone
    if progress is not None:
        progress.total = sum(wanted[path].size for path in tasks)
    hashed = hash_all(artifacts, tasks, jobs or os.cpu_count() or 1, progress)
    for path, (digest, problem) in hashed.items():
        if problem:
            faults.append(FileFault(path, "unreadable", f"sha256 {wanted[path].sha256}", problem))
        elif digest != wanted[path].sha256:
            faults.append(
                FileFault(path, "changed", f"sha256 {wanted[path].sha256}", f"sha256 {digest}")
            )
    return VerifyReport(
        preset=lock.preset,
        artifacts=artifacts,
        files=len(tasks),
        bytes=sum(wanted[path].size for path in tasks),
        seconds=time.monotonic() - started,
        faults=tuple(sorted(set(faults))),
        lock=lock,
        signer=signer,
    )


def _bytes(count: int) -> str:
    return _("{count} bytes", count=count)


def _signed_lock(artifacts: Path, project_lock: Path | None) -> tuple[Lock, list[FileFault]]:
    """The artifacts' own lock, whose signature is good; the project's, which nobody signed, must be the same."""
    own = artifacts / LOCK
    lock = locks.load(own, shown=str(own))
    if (
        project_lock is None
        or not project_lock.exists()
        or project_lock.read_bytes() == own.read_bytes()
        or _loaded(project_lock) == lock
    ):
        return lock, []
    stated = _stated_preset(project_lock)
    if stated is not None and stated != (lock.preset, lock.preset_sha256):
        raise _of_two_states(own, (lock.preset, lock.preset_sha256), project_lock, stated)
    return lock, [
        FileFault(
            f"presets/{project_lock.name}",
            "lock",
            _("the same as {own}, which is signed", own=own),
            f"sha256 {sha256_bytes(project_lock.read_bytes())}",
        )
    ]


def _of_two_states(
    own: Path, ours: tuple[str, str], project_lock: Path, theirs: tuple[str, str]
) -> LockError:
    return LockError(
        _(
            "{own} was made for preset {our} in state {ours_2}, {project_lock} for "
            "{their} in state {theirs_2}",
            own=own,
            our=ours[0],
            ours_2=ours[1][:12],
            project_lock=project_lock,
            their=theirs[0],
            theirs_2=theirs[1][:12],
        ),
        hint=_(
            "copy the repository and the artifacts from the same machine, after the same "
            "./deps_sync.sh"
        ),
    )


def _choose_lock(artifacts: Path, project_lock: Path | None) -> tuple[Lock, list[FileFault]]:
    """The lock to compare with, and what is wrong with the copy in the artifacts.

    The project's lock wins: it came by another way (with the repository), so one bad sector cannot hit both.
    """
    own = artifacts / LOCK
    if project_lock is None or not project_lock.exists():
        if own.is_symlink() or (own.exists() and not own.is_file()):
            raise LockError(
                _("{own} is not a regular file", own=own), hint=_("copy it from the carrier again")
            )
        return locks.load(own, shown=str(own)), []
    lock = locks.load(project_lock)
    if own.is_symlink():
        return lock, []  # the walk names it
    try:
        data = own.read_bytes()
    except FileNotFoundError:
        return lock, [
            FileFault(
                LOCK,
                "missing",
                _("the same as {project_lock}", project_lock=project_lock),
                _("no such file"),
            )
        ]
    except OSError:
        return lock, []  # the walk or the next line of the report names it
    if data == project_lock.read_bytes() or _loaded(own) == lock:
        return lock, []
    if (stated := _stated_preset(own)) and stated != (lock.preset, lock.preset_sha256):
        raise _of_two_states(own, stated, project_lock, (lock.preset, lock.preset_sha256))
    expected = sha256_bytes(project_lock.read_bytes())
    return lock, [
        FileFault(
            LOCK,
            "lock",
            _(
                "sha256 {expected} (as {project_lock})",
                expected=expected,
                project_lock=project_lock,
            ),
            f"sha256 {sha256_bytes(data)}",
        )
    ]


def _stated_preset(lock_file: Path) -> tuple[str, str] | None:
    """Which preset, in which state, a lock says it was made for; None when it cannot be read."""
    lock = _loaded(lock_file)
    return (lock.preset, lock.preset_sha256) if lock else None


def _loaded(lock_file: Path) -> Lock | None:
    """Return the lock in a file of any format, None if it cannot be used."""
    try:
        return locks.load(lock_file)
    except LockError:
        return None


def check_preset_state(lock: Lock, preset: Preset) -> None:
    """Raise LockError unless ``lock`` was made for this preset in exactly this state."""
    if lock.preset != preset.name:
        raise LockError(
            _(
                "the artifacts of {name} hold the lock of another preset, {preset}",
                name=preset.name,
                preset=lock.preset,
            ),
            hint=_(
                "online: ./deps_sync.sh {name}, then copy artifacts/{name} here", name=preset.name
            ),
        )
    if lock.preset_sha256 != preset.sha256:
        raise LockError(
            _(
                "preset {name} was changed after it was synced: it is in state {sha256}, "
                "its artifacts belong to state {preset_sha256}",
                name=preset.name,
                sha256=preset.sha256[:12],
                preset_sha256=lock.preset_sha256[:12],
            ),
            hint=_(
                "online: ./deps_sync.sh {name}; or undo the change: git checkout -- "
                "presets/{name}.json",
                name=preset.name,
            ),
        )


def walk(root: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Regular files below ``root`` with their sizes, and everything else with what it is. Links are not followed."""
    files, odd, closed = _look_over(root)
    return files, {**odd, **closed}


def _look_over(root: Path) -> tuple[dict[str, int], dict[str, str], dict[str, str]]:
    """As ``walk``; what is no regular file (with what it is) and what cannot be looked at (with why) apart."""
    files: dict[str, int] = {}
    odd: dict[str, str] = {}
    closed: dict[str, str] = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as entries:
                found = sorted(entries, key=lambda e: e.name)
        except OSError as error:
            closed[folder.rstrip("/") or "."] = _("cannot be listed: {why}", why=os_says(error))
            continue
        for entry in found:
            path = folder + entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                closed[path] = unexaminable(error)
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(path + "/")
            elif stat.S_ISREG(status.st_mode):
                files[path] = status.st_size
            else:
                odd[path] = _describe(status.st_mode, root / path)
    return files, odd, closed


def _describe(mode: int, path: Path) -> str:
    if stat.S_ISLNK(mode):
        link = os.readlink(path)
        return _("symbolic link to {link}", link=link)
    kinds: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISFIFO, _("pipe")),
        (stat.S_ISSOCK, _("socket")),
        (stat.S_ISBLK, _("block device")),
        (stat.S_ISCHR, _("character device")),
    )
    return next((name for test, name in kinds if test(mode)), _("something that is no file"))


def _check_sums(artifacts: Path, lock: Lock, present: Mapping[str, int]) -> list[FileFault]:
    """SHA256SUMS serves people who have only `sha256sum -c`; it must say the same as the lock."""
    one_line = _("one line for each file")
    if SUMS not in present:
        return [FileFault(SUMS, "missing", one_line, _("no such file"))]
    try:
        text = (artifacts / SUMS).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = os_says(error) if isinstance(error, OSError) else _("is not UTF-8 text")
        return [FileFault(SUMS, "unreadable", one_line, reason or "")]
    faults = []
    listed: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        match = _SUMS_LINE.fullmatch(line)
        if match is None:
            faults.append(
                FileFault(
                    SUMS,
                    "sums",
                    _("HASH  FILE"),
                    _("line {number} has another form", number=number),
                )
            )
        elif match[2] in listed:
            faults.append(
                FileFault(
                    SUMS,
                    "sums",
                    _("each file once"),
                    _("line {number} lists {match} again", number=number, match=match[2]),
                )
            )
        else:
            listed[match[2]] = match[1]
    wanted = {entry.path: entry.sha256 for entry in lock.entries}
    if LOCK in listed and LOCK in present:  # some list the lock itself, which the lock cannot
        try:
            wanted[LOCK] = sha256_bytes((artifacts / LOCK).read_bytes())
        except OSError:
            wanted[LOCK] = listed[LOCK]  # named as unreadable elsewhere
    for path in sorted(wanted.keys() - listed.keys()):
        faults.append(FileFault(SUMS, "sums", _("a line for {path}", path=path), _("no such line")))
    for path in sorted(listed.keys() - wanted.keys()):
        faults.append(
            FileFault(SUMS, "sums", _("only files of the lock"), _("a line for {path}", path=path))
        )
    for path in sorted(listed.keys() & wanted.keys()):
        if listed[path] != wanted[path]:
            faults.append(
                FileFault(
                    SUMS,
                    "sums",
                    _("sha256 {wanted} for {path}", wanted=wanted[path], path=path),
                    f"sha256 {listed[path]}",
                )
            )
    return faults


class _Stopped(Exception):
    """Raised inside the readers when the whole was interrupted."""


def hash_all(
    root: Path, paths: Iterable[str], jobs: int, progress: Progress | None
) -> dict[str, tuple[str, str]]:
    """Path -> (hash, "") or ("", what went wrong). Threads suffice: hashing and reading release Python's lock."""
    stop = threading.Event()

    def work(path: str) -> tuple[str, str]:
        def on_bytes(count: int) -> None:
            if stop.is_set():
                raise _Stopped
            if progress is not None:
                progress.add(count, path)

        try:
            # A link or pipe may have been put there since the walk: neither is followed nor waited for.
            handle = os.open(
                root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
            with open(handle, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    return "", _("is no regular file any more")
                return sha256_open(file, on_bytes), ""
        except OSError as error:
            return "", unreadable(error)

    paths = list(paths)
    pool = ThreadPoolExecutor(max_workers=max(1, jobs), thread_name_prefix="verify")
    try:
        return dict(zip(paths, pool.map(work, paths), strict=True))
    except BaseException:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    finally:
        pool.shutdown(wait=True)
