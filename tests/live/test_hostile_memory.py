"""Unpack volumes whose index is as large as possible and wrong: the memory use stays low."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundles import hashes, site_at
from forged_volumes import forge, index_with
from gapforge.bundle.volume_format import MAX_INDEX, compact_json
from gapforge_process import environment

MOST = 200_000  # kB
ENTRIES = 57_000


# Not ru_maxrss: a child inherits the peak of its parent, which may be large.
MEASURED = """
import re, sys
from pathlib import Path
from gapforge.cli.main import main
code = main(["unpack", sys.argv[1]])
status = Path("/proc/self/status").read_text()
Path(sys.argv[2]).write_text(re.search(r"VmHWM:\\s+(\\d+)", status)[1])
sys.exit(code)
"""


def unpacked(root: Path, stick: Path) -> tuple[int, str, int]:
    """Run unpack and return its exit code, its output and its peak memory in kB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, stick, root / "peak"],
        env=environment(root),
        cwd="/",
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout, int((root / "peak").read_text())


def write_full_index(file: Path, seed: str, number: int, volumes: int) -> None:
    pieces = sorted([hashlib.sha256(f"{seed}{n}".encode()).hexdigest(), 1] for n in range(ENTRIES))
    index = index_with(pieces, number=number, volumes=volumes)
    assert 0.95 * MAX_INDEX < len(compact_json(index)) <= MAX_INDEX
    forge(file, index, b"w" * ENTRIES)


@pytest.mark.timeout(900)
def test_full_wrong_index_needs_little_memory(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    write_full_index(stick / "1.gfv", "", 1, 1)
    os.link(stick / "1.gfv", stick / "copy.gfv")
    site = site_at(tmp_path / "site")
    code, said, peak = unpacked(site.root, stick)
    print(f"{peak} kB")
    assert code == 21 and str(ENTRIES - 8) in said and "Traceback" not in said
    assert peak < MOST and hashes(site) == set() and not list((site.store / "partial").iterdir())


def test_many_full_indexes_need_little_memory(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    for n in range(1, 9):
        write_full_index(stick / f"{n}.gfv", f"{n}-", n, 8)
    site = site_at(tmp_path / "site")
    code, said, peak = unpacked(site.root, stick)
    print(f"{peak} kB")
    assert code == 21 and "Traceback" not in said
    assert peak < MOST and hashes(site) == set()
