"""The engine is chosen by probing; an error names everything that was tried."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fake_docker import Fake
from gapforge.base.errors import EngineError
from gapforge.base.project import Project
from gapforge.engine import detect, private_daemon_state
from gapforge.engine.protocol import EngineInfo
from raised_errors import assert_error, values_of

SOCKET = "unix:///var/run/docker.sock"
DOWN = f"Cannot connect to the Docker daemon at {SOCKET}. Is the docker daemon running?"
DENIED = (
    f"Got permission denied while trying to connect to the Docker daemon socket at {SOCKET}: "
    "dial unix /var/run/docker.sock: connect: permission denied"
)


@pytest.fixture(autouse=True)
def _no_private_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_daemon_state, "running_host", lambda project: "")


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that adds a client to the end of PATH, which otherwise has only python."""
    folders: list[str] = []
    python = tmp_path / "python"
    python.mkdir()
    (python / "python3").symlink_to(Path(sys.executable).resolve())
    monkeypatch.setenv("PATH", str(python))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)

    def add(**settings: Any) -> Fake:
        fake = Fake(tmp_path / f"client{len(folders)}", **settings)
        folders.append(str(fake.folder))
        monkeypatch.setenv("PATH", os.pathsep.join([*folders, str(python)]))
        return fake

    return add


