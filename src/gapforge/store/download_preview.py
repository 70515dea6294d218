"""Preview a sync without a network: exactly from a lock, otherwise as far as the preset tells.

What a machine downloads, stores and needs as disk space for a build is counted from one preview, so
that ``sync --dry-run``, ``list``, ``doctor`` and the prompts state the same figures.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.units import human_bytes
from gapforge.model import lock as locks
from gapforge.model.lock import Entry, Lock
from gapforge.model.names import ROLES, normalized
from gapforge.model.preset import Preset, SourceArchive
from gapforge.model.preset_status import BROKEN, STALE, Readiness
from gapforge.model.to_resolve import counts
from gapforge.store.known_sizes import DownloadSize, KnownSizes


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file, or one requirement that resolves to files.

    ``where`` holds URLs in order of preference, or describes the origin. ``size`` is in bytes, None
    if unknown before the download. ``stored`` tells whether the store has it already. ``roles`` are
    the images that it is for; () for what belongs to both.
    """

    kind: str
    name: str
    where: tuple[str, ...]
    size: int | None = None
    sha256: str = ""
    stored: bool = False
    note: str = ""
    roles: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all fields in JSON types."""
        return {**asdict(self), "where": list(self.where), "roles": list(self.roles)}


@dataclass(frozen=True)
class Preview:
    """What a sync would download.

    ``exact`` is true if a complete lock determines everything; otherwise sync resolves first and
    ``items`` is its input. ``locked`` tells whether there is a lock, complete or partial.
    """

    preset: str
    exact: bool
    items: tuple[Item, ...]
    locked: bool = False

    @property
    def total(self) -> int:
        """Bytes of all items of known size; content that two items share counts once."""
        return _sum(self.items)

    @property
    def missing(self) -> int:
        """Bytes of known size that the store lacks."""
        return _sum(tuple(item for item in self.items if not item.stored))

    @property
    def unknown(self) -> tuple[Item, ...]:
        """Return the items of unknown size."""
        return tuple(item for item in self.items if item.size is None)

    @property
    def what_is_unknown(self) -> str:
        """Return in words what the sizes do not contain; "" with a complete lock."""
        if self.exact:
            return ""
        names = {(item.kind, _bare(item)) for item in self.unknown}
        if not names:
            return _("dependencies")
        return _("{items} and their dependencies", items=counts(kind for kind, _name in names))

    def amount(self, size: int) -> str:
        """Return a number of bytes of this preview in words: "2.1 GB" or "at least 2.1 GB"."""
        return _amount(size, self.exact)

    def to_json(self) -> dict[str, Any]:
        """Return the preview in JSON types."""
        return {
            "preset": self.preset,
            "locked": self.exact,
            "partial": self.locked and not self.exact,
            "files": [item.to_json() for item in self.items],
            "bytes": self.total,
            "missing_bytes": self.missing,
            "size_unknown": len(self.unknown),
        }


def size_text(project: Project, preset: Preset, ready: Readiness, known: KnownSizes) -> str:
    """Return the size of a preset's files in words, "" if nothing is known of it."""
    size, exact = size_of(project, preset, ready, known)
    return _amount(size, exact) if size or exact else ""


def size_of(
    project: Project, preset: Preset, ready: Readiness, known: KnownSizes
) -> tuple[int, bool]:
    """Return the bytes of a preset's files that are known of, and whether these are all."""
    if ready.locked and ready.state not in (STALE, BROKEN):
        return ready.size, True
    shown = of_project(project, preset, known)
    return shown.total, shown.exact


def _amount(size: int, exact: bool) -> str:
    shown = human_bytes(size)
    return shown if exact else _("at least {size}", size=shown)


def of_project(project: Project, preset: Preset, known: KnownSizes) -> Preview:
    """Return what a sync in this project downloads. An unreadable lock counts as none."""
    lock = locks.load_matching(project.lock_file(preset.name), preset, update=True)
    return preview(preset, lock, known)


