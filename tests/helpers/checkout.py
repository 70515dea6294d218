"""List and parse the files of this checkout, copy it, and find the Python that sites have."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from gapforge.base.project import LEAST_PYTHON
from gapforge.bundle.repository_files import MANIFEST, render_manifest
from samples import ROOT


def git_files() -> list[str] | None:
    """Return the files that git tracks or would add; None where this is no git checkout."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        return None
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """Return the syntax tree of a file, flat. A SyntaxError names what the least Python refuses."""
    text = file.read_text(encoding="utf-8")
    return tuple(ast.walk(ast.parse(text, str(file), feature_version=LEAST_PYTHON)))


def copy_repository(folder: Path) -> None:
    """Copy the files that git tracks or would add, and write the MANIFEST of these files."""
    names = git_files()
    assert names is not None, "not a git checkout"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    (folder / MANIFEST).write_bytes(render_manifest(names))


def sync_in_copy(folder: Path, preset: str) -> Path:
    """Sync a preset in a copy of the repository and return its lock file.

    The artifacts go into the checkout's artifacts/, which git ignores. The lock is written in the
    copy, because a mirror that has newer packages makes a new lock, as in ./quickstart.
    """
    copy_repository(folder)
    env = {**os.environ, "GAPFORGE_ARTIFACTS": str(ROOT / "artifacts")}

    def sync(*flags: str) -> int:
        argv = [str(folder / "deps_sync.sh"), preset, *flags]
        return subprocess.run(argv, cwd=folder, env=env, stdin=subprocess.DEVNULL).returncode

    code = sync()
    if code in (6, 7):
        code = sync("--update")
    assert code == 0, f"deps_sync.sh ended with exit code {code}"
    return folder / "presets" / f"{preset}.lock.json"


@cache
def site_python() -> str:
    """Return a Python 3.10, as sites have it, or the Python that runs the tests."""
    candidates = [
        shutil.which("python3.10"),
        *map(str, Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10")),
    ]
    # The shim of a version manager exists even where that Python is not installed.
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return sys.executable
