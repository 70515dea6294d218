"""Scan media: find the volumes and indexes, and decide which bundle they belong to."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gapforge.base.errors import BundleError, Fault
from gapforge.base.i18n import _
from gapforge.bundle.bundle_index import BundleIndex, read_index
from gapforge.bundle.check_signatures import SignatureCheck
from gapforge.bundle.volume_format import (
    SUFFIX,
    BundledPreset,
    Damaged,
    Volume,
    describe_read_error,
)
from gapforge.bundle.volume_plan import Plan
from gapforge.bundle.volume_reader import find_files, read_volume
from gapforge.trust.ssh_signatures import SUFFIX as SIGNATURE_SUFFIX

MAX_FILES = 20_000
# Presets of all volumes together, counting equal lists once; each takes half a kilobyte of memory.
MAX_PRESETS = 50_000
LOCK_SUFFIX = f".lock{SIGNATURE_SUFFIX}"


@dataclass
class Scan:
    """What the media contain.

    ``bundle`` is the bundle that all ``volumes`` help to import, ``index`` its index or None.
    ``broken`` maps the volumes that cannot be used to the reason. ``signatures`` are those of all
    indexes and locks.
    """

    signatures: SignatureCheck
    bundle: str = ""
    volumes: list[Volume] = field(default_factory=list)
    broken: dict[Path, str] = field(default_factory=dict)
    index: BundleIndex | None = None

    @property
    def plan(self) -> Plan | None:
        """Return the plan in the bundle's index, None without an index."""
        return self.index.plan if self.index is not None else None

    @property
    def tool(self) -> str:
        """Return the SHA-256 of the archive of gapforge's repository, or ""."""
        if self.volumes:
            return self.volumes[0].identity.tool
        return self.plan.tool if self.plan else ""

    @property
    def presets(self) -> tuple[BundledPreset, ...]:
        """Return the bundle's presets. All its volumes agree: its id is calculated from them."""
        if self.volumes:
            return self.volumes[0].identity.presets
        return self.plan.presets if self.plan else ()

    def missing(self) -> list[int]:
        """Return the numbers of the bundle's own volumes of which there is no readable copy."""
        own = [v.identity for v in self.volumes if v.identity.bundle == self.bundle]
        count = own[0].volumes if own else len(self.plan.volumes) if self.plan else 0
        return sorted(set(range(1, count + 1)) - {identity.number for identity in own})


class AlteredVolume(Damaged):
    """A volume is intact, but it is not the one that the bundle's index lists."""


def scan_media(folders: Sequence[Path], signatures: SignatureCheck, only: str = "") -> Scan:
    """Find volumes and read their indexes, but not their parts. ``only`` selects one bundle.

    ``signatures`` decides which indexes count. Raise TrustError with every fault if this machine
    has trusted signers and none of them signed what is here. Raise BundleError if there is no
    usable volume, or if there are volumes of several bundles.
    """
    for folder in folders:
        if not folder.exists():
            raise BundleError(
                _("{folder} does not exist", folder=folder),
                hint=_("mount the medium, then run: unpack FOLDER"),
            )
    scan = Scan(signatures)
    _read_indexes(folders, signatures)
    altered = _read_volumes(scan, folders)
    selected = [v for v in scan.volumes if only in ("", v.identity.original_bundle)]
    if len({v.identity.original_bundle for v in selected}) < 2:
        signatures.require(
            [(v.path, v.identity) for v in selected],
            {path: why for path, (bundle, why) in altered.items() if only in ("", bundle)},
        )
    _choose_bundle(scan, folders, only)
    scan.volumes.sort(
        key=lambda v: (
            v.identity.bundle != scan.bundle,
            v.identity.bundle,
            v.identity.number,
            str(v.path),
        )
    )
    scan.index = signatures.indexes.get(scan.bundle)
    return scan


def _read_indexes(folders: Sequence[Path], signatures: SignatureCheck) -> None:
    """Add every index and every signature of a lock to ``signatures``."""
    for path in _small_files(folders, ".json"):
        try:
            index = read_index(path)
        except (Damaged, OSError) as error:  # or another file
            signatures.add_damaged_index(path, str(error))
        else:
            signatures.add_index(path, index)
    for path in _small_files(folders, LOCK_SUFFIX):
        signatures.add_lock_signature(path)


