"""What `sync` and `sync --lock-only` have in common: options, outcome, and the steps of one run."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import Fault, FetchError, LockError, ResolveError
from gapforge.base.files import contains
from gapforge.base.i18n import _
from gapforge.base.marked_folders import mark_folder
from gapforge.base.process_locks import exclusive
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.write_files import write_text
from gapforge.model import lock as locks
from gapforge.model import usable_base_image
from gapforge.model.lock import Entry, Lock, LockedImage
from gapforge.model.names import ROLES
from gapforge.model.preset import BaseImage, Preset, SourceArchive
from gapforge.model.unresolved_item import OTHER, Reason, UnresolvedItem
from gapforge.store.store import Store, preset_in_use
from gapforge.sync import (
    apt_errors,
    apt_resolver,
    base_images,
    source_archives,
    source_contents,
    target_python,
)
from gapforge.sync.base_images import check_base
from gapforge.sync.download import Downloader, Got, Want
from gapforge.sync.lock_diff import Changes
from gapforge.sync.lock_entries import LockedBase
from gapforge.sync.network import Network
from gapforge.sync.oci_layout import Files
from gapforge.sync.python_packages import Resolver, Sdist
from gapforge.sync.source_contents import Downloaded
from gapforge.sync.unfinished_sync import ResumeState, clear_leftovers

BUILDER = ROLES[0]
INDEX_FILES = ("Packages", "Release")
# What a lock leaves unresolved before anything was resolved; the reasons are never shown.
EVERYTHING = tuple(UnresolvedItem(kind, "*", Reason(code=OTHER)) for kind in ("deb", "wheel"))


@dataclass(frozen=True)
class Options:
    """The options of one command, and what its presets share.

    ``update``: resolve everything again; ``provided``: --from FOLDER. ``bases`` collects the base
    images that the command has put into the store, by description and date.
    """

    update: bool = False
    provided: Path | None = None
    quiet: bool = False
    bases: dict[tuple[BaseImage, int], tuple[LockedImage, Files]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a run.

    ``fetched`` counts bytes that were not in the store before. ``strangers`` are files in
    artifacts/NAME that gapforge did not put there; verify rejects them. ``copies`` is the number of
    artifacts that are no hard links, ``copied`` their bytes.
    """

    lock: Lock
    artifacts: Path
    changes: Changes
    resolved: bool
    fetched: int = 0
    strangers: tuple[str, ...] = ()
    copies: int = 0
    copied: int = 0

    def to_json(self) -> dict[str, object]:
        """Return the outcome in JSON types; sizes in bytes."""
        return {
            "preset": self.lock.preset,
            "artifacts": str(self.artifacts),
            "resolved": self.resolved,
            "files": len(self.lock.entries),
            "bytes": self.lock.size,
            "fetched_bytes": self.fetched,
            "changes": self.changes.to_json(),
            "strangers": list(self.strangers),
            "unresolved": [item.to_json() for item in self.lock.unresolved],
            "copies": {"files": self.copies, "bytes": self.copied},
        }


def execute(
    kind: type[Run], preset: Preset, project: Project, network: Network, options: Options
) -> Outcome:
    """Do a run that has the store for itself. Raise BusyError while there is another one."""
    store = Store(project.store)
    with (
        exclusive(store.lock_file, f"{project.store}"),
        preset_in_use(project, preset.name, changes=True),
        Progress(_("sync {name}", name=preset.name), quiet=options.quiet) as progress,
    ):
        return kind(preset, project, network, options, store, progress).execute()


