"""The engine is chosen by looking, and when none can be used the message says everything that was tried."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from engine_fakes import Fake
from gapforge.base.errors import EngineError, UsageError
from gapforge.base.project import Project
from gapforge.engine import detect, private_daemon

DOWN = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
DENIED = (
    "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: "
    "dial unix /var/run/docker.sock: connect: permission denied"
)


@pytest.fixture(autouse=True)
def _no_private_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_daemon, "running_host", lambda project: "")


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it with settings to put one more client at the end of PATH, which otherwise holds only python."""
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


def test_builtin_buildkit(clients: Any) -> None:
    fake = clients(client="20.10.24", server="20.10.24")
    info = detect.choose().info
    assert (info.name, info.client, info.builder) == (
        "docker-buildkit",
        str(fake.client),
        "buildkit (built in)",
    )
    assert (info.client_version, info.server_version, info.root_dir) == (
        "20.10.24",
        "20.10.24",
        "/fake/docker",
    )
    assert (info.image_store, info.storage_driver, info.private, info.host) == (
        "classic",
        "overlay2",
        False,
        "",
    )


def test_client_without_buildx_that_comes_first_is_skipped(clients: Any) -> None:
    clients(client="28.2.2")
    second = clients(client="20.10.24")
    assert detect.choose().info.client == str(second.client)


def test_new_client_with_buildx(clients: Any) -> None:
    clients(client="28.2.2", buildx="0.29.1", server="28.2.2", store="containerd")
    info = detect.choose().info
    assert (info.name, info.builder, info.image_store) == (
        "docker-buildx",
        "buildx 0.29.1",
        "containerd",
    )


