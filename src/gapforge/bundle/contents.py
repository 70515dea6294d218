"""Collect the objects that a bundle contains, and find the files that hold them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import BundleError, Fault, LockError
from gapforge.base.files import contains, sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.bundle.repository_archive import archive_name
from gapforge.bundle.volume_format import MAX_OBJECT, BundledPreset, Part
from gapforge.model import lock as locks
from gapforge.model.lock import LOCK_FILE, Lock
from gapforge.model.preset import Preset
from gapforge.store import sha256sums
from gapforge.store.inventory import Inventory
from gapforge.store.store import Store
from gapforge.store.verify_artifacts import check_preset_state


def inventory_objects(file: Path) -> frozenset[str]:
    """Return the SHA-256 of all objects in an inventory. Raise VerifyError if it is not valid."""
    return frozenset(sha256 for sha256, _size in Inventory.read(file))


@dataclass(frozen=True)
class _Source:
    """Where an object may be, its name for messages, and the preset whose sync downloads it."""

    name: str
    preset: str = ""
    paths: list[Path] = field(default_factory=list)


@dataclass(kw_only=True)
class Contents:
    """The parts and presets of a bundle, and where their bytes are.

    ``texts`` are small objects by SHA-256, and ``locks`` the locks by the SHA-256 of their text.
    All others are read from the store, or else from artifacts/NAME.
    """

    project: Project
    parts: list[Part] = field(default_factory=list)
    presets: list[BundledPreset] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    locks: dict[str, Lock] = field(default_factory=dict)
    _sources: dict[str, _Source] = field(default_factory=dict)

    @property
    def listed(self) -> int:
        """Return how many files the locks list, also those that the site has already."""
        return sum(len(lock.entries) for lock in self.locks.values())

    def path(self, part: Part) -> Path | None:
        """Return a file with the name and size of the object, None if there is none."""
        stored, source = Store(self.project.store).path(part.sha256), self._source(part.sha256)
        for path in (stored, *source.paths):
            try:
                if path.stat().st_size == part.size and path.is_file():
                    return path
            except OSError:
                continue
        return None

    def name(self, sha256: str) -> str:
        """Return the name of an object for messages."""
        return self._source(sha256).name

    def preset_of(self, sha256: str) -> str:
        """Return the preset whose sync downloads the object, "" if unknown."""
        return self._source(sha256).preset

    def _source(self, sha256: str) -> _Source:
        return self._sources.get(sha256) or _Source(_("object {sha256}", sha256=sha256[:12]))

    def _add_source(self, sha256: str, name: str, path: Path, preset: str = "") -> None:
        self._sources.setdefault(sha256, _Source(name, preset)).paths.append(path)

    def add_lock(self, lock: Lock, text: bytes) -> BundledPreset:
        """Record where the objects of a lock may be. Return its preset as an entry of a bundle."""
        folder = self.project.artifacts_of(lock.preset)
        files = {entry.path: entry.sha256 for entry in lock.entries}
        files[LOCK_FILE] = sha256_bytes(text)
        sums = sha256sums.render(files)
        self.texts.update({sha256_bytes(data): data for data in (text, sums)})
        self.locks[files[LOCK_FILE]] = lock
        for path, sha256 in [*files.items(), (sha256sums.NAME, sha256_bytes(sums))]:
            self._add_source(sha256, f"{lock.preset}/{path}", folder / path, lock.preset)
        return BundledPreset(lock.preset, files[LOCK_FILE], sha256_bytes(sums))

    def add_repository(self, archive: bytes, site_objects: Collection[str] = ()) -> str:
        """Add the archive of the repository, unless the site has it. Return its SHA-256."""
        sha256 = sha256_bytes(archive)
        self.add_kept_repository(sha256)
        self.texts[sha256] = archive
        if sha256 not in site_objects:
            self.parts = sorted([*self.parts, Part.of_object(sha256, len(archive))])
        return sha256

    def add_kept_repository(self, sha256: str) -> None:
        """Record where an earlier pack kept the archive of the repository."""
        archive = archive_name(sha256)
        name = _("the gapforge repository ({archive})", archive=archive)
        self._add_source(sha256, name, self.project.state / "bundles" / archive)

    def require_all(self, hint: str) -> None:
        """Raise BundleError naming what is not on this machine: presets as a whole, or objects."""
        missing = [p for p in self.parts if p.sha256 not in self.texts and self.path(p) is None]
        names = sorted({self.preset_of(part.sha256) for part in missing} - {""})
        absent = [name for name in names if not self.project.artifacts_of(name).is_dir()]
        if absent:
            raise BundleError(
                _("the artifacts of {presets} are not on this machine", presets=", ".join(absent)),
                hint=hint,
            )
        if missing:
            raise BundleError(
                _(
                    "{missing} of {count} objects are missing on this machine",
                    missing=len(missing),
                    count=len(self.parts),
                ),
                hint=hint,
                faults=[
                    Fault(
                        self.name(part.sha256),
                        _("not in the store and artifacts, or with another size"),
                        _("{size} bytes, sha256 {sha256}", size=part.size, sha256=part.sha256),
                    )
                    for part in missing
                ],
            )


def preset_contents(
    project: Project, presets: Sequence[Preset], site_objects: Iterable[str] = ()
) -> Contents:
    """Return the objects of the presets' locks, without those that the site has already.

    Raise LockError if a preset was changed since its sync, BundleError if objects are missing.
    """
    contents, left_out, parts = Contents(project=project), frozenset(site_objects), {}
    for preset in presets:
        lock, text = _read_lock(project, preset)
        bundled = contents.add_lock(lock, text)
        contents.presets.append(bundled)
        sizes = {entry.sha256: entry.size for entry in lock.entries}
        sizes.update({s: len(contents.texts[s]) for s in (bundled.lock, bundled.sums)})
        for sha256, size in sizes.items():
            if size > MAX_OBJECT:
                raise LockError(
                    _(
                        "the lock of {name} lists a file of {size} bytes; the limit is {limit}",
                        name=preset.name,
                        size=size,
                        limit=MAX_OBJECT,
                    ),
                    hint=_sync_hint(f"{preset.name} --update"),
                )
            if sha256 not in left_out:
                parts[sha256] = Part.of_object(sha256, size)
    contents.parts = sorted(parts.values())
    contents.require_all(_sync_hint(" ".join(preset.name for preset in presets)))
    return contents


def request_contents(
    project: Project, parts: Iterable[Part], presets: Sequence[BundledPreset], tool: str = ""
) -> Contents:
    """Return exactly these parts, for a repair. Raise BundleError if objects are missing."""
    contents = Contents(project=project, parts=sorted(set(parts)), presets=list(presets))
    if tool:
        contents.add_kept_repository(tool)
    for bundled in presets:
        for file in _lock_files(project, bundled.preset):
            try:
                contents.add_lock(*locks.read(file))
            except (LockError, OSError):
                continue
    contents.require_all(
        _("run pack --repair on the machine that packed the bundle, with the same artifacts")
    )
    return contents


def _lock_files(project: Project, preset: str) -> tuple[Path, Path]:
    return project.lock_file(preset), project.artifacts_of(preset) / LOCK_FILE


def _read_lock(project: Project, preset: Preset) -> tuple[Lock, bytes]:
    committed, own = _lock_files(project, preset.name)
    file = committed if committed.exists() else own
    lock, text = locks.read(file)
    lock.require_complete(f"presets/{preset.name}.lock.json")
    hint = _sync_hint(preset.name)
    check_preset_state(lock, preset)
    if own.exists() and not contains(own, text):
        raise LockError(
            _("{file} and {other} are not the same lock", file=own, other=committed), hint=hint
        )
    if text not in (lock.render().encode(), lock.render(version=1).encode()):
        raise LockError(
            _("{file} was edited: its text differs from what sync writes", file=file), hint=hint
        )
    return lock, text


def _sync_hint(arguments: str) -> str:
    return _("online: ./deps_sync.sh {arguments}", arguments=arguments)
