"""Copies of the repository for tests/live, and the Python of a site."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from gapforge.bundle.repository_files import MANIFEST, render_manifest
from samples import ROOT


def copy_repository(folder: Path) -> None:
    """Copy the files that git tracks or would add, with the MANIFEST of an installed repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = [name for name in listed.split("\0") if name and (ROOT / name).exists()]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    (folder / MANIFEST).write_bytes(render_manifest(names))


def site_python() -> str:
    """Return Python 3.10 if it is installed, else the Python that runs the tests."""
    candidates = [
        shutil.which("python3.10"),
        *map(str, Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10")),
    ]
    for candidate in filter(None, candidates):
        # The wrapper of a version manager may exist without the Python behind it.
        if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return sys.executable


def unmount(folder: Path | str) -> None:
    """Unmount. An engine that has just ended may keep the mount busy for a moment."""
    for _ in range(60):
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
            return
        time.sleep(0.5)
    subprocess.run(["umount", str(folder)], check=True)