def _read_volumes(scan: Scan, folders: Sequence[Path]) -> dict[Path, tuple[str, str]]:
    """Add every volume to ``scan``. Return (bundle, reason) of each one that was altered."""
    altered: dict[Path, tuple[str, str]] = {}
    known: dict[tuple[BundledPreset, ...], tuple[BundledPreset, ...]] = {}

    def unlisted(error: OSError) -> None:
        path = Path(os.fsdecode(error.filename))
        denied = error.errno in (errno.EACCES, errno.EPERM)
        if path in folders or not denied:  # only root may list lost+found
            scan.broken[path] = describe_read_error(error)

    for count, path in enumerate(find_files(folders, SUFFIX, unlisted)):
        if count == MAX_FILES:
            raise BundleError(
                _("there are more than {limit} volumes", limit=MAX_FILES),
                hint=_("specify the folders of a single bundle"),
            )
        try:
            volume = _with_shared_presets(read_volume(path)[0], known)
            scan.signatures.recall(volume.identity.bundle)
            _require_listed(volume, scan.signatures.indexes)
        except AlteredVolume as error:
            altered[path] = volume.identity.original_bundle, str(error)
            scan.broken[path] = str(error)
        except (Damaged, OSError) as error:
            scan.broken[path] = describe_read_error(error)
        else:
            scan.volumes.append(volume)
    return altered


def _with_shared_presets(
    volume: Volume, known: dict[tuple[BundledPreset, ...], tuple[BundledPreset, ...]]
) -> Volume:
    """Return the volume with the equal list of presets in ``known``, which is kept only once."""
    own = volume.identity.presets
    if own not in known:
        known[own] = own
        if sum(map(len, known)) > MAX_PRESETS:
            raise BundleError(
                _(
                    "the volumes name more than {limit} presets, more than any bundle; nothing "
                    "was imported",
                    limit=MAX_PRESETS,
                ),
                hint=_altered_hint(),
            )
    return replace(volume, identity=replace(volume.identity, presets=known[own]))


def _altered_hint() -> str:
    return _("somebody altered the volumes; carry the bundle again")


def _small_files(folders: Sequence[Path], suffix: str) -> Iterator[Path]:
    """Yield files with this suffix in the folders, and beside volumes that are given by path."""
    yield from find_files([folder for folder in folders if folder.is_dir()], suffix)
    for folder in sorted({path.absolute().parent for path in folders if not path.is_dir()}):
        yield from sorted(path for path in folder.glob(f"*{suffix}") if path.name[0] != ".")


def _require_listed(volume: Volume, indexes: Mapping[str, BundleIndex]) -> None:
    """Raise AlteredVolume if the index of the bundle is here and lists another volume."""
    identity = volume.identity
    if identity.bundle not in indexes:
        return
    index, number = indexes[identity.bundle], identity.number
    if number > len(index.volumes) or identity != index.plan.identity(number):
        raise AlteredVolume(_("altered: the volume does not match the index of the bundle"))
    listed = index.volumes[number - 1].sha256
    if listed != volume.index_sha256:
        raise AlteredVolume(
            _(
                "altered: the index of the bundle lists volume {number} with sha256 {listed}…, "
                "but its sha256 is {found}…",
                number=number,
                listed=listed[:12],
                found=volume.index_sha256[:12],
            )
        )


def _choose_bundle(scan: Scan, folders: Sequence[Path], only: str) -> None:
    """Set the bundle of the scan: one bundle and its repairs. Never guess between two."""
    if only:
        scan.volumes = [v for v in scan.volumes if v.identity.original_bundle == only]
    bundles = {volume.identity.original_bundle for volume in scan.volumes}
    if not bundles and scan.broken:  # all volumes are damaged, so their names decide
        named = [
            bundle
            for bundle in scan.signatures.indexes
            if (not only or bundle == only) and any(p.name.startswith(bundle) for p in scan.broken)
        ]
        bundles = set(named[:1])
    if not bundles:
        shown = ", ".join(str(folder) for folder in folders)
        raise BundleError(
            _("no usable volume of bundle {bundle} in {folders}", bundle=only, folders=shown)
            if only
            else _("no usable volume in {folders}", folders=shown),
            hint=_("specify the folders that contain *{suffix}", suffix=SUFFIX),
            faults=[Fault(str(path), why) for path, why in scan.broken.items()],
        )
    if len(bundles) > 1:
        raise _several_bundles(scan, bundles)
    scan.bundle = bundles.pop()
    if len({(volume.identity.presets, volume.identity.tool) for volume in scan.volumes}) > 1:
        raise BundleError(
            _("the volumes disagree on the contents of the bundle; nothing was imported"),
            faults=[
                Fault(
                    str(volume.path),
                    _(
                        "presets: {names}",
                        names=", ".join(each.preset for each in volume.identity.presets),
                    ),
                )
                for volume in scan.volumes
            ],
            hint=_altered_hint(),
        )


def _several_bundles(scan: Scan, bundles: Collection[str]) -> BundleError:
    ordered = sorted(scan.volumes, key=lambda v: (v.identity.original_bundle, str(v.path)))
    return BundleError(
        _("the volumes belong to different bundles; nothing was imported"),
        faults=[
            Fault(
                str(volume.path),
                _(
                    "volume {number} of {volumes} of bundle {bundle}",
                    number=volume.identity.number,
                    volumes=volume.identity.volumes,
                    bundle=volume.identity.original_bundle,
                ),
            )
            for volume in ordered
        ],
        hint=_("select one: --bundle {bundle}", bundle=min(bundles)),
    )
