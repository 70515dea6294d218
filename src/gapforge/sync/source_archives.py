"""Source archives and TensorRT: where each one comes from, files that a person downloaded, gated files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gapforge.base.errors import Fault, FetchError, GatedError, UsageError
from gapforge.base.files import sha256_file
from gapforge.base.i18n import _, ngettext
from gapforge.base.progress import Progress, human_bytes
from gapforge.model.lock import Entry
from gapforge.model.preset import Preset, SourceArchive
from gapforge.store.store import Store
from gapforge.sync.download import Got, Want


def is_local_repo(preset: Preset, source: SourceArchive) -> bool:
    """Whether the source is TensorRT's local-repository .deb: read while resolving, never carried itself."""
    return (
        source.name == "tensorrt"
        and preset.tensorrt is not None
        and preset.tensorrt.form == "deb"
        and source.file.endswith(".deb")
    )


def place_of(source: SourceArchive, file: str = "") -> tuple[str, str]:
    """(kind, path inside artifacts/NAME) of the source's archive; ``file`` where the preset does not name it."""
    if source.name == "tensorrt":
        return "tensorrt", f"tensorrt/{file or source.file}"
    return "source", f"sources/{file or source.file}"


def entry_of(
    source: SourceArchive, file: str, sha256: str, size: int, origin: str, version: str = ""
) -> Entry:
    """The lock's entry for a source that was resolved to these bytes."""
    kind, path = place_of(source, file)
    return Entry(
        kind=kind,
        path=path,
        sha256=sha256,
        size=size,
        origin=origin,
        name=source.name,
        version=source.version or version,
        urls=source.urls,
        licence=source.licence,
        trust="first-use" if origin == "url" and not source.sha256 else "",
    )


def gated_error(
    preset: Preset, missing: Iterable[tuple[SourceArchive, Want]], tried: Iterable[Fault] = ()
) -> GatedError:
    """What a person must fetch, exactly, and what to run then."""
    reasons = {fault.where: fault.problem for fault in tried}
    faults = []
    for source, want in missing:
        shown = human_bytes(want.size)
        size = _(", {size} bytes ({shown})", size=want.size, shown=shown) if want.size else ""
        what, where = f"{source.name} {source.version}".rstrip(), _(" or ").join(source.urls)
        problem = _(
            "{what} must be downloaded by a person: {gated}\n      from: {where}",
            what=what,
            gated=source.gated,
            where=where,
        )
        if want.file in reasons:
            reason = reasons[want.file]
            problem += _("\n      (tried: {reason})", reason=reason)
        expected = (
            f"sha256 {want.sha256}{size}"
            if want.sha256
            else _("the file {file}{size}", file=want.file, size=size)
        )
        faults.append(Fault(want.file, problem, expected))
    count = len(faults)
    return GatedError(
        ngettext(
            "{count} file of {name} cannot be downloaded without a person",
            "{count} files of {name} cannot be downloaded without a person",
            count,
            name=preset.name,
        ),
        faults=faults,
        hint=ngettext(
            "put it into a folder, then: ./deps_sync.sh {name} --from FOLDER",
            "put them into a folder, then: ./deps_sync.sh {name} --from FOLDER",
            count,
            name=preset.name,
        ),
    )


def not_a_folder(folder: Path) -> UsageError:
    """The error for a ``--from`` that cannot be looked into."""
    return UsageError(_("--from {folder}: is not a folder", folder=folder), hint=f"ls -ld {folder}")


class Provided:
    """The files of ``--from DIR``: taken by name, or by content under any name. Hashes each file once at most."""

    def __init__(self, folder: Path | None, store: Store, progress: Progress) -> None:
        if folder is not None and not folder.is_dir():
            raise not_a_folder(folder)
        self.folder, self.store, self.progress = folder, store, progress
        self._files: list[tuple[Path, int]] | None = None
        self._hashes: dict[Path, str] = {}

    def take(self, wants: Sequence[Want]) -> dict[str, Got]:
        """Copy what the folder has of ``wants`` into the store: file name -> Got.

        Raises FetchError for files that carry a wanted name but have other bytes.
        """
        if self.folder is None:
            return {}
        found: dict[str, Got] = {}
        faults: list[Fault] = []
        for want in wants:
            named = [(path, size) for path, size in self._list() if path.name == want.file]
            others = [
                (path, size)
                for path, size in self._list()
                if path.name != want.file and size == want.size
            ]
            if not want.size and want.sha256 and not named:
                others = [
                    (path, size)
                    for path, size in self._list()
                    if path.suffix == Path(want.file).suffix
                ]
            wrong: list[Fault] = []
            for path, size in [*named, *others]:
                if want.size and size != want.size:
                    wrong.append(
                        Fault(
                            str(path),
                            _("has {size} bytes", size=size),
                            _("{size} bytes", size=want.size),
                        )
                    )
                elif want.sha256 and (sha256 := self._hash(path)) != want.sha256:
                    wrong.append(
                        Fault(
                            str(path),
                            _("has sha256 {sha256}", sha256=sha256),
                            f"sha256 {want.sha256}",
                        )
                    )
                elif want.sha256 or path.name == want.file:
                    sha256 = self.store.add_copy(path, want.sha256)
                    shown = human_bytes(size)
                    self.progress.note(
                        _("  {file}  {shown}  from {path}", file=want.file, shown=shown, path=path)
                    )
                    found[want.file] = Got(want, sha256, size, "")
                    break
            else:
                faults += [fault for fault in wrong if Path(fault.where).name == want.file]
        if faults:
            count = len(faults)
            raise FetchError(
                _(
                    "--from {folder}: {count} file(s) with a wanted name have other bytes",
                    folder=self.folder,
                    count=count,
                ),
                faults=faults,
                hint=_("download them again; a browser may have saved a web page or been cut off"),
            )
        return found

    def _list(self) -> list[tuple[Path, int]]:
        if self._files is None:
            self._files = []
            for folder, _folders, names in os.walk(self.folder or "."):
                for name in sorted(names):
                    path = Path(folder) / name
                    if path.is_file():
                        self._files.append((path, path.stat().st_size))
            self._files.sort()
        return self._files

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = sha256_file(path)
        return self._hashes[path]


def wants_of(
    preset: Preset, locked: Mapping[str, Entry] | None = None
) -> list[tuple[SourceArchive, Want]]:
    """What to fetch for the sources that have addresses. ``locked`` (by source name) gives hash and size
    where the preset trusts the first use."""
    result = []
    for source in preset.sources.values():
        if not source.urls:
            continue
        entry = (locked or {}).get(source.name)
        sha256 = source.sha256 or (entry.sha256 if entry else "")
        size = source.size or (entry.size if entry else 0)
        result.append((source, Want(source.file, source.urls, sha256, size)))
    return result


def check_files(preset: Preset) -> None:
    """Two sources must not want one place. Raises FetchError naming both."""
    seen: dict[str, str] = {}
    for source in preset.sources.values():
        if not source.file:
            continue
        _unused, path = place_of(source)
        if path in seen:
            raise FetchError(
                _(
                    "the sources {seen} and {name} would both be {path}",
                    seen=seen[path],
                    name=source.name,
                    path=path,
                ),
                hint=_('give one of them another "file" in presets/{name}.json', name=preset.name),
            )
        seen[path] = source.name
