"""Writing volumes: each object is read once, hashed while it is copied, and volumes get their names when all is well.

A volume is ``.ID-0001.gfv.part`` until every object that has bytes in it was read to its end and has the right
hash. Killed at any moment, the next run keeps finished volumes (after reading them) and writes the others again;
the bytes are the same, for nothing in them depends on the day, the machine or the order of threads.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO

from gapforge.base.errors import BundleError, Fault, StorageError
from gapforge.base.files import exclusive, free_bytes, sha256_bytes, storage_errors, sync_folder
from gapforge.base.i18n import _
from gapforge.base.progress import Progress, human_bytes
from gapforge.base.project import Project
from gapforge.bundle.contents import Contents
from gapforge.bundle.file_system_limits import cluster, file_limit
from gapforge.bundle.hashing import Ring, lanes
from gapforge.bundle.page_cache import Flow
from gapforge.bundle.receiver_program import RECEIVER, receiver_bytes
from gapforge.bundle.sign_bundle import Beside, Seal, unsigned
from gapforge.bundle.verify_volume import damaged_pieces
from gapforge.bundle.volume_format import (
    HEAD,
    Damaged,
    Span,
    index_bytes,
    read_volume,
    trailer,
    volume_name,
)
from gapforge.bundle.volume_plan import Plan, Sealed, index_name

SMALL = 2 << 20  # bytes; objects up to this size are read and hashed ahead, on all cores
AHEAD = 8  # small objects that wait for their turn
_CLUSTER = 64 << 10  # bytes; what a file may take beyond its size


@dataclass(frozen=True)
class Placed:
    """Where each volume goes: number -> folder. ``kept`` are those that were there already and are whole."""

    folders: Mapping[int, Path]
    kept: Mapping[int, tuple[Sealed, Mapping[Span, str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Packed:
    """What was written. ``sealed`` lists all volumes, ``kept`` the numbers of those that were there before."""

    plan: Plan
    sealed: tuple[Sealed, ...]
    folders: Mapping[int, Path]
    kept: tuple[int, ...]
    index: tuple[Path, ...]
    beside: Beside = field(default_factory=lambda: Beside({}))


def pack(
    project: Project,
    plan: Plan,
    contents: Contents,
    to: Sequence[Path],
    progress: Progress,
    seal: Seal | None = None,
) -> Packed:
    """Write the volumes of ``plan`` into the folders ``to``, which are filled in order.

    Beside them go the bundle's index, signed with ``seal``, and the receiver. Raises StorageError and TrustError,
    before anything is written, when there is not enough room or the key cannot sign; BundleError naming the object
    whose bytes are not what the lock says.
    """
    state = project.state / "bundles"
    with exclusive(state / f"{plan.bundle}.lock", _("bundle {bundle}", bundle=plan.bundle)):
        for folder in to:
            with storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                for number in range(1, len(plan.volumes) + 1):
                    _part(folder, plan, number).unlink(missing_ok=True)
        signatures = len(plan.views) + 1 if seal is not None else 0
        placed = place(plan, to, signatures=signatures, listed=contents.listed)
        for name, data in (
            seal.prepare(project, plan, contents, to) if seal is not None else {}
        ).items():
            _put(state / name, data)
        for number in set(placed.folders) - set(placed.kept):
            # Damaged volumes of this name go first: their room was counted for the new one.
            for target in (folder / volume_name(plan.bundle, number) for folder in to):
                with storage_errors(target):
                    target.unlink(missing_ok=True)
        progress.total = sum(plan.size(n) for n in placed.folders if n not in placed.kept)
        with _Writer(plan, contents, placed, progress) as writer:
            sealed = writer.run()
        small = (
            seal.finish(plan, sealed) if seal is not None else unsigned(project, plan, sealed, to)
        )
        folders = list(dict.fromkeys(placed.folders[n] for n in sorted(placed.folders)))
        for folder in (
            state,
            *folders,
        ):  # ours first: what a killed run has given out is known to the next one
            for name in small.stale:
                with storage_errors(folder / name):
                    (folder / name).unlink(missing_ok=True)
            for name, data in small.files.items():
                _put(folder / name, data)
        for folder in folders:
            _put(folder / RECEIVER, receiver_bytes())
    index = tuple(folder / index_name(plan.bundle) for folder in folders)
    return Packed(plan, tuple(sealed), placed.folders, tuple(sorted(placed.kept)), index, small)


def place(
    plan: Plan, to: Sequence[Path], *, check: bool = True, signatures: int = 0, listed: int = 0
) -> Placed:
    """Choose the folder of each volume: where it is already, else the first with room. Raises StorageError.

    Without ``check`` volumes that are there already are not read. Each folder keeps room for so many ``signatures``, and
    for a custody page that has ``listed`` files.
    """
    _require_file_size(plan, to)
    kept: dict[int, tuple[Sealed, Mapping[Span, str]]] = {}
    folders: dict[int, Path] = {}
    existing: dict[int, Path] = {}
    for number in range(1, len(plan.volumes) + 1):
        for folder in to:
            path = folder / volume_name(plan.bundle, number)
            if not path.is_file():
                continue
            existing.setdefault(number, path)
            found = _kept(path, plan, number) if check else None
            if found is not None:
                kept[number], folders[number] = found, folder
                break
    each = max([_CLUSTER, *map(cluster, to)])
    free: dict[int, int] = {}
    disks: dict[Path, int] = {}
    for folder in to:
        disks[folder], room = disk_of(folder)
        free.setdefault(disks[folder], room)
    for folder in to:
        needed = beside(plan, each, listed) + signatures * each
        free[disks[folder]] -= max(0, needed - _beside_already(folder, plan, each))
    short = 0
    for number in range(1, len(plan.volumes) + 1):
        if number in folders:
            continue
        candidates = dict.fromkeys(to, plan.size(number) + each)
        if (
            number in existing
        ):  # a damaged one of the same name is replaced where it is, if there is room
            home, gone = (
                existing[number].parent,
                _rounded(existing[number].stat().st_size, cluster(existing[number])),
            )
            candidates = {home: candidates.pop(home) - gone, **candidates}
        for folder, need in candidates.items():
            if free[disks[folder]] >= need:
                free[disks[folder]] -= need
                folders[number] = folder
                break
        else:
            short += min(candidates.values())
    if short:
        left = {folder: human_bytes(max(0, free[disks[folder]])) for folder in to}
        shown = ", ".join(
            _("{folder}: {room} left", folder=folder, room=room) for folder, room in left.items()
        )
        raise StorageError(
            _(
                "the volumes do not fit: {short} too much ({shown})",
                short=human_bytes(short),
                shown=shown,
            ),
            hint=_("name a further folder with --to, or make room"),
        )
    return Placed(folders, kept)


def _require_file_size(plan: Plan, to: Sequence[Path]) -> None:
    largest = max(plan.size(number) for number in range(1, len(plan.volumes) + 1))
    for folder in to:
        limit = file_limit(folder)
        if limit and largest > limit:
            raise StorageError(
                _(
                    "{folder} is on a FAT disk, which takes files of up to {limit} "
                    "bytes; a volume would have {largest}",
                    folder=folder,
                    limit=limit,
                    largest=largest,
                ),
                hint=_("the same command with --volume-size fat32; nothing was written"),
            )


def beside(plan: Plan, each: int = _CLUSTER, listed: int = 0) -> int:
    """The most bytes that lie beside the volumes in each folder: receiver, index, custody page and its signature.

    The page lists so many files, for it names those that the site has, too.
    """
    page = 260 * max(listed, len(plan.spans))
    return len(receiver_bytes()) + 90 * len(plan.spans) + page + 300 * len(plan.volumes) + 6 * each


def _beside_already(folder: Path, plan: Plan, each: int) -> int:
    """The bytes of these that an earlier run has written."""
    sizes = [
        path.stat().st_size
        for path in (folder / RECEIVER, *folder.glob(f"{plan.bundle}.*"))
        if path.is_file()
    ]
    return sum(_rounded(size, each) for size in sizes)


def _rounded(size: int, each: int) -> int:
    return -(-size // each) * each


def disk_of(folder: Path) -> tuple[int, int]:
    """Which disk a folder (that need not exist yet) is on, and how many bytes are free there."""
    where = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return where.stat().st_dev, free_bytes(where)


def _kept(path: Path, plan: Plan, number: int) -> tuple[Sealed, Mapping[Span, str]] | None:
    """The volume in ``path`` when it is whole and the one that would be written."""
    try:
        volume, pieces = read_volume(path)
        if (
            volume.identity != plan.identity(number)
            or tuple(p.span for p in pieces) != plan.volumes[number - 1]
        ):
            return None
        if damaged_pieces(path, pieces):
            return None
    except (Damaged, OSError):
        return None
    return Sealed(number, volume.size, volume.index_sha256), {
        piece.span: piece.sha256 for piece in pieces
    }


def _part(folder: Path, plan: Plan, number: int) -> Path:
    return folder / f".{volume_name(plan.bundle, number)}.part"


def _put(target: Path, data: bytes) -> None:
    """Write a small file whole or not at all; its temporary name is fixed, so that no killed run leaves litter."""
    temporary = target.with_name(f".{target.name}.part")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and target.read_bytes() == data:
            return
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)


class _Open:
    """A volume that is being written."""

    def __init__(self, folder: Path, plan: Plan, number: int) -> None:
        self.target, self.part = (
            folder / volume_name(plan.bundle, number),
            _part(folder, plan, number),
        )
        self.plan, self.number = plan, number
        self.hashes: list[str] = []
        self.size = len(HEAD)
        with storage_errors(self.part):
            self.file: IO[bytes] = open(self.part, "wb", buffering=0)  # noqa: SIM115 - closed by seal or abandon
        self.flow = Flow(self.file.fileno())
        self.write(memoryview(HEAD), count=False)

    def write(self, data: memoryview, *, count: bool = True) -> None:
        with storage_errors(self.target):
            done = 0
            while done < len(data):
                done += self.file.write(data[done:])
            if count:
                self.size += len(data)
            self.flow.reached(self.size)

    def seal(self) -> Sealed:
        index = index_bytes(
            self.plan.identity(self.number), self.plan.volumes[self.number - 1], self.hashes
        )
        end = trailer(index, self.size)
        self.write(memoryview(index + end))
        with storage_errors(self.target):
            os.fsync(self.file.fileno())
            self.file.close()
        return Sealed(self.number, self.size, sha256_bytes(index))

    def publish(self) -> None:
        with storage_errors(self.target):
            os.replace(self.part, self.target)
            sync_folder(self.target.parent)

    def abandon(self) -> None:
        try:
            self.file.close()
            self.part.unlink(missing_ok=True)
        except OSError:
            pass  # the stick is gone, as the error that leads here says; the next run removes it


class _Writer:
    """One run over all objects in order."""

    def __init__(self, plan: Plan, contents: Contents, placed: Placed, progress: Progress) -> None:
        self.plan, self.contents, self.placed, self.progress = plan, contents, placed, progress
        self.sealed = {number: kept[0] for number, kept in placed.kept.items()}
        self.open: _Open | None = None
        self.waiting: list[_Open] = []  # sealed, but an object in them goes on in the next volume
        self.stack = ExitStack()

    def __enter__(self) -> _Writer:
        self.whole, self.part = self.stack.enter_context(lanes())
        self.pool = self.stack.enter_context(
            ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="read")
        )
        self.ring = Ring()
        return self

    def __exit__(self, *exc: object) -> None:
        for volume in [*self.waiting, *([self.open] if self.open else [])]:
            volume.abandon()
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.stack.close()

    def run(self) -> list[Sealed]:
        slots = [
            (number, span) for number, spans in enumerate(self.plan.volumes, 1) for span in spans
        ]
        groups = [list(group) for _unused, group in groupby(slots, key=lambda slot: slot[1].sha256)]
        groups = [
            group
            for group in groups
            if any(number not in self.placed.kept for number, _unused in group)
        ]
        ahead: deque[tuple[list[tuple[int, Span]], Future[bytes] | None]] = deque()
        rest = iter(groups)
        while True:
            while len(ahead) < AHEAD and (group := next(rest, None)) is not None:
                small = group[0][1].size <= SMALL or group[0][1].sha256 in self.contents.texts
                ahead.append(
                    (group, self.pool.submit(self._read_small, group[0][1]) if small else None)
                )
            if not ahead:
                break
            group, data = ahead.popleft()
            if data is not None:
                self._copy_small(group, memoryview(data.result()))
            else:
                self._copy_large(group)
            self._publish()
        for number in range(
            1, len(self.plan.volumes) + 1
        ):  # what has no bytes at all, and the last one
            if number not in self.sealed:
                self._volume(number)
        self._seal()
        self._publish()
        return [self.sealed[number] for number in sorted(self.sealed)]

    # -- objects

    def _read_small(self, span: Span) -> bytes:
        """A small object's bytes, verified."""
        data = self.contents.texts.get(span.sha256)
        if data is None:
            path = self._source(span)
            with storage_errors(path), open(path, "rb", buffering=0) as file:
                data = file.read(span.size + 1)
        self._judge(span, len(data), sha256_bytes(data))
        return data

    def _copy_small(self, group: Iterable[tuple[int, Span]], data: memoryview) -> None:
        for number, span in group:
            piece = data[span.offset : span.end]
            sha256 = span.sha256 if span.whole else sha256_bytes(bytes(piece))
            if (volume := self._volume(number)) is not None:
                volume.write(piece)
                self.progress.add(len(piece))
            self._piece_done(number, span, sha256)

    def _copy_large(self, group: Sequence[tuple[int, Span]]) -> None:
        """Read the whole object, since only that can be verified, and write the spans that are wanted of it."""
        first = group[0][1]
        path, name = self._source(first), self.contents.name(first.sha256)
        digest, position = hashlib.sha256(), 0
        slots = deque(group)
        piece = hashlib.sha256()
        with storage_errors(path), open(path, "rb", buffering=0) as file:
            flow = Flow(file.fileno())
            while True:
                buffer = self.ring.take()
                count = file.readinto(buffer)
                if not count:
                    break
                self.ring.used_by(self.whole.update(digest, buffer[:count]))
                end = position + count
                while slots and slots[0][1].offset < end:
                    number, span = slots[0]
                    data = buffer[max(0, span.offset - position) : min(count, span.end - position)]
                    if not span.whole:
                        self.ring.used_by(self.part.update(piece, data))
                    if (volume := self._volume(number)) is not None:
                        volume.write(data)
                        self.progress.add(len(data), name)
                    if span.end > end:
                        break
                    self._piece_done(
                        number, span, span.sha256 if span.whole else self.part.finish(piece)
                    )
                    slots.popleft()
                    piece = hashlib.sha256()
                position = end
                flow.reached(position)
        self._judge(first, position, self.whole.finish(digest))

    def _source(self, span: Span) -> Path:
        path = self.contents.path(span)
        if path is None:
            name = self.contents.name(span.sha256)
            raise BundleError(
                _("{name} is gone, or has another size than a moment ago", name=name),
                hint=_("sync again, then run the same command again"),
            )
        return path

    def _judge(self, span: Span, size: int, sha256: str) -> None:
        if (size, sha256) != (span.size, span.sha256):
            name = self.contents.name(span.sha256)
            presets = self.contents.preset_of(span.sha256) or " ".join(
                view.preset for view in self.plan.views
            )
            raise BundleError(
                _("{name} is not what its lock says; nothing of it was packed", name=name),
                faults=[
                    Fault(
                        str(self.contents.path(span) or name),
                        _("has {size} bytes, sha256 {sha256}", size=size, sha256=sha256),
                        _("{size} bytes, sha256 {sha256}", size=span.size, sha256=span.sha256),
                    )
                ],
                hint=_(
                    "online: ./deps_sync.sh {presets}; then the same command again", presets=presets
                ),
            )

    # -- volumes

    def _volume(self, number: int) -> _Open | None:
        """The volume to write into; None for one that is kept."""
        if number in self.placed.kept:
            return None
        if self.open is None or self.open.number != number:
            self._seal()
            self.open = _Open(self.placed.folders[number], self.plan, number)
        return self.open

    def _piece_done(self, number: int, span: Span, sha256: str) -> None:
        if number not in self.placed.kept:
            assert self.open is not None
            self.open.hashes.append(sha256)
        elif self.placed.kept[number][1][span] != sha256:
            path = self.placed.folders[number] / volume_name(self.plan.bundle, number)
            name = self.contents.name(span.sha256)
            raise BundleError(
                _("{path} holds other bytes of {name}", path=path, name=name),
                hint=_("rm {path}; then the same command again", path=path),
            )

    def _seal(self) -> None:
        if self.open is not None:
            self.sealed[self.open.number] = self.open.seal()
            self.waiting.append(self.open)
            self.open = None

    def _publish(self) -> None:
        """Name the sealed volumes; called between objects, when all that they hold is verified."""
        for volume in self.waiting:
            volume.publish()
        self.waiting.clear()
