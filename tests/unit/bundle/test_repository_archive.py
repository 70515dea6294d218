"""The repository in a bundle: the same bytes everywhere, nothing private, careful installation."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bundles import PRESET, RUN_ENV, Sender, carry, names, receive, repair, scan_at, sender, site_at
from fabricated_artifacts import fabricate, write_lock
from gapforge.base.errors import BundleError, StorageError
from gapforge.base.files import sha256_bytes, sha256_file
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.bundle import install_repository as installing
from gapforge.bundle.contents import Contents, preset_contents
from gapforge.bundle.install_repository import (
    CHECKOUT,
    FOREIGN,
    INSTALLED,
    LEFT,
    SAVED,
    WAITS,
    Installed,
    install,
)
from gapforge.bundle.pack import Packed, pack
from gapforge.bundle.place_volumes import count_media
from gapforge.bundle.receiver_program import RECEIVER
from gapforge.bundle.repository_archive import (
    BLOCK,
    keep_archive,
    make_archive,
    read_archive,
    render,
)
from gapforge.bundle.repository_files import MANIFEST, private_reason, untracked_files
from gapforge.bundle.unpack import unpack
from gapforge.bundle.volume_format import Part
from gapforge.bundle.volume_plan import make_plan
from gapforge.cli import main as cli
from gapforge.model import lock as locks
from gapforge.model import preset as documents
from gapforge.store import gc
from gapforge.store.store import Store
from power_cut import power_cut
from raised_errors import assert_error
from samples import ROOT

CANARY = "SECRET-CANARY-7f3a"
GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "HOME": "/nonexistent"}
SMALL = {
    "src/gapforge/__init__.py": (b"one = 1\n", False),
    "gapforge": (b"#!/bin/sh\n", True),
    f"presets/{PRESET}.json": ((ROOT / "presets" / f"{PRESET}.json").read_bytes(), False),
    "docs/a.md": (b"a\n", False),
}


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words],
        check=True,
        capture_output=True,
        env={**os.environ, **GIT},
    )


def lay(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def tree(folder: Path) -> dict[str, str]:
    """Return checksum and mode of every file but artifacts and .gapforge, by path."""
    return {
        name: f"{sha256_file(path)} {bool(path.stat().st_mode & 0o100)}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not (name := path.relative_to(folder).as_posix()).startswith(
            (".gapforge/", "artifacts/")
        )
    }


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[[str], Project]:
    """Create small gapforge repositories with a preset that can be packed."""

    def make(name: str, *, with_git: bool = True) -> Project:
        root = tmp_path / name
        shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
        lay(
            root,
            {
                ".gitignore": (ROOT / ".gitignore").read_bytes() + b"*.secret\n/private/\n",
                ".env": CANARY.encode(),
                "app/.env": CANARY.encode(),
                "my.secret": CANARY.encode(),
                "private/key": CANARY.encode(),
                "dist/report": CANARY.encode(),
                ".gapforge/x": CANARY.encode(),
                "src/__pycache__/x.pyc": b"x",
                ".env.template": b"KEY=\n",
                "docs/한글 문서.md": "문서\n".encode(),
            },
        )
        for file in ("gapforge", "Dockerfile"):
            shutil.copy(ROOT / file, root / file)
        (root / "presets").mkdir()
        shutil.copy(ROOT / "presets" / f"{PRESET}.json", root / "presets")
        project = Project(root, root / "artifacts")
        fabricate(project, documents.find(project.presets, PRESET))
        if with_git:
            git(root, "init", "-q")
            git(root, "add", "-A")
            git(root, "commit", "-q", "-m", "x")
        return project

    return make


def contents_of(
    project: Project, archive: bytes | None = None, held: frozenset[str] = frozenset()
) -> Contents:
    contents = preset_contents(project, [documents.find(project.presets, PRESET)], held)
    archive = archive or make_archive(
        project, {v.preset: contents.texts[v.lock] for v in contents.presets}
    )
    contents.add_repository(archive, held)
    return contents


def carry_tool(
    project: Project,
    to: Path,
    archive: bytes | None = None,
    *,
    size: int = 10**9,
    held: frozenset[str] = frozenset(),
) -> Packed:
    contents = contents_of(project, archive, held)
    tool = (
        next(sha for sha in contents.texts if archive is None or sha == sha256_bytes(archive))
        if archive
        else next(sha for sha, data in contents.texts.items() if data[257:262] == b"ustar")
    )
    keep_archive(project, contents.texts[tool])
    plan = make_plan(contents.parts, contents.presets, size, tool=tool)
    return pack(project, plan, contents, [to], Progress("pack", quiet=True))


def command(root: Path, *words: str, lang: str = "en") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gapforge", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**RUN_ENV, "GAPFORGE_ROOT": str(root), "GAPFORGE_LANG": lang},
    )


def stored(site: Project, archive: bytes) -> str:
    return Store(site.store).add_bytes(archive)


def put(site: Project, archive: bytes, **flags: bool) -> Installed:
    return install(site, stored(site, archive), **flags)


def put_manifest(project: Project, archive: bytes, extra: str = "") -> None:
    """Write the MANIFEST of an archive into a project."""
    file = project.root / ".gapforge" / "archive.tar"
    file.write_bytes(archive)
    member = next(member for member in read_archive(file) if member.name == MANIFEST)
    text = archive[member.offset :][: member.size].decode()
    (project.root / MANIFEST).write_text(text + extra)


def listed(archive: bytes, tmp_path: Path) -> list[str]:
    (tmp_path / "x.tar").write_bytes(archive)
    return [member.name for member in read_archive(tmp_path / "x.tar")]


# -- the archive


def test_checkouts_and_manifest_give_same_bytes(
    checkout: Callable[[str], Project], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = checkout("one")
    before = os.umask(0o077)
    try:
        two = checkout("a longer/path")
    finally:
        os.umask(before)
    for path in two.root.rglob("*.py"):
        os.utime(path, (5, 5))
    expected = make_archive(one, {})
    assert make_archive(two, {}) == expected
    monkeypatch.setenv("LC_ALL", "C")
    assert make_archive(two, {}) == expected
    site = site_at(tmp_path / "site")
    put(site, expected)
    assert make_archive(site, {}) == expected
    put_manifest(one, expected)
    monkeypatch.setenv("PATH", str(tmp_path))  # a checkout where git is not installed
    assert make_archive(one, {}) == expected


def test_archive_contains_nothing_private(
    checkout: Callable[[str], Project], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = checkout("one")
    git(project.root, "add", "-f", ".env", "app/.env")  # tracked by mistake
    lay(
        project.root, {".env~": CANARY.encode(), "app/#.env#": CANARY.encode()}
    )  # copies of editors
    lay(
        project.root,
        {
            "0123456789abcdef01234567-0001.gfv": CANARY.encode(),
            RECEIVER: b"x",
            "out/repair-0123456789abcdef01234567.json": CANARY.encode(),
        },
    )
    (project.root / "Dockerfile").unlink()
    carried = Project(project.root, project.root / "carried disk")
    shutil.move(project.artifacts, carried.artifacts)
    for with_git in (True, False):
        if not with_git:
            archive = make_archive(carried, {})
            put_manifest(project, archive, extra=".env\nartifacts/x\n../outside\n")
            monkeypatch.setenv("PATH", str(tmp_path))
        archive = make_archive(carried, {})
        assert CANARY.encode() not in archive
        found = listed(archive, tmp_path)
        assert {
            "gapforge",
            f"presets/{PRESET}.lock.json",
            "docs/한글 문서.md",
            ".env.template",
        } < set(found)
        assert not [
            name
            for name in found
            if name.startswith(("artifacts", "dist", "carried", ".g")) and name != ".gitignore"
        ]
        assert "Dockerfile" not in found


def test_tar_reads_the_archive(checkout: Callable[[str], Project], tmp_path: Path) -> None:
    project = checkout("one")
    lay(
        project.root,
        {
            "docs/" + "deep/" * 20 + "x" * 90: b"far down\n",
            "empty": b"",
            "docs/block": b"x" * BLOCK,
        },
    )
    git(project.root, "add", "--all")
    archive = make_archive(project, {})
    names_in = listed(archive, tmp_path)
    with tarfile.open(tmp_path / "x.tar") as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == names_in
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime, m.type) for m in members} == {
            (0, 0, "", "", 0, b"0")
        }
        assert {m.mode for m in members} == {0o644, 0o755} and tar.getmember(
            "gapforge"
        ).mode == 0o755
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(
        ["tar", "-xf", str(tmp_path / "x.tar"), "-C", str(out)], check=True, capture_output=True
    )
    names_in.remove(MANIFEST)
    assert (out / MANIFEST).read_text().splitlines() == names_in
    assert all((out / name).read_bytes() == (project.root / name).read_bytes() for name in names_in)


@pytest.mark.parametrize("with_git", [True, False])
def test_only_what_belongs_to_the_presets_is_added(
    checkout: Callable[[str], Project], tmp_path: Path, with_git: bool
) -> None:
    """What git or MANIFEST does not list is somebody's data, unless a packed preset names it."""
    project = checkout("one")
    archive = make_archive(project, {})
    if not with_git:
        project = site_at(tmp_path / "site")
        put(project, archive)
    before = set(listed(archive, tmp_path))
    new = {
        "presets/own.json",
        "presets/own.lock.json",
        "components/own/component.json",
        "apps/own/main.c",
        "apps/own/src/a.c",
    }
    data = [
        "data/films/1.mp4",
        "data/2.mp4",
        "apps/other/main.c",
        "notes.txt",
        "presets/other.json",
    ]
    lay(project.root, dict.fromkeys([*new, *data], b"{}"))
    lay(project.root, {"apps/own/.env": CANARY.encode(), "components/own/__pycache__/x.pyc": b""})
    own = replace(
        documents.find(ROOT / "presets", PRESET),
        name="own",
        application=documents.Application(name="own", source="apps/own/"),
    )
    added = set(listed(make_archive(project, {}, [own]), tmp_path)) - before
    assert added == new
    found = untracked_files(project, [own])
    assert set(found.packed) == (new if with_git else set())
    left_out = ["apps/other/", "data/", "notes.txt", "presets/other.json"]
    assert found.left_out == (left_out if with_git else [])


