"""Tell the size of a download without a network, from the store, all locks and the catalog.

Only names and sizes are looked at, and nothing found raises an error; ``verify`` reads the content.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gapforge.base.errors import GapforgeError
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.units import human_bytes
from gapforge.model import lock as locks
from gapforge.model.catalog import documents
from gapforge.model.lock import Entry
from gapforge.model.names import normalized
from gapforge.store.store import Store


@dataclass(frozen=True)
class DownloadSize:
    """The bytes of a choice's files, None if unknown, and how many of them the store lacks."""

    size: int | None = None
    missing: int = 0

    @property
    def stored(self) -> bool:
        """Return whether the store has all of it."""
        return self.size is not None and self.missing == 0

    @property
    def note(self) -> str:
        """Return what the choice adds to a download, in the reader's language; "" if unknown."""
        if self.size is None:
            return ""
        if self.stored:
            return _("already in the store")
        return _("adds {size}", size=human_bytes(self.missing))


@dataclass(frozen=True)
class KnownSizes:
    """The store, and sizes of files by SHA-256, of images by reference, of wheels by version."""

    store: Store
    sizes: dict[str, int] = field(default_factory=dict)
    images: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    wheels: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)

    def file(self, sha256: str, size: int = 0) -> DownloadSize:
        """Return the size of the file with this checksum; ``size`` if the caller knows it."""
        if not sha256:
            return DownloadSize()
        known = size or self.sizes.get(sha256)
        if self.store.has(sha256, known or -1):
            return DownloadSize(known or self.store.path(sha256).stat().st_size)
        return DownloadSize(known, known or 0)

    def image(self, *references: str) -> DownloadSize:
        """Return the size of base images together; shared layers count once.

        A reference with a digest is that image. One without is what some lock has under its tag.
        """
        if not all(reference in self.images for reference in references):
            return DownloadSize()
        return self._total(entry for reference in references for entry in self.images[reference])

    def packages(self, python: str, *wanted: tuple[str, str]) -> DownloadSize:
        """Return the size of these (name, version) wheels for ``python``, such as "3.11".

        Their dependencies do not count.
        """
        found = [
            next((e for e in self.wheels.get(pair, ()) if _runs_on(e.file, python)), None)
            for pair in wanted
        ]
        known = [entry for entry in found if entry]
        return self._total(known) if known and len(known) == len(found) else DownloadSize()

    def _total(self, entries: Iterable[Entry]) -> DownloadSize:
        sizes = {entry.sha256: entry.size for entry in entries}
        missing = [size for sha256, size in sizes.items() if not self.store.has(sha256, size)]
        return DownloadSize(sum(sizes.values()), sum(missing))


def _runs_on(file: str, python: str) -> bool:
    """Return whether the wheel of this name is for a Python: a pure, stable ABI or equal one."""
    tags = file.removesuffix(".whl").rsplit("-", 3)[-3:]
    same = f"cp{python.replace('.', '')}"
    return len(tags) == 3 and (
        tags[1] == "abi3" or any(tag == same or tag.startswith("py3") for tag in tags[0].split("."))
    )


def read_known_sizes(project: Project) -> KnownSizes:
    """Read the catalog and every lock. Faulty ones are skipped: ``check`` reports them."""
    known = KnownSizes(Store(project.store))
    try:
        catalog = documents(project.catalog)
    except GapforgeError:
        catalog = {}
    downloads = [
        tar
        for release in catalog.get("tensorrt", {}).get("releases", ())
        for tar in release["tars"]
    ]
    downloads += catalog.get("opencv", {}).get("downloads", ())
    for download in downloads:
        if download["sha256"] and download.get("size"):
            known.sizes[download["sha256"]] = download["size"]
    for file in sorted(project.presets.glob("*.lock.json")):
        try:
            lock = locks.load(file)
        except GapforgeError:
            continue
        known.sizes.update({entry.sha256: entry.size for entry in lock.entries})
        for entry in lock.of("wheel"):
            known.wheels.setdefault((normalized(entry.name), entry.version), []).append(entry)
        for role, image in lock.images.items():
            layers = tuple(entry for entry in lock.of("image") if role in entry.roles)
            known.images[image.reference] = layers
            known.images[image.reference.partition("@")[0]] = layers
    return known
