"""What of a preset is not yet pinned to bytes: all of it that only a lock can say, or what a lock leaves out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gapforge.base.i18n import ngettext
from gapforge.model.lock import Lock
from gapforge.model.names import ROLES, normalized, package_of
from gapforge.model.preset import Preset


@dataclass(frozen=True)
class Unresolved:
    """One thing that sync has still to turn into files with hashes.

    ``kind`` is a lock's ("image", "wheel", "deb", "source", "tensorrt"); ``name`` the role, requirement,
    package or source; ``what`` the image, address or roles it stands for; ``reason`` why a partial lock left it
    open, "" where nothing was asked yet.
    """

    kind: str
    name: str
    what: str
    reason: str = ""

    def to_json(self) -> dict[str, str]:
        """All fields."""
        return dict(self.__dict__)


def unresolved(preset: Preset, lock: Lock | None) -> list[Unresolved]:
    """What ``lock`` does not pin of the preset, or with None what the preset alone does not; [] when all is pinned.

    A lock that was made for another state of the preset counts as none: pass None for it.
    """
    found = [
        *_images(preset, lock),
        *_wheels(preset, lock),
        *_debs(preset, lock),
        *_sources(preset, lock),
    ]
    if lock is None:
        return found
    reasons = {(gap.kind, gap.name): gap.reason for gap in lock.unresolved}
    listed = [replace(item, reason=reasons.pop((item.kind, item.name), "")) for item in found]
    return listed + [
        Unresolved(kind, name, "", reason) for (kind, name), reason in sorted(reasons.items())
    ]


def counts(items: Iterable[Unresolved]) -> str:
    """Such as "2 base images, 7 Python packages, 46 APT packages, 1 source" in the reader's language."""
    found = Counter("source" if item.kind == "tensorrt" else item.kind for item in items)
    images, wheels, debs, sources, indexes = (
        found[kind] for kind in ("image", "wheel", "deb", "source", "index")
    )
    shown = (
        ngettext("{count} base image", "{count} base images", images) if images else "",
        ngettext("{count} Python package", "{count} Python packages", wheels) if wheels else "",
        ngettext("{count} APT package", "{count} APT packages", debs) if debs else "",
        ngettext("{count} source", "{count} sources", sources) if sources else "",
        ngettext("{count} index file", "{count} index files", indexes) if indexes else "",
    )
    return ", ".join(text for text in shown if text)


def _images(preset: Preset, lock: Lock | None) -> list[Unresolved]:
    missing = []
    for role in ROLES:
        base = preset.base(role)
        known = role in lock.images if lock else bool(base.digest or base.archive_sha256)
        if not known:
            missing.append(Unresolved("image", role, base.label))
    return missing


def _wheels(preset: Preset, lock: Lock | None) -> list[Unresolved]:
    here = {normalized(entry.name) for entry in lock.of("wheel")} if lock else set()
    asked = (*(preset.pytorch.requirements() if preset.pytorch else ()), *preset.packages)
    index = preset.pytorch.index if preset.pytorch else "default"
    torch = set(preset.pytorch.requirements()) if preset.pytorch else set()
    return [
        Unresolved("wheel", requirement, index if requirement in torch else "default")
        for requirement in asked
        if package_of(requirement) not in here
    ]


def _debs(preset: Preset, lock: Lock | None) -> list[Unresolved]:
    """The packages by name. A lock that has resolved .debs has all of them: the base may bring some itself."""
    if lock and (lock.of("deb") or any(entry.path == "debs/Packages" for entry in lock.entries)):
        return []
    roles: dict[str, list[str]] = {}
    for role in ROLES:
        for package in preset.debs(role):
            roles.setdefault(package, []).append(role)
    return [
        Unresolved("deb", package, "+".join(dict.fromkeys(of)))
        for package, of in sorted(roles.items())
    ]


def _sources(preset: Preset, lock: Lock | None) -> list[Unresolved]:
    here = {entry.name for entry in lock.of("source", "tensorrt")} if lock else set()
    missing = []
    for source in preset.sources.values():
        local_repository = bool(
            preset.tensorrt and preset.tensorrt.form == "deb" and source.name == "tensorrt"
        )
        pinned = source.name in here or local_repository if lock else bool(source.sha256)
        if not pinned:
            where = source.urls[0] if source.urls else source.sdist or f"apt:{source.apt_source}"
            missing.append(
                Unresolved(
                    "tensorrt" if source.name == "tensorrt" else "source", source.name, where
                )
            )
    return missing
