"""Read and write locks: every file that a preset resolves to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gapforge.base import limits
from gapforge.base.errors import Fault, LockError
from gapforge.base.files import read_regular, sha256_bytes
from gapforge.base.i18n import _, ngettext
from gapforge.base.path_checks import unsafe_path_reason
from gapforge.base.strict_json import canonical_json
from gapforge.base.units import DAY
from gapforge.model.lock_format_1 import reason_of
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset
from gapforge.model.schema import (
    Choice,
    Items,
    Nullable,
    Number,
    Record,
    Shape,
    Table,
    Text,
    parse_json,
    read_file,
)
from gapforge.model.text_shapes import DIGEST, SHA256, described
from gapforge.model.unresolved_item import REASON_SHAPE, Reason, UnresolvedItem

PACKAGES_INDEX = "debs/Packages"  # the index of the .debs in artifacts/NAME
LOCK_FILE = "lock.json"  # the copy of the lock in artifacts/NAME
# What artifacts/NAME contains besides the entries of the lock.
BESIDE_ENTRIES = frozenset({LOCK_FILE, f"{LOCK_FILE}.sig", "SHA256SUMS"})
FORMAT = 2  # of locks that are written; format 1 is read too
KINDS = ("image", "deb", "wheel", "source", "tensorrt", "index")
_ROLES = (*ROLES, "install-tool")
_OLD_EPOCH = 1700000000  # of locks without "epoch" whose preset gives none either

_HEX = described(SHA256, "SHA-256")
_DIGEST = described(DIGEST, "digest")


def _shape(version: int, reason: Shape) -> Record:
    """Return the shape of a lock of format ``version`` whose reasons have the shape ``reason``."""
    return Record(
        {
            "format": Choice((version,), "version of this format"),
            "preset": Text(),
            "preset_sha256": _HEX,
            "images": Table(
                Record(
                    {
                        "reference": Text("name, tag and digest, or the archive or suite"),
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
            "epoch": Number("SOURCE_DATE_EPOCH of what is built, where the preset gives none"),
            "unresolved": Items(
                Record(
                    {
                        "kind": Choice(KINDS),
                        "name": Text("requirement, package, source, image role or generated file"),
                        "reason": reason,
                    }
                )
            ),
        },
    )


LOCK_SHAPE = _shape(FORMAT, REASON_SHAPE)


class _AnyFormat(Shape):
    """A lock of a format that ``load`` reads."""

    def check(self, value: Any, path: str, faults: list[Fault], file: str) -> None:
        old = isinstance(value, dict) and value.get("format") == 1
        (_shape(1, Text()) if old else LOCK_SHAPE).check(value, path, faults, file)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of ``artifacts/NAME``.

    ``kind`` is one of KINDS; ``size`` is in bytes. ``origin`` is "index:default" or "index:torch",
    "apt:base" or "apt:NAME", "url" (see ``urls``), "image" or "generated": an index has no address,
    as every machine may configure its own. ``roles`` lists the stages that use a .deb or image blob
    ("builder", "runtime"); "install-tool" marks the wheel that installs the others. ``trust`` is
    "first-use" where no checksum is published.
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
    def only_installs(self) -> bool:
        """Return whether it is the pip that installs the wheels and no package of the image."""
        return self.roles == ("install-tool",)

    @property
    def file(self) -> str:
        """Return the file's name without its folder."""
        return self.path.rsplit("/", 1)[-1]

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not empty in JSON types."""
        values = {**asdict(self), "roles": sorted(self.roles), "urls": list(self.urls)}
        return {name: value for name, value in values.items() if value or name == "size"}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Entry:
        """Return the entry that ``to_json`` gave, or that a valid lock file has."""
        lists = {name: tuple(raw.get(name, ())) for name in ("roles", "urls")}
        return cls(**{**raw, **lists, "licence": raw.get("licence") or ""})


@dataclass(frozen=True, kw_only=True)
class LockedImage:
    """A base image as an OCI layout in ``images/ROLE``. Digests are "sha256:…".

    ``os_id`` and ``os_version`` are "" while only the manifest has been read; the lock then has an
    unresolved item for the image.
    """

    reference: str
    manifest_digest: str
    config_digest: str
    os_id: str
    os_version: str
    cuda: str = ""
    cudnn: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the fields, without CUDA and cuDNN where the image has none."""
        return {k: v for k, v in asdict(self).items() if v or k in ("os_id", "os_version")}


