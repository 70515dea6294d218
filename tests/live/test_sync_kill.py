"""Kill sync at random moments: the next run completes with an undisturbed run's result."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from servers import Site, file_server
from sync_world import NAME, World, install, tree

HERE = Path(__file__).resolve().parents[1]
KILLS = 10
SIZE = 400_000  # bytes of each file
RATE = 600_000  # bytes per second and connection: a sync takes about two seconds
MORE = 200_000  # bytes that the server still sends after a kill


def command(site: Site, root: Path, *more: str) -> list[str]:
    return [sys.executable, str(HERE / "helpers/sync_world.py"), site.url, str(root), *more]


def assert_final_names_are_verified(root: Path) -> None:
    for file in (root / "artifacts" / ".store" / "sha256").rglob("*"):
        if file.is_file():
            assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name
    lock = root / "presets" / f"{NAME}.lock.json"
    if lock.exists():
        assert lock.read_text().endswith("}\n"), "the lock is truncated"
    store = {f.stat().st_ino for f in (root / "artifacts" / ".store" / "sha256").rglob("*")}
    for file in (root / "artifacts" / NAME).rglob("*"):
        assert file.is_dir() or file.stat().st_ino in store


def running(pid: int) -> bool:
    """Return whether the process is alive and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                    found.add(int(entry.name))
            except (OSError, IndexError):
                continue
    return found


@pytest.mark.parametrize("update", [False, True])
def test_killed_sync_is_completed(tmp_path: Path, update: bool) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    chance = random.Random(seed)
    with file_server() as site:
        world = World(site, SIZE)
        roots = [tmp_path / "calm", tmp_path / "stormy"]
        world.publish()
        for root in roots:
            world.write_preset(root)
        install(site.url)
        more: list[str] = []
        if update:  # an update of artifacts that exist is interrupted, not the first sync
            for root in roots:
                subprocess.run(command(site, root), check=True, timeout=120)
            world.wheels = {"alpha": "1.1", "gamma": "3.0"}
            world.debs = {"gcc": "13", "libz": "1.3"}
            world.base = "base-2"
            world.publish()
            more = ["--update"]
        clean = tmp_path / "clean"
        subprocess.run(["cp", "-a", str(roots[1]), str(clean)], check=True)  # with its hard links
        start, before = time.monotonic(), site.sent
        for behaviour in site.paths.values():
            behaviour.rate = RATE
        subprocess.run(command(site, roots[0], *more), check=True, timeout=120)
        length, size = time.monotonic() - start, site.sent - before
        killed = cut = 0
        while killed < KILLS:
            # Kill after a number of bytes and a moment, mostly during downloads.
            enough = site.sent + chance.randrange(size)
            child = subprocess.Popen(command(site, roots[1], *more))
            while child.poll() is None and site.sent < enough:
                time.sleep(0.002)
            try:
                child.wait(chance.uniform(0, length / 5))
            except subprocess.TimeoutExpired:
                curls = children_of(child.pid)
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
                killed, cut = killed + 1, cut + bool(curls)
                assert_final_names_are_verified(roots[1])
                site.stop_at = site.sent + MORE
                end = time.monotonic() + 60
                while any(map(running, curls)):
                    assert time.monotonic() < end, "a download outlived its sync"
                    time.sleep(0.01)
                site.stop_at = 0
            else:
                assert child.returncode == 0, "the run that was not killed failed"
                shutil.rmtree(roots[1])  # start again, so that ten runs are really killed
                subprocess.run(["cp", "-a", str(clean), str(roots[1])], check=True)
        assert cut, "no kill came during a download"
        # As a user would: the same command again, then the plain one.
        subprocess.run(command(site, roots[1], *more), check=True, timeout=120)
        subprocess.run(command(site, roots[1]), check=True, timeout=120)
    assert tree(roots[1] / "artifacts" / NAME) == tree(roots[0] / "artifacts" / NAME)
    assert tree(roots[1] / "presets") == tree(roots[0] / "presets"), (
        "files are left beside the lock"
    )
    assert not any((roots[1] / "artifacts" / ".store" / "partial").iterdir()), (
        "files are left in the store"
    )