def test_preference_by_argument_and_environment(
    clients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients(client="20.10.24", buildx="0.13.1")
    assert detect.choose().info.name == "docker-buildkit"
    assert detect.choose("docker-buildx").info.name == "docker-buildx"
    monkeypatch.setenv("GAPFORGE_ENGINE", "docker-buildx")
    assert detect.choose().info.name == "docker-buildx"
    assert detect.choose("docker").info.name == "docker-buildkit"
    assert detect.choose("docker-buildkit").info.name == "docker-buildkit"


def test_preferred_engine_that_no_client_can_be(clients: Any) -> None:
    clients(client="20.10.24")
    error = refused("docker-buildx")
    assert "for docker-buildx" in error.message
    assert "docker-buildkit, not docker-buildx" in error.faults[0].problem


def test_unknown_engine_name(clients: Any) -> None:
    with pytest.raises(UsageError, match='did you mean "docker-buildx"'):
        detect.choose("dockr-buildx")


def test_no_client(clients: Any) -> None:
    error = refused()
    assert "no docker client on PATH" in error.message
    assert "apt-get install docker.io" in error.hint


def test_only_a_client_without_buildkit(clients: Any) -> None:
    fake = clients(client="28.2.2")
    error = refused()
    assert [fault.where for fault in error.faults] == [str(fake.client)]
    assert "no buildx plugin" in error.faults[0].problem
    assert "docker-buildx" in error.hint


def test_client_older_than_buildkit(clients: Any) -> None:
    clients(client="18.06.1")
    assert "older than BuildKit" in refused().faults[0].problem


def test_no_daemon(clients: Any) -> None:
    clients(client="28.2.2")
    clients(client="20.10.24", down=DOWN)
    error = refused()
    assert DOWN in error.message
    assert "./gapforge engine start" in error.hint
    assert len(error.faults) == 2  # both clients were looked at


def test_permission_denied(clients: Any) -> None:
    clients(down=DENIED)
    error = refused()
    assert "usermod -aG docker" in error.hint
    assert "newgrp docker" in error.hint


def test_old_daemon_and_too_new_daemon(clients: Any) -> None:
    fake = clients(server="19.03.15")
    error = refused()
    assert "19.03.15 is too old" in error.message
    assert "20.10" in error.hint
    fake.set(
        server="29.0.0",
        down="Error response from daemon: client version 1.41 is too old. Minimum supported API version is 1.44",
    )
    assert "too far apart" in refused().hint


def test_daemon_of_another_system(clients: Any) -> None:
    clients(os="windows")
    assert "builds windows images" in refused().message


def test_podman_in_both_disguises(clients: Any) -> None:
    shim = clients(
        banner="Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.\npodman version 4.3.1"
    )
    error = refused()
    assert "Podman" in error.faults[0].problem
    shim.set(banner="", component="Podman Engine")
    assert "Podman 20.10.24 answers on this socket" in refused().message


def test_client_that_is_no_docker(clients: Any, tmp_path: Path) -> None:
    fake = clients()
    fake.client.write_text("#!/bin/sh\necho hello\n")
    assert "does not answer --version" in refused().faults[0].problem
    fake.client.write_text("#!/nonexistent/interpreter\n")
    assert refused().faults


def test_daemon_that_hangs(clients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = clients()
    fake.client.write_text(
        '#!/bin/sh\n[ "$1" = version ] && exec sleep 30\n[ "$1" = buildx ] && exit 1\n'
        "echo Docker version 20.10.24, build x\n"
    )
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/usr/bin:/bin")
    monkeypatch.setenv("GAPFORGE_DOCKER", str(fake.client))
    real = detect.process.run

    def run(
        argv: list[str], **how: Any
    ) -> Any:  # short is the patience with the question that hangs only
        return real(argv, **{**how, "timeout": 0.2 if argv[1] == "version" else how["timeout"]})

    monkeypatch.setattr(detect.process, "run", run)
    assert "does not answer" in refused().message


def test_named_client(clients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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
        monkeypatch.setattr(private_daemon, "running_host", lambda project: self.OWN)

    def test_is_used_when_the_default_socket_is_silent(self, clients: Any) -> None:
        fake = clients(down=DOWN, up_hosts=[self.OWN])
        info = detect.choose().info
        assert (info.host, info.private) == (self.OWN, True)
        asked = [
            call["env"].get("DOCKER_HOST", "")
            for call in fake.calls()
            if call["argv"][0] == "version"
        ]
        assert asked == ["", self.OWN]

    def test_system_docker_goes_first(self, clients: Any) -> None:
        clients()
        assert detect.choose().info.host == ""

    @pytest.mark.parametrize("chosen", ["DOCKER_HOST", "DOCKER_CONTEXT", "config"])
    def test_never_replaces_a_daemon_that_the_user_chose(
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

    def test_given_host_beats_everything_and_drops_foreign_tls(
        self, clients: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = clients(down=DOWN, up_hosts=["unix:///given"])
        monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        assert detect.choose(host="unix:///given").info.host == "unix:///given"
        assert all(
            "DOCKER_TLS_VERIFY" not in c["env"] for c in fake.calls() if c["argv"][0] == "version"
        )


def test_remote_engine_has_no_folder_here(clients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clients()
    monkeypatch.setenv("DOCKER_HOST", "ssh://builder")
    assert detect.choose(project=Project(Path("/x"), Path("/x"))).info.root_dir == ""


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_hint_is_the_same_in_both_languages(
    clients: Any, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is chosen by what the clients and daemons said, not by our words about it."""
    monkeypatch.setenv("GAPFORGE_LANG", lang)
    fake = clients(banner="podman version 4.3.1")
    assert "apt-get" not in refused().hint  # a client of Docker's own is wanted, not the plugin
    fake.set(banner="", component="Podman Engine")
    assert "DOCKER_HOST" in refused().hint
    fake.set(component="Engine", server="19.03.15")
    assert "20.10" in refused().hint
    fake.set(server="20.10.24", down=DENIED)
    assert "newgrp docker" in refused().hint
    fake.set(down="the daemon said something else")
    assert "systemctl start docker" in refused().hint
    # That the client itself may not be run has nothing to do with the docker group.
    fake.client.chmod(0o644)
    monkeypatch.setenv("GAPFORGE_DOCKER", str(fake.client))
    assert "docker-buildx" in refused().hint


def test_what_was_tried_in_korean(clients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    first, second = clients(client="28.2.2"), clients(down=DOWN)
    error = refused(host="unix:///x.sock")
    assert error.message == f"쓸 수 있는 엔진이 없습니다: {DOWN}"
    assert error.hint == (
        "Docker를 시작하거나(sudo systemctl start docker) 이 프로젝트의 전용 엔진을 시작하십시오: "
        "./gapforge engine start"
    )
    assert [(fault.where, fault.problem, fault.expected) for fault in error.faults] == [
        (
            str(first.client),
            "클라이언트 28.2.2: 23부터 BuildKit에 필요한 buildx 플러그인이 없음",
            "BuildKit이나 docker-buildx 플러그인이 있는 클라이언트",
        ),
        (f"{second.client} 20.10.24, 주소 unix:///x.sock", DOWN, ""),
    ]
    second.set(server="19.03.15")
    second.set(down="")
    assert refused().message == (
        "쓸 수 있는 엔진이 없습니다: docker 데몬 19.03.15: 너무 오래되었습니다. "
        "RUN --mount에는 20.10 이상이 필요합니다"
    )
    error = refused("docker-buildx")
    assert error.message == "docker-buildx에 쓸 수 있는 docker 클라이언트가 없습니다"
    assert (
        error.faults[1].problem == "클라이언트 20.10.24: docker-buildkit만 가능, docker-buildx 불가"
    )
