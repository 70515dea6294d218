"""Looking over what was plugged in: which volumes are there, which are damaged, and whose they are."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gapforge.base.errors import BundleError, Fault
from gapforge.base.i18n import _
from gapforge.bundle.check_signatures import Admission
from gapforge.bundle.read_errors import why_unreadable
from gapforge.bundle.verify_volume import volume_files
from gapforge.bundle.volume_format import SUFFIX, Damaged, View, Volume, read_volume
from gapforge.bundle.volume_plan import Index, Plan, read_index
from gapforge.trust.ssh_signatures import SUFFIX as SIGNATURE_SUFFIX

MAX_FILES = 20_000
MOST_VIEWS = 50_000  # of all volumes together, those of one bundle counted once; half a kilobyte of memory each
LOCK_SUFFIX = f".lock{SIGNATURE_SUFFIX}"


@dataclass
class Scan:
    """What lies in the folders. ``bundle`` is the one that all of it serves, ``index`` its index if it is there."""

    bundle: str = ""
    volumes: list[Volume] = field(default_factory=list)
    broken: dict[Path, str] = field(default_factory=dict)
    index: Index | None = None

    @property
    def plan(self) -> Plan | None:
        """What the bundle's index says of it, if it is here."""
        return self.index.plan if self.index is not None else None

    @property
    def tool(self) -> str:
        """The object that is gapforge's own repository, or ""."""
        return (
            self.volumes[0].identity.tool if self.volumes else self.plan.tool if self.plan else ""
        )

    @property
    def views(self) -> tuple[View, ...]:
        """The presets of the bundle. Volumes of one bundle agree, since its id is made from them."""
        return (
            self.volumes[0].identity.views if self.volumes else self.plan.views if self.plan else ()
        )

    def missing(self) -> list[int]:
        """The numbers of the bundle's own volumes of which there is no readable copy."""
        own = [v.identity for v in self.volumes if v.identity.bundle == self.bundle]
        total = own[0].volumes if own else len(self.plan.volumes) if self.plan else 0
        return sorted(set(range(1, total + 1)) - {identity.number for identity in own})


class Altered(Damaged):
    """A volume that is whole, and not the one that the bundle's index lists."""


def look(folders: Sequence[Path], only: str = "", admission: Admission | None = None) -> Scan:
    """Find volumes and read their indexes, not their payload. ``only`` names one bundle to take.

    ``admission`` says which bundles' indexes count. Raises TrustError with every fault where signers are trusted and
    did not sign what is here, BundleError when there is nothing, or volumes of several bundles.
    """
    for folder in folders:
        if not folder.exists():
            raise BundleError(
                _("{folder} does not exist", folder=folder),
                hint=_("mount the stick, then: unpack FOLDER"),
            )
    scan, indexes = Scan(), admission.indexes if admission is not None else {}
    for path in _small_files(folders, ".json", beside=admission is not None):
        try:
            index = read_index(path)
        except (
            Damaged,
            OSError,
        ) as error:  # some other file; a damaged index is made good by the volumes
            if admission is not None:
                admission.offer_damaged(path, str(error))
            continue
        if admission is not None:
            admission.offer(path, index)
        else:
            indexes[index.plan.bundle] = index
    if admission is not None:
        for path in _small_files(folders, LOCK_SUFFIX, beside=True):
            admission.offer_lock_signature(path)
    altered: dict[Path, tuple[str, str]] = {}
    views: dict[tuple[View, ...], tuple[View, ...]] = {}

    def unlisted(error: OSError) -> None:
        path = Path(os.fsdecode(error.filename))
        if path in folders or error.errno not in (
            errno.EACCES,
            errno.EPERM,
        ):  # lost+found is for root alone
            scan.broken[path] = why_unreadable(error)

    for count, path in enumerate(volume_files(folders, SUFFIX, unlisted)):
        if count == MAX_FILES:
            raise BundleError(
                _("there are more than {max_files} volumes", max_files=MAX_FILES),
                hint=_("name the folders of one bundle"),
            )
        try:
            volume, _unused = read_volume(path)
            volume = _with_few_views(volume, views)
            if admission is not None:
                admission.recall(volume.identity.bundle)
            _as_listed(volume, indexes)
        except Altered as error:
            altered[path] = volume.identity.root, str(error)
            scan.broken[path] = str(error)
        except (Damaged, OSError) as error:
            scan.broken[path] = why_unreadable(error)
        else:
            scan.volumes.append(volume)
    if (
        admission is not None
        and len({v.identity.root for v in scan.volumes if only in ("", v.identity.root)}) < 2
    ):
        admission.require(
            [(v.path, v.identity) for v in scan.volumes if only in ("", v.identity.root)],
            {path: why for path, (root, why) in altered.items() if only in ("", root)},
        )
    _choose(scan, folders, only, indexes)
    scan.volumes.sort(
        key=lambda v: (
            v.identity.bundle != scan.bundle,
            v.identity.bundle,
            v.identity.number,
            str(v.path),
        )
    )
    scan.index = indexes.get(scan.bundle)
    return scan


