"""The lock: every byte that a preset resolves to. Written by sync, verified by everything after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, LockError
from gapforge.base.files import canonical_json, unsafe_path_reason
from gapforge.base.text import josa, tr
from gapforge.model.preset import Preset
from gapforge.model.reasons import told
from gapforge.model.schema import Choice, Items, Nullable, Number, Record, Table, Text, read_json

FORMAT = 1
KINDS = ("image", "deb", "wheel", "source", "tensorrt", "index")
ROLES = ("builder", "runtime", "install-tool")

_HEX = Text("SHA-256", r"[0-9a-f]{64}", {"ko": "소문자 16진수 64자리", "en": "64 lower-case hex digits"})
_DIGEST = Text("digest", r"sha256:[0-9a-f]{64}",
               {"ko": '"sha256:"과 16진수 64자리', "en": '"sha256:" and 64 hex digits'})  # fmt: skip

LOCK_SHAPE = Record({
    "format": Choice((FORMAT,), "version of this format"),  # no tr: schema
    "preset": Text(),
    "preset_sha256": _HEX,
    "images": Table(Record({
        "reference": Text("where it came from"), "manifest_digest": _DIGEST, "config_digest": _DIGEST,  # no tr: schema
        "os_id": Text(pattern=".*"), "os_version": Text(pattern=".*")}, {"cuda": Text(pattern=".*"), "cudnn": Text(pattern=".*")})),
    "entries": Items(Record({
        "kind": Choice(KINDS), "path": Text("path inside artifacts/NAME"), "sha256": _HEX, "size": Number(),
        "origin": Text("index:NAME, apt:NAME, url, image or generated")}, {  # no tr: schema
        "name": Text("package, source or image role"), "version": Text(), "architecture": Text(),
        "roles": Items(Choice(ROLES)), "urls": Items(Text()), "trust": Choice(("first-use",)),
        "licence": Nullable(Text())})),
}, {
    "unresolved": Items(Record({
        "kind": Choice(KINDS), "name": Text("requirement, package, source, image role or generated file"),  # no tr: schema
        "reason": Text("why it is not pinned yet")})),
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
            raise LockError(tr(f"{josa(shown, '은', '는')} 일부만 확정된 잠금입니다: 아직 정해지지 않은 항목 {count}개",
                               f"{shown} is partial: {count} thing{'s are' if count > 1 else ' is'} not resolved yet"),
                            faults=[Fault(f"{gap.kind} {gap.name}", told(gap.reason)) for gap in self.unresolved],
                            hint=_sync_and_carry(self.preset))  # fmt: skip

    def settles(self, kind: str) -> bool:
        """Whether the lock leaves nothing of ``kind`` open."""
        return all(gap.kind != kind for gap in self.unresolved)

    def of(self, *kinds: str) -> tuple[Entry, ...]:
        """The entries of these kinds, by path."""
        return tuple(e for e in self.entries if e.kind in kinds)

    def render(self) -> str:
        """The lock file's text: same lock, same bytes."""
        document: dict[str, Any] = {
            "format": FORMAT, "preset": self.preset, "preset_sha256": self.preset_sha256,
            "images": {role: image.to_json() for role, image in self.images.items()},
            "entries": [e.to_json() for e in sorted(self.entries, key=lambda e: e.path)],
        }  # fmt: skip
        if self.unresolved:
            document["unresolved"] = [gap.to_json() for gap in sorted(self.unresolved)]
        return canonical_json(document)


def load(file: Path, *, shown: str = "") -> Lock:
    """Parse and validate a lock file. Raises LockError with every fault."""
    shown = shown or f"{file.parent.name}/{file.name}"
    name = file.parent.name if file.name == "lock.json" else file.name.removesuffix(".lock.json")
    if not file.exists():
        raise LockError(tr(f"{shown} 파일이 없습니다: 이 프리셋은 여기서 동기화한 적이 없습니다",
                           f"{shown} does not exist: this preset was never synced here"), hint=_sync_and_carry(name))  # fmt: skip
    raw, faults = read_json(file, LOCK_SHAPE, shown)
    if raw is not None and not faults:
        seen: set[str] = set()
        for index, entry in enumerate(raw["entries"]):
            where = f"{shown}: $.entries[{index}].path"
            reason = unsafe_path_reason(entry["path"])
            if not reason and {"", "."} & set(entry["path"].split("/")):  # the same file by another path
                reason = tr("빈 부분이나 '.'이 있음", "has an empty part or '.'")
            if reason:
                faults.append(Fault(where, tr(f'"{entry["path"]}": {reason}', f'"{entry["path"]}" {reason}')))
            if entry["path"] in seen:
                faults.append(Fault(where, tr(f'두 번 적혀 있음: "{entry["path"]}"', f'"{entry["path"]}" is listed twice'),
                                    tr("경로마다 한 번", "each path once")))  # fmt: skip
            seen.add(entry["path"])
        open_images = {gap["name"] for gap in raw.get("unresolved", ()) if gap["kind"] == "image"}
        for role, image in raw["images"].items():
            if not (image["os_id"] and image["os_version"]) and role not in open_images:
                faults.append(Fault(f"{shown}: $.images.{role}", tr("운영 체제가 적혀 있지 않음", "does not say its operating system"),
                                    tr("os_id와 os_version", "os_id and os_version")))  # fmt: skip
    if faults:
        raise LockError(tr(f"{josa(shown, '을', '를')} 쓸 수 없습니다", f"{shown} cannot be used"), faults=faults,
                        hint=tr(f"온라인에서: ./deps_sync.sh {name} --update", f"online: ./deps_sync.sh {name} --update"))  # fmt: skip
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
    return tr(f"온라인에서 ./deps_sync.sh {preset} 명령을 실행한 뒤 artifacts/{preset}/ 폴더를 이 컴퓨터로 옮기십시오",
              f"online: ./deps_sync.sh {preset}, then carry artifacts/{preset}/ to this machine")  # fmt: skip


def _entry(raw: Mapping[str, Any]) -> Entry:
    return Entry(
        kind=raw["kind"], path=raw["path"], sha256=raw["sha256"], size=raw["size"], origin=raw["origin"],
        name=raw.get("name", ""), version=raw.get("version", ""), architecture=raw.get("architecture", ""),
        roles=tuple(raw.get("roles", ())), urls=tuple(raw.get("urls", ())), trust=raw.get("trust", ""),
        licence=raw.get("licence") or "",
    )  # fmt: skip
