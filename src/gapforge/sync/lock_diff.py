"""Describe the differences between two locks of one preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gapforge.base.i18n import _
from gapforge.model.lock import Entry, Lock

Key = tuple[str, bool]  # "KIND NAME", and whether it is the tool that installs the others


@dataclass(frozen=True)
class Changes:
    """Lines such as "wheel numpy 1.26.4"; ``changed`` lines have the old and the new version."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def lines(self) -> list[str]:
        """Return the changes as "+ …", "- …", "~ …" lines."""
        return (
            [f"+ {t}" for t in self.added]
            + [f"- {t}" for t in self.removed]
            + [f"~ {t}" for t in self.changed]
        )

    def to_json(self) -> dict[str, list[str]]:
        """Return the lines by kind of change."""
        return {
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": list(self.changed),
        }


def compare(old: Lock | None, new: Lock) -> Changes:
    """Return what differs in ``new``.

    Generated files and image blobs follow from the rest and are left out.
    """
    before, after = _versions(old) if old else {}, _versions(new)
    changed = []
    for key in sorted(before.keys() & after.keys()):
        (old_version, old_sha256), (version, sha256) = before[key], after[key]
        item = _shown(key)
        if old_version != version:
            changed.append(f"{item} {old_version} -> {version}")
        elif old_sha256 != sha256:
            item = f"{item} {version}".rstrip()
            changed.append(
                _(
                    "{item}: content changed, sha256 {old} -> {new}",
                    item=item,
                    old=old_sha256[:12],
                    new=sha256[:12],
                )
            )
    return Changes(
        added=tuple(
            f"{_shown(key)} {after[key][0]}".rstrip()
            for key in sorted(after.keys() - before.keys())
        ),
        removed=tuple(
            f"{_shown(key)} {before[key][0]}".rstrip()
            for key in sorted(before.keys() - after.keys())
        ),
        changed=tuple(changed),
    )


def _versions(lock: Lock) -> Mapping[Key, tuple[str, str]]:
    """Return what a person would list: item -> (version, checksum)."""
    result: dict[Key, tuple[str, str]] = {}
    for entry in lock.of("wheel", "deb", "source", "tensorrt"):
        result[f"{entry.kind} {_name(entry)}", "install-tool" in entry.roles] = (
            entry.version,
            entry.sha256,
        )
    for role, image in lock.images.items():
        result[f"image {role}", False] = (
            image.reference,
            image.config_digest.removeprefix("sha256:"),
        )
    return result


def _name(entry: Entry) -> str:
    return f"{entry.name}:{entry.architecture}" if entry.kind == "deb" else entry.name or entry.file


def _shown(key: Key) -> str:
    item, is_tool = key
    return _("{item} (install tool)", item=item) if is_tool else item
