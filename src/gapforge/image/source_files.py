"""List the files of the application's source: what is copied into the build, and what is left out.

Only regular files, and links that stay inside the folder, can be copied. Nothing is cloned.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base import limits
from gapforge.base.errors import Fault, SourceError
from gapforge.base.files import open_buffered, read_regular
from gapforge.base.i18n import _, ngettext
from gapforge.base.secret_file_patterns import holds_private_key, may_hold_secrets
from gapforge.base.system_errors import unlistable, unreadable
from gapforge.base.text_layout import printable
from gapforge.image import gapforgeignore

# .git is a file in worktrees and submodules.
_VERSION_CONTROL = frozenset((".git", ".hg", ".svn", ".bzr", "CVS", "_darcs"))
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how the text of a pointer begins
_MOST_OF_POINTER = 1024  # bytes, by Git LFS's specification
_BEGINNING = 64 << 10  # bytes in which a private key is looked for
_SHOWN = 5  # names in a warning


@dataclass(frozen=True)
class SourceItem:
    """A file, link or folder of the source. ``link`` is the text of a link."""

    path: str
    kind: str  # "file", "link", "folder"
    link: str = ""
    executable: bool = False


@dataclass(kw_only=True)
class SourceFiles:
    """What a source folder contains.

    ``items`` is everything to copy, sorted, each folder before its content. ``private`` may hold
    secrets and is not copied. ``pointers`` are files of Git LFS without their content, and
    ``submodules`` are folders of submodules without their files.
    """

    items: list[SourceItem] = field(default_factory=list)
    private: list[str] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)
    submodules: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def warnings(self, source: Path) -> Iterator[str]:
        """Yield what a person should know before the folder ``source`` is built."""
        if names := self.private:
            yield ngettext(
                "{source}: {names} may hold secrets and is not copied into the build",
                "{source}: {count} files may hold secrets and are not copied into the build: "
                "{names}",
                len(names),
                source=source,
                names=shown_names(names),
            )
        if names := self.pointers:
            yield ngettext(
                "{source}: {names} is a Git LFS pointer without its content; run: git lfs pull",
                "{source}: {count} files are Git LFS pointers without their content: {names}; "
                "run: git lfs pull",
                len(names),
                source=source,
                names=shown_names(names),
            )
        if names := self.submodules:
            yield ngettext(
                "{source}: {names} is an empty submodule; run: git submodule update --init",
                "{source}: {count} submodules are empty: {names}; run: git submodule update --init",
                len(names),
                source=source,
                names=shown_names(names),
            )


def list_files(source: Path) -> SourceFiles:
    """Return what is in a source folder.

    Left out are version control, files that may hold secrets, and what `.gapforgeignore` lists. A
    private key can be copied with a "!" line there. Raise SourceError with everything that cannot
    be copied (links that leave the folder, devices, unreadable files).
    """
    found = SourceFiles()
    _visit(source, "", gapforgeignore.read_rules(source), found)
    if found.faults:
        raise SourceError(
            _("{source} contains files that cannot be copied", source=source),
            faults=found.faults,
            hint=_("remove them, or list them in {file}", file=source / gapforgeignore.NAME),
        )
    found.submodules = list(_empty_submodules(source, found))
    return found


def _visit(root: Path, folder: str, rules: gapforgeignore.IgnoreRules, found: SourceFiles) -> None:
    try:
        with os.scandir(root / folder) as entries:
            inside = sorted(entries, key=lambda e: e.name)
    except OSError as error:
        found.faults.append(Fault(folder or ".", unlistable(error)))
        return
    for entry in inside:
        path = folder + entry.name
        mode = entry.stat(follow_symlinks=False).st_mode
        is_folder = stat.S_ISDIR(mode)
        if entry.name in _VERSION_CONTROL:
            continue
        verdict = rules.verdict(path, is_folder)
        if verdict is True:
            continue
        if may_hold_secrets(entry.name):
            found.private.append(path)
            continue
        item = _examine(root, path, mode)
        if isinstance(item, Fault):
            found.faults.append(item)
        elif item.kind != "file" or _look_inside(root, path, found, keep_key=verdict is False):
            found.items.append(item)
            if is_folder:
                _visit(root, path + "/", rules, found)


def _examine(root: Path, path: str, mode: int) -> SourceItem | Fault:
    """Return what to copy, or why it cannot be copied."""
    if problem := _path_problem(path):
        return Fault(ascii(path), problem, _("a UTF-8 name on one line"))
    if len(os.fsencode(path)) > limits.PATH_BYTES or path.count("/") > limits.SOURCE_DEPTH:
        return Fault(
            path[:80] + "…",
            _(
                "more than {bytes} bytes or {depth} folders",
                bytes=limits.PATH_BYTES,
                depth=limits.SOURCE_DEPTH,
            ),
            _("a shorter path"),
        )
    if stat.S_ISDIR(mode):
        return SourceItem(path, "folder")
    if stat.S_ISLNK(mode):
        link = os.readlink(root / path)
        if problem := _link_problem(root, path, link):
            return Fault(
                path,
                _('symbolic link to "{link}": {problem}', link=link, problem=problem),
                _("a link inside the folder"),
            )
        return SourceItem(path, "link", link=link)
    if not stat.S_ISREG(mode):
        problem = _("not a regular file (device, pipe or socket)")
        return Fault(path, problem, _("a file, folder or link"))
    return SourceItem(path, "file", executable=bool(mode & stat.S_IXUSR))


def _look_inside(root: Path, path: str, found: SourceFiles, *, keep_key: bool) -> bool:
    """Return whether a file is copied. Add a key, a pointer or an unreadable file to ``found``."""
    try:
        with open_buffered(root / path) as file:
            beginning = file.read(_BEGINNING)
    except OSError as error:
        found.faults.append(Fault(path, unreadable(error)))
        return False
    if holds_private_key(beginning) and not keep_key:
        found.private.append(path)
        return False
    if len(beginning) < _MOST_OF_POINTER and beginning.startswith(_LFS_POINTER):
        found.pointers.append(path)
    return True


def _path_problem(path: str) -> str:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return _("the name is not UTF-8, which engines refuse")
    if re.search(r"[\x00-\x1f\x7f]", path):
        return _("the name contains a control character")
    return ""


def _link_problem(root: Path, path: str, link: str) -> str:
    """Return why a link may not be copied, "" when it may.

    It is checked twice: as text, and as the file system follows it.
    """
    if link.startswith("/"):
        return _("it is absolute and leads elsewhere in the image")
    as_text = os.path.normpath(os.path.join(os.path.dirname(path), link))
    real = Path(os.path.realpath(root / path))
    if as_text.split("/")[0] == ".." or not real.is_relative_to(root):
        return _("it leaves the folder")
    return ""


def _empty_submodules(source: Path, found: SourceFiles) -> Iterator[str]:
    """Yield the folders of .gitmodules that are copied and contain nothing."""
    try:
        text = read_regular(source / ".gitmodules", limits.SUBMODULES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return
    folders = {item.path for item in found.items if item.kind == "folder"}
    filled = {item.path.rpartition("/")[0] for item in found.items}
    for path in re.findall(r"(?m)^[ \t]*path[ \t]*=[ \t]*(.*?)[ \t\r]*$", text):
        if path in folders - filled:
            yield path


def shown_names(names: list[str]) -> str:
    """Return the first names of files for a message."""
    more = ["…"] if len(names) > _SHOWN else []
    return ", ".join([*map(printable, names[:_SHOWN]), *more])
