"""The lock: every byte that a preset resolves to. Written by sync, verified by everything after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.core.errors import Fault, LockError
from gapforge.core.files import canonical_json, unsafe_path_reason
from gapforge.core.shapes import Choice, Items, Nullable, Number, Record, Table, Text, read_json

FORMAT = 1
KINDS = ("image", "deb", "wheel", "source", "tensorrt", "index")
ROLES = ("builder", "runtime", "install-tool")

_HEX = Text("SHA-256", r"[0-9a-f]{64}", "64 lower-case hex digits")
_DIGEST = Text("digest", r"sha256:[0-9a-f]{64}", '"sha256:" and 64 hex digits')

LOCK_SHAPE = Record({
    "format": Choice((FORMAT,), "version of this format"),
    "preset": Text(),
    "preset_sha256": _HEX,
    "images": Table(Record({
        "reference": Text("where it came from"), "manifest_digest": _DIGEST, "config_digest": _DIGEST,
        "os_id": Text(), "os_version": Text()}, {"cuda": Text(pattern=".*"), "cudnn": Text(pattern=".*")})),
    "entries": Items(Record({
        "kind": Choice(KINDS), "path": Text("path inside artifacts/NAME"), "sha256": _HEX, "size": Number(),
        "origin": Text("index:NAME, apt:NAME, url, image or generated")}, {
        "name": Text("package, source or image role"), "version": Text(), "architecture": Text(),
        "roles": Items(Choice(ROLES)), "urls": Items(Text()), "trust": Choice(("first-use",)),
        "licence": Nullable(Text())})),
})  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One file of ``artifacts/NAME``.

    ``kind`` is one of KINDS; ``size`` is in bytes; ``origin`` names where it came from without an address
    for indexes that the user's machine configures ("index:default", "index:torch", "apt:base",
    "apt:NAME"), or "url" (see ``urls``), "image", "generated". ``roles`` says which stage uses a .deb or
    image blob ("builder", "runtime"), and "install-tool" marks the wheel that installs the others.
    """

    kind: str
    path: str
    sha256: str
    size: int
    origin: str
    name: str = ""
    version: str = ""
    architecture: str = ""
    roles: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    trust: str = ""
    licence: str = ""

    @property
    def file(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def to_json(self) -> dict[str, Any]:
        """Only the keys that say something, in JSON types."""
        full = {
            "kind": self.kind, "path": self.path, "sha256": self.sha256, "size": self.size, "origin": self.origin,
            "name": self.name, "version": self.version, "architecture": self.architecture,
            "roles": sorted(self.roles), "urls": list(self.urls), "trust": self.trust, "licence": self.licence,
        }  # fmt: skip
        return {k: v for k, v in full.items() if v or k == "size"}


@dataclass(frozen=True)
class LockedImage:
    """A base image as an OCI layout in ``images/ROLE``; digests are ``sha256:…``."""

    reference: str
    manifest_digest: str
    config_digest: str
    os_id: str
    os_version: str
    cuda: str = ""
    cudnn: str = ""

    def to_json(self) -> dict[str, str]:
        return {k: v for k, v in self.__dict__.items() if v or k in ("os_id", "os_version")}


@dataclass(frozen=True)
class Lock:
    """Every byte of one preset. ``entries`` are sorted by path."""

    preset: str
    preset_sha256: str
    images: Mapping[str, LockedImage]
    entries: tuple[Entry, ...]

    def of(self, *kinds: str) -> tuple[Entry, ...]:
        """The entries of these kinds, by path."""
        return tuple(e for e in self.entries if e.kind in kinds)

    def render(self) -> str:
        """The lock file's text: same lock, same bytes."""
        return canonical_json({
            "format": FORMAT, "preset": self.preset, "preset_sha256": self.preset_sha256,
            "images": {role: image.to_json() for role, image in self.images.items()},
            "entries": [e.to_json() for e in sorted(self.entries, key=lambda e: e.path)],
        })  # fmt: skip


def load(file: Path, *, shown: str = "") -> Lock:
    """Parse and validate a lock file. Raises LockError with every fault."""
    shown = shown or f"{file.parent.name}/{file.name}"
    name = file.parent.name if file.name == "lock.json" else file.name.removesuffix(".lock.json")
    if not file.exists():
        raise LockError(f"{shown} does not exist: this preset was never synced here",
                        hint=f"online: ./deps_sync.sh {name}, then carry artifacts/{name}/ to this machine")  # fmt: skip
    raw, faults = read_json(file, LOCK_SHAPE, shown)
    if raw is not None and not faults:
        seen: set[str] = set()
        for index, entry in enumerate(raw["entries"]):
            where = f"{shown}: $.entries[{index}].path"
            if reason := unsafe_path_reason(entry["path"]):
                faults.append(Fault(where, f'"{entry["path"]}" {reason}'))
            if entry["path"] in seen:
                faults.append(Fault(where, f'"{entry["path"]}" is listed twice', "each path once"))
            seen.add(entry["path"])
    if faults:
        raise LockError(f"{shown} cannot be used", faults=faults,
                        hint=f"online: ./deps_sync.sh {name} --update")  # fmt: skip
    return Lock(
        preset=raw["preset"],
        preset_sha256=raw["preset_sha256"],
        images={role: LockedImage(**image) for role, image in raw["images"].items()},
        entries=tuple(sorted((_entry(e) for e in raw["entries"]), key=lambda e: e.path)),
    )


def _entry(raw: Mapping[str, Any]) -> Entry:
    return Entry(
        kind=raw["kind"], path=raw["path"], sha256=raw["sha256"], size=raw["size"], origin=raw["origin"],
        name=raw.get("name", ""), version=raw.get("version", ""), architecture=raw.get("architecture", ""),
        roles=tuple(raw.get("roles", ())), urls=tuple(raw.get("urls", ())), trust=raw.get("trust", ""),
        licence=raw.get("licence") or "",
    )  # fmt: skip
