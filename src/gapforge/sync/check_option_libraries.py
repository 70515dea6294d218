"""Look for the files of the libraries that options ask for: among the .debs and in the base image.

A configure script stops at a library whose pkg-config file or header is missing. Here that is known
before anything is carried to the site.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import Fault, ResolveError
from gapforge.base.i18n import _
from gapforge.model.build_packages import Asked, asked_libraries, brought_files
from gapforge.model.preset import Preset
from gapforge.sync.base_image_facts import ImageFiles


class BuilderFiles:
    """The paths in the .debs of the builder, by package, and those of its base image.

    A .deb is read only when a file is looked for that none of those before it has. ``image``
    returns the files of the base image, which may take a minute to read.
    """

    def __init__(self, debs: Mapping[str, Path], image: Callable[[], ImageFiles]) -> None:
        self._debs, self._image = dict(debs), image
        self._read: dict[str, list[str]] = {}

    def have(self, patterns: Iterable[str], first: Iterable[str] = ()) -> bool:
        """Return whether a path ends with one of ``patterns``.

        The packages ``first`` are looked into first, then the other -dev packages.
        """
        ends = re.compile("|".join(fnmatch.translate(f"*/{pattern}") for pattern in patterns))
        return any(ends.match(path) for paths in self._in_order(first) for path in paths)

    def _in_order(self, first: Iterable[str]) -> Iterator[list[str]]:
        named = [name for name in first if name in self._debs]
        rest = sorted(self._debs, key=lambda name: ("-dev" not in name, name))
        for name in dict.fromkeys((*named, *rest)):
            yield self._paths(name)
        yield self._in_image

    def _paths(self, name: str) -> list[str]:
        if name not in self._read:
            listed = process.run(["dpkg-deb", "--contents", str(self._debs[name])]).output
            # permissions, owner, size, date, time, path, and the target of a link
            columns = (line.split(maxsplit=5) for line in listed.splitlines())
            self._read[name] = [
                re.split(r" -> | link to ", column[5])[0] for column in columns if len(column) > 5
            ]
        return self._read[name]

    @cached_property
    def _in_image(self) -> list[str]:
        return [f"/{path}" for path in self._image().build_files()]


def check(preset: Preset, files: BuilderFiles) -> list[str]:
    """Raise ResolveError for each option whose library nothing in the builder image brings.

    Return a sentence for each option that no description lists and whose files are not found either
    under usual names: whether it needs a library is not known.
    """
    faults: list[Fault] = []
    notes: list[str] = []
    own = set(brought_files(preset))
    for asked in asked_libraries(preset):
        wanted = asked.files()
        if not wanted or not own.isdisjoint(wanted):
            continue
        if files.have(wanted, asked.packages(preset) or ()):
            continue
        if asked.library is None:
            notes.append(_not_found(asked, wanted))
        else:
            faults.append(_missing(preset, asked, wanted))
    if faults:
        raise ResolveError(
            _("the builder image would lack files that options need"),
            faults=faults,
            hint=_(
                "add the packages to apt.builder in presets/{name}.json, or leave the options out",
                name=preset.name,
            ),
        )
    return notes


def _missing(preset: Preset, asked: Asked, files: tuple[str, ...]) -> Fault:
    known = asked.packages(preset)
    if known:
        problem = _(
            "{option} needs {file}, but {packages} does not contain it",
            option=asked.word,
            file=files[0],
            packages=", ".join(known),
        )
    else:
        problem = _(
            "{option} needs {file}, and neither a package nor the base image has it",
            option=asked.word,
            file=files[0],
        )
    return Fault(asked.path, problem, _find(files[0]))


def _not_found(asked: Asked, files: tuple[str, ...]) -> str:
    return _(
        "{option} is not known, and the builder image has none of {files}; if it needs a library, "
        "find its package: {command}",
        option=asked.word,
        files=", ".join(files),
        command=_find(files[0]),
    )


def _find(file: str) -> str:
    return f"apt-file search {file}"
