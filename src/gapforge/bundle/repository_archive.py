"""Make and read the archive of gapforge's repository, one object of a bundle.

With it, code, presets and locks arrive in the same state. The archive is a tar with exactly one
form for the same files: ustar headers of regular files, sorted, mode 644 or 755, owner and time 0,
not compressed (versions of zlib differ in their output). Headers are made and parsed here, because
tarfile fills them in differently from one Python to the next and accepts far more than this.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gapforge.base.errors import BundleError, Fault
from gapforge.base.files import UnsuitableFile, contains, open_buffered, open_regular, sha256_bytes
from gapforge.base.i18n import N_, _, ngettext
from gapforge.base.path_checks import real_path, unsafe_path_reason
from gapforge.base.project import Project
from gapforge.base.secret_file_patterns import holds_private_key
from gapforge.base.system_errors import os_reason, unreadable
from gapforge.base.text_layout import printable
from gapforge.base.units import human_bytes
from gapforge.base.write_files import write_bytes
from gapforge.bundle.repository_files import (
    MANIFEST,
    displayed,
    private_reason,
    render_manifest,
    repository_files,
)
from gapforge.model.preset import Preset

MAX_ARCHIVE = 64 << 20  # bytes; gapforge has 3 MB
MAX_MEMBERS = 20_000
BLOCK = 512
MAX_ARCHIVE_FILE = MAX_ARCHIVE + MAX_MEMBERS * 2 * BLOCK
_END = bytes(2 * BLOCK)
_TYPES = {
    "1": N_("a hard link"),
    "2": N_("a symbolic link"),
    "3": N_("a device"),
    "4": N_("a device"),
    "5": N_("a folder"),
    "6": N_("a pipe"),
    "x": N_("an extension header"),
    "g": N_("an extension header"),
    "L": N_("an extension header"),
    "S": N_("a sparse file"),
}

Files = Mapping[str, tuple[bytes, bool]]  # path -> bytes, executable


@dataclass(frozen=True)
class Member:
    """A file in the archive: ``size`` bytes from ``offset``."""

    name: str
    executable: bool
    offset: int
    size: int


def archive_name(sha256: str) -> str:
    """Return the file name of the archive."""
    return f"tool-{sha256}.tar"


def make_archive(
    project: Project, locks: Mapping[str, bytes], presets: Iterable[Preset] = ()
) -> bytes:
    """Return the archive of the project's repository.

    ``locks`` are the texts of the locks in the bundle, by preset. The files of ``presets`` are in
    the archive even if git does not track them. Raise BundleError naming everything that cannot be
    packed.
    """
    files = _read_files(project, presets)
    for preset, text in locks.items():
        path = f"presets/{preset}.lock.json"
        packed, _executable = files.setdefault(path, (text, False))
        if packed != text or f"presets/{preset}.json" not in files:
            raise BundleError(
                _(
                    "presets/{preset}.json and its lock in the repository are not those that are "
                    "packed",
                    preset=preset,
                ),
                hint=_(
                    "./gapforge check {preset!q}; then run the same command again", preset=preset
                ),
            )
    if "src/gapforge/__init__.py" not in files:
        raise BundleError(
            _("{root} is not a gapforge repository", root=project.root),
            hint=_("run pack in a gapforge repository whose files git tracks: git add src"),
        )
    files[MANIFEST] = render_manifest(files), False
    return render(files)


def _read_files(project: Project, presets: Iterable[Preset]) -> dict[str, tuple[bytes, bool]]:
    files: dict[str, tuple[bytes, bool]] = {}
    faults: list[Fault] = []
    nested: list[str] = []
    total = 0
    for raw in repository_files(project, presets):
        name = displayed(raw).rstrip("/")
        try:
            files[name] = _read_file(project.root, raw, name)
        except FileNotFoundError:
            continue  # deleted, and the deletion is not committed yet
        except IsADirectoryError as error:
            if os.path.lexists(project.root / name / ".git"):
                nested.append(name)
                problem = _("a git repository of its own; git does not list the files in it")
                faults.append(Fault(printable(name), problem, _("a folder without .git")))
            else:  # for example an empty submodule
                faults.append(Fault(printable(name), os_reason(error), _("a regular file")))
        except OSError as error:
            faults.append(Fault(printable(name), unreadable(error)))
        except ValueError as error:
            faults.append(Fault(printable(name), str(error)))
        else:
            total += len(files[name][0])
            if total > MAX_ARCHIVE:
                raise _repository_too_large(files)
    if faults:
        raise BundleError(
            ngettext(
                "{count} file of the repository cannot be packed",
                "{count} files of the repository cannot be packed",
                len(faults),
            ),
            faults=faults,
            hint=_nested_hint(nested[0])
            if len(nested) == len(faults)
            else _("move them to another folder, or add them to .gitignore"),
        )
    if len(files) >= MAX_MEMBERS:
        raise BundleError(
            _(
                "the repository has {count} files; the limit is {limit}",
                count=len(files),
                limit=MAX_MEMBERS,
            ),
            hint=_("add what does not belong to gapforge to .gitignore"),
        )
    return files


def _nested_hint(folder: str) -> str:
    """Return how to pack a folder that is a git repository of its own, or to do without it."""
    return _(
        "to pack its files: git rm -f --cached --ignore-unmatch {folder!q}; mv {folder!q}/.git "
        "OTHER-FOLDER; to leave it out, also if it is the source of an application: the same git "
        "command, a line /{folder} in .gitignore, and at the site --app-source FOLDER",
        folder=folder,
    )


def _repository_too_large(files: Files) -> BundleError:
    largest = sorted(files.items(), key=lambda item: -len(item[1][0]))[:5]
    return BundleError(
        _(
            "the repository has more than {limit}; some files cannot belong to gapforge",
            limit=human_bytes(MAX_ARCHIVE),
        ),
        faults=[
            Fault(path, _("{size} bytes", size=len(data))) for path, (data, _executable) in largest
        ],
        hint=_("move them to another folder, or add them to .gitignore"),
    )


def _read_file(root: Path, raw: bytes, name: str) -> tuple[bytes, bool]:
    """Return the bytes of a file and whether it is executable.

    Raise ValueError with the reason if the file cannot be packed, IsADirectoryError for a folder.
    """
    path = root / os.fsdecode(raw)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(_("the name is not UTF-8 ({why})", why=error)) from None
    if reason := _bad_name_reason(name):
        raise ValueError(reason)
    if real_path(path.parent) != real_path(root).joinpath(*name.split("/")[:-1]):
        raise ValueError(_("a folder of the path is a symbolic link"))
    if path.is_symlink():
        raise ValueError(_("symbolic link; the archive contains only regular files"))
    try:
        with open_buffered(path) as file:
            executable = bool(os.fstat(file.fileno()).st_mode & 0o100)
            data = file.read(MAX_ARCHIVE + 1)
    except UnsuitableFile as error:
        raise ValueError(error.strerror) from None
    if holds_private_key(data):
        raise ValueError(_("private key; it must not leave this machine"))
    return data, executable


def _bad_name_reason(name: str) -> str:
    if reason := unsafe_path_reason(name):
        return reason
    parts = name.split("/")
    invalid = any(part in ("", ".") or len(part.encode()) > 255 for part in parts)
    if invalid or not name.isprintable():
        return _("some systems do not support this name")
    return ""


def keep_archive(project: Project, data: bytes) -> Path:
    """Keep a copy, so that a repair is possible after the repository changed. Return the path."""
    target = project.state / "bundles" / archive_name(sha256_bytes(data))
    if not contains(target, data):
        write_bytes(target, data)
    return target


def render(files: Files) -> bytes:
    """Return the archive of these files. Raise BundleError for a path that is too long."""
    blocks: list[bytes] = []
    for name in sorted(files, key=lambda name: name.encode()):
        data, executable = files[name]
        blocks += [_header(name, len(data), executable), data, bytes(-len(data) % BLOCK)]
    return b"".join([*blocks, _END])


def _header(name: str, size: int, executable: bool) -> bytes:
    raw = name.encode()
    cut = 0
    if len(raw) > 100:
        cut = raw.rfind(b"/", 0, 156)
        if cut < 1 or len(raw) - cut - 1 > 100:
            raise BundleError(
                _("{name}: the path is too long to pack", name=printable(name)),
                hint=_("shorten the name"),
            )
    prefix, rest = (raw[:cut], raw[cut + 1 :]) if cut else (b"", raw)
    zero = b"0000000\0"
    mode = b"0000755\0" if executable else b"0000644\0"
    before = rest.ljust(100, b"\0") + mode + zero + zero + b"%011o\0" % size + b"00000000000\0"
    after = (
        b"0" + bytes(100) + b"ustar\00000" + bytes(64) + zero + zero + prefix.ljust(155, b"\0")
    ) + bytes(12)
    checksum = sum(before) + 8 * ord(" ") + sum(after)
    return before + b"%06o\0 " % checksum + after


def read_archive(path: Path) -> list[Member]:
    """Return the files of an archive. Raise BundleError for anything that ``render`` never writes.

    The checksum of the archive proves nothing about its contents: somebody may have made it.
    """
    members: list[Member] = []
    with open_regular(path) as file:
        handle = file.fileno()
        size = os.fstat(handle).st_size
        if size > MAX_ARCHIVE_FILE:
            limit = MAX_ARCHIVE_FILE
            raise _rejected(_("{size} bytes; the limit is {limit}", size=size, limit=limit))
        at = 0
        while (block := os.pread(handle, BLOCK, at)) != bytes(BLOCK):
            if len(block) < BLOCK:
                raise _rejected(_("truncated"))
            if len(members) == MAX_MEMBERS:
                raise _rejected(_("more than {limit} files", limit=MAX_MEMBERS))
            member = _parse_header(block, at + BLOCK)
            end = member.offset + member.size
            at = end + -end % BLOCK
            if at + len(_END) > size:
                raise _rejected(
                    _(
                        "{name} has {size} bytes, more than the archive",
                        name=member.name,
                        size=member.size,
                    )
                )
            if os.pread(handle, at - end, end) != bytes(at - end):
                raise _rejected(_("hidden data after {name}", name=member.name))
            members.append(member)
        if os.pread(handle, len(_END) + 1, at) != _END or at + len(_END) != size:
            raise _rejected(_("data after the end of the archive"))
    _check_order([member.name for member in members])
    return members


def _parse_header(block: bytes, offset: int) -> Member:
    try:
        prefix, rest = block[345:500].rstrip(b"\0").decode(), block[:100].rstrip(b"\0").decode()
    except UnicodeDecodeError:
        raise _rejected(_("a file name is not UTF-8")) from None
    name = f"{prefix}/{rest}" if prefix else rest
    shown = printable(name)[:200]
    kind = chr(block[156])
    if kind != "0":
        kind = _(_TYPES.get(kind, N_("an unknown type")))
        raise _rejected(_("{name} is {type}", name=shown, type=kind))
    if reason := _bad_name_reason(name) or private_reason(name):
        raise _rejected(_('file "{name}": {why}', name=shown, why=reason))
    if not re.fullmatch(rb"[0-7]{11}\0", block[124:136]):
        raise _rejected(_("{name} has an invalid size", name=shown))
    member = Member(name, block[100:108] == b"0000755\0", offset, int(block[124:135], 8))
    try:
        expected = _header(name, member.size, member.executable)
    except BundleError:
        expected = b""
    if expected != block:
        raise _rejected(_("the header of {name} is not as gapforge writes it", name=shown))
    return member


def _check_order(names: list[str]) -> None:
    for before, after in pairwise(names):
        if before.encode() >= after.encode():
            raise _rejected(_("{name} is listed twice or out of order", name=after))
    files = set(names)
    for name in names:
        parts = name.split("/")
        if any("/".join(parts[:count]) in files for count in range(1, len(parts))):
            raise _rejected(_("{name} is inside another file", name=name))


def _rejected(why: str) -> BundleError:
    return BundleError(
        _(
            "the archive of the gapforge repository is not valid, nothing was written: {why}",
            why=why,
        ),
        hint=_("somebody altered it; carry the bundle again, or run unpack with --no-tool"),
    )
