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
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.system_errors import os_says, unexaminable, unreadable
from gapforge.base.text import josa, printable, tr
from gapforge.model import lock as locks
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset
from gapforge.trust.trusted_signers import LOCK_SIGNATURE, Signer, Signers, check_lock

LOCK, SUMS = "lock.json", "SHA256SUMS"
_UNLISTED = frozenset({LOCK, SUMS, MARKER, LOCK_SIGNATURE})  # files that no lock can list: they describe the others
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
        return {"file": self.file, "kind": self.kind, "expected": self.expected, "actual": self.actual}

    def to_fault(self) -> Fault:
        return Fault(self.file, f"{_word(self.kind)}: {self.actual}", self.expected)


def _word(kind: str) -> str:
    return {
        "missing": tr("빠짐", "missing"), "extra": tr("남는 파일", "extra"), "changed": tr("내용이 바뀜", "changed"),
        "short": tr("잘림", "cut short"), "grown": tr("더 긺", "too long"), "unreadable": tr("읽지 못함", "unreadable"),
        "not-a-file": tr("파일이 아님", "not a file"), "lock": tr("다른 잠금", "another lock"),
        "sums": tr("SHA256SUMS와 잠금이 다름", "SHA256SUMS and the lock disagree"),
    }[kind]  # fmt: skip


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
            "preset": self.preset, "artifacts": str(self.artifacts), "ok": self.ok, "files": self.files,
            "bytes": self.bytes, "seconds": round(self.seconds, 3),
            "rate": round(self.bytes / self.seconds) if self.seconds > 0 else 0,
            "faults": [fault.to_json() for fault in self.faults],
            "signer": self.signer.name if self.signer is not None else "",
        }  # fmt: skip

    def error(self) -> VerifyError:
        """The error that carries all faults and says how to mend them here or online."""
        count = len(self.faults)
        return VerifyError(
            tr(
                f"{self.artifacts}: 잠금과 다른 것이 {count}개 있습니다",
                f"{self.artifacts} is not what its lock says: {count} fault{'s' if count != 1 else ''}",
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
            more = tr(f" 외 {rest}개", f" and the other {rest}") if rest > 0 else ""
            steps.append(
                tr(f"매체에서 다시 복사: {shown}{more}; 또는 온라인에서: ./deps_sync.sh {self.preset}",
                   f"copy from the carrier again: {shown}{more}; or online: ./deps_sync.sh {self.preset}")
            )  # fmt: skip
        if extra:
            steps.append(tr("폴더에 있어서는 안 되는 파일(“남는 파일”)을 삭제",
                            "remove what does not belong there (listed as extra)"))  # fmt: skip
        done = "; ".join(steps)
        return tr(f"{done}; 그다음: ./gapforge verify {self.preset}", f"{done}; then: ./gapforge verify {self.preset}")


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
        found = (
            tr("폴더가 아닙니다", "is not a folder") if artifacts.exists() else tr("폴더가 없습니다", "does not exist")
        )
        raise VerifyError(
            tr(f"{artifacts}: {found}. 아직 받거나 복사하지 않았습니다", f"{artifacts} {found}: nothing was synced or copied there"),
            hint=tr(f"온라인에서: ./deps_sync.sh {name}; 오프라인에서: cp -r 매체/{name} {artifacts.parent}/",
                    f"online: ./deps_sync.sh {name}; offline: cp -r CARRIER/{name} {artifacts.parent}/"),
        )  # fmt: skip
    started = time.monotonic()
    signer = None
    if trusted is not None and trusted[1] and (artifacts / LOCK).exists():  # before a word of it is believed
        signer = check_lock(trusted[0], artifacts, name, trusted[1])
    if trusted is not None and trusted[1]:
        lock, faults = _signed_lock(artifacts, project_lock)
    else:
        lock, faults = _choose_lock(artifacts, project_lock)
    lock.require_complete(
        f"presets/{name}.lock.json" if project_lock and project_lock.exists() else str(artifacts / LOCK)
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
            faults.append(FileFault(path, "missing", _bytes(entry.size), tr("파일이 없음", "no such file")))
        elif present[path] != entry.size:
            kind = "short" if present[path] < entry.size else "grown"
            faults.append(FileFault(path, kind, _bytes(entry.size), _bytes(present[path])))
        else:
            tasks.append(path)
    for kind, unusable in (("not-a-file", odd), ("unreadable", closed)):
        faults += [FileFault(path, kind, tr("일반 파일", "a regular file"), what) for path, what in unusable.items()]
    for path, size in present.items():
        if path not in wanted and path not in _UNLISTED:
            faults.append(FileFault(path, "extra", tr("이 이름의 파일이 없음", "nothing of this name"), _bytes(size)))
    faults += _check_sums(artifacts, lock, present)

    tasks.sort(key=lambda path: (-wanted[path].size, path))  # the largest first, so that no core ends alone
    if progress is not None:
        progress.total = sum(wanted[path].size for path in tasks)
    hashed = hash_all(artifacts, tasks, jobs or os.cpu_count() or 1, progress)
    for path, (digest, problem) in hashed.items():
        if problem:
            faults.append(FileFault(path, "unreadable", f"sha256 {wanted[path].sha256}", problem))
        elif digest != wanted[path].sha256:
            faults.append(FileFault(path, "changed", f"sha256 {wanted[path].sha256}", f"sha256 {digest}"))
    return VerifyReport(
        preset=lock.preset, artifacts=artifacts, files=len(tasks), bytes=sum(wanted[path].size for path in tasks),
        seconds=time.monotonic() - started, faults=tuple(sorted(set(faults))), lock=lock,
        signer=signer,
    )  # fmt: skip


def _bytes(count: int) -> str:
    return tr(f"{count}바이트", f"{count} bytes")


def _signed_lock(artifacts: Path, project_lock: Path | None) -> tuple[Lock, list[FileFault]]:
    """The artifacts' own lock, whose signature is good; the project's, which nobody signed, must be the same."""
    own = artifacts / LOCK
    lock = locks.load(own, shown=str(own))
    if project_lock is None or not project_lock.exists() or project_lock.read_bytes() == own.read_bytes():
        return lock, []
    stated = _stated_preset(project_lock)
    if stated is not None and stated != (lock.preset, lock.preset_sha256):
        raise _of_two_states(own, (lock.preset, lock.preset_sha256), project_lock, stated)
    return lock, [FileFault(f"presets/{project_lock.name}", "lock",
                            tr(f"서명된 {own} 파일과 같음", f"the same as {own}, which is signed"),
                            f"sha256 {sha256_bytes(project_lock.read_bytes())}")]  # fmt: skip


def _of_two_states(own: Path, ours: tuple[str, str], project_lock: Path, theirs: tuple[str, str]) -> LockError:
    return LockError(
        tr(f"서로 다른 상태에서 만든 잠금입니다. {own}: 프리셋 {ours[0]}, 상태 {ours[1][:12]}; "
           f"{project_lock}: 프리셋 {theirs[0]}, 상태 {theirs[1][:12]}",
           f"{own} was made for preset {ours[0]} in state {ours[1][:12]}, "
           f"{project_lock} for {theirs[0]} in state {theirs[1][:12]}"),
        hint=tr("같은 ./deps_sync.sh를 마친 한 컴퓨터에서 gapforge 저장소와 아티팩트를 함께 복사하십시오",
                "copy the repository and the artifacts from the same machine, after the same ./deps_sync.sh"),
    )  # fmt: skip


def _choose_lock(artifacts: Path, project_lock: Path | None) -> tuple[Lock, list[FileFault]]:
    """The lock to compare with, and what is wrong with the copy in the artifacts.

    The project's lock wins: it came by another way (with the repository), so one bad sector cannot hit both.
    """
    own = artifacts / LOCK
    if project_lock is None or not project_lock.exists():
        if own.is_symlink() or (own.exists() and not own.is_file()):
            raise LockError(tr(f"{own}: 일반 파일이 아닙니다", f"{own} is not a regular file"),
                            hint=tr("매체에서 다시 복사하십시오", "copy it from the carrier again"))  # fmt: skip
        return locks.load(own, shown=str(own)), []
    lock = locks.load(project_lock)
    if own.is_symlink():
        return lock, []  # the walk names it
    try:
        data = own.read_bytes()
    except FileNotFoundError:
        return lock, [FileFault(LOCK, "missing", tr(f"{project_lock} 파일과 같음", f"the same as {project_lock}"),
                                tr("파일이 없음", "no such file"))]  # fmt: skip
    except OSError:
        return lock, []  # the walk or the next line of the report names it
    if data == project_lock.read_bytes():
        return lock, []
    if (stated := _stated_preset(own)) and stated != (lock.preset, lock.preset_sha256):
        raise _of_two_states(own, stated, project_lock, (lock.preset, lock.preset_sha256))
    expected = sha256_bytes(project_lock.read_bytes())
    return lock, [FileFault(LOCK, "lock", tr(f"sha256 {expected} ({project_lock} 파일과 같음)",
                                             f"sha256 {expected} (as {project_lock})"),
                            f"sha256 {sha256_bytes(data)}")]  # fmt: skip


def _stated_preset(lock_file: Path) -> tuple[str, str] | None:
    """Which preset, in which state, a lock says it was made for; None when it cannot be read."""
    try:
        lock = locks.load(lock_file)
    except LockError:
        return None
    return lock.preset, lock.preset_sha256


def check_preset_state(lock: Lock, preset: Preset) -> None:
    """Raise LockError unless ``lock`` was made for this preset in exactly this state."""
    if lock.preset != preset.name:
        raise LockError(
            tr(f"{preset.name}의 아티팩트에 다른 프리셋의 잠금이 있습니다: {lock.preset}",
               f"the artifacts of {preset.name} hold the lock of another preset, {lock.preset}"),
            hint=tr(f"온라인에서: ./deps_sync.sh {preset.name}, 그다음 {josa(f'artifacts/{preset.name}', '을', '를')} 이곳으로 복사",
                    f"online: ./deps_sync.sh {preset.name}, then copy artifacts/{preset.name} here"),
        )  # fmt: skip
    if lock.preset_sha256 != preset.sha256:
        raise LockError(
            tr(f"프리셋 {preset.name}: 받은 뒤에 바뀌었습니다. 프리셋은 상태 {preset.sha256[:12]}, "
               f"아티팩트는 상태 {lock.preset_sha256[:12]}입니다",
               f"preset {preset.name} was changed after it was synced: it is in state {preset.sha256[:12]}, "
               f"its artifacts belong to state {lock.preset_sha256[:12]}"),
            hint=tr(f"온라인에서: ./deps_sync.sh {preset.name}; 또는 변경을 되돌리기: git checkout -- presets/{preset.name}.json",
                    f"online: ./deps_sync.sh {preset.name}; or undo the change: git checkout -- presets/{preset.name}.json"),
        )  # fmt: skip


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
            closed[folder.rstrip("/") or "."] = tr(
                f"폴더를 읽을 수 없음: {os_says(error)}", f"cannot be listed: {os_says(error)}"
            )
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
        return tr(f"{link}에 대한 심볼릭 링크", f"symbolic link to {link}")
    kinds: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISFIFO, tr("파이프", "pipe")), (stat.S_ISSOCK, tr("소켓", "socket")),
        (stat.S_ISBLK, tr("블록 장치", "block device")), (stat.S_ISCHR, tr("문자 장치", "character device")),
    )  # fmt: skip
    return next((name for test, name in kinds if test(mode)), tr("파일이 아닌 것", "something that is no file"))


def _check_sums(artifacts: Path, lock: Lock, present: Mapping[str, int]) -> list[FileFault]:
    """SHA256SUMS serves people who have only `sha256sum -c`; it must say the same as the lock."""
    one_line = tr("파일마다 한 줄", "one line for each file")
    if SUMS not in present:
        return [FileFault(SUMS, "missing", one_line, tr("파일이 없음", "no such file"))]
    try:
        text = (artifacts / SUMS).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = os_says(error) if isinstance(error, OSError) else tr("UTF-8 텍스트가 아님", "is not UTF-8 text")
        return [FileFault(SUMS, "unreadable", one_line, reason or "")]
    faults = []
    listed: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        match = _SUMS_LINE.fullmatch(line)
        if match is None:
            faults.append(FileFault(SUMS, "sums", tr("해시  파일", "HASH  FILE"),
                                    tr(f"{number}행의 형식이 다름", f"line {number} has another form")))  # fmt: skip
        elif match[2] in listed:
            faults.append(FileFault(SUMS, "sums", tr("파일마다 한 번", "each file once"),
                                    tr(f"{number}행에 다시 나옴: {match[2]}", f"line {number} lists {match[2]} again")))  # fmt: skip
        else:
            listed[match[2]] = match[1]
    wanted = {entry.path: entry.sha256 for entry in lock.entries}
    if LOCK in listed and LOCK in present:  # some list the lock itself, which the lock cannot
        try:
            wanted[LOCK] = sha256_bytes((artifacts / LOCK).read_bytes())
        except OSError:
            wanted[LOCK] = listed[LOCK]  # named as unreadable elsewhere
    for path in sorted(wanted.keys() - listed.keys()):
        faults.append(
            FileFault(SUMS, "sums", tr(f"{path}의 줄", f"a line for {path}"), tr("줄이 없음", "no such line"))
        )
    for path in sorted(listed.keys() - wanted.keys()):
        faults.append(FileFault(SUMS, "sums", tr("잠금에 있는 파일만", "only files of the lock"),
                                tr(f"{path}의 줄", f"a line for {path}")))  # fmt: skip
    for path in sorted(listed.keys() & wanted.keys()):
        if listed[path] != wanted[path]:
            faults.append(FileFault(SUMS, "sums", tr(f"{path}: sha256 {wanted[path]}", f"sha256 {wanted[path]} for {path}"),
                                    f"sha256 {listed[path]}"))  # fmt: skip
    return faults


class _Stopped(Exception):
    """Raised inside the readers when the whole was interrupted."""


def hash_all(root: Path, paths: Iterable[str], jobs: int, progress: Progress | None) -> dict[str, tuple[str, str]]:
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
            handle = os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(handle, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    return "", tr("더는 일반 파일이 아님", "is no regular file any more")
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
