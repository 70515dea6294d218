"""The application's source: which folder it is, and a faithful copy of it in the build context.

Outside folders work on every engine because the context holds a copy; nothing is cloned and nothing but
regular files and links that stay inside is taken.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import Fault, SourceError, StorageError
from gapforge.base.files import (
    CHUNK,
    MARKER,
    content_mtime,
    sha256_bytes,
    sha256_file,
    storage_errors,
    unsafe_path_reason,
)
from gapforge.base.i18n import _
from gapforge.base.system_errors import os_says, says
from gapforge.model.preset import Application

IGNORE_FILE = ".gapforgeignore"
_VCS = frozenset(
    (".git", ".hg", ".svn", ".bzr", "CVS", "_darcs")
)  # .git is a file in worktrees and submodules
_TEMPLATES = (".template", ".example", ".sample", ".dist")


@dataclass
class ApplicationSource:
    """The chosen folder. ``chosen_by`` says what chose it (for report.json), ``setting`` which key of `.env` did, if
    one did; ``tree_sha256`` is set by ``copy_into``."""

    folder: Path
    chosen_by: str
    warnings: tuple[str, ...] = ()
    setting: str = ""
    tree_sha256: str = field(default="", init=False)

    @property
    def chosen_by_text(self) -> str:
        """What chose the folder, in the reader's language."""
        return _chosen_by_text(self.chosen_by, self.setting)

    def copy_into(self, target: Path) -> Copied:
        """See ``copy_into``; remembers the tree's hash."""
        copied = copy_into(self.folder, target)
        self.tree_sha256 = copied.tree_sha256
        return copied


@dataclass(frozen=True)
class Copied:
    """What a copy did. ``tree_sha256`` depends on names, contents, links and executable bits only."""

    tree_sha256: str
    files: int
    bytes: int
    written: tuple[str, ...]
    removed: tuple[str, ...]


def setting_key(application: str) -> str:
    """The `.env` key that names the source folder: ``xaiva-media`` -> ``XAIVA_MEDIA_SOURCE``."""
    return re.sub(r"[^A-Z0-9]", "_", application.upper()) + "_SOURCE"


def _chosen_by_text(chosen_by: str, setting: str) -> str:
    if setting:
        return _("{setting} (.env or environment)", setting=setting)
    return _("preset") if chosen_by == "preset" else chosen_by


def choose(
    application: Application,
    *,
    flag: str = "",
    settings: Mapping[str, str] | None = None,
    root: Path,
) -> ApplicationSource:
    """The source folder: ``flag`` (--app-source), else `.env`, else the preset's folder in the project ``root``.

    The first that is given counts, also when it is wrong: falling back to another source would build
    something nobody asked for. Raises SourceError with all places that were looked at.
    """
    key = setting_key(application.name)
    setting = (settings or {}).get(key, "")
    if flag:
        folder, chosen_by = Path(flag).expanduser().absolute(), "--app-source"
    elif setting:
        folder, chosen_by = root / Path(setting).expanduser(), f"{key} (.env or environment)"
    else:
        folder, chosen_by = root / application.source, "preset"
    unseen = _("not looked at")
    named = (setting or _("not set")) if not flag else unseen
    looked = [
        Fault("--app-source", str(folder) if flag else _("not given")),
        Fault(_("{key} in .env", key=key), named),
        Fault(_("preset"), application.source + (f" ({unseen})" if chosen_by != "preset" else "")),
    ]
    hint = _(
        "--app-source DIR, or {key}=DIR in .env; DIR holds the application's CMakeLists.txt",
        key=key,
    )
    how = _chosen_by_text(chosen_by, key if not flag and setting else "")

    def refuse(problem: str) -> SourceError:
        return SourceError(
            _(
                "the source of {name} cannot be used: {folder} {problem} (chosen by {how})",
                name=application.name,
                folder=folder,
                problem=problem,
                how=how,
            ),
            faults=looked,
            hint=hint,
        )

    if chosen_by == "preset":
        if reason := unsafe_path_reason(application.source):
            raise refuse(_("is no path for a preset: {reason}", reason=reason))
        if not folder.resolve().is_relative_to(root.resolve()):
            raise refuse(
                _(
                    "leads outside the project through a symbolic link; name an outside "
                    "folder yourself"
                )
            )
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        raise refuse(
            _("is a broken symbolic link") if folder.is_symlink() else _("does not exist")
        ) from None
    except OSError as error:
        raise refuse(_("cannot be reached: {why}", why=os_says(error))) from None
    if not stat.S_ISDIR(mode):
        raise refuse(_("is not a folder"))
    if not os.access(folder, os.R_OK | os.X_OK):
        raise refuse(_("cannot be read: permission denied"))
    if not (folder / "CMakeLists.txt").is_file():
        raise refuse(_("has no CMakeLists.txt"))
    return ApplicationSource(
        folder.resolve(), chosen_by, tuple(_warnings(folder)), key if not flag and setting else ""
    )


