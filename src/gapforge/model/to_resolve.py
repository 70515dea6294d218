"""List what sync has still to resolve: what neither a preset nor its lock pins to bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from gapforge.base.i18n import ngettext
from gapforge.model.lock import PACKAGES_INDEX, Lock
from gapforge.model.names import ROLES, normalized, package_of
from gapforge.model.preset import Preset
from gapforge.model.unresolved_item import Reason


@dataclass(frozen=True)
class ToResolve:
    """One thing that sync has still to turn into files with checksums.

    ``kind`` is one of the lock's ("image", "wheel", "deb", "source", "tensorrt"), ``name`` the
    role, requirement, package or source, and ``what`` the image, address or roles that it stands
    for. ``reason`` says why a partial lock does not pin it; None where sync has not tried yet.
    """

    kind: str
    name: str
    what: str
    reason: Reason | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all fields in JSON types."""
        return {**asdict(self), "reason": self.reason.to_json() if self.reason else None}


def list_to_resolve(preset: Preset, lock: Lock | None) -> list[ToResolve]:
    """Return what ``lock`` does not pin, or with None what the preset alone does not pin.

    A lock that belongs to another state of the preset counts as none: pass None for it.
    """
    found = [
        *_images(preset, lock),
        *_wheels(preset, lock),
        *_debs(preset, lock),
        *_sources(preset, lock),
    ]
    if lock is None:
        return found
    reasons = {(item.kind, item.name): item.reason for item in lock.unresolved}
    listed = [replace(item, reason=reasons.pop((item.kind, item.name), None)) for item in found]
    return listed + [
        ToResolve(kind, name, "", reason) for (kind, name), reason in sorted(reasons.items())
    ]


def counts(kinds: Iterable[str]) -> str:
    """Return such as "2 base images, 46 APT packages, 1 source" in the reader's language."""
    found = Counter("source" if kind == "tensorrt" else kind for kind in kinds)
    images, wheels, debs, sources, indexes = (
        found[kind] for kind in ("image", "wheel", "deb", "source", "index")
    )
    texts = (
        ngettext("{count} base image", "{count} base images", images) if images else "",
        ngettext("{count} Python package", "{count} Python packages", wheels) if wheels else "",
        ngettext("{count} APT package", "{count} APT packages", debs) if debs else "",
        ngettext("{count} source", "{count} sources", sources) if sources else "",
        ngettext("{count} index file", "{count} index files", indexes) if indexes else "",
    )
    return ", ".join(text for text in texts if text)


def _images(preset: Preset, lock: Lock | None) -> list[ToResolve]:
    missing = []
    for role in ROLES:
        base = preset.base(role)
        pinned = role in lock.images if lock else bool(base.digest or base.archive_sha256)
        if not pinned:
            missing.append(ToResolve("image", role, base.label))
    return missing


def _wheels(preset: Preset, lock: Lock | None) -> list[ToResolve]:
    locked = {normalized(entry.name) for entry in lock.of("wheel")} if lock else set()
    torch = preset.pytorch.requirements() if preset.pytorch else ()
    index = preset.pytorch.index if preset.pytorch else "default"
    return [
        ToResolve("wheel", requirement, index if requirement in torch else "default")
        for requirement in (*torch, *preset.packages)
        if package_of(requirement) not in locked
    ]


def _debs(preset: Preset, lock: Lock | None) -> list[ToResolve]:
    """Return the packages by name; none of them if the lock has .debs.

    A lock has all .debs or none, and a base image may hold a package itself.
    """
    if lock and (lock.of("deb") or any(entry.path == PACKAGES_INDEX for entry in lock.entries)):
        return []
    return [
        ToResolve("deb", package, "+".join(roles))
        for package, roles in preset.roles_of_debs.items()
    ]


def _sources(preset: Preset, lock: Lock | None) -> list[ToResolve]:
    locked = {entry.name for entry in lock.of("source", "tensorrt")} if lock else set()
    missing = []
    for source in preset.sources.values():
        kind = "tensorrt" if source.name == "tensorrt" else "source"
        # TensorRT's local repository is read while resolving and has no entry of its own.
        local_repository = bool(
            kind == "tensorrt" and preset.tensorrt and preset.tensorrt.form == "deb"
        )
        pinned = source.name in locked or local_repository if lock else bool(source.sha256)
        if not pinned:
            where = source.urls[0] if source.urls else source.sdist or f"apt:{source.apt_source}"
            missing.append(ToResolve(kind, source.name, where))
    return missing
