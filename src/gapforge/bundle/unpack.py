"""Import volumes in any order and from any number of folders, and create the artifacts of presets.

Everything intact is imported even if other parts are damaged. After an interruption, the same
command continues. Nothing is written outside the store and artifacts/NAME.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import BundleError, Fault, LockError, StorageError, TrustError
from gapforge.base.files import sha256_bytes
from gapforge.base.i18n import _, ngettext
from gapforge.base.process_locks import exclusive
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.text_layout import first_names, printable
from gapforge.base.write_files import remove_file, write_text
from gapforge.bundle.check_signatures import remove_signature, untrusted_locks, write_signature
from gapforge.bundle.disk_space import ImportSpace
from gapforge.bundle.find_volumes import Scan
from gapforge.bundle.import_objects import ObjectImporter
from gapforge.bundle.partial_objects import without
from gapforge.bundle.repair_request import RepairRequest, merge_parts, request_name
from gapforge.bundle.volume_format import (
    MAX_INDEX,
    BundledPreset,
    Damaged,
    Part,
    StoredPart,
    Volume,
    describe_read_error,
)
from gapforge.bundle.volume_reader import read_volume
from gapforge.model import lock as locks
from gapforge.model.lock import LOCK_FILE, Lock, has_lock
from gapforge.store import incomplete_bundles, sha256sums
from gapforge.store.store import Store, preset_in_use
from gapforge.trust.trusted_signers import Untrusted

MAX_OBJECTS = MAX_INDEX // 64  # each object has its checksum in the index of the bundle
_SHOWN_OBJECTS = 8  # names of objects in one line
_SHOWN_VOLUMES = 40  # numbers of volumes in one line


@dataclass(kw_only=True)
class ImportResult:
    """The result of an import.

    ``broken`` maps each damaged volume to the reason and the objects that are missing because of
    it. ``presets`` have their artifacts. The others are in ``incomplete`` with the number of their
    missing objects (-1 if the lock is missing too), or in ``untrusted`` with the reason why their
    lock is not accepted. ``copies`` files with ``copied`` bytes are not hard links into the store.
    ``objects`` maps the SHA-256 of each object that was imported to its size.
    """

    bundle: str
    already: int = 0
    broken: dict[Path, str] = field(default_factory=dict)
    missing_volumes: list[int] = field(default_factory=list)
    presets: list[str] = field(default_factory=list)
    incomplete: dict[str, int] = field(default_factory=dict)
    unexpected: dict[str, list[str]] = field(default_factory=dict)
    copies: int = 0
    copied: int = 0
    request: RepairRequest | None = None
    objects: dict[str, int] = field(default_factory=dict)
    repository_missing: bool = False
    untrusted: dict[str, str] = field(default_factory=dict)

    @property
    def imported(self) -> int:
        """Return how many objects were imported."""
        return len(self.objects)

    @property
    def imported_bytes(self) -> int:
        """Return the size of all imported objects."""
        return sum(self.objects.values())

    @property
    def complete(self) -> bool:
        """Return whether all presets have their artifacts and the repository, if any, is here."""
        return not self.incomplete and not self.repository_missing and not self.untrusted

    def error(self, request_file: Path) -> BundleError | TrustError:
        """Return the error of an incomplete import, with every fault and the next steps."""
        untrusted = [
            Fault(_("lock of preset {name}", name=name), why)
            for name, why in self.untrusted.items()
        ]
        if untrusted and not self.incomplete and not self.repository_missing:
            return untrusted_locks(untrusted)
        faults = [Fault(str(path), why) for path, why in self.broken.items()]
        faults += [
            Fault(_("preset {name}", name=name), missing_objects(count))
            for name, count in self.incomplete.items()
        ]
        if self.repository_missing:
            faults.append(Fault(_("the gapforge repository"), _("incomplete")))
        values = {"file": request_file, "name": request_file.name}
        if self.missing_volumes:
            message = _(
                "bundle {bundle} is incomplete; volumes not seen: {volumes}; everything intact was "
                "imported",
                bundle=self.bundle,
                volumes=first_names([str(n) for n in self.missing_volumes], _SHOWN_VOLUMES),
            )
            hint = _(
                "bring the other volumes and run unpack again; or take {file} to the machine that "
                "packed the bundle: ./gapforge pack --repair {name!q} --to FOLDER",
                **values,
            )
        else:
            message = _(
                "bundle {bundle} is incomplete; everything intact was imported", bundle=self.bundle
            )
            hint = _(
                "take {file} to the machine that packed the bundle: ./gapforge pack --repair "
                "{name!q} --to FOLDER",
                **values,
            )
        return BundleError(message, faults=[*faults, *untrusted], hint=hint)


def missing_objects(count: int) -> str:
    """Return how many objects of a preset are missing; -1 means that its lock is missing too."""
    if count < 0:
        return _("the lock and other objects are missing")
    return ngettext("{count} object is missing", "{count} objects are missing", count)


def unpack(
    project: Project, scan: Scan, progress: Progress, *, allow_older: bool = False
) -> ImportResult:
    """Import the volumes of ``scan``.

    Before the first byte, raise StorageError if there is not enough space, and TrustError if the
    bundle is older than one accepted here (unless ``allow_older``).
    """
    store = Store(project.store)
    with ExitStack() as stack:
        stack.enter_context(exclusive(store.lock_file, str(project.store)))
        for bundled in scan.presets:
            stack.enter_context(preset_in_use(project, bundled.preset, changes=True))
        scan.signatures.check_age(scan.bundle, allow_older)
        result = _Import(project, store, scan, progress).run()
        scan.signatures.forget_superseded()
        return result


class _Import:
    """One run of unpack."""

    def __init__(self, project: Project, store: Store, scan: Scan, progress: Progress) -> None:
        self.project, self.store, self.scan = project, store, scan
        self.signatures, self.progress = scan.signatures, progress
        self.importer = ObjectImporter(store, progress)
        self.partial = self.importer.partial
        self.space = ImportSpace(store)
        self.result = ImportResult(bundle=scan.bundle, broken=dict(scan.broken))
        self.failed: dict[Path, list[Part]] = {}
        # The parts in ``failed``, each once, however many copies of a volume are here.
        self.failed_parts: dict[Part, Part] = {}
        self.missing: set[Part] = set()
        self.repository_unknown = False
        self.present: set[str] = set()  # objects that this run has verified in the store
        self.named: set[str] = set()  # objects that indexes and presets name
        self.volumes_of: dict[str, list[Path]] = {}  # split object -> volumes with a part of it

    def run(self) -> ImportResult:
        self.partial.clear_litter()
        self._require_space()
        self._protect(self.named)
        for volume in self.scan.volumes:
            self._import_volume(volume)
        for bundled in self.scan.presets:
            self._create_artifacts(bundled)
        self._find_repository()
        self._describe_failures()
        result = self.result
        result.objects = self.importer.imported
        result.missing_volumes = [n for n in self.scan.missing() if not self._imported_before(n)]
        if result.complete:
            self.signatures.accept_repository(self.scan.tool, self.scan.bundle)
            incomplete_bundles.forget(self.store.folder, self.scan.bundle)
        elif result.incomplete or result.repository_missing:
            result.request = self._request()
        return result

    def _protect(self, objects: Iterable[str]) -> None:
        """Protect these objects from gc until the bundle is complete: no lock here lists them."""
        presets = (bundled.preset for bundled in self.scan.presets)
        incomplete_bundles.remember(self.store.folder, self.scan.bundle, presets, objects)

    # -- before the first byte

    def _require_space(self) -> None:
        """Add up what the volumes would write. Verify objects that are in the store already."""
        seen = set()
        for bundled in self.scan.presets:
            self.named.update((bundled.lock, bundled.sums))
        if self.scan.tool:  # the site may have it from an earlier bundle
            self.named.add(self.scan.tool)
        if self.scan.plan is not None:
            self.named.update(part.sha256 for part in self.scan.plan.parts)
        for volume in self.scan.volumes:
            key = (volume.identity.bundle, volume.identity.number)
            if key in seen:
                continue
            seen.add(key)
            parts = [stored.part for stored in self._parts(volume)]
            self.named.update(part.sha256 for part in parts)
            if len(self.named) > MAX_OBJECTS:
                raise BundleError(
                    _(
                        "the volumes name more than {limit} objects, more than any bundle; nothing "
                        "was imported",
                        limit=MAX_OBJECTS,
                    ),
                    hint=_("somebody altered the volumes; carry the bundle again"),
                )
            absent = self._absent(parts)
            self.result.already += sum(part.sha256 not in absent for part in parts)
            for part in parts:
                if part.sha256 in absent:
                    present = [] if part.whole else self.partial.ranges(part.sha256, part.size)
                    new = without((part.offset, part.end), present)
                    self.space.add(part, sum(after - first for first, after in new))
        self.progress.total = self.space.bytes
        self.space.require()

    def _parts(self, volume: Volume) -> list[StoredPart]:
        """Read the parts of a volume again, since not all indexes are kept in memory.

        Return no parts if the volume can no longer be read.
        """
        try:
            again, parts = read_volume(volume.path)
            if again.index_sha256 != volume.index_sha256:
                raise Damaged(_("the volume was replaced while it was read"))
        except (Damaged, OSError) as error:
            self.result.broken[volume.path] = describe_read_error(error)
            return []
        return parts

    def _absent(self, parts: Iterable[Part]) -> set[str]:
        """Return the objects that are not in the store."""
        # Without the size that the volume declares: the store removes an object of another size,
        # and the volume may be wrong.
        wanted = {part.sha256 for part in parts} - self.present
        absent = self.store.missing((sha256, -1) for sha256 in wanted)
        self.present |= wanted - absent
        return absent

    # -- volumes

    def _import_volume(self, volume: Volume) -> None:
        stored = self._parts(volume)
        absent = self._absent(each.part for each in stored)
        wanted = [each for each in stored if each.part.sha256 in absent]
        failed, why = self.importer.import_parts(volume.path, wanted)
        for part in (each.part for each in wanted):
            if not part.whole:
                self.volumes_of.setdefault(part.sha256, []).append(volume.path)
                if not self.importer.finish(part):
                    self._wrong_parts(part)
        if failed:
            parts = [each.part for each in failed]
            self.failed[volume.path] = [self.failed_parts.setdefault(p, p) for p in parts]
            self.result.broken[volume.path] = why or _("the volume is damaged")

    def _wrong_parts(self, part: Part) -> None:
        why = _(
            "the parts of object {sha256} do not form the object: one of its volumes was altered",
            sha256=part.sha256[:12],
        )
        for path in self.volumes_of[part.sha256]:
            self.result.broken.setdefault(path, why)
        self.missing.add(Part.of_object(part.sha256, part.size))

    # -- presets

    def _create_artifacts(self, bundled: BundledPreset) -> None:
        """Create artifacts/NAME if all objects of the preset are in the store."""
        found = self._lock(bundled)
        if found is None:
            return
        lock, data = found
        missing = self.store.missing((entry.sha256, -1) for entry in lock.entries)
        missing |= {e.sha256 for e in lock.entries if not self.store.has(e.sha256, e.size)}
        if missing:
            self.missing |= {
                Part.of_object(entry.sha256, entry.size)
                for entry in lock.entries
                if entry.sha256 in missing
            }
            self.result.incomplete[bundled.preset] = len(missing)
            # What pack left out, because the site had it, is needed as well.
            self._protect(entry.sha256 for entry in lock.entries)
            return
        files = {entry.path: entry.sha256 for entry in lock.entries}
        files[LOCK_FILE] = bundled.lock
        sums = sha256sums.render(files)
        if sha256_bytes(sums) != bundled.sums:
            raise _altered(
                _(
                    "SHA256SUMS and lock of {preset} in the bundle disagree; the artifacts of "
                    "{preset} were not created",
                    preset=bundled.preset,
                )
            )
        files[sha256sums.NAME] = self.store.add_bytes(sums)
        folder = self.project.artifacts_of(bundled.preset)
        if folder.is_symlink():
            raise StorageError(
                _("{folder} is a symbolic link", folder=folder),
                hint=_("rm {folder!q}; then run the same command again", folder=folder),
            )
        try:
            signature = self.signatures.lock_signature(bundled, data)
        except Untrusted as error:
            self.result.untrusted[bundled.preset] = str(error)
            return
        self.space.require_copies(folder, files)
        stale = signature is None and not has_lock(folder, bundled.lock)
        remove_signature(folder, stale)
        created = self.store.view(folder, files, _paths_of(folder / LOCK_FILE), last=LOCK_FILE)
        write_signature(folder, signature)
        self.signatures.accept(bundled, self.scan.bundle)
        if created.strangers:
            self.result.unexpected[bundled.preset] = list(created.strangers)
        self.result.copies += created.copies
        self.result.copied += created.copied
        self.result.presets.append(bundled.preset)

    def _lock(self, bundled: BundledPreset) -> tuple[Lock, bytes] | None:
        """Return the lock of a preset and the bytes that were checked, None if it is missing.

        Raise BundleError for a lock that sync would not write.
        """
        path = self.store.path(bundled.lock)
        if not self.store.intact(bundled.lock):
            self.result.incomplete[bundled.preset] = -1
            return None
        shown = lock_label(bundled.preset)
        try:
            lock, data = locks.read(path, shown=shown)
            lock.require_complete(shown)
        except LockError as error:
            raise self._altered_lock(bundled, error.message, error.faults) from None
        if sha256_bytes(data) != bundled.lock:
            raise self._altered_lock(bundled, _("{lock} changed while it was read", lock=shown))
        if lock.preset != bundled.preset:
            name = printable(lock.preset)[:128]
            problem = _("{lock} belongs to {preset}", lock=shown, preset=name)
            raise self._altered_lock(bundled, problem)
        return lock, data

    def _altered_lock(
        self, bundled: BundledPreset, message: str, faults: Sequence[Fault] = ()
    ) -> BundleError:
        """Return the error of a lock that sync would not write, with the volumes that hold it."""
        volumes = [
            Fault(str(volume.path), _("contains {lock}", lock=lock_label(bundled.preset)))
            for volume in self.scan.volumes
            if any(stored.part.sha256 == bundled.lock for stored in self._parts(volume))
        ]
        return _altered(message, [*volumes, *faults])

    def _find_repository(self) -> None:
        """Request the archive of the repository if the bundle contains it and it is missing."""
        sha256, plan = self.scan.tool, self.scan.plan
        if not sha256 or self.store.intact(sha256):
            return
        parts = [stored.part for volume in self.scan.volumes for stored in self._parts(volume)]
        listed = [*parts, *(plan.parts if plan else ())]
        sizes = {part.size for part in listed if part.sha256 == sha256}
        self.missing |= {Part.of_object(sha256, size) for size in sizes}
        # No volume contains it if the inventory of the site listed it. While volumes are missing,
        # this is unknown.
        self.repository_unknown = not sizes and plan is None and bool(self.scan.missing())
        self.result.repository_missing = bool(sizes) or self.repository_unknown

    # -- the report

    def _names(self) -> dict[str, str]:
        """Return names of objects for messages, as far as locks are here."""
        names = {self.scan.tool: _("the gapforge repository")}
        for bundled in self.scan.presets:
            names.setdefault(bundled.lock, f"{bundled.preset}/{LOCK_FILE}")
            names.setdefault(bundled.sums, f"{bundled.preset}/{sha256sums.NAME}")
            if self.store.has(bundled.lock):
                for entry in locks.load(self.store.path(bundled.lock)).entries:
                    names.setdefault(entry.sha256, f"{bundled.preset}/{entry.path}")
        return names

    def _describe_failures(self) -> None:
        """Add to each damaged volume the names of the objects that are missing because of it."""
        broken = self.result.broken
        names = self._names() if broken else {}
        parts: dict[Path, Iterable[Part]] = dict(self.failed)
        for path in self.scan.broken:
            number = _number_in_name(path, self.scan)
            if number and self.scan.plan is not None:
                parts[path] = self.scan.plan.volumes[number - 1]
        for path, expected in parts.items():
            # Another copy of the volume may be intact.
            missing = [
                names.get(part.sha256) or _("object {sha256}", sha256=part.sha256[:12])
                for part in expected
                if not self._is_here(part)
            ]
            if missing:
                shown = first_names(missing, _SHOWN_OBJECTS)
                broken[path] = _("{why}; missing: {names}", why=broken[path], names=shown)
            else:
                broken[path] = _("{why}; everything in it is here already", why=broken[path])

    def _imported_before(self, number: int) -> bool:
        """Return whether an earlier run imported everything in a volume."""
        plan = self.scan.plan
        return plan is not None and all(map(self._is_here, plan.volumes[number - 1]))

    def _is_here(self, part: Part) -> bool:
        return self.store.has(part.sha256, part.size) or not without(
            (part.offset, part.end), self.partial.ranges(part.sha256, part.size)
        )

    def _request(self) -> RepairRequest:
        """Return a request for everything missing that locks, indexes and volumes name."""
        parts = self.missing | set(self.failed_parts)
        if self.scan.plan is not None:
            parts |= set(self.scan.plan.parts)
        all_known = self.scan.plan is not None or (
            min(self.result.incomplete.values(), default=0) >= 0 and not self.repository_unknown
        )
        missing = set()
        for part in parts:
            if not self.store.has(part.sha256, part.size):
                present = self.partial.ranges(part.sha256, part.size)
                ranges = without((part.offset, part.end), present) if part.size else [(0, 0)]
                for first, after in ranges:
                    missing.add(Part(part.sha256, part.size, first, after - first))
        return RepairRequest(
            bundle=self.scan.bundle,
            parts=tuple(merge_parts(missing)),
            volumes=() if all_known else tuple(self.scan.missing()),
            presets=self.scan.presets,
            tool=self.scan.tool,
        )


def lock_label(preset: str) -> str:
    """Return the name of the lock in the bundle for messages."""
    return _("the lock of {preset} in the bundle", preset=preset)


def _altered(message: str, faults: Sequence[Fault] = ()) -> BundleError:
    hint = _("somebody altered the bundle; carry it again")
    return BundleError(message, faults=faults, hint=hint)


def _number_in_name(path: Path, scan: Scan) -> int:
    """Return the number of a volume that cannot be read, by its file name; 0 if it has none."""
    stem, _separator, number = path.stem.rpartition("-")
    count = len(scan.plan.volumes) if scan.plan is not None else 0
    valid = stem == scan.bundle and number.isdecimal() and 1 <= int(number) <= count
    return int(number) if valid else 0


def _paths_of(lock_file: Path) -> list[str]:
    """Return the paths that an earlier import wrote into artifacts/NAME, to remove stale ones."""
    if not lock_file.is_file():  # reading a pipe would block
        return []
    try:
        return [entry.path for entry in locks.load(lock_file).entries]
    except (LockError, OSError):
        return []


def remove_request(project: Project, bundle: str) -> None:
    """Remove an earlier repair request of this bundle from artifacts/: it is answered."""
    remove_file(project.artifacts / request_name(bundle))


def write_request(project: Project, request: RepairRequest, target: Path | None = None) -> Path:
    """Write the request to ``target``, or into artifacts/. Return the path."""
    file = target or project.artifacts / request.file
    write_text(file, request.render().decode("ascii"))
    return file