def _with_few_views(volume: Volume, known: dict[tuple[View, ...], tuple[View, ...]]) -> Volume:
    """The volume with the ``known`` list of views that is equal to its own, so that a bundle's takes memory once."""
    own = volume.identity.views
    if own not in known:
        known[own] = own
        if sum(map(len, known)) > MOST_VIEWS:
            raise BundleError(
                _(
                    "the volumes name more than {most_views} presets, which no bundle "
                    "does; nothing was imported",
                    most_views=MOST_VIEWS,
                ),
                hint=_("somebody altered them; carry the bundle again"),
            )
    return replace(volume, identity=replace(volume.identity, views=known[own]))


def _small_files(folders: Sequence[Path], suffix: str, *, beside: bool) -> Iterator[Path]:
    """What lies in the folders by this suffix, and ``beside`` volumes that are named themselves."""
    yield from volume_files([folder for folder in folders if folder.is_dir()], suffix)
    if beside:
        for folder in sorted({path.absolute().parent for path in folders if not path.is_dir()}):
            yield from sorted(path for path in folder.glob(f"*{suffix}") if path.name[0] != ".")


def _as_listed(volume: Volume, indexes: Mapping[str, Index]) -> None:
    """Raise Damaged when the bundle's index is here and says another thing."""
    identity = volume.identity
    if identity.bundle not in indexes:
        return
    plan, sealed = indexes[identity.bundle].plan, indexes[identity.bundle].sealed
    if identity.number > len(sealed) or identity != plan.identity(identity.number):
        raise Altered(_("says another thing of itself than the bundle's index"))
    number, listed, own = identity.number, sealed[identity.number - 1].sha256, volume.index_sha256
    if listed != own:
        raise Altered(
            _(
                "was altered: the bundle's index lists volume {number} with sha256 "
                "{listed}…, its own is {own}…",
                number=number,
                listed=listed[:12],
                own=own[:12],
            )
        )


def _choose(scan: Scan, folders: Sequence[Path], only: str, indexes: Mapping[str, Index]) -> None:
    """One bundle and the repairs of it; never a guess between two."""
    roots = {volume.identity.root for volume in scan.volumes}
    if only:
        scan.volumes = [v for v in scan.volumes if v.identity.root == only]
        roots &= {only}
    if not roots and scan.broken:
        named = [
            b
            for b in indexes
            if (not only or b == only) and any(p.name.startswith(b) for p in scan.broken)
        ]
        roots = set(named[:1])
    if not roots:
        shown = ", ".join(str(folder) for folder in folders)
        what = _("of bundle {only} ", only=only) if only else ""
        raise BundleError(
            _("no usable volume {what}in {shown}", what=what, shown=shown),
            hint=_("name the folders that hold *{suffix}", suffix=SUFFIX),
            faults=[Fault(str(path), why) for path, why in scan.broken.items()],
        )
    if len(roots) > 1:
        raise BundleError(
            _("these are volumes of different bundles; nothing was imported"),
            faults=[
                Fault(
                    str(v.path),
                    _(
                        "volume {number} of {volumes} of bundle {root}",
                        number=v.identity.number,
                        volumes=v.identity.volumes,
                        root=v.identity.root,
                    ),
                )
                for v in sorted(scan.volumes, key=lambda v: (v.identity.root, str(v.path)))
            ],
            hint=_("name one: --bundle {least}", least=min(roots)),
        )
    scan.bundle = roots.pop()
    carried = {(volume.identity.views, volume.identity.tool) for volume in scan.volumes}
    if len(carried) > 1:
        raise BundleError(
            _("volumes of one bundle do not agree on what it carries; nothing was imported"),
            faults=[
                Fault(
                    str(v.path), _("names ") + ", ".join(view.preset for view in v.identity.views)
                )
                for v in scan.volumes
            ],
            hint=_("somebody altered them; carry the bundle again"),
        )
