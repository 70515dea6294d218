"""List the files that make up the gapforge repository on this machine.

In a git checkout these are the files that git tracks. Elsewhere they are in MANIFEST, a list of
paths that ``pack --with-tool`` adds to the archive of the repository. Of other files only those
belong to the repository that gapforge itself finds by looking: components, and what the presets in
question consist of. Everything else in the folder is somebody's data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gapforge.base import limits
from gapforge.base.errors import BundleError, ToolError
from gapforge.base.files import read_regular
from gapforge.base.i18n import _
from gapforge.base.path_checks import real_path, unsafe_path_reason
from gapforge.base.process import piped
from gapforge.base.project import Project
from gapforge.base.secret_file_patterns import may_hold_secrets
from gapforge.base.text_layout import printable
from gapforge.bundle.receiver_program import RECEIVER
from gapforge.model.preset import Preset

MANIFEST = "MANIFEST"
_PER_MACHINE = {"artifacts", "dist"}  # at the top: results, not the repository
# What tools leave behind.
TOOL_FOLDERS = {
    "__pycache__",
    ".venv",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".hypothesis",
}
_PACKED = re.compile(
    rf"\.?(?:repair-)?[0-9a-f]{{24}}[-.].*|\.?{re.escape(RECEIVER)}(?:\.part)?|.*\.gfv",
    re.IGNORECASE,
)


def private_reason(name: str) -> str:
    """Return why a path must never be in an archive, whatever git says; "" if it may be.

    Names are compared as on the least strict file system: without case, and without dots and spaces
    at the end.
    """
    parts = [part.casefold().rstrip(". ") for part in name.split("/")]
    if parts[0] in _PER_MACHINE or parts[0].startswith(".gapforge"):
        return _("files in {folder}/ belong to one machine", folder=parts[0])
    if ".git" in parts:
        return _("it is in the folder of git")
    if any(map(may_hold_secrets, parts)):
        return _("it may contain secrets")
    return ""


def repository_files(project: Project, presets: Iterable[Preset] = ()) -> list[bytes]:
    """Return the sorted paths of the repository, without private files and packed volumes.

    In a checkout these are the files that git tracks, and those of `own_places`. Some may not exist
    any more. Raise BundleError if neither git nor MANIFEST lists the files.
    """
    places = own_places(presets)
    listed: Iterable[bytes] | None = None
    refused: ToolError | None = None
    if _is_checkout(project):
        try:
            listed = [
                raw
                for raw, tracked in git_files(project.root).items()
                if tracked or is_below(displayed(raw), places)
            ]
        except ToolError as error:
            refused = error
    if listed is None:
        names = manifest_names(project, places)
        if names is None:
            raise _unknown_files(project, refused)
        listed = map(os.fsencode, names)
    return sorted(raw for raw in listed if not _is_left_out(project, displayed(raw)))


def _unknown_files(project: Project, refused: ToolError | None) -> BundleError:
    """Return the error of a project whose files neither git nor MANIFEST lists."""
    if refused is not None:
        return BundleError(
            _("git cannot list the files of {root}: {why}", root=project.root, why=refused.message),
            hint=refused.hint,
        )
    return BundleError(
        _(
            "{root} is not a git checkout and has no {manifest} that lists its files",
            root=project.root,
            manifest=MANIFEST,
        ),
        hint=_("run pack in a git checkout: git init; git add --all"),
    )


def own_places(presets: Iterable[Preset]) -> set[PurePosixPath]:
    """Return the files and folders that are carried even if git does not track them.

    All components are, because the Dockerfile has a stage for each of them.
    """
    places = {PurePosixPath("components")}
    for preset in presets:
        files = (f"presets/{preset.name}.json", f"presets/{preset.name}.lock.json")
        source = [preset.application.source] if preset.application else []
        places.update(map(PurePosixPath, [*files, *source]))
    return places


def is_below(name: str, places: Collection[PurePosixPath]) -> bool:
    """Return whether a path is one of these places or inside one of them."""
    path = PurePosixPath(name)
    return any(place in places for place in (path, *path.parents))


@dataclass(frozen=True)
class Untracked:
    """Files that git does not track, for a person to check.

    ``packed`` belong to the presets or components. ``left_out`` are the others, a folder without
    any packed file as one name that ends with "/".
    """

    packed: list[str]
    left_out: list[str]


def untracked_files(project: Project, presets: Iterable[Preset]) -> Untracked:
    """Return the files that git does not track and does not ignore, without private files."""
    try:
        files = git_files(project.root) if _is_checkout(project) else {}
    except ToolError:
        files = {}
    places = own_places(presets)
    tracked = [displayed(raw) for raw, is_tracked in files.items() if is_tracked]
    listed = [displayed(raw) for raw, is_tracked in sorted(files.items()) if not is_tracked]
    names = [n for n in listed if n != MANIFEST and not _is_left_out(project, n)]
    packed = [name for name in names if is_below(name, places)]
    kept = {str(folder) for name in [*tracked, *packed] for folder in PurePosixPath(name).parents}
    left_out = {_topmost(name, kept) for name in names if not is_below(name, places)}
    return Untracked([*map(printable, packed)], [*map(printable, sorted(left_out))])


def _topmost(name: str, kept: Collection[str]) -> str:
    """Return the topmost folder of a path that is none of ``kept``, else the path itself."""
    folders = [str(folder) for folder in reversed(PurePosixPath(name).parents)]
    return next((f"{folder}/" for folder in folders if folder not in {".", *kept}), name)


def displayed(raw: bytes) -> str:
    """Return a path as text. Bytes that are not UTF-8 become escapes."""
    return raw.decode("utf-8", "backslashreplace")


def render_manifest(names: Iterable[str]) -> bytes:
    """Return the manifest of these paths: one per line, sorted by bytes."""
    lines = sorted(name.encode() for name in names if name != MANIFEST)
    return b"".join(line + b"\n" for line in lines)


def manifest_names(project: Project, places: Iterable[PurePosixPath]) -> list[str] | None:
    """Return the existing files of MANIFEST and of ``places`` (see `own_places`).

    Return None if there is no MANIFEST. Links are not followed.
    """
    try:
        text = os.fsdecode(read_regular(project.root / MANIFEST, limits.STATE))
    except OSError:
        return None
    names = {name for name in text.split("\n") if name and not unsafe_path_reason(name)}
    names.add(MANIFEST)
    for top in (project.root / place for place in places):
        if top.is_symlink() or not top.is_dir():
            names.add(top.relative_to(project.root).as_posix())
            continue
        for where, folders, files in os.walk(top):
            here = Path(where).relative_to(project.root)
            links = [name for name in folders if Path(where, name).is_symlink()]
            folders[:] = [name for name in folders if name not in (*TOOL_FOLDERS, *links)]
            found = [name for name in [*files, *links] if not name.endswith(".pyc")]
            names.update((here / name).as_posix() for name in found)
    return sorted(name for name in names if os.path.lexists(project.root / name))


def _is_checkout(project: Project) -> bool:
    return os.path.lexists(project.root / ".git")


def git_files(folder: Path) -> dict[bytes, bool]:
    """Return the paths in a folder that git does not ignore, and whether git tracks each one.

    A repository inside this one, such as a submodule, is one path. Raise ToolError if git is
    missing or refuses.
    """
    # "-t" puts a status before each path: "?" for a file that git does not track.
    command = ["git", "-C", str(folder), "ls-files", "-z", "-t"]
    with piped([*command, "--cached", "--others", "--exclude-standard"]) as output:
        lines = [line for line in output.read().split(b"\0") if line]
    return {path: status != b"?" for status, path in (line.split(b" ", 1) for line in lines)}


def _is_left_out(project: Project, name: str) -> bool:
    """Return whether a file is never packed: private, or written by pack and unpack."""
    return bool(
        private_reason(name)
        or _PACKED.fullmatch(name.rsplit("/", 1)[-1])
        or _is_in_artifacts(project, name)
    )


def _is_in_artifacts(project: Project, name: str) -> bool:
    """Return whether a path is in the folder of artifacts, which may have any name."""
    root, artifacts = real_path(project.root), real_path(project.artifacts)
    path = root / name
    return root in artifacts.parents and artifacts in (path, *path.parents)
