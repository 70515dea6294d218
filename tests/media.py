"""The real commands in projects that tests make, and real file systems of sticks (which need root, FUSE and their tools)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundles import names
from gapforge.core.files import sha256_file
from samples import ROOT

SBIN = os.environ["PATH"] + ":/usr/sbin:/sbin"


def environment(root: Path) -> dict[str, str]:
    """What a command gets to work in the project ``root``."""
    return {"PATH": os.environ["PATH"], "GAPFORGE_ROOT": str(root), "GAPFORGE_LANG": "en", "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(ROOT / "src"), "XDG_CONFIG_HOME": "/nonexistent"}  # fmt: skip


def argv(*words: str | Path) -> list[str]:
    return [str(ROOT / "gapforge"), *map(str, words)]


def gapforge(root: Path, *words: str | Path, code: int = 0) -> str:
    """Run a command as people do; gives all that it said."""
    done = subprocess.run(
        argv(*words), env=environment(root), capture_output=True, text=True, check=False, cwd="/", timeout=300
    )
    said = done.stdout + done.stderr
    assert done.returncode == code and "Traceback" not in said, f"exit code {done.returncode}: {said}"
    return said


def tree(folder: Path) -> dict[str, tuple[str, float, int]]:
    """Path -> SHA-256, time and links of every file below a folder."""
    return {
        str(p.relative_to(folder)): (sha256_file(p), p.stat().st_mtime, p.stat().st_nlink)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.is_symlink()
    }


def carried(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of all that pack put into a folder but the custody page, which tells of the day."""
    return {name: sha256 for name, sha256 in names(folder).items() if ".custody.txt" not in name}


def need(*programs: str) -> None:
    """Skip the test, and say why, where it cannot mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    missing = [name for name in programs if not shutil.which(name, path=SBIN)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (scripts/bootstrap.sh test)")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")


def run(*words: str | Path, code: int | None = 0) -> str:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False, env={"PATH": SBIN})
    said = done.stdout + done.stderr
    assert code is None or done.returncode == code, f"{words}: {said}"
    return said


@contextmanager
def mounted(folder: Path, *command: str | Path) -> Iterator[Path]:
    """``folder`` while the command has something mounted there."""
    folder.mkdir(exist_ok=True)
    run(*command)
    try:
        assert os.path.ismount(folder), f"{command} mounted nothing"
        yield folder
    finally:
        for _ in range(50):
            if not run("umount", folder, code=None):
                break
            time.sleep(0.1)  # a killed command may still be let go of
        assert not os.path.ismount(folder)


def image(file: Path, size: int, *command: str) -> Path:
    """A sparse file with a file system in it."""
    with open(file, "wb") as handle:
        handle.truncate(size)
    run(*command, file)
    return file


@contextmanager
def exfat(folder: Path, file: Path) -> Iterator[Path]:
    """The exFAT image ``file``, mounted."""
    device = run("losetup", "--find", "--show", file).strip()
    try:
        with mounted(folder, "mount.exfat-fuse", "-o", "rw", device, folder) as where:
            yield where
    finally:
        for _ in range(50):  # the FUSE program lets go of the device a moment after umount
            if not run("losetup", "--detach", device, code=None):
                break
            time.sleep(0.1)


@contextmanager
def fat(folder: Path, file: Path) -> Iterator[Path]:
    """The FAT image ``file``, mounted."""
    with mounted(folder, "fusefat", "-o", "rw+", file, folder) as where:
        yield where
