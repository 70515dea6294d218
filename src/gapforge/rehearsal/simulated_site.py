"""The place that stands for the site: an empty folder, a copy of the repository, and nothing else of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gapforge.base import process
from gapforge.base.errors import ToolError, UsageError
from gapforge.base.files import inside, link_or_copy, mark_folder, remove_folder, storage_errors
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.bundle.repository_files import manifest_names
from gapforge.engine import private_daemon
from gapforge.store.store import Store

# Parts of a project folder that are not carried with it: they are made anew, or travel by another way.
NOT_CARRIED = ("artifacts", "dist", ".gapforge", ".git", ".env")
# Where there is no git to tell: what tools leave behind.
_LITTER = (".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis")
PROGRAM = "src/gapforge/__main__.py"


def place_of(project: Project, preset: str) -> Project:
    """The place of this preset's rehearsal, as a project; it need not exist."""
    folder = inside(project.state / "rehearsal", preset)
    return Project(folder, folder / "artifacts")


def clear(place: Project) -> None:
    """Stop an engine that runs in the place, and remove the place with everything in it; nothing when it is not there."""
    private_daemon.remove(place)
    remove_folder(place.root)
    with contextlib.suppress(OSError):  # there are others
        place.root.parent.rmdir()


def fill(project: Project, place: Project, *, bare: bool = False) -> list[str]:
    """Make the place, with a copy of the repository; gives what was left out of it, each with the reason.

    ``bare`` copies nothing, for a bundle that brings the repository too. Files are copied, so that whatever happens in the place happens there only. ``.env`` is the exception: it is the
    same file under a second name, since a copy of a secret would have to be wiped as well.
    """
    if not (project.root / PROGRAM).is_file():
        raise UsageError(
            _(
                "{root} does not hold gapforge itself, so it is not what a site gets",
                root=project.root,
            ),
            hint=_("run it in a checkout: ./gapforge rehearse PRESET"),
        )
    mark_folder(place.root, "stands for a site while a rehearsal runs")
    left_out = []
    for name in () if bare else files_of(project):
        if reason := _copy(project.root, name, place.root):
            left_out.append(_("{name} {reason}", name=name, reason=reason))
    _carry_env(project.env_file, place.env_file)
    place.artifacts.mkdir(exist_ok=True)
    return left_out


def files_of(project: Project) -> list[str]:
    """Return the paths of the repository in the project folder.

    These are the files that git tracks or would add, those of MANIFEST where there is no git, and
    in any other copy all files but what tools leave behind.
    """
    root = project.root
    manifest = manifest_names(project)
    try:
        listed = list(_listed(root, ""))
        if PROGRAM in listed:  # else the folder is not the repository's, but lies in somebody's
            return [name for name in dict.fromkeys(listed) if _carried(project, name)]
    except ToolError:
        # A checkout that git refuses to read: its ignored files must not reach the site.
        if manifest is None and os.path.lexists(root / ".git"):
            raise
    if manifest is not None:
        return [name for name in manifest if _carried(project, name)]
    found = []
    for where, folders, files in os.walk(root):
        here = Path(where).relative_to(root)
        links = [name for name in folders if Path(where, name).is_symlink()]
        folders[:] = sorted(
            name
            for name in folders
            if name not in (*_LITTER, *links) and _carried(project, str(here / name))
        )
        found += [
            str(here / name)
            for name in sorted([*files, *links])
            if _carried(project, str(here / name))
        ]
    return found


def _listed(folder: Path, prefix: str) -> Iterator[str]:
    """What git lists, with the content of repositories inside of it (submodules, and others)."""
    asked = [
        "git",
        "-C",
        str(folder),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    with process.piped(asked) as output:
        names = [os.fsdecode(name) for name in output.read().split(b"\0") if name]
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            if (path / ".git").exists():
                yield from _listed(path, f"{prefix}{name.rstrip('/')}/")
        else:
            yield prefix + name


def _carried(project: Project, name: str) -> bool:
    path = project.root / name
    return Path(name).parts[0] not in NOT_CARRIED and project.artifacts not in (path, *path.parents)


def _copy(root: Path, name: str, place: Path) -> str:
    """Copy one file; gives why it was not copied, or ""."""
    source, target = root / name, place / name
    if source.parent.resolve() != root.resolve() / Path(name).parent:
        # git still knows the folder that the link replaced
        return _("lies behind a symbolic link")
    if source.is_symlink():
        if not _stays_inside(root, source):
            there = os.readlink(source)
            return _(
                "is a symbolic link to {there}, which is not carried with the repository",
                there=there,
            )
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(os.readlink(source), target)
    elif source.is_file():
        with storage_errors(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    elif source.exists():
        return _("is neither a file nor a folder")
    return ""  # deleted, though git still knows it: the site gets the folder as it is now


def _stays_inside(root: Path, link: Path) -> bool:
    """Whether a link leads inside ``root`` wherever that lies: by its text, and through all links on the way."""
    text = os.readlink(link)
    if (
        os.path.isabs(text)
        or os.path.normpath(link.parent.relative_to(root) / text).split("/")[0] == ".."
    ):
        return False
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: links in a circle
        return root.resolve() in (link.resolve(), *link.resolve().parents)
    return False


def _carry_env(source: Path, target: Path) -> None:
    if (
        source.is_symlink()
    ):  # kept in memory rather than on a disk, as the guide proposes: it stays there
        os.symlink(os.path.realpath(source), target)
    elif source.exists():
        with storage_errors(source):
            try:
                os.link(source, target)
            except OSError:  # another disk
                handle = os.open(
                    target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, source.stat().st_mode & 0o777
                )
                with open(handle, "wb") as file:
                    file.write(source.read_bytes())


def carry_artifacts(
    project: Project, place: Project, preset: str, on_bytes: Callable[[int], None]
) -> None:
    """What ``cp -r artifacts/PRESET`` would bring to the place, as hard links where they can be. Everything in the
    folder comes along, for verify is to see it."""
    source, target = project.artifacts_of(preset), place.artifacts_of(preset)
    if not source.is_dir():
        return
    for where, folders, files in os.walk(source):
        here = target / Path(where).relative_to(source)
        with storage_errors(here):
            here.mkdir(parents=True, exist_ok=True)
        for name in [*files, *folders]:
            path = Path(where, name)
            if path.is_symlink():
                os.symlink(os.readlink(path), here / name)
            elif path.is_file():
                link_or_copy(path, here / name)
                on_bytes(path.stat().st_size)


def stock(
    place: Project, found: Iterable[tuple[str, Path | bytes]], on_bytes: Callable[[int], None]
) -> None:
    """Put objects (SHA-256, and the file or bytes) into the place's store, as the site has them. unpack hashes them."""
    store = Store(place.store)
    for sha256, source in found:
        if isinstance(source, bytes):
            store.add_bytes(source)
        else:
            link_or_copy(source, store.path(sha256))
            on_bytes(source.stat().st_size)


def give_back(*paths: Path) -> None:
    """Under sudo: leave these to the user who asked, not to root, so that his own commands can write there."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() != 0 or not (user.isdecimal() and group.isdecimal()):
        return
    for path in paths:
        with contextlib.suppress(OSError):  # not there, or on a disk that knows no users
            os.chown(path, int(user), int(group), follow_symlinks=False)
