"""The engine contract, base images and the air gap, against real daemons.

Every docker client on PATH takes part; a machine without the buildx plugin skips those tests and says so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_contract import CHECKS, Check, load_base, request
from gapforge.base.errors import BuildError, EngineError
from gapforge.base.files import mark_folder
from gapforge.base.project import Project
from gapforge.engine import detect, private_daemon, private_daemon_state
from gapforge.engine.protocol import Engine
from gapforge.image import load_base_images
from tiny_image import make_archive, make_layout

KINDS = ("docker-buildkit", "docker-buildx")


def reach(kind: str, state: private_daemon_state.State) -> Engine:
    """The engine of this kind, or a skip when no client on this machine can be it."""
    try:
        return detect.choose(kind, state.host)
    except EngineError as error:
        pytest.skip(error.render())


@pytest.fixture(scope="module", params=KINDS)
def offline(request: pytest.FixtureRequest, offline_engine: private_daemon_state.State) -> Engine:
    return reach(request.param, offline_engine)


@pytest.fixture(scope="module")
def base(offline: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    name, _ = load_base(offline, tmp_path_factory.mktemp("base") / "layout")
    yield name


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(offline: Engine, base: str, check: Check, tmp_path: Path) -> None:
    check(offline, base, tmp_path / "work")


@pytest.mark.parametrize("kind", KINDS)
def test_contract_online(
    kind: str, online_engine: private_daemon_state.State, tmp_path: Path
) -> None:
    engine = reach(kind, online_engine)
    name, _ = load_base(engine, tmp_path / "base")
    for check in CHECKS:
        check(engine, name, tmp_path / check.__name__)


@pytest.mark.parametrize("kind", KINDS)
def test_contract_containerd_store(kind: str, engine_project: Project, tmp_path: Path) -> None:
    """Docker 29's default store, which names images by manifest; daemons from 24 on have it."""
    folder = mark_folder(private_daemon_state.folder_of(engine_project), "test")
    (folder / "daemon.json").write_text('{"features": {"containerd-snapshotter": true}}')
    engine = reach(kind, private_daemon.start(engine_project, offline=True))
    if engine.info.image_store != "containerd":
        pytest.skip(f"dockerd {engine.info.server_version} has no containerd image store")
    name, image = load_base(engine, tmp_path / "base")
    assert engine.image_ids(name) == (image.manifest_digest,)
    for check in CHECKS:
        check(engine, name, tmp_path / check.__name__)


# What a Dockerfile might try, and words of the failure. All fail without a network; the lint refuses them earlier.
TRIES = {
    "a RUN that opens a connection": (
        "FROM {base}\nRUN bash -c 'echo >/dev/tcp/192.0.2.1/80'\n",
        "unreachable",
    ),
    "a RUN that asks for a name": ("FROM {base}\nRUN getent ahosts example.org\n", "exit code: 2"),
    "ADD of an address": ("FROM {base}\nADD https://192.0.2.1/file /file\n", "192.0.2.1"),
    "a syntax line": (
        "# syntax=docker/dockerfile:1.4\nFROM {base}\nRUN true\n",
        "docker/dockerfile",
    ),
    "RUN --network=host": (
        "FROM {base}\nRUN --network=host bash -c 'echo >/dev/tcp/192.0.2.1/80'\n",
        "network",
    ),
    "a base that is not here": ("FROM debian:bookworm\nRUN true\n", "debian"),
}


@pytest.mark.parametrize("attempt", TRIES)
def test_network_is_out_of_reach(offline: Engine, attempt: str, tmp_path: Path) -> None:
    layout = tmp_path / "base"
    image = make_layout(layout, programs=("sh", "bash", "getent", "true"))
    name = load_base_images.ensure(offline, layout, image, lambda line: None)
    dockerfile, words = TRIES[attempt]
    wanted = request(tmp_path / "ctx", dockerfile.format(base=name))
    with pytest.raises(BuildError) as caught:
        offline.build(wanted, lambda line: None)
    assert words in caught.value.message.lower()
    assert offline.image_ids(wanted.tag) == ()


def test_run_in_a_build_sees_only_loopback(offline: Engine, base: str, tmp_path: Path) -> None:
    wanted = request(
        tmp_path / "ctx",
        f"FROM {base}\n# not from the cache:\nRUN echo {tmp_path.name} interfaces: $(ls /sys/class/net) routes: $(cat /proc/net/route)\n",
    )
    lines: list[str] = []
    offline.build(wanted, lines.append)
    shown = [line for line in lines if "interfaces: lo routes: Iface" in line]
    assert shown and shown[0].rstrip().endswith("IRTT")  # the table's heading and no route
    offline.untag(wanted.tag)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_base_from_a_docker_save_archive(offline: Engine, mode: str, tmp_path: Path) -> None:
    image = make_layout(tmp_path / "layout", note=mode)
    archive = tmp_path / "base.tar"
    make_archive(tmp_path / "layout", archive, mode=mode)
    name, digest, os_id, version = load_base_images.ensure_override(
        offline, str(archive), lambda line: None
    )
    assert (digest, os_id, version) == (image.config_digest, "debian", "12")
    assert offline.image_ids(name)
    assert (
        offline.image_ids("debian:12") == ()
    )  # the archive's own name must not replace the user's image
    # What this engine itself saves is taken too, and is known again although docker gave it other bytes.
    saved = tmp_path / "saved.tar"
    env = {**os.environ, "DOCKER_HOST": offline.info.host}
    subprocess.run([offline.info.client, "save", "-o", str(saved), name], env=env, check=True)
    lines: list[str] = []
    assert load_base_images.ensure_override(offline, str(saved), lines.append)[:2] == (name, digest)
    assert load_base_images.ensure_override(offline, name, lines.append)[2:] == ("debian", "12")
    offline.untag(name)


def test_base_layout_of_a_copied_image(offline: Engine, tmp_path: Path) -> None:
    """An OCI layout that skopeo wrote is a base."""
    if not shutil.which("skopeo"):
        pytest.skip("needs skopeo")
    image = make_layout(tmp_path / "made", note="skopeo")
    made, copied = f"oci:{tmp_path / 'made'}", f"oci:{tmp_path / 'copied'}:base"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", made, copied], check=True)
    found = json.loads((tmp_path / "copied" / "index.json").read_text())["manifests"]
    assert [entry["digest"] for entry in found] == [image.manifest_digest]
    assert (
        load_base_images.ensure_override(offline, str(tmp_path / "copied"), lambda line: None)[1]
        == image.config_digest
    )
