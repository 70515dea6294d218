"""Every reader of files from outside answers generated input at once, with its own error.

In CI each reader gets a few dozen inputs, always the same. GAPFORGE_FUZZ_SECONDS=3600 gives each
reader new ones for an hour. A failure names its seed, which GAPFORGE_FUZZ_SEED repeats.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import samples
from forged_volumes import forge, index_with
from gapforge.base.errors import (
    BundleError,
    EngineError,
    FetchError,
    GapforgeError,
    LockError,
    PresetError,
    ResolveError,
    SecretError,
    SourceError,
    TargetError,
    TrustError,
    UsageError,
    VerifyError,
)
from gapforge.base.files import sha256_bytes
from gapforge.base.strict_json import read_json
from gapforge.bundle import bundle_index, repair_request, repository_archive, volume_reader
from gapforge.bundle.partial_objects import PartialObjects
from gapforge.bundle.volume_format import Damaged, Part, compact_json
from gapforge.bundle.volume_plan import make_plan
from gapforge.engine import read_oci_layout as engine_layout
from gapforge.image import gapforgeignore
from gapforge.model import catalog, catalog_shape, component, debian_control, env_file, names
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.store import incomplete_bundles, sha256sums
from gapforge.store.inventory import Inventory
from gapforge.store.store import Store
from gapforge.store.verify_artifacts import verify
from gapforge.sync import (
    apt_resolver,
    docker_archive,
    oci_layout,
    private_github_files,
    registry_images,
    small_requests,
    source_contents,
    unfinished_sync,
    wheel_licence,
)
from gapforge.trust import rollback_protection, ssh_signatures, trusted_signers
from random_changes import mutated

SECONDS = float(os.environ.get("GAPFORGE_FUZZ_SECONDS", "0"))
INPUTS = 25  # for each reader in CI
LONGEST = 5.0  # seconds for one input; the readers need milliseconds, but CI machines stall

HASH = "a" * 64
DIGEST = f"sha256:{HASH}"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7TnVMjjcFxYbfZJvNBD3M6C6AJyDJHQ5ZUXJQeFwPj release"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads a file that holds ``valid``. It may raise ``errors`` and nothing else."""

    valid: bytes
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...] = ()
    name: str = "file"


def _plan() -> bytes:
    plan = make_plan([Part.of_object(HASH, 100), Part.of_object("b" * 64, 5000)], (), 3000)
    volumes = [bundle_index.VolumeEntry(number, plan.size(number), HASH) for number in plan.numbers]
    return bundle_index.render_index(plan, volumes)


def _forged(path: Path) -> object:
    """Read a volume whose index is the file, with all hashes around it right."""
    volume = path.with_name("x.gfv")
    forge(volume, None, b"x" * 100, raw=path.read_bytes())
    return volume_reader.read_volume(volume)


def _catalog(path: Path) -> object:
    folder = path.parent / "catalog"
    folder.mkdir(exist_ok=True)
    for name in catalog_shape.SHAPES:
        if not (folder / f"{name}.json").exists():
            (folder / f"{name}.json").symlink_to(samples.ROOT / "catalog" / f"{name}.json")
    (folder / "opencv.json").unlink()
    (folder / "opencv.json").write_bytes(path.read_bytes())
    return catalog.load(folder)


def _component(path: Path) -> object:
    for script in component.SCRIPTS:
        (path.parent / script).touch()
    packages = samples.ROOT / "components/opencv/packages.json"
    (path.parent / packages.name).write_bytes(packages.read_bytes())
    return component.load_all(path.parents[1]), component.described(path.parents[1])