def _warnings(folder: Path) -> Iterator[str]:
    for file in sorted(folder.glob(".env*")):
        if _is_env(file.name):
            yield _(
                "{file} lies inside the application's source; it is not copied into the build",
                file=file,
            )


def _is_env(name: str) -> bool:
    return (name == ".env" or name.startswith(".env.")) and not name.endswith(_TEMPLATES)


@dataclass(frozen=True)
class _Item:
    """A file, link or folder of the source. ``link`` is a link's text; ``executable`` a file's bit."""

    path: str
    kind: str  # "file", "link", "folder"
    link: str = ""
    executable: bool = False


def copy_into(source: Path, target: Path) -> Copied:
    """Make ``target`` (inside a folder that carries our marker) hold exactly the usable files of ``source``.

    Left out: version control, `.env` and its like, and what `.gapforgeignore` lists. Files that are the same
    already are not touched. Modes become 0644 or 0755 and times follow content, so that neither umask nor
    checkout time decides whether the engine builds again. Raises SourceError with everything that cannot be
    copied (links that leave the folder, devices, unreadable files), StorageError for the target.
    """
    source, target = source.resolve(), target.absolute()
    _check_places(source, target)
    items, faults = _scan(source, _read_ignore(source))
    if faults:
        raise SourceError(
            _("{source} holds what cannot be built from", source=source),
            faults=faults,
            hint=_("remove it, or list it in {ignore_file}", ignore_file=source / IGNORE_FILE),
        )
    removed = _remove_others(target, {item.path: item for item in items})
    written: list[str] = []
    size = 0
    tree = hashlib.sha256()
    for item in items:
        there = target / item.path
        if item.kind == "folder":
            with storage_errors(there):
                there.mkdir(parents=True, exist_ok=True)
                os.chmod(there, 0o755)
            identity = ""
        elif item.kind == "link":
            identity = item.link
            if not there.is_symlink() or os.readlink(there) != item.link:
                with storage_errors(there):
                    there.unlink(missing_ok=True)
                    there.symlink_to(item.link)
                written.append(item.path)
            when = content_mtime(sha256_bytes(os.fsencode(item.link)))
            os.utime(there, (when, when), follow_symlinks=False)
        else:
            identity, count, changed = _copy_file(
                source / item.path, there, 0o755 if item.executable else 0o644
            )
            size += count
            if changed:
                written.append(item.path)
        tree.update(
            f"{item.kind}\0{item.path}\0{int(item.executable)}\0{identity}\n".encode(
                "utf-8", "surrogateescape"
            )
        )
    files = sum(item.kind == "file" for item in items)
    return Copied(tree.hexdigest(), files, size, tuple(written), tuple(removed))


def _check_places(source: Path, target: Path) -> None:
    if not any((parent / MARKER).is_file() for parent in target.parents):
        raise StorageError(
            _(
                "{target} is not inside a folder of gapforge; nothing is written there",
                target=target,
            )
        )
    resolved = target.resolve()
    if resolved.is_relative_to(source) or source.is_relative_to(resolved):
        raise SourceError(
            _(
                "the application's source {source} and the build context {resolved} lie "
                "inside each other",
                source=source,
                resolved=resolved,
            ),
            hint=_("--app-source DIR with the application's own folder"),
        )
    with storage_errors(target):
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            target.unlink()
        target.mkdir(parents=True, exist_ok=True)


def _scan(root: Path, ignored: list[re.Pattern[str]]) -> tuple[list[_Item], list[Fault]]:
    """Everything to copy, folders before what is in them, sorted by path; and what cannot be."""
    items: list[_Item] = []
    faults: list[Fault] = []

    def visit(folder: str) -> None:
        try:
            with os.scandir(root / folder) as entries:
                found = sorted(entries, key=lambda e: e.name)
        except OSError as error:
            faults.append(Fault(folder or ".", _("cannot be listed: {why}", why=os_says(error))))
            return
        for entry in found:
            path = folder + entry.name
            mode = entry.stat(follow_symlinks=False).st_mode
            is_folder = stat.S_ISDIR(mode)
            if entry.name in _VCS or _is_env(entry.name) or _matches(ignored, path, is_folder):
                continue
            if problem := _name_problem(path):
                faults.append(Fault(ascii(path), problem, _("a name in UTF-8 on one line")))
            elif is_folder:
                items.append(_Item(path, "folder"))
                visit(path + "/")
            elif stat.S_ISLNK(mode):
                link = os.readlink(root / path)
                if problem := _link_problem(root, path, link):
                    faults.append(
                        Fault(
                            path,
                            _(
                                'is a symbolic link to "{link}", which {problem}',
                                link=link,
                                problem=problem,
                            ),
                            _("a link inside the folder"),
                        )
                    )
                else:
                    items.append(_Item(path, "link", link=link))
            elif not stat.S_ISREG(mode):
                faults.append(
                    Fault(
                        path,
                        _("is no regular file (device, pipe or socket)"),
                        _("a file, folder or link"),
                    )
                )
            elif not os.access(root / path, os.R_OK):
                faults.append(Fault(path, _("cannot be read: permission denied")))
            else:
                items.append(_Item(path, "file", executable=bool(mode & stat.S_IXUSR)))

    visit("")
    return items, faults


