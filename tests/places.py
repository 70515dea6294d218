"""Copies of the repository for tests/live, and the Python that a site has."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from samples import ROOT


def copy_repository(folder: Path) -> None:
    """Copy the tracked and the untracked files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def site_python() -> str:
    """Return Python 3.10 if it is installed, as at a site, else the one that runs the tests."""
    candidates = [
        shutil.which("python3.10"),
        *map(str, Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10")),
    ]
    for candidate in filter(
        None, candidates
    ):  # a version manager's stand-in exists without the Python behind it
        if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return sys.executable


def unmount(folder: Path | str) -> None:
    """Unmount with retries, because an engine that just ended releases its files later."""
    for _ in range(60):
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
            return
        time.sleep(0.5)
    subprocess.run(["umount", str(folder)], check=True)
