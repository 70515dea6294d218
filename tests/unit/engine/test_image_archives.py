"""Base images are read, verified, and written as one tar; every fault has its own error."""

from __future__ import annotations

import io
import json
import random
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from gapforge.base.errors import EngineError, TargetError, VerifyError
from gapforge.base.files import sha256_bytes
from gapforge.engine.docker_load_archive import write_image
from gapforge.engine.docker_save_archive import open_archive
from gapforge.engine.image_parts import ImageParts
from gapforge.engine.read_oci_layout import read_layout
from gapforge.model.lock import LockedImage
from gapforge.model.names import OCI_INDEX
from raised_errors import assert_error, values_of
from tiny_image import make_archive, make_layout

NAME = "localhost/gapforge/base:x"
ZSTD = b"\x28\xb5\x2f\xfd"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return tmp_path / "layout"


@pytest.fixture(autouse=True)
def image(layout: Path) -> LockedImage:
    return make_layout(layout, programs=())


def written(parts: ImageParts) -> dict[str, bytes]:
    out = io.BytesIO()
    write_image(parts, NAME, out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def test_tar_is_layout_and_archive(layout: Path, image: LockedImage) -> None:
    files = written(read_layout(layout))
    entry = json.loads(files["manifest.json"])[0]
    assert entry["RepoTags"] == [NAME]
    assert entry["Config"] == "blobs/sha256/" + image.config_digest[7:]
    assert all(name in files for name in entry["Layers"])
    listed = json.loads(files["index.json"])["manifests"]
    assert [m["digest"] for m in listed] == [image.manifest_digest]
    assert listed[0]["annotations"] == {
        "io.containerd.image.name": NAME,
        "org.opencontainers.image.ref.name": "x",
    }
    assert list(files)[-2:] == ["index.json", "manifest.json"]  # a truncated tar is no image


def test_same_image_gives_same_bytes(layout: Path) -> None:
    one, two = io.BytesIO(), io.BytesIO()
    for out in (one, two):
        write_image(read_layout(layout), NAME, out)
    assert one.getvalue() == two.getvalue()


def test_repeated_layer_is_written_once(layout: Path) -> None:
    parts = read_layout(layout)
    files = written(replace(parts, layers=(*parts.layers, parts.layers[0])))
    assert len(json.loads(files["manifest.json"])[0]["Layers"]) == 3
    assert len([name for name in files if name.startswith("blobs/")]) == 4


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest[7:]


def test_missing_or_truncated_layer(layout: Path, image: LockedImage) -> None:
    layer = json.loads(blob(layout, image.manifest_digest).read_text())["layers"][0]["digest"]
    data = blob(layout, layer).read_bytes()
    blob(layout, layer).write_bytes(data[:-1])
    file, size = blob(layout, layer), len(data)
    with pytest.raises(VerifyError) as caught:
        read_layout(layout)
    assert_error(caught.value, VerifyError, file=file, found=size - 1, size=size)
    file.unlink()
    with pytest.raises(VerifyError) as caught:
        read_layout(layout)
    assert_error(caught.value, VerifyError, file=file, found=None, size=size)


@pytest.mark.parametrize("which", ["manifest_digest", "config_digest"])
def test_damaged_manifest_or_config(layout: Path, image: LockedImage, which: str) -> None:
    file = blob(layout, getattr(image, which))
    file.write_bytes(file.read_bytes().replace(b"2", b"3"))
    with pytest.raises(VerifyError) as caught:
        read_layout(layout, image.manifest_digest)
    assert_error(caught.value, VerifyError, file=file, digest=getattr(image, which))


def test_layer_that_is_damaged_after_reading(layout: Path) -> None:
    parts = read_layout(layout)
    digest, size = parts.layers[0].digest, parts.layers[0].size
    blob(layout, digest).write_bytes(b"")
    with pytest.raises(VerifyError) as caught:
        written(parts)
    assert_error(caught.value, VerifyError, digest=digest, size=size)
    blob(layout, digest).write_bytes(bytes(size))
    with pytest.raises(VerifyError) as caught:
        written(parts)
    found = "sha256:" + sha256_bytes(bytes(size))
    assert_error(caught.value, VerifyError, digest=digest, found=found)


def test_digest_cannot_leave_the_layout(layout: Path, image: LockedImage) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["digest"] = "sha256:../../../../etc/passwd"
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(EngineError) as caught:
        read_layout(layout)
    assert_error(caught.value, EngineError, digest="sha256:../../../../etc/passwd")


@pytest.mark.parametrize("count", [0, 2])
def test_layout_must_have_one_image(layout: Path, count: int) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] = index["manifests"] * count
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(EngineError) as caught:
        read_layout(layout)
    assert_error(caught.value, EngineError, file=layout, count=count)


def read_archive(path: Path) -> None:
    with open_archive(path):
        pass


def test_archive_must_have_one_image(layout: Path, tmp_path: Path) -> None:
    archive = tmp_path / "two.tar"
    make_archive(layout, archive, images=2)
    with pytest.raises(EngineError) as caught:
        read_archive(archive)
    assert_error(caught.value, EngineError, file=archive, count=2)


MODES = ("w", "w:gz", "w:bz2", "w:xz")


@pytest.mark.parametrize("mode", MODES)
def test_flipped_bits_are_damage(layout: Path, tmp_path: Path, mode: str) -> None:
    archive = tmp_path / "base.tar"
    make_archive(layout, archive, mode=mode)
    good, chance, refused = archive.read_bytes(), random.Random(3), 0
    for _ in range(60):
        data = bytearray(good)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        archive.write_bytes(data)
        try:
            read_archive(archive)
        except (EngineError, VerifyError, TargetError):
            refused += 1
    assert refused > (5 if mode == "w" else 50)


