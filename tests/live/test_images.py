"""Test base images made from packages, from a registry and from a `docker save` archive."""

from __future__ import annotations

import filecmp
import gzip
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gapforge.base import temporary_secrets
from gapforge.base.errors import FetchError, GapforgeError, ResolveError, StorageError, TargetError
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.model import lock as locks
from gapforge.model import names
from gapforge.model.lock import LockedImage
from gapforge.model.preset import BaseImage, load
from gapforge.model.unresolved_item import LOGIN_REQUIRED, NO_ANSWER, Reason
from gapforge.sync import base_image_facts, oci_layout
from gapforge.sync.base_images import fetch
from gapforge.sync.network import Network, NoAnswerError
from gapforge.sync.registry_images import look_up
from raised_errors import values_of
from samples import QUICKSTART, ROOT
from tiny_image import make_layout

QUIET = Progress("test", quiet=True)
EPOCH = 1700000000


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_image_facts, "_seen", {})


@pytest.fixture
def here(tmp_path: Path) -> Project:
    return Project(tmp_path / "project", tmp_path / "project" / "artifacts")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


def same_trees(a: Path, b: Path) -> bool:
    names = [
        sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
        for root in (a, b)
    ]
    return names[0] == names[1] and not filecmp.cmpfiles(a, b, names[0], shallow=False)[1]


# -- made from packages