def test_pack_needs_git_or_manifest(
    checkout: Callable[[str], Project], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, copy = checkout("one"), checkout("two")
    shutil.rmtree(copy.root / ".git")
    with pytest.raises(BundleError) as caught:
        make_archive(copy, {})
    assert_error(caught.value, BundleError, root=copy.root, manifest=MANIFEST)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BundleError) as caught:
        make_archive(project, {})
    assert_error(caught.value, BundleError, root=project.root)


@pytest.mark.parametrize("with_git", [True, False])
def test_unpackable_files_are_named(
    checkout: Callable[[str], Project],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_git: bool,
) -> None:
    project = checkout("one")
    (tmp_path / "outside").mkdir()
    lay(tmp_path / "outside", {"한글 문서.md": CANARY.encode()})  # git tracks this name
    shutil.rmtree(project.root / "docs")
    os.symlink(tmp_path / "outside", project.root / "docs")
    os.symlink("/etc/hostname", project.root / "host")
    lay(
        project.root,
        {
            "id_ed25519": b"-----BEGIN OPENSSH PRIVATE KEY-----\nx\n",
            "src/a\nb.py": b"x",
            "server.pem": b"-----BEGIN CERTIFICATE-----\nx\n-----BEGIN PRIVATE KEY-----\nx\n",
        },
    )
    (project.root / os.fsdecode(b"caf\xe9.md")).write_bytes(b"x")
    git(project.root, "add", "--", "host", "*.pem", "id_ed25519", "src", "caf*")
    unsafe = ["host", "id_ed25519", "server.pem"]
    if with_git:
        unsafe += ["src/a\\nb.py", "caf\\xe9.md", "docs/한글 문서.md"]
    else:
        (project.root / MANIFEST).write_text("\n".join([*unsafe, "docs/한글 문서.md"]))
        unsafe.append("docs/한글 문서.md")
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BundleError) as caught:
        make_archive(project, {})
    assert_error(caught.value, BundleError, count=len(unsafe), where=unsafe)
    assert CANARY not in caught.value.render()


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("pack_it", [True, False])
def test_nested_repository_of_an_application_is_rejected_with_the_way_out(
    checkout: Callable[[str], Project], tmp_path: Path, tracked: bool, pack_it: bool
) -> None:
    project = checkout("one")
    own = replace(
        documents.find(ROOT / "presets", PRESET),
        application=documents.Application(name="own", source="my-app"),
    )
    lay(project.root, {"my-app/main.py": b"x"})
    git(project.root / "my-app", "init", "-q")
    git(project.root / "my-app", "add", "--all")
    git(project.root / "my-app", "commit", "-q", "-m", "x")
    make_archive(project, {})  # of no preset, and git does not track it
    if tracked:
        git(project.root, "add", "my-app")
    with pytest.raises(BundleError) as caught:
        make_archive(project, {}, [own])
    assert [fault.where for fault in caught.value.faults] == ["my-app"]
    # What the hint says.
    commands = ("git rm -f --cached --ignore-unmatch my-app", "mv my-app/.git ", "/my-app in .git")
    assert all(words in caught.value.hint for words in commands)
    git(project.root, *commands[0].split()[1:])
    if pack_it:
        shutil.move(project.root / "my-app/.git", tmp_path / "other")
    else:
        with (project.root / ".gitignore").open("a") as file:
            file.write("/my-app\n")
    assert ("my-app/main.py" in listed(make_archive(project, {}, [own]), tmp_path)) is pack_it


