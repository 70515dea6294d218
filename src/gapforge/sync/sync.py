"""The whole of sync: resolve a preset (or reuse its lock), fetch into the store, lay out artifacts/NAME.

Killed at any moment, the next run converges: finished files are in the store by hash, cut ones are
``partial``, and the lock is written only when every byte of it is in the store. A partial lock (see
``pins``) is completed: what it pins is fetched as it is, and only the rest is resolved.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from gapforge.base.errors import Fault, FetchError, LockError, ResolveError, StorageError
from gapforge.base.files import exclusive, mark_folder, remove_folder, write_text
from gapforge.base.i18n import _
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.model import lock as locks
from gapforge.model.lock import Entry, Lock, LockedImage
from gapforge.model.names import ROLES
from gapforge.model.preset import BaseImage, Preset, SourceArchive
from gapforge.model.unresolved_item import OTHER, Reason, UnresolvedItem
from gapforge.store import sha256sums
from gapforge.store.store import Laid, Store
from gapforge.sync import apt, fetch_base_images, source_archives
from gapforge.sync.download import Downloader, Got, Want
from gapforge.sync.lock_diff import compare
from gapforge.sync.lock_entries import BUILDER, check_base, deb_entries, image_entries, same_image
from gapforge.sync.network import Network
from gapforge.sync.options import Options, Outcome
from gapforge.sync.python_packages import Resolver, Sdist, Wheel, requirements_text
from gapforge.sync.resume_state import Journal, clear_leftovers
from gapforge.sync.wheel_licence import licence_of
from gapforge.trust.trusted_signers import LOCK_SIGNATURE

REQUIREMENTS, LOCK = "requirements.txt", "lock.json"
INDEX_FILES = ("Packages", "Release")
TOOL_ONLY = (
    "install-tool",
)  # a wheel's roles; with "runtime" beside it, it is a package of the image as well
EVERYTHING = tuple(UnresolvedItem(kind, "*", Reason(code=OTHER)) for kind in ("deb", "wheel"))
AnyRun = TypeVar("AnyRun", bound="Run")


def sync(preset: Preset, project: Project, network: Network, options: Options) -> Outcome:
    """Make artifacts/NAME hold exactly what the preset needs. Raises BusyError while another sync runs."""
    with running(Run, preset, project, network, options) as run:
        return run.execute()


@contextmanager
def running(
    kind: type[AnyRun], preset: Preset, project: Project, network: Network, options: Options
) -> Iterator[AnyRun]:
    """A run that has the store for itself. Raises BusyError while there is another."""
    store = Store(project.store)
    with (
        exclusive(store.lock_file, f"{project.store}"),
        Progress(_("sync {name}", name=preset.name), quiet=options.quiet) as progress,
    ):
        yield kind(preset, project, network, options, store, progress)


class Run:
    """One run of sync, under the store's lock."""

    retries_indexes = True  # try an index that does not answer again

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
            project,
            network,
            self.work / "uv",
            refresh=options.update,
            retries_indexes=self.retries_indexes,
        )
        self.journal = Journal(project.state / "sync" / f"{preset.name}.json", preset.sha256)
        self.fetched = 0

    def execute(self) -> Outcome:
        """Fetch, resolve and publish; what a cut run leaves behind, the next one takes up."""
        old = self._begin()
        with ExitStack() as self.stack:
            self._apt: dict[BaseImage, apt.AptRoot] = {}
            if old is None or self.options.update:
                lock = self._resolve(
                    Lock(
                        preset=self.preset.name,
                        preset_sha256=self.preset.sha256,
                        images={},
                        entries=(),
                        unresolved=EVERYTHING,
                    )
                )
            else:
                lock = self._complete(old)
                if lock.unresolved:
                    lock = self._resolve(lock)
            laid = self._publish(lock)
        remove_folder(self.work)
        self.journal.remove()
        return Outcome(
            lock,
            self.project.artifacts_of(self.preset.name),
            compare(self.before, lock),
            lock is not old,
            self.fetched,
            laid.strangers,
            laid.copies,
            laid.copied,
        )

    def _begin(self) -> Lock | None:
        """Make room to work in; gives the lock that fits the preset, which may be a partial one."""
        clear_leftovers(self.work.parent)
        for leftover in self.project.presets.glob(f".{self.preset.name}.lock.json.*.tmp"):
            leftover.unlink(missing_ok=True)
        mark_folder(self.work, "a sync at work")
        old = locks.load_matching(
            self.project.lock_file(self.preset.name), self.preset, update=self.options.update
        )
        self.before = old or self._previous_lock()
        return old

    # -- a lock that is to be made

    def _resolve(self, kept: Lock) -> Lock:
        """Resolve what ``kept`` leaves open, fetch it, and return the complete lock. What ``kept`` pins is in the store."""
        preset = self.preset
        source_archives.check_files(preset)
        held = {e.name: e for e in kept.of("source", "tensorrt")}
        wanted = [pair for pair in self._wants() if pair[0].name not in held]
        # What a person has to bring, and what is cheap to refuse, comes before the long downloads.
        got = self._sources([pair for pair in wanted if pair[0].gated])
        pinned = kept.resolves("wheel")
        wheels = (
            [] if pinned else [*self.resolver.wheels(preset), self.resolver.install_tool(preset)]
        )
        sdists = {
            s.name: self._sdist(s)
            for s in preset.sources.values()
            if s.sdist and s.name not in held
        }
        got.update(
            self._sources(
                [pair for pair in wanted if pair[0].name not in got],
                [_want(w) for w in wheels],
                [
                    Want(
                        preset.sources[name].file or found.file,
                        (found.url,),
                        preset.sources[name].sha256,
                        found.size,
                    )
                    for name, found in sdists.items()
                ],
            )
        )
        # Bases last but for the packages that need them: one that is being made cannot be resumed, so a run
        # that is cut there has everything else already.
        bases = {
            role: self._kept_base(kept, role) if role in kept.images else self._base(role)
            for role in ROLES
        }
        entries: list[Entry] = []
        for layout, _unused in bases.values():
            entries += layout
        if pinned:
            entries += [self._with_licence(e) for e in kept.of("wheel")]
            entries += [self._requirements(kept.of("wheel"))]
        else:
            entries += self._wheel_entries(wheels[:-1], wheels[-1], got)
        debs = [] if kept.resolves("deb") else self._fetch_debs(self._closures(bases))
        debs += kept.of("deb") if kept.resolves("deb") else ()
        entries += [*held.values(), *debs]
        for source in preset.sources.values():
            if source_archives.is_local_repo(preset, source) or source.name in held:
                continue
            if source.urls:
                entries.append(
                    source_archives.entry_of(
                        source, source.file, got[source.name].sha256, got[source.name].size, "url"
                    )
                )
                if not source.sha256:
                    sha256 = got[source.name].sha256
                    self.progress.note(
                        _(
                            "WARNING: {file} is trusted because it was seen first; sha256 {sha256}",
                            file=source.file,
                            sha256=sha256,
                        )
                    )
            elif source.sdist:
                sdist = sdists[source.name]
                size = self.store.path(source.sha256).stat().st_size
                entries.append(
                    source_archives.entry_of(
                        source,
                        source.file or sdist.file,
                        source.sha256,
                        size,
                        "index:default",
                        sdist.version,
                    )
                )
            else:
                entries.append(self._apt_source(source.name, bases[BUILDER][0]))
        entries += self._deb_index(debs)
        return Lock(
            preset=preset.name,
            preset_sha256=preset.sha256,
            images={role: image for role, (_unused, image) in bases.items()},
            entries=tuple(sorted(entries, key=lambda e: e.path)),
        )

    def _wants(self) -> list[tuple[SourceArchive, Want]]:
        """Sources with addresses. What was trusted at first use stays what is expected, until --update."""
        before = (
            {}
            if self.options.update or self.before is None
            else {
                e.name: e
                for e in self.before.of("source", "tensorrt")
                if e.trust
                and e.name in self.preset.sources
                and e.urls == self.preset.sources[e.name].urls
            }
        )
        return source_archives.wants_of(
            self.preset, {**before, **self.journal.first_use(self.preset)}
        )

    def _wheel_entries(
        self, wheels: Sequence[Wheel], tool: Wheel, got: Mapping[str, Got]
    ) -> list[Entry]:
        entries: dict[str, Entry] = {}
        for wheel in (*wheels, tool):
            path = f"wheels/{wheel.file}"
            roles = TOOL_ONLY if wheel is tool else ()
            if path in entries:
                entries[path] = replace(
                    entries[path], roles=(*TOOL_ONLY, "runtime")
                )  # the preset asks for the same pip
                continue
            found = got[wheel.file]
            if not wheel.sha256:
                self.progress.note(
                    _(
                        "WARNING: the index has no hash for {file}; sha256 {sha256} is "
                        "trusted as seen first",
                        file=wheel.file,
                        sha256=found.sha256,
                    )
                )
            entries[path] = Entry(
                kind="wheel",
                path=path,
                sha256=found.sha256,
                size=found.size,
                origin=f"index:{wheel.index}",
                name=wheel.name,
                version=wheel.version,
                roles=roles,
                trust="" if wheel.sha256 else "first-use",
                licence=licence_of(self.store.path(found.sha256)),
            )
        return [*entries.values(), self._requirements(entries.values())]

    def _requirements(self, wheels: Iterable[Entry]) -> Entry:
        """requirements.txt for these wheels, in the store. The tool is no package of the image."""
        data = requirements_text(
            (e.name, e.version, e.sha256) for e in wheels if e.roles != TOOL_ONLY
        ).encode()
        return Entry(
            kind="index",
            path=REQUIREMENTS,
            sha256=self.store.add_bytes(data),
            size=len(data),
            origin="generated",
            name="requirements",
        )

    def _with_licence(self, wheel: Entry) -> Entry:
        """A wheel that was pinned before it was here."""
        return (
            wheel
            if wheel.licence
            else replace(wheel, licence=licence_of(self.store.path(wheel.sha256)))
        )

    def _sdist(self, source: SourceArchive) -> Sdist:
        """The source distribution on the index. Raises ResolveError when it is not the preset's."""
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

    # -- fetching

    def _sources(
        self, pairs: Sequence[tuple[SourceArchive, Want]], *more: Sequence[Want]
    ) -> dict[str, Got]:
        """Fetch sources (keyed by source name) together with other files (keyed by file name)."""
        wants = [want for _unused, want in pairs] + [want for group in more for want in group]
        gated = {want.file for source, want in pairs if source.gated}
        try:
            got = self._obtain(wants)
        except FetchError as error:
            missing = [
                pair
                for pair in pairs
                if pair[1].file in gated & {fault.where for fault in error.faults}
            ]
            if missing:
                raise source_archives.gated_error(self.preset, missing, error.faults) from None
            raise
        names = {want: source.name for source, want in pairs}
        result = {names.get(want, want.file): found for want, found in zip(wants, got, strict=True)}
        for source, want in pairs:
            if not want.sha256:
                self.journal.record_first_use(
                    source.name, result[source.name].sha256, result[source.name].size
                )
        return result

    def _obtain(self, wants: Sequence[Want]) -> list[Got]:
        """Each wanted file into the store: it may be there, or in --from, or else it is downloaded."""
        found: dict[Want, Got] = {}
        known = self.store.missing((w.sha256, w.size or -1) for w in wants if w.sha256)
        for want in wants:
            if want.sha256 and want.sha256 not in known:
                found[want] = Got(
                    want, want.sha256, self.store.path(want.sha256).stat().st_size, ""
                )
        rest = [want for want in wants if want not in found]
        provided = self.provided.take(rest)
        found.update({want: provided[want.file] for want in rest if want.file in provided})
        rest = [want for want in rest if want not in found]
        self.progress.total += sum(want.size for want in dict.fromkeys(rest))
        for got in self.downloader.fetch(rest):
            found[got.want] = got
            self.fetched += got.size
        return [found[want] for want in wants]

    # -- base images

    def _base(
        self, role: str, locked: LockedImage | None = None
    ) -> tuple[list[Entry], LockedImage]:
        """The base image of ``role`` in the store, as entries. With ``locked`` the very same image again."""
        base = self.preset.base(role)
        pinned = base
        if locked is not None and base.image and "@" in locked.reference:
            pinned = replace(base, digest=locked.reference.rpartition("@")[2])
        image, files = self._base_files(pinned)
        self._check_base(role, image)
        if locked is not None and not same_image(image, locked):
            raise FetchError(
                _("the base image of {role} cannot be had again as it was", role=role),
                faults=[
                    Fault(
                        base.label,
                        _("is now {config_digest}", config_digest=image.config_digest),
                        locked.config_digest,
                    )
                ],
                hint=_("resolve anew: ./deps_sync.sh {name} --update", name=self.preset.name),
            )
        return image_entries(role, files), image

    def _kept_base(self, kept: Lock, role: str) -> tuple[list[Entry], LockedImage]:
        """The base image that ``kept`` pins, which is in the store, with what its own files say."""
        entries, image = [e for e in kept.of("image") if role in e.roles], kept.images[role]
        if image.os_id:
            return entries, image
        image = fetch_base_images.describe(self._layout(role, entries), image.reference)
        self._check_base(role, image)
        return entries, image

    def _check_base(self, role: str, image: LockedImage) -> None:
        """Raise CompatibilityError for an image with another CUDA or cuDNN than the preset says."""
        for warning in check_base(self.preset, role, image):
            self.progress.note(_("WARNING: {warning}", warning=warning))

    def _base_files(self, base: BaseImage) -> tuple[LockedImage, dict[str, tuple[str, int]]]:
        """The image's layout in the store: path -> (sha256, size). Builder and runtime often share one."""
        known = self.journal.base(base)
        if known is not None and not self.store.missing(known[1].values()):
            return known
        folder = self.work / f"image-{len(list(self.work.glob('image-*')))}"
        folder.mkdir()
        image = fetch_base_images.fetch_base(
            base, self.project, self.preset.epoch, folder, self.network, self.progress
        )
        files: dict[str, tuple[str, int]] = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            size = path.stat().st_size
            sha256 = self.store.add(path)
            files[path.relative_to(folder).as_posix()] = (sha256, size)
            self.fetched += size
        self.journal.record_base(base, image, files)
        return image, files

    # -- packages

    def _apt_root(self, role: str, entries: Iterable[Entry]) -> apt.AptRoot:
        """The APT root on the base image of ``role``; roles with one base share it."""
        base = self.preset.base(role)
        if base not in self._apt:
            work = self.work / f"apt-{len(self._apt)}"
            root = apt.AptRoot(
                self._layout(role, entries),
                self.preset.apt_sources,
                work,
                self.network,
                self._local_repo(),
            )
            self._apt[base] = self.stack.enter_context(root)
        return self._apt[base]

    def _layout(self, role: str, entries: Iterable[Entry]) -> Path:
        """The OCI layout of a base image that is in the store."""
        layout, prefix = self.work / f"layout-{role}", f"images/{role}/"
        self.store.view(
            layout,
            {e.path.removeprefix(prefix): e.sha256 for e in entries if e.path.startswith(prefix)},
        )
        return layout

    def _local_repo(self) -> Path | None:
        """TensorRT's local-repository .deb under its own name, fetched when needed."""
        for source, want in self._wants():
            if source_archives.is_local_repo(self.preset, source):
                got = self._sources([(source, want)])[source.name]
                file = self.work / "local-repo" / source.file
                self.store.place(got.sha256, file)
                return file
        return None

    def _closures(
        self, bases: Mapping[str, tuple[list[Entry], LockedImage]]
    ) -> dict[str, list[apt.DebFile]]:
        """The .debs that each role's base lacks."""
        return {
            role: list(self._apt_root(role, bases[role][0]).closure(self.preset.debs(role)))
            for role in ROLES
        }

    def _fetch_debs(self, closures: Mapping[str, Sequence[apt.DebFile]]) -> list[Entry]:
        """The .debs of all roles in the store, as entries; a .deb that both roles need is one entry."""
        entries = deb_entries(closures)
        # Our own downloads, not apt's: resumed after a kill, and in no danger from a curl that outlived us.
        self._obtain(
            [
                _deb_want(deb)
                for deb in {d.file: d for role in ROLES for d in closures[role]}.values()
            ]
        )
        return entries

    def _apt_source(self, name: str, builder: Iterable[Entry]) -> Entry:
        """An upstream tarball out of the builder's APT sources, in the store."""
        source = self.preset.sources[name]
        found = self._apt_root(BUILDER, builder).source_tarball(source.apt_source)
        self._obtain([Want(found.file, (found.uri,), found.sha256, found.size)])
        return source_archives.entry_of(
            source, source.file or found.file, found.sha256, found.size, found.origin, found.version
        )

    def _deb_index(self, debs: Sequence[Entry]) -> list[Entry]:
        """Packages and Release for these .debs."""
        folder = self.work / "index"
        folder.mkdir(exist_ok=True)  # a preset may need no .deb at all
        self.store.view(folder, {e.path.removeprefix("debs/"): e.sha256 for e in debs})
        apt.write_index(folder)
        entries = []
        for name in INDEX_FILES:
            size = (folder / name).stat().st_size
            entries.append(
                Entry(
                    kind="index",
                    path=f"debs/{name}",
                    sha256=self.store.add(folder / name),
                    size=size,
                    origin="generated",
                    name=name,
                )
            )
        return entries

    # -- a lock that exists

    def _complete(self, lock: Lock) -> Lock:
        """Bring back what the store lacks of ``lock``; the lock stays as it is."""
        size = sum({e.sha256: e.size for e in lock.entries}.values())
        with Progress(_("check the store"), size, quiet=self.options.quiet) as progress:
            gone = self.store.missing(
                ((e.sha256, e.size) for e in lock.entries), on_bytes=progress.add
            )
        missing = [e for e in lock.entries if e.sha256 in gone]
        if not missing:
            return lock
        by_name = {e.name: e for e in lock.of("source", "tensorrt")}
        wants = [
            Want(e.file, (), e.sha256, e.size)
            for e in missing
            if e.origin not in ("generated", "image")
        ]
        self.provided.take(wants)
        missing = self._still(missing)
        located = (
            self.resolver.locate(self.preset, [e for e in missing if e.kind == "wheel"])
            if any(e.kind == "wheel" for e in missing)
            else {}
        )
        pairs, more = [], []
        for entry in missing:
            if entry.kind == "wheel":
                more.append(Want(entry.file, (located[entry.path],), entry.sha256, entry.size))
            elif entry.kind in ("source", "tensorrt") and entry.origin == "url":
                pairs += [
                    p
                    for p in source_archives.wants_of(self.preset, by_name)
                    if p[0].name == entry.name
                ]
            elif entry.kind in ("source", "tensorrt") and entry.origin.startswith("index:"):
                sdist = self.resolver.sdist(self.preset.sources[entry.name].sdist, self.preset)
                more.append(Want(entry.file, (sdist.url,), entry.sha256, entry.size))
        self._sources([pair for pair in pairs if pair[0].gated])
        self._sources([pair for pair in pairs if not pair[0].gated], more)
        for role in ROLES:
            if any(e.kind == "image" and role in e.roles for e in self._still(missing)):
                self._base(role, lock.images[role])
        self._complete_apt(lock, [e for e in self._still(missing) if e.origin.startswith("apt:")])
        generated = [e.path for e in self._still(missing) if e.origin == "generated"]
        if any(path.startswith("debs/") for path in generated):
            self._deb_index(lock.of("deb"))
        if REQUIREMENTS in generated:
            self._requirements(lock.of("wheel"))
        if left := self._still(missing):
            again = _("cannot be made or fetched again")
            raise LockError(
                _("the lock of {name} cannot be fulfilled any more", name=self.preset.name),
                faults=[Fault(e.path, again, f"sha256 {e.sha256}") for e in left],
                hint=f"./deps_sync.sh {self.preset.name} --update",
            )
        return lock

    def _complete_apt(self, lock: Lock, missing: Sequence[Entry]) -> None:
        """Fetch missing .debs and tarballs, when the archive still has those versions."""
        if not missing:
            return
        layouts = {role: [e for e in lock.of("image") if role in e.roles] for role in ROLES}
        closures = self._closures({role: (layouts[role], lock.images[role]) for role in ROLES})
        wanted = {e.sha256 for e in missing if e.kind == "deb"}
        debs = {deb.file: deb for role in ROLES for deb in closures[role] if deb.sha256 in wanted}
        self._obtain([_deb_want(deb) for deb in debs.values()])
        for entry in missing:
            if entry.kind != "deb":
                self._apt_source(entry.name, layouts[BUILDER])
        if left := self._still(missing):
            raise ResolveError(
                _(
                    "the APT sources do not have what the lock of {name} names",
                    name=self.preset.name,
                ),
                faults=[
                    Fault(
                        e.path, _("has been replaced by another version"), f"{e.name} {e.version}"
                    )
                    for e in left
                ],
                hint=_(
                    "resolve anew: ./deps_sync.sh {name} --update; or give the files "
                    "with --from FOLDER",
                    name=self.preset.name,
                ),
            )

    def _still(self, entries: Iterable[Entry]) -> list[Entry]:
        return [e for e in entries if not self.store.intact(e.sha256, e.size)]

    # -- the result

    def _publish(self, lock: Lock) -> Laid:
        """Write the lock, then make artifacts/NAME that."""
        gone = self.store.missing((e.sha256, e.size) for e in lock.entries)
        if gone:
            raise StorageError(
                _("files in the store changed while sync was running"),
                faults=[
                    Fault(e.path, _("is damaged"), f"sha256 {e.sha256}")
                    for e in lock.entries
                    if e.sha256 in gone
                ],
                hint=_("look after the disk; then run the same command again"),
            )
        folder = self.project.artifacts_of(self.preset.name)
        previous = _paths_of(folder / LOCK)
        lock.require_complete(f"presets/{self.preset.name}.lock.json")
        # The lock first: whatever happens after this line, the next run lays out this very state.
        text = self._write_lock(lock)
        files = {e.path: e.sha256 for e in lock.entries}
        files[LOCK] = self.store.add_bytes(text.encode())
        files[sha256sums.NAME] = self.store.add_bytes(sha256sums.render(files))
        if not (folder / LOCK).exists() or (folder / LOCK).read_bytes() != text.encode():
            previous.append(LOCK_SIGNATURE)  # somebody signed the lock that was there before
        return self.store.view(folder, files, previous, last=LOCK)

    def _write_lock(self, lock: Lock) -> str:
        """Write the lock beside its preset where it is not that already; gives its text."""
        text = lock.render()
        file = self.project.lock_file(self.preset.name)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)
        return text

    def _previous_lock(self) -> Lock | None:
        """What was locked before the preset changed, to tell what is new; None when there is nothing usable."""
        try:
            return locks.load(self.project.lock_file(self.preset.name))
        except LockError:
            return None


def _want(wheel: Wheel) -> Want:
    return Want(wheel.file, (wheel.url,), wheel.sha256, wheel.size)


def _deb_want(deb: apt.DebFile) -> Want:
    return Want(deb.file, (deb.uri,), deb.sha256, deb.size)


def _paths_of(lock_file: Path) -> list[str]:
    """The paths that an earlier sync put into artifacts/NAME, so that stale ones may be removed."""
    try:
        lock = locks.load(lock_file)
    except LockError:
        return []
    return [e.path for e in lock.entries]
