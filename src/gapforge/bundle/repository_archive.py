"""gapforge itself as one object of a bundle: an archive of the repository, so that code, presets and locks are of
the same moment.

The archive is a plain tar that has one form for the same files: ustar headers of regular files alone, sorted, mode
644 or 755, no owner and no date, not compressed (other versions of zlib give other bytes). Headers are made and read
here and not by tarfile, which fills them in differently from one Python to the next and reads far more than we write.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gapforge.base.errors import BundleError, Fault, ToolError
from gapforge.base.files import sha256_bytes, unsafe_path_reason, write_bytes
from gapforge.base.i18n import _, ngettext, pgettext
from gapforge.base.process import run
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.base.system_errors import unreadable
from gapforge.base.text import printable
from gapforge.bundle.gitignore import FILE as IGNORE_FILE
from gapforge.bundle.gitignore import is_ignored, rules_in
from gapforge.bundle.receiver_program import RECEIVER

MAX_ARCHIVE = 64 << 20  # bytes; gapforge has 3 MB
MAX_MEMBERS = 20_000
BLOCK = 512
_END = bytes(2 * BLOCK)
_OURS = {"artifacts", "dist"}  # at the top; results, not gapforge
_CACHES = {"__pycache__", ".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}
_PRODUCT = re.compile(
    rf"\.?(?:repair-)?[0-9a-f]{{24}}[-.].*|\.?{re.escape(RECEIVER)}(?:\.part)?|.*\.gfv",
    re.IGNORECASE,
)
# .env, and what editors and people keep beside it: .env~, .env-old
_SECRETS = re.compile(r"#?\.env(?:[^a-z0-9].*)?", re.DOTALL)
_KEY = re.compile(
    rb"^-----BEGIN [A-Z ]*PRIVATE KEY-----", re.MULTILINE
)  # a certificate may come before it


@dataclass(frozen=True)
class Member:
    """A file of the archive: ``size`` bytes from ``offset``."""

    name: str
    executable: bool
    offset: int
    size: int


def archive_name(sha256: str) -> str:
    """What the archive is called as a file."""
    return f"tool-{sha256}.tar"


def private_reason(name: str) -> str:
    """Why a path is never in an archive, whatever git says; "" for all others.

    Compared the way that the least careful file system compares names: upper case is lower case there, and dots and
    blanks at the end do not count.
    """
    parts = [part.casefold().rstrip(". ") for part in name.split("/")]
    if parts[0] in _OURS or parts[0].startswith(".gapforge"):
        return _("lies in {part}/, which belongs to this machine", part=parts[0])
    if ".git" in parts:
        return _("lies in git's own folder")
    if any(_SECRETS.fullmatch(part) and part != ".env.template" for part in parts):
        return _("may hold secrets")
    return ""


# -- making


def make_archive(project: Project, locks: Mapping[str, bytes]) -> bytes:
    """The archive of the project's repository. ``locks`` are the texts that the bundle's locks have, by preset.

    Raises BundleError naming everything that cannot go into it.
    """
    files: dict[str, tuple[bytes, bool]] = {}
    faults: list[Fault] = []
    total = 0
    for raw in _listed(project):
        name = raw.decode("utf-8", "backslashreplace")
        if _left_out(project, name):
            continue
        try:
            found = _read(project.root, raw, name)
        except FileNotFoundError:
            continue  # deleted, and not committed yet
        except (ValueError, OSError) as error:
            why = str(error)
            if isinstance(error, OSError):
                why = unreadable(error)
            faults.append(Fault(printable(name), why))
            continue
        total += len(found[0])
        if total > MAX_ARCHIVE:
            raise BundleError(
                _(
                    "the repository has more than {max_archive}; it is not all gapforge's",
                    max_archive=human_bytes(MAX_ARCHIVE),
                ),
                faults=[
                    Fault(path, _("has {count} bytes", count=len(data)))
                    for path, (data, _unused) in sorted(
                        {**files, name: found}.items(), key=lambda item: -len(item[1][0])
                    )[:5]
                ],
                hint=_(
                    "move away what does not belong there, or name it in {ignore_file}",
                    ignore_file=IGNORE_FILE,
                ),
            )
        files[name] = found
    if faults:
        raise BundleError(
            ngettext(
                "{count} file of the repository cannot be packed",
                "{count} files of the repository cannot be packed",
                len(faults),
            ),
            faults=faults,
            hint=_("move them away, or name them in {ignore_file}", ignore_file=IGNORE_FILE),
        )
    if len(files) >= MAX_MEMBERS:
        raise BundleError(
            _("the repository has {count} files", count=len(files)),
            hint=_("name what is not gapforge's in {ignore_file}", ignore_file=IGNORE_FILE),
        )
    for preset, text in locks.items():
        path = f"presets/{preset}.lock.json"
        if (
            files.setdefault(path, (text, False))[0] != text
            or f"presets/{preset}.json" not in files
        ):
            raise BundleError(
                _(
                    "presets/{preset}.json and its lock are not in the repository as "
                    "they are packed",
                    preset=preset,
                ),
                hint=_("./gapforge check {preset}; then the same command again", preset=preset),
            )
    if "src/gapforge/__init__.py" not in files:
        raise BundleError(
            _("{root} is not a repository of gapforge", root=project.root),
            hint=_("pack from a checkout"),
        )
    return render(files)


def keep_archive(project: Project, data: bytes) -> Path:
    """Keep a copy at the sender, so that a repair can be answered after the repository changed; gives where."""
    target = project.state / "bundles" / archive_name(sha256_bytes(data))
    if not target.is_file() or target.read_bytes() != data:
        write_bytes(target, data)
    return target


def render(files: Mapping[str, tuple[bytes, bool]]) -> bytes:
    """The archive of path -> (bytes, whether it may be run). Raises BundleError for a path that is too long."""
    parts: list[bytes] = []
    for name in sorted(files, key=lambda name: name.encode()):
        data, executable = files[name]
        parts += [_header(name, len(data), executable), data, bytes(-len(data) % BLOCK)]
    return b"".join([*parts, _END])


def _header(name: str, size: int, executable: bool) -> bytes:
    raw = name.encode()
    cut = 0
    if len(raw) > 100:
        cut = raw.rfind(b"/", 0, 156)
        if cut < 1 or len(raw) - cut - 1 > 100:
            raise BundleError(
                _("{name} has too long a path to pack", name=printable(name)),
                hint=_("shorten the name"),
            )
    prefix, rest = (raw[:cut], raw[cut + 1 :]) if cut else (b"", raw)
    mode = b"0000755\0" if executable else b"0000644\0"
    zero, no_date = b"0000000\0", b"00000000000\0"
    before = rest.ljust(100, b"\0") + mode + zero + zero + b"%011o\0" % size + no_date
    after = (
        b"0"
        + bytes(100)
        + b"ustar\00000"
        + bytes(64)
        + zero
        + zero
        + prefix.ljust(155, b"\0")
        + bytes(12)
    )
    checksum = sum(before) + 8 * ord(" ") + sum(after)
    return before + b"%06o\0 " % checksum + after


def _read(root: Path, raw: bytes, name: str) -> tuple[bytes, bool]:
    """A file's bytes and whether it may be run; ValueError saying why it is no file to carry."""
    path = root / os.fsdecode(raw)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(_("has a name that is not UTF-8 ({error})", error=error)) from None
    if reason := _bad_name(name):
        raise ValueError(reason)
    if path.parent.resolve() != root.resolve().joinpath(*name.split("/")[:-1]):
        raise ValueError(_("lies behind a symbolic link"))
    if path.is_symlink():
        raise ValueError(_("is a symbolic link; the archive holds files only"))
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise ValueError(_("is a repository of its own"))
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(_("is no regular file"))
        data = file.read(MAX_ARCHIVE + 1)
    if _KEY.search(data):
        raise ValueError(_("is a private key, which must not leave this machine"))
    return data, bool(status.st_mode & 0o100)


