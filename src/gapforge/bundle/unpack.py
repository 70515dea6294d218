"""Importing volumes: every object verified before it gets its name, in any order, from any number of folders.

What is good is imported even when something else is broken. Killed at any moment, a plain re-run goes on: finished
objects are in the store, and parts of cut ones are noted. Nothing is written outside the store and artifacts/NAME.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import BundleError, Fault, LockError, StorageError, TrustError
from gapforge.base.files import exclusive, sha256_bytes, sha256_file, storage_errors, write_text
from gapforge.base.i18n import _, ngettext
from gapforge.base.parallel import on_all_cores
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.text import printable
from gapforge.bundle.check_signatures import (
    Admission,
    clear_signature,
    lay_signature,
    locks_untrusted,
)
from gapforge.bundle.contents import LOCK
from gapforge.bundle.find_volumes import Scan
from gapforge.bundle.import_space import Room
from gapforge.bundle.page_cache import Flow
from gapforge.bundle.read_errors import why_unreadable
from gapforge.bundle.repair_request import Request, disjoint
from gapforge.bundle.resume_import import Partial, merged, sync_data, without
from gapforge.bundle.store_batch import Landing
from gapforge.bundle.verify_volume import read_piece
from gapforge.bundle.volume_format import (
    MAX_INDEX,
    Damaged,
    Piece,
    Span,
    View,
    Volume,
    open_regular,
    read_volume,
)
from gapforge.model import lock as locks
from gapforge.model.lock import Lock
from gapforge.store import sha256sums, unfinished_imports
from gapforge.store.store import Store
from gapforge.trust.trusted_signers import Untrusted

MAX_NAMED = MAX_INDEX // 64  # objects: each has its hash in the index of the bundle
_SHOWN = 8  # names of objects in one line


@dataclass
class Unpacked:
    """What an import did. ``broken`` says for each bad volume why, and which objects it fails; ``presets`` are laid
    out in artifacts/NAME; ``incomplete`` counts for the others the objects that are missing (-1: not known yet), and
    ``untrusted`` says why the lock of a preset that is whole does not count. ``copies`` of the files laid out,
    ``copied`` bytes, are no hard links into the store; ``objects`` are the hashes of what was imported."""

    bundle: str
    imported: int = 0
    imported_bytes: int = 0
    already: int = 0
    broken: dict[Path, str] = field(default_factory=dict)
    missing_volumes: list[int] = field(default_factory=list)
    presets: list[str] = field(default_factory=list)
    incomplete: dict[str, int] = field(default_factory=dict)
    strangers: dict[str, list[str]] = field(default_factory=dict)
    copies: int = 0
    copied: int = 0
    request: Request | None = None
    objects: set[str] = field(default_factory=set)
    lacks_tool: bool = False
    untrusted: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all presets of the bundle are here, and gapforge itself where the bundle carries it."""
        return not self.incomplete and not self.lacks_tool and not self.untrusted

    def error(self, request_file: Path) -> BundleError | TrustError:
        """What is wrong, all of it, and the two ways on."""
        if self.untrusted and not self.incomplete and not self.lacks_tool:
            return locks_untrusted(self._untrusted())
        faults = [Fault(str(path), why) for path, why in self.broken.items()]
        faults += [
            Fault(_("preset {name}", name=name), _lack(count))
            for name, count in self.incomplete.items()
        ]
        if self.lacks_tool:
            faults.append(Fault(_("gapforge itself"), _("is not whole yet")))
        faults += self._untrusted()
        missing = ", ".join(str(n) for n in self.missing_volumes[:40])
        what = _("; volumes not seen: {missing}", missing=missing) if missing else ""
        hint = _(
            "take {request_file} to where the bundle was packed: ./gapforge pack "
            "--repair {name} --to FOLDER",
            request_file=request_file,
            name=request_file.name,
        )
        if missing:
            hint = _("bring the other volumes and run unpack again; or {hint}", hint=hint)
        return BundleError(
            _(
                "bundle {bundle} is not complete{what}; all that is good was imported",
                bundle=self.bundle,
                what=what,
            ),
            faults=faults,
            hint=hint,
        )

    def _untrusted(self) -> list[Fault]:
        return [
            Fault(_("lock of preset {name}", name=name), why)
            for name, why in self.untrusted.items()
        ]