def refused(*args: Any, **kwargs: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        detect.choose(*args, **kwargs)
    assert caught.value.exit_code == 10
    return caught.value


def test_old_client_uses_builtin_buildkit(clients: Any) -> None:
    fake = clients(client="20.10.24", server="20.10.24")
    info = detect.choose().info
    assert info == EngineInfo(
        name="docker-buildkit",
        client=str(fake.client),
        client_version="20.10.24",
        server_version="20.10.24",
        builder="buildkit (built in)",
        root_dir="/fake/docker",
        image_store="classic",
        storage_driver="overlay2",
    )


def test_unusable_client_is_skipped(clients: Any) -> None:
    clients(client="28.2.2")
    second = clients(client="20.10.24")
    assert detect.choose().info.client == str(second.client)


def test_new_client_uses_buildx(clients: Any) -> None:
    clients(client="28.2.2", buildx="0.29.1", server="28.2.2", store="containerd")
    info = detect.choose().info
    assert (info.name, info.builder, info.image_store) == (
        "docker-buildx",
        "buildx 0.29.1",
        "containerd",
    )


def test_engine_of_the_argument_is_chosen(clients: Any) -> None:
    clients(client="20.10.24", buildx="0.13.1")
    assert detect.choose().info.name == "docker-buildkit"
    assert detect.choose("docker-buildx").info.name == "docker-buildx"
    assert detect.choose("docker").info.name == "docker-buildkit"
    assert detect.choose("docker-buildkit").info.name == "docker-buildkit"


def test_preferred_engine_without_a_client(clients: Any) -> None:
    clients(client="20.10.24")
    error = refused("docker-buildx")
    assert_error(error, EngineError, engine="docker-buildx")
    assert values_of(error.faults[0].problem) == {
        "number": "20.10.24",
        "other": "docker-buildkit",
        "preferred": "docker-buildx",
    }


def test_no_client_on_path(clients: Any) -> None:
    error = refused()
    assert error.faults == ()
    assert "apt-get install docker.io" in error.hint


def test_client_without_buildkit_is_refused(clients: Any) -> None:
    fake = clients(client="28.2.2")
    error = refused()
    assert [fault.where for fault in error.faults] == [str(fake.client)]
    assert values_of(error.faults[0].problem) == {"number": "28.2.2"}
    assert "docker-buildx" in error.hint


def test_client_older_than_buildkit_is_refused(clients: Any) -> None:
    clients(client="18.06.1")
    assert values_of(refused().faults[0].problem) == {"number": "18.6.1"}


def test_no_daemon_names_all_clients(clients: Any) -> None:
    clients(client="28.2.2")
    clients(client="20.10.24", down=DOWN)
    error = refused()
    assert DOWN in error.message
    assert "./gapforge engine start" in error.hint
    assert len(error.faults) == 2


def test_permission_denied_names_docker_group(clients: Any) -> None:
    clients(down=DENIED)
    error = refused()
    assert "usermod -aG docker" in error.hint
    assert "newgrp docker" in error.hint


def test_daemon_version_must_fit(clients: Any) -> None:
    fake = clients(server="19.03.15")
    error = refused()
    assert "19.03.15" in error.message
    assert "20.10" in error.hint
    fake.set(
        server="29.0.0",
        down="Error response from daemon: client version 1.41 is too old. "
        "Minimum supported API version is 1.44",
    )
    assert "GAPFORGE_DOCKER=/usr/bin/docker" in refused().hint


def test_daemon_must_build_linux_images(clients: Any) -> None:
    clients(os="windows")
    assert (
        values_of(refused().message)["reason"]
        == "the daemon builds windows images; gapforge needs linux"
    )


def test_podman_is_refused_as_client_and_daemon(clients: Any) -> None:
    shim = clients(
        banner="Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.\n"
        "podman version 4.3.1"
    )
    error = refused()
    assert "Podman" in error.faults[0].problem
    shim.set(banner="", component="Podman Engine")
    assert "Podman 20.10.24" in refused().message


def test_foreign_program_is_no_client(clients: Any, tmp_path: Path) -> None:
    fake = clients()
    fake.client.write_text("#!/bin/sh\necho hello\n")
    assert values_of(refused().faults[0].problem) == {"start": "hello"}
    fake.client.write_text("#!/nonexistent/interpreter\n")
    assert refused().faults


def test_hanging_daemon_is_given_up(clients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = clients()
    fake.client.write_text(
        '#!/bin/sh\n[ "$1" = version ] && exec sleep 30\n[ "$1" = buildx ] && exit 1\n'
        "echo Docker version 20.10.24, build x\n"
    )
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/usr/bin:/bin")
    monkeypatch.setenv("GAPFORGE_DOCKER", str(fake.client))
    real = detect.process.run

    def run(argv: list[str], **how: Any) -> Any:
        return real(argv, **{**how, "timeout": 0.2 if argv[1] == "version" else how["timeout"]})

    monkeypatch.setattr(detect.process, "run", run)
    assert set(values_of(values_of(refused().message)["reason"])) == {"message"}  # type: ignore[arg-type]


def test_variable_names_the_client(clients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clients(client="20.10.24")
    second = clients(client="20.10.25")
    monkeypatch.setenv("GAPFORGE_DOCKER", str(second.client))
    assert detect.choose().info.client_version == "20.10.25"
    monkeypatch.setenv("GAPFORGE_DOCKER", "/nonexistent/docker")
    assert "/nonexistent/docker" in refused().faults[0].where


class TestPrivateEngine:
    OWN = "unix:///run/gapforge-test/docker.sock"

    @pytest.fixture(autouse=True)
    def own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(private_daemon_state, "running_host", lambda project: self.OWN)

    def test_private_engine_is_used_without_default_daemon(self, clients: Any) -> None:
        fake = clients(down=DOWN, up_hosts=[self.OWN])
        info = detect.choose().info
        assert (info.host, info.private) == (self.OWN, True)
        asked = [
            call["env"].get("DOCKER_HOST", "")
            for call in fake.calls()
            if call["argv"][0] == "version"
        ]
        assert asked == ["", self.OWN]

    def test_system_docker_precedes_the_private_engine(self, clients: Any) -> None:
        clients()
        assert detect.choose().info.host == ""

    @pytest.mark.parametrize("chosen", ["DOCKER_HOST", "DOCKER_CONTEXT", "config"])
    def test_private_engine_never_replaces_a_chosen_daemon(
        self, clients: Any, chosen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        clients(down=DOWN, up_hosts=[self.OWN])
        if chosen == "config":
            (tmp_path / ".docker").mkdir()
            (tmp_path / ".docker" / "config.json").write_text(
                json.dumps({"currentContext": "builder"})
            )
        else:
            monkeypatch.setenv(
                chosen, "tcp://192.0.2.1:2376" if chosen == "DOCKER_HOST" else "builder"
            )
        assert DOWN in refused().message

    def test_given_host_beats_variables(
        self, clients: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = clients(down=DOWN, up_hosts=["unix:///given"])
        monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        assert detect.choose(host="unix:///given").info.host == "unix:///given"
        assert all(
            "DOCKER_TLS_VERIFY" not in c["env"] for c in fake.calls() if c["argv"][0] == "version"
        )


def test_remote_engine_has_no_local_folder(clients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clients()
    monkeypatch.setenv("DOCKER_HOST", "ssh://builder")
    assert detect.choose(project=Project(Path("/x"), Path("/x"))).info.root_dir == ""


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_hint_follows_client_output(
    clients: Any, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is chosen by what clients and daemons print, in any language of gapforge."""
    monkeypatch.setenv("GAPFORGE_LANG", lang)
    fake = clients(banner="podman version 4.3.1")
    assert "apt-get" not in refused().hint  # Docker's client is needed, not the plugin
    fake.set(banner="", component="Podman Engine")
    assert "DOCKER_HOST" in refused().hint
    fake.set(component="Engine", server="19.03.15")
    assert "20.10" in refused().hint
    fake.set(server="20.10.24", down=DENIED)
    assert "newgrp docker" in refused().hint
    fake.set(down="the daemon said something else")
    assert "systemctl start docker" in refused().hint
    # A client that may not be executed has nothing to do with the docker group.
    fake.client.chmod(0o644)
    monkeypatch.setenv("GAPFORGE_DOCKER", str(fake.client))
    assert "docker-buildx" in refused().hint


def test_tried_clients_in_korean(clients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    first, second = clients(client="28.2.2"), clients(down=DOWN)
    error = refused(host="unix:///x.sock")
    assert error.message == f"쓸 수 있는 엔진이 없습니다: {DOWN}"
    assert [(fault.where, fault.problem) for fault in error.faults] == [
        (str(first.client), "클라이언트 28.2.2: 23부터 BuildKit에 필요한 buildx 플러그인이 없음"),
        (f"{second.client} 20.10.24, 주소 unix:///x.sock", DOWN),
    ]
