"""What differs between two locks of one preset, in words for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gapforge.base.i18n import _
from gapforge.model.lock import Entry, Lock

Thing = tuple[str, bool]  # "KIND NAME", and whether it is the tool that installs the others


@dataclass(frozen=True)
class Changes:
    """Lines such as "wheel numpy 1.26.4". ``changed`` lines say from what to what."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def lines(self) -> list[str]:
        """The changes as "+ …", "- …", "~ …" lines."""
        return (
            [f"+ {t}" for t in self.added]
            + [f"- {t}" for t in self.removed]
            + [f"~ {t}" for t in self.changed]
        )

    def to_json(self) -> dict[str, list[str]]:
        return {
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": list(self.changed),
        }


def compare(old: Lock | None, new: Lock) -> Changes:
    """What ``new`` has otherwise than ``old``. Generated files and image blobs follow from the rest and are left out."""
    before, after = _things(old) if old else {}, _things(new)
    changed = []
    for key in sorted(before.keys() & after.keys()):
        was, now = before[key], after[key]
        what = _shown(key)
        if was[0] != now[0]:
            changed.append(f"{what} {was[0]} -> {now[0]}")
        elif was[1] != now[1]:
            changed.append(
                _(
                    "{what} {now}: other bytes, sha256 {was} -> {now_2}",
                    what=what,
                    now=now[0],
                    was=was[1][:12],
                    now_2=now[1][:12],
                ).replace("  ", " ")
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


def _things(lock: Lock) -> Mapping[Thing, tuple[str, str]]:
    """What a person would list: the thing -> (version, hash)."""
    result: dict[Thing, tuple[str, str]] = {}
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


def _shown(thing: Thing) -> str:
    return thing[0] + (_(" (install tool)") if thing[1] else "")
