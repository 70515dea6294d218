"""Write a lock without downloading files: `gapforge sync --lock-only`.

Everything that indexes, registries and the preset itself state is pinned; the rest becomes an
unresolved item with its reason. Python packages are pinned all together or not at all: they are
resolved jointly, so a set that was resolved without PyTorch would be a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gapforge.base.errors import FetchError
from gapforge.base.i18n import _
from gapforge.base.marked_folders import remove_folder
from gapforge.base.project import Project
from gapforge.base.text_layout import whole_number
from gapforge.model import unresolved_item as items
from gapforge.model.lock import PACKAGES_INDEX, Entry, Lock, LockedImage
from gapforge.model.names import ROLES
from gapforge.model.preset import BaseImage, Preset, SourceArchive
from gapforge.model.unresolved_item import Reason, UnresolvedItem
from gapforge.store.known_sizes import read_known_sizes
from gapforge.sync import base_images, registry_images, source_archives, target_python
from gapforge.sync.download import Want
from gapforge.sync.lock_diff import compare
from gapforge.sync.lock_entries import (
    REQUIREMENTS,
    LockedBase,
    base_of,
    deb_entries,
    image_entries,
    requirements_of,
    sdist_entry,
    tarball_entry,
    wheel_entry,
    with_install_tool,
)
from gapforge.sync.network import Network, NoAnswerError
from gapforge.sync.oci_layout import Files
from gapforge.sync.private_github_files import PrivateFile, RefusedError, asset_in
from gapforge.sync.python_packages import INSTALL_TOOL, Wheel
from gapforge.sync.shared_steps import BUILDER, Options, Outcome, Run, execute
from gapforge.sync.small_requests import get
from gapforge.sync.wheel_licence import licence_in, licence_of

ImageAnswer = tuple[LockedImage, Files] | Reason


def pin(preset: Preset, project: Project, network: Network, options: Options) -> Outcome:
    """Write presets/NAME.lock.json as far as possible without downloads.

    artifacts/NAME is not changed. A lock that belongs to the preset is kept, and only its
    unresolved items are resolved again; ``options.update`` resolves everything again. Raise
    BusyError while a sync runs, and sync's errors for what is wrong; a server that does not answer
    is no error.
    """
    return execute(_LockOnly, preset, project, network, options)


class _LockOnly(Run):
    """One run of sync --lock-only. ``self.unresolved`` collects what cannot be pinned."""

    retries_indexes = False

    def execute(self) -> Outcome:
        """Pin what can be pinned and write the lock."""
        kept = self._begin()
        with self.stack:
            lock = kept if kept is not None and not kept.unresolved else self._pin(kept)
            self._write_lock(lock)
        remove_folder(self.work)
        return Outcome(
            lock=lock,
            artifacts=self.project.artifacts_of(self.preset.name),
            changes=compare(self.before, lock),
            resolved=lock is not kept,
        )

    def _pin(self, kept: Lock | None) -> Lock:
        """Return the lock: what ``kept`` pins, and what can be pinned now."""
        self.network.require(_("resolving {name}", name=self.preset.name), files=False)
        source_archives.check_files(self.preset)
        self.kept = kept or self._nothing()
        self.unresolved: list[UnresolvedItem] = []
        answers: dict[BaseImage, ImageAnswer] = {}
        found = {role: self._image(role, answers) for role in ROLES}
        bases = {role: base for role, base in found.items() if base is not None}
        entries = [entry for base in bases.values() for entry in base.entries]
        # A base image of which only the manifest is known has no package list to resolve .debs
        # against.
        missing = self.store.missing((e.sha256, e.size) for e in entries)
        stored = bases if len(bases) == len(ROLES) and not missing else None
        entries += self._pin_sources(stored)
        debs = self._debs(stored)
        entries += [*debs, *self._wheels(self._expected_python(stored, debs))]
        return Lock(
            preset=self.preset.name,
            preset_sha256=self.preset.sha256,
            images={role: base.image for role, base in bases.items()},
            entries=tuple(sorted(entries, key=lambda e: e.path)),
            unresolved=tuple(sorted(self.unresolved)),
            epoch=self.epoch,
        )

    def _leave_unresolved(self, kind: str, names: Iterable[str], reason: Reason) -> None:
        """Record the items ``names`` of ``kind`` as unresolved."""
        self.unresolved += [UnresolvedItem(kind, name, reason) for name in names]

    # -- base images

    def _image(self, role: str, answers: dict[BaseImage, ImageAnswer]) -> LockedBase | None:
        """Return the base image of ``role`` as far as it is known; None if it cannot be pinned.

        ``answers`` collects what the registries answered: both roles may use one image.
        """
        if role in self.kept.images:
            locked = base_of(self.kept, role)
        else:
            base = self.preset.base(role)
            if base not in answers:
                answers[base] = self._look_up(base)
            answer = answers[base]
            if isinstance(answer, Reason):
                self._leave_unresolved("image", [role], answer)
                return None
            image, files = answer
            locked = LockedBase(image, image_entries(role, files))
        image = locked.image
        if not image.os_id and not self.store.missing((e.sha256, e.size) for e in locked.entries):
            image = base_images.describe(self._layout(role, locked), image.reference)
        if not image.os_id:
            self._leave_unresolved("image", [role], Reason(code=items.MANIFEST_ONLY))
        self._check_base(role, image)
        return replace(locked, image=image)

    def _look_up(self, base: BaseImage) -> ImageAnswer:
        """Return what the registry states of a base image, or why that cannot be known."""
        if not base.image:
            code = items.ARCHIVE_NOT_READ if base.archive else items.IMAGE_NOT_MADE
            return Reason(code=code)
        try:
            return registry_images.look_up(base, replace(self.network, retries=0))
        except NoAnswerError as error:
            return error.reason

    # -- Python packages

    def _expected_python(
        self, bases: Mapping[str, LockedBase] | None, debs: Sequence[Entry]
    ) -> str:
        """Return the full version of the target's Python, "" if only a full sync can tell."""
        packages = [entry for entry in debs if entry.kind == "deb"]
        if packages and bases is not None:
            return self._python(bases, packages)
        return target_python.expected(self.preset, {e.name: e.version for e in packages})

    def _wheels(self, python: str) -> list[Entry]:
        """Return the wheels with requirements.txt, and the tool that installs them."""
        if self.kept.resolves("wheel"):
            return [e for e in self.kept.entries if e.kind == "wheel" or e.path == REQUIREMENTS]
        entries = self._wheels_of_preset(python)
        try:
            tool = self._wheel_entry(self.resolver.install_tool(self.preset))
        except NoAnswerError as error:
            self._leave_unresolved("wheel", [INSTALL_TOOL], error.reason)
            return entries
        return with_install_tool(entries, tool)

    def _wheels_of_preset(self, python: str) -> list[Entry]:
        """Return the wheels of the preset and requirements.txt, or leave all of them unresolved."""
        if not python:
            self._leave_wheels(Reason(code=items.NEEDS_PACKAGE_LISTS))
            return []
        try:
            wheels = self.resolver.wheels(self.preset, python)
            with ThreadPoolExecutor(self.network.jobs) as pool:
                entries = list(pool.map(self._wheel_entry, wheels))
        except NoAnswerError as error:
            self._leave_wheels(error.reason)
            return []
        requirements, _data = requirements_of(entries)
        return [*entries, requirements]

    def _leave_wheels(self, reason: Reason) -> None:
        """Record every requirement as unresolved. The others may wait for PyTorch's index only."""
        torch = self.preset.pytorch
        of_torch = list(torch.requirements()) if torch else []
        others = [name for name in self.preset.packages if name not in of_torch]
        self._leave_unresolved("wheel", of_torch, reason)
        if torch and torch.index != "default" and reason.server == f"index:{torch.index}":
            reason = replace(reason, resolved_with="torch")
        self._leave_unresolved("wheel", others, reason)

    def _wheel_entry(self, wheel: Wheel) -> Entry:
        """Return the entry of a wheel.

        Raise NoAnswerError if the index states no checksum or size.
        """
        server = items.DEFAULT_INDEX
        if wheel.index != "default" and self.preset.pytorch is not None:
            server = f"index:{self.preset.pytorch.index}"
        size = wheel.size or self._stated_size(wheel.url, server)
        if not wheel.sha256 or not size:
            code = items.SIZE_NOT_STATED if wheel.sha256 else items.CHECKSUM_NOT_STATED
            raise NoAnswerError(
                _("{file} cannot be pinned without a download", file=wheel.file),
                reason=Reason(code=code, server=server, file=wheel.file),
            )
        licence = self._licence(wheel)
        return wheel_entry(wheel, sha256=wheel.sha256, size=size, licence=licence)

    def _licence(self, wheel: Wheel) -> str:
        """Return the licence in the stored wheel, or in its METADATA on the index (PEP 658)."""
        if self.store.has(wheel.sha256, wheel.size or -1):
            return licence_of(self.store.path(wheel.sha256))
        if not wheel.url.startswith(("http://", "https://")):
            return ""
        try:
            answer = get(
                f"{wheel.url.partition('#')[0]}.metadata", replace(self.network, retries=0)
            )
        except FetchError:
            return ""  # sync reads it from the wheel
        return licence_in(answer.body) if answer.status == 200 else ""

    # -- sources

    def _pin_sources(self, bases: Mapping[str, LockedBase] | None) -> list[Entry]:
        """Return the sources whose checksum and size are published.

        ``bases`` are the base images if they are in the store.
        """
        kept = {e.name: e for e in self.kept.of("source", "tensorrt")}
        wants = {source.name: want for source, want in self._source_wants()}
        sizes = read_known_sizes(self.project).sizes
        entries = []
        for source in self.preset.sources.values():
            if source_archives.is_local_repo(self.preset, source):
                continue
            found = kept.get(source.name) or self._pin_source(
                source, wants.get(source.name), sizes, bases
            )
            if isinstance(found, Entry):
                entries.append(found)
            else:
                self._leave_unresolved(source_archives.place_of(source)[0], [source.name], found)
        return entries

    def _pin_source(
        self,
        source: SourceArchive,
        want: Want | None,
        sizes: Mapping[str, int],
        bases: Mapping[str, LockedBase] | None,
    ) -> Entry | Reason:
        """Return the source's entry, or why it cannot be pinned."""
        try:
            if source.sdist:
                return self._pin_sdist(source)
            if want is not None:
                return self._pin_archive(source, want, sizes)
            if bases is None:
                return Reason(code=items.NEEDS_APT_SOURCES)
            found = self._apt_root(BUILDER, bases[BUILDER]).source_tarball(source.apt_source)
        except NoAnswerError as error:
            return error.reason
        return tarball_entry(source, found)

    def _pin_sdist(self, source: SourceArchive) -> Entry | Reason:
        sdist = self._find_sdist(source)
        size = sdist.size or self._stated_size(sdist.url, items.DEFAULT_INDEX)
        if not size:
            return Reason(code=items.SIZE_NOT_STATED, server=items.DEFAULT_INDEX, file=sdist.file)
        return sdist_entry(source, sdist, size)

    def _pin_archive(
        self, source: SourceArchive, want: Want, sizes: Mapping[str, int]
    ) -> Entry | Reason:
        """Return the entry of a source with addresses, or why its checksum or size is not known."""
        if not want.sha256:
            return Reason(code=items.CHECKSUM_UNPUBLISHED)
        size = want.size or sizes.get(want.sha256, 0)
        silent_hosts: list[str] = []
        # The address of a gated download answers with a login page, whose size says nothing.
        for url in () if source.gated else source.urls:
            if size:
                break
            host = urlsplit(url).hostname or url
            try:
                size = self._stated_size(url, host)
            except NoAnswerError:
                silent_hosts.append(host)
        if not size:
            return Reason(code=items.SIZE_UNKNOWN, hosts=tuple(dict.fromkeys(silent_hosts)))
        return source_archives.entry_of(source, source.file, want.sha256, size, "url")

    def _stated_size(self, url: str, server: str) -> int:
        """Return the size in bytes that ``server`` states, 0 for none.

        Raise NoAnswerError without an answer.
        """
        if url.startswith("file://"):
            path = Path(unquote(urlsplit(url).path))
            return path.stat().st_size if path.is_file() else 0
        try:
            answer = get(url, replace(self.network, retries=0), head=True)
        except FetchError as error:
            reason = Reason(code=items.NO_ANSWER, server=server)
            raise NoAnswerError(error.message, reason=reason, hint=error.hint) from error
        file = self.network.github.find(url)
        if answer.status == 404 and file is not None and file.asset and self.network.github.token:
            return self._asset_size(file)
        length = answer.headers.get("content-length", "")
        page = "text/html" in answer.headers.get("content-type", "")
        return (whole_number(length) or 0) if answer.status == 200 and not page else 0

    def _asset_size(self, file: PrivateFile) -> int:
        """Return the size in bytes of a release asset in a private repository, 0 if unknown."""
        service = self.network.github
        try:
            answer = get(
                service.release(file),
                replace(self.network, retries=0),
                headers=service.headers("application/vnd.github+json"),
            )
            return asset_in(answer.body, file)[1] if answer.status == 200 else 0
        except (FetchError, RefusedError):
            return 0  # sync reports why

    # -- .debs

    def _debs(self, bases: Mapping[str, LockedBase] | None) -> list[Entry]:
        """Return the .debs with their index, if the base images are in the store."""
        wanted = sorted({package for role in ROLES for package in self.preset.debs(role)})
        if self.kept.resolves("deb"):
            debs = list(self.kept.of("deb"))
        elif not wanted:
            debs = []
        elif bases is None:
            self._leave_unresolved("deb", wanted, Reason(code=items.NEEDS_PACKAGE_LISTS))
            return []
        else:
            try:
                debs = deb_entries(self._resolve_debs(bases))
            except NoAnswerError as error:
                self._leave_unresolved("deb", wanted, error.reason)
                return []
        if self.store.missing((e.sha256, e.size) for e in debs):
            self._leave_unresolved("index", [PACKAGES_INDEX], Reason(code=items.INDEX_NOT_MADE))
            return debs
        return [*debs, *self._deb_index(debs)]