def test_folder_in_place_of_a_tracked_file_is_rejected(checkout: Callable[[str], Project]) -> None:
    project = checkout("one")
    lay(project.root, {"notes": b"x"})
    git(project.root, "add", "notes")
    (project.root / "notes").unlink()
    lay(project.root, {"notes/one": b"x"})
    with pytest.raises(BundleError) as caught:
        make_archive(project, {})
    assert [fault.where for fault in caught.value.faults] == ["notes"]
    assert "--cached" not in caught.value.hint


def test_huge_file_is_rejected(
    checkout: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = checkout("one")
    lay(project.root, {"movie.mp4": b"x" * 900_000})
    git(project.root, "add", "movie.mp4")
    monkeypatch.setattr("gapforge.bundle.repository_archive.MAX_ARCHIVE", 800_000)
    with pytest.raises(BundleError) as caught:
        make_archive(project, {})
    assert caught.value.faults[0].where == "movie.mp4"


def test_lock_in_archive_equals_packed_lock(
    checkout: Callable[[str], Project], tmp_path: Path
) -> None:
    project = checkout("one")
    contents = contents_of(project)
    lock = contents.texts[contents.presets[0].lock]
    archive = make_archive(project, {PRESET: lock})
    (tmp_path / "x.tar").write_bytes(archive)
    with tarfile.open(tmp_path / "x.tar") as tar:
        held = tar.extractfile(f"presets/{PRESET}.lock.json")
        assert held is not None and held.read() == lock
    project.lock_file(PRESET).unlink()  # now only artifacts/ has the lock
    assert make_archive(project, {PRESET: lock}) == archive
    project.lock_file(PRESET).write_bytes(lock + b" ")  # changed since the bundle was planned
    with pytest.raises(BundleError):
        make_archive(project, {PRESET: lock})
    project.lock_file(PRESET).write_bytes(lock)
    project.preset_file(PRESET).unlink()
    with pytest.raises(BundleError):
        make_archive(project, {PRESET: lock})


# -- hostile archives


def header(archive: bytes, at: int, data: bytes) -> bytes:
    """Return the archive with a changed first header and a valid header checksum."""
    block = bytearray(archive[:BLOCK])
    block[at : at + len(data)] = data
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + archive[BLOCK:]


def by_tarfile(tmp_path: Path, *members: tuple[str, bytes, bytes]) -> bytes:
    """Return an archive by tarfile with members (name, type, target of the link)."""
    with tarfile.open(tmp_path / "hostile.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target.decode()
            tar.addfile(info)
    return (tmp_path / "hostile.tar").read_bytes()


ONE = {"docs/a.md": (b"hello\n", False)}


def hostile(tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    good, odd = render(ONE), render({"x": (b"hello\n", False)})
    for name in (
        "../evil",
        "/etc/evil",
        "a/../../evil",
        "a\\b",
        "a//b",
        "./a",
        "a/./b",
        "artifacts/x",
        "dist/x",
        ".gapforge/x",
        ".gapforge-new/x",
        ".git/hooks/x",
        "app/.git/config",
        ".env",
        "app/.ENV",
        ".Git/x",
        ".env ",
        ".git./x",
        "Artifacts/x",
        "a\x1b[2Jb",
        "a\u202eb",
    ):
        yield f"name {name!r}", render({name: (b"x", False)})
    for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"x", b"g", b"L", b"S", b"\0", b"Z"):
        yield f"type {kind!r}", header(good, 156, kind)
    yield "tarfile's link", by_tarfile(tmp_path, ("docs", tarfile.SYMTYPE, b"/etc"))
    yield (
        "a path through a link",
        by_tarfile(tmp_path, ("d", tarfile.SYMTYPE, b".."), ("d/x", tarfile.REGTYPE, b"")),
    )
    for size in (
        b"77777777777\0",
        b"00000002001\0",
        b"-0000000001\0",
        b"\x80" + b"\0" * 10 + b"\x07",
        b"           \0",
    ):
        yield f"size {size!r}", header(good, 124, size)
    for mode in (b"0004755\0", b"0000777\0", b"0000000\0"):
        yield f"mode {mode!r}", header(good, 100, mode)
    yield "owner", header(good, 108, b"0001750\0")
    yield "user's name", header(good, 265, b"root")
    yield "not UTF-8", header(odd, 0, b"\xff")
    yield "no name", header(odd, 0, b"\0")
    yield "checksum", good[:148] + b"000000\0 " + good[156:]
    yield "hidden after a file", good[: BLOCK + 100] + b"x" + good[BLOCK + 101 :]
    yield "hidden at the end", good + b"x"
    yield "hidden further on", good + good
    yield "no end", good[:-BLOCK]
    yield "cut", good[: BLOCK + 3]
    yield "nothing", b""
    yield "twice", good[: 2 * BLOCK] + good
    yield "out of order", render({"b": (b"", False)})[:BLOCK] + render({"a": (b"", False)})
    yield "inside of a file", render({"a": (b"x", False), "a/b": (b"x", False)})
    yield "compressed", b"\x1f\x8b" + bytes(2000)


def test_hostile_archives_are_rejected(tmp_path: Path) -> None:
    site = site_at(tmp_path / "site")
    before = tree(site.root)
    cases = list(hostile(tmp_path))
    assert len({data for _, data in cases}) == len(cases)
    for what, data in cases:
        with pytest.raises(BundleError) as caught:
            put(site, data)
        assert "\x1b" not in caught.value.render(), what
        assert tree(site.root) == before, what
    (tmp_path / "good.tar").write_bytes(render(ONE))
    assert [m.name for m in read_archive(tmp_path / "good.tar")] == ["docs/a.md"]


def test_oversized_archive_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.tar"
    with open(file, "wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(BundleError):
        read_archive(file)
    monkeypatch.setattr("gapforge.bundle.repository_archive.MAX_MEMBERS", 3)
    file.write_bytes(render({f"f{n}": (b"", False) for n in range(4)}))
    with pytest.raises(BundleError):
        read_archive(file)


def test_every_flipped_header_bit_is_detected(tmp_path: Path) -> None:
    good, file = (
        render({"docs/a.md": (b"hello\n", False), "gapforge": (b"#!", True)}),
        tmp_path / "x.tar",
    )
    for bit in [*range(BLOCK * 8), *range(2 * BLOCK * 8, 3 * BLOCK * 8)]:
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        with pytest.raises(BundleError):
            read_archive(file)


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        "a/.env",
        ".env.local",
        ".env~",
        "a/#.env#",
        ".ENV-old",
        ".env_1/x",
        ".envrc",
        "a/.netrc",
        ".env.template~",
        ".GIT/x",
        "dist/a",
        "artifacts",
        ".gapforge-x/y",
    ],
)
def test_private_path_has_a_reason(name: str) -> None:
    assert private_reason(name)


@pytest.mark.parametrize(
    "name", ["docs/env.md", ".env.template", ".env.example", "src/.environment", "docs/.envelope/x"]
)
def test_similar_path_is_not_private(name: str) -> None:
    assert not private_reason(name)


# -- installing


def test_second_install_changes_nothing(checkout: Callable[[str], Project], tmp_path: Path) -> None:
    project = checkout("one")
    carry_tool(project, tmp_path / "medium", size=300_000)
    site = tmp_path / "bare site"
    site.mkdir()
    words = [
        sys.executable,
        "-I",
        "-S",
        str(tmp_path / "medium" / RECEIVER),
        "unpack",
        str(tmp_path / "medium"),
        "--json",
    ]
    done = subprocess.run(words, cwd=site, capture_output=True, text=True, check=False, env=RUN_ENV)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["tool"]["state"] == INSTALLED and told["tool"]["new"] == told["tool"]["files"] > 50
    checked = subprocess.run(
        ["./gapforge", "verify", PRESET],
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert checked.returncode == 0, checked.stderr
    assert not (site / ".gapforge-new").exists() and not (site / ".gapforge/replaced").exists()
    assert (site / "gapforge").stat().st_mode & 0o111 and CANARY not in "".join(
        path.read_text(errors="replace") for path in site.rglob("*") if path.is_file()
    )
    before = {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in site.rglob("*")
        if path.is_file()
    }
    done = subprocess.run(words, cwd=site, capture_output=True, text=True, check=False, env=RUN_ENV)
    again = json.loads(done.stdout)["tool"]
    assert done.returncode == 0 and (again["new"], again["replaced"], again["removed"]) == (
        0,
        [],
        [],
    )
    after = {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in site.rglob("*")
        if path.is_file()
    }
    assert {path for path in before if before[path] != after[path]} == set()
    assert {path.parent.name for path in set(after) - set(before)} <= {
        "custody",
        ".store",
        ".gapforge",
    }


def test_install_keeps_replaced_and_local_files(tmp_path: Path) -> None:
    site = site_at(tmp_path / "site")
    first = render(
        {
            **SMALL,
            "docs/old.md": (b"old\n", False),
            "docs/mine.md": (b"theirs\n", False),
            "gone/deep/x": (b"x", False),
        }
    )
    assert put(site, first).new == 6  # the preset was there already
    root = site.root
    lay(
        root,
        {
            "docs/a.md": b"changed here\n",
            "docs/mine.md": b"changed here too\n",
            "notes.txt": b"local\n",
            ".env": b"token\n",
            "dist/r": b"r",
            "artifacts/own/x": b"x",
        },
    )
    second = render(
        {
            **SMALL,
            "src/gapforge/__init__.py": (b"two = 2\n", False),
            "docs/new.md": (b"new\n", False),
        }
    )
    done = put(site, second)
    assert (done.state, done.new) == (INSTALLED, 1)
    assert done.replaced == ("docs/a.md", "src/gapforge/__init__.py")
    assert done.removed == ("docs/old.md", "gone/deep/x") and done.local == ("docs/mine.md",)
    kept = root / ".gapforge/replaced" / sha256_bytes(second)[:12]
    assert done.kept == (kept,)
    assert {
        p.relative_to(kept).as_posix(): p.read_bytes() for p in kept.rglob("*") if p.is_file()
    } == {
        "docs/a.md": b"changed here\n",
        "src/gapforge/__init__.py": b"one = 1\n",
        "docs/old.md": b"old\n",
        "gone/deep/x": b"x",
    }
    assert (
        not (root / "gone").exists()
        and (root / "docs/mine.md").read_bytes() == b"changed here too\n"
    )
    assert {
        name: (root / name).read_bytes()
        for name in ("notes.txt", ".env", "dist/r", "artifacts/own/x")
    } == {"notes.txt": b"local\n", ".env": b"token\n", "dist/r": b"r", "artifacts/own/x": b"x"}
    # The same archive again, over another change: kept files are not overwritten.
    lay(root, {"docs/a.md": b"changed again\n"})
    done = put(site, second)
    assert done.replaced == ("docs/a.md",) and [f.name for f in done.kept] == [f"{kept.name}.2"]
    assert (kept / "docs/a.md").read_bytes() == b"changed here\n"
    assert (done.kept[0] / "docs/a.md").read_bytes() == b"changed again\n"


def test_uninstalled_copy_is_replaced(tmp_path: Path) -> None:
    site = site_at(tmp_path / "site")
    lay(
        site.root,
        {
            "src/gapforge/__init__.py": b"old\n",
            "src/gapforge/extra.py": b"extra\n",
            "gapforge": b"#!/bin/sh\n",
        },
    )
    done = put(site, render(SMALL))
    assert (
        done.state == INSTALLED
        and done.replaced == ("src/gapforge/__init__.py",)
        and done.removed == ()
    )
    assert (site.root / "src/gapforge/extra.py").exists() and os.access(
        site.root / "gapforge", os.X_OK
    )


def test_git_checkout_is_not_changed(tmp_path: Path) -> None:
    site = site_at(tmp_path / "site")
    git(site.root, "init", "-q")
    before = tree(site.root)
    done = put(site, render(SMALL))
    assert (done.state, done.why) == (SAVED, CHECKOUT) and done.saved is not None
    assert done.saved.read_bytes() == render(SMALL) and tree(site.root) == before
    shutil.rmtree(site.root / ".git")
    (site.root / ".git").write_text("gitdir: /somewhere/else\n")  # a worktree
    assert put(site, render(SMALL)).state == SAVED


def test_folder_with_other_files_is_not_changed(tmp_path: Path) -> None:
    home = Project(tmp_path / "home", tmp_path / "home/artifacts")
    lay(home.root, {"docs/a.md": b"my own\n"})
    done = put(home, render(SMALL))
    assert (done.state, done.why) == (SAVED, FOREIGN)
    assert (home.root / "docs/a.md").read_bytes() == b"my own\n" and not (
        home.root / "src"
    ).exists()


def test_install_waits_for_complete_bundle(tmp_path: Path) -> None:
    site = site_at(tmp_path / "site")
    assert (
        put(site, render(SMALL), complete=False).state == INSTALLED
    )  # a new installation breaks nothing
    again = put(site, render(SMALL), complete=False)  # the second medium of the same bundle
    assert (again.state, again.changed) == (INSTALLED, False)
    newer = render({**SMALL, "docs/a.md": (b"newer\n", False)})
    done = put(site, newer, complete=False)
    assert (done.state, done.why) == (LEFT, WAITS) and (
        site.root / "docs/a.md"
    ).read_bytes() == b"a\n"
    assert (
        put(site, newer, wanted=False).state == LEFT
        and (site.root / "docs/a.md").read_bytes() == b"a\n"
    )
    assert put(site, newer).replaced == ("docs/a.md",)


@pytest.mark.parametrize("case", ["folder", "parent file", "parent link", "link out"])
def test_obstacles_are_named(tmp_path: Path, case: str) -> None:
    site = site_at(tmp_path / "site")
    root = site.root
    lay(root, {"src/gapforge/__init__.py": b"old\n"})
    (tmp_path / "outside").mkdir()
    if case == "folder":
        (root / "docs/a.md/x").mkdir(parents=True)
    elif case == "parent file":
        (root / "docs").write_text("a file")
    elif case == "parent link":
        (root / "other").mkdir()
        os.symlink("other", root / "docs")
    else:
        os.symlink(tmp_path / "outside", root / "docs")
    with pytest.raises(StorageError) as caught:
        put(site, render(SMALL))
    assert "docs" in caught.value.faults[0].where
    assert (root / "src/gapforge/__init__.py").read_bytes() == b"old\n" and not list(
        (tmp_path / "outside").iterdir()
    )


def test_link_is_replaced_not_followed(tmp_path: Path) -> None:
    site = site_at(tmp_path / "site")
    lay(site.root, {"src/gapforge/__init__.py": b"one = 1\n", "docs/x": b""})
    (tmp_path / "mine").write_text("precious")
    os.symlink(tmp_path / "mine", site.root / "docs/a.md")
    done = put(site, render(SMALL))
    assert done.replaced == ("docs/a.md",) and (tmp_path / "mine").read_text() == "precious"
    assert not (site.root / "docs/a.md").is_symlink() and (done.kept[0] / "docs/a.md").is_symlink()


def test_file_becomes_folder_and_back(tmp_path: Path) -> None:
    site = site_at(tmp_path / "site")
    flat, deep = (
        render({**SMALL, "x": (b"flat", False)}),
        render({**SMALL, "x/y/z": (b"deep", False)}),
    )
    for archive in (flat, deep, flat, deep):
        put(site, archive)
        assert (site.root / "x").is_file() == (archive is flat)
    assert (site.root / "x/y/z").read_bytes() == b"deep"


@pytest.mark.parametrize("other_disk", [False, True])
def test_installed_files_survive_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_disk: bool
) -> None:
    site = site_at(tmp_path / "site")
    replace = os.replace

    def refused(source: Path, target: Path) -> None:
        if installing._STAGE in str(source) and not str(source).endswith(".tmp"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, target)

    if other_disk:
        monkeypatch.setattr(os, "replace", refused)
    with power_cut(monkeypatch) as disk:
        put(site, render({**SMALL, "docs/old.md": (b"old\n", False)}))
        put(site, render({**SMALL, "docs/new.md": (b"new\n", False)}))
    assert (site.root / "docs/new.md").read_bytes() == b"new\n"
    assert disk.cut == [] and not [folder for folder in disk.lost if folder.exists()]


class Killed(BaseException):
    pass


def test_killed_install_is_finished_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {**SMALL, "docs/old.md": (b"old\n", False), "x": (b"flat", False)}
    new = {
        **SMALL,
        "src/gapforge/__init__.py": (b"two\n", False),
        "docs/new.md": (b"n", False),
        "x/y": (b"deep", False),
    }
    calls = {"count": 0, "stop": 0}

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            calls["count"] += 1
            if calls["count"] == calls["stop"]:
                raise Killed
            return function(*args, **more)

        return call

    for name in (
        "link_or_copy",
        "_put",
        "write_text",
        "sync_folder",
        "remove_folder",
        "mark_folder",
    ):
        monkeypatch.setattr(installing, name, counted(getattr(installing, name)))
    monkeypatch.setattr(installing._Install, "_remove", counted(installing._Install._remove))
    for stop in range(1, 60):
        site = site_at(tmp_path / f"site{stop}")
        calls.update(count=0, stop=0)
        put(site, render(old))
        lay(site.root, {"docs/a.md": b"mine\n"})
        calls.update(count=0, stop=stop)
        try:
            put(site, render(new))
        except Killed:
            pass
        else:
            assert stop > 8
            break
        calls.update(count=0, stop=0)
        put(site, render(new))
        assert {n: (site.root / n).read_bytes() for n in tree(site.root)} == {
            n: data for n, (data, _) in new.items()
        }, stop
        kept = {
            p.read_bytes() for p in (site.root / ".gapforge/replaced").rglob("*") if p.is_file()
        }
        assert kept == {b"mine\n", b"old\n", b"flat", b"one = 1\n"}, stop
        assert sorted(p.name for p in site.state.iterdir()) == [
            "replaced",
            "tool.json",
            "tool.lock",
        ], stop
        assert not (site.root / ".gapforge-new").exists()
    else:
        pytest.fail("the installation never finished")


def test_install_across_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if ".gapforge-new" in str(source) and ".gapforge-new" not in str(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    site = site_at(tmp_path / "site")
    site.state.mkdir()
    (site.state / ".tool.json.abc.tmp").write_text("of a run that was killed")
    put(site, render(SMALL))
    assert {n: (site.root / n).read_bytes() for n in tree(site.root)} == {
        n: data for n, (data, _) in SMALL.items()
    }
    assert sorted(p.name for p in site.state.iterdir()) == ["tool.json", "tool.lock"]


def test_killed_first_install_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_at(tmp_path / "site")
    whole = installing._put
    monkeypatch.setattr(installing, "_put", lambda source, target: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        put(site, render(SMALL), complete=False)
    monkeypatch.setattr(installing, "_put", whole)
    assert put(site, render(SMALL), complete=False).state == INSTALLED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": 2, "files": {"docs/a.md": "x"}}',
        '{"format": 1, "files": {"../outside": "%s", ".env": "%s", "notes": 3}}',
    ],
)
def test_damaged_record_removes_nothing(tmp_path: Path, text: str) -> None:
    site = site_at(tmp_path / "site")
    put(site, render(SMALL))
    lay(tmp_path, {"outside": b"x"})
    lay(site.root, {".env": b"x", "notes": b"x"})
    (site.state / "tool.json").write_text(text.replace("%s", sha256_bytes(b"x")))
    done = put(site, render(SMALL))
    assert done.removed == () and (tmp_path / "outside").exists() and (site.root / ".env").exists()


def test_full_disk_is_reported_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_at(tmp_path / "site")
    sha256 = stored(site, render(SMALL))
    real = os.statvfs(site.root)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result([*real[:4], 0, *real[5:]]))
    before = tree(site.root)
    with pytest.raises(StorageError) as caught:
        install(site, sha256)
    assert_error(caught.value, StorageError, root=site.root, free="0 B")
    assert tree(site.root) == before


