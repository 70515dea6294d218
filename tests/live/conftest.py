"""Fixtures for the live tests: private Docker daemons, online or without any network interface."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from checkout import sync_in_copy
from gapforge.base.project import Project
from gapforge.engine import private_daemon, private_daemon_state
from private_engine import CompilerCache
from samples import PRESET

# The first of these compiles FFmpeg and OpenCV, the other uses its compiler cache.
SHARE_A_COMPILE = ("test_airgap", "test_carry_guide")


@pytest.fixture(scope="module", autouse=True)
def compile_goes_first(request: pytest.FixtureRequest) -> None:
    """Give way to the compile, which is the longest part of the tests and uses all cores."""
    compiles = Path(str(request.path)).stem in SHARE_A_COMPILE
    if "PYTEST_XDIST_WORKER" in os.environ and os.geteuid() == 0:  # others cannot raise it again
        os.setpriority(os.PRIO_PROCESS, 0, 0 if compiles else 10)


@pytest.fixture(scope="session")
def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a private Docker daemon")
    if not shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
        pytest.skip("needs dockerd (apt-get install docker.io)")


@pytest.fixture(scope="session")
def compiler_cache() -> Iterator[CompilerCache]:
    # Not below pytest's folder, which may be a memory file system without overlay mounts.
    with tempfile.TemporaryDirectory(prefix="gapforge-live-", dir="/var/tmp") as folder:
        yield CompilerCache(Path(folder))


class FileScheduling(LoadFileScheduling):
    """Runs the tests of a file in one process, and in the same one those that share a compile."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "compile" if Path(file).stem in SHARE_A_COMPILE else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileScheduling | None:
    # Marks of xdist_group have no effect with pytest 9.2 and pytest-xdist 3.8.
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def practice_lock(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return the lock of the practice preset, synced once in a copy for all test processes.

    The artifacts are in the checkout.
    """
    own = tmp_path_factory.getbasetemp()
    shared = (own if worker_id == "master" else own.parent) / "practice"
    shared.mkdir(exist_ok=True)
    done = shared / "done"
    with open(shared / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            copy = shared / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            done.write_text(str(sync_in_copy(copy, PRESET)))
    return Path(done.read_text())


@pytest.fixture
def engine_project(needs_root: None) -> Iterator[Project]:
    """An empty project. Its private engine, if the test starts one, is removed afterwards."""
    # Not below pytest's folder, which may be a memory file system without overlay mounts.
    with tempfile.TemporaryDirectory(prefix="gapforge-live-", dir="/var/tmp") as folder:
        project = Project(Path(folder), Path(folder) / "artifacts")
        try:
            yield project
        finally:
            private_daemon.remove(project)


def _engine(offline: bool, dockerd: Path | None = None) -> Iterator[private_daemon_state.State]:
    with tempfile.TemporaryDirectory(prefix="gapforge-live-", dir="/var/tmp") as folder:
        project = Project(Path(folder), Path(folder) / "artifacts")
        try:
            with pytest.MonkeyPatch.context() as patch:
                if dockerd:
                    patch.setenv("GAPFORGE_DOCKERD", str(dockerd))
                state = private_daemon.start(project, offline=offline)
            yield state
        finally:
            private_daemon.remove(project)


@pytest.fixture(scope="session")
def offline_engine(needs_root: None) -> Iterator[private_daemon_state.State]:
    """A private engine without any network interface."""
    yield from _engine(offline=True)


@pytest.fixture(scope="module")
def offline_engine_with_layers(
    needs_root: None, compiler_cache: CompilerCache
) -> Iterator[private_daemon_state.State]:
    """A private engine without any network interface, with what this session compiled."""
    yield from _engine(offline=True, dockerd=compiler_cache.dockerd_with_layers)


@pytest.fixture(scope="session")
def online_engine(needs_root: None) -> Iterator[private_daemon_state.State]:
    """A private engine in this machine's own network."""
    yield from _engine(offline=False)