def _bad_name(name: str) -> str:
    if reason := unsafe_path_reason(name):
        return reason
    parts = name.split("/")
    if not name.isprintable() or any(
        part in ("", ".") or len(part.encode()) > 255 for part in parts
    ):
        return _("has a name that not every system takes")
    return ""


def _left_out(project: Project, name: str) -> bool:
    """What is never carried: this machine's own, and what pack and unpack made."""
    return bool(
        private_reason(name)
        or _PRODUCT.fullmatch(name.rsplit("/", 1)[-1])
        or _in_artifacts(project, name)
    )


def _in_artifacts(project: Project, name: str) -> bool:
    """Whether a path lies in the folder of artifacts, which may have any name inside the project."""
    root, artifacts = project.root.resolve(), project.artifacts.resolve()
    return root in artifacts.parents and (
        root / name == artifacts or artifacts in (root / name).parents
    )


def _listed(project: Project) -> list[bytes]:
    """The paths that make up the repository: what git knows or would add, or else all that is not to be ignored."""
    by_git = _git(project, "--cached", "--others", "--exclude-standard")
    return by_git if by_git is not None else list(walked(project))


def untracked(project: Project) -> list[str]:
    """Files that travel though nobody has added them to git: a person should see their names before they do."""
    names = [
        raw.decode("utf-8", "backslashreplace")
        for raw in _git(project, "--others", "--exclude-standard") or ()
    ]
    return [printable(name) for name in names if not _left_out(project, name)]