def unpack(
    project: Project,
    scan: Scan,
    progress: Progress,
    admission: Admission | None = None,
    *,
    allow_older: bool = False,
) -> Unpacked:
    """Import what ``scan`` found with the same ``admission``. Before the first byte it raises StorageError when the
    disk has no room for it, TrustError when it is older than what was accepted here (unless ``allow_older``)."""
    store = Store(project.store)
    with exclusive(store.lock_file, f"{project.store}"):
        if admission is not None:
            admission.check_age(scan.bundle, allow_older)
        result = _Import(project, store, scan, progress, admission).run()
        if admission is not None:
            admission.forget_superseded()
        return result


class _Import:
    def __init__(
        self,
        project: Project,
        store: Store,
        scan: Scan,
        progress: Progress,
        admission: Admission | None,
    ) -> None:
        self.project, self.store, self.scan, self.progress, self.admission = (
            project,
            store,
            scan,
            progress,
            admission,
        )
        self.partial, self.room = Partial(store), Room(store)
        self.landing = Landing(store, self._landed)
        self.result = Unpacked(scan.bundle, broken=dict(scan.broken))
        self.failed: dict[Path, list[Span]] = {}
        self._spans: dict[
            Span, Span
        ] = {}  # those of ``failed``, each once however many copies of a volume come
        self._guard = threading.Lock()
        self.lacking: set[Span] = set()
        self.tool_unknown = False
        self.present: set[str] = set()  # verified by this run
        self.named: set[str] = set()  # all that indexes and views name
        self.carriers: dict[str, list[Path]] = {}  # object -> volumes that hold parts of it

    def run(self) -> Unpacked:
        self.partial.clear_litter()
        self._make_sure_of_room()
        self._remember(self.named)
        for volume in self.scan.volumes:
            self._volume(volume)
        for view in self.scan.views:
            self._view(view)
        self._tool()
        self._tell_of_failures()
        self.result.missing_volumes = [
            number for number in self.scan.missing() if not self._came(number)
        ]
        if self.result.complete:
            if self.admission is not None:
                self.admission.accept_tool(self.scan.tool, self.scan.bundle)
            unfinished_imports.forget(self.store.folder, self.scan.bundle)
        elif self.result.incomplete or self.result.lacks_tool:
            self.result.request = self._request()
        return self.result

    def _remember(self, objects: Iterable[str]) -> None:
        """Keep gc from these objects until the bundle is complete: no preset's lock is here to name them."""
        presets = (view.preset for view in self.scan.views)
        unfinished_imports.remember(self.store.folder, self.scan.bundle, presets, objects)

    # -- before the first byte

    def _make_sure_of_room(self) -> None:
        """Add up what the volumes here would write; objects that are in the store already are hashed on the way."""
        seen = set()
        self.named.update(sha256 for view in self.scan.views for sha256 in (view.lock, view.sums))
        self.named.update({self.scan.tool} - {""})  # the site may have it from an earlier bundle
        if self.scan.plan is not None:
            self.named.update(span.sha256 for span in self.scan.plan.spans)
        for volume in self.scan.volumes:
            key = (volume.identity.bundle, volume.identity.number)
            if key in seen:
                continue
            seen.add(key)
            pieces = self._pieces(volume)
            self.named.update(piece.span.sha256 for piece in pieces)
            if len(self.named) > MAX_NAMED:
                raise BundleError(
                    _(
                        "the volumes name more than {max_named} objects, which no bundle "
                        "holds; nothing was imported",
                        max_named=MAX_NAMED,
                    ),
                    hint=_("somebody altered them; carry the bundle again"),
                )
            absent = self._absent(pieces)
            self.result.already += sum(piece.span.sha256 not in absent for piece in pieces)
            for piece in pieces:
                span = piece.span
                if span.sha256 in absent:
                    held = [] if span.whole else self.partial.held(span.sha256, span.size)
                    self.room.add(
                        span, sum(b - a for a, b in without((span.offset, span.end), held))
                    )
        self.progress.total = self.room.bytes
        self.room.require()

    def _pieces(self, volume: Volume) -> list[Piece]:
        """The volume's pieces, read again: not all indexes are kept in memory. Empty when it went away."""
        try:
            again, pieces = read_volume(volume.path)
            if again.index_sha256 != volume.index_sha256:
                raise Damaged(_("was exchanged while it was read"))
        except (Damaged, OSError) as error:
            self.result.broken[volume.path] = why_unreadable(error)
            return []
        return pieces

    def _absent(self, pieces: Iterable[Piece]) -> set[str]:
        # Not by the size that the volume declares: the store removes what has another one, and that may be a lie.
        wanted = {piece.span.sha256 for piece in pieces} - self.present
        absent = self.store.missing((sha256, -1) for sha256 in wanted)
        self.present |= wanted - absent
        return absent

    # -- volumes

    def _volume(self, volume: Volume) -> None:
        pieces = self._pieces(volume)
        absent = self._absent(pieces)
        todo = [piece for piece in pieces if piece.span.sha256 in absent]
        bad: list[Piece] = []
        why = ""
        if todo:
            try:
                with open_regular(volume.path) as file:
                    handle = file.fileno()
                    results = on_all_cores(lambda piece: self._piece(handle, piece), todo)
                bad = [
                    piece for piece, error in zip(todo, results, strict=True) if error is not None
                ]
                why = next(
                    (why_unreadable(error) for error in results if isinstance(error, OSError)), ""
                )
            except (Damaged, OSError) as error:
                bad, why = todo, why_unreadable(error)
        self.landing.flush()
        self.partial.flush()
        for piece in todo:
            if not piece.span.whole:
                self.carriers.setdefault(piece.span.sha256, []).append(volume.path)
                self._finish(piece.span)
        if bad:
            self.failed[volume.path] = [
                self._spans.setdefault(piece.span, piece.span) for piece in bad
            ]
            self.result.broken[volume.path] = why or _("is damaged")

    def _piece(self, handle: int, piece: Piece) -> Damaged | OSError | None:
        """Import one piece; gives what is wrong with it: a Damaged, or why it cannot be read. Raises StorageError for
        our own disk."""
        span = piece.span
        gaps = [(span.offset, span.end)]
        if not span.whole:
            gaps = without(gaps[0], self.partial.held(span.sha256, span.size))
            if not gaps:
                return None
        target = (
            self.store.partial(f"bundle-{span.sha256}.whole.part")
            if span.whole
            else self.partial.data(span.sha256)
        )
        flags = (
            os.O_RDWR
            | os.O_CREAT
            | os.O_NOFOLLOW
            | os.O_CLOEXEC
            | (os.O_TRUNC if span.whole else 0)
        )
        with storage_errors(target):
            out = os.open(target, flags, 0o644)
        flow = Flow(out)
        flow.begin(span.offset)
        anew = not span.whole and gaps == [
            (span.offset, span.end)
        ]  # else the file keeps bytes of an earlier run
        digest = self.partial.hash_before(span.sha256, span.offset) if anew else None

        def write(data: memoryview, offset: int) -> None:
            with storage_errors(target):
                for (
                    start,
                    end,
                ) in gaps:  # what was verified before must not suffer when this piece turns out bad
                    done, rest = max(start, offset), min(end, offset + len(data))
                    while done < rest:
                        done += os.pwrite(out, data[done - offset : rest - offset], done)
            flow.reached(offset + len(data))
            if digest is not None:
                digest.update(data)
            self.progress.add(len(data))

        try:
            read_piece(handle, piece, write)
            if not span.whole:
                sync_data(out, target)
        except (Damaged, OSError) as error:
            if span.whole:
                target.unlink(missing_ok=True)
            return error.with_traceback(None)  # or each would hold all that was at work
        finally:
            os.close(out)
        if span.whole:
            self.landing.add(target, span)
        else:
            self.partial.note(span.sha256, span.size, (span.offset, span.end), digest)
        return None

    def _finish(self, span: Span) -> None:
        """Give a cut object its name when all of it is here."""
        if self.store.has(span.sha256, span.size) or not self.partial.complete(
            span.sha256, span.size
        ):
            return
        if self.partial.finish(span.sha256, span.size):
            self._count(span)
            return
        for path in self.carriers[span.sha256]:
            self.result.broken.setdefault(
                path,
                _(
                    "holds parts that do not make up object {sha256}: one of its volumes "
                    "was altered",
                    sha256=span.sha256[:12],
                ),
            )
        self.lacking.add(Span(span.sha256, span.size, 0, span.size))

    def _landed(self, span: Span) -> None:
        self.partial.discard(span.sha256)  # of an earlier bundle that cut it
        self._count(span)

    def _count(self, span: Span) -> None:
        with self._guard:
            self.result.imported += 1
            self.result.imported_bytes += span.size
            self.result.objects.add(span.sha256)

    # -- presets

    def _view(self, view: View) -> None:
        lock = self._lock(view)
        if lock is None:
            return
        files = {entry.path: entry.sha256 for entry in lock.entries}
        gone = self.store.missing((entry.sha256, -1) for entry in lock.entries)
        gone |= {
            entry.sha256 for entry in lock.entries if not self.store.has(entry.sha256, entry.size)
        }
        if gone:
            self.lacking |= {
                Span(e.sha256, e.size, 0, e.size) for e in lock.entries if e.sha256 in gone
            }
            self.result.incomplete[view.preset] = len(gone)
            self._remember(
                entry.sha256 for entry in lock.entries
            )  # what pack left out is needed as well
            return
        files[LOCK] = view.lock
        sums = sha256sums.render(files)
        if sha256_bytes(sums) != view.sums:
            raise _altered(
                _(
                    "the bundle's SHA256SUMS of {preset} and its lock disagree; {preset} "
                    "was not laid out",
                    preset=view.preset,
                )
            )
        files[sha256sums.NAME] = self.store.add_bytes(sums)
        folder = self.project.artifacts_of(view.preset)
        if folder.is_symlink():
            raise StorageError(
                _("{folder} is a symbolic link", folder=folder),
                hint=_("rm {folder}; then the same command again", folder=folder),
            )
        signature = None
        if self.admission is not None:
            try:
                signature = self.admission.lock_signature(
                    view, self.store.path(view.lock).read_bytes()
                )
            except Untrusted as error:
                self.result.untrusted[view.preset] = str(error)
                return
        self.room.require_copies(folder, files)
        clear_signature(folder, signature is None and not _is_copy(folder / LOCK, view.lock))
        laid = self.store.view(folder, files, _paths_of(folder / LOCK), last=LOCK)
        lay_signature(folder, signature)
        if self.admission is not None:
            self.admission.accept(view, self.scan.bundle)
        if laid.strangers:
            self.result.strangers[view.preset] = list(laid.strangers)
        self.result.copies += laid.copies
        self.result.copied += laid.copied
        self.result.presets.append(view.preset)

    def _lock(self, view: View) -> Lock | None:
        """The view's lock, or None while it is not here. Raises BundleError for one that no sync wrote."""
        path = self.store.path(view.lock)
        if not self.store.intact(view.lock):
            self.result.incomplete[view.preset] = -1
            return None
        shown, size = lock_of(view.preset), path.stat().st_size
        if size > locks.MAX_BYTES:
            raise _altered(_("{shown} has {size} bytes", shown=shown, size=size))
        text = path.read_bytes()
        # A lock's objects hold a hash each; text of any other shape could take far more memory than it has bytes.
        if (
            text.count(b"{") > len(text) // 100 + 64
            or max(text.count(b"["), text.count(b",")) > len(text) // 10 + 64
        ):
            raise _altered(_("{shown} is not shaped like a lock", shown=shown))
        try:
            lock = locks.load(path, shown=shown)
            lock.require_complete(shown)
        except RecursionError:
            raise BundleError(
                _("{shown} is nested too deeply", shown=shown), hint=_("carry it again")
            ) from None
        except LockError as error:
            raise _altered(error.message, error.faults) from None
        if lock.preset != view.preset or {LOCK, sha256sums.NAME} & {
            entry.path for entry in lock.entries
        }:
            other = printable(lock.preset)[:128]
            raise _altered(
                _("{shown} is that of {other}, or lists itself", shown=shown, other=other)
            )
        return lock

    def _tool(self) -> None:
        """Ask for gapforge itself when the bundle carries it and it is not here."""
        sha256, plan = self.scan.tool, self.scan.plan
        if not sha256 or self.store.intact(sha256):
            return
        spans = [piece.span for volume in self.scan.volumes for piece in self._pieces(volume)]
        sizes = {
            span.size for span in [*spans, *(plan.spans if plan else ())] if span.sha256 == sha256
        }
        self.lacking |= {Span(sha256, size, 0, size) for size in sizes}
        # Where the site had it by its inventory it is in no volume; with volumes unseen, nobody knows.
        self.tool_unknown = not sizes and plan is None and bool(self.scan.missing())
        self.result.lacks_tool = bool(sizes) or self.tool_unknown

    # -- what is left to say

    def _names(self) -> dict[str, str]:
        names: dict[str, str] = {self.scan.tool: _("gapforge itself")}
        for view in self.scan.views:
            names.setdefault(view.lock, f"{view.preset}/{LOCK}")
            names.setdefault(view.sums, f"{view.preset}/{sha256sums.NAME}")
            if self.store.has(view.lock):
                lock = locks.load(self.store.path(view.lock))
                for entry in lock.entries:
                    names.setdefault(entry.sha256, f"{view.preset}/{entry.path}")
        return names

    def _tell_of_failures(self) -> None:
        """Add to each broken volume which objects it fails, by the names that people know."""
        names = self._names() if self.result.broken else {}
        held: dict[Path, Iterable[Span]] = dict(self.failed)
        for path in self.scan.broken:
            number = _number_in_name(path, self.scan)
            if number and self.scan.plan is not None:
                held[path] = self.scan.plan.volumes[number - 1]
        for path, spans in held.items():
            # A second copy may have had what this one fails.
            failing = [span for span in spans if not self._here(span)]
            shown = [
                names.get(span.sha256) or _("object {sha256}", sha256=span.sha256[:12])
                for span in failing
            ]
            some, more = ", ".join(shown[:_SHOWN]), len(shown) - _SHOWN
            some += _(" and {more} more", more=more) if more > 0 else ""
            self.result.broken[path] += (
                _("; it fails {some}", some=some) if shown else _("; all that it holds is here")
            )

    def _came(self, number: int) -> bool:
        """Whether all that a volume holds is here, as after an earlier run that saw it."""
        plan = self.scan.plan
        return plan is not None and all(self._here(span) for span in plan.volumes[number - 1])

    def _here(self, span: Span) -> bool:
        return self.store.has(span.sha256, span.size) or not without(
            (span.offset, span.end), self.partial.held(span.sha256, span.size)
        )

    def _request(self) -> Request:
        """Everything that the site lacks, as far as locks, indexes and volumes tell."""
        spans = self.lacking | set(self._spans)
        if self.scan.plan is not None:
            spans |= set(self.scan.plan.spans)
        known = (
            all(count >= 0 for count in self.result.incomplete.values()) and not self.tool_unknown
        )
        volumes: list[int] = [] if known or self.scan.plan is not None else self.scan.missing()
        lacking = set()
        for span in spans:
            if not self.store.has(span.sha256, span.size):
                held = self.partial.held(span.sha256, span.size)
                parts = without((span.offset, span.end), held) if span.size else [(0, 0)]
                lacking |= {Span(span.sha256, span.size, a, b - a) for a, b in merged(parts)}
        return Request(
            self.scan.bundle,
            tuple(disjoint(lacking)),
            tuple(volumes),
            self.scan.views,
            self.scan.tool,
        )


