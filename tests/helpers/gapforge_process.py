"""Run gapforge in a process of its own, kill it at a chosen point, and compare the files it left.

``signers.Machine`` runs it in the process of the test, which is faster.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gapforge.base.files import sha256_file
from samples import ROOT

Method = Callable[..., object]


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
_RUN_AND_KILL = """
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


def run_and_kill(
    root: Path, at: tuple[Method, int], *words: str | Path, victim: int = 0
) -> tuple[int, str]:
    """Return exit code and output of a command during which a process is killed (0: itself).

    The kill comes when the method ``at[0]`` has returned for the ``at[1]``th time.
    """
    method, number = at
    moment = [method.__module__, method.__qualname__, str(number), str(victim)]
    done = subprocess.run(
        [sys.executable, "-c", _RUN_AND_KILL, *moment, *map(str, words)],
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
