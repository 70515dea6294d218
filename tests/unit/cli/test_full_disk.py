"""A full disk has one exit code, and the message names the folder and what makes room."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gapforge.base.errors import BuildError, GapforgeError, StorageError
from gapforge.base.storage_errors import full_disk
from gapforge.base.write_files import write_text
from gapforge.cli import main as cli
from gapforge.cli.verbs import list as list_verb
from gapforge.engine.build_log import BuildLog
from gapforge.engine.docker_errors import build_failed, command_failed
from raised_errors import assert_error, values_of


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A full file system in memory, in a folder whose name must be quoted."""
    folder = tmp_path / "a full disk (1)"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "gapforge-test", folder]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        with pytest.raises(OSError) as error, open(folder / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        assert error.value.errno == errno.ENOSPC
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def folder_in(hint: str) -> str:
    """Return the folder of the command `df -h` in a hint."""
    words = shlex.split(hint[hint.index("df -h") :].replace(";", " ; "))
    return words[2]


def test_full_disk_of_a_file_is_named(full: Path) -> None:
    with pytest.raises(StorageError) as error:
        write_text(full / "new" / "deep" / "file", "x" * 100_000)
    assert error.value.exit_code == 15
    assert folder_in(error.value.hint).startswith(str(full))


@pytest.mark.parametrize("place", ["artifacts", ".gapforge", "dist"])
def test_full_disk_of_an_error_without_a_name_is_found(
    full: Path,
    tmp_path: Path,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / place).symlink_to(full)
    monkeypatch.setenv("GAPFORGE_ROOT", str(project))

    def write(*words: object) -> int:
        with open(full / "x", "wb") as file:
            file.write(bytes(100_000))
        return 0

    monkeypatch.setattr(list_verb, "run", write)
    assert cli.main(["list"]) == 15
    assert folder_in(capsys.readouterr().err) == str(project / place)


def test_disk_without_room_for_files_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert full_disk([tmp_path]) is None
    real = os.statvfs(tmp_path)
    for changed in ({5: 9, 7: 0}, {4: 0}):  # f_files and f_favail, f_bavail
        numbers = [changed.get(index, number) for index, number in enumerate(real)]
        monkeypatch.setattr(os, "statvfs", lambda path, n=numbers: os.statvfs_result(n))
        assert full_disk([tmp_path / "missing"]) == tmp_path


LINES = [
    "#7 [opencv 2/2] RUN bash /in/build.sh",
    "#7 10.1 dpkg: error processing archive /in/debs/x.deb (--unpack):",
    "#7 10.1  cannot copy extracted data for './usr/lib/x' to '/usr/lib/x': failed to write (No"
    " space left on device)",
    *(f"#7 10.2 line {number}" for number in range(60)),
    "#7 10.3 E: Sub-process /usr/bin/dpkg returned an error code (1)",
    '#7 ERROR: process "/bin/sh -c bash /in/build.sh" did not complete: exit code: 100',
]


def failure(lines: list[str]) -> GapforgeError:
    log = BuildLog()
    for line in lines:
        log.feed(line)
    return build_failed(log, 1, "runtime", "/var/lib/docker")


@pytest.mark.parametrize(
    "text",
    [
        "failed to write (No space left on device)",
        "E: You don't have enough free space in /var/cache/apt/archives/.",
        "fatal error: error writing to /tmp/x.s: Disk quota exceeded",
    ],
)
def test_full_engine_disk_is_no_failed_build(text: str) -> None:
    assert_error(failure([*LINES[:2], f"#7 10.1 {text}", *LINES[3:]]), StorageError)
    assert values_of(failure(LINES).message)["folder"] == "/var/lib/docker"
    other = [line.replace("#7", "#8") for line in LINES[:3]]
    assert type(failure([*other, LINES[0], *LINES[3:]])) is BuildError, "another step said so"


def test_commands_of_the_engine_report_a_full_disk() -> None:
    for text in ("write /x: no space left on device", "ENOSPC: No space left on device"):
        assert type(command_failed("docker load", text, "")) is StorageError