def lock_of(preset: str) -> str:
    """What a person calls the lock that a bundle brought."""
    return _("the bundle's lock of {preset}", preset=preset)


def _altered(message: str, faults: Sequence[Fault] = ()) -> BundleError:
    return BundleError(
        message, faults=faults, hint=_("somebody altered the bundle; carry it again")
    )


def _lack(count: int) -> str:
    if count < 0:
        return _("lacks its lock, and more")
    return ngettext("lacks {count} object", "lacks {count} objects", count)


def _number_in_name(path: Path, scan: Scan) -> int:
    """Which volume a file that cannot be read would be, by its name; 0 when its name does not say."""
    stem, _separator, number = path.stem.rpartition("-")
    total = len(scan.plan.volumes) if scan.plan is not None else 0
    return (
        int(number)
        if stem == scan.bundle and number.isdecimal() and 1 <= int(number) <= total
        else 0
    )


def _paths_of(lock_file: Path) -> Mapping[str, None]:
    """The paths that an earlier lay-out put into artifacts/NAME, so that stale ones may be removed."""
    if not lock_file.is_file():  # a pipe would be waited for
        return {}
    try:
        return {entry.path: None for entry in locks.load(lock_file).entries}
    except (LockError, OSError):
        return {}


def _is_copy(file: Path, sha256: str) -> bool:
    try:
        return file.is_file() and sha256_file(file) == sha256  # a pipe would be waited for
    except OSError:
        return False


def clear_request(project: Project, bundle: str) -> None:
    """Remove an earlier request of this bundle from beside the artifacts: it was answered."""
    file = project.artifacts / Request(bundle, (), (), ()).file
    with storage_errors(file):
        file.unlink(missing_ok=True)


def write_request(project: Project, request: Request, target: Path | None = None) -> Path:
    """Write the request to ``target``, or beside the artifacts; gives where."""
    file = target or project.artifacts / request.file
    write_text(file, request.render().decode("ascii"))
    return file