def preview(preset: Preset, lock: Lock | None, known: KnownSizes) -> Preview:
    """Return what a sync downloads that starts with this lock, which belongs to the preset."""
    return of_preset(preset, known) if lock is None else of_lock(preset, lock, known)


def of_lock(preset: Preset, lock: Lock, known: KnownSizes) -> Preview:
    """Return every file of a lock, and for a partial lock also its unresolved items."""
    items = [
        Item(
            kind=entry.kind,
            name=entry.path,
            where=_origin(entry, preset, lock),
            size=entry.size,
            sha256=entry.sha256,
            stored=known.store.has(entry.sha256, entry.size),
            note=entry.trust,
            roles=entry.roles,
        )
        for entry in lock.entries
    ]
    unresolved = {(item.kind, item.name) for item in lock.unresolved}
    # The files of an image with a pinned manifest are in the lock already.
    unresolved -= {("image", role) for role in lock.images}
    if unresolved:
        items += [
            item
            for item in of_preset(preset, known).items
            if (item.kind, _bare(item)) in unresolved
        ]
    return Preview(preset.name, not lock.unresolved, tuple(items), True)


def _bare(item: Item) -> str:
    """Return the name by which a lock lists the item as unresolved."""
    return item.name.removesuffix(" (builder)").removesuffix(" (runtime)")


def of_preset(preset: Preset, known: KnownSizes) -> Preview:
    """Return what the preset names: base images, requirements, source archives, APT packages."""
    items = []
    for role in ROLES:
        base = preset.base(role)
        size = known.image(base.reference) if base.image else DownloadSize()
        items.append(
            Item(
                kind="image",
                name=role,
                where=(base.label,),
                size=size.size,
                stored=size.stored,
                note=base.digest,
                roles=(role,),
            )
        )
    if preset.pytorch:
        index = _default_index() if preset.pytorch.index == "default" else preset.pytorch.index
        items += [_wheel(each, index, preset, known) for each in preset.pytorch.requirements()]
    items += [_wheel(each, _default_index(), preset, known) for each in preset.packages]
    items += [_source(source, known) for source in preset.sources.values()]
    repositories = (_base_apt(), *(source.uri for source in preset.apt_sources))
    items += [
        Item(kind="deb", name=f"{package} ({role})", where=repositories, roles=(role,))
        for role in ROLES
        for package in preset.debs(role)
    ]
    return Preview(preset.name, False, tuple(items))


def _wheel(requirement: str, index: str, preset: Preset, known: KnownSizes) -> Item:
    """Return a Python requirement; its size is known if another lock pins the same version."""
    name, _equals, version = requirement.partition("==")
    size = known.packages(preset.python, (normalized(name), version))
    return Item(kind="wheel", name=requirement, where=(index,), size=size.size, stored=size.stored)


def _source(source: SourceArchive, known: KnownSizes) -> Item:
    size = known.file(source.sha256, source.size)
    if source.urls:
        where = source.urls
    elif source.sdist:
        where = (f"{_default_index()}: {source.sdist}",)
    else:
        package = _("source package {name}", name=source.apt_source)
        where = (f"{_base_apt()}: {package}",)
    notes = (
        []
        if source.sha256 or source.apt_source
        else [_("no published checksum: trust on first use")]
    )
    notes += [source.gated] if source.gated else []
    return Item(
        kind="tensorrt" if source.name == "tensorrt" else "source",
        name=source.name,
        where=where,
        size=size.size or source.size or None,
        sha256=source.sha256,
        stored=size.stored,
        note="; ".join(notes),
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
        uris = {source.name: source.uri for source in preset.apt_sources}
        return (uris.get(name) or _base_apt(),)
    return (_("generated by sync"),) if kind == "generated" else (entry.origin,)


def _default_index() -> str:
    return _("the default Python index")


def _base_apt() -> str:
    return _("the base image's APT sources")


def _sum(items: tuple[Item, ...]) -> int:
    sizes = {item.sha256 or f"{item.kind} {item.name}": item.size or 0 for item in items}
    return sum(sizes.values())
