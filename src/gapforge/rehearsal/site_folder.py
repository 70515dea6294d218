"""Create and remove the folder that stands for the site: a copy of the repository, no more."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gapforge.base import limits
from gapforge.base.errors import StorageError, ToolError, UsageError
from gapforge.base.files import read_regular
from gapforge.base.i18n import _
from gapforge.base.marked_folders import mark_folder, remove_folder
from gapforge.base.path_checks import inside, real_path
from gapforge.base.project import Project
from gapforge.base.storage_errors import storage_errors
from gapforge.base.sudo_caller import Caller, give_to_caller, sudo_caller
from gapforge.base.write_files import link_or_copy
from gapforge.bundle.repository_files import (
    TOOL_FOLDERS,
    git_files,
    is_below,
    manifest_names,
    own_places,
    private_reason,
    untracked_files,
)
from gapforge.engine import private_daemon, private_daemon_state
from gapforge.model.preset import Preset
from gapforge.store.store import Store

PROGRAM = "src/gapforge/__main__.py"


def site_of(project: Project, preset: str) -> Project:
    """Return the simulated site of a preset, as a project; it need not exist."""
    folder = inside(project.state / "rehearsal", preset)
    return Project(folder, folder / "artifacts")


def user_of_site(project: Project) -> Caller | None:
    """Return who runs the commands of the site: who called sudo in their own project; else None.

    Only the engine needs root. Without sudo there is no other user whom the files can belong to.
    """
    caller = sudo_caller()
    with contextlib.suppress(OSError):
        if caller is not None and project.root.stat().st_uid == caller.user:
            return caller
    return None


def give_site(project: Project, site: Project, user: Caller) -> None:
    """Give the site to the user who runs its commands, and the folders around it.

    Files with several names are those of the project, which the rehearsal must not change. They
    need to be readable only.
    """
    for folder in (project.state, site.root.parent):
        if folder.stat().st_uid == 0:
            os.chown(folder, user.user, user.group)
    give_to_caller(site.root, keep={private_daemon_state.folder_of(site)}, linked=False)


def remove_site(site: Project) -> None:
    """Stop the site's engine, and remove the site; nothing happens if it does not exist."""
    private_daemon.remove(site)
    remove_folder(site.root)
    with contextlib.suppress(OSError):  # there are sites of other presets
        site.root.parent.rmdir()


def create_site(
    project: Project, site: Project, presets: Iterable[Preset] = (), *, bare: bool = False
) -> list[str]:
    """Create the site with a copy of the repository; return what was left out, with the reasons.

    The files of ``presets`` are copied even if git does not track them. ``bare`` copies nothing,
    for a bundle that contains the repository. Files are copied, so that the rehearsal cannot change
    the originals.
    """
    if not (project.root / PROGRAM).is_file():
        raise UsageError(
            _(
                "{folder} does not contain gapforge itself, so it is not what a site receives",
                folder=project.root,
            ),
            hint=_("run it in a checkout: ./gapforge rehearse PRESET"),
        )
    mark_folder(site.root, "stands for a site while a rehearsal runs")
    left_out = {} if bare else _copy_repository(project, site, presets)
    site.artifacts.mkdir(exist_ok=True)
    return [_("{file}: {reason}", file=name, reason=why) for name, why in left_out.items()]


def _copy_repository(project: Project, site: Project, presets: Iterable[Preset]) -> dict[str, str]:
    """Copy the repository's files to the site; return why files were left out, by path."""
    untracked = untracked_files(project, presets).left_out
    left_out = dict.fromkeys(untracked, _("git does not track it"))
    for name in list_repository(project, presets):
        if reason := _copy(project.root, name, site.root):
            left_out[name] = reason
    return left_out


