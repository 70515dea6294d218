"""Look into source archives: what they contain, before anything is built of them.

An archive is read as a stream, up to the file that states the version; nothing is unpacked to disk.
"""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from gapforge.base import limits
from gapforge.base.compression import MAGIC_LENGTH, compression, damage_as, uncompressed
from gapforge.base.errors import CompatibilityError, Fault, FetchError, PresetError, ToolError
from gapforge.base.files import open_buffered
from gapforge.base.i18n import _, ngettext
from gapforge.model.component import StatedVersion
from gapforge.model.expected_archive_versions import number_in, stated_versions
from gapforge.model.preset import Preset
from gapforge.model.versions import begins_with


@dataclass(frozen=True)
class Downloaded:
    """A source archive in the store: the name of the source, its file's name and its content."""

    source: str
    file: str
    content: Path


@dataclass(frozen=True)
class Contents:
    """What an archive tells: ``version``, and the ``member`` or folder that states it; "" for none.

    ``missing`` is the folder or file that a build needs and the archive lacks, "" for none.
    """

    version: str
    member: str
    missing: str = ""


def check_archives(
    preset: Preset, archives: Iterable[Downloaded], note: Callable[[str], None]
) -> None:
    """Raise CompatibilityError for archives of another version than the preset's.

    Raise PresetError for archives without the folder that is built, or without the file that its
    build begins with, and FetchError for a file that is no archive. ``note`` gets a message for an
    archive that does not tell its version.
    """
    wanted = {stated.source: (stated, expected) for stated, expected in stated_versions(preset)}
    wrong: list[Fault] = []
    incomplete: list[Fault] = []
    for archive in archives:
        if archive.source not in wanted:
            continue
        stated, expected = wanted[archive.source]
        folder = preset.sources[archive.source].folder
        contents = look_into(archive, stated, folder)
        found, member = contents.version, contents.member
        if contents.missing:
            problem = _("contains no {path}", path=contents.missing)
            incomplete.append(Fault(archive.file, problem, f"sources.{archive.source}.folder"))
            continue
        if not found:
            note(_("NOTE: {file} does not tell its version", file=archive.file))
        differing = [(p, v) for p, v in expected if found and not begins_with(found, v)]
        for path, version in differing[:1]:
            problem = _("contains version {found} ({member})", found=found, member=member)
            wrong.append(Fault(archive.file, problem, f"{version} ({path})"))
    if incomplete:
        raise PresetError(
            ngettext(
                "{count} source archive of {name} does not contain what is built",
                "{count} source archives of {name} do not contain what is built",
                len(incomplete),
                name=preset.name,
            ),
            faults=incomplete,
            hint=_(
                'in presets/{name}.json, set "folder" of the source to the folder of the archive '
                "that is built",
                name=preset.name,
            ),
        )
    if wrong:
        raise CompatibilityError(
            ngettext(
                "{count} source archive of {name} has another version than the preset",
                "{count} source archives of {name} have another version than the preset",
                len(wrong),
                name=preset.name,
            ),
            faults=wrong,
            hint=_(
                "in presets/{name}.json, set the version of the archive, or the address and "
                "checksum of the archive with the version of the preset",
                name=preset.name,
            ),
        )


def look_into(archive: Downloaded, stated: StatedVersion, folder: str) -> Contents:
    """Return what an archive tells of its version, and what a build would miss in it.

    ``folder`` is the folder of the archive that is built; "" stands for the only one at the top.
    The name of the top folder counts if the file that states the version is absent. Raise
    FetchError if the archive cannot be read.
    """

    def unusable(cause: Exception) -> FetchError:
        return FetchError(
            _("{file} is not a usable source archive", file=archive.file),
            faults=[Fault(archive.file, str(cause), _("a tar or zip archive"))],
            hint=_(
                "look at its beginning, which may be a web page: head -c 300 {path!q}",
                path=archive.content,
            ),
        )

    search = _Search(stated, folder)
    with damage_as(unusable), open_buffered(archive.content, follow=True) as stored:
        start = stored.read(MAGIC_LENGTH)
        stored.seek(0)
        try:
            if start.startswith(b"PK\x03\x04"):
                _search_zip(stored, search)
            else:
                _search_tar(stored, compression(start), search)
        except _Done:
            pass
        except ToolError as error:
            if error.is_missing:
                raise
            raise unusable(error) from error
    return search.contents()


class _Done(Exception):
    """Enough is read: ends the programs that unpack the rest."""


class _Search:
    """What is sought in an archive, and what was found so far.

    ``complete`` is whether all members were seen: only then is something known to be missing.
    """

    def __init__(self, stated: StatedVersion, folder: str) -> None:
        self.stated = stated
        self.folder = os.path.normpath(folder) if folder else ""
        self.top = self.folder
        self.in_folder = self.folder in ("", ".")
        self.has_file = self.complete = False
        self.found: tuple[str, str] | None = None

    def wants(self, name: str) -> bool:
        """Return whether the member ``name`` states the version. Raise _Done if none will."""
        path = os.path.normpath(name)
        top = path.partition("/")[0].removeprefix(".")
        self.top = self.top or top
        self.in_folder = self.in_folder or f"{path}/".startswith(f"{self.folder}/")
        if not self.stated.file:
            if self.top and self.in_folder:
                raise _Done
            return False
        # An archive with several folders at the top is built as a whole.
        places = (self.folder,) if self.folder else (top, ".")
        return path in [os.path.normpath(os.path.join(p, self.stated.file)) for p in places]

    def take(self, name: str, content: bytes) -> None:
        """Read the version in the member ``name``, and end the search."""
        self.has_file = True
        match = re.search(self.stated.pattern, content.decode("utf-8", "replace"))
        if match:
            self.found = ".".join(match.groups()), os.path.normpath(name)
        raise _Done

    def contents(self) -> Contents:
        """Return what was found. Without a file, the name of the top folder tells the version."""
        if self.complete and not self.in_folder:
            return Contents("", "", self.folder)
        if self.complete and self.stated.required and not self.has_file:
            return Contents("", "", os.path.join(self.folder or self.top, self.stated.file))
        if self.found:
            return Contents(*self.found)
        number = number_in(self.top)
        return Contents(number, self.top) if number else Contents("", "")


def _search_zip(stored: IO[bytes], search: _Search) -> None:
    with zipfile.ZipFile(stored) as archive:
        for member in archive.infolist():
            if search.wants(member.filename):
                with archive.open(member) as content:
                    search.take(member.filename, content.read(limits.SOURCE_FILE))
        search.complete = True


def _search_tar(stored: IO[bytes], kind: str, search: _Search) -> None:
    with (
        uncompressed(stored, kind) as plain,
        tarfile.open(fileobj=cast(IO[bytes], _Bounded(plain)), mode="r|") as archive,
    ):
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else they pile up in memory
            if search.wants(member.name) and member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                search.take(member.name, content.read(limits.SOURCE_FILE))
        search.complete = True
        raise _Done


class _Bounded:
    """A stream that ends the search after ``limits.SOURCE_SEARCH`` bytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.left = stream, limits.SOURCE_SEARCH

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise _Done
        return data
