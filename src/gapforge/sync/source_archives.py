"""Source archives and TensorRT: where each one comes from, files that a person downloaded, gated files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gapforge.base.errors import Fault, FetchError, GatedError, UsageError
from gapforge.base.files import sha256_file
from gapforge.base.progress import Progress, human_bytes
from gapforge.base.text import tr
from gapforge.model.lock import Entry
from gapforge.model.preset import Preset, SourceArchive
from gapforge.store.store import Store
from gapforge.sync.download import Got, Want


def is_local_repo(preset: Preset, source: SourceArchive) -> bool:
    """Whether the source is TensorRT's local-repository .deb: read while resolving, never carried itself."""
    return (source.name == "tensorrt" and preset.tensorrt is not None and preset.tensorrt.form == "deb"
            and source.file.endswith(".deb"))  # fmt: skip


def place_of(source: SourceArchive, file: str = "") -> tuple[str, str]:
    """(kind, path inside artifacts/NAME) of the source's archive; ``file`` where the preset does not name it."""
    if source.name == "tensorrt":
        return "tensorrt", f"tensorrt/{file or source.file}"
    return "source", f"sources/{file or source.file}"


def entry_of(source: SourceArchive, file: str, sha256: str, size: int, origin: str, version: str = "") -> Entry:
    """The lock's entry for a source that was resolved to these bytes."""
    kind, path = place_of(source, file)
    return Entry(
        kind=kind, path=path, sha256=sha256, size=size, origin=origin, name=source.name,
        version=source.version or version, urls=source.urls, licence=source.licence,
        trust="first-use" if origin == "url" and not source.sha256 else "",
    )  # fmt: skip


def gated_error(
    preset: Preset, missing: Iterable[tuple[SourceArchive, Want]], tried: Iterable[Fault] = ()
) -> GatedError:
    """What a person must fetch, exactly, and what to run then."""
    reasons = {fault.where: fault.problem for fault in tried}
    faults = []
    for source, want in missing:
        shown = human_bytes(want.size)
        size = tr(f", {want.size}바이트({shown})", f", {want.size} bytes ({shown})") if want.size else ""
        what, where = f"{source.name} {source.version}".rstrip(), tr(" 또는 ", " or ").join(source.urls)
        problem = tr(f"{what}: 사람이 내려받아야 함: {source.gated}\n      주소: {where}",
                     f"{what} must be downloaded by a person: {source.gated}\n      from: {where}")  # fmt: skip
        if want.file in reasons:
            reason = reasons[want.file]
            problem += tr(f"\n      (시도한 결과: {reason})", f"\n      (tried: {reason})")
        expected = f"sha256 {want.sha256}{size}" if want.sha256 else \
            tr(f"파일 {want.file}{size}", f"the file {want.file}{size}")  # fmt: skip
        faults.append(Fault(want.file, problem, expected))
    count = len(faults)
    return GatedError(
        tr(f"{preset.name}의 파일 {count}개는 사람이 직접 내려받아야 합니다",
           f"{count} file{'s' if count > 1 else ''} of {preset.name} cannot be downloaded without a person"),
        faults=faults,
        hint=tr(f"내려받은 파일 {count}개를 폴더에 넣은 뒤: ./deps_sync.sh {preset.name} --from FOLDER",
                f"put {'them' if count > 1 else 'it'} into a folder, then: ./deps_sync.sh {preset.name} --from FOLDER"),
    )  # fmt: skip


def not_a_folder(folder: Path) -> UsageError:
    """The error for a ``--from`` that cannot be looked into."""
    return UsageError(
        tr(f"--from {folder}: 폴더가 아닙니다", f"--from {folder}: is not a folder"), hint=f"ls -ld {folder}"
    )


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
            others = [(path, size) for path, size in self._list() if path.name != want.file and size == want.size]
            if not want.size and want.sha256 and not named:
                others = [(path, size) for path, size in self._list() if path.suffix == Path(want.file).suffix]
            wrong: list[Fault] = []
            for path, size in [*named, *others]:
                if want.size and size != want.size:
                    wrong.append(
                        Fault(
                            str(path),
                            tr(f"{size}바이트임", f"has {size} bytes"),
                            tr(f"{want.size}바이트", f"{want.size} bytes"),
                        )
                    )
                elif want.sha256 and (sha256 := self._hash(path)) != want.sha256:
                    wrong.append(
                        Fault(str(path), tr(f"sha256이 {sha256}임", f"has sha256 {sha256}"), f"sha256 {want.sha256}")
                    )
                elif want.sha256 or path.name == want.file:
                    sha256 = self.store.add_copy(path, want.sha256)
                    shown = human_bytes(size)
                    self.progress.note(
                        tr(f"  {want.file}  {shown}  {path}에서", f"  {want.file}  {shown}  from {path}")
                    )
                    found[want.file] = Got(want, sha256, size, "")
                    break
            else:
                faults += [fault for fault in wrong if Path(fault.where).name == want.file]
        if faults:
            count = len(faults)
            raise FetchError(tr(f"--from {self.folder}: 이름은 맞지만 내용이 다른 파일이 {count}개 있습니다",
                                f"--from {self.folder}: {count} file(s) with a wanted name have other bytes"), faults=faults,
                             hint=tr("다시 내려받으십시오. 브라우저가 웹 페이지를 저장했거나 도중에 끊겼을 수 있습니다",
                                     "download them again; a browser may have saved a web page or been cut off"))  # fmt: skip
        return found

    def _list(self) -> list[tuple[Path, int]]:
        if self._files is None:
            self._files = []
            for folder, _, names in os.walk(self.folder or "."):
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


def wants_of(preset: Preset, locked: Mapping[str, Entry] | None = None) -> list[tuple[SourceArchive, Want]]:
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
        _, path = place_of(source)
        if path in seen:
            raise FetchError(tr(f"두 소스 {seen[path]}, {source.name}의 파일이 모두 {path}입니다",
                                f"the sources {seen[path]} and {source.name} would both be {path}"),
                             hint=tr(f'presets/{preset.name}.json에서 하나에 다른 "file"을 적으십시오',
                                     f'give one of them another "file" in presets/{preset.name}.json'))  # fmt: skip
        seen[path] = source.name
