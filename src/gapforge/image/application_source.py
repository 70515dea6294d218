"""Choose the folder that the application is built from.

The build context holds a copy of it (``gapforge.image.source_copy``), so that folders outside the
project work on every engine.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.errors import Fault, SourceError
from gapforge.base.i18n import _
from gapforge.base.path_checks import given_path, real_path, unsafe_path_reason
from gapforge.base.system_errors import os_reason
from gapforge.image import gapforgeignore
from gapforge.image.source_files import list_files, shown_names
from gapforge.model.preset import Application

_BUILD_FILES = {
    "cmake": ("CMakeLists.txt",),
    "meson": ("meson.build",),
    "make": ("Makefile", "makefile", "GNUmakefile"),
}
BUILD_SYSTEMS = tuple(_BUILD_FILES)  # besides scripts
_OWN_FOLDER = ("cmake", "meson")  # they compile in a folder of their own, not in the source
_OBJECTS = (".o", ".lo", ".obj")


@dataclass(frozen=True, kw_only=True)
class ApplicationSource:
    """The chosen folder, and what chose it: for report.json, and in the reader's language."""

    folder: Path
    chosen_by: str
    chosen_by_text: str
    warnings: tuple[str, ...]


def setting_key(application: str) -> str:
    """Return the `.env` key of the source folder: ``xaiva-media`` has ``XAIVA_MEDIA_SOURCE``."""
    return re.sub(r"[^A-Z0-9]", "_", application.upper()) + "_SOURCE"


def choose(
    application: Application,
    *,
    flag: str = "",
    settings: Mapping[str, str] | None = None,
    root: Path,
) -> ApplicationSource:
    """Return the source folder: ``flag`` (--app-source), else `.env`, else the preset's folder.

    ``root`` is the project. The first one that is given counts even when it is wrong, since falling
    back to another source would build something that nobody asked for. Raise SourceError with all
    places that were considered.
    """
    key = setting_key(application.name)
    setting = (settings or {}).get(key, "")
    problem = ""
    if flag:
        folder, chosen_by, shown = given_path(flag).absolute(), "--app-source", "--app-source"
    elif setting:
        folder, chosen_by = root / given_path(setting), f"{key} (.env or environment)"
        shown = _("{setting} (.env or environment)", setting=key)
    else:
        folder, chosen_by, shown = root / application.source, "preset", _("preset")
        problem = _preset_path_problem(application, root)
    if problem := problem or _folder_problem(folder, application.build):
        raise SourceError(
            _(
                "the source of {name} cannot be used: {folder}: {problem} (chosen by {chosen_by})",
                name=application.name,
                folder=folder,
                problem=problem,
                chosen_by=shown,
            ),
            faults=_considered(application, key, flag, setting),
            hint=_(
                "--app-source DIR, or {key}=DIR in .env; DIR contains {file}; "
                '"build" in the preset names another build system',
                key=key,
                file=_build_files(application.build)[0],
            ),
        )
    return ApplicationSource(
        folder=real_path(folder),
        chosen_by=chosen_by,
        chosen_by_text=shown,
        warnings=tuple(_warnings(folder, application.build)),
    )


def build_of(folder: Path) -> str:
    """Return the build system of a source folder by its files, "cmake" if there are none."""
    return next((b for b, names in _BUILD_FILES.items() if _file_of(folder, names)), "cmake")


def _file_of(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of these files that is in a folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _warnings(folder: Path, build: str) -> Iterator[str]:
    """Yield what a person should know before the folder is built."""
    found = list_files(real_path(folder))
    yield from found.warnings(folder)
    objects = [item.path for item in found.items if item.path.endswith(_OBJECTS)]
    if objects and build not in _OWN_FOLDER:
        yield _(
            "{source}: {names}: compiled files in the source; make takes them for up to date. "
            "List them in {file}",
            source=folder,
            names=shown_names(objects),
            file=gapforgeignore.NAME,
        )


def _considered(application: Application, key: str, flag: str, setting: str) -> list[Fault]:
    """Return what each place names as the source folder."""
    skipped = _("not considered")
    named = str(given_path(flag).absolute()) if flag else _("not given")
    return [
        Fault("--app-source", named),
        Fault(_("{key} in .env", key=key), skipped if flag else setting or _("not set")),
        Fault(_("preset"), application.source + (f" ({skipped})" if flag or setting else "")),
    ]


def _preset_path_problem(application: Application, root: Path) -> str:
    """Return why a preset may not name its source folder, "" if it may."""
    if reason := unsafe_path_reason(application.source):
        return _("not a valid path in a preset: {reason}", reason=reason)
    if not Path(os.path.realpath(root / application.source)).is_relative_to(real_path(root)):
        return _(
            "a symbolic link to a folder outside the project; name an outside folder with "
            "--app-source or in .env"
        )
    return ""


def _build_files(build: str) -> tuple[str, ...]:
    """Return the names of the file that a build system starts with; one of them must exist."""
    return _BUILD_FILES.get(build) or (build.removeprefix("./"),)


def _folder_problem(folder: Path, build: str) -> str:
    """Return why a build system cannot build from a folder, "" if it can."""
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        return _("broken symbolic link") if folder.is_symlink() else _("no such folder")
    except OSError as error:
        return _("not accessible: {reason}", reason=os_reason(error))
    if not stat.S_ISDIR(mode):
        return _("not a folder")
    if not os.access(folder, os.R_OK | os.X_OK):
        return _("cannot be read: permission denied")
    file = _file_of(folder, _build_files(build))
    if file is None:
        return _("no {file}", file=_build_files(build)[0])
    if build not in _BUILD_FILES and not file.stat().st_mode & stat.S_IXUSR:
        return _("{file} is not executable: chmod +x {file!q}", file=file.relative_to(folder))
    return ""
