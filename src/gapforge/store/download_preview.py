"""What a sync would fetch, said without the network: exactly from a lock, else as far as the preset itself knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gapforge.base.i18n import _
from gapforge.model.lock import Entry, Lock
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset, SourceArchive
from gapforge.store.known_sizes import Held, Holdings
from gapforge.store.store import Store


@dataclass(frozen=True)
class Item:
    """One file, or without a lock one thing that becomes files.

    ``where`` has the addresses in order of preference, or says in words where it comes from. ``size`` is in
    bytes, None when nobody knows it before it is fetched; ``stored`` tells whether the store has it already.
    """

    kind: str
    name: str
    where: tuple[str, ...]
    size: int | None = None
    sha256: str = ""
    stored: bool = False
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """All fields, in JSON types."""
        return {**self.__dict__, "where": list(self.where)}


@dataclass(frozen=True)
class Preview:
    """``exact`` when a lock says everything; otherwise sync resolves first, and ``items`` are what it starts from.

    ``locked`` tells whether there is a lock at all; a partial one is not exact.
    """

    preset: str
    exact: bool
    items: tuple[Item, ...]
    locked: bool = False

    @property
    def total(self) -> int:
        """Bytes of all items whose size is known; content that two items share counts once."""
        return _sum(self.items)

    @property
    def missing(self) -> int:
        """Bytes that the store lacks, of those whose size is known."""
        return _sum(tuple(item for item in self.items if not item.stored))

    @property
    def unknown(self) -> tuple[Item, ...]:
        """The items whose size is not known."""
        return tuple(item for item in self.items if item.size is None)

    def to_json(self) -> dict[str, Any]:
        """Everything, in JSON types."""
        return {
            "preset": self.preset,
            "locked": self.exact,
            "partial": self.locked and not self.exact,
            "files": [item.to_json() for item in self.items],
            "bytes": self.total,
            "missing_bytes": self.missing,
            "size_unknown": len(self.unknown),
        }


def of_lock(preset: Preset, lock: Lock, store: Store) -> Preview:
    """Every file of a lock, with its size and where it comes from; for a partial lock also what it leaves open."""
    items = [
        Item(
            e.kind,
            e.path,
            _origin(e, preset, lock),
            e.size,
            e.sha256,
            store.has(e.sha256, e.size),
            e.trust,
        )
        for e in lock.entries
    ]
    left = {(item.kind, item.name) for item in lock.unresolved}
    # An image of which the manifest is pinned stands among the lock's files already.
    left -= {("image", role) for role in lock.images}
    if left:
        every = of_preset(preset, Holdings(store)).items
        items += [
            item
            for item in every
            if (item.kind, item.name.removesuffix(" (builder)").removesuffix(" (runtime)")) in left
        ]
    return Preview(preset.name, not lock.unresolved, tuple(items), True)


def of_preset(preset: Preset, holdings: Holdings) -> Preview:
    """What the preset alone says: base images, requirements, sources with addresses and hashes, APT packages."""
    items = []
    for role in ROLES:
        base = preset.base(role)
        held = holdings.image(base.image) if base.image else Held()
        items.append(
            Item("image", role, (base.label,), held.size, stored=held.stored, note=base.digest)
        )
    if preset.pytorch:
        where = _default_index() if preset.pytorch.index == "default" else preset.pytorch.index
        items += [
            Item("wheel", requirement, (where,)) for requirement in preset.pytorch.requirements()
        ]
    items += [Item("wheel", requirement, (_default_index(),)) for requirement in preset.packages]
    items += [_source(source, holdings) for source in preset.sources.values()]
    extra = tuple(source.uri for source in preset.apt_sources)
    items += [
        Item("deb", f"{package} ({role})", (_base_apt(), *extra))
        for role in ROLES
        for package in preset.debs(role)
    ]
    return Preview(preset.name, False, tuple(items))


def _source(source: SourceArchive, holdings: Holdings) -> Item:
    held = holdings.file(source.sha256, source.size)
    size, stored = held.size or source.size or None, held.stored
    if source.urls:
        where = source.urls
    elif source.sdist:
        where = (f"{_default_index()}: {source.sdist}",)
    else:
        where = (f"{_base_apt()}: " + _("source package") + f" {source.apt_source}",)
    notes = (
        [] if source.sha256 or source.apt_source else [_("no published hash: trusted on first use")]
    )
    notes += [source.gated] if source.gated else []
    return Item(
        "tensorrt" if source.name == "tensorrt" else "source",
        source.name,
        where,
        size,
        source.sha256,
        stored,
        "; ".join(notes),
    )


def _origin(entry: Entry, preset: Preset, lock: Lock) -> tuple[str, ...]:
    if entry.urls:
        return entry.urls
    kind, _separator, name = entry.origin.partition(":")
    if kind == "image" and entry.name in lock.images:
        return (lock.images[entry.name].reference,)
    if kind == "index":
        torch = preset.pytorch.index if preset.pytorch else ""
        return (_default_index() if name == "default" or not torch else torch,)
    if kind == "apt":
        return (
            next((source.uri for source in preset.apt_sources if source.name == name), _base_apt()),
        )
    return (_("made here"),) if kind == "generated" else (entry.origin,)


def _default_index() -> str:
    return _("the default Python index")


def _base_apt() -> str:
    return _("the base image's APT sources")


def _sum(items: tuple[Item, ...]) -> int:
    return sum(
        {item.sha256 or f"{item.kind} {item.name}": item.size or 0 for item in items}.values()
    )