# -- in a bundle


def test_volumes_without_repository_keep_their_bytes(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path / "artifacts")
    texts = {sha256_bytes(data): data for data in (b"a" * 5000, b"b" * 300, b"")}
    spans = [Part(sha256, len(data), 0, len(data)) for sha256, data in texts.items()]
    plan = make_plan(spans, [], 4000)
    pack(
        project,
        plan,
        Contents(project=project, parts=sorted(spans), presets=[], texts=texts),
        [tmp_path / "medium"],
        Progress("pack", quiet=True),
    )
    volumes = {
        name: sha256 for name, sha256 in names(tmp_path / "medium").items() if name.endswith(".gfv")
    }
    assert volumes == GOLDEN


GOLDEN = {  # written before bundles could contain the repository
    f"9bc58c5603b42433e7cdd1f0-000{number}.gfv": sha256
    for number, sha256 in (
        (1, "5148743091003950c53c20115d435773deb3d90c357c8362c0485fe58f22bdbd"),
        (2, "cee8be482e9f222f46b78df95452b7ccee677bb0ff51bf299ebad978250910ea"),
    )
}


def test_archive_is_an_ordinary_object(checkout: Callable[[str], Project], tmp_path: Path) -> None:
    project = checkout("one")
    packed = carry_tool(project, tmp_path / "medium", size=100_000)
    tool = packed.plan.tool
    assert (
        tool in {span.sha256 for span in packed.plan.parts}
        and (project.state / f"bundles/tool-{tool}.tar").is_file()
    )
    site = site_at(tmp_path / "site")
    result = receive(site, tmp_path / "medium")
    assert result.complete and not result.repository_missing and Store(site.store).intact(tool)
    second = carry_tool(project, tmp_path / "second", held=frozenset({tool}))
    assert second.plan.tool == tool and tool not in {span.sha256 for span in second.plan.parts}
    assert receive(site, tmp_path / "second").complete
    lost = Store(site.store).path(contents_of(project).presets[0].lock)
    data = lost.read_bytes()
    lost.unlink()
    away = next((tmp_path / "second").glob("*.gfv"))
    bad = bytearray(away.read_bytes())
    bad[bad.index(data[:200]) + 5] ^= 1
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / away.name).write_bytes(bad)
    assert not receive(site, tmp_path / "damaged").complete
    assert gc.find_references(site).include(tool)  # until the bundle is complete
    assert receive(site, tmp_path / "second").complete and not gc.find_references(site).include(
        tool
    )
    Store(site.store).discard(tool)  # as gc does; no volume contained it, so it cannot be requested
    assert receive(site, tmp_path / "second").complete
    assert install(site, tool).why == "absent"


