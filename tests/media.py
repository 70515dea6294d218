"""Run real commands in test projects, and mount the file systems of removable media."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundles import names
from gapforge.base.files import sha256_file
from samples import ROOT

Method = Callable[..., object]
SBIN = os.environ["PATH"] + ":/usr/sbin:/sbin"


def environment(root: Path) -> dict[str, str]:
    """Return the environment of a command in the project ``root``."""
    return {
        "PATH": os.environ["PATH"],
        "GAPFORGE_ROOT": str(root),
        "GAPFORGE_LANG": "en",
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(ROOT / "src"),
        "XDG_CONFIG_HOME": "/nonexistent",
    }


def argv(*words: str | Path) -> list[str]:
    return [str(ROOT / "gapforge"), *map(str, words)]


def gapforge(root: Path, *words: str | Path, code: int = 0) -> str:
    """Run a command in a process of its own. Return its output."""
    done = subprocess.run(
        argv(*words),
        env=environment(root),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == code and "Traceback" not in said, (
        f"exit code {done.returncode}: {said}"
    )
    return said


# Runs a command and sends SIGKILL to it or to another process when one of its functions has
# returned for the Nth time. This point does not depend on the speed of the machine.
_STRUCK = """
import importlib, itertools, os, signal, sys
module, name, number, victim = sys.argv[1:5]
owner, _, function = name.rpartition(".")
owner = getattr(importlib.import_module(module), owner)
real, calls = getattr(owner, function), itertools.count(1)
def counted(*words, **names):
    result = real(*words, **names)
    if next(calls) == int(number):
        os.kill(int(victim) or os.getpid(), signal.SIGKILL)
    return result
setattr(owner, function, counted)
from gapforge.cli.main import main
sys.exit(main(sys.argv[5:]))
"""


def struck(
    root: Path, at: tuple[Method, int], *words: str | Path, victim: int = 0
) -> tuple[int, str]:
    """Return exit code and output of a command during which a process is killed (0: itself).

    The kill comes when the method ``at[0]`` has returned for the ``at[1]``th time.
    """
    method, number = at
    moment = [method.__module__, method.__qualname__, str(number), str(victim)]
    done = subprocess.run(
        [sys.executable, "-c", _STRUCK, *moment, *map(str, words)],
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd="/",
        timeout=300,
    )
    return done.returncode, done.stdout


def tree(folder: Path) -> dict[str, tuple[str, float, int]]:
    """Return SHA-256, time and number of links of every file in a folder by path."""
    return {
        str(p.relative_to(folder)): (sha256_file(p), p.stat().st_mtime, p.stat().st_nlink)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.is_symlink()
    }


def carried(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of packed files by name, without the custody page, which has a date."""
    return {name: sha256 for name, sha256 in names(folder).items() if ".custody.txt" not in name}


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
