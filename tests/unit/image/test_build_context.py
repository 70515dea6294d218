"""The context holds exactly the plan's files, and different bytes look different to an engine."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import samples
from gapforge.base.errors import StorageError, VerifyError
from gapforge.base.files import content_mtime, sha256_bytes
from gapforge.base.marked_folders import MARKER
from gapforge.image import build_context
from gapforge.image.inputs_of_stages import ContextTexts
from gapforge.image.plan import Plan, make_plan
from gapforge.model import component
from raised_errors import assert_error

COMPONENTS = component.load_all(samples.ROOT / "components")


@pytest.fixture
def context(tmp_path: Path) -> tuple[Plan, Path, Path]:
    preset = samples.preset()
    lock = samples.lock(preset)
    artifacts = tmp_path / "artifacts" / preset.name
    samples.lay_artifacts(artifacts, lock)
    scripts = {
        "components/common.sh": "c\n",
        "components/split_runtime.py": "s\n",
        **{f"components/{c.name}/{n}": "b\n" for c in COMPONENTS for n in ("build.sh", *c.helpers)},
    }
    plan = make_plan(
        preset,
        lock,
        COMPONENTS,
        ContextTexts("FROM x\n", scripts, samples.content_of("debs/Packages").decode()),
        type="runtime",
        application_folder="app",
    )
    return plan, tmp_path / "context", artifacts


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_context_equals_the_plan(context: tuple[Plan, Path, Path]) -> None:
    plan, folder, artifacts = context
    build_context.lay_out(plan, folder, artifacts)
    assert files(folder) == {f.path for f in plan.files} | {MARKER, ".dockerignore"}
    for file in plan.files:
        assert sha256_bytes((folder / file.path).read_bytes()) == file.sha256


def test_artifacts_are_hard_links(context: tuple[Plan, Path, Path]) -> None:
    plan, folder, artifacts = context
    build_context.lay_out(plan, folder, artifacts)
    linked = folder / "inputs/ffmpeg/sources/ffmpeg/ffmpeg_5.1.9.orig.tar.xz"
    assert os.path.samefile(linked, artifacts / "sources/ffmpeg_5.1.9.orig.tar.xz")


def test_time_stamps_follow_content(context: tuple[Plan, Path, Path]) -> None:
    plan, folder, artifacts = context
    build_context.lay_out(plan, folder, artifacts)
    for file in plan.files:
        assert (folder / file.path).stat().st_mtime == content_mtime(file.sha256)


def test_second_run_changes_nothing_but_strangers(context: tuple[Plan, Path, Path]) -> None:
    plan, folder, artifacts = context
    build_context.lay_out(plan, folder, artifacts)
    before = {p: (p.stat().st_ino, p.stat().st_ctime_ns) for p in folder.rglob("*") if p.is_file()}
    stranger = folder / "inputs/ffmpeg/sources/left-over.tar"
    stranger.write_text("x")
    (folder / "inputs/gone/deep").mkdir(parents=True)
    (folder / "inputs/link").symlink_to("/etc")
    build_context.lay_out(plan, folder, artifacts)
    assert {
        p: (p.stat().st_ino, p.stat().st_ctime_ns) for p in folder.rglob("*") if p.is_file()
    } == before
    assert not (folder / "inputs/gone").exists() and not (folder / "inputs/link").is_symlink()
    assert Path("/etc/passwd").exists()


def test_application_source_is_kept(context: tuple[Plan, Path, Path]) -> None:
    plan, folder, artifacts = context
    build_context.lay_out(plan, folder, artifacts)
    source = folder / build_context.APPLICATION / "src" / "main.cpp"
    source.parent.mkdir(parents=True)
    source.write_text("int main() {}")
    build_context.lay_out(plan, folder, artifacts)
    assert source.read_text() == "int main() {}"


def test_changed_artifact_replaces_link(context: tuple[Plan, Path, Path]) -> None:
    plan, folder, artifacts = context
    build_context.lay_out(plan, folder, artifacts)
    artifact = artifacts / "sources/ffmpeg_5.1.9.orig.tar.xz"
    data = artifact.read_bytes()
    artifact.unlink()
    artifact.write_bytes(data)  # copied here again: same bytes, another inode
    build_context.lay_out(plan, folder, artifacts)
    assert (folder / "inputs/ffmpeg/sources/ffmpeg/ffmpeg_5.1.9.orig.tar.xz").read_bytes() == data


def test_artifact_changed_after_verification_is_refused(context: tuple[Plan, Path, Path]) -> None:
    plan, folder, artifacts = context
    name = "sources/ffmpeg_5.1.9.orig.tar.xz"
    data = (artifacts / name).read_bytes()
    (artifacts / name).unlink()
    (artifacts / name).write_bytes(b"!" * len(data))  # another file of this name and size
    with pytest.raises(VerifyError) as error:
        build_context.lay_out(plan, folder, artifacts)
    assert_error(error.value, VerifyError, name=plan.preset, where=[name])
    (artifacts / name).write_bytes(data)
    build_context.lay_out(plan, folder, artifacts)


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the context be on another disk than the artifacts."""

    def other_disk(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)


