"""List the files that make up the gapforge repository on this machine.

In a git checkout git knows them. Elsewhere they are in MANIFEST, a list of paths that ``pack
--with-tool`` adds to the archive of the repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from gapforge.base import limits
from gapforge.base.errors import BundleError, ToolError
from gapforge.base.files import read_regular, real_path, unsafe_path_reason
from gapforge.base.i18n import _
from gapforge.base.process import run
from gapforge.base.project import Project
from gapforge.base.secret_files import may_hold_secrets
from gapforge.base.text import printable
from gapforge.bundle.receiver_program import RECEIVER

MANIFEST = "MANIFEST"
# Folders where a site without git adds files of its own: these count in addition to MANIFEST.
_OPEN_FOLDERS = ("presets", "components")
_PER_MACHINE = {"artifacts", "dist"}  # at the top: results, not the repository
_CACHES = {"__pycache__", ".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}
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


def repository_files(project: Project) -> list[bytes]:
    """Return the sorted paths of the repository, without private files and packed volumes.

    In a checkout these are the files that git tracks or would add. Some may not exist any more.
    Raise BundleError if neither git nor MANIFEST lists the files.
    """
    try:
        listed = _git_files(project, "--cached", "--others", "--exclude-standard")
    except ToolError as error:
        listed = _manifest_files(project)
        if listed is None:
            raise BundleError(
                _(
                    "git cannot list the files of {root}: {why}",
                    root=project.root,
                    why=error.message,
                ),
                hint=error.hint,
            ) from None
    if listed is None:
        listed = _manifest_files(project)
    if listed is None:
        raise BundleError(
            _(
                "{root} is not a git checkout and has no {manifest} that lists its files",
                root=project.root,
                manifest=MANIFEST,
            ),
            hint=_("run pack in a git checkout: git init; git add --all"),
        )
    return [raw for raw in listed if not _is_left_out(project, displayed(raw))]


def untracked_files(project: Project) -> list[str]:
    """Return files that will be packed although git does not track them, for a person to check."""
    try:
        listed = _git_files(project, "--others", "--exclude-standard") or []
    except ToolError:
        return []
    names = map(displayed, listed)
    return [printable(n) for n in names if n != MANIFEST and not _is_left_out(project, n)]


def displayed(raw: bytes) -> str:
    """Return a path as text. Bytes that are not UTF-8 become escapes."""
    return raw.decode("utf-8", "backslashreplace")


def render_manifest(names: Iterable[str]) -> bytes:
    """Return the manifest of these paths: one per line, sorted by bytes."""
    lines = sorted(name.encode() for name in names if name != MANIFEST)
    return b"".join(line + b"\n" for line in lines)


def manifest_names(project: Project) -> list[str] | None:
    """Return the existing files of MANIFEST and of the folders for a site's own files.

    Return None if there is no MANIFEST. Links are not followed.
    """
    try:
        text = os.fsdecode(read_regular(project.root / MANIFEST, limits.STATE))
    except OSError:
        return None
    names = {name for name in text.split("\n") if name and not unsafe_path_reason(name)}
    names.add(MANIFEST)
    for top in _OPEN_FOLDERS:
        for where, folders, files in os.walk(project.root / top):
            here = Path(where).relative_to(project.root)
            links = [name for name in folders if Path(where, name).is_symlink()]
            folders[:] = [name for name in folders if name not in (*_CACHES, *links)]
            found = [name for name in [*files, *links] if not name.endswith(".pyc")]
            names.update((here / name).as_posix() for name in found)
    return sorted(name for name in names if os.path.lexists(project.root / name))


def _manifest_files(project: Project) -> list[bytes] | None:
    names = manifest_names(project)
    return None if names is None else sorted(map(os.fsencode, names))


def _git_files(project: Project, *options: str) -> list[bytes] | None:
    """Return the sorted paths that ``git ls-files`` prints, None if this is not a checkout.

    Raise ToolError if git is missing or refuses.
    """
    if not os.path.lexists(project.root / ".git"):
        return None
    # Without -z git prints ASCII only, so the encoding of the locale does not matter.
    command = ["git", "-C", str(project.root), "-c", "core.quotePath=true", "ls-files", *options]
    # A git hook sets these variables for another repository.
    environment = {"GIT_DIR": None, "GIT_WORK_TREE": None, "GIT_INDEX_FILE": None}
    output = run(command, env=environment).output
    return sorted({_unquoted(line) for line in output.split("\n") if line})


def _unquoted(line: str) -> bytes:
    """Return a path that git quoted like a C string because of unusual characters."""
    raw = line.encode("utf-8", "surrogateescape")
    if not (len(raw) > 1 and raw[:1] == raw[-1:] == b'"'):
        return raw
    simple = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))

    def character(match: re.Match[bytes]) -> bytes:
        return bytes([int(match[1], 8) if len(match[1]) == 3 else simple[match[1][0]]])

    return re.sub(rb'\\([0-7]{3}|[abtnvfr"\\])', character, raw[1:-1])


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
