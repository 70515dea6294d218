"""The copy of the source is exact, minimal, and stays inside its folder."""

from __future__ import annotations

import os
import socket
import stat
import unicodedata
from pathlib import Path

import pytest

from gapforge.base import limits
from gapforge.base.errors import SourceError, StorageError
from gapforge.base.files import content_mtime, sha256_bytes
from gapforge.base.marked_folders import mark_folder
from gapforge.image import source_copy
from gapforge.image.source_copy import copy_source
from raised_errors import assert_error, values_of


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "src").mkdir(parents=True)
    (folder / "CMakeLists.txt").write_text("project(x)\n")
    (folder / "src" / "main.cpp").write_text("int main() {}\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return mark_folder(tmp_path / "context", "test") / "inputs/application/app"


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_copy_equals_the_source(source: Path, target: Path) -> None:
    (source / "empty").mkdir()
    (source / "src" / "link").symlink_to("main.cpp")
    (source / "한글 파일.txt").write_text("x")
    (source / "private").write_text("p")
    (source / "private").chmod(0o600)
    copy_source(source, target)
    assert listing(target) == listing(source)
    assert os.readlink(target / "src/link") == "main.cpp"
    assert stat.S_IMODE((target / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "private").stat().st_mode) == 0o644
    data = (source / "CMakeLists.txt").read_bytes()
    assert (target / "CMakeLists.txt").stat().st_mtime == content_mtime(sha256_bytes(data))
    (source / "CMakeLists.txt").write_text("changed in place\n")
    assert (target / "CMakeLists.txt").read_bytes() == data  # a copy, not a link


def test_names_as_long_as_a_file_system_allows(source: Path, target: Path) -> None:
    names = ("가" * 83, unicodedata.normalize("NFD", "각" * 28), "x" * 255)
    assert [len(name.encode()) for name in names] == [249, 252, 255]
    for name in names:
        (source / name).write_text(name)
    copy_source(source, target)
    for name in names:
        assert (target / name).read_text() == name
    assert listing(target) == listing(source), "names keep their form"


@pytest.mark.parametrize("names", [["가" * 80] * 9, ["d"] * 300])
def test_paths_that_the_context_cannot_hold_are_named(
    source: Path, target: Path, names: list[str]
) -> None:
    os.makedirs(source / "/".join(names))
    with pytest.raises(SourceError) as error:
        copy_source(source, target)
    (fault,) = error.value.faults
    assert fault.where.startswith(names[0]) and values_of(fault.problem) == {
        "bytes": limits.PATH_BYTES,
        "depth": limits.SOURCE_DEPTH,
    }


def test_tree_checksum_depends_on_content_only(source: Path, target: Path, tmp_path: Path) -> None:
    first = copy_source(source, target)
    for path in (source, *source.rglob("*")):
        os.utime(path, (1, 1))
    (source / "CMakeLists.txt").chmod(0o664)
    assert copy_source(source, target) == first
    other = mark_folder(tmp_path / "second", "test") / "app"
    assert copy_source(source, other) == first
    seen = {first}
    (source / "CMakeLists.txt").chmod(0o775)
    seen.add(copy_source(source, target))
    (source / "src/main.cpp").rename(source / "src/other.cpp")
    seen.add(copy_source(source, target))
    (source / "src/other.cpp").write_text("int main() {;}\n")
    seen.add(copy_source(source, target))
    (source / "new").mkdir()
    seen.add(copy_source(source, target))
    assert len(seen) == 5


def inodes(folder: Path) -> dict[str, int]:
    return {path: (folder / path).lstat().st_ino for path in listing(folder)}


def test_only_changed_files_are_written(source: Path, target: Path) -> None:
    (source / "link").symlink_to("run.sh")
    copy_source(source, target)
    first = inodes(target)
    copy_source(source, target)
    assert inodes(target) == first
    (source / "CMakeLists.txt").write_text("project(y)\n")
    (source / "run.sh").unlink()
    (source / "new.cpp").write_text("x")
    copy_source(source, target)
    second = inodes(target)
    changed = {path for path in second if first.get(path) != second[path]}
    assert changed == {"CMakeLists.txt", "new.cpp"}
    assert listing(target) == listing(source)


def test_same_size_and_time_is_no_proof(source: Path, target: Path) -> None:
    copy_source(source, target)
    before = (source / "src/main.cpp").stat()
    old = (target / "src/main.cpp").stat().st_mtime
    (source / "src/main.cpp").write_text("int mine() {}\n")
    os.utime(source / "src/main.cpp", ns=(before.st_atime_ns, before.st_mtime_ns))
    copy_source(source, target)
    assert (target / "src/main.cpp").read_text() == "int mine() {}\n"
    assert (target / "src/main.cpp").stat().st_mtime != old


def test_damaged_copy_is_repaired(source: Path, target: Path) -> None:
    copy_source(source, target)
    (target / "src/main.cpp").write_text("int nine() {}\n")
    (target / "stray").write_text("x")
    (target / "run.sh").unlink()
    (target / "run.sh").symlink_to("/etc/passwd")
    copy_source(source, target)
    assert (target / "src/main.cpp").read_text() == "int main() {}\n"
    assert listing(target) == listing(source) and not (target / "run.sh").is_symlink()


def test_files_and_folders_may_swap(source: Path, target: Path) -> None:
    (source / "a").mkdir()
    (source / "a/x").write_text("x")
    (source / "b").write_text("b")
    copy_source(source, target)
    (source / "a/x").unlink()
    (source / "a").rmdir()
    (source / "a").write_text("now a file")
    (source / "b").unlink()
    (source / "b").mkdir()
    (source / "src/l").symlink_to("../a")
    copy_source(source, target)
    assert (
        listing(target) == listing(source) and (target / "b").is_dir() and (target / "a").is_file()
    )


def test_ignored_files_are_not_copied(source: Path, target: Path) -> None:
    for name in (".git", "sub/.hg", "build", "deep/build", "keep/docs"):
        (source / name).mkdir(parents=True)
        (source / name / "file").write_text("x")
    (source / "worktree").mkdir()
    (source / "worktree/.git").write_text("gitdir: x")
    for name in ("a.o", "src/b.o", "src/c.obj", "top.log", "src/top.log", "data/x/y.bin"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")
    (source / ".gapforgeignore").write_text(
        "# comment\n\n*.o\nbuild/\n/top.log\ndata/**/*.bin\nkeep/doc?\n"
    )
    copy_source(source, target)
    got = {path for path in listing(target) if (target / path).is_file()}
    assert got == {
        ".gapforgeignore",
        "CMakeLists.txt",
        "run.sh",
        "src/main.cpp",
        "src/c.obj",
        "src/top.log",
    }


def test_all_uncopyable_files_are_named(
    source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("s")
    (source / "absolute").symlink_to("/etc/passwd")
    (source / "src/up").symlink_to("../../secret")
    (source / "self").symlink_to(".")
    (source / "src/round").symlink_to("../self/../secret")  # inside as text, outside on disk
    (source / "fine").symlink_to("src/main.cpp")
    os.mkfifo(source / "pipe")
    monkeypatch.chdir(source)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    (source / "bad\nname").write_text("x")
    Path(os.fsdecode(os.fsencode(source) + b"/\xff")).write_text("x")
    with pytest.raises(SourceError) as error:
        copy_source(source, target)
    names = {fault.where for fault in error.value.faults}
    assert names == {
        "absolute",
        "src/up",
        "src/round",
        "pipe",
        "socket",
        "'bad\\nname'",
        "'\\udcff'",
    }
    assert error.value.exit_code == 13 and not (target / "fine").exists()


def test_ignored_pipe_is_no_fault(source: Path, target: Path) -> None:
    os.mkfifo(source / "pipe")
    (source / ".gapforgeignore").write_text("pipe\n")
    copy_source(source, target)
    assert "pipe" not in listing(target)


def test_target_must_be_in_marked_folder(source: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(StorageError):
        copy_source(source, tmp_path / "elsewhere" / "app")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_source_and_context_must_be_apart(source: Path) -> None:
    context = mark_folder(source / ".gapforge/context", "test")
    inner = context / "app" / "inner"
    inner.mkdir(parents=True)
    for folder in (source, inner):
        with pytest.raises(SourceError) as error:
            copy_source(folder, context / "app")
        assert_error(error.value, SourceError, source=folder, context=context / "app")
    assert inner.exists()


def test_target_link_is_not_followed(source: Path, target: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    target.parent.mkdir(parents=True)
    target.symlink_to(precious)
    copy_source(source, target)
    assert (precious / "file").read_text() == "x" and listing(precious) == {"file"}
    assert not target.is_symlink()


def test_full_disk_is_a_storage_error(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(source_copy, "_write_copy", full)
    with pytest.raises(StorageError):
        copy_source(source, target)