def _git(project: Project, *what: str) -> list[bytes] | None:
    """The paths that git lists, sorted; None where the project is no checkout, or git is missing or refuses."""
    if not os.path.lexists(project.root / ".git"):
        return None
    try:
        # Without -z names come as ASCII, whatever the locale is that their bytes would be decoded with.
        done = run(
            ["git", "-C", str(project.root), "-c", "core.quotePath=true", "ls-files", *what],
            env={"GIT_DIR": None, "GIT_WORK_TREE": None, "GIT_INDEX_FILE": None},
            check=False,
        )
    except ToolError:
        return None
    return (
        sorted({_unquoted(line) for line in done.output.split("\n") if line})
        if done.code == 0
        else None
    )


def _unquoted(line: str) -> bytes:
    """A path as git prints it: in double quotes, with C's escapes, where it has unusual characters."""
    raw = line.encode("utf-8", "surrogateescape")
    if not (len(raw) > 1 and raw[:1] == raw[-1:] == b'"'):
        return raw
    simple = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))

    def one(match: re.Match[bytes]) -> bytes:
        return bytes([int(match[1], 8) if len(match[1]) == 3 else simple[match[1][0]]])

    return re.sub(rb'\\([0-7]{3}|[abtnvfr"\\])', one, raw[1:-1])


def walked(project: Project) -> Iterator[bytes]:
    """The paths of a repository that git would list, by ``.gitignore`` alone."""
    base = rules_in(project.root / ".git" / "info" / "exclude")
    rules_of = {"": base + rules_in(project.root / IGNORE_FILE)}
    for where, folders, names in os.walk(project.root):
        relative = Path(where).relative_to(project.root).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        rules = rules_of.pop(prefix) if prefix in rules_of else base
        kept = []
        for folder in sorted(folders):
            path = prefix + folder
            out = folder in _CACHES or private_reason(path) or _in_artifacts(project, path)
            if out or is_ignored(path, True, rules):
                continue
            if Path(where, folder).is_symlink():
                names.append(folder)
                continue
            kept.append(folder)
            rules_of[f"{path}/"] = rules + rules_in(Path(where, folder, IGNORE_FILE), f"{path}/")
        folders[:] = kept
        for name in sorted(names):
            if not name.endswith(".pyc") and not is_ignored(prefix + name, False, rules):
                yield os.fsencode(prefix + name)


