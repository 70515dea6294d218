"""The application's source: the right folder or a clear refusal, and a copy that is exactly what it should be."""

from __future__ import annotations

import dataclasses
import os
import socket
import stat
from pathlib import Path

import pytest

from conftest import PRESET
from gapforge.base.errors import SourceError, StorageError
from gapforge.base.files import content_mtime, mark_folder, sha256_bytes
from gapforge.image.application_source import Copied, choose, copy_into, setting_key
from gapforge.model import preset as presets
from gapforge.model.preset import Application

APP = Application(name="xaiva-media", source="examples/xaiva-media")


def app_folder(folder: Path) -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "CMakeLists.txt").write_text("project(x)\n")
    (folder / "src" / "main.cpp").write_text("int main() {}\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return app_folder(tmp_path / "app")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return mark_folder(tmp_path / "context", "test") / "inputs/application/app"


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_setting_key() -> None:
    assert setting_key("xaiva-media") == "XAIVA_MEDIA_SOURCE"
    assert setting_key("a.b-c_d9") == "A_B_C_D9_SOURCE"


def test_order_of_choice(tmp_path: Path) -> None:
    root = tmp_path / "project"
    inner, outer, flagged = (
        app_folder(f) for f in (root / APP.source, tmp_path / "outer", tmp_path / "flagged")
    )
    setting = {"XAIVA_MEDIA_SOURCE": str(outer)}
    got = choose(APP, root=root)
    assert (got.folder, got.chosen_by) == (inner.resolve(), "preset")
    got = choose(APP, settings=setting, root=root)
    assert got.folder == outer.resolve() and "XAIVA_MEDIA_SOURCE" in got.chosen_by
    got = choose(APP, flag=str(flagged), settings=setting, root=root)
    assert (got.folder, got.chosen_by) == (flagged.resolve(), "--app-source")


def test_relative_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag counts from where the user stands, `.env` from the project, as the file lies there."""
    root, outer = tmp_path / "project", app_folder(tmp_path / "outer")
    root.mkdir()
    monkeypatch.chdir(tmp_path)
    assert choose(APP, flag="outer", root=root).folder == outer.resolve()
    assert (
        choose(APP, settings={"XAIVA_MEDIA_SOURCE": "../outer"}, root=root).folder
        == outer.resolve()
    )


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "cmake is a folder", "broken link"])
def test_unusable_folder_names_all_that_was_looked_at(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "thing"
    if kind == "file":
        folder.write_text("x")
    elif kind == "empty":
        folder.mkdir()
    elif kind == "cmake is a folder":
        (folder / "CMakeLists.txt").mkdir(parents=True)
    elif kind == "broken link":
        folder.symlink_to("nowhere")
    app_folder(tmp_path / APP.source)  # a usable one further down must not be taken instead
    for flag, settings in ((str(folder), {}), ("", {"XAIVA_MEDIA_SOURCE": str(folder)})):
        with pytest.raises(SourceError) as error:
            choose(APP, flag=flag, settings=settings, root=tmp_path)
        assert error.value.exit_code == 13
        text = error.value.render()
        assert (
            str(folder) in text
            and "XAIVA_MEDIA_SOURCE" in text
            and APP.source in text
            and "CMakeLists" in text
        )


def test_a_preset_cannot_lead_outside(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    app_folder(tmp_path / "outside")
    (root / "link").symlink_to(tmp_path / "outside")
    for path in ("../outside", str(tmp_path / "outside"), "link"):
        with pytest.raises(SourceError):
            choose(dataclasses.replace(APP, source=path), root=root)


def test_every_preset_s_own_folder_is_usable(root: Path) -> None:
    preset = presets.find(root / "presets", PRESET)
    assert choose(preset.application, root=root).chosen_by == "preset"


def test_env_inside_is_warned_of_and_not_copied(source: Path, target: Path) -> None:
    for name in (".env", ".env.local", ".env.template"):
        (source / name).write_text("TOKEN=x\n")
    got = choose(APP, flag=str(source), root=source.parent)
    assert len(got.warnings) == 2
    got.copy_into(target)
    assert ".env.template" in listing(target) and not {".env", ".env.local"} & listing(target)


def test_copy(source: Path, target: Path) -> None:
    (source / "empty").mkdir()
    (source / "src" / "link").symlink_to("main.cpp")
    (source / "한글 파일.txt").write_text("x")
    (source / "private").write_text("p")
    (source / "private").chmod(0o600)
    got = copy_into(source, target)
    assert listing(target) == listing(source)
    assert os.readlink(target / "src/link") == "main.cpp"
    assert stat.S_IMODE((target / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "private").stat().st_mode) == 0o644
    data = (source / "CMakeLists.txt").read_bytes()
    assert (target / "CMakeLists.txt").stat().st_mtime == content_mtime(sha256_bytes(data))
    assert got.files == 5 and got.removed == ()
    (source / "CMakeLists.txt").write_text("changed in place\n")
    assert (target / "CMakeLists.txt").read_bytes() == data  # a copy, never a link


def test_digest_depends_on_content_only(source: Path, target: Path, tmp_path: Path) -> None:
    first = copy_into(source, target).tree_sha256
    for path in (source, *source.rglob("*")):
        os.utime(path, (1, 1))
    (source / "CMakeLists.txt").chmod(0o664)
    assert copy_into(source, target).tree_sha256 == first
    other = mark_folder(tmp_path / "second", "test") / "app"
    assert copy_into(source, other).tree_sha256 == first
    seen = {first}
    (source / "CMakeLists.txt").chmod(0o775)
    seen.add(copy_into(source, target).tree_sha256)
    (source / "src/main.cpp").rename(source / "src/other.cpp")
    seen.add(copy_into(source, target).tree_sha256)
    (source / "src/other.cpp").write_text("int main() {;}\n")
    seen.add(copy_into(source, target).tree_sha256)
    (source / "new").mkdir()
    seen.add(copy_into(source, target).tree_sha256)
    assert len(seen) == 5


def touched(got: Copied) -> tuple[set[str], set[str]]:
    return set(got.written), set(got.removed)


def test_only_what_changed_is_written(source: Path, target: Path) -> None:
    copy_into(source, target)
    inode = (target / "src/main.cpp").stat().st_ino
    assert touched(copy_into(source, target)) == (set(), set())
    (source / "CMakeLists.txt").write_text("project(y)\n")
    (source / "run.sh").unlink()
    (source / "new.cpp").write_text("x")
    assert touched(copy_into(source, target)) == ({"CMakeLists.txt", "new.cpp"}, {"run.sh"})
    assert (target / "src/main.cpp").stat().st_ino == inode
    assert listing(target) == listing(source)


def test_same_size_and_time_but_other_bytes(source: Path, target: Path) -> None:
    """The trap of every copier that compares size and time."""
    copy_into(source, target)
    before = (source / "src/main.cpp").stat()
    old = (target / "src/main.cpp").stat().st_mtime
    (source / "src/main.cpp").write_text("int mine() {}\n")
    os.utime(source / "src/main.cpp", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert touched(copy_into(source, target))[0] == {"src/main.cpp"}
    assert (target / "src/main.cpp").stat().st_mtime != old


def test_a_damaged_copy_is_mended(source: Path, target: Path) -> None:
    copy_into(source, target)
    (target / "src/main.cpp").write_text("int nine() {}\n")
    (target / "stray").write_text("x")
    (target / "run.sh").unlink()
    (target / "run.sh").symlink_to("/etc/passwd")
    copy_into(source, target)
    assert (target / "src/main.cpp").read_text() == "int main() {}\n"
    assert listing(target) == listing(source) and not (target / "run.sh").is_symlink()


def test_kinds_that_change(source: Path, target: Path) -> None:
    (source / "a").mkdir()
    (source / "a/x").write_text("x")
    (source / "b").write_text("b")
    copy_into(source, target)
    (source / "a/x").unlink()
    (source / "a").rmdir()
    (source / "a").write_text("now a file")
    (source / "b").unlink()
    (source / "b").mkdir()
    (source / "src/l").symlink_to("../a")
    copy_into(source, target)
    assert (
        listing(target) == listing(source) and (target / "b").is_dir() and (target / "a").is_file()
    )


def test_version_control_and_ignored_files_stay_out(source: Path, target: Path) -> None:
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
    copy_into(source, target)
    got = {path for path in listing(target) if (target / path).is_file()}
    assert got == {
        ".gapforgeignore",
        "CMakeLists.txt",
        "run.sh",
        "src/main.cpp",
        "src/c.obj",
        "src/top.log",
    }


def test_ignore_file_that_asks_too_much(source: Path, target: Path) -> None:
    (source / ".gapforgeignore").write_text("*.o\n!keep.o\n../x\n")
    with pytest.raises(SourceError) as error:
        copy_into(source, target)
    assert [fault.where.rsplit(" ", 1)[1] for fault in error.value.faults] == ["2", "3"]


def test_everything_that_cannot_be_copied_is_named(
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
        copy_into(source, target)
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


def test_an_ignored_thing_is_no_fault(source: Path, target: Path) -> None:
    os.mkfifo(source / "pipe")
    (source / ".gapforgeignore").write_text("pipe\n")
    copy_into(source, target)
    assert "pipe" not in listing(target)


def test_writes_only_inside_our_folders(source: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(StorageError):
        copy_into(source, tmp_path / "elsewhere" / "app")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_source_and_context_inside_each_other(source: Path) -> None:
    context = mark_folder(source / ".gapforge/context", "test")
    with pytest.raises(SourceError, match="inside each other"):
        copy_into(source, context / "app")
    inner = app_folder(context / "app" / "inner")
    with pytest.raises(SourceError, match="inside each other"):
        copy_into(inner, context / "app")
    assert inner.exists()


def test_a_target_that_is_a_link_is_not_followed(
    source: Path, target: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    target.parent.mkdir(parents=True)
    target.symlink_to(precious)
    copy_into(source, target)
    assert (
        (precious / "file").read_text() == "x"
        and listing(precious) == {"file"}
        and not target.is_symlink()
    )


def test_full_disk_leaves_no_half_file(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gapforge.image.application_source as module

    def full(source: Path, target: Path) -> tuple[str, int]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_copy", full)
    with pytest.raises(StorageError, match="the disk is full"):
        copy_into(source, target)