def test_archive_or_layers_in_zstd_are_named(layout: Path, tmp_path: Path) -> None:
    archive = tmp_path / "my base.tar.zst"
    archive.write_bytes(ZSTD + b"anything")
    with pytest.raises(EngineError) as caught:
        read_archive(archive)
    assert_error(caught.value, EngineError, path=archive)
    assert caught.value.hint == f"zstd -d '{archive}' -o '{tmp_path}/my base.plain.tar'"
    archive = tmp_path / "base.tar"
    make_archive(layout, archive, layer=lambda data: ZSTD + data)
    with pytest.raises(TargetError) as refused:
        read_archive(archive)
    assert values_of(refused.value.faults[0].problem) == {"names": "zstd"}


def rewritten(folder: Path, *, config: dict[str, object], layer: bytes = b"") -> None:
    """Change the configuration and put ``layer`` before the first layer of the layout's image."""
    index = json.loads((folder / "index.json").read_text())
    manifest = json.loads(blob(folder, index["manifests"][0]["digest"]).read_text())
    changed = json.loads(blob(folder, manifest["config"]["digest"]).read_text()) | config
    manifest["config"] = put(folder, json.dumps(changed).encode())
    first = blob(folder, manifest["layers"][0]["digest"]).read_bytes()
    manifest["layers"][0] = put(folder, layer + first)
    index["manifests"] = [put(folder, json.dumps(manifest).encode())]
    (folder / "index.json").write_text(json.dumps(index))


def put(folder: Path, data: bytes) -> dict[str, object]:
    digest = "sha256:" + sha256_bytes(data)
    blob(folder, digest).write_bytes(data)
    return {"digest": digest, "size": len(data)}


@pytest.mark.parametrize(
    ("config", "layer", "found"),
    [
        ({"variant": "v3"}, b"", {"platform": "linux/amd64/v3"}),
        ({"architecture": "arm64"}, b"", {"platform": "linux/arm64"}),
        ({"config": {"OnBuild": ["RUN x"]}}, b"", {"triggers": "['RUN x']"}),
        ({}, ZSTD, {"names": "zstd"}),
    ],
)
def test_image_that_no_build_can_use(
    layout: Path, tmp_path: Path, config: dict[str, object], layer: bytes, found: dict[str, str]
) -> None:
    rewritten(layout, config=config, layer=layer)
    with pytest.raises(TargetError) as caught:
        read_layout(layout)
    assert values_of(caught.value.faults[0].problem) == found
    archive = tmp_path / "base.tar"
    make_archive(layout, archive)
    with pytest.raises(TargetError) as caught:
        read_archive(archive)
    assert values_of(caught.value.faults[0].problem) == found


def test_baseline_of_a_nested_index_is_taken(layout: Path, image: LockedImage) -> None:
    """An index may list linux/amd64/v3 first, and attestations anywhere."""
    index = json.loads((layout / "index.json").read_text())
    good = index["manifests"][0]
    platforms = [
        {"os": "linux", "architecture": "amd64", "variant": "v3"},
        {"os": "unknown", "architecture": "unknown"},
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
    ]
    other = {**good, "digest": "sha256:" + "0" * 64}
    entries = [
        {**(good if platform == platforms[2] else other), "platform": platform}
        for platform in platforms
    ]
    nested = put(layout, json.dumps({"manifests": entries}).encode())
    index["manifests"] = [{**nested, "mediaType": OCI_INDEX}]
    (layout / "index.json").write_text(json.dumps(index))
    assert read_layout(layout).manifest_digest == image.manifest_digest


@pytest.mark.parametrize("keep", [0, 100, 6000])
@pytest.mark.parametrize("mode", MODES)
def test_truncated_archive_is_refused(layout: Path, tmp_path: Path, keep: int, mode: str) -> None:
    archive = tmp_path / "base.tar"
    make_archive(layout, archive, mode=mode)
    data = archive.read_bytes()
    archive.write_bytes(data[: min(keep, len(data) // 2)])
    with pytest.raises(EngineError):
        read_archive(archive)


def test_damaged_layer_in_archive(layout: Path, tmp_path: Path) -> None:
    archive = tmp_path / "base.tar"
    make_archive(layout, archive)
    archive.write_bytes(archive.read_bytes().replace(b"VERSION_ID", b"VERSION_IE"))
    with pytest.raises(VerifyError) as caught:
        read_archive(archive)
    assert_error(caught.value, VerifyError, name="layer1/layer.tar")


def test_oci_archive_gets_a_hint(layout: Path, tmp_path: Path) -> None:
    archive = tmp_path / "oci.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(layout, arcname=".")
        tar.add(layout / "oci-layout", arcname="oci-layout")
    with pytest.raises(EngineError) as caught:
        read_archive(archive)
    assert_error(caught.value, EngineError, hint={"path": archive}, name="manifest.json")
    assert "tar -xf" in caught.value.hint


def test_foreign_file_is_no_archive(tmp_path: Path) -> None:
    archive = tmp_path / "x.iso"
    archive.write_bytes(b"not a tar" * 1000)
    with pytest.raises(EngineError) as caught:
        read_archive(archive)
    assert_error(caught.value, EngineError, path=archive)


def test_damaged_layout_in_korean(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    (layout / "index.json").unlink()
    with pytest.raises(EngineError) as caught:
        read_layout(layout)
    assert caught.value.message == (
        f"{layout}: OCI 이미지 레이아웃이 아닙니다(oci-layout 또는 index.json 없음)"
    )