def list_repository(project: Project, presets: Iterable[Preset] = ()) -> list[str]:
    """Return the repository's files in the project folder, as relative paths.

    These are the files that ``pack --with-tool`` carries: those that git tracks, or without git
    those of MANIFEST, and what the presets and components consist of. In a copy that has neither,
    all files except those of tools. Raise ToolError for a checkout without MANIFEST that git
    refuses to read: its ignored files must not reach the site.
    """
    root, places = project.root, own_places(presets)
    manifest = manifest_names(project, places)
    try:
        listed = [name for name, tracked in _git_files(root) if tracked or is_below(name, places)]
        if PROGRAM in listed:  # otherwise the folder is inside another repository
            return [name for name in dict.fromkeys(listed) if _is_carried(project, name)]
    except ToolError:
        if manifest is None and os.path.lexists(root / ".git"):
            raise
    if manifest is not None:
        return [name for name in manifest if _is_carried(project, name)]
    found = []
    for where, folders, files in os.walk(root):
        here = Path(where).relative_to(root)
        links = [name for name in folders if Path(where, name).is_symlink()]
        folders[:] = sorted(
            name
            for name in folders
            if name not in (*TOOL_FOLDERS, *links) and _is_carried(project, str(here / name))
        )
        found += [
            str(here / name)
            for name in sorted([*files, *links])
            if _is_carried(project, str(here / name))
        ]
    return found


def _git_files(folder: Path, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the files that git does not ignore, and whether it tracks them.

    The content of inner repositories such as submodules is included.
    """
    for raw, tracked in git_files(folder).items():
        name = os.fsdecode(raw)
        path = folder / name
        if not path.is_dir() or path.is_symlink():
            yield prefix + name, tracked
        elif (path / ".git").exists():
            for inner, inner_tracked in _git_files(path, f"{prefix}{name.rstrip('/')}/"):
                yield inner, inner_tracked and tracked


def _is_carried(project: Project, name: str) -> bool:
    path = project.root / name
    return not private_reason(name) and project.artifacts not in (path, *path.parents)


def _copy(root: Path, name: str, site: Path) -> str:
    """Copy one file; return why it was not copied, or ""."""
    source, target = root / name, site / name
    if real_path(source.parent) != real_path(root) / Path(name).parent:
        return _("behind a symbolic link")  # git still tracks the folder that the link replaced
    if source.is_symlink():
        if not _leads_inside(root, source):
            return _(
                "symbolic link to {target}, which is not carried with the repository",
                target=os.readlink(source),
            )
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(os.readlink(source), target)
    elif source.is_file():
        with storage_errors(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    elif source.exists():
        return _("neither a file nor a folder")
    return ""  # or deleted, though git still tracks it


def _leads_inside(root: Path, link: Path) -> bool:
    """Return whether a link leads inside ``root``, by its text and after all links are resolved."""
    text = os.readlink(link)
    if (
        os.path.isabs(text)
        or os.path.normpath(link.parent.relative_to(root) / text).split("/")[0] == ".."
    ):
        return False
    with contextlib.suppress(StorageError):  # a loop of links
        real = real_path(link)
        return real_path(root) in (real, *real.parents)
    return False


def link_env(project: Project, site: Project) -> None:
    """Give the site `.env`, as a hard link: a copy of a secret would have to be erased too."""
    source, target = project.env_file, site.env_file
    if source.is_symlink():  # the guide proposes to keep it in memory: it must stay there
        os.symlink(os.path.realpath(source), target)
    elif source.exists():
        with storage_errors(source):
            try:
                os.link(source, target)
            except OSError:  # another file system
                handle = os.open(
                    target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, source.stat().st_mode & 0o777
                )
                with open(handle, "wb") as file:
                    file.write(read_regular(source, limits.ENVIRONMENT))


def copy_artifacts(
    project: Project, site: Project, preset: str, on_bytes: Callable[[int], None]
) -> None:
    """Copy artifacts/PRESET to the site with everything in it, as hard links where possible."""
    source, target = project.artifacts_of(preset), site.artifacts_of(preset)
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


def add_objects(
    site: Project, objects: Iterable[tuple[str, Path | bytes]], on_bytes: Callable[[int], None]
) -> None:
    """Put objects (SHA-256, and the file or bytes) into the site's store. unpack verifies them."""
    store = Store(site.store)
    for sha256, source in objects:
        if isinstance(source, bytes):
            store.add_bytes(source)
        else:
            link_or_copy(source, store.path(sha256))
            on_bytes(source.stat().st_size)
