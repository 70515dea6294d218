"""Mount exFAT and FAT file systems, as removable media have them, and unmount busy folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SBIN = os.environ["PATH"] + ":/usr/sbin:/sbin"


def need(*programs: str) -> None:
    """Skip the test where it cannot mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    missing = [name for name in programs if not shutil.which(name, path=SBIN)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (scripts/bootstrap.sh test)")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    if "losetup" in programs and not run("losetup", "--find", code=None).startswith("/dev/"):
        pytest.skip("needs a free loop device")


def run(*words: str | Path, code: int | None = 0) -> str:
    done = subprocess.run(
        [str(w) for w in words], capture_output=True, text=True, check=False, env={"PATH": SBIN}
    )
    said = done.stdout + done.stderr
    assert code is None or done.returncode == code, f"{words}: {said}"
    return said


@contextmanager
def mounted(folder: Path, *command: str | Path) -> Iterator[Path]:
    """Mount with the command on ``folder`` during the block."""
    folder.mkdir(exist_ok=True)
    run(*command)
    try:
        assert os.path.ismount(folder), f"{command} mounted nothing"
        yield folder
    finally:
        serving = drivers(folder)
        # The system may still be releasing the files of a killed command, and a driver writes its
        # buffers and releases its device after umount.
        wait_for(lambda: not run("umount", folder, code=None), f"{folder} is unmounted")
        wait_for(
            lambda: not any(pid in drivers(folder) for pid in serving),
            f"the driver of {folder} has ended",
        )
        assert not os.path.ismount(folder)


def drivers(folder: Path) -> list[int]:
    """Return the process ids of the FUSE programs that serve ``folder``."""
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and serves(p, folder)]


def serves(process: Path, folder: Path) -> bool:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")[-2:-1] == [os.fsencode(folder)]
    except OSError:  # the process has ended
        return False


def wait_for(what: Callable[[], object], said: str) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, f"waited in vain until {said}"
        time.sleep(0.02)


def image(file: Path, size: int, *command: str) -> Path:
    """Create a sparse file with a file system in it."""
    with open(file, "wb") as handle:
        handle.truncate(size)
    run(*command, file)
    return file


@contextmanager
def exfat(folder: Path, file: Path) -> Iterator[Path]:
    """Mount the exFAT image ``file``."""
    device = run("losetup", "--find", "--show", file).strip()
    try:
        with mounted(folder, "mount.exfat-fuse", "-o", "rw", device, folder) as where:
            yield where
    finally:
        wait_for(lambda: not run("losetup", "--detach", device, code=None), f"{device} is detached")


@contextmanager
def fat(folder: Path, file: Path) -> Iterator[Path]:
    """Mount the FAT image ``file``."""
    with mounted(folder, "fusefat", "-o", "rw+", file, folder) as where:
        yield where


def unmount(folder: Path | str) -> None:
    """Unmount a folder. Retry for 30 seconds: an engine that just ended may still hold it."""
    for _ in range(60):
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
            return
        time.sleep(0.5)
    subprocess.run(["umount", str(folder)], check=True)
