"""Verify: every kind of damage is found, named, and found together with all others."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import samples
from fabricated_artifacts import FILES, sums_text, write_lock
from gapforge.base import limits
from gapforge.base.errors import LockError, VerifyError
from gapforge.base.parallel import raise_if_stopped
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.store.verify_artifacts import FileFault, VerifyReport, check_preset_state, verify
from raised_errors import assert_error, values_of
from samples import PRESET, ROOT

WHEEL = next(path for path in FILES if path.startswith("wheels/"))
SOURCE = "sources/ffmpeg_5.1.9.orig.tar.xz"
DEB = "debs/nasm_2.16.01-1_amd64.deb"


def check(project: Project, **options: object) -> VerifyReport:
    return verify(project.artifacts_of(PRESET), **options)  # type: ignore[arg-type]


def found(report: VerifyReport) -> set[tuple[str, str]]:
    return {(fault.kind, fault.file) for fault in report.faults}


def flip(path: Path, at: int = 100) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_undamaged_artifacts_have_no_fault(project: Project) -> None:
    report = check(project)
    assert report.ok and report.faults == () and report.raise_for_faults() is report
    assert report.files == len(FILES)
    assert report.bytes == sum(len(data) for _, data in FILES.values())


@pytest.mark.parametrize("name", ["SHA256SUMS", "lock.json", "lock.json.sig", ".gapforge-folder"])
def test_file_with_an_expected_name_below_is_extra(project: Project, name: str) -> None:
    """Only at the top are these names not in the lock."""
    stray = project.artifacts_of(PRESET) / "debs" / name
    stray.write_bytes(b"stray")
    assert found(check(project)) == {("extra", f"debs/{name}")}


@pytest.mark.parametrize("path", sorted(FILES))
def test_flipped_bit_in_any_file_is_found(project: Project, path: str) -> None:
    flip(project.artifacts_of(PRESET) / path, 3)
    report = check(project)
    assert found(report) == {("changed", path)}
    fault = report.faults[0]
    expected = next(e.sha256 for e in report.lock.entries if e.path == path)
    assert fault.expected == f"sha256 {expected}"
    assert fault.actual.startswith("sha256 ") and fault.actual != fault.expected


def test_verify_reports_all_faults_at_once(project: Project) -> None:
    folder = project.artifacts_of(PRESET)
    flip(folder / WHEEL)
    os.truncate(folder / SOURCE, 10)
    with open(folder / DEB, "ab") as file:
        file.write(b"more")
    (folder / "debs/Packages").unlink()
    (folder / "wheels/evil.whl").write_bytes(b"x")
    (folder / "requirements.txt").unlink()
    (folder / "requirements.txt").symlink_to("/etc/passwd")
    os.remove(folder / "debs/Release")
    os.mkfifo(folder / "debs/Release")
    report = check(project)
    assert found(report) == {
        ("changed", WHEEL),
        ("short", SOURCE),
        ("grown", DEB),
        ("missing", "debs/Packages"),
        ("extra", "wheels/evil.whl"),
        ("not-a-file", "requirements.txt"),
        ("not-a-file", "debs/Release"),
    }
    by_file = {fault.file: fault for fault in report.faults}
    assert values_of(by_file[SOURCE].actual) == {"count": 10}
    assert values_of(by_file[SOURCE].expected) == {"count": len(FILES[SOURCE][1])}
    assert values_of(by_file["requirements.txt"].actual) == {"target": "/etc/passwd"}
    with pytest.raises(VerifyError) as error:
        report.raise_for_faults()
    assert error.value.exit_code == 5 and len(error.value.faults) == 7
    assert WHEEL in error.value.hint and "deps_sync.sh" in error.value.hint
    document = json.loads(json.dumps(report.to_json()))
    assert document["ok"] is False and len(document["faults"]) == 7


def test_link_to_right_bytes_is_fault(project: Project, tmp_path: Path) -> None:
    file = project.artifacts_of(PRESET) / WHEEL
    shutil.move(file, tmp_path / "elsewhere.whl")
    file.symlink_to(tmp_path / "elsewhere.whl")
    assert found(check(project)) == {("not-a-file", WHEEL)}


def test_verify_does_not_enter_linked_folder(project: Project, tmp_path: Path) -> None:
    folder = project.artifacts_of(PRESET) / "debs"
    shutil.move(folder, tmp_path / "debs")
    folder.symlink_to(tmp_path / "debs")
    assert found(check(project)) == {
        ("not-a-file", "debs"),
        ("missing", DEB),
        ("missing", "debs/Packages"),
        ("missing", "debs/Release"),
    }


def test_link_created_during_verify_is_not_followed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project.artifacts_of(PRESET) / WHEEL
    real = os.open

    def late(path: object, flags: int, *rest: int, **more: object) -> int:
        if str(path).endswith(".whl"):
            file.rename(tmp_path / "moved.whl")
            file.symlink_to(tmp_path / "moved.whl")
        return real(path, flags, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", late)
    assert found(check(project)) == {("unreadable", WHEEL)}


def test_read_error_is_a_fault(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import gapforge.store.hash_files as module

    real = module.sha256_open

    def failing(file: io.FileIO, on_bytes: object = None) -> str:
        if os.fstat(file.fileno()).st_size == len(FILES[SOURCE][1]):
            raise OSError(5, "Input/output error")
        return real(file, on_bytes)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "sha256_open", failing)
    report = check(project)
    assert found(report) == {("unreadable", SOURCE)}
    assert "Input/output error" in report.faults[0].actual


def test_what_cannot_be_examined_is_a_fault(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.entry = entry.name, entry

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            if self.name == Path(WHEEL).name:
                raise OSError(5, "Input/output error")
            return self.entry.stat(follow_symlinks=follow_symlinks)

    real = os.scandir

    @contextmanager
    def scandir(folder: Path) -> Iterator[list[Entry]]:
        if folder.name == "debs":
            raise OSError(5, "Input/output error")
        with real(folder) as entries:
            yield [Entry(entry) for entry in entries]

    monkeypatch.setattr(os, "scandir", scandir)
    debs = {path for path in FILES if path.startswith("debs/")}
    (project.artifacts_of(PRESET) / WHEEL).with_name("zzz").write_bytes(b"")
    expected = {("unreadable", WHEEL), ("unreadable", "debs")}
    expected |= {("extra", f"{Path(WHEEL).parent}/zzz"), *(("missing", path) for path in debs)}
    assert found(check(project)) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_permission_denied_is_a_fault(project: Project) -> None:
    (project.artifacts_of(PRESET) / WHEEL).chmod(0)
    (project.artifacts_of(PRESET) / "debs").chmod(0)
    assert ("unreadable", WHEEL) in found(check(project)) and ("unreadable", "debs") in found(
        check(project)
    )


def test_folder_in_place_of_file_is_fault(project: Project) -> None:
    file = project.artifacts_of(PRESET) / WHEEL
    file.unlink()
    (file / "inner").mkdir(parents=True)
    (file / "inner" / "x").write_bytes(b"x")
    assert found(check(project)) == {("missing", WHEEL), ("extra", f"{WHEEL}/inner/x")}


def test_sums_must_equal_the_lock(project: Project) -> None:
    sums = project.artifacts_of(PRESET) / "SHA256SUMS"
    good = sums.read_text()
    lines = good.splitlines()
    wrong = ["0" * 64 + lines[0][64:], *lines[2:], lines[2], "gibberish", "1" * 64 + "  ghost"]
    sums.write_text("\n".join(wrong) + "\n")
    report = check(project)
    assert {fault.kind for fault in report.faults} == {"sums"}
    assert len(report.faults) == 5  # wrong hash, missing line, twice, other form, unknown file
    sums.unlink()
    assert found(check(project)) == {("missing", "SHA256SUMS")}
    sums.write_bytes(b"\xff\xfe")
    assert found(check(project)) == {("unreadable", "SHA256SUMS")}


def test_sums_may_list_the_lock(project: Project) -> None:
    folder = project.artifacts_of(PRESET)
    done = subprocess.run(
        ["sha256sum", "lock.json"], cwd=folder, capture_output=True, text=True, check=True
    )
    with open(folder / "SHA256SUMS", "a") as file:
        file.write(done.stdout)
    assert check(project).ok
    flip(
        folder / "lock.json", -3
    )  # white space or a brace: either the lock or the sum must complain
    with pytest.raises((LockError, VerifyError)):
        check(project, project_lock=None).raise_for_faults()


def test_missing_folder_or_lock_is_an_error(project: Project) -> None:
    with pytest.raises(VerifyError) as caught:
        verify(project.artifacts / "nothing")
    assert_error(caught.value, VerifyError, artifacts=project.artifacts / "nothing")
    (project.artifacts / "file").write_text("")
    with pytest.raises(VerifyError) as caught:
        verify(project.artifacts / "file")
    assert_error(caught.value, VerifyError, artifacts=project.artifacts / "file")
    (project.artifacts_of(PRESET) / "lock.json").unlink()
    with pytest.raises(LockError):
        check(project)


def test_damaged_lock_and_files_reported_together(project: Project) -> None:
    """The project's copy of the lock came by another way, so all other faults are still found."""
    folder = project.artifacts_of(PRESET)
    (folder / "lock.json").write_text("{ not json")
    flip(folder / WHEEL)
    report = check(project, project_lock=project.lock_file(PRESET))
    assert found(report) == {("lock", "lock.json"), ("changed", WHEEL)}
    (folder / "lock.json").unlink()
    report = check(project, project_lock=project.lock_file(PRESET))
    assert found(report) == {("missing", "lock.json"), ("changed", WHEEL)}


