"""Source archives and TensorRT: their downloads, and the files that a person has to download."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gapforge.base.errors import Fault, FetchError, GatedError, UsageError
from gapforge.base.files import sha256_file
from gapforge.base.i18n import _, ngettext
from gapforge.base.process import quoted
from gapforge.base.progress import Progress
from gapforge.base.units import human_bytes
from gapforge.model.lock import Entry
from gapforge.model.preset import Preset, SourceArchive
from gapforge.store.store import Store
from gapforge.sync.download import Got, Want


def is_local_repo(preset: Preset, source: SourceArchive) -> bool:
    """Return whether the source is TensorRT's local-repository .deb, which is no artifact."""
    return (
        source.name == "tensorrt"
        and preset.tensorrt is not None
        and preset.tensorrt.form == "deb"
        and source.file.endswith(".deb")
    )


def place_of(source: SourceArchive, file: str = "") -> tuple[str, str]:
    """Return the archive's kind and path inside artifacts/NAME.

    ``file`` is its name if the preset does not state one.
    """
    if source.name == "tensorrt":
        return "tensorrt", f"tensorrt/{file or source.file}"
    return "source", f"sources/{file or source.file}"


def entry_of(
    source: SourceArchive, file: str, sha256: str, size: int, origin: str, version: str = ""
) -> Entry:
    """Return the lock entry of a source with these bytes."""
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
    """Return the error with the files that a person has to download, and what to run then."""
    failures = {fault.where: fault.problem for fault in tried}
    faults = [_gated_fault(source, want, failures.get(want.file, "")) for source, want in missing]
    return GatedError(
        ngettext(
            "{count} file of {name} must be downloaded by a person",
            "{count} files of {name} must be downloaded by a person",
            len(faults),
            name=preset.name,
        ),
        faults=faults,
        hint=ngettext(
            "put it into a folder, then: ./deps_sync.sh {name!q} --from FOLDER",
            "put them into a folder, then: ./deps_sync.sh {name!q} --from FOLDER",
            len(faults),
            name=preset.name,
        ),
    )


def _gated_fault(source: SourceArchive, want: Want, failure: str) -> Fault:
    """Return what a person has to download. ``failure`` is the result of the automatic attempt."""
    name = f"{source.name} {source.version}".rstrip()
    addresses = _(" or ").join(source.urls)
    lines = [
        _("{source}: manual download: {gated}", source=name, gated=source.gated),
        _("from: {addresses}", addresses=addresses),
    ]
    if failure:
        lines.append(_("(attempted: {failure})", failure=failure))
    expected = [f"sha256 {want.sha256}" if want.sha256 else _("the file {file}", file=want.file)]
    if want.size:
        expected.append(_("{size} bytes ({shown})", size=want.size, shown=human_bytes(want.size)))
    return Fault(want.file, "\n      ".join(lines), ", ".join(expected))


def not_a_folder(folder: Path) -> UsageError:
    """Return the error for a ``--from`` that is not a folder."""
    return UsageError(
        _("--from {folder}: not a folder", folder=folder), hint=quoted(["ls", "-ld", str(folder)])
    )


class Provided:
    """The files of ``--from FOLDER``, found by name, or by content under any name.

    Each is hashed once at most.
    """

    def __init__(self, folder: Path | None, store: Store, progress: Progress) -> None:
        if folder is not None and not folder.is_dir():
            raise not_a_folder(folder)
        self.folder, self.store, self.progress = folder, store, progress
        self._files: list[tuple[Path, int]] | None = None
        self._hashes: dict[Path, str] = {}

    def take(self, wants: Sequence[Want]) -> dict[str, Got]:
        """Copy the wanted files of the folder into the store. Return them by file name.

        Raise FetchError for files that have a wanted name but other bytes.
        """
        if self.folder is None:
            return {}
        found: dict[str, Got] = {}
        faults: list[Fault] = []
        for want in wants:
            mismatches: list[Fault] = []
            for path, size in self._candidates(want):
                if fault := self._mismatch(want, path, size):
                    mismatches.append(fault)
                elif want.sha256 or path.name == want.file:
                    sha256 = self.store.add_copy(path, want.sha256)
                    shown = human_bytes(size)
                    self.progress.note(
                        _("  {file}  {shown}  from {path}", file=want.file, shown=shown, path=path)
                    )
                    found[want.file] = Got(want, sha256, size, "")
                    break
            else:
                faults += [fault for fault in mismatches if Path(fault.where).name == want.file]
        if faults:
            raise FetchError(
                ngettext(
                    "--from {folder}: {count} file has a wanted name but other bytes",
                    "--from {folder}: {count} files have a wanted name but other bytes",
                    len(faults),
                    folder=self.folder,
                ),
                faults=faults,
                hint=_("download again; the file may be truncated, or a web page"),
            )
        return found

    def _candidates(self, want: Want) -> list[tuple[Path, int]]:
        """Return files and sizes: first with the wanted name, then others of the same size."""
        files = self._list()
        named = [(path, size) for path, size in files if path.name == want.file]
        others = [(path, size) for path, size in files if path.name != want.file]
        if not want.size and want.sha256 and not named:
            suffix = Path(want.file).suffix
            return [(path, size) for path, size in others if path.suffix == suffix]
        return named + [(path, size) for path, size in others if size == want.size]

    def _mismatch(self, want: Want, path: Path, size: int) -> Fault | None:
        """Return how a file differs from the wanted one, None if it does not."""
        where = str(path)
        if want.size and size != want.size:
            return Fault(where, _("{size} bytes", size=size), _("{size} bytes", size=want.size))
        if want.sha256 and (sha256 := self._hash(path)) != want.sha256:
            return Fault(where, _("has sha256 {sha256}", sha256=sha256), f"sha256 {want.sha256}")
        return None

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


def wants_of(preset: Preset, locked: Mapping[str, Entry]) -> list[tuple[SourceArchive, Want]]:
    """Return the downloads of the sources that have addresses.

    ``locked`` (by source name) has checksum and size for sources with trust on first use.
    """
    result = []
    for source in preset.sources.values():
        if not source.urls:
            continue
        entry = locked.get(source.name)
        sha256 = source.sha256 or (entry.sha256 if entry else "")
        size = source.size or (entry.size if entry else 0)
        result.append((source, Want(source.file, source.urls, sha256, size)))
    return result


def check_files(preset: Preset) -> None:
    """Raise FetchError if two sources would have the same path in the artifacts."""
    seen: dict[str, str] = {}
    for source in preset.sources.values():
        if not source.file:
            continue
        _unused, path = place_of(source)
        if path in seen:
            raise FetchError(
                _(
                    "the sources {first} and {second} have the same path: {path}",
                    first=seen[path],
                    second=source.name,
                    path=path,
                ),
                hint=_(
                    'set another "file" for one of them in presets/{name}.json', name=preset.name
                ),
            )
        seen[path] = source.name
