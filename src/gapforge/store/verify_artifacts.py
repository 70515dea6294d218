"""Verify every byte of artifacts/NAME against its lock, and report all faults at once.

Nothing is repaired. A symbolic link, device or pipe in place of a file is a fault, even if it leads
to the right bytes: it may lead elsewhere a moment later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gapforge.base import limits
from gapforge.base.errors import Fault, LockError, VerifyError
from gapforge.base.files import read_regular, sha256_bytes
from gapforge.base.i18n import _, ngettext
from gapforge.base.marked_folders import MARKER
from gapforge.base.process import quoted
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.system_errors import os_reason
from gapforge.base.text_layout import first_names, printable
from gapforge.model import lock as locks
from gapforge.model.lock import LOCK_FILE, Entry, Lock
from gapforge.model.preset import Preset
from gapforge.store import sha256sums
from gapforge.store.hash_files import FoundFiles, find_files, hash_files
from gapforge.trust.trusted_signers import LOCK_SIGNATURE, Signer, Signers, check_lock

SUMS = sha256sums.NAME
# No lock can list these files: they describe the others.
_UNLISTED = frozenset({LOCK_FILE, SUMS, MARKER, LOCK_SIGNATURE})
_SHOWN_IN_HINT = 6  # file names that fit in a hint; the faults name all of them


@dataclass(frozen=True, order=True)
class FileFault:
    """One file that differs from the lock. ``expected`` and ``actual`` are hashes, sizes or words.

    ``kind`` is "missing", "extra", "changed", "short" (truncated), "grown", "unreadable",
    "not-a-file", "sums" (SHA256SUMS and the lock differ) or "lock" (not the project's lock.json).
    """

    file: str
    kind: str
    expected: str
    actual: str

    def to_json(self) -> dict[str, str]:
        """Return all fields."""
        return asdict(self)

    def to_fault(self) -> Fault:
        """Return the fault as part of an error message."""
        return Fault(self.file, f"{_describe(self.kind)}: {self.actual}", self.expected)


def _describe(kind: str) -> str:
    return {
        "missing": _("missing"),
        "extra": _("unexpected file"),
        "changed": _("checksum mismatch"),
        "short": _("truncated"),
        "grown": _("too long"),
        "unreadable": _("unreadable"),
        "not-a-file": _("not a regular file"),
        "lock": _("different lock"),
        "sums": _("SHA256SUMS and the lock differ"),
    }[kind]


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """The result of ``verify``.

    ``files`` and ``bytes`` count what was read, ``seconds`` is the time that it took. ``signer`` is
    the trusted signer of the lock, None on a machine without trusted signers.
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
        """Return whether there is no fault."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """Return the report in JSON types; ``rate`` is in bytes per second."""
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
        """Return the error with all faults, and with the commands that repair them."""
        return VerifyError(
            ngettext(
                "{artifacts} does not match its lock: {count} fault",
                "{artifacts} does not match its lock: {count} faults",
                len(self.faults),
                artifacts=self.artifacts,
            ),
            faults=[fault.to_fault() for fault in self.faults],
            hint=self._hint(),
        )

    def raise_for_faults(self) -> VerifyReport:
        """Return self. Raise VerifyError with every fault if there are any."""
        if self.faults:
            raise self.error()
        return self

    def _hint(self) -> str:
        bad = sorted({fault.file for fault in self.faults if fault.kind != "extra"})
        steps = []
        if bad:
            steps.append(
                _(
                    "copy from the medium again: {files}; or online: ./deps_sync.sh {preset!q}",
                    files=printable(first_names(bad, _SHOWN_IN_HINT)),
                    preset=self.preset,
                )
            )
        if any(fault.kind == "extra" for fault in self.faults):
            steps.append(_("remove the unexpected files"))
        repair = "; ".join(steps)
        return _("{repair}; then: ./gapforge verify {preset!q}", repair=repair, preset=self.preset)


def verify(
    artifacts: Path,
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
    project_lock: Path | None = None,
    preset: Preset | None = None,
    trusted: tuple[Project, Signers] | None = None,
) -> VerifyReport:
    """Compare every file of ``artifacts`` with the lock, and return a report of all faults.

    ``jobs`` is the number of files read at a time (all cores when None). ``project_lock`` is
    presets/NAME.lock.json: if that file exists, everything is compared with it, and an artifacts
    lock that differs is a fault. With ``preset``, a lock of another state of it is refused. With
    ``trusted`` signers, everything is compared with the artifacts' own lock, which must be signed.

    Raises VerifyError if ``artifacts`` is not a folder, LockError if there is no usable lock or it
    belongs to another preset or state, TrustError if no trusted signer signed the lock. Faults in
    files do not raise; see ``raise_for_faults``.
    """
    artifacts = artifacts.absolute()
    name = preset.name if preset is not None else artifacts.name
    if not artifacts.is_dir():
        raise _no_artifacts(artifacts, name)
    started = time.monotonic()
    lock, faults, signer = _select_lock(artifacts, name, project_lock, trusted)
    of_project = project_lock is not None and project_lock.exists()
    lock.require_complete(f"presets/{name}.lock.json" if of_project else str(artifacts / LOCK_FILE))
    if preset is not None:
        check_preset_state(lock, preset)
    wanted = {entry.path: entry for entry in lock.entries}
    found = find_files(artifacts)
    faults += _compare_names(wanted, found)
    faults += _check_sums(artifacts, lock, found.regular)
    # The largest files first, so that all cores end together.
    readable = sorted(
        (path for path, entry in wanted.items() if found.regular.get(path) == entry.size),
        key=lambda path: (-wanted[path].size, path),
    )
    size = sum(wanted[path].size for path in readable)
    if progress is not None:
        progress.total = size
    hashes = hash_files(artifacts, readable, jobs, progress)
    faults += _compare_hashes(wanted, hashes)
    return VerifyReport(
        preset=lock.preset,
        artifacts=artifacts,
        files=len(readable),
        bytes=size,
        seconds=time.monotonic() - started,
        faults=tuple(sorted(set(faults))),
        lock=lock,
        signer=signer,
    )


def _no_artifacts(artifacts: Path, preset: str) -> VerifyError:
    message = (
        _("{artifacts} is not a folder", artifacts=artifacts)
        if artifacts.exists()
        else _(
            "{artifacts} does not exist: nothing was synced or copied there", artifacts=artifacts
        )
    )
    return VerifyError(
        message,
        hint=_(
            "online: ./deps_sync.sh {preset!q}; offline: cp -r MEDIUM/{preset!q} {parent!q}/",
            preset=preset,
            parent=artifacts.parent,
        ),
    )


def _bytes(count: int) -> str:
    return _("{count} bytes", count=count)


def _compare_names(wanted: Mapping[str, Entry], found: FoundFiles) -> list[FileFault]:
    """Return the faults that names, types and sizes show."""
    faults = []
    for path, entry in wanted.items():
        if path in found.special or path in found.unreadable:
            continue
        size = found.regular.get(path)
        if size is None:
            faults.append(FileFault(path, "missing", _bytes(entry.size), _("no such file")))
        elif size != entry.size:
            kind = "short" if size < entry.size else "grown"
            faults.append(FileFault(path, kind, _bytes(entry.size), _bytes(size)))
    regular = _("a regular file")
    faults += [FileFault(path, "not-a-file", regular, what) for path, what in found.special.items()]
    faults += [
        FileFault(path, "unreadable", regular, why) for path, why in found.unreadable.items()
    ]
    for path in found.regular.keys() - wanted.keys() - _UNLISTED:
        faults.append(
            FileFault(path, "extra", _("no file of this name"), _bytes(found.regular[path]))
        )
    return faults


def _compare_hashes(
    wanted: Mapping[str, Entry], hashes: Mapping[str, tuple[str, str]]
) -> list[FileFault]:
    """Return the faults that reading the files shows."""
    faults = []
    for path, (sha256, problem) in hashes.items():
        expected = f"sha256 {wanted[path].sha256}"
        if problem:
            faults.append(FileFault(path, "unreadable", expected, problem))
        elif sha256 != wanted[path].sha256:
            faults.append(FileFault(path, "changed", expected, f"sha256 {sha256}"))
    return faults


def _select_lock(
    artifacts: Path, preset: str, project_lock: Path | None, trusted: tuple[Project, Signers] | None
) -> tuple[Lock, list[FileFault], Signer | None]:
    """Return the lock to compare with, the faults of the other copy, and the lock's signer."""
    if project_lock is not None and not project_lock.exists():
        project_lock = None
    if trusted is None or not trusted[1]:
        return *_project_lock(artifacts / LOCK_FILE, project_lock), None
    project, signers = trusted
    signer, data = check_lock(project, artifacts, preset, signers)
    return *_signed_lock(artifacts / LOCK_FILE, data, project_lock), signer


def _signed_lock(
    own: Path, signed: bytes, project_lock: Path | None
) -> tuple[Lock, list[FileFault]]:
    """Return the lock in the ``signed`` bytes of ``own``, and the faults of the project's copy."""
    lock = locks.parse(signed, shown=str(own), name=own.parent.name)
    data = _lock_bytes(project_lock) if project_lock is not None else signed
    if project_lock is None or data == signed:
        return lock, []
    other = _parse_if_usable(data)
    if other == lock:  # in another format
        return lock, []
    _check_same_state(own, lock, project_lock, other)
    expected = _("the same as {lock}, which is signed", lock=own)
    actual = f"sha256 {sha256_bytes(data)}"
    return lock, [FileFault(f"presets/{project_lock.name}", "lock", expected, actual)]


def _project_lock(own: Path, project_lock: Path | None) -> tuple[Lock, list[FileFault]]:
    """Return the project's lock, and the faults of the artifacts' copy; without one, the copy.

    The project's lock wins: it was carried with the repository, so one bad sector cannot hit both.
    """
    if project_lock is None:
        if own.is_symlink() or (own.exists() and not own.is_file()):
            raise LockError(
                _("{file}: not a regular file", file=own), hint=_("copy it from the medium again")
            )
        return locks.load(own, shown=str(own)), []
    lock, project_data = locks.read(project_lock)
    if own.is_symlink():
        return lock, []  # reported as "not-a-file"
    try:
        data = _lock_bytes(own)
    except FileNotFoundError:
        expected = _("the same as {lock}", lock=project_lock)
        return lock, [FileFault(LOCK_FILE, "missing", expected, _("no such file"))]
    except OSError:
        return lock, []  # reported as "unreadable" or "not-a-file"
    copy = _parse_if_usable(data)
    if data == project_data or copy == lock:  # in another format
        return lock, []
    _check_same_state(own, copy, project_lock, lock)
    sha256 = sha256_bytes(project_data)
    expected = _("sha256 {sha256} (as {lock})", sha256=sha256, lock=project_lock)
    return lock, [FileFault(LOCK_FILE, "lock", expected, f"sha256 {sha256_bytes(data)}")]


def _lock_bytes(file: Path) -> bytes:
    return read_regular(file, limits.LOCK, follow=True)


def _parse_if_usable(data: bytes) -> Lock | None:
    """Return the lock in the bytes of a file of any format, None if it cannot be used."""
    try:
        return locks.parse(data, shown="", name="")
    except LockError:
        return None


def _check_same_state(own: Path, lock: Lock | None, project_lock: Path, other: Lock | None) -> None:
    """Raise LockError if both locks are usable and belong to different presets or states."""
    if lock is None or other is None:
        return
    if (lock.preset, lock.preset_sha256) == (other.preset, other.preset_sha256):
        return
    raise LockError(
        _(
            "{lock} is of preset {preset} in state {state}, but {other_lock} is of preset "
            "{other_preset} in state {other_state}",
            lock=own,
            preset=lock.preset,
            state=lock.preset_sha256[:12],
            other_lock=project_lock,
            other_preset=other.preset,
            other_state=other.preset_sha256[:12],
        ),
        hint=_(
            "copy the repository and the artifacts from the same machine, after the same "
            "./deps_sync.sh"
        ),
    )


def check_preset_state(lock: Lock, preset: Preset) -> None:
    """Raise LockError unless ``lock`` was made for this preset in exactly this state."""
    if lock.preset != preset.name:
        raise LockError(
            _(
                "the artifacts of {preset} contain the lock of another preset, {other}",
                preset=preset.name,
                other=lock.preset,
            ),
            hint=_(
                "online: ./deps_sync.sh {preset!q}, then copy artifacts/{preset} here",
                preset=preset.name,
            ),
        )
    if lock.preset_sha256 != preset.sha256:
        files = preset.decided_by
        hint = _(
            "online: ./deps_sync.sh {preset!q}; or undo the change: git checkout -- {files}",
            preset=preset.name,
            files=quoted(files),
        )
        if len(files) > 1:  # perhaps gapforge is older or newer here
            hint = _(
                "online: ./deps_sync.sh {preset!q}; or carry {files} from there: ./gapforge pack "
                "{preset!q} --with-tool --to DIR; or undo the change: git checkout -- {files}",
                preset=preset.name,
                files=quoted(files),
            )
        raise LockError(
            _(
                "preset {preset} is not as it was when it was synced: its state is {state}, the "
                "lock's is {synced}; it follows from {files}",
                preset=preset.name,
                state=preset.sha256[:12],
                synced=lock.preset_sha256[:12],
                files=", ".join(files),
            ),
            hint=hint,
        )


def _check_sums(artifacts: Path, lock: Lock, present: Mapping[str, int]) -> list[FileFault]:
    """Return how SHA256SUMS, for people who have only `sha256sum -c`, differs from the lock."""
    one_line = _("one line for each file")
    if SUMS not in present:
        return [FileFault(SUMS, "missing", one_line, _("no such file"))]
    try:
        sums = sha256sums.parse(read_regular(artifacts / SUMS, limits.CHECKSUMS))
    except UnicodeDecodeError:
        return [FileFault(SUMS, "unreadable", one_line, _("not UTF-8 text"))]
    except OSError as error:
        return [FileFault(SUMS, "unreadable", one_line, os_reason(error))]
    wanted = {entry.path: entry.sha256 for entry in lock.entries}
    listed = sums.files
    if LOCK_FILE in listed and LOCK_FILE in present:  # some list the lock, which no lock can
        try:
            wanted[LOCK_FILE] = sha256_bytes(_lock_bytes(artifacts / LOCK_FILE))
        except OSError:
            wanted[LOCK_FILE] = listed[LOCK_FILE]  # reported as "unreadable"
    found = [
        (_("HASH  FILE"), _("line {line} has another form", line=line)) for line in sums.malformed
    ]
    found += [
        (_("each file once"), _("line {line} lists {path} again", line=line, path=path))
        for line, path in sums.repeated
    ]
    found += [
        (_("a line for {path}", path=path), _("no such line"))
        for path in wanted.keys() - listed.keys()
    ]
    found += [
        (_("only files of the lock"), _("a line for {path}", path=path))
        for path in listed.keys() - wanted.keys()
    ]
    found += [
        (_("sha256 {sha256} for {path}", sha256=wanted[path], path=path), f"sha256 {listed[path]}")
        for path in listed.keys() & wanted.keys()
        if listed[path] != wanted[path]
    ]
    return [FileFault(SUMS, "sums", expected, actual) for expected, actual in found]