def test_copies_on_another_disk_are_hashed(
    context: tuple[Plan, Path, Path], no_hard_links: None
) -> None:
    plan, folder, artifacts = context
    build_context.lay_out(plan, folder, artifacts)
    names = (
        "inputs/ffmpeg/sources/ffmpeg/ffmpeg_5.1.9.orig.tar.xz",
        next(f.path for f in plan.files if f.path.endswith(".whl")),
    )
    altered, kept = (folder / name for name in names)
    before, inode, data = altered.stat(), kept.stat().st_ino, altered.read_bytes()
    assert before.st_ino != (artifacts / "sources/ffmpeg_5.1.9.orig.tar.xz").stat().st_ino
    altered.chmod(0o644)
    altered.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    altered.chmod(0o444)
    os.utime(altered, ns=(before.st_atime_ns, before.st_mtime_ns))
    build_context.lay_out(plan, folder, artifacts)
    assert altered.read_bytes() == data
    assert kept.stat().st_ino == inode, "an unchanged copy is not written again"


def test_folder_without_marker_is_refused(context: tuple[Plan, Path, Path]) -> None:
    plan, folder, artifacts = context
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    with pytest.raises(StorageError):
        build_context.lay_out(plan, folder, artifacts)
    assert (folder / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize("copies", [False, True])
def test_bad_artifact_gets_no_time_stamp(
    context: tuple[Plan, Path, Path], monkeypatch: pytest.MonkeyPatch, copies: bool
) -> None:
    plan, folder, artifacts = context
    if copies:

        def other_disk(source: Path, target: Path) -> None:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", other_disk)
    name = "sources/ffmpeg_5.1.9.orig.tar.xz"
    size = (artifacts / name).stat().st_size
    (artifacts / name).unlink()
    (artifacts / name).write_bytes(b"!" * size)
    planned = next(f for f in plan.files if f.source == name)
    stamped: list[str] = []
    monkeypatch.setattr(
        build_context, "set_cache_stamp", lambda file, sha256: stamped.append(sha256)
    )
    with pytest.raises(VerifyError):
        build_context.lay_out(plan, folder, artifacts)
    assert stamped and planned.sha256 not in stamped


def test_kept_copy_is_hashed_once(
    context: tuple[Plan, Path, Path], no_hard_links: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder, artifacts = context
    build_context.lay_out(plan, folder, artifacts)
    read: list[str] = []
    one, many = build_context.sha256_file, build_context.hash_files
    monkeypatch.setattr(
        build_context,
        "sha256_file",
        lambda file: read.append(file.relative_to(folder).as_posix()) or one(file),
    )
    monkeypatch.setattr(
        build_context,
        "hash_files",
        lambda root, paths, *more: read.extend(paths) or many(root, paths, *more),
    )
    build_context.lay_out(plan, folder, artifacts)
    assert sorted(read) == sorted(f.path for f in plan.files if f.origin != "text")
