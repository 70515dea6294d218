"""What is known here of sizes, and what the store has already: from the store, the locks of all presets and the catalog.

A cheap look at names and sizes that raises nothing for what it finds; ``verify`` looks at content.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gapforge.base.errors import GapforgeError
from gapforge.base.i18n import _
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.compat.catalog import documents
from gapforge.model import lock as locks
from gapforge.model.lock import Entry
from gapforge.store.store import Store


@dataclass(frozen=True)
class Held:
    """``size`` in bytes of the files that make up a choice, None when nobody knows it here; ``missing`` of those
    are not in the store."""

    size: int | None = None
    missing: int = 0

    @property
    def stored(self) -> bool:
        """Whether the store has all of it."""
        return self.size is not None and self.missing == 0

    @property
    def note(self) -> str:
        """What the choice means for a download, in the reader's language; "" when nothing is known."""
        if self.size is None:
            return ""
        if self.stored:
            return _("already in the store")
        return _("adds {missing}", missing=human_bytes(self.missing))


@dataclass(frozen=True)
class Holdings:
    """The store and what locks and catalog tell of files by SHA-256, base images by reference, wheels by version."""

    store: Store
    sizes: dict[str, int] = field(default_factory=dict)
    images: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    wheels: dict[tuple[str, str], Entry] = field(default_factory=dict)

    def file(self, sha256: str, size: int = 0) -> Held:
        """One file with a known hash; ``size`` when the asker knows it."""
        if not sha256:
            return Held()
        known = size or self.sizes.get(sha256)
        if self.store.has(sha256, known or -1):
            return Held(known or self.store.path(sha256).stat().st_size)
        return Held(known, known or 0)

    def image(self, *references: str) -> Held:
        """Base images together; layers that they share count once."""
        if not all(reference in self.images for reference in references):
            return Held()
        return self._entries(entry for reference in references for entry in self.images[reference])

    def packages(self, *wanted: tuple[str, str]) -> Held:
        """The wheels of these (name, version) pairs, without what they depend on."""
        if not wanted or not all(pair in self.wheels for pair in wanted):
            return Held()
        return self._entries(self.wheels[pair] for pair in wanted)

    def _entries(self, entries: Iterable[Entry]) -> Held:
        sizes = {entry.sha256: entry.size for entry in entries}
        return Held(
            sum(sizes.values()),
            sum(size for sha256, size in sizes.items() if not self.store.has(sha256, size)),
        )


def look(project: Project) -> Holdings:
    """Read the catalog and every lock. Faulty ones are passed over: ``check`` reports them."""
    found = Holdings(Store(project.store))
    try:
        catalog = documents(project.catalog)
    except GapforgeError:
        catalog = {}
    tars = [
        tar
        for release in catalog.get("tensorrt", {}).get("releases", ())
        for tar in release["tars"]
    ]
    for known in (*tars, *catalog.get("opencv", {}).get("downloads", ())):
        if known["sha256"] and known.get("size"):
            found.sizes[known["sha256"]] = known["size"]
    for file in sorted(project.presets.glob("*.lock.json")):
        try:
            lock = locks.load(file)
        except GapforgeError:
            continue
        found.sizes.update({entry.sha256: entry.size for entry in lock.entries})
        found.wheels.update({(entry.name, entry.version): entry for entry in lock.of("wheel")})
        for role, image in lock.images.items():
            layers = tuple(entry for entry in lock.of("image") if role in entry.roles)
            found.images[image.reference.partition("@")[0]] = layers
    return found