class Run(ABC):
    """One run under the store's lock, and the steps that both kinds of it need."""

    retries_indexes = True  # whether requests to an index are repeated

    def __init__(
        self,
        preset: Preset,
        project: Project,
        network: Network,
        options: Options,
        store: Store,
        progress: Progress,
    ) -> None:
        self.preset, self.project, self.network, self.options = preset, project, network, options
        self.store, self.progress = store, progress
        self.downloader = Downloader(store, network, progress)
        self.provided = source_archives.Provided(options.provided, store, progress)
        self.work = store.partial(f"work-{os.getpid()}")
        self.resolver = Resolver(
            project=project,
            network=network,
            workdir=self.work / "uv",
            refresh=options.update,
            retries_indexes=self.retries_indexes,
        )
        self.state = ResumeState(project.state / "sync" / f"{preset.name}.json", preset.sha256)
        self.fetched = 0
        self._looked_into: set[Downloaded] = set()
        self.stack = ExitStack()  # closes the APT roots; entered by ``execute``
        self._apt: dict[BaseImage, apt_resolver.AptResolver] = {}

    @abstractmethod
    def execute(self) -> Outcome:
        """Do what the run is for."""

    def _begin(self) -> Lock | None:
        """Make the working folder.

        Return the lock whose pins stay: the one that belongs to the preset, complete or partial.
        There is none for a new preset, and none with --update.
        """
        clear_leftovers(self.work.parent)
        for leftover in self.project.presets.glob(f".{self.preset.name}.lock.json.*.tmp"):
            leftover.unlink(missing_ok=True)
        mark_folder(self.work, "a sync at work")
        if self.network.ignored:
            self.progress.note(
                _(
                    "NOTE: gapforge does not use these settings of pip: {settings}; set "
                    "GAPFORGE_INDEX_URL, https_proxy and GAPFORGE_CA_BUNDLE instead",
                    settings=", ".join(self.network.ignored),
                )
            )
        old = locks.load_matching(
            self.project.lock_file(self.preset.name), self.preset, update=self.options.update
        )
        if old is not None:
            usable_base_image.check_operating_systems(self.preset, old.images)
        self.before = old or self._previous_lock()
        kept = None if self.options.update else old
        self.epoch = locks.epoch_for(self.preset, kept, time.time())
        return kept

    def _nothing(self) -> Lock:
        """Return a lock of the preset that pins nothing yet."""
        return Lock(
            preset=self.preset.name,
            preset_sha256=self.preset.sha256,
            images={},
            entries=(),
            unresolved=EVERYTHING,
        )

    def _previous_lock(self) -> Lock | None:
        """Return the lock of an earlier state of the preset, None if it cannot be used."""
        try:
            return locks.load(self.project.lock_file(self.preset.name))
        except LockError:
            return None

    def _write_lock(self, lock: Lock) -> str:
        """Write presets/NAME.lock.json if its content changes. Return its text."""
        text = lock.render()
        file = self.project.lock_file(self.preset.name)
        if not contains(file, text.encode()):
            write_text(file, text)
        return text

    # -- downloads

    def _obtain(self, wants: Sequence[Want]) -> dict[Want, Got]:
        """Return the wanted files: from the store, from the folder of --from, or downloaded."""
        found: dict[Want, Got] = {}
        missing = self.store.missing((w.sha256, w.size or -1) for w in wants if w.sha256)
        for want in wants:
            if want.sha256 and want.sha256 not in missing:
                size = self.store.path(want.sha256).stat().st_size
                found[want] = Got(want, want.sha256, size, "")
        rest = [want for want in wants if want not in found]
        provided = self.provided.take(rest)
        found.update({want: provided[want.file] for want in rest if want.file in provided})
        rest = [want for want in rest if want not in found]
        self.progress.total += sum(want.size for want in dict.fromkeys(rest))
        for got in self.downloader.fetch(rest):
            found[got.want] = got
            self.fetched += got.size
        return found

    def _obtain_sources(
        self, pairs: Sequence[tuple[SourceArchive, Want]], more: Sequence[Want] = ()
    ) -> dict[Want, Got]:
        """Return the files of sources, and ``more`` files, in the store.

        Raise GatedError if a person has to download some of the sources.
        """
        wants = [want for _unused, want in pairs] + list(more)
        try:
            got = self._obtain(wants)
        except FetchError as error:
            failed = {fault.where for fault in error.faults}
            gated = [
                (source, want) for source, want in pairs if source.gated and want.file in failed
            ]
            if gated:
                raise source_archives.gated_error(self.preset, gated, error.faults) from None
            raise
        self._look_inside(
            Downloaded(source.name, want.file, self.store.path(got[want].sha256))
            for source, want in pairs
            if not source_archives.is_local_repo(self.preset, source)
        )
        for source, want in pairs:
            if not want.sha256:
                self.state.record_first_use(source.name, got[want].sha256, got[want].size)
        return got

    def _look_inside(self, archives: Iterable[Downloaded]) -> None:
        """Raise CompatibilityError or PresetError for archives that the preset does not mean.

        Each is read once in a run.
        """
        new = [archive for archive in archives if archive not in self._looked_into]
        self._looked_into.update(new)
        source_contents.check_archives(self.preset, new, self.progress.note)

    def _source_wants(self) -> list[tuple[SourceArchive, Want]]:
        """Return the sources that have addresses.

        What was trusted on first use stays the expected file until --update.
        """
        before = {}
        if self.before is not None and not self.options.update:
            sources = self.preset.sources
            before = {
                e.name: e
                for e in self.before.of("source", "tensorrt")
                if e.trust and e.name in sources and e.urls == sources[e.name].urls
            }
        locked = {**before, **self.state.first_use(self.preset)}
        return source_archives.wants_of(self.preset, locked)

    def _find_sdist(self, source: SourceArchive) -> Sdist:
        """Return the source distribution on the index.

        Raise ResolveError for another checksum than the preset's.
        """
        found = self.resolver.sdist(source.sdist, self.preset)
        if found.sha256 not in ("", source.sha256):
            raise ResolveError(
                _("{sdist} is not the file that the preset names", sdist=source.sdist),
                faults=[
                    Fault(
                        found.file,
                        _("has sha256 {sha256} on the index", sha256=found.sha256),
                        f"sha256 {source.sha256}",
                    )
                ],
                hint=_(
                    "correct sources.{name} in presets/{preset_name}.json",
                    name=source.name,
                    preset_name=self.preset.name,
                ),
            )
        return found

    # -- base images and packages

    def _check_base(self, role: str, image: LockedImage) -> None:
        """Raise TargetError for another operating system than the preset's.

        Raise CompatibilityError for another CUDA or cuDNN.
        """
        usable_base_image.check_operating_systems(self.preset, {role: image})
        for warning in check_base(self.preset, role, image):
            self.progress.note(_("WARNING: {warning}", warning=warning))

    def _layout(self, role: str, base: LockedBase) -> Path:
        """Return a folder with the OCI layout of a base image that is in the store."""
        layout, prefix = self.work / f"layout-{role}", f"images/{role}/"
        self.store.view(layout, {e.path.removeprefix(prefix): e.sha256 for e in base.entries})
        return layout

    def _apt_root(self, role: str, locked: LockedBase) -> apt_resolver.AptResolver:
        """Return the APT root on the base image of ``role``; roles with one base image share it."""
        base = self.preset.base(role)
        if base not in self._apt:
            root = apt_resolver.AptResolver(
                self._layout(role, locked),
                self.preset.apt_sources,
                self.work / f"apt-{len(self._apt)}",
                self.network,
                self._local_repository(),
            )
            self._apt[base] = self.stack.enter_context(root)
        return self._apt[base]

    def _python(self, bases: Mapping[str, LockedBase], debs: Sequence[Entry]) -> str:
        """Return the full version of the target's Python, once the .debs are resolved."""
        by_role = {role: {e.name: e.version for e in debs if role in e.roles} for role in ROLES}

        def installed(role: str) -> dict[str, str]:
            return base_images.installed(self._layout(role, bases[role]))

        return target_python.found(self.preset, by_role, installed)

    def _local_repository(self) -> Path | None:
        """Return TensorRT's local-repository .deb under its own name, downloaded if necessary."""
        for source, want in self._source_wants():
            if source_archives.is_local_repo(self.preset, source):
                got = self._obtain_sources([(source, want)])[want]
                file = self.work / "local-repo" / source.file
                self.store.place(got.sha256, file)
                return file
        return None

    def _resolve_debs(
        self, bases: Mapping[str, LockedBase]
    ) -> dict[str, list[apt_resolver.DebFile]]:
        """Return the .debs that each role's base image lacks.

        The build derives which libraries the runtime image needs from what is compiled then, so
        those of the runtime are the .debs for everything that programs can link to in the builder.
        """
        found = {}
        libraries: dict[str, str] = {}
        for role in ROLES:
            root, packages = self._apt_root(role, bases[role]), self.preset.debs(role)
            if role == BUILDER:
                try:
                    found[role], libraries = root.closure(packages), root.libraries(packages)
                except ResolveError as error:
                    reasons = self.preset.apt_packages["builder"]
                    error.faults = apt_errors.with_reasons(error.faults, reasons)
                    raise
            else:
                found[role], absent = root.with_libraries(packages, libraries)
                self._note_absent(absent)
            root.check_programs(role, self.preset.python, found[role])
        return found

    def _note_absent(self, libraries: Sequence[str]) -> None:
        """Say which packages the build could miss; only compiling shows whether it needs them."""
        if libraries:
            self.progress.note(
                _(
                    "NOTE: the runtime image cannot have {packages}; the build stops if a program "
                    "links to them",
                    packages=", ".join(libraries),
                )
            )

    def _deb_index(self, debs: Sequence[Entry]) -> list[Entry]:
        """Return Packages and Release for these .debs, which are in the store."""
        folder = self.work / "index"
        folder.mkdir(exist_ok=True)  # a preset may need no .deb at all
        self.store.view(folder, {e.path.removeprefix("debs/"): e.sha256 for e in debs})
        apt_resolver.write_index(folder)
        return [
            Entry(
                kind="index",
                path=f"debs/{name}",
                size=(folder / name).stat().st_size,
                sha256=self.store.add(folder / name),
                origin="generated",
                name=name,
            )
            for name in INDEX_FILES
        ]