@pytest.mark.parametrize("with_index", [True, False])
def test_repair_after_repository_changed(
    checkout: Callable[[str], Project], tmp_path: Path, with_index: bool
) -> None:
    project = checkout("one")
    packed = carry_tool(project, tmp_path / "medium", size=200_000)
    tool = packed.plan.tool
    holding = [
        number
        for number, spans in enumerate(packed.plan.volumes, 1)
        if any(span.sha256 == tool for span in spans)
    ]
    bad = tmp_path / "medium" / f"{packed.plan.bundle}-{holding[-1]:04}.gfv"
    data = bytearray(bad.read_bytes())
    data[100 if with_index else -1] ^= 1
    bad.write_bytes(data)
    if not with_index:
        packed.index[0].unlink()
    site = site_at(tmp_path / "site")
    result = receive(site, tmp_path / "medium")
    assert result.repository_missing and not result.complete and result.request is not None
    assert "the gapforge repository" in {f.where for f in result.error(tmp_path / "r.json").faults}
    assert result.request.tool == tool
    (project.root / "Dockerfile").write_text("another\n")
    assert sha256_bytes(make_archive(project, {})) != tool
    repair(Sender(project), result.request, tmp_path / "mend", size=10**9)
    mended = receive(site, tmp_path / "mend")
    assert mended.complete and Store(site.store).intact(tool)
    (project.state / f"bundles/tool-{tool}.tar").unlink()
    with pytest.raises(BundleError) as caught:
        repair(Sender(project), result.request, tmp_path / "again", size=10**9)
    assert_error(caught.value, BundleError, missing=1)
    assert f"tool-{tool}.tar" in caught.value.faults[0].where