def test_forged_lock_in_artifacts_is_found(project: Project) -> None:
    """Whoever swaps a wheel and writes its hash into the artifacts' lock is still found."""
    folder = project.artifacts_of(PRESET)
    lock = locks.load(folder / "lock.json")
    flip(folder / WHEEL)
    from gapforge.base.files import sha256_file

    entries = tuple(
        dataclasses.replace(e, sha256=sha256_file(folder / WHEEL)) if e.path == WHEEL else e
        for e in lock.entries
    )
    forged = dataclasses.replace(lock, entries=entries)
    (folder / "lock.json").write_text(forged.render())
    (folder / "SHA256SUMS").write_text(sums_text(forged))
    assert check(project).ok  # by itself the folder is consistent
    report = check(project, project_lock=project.lock_file(PRESET))
    assert {("lock", "lock.json"), ("changed", WHEEL)} <= found(report)


def test_artifacts_of_another_preset_state_are_refused(project: Project) -> None:
    preset = presets.find(project.presets, PRESET)
    assert check(project, preset=preset).ok
    changed = dataclasses.replace(preset, sha256="f" * 64)
    with pytest.raises(LockError) as error:
        check(project, preset=changed)
    file = f"presets/{PRESET}.json"
    assert_error(
        error.value,
        LockError,
        state="f" * 12,
        synced=preset.sha256[:12],
        files=file,
        hint={"preset": PRESET, "files": file},
    )
    with pytest.raises(LockError) as error:
        check_preset_state(
            locks.load(project.lock_file(PRESET)), dataclasses.replace(preset, name="other")
        )
    assert_error(error.value, LockError, preset="other", other=PRESET)


