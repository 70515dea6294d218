"""Sync: resolve a preset or reuse its lock, download into the store, and lay out artifacts/NAME.

A run may be killed at any moment, and the next one converges: complete files are in the store by
checksum, incomplete downloads are partial files, and the lock is written only when every file of it
is in the store. A partial lock is completed: what it pins stays, and only the rest is resolved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gapforge.base.errors import Fault, FetchError, LockError, ResolveError, StorageError
from gapforge.base.files import contains
from gapforge.base.i18n import _
from gapforge.base.marked_folders import remove_folder
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.model import lock as locks
from gapforge.model.lock import LOCK_FILE, Entry, Lock, LockedImage, epoch_of
from gapforge.model.names import ROLES
from gapforge.model.preset import BaseImage, Preset, SourceArchive
from gapforge.store import sha256sums
from gapforge.store.store import ViewResult
from gapforge.sync import (
    base_images,
    check_option_libraries,
    prove_pip_install,
    source_archives,
    target_python,
)
from gapforge.sync.apt_resolver import DebFile, SourceFile
from gapforge.sync.base_image_facts import read_files
from gapforge.sync.download import Got, Want
from gapforge.sync.lock_diff import compare
from gapforge.sync.lock_entries import (
    REQUIREMENTS,
    TOOL_ONLY,
    LockedBase,
    base_of,
    bases_of,
    deb_entries,
    image_entries,
    requirements_of,
    sdist_entry,
    tarball_entry,
    wheel_entry,
    with_install_tool,
)
from gapforge.sync.network import Network
from gapforge.sync.oci_layout import Files, read_layout
from gapforge.sync.python_packages import Sdist, Wheel
from gapforge.sync.shared_steps import BUILDER, Options, Outcome, Run, execute
from gapforge.sync.source_contents import Downloaded
from gapforge.sync.wheel_licence import licence_of
from gapforge.trust.trusted_signers import LOCK_SIGNATURE


def sync(preset: Preset, project: Project, network: Network, options: Options) -> Outcome:
    """Make artifacts/NAME hold exactly what the preset needs.

    Raise BusyError while another sync runs.
    """
    return execute(_Sync, preset, project, network, options)


class _Sync(Run):
    """One run that downloads. ``proved`` are the Python and the wheels that pip accepted last."""

    proved: tuple[str, frozenset[str]] | None = None

    def execute(self) -> Outcome:
        """Download, resolve and publish, continuing from what an interrupted run left."""
        kept = self._begin()
        with self.stack:
            if kept is None:
                lock = self._resolve(self._nothing())
            else:
                self._restore(kept)
                lock = self._resolve(kept) if kept.unresolved else kept
            self._prove_lock(lock)
            laid = self._publish(lock)
        remove_folder(self.work)
        self.state.remove()
        return Outcome(
            lock=lock,
            artifacts=self.project.artifacts_of(self.preset.name),
            changes=compare(self.before, lock),
            resolved=lock is not kept,
            fetched=self.fetched,
            strangers=laid.strangers,
            copies=laid.copies,
            copied=laid.copied,
        )

    # -- resolve

    def _resolve(self, kept: Lock) -> Lock:
        """Return a complete lock whose files are in the store.

        Those of ``kept`` are there already.
        """
        preset = self.preset
        source_archives.check_files(preset)
        kept_sources = {e.name: e for e in kept.of("source", "tensorrt")}
        pairs = [pair for pair in self._source_wants() if pair[0].name not in kept_sources]
        # First what a person has to download, and what fails quickly; the long downloads come after
        # it.
        got = self._obtain_sources([pair for pair in pairs if pair[0].gated])
        # The full version of Python is known with the .debs. What fits the expected one is resolved
        # now, so that a faulty requirement is found before the long downloads.
        expected = target_python.expected(preset, {e.name: e.version for e in kept.of("deb")})
        wheels = [] if kept.resolves("wheel") or not expected else self._resolve_wheels(expected)
        sdists = {
            source.name: self._find_sdist(source)
            for source in preset.sources.values()
            if source.sdist and source.name not in kept_sources
        }
        sdist_wants = {
            name: _want_of_sdist(preset.sources[name], sdist) for name, sdist in sdists.items()
        }
        rest = [pair for pair in pairs if not pair[0].gated]
        more = [*map(_want_of_wheel, wheels), *sdist_wants.values()]
        got.update(self._obtain_sources(rest, more))
        self._look_inside(
            Downloaded(name, want.file, self.store.path(got[want].sha256))
            for name, want in sdist_wants.items()
        )
        packages = self._package_entries(kept, wheels, got)
        if wheels:
            self._prove(packages, expected)
        # The base images come last, before the .debs that need them: one that is made from packages
        # cannot be resumed, so a run that is interrupted there has everything else already.
        bases = {
            role: self._kept_base(kept, role) if role in kept.images else self._base(role)
            for role in ROLES
        }
        entries = [entry for base in bases.values() for entry in base.entries]
        debs = (
            list(kept.of("deb"))
            if kept.resolves("deb")
            else self._obtain_debs(self._resolve_debs(bases))
        )
        python = self._python(bases, debs)
        if python != expected and not (kept.resolves("wheel") and kept.resolves("deb")):
            wheels = self._resolve_wheels(python)
            got.update(self._obtain([_want_of_wheel(wheel) for wheel in wheels]))
            packages = self._package_entries(kept, wheels, got)
        entries += [*packages, *kept_sources.values(), *debs]
        downloads = {source.name: got[want] for source, want in pairs}
        for source in preset.sources.values():
            if source.name in kept_sources or source_archives.is_local_repo(preset, source):
                continue
            if source.urls:
                entries.append(self._downloaded_source(source, downloads[source.name]))
            elif source.sdist:
                size = got[sdist_wants[source.name]].size
                entries.append(sdist_entry(source, sdists[source.name], size))
            else:
                entries.append(self._apt_source(source, bases[BUILDER]))
        entries += self._deb_index(debs)
        self._check_options(bases, debs)
        return Lock(
            preset=preset.name,
            preset_sha256=preset.sha256,
            images={role: base.image for role, base in bases.items()},
            entries=tuple(sorted(entries, key=lambda e: e.path)),
            epoch=self.epoch,
        )

    def _downloaded_source(self, source: SourceArchive, got: Got) -> Entry:
        """Return the entry of a source that has addresses."""
        if not source.sha256:
            self.progress.note(
                _(
                    "WARNING: {file}: trust on first use, sha256 {sha256}",
                    file=source.file,
                    sha256=got.sha256,
                )
            )
        return source_archives.entry_of(source, source.file, got.sha256, got.size, "url")

    # -- Python packages

    def _resolve_wheels(self, python: str) -> list[Wheel]:
        """Return the wheels for ``python``; the last is the tool that installs them."""
        wheels = self.resolver.wheels(self.preset, python)
        return [*wheels, self.resolver.install_tool(self.preset)]

    def _package_entries(
        self, kept: Lock, wheels: Sequence[Wheel], got: Mapping[Want, Got]
    ) -> list[Entry]:
        """Return the downloaded ``wheels``, or without any those of ``kept``, and their index."""
        if wheels:
            return self._wheel_entries(wheels[:-1], wheels[-1], got)
        pinned = kept.of("wheel")
        return [*map(self._with_licence, pinned), self._requirements(pinned)]

    def _prove_lock(self, lock: Lock) -> None:
        """Raise ResolveError if the site's pip would refuse wheels of ``lock``."""
        if lock.of("wheel"):
            self._prove(lock.of("wheel"), self._python(bases_of(lock), lock.of("deb")))

    def _prove(self, entries: Sequence[Entry], python: str) -> None:
        """Raise ResolveError if the site's pip would refuse wheels, which are in the store.

        What this run has proved already is not proved again.
        """
        all_wheels = [e for e in entries if e.kind == "wheel"]
        tools = [e for e in all_wheels if TOOL_ONLY[0] in e.roles]
        wheels = [e for e in all_wheels if not e.only_installs]
        subject = (python, frozenset(e.sha256 for e in all_wheels))
        if not tools or not wheels or subject == self.proved:
            return
        folder = self.work / "proof"
        folder.mkdir(exist_ok=True)
        self.store.view(folder, {e.file: e.sha256 for e in all_wheels})
        prove_pip_install.Proof(
            preset=self.preset, folder=folder, pip=tools[0], wheels=wheels, python=python
        ).check()
        self.proved = subject

    def _wheel_entries(
        self, wheels: Sequence[Wheel], tool: Wheel, got: Mapping[Want, Got]
    ) -> list[Entry]:
        """Return the downloaded wheels, the tool that installs them, and requirements.txt."""
        tool_entry = self._wheel_entry(tool, got)
        of_image = [self._wheel_entry(wheel, got) for wheel in wheels]
        entries = with_install_tool(of_image, tool_entry)
        for entry in entries:
            if entry.trust:
                self.progress.note(
                    _(
                        "WARNING: {file}: trust on first use, as the index has no "
                        "checksum; sha256 {sha256}",
                        file=entry.file,
                        sha256=entry.sha256,
                    )
                )
        return [*entries, self._requirements(entries)]

    def _wheel_entry(self, wheel: Wheel, got: Mapping[Want, Got]) -> Entry:
        found = got[_want_of_wheel(wheel)]
        licence = licence_of(self.store.path(found.sha256))
        return wheel_entry(wheel, sha256=found.sha256, size=found.size, licence=licence)

    def _requirements(self, wheels: Iterable[Entry]) -> Entry:
        """Return requirements.txt for these wheels, in the store."""
        entry, data = requirements_of(wheels)
        self.store.add_bytes(data)
        return entry

    def _with_licence(self, wheel: Entry) -> Entry:
        """Return a wheel that was pinned before it was downloaded, with its licence."""
        if wheel.licence:
            return wheel
        return replace(wheel, licence=licence_of(self.store.path(wheel.sha256)))

    # -- base images

    def _base(self, role: str, locked: LockedImage | None = None) -> LockedBase:
        """Return the base image of ``role``, in the store.

        With ``locked`` it must be that image again.
        """
        base = self.preset.base(role)
        pinned = base
        if locked is not None and base.image and "@" in locked.reference:
            pinned = replace(base, digest=locked.reference.rpartition("@")[2])
        image, files = self._base_files(pinned)
        self._check_base(role, image)
        if locked is not None and not base_images.is_same(image, locked):
            raise FetchError(
                _("the base image of {role} is not the locked one", role=role),
                faults=[
                    Fault(
                        base.label,
                        _("is now {config_digest}", config_digest=image.config_digest),
                        locked.config_digest,
                    )
                ],
                hint=self._resolve_again(),
            )
        return LockedBase(image, image_entries(role, files))

    def _resolve_again(self) -> str:
        return _("resolve again: ./deps_sync.sh {name!q} --update", name=self.preset.name)

    def _kept_base(self, kept: Lock, role: str) -> LockedBase:
        """Return the base image that ``kept`` pins, which is in the store, with its facts."""
        base = base_of(kept, role)
        if base.image.os_id:
            return base
        image = base_images.describe(self._layout(role, base), base.image.reference)
        self._check_base(role, image)
        return replace(base, image=image)

    def _base_files(self, base: BaseImage) -> tuple[LockedImage, Files]:
        """Return the image and its layout in the store. Roles and presets often share one image."""
        known = self.state.base(base)
        if known is None or self.store.missing(known[1].values()):
            key = base, epoch_of(self.preset, self.epoch)
            known = self.options.bases.get(key)
            if known is None or self.store.missing(known[1].values()):
                known = self.options.bases[key] = self._fetch_base(*key)
            self.state.record_base(base, *known)
        return known

    def _fetch_base(self, base: BaseImage, epoch: int) -> tuple[LockedImage, Files]:
        """Download or make the image, and put the files of its layout into the store."""
        folder = self.work / f"image-{len(list(self.work.glob('image-*')))}"
        folder.mkdir()
        image = base_images.fetch(base, self.project, epoch, folder, self.network, self.progress)
        files: Files = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            size = path.stat().st_size
            files[path.relative_to(folder).as_posix()] = (self.store.add(path), size)
            self.fetched += size
        return image, files

    # -- APT

    def _obtain_debs(self, debs: Mapping[str, Sequence[DebFile]]) -> list[Entry]:
        """Return the .debs of all roles, in the store.

        They are downloaded here and not by APT: an interrupted download is resumed, and no program
        outlives a killed run and writes on.
        """
        entries = deb_entries(debs)
        unique = {deb.file: deb for role in ROLES for deb in debs[role]}
        self._obtain([_want_of_apt(deb) for deb in unique.values()])
        return entries

    def _check_options(self, bases: Mapping[str, LockedBase], debs: Sequence[Entry]) -> None:
        """Raise ResolveError for options whose library the builder image would lack."""
        files = check_option_libraries.BuilderFiles(
            {e.name: self.store.path(e.sha256) for e in debs if BUILDER in e.roles},
            lambda: read_files(read_layout(self._layout(BUILDER, bases[BUILDER]))),
        )
        for note in check_option_libraries.check(self.preset, files):
            self.progress.note(_("WARNING: {warning}", warning=note))

    def _apt_source(self, source: SourceArchive, builder: LockedBase) -> Entry:
        """Return an upstream tarball from the builder's APT sources, in the store."""
        found = self._apt_root(BUILDER, builder).source_tarball(source.apt_source)
        self._obtain([_want_of_apt(found)])
        return tarball_entry(source, found)

    # -- restore the files of a lock

    def _restore(self, lock: Lock) -> None:
        """Obtain the files of ``lock`` that the store lacks."""
        with Progress(_("check the store"), lock.size, quiet=self.options.quiet) as progress:
            gone = self.store.missing(
                ((e.sha256, e.size) for e in lock.entries), on_bytes=progress.add
            )
        missing = [e for e in lock.entries if e.sha256 in gone]
        if not missing:
            return
        downloads = [e for e in missing if e.origin not in ("generated", "image")]
        self.provided.take([Want(e.file, (), e.sha256, e.size) for e in downloads])
        missing = self._still_missing(missing)
        self._restore_wheels_and_sources(lock, missing)
        for role in ROLES:
            if any(e.kind == "image" and role in e.roles for e in self._still_missing(missing)):
                self._base(role, lock.images[role])
        from_apt = [e for e in self._still_missing(missing) if e.origin.startswith("apt:")]
        self._restore_from_apt(lock, from_apt)
        generated = [e.path for e in self._still_missing(missing) if e.origin == "generated"]
        if any(path.startswith("debs/") for path in generated):
            self._deb_index(lock.of("deb"))
        if REQUIREMENTS in generated:
            self._requirements(lock.of("wheel"))
        if left := self._still_missing(missing):
            problem = _("cannot be downloaded or generated again")
            raise LockError(
                _("the lock of {name} can no longer be satisfied", name=self.preset.name),
                faults=[Fault(e.path, problem, f"sha256 {e.sha256}") for e in left],
                hint=f"./deps_sync.sh {self.preset.name} --update",
            )

    def _restore_wheels_and_sources(self, lock: Lock, missing: Sequence[Entry]) -> None:
        """Download the wheels and source archives among ``missing``, except those from APT."""
        wheels = [e for e in missing if e.kind == "wheel"]
        debs = {e.name: e.version for e in lock.of("deb")}
        python = target_python.expected(self.preset, debs)
        urls = self.resolver.locate(self.preset, wheels, python) if wheels else {}
        more = [Want(e.file, (urls[e.path],), e.sha256, e.size) for e in wheels]
        by_name = {e.name: e for e in lock.of("source", "tensorrt")}
        sources = [e for e in missing if e.kind in ("source", "tensorrt")]
        names = {e.name for e in sources if e.origin == "url"}
        pairs = [
            pair for pair in source_archives.wants_of(self.preset, by_name) if pair[0].name in names
        ]
        for entry in sources:
            if entry.origin.startswith("index:"):
                sdist = self.resolver.sdist(self.preset.sources[entry.name].sdist, self.preset)
                more.append(Want(entry.file, (sdist.url,), entry.sha256, entry.size))
        self._obtain_sources([pair for pair in pairs if pair[0].gated])
        self._obtain_sources([pair for pair in pairs if not pair[0].gated], more)

    def _restore_from_apt(self, lock: Lock, missing: Sequence[Entry]) -> None:
        """Download missing .debs and source tarballs if the APT sources still have them."""
        if not missing:
            return
        bases = bases_of(lock)
        found = self._resolve_debs(bases)
        checksums = {e.sha256 for e in missing if e.kind == "deb"}
        debs = {d.file: d for role in ROLES for d in found[role] if d.sha256 in checksums}
        self._obtain([_want_of_apt(deb) for deb in debs.values()])
        for entry in missing:
            if entry.kind != "deb":
                self._apt_source(self.preset.sources[entry.name], bases[BUILDER])
        if left := self._still_missing(missing):
            problem = _("has been replaced by another version")
            raise ResolveError(
                _("the APT sources lack files of the lock of {name}", name=self.preset.name),
                faults=[Fault(e.path, problem, f"{e.name} {e.version}") for e in left],
                hint=_(
                    "resolve again: ./deps_sync.sh {name!q} --update; or provide the files "
                    "with --from FOLDER",
                    name=self.preset.name,
                ),
            )

    def _still_missing(self, entries: Iterable[Entry]) -> list[Entry]:
        return [e for e in entries if not self.store.intact(e.sha256, e.size)]

    # -- publish

    def _publish(self, lock: Lock) -> ViewResult:
        """Write the lock, then lay out artifacts/NAME."""
        gone = self.store.missing((e.sha256, e.size) for e in lock.entries)
        if gone:
            raise StorageError(
                _("files in the store changed while sync was running"),
                faults=[
                    Fault(e.path, _("is damaged"), f"sha256 {e.sha256}")
                    for e in lock.entries
                    if e.sha256 in gone
                ],
                hint=_("check the disk, then run the same command again"),
            )
        folder = self.project.artifacts_of(self.preset.name)
        if not contains(folder / LOCK_FILE, lock.render().encode()):
            sources = lock.of("source", "tensorrt")
            self._look_inside(
                Downloaded(e.name, e.file, self.store.path(e.sha256)) for e in sources
            )
        previous = _paths_of(folder / LOCK_FILE)
        lock.require_complete(f"presets/{self.preset.name}.lock.json")
        # The lock comes first: whatever happens after this line, the next run lays out the same
        # state.
        text = self._write_lock(lock)
        files = {e.path: e.sha256 for e in lock.entries}
        files[LOCK_FILE] = self.store.add_bytes(text.encode())
        files[sha256sums.NAME] = self.store.add_bytes(sha256sums.render(files))
        if not contains(folder / LOCK_FILE, text.encode()):
            previous.append(LOCK_SIGNATURE)  # the signature belongs to the previous lock
        return self.store.view(folder, files, previous, last=LOCK_FILE)


def _want_of_wheel(wheel: Wheel) -> Want:
    """Return the download of a wheel."""
    return Want(wheel.file, (wheel.url,), wheel.sha256, wheel.size)


def _want_of_apt(file: DebFile | SourceFile) -> Want:
    """Return the download of a file that APT names."""
    return Want(file.file, (file.uri,), file.sha256, file.size)


def _want_of_sdist(source: SourceArchive, sdist: Sdist) -> Want:
    """Return the download of a source distribution."""
    return Want(source.file or sdist.file, (sdist.url,), source.sha256, sdist.size)


def _paths_of(lock_file: Path) -> list[str]:
    """Return the paths that an earlier sync put into artifacts/NAME: stale ones are removed."""
    try:
        lock = locks.load(lock_file)
    except LockError:
        return []
    return [e.path for e in lock.entries]
