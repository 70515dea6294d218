"""What a bundle shall hold: the objects of presets' locks that the site lacks, and where they are read here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import BundleError, Fault, LockError
from gapforge.base.files import sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.bundle.repository_archive import archive_name
from gapforge.bundle.volume_format import MAX_OBJECT, Span, View
from gapforge.model import lock as locks
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset
from gapforge.store import sha256sums
from gapforge.store.inventory import Inventory
from gapforge.store.store import Store

LOCK = "lock.json"


def site_objects(file: Path) -> frozenset[str]:
    """The hashes that a site's inventory names. Raises VerifyError for one that is damaged or none at all."""
    return frozenset(sha256 for sha256, _unused in Inventory.read(file))


@dataclass
class Contents:
    """Objects to carry, and what is known of them. Objects are read from the store, or else from artifacts/NAME."""

    project: Project
    spans: list[Span] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    locks: dict[str, Lock] = field(default_factory=dict)  # by the hash of their text
    _places: dict[str, list[Path]] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _presets: dict[str, str] = field(default_factory=dict)

    @property
    def listed(self) -> int:
        """How many files the locks name, whoever has them."""
        return sum(len(lock.entries) for lock in self.locks.values())

    def path(self, span: Span) -> Path | None:
        """The file that holds the object, by name and size; None when it is not here."""
        paths: list[Path] = [
            Store(self.project.store).path(span.sha256),
            *self._places.get(span.sha256, ()),
        ]
        for path in paths:
            try:
                if path.stat().st_size == span.size and path.is_file():
                    return path
            except OSError:
                continue
        return None

    def name(self, sha256: str) -> str:
        """What a person calls the object."""
        return self._names.get(sha256) or _("object {sha256}", sha256=sha256[:12])

    def preset_of(self, sha256: str) -> str:
        """The preset whose sync brings the object, "" when that is not known."""
        return self._presets.get(sha256, "")

    def know(self, lock: Lock, text: bytes) -> View:
        """Remember where the objects of a preset may be; gives its view."""
        folder = self.project.artifacts_of(lock.preset)
        files = {entry.path: entry.sha256 for entry in lock.entries}
        files[LOCK] = sha256_bytes(text)
        sums = sha256sums.render(files)
        self.texts.update({sha256_bytes(data): data for data in (text, sums)})
        self.locks[files[LOCK]] = lock
        for path, sha256 in [*files.items(), (sha256sums.NAME, sha256_bytes(sums))]:
            self._names.setdefault(sha256, f"{lock.preset}/{path}")
            self._presets.setdefault(sha256, lock.preset)
            self._places.setdefault(sha256, []).append(folder / path)
        return View(lock.preset, files[LOCK], sha256_bytes(sums))

    def carry_tool(self, archive: bytes, held: Collection[str] = ()) -> str:
        """Take gapforge itself along, unless the site has it; gives its hash."""
        sha256 = sha256_bytes(archive)
        self.know_tool(sha256)
        self.texts[sha256] = archive
        if sha256 not in held:
            self.spans = sorted([*self.spans, Span(sha256, len(archive), 0, len(archive))])
        return sha256

    def know_tool(self, sha256: str) -> None:
        """Remember where the archive of gapforge is that an earlier pack kept."""
        archive = archive_name(sha256)
        self._names[sha256] = _("gapforge itself ({archive})", archive=archive)
        self._places.setdefault(sha256, []).append(self.project.state / "bundles" / archive)

    def require_all(self, hint: str) -> None:
        """Raise BundleError naming every object that is not here."""
        gone = [s for s in self.spans if s.sha256 not in self.texts and self.path(s) is None]
        if gone:
            raise BundleError(
                _(
                    "{count} of {spans} objects are not here",
                    count=len(gone),
                    spans=len(self.spans),
                ),
                hint=hint,
                faults=[
                    Fault(
                        self.name(s.sha256),
                        _("is not in the store, or has another size"),
                        _("{size} bytes, sha256 {sha256}", size=s.size, sha256=s.sha256),
                    )
                    for s in gone
                ],
            )


def of_presets(project: Project, presets: Sequence[Preset], held: Iterable[str] = ()) -> Contents:
    """The objects of these presets' locks, without those that the site has already (``held``).

    Raises LockError when a preset was not synced as it is now, BundleError when objects are not here.
    """
    contents, skip, spans = Contents(project), frozenset(held), {}
    for preset in presets:
        lock, text = _lock_of(project, preset)
        view = contents.know(lock, text)
        contents.views.append(view)
        sizes = {entry.sha256: entry.size for entry in lock.entries}
        sizes.update({sha256: len(contents.texts[sha256]) for sha256 in (view.lock, view.sums)})
        for sha256, size in sizes.items():
            if size > MAX_OBJECT:
                raise LockError(
                    _(
                        "the lock of {name} names a file of {size} bytes, which cannot be",
                        name=preset.name,
                        size=size,
                    ),
                    hint=_online(f"{preset.name} --update"),
                )
            if sha256 not in skip:
                spans[sha256] = Span(sha256, size, 0, size)
    contents.spans = sorted(spans.values())
    contents.require_all(_online(" ".join(preset.name for preset in presets)))
    return contents


def of_request(
    project: Project, spans: Iterable[Span], views: Sequence[View], tool: str = ""
) -> Contents:
    """Just these spans, for a site that asked for them. Raises BundleError when objects are not here."""
    contents = Contents(project, sorted(set(spans)), list(views))
    if tool:
        contents.know_tool(tool)
    for view in views:
        for file in (project.lock_file(view.preset), project.artifacts_of(view.preset) / LOCK):
            try:
                contents.know(locks.load(file), file.read_bytes())
            except (LockError, OSError):
                continue
    contents.require_all(_("pack --repair where the bundle was packed, with the same artifacts"))
    return contents


def _lock_of(project: Project, preset: Preset) -> tuple[Lock, bytes]:
    own, beside = project.artifacts_of(preset.name) / LOCK, project.lock_file(preset.name)
    file = beside if beside.exists() else own
    lock = locks.load(file)
    lock.require_complete(f"presets/{preset.name}.lock.json")
    text = file.read_bytes()
    hint = _online(preset.name)
    if lock.preset != preset.name or lock.preset_sha256 != preset.sha256:
        raise LockError(
            _("preset {name} was changed after it was synced", name=preset.name), hint=hint
        )
    if own.exists() and own.read_bytes() != text:
        raise LockError(
            _("{own} and {beside} are not the same lock", own=own, beside=beside), hint=hint
        )
    if text not in (lock.render().encode(), lock.render(version=1).encode()):
        raise LockError(_("{file} was edited: it is not what sync writes", file=file), hint=hint)
    return lock, text


def _online(words: str) -> str:
    return _("online: ./deps_sync.sh {words}", words=words)
