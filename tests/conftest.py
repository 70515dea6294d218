"""Give every test the source path, no network but loopback, and a clean environment."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).resolve().parent / "helpers"))

from fabricated_artifacts import fabricate  # noqa: E402 - needs the path above
from fake_docker import Fake  # noqa: E402
from gapforge.base.project import Project  # noqa: E402
from gapforge.model import preset as presets  # noqa: E402
from gapforge.model import preset_writer  # noqa: E402
from gapforge.wizard.facts import Facts, read_facts  # noqa: E402
from samples import IN_FULL, PRESET, ROOT  # noqa: E402

# The time of an example depends on how busy the machine is.
settings.register_profile(
    "whatever the load", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("whatever the load")

NOWHERE = "/nonexistent/config"
_LOOPBACK = ("127.", "::1", "localhost")


def pytest_configure(config: pytest.Config) -> None:
    """Make ``python3`` the Python that runs the tests, for the programs that tests start.

    Without its virtual environment, so that they see no third-party package. A version manager's
    stand-in would take longer to start than they do, and could be another version.
    """
    folder = Path(tempfile.mkdtemp(prefix="gapforge-python-"))
    config.add_cleanup(lambda: shutil.rmtree(folder))
    (folder / "python3").symlink_to(Path(sys.executable).resolve())
    os.environ["PATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PATH")])])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "live" in item.path.parts:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home without settings, except that git reads this repository whoever owns it."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
    return home


@pytest.fixture(autouse=True)
def _sealed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _home: Path) -> None:
    """Hide the user's settings from tests, and the network from unit tests."""
    for key in list(os.environ):
        if key.startswith(("GAPFORGE_", "GIT_")):
            monkeypatch.delenv(key)
    monkeypatch.setenv("GAPFORGE_LANG", "en")
    monkeypatch.delenv("COLUMNS", raising=False)  # readline sets it, for the workers of xdist
    monkeypatch.setenv("XDG_CONFIG_HOME", NOWHERE)  # without trusted signers
    if request.node.get_closest_marker("live"):
        return
    monkeypatch.setenv("HOME", str(_home))
    for key in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
    ):
        monkeypatch.delenv(key, raising=False)
        monkeypatch.delenv(key.upper(), raising=False)

    def guarded(original: Any, name: str) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            host = address[0] if isinstance(address, tuple) else address
            if self.family in (socket.AF_INET, socket.AF_INET6) and not str(host).startswith(
                _LOOPBACK
            ):
                pytest.fail(f"a unit test opened a connection to {host} ({name})", pytrace=True)
            return original(self, address)

        return connect

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), name))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Return a small project: the real presets, and complete artifacts of the practice preset.

    The artifacts are small files of every kind, a lock in both places, and SHA256SUMS.
    """
    here = tmp_path / "project"
    (here / "presets").mkdir(parents=True)
    for name in presets.names(ROOT / "presets"):
        # In full, since there is no catalog.
        raw = presets.load(ROOT / "presets" / f"{name}.json").raw
        text = IN_FULL.read_text(encoding="utf-8") if name == PRESET else preset_writer.render(raw)
        (here / "presets" / f"{name}.json").write_text(text, encoding="utf-8")
    made = Project(here, here / "artifacts")
    fabricate(made, presets.find(made.presets, PRESET))
    yield made


@pytest.fixture
def place(project: Project) -> Project:
    """Return a project with the presets and catalog, and artifacts of the practice preset."""
    shutil.copytree(ROOT / "catalog", project.catalog, dirs_exist_ok=True)
    return project


@pytest.fixture
def facts(place: Project) -> Facts:
    """Return what that project has, on a machine without a problem."""
    return read_facts(place, lambda name: ())


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Return a docker client without a daemon, the only client that gapforge tries."""
    made = Fake(tmp_path / "fake")
    monkeypatch.setenv("GAPFORGE_DOCKER", str(made.client))
    return made