def test_hostile_archive_does_not_stop_presets(
    checkout: Callable[[str], Project], tmp_path: Path
) -> None:
    project = checkout("one")
    carry_tool(project, tmp_path / "medium", render({"../evil": (b"x", False)}))
    site = site_at(tmp_path / "site")
    done = command(site.root, "unpack", str(tmp_path / "medium"))
    assert done.returncode == 21 and "../evil" in done.stderr
    assert not (tmp_path / "evil").exists() and (site.artifacts_of(PRESET) / "lock.json").is_file()
    told = json.loads(command(site.root, "unpack", str(tmp_path / "medium"), "--json").stdout)
    assert (
        told["tool"]["state"] == "failed"
        and "../evil" in told["tool"]["why"]
        and told["error"] == "bundle"
    )
    page = next((site.root / "dist/custody").glob("import-*.txt")).read_text()
    assert "could not be installed" in page and not (site.root / "evil").exists()
    done = command(site.root, "unpack", str(tmp_path / "medium"), "--no-tool", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["tool"]["state"] == LEFT


def test_import_is_reported_despite_later_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For example an unreadable file of the project, or a request that cannot be written."""
    carry_tool(sender(tmp_path).project, tmp_path / "medium", render(SMALL), size=20_000)
    site = site_at(tmp_path / "site")
    monkeypatch.setenv("GAPFORGE_ROOT", str(site.root))
    (tmp_path / "file").write_text("no folder")
    first = min((tmp_path / "medium").glob("*.gfv"))
    assert (
        cli.main(
            ["unpack", str(first), "--no-tool", "--request", str(tmp_path / "file" / "r.json")]
        )
        == 21
    )
    said = capsys.readouterr()
    assert "custody page" in said.out and "dist/custody" in said.out
    assert f"{tmp_path / 'file'}: File exists" in said.err

    def closed(*args: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(site.root / "docs/a.md"))

    monkeypatch.setattr("gapforge.cli.verbs.unpack.install", closed)
    assert cli.main(["unpack", str(tmp_path / "medium")]) == 15
    said = capsys.readouterr()
    assert str(site.artifacts_of(PRESET)) in said.out and "dist/custody" in said.out
    assert f"{site.root / 'docs/a.md'}: permission denied" in said.err


def test_pack_with_tool_commands(checkout: Callable[[str], Project], tmp_path: Path) -> None:
    project = checkout("one")
    shown = command(
        project.root,
        "pack",
        PRESET,
        "--with-tool",
        "--dry-run",
        "--json",
        "--volume-size",
        "200000",
    )
    planned = json.loads(shown.stdout)
    assert planned["tool"]["bytes"] > 500_000 and planned["sticks"] == [
        {"size": 4 * 10**9, "count": 1}
    ]
    assert not (project.state / "bundles").exists() and planned["tool"]["untracked"] == []
    told = command(project.root, "pack", PRESET, "--with-tool", "--dry-run").stdout
    assert planned["tool"]["sha256"][:12] in told and "1 of 4 GB" in told
    done = command(
        project.root,
        "pack",
        PRESET,
        "--with-tool",
        "--to",
        str(tmp_path / "medium"),
        "--volume-size",
        "200000",
        "--json",
    )
    packed = json.loads(done.stdout)
    assert packed["tool"] == planned["tool"] and packed["bundle"] == planned["bundle"]
    inventory = command(
        project.root, "pack", PRESET, "--with-tool", "--repair", "x", "--to", str(tmp_path / "y")
    )
    assert inventory.returncode == 2 and "--with-tool" in inventory.stderr
    # Packing again into a folder of the project gives the same bundle.
    inner = json.loads(
        command(
            project.root, "pack", PRESET, "--with-tool", "--to", str(project.root / "out"), "--json"
        ).stdout
    )
    again = json.loads(
        command(
            project.root, "pack", PRESET, "--with-tool", "--to", str(project.root / "out"), "--json"
        ).stdout
    )
    assert inner["bundle"] == again["bundle"] and again["kept"] == [1]
    site = site_at(tmp_path / "site")
    git(site.root, "init", "-q")
    done = command(site.root, "unpack", str(tmp_path / "medium"))
    assert done.returncode == 0 and "tar -xf" in done.stdout
    shutil.rmtree(site.root / ".git")
    done = command(site.root, "unpack", str(tmp_path / "medium"))
    assert done.returncode == 0 and "new, 0 replaced" in done.stdout, done.stderr
    assert (
        command(site.root, "inventory", "--output", str(tmp_path / "inventory.txt")).returncode == 0
    )
    words = ["pack", PRESET, "--with-tool", "--for", str(tmp_path / "inventory.txt"), "--dry-run"]
    planned = json.loads(command(project.root, *words, "--json").stdout)
    assert planned["tool"]["bytes"] == 0
    lay(project.root, {"site notes.txt": b"x", "docs/글.md": b"x", "components/a/x": b""})
    told = command(project.root, *words)
    assert "components/a/x" in told.stdout and "docs/글.md, site notes.txt" in told.stderr
    planned = json.loads(command(project.root, *words, "--json").stdout)
    assert planned["tool"]["bytes"] > 0 and planned["tool"]["untracked"] == ["components/a/x"]
    assert planned["tool"]["left_out"] == ["docs/글.md", "site notes.txt"]


def test_new_locks_wait_for_artifacts(checkout: Callable[[str], Project], tmp_path: Path) -> None:
    project = checkout("one")
    carry_tool(project, tmp_path / "first")
    site = tmp_path / "site"
    site.mkdir()
    assert command(site, "unpack", str(tmp_path / "first")).returncode == 0
    assert command(site, "verify", PRESET).returncode == 0
    lock = locks.load(project.lock_file(PRESET))
    entry = lock.of("deb")[0]
    lay(project.artifacts_of(PRESET), {entry.path: b"a newer package"})
    entries = [e for e in lock.entries if e.path != entry.path]
    entries.append(
        locks.Entry(
            kind="deb",
            path=entry.path,
            sha256=sha256_bytes(b"a newer package"),
            size=15,
            origin=entry.origin,
        )
    )
    write_lock(
        project,
        locks.Lock(
            preset=lock.preset,
            preset_sha256=lock.preset_sha256,
            images=lock.images,
            entries=tuple(sorted(entries, key=lambda e: e.path)),
        ),
    )
    packed = carry_tool(project, tmp_path / "second", size=150_000)
    volumes = sorted((tmp_path / "second").glob("*.gfv"))
    new = next(
        n
        for n, spans in enumerate(packed.plan.volumes)
        if sha256_bytes(b"a newer package") in {s.sha256 for s in spans}
    )
    away = volumes[new].rename(tmp_path / "away.gfv")
    done = command(site, "unpack", str(tmp_path / "second"))
    assert done.returncode == 21
    assert command(site, "verify", PRESET).returncode == 0  # the old state still builds
    away.rename(volumes[new])
    done = command(site, "unpack", str(tmp_path / "second"))
    assert (
        done.returncode == 0
        and "2 replaced" not in done.stderr
        and f"presets/{PRESET}.lock.json" in done.stdout
    )
    assert command(site, "verify", PRESET).returncode == 0


def test_media_are_counted_by_their_size() -> None:
    spans = [Part(sha256_bytes(bytes([n])), 3 * 10**9, 0, 3 * 10**9) for n in range(5)]
    assert count_media(make_plan(spans, [], 3_700_000_000)) == [
        (4 * 10**9, 5),
        (8 * 10**9, 2),
        (16 * 10**9, 1),
    ]
    assert (
        count_media(make_plan(spans, [], 4 * 10**9))[0][0] == 8 * 10**9
    )  # a medium of 4 GB has less than 4 GB for volumes


def test_bundle_without_repository(tmp_path: Path) -> None:
    made = sender(tmp_path)
    packed = carry(made, tmp_path / "medium", size=20_000)
    site = site_at(tmp_path / "site")
    assert packed.plan.tool == "" and scan_at(site, tmp_path / "medium").tool == ""
    assert not unpack(
        site, scan_at(site, tmp_path / "medium"), Progress("unpack", quiet=True)
    ).repository_missing
