"""Rehearsals that end badly, for real: nothing is left of them but a page that says so.

One that ends well, with its build, is part of the story in test_carry_guide.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gapforge.base.project import Project
from gapforge.engine import private_daemon, private_daemon_state
from gapforge.rehearsal.simulated_site import site_of
from places import copy_repository
from samples import ROOT

PRESET = "debian12-cpu-quickstart"
CANARY = {
    "XAIVA_LICENSE_TOKEN": "canary-secret-3c81f09d55",
    "XAIVA_BUILD_TOKEN": "canary-arg-77e2b40ac1",
}
HOURS = 3600


class Office:
    """A checkout with a commit, artifacts that were synced, and two sticks with a packed bundle."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "gapforge"
        self.sticks = [folder / "one", folder / "two"]
        self.whole = folder / "whole"  # a bundle that brings gapforge itself
        self.project = Project(self.root, ROOT / "artifacts")
        self.place = site_of(self.project, PRESET)
        self.dist = self.root / "dist" / PRESET
        # The children of a rehearsal look for signers in the home, and these sticks are not signed.
        self.env = {
            **os.environ,
            "HOME": str(folder / "home"),
            "GAPFORGE_ARTIFACTS": str(ROOT / "artifacts"),
            "https_proxy": "http://127.0.0.1:9",
        }

    def gapforge(self, *argv: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.root / "gapforge"), *argv],
            cwd=self.root,
            env=self.env,
            timeout=HOURS,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        print(f"$ gapforge {' '.join(argv)}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}")
        return done

    def start(self) -> subprocess.Popen[bytes]:
        """A rehearsal that goes on until it builds, and beyond; with the gapforge that the bundle brought."""
        child = subprocess.Popen(
            [str(self.root / "gapforge"), "rehearse", PRESET, "--bundle", str(self.whole)],
            cwd=self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        context = self.place.state / "context" / PRESET / "Dockerfile"
        deadline = time.monotonic() + 1200
        while not context.exists():
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        return child

    def record(self) -> Any:
        return json.loads((self.dist / "rehearsal.json").read_text())

    def assert_nothing_is_left(self) -> None:
        assert not self.place.root.exists()
        assert (
            private_daemon_state.status(self.place) is None
            and private_daemon_state.strays(self.place) == []
        )
        assert not private_daemon_state.socket_folder(self.place).exists()


@pytest.fixture(scope="module")
def office(needs_root: None) -> Iterator[Office]:
    def command(*argv: str) -> int:
        return subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=HOURS).returncode

    code = command("./deps_sync.sh", PRESET)
    if code in (6, 7):  # the distribution has moved on; the same as ./quickstart does
        code = command("./deps_sync.sh", PRESET, "--update")
    assert code == 0
    # Not below pytest's folder, which may be a memory file system without overlay mounts.
    with tempfile.TemporaryDirectory(prefix="gapforge-live-", dir="/var/tmp") as folder:
        made = Office(Path(folder))
        copy_repository(made.root)
        git = ["git", "-C", str(made.root), "-c", "user.name=t", "-c", "user.email=t@example.org"]
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
            subprocess.run([*git, *words], check=True)
        (made.root / ".env").write_text(
            "".join(f"{key}={value}\n" for key, value in CANARY.items())
        )
        (made.root / ".env").chmod(0o600)
        packed = made.gapforge("pack", PRESET, "--to", str(made.sticks[0]), "--volume-size", "200M")
        assert packed.returncode == 0, packed.stderr
        packed = made.gapforge("pack", PRESET, "--with-tool", "--to", str(made.whole))
        assert packed.returncode == 0, packed.stderr
        made.sticks[1].mkdir()
        second = next(made.sticks[0].glob("*-0002.gfv"))
        second.rename(made.sticks[1] / second.name)
        try:
            yield made
        finally:
            private_daemon.remove(made.place)


def test_a_volume_short_is_not_ready_and_says_so_soon(office: Office) -> None:
    done = office.gapforge("rehearse", PRESET, "--bundle", str(office.sticks[0]), "--json")
    assert done.returncode == 21
    record = json.loads(done.stdout)
    assert set(record["seconds"]) == {"start", "bundle", "place", "signatures", "unpack"}, (
        "it went on"
    )
    assert record == office.record() and record["ready"] is False
    head = subprocess.run(
        ["git", "-C", str(office.root), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout
    assert record["repository"] == {"commit": head.strip(), "uncommitted_changes": False}
    assert record["failure"]["step"] == "unpack" and record["bundle"]["missing"] == [2]
    assert any("did not come" in fault["problem"] for fault in record["failure"]["faults"])
    assert record["failure"]["next"].startswith(
        f"./gapforge pack {PRESET} --volume-size 200000000 --to "
    )
    page = (office.dist / "rehearsal.txt").read_text()
    assert page.startswith(f"NOT ready: {PRESET}\n") and "ready to travel" not in page
    office.assert_nothing_is_left()


def test_interrupted_while_it_builds_it_leaves_nothing(office: Office) -> None:
    child = office.start()
    assert private_daemon_state.status(office.place) is not None
    assert (office.place.state / "tool.json").exists() and not (office.place.root / ".git").exists()
    child.send_signal(signal.SIGTERM)
    assert child.wait(600) == 130
    office.assert_nothing_is_left()
    assert office.record()["failure"]["error"] == "interrupted" and not office.record()["ready"]


def test_killed_while_it_builds_the_next_one_clears_away(office: Office) -> None:
    child = office.start()
    child.kill()
    child.wait(120)
    assert private_daemon_state.status(office.place) is not None and office.place.root.exists()
    assert not (office.dist / "rehearsal.json").exists()
    assert office.gapforge("rehearse", PRESET, "--bundle", str(office.sticks[0])).returncode == 21
    office.assert_nothing_is_left()
    assert (office.root / ".env").stat().st_mode & 0o777 == 0o600
