"""A lock without the bytes: pin everything that indexes, registries and the preset itself tell, fetch no artifact.

What could not be pinned stands in the lock with its reason, which depends on nothing but the preset and who
answered, and is always English; ``core.reasons`` tells it to the reader. Python packages are pinned all together or not at all: they are resolved jointly, so a set that was
resolved without PyTorch would be a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

from gapforge.base.errors import FetchError
from gapforge.base.files import remove_folder, sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.model.lock import Entry, Gap, Lock, LockedImage
from gapforge.model.names import ROLES
from gapforge.model.preset import BaseImage, Preset, SourceArchive
from gapforge.model.reasons import DEFAULT_INDEX, UNANSWERED
from gapforge.store.known_sizes import look
from gapforge.sync import apt, fetch_base_images, source_archives
from gapforge.sync.download import Want
from gapforge.sync.http_get import get
from gapforge.sync.lock_diff import compare
from gapforge.sync.lock_entries import BUILDER, deb_entries, image_entries
from gapforge.sync.network import Network, UnansweredError
from gapforge.sync.options import Options, Outcome
from gapforge.sync.python_packages import INSTALL_TOOL, Wheel, requirements_text
from gapforge.sync.sync import REQUIREMENTS, TOOL_ONLY, Run, running
from gapforge.sync.wheel_licence import licence_in, licence_of

DEB_INDEX = "debs/Packages"


def pin(preset: Preset, project: Project, network: Network, options: Options) -> Outcome:
    """Write presets/NAME.lock.json as far as it can be known without fetching; artifacts/NAME stays as it is.

    A lock that fits the preset is kept, and only its gaps are asked for again; ``options.update`` resolves all
    of it anew. Raises BusyError while a sync runs, and the errors of sync for what is wrong rather than silent.
    """
    with running(_Pinning, preset, project, network, options) as run:
        return run.execute()


class _Pinning(Run):
    """One run that pins. ``self.gaps`` collects what stays open."""

    patient = False

    def execute(self) -> Outcome:
        """Pin, and write the lock."""
        old = self._begin()
        kept = None if self.options.update else old
        with ExitStack() as self.stack:
            self._apt: dict[BaseImage, apt.AptRoot] = {}
            lock = kept if kept is not None and not kept.unresolved else self._pin(kept)
            self._write_lock(lock)
        remove_folder(self.work)
        return Outcome(
            lock,
            self.project.artifacts_of(self.preset.name),
            compare(self.before, lock),
            lock is not old,
            0,
        )

    def _pin(self, kept: Lock | None) -> Lock:
        self.network.require(_("resolving {name}", name=self.preset.name), files=False)
        source_archives.check_files(self.preset)
        self.kept = kept or Lock(self.preset.name, self.preset.sha256, {}, ())
        self.gaps: list[Gap] = []
        layouts: dict[str, list[Entry]] = {}
        locked: dict[str, LockedImage] = {}
        seen: dict[BaseImage, tuple[LockedImage, fetch_base_images.Files] | Gap] = {}
        for role in ROLES:
            found = self._image(role, seen)
            if found is not None:
                layouts[role], locked[role] = found
        entries = [entry for role in layouts for entry in layouts[role]]
        # A base of which only the manifest is known has no package list to resolve .debs against.
        here = len(layouts) == len(ROLES) and not self.store.missing(
            (e.sha256, e.size) for e in entries
        )
        entries += self._wheels()
        entries += self._pinned_sources(layouts[BUILDER] if here else None)
        entries += self._debs(
            {role: (layouts[role], locked[role]) for role in ROLES} if here else None
        )
        return Lock(
            self.preset.name,
            self.preset.sha256,
            locked,
            tuple(sorted(entries, key=lambda e: e.path)),
            tuple(sorted(self.gaps)),
        )

    def _open(self, kind: str, name: str, reason: str) -> None:
        self.gaps.append(Gap(kind, name, reason))

    # -- base images

    def _image(
        self, role: str, seen: dict[BaseImage, tuple[LockedImage, fetch_base_images.Files] | Gap]
    ) -> tuple[list[Entry], LockedImage] | None:
        base = self.preset.base(role)
        if role in self.kept.images:
            image = self.kept.images[role]
            entries = [e for e in self.kept.of("image") if role in e.roles]
        else:
            if base not in seen:
                seen[base] = self._asked(base)
            answer = seen[base]
            if isinstance(answer, Gap):
                self._open("image", role, answer.reason)
                return None
            image, entries = answer[0], image_entries(role, answer[1])
        if not image.os_id and not self.store.missing((e.sha256, e.size) for e in entries):
            image = fetch_base_images.describe(self._layout(role, entries), image.reference)
        if not image.os_id:
            self._open(
                "image",
                role,
                "is pinned by its manifest; its operating system is read when it is fetched",
            )
        self._check_base(role, image)
        return entries, image

    def _asked(self, base: BaseImage) -> tuple[LockedImage, fetch_base_images.Files] | Gap:
        if not base.image:
            how = "is read from its archive" if base.archive else "is made from packages"
            return Gap("image", "", f"{how} when it is fetched")
        try:
            return fetch_base_images.look(base, replace(self.network, retries=0))
        except UnansweredError as error:
            return Gap("image", "", error.reason)

    # -- Python packages

    def _wheels(self) -> list[Entry]:
        """The wheels with requirements.txt, and the tool that installs them."""
        if self.kept.of("wheel") and self.kept.settles("wheel"):
            return [e for e in self.kept.entries if e.kind == "wheel" or e.path == REQUIREMENTS]
        entries = {entry.path: entry for entry in self._set()}
        try:
            for tool in self._entries([self.resolver.install_tool(self.preset)]):
                roles = (*TOOL_ONLY, "runtime") if tool.path in entries else TOOL_ONLY
                entries[tool.path] = replace(tool, roles=roles)
        except UnansweredError as error:
            self._open("wheel", INSTALL_TOOL, error.reason)
        return list(entries.values())

    def _set(self) -> list[Entry]:
        torch = self.preset.pytorch
        try:
            wheels = self._entries(self.resolver.wheels(self.preset))
        except UnansweredError as error:
            ours = (
                set(torch.requirements())
                if torch is not None and torch.index != "default"
                else set()
            )
            for requirement in (*(torch.requirements() if torch else ()), *self.preset.packages):
                together = (
                    ""
                    if requirement in ours
                    or not ours
                    or torch is None
                    or torch.index not in error.who
                    else "is resolved together with torch, and "
                )
                self._open("wheel", requirement, together + error.reason)
            return []
        data = requirements_text((e.name, e.version, e.sha256) for e in wheels).encode()
        index = Entry(
            "index", REQUIREMENTS, sha256_bytes(data), len(data), "generated", name="requirements"
        )
        return [*wheels, index]

    def _entries(self, wheels: Sequence[Wheel]) -> list[Entry]:
        """The wheels as entries. Raises UnansweredError when the index does not tell a hash or a size."""

        def entry(wheel: Wheel) -> Entry:
            who = (
                DEFAULT_INDEX
                if wheel.index == "default" or self.preset.pytorch is None
                else f"index {self.preset.pytorch.index}"
            )
            size = wheel.size or self._size(wheel.url, who)
            if not wheel.sha256 or not size:
                raise UnansweredError(
                    _("{file} cannot be pinned without being fetched", file=wheel.file),
                    who=who,
                    how=f"tells no {'size' if wheel.sha256 else 'hash'} of {wheel.file}",
                )
            return Entry(
                "wheel",
                f"wheels/{wheel.file}",
                wheel.sha256,
                size,
                f"index:{wheel.index}",
                wheel.name,
                wheel.version,
                licence=self._licence(wheel),
            )

        with ThreadPoolExecutor(self.network.jobs) as pool:
            return list(pool.map(entry, wheels))

    def _licence(self, wheel: Wheel) -> str:
        """From the wheel itself when it is here, else from the METADATA that indexes serve beside it (PEP 658)."""
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

    def _pinned_sources(self, builder: Iterable[Entry] | None) -> list[Entry]:
        """Sources by published hash and size; ``builder`` is the builder's base when it is in the store."""
        held = {e.name: e for e in self.kept.of("source", "tensorrt")}
        wants = {source.name: want for source, want in self._wants()}
        sizes = look(self.project).sizes
        entries = []
        for source in self.preset.sources.values():
            if source_archives.is_local_repo(self.preset, source):
                continue
            found = held.get(source.name) or self._source(
                source, wants.get(source.name), sizes, builder
            )
            if isinstance(found, Entry):
                entries.append(found)
            else:
                self._open(source_archives.place_of(source)[0], source.name, found)
        return entries

    def _source(
        self,
        source: SourceArchive,
        want: Want | None,
        sizes: Mapping[str, int],
        builder: Iterable[Entry] | None,
    ) -> Entry | str:
        """The source's entry, or why it has to stay open."""
        try:
            if source.sdist:
                sdist = self._sdist(source)
                size = sdist.size or self._size(sdist.url, DEFAULT_INDEX)
                return (
                    source_archives.entry_of(
                        source,
                        source.file or sdist.file,
                        source.sha256,
                        size,
                        "index:default",
                        sdist.version,
                    )
                    if size
                    else f"{DEFAULT_INDEX} tells no size of it"
                )
            if want is None:
                if builder is None:
                    return "needs the APT sources of the builder's base image"
                found = self._apt_root(BUILDER, builder).source_tarball(source.apt_source)
                return source_archives.entry_of(
                    source,
                    source.file or found.file,
                    found.sha256,
                    found.size,
                    found.origin,
                    found.version,
                )
        except UnansweredError as error:
            return error.reason
        if not want.sha256:
            return "nobody published its hash: it is trusted as seen first"
        size = want.size or sizes.get(want.sha256, 0)
        silent: list[str] = []
        for url in (
            () if size or source.gated else source.urls
        ):  # where a login is asked for, a page would answer
            try:
                size = size or self._size(url, urlsplit(url).hostname or url)
            except UnansweredError as error:
                silent.append(error.who)
        if size:
            return source_archives.entry_of(source, source.file, want.sha256, size, "url")
        hosts = " and ".join(dict.fromkeys(silent))
        return "its hash is known, its size is not: " + (
            f"{hosts} {UNANSWERED}" if hosts else "nobody states it"
        )

    def _size(self, url: str, who: str) -> int:
        """The size in bytes that the server ``who`` states, 0 for none. Raises UnansweredError without an answer."""
        try:
            answer = get(url, replace(self.network, retries=0), head=True)
        except FetchError as error:
            raise UnansweredError(error.message, who=who, hint=error.hint) from error
        length = answer.headers.get("content-length", "")
        page = "text/html" in answer.headers.get("content-type", "")
        return int(length) if answer.status == 200 and length.isdigit() and not page else 0

    # -- .debs

    def _debs(self, bases: dict[str, tuple[list[Entry], LockedImage]] | None) -> list[Entry]:
        """The .debs with their index, as far as the base images are here."""
        asked = sorted({package for role in ROLES for package in self.preset.debs(role)})
        if self.kept.of("deb") and self.kept.settles("deb"):
            debs = list(self.kept.of("deb"))
        elif not asked:
            debs = []
        elif bases is None:
            for package in asked:
                self._open("deb", package, "needs the package lists of the base images")
            return []
        else:
            try:
                debs = deb_entries(self._closures(bases))
            except UnansweredError as error:
                for package in asked:
                    self._open("deb", package, error.reason)
                return []
        if self.store.missing((e.sha256, e.size) for e in debs):
            self._open("index", DEB_INDEX, "is made when the packages are fetched")
            return debs
        return [*debs, *self._deb_index(debs)]