@needs("mmdebstrap")
@pytest.mark.timeout(900)
def test_made_base_image_is_reproducible(
    tmp_path: Path, here: Project, practice_lock: Path
) -> None:
    """Make the base image of the practice preset again, in another folder."""
    preset, lock = load(QUICKSTART), locks.load(practice_lock)
    made = fetch(preset.builder, here, lock.epoch, tmp_path / "1", Network(), QUIET)
    assert made == lock.images["builder"]
    assert same_trees(tmp_path / "1", ROOT / "artifacts" / preset.name / "images" / "builder")
    assert (made.os_id, made.os_version) == ("debian", "12")
    layout = oci_layout.read_layout(tmp_path / "1")
    day = datetime.fromtimestamp(lock.epoch, timezone.utc)
    assert layout.config["created"] == f"{day:%Y-%m-%dT%H:%M:%SZ}"
    with tarfile.open(layout.layers[0].path(tmp_path / "1")) as archive:
        members = {m.name.removeprefix("./"): m for m in archive}
        shadow = archive.extractfile("./etc/shadow")
        assert shadow is not None
        assert b"root:*:%d:" % (lock.epoch // 86400) in shadow.read()
    assert not {"etc/hostname", "etc/resolv.conf", "etc/machine-id", "dev/null"} & members.keys()
    assert not [
        n
        for n, m in members.items()
        if m.isfile() and n.startswith(("var/lib/apt/lists/", "var/cache/apt/", "tmp/"))
    ]
    assert max(m.mtime for m in members.values()) <= lock.epoch
    files = base_image_facts.read_files(layout)
    suites = [line.split()[-2] for line in files.text("etc/apt/sources.list").splitlines()]
    assert suites == ["bookworm", "bookworm-updates", "bookworm-security"]


@needs("mmdebstrap")
def test_apt_mirror_replaces_the_archive(tmp_path: Path, here: Project) -> None:
    network = Network(apt_mirrors=(("http://", "http://127.0.0.1:9/"),), retries=0)
    with pytest.raises(FetchError) as caught:
        fetch(BaseImage(suite="bookworm"), here, EPOCH, tmp_path / "1", network, QUIET)
    assert "127.0.0.1:9" in caught.value.render()


@needs("mmdebstrap")
@pytest.mark.parametrize(
    ("base", "kind", "name"),
    [
        (BaseImage(suite="no-such-suite"), ResolveError, "no-such-suite"),
        (
            BaseImage(suite="bookworm", include=("no-such-package",)),
            ResolveError,
            "no-such-package",
        ),
    ],
)
@pytest.mark.timeout(300)
def test_unknown_suite_and_package_are_named(
    tmp_path: Path, here: Project, base: BaseImage, kind: type[GapforgeError], name: str
) -> None:
    with pytest.raises(kind) as caught:
        fetch(base, here, EPOCH, tmp_path / "1", Network(retries=0), QUIET)
    assert name in caught.value.render()
    assert not list((tmp_path / "1").rglob("*.tar"))


# -- out of a registry


@dataclass
class Registry:
    address: str
    data: Path

    def push(self, layout: Path, name: str) -> None:
        subprocess.run(
            [
                "skopeo",
                "copy",
                "--preserve-digests",
                "--dest-tls-verify=false",
                f"oci:{layout}",
                f"docker://{self.address}/{name}",
            ],
            check=True,
            capture_output=True,
        )

    def put_manifest(self, name: str, tag: str, body: bytes, media: str) -> None:
        subprocess.run(
            [
                "curl",
                "-fsS",
                "-X",
                "PUT",
                "-H",
                f"Content-Type: {media}",
                "--data-binary",
                "@-",
                f"http://{self.address}/v2/{name}/manifests/{tag}",
            ],
            input=body,
            check=True,
            capture_output=True,
        )


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if not shutil.which("docker-registry") or not shutil.which("skopeo"):
        pytest.skip("docker-registry or skopeo is not installed")
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@contextmanager
def running_registry(folder: Path, users: str = "") -> Iterator[Registry]:
    for _ in range(10):  # another program may take the free port before the registry does
        server, port = serve_registry(folder, users)
        if server.poll() is None:
            break
    assert server.poll() is None, "docker-registry does not start"
    try:
        yield Registry(f"127.0.0.1:{port}", folder / "data")
    finally:
        server.terminate()
        server.wait(60)


def serve_registry(folder: Path, users: str = "") -> tuple[subprocess.Popen[bytes], int]:
    """Start a registry on a free port; return when it listens or has ended.

    ``users`` are lines of htpasswd; without any, everybody may read and write.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage:\n  filesystem: {{rootdirectory: {folder}/data}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    if users:
        (folder / "htpasswd").write_text(users)
        with open(config, "a") as file:
            file.write(f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n")
    server = subprocess.Popen(
        ["docker-registry", "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    return server, port


def assert_manifest_predicts(base: BaseImage, fetched: LockedImage, folder: Path) -> None:
    """Assert that the manifest alone gives what fetching the image made, but for the OS."""
    image, files = look_up(base, Network())
    assert image == replace(fetched, os_id="", os_version="", cuda=image.cuda, cudnn=image.cudnn)
    made = {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }
    assert files == {
        path: (hashlib.sha256(data).hexdigest(), len(data)) for path, data in made.items()
    }


@pytest.mark.parametrize("schema2", [False, True])
def test_registry_image_keeps_its_digests(
    tmp_path: Path, here: Project, registry: Registry, schema2: bool
) -> None:
    made = make_layout(tmp_path / "made", schema2=schema2, note=str(schema2))
    registry.push(tmp_path / "made", f"one/base:{schema2}".lower())
    name = f"{registry.address}/one/base:{schema2}".lower()
    progress = Progress("test", quiet=True)
    got = fetch(BaseImage(image=name), here, EPOCH, tmp_path / "out", Network(), progress)
    assert progress.done >= sum(b.size for b in oci_layout.read_layout(tmp_path / "out").layers)
    assert (got.manifest_digest, got.config_digest) == (made.manifest_digest, made.config_digest)
    assert got.reference == f"{name}@{made.manifest_digest}"
    assert (got.os_id, got.os_version) == ("debian", "12")
    assert_manifest_predicts(BaseImage(image=name), got, tmp_path / "out")
    again = fetch(
        BaseImage(image=name, digest=made.manifest_digest),
        here,
        EPOCH,
        tmp_path / "again",
        Network(),
        QUIET,
    )
    assert again == got
    assert same_trees(tmp_path / "out", tmp_path / "again")
    assert not list((here.state / "images").iterdir())
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "out").rglob("*") if p.is_file()} == {
        0o644
    }


def test_amd64_is_chosen_from_an_index(tmp_path: Path, here: Project, registry: Registry) -> None:
    made = make_layout(tmp_path / "made", note="multi")
    registry.push(tmp_path / "made", "multi/base:amd64")
    manifest = (tmp_path / "made/blobs/sha256" / made.manifest_digest[7:]).read_bytes()
    entry = {"mediaType": names.OCI_MANIFEST, "digest": made.manifest_digest, "size": len(manifest)}
    other = json.loads(manifest)
    other["annotations"] = {"for": "arm64"}
    other_bytes = json.dumps(other).encode()
    registry.put_manifest("multi/base", "arm64", other_bytes, names.OCI_MANIFEST)
    arm = {
        **entry,
        "digest": "sha256:" + hashlib.sha256(other_bytes).hexdigest(),
        "size": len(other_bytes),
        "platform": {"os": "linux", "architecture": "arm64"},
    }

    def index(*entries: dict[str, object]) -> bytes:
        return json.dumps(
            {"schemaVersion": 2, "mediaType": oci_layout.INDEX_TYPES[0], "manifests": entries},
            indent=3,
        ).encode()

    newer = {**arm, "platform": {"os": "linux", "architecture": "amd64", "variant": "v3"}}
    both = index(newer, arm, {**entry, "platform": {"os": "linux", "architecture": "amd64"}})
    registry.put_manifest("multi/base", "both", both, oci_layout.INDEX_TYPES[0])
    registry.put_manifest("multi/base", "arm", index(newer, arm), oci_layout.INDEX_TYPES[0])
    name = f"{registry.address}/multi/base:both"
    top = "sha256:" + hashlib.sha256(both).hexdigest()
    got = fetch(BaseImage(image=name), here, EPOCH, tmp_path / "out", Network(), QUIET)
    assert got.manifest_digest == made.manifest_digest
    assert got.reference == f"{name}@{top}"
    assert_manifest_predicts(BaseImage(image=name), got, tmp_path / "out")
    for pin in (top, made.manifest_digest):
        folder = tmp_path / pin[7:15]
        assert (
            fetch(
                BaseImage(image=name, digest=pin), here, EPOCH, folder, Network(), QUIET
            ).manifest_digest
            == made.manifest_digest
        )
    packed = json.loads(manifest)
    packed["layers"][1]["mediaType"] = f"{names.OCI_LAYER}+zstd"
    packed_bytes = json.dumps(packed).encode()
    registry.put_manifest("multi/base", "zstd", packed_bytes, names.OCI_MANIFEST)
    for tag, found in (("arm", "linux/amd64/v3, linux/arm64"), ("zstd", "zstd")):
        refused = BaseImage(image=f"{registry.address}/multi/base:{tag}")
        for ask in (
            lambda image: look_up(image, Network()),
            lambda image: fetch(image, here, EPOCH, tmp_path / "no", Network(), QUIET),
        ):
            with pytest.raises(TargetError) as caught:
                ask(refused)
            assert list(values_of(caught.value.faults[0].problem).values()) == [found]
    assert not list((tmp_path / "no").iterdir()), "nothing of a refused image is downloaded"


def test_missing_image_wrong_digest_and_silent_registry(
    tmp_path: Path, here: Project, registry: Registry
) -> None:
    make_layout(tmp_path / "made", note="pins")
    registry.push(tmp_path / "made", "pin/base:1")
    network = Network(retries=0)
    for number, (base, hint) in enumerate(
        [
            (BaseImage(image=f"{registry.address}/pin/base:2"), "preset"),
            (
                BaseImage(image=f"{registry.address}/pin/base:1", digest="sha256:" + "0" * 64),
                "preset",
            ),
            (BaseImage(image="127.0.0.1:9/x:1"), "skopeo inspect"),
        ]
    ):
        with pytest.raises(FetchError) as caught:
            fetch(base, here, EPOCH, tmp_path / str(number), network, QUIET)
        assert hint in caught.value.hint
        with pytest.raises(FetchError) as looked:
            look_up(base, network)
        assert isinstance(looked.value, NoAnswerError) == (base.image == "127.0.0.1:9/x:1")
        if isinstance(looked.value, NoAnswerError):
            reason = Reason(code=NO_ANSWER, server="registry:127.0.0.1:9")
            assert looked.value.reason == reason
    with pytest.raises(FetchError, match="GAPFORGE_OFFLINE"):
        fetch(BaseImage(image="x:1"), here, EPOCH, tmp_path / "off", Network(offline=True), QUIET)


def test_mirror_does_not_change_the_reference(
    tmp_path: Path, here: Project, registry: Registry
) -> None:
    made = make_layout(tmp_path / "made", note="mirror")
    registry.push(tmp_path / "made", "nvidia/cuda:1")
    network = Network(registry_mirrors=(("docker.io", registry.address),))
    got = fetch(BaseImage(image="nvidia/cuda:1"), here, EPOCH, tmp_path / "out", network, QUIET)
    assert got.reference == f"nvidia/cuda:1@{made.manifest_digest}"


def test_private_image_needs_the_login_of_the_env_file(
    tmp_path: Path, here: Project, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images behind a registry that requires a login."""
    secrets = tmp_path / "secrets"  # of this test alone, because builds run beside it
    secrets.mkdir()
    monkeypatch.setattr(temporary_secrets, "secret_storage", lambda: secrets)
    made = make_layout(tmp_path / "made", note="private")
    registry.push(tmp_path / "made", "private/base:1")
    # htpasswd -nbB me 'pass word'
    users = "me:$2b$04$AwSw/Ow0Mf5IN2MNCnf95OCug5gszhaYH2qUFn35nXh0dILW4OXXm\n"
    with running_registry(registry.data.parent, users) as private:
        base = BaseImage(image=f"{private.address}/private/base:1")
        for password in ("", "wrong word"):
            text = f"REGISTRY_LOGINS='{private.address} me {password}'\n" if password else ""
            (tmp_path / ".env").write_text(text)
            network = Network(retries=0).with_credentials(tmp_path / ".env")
            for ask in (
                lambda network: look_up(base, network),
                lambda network: fetch(base, here, EPOCH, tmp_path / "no", network, QUIET),
            ):
                with pytest.raises(NoAnswerError) as caught:
                    ask(network)
                assert caught.value.reason.code == LOGIN_REQUIRED
                assert private.address in caught.value.hint
                assert not password or password not in caught.value.render()
        (tmp_path / ".env").write_text(f"REGISTRY_LOGINS='{private.address} me pass word'\n")
        network = Network(retries=0).with_credentials(tmp_path / ".env")
        look_up(base, network)
        got = fetch(base, here, EPOCH, tmp_path / "out", network, QUIET)
    assert got.manifest_digest == made.manifest_digest
    assert not list(secrets.iterdir())


def test_interrupted_copy_is_verified_and_completed(
    tmp_path: Path, here: Project, registry: Registry
) -> None:
    made = make_layout(tmp_path / "made", note="resume")
    registry.push(tmp_path / "made", "resume/base:1")
    partial = here.state / "images" / made.manifest_digest[7:]
    blobs = partial / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (partial / ".gapforge-folder").write_text("ours")
    layer = oci_layout.read_layout(tmp_path / "made").layers[0]
    damaged = bytearray(layer.path(tmp_path / "made").read_bytes())
    damaged[99] ^= 1
    (blobs / layer.digest[7:]).write_bytes(damaged)
    got = fetch(
        BaseImage(image=f"{registry.address}/resume/base:1"),
        here,
        EPOCH,
        tmp_path / "out",
        Network(),
        QUIET,
    )
    assert got.manifest_digest == made.manifest_digest
    assert not partial.exists()


def test_damaged_layer_from_registry_is_refused(
    tmp_path: Path, here: Project, registry: Registry
) -> None:
    make_layout(tmp_path / "made", note="damage")
    registry.push(tmp_path / "made", "damage/base:1")
    layer = oci_layout.read_layout(tmp_path / "made").layers[1]
    stored = (
        registry.data
        / f"docker/registry/v2/blobs/sha256/{layer.digest[7:9]}/{layer.digest[7:]}/data"
    )
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    with pytest.raises(FetchError):
        fetch(
            BaseImage(image=f"{registry.address}/damage/base:1"),
            here,
            EPOCH,
            tmp_path / "out",
            Network(retries=0),
            QUIET,
        )


# -- out of an archive


@needs("skopeo")
def test_archive_is_verified_and_converted(tmp_path: Path, here: Project) -> None:
    made = make_layout(tmp_path / "made", note="archive")
    here.root.mkdir()
    file = here.root / "base.tar"
    subprocess.run(
        ["skopeo", "copy", f"oci:{tmp_path}/made", f"docker-archive:{file}:local/base:1"],
        check=True,
        capture_output=True,
    )
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    got = fetch(
        BaseImage(archive="base.tar", archive_sha256=sha256),
        here,
        EPOCH,
        tmp_path / "1",
        Network(offline=True),
        QUIET,
    )
    assert got.reference == f"docker.io/local/base:1@sha256:{sha256}"
    assert (got.os_id, got.os_version) == ("debian", "12")
    packed = tmp_path / "base.tar.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    again = fetch(BaseImage(archive=str(packed)), here, EPOCH, tmp_path / "2", Network(), QUIET)
    assert (again.manifest_digest, again.config_digest) == (got.manifest_digest, got.config_digest)
    # skopeo reads the layout as the same image.
    said = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{tmp_path}/1"], check=True, capture_output=True
    ).stdout
    assert "sha256:" + hashlib.sha256(said).hexdigest() == got.manifest_digest
    assert made.config_digest
    with pytest.raises(FetchError) as caught:
        fetch(
            BaseImage(archive="base.tar", archive_sha256="0" * 64),
            here,
            EPOCH,
            tmp_path / "3",
            Network(),
            QUIET,
        )
    assert sha256 in caught.value.render()
    with pytest.raises(FetchError, match=r"absent\.tar"):
        fetch(BaseImage(archive="absent.tar"), here, EPOCH, tmp_path / "4", Network(), QUIET)
    with pytest.raises(GapforgeError, match=r"\.\./base\.tar"):
        fetch(BaseImage(archive="../base.tar"), here, EPOCH, tmp_path / "5", Network(), QUIET)


def test_folder_with_files_is_not_overwritten(tmp_path: Path, here: Project) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(StorageError, match=str(tmp_path / "out")):
        fetch(BaseImage(suite="bookworm"), here, EPOCH, tmp_path / "out", Network(), QUIET)
    assert os.listdir(tmp_path / "out") == ["mine"]
