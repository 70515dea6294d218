"""Test the engine contract, base images and the missing network with real daemons.

Every docker client on PATH is tested. Without the buildx plugin its tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine_contract import CHECKS, Check, load_base, request
from gapforge.base.errors import BuildError
from gapforge.base.marked_folders import mark_folder
from gapforge.base.project import Project
from gapforge.engine import detect, private_daemon, private_daemon_state
from gapforge.engine.protocol import Engine
from gapforge.image import load_base_images
from tiny_image import make_archive, make_layout

KINDS = ("docker-buildkit", "docker-buildx")


def reach(kind: str, state: private_daemon_state.State) -> Engine:
    """Return the engine of this kind, or skip the test if Docker's client cannot build with it."""
    if kind == "docker-buildx":
        done = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip("needs docker-buildx")
    return detect.choose(kind, state.host)


@pytest.fixture(scope="module", params=KINDS)
def offline(request: pytest.FixtureRequest, offline_engine: private_daemon_state.State) -> Engine:
    return reach(request.param, offline_engine)


@pytest.fixture(scope="module")
def base(offline: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    name, _ = load_base(offline, tmp_path_factory.mktemp("base") / "layout")
    yield name


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_offline_engine_fulfils_the_contract(
    offline: Engine, base: str, check: Check, tmp_path: Path
) -> None:
    check(offline, base, tmp_path / "work")


@pytest.mark.parametrize("kind", KINDS)
def test_online_engine_fulfils_the_contract(
    kind: str, online_engine: private_daemon_state.State, tmp_path: Path
) -> None:
    engine = reach(kind, online_engine)
    name, _ = load_base(engine, tmp_path / "base")
    for check in CHECKS:
        check(engine, name, tmp_path / check.__name__)


@pytest.mark.parametrize("kind", KINDS)
def test_containerd_image_store_fulfils_the_contract(
    kind: str, engine_project: Project, tmp_path: Path
) -> None:
    """Docker 29's default store identifies images by manifest; daemons from 24 on have it."""
    folder = mark_folder(private_daemon_state.folder_of(engine_project), "test")
    (folder / "daemon.json").write_text('{"features": {"containerd-snapshotter": true}}')
    engine = reach(kind, private_daemon.start(engine_project, offline=True))
    if engine.info.image_store != "containerd":
        pytest.skip(f"dockerd {engine.info.server_version} has no containerd image store")
    name, image = load_base(engine, tmp_path / "base")
    assert engine.image_ids(name) == (image.manifest_digest,)
    for check in CHECKS:
        check(engine, name, tmp_path / check.__name__)


# Network accesses of a Dockerfile, and text of Docker's failure. The lint refuses them earlier.
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
    "a missing base image": ("FROM debian:bookworm\nRUN true\n", "debian"),
}


@pytest.mark.parametrize("attempt", TRIES)
def test_build_cannot_reach_a_network(offline: Engine, attempt: str, tmp_path: Path) -> None:
    layout = tmp_path / "base"
    image = make_layout(layout, programs=("sh", "bash", "getent", "true"))
    name = load_base_images.ensure(offline, layout, image, lambda line: None)
    dockerfile, words = TRIES[attempt]
    wanted = request(tmp_path / "ctx", dockerfile.format(base=name))
    with pytest.raises(BuildError) as caught:
        offline.build(wanted, lambda line: None)
    assert words in caught.value.message.lower()
    assert offline.image_ids(wanted.tag) == ()


def test_build_step_sees_only_loopback(offline: Engine, base: str, tmp_path: Path) -> None:
    wanted = request(
        tmp_path / "ctx",
        f"FROM {base}\n# not from the cache:\n"
        f"RUN echo {tmp_path.name} interfaces: $(ls /sys/class/net) "
        "routes: $(cat /proc/net/route)\n",
    )
    lines: list[str] = []
    offline.build(wanted, lines.append)
    shown = [line for line in lines if "interfaces: lo routes: Iface" in line]
    assert shown and shown[0].rstrip().endswith("IRTT")  # the table's heading and no route
    offline.untag(wanted.tag)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_base_override_from_saved_archive(offline: Engine, mode: str, tmp_path: Path) -> None:
    image = make_layout(tmp_path / "layout", note=mode)
    archive = tmp_path / "base.tar"
    make_archive(tmp_path / "layout", archive, mode=mode)
    found = load_base_images.ensure_override(offline, str(archive), lambda line: None)
    assert found == replace(
        image, reference=f"--base {archive}", manifest_digest=image.config_digest
    )
    name = load_base_images.base_name(image.config_digest)
    assert offline.image_ids(name)
    # The archive's own name must not replace the user's image.
    assert offline.image_ids("debian:12") == ()
    # An archive that this engine saves has other bytes, but is recognised as the same image.
    saved = tmp_path / "saved.tar"
    env = {**os.environ, "DOCKER_HOST": offline.info.host}
    subprocess.run([offline.info.client, "save", "-o", str(saved), name], env=env, check=True)
    lines: list[str] = []
    for base in (str(saved), name):
        again = load_base_images.ensure_override(offline, base, lines.append)
        assert again == replace(found, reference=f"--base {base}")
    offline.untag(name)


def test_base_override_from_skopeo_layout(offline: Engine, tmp_path: Path) -> None:
    """An OCI layout that skopeo wrote can be the base image."""
    if not shutil.which("skopeo"):
        pytest.skip("needs skopeo")
    image = make_layout(tmp_path / "made", note="skopeo")
    made, copied = f"oci:{tmp_path / 'made'}", f"oci:{tmp_path / 'copied'}:base"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", made, copied], check=True)
    found = json.loads((tmp_path / "copied" / "index.json").read_text())["manifests"]
    assert [entry["digest"] for entry in found] == [image.manifest_digest]
    loaded = load_base_images.ensure_override(offline, str(tmp_path / "copied"), lambda line: None)
    assert loaded.config_digest == image.config_digest
