"""gc removes only what no lock names, after showing it, and nothing outside of the store."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fabricated_artifacts import FILES
from gapforge.base.errors import BusyError, LockError, StorageError
from gapforge.base.files import sha256_bytes
from gapforge.base.marked_folders import mark_folder
from gapforge.base.process_locks import exclusive
from gapforge.base.project import Project
from gapforge.cli import main as cli
from gapforge.model import lock as locks
from gapforge.model.unresolved_item import OTHER, Reason, UnresolvedItem
from gapforge.store import gc, sha256sums
from gapforge.store.gc import DOWNLOAD, OBJECT, WORK
from gapforge.store.store import Store
from raised_errors import assert_error, values_of
from samples import PRESET, ROOT

LOOSE = b"nobody needs this"


@pytest.fixture
def world(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a synced project with its files in the store, and one unreferenced object."""
    monkeypatch.setenv("GAPFORGE_ROOT", str(project.root))
    store = Store(project.store)
    lock = locks.load(project.lock_file(PRESET))
    files = {entry.path: store.add_bytes(FILES[entry.path][1]) for entry in lock.entries}
    files["lock.json"] = store.add_bytes(lock.render().encode())
    files[sha256sums.NAME] = store.add_bytes(sha256sums.render(files))
    store.view(project.artifacts_of(PRESET), files)
    store.add_bytes(LOOSE)
    return project