def test_older_catalog_is_named_as_a_cause(tmp_path: Path) -> None:
    """What the catalog adds is part of the state: an older one at a site gives another state."""
    name = "ubuntu22.04-cuda12.4-torch2.5"
    for folder in ("catalog", "components"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "presets").mkdir()
    shutil.copy(ROOT / f"presets/{name}.json", tmp_path / "presets")
    before = presets.find(tmp_path / "presets", name)
    lock = samples.lock(before)
    check_preset_state(lock, before)
    file = tmp_path / "catalog/pytorch.json"
    file.write_text(file.read_text().replace("https://", "https://old."))
    with pytest.raises(LockError) as error:
        check_preset_state(lock, presets.find(tmp_path / "presets", name))
    files = f"presets/{name}.json catalog components"
    assert_error(error.value, LockError, files=files.replace(" ", ", "), hint={"files": files})


@pytest.mark.parametrize("digit", ["0", "f"])
def test_artifacts_of_another_sync_are_refused(project: Project, digit: str) -> None:
    lock = locks.load(project.lock_file(PRESET))
    other = dataclasses.replace(lock, preset_sha256=digit * 64)
    project.lock_file(PRESET).write_text(other.render())
    with pytest.raises(LockError) as caught:
        check(project, project_lock=project.lock_file(PRESET))
    assert_error(caught.value, LockError, state=lock.preset_sha256[:12], other_state=digit * 12)


