"""The lock: every byte that a preset resolves to. Written by sync, verified by everything after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, LockError
from gapforge.base.files import canonical_json, unsafe_path_reason
from gapforge.base.i18n import N_, _, ngettext
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset
from gapforge.model.reasons import told
from gapforge.model.schema import Choice, Items, Nullable, Number, Record, Table, Text, read_json

FORMAT = 1
MAX_BYTES = 8 << 20  # of a lock file, wherever one is read; a lock of 500 files has 200 kB
KINDS = ("image", "deb", "wheel", "source", "tensorrt", "index")
_ROLES = (*ROLES, "install-tool")

_HEX = Text("SHA-256", r"[0-9a-f]{64}", N_("64 lower-case hex digits"))
_DIGEST = Text("digest", r"sha256:[0-9a-f]{64}", N_('"sha256:" and 64 hex digits'))

LOCK_SHAPE = Record(
    {
        "format": Choice((FORMAT,), "version of this format"),
        "preset": Text(),
        "preset_sha256": _HEX,
        "images": Table(
            Record(
                {
                    "reference": Text("where it came from"),
                    "manifest_digest": _DIGEST,
                    "config_digest": _DIGEST,
                    "os_id": Text(pattern=".*"),
                    "os_version": Text(pattern=".*"),
                },
                {"cuda": Text(pattern=".*"), "cudnn": Text(pattern=".*")},
            )
        ),
        "entries": Items(
            Record(
                {
                    "kind": Choice(KINDS),
                    "path": Text("path inside artifacts/NAME"),
                    "sha256": _HEX,
                    "size": Number(),
                    "origin": Text("index:NAME, apt:NAME, url, image or generated"),
                },
                {
                    "name": Text("package, source or image role"),
                    "version": Text(),
                    "architecture": Text(),
                    "roles": Items(Choice(_ROLES)),
                    "urls": Items(Text()),
                    "trust": Choice(("first-use",)),
                    "licence": Nullable(Text()),
                },
            )
        ),
    },
    {
        "unresolved": Items(
            Record(
                {
                    "kind": Choice(KINDS),
                    "name": Text("requirement, package, source, image role or generated file"),
                    "reason": Text("why it is not pinned yet"),
                }
            )
        )
    },
)


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
            "kind": self.kind,
            "path": self.path,
            "sha256": self.sha256,
            "size": self.size,
            "origin": self.origin,
            "name": self.name,
            "version": self.version,
            "architecture": self.architecture,
            "roles": sorted(self.roles),
            "urls": list(self.urls),
            "trust": self.trust,
            "licence": self.licence,
        }
        return {k: v for k, v in full.items() if v or k == "size"}


@dataclass(frozen=True, order=True)
class Gap:
    """One thing that a lock leaves open: ``kind`` is one of KINDS, ``name`` the requirement, package, source, image
    role or generated file, ``reason`` why. The reason says nothing of the machine or the day."""

    kind: str
    name: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """All fields."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class LockedImage:
    """A base image as an OCI layout in ``images/ROLE``; digests are ``sha256:…``.

    ``os_id`` and ``os_version`` are "" while only its manifest has been read; the lock then has a gap for it.
    """

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
    """Every byte of one preset. ``entries`` are sorted by path.

    With ``unresolved`` it is a partial lock: what it pins stays pinned, and sync resolves the rest. Nothing can
    be built or verified with it.
    """

    preset: str
    preset_sha256: str
    images: Mapping[str, LockedImage]
    entries: tuple[Entry, ...]
    unresolved: tuple[Gap, ...] = ()

    def require_complete(self, shown: str) -> None:
        """Raise LockError naming every gap unless the lock pins everything. ``shown`` is the lock's file."""
        if self.unresolved:
            count = len(self.unresolved)
            raise LockError(
                ngettext(
                    "{shown} is partial: {count} thing is not resolved yet",
                    "{shown} is partial: {count} things are not resolved yet",
                    count,
                    shown=shown,
                ),
                faults=[
                    Fault(f"{gap.kind} {gap.name}", told(gap.reason)) for gap in self.unresolved
                ],
                hint=_sync_and_carry(self.preset),
            )

    def settles(self, kind: str) -> bool:
        """Whether the lock leaves nothing of ``kind`` open."""
        return all(gap.kind != kind for gap in self.unresolved)

    def of(self, *kinds: str) -> tuple[Entry, ...]:
        """The entries of these kinds, by path."""
        return tuple(e for e in self.entries if e.kind in kinds)

    def render(self) -> str:
        """The lock file's text: same lock, same bytes."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "preset": self.preset,
            "preset_sha256": self.preset_sha256,
            "images": {role: image.to_json() for role, image in self.images.items()},
            "entries": [e.to_json() for e in sorted(self.entries, key=lambda e: e.path)],
        }
        if self.unresolved:
            document["unresolved"] = [gap.to_json() for gap in sorted(self.unresolved)]
        return canonical_json(document)


def load(file: Path, *, shown: str = "") -> Lock:
    """Parse and validate a lock file. Raises LockError with every fault."""
    shown = shown or f"{file.parent.name}/{file.name}"
    name = file.parent.name if file.name == "lock.json" else file.name.removesuffix(".lock.json")
    if not file.exists():
        raise LockError(
            _("{shown} does not exist: this preset was never synced here", shown=shown),
            hint=_sync_and_carry(name),
        )
    if file.stat().st_size > MAX_BYTES:
        raise LockError(
            _("{shown}: more than {most} bytes", shown=shown, most=MAX_BYTES),
            hint=_sync_and_carry(name),
        )
    raw, faults = read_json(file, LOCK_SHAPE, shown)
    if raw is not None and not faults:
        seen: set[str] = set()
        for index, entry in enumerate(raw["entries"]):
            where = f"{shown}: $.entries[{index}].path"
            reason = unsafe_path_reason(entry["path"])
            if not reason and {"", "."} & set(
                entry["path"].split("/")
            ):  # the same file by another path
                reason = _("has an empty part or '.'")
            if reason:
                faults.append(
                    Fault(where, _('"{path}" {reason}', path=entry["path"], reason=reason))
                )
            if entry["path"] in seen:
                faults.append(
                    Fault(
                        where,
                        _('"{path}" is listed twice', path=entry["path"]),
                        _("each path once"),
                    )
                )
            seen.add(entry["path"])
        open_images = {gap["name"] for gap in raw.get("unresolved", ()) if gap["kind"] == "image"}
        for role, image in raw["images"].items():
            if not (image["os_id"] and image["os_version"]) and role not in open_images:
                faults.append(
                    Fault(
                        f"{shown}: $.images.{role}",
                        _("does not say its operating system"),
                        _("os_id and os_version"),
                    )
                )
    if faults:
        raise LockError(
            _("{shown} cannot be used", shown=shown),
            faults=faults,
            hint=_("online: ./deps_sync.sh {name} --update", name=name),
        )
    return Lock(
        preset=raw["preset"],
        preset_sha256=raw["preset_sha256"],
        images={role: LockedImage(**image) for role, image in raw["images"].items()},
        entries=tuple(sorted((_entry(e) for e in raw["entries"]), key=lambda e: e.path)),
        unresolved=tuple(sorted(Gap(**gap) for gap in raw.get("unresolved", ()))),
    )


def usable(file: Path, preset: Preset, *, update: bool = False) -> Lock | None:
    """The lock in ``file`` when it fits the preset as it is now, whole or partial, else None. Raises LockError for a
    damaged one, unless ``update`` is about to replace it."""
    if not file.exists():
        return None
    try:
        lock = load(file)
    except LockError:
        if update:
            return None
        raise
    return lock if lock.preset_sha256 == preset.sha256 and lock.preset == preset.name else None


def _sync_and_carry(preset: str) -> str:
    return _(
        "online: ./deps_sync.sh {preset}, then carry artifacts/{preset}/ to this machine",
        preset=preset,
    )


def _entry(raw: Mapping[str, Any]) -> Entry:
    return Entry(
        kind=raw["kind"],
        path=raw["path"],
        sha256=raw["sha256"],
        size=raw["size"],
        origin=raw["origin"],
        name=raw.get("name", ""),
        version=raw.get("version", ""),
        architecture=raw.get("architecture", ""),
        roles=tuple(raw.get("roles", ())),
        urls=tuple(raw.get("urls", ())),
        trust=raw.get("trust", ""),
        licence=raw.get("licence") or "",
    )