def _layout(read: Callable[[Path], object]) -> Callable[[Path], object]:
    def of(path: Path) -> object:
        (path.parent / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return read(path.parent)

    return of


def _manifest(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Read a layout whose manifest is the file; its digest is right."""

    def of(path: Path) -> object:
        data, blobs = path.read_bytes(), path.parent / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / sha256_bytes(data)).write_bytes(data)
        (blobs / sha256_bytes(CONFIG)).write_bytes(CONFIG)
        manifest = oci_layout.Blob(names.OCI_MANIFEST, f"sha256:{sha256_bytes(data)}", len(data))
        oci_layout.write_layout(path.parent, manifest)
        return read(path.parent)

    return of


CONFIG = (
    b'{"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []},'
    b' "config": {"Env": ["A=b"]}}'
)
MANIFEST = compact_json(
    {
        "schemaVersion": 2,
        "mediaType": names.OCI_MANIFEST,
        "config": {
            "mediaType": names.OCI_CONFIG,
            "digest": f"sha256:{sha256_bytes(CONFIG)}",
            "size": len(CONFIG),
        },
        "layers": [],
    }
)
OCI_INDEX = compact_json(
    {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": names.OCI_MANIFEST,
                "digest": DIGEST,
                "size": 7,
                "platform": {"os": "linux", "architecture": "amd64"},
            }
        ],
    }
)


def _artifacts(path: Path) -> object:
    lock = samples.lock(samples.preset())
    samples.lay_artifacts(path.parent, lock)
    return verify(path.parent).faults


def _artifacts_with_lock(path: Path) -> object:
    data = path.read_bytes()
    samples.lay_artifacts(path.parent, samples.lock(samples.preset()))
    path.write_bytes(data)
    return verify(path.parent).faults


def _partial_object(path: Path) -> object:
    store = Store(path.parent / "store")
    (store.partial(f"bundle-{HASH}.json")).write_bytes(path.read_bytes())
    (store.partial(f"bundle-{HASH}.part")).write_bytes(b"x" * 50)
    ranges = PartialObjects(store).ranges(HASH, 100)
    assert all(0 <= first < after <= 50 for first, after in ranges)
    return ranges


def _resumed(path: Path) -> object:
    state = unfinished_sync.ResumeState(path, "p")
    chosen = samples.preset()
    return state.base(chosen.builder), state.first_use(chosen)


def _wheel(path: Path) -> object:
    wheel = path.with_name("x.whl")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x-1.dist-info/METADATA", path.read_bytes())
    return wheel_licence.licence_of(wheel)


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def _docker_archive(path: Path) -> object:
    """Import an archive; nothing may appear beside its destination."""
    destination = path.parent / "imported"
    shutil.rmtree(destination, ignore_errors=True)
    try:
        return docker_archive.import_archive(path, destination)
    finally:
        assert {p.name for p in path.parent.iterdir()} <= {path.name, "imported"}


def _docker_manifest(path: Path) -> object:
    """Import an intact archive whose manifest.json is the file."""
    folder = path.parent / "archive"
    folder.mkdir(exist_ok=True)
    members = {"config.json": CONFIG, "manifest.json": path.read_bytes()}
    (folder / "image.tar").write_bytes(_tar(members))
    return _docker_archive(folder / "image.tar")


def _release(path: Path) -> object:
    asset = private_github_files.PrivateFile(repository="o/r", tag="v1", asset="x.tar.gz")
    found, size = private_github_files.asset_in(path.read_bytes(), asset)
    assert (
        private_github_files.GitHub().find(private_github_files.GitHub().address(found)) == found
        and size >= 0
    )
    return found


def _source_archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in (("x-1.2/README", b"x" * 600), ("x-1.2/VERSION", b"1.2")):
            header = tarfile.TarInfo(name)
            header.size = len(text)
            archive.addfile(header, io.BytesIO(text))
    return out.getvalue()


def _version_in_source(path: Path) -> object:
    stated = component.StatedVersion(source="x", file="VERSION", pattern="([0-9.]+)")
    archive = source_contents.Downloaded("x", "x.tar.gz", path)
    return source_contents.look_into(archive, stated, "")


def _registry_manifest(path: Path) -> object:
    data = path.read_bytes()
    found = registry_images._Found("docker://x", "x:1", DIGEST, data)
    return registry_images._read_manifest(found, "x:1")


def _apt_uris(path: Path) -> object:
    found = apt_resolver._downloads(path.read_bytes().decode("utf-8", "replace"))
    assert all(size >= 0 for _uri, _name, size in found)
    return [apt_resolver._package_of(name) for _uri, name, _size in found]


def _apt_sources(path: Path) -> object:
    stanzas = debian_control.parse(path.read_bytes().decode("utf-8", "replace"))
    return [apt_resolver._checksums(stanza) for stanza in stanzas]


DOCKER_MANIFEST = b'[{"Config": "config.json", "Layers": [], "RepoTags": ["x:1"]}]'


def _control(path: Path) -> object:
    text = path.read_bytes().decode("utf-8", "replace")
    debian_control.parse(text)
    return debian_control.filter_index(text, {"gcc_1_amd64.deb"})


def _headers(path: Path) -> object:
    status, headers = small_requests._parse_headers(path.read_bytes().decode("latin-1"))
    assert 0 <= status < 1000
    return headers


READERS: dict[str, Reader] = {
    "preset": Reader(
        valid=samples.QUICKSTART.read_bytes(),
        read=presets.load,
        errors=(PresetError,),
        name=samples.QUICKSTART.name,
    ),
    "lock": Reader(
        valid=samples.lock(samples.preset()).render().encode(),
        read=locks.load,
        errors=(LockError,),
        name="lock.json",
    ),
    "lock-of-format-1": Reader(
        valid=(
            samples.ROOT / "tests/data/format-1/presets/ubuntu22.04-cpu-torch2.5.lock.json"
        ).read_bytes(),
        read=locks.load,
        errors=(LockError,),
        name="lock.json",
    ),
    "component": Reader(
        valid=(samples.ROOT / "components/opencv/component.json").read_bytes(),
        read=_component,
        errors=(PresetError,),
        name="components/opencv/component.json",
    ),
    "catalog": Reader(
        valid=(samples.ROOT / "catalog/opencv.json").read_bytes(),
        read=_catalog,
        errors=(PresetError,),
    ),
    "env": Reader(
        valid=b'# keys\nexport A=b\nB=\'two\nlines\'\nC="x\\n\\"" # end\n',
        read=lambda path: env_file.load(path, ()),
        errors=(SecretError,),
        name=".env",
    ),
    "gapforgeignore": Reader(
        valid=b"*.o\n!keep.o\n/build/\n**/x[a-z]?.c\n",
        read=lambda path: gapforgeignore.read_rules(path.parent).verdict("a/b.o", False),
        errors=(SourceError,),
        name=".gapforgeignore",
    ),
    "bundle-index": Reader(valid=_plan(), read=bundle_index.read_index, errors=(Damaged, OSError)),
    "repair-request": Reader(
        valid=repair_request.RepairRequest(
            bundle="ab" * 12, parts=(Part.of_object(HASH, 5),), volumes=(1, 2)
        ).render(),
        read=repair_request.read_request,
        errors=(BundleError,),
    ),
    "volume-index": Reader(
        valid=compact_json(index_with([[HASH, 100]])), read=_forged, errors=(Damaged, OSError)
    ),
    "volume": Reader(
        valid=b"gapforge-volume\n" + bytes(300),
        read=volume_reader.read_volume,
        errors=(Damaged, OSError),
    ),
    "repository-archive": Reader(
        valid=repository_archive.render({"a/b": (b"x", True), "c": (b"y" * 600, False)}),
        read=repository_archive.read_archive,
        errors=(BundleError,),
    ),
    "inventory": Reader(
        valid=b"gapforge-inventory 1\ngapforge 0.2.0\n",
        read=Inventory.read,
        errors=(UsageError, VerifyError),
    ),
    "unfinished-import": Reader(
        valid=b'{"bundle": "%s", "format": 1, "objects": ["%s"], "presets": ["p"]}'
        % (b"ab" * 12, HASH.encode()),
        read=lambda path: incomplete_bundles.read_all(path.parents[1]),
        name=f"imports/{'ab' * 12}.json",
    ),
    "partial-object": Reader(
        valid=b'{"ranges": [[0, 10], [20, 50]], "size": 100}', read=_partial_object
    ),
    "unfinished-sync": Reader(
        valid=b'{"preset": "p", "bases": {}, "first": {"opencv": ["%s", 5]}}' % HASH.encode(),
        read=_resumed,
    ),
    "sha256sums": Reader(
        valid=sha256sums.render({"a/b": HASH, "c": HASH}),
        read=lambda path: sha256sums.parse(path.read_bytes()),
        errors=(UnicodeDecodeError,),
    ),
    "artifacts-sums": Reader(
        valid=sha256sums.render({"a/b": HASH, "c": HASH}), read=_artifacts, name="p/SHA256SUMS"
    ),
    "artifacts-lock": Reader(
        valid=samples.lock(samples.preset()).render().encode(),
        read=_artifacts_with_lock,
        errors=(LockError,),
        name="p/lock.json",
    ),
    "packages": Reader(valid=samples.content_of("Packages"), read=_control, errors=(VerifyError,)),
    "wheel-metadata": Reader(
        valid=b"Metadata-Version: 2.1\nName: x\nLicense: MIT\nClassifier: License :: X :: Y\n\n",
        read=_wheel,
    ),
    "wheel": Reader(
        valid=_zipped(
            {"x/__init__.py": b"", "x-1.dist-info/METADATA": b"Name: x\nLicense: MIT\n\n"}
        ),
        read=wheel_licence.licence_of,
    ),
    "docker-archive": Reader(
        valid=_tar({"config.json": CONFIG, "manifest.json": DOCKER_MANIFEST}),
        read=_docker_archive,
        errors=(FetchError, TargetError),
    ),
    "docker-archive-manifest": Reader(
        valid=DOCKER_MANIFEST, read=_docker_manifest, errors=(FetchError, TargetError)
    ),
    "github-release": Reader(
        valid=b'{"assets": [{"name": "x.tar.gz", "id": 7, "size": 5}]}',
        read=_release,
        errors=(private_github_files.RefusedError,),
    ),
    "source-archive": Reader(
        valid=_source_archive(), read=_version_in_source, errors=(FetchError,)
    ),
    "registry-manifest": Reader(
        valid=MANIFEST, read=_registry_manifest, errors=(FetchError, TargetError)
    ),
    "apt-uris": Reader(
        valid=b"'http://a/x_1_amd64.deb' x_1%3a2_amd64.deb 100 MD5Sum:0\n",
        read=_apt_uris,
        errors=(ResolveError,),
    ),
    "apt-sources": Reader(
        valid=b"Package: x\nVersion: 1-1\nChecksums-Sha256:\n %s 10 x_1.orig.tar.xz\n"
        % HASH.encode(),
        read=_apt_sources,
    ),
    "http-headers": Reader(
        valid=b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nRetry-After: 3\r\n\r\n", read=_headers
    ),
    "oci-index-at-sync": Reader(
        valid=OCI_INDEX,
        read=_layout(oci_layout.read_layout),
        errors=(FetchError, TargetError),
        name="layout/index.json",
    ),
    "oci-manifest-at-sync": Reader(
        valid=MANIFEST, read=_manifest(oci_layout.read_layout), errors=(FetchError, TargetError)
    ),
    "oci-index-at-site": Reader(
        valid=OCI_INDEX,
        read=_layout(engine_layout.read_layout),
        errors=(EngineError, VerifyError, TargetError),
        name="layout/index.json",
    ),
    "oci-manifest-at-site": Reader(
        valid=MANIFEST,
        read=_manifest(engine_layout.read_layout),
        errors=(EngineError, VerifyError, TargetError),
    ),
    "trusted-signers": Reader(
        valid=f"# us\nrelease {KEY}\n".encode(), read=trusted_signers.read, errors=(TrustError,)
    ),
    "public-key": Reader(valid=KEY.encode(), read=ssh_signatures.read_public, errors=(UsageError,)),
    "signature": Reader(
        valid=b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTk=\n"
        b"-----END SSH SIGNATURE-----\n",
        read=ssh_signatures.read_signature,
        errors=(ssh_signatures.BadSignature,),
    ),
    "accepted-states": Reader(
        valid=b'{"format": 1, "presets": {"p": {"made": "2026-01-01T00:00:00Z", "bundle": "x", '
        b'"lock": "%s", "superseded": []}}}' % HASH.encode(),
        read=lambda path: rollback_protection._parse(path.read_bytes()),
        errors=(ValueError,),
    ),
    "json": Reader(
        valid=b'{"a": [1, "b", null, {"c": 1.5}]}', read=read_json, errors=(ValueError,)
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_reader_answers_generated_input(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    file = tmp_path / reader.name
    file.parent.mkdir(parents=True, exist_ok=True)
    only = os.environ.get("GAPFORGE_FUZZ_SEED")
    end, number = time.monotonic() + SECONDS, 0
    while number < INPUTS or time.monotonic() < end:
        seed = only or (f"{name} {number}" if number < INPUTS else f"{name} {time.time_ns()}")
        data = mutated(reader.valid, random.Random(seed))
        file.write_bytes(data)
        started = time.monotonic()
        try:
            reader.read(file)
        except reader.errors as error:
            # All messages of an error can be shown, and the whole of it on a screen.
            if isinstance(error, GapforgeError):
                assert len(error.render()) < 1 << 20, seed
        except Exception as error:  # noqa: BLE001 - with the seed, it can be repeated
            raise AssertionError(f"GAPFORGE_FUZZ_SEED={seed!r}: {error!r}") from error
        taken = time.monotonic() - started
        assert taken < LONGEST, f"GAPFORGE_FUZZ_SEED={seed!r}: {taken:.1f} s"
        number += 1
        if only:
            break


def test_readers_accept_their_valid_files(tmp_path: Path) -> None:
    """Mutations of a file that is refused anyway would reach little of a reader."""
    refused = {"volume", "inventory", "oci-index-at-sync", "oci-index-at-site", "signature"}
    for name, reader in READERS.items():
        file = tmp_path / name / reader.name
        file.parent.mkdir(parents=True)
        file.write_bytes(reader.valid)
        if name not in refused:
            reader.read(file)


def test_numbers_of_apt_with_thousands_of_digits_are_refused() -> None:
    digits = "9" * 5000  # Python's int() refuses them with a ValueError
    with pytest.raises(ResolveError):
        apt_resolver._downloads(f"'http://a/x_1_all.deb' x_1_all.deb {digits}")
    with pytest.raises(ResolveError):
        apt_resolver._package_of("x.deb")
    assert apt_resolver._checksums({"checksums-sha256": f"{HASH} {digits} x"}) == {}


@pytest.mark.parametrize("tags", [b"7", b"true", b'{"a": 1}'])
def test_tags_of_an_archive_of_another_type_are_refused(tags: bytes, tmp_path: Path) -> None:
    file = tmp_path / "manifest"
    file.write_bytes(DOCKER_MANIFEST.replace(b'["x:1"]', tags))
    with pytest.raises(FetchError):
        _docker_manifest(file)


@pytest.mark.parametrize("number", [b"true", b"-7"])
def test_numbers_of_assets_that_are_none_are_refused(number: bytes, tmp_path: Path) -> None:
    file = tmp_path / "release"
    file.write_bytes(b'{"assets": [{"name": "x.tar.gz", "id": %s}]}' % number)
    with pytest.raises(private_github_files.RefusedError):
        _release(file)
