"""Rehearsals that fail, are interrupted or are killed. One that succeeds: test_carry_guide.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from checkout import copy_repository
from gapforge.base.project import Project
from gapforge.engine import private_daemon, private_daemon_state
from gapforge.rehearsal.site_folder import site_of
from samples import PRESET, ROOT

CANARY = {
    "XAIVA_LICENSE_TOKEN": "canary-secret-3c81f09d55",
    "XAIVA_BUILD_TOKEN": "canary-arg-77e2b40ac1",
}
HOUR = 3600
USER = 12345  # a number without a name


class Office:
    """A committed checkout with synced artifacts, and two sticks with a packed bundle."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "gapforge"
        self.sticks = [folder / "one", folder / "two"]
        self.whole = folder / "whole"  # a bundle with gapforge itself
        self.project = Project(self.root, ROOT / "artifacts")
        self.place = site_of(self.project, PRESET)
        self.dist = self.root / "dist" / PRESET
        # The sticks are not signed, so the home must hold no trusted signers.
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
            timeout=HOUR,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        print(f"$ gapforge {' '.join(argv)}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}")
        return done

    @contextmanager
    def of_another_user(self) -> Iterator[None]:
        """Give the project to a user who calls sudo."""
        sudo = {"SUDO_UID": str(USER), "SUDO_GID": str(USER)}
        files = (self.root, self.root / ".env")
        for file in files:
            os.chown(file, USER, USER)
        self.env.update(sudo)
        try:
            yield
        finally:
            for name in sudo:
                del self.env[name]
            for file in files:
                os.chown(file, 0, 0)

    def start(self) -> subprocess.Popen[bytes]:
        """Start a rehearsal with the bundle's gapforge and return when it builds."""
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

    def assert_cleaned_up(self) -> None:
        assert not self.place.root.exists()
        assert (
            private_daemon_state.status(self.place) is None
            and private_daemon_state.strays(self.place) == []
        )
        assert not private_daemon_state.socket_folder(self.place).exists()


@pytest.fixture(scope="module")
def office(needs_root: None, practice_lock: Path) -> Iterator[Office]:
    # Not below pytest's folder, which may be a memory file system without overlay mounts.
    with tempfile.TemporaryDirectory(prefix="gapforge-live-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)  # for the other user
        made = Office(Path(folder))
        copy_repository(made.root)
        shutil.copy(practice_lock, made.root / "presets")
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


def test_missing_volume_ends_the_rehearsal_early(office: Office) -> None:
    done = office.gapforge("rehearse", PRESET, "--bundle", str(office.sticks[0]), "--json")
    assert done.returncode == 21
    record = json.loads(done.stdout)
    assert set(record["seconds"]) == {"start", "bundle", "place", "signatures", "unpack"}
    assert record == office.record() and record["ready"] is False
    head = subprocess.run(
        ["git", "-C", str(office.root), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout
    assert record["repository"] == {"commit": head.strip(), "uncommitted_changes": False}
    assert record["failure"]["step"] == "unpack" and record["bundle"]["missing"] == [2]
    assert record["failure"]["faults"]
    assert record["failure"]["next"].startswith(
        f"./gapforge pack {PRESET} --volume-size 200000000 --to "
    )
    page = (office.dist / "rehearsal.txt").read_text()
    assert page.startswith("NOT ") and PRESET in page.splitlines()[0]
    office.assert_cleaned_up()


def test_interrupted_rehearsal_leaves_nothing(office: Office) -> None:
    """Of what runs until then, only the engine needs root."""
    with office.of_another_user():
        child = office.start()
        assert private_daemon_state.status(office.place) is not None
        assert (office.place.state / "tool.json").exists()
        assert not (office.place.root / ".git").exists()
        made = (office.place.store, office.place.artifacts / PRESET, office.place.state / "context")
        assert {path.stat().st_uid for path in made} == {USER}  # by unpack and build
        child.send_signal(signal.SIGTERM)
        assert child.wait(600) == 130
    office.assert_cleaned_up()
    record = office.record()
    assert record["failure"]["error"] == "interrupted" and not record["ready"]
    assert record["user"] == USER and record["seconds"].keys() > {"unpack", "verify", "engine"}


def test_next_rehearsal_cleans_up_after_a_kill(office: Office) -> None:
    child = office.start()
    child.kill()
    child.wait(120)
    assert private_daemon_state.status(office.place) is not None and office.place.root.exists()
    assert not (office.dist / "rehearsal.json").exists()
    assert office.gapforge("rehearse", PRESET, "--bundle", str(office.sticks[0])).returncode == 21
    office.assert_cleaned_up()
    assert (office.root / ".env").stat().st_mode & 0o777 == 0o600
