"""Pack a bundle: place the volumes, write them, and write the files beside them.

After an interruption, the next run verifies and keeps finished volumes and writes the others with
the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.i18n import _
from gapforge.base.process_locks import exclusive
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.storage_errors import storage_errors
from gapforge.base.write_files import remove_file, remove_litter
from gapforge.bundle.bundle_index import VolumeEntry, index_name
from gapforge.bundle.companion_files import CompanionFiles, write_companion
from gapforge.bundle.contents import Contents
from gapforge.bundle.place_volumes import Placement, place_volumes
from gapforge.bundle.receiver_program import RECEIVER, receiver_bytes
from gapforge.bundle.sign_bundle import BundleSigner, unsigned_companions
from gapforge.bundle.volume_format import volume_name
from gapforge.bundle.volume_plan import Plan
from gapforge.bundle.volume_writer import UNFINISHED, VolumeWriter


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A bundle that was packed.

    ``volumes`` lists all volumes and ``kept`` the numbers of those from an earlier run. ``folders``
    maps each number to its folder; ``index`` are the paths of the copies of the index.
    """

    plan: Plan
    volumes: tuple[VolumeEntry, ...]
    folders: Mapping[int, Path]
    kept: tuple[int, ...]
    index: tuple[Path, ...]
    companions: CompanionFiles


def pack(
    project: Project,
    plan: Plan,
    contents: Contents,
    to: Sequence[Path],
    progress: Progress,
    signer: BundleSigner | None = None,
) -> Packed:
    """Write the volumes of ``plan`` into the folders ``to``, which are filled in order.

    The index of the bundle, signed by ``signer``, and the receiver program are written beside them.
    Before anything is written, raise StorageError if there is not enough space and TrustError if
    the key cannot sign. Raise BundleError naming an object whose bytes do not match its lock.
    """
    state = project.state / "bundles"
    with exclusive(state / f"{plan.bundle}.lock", _("bundle {bundle}", bundle=plan.bundle)):
        _create_folders(plan, to)
        signatures = len(plan.presets) + 1 if signer is not None else 0
        placement = place_volumes(plan, to, signatures=signatures, listed=contents.listed)
        prepared = signer.prepare(project, plan, contents, to) if signer is not None else {}
        for name, data in prepared.items():
            write_companion(state / name, data)
        _remove_damaged(plan, to, placement)
        progress.total = sum(plan.size(n) for n in placement.folders if n not in placement.kept)
        with VolumeWriter(plan, contents, placement, progress) as writer:
            volumes = writer.run()
        companions = (
            signer.finish(plan, volumes)
            if signer is not None
            else unsigned_companions(project, plan, volumes, to)
        )
        folders = list(dict.fromkeys(placement.folders[n] for n in plan.numbers))
        # The project's own copy first: the next run then knows what a killed run has handed out.
        for folder in (state, *folders):
            for name in companions.stale:
                remove_file(folder / name)
            for name, data in companions.files.items():
                write_companion(folder / name, data)
        for folder in folders:
            write_companion(folder / RECEIVER, receiver_bytes())
    return Packed(
        plan=plan,
        volumes=tuple(volumes),
        folders=placement.folders,
        kept=tuple(sorted(placement.kept)),
        index=tuple(folder / index_name(plan.bundle) for folder in folders),
        companions=companions,
    )


def _create_folders(plan: Plan, to: Sequence[Path]) -> None:
    """Create the folders, and remove what a killed run was writing into them."""
    for folder in to:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for number in plan.numbers:
                remove_litter(folder / volume_name(plan.bundle, number), UNFINISHED)


def _remove_damaged(plan: Plan, to: Sequence[Path], placement: Placement) -> None:
    """Remove damaged volumes: their space was counted for the new ones."""
    for number in set(placement.folders) - set(placement.kept):
        for target in (folder / volume_name(plan.bundle, number) for folder in to):
            with storage_errors(target):
                target.unlink(missing_ok=True)