@pytest.mark.parametrize(("count", "more"), [(5, []), (6, []), (7, ["1"]), (9, ["3"])])
def test_hint_names_six_files_and_counts_the_others(
    project: Project, count: int, more: list[str]
) -> None:
    faults = tuple(FileFault(f"file-{n:c}", "missing", "", "") for n in range(97, 97 + count))
    hint = dataclasses.replace(check(project), faults=faults).error().hint
    assert re.findall(r"file-(\w)", hint) == list("abcdefghi"[: min(count, 6)])
    assert re.findall(r" (-?\d+) ", hint) == more


@pytest.mark.parametrize(("seconds", "rate"), [(2.0, 500), (0.0, 0)])
def test_report_tells_bytes_per_second(project: Project, seconds: float, rate: int) -> None:
    report = dataclasses.replace(check(project), bytes=1000, seconds=seconds)
    assert report.to_json()["rate"] == rate


def test_checksums_that_are_too_long_are_a_fault(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHECKSUMS", 10)
    assert found(check(project)) == {("unreadable", "SHA256SUMS")}


def test_lock_path_outside_folder_is_refused(project: Project) -> None:
    lock = locks.load(project.lock_file(PRESET))
    entries = (dataclasses.replace(lock.entries[0], path="../../secret"), *lock.entries[1:])
    write_lock(project, dataclasses.replace(lock, entries=entries))
    with pytest.raises(LockError):
        check(project)


def test_empty_folders_and_marker_are_allowed(project: Project) -> None:
    folder = project.artifacts_of(PRESET)
    (folder / "prebuilt").mkdir()
    (folder / ".gapforge-folder").write_text("x")
    assert check(project).ok


def test_report_does_not_depend_on_jobs(project: Project) -> None:
    folder = project.artifacts_of(PRESET)
    for path in list(FILES)[:5]:
        flip(folder / path, 2)
    one, many = check(project, jobs=1), check(project, jobs=8)
    assert one.faults == many.faults and len(one.faults) == 5


def test_progress_counts_every_byte(project: Project) -> None:
    with Progress("verify", out=io.StringIO()) as progress:
        report = check(project, progress=progress)
    assert progress.done == progress.total == report.bytes


def test_interruption_stops_hashing_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C during a file of many gigabytes must not wait for its end."""
    import gapforge.store.hash_files as module

    started: list[int] = []

    def endless(file: io.FileIO, on_bytes: object = None) -> str:
        started.append(file.fileno())
        while True:
            raise_if_stopped()
            on_bytes(1)  # type: ignore[operator]
            time.sleep(0.001)

    class Impatient(Progress):
        once = threading.Lock()

        def add(self, count: int, detail: str = "") -> None:
            if len(started) == 2 and self.once.acquire(blocking=False):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "sha256_open", endless)
    # A shell's background job ignores this signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):  # the files do not end
            check(project, progress=Impatient("verify", quiet=True), jobs=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(started) == 2


def gapforge(root: Path, project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(root / "src/gapforge/__main__.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "GAPFORGE_ROOT": str(project.root), "GAPFORGE_LANG": "en"},
    )


def test_verify_needs_only_standard_library(project: Project) -> None:
    done = gapforge(ROOT, project, "verify", PRESET)
    assert done.returncode == 0, done.stderr
    assert f"{len(FILES)} files" in done.stdout


def test_verify_json_lists_all_faults(project: Project) -> None:
    folder = project.artifacts_of(PRESET)
    flip(folder / WHEEL)
    (folder / DEB).unlink()
    (folder / "extra").write_bytes(b"")
    done = gapforge(ROOT, project, "verify", "--json", "--all")
    assert done.returncode == 5
    document = json.loads(done.stdout)
    assert document["ok"] is False
    faults = document["presets"][0]["faults"]
    assert {(f["kind"], f["file"]) for f in faults} == {
        ("changed", WHEEL),
        ("missing", DEB),
        ("extra", "extra"),
    }
    assert all(f["expected"] and f["actual"] for f in faults)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["nonsense"], 3),
        (["../x"], 3),
        ([PRESET, "--all"], 2),
        ([PRESET, "--jobs", "0"], 2),
        (["--jobs", "x"], 2),
    ],
)
def test_verify_refuses_invalid_input(project: Project, words: list[str], code: int) -> None:
    done = gapforge(ROOT, project, "verify", *words)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