# -- reading


def read_archive(path: Path) -> list[Member]:
    """The files of an archive, with every promise of its form checked. Raises BundleError saying what is not allowed.

    That the archive has the right hash says nothing about what somebody put into it.
    """
    members: list[Member] = []
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(handle).st_size
        if size > MAX_ARCHIVE + MAX_MEMBERS * 2 * BLOCK:
            raise _refused(pgettext("too large", "has {size} bytes", size=size))
        at = 0
        while (block := os.pread(handle, BLOCK, at)) != bytes(BLOCK):
            if len(block) < BLOCK:
                raise _refused(_("is cut short"))
            if len(members) == MAX_MEMBERS:
                raise _refused(_("has more than {max_members} files", max_members=MAX_MEMBERS))
            member = _parse(block, at + BLOCK)
            end = member.offset + member.size
            at = end + -end % BLOCK
            if at + len(_END) > size:
                raise _refused(
                    _(
                        "declares {size} bytes for {name}, more than it has",
                        size=member.size,
                        name=member.name,
                    )
                )
            if os.pread(handle, at - end, end) != bytes(at - end):
                raise _refused(_("hides something after {name}", name=member.name))
            members.append(member)
        if os.pread(handle, len(_END) + 1, at) != _END or at + len(_END) != size:
            raise _refused(_("goes on after its end"))
    finally:
        os.close(handle)
    _check_order(members)
    return members


def _parse(block: bytes, offset: int) -> Member:
    try:
        prefix, rest = block[345:500].rstrip(b"\0").decode(), block[:100].rstrip(b"\0").decode()
    except UnicodeDecodeError:
        raise _refused(_("names a file in another encoding than UTF-8")) from None
    name = f"{prefix}/{rest}" if prefix else rest
    shown = printable(name)[:200]
    kind = chr(block[156])
    if kind != "0":
        held = _called(kind)
        raise _refused(_("holds {held}: {shown}", held=held, shown=shown))
    if reason := _bad_name(name) or private_reason(name):
        raise _refused(_('names a file "{shown}", which {reason}', shown=shown, reason=reason))
    if not re.fullmatch(rb"[0-7]{11}\0", block[124:136]):
        raise _refused(_("declares no usable size for {shown}", shown=shown))
    member = Member(name, block[100:108] == b"0000755\0", offset, int(block[124:135], 8))
    try:
        usual = _header(name, member.size, member.executable)
    except BundleError:
        usual = b""
    if usual != block:
        raise _refused(_("describes {shown} in another way than gapforge does", shown=shown))
    return member


def _called(kind: str) -> str:
    """What a tar header of this type stands for."""
    extension, device = _("an extension header"), _("a device")
    return {
        "1": _("a hard link"),
        "2": _("a symbolic link"),
        "3": device,
        "4": device,
        "5": _("a folder"),
        "6": _("a pipe"),
        "x": extension,
        "g": extension,
        "L": extension,
        "S": _("a sparse file"),
    }.get(kind, _("something unknown"))


def _check_order(members: list[Member]) -> None:
    names = [member.name for member in members]
    for before, after in pairwise(names):
        if before.encode() >= after.encode():
            raise _refused(_("names {after} twice, or out of order", after=after))
    files = set(names)
    for name in names:
        parts = name.split("/")
        if any("/".join(parts[:count]) in files for count in range(1, len(parts))):
            raise _refused(_("has {name} inside of a file", name=name))


def _refused(what: str) -> BundleError:
    return BundleError(
        _(
            "the archive of gapforge that the bundle carries {what}; nothing of it was written",
            what=what,
        ),
        hint=_("somebody altered it; carry the bundle again, or unpack with --no-tool"),
    )