def _name_problem(path: str) -> str:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return _("is not named in UTF-8, which engines refuse")
    if re.search(r"[\x00-\x1f\x7f]", path):
        return _("has a control character in its name")
    return ""


def _link_problem(root: Path, path: str, link: str) -> str:
    """Why a link may not be copied; "" when it may. Checked twice: as text, and as the file system follows it."""
    if link.startswith("/"):
        return _("is absolute and leads elsewhere in the image")
    as_text = os.path.normpath(os.path.join(os.path.dirname(path), link))
    real = Path(os.path.realpath(root / path))
    if as_text.split("/")[0] == ".." or not real.is_relative_to(root):
        return _("leaves the folder")
    return ""


def _copy_file(source: Path, target: Path, mode: int) -> tuple[str, int, bool]:
    """(SHA-256, bytes, whether the target was changed). The hash is of the bytes that are in the target."""
    try:
        digest = sha256_file(source)
        count = source.stat().st_size
    except OSError as error:
        raise SourceError(
            _("{source} cannot be read: {why}", source=source, why=os_says(error)),
            hint=_("run the same command again"),
        ) from None
    with storage_errors(target):
        status = _status(target)
        same = (
            status is not None
            and stat.S_ISREG(status.st_mode)
            and status.st_nlink == 1
            and status.st_size == count
            and sha256_file(target) == digest
        )
        if not same:
            digest, count = _write_copy(source, target)
        when = content_mtime(digest)
        os.chmod(target, mode)
        if target.stat().st_mtime_ns != when * 10**9:
            os.utime(target, (when, when))
    return digest, count, not same


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def _write_copy(source: Path, target: Path) -> tuple[str, int]:
    """Copy while hashing, so that an editor that saves meanwhile cannot make hash and bytes differ.

    Not flushed to disk: a context is compared by content every time, and flushing thousands of files is slow.
    """
    temporary = target.with_name(f"{target.name[:200]}.gapforge-tmp")
    digest, count = hashlib.sha256(), 0
    try:
        with open(source, "rb") as reader, open(temporary, "wb") as writer:
            while chunk := reader.read(CHUNK):
                digest.update(chunk)
                writer.write(chunk)
                count += len(chunk)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return digest.hexdigest(), count


def _remove_others(target: Path, wanted: Mapping[str, _Item]) -> list[str]:
    """Delete from the copy what the source does not have, or has as something else. Returns the paths."""
    removed: list[str] = []

    def visit(folder: str) -> None:
        with os.scandir(target / folder) as entries:
            found = sorted(entries, key=lambda e: e.name)
        for entry in found:
            path = folder + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            kind = "folder" if is_folder else "link" if entry.is_symlink() else "file"
            item = wanted.get(path)
            if item is not None and item.kind == kind:
                if is_folder:
                    visit(path + "/")
                continue
            removed.append(path)
            if is_folder:
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)

    with storage_errors(target):
        visit("")
    return removed


def _read_ignore(root: Path) -> list[re.Pattern[str]]:
    """The patterns of `.gapforgeignore`; SourceError for a line that cannot be one."""
    file = root / IGNORE_FILE
    if not file.is_file() or file.is_symlink():
        return []
    faults, patterns = [], []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            _("{file} cannot be read: {why}", file=file, why=says(error)),
            hint=_("make it UTF-8 text, one pattern a line"),
        ) from None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        where = _("{file}: line {number}", file=file, number=number)
        if text.startswith("!"):
            faults.append(
                Fault(
                    where,
                    _('"{text}" takes a pattern back', text=text),
                    _("patterns to leave out only"),
                )
            )
        elif ".." in text.split("/") or "\\" in text:
            faults.append(
                Fault(where, _('"{text}" is no pattern', text=text), _("names with *, ? and **"))
            )
        else:
            patterns.append(_pattern(text))
    if faults:
        raise SourceError(
            _("{file} cannot be used", file=file),
            faults=faults,
            hint=_("correct it, then run the same command again"),
        )
    return patterns


def _pattern(glob: str) -> re.Pattern[str]:
    """A glob as a pattern on paths (folders end in "/"): ``*`` and ``?`` stay inside a name, ``**`` does not.

    Without "/" (but at the end) it matches a name at any depth; with one it counts from the top folder.
    """
    folders_only = glob.endswith("/")
    body = glob.strip("/")
    anchored = "/" in body or glob.startswith("/")
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", body)
    text = "".join(parts.get(piece, re.escape(piece)) for piece in pieces)
    return re.compile(
        ("" if anchored else "(?:.*/)?") + text + ("/" if folders_only else "/?"), re.DOTALL
    )


def _matches(patterns: list[re.Pattern[str]], path: str, is_folder: bool) -> bool:
    shown = path + "/" if is_folder else path
    return any(pattern.fullmatch(shown) for pattern in patterns)
