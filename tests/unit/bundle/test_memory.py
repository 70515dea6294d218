"""Pack and unpack need little memory for any data and any number of cores."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles import PRESET, RUN_ENV, hashes, sender, site_at
from gapforge.store.verify_artifacts import verify

MB = 10**6
RUN = """
import os, re, sys
cores = int(sys.argv.pop(1))
os.cpu_count = lambda: cores
from gapforge.cli.main import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
sys.exit(code)
"""


def peak(root: Path, cores: int, *words: str) -> float:
    """Return the peak memory in MB of a successful command with this number of cores."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(cores), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**RUN_ENV, "GAPFORGE_ROOT": str(root)},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1]) * 1024 / MB


def large() -> dict[str, bytes]:
    """Return 260 MB: one object that is split twice, and others around it."""
    block = random.Random(1).randbytes(MB)
    return {
        "sources/large": block * 220,
        **{f"sources/{n}": bytes([n]) + block * 8 for n in range(5)},
    }


def small() -> dict[str, bytes]:
    chance = random.Random(2)
    return {
        f"sources/{n % 90}/{n}": n.to_bytes(4, "big") + chance.randbytes(n % 3000)
        for n in range(3000)
    }


@pytest.mark.parametrize(("files", "limit"), [(large, 100), (small, 64)])
def test_peak_memory_on_many_cores(
    tmp_path: Path, files: Callable[[], dict[str, bytes]], limit: int
) -> None:
    cores = 64  # fewer cores read ahead less
    made = sender(tmp_path, files())
    medium = tmp_path / "medium"
    packed = peak(
        made.project.root, cores, "pack", PRESET, "--volume-size", "100M", "--to", str(medium)
    )
    site = site_at(tmp_path / "site")
    unpacked = peak(site.root, cores, "unpack", str(medium))
    assert hashes(site) == made.objects and verify(site.artifacts_of(PRESET)).ok
    assert unpacked < limit and packed < limit, (
        f"{packed:.0f} MB to pack, {unpacked:.0f} MB to unpack"
    )