def objects(project: Project) -> set[str]:
    return {name for _, _, files in os.walk(project.store / "sha256") for name in files}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Mode and size of everything; a folder's own size is the file system's business."""
    found = {str(p): p.lstat() for p in sorted(folder.rglob("*"))}
    return {
        path: (s.st_mode, 0 if stat.S_ISDIR(s.st_mode) else s.st_size) for path, s in found.items()
    }


def text_of(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    return shown.out + shown.err


def forget(project: Project) -> None:
    """Take the lock away beside the preset and in the view."""
    project.lock_file(PRESET).unlink()
    (project.artifacts_of(PRESET) / "lock.json").unlink()


def test_gc_removes_only_unreferenced_objects(
    world: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before = objects(world)
    assert cli.main(["gc", "--yes"]) == 0
    assert before - objects(world) == {sha256_bytes(LOOSE)}
    shown = text_of(capsys)
    assert sha256_bytes(LOOSE) in shown and shown.count(f" {len(LOOSE)} B") >= 2
    assert cli.main(["gc", "--yes"]) == 0
    assert "nothing to delete" in text_of(capsys)


def test_gc_keeps_lock_and_sums_of_artifacts(world: Project) -> None:
    own = {
        sha256_bytes((world.artifacts_of(PRESET) / name).read_bytes())
        for name in ("lock.json", "SHA256SUMS")
    }
    assert own <= objects(world)
    cli.main(["gc", "--yes"])
    assert own <= objects(world)


@pytest.mark.parametrize("gone", ["presets", "view"])
def test_either_lock_keeps_all_objects(world: Project, gone: str) -> None:
    file = (
        world.lock_file(PRESET) if gone == "presets" else world.artifacts_of(PRESET) / "lock.json"
    )
    file.unlink()
    cli.main(["gc", "--yes"])
    assert {sha256_bytes(data) for _, data in FILES.values()} <= objects(world)


def test_gc_keeps_files_of_partial_lock(world: Project) -> None:
    lock = locks.load(world.lock_file(PRESET))
    forget(world)
    partial = dataclasses.replace(
        lock,
        entries=lock.entries[:3],
        unresolved=(UnresolvedItem("deb", "nasm", Reason(code=OTHER)),),
    )
    world.lock_file(PRESET).write_text(partial.render(), encoding="utf-8")
    cli.main(["gc", "--yes"])
    assert objects(world) == {e.sha256 for e in lock.entries[:3]}


def test_gc_without_yes_removes_nothing(world: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(world.root)
    assert cli.main(["gc"]) == 0
    assert "./gapforge gc --yes" in text_of(capsys)
    assert cli.main(["gc", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["deleted"] is False and (document["count"], document["bytes"]) == (
        1,
        len(LOOSE),
    )
    assert {k: v for k, v in tree(world.root).items() if not k.endswith("/lock")} == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "goes"), [("y\n", True), ("yes\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_gc_asks_at_terminal(
    world: Project, monkeypatch: pytest.MonkeyPatch, answer: str, goes: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["gc"]) == 0
    assert (sha256_bytes(LOOSE) not in objects(world)) is goes
    assert "delete? [y/N]" in out.getvalue()


def test_gc_json_reports_deletion(world: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gc", "--yes", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["deleted"] is True and document["freed"] == len(LOOSE)
    assert [item["kind"] for item in document["loose"]] == [OBJECT]


def test_linked_objects_free_no_space(world: Project, capsys: pytest.CaptureFixture[str]) -> None:
    lock = locks.load(world.lock_file(PRESET))
    forget(world)  # the view's other files still are hard links
    garbage = gc.find_garbage(world)
    loose = {item.path.name: item for item in garbage.of(OBJECT)}
    assert set(loose) == objects(world)
    assert all(loose[e.sha256].freed == 0 and loose[e.sha256].size == e.size for e in lock.entries)
    assert cli.main(["gc", "--yes"]) == 0
    shown = text_of(capsys)
    assert (
        f"{len({e.sha256 for e in lock.entries} | {'SHA256SUMS'})} of them" in shown
        and "other hard links" in shown
    )
    assert objects(world) == set()
    assert (world.artifacts_of(PRESET) / lock.entries[0].path).exists()


@pytest.mark.parametrize("where", ["presets", "view"])
@pytest.mark.parametrize(
    "damage", ["cut", "not-json", "newer-format", "pipe", "dangling", "folder", "empty"]
)
def test_unreadable_lock_stops_gc(
    world: Project, where: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = (
        world.lock_file(PRESET) if where == "presets" else world.artifacts_of(PRESET) / "lock.json"
    )
    text = file.read_text(encoding="utf-8")
    file.unlink()
    if damage == "pipe":
        os.mkfifo(file)
    elif damage == "dangling":
        file.symlink_to("nowhere")
    elif damage == "folder":
        file.mkdir()
    else:
        file.write_text(
            {
                "cut": text[:-50],
                "not-json": "x",
                "empty": "",
                "newer-format": text.replace('"format": 2', '"format": 3'),
            }[damage]
        )
    before = objects(world)
    assert cli.main(["gc", "--yes"]) == LockError.exit_code
    assert objects(world) == before
    assert file.name in text_of(capsys)


def test_gc_names_every_unreadable_lock(world: Project) -> None:
    (world.presets / "other.lock.json").write_text("{}")
    world.lock_file(PRESET).write_text("{}")
    with pytest.raises(LockError) as error:
        gc.find_garbage(world)
    assert {"other.lock.json", f"{PRESET}.lock.json"} <= {
        Path(f.where.partition(":")[0]).name for f in error.value.faults
    }


def test_artifacts_on_unmounted_disk_stop_gc(world: Project) -> None:
    (world.artifacts / "far-away").symlink_to(world.root / "not-mounted" / "far-away")
    with pytest.raises(LockError):
        gc.find_garbage(world)


def test_gc_reads_lock_in_linked_artifacts(world: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk" / PRESET
    elsewhere.parent.mkdir()
    world.artifacts_of(PRESET).rename(elsewhere)
    world.artifacts_of(PRESET).symlink_to(elsewhere)
    world.lock_file(PRESET).unlink()
    assert [item.path.name for item in gc.find_garbage(world).of(OBJECT)] == [sha256_bytes(LOOSE)]


def test_missing_presets_folder_stops_gc(world: Project) -> None:
    world.presets.rename(world.root / "moved")
    with pytest.raises(LockError) as error:
        gc.find_garbage(world)
    assert error.value.faults[0].where == str(world.presets)


def test_gc_and_sync_exclude_each_other(world: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with exclusive(Store(world.store).lock_file, "a sync"):
        assert cli.main(["gc", "--yes"]) == BusyError.exit_code
        assert sha256_bytes(LOOSE) in objects(world)
    with (
        gc.exclude_sync(world),
        pytest.raises(BusyError),
        exclusive(Store(world.store).lock_file, "a sync"),
    ):
        pytest.fail("both hold the store")
    capsys.readouterr()


def test_new_lock_before_removal_keeps_objects(world: Project) -> None:
    garbage = gc.find_garbage(world)
    lock = locks.load(world.lock_file(PRESET))
    more = dataclasses.replace(
        lock.entries[0], path="wheels/more.whl", sha256=sha256_bytes(LOOSE), size=len(LOOSE)
    )
    grown = dataclasses.replace(lock, entries=(*lock.entries, more))
    world.lock_file(PRESET).write_text(grown.render(), encoding="utf-8")
    assert gc.remove_garbage(world, garbage) == 0
    assert sha256_bytes(LOOSE) in objects(world)


def test_gc_keeps_partial_downloads_of_locks(world: Project) -> None:
    partial = world.store / "partial"
    locked = locks.load(world.lock_file(PRESET)).entries[0].sha256
    stay = [f"{locked}.part", f"{locked}.json"]
    go = [
        f"{'a' * 64}.part",
        f"{'a' * 64}.json",
        f"url-{'b' * 40}.part",
        "copy-12-34",
        "bytes-1-2",
        "place-99",
    ]
    for name in (*stay, *go):
        (partial / name).write_bytes(b"12345")
    assert {item.path.name for item in gc.find_garbage(world).of(DOWNLOAD)} == set(go)
    cli.main(["gc", "--yes"])
    assert sorted(os.listdir(partial)) == sorted(stay)


def test_gc_removes_marked_work_folders(world: Project) -> None:
    partial, outside = world.store / "partial", world.root / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    work = mark_folder(partial / "work-123", "a sync at work")
    (work / "deep").mkdir()
    (work / "deep" / "file").write_bytes(b"12345")
    (work / "deep" / "link").symlink_to(outside)
    (partial / "work-124").mkdir()  # killed before its marker was written
    (partial / "work-125").mkdir()
    (partial / "work-125" / "theirs").write_text("not ours")
    (partial / "work-126").symlink_to(outside)
    garbage = gc.find_garbage(world)
    assert {item.path.name for item in garbage.of(WORK)} == {"work-123", "work-124"}
    assert {Path(fault.where).name for fault in garbage.foreign} == {"work-125", "work-126"}
    cli.main(["gc", "--yes"])
    assert sorted(os.listdir(partial)) == ["work-125", "work-126"]
    assert (outside / "mine").read_text() == "mine"


def test_gc_keeps_recent_image_downloads(world: Project) -> None:
    images = world.state / "images"
    digest = (
        locks.load(world.lock_file(PRESET))
        .images["builder"]
        .manifest_digest.removeprefix("sha256:")
    )
    old = time.time() - 2 * gc.BUSY_SECONDS
    for name in (digest, "c" * 64, "d" * 64, "e" * 64):
        folder = mark_folder(images / name, "a base image") if name[0] != "d" else images / name
        folder.mkdir(exist_ok=True)
        (folder / "blob").write_bytes(b"x")
        for path in (*folder.iterdir(), folder):
            os.utime(path, (old, old))
    (images / ("e" * 64) / "blob").write_bytes(b"written just now, by a sync into other artifacts")
    assert [item.path.name for item in gc.find_garbage(world).of(WORK)] == ["c" * 64]
    cli.main(["gc", "--yes"])
    assert {name[0] for name in os.listdir(images)} == {digest[0], "d", "e"}


def test_gc_reports_foreign_files_in_store(
    world: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = world.root / "outside"
    outside.mkdir()
    victim = outside / ("f" * 64)
    victim.write_text("mine")
    store = world.store / "sha256"
    (store / "README").write_text("x")
    unused = next(f"{n:02x}" for n in range(256) if not (store / f"{n:02x}").exists() and n != 0xAB)
    (store / unused).symlink_to(outside)
    (store / "ab").mkdir(exist_ok=True)
    (store / "ab" / ("ab" * 32)).symlink_to(victim)
    (store / "ab" / "notes.txt").write_text("x")
    (store / "ab" / ("c" * 64)).write_text("in the wrong folder")
    (store / "ab" / ("ab" + "0" * 62)).mkdir()
    os.mkfifo(store / "ab" / ("ab" + "1" * 62))
    (world.store / "partial" / "thesis.doc").write_text("x")
    before = tree(world.root)
    garbage = gc.find_garbage(world)
    assert [item.path.name for item in garbage.unreferenced] == [sha256_bytes(LOOSE)]
    assert len(garbage.foreign) == 8
    assert cli.main(["gc", "--yes"]) == 0
    shown = text_of(capsys)
    assert "notes.txt" in shown and str(outside) in shown
    gone = set(before) - set(tree(world.root))
    assert gone == {
        str(Store(world.store).path(sha256_bytes(LOOSE))),
        str(store / sha256_bytes(LOOSE)[:2]),
    }
    assert victim.read_text() == "mine"


def test_control_characters_in_names_are_escaped(
    world: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsencode(world.store / "partial") + b"/\xff\x1b[2J"
    Path(os.fsdecode(name)).write_text("x")
    for words in (["gc", "--json"], ["gc", "--yes"]):
        assert cli.main(words) == 0
        shown = text_of(capsys)
        assert "\x1b" not in shown and "udcff" in shown
    assert os.path.exists(name)


@pytest.mark.parametrize("what", ["sha256", "partial"])
def test_gc_does_not_enter_linked_folder(world: Project, what: str) -> None:
    real = world.root / "elsewhere"
    (world.store / "partial" / f"{'a' * 64}.part").write_bytes(b"x")
    (world.store / what).rename(real)
    (world.store / what).symlink_to(real)
    before = tree(real)
    assert cli.main(["gc", "--yes"]) == 0
    assert tree(real) == before


def test_folder_replaced_by_link_is_kept(world: Project) -> None:
    garbage = gc.find_garbage(world)
    path = garbage.unreferenced[0].path
    elsewhere = world.root / "elsewhere"
    path.parent.rename(elsewhere)
    path.parent.symlink_to(elsewhere)
    with pytest.raises(StorageError) as error:
        gc.remove_garbage(world, garbage)
    assert error.value.faults[0].where == str(path)
    assert (elsewhere / path.name).exists()


def test_object_replaced_by_link_is_kept(world: Project) -> None:
    garbage = gc.find_garbage(world)
    path = garbage.unreferenced[0].path
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(StorageError, match="1 of 1"):
        gc.remove_garbage(world, garbage)
    assert path.is_symlink()


def test_gc_continues_after_failed_removal(world: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [Store(world.store).add_bytes(b"more %d" % i) for i in range(20)]
    real = os.unlink

    def unlink(path: object, *rest: object, **more: object) -> None:
        if path == others[3]:
            raise PermissionError(1, "Operation not permitted")
        real(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(StorageError) as error:
        gc.remove_garbage(world, gc.find_garbage(world))
    assert [Path(fault.where).name for fault in error.value.faults] == [others[3]]
    assert [item.path.name for item in gc.find_garbage(world).unreferenced] == [others[3]]


def test_interrupted_gc_is_continued(world: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(30):
        Store(world.store).add_bytes(b"more %d" % index)
    kept = {item.path.name for item in gc.find_garbage(world).unreferenced}
    kept = objects(world) - kept
    real, calls = os.unlink, [0]

    def unlink(path: object, *rest: object, **more: object) -> None:
        calls[0] += 1
        if calls[0] == 12:
            raise KeyboardInterrupt
        real(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", unlink)
    assert cli.main(["gc", "--yes"]) == 130
    assert len(objects(world) - kept) == 31 - 11 and kept <= objects(world)
    monkeypatch.setattr(os, "unlink", real)
    assert cli.main(["gc", "--yes"]) == 0
    assert objects(world) == kept


def test_gc_names_orphans_and_unfinished_syncs(
    world: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    world.artifacts_of(PRESET).rename(world.artifacts / "gone-preset")
    world.lock_file(PRESET).unlink()
    (world.artifacts / "lost+found").mkdir()
    (world.state / "sync").mkdir(parents=True)
    (world.state / "sync" / "torch.json").write_text("{}")
    assert cli.main(["gc", "--yes"]) == 0
    shown = text_of(capsys)
    assert "artifacts/gone-preset: there is no preset" in shown and "lost+found" not in shown
    assert "./deps_sync.sh torch" in shown
    assert {sha256_bytes(data) for _, data in FILES.values()} <= objects(world), (
        "its lock still counts"
    )


def test_gc_creates_no_store(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_ROOT", str(project.root))
    assert cli.main(["gc", "--yes"]) == 0
    assert not project.store.exists()


def test_killed_gc_is_finished_by_next_one(world: Project) -> None:
    """kill -9 while it deletes, from outside."""
    for index in range(2000):
        path = Store(world.store).path(sha256_bytes(b"%d" % index))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % index)
    loose = {item.path.name for item in gc.find_garbage(world).unreferenced}
    kept = objects(world) - loose
    child = subprocess.Popen(
        [sys.executable, str(ROOT / "src/gapforge/__main__.py"), "gc", "--yes"],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "GAPFORGE_ROOT": str(world.root)},
    )
    while child.poll() is None and len(objects(world)) > len(kept) + 1900:
        time.sleep(0.002)
    child.kill()
    child.wait()
    assert kept <= objects(world)
    assert cli.main(["gc", "--yes"]) == 0
    assert objects(world) == kept


def test_unreadable_locks_are_all_named(world: Project) -> None:
    lock = world.lock_file(PRESET)
    lock.unlink()
    lock.symlink_to("/dev/null")
    dangling = world.artifacts / "gone"
    dangling.symlink_to("/nowhere")
    with pytest.raises(LockError) as caught:
        gc.find_garbage(world)
    assert_error(caught.value, LockError, where=[str(dangling), str(lock)])
    assert values_of(caught.value.faults[0].problem) == {"target": "/nowhere"}


def test_korean_gc_asks_before_it_deletes(
    world: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    before = objects(world)
    foreign = world.store / "sha256" / "zz"
    foreign.mkdir()
    assert cli.main(["gc"]) == 0
    assert objects(world) == before
    (warning,) = [line for line in text_of(capsys).splitlines() if str(foreign) in line]
    assert warning.startswith("경고: ")


def test_garbage_is_counted_and_sorted(world: Project) -> None:
    """The largest first; of equal ones by path."""
    store = Store(world.store)
    partial = world.store / "partial"
    sizes = {"copy-b": 500, "copy-a": 500, "bytes-1": 7}
    for name, size in sizes.items():
        (partial / name).write_bytes(b"x" * size)
    os.link(partial / "copy-a", world.root / "linked")
    work = mark_folder(partial / "work-1", "a sync")
    marker = sum(file.stat().st_size for file in work.iterdir())
    (work / "deep").mkdir()
    (work / "deep" / "one").write_bytes(b"x" * 1000)
    (work / "two").write_bytes(b"x" * 50)
    os.link(work / "two", world.root / "linked too")
    garbage = gc.find_garbage(world)
    assert [
        (item.kind, item.path.name, item.size, item.freed) for item in garbage.unreferenced
    ] == [
        (WORK, "work-1", 1050 + marker, 1000 + marker),
        (DOWNLOAD, "copy-a", 500, 0),
        (DOWNLOAD, "copy-b", 500, 500),
        (OBJECT, sha256_bytes(LOOSE), len(LOOSE), len(LOOSE)),
        (DOWNLOAD, "bytes-1", 7, 7),
    ]
    assert garbage.size == 1050 + marker + 1000 + len(LOOSE) + 7
    assert garbage.freed == 1000 + marker + 500 + len(LOOSE) + 7
    kept = objects(world) - {sha256_bytes(LOOSE)}
    assert garbage.kept == len(kept)
    assert garbage.kept_bytes == sum(store.path(sha256).stat().st_size for sha256 in kept)
    done: list[int] = []
    assert gc.remove_garbage(world, garbage, done.append) == garbage.freed
    assert sorted(done) == sorted(item.size for item in garbage.unreferenced)
    assert gc.find_garbage(world).unreferenced == () and os.listdir(partial) == []


@pytest.mark.parametrize(("age", "goes"), [(-1, False), (0, False), (1, True)])
def test_image_download_is_given_up_after_an_hour(
    world: Project, monkeypatch: pytest.MonkeyPatch, age: int, goes: bool
) -> None:
    now = 1_750_000_000
    monkeypatch.setattr(time, "time", lambda: float(now))
    images, then = world.state / "images", now - gc.BUSY_SECONDS - age
    filled = mark_folder(images / ("c" * 64), "a base image")
    empty = images / ("d" * 64)
    empty.mkdir()
    touched = mark_folder(images / ("e" * 64), "a base image")
    for folder in (filled, empty, touched):
        for path in (*folder.iterdir(), folder):
            os.utime(path, (then, then))
    os.utime(touched, (now, now))  # a name in it changed, whatever the time of the file is
    found = {item.path for item in gc.find_garbage(world).of(WORK)}
    assert found == ({filled, empty} if goes else set())


def test_only_locks_of_presets_count(world: Project) -> None:
    for name in (".hidden.lock.json", "x.lock.json~", "notes.json"):
        (world.presets / name).write_text("{")
    (world.artifacts / "file").write_text("not a folder")
    (world.artifacts / "empty").mkdir()
    assert [item.path.name for item in gc.find_garbage(world).unreferenced] == [sha256_bytes(LOOSE)]


def test_lock_in_a_hidden_copy_of_artifacts_counts(world: Project) -> None:
    world.artifacts_of(PRESET).rename(world.artifacts / ".copy")
    world.lock_file(PRESET).unlink()
    assert [item.path.name for item in gc.find_garbage(world).unreferenced] == [sha256_bytes(LOOSE)]


def test_place_that_cannot_be_listed_stops_gc(
    world: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(where: Path, number: int) -> list[str]:
        """Look for garbage while a place cannot be read; return what is foreign."""

        def failing(name: str) -> Any:
            real = getattr(os, name)

            def call(path: Any = ".", *words: Any, **named: Any) -> Any:
                if str(path) == str(where):
                    raise OSError(number, os.strerror(number), str(path))
                return real(path, *words, **named)

            return call

        with monkeypatch.context() as patch:
            for name in ("listdir", "scandir", "lstat"):
                patch.setattr(os, name, failing(name))
            return [fault.where for fault in gc.find_garbage(world).foreign]

    images, partial = world.state / "images", world.store / "partial"
    for number in (errno.EACCES, errno.EIO):
        for where in (world.presets, world.artifacts, world.lock_file(PRESET)):
            with pytest.raises(LockError) as caught:
                find(where, number)
            assert_error(caught.value, LockError, where=[str(where)])
    for where in (images, partial):
        with pytest.raises(OSError, match="error"):
            find(where, errno.EIO)
    assert find(images, errno.EACCES) == []
    assert find(partial, errno.EACCES) == [str(partial)]