@dataclass(frozen=True, kw_only=True)
class Lock:
    """Every file of one preset. ``entries`` are sorted by path.

    ``epoch`` is the SOURCE_DATE_EPOCH of what is built with it, 0 if its preset gives one or it was
    written before locks had one. A lock with ``unresolved`` items is a partial lock: sync keeps
    what it pins and resolves the rest. Nothing is built or verified with it.
    """

    preset: str
    preset_sha256: str
    images: Mapping[str, LockedImage]
    entries: tuple[Entry, ...]
    unresolved: tuple[UnresolvedItem, ...] = ()
    epoch: int = 0

    @property
    def size(self) -> int:
        """Return the bytes of all files; content that two of them share counts once."""
        return sum({entry.sha256: entry.size for entry in self.entries}.values())

    def require_complete(self, shown: str) -> None:
        """Raise LockError with every unresolved item if there are any.

        ``shown`` is the lock's file.
        """
        if not self.unresolved:
            return
        faults = [
            Fault(f"{item.kind} {item.name}", item.reason.message()) for item in self.unresolved
        ]
        raise LockError(
            ngettext(
                "{shown} is a partial lock: {count} item is unresolved",
                "{shown} is a partial lock: {count} items are unresolved",
                len(faults),
                shown=shown,
            ),
            faults=faults,
            hint=_sync_and_carry(self.preset),
        )

    def resolves(self, kind: str) -> bool:
        """Return whether no item of ``kind`` is unresolved."""
        return all(item.kind != kind for item in self.unresolved)

    def of(self, *kinds: str) -> tuple[Entry, ...]:
        """Return the entries of these kinds, by path."""
        return tuple(e for e in self.entries if e.kind in kinds)

    def render(self, version: int = FORMAT) -> str:
        """Return the text of the lock file. Equal locks have equal bytes.

        A complete lock may be rendered in format 1 too, for comparison with a file of version 0.1.
        """
        document: dict[str, Any] = {
            "format": version,
            "preset": self.preset,
            "preset_sha256": self.preset_sha256,
            "images": {role: image.to_json() for role, image in self.images.items()},
            "entries": [e.to_json() for e in sorted(self.entries, key=lambda e: e.path)],
        }
        if self.epoch:
            document["epoch"] = self.epoch
        if self.unresolved:
            document["unresolved"] = [item.to_json() for item in sorted(self.unresolved)]
        return canonical_json(document)

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the lock file."""
        return sha256_bytes(self.render().encode())


def load(file: Path, *, shown: str = "") -> Lock:
    """Return the lock in ``file``, of any known format. Raise LockError with every fault.

    ``shown`` is the file's name in messages.
    """
    return read(file, shown=shown)[0]


def read(file: Path, *, shown: str = "") -> tuple[Lock, bytes]:
    """Return the lock in ``file`` and the bytes that it was read from, as ``load`` does."""
    shown = shown or f"{file.parent.name}/{file.name}"
    name = file.parent.name if file.name == "lock.json" else file.name.removesuffix(".lock.json")
    if not file.exists():
        raise not_synced(shown, name)
    data, faults = read_file(file, shown, limits.LOCK)
    if data is None:
        raise _unusable(faults, shown, name)
    return parse(data, shown=shown, name=name), data


def parse(data: bytes, *, shown: str, name: str) -> Lock:
    """Return the lock in ``data``, the bytes of a lock file of preset ``name``, as ``load`` does.

    A caller that verified these bytes parses them, and does not read the file again.
    """
    raw, faults = parse_json(data, _AnyFormat(), shown)
    if raw is not None and not faults:
        faults = [*_entry_faults(raw, shown), *_image_faults(raw, shown)]
    if faults:
        raise _unusable(faults, shown, name)
    entries = sorted(map(Entry.from_json, raw["entries"]), key=lambda entry: entry.path)
    return Lock(
        preset=raw["preset"],
        preset_sha256=raw["preset_sha256"],
        images={role: LockedImage(**image) for role, image in raw["images"].items()},
        entries=tuple(entries),
        unresolved=tuple(sorted(map(_unresolved_item, raw.get("unresolved", ())))),
        epoch=raw.get("epoch", 0),
    )


def not_synced(shown: str, name: str) -> LockError:
    """Return the error of a lock file that does not exist."""
    return LockError(
        _("{shown} does not exist: this preset has not been synced on this machine", shown=shown),
        hint=_sync_and_carry(name),
    )


def _unusable(faults: Sequence[Fault], shown: str, name: str) -> LockError:
    return LockError(
        _("{shown} cannot be used", shown=shown),
        faults=faults,
        hint=_("online: ./deps_sync.sh {name!q} --update", name=name),
    )


def epoch_of(preset: Preset, locked: int) -> int:
    """Return the SOURCE_DATE_EPOCH of what is built, in seconds since 1970.

    ``locked`` is that of the lock.
    """
    return (locked or _OLD_EPOCH) if preset.epoch is None else preset.epoch


def epoch_for(preset: Preset, old: Lock | None, now: float) -> int:
    """Return the epoch of a new lock: that of the ``old`` one if there is, else the day of ``now``.

    Return 0 for a preset that gives its own. Whole days let locks of one day be equal.
    """
    if preset.epoch is not None:
        return 0
    return old.epoch if old is not None else int(now) // DAY * DAY


def load_matching(file: Path, preset: Preset, *, update: bool = False) -> Lock | None:
    """Return the lock in ``file`` if it belongs to this state of the preset, else None.

    Raise LockError for a damaged file, unless ``update`` is about to replace it.
    """
    if not file.exists():
        return None
    try:
        lock = load(file)
    except LockError:
        if update:
            return None
        raise
    return lock if lock.preset_sha256 == preset.sha256 and lock.preset == preset.name else None


def has_lock(artifacts: Path, sha256: str) -> bool:
    """Return whether the copy of the lock in ``artifacts`` has this checksum."""
    try:
        return sha256_bytes(read_regular(artifacts / LOCK_FILE, limits.LOCK)) == sha256
    except (OSError, ValueError):
        return False


def _entry_faults(raw: Mapping[str, Any], shown: str) -> list[Fault]:
    """Return a fault for each unsafe path, and for entries that contradict each other."""
    faults: list[Fault] = []
    paths = [entry["path"] for entry in raw["entries"]]
    ordered = sorted({f"{path}/" for path in paths})
    folders = {one[:-1] for one, after in pairwise(ordered) if after.startswith(one)}
    seen: set[str] = set()
    sizes: dict[str, int] = {}
    for index, entry in enumerate(raw["entries"]):
        path, size = entry["path"], sizes.setdefault(entry["sha256"], entry["size"])
        where = f"{shown}: $.entries[{index}]"
        if reason := _path_reason(path):
            faults.append(Fault(f"{where}.path", f'"{path}": {reason}'))
        if path in seen:
            once = _("each path once")
            faults.append(Fault(f"{where}.path", _('"{path}" is listed twice', path=path), once))
        if path in folders:
            problem = _('"{path}" is also the folder of another entry', path=path)
            faults.append(Fault(f"{where}.path", problem))
        if size != entry["size"]:
            problem = _("another entry with the same sha256 has {size} bytes", size=size)
            faults.append(Fault(f"{where}.size", problem))
        seen.add(path)
    return faults[: limits.FAULTS]


def _path_reason(path: str) -> str:
    """Return why no entry may have this path, or ""."""
    parts = path.split("/")
    if not (reason := unsafe_path_reason(path)):
        if {"", "."} & set(parts):  # it would be another name for the same file
            reason = _('has an empty part or "."')
        elif parts[0] in BESIDE_ENTRIES:
            reason = _("the name of a file that is not an entry")
    return reason


def _image_faults(raw: Mapping[str, Any], shown: str) -> list[Fault]:
    """Return a fault for each base image of a lock document that lacks its operating system."""
    open_images = {item["name"] for item in raw.get("unresolved", ()) if item["kind"] == "image"}
    return [
        Fault(
            f"{shown}: $.images.{role}",
            _("the operating system is missing"),
            _("os_id and os_version"),
        )
        for role, image in raw["images"].items()
        if not (image["os_id"] and image["os_version"]) and role not in open_images
    ]


def _unresolved_item(raw: Mapping[str, Any]) -> UnresolvedItem:
    reason = raw["reason"]
    return UnresolvedItem(
        raw["kind"],
        raw["name"],
        reason_of(reason) if isinstance(reason, str) else Reason.from_json(reason),
    )


def _sync_and_carry(preset: str) -> str:
    return _(
        "online: ./deps_sync.sh {preset!q}, then carry artifacts/{preset}/ to this machine",
        preset=preset,
    )
