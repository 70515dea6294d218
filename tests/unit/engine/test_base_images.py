"""Base images are read, checked and written as one tar; every way to be wrong has its own message."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from engine_fakes import Fake
from gapforge.base.errors import EngineError, TargetError, VerifyError
from gapforge.base.files import sha256_bytes
from gapforge.engine import detect, image_archive
from gapforge.engine.protocol import Engine
from gapforge.image import load_base_images
from gapforge.model.lock import LockedImage
from tiny_image import make_archive, make_layout

NAME = "localhost/gapforge/base:x"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    make_layout(tmp_path / "layout", programs=())
    return tmp_path / "layout"


@pytest.fixture
def image(tmp_path: Path, layout: Path) -> LockedImage:
    shutil.rmtree(layout)
    return make_layout(layout, programs=())


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake(tmp_path / "fake")
    monkeypatch.setenv("GAPFORGE_DOCKER", str(made.client))
    return made


@pytest.fixture
def engine(fake: Fake) -> Engine:
    return detect.choose()


def written(parts: image_archive.ImageParts) -> dict[str, bytes]:
    out = io.BytesIO()
    image_archive.write_image(parts, NAME, out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def test_tar_is_a_layout_and_an_archive_at_once(layout: Path, image: LockedImage) -> None:
    files = written(image_archive.read_layout(layout))
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
    assert list(files)[-2:] == ["index.json", "manifest.json"]  # a tar that was cut is no image


def test_same_image_same_bytes(layout: Path) -> None:
    one, two = io.BytesIO(), io.BytesIO()
    for out in (one, two):
        image_archive.write_image(image_archive.read_layout(layout), NAME, out)
    assert one.getvalue() == two.getvalue()


def test_layer_that_comes_twice_is_written_once(layout: Path) -> None:
    parts = image_archive.read_layout(layout)
    files = written(replace(parts, layers=(*parts.layers, parts.layers[0])))
    assert len(json.loads(files["manifest.json"])[0]["Layers"]) == 3
    assert len([name for name in files if name.startswith("blobs/")]) == 4


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest[7:]


def test_missing_and_short_layers(layout: Path, image: LockedImage) -> None:
    layer = json.loads(blob(layout, image.manifest_digest).read_text())["layers"][0]["digest"]
    data = blob(layout, layer).read_bytes()
    blob(layout, layer).write_bytes(data[:-1])
    with pytest.raises(VerifyError, match=f"{len(data) - 1} bytes; expected {len(data)}"):
        image_archive.read_layout(layout)
    blob(layout, layer).unlink()
    with pytest.raises(VerifyError, match="is missing"):
        image_archive.read_layout(layout)


@pytest.mark.parametrize("which", ["manifest_digest", "config_digest"])
def test_changed_manifest_or_config(layout: Path, image: LockedImage, which: str) -> None:
    file = blob(layout, getattr(image, which))
    file.write_bytes(file.read_bytes().replace(b"2", b"3"))
    with pytest.raises(VerifyError, match="expected sha256:"):
        image_archive.read_layout(layout, image.manifest_digest)


def test_layer_that_shrinks_while_it_is_read(layout: Path, image: LockedImage) -> None:
    parts = image_archive.read_layout(layout)
    blob(layout, parts.layers[0].digest).write_bytes(b"")
    with pytest.raises(VerifyError, match="ends early"):
        written(parts)


def test_layout_that_points_out_of_itself(layout: Path, image: LockedImage) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["digest"] = "sha256:../../../../etc/passwd"
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(EngineError, match="is not a sha256 digest"):
        image_archive.read_layout(layout)


@pytest.mark.parametrize("count", [0, 2])
def test_layout_of_several_images(layout: Path, count: int) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] = index["manifests"] * count
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(EngineError, match=f"holds {count} images"):
        image_archive.read_layout(layout)


def test_lock_of_another_image(engine: Engine, layout: Path, image: LockedImage) -> None:
    other = "sha256:" + "0" * 64
    with pytest.raises(VerifyError, match="the lock says sha256:000"):
        load_base_images.ensure(
            engine, layout, replace(image, config_digest=other), lambda line: None
        )


def test_engine_that_loads_something_else(
    engine: Engine, fake: Fake, layout: Path, image: LockedImage
) -> None:
    fake.set(load_as="sha256:" + "f" * 64)
    with pytest.raises(EngineError, match="another image than the one it was given"):
        load_base_images.ensure(engine, layout, image, lambda line: None)
    assert engine.image_ids(load_base_images.base_name(image.config_digest)) == ()


def test_name_that_was_moved_to_another_image_is_loaded_again(
    engine: Engine, fake: Fake, layout: Path, image: LockedImage
) -> None:
    name = load_base_images.ensure(engine, layout, image, lambda line: None)
    other = make_layout(layout.parent / "other", note="other", programs=())
    engine.tag(
        load_base_images.ensure(engine, layout.parent / "other", other, lambda line: None), name
    )
    assert engine.image_ids(name) == (other.config_digest,)
    assert load_base_images.ensure(engine, layout, image, lambda line: None) == name
    assert engine.image_ids(name) == (image.config_digest,)


class TestOverride:
    @pytest.fixture(autouse=True)
    def os_release(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        file = tmp_path / "os-release"
        file.write_text('PRETTY_NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="22.04"\n')
        monkeypatch.setattr(
            load_base_images, "OS_RELEASE", (str(file),)
        )  # the fake's containers are host processes

    def take(self, engine: Engine, value: object) -> tuple[str, str, str, str]:
        return load_base_images.ensure_override(engine, str(value), lambda line: None)

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
    def test_archive(
        self, engine: Engine, layout: Path, image: LockedImage, tmp_path: Path, mode: str
    ) -> None:
        make_archive(layout, tmp_path / "base.tar", mode=mode)
        name, digest, os_id, version = self.take(engine, tmp_path / "base.tar")
        assert (digest, os_id, version) == (image.config_digest, "ubuntu", "22.04")
        assert engine.image_ids(name) == (digest,)
        assert engine.image_ids("debian:12") == ()

    def test_archive_in_a_containerd_store(
        self, engine: Engine, fake: Fake, layout: Path, tmp_path: Path
    ) -> None:
        fake.set(store="containerd")
        make_archive(layout, tmp_path / "base.tar")
        assert self.take(engine, tmp_path / "base.tar") == self.take(engine, tmp_path / "base.tar")

    def test_layout(self, engine: Engine, layout: Path, image: LockedImage) -> None:
        assert self.take(engine, layout)[1] == image.config_digest

    def test_name_in_the_engine_gets_a_local_one(
        self, engine: Engine, layout: Path, image: LockedImage
    ) -> None:
        engine.tag(
            load_base_images.ensure(engine, layout, image, lambda line: None), "ubuntu:22.04"
        )
        assert self.take(engine, "ubuntu:22.04")[:2] == (
            load_base_images.base_name(image.config_digest),
            image.config_digest,
        )

    @pytest.mark.parametrize("value", ["ubuntu:none", "./none.tar", "none.tar.gz", "/none"])
    def test_nothing_is_pulled(self, engine: Engine, fake: Fake, value: str) -> None:
        with pytest.raises(EngineError, match="nothing is pulled"):
            self.take(engine, value)
        assert not [argv for argv in fake.argvs() if "pull" in argv]

    def test_folder_that_is_no_layout(self, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        with pytest.raises(EngineError, match="no OCI image layout"):
            self.take(engine, tmp_path / "d")

    def test_in_korean(
        self, engine: Engine, layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GAPFORGE_LANG", "ko")
        lines: list[str] = []
        make_archive(layout, tmp_path / "base.tar")
        name, *_ = load_base_images.ensure_override(
            engine, str(tmp_path / "base.tar"), lines.append
        )
        assert lines[0].startswith("기반 이미지 base.tar 적재: ")
        assert re.fullmatch(
            r"기반 이미지 base.tar 적재 완료\(.+\), 엔진에서의 이름: " + re.escape(name), lines[-1]
        )
        told = {}
        for value in ("ubuntu:none", "/none", str(tmp_path)):
            with pytest.raises(EngineError) as caught:
                self.take(engine, value)
            told[value] = caught.value.message
        assert told == {
            "ubuntu:none": "기반 이미지 ubuntu:none: 그런 이름의 파일도, 엔진 안의 이미지도 없습니다. 레지스트리에서 받지는 않습니다",
            "/none": "기반 이미지 /none: 그런 파일이 없습니다. 레지스트리에서 받지는 않습니다",
            str(
                tmp_path
            ): f"{tmp_path}: OCI 이미지 레이아웃이 아닌 폴더입니다(oci-layout 파일이 없습니다)",
        }

    def test_several_images(self, engine: Engine, layout: Path, tmp_path: Path) -> None:
        make_archive(layout, tmp_path / "two.tar", images=2)
        with pytest.raises(EngineError, match="holds 2 images"):
            self.take(engine, tmp_path / "two.tar")

    @pytest.mark.parametrize("keep", [0, 100, 6000])
    @pytest.mark.parametrize("mode", ["w", "w:gz"])
    def test_archive_that_was_cut(
        self, engine: Engine, layout: Path, tmp_path: Path, keep: int, mode: str
    ) -> None:
        make_archive(layout, tmp_path / "base.tar", mode=mode)
        data = (tmp_path / "base.tar").read_bytes()
        (tmp_path / "base.tar").write_bytes(data[: min(keep, len(data) // 2)])
        with pytest.raises(EngineError):
            self.take(engine, tmp_path / "base.tar")

    def test_changed_layer(self, engine: Engine, layout: Path, tmp_path: Path) -> None:
        make_archive(layout, tmp_path / "base.tar")
        data = (tmp_path / "base.tar").read_bytes().replace(b"VERSION_ID", b"VERSION_IE")
        (tmp_path / "base.tar").write_bytes(data)
        with pytest.raises(VerifyError, match=r"layer1/layer\.tar is sha256:"):
            self.take(engine, tmp_path / "base.tar")

    def test_oci_archive_gets_a_hint(self, engine: Engine, layout: Path, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "oci.tar", "w") as tar:
            tar.add(layout, arcname=".")
            tar.add(layout / "oci-layout", arcname="oci-layout")
        with pytest.raises(EngineError) as caught:
            self.take(engine, tmp_path / "oci.tar")
        assert "tar -xf" in caught.value.hint

    def test_file_that_is_no_archive(self, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / "x.iso").write_bytes(b"not a tar" * 1000)
        with pytest.raises(EngineError, match="not a whole `docker save` archive"):
            self.take(engine, tmp_path / "x.iso")

    def test_image_that_does_not_say_its_os(
        self, engine: Engine, layout: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(load_base_images, "OS_RELEASE", ("/nonexistent",))
        with pytest.raises(TargetError, match="which operating system"):
            self.take(engine, layout)


def test_damage_in_korean(
    layout: Path, image: LockedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    parts = image_archive.read_layout(layout)
    layer = blob(layout, parts.layers[0].digest)
    data = layer.read_bytes()

    def said() -> str:
        with pytest.raises(VerifyError) as caught:
            written(parts)
        return caught.value.message

    layer.write_bytes(data[:-1])
    shown = f"기반 이미지의 blob {parts.layers[0].digest}"
    assert said() == f"{shown}: 중간에 끝남; 기대한 크기: {len(data)}바이트"
    layer.write_bytes(bytes(len(data)))
    assert said() == f"{shown}: 내용이 다릅니다: sha256:{sha256_bytes(bytes(len(data)))}"
    layer.unlink()
    with pytest.raises(VerifyError) as caught:
        image_archive.read_layout(layout)
    assert caught.value.message == f"{layer}: 없음; 기대한 크기: {len(data)}바이트"
    (layout / "index.json").unlink()
    with pytest.raises(EngineError) as refused:
        image_archive.read_layout(layout)
    assert (
        refused.value.message
        == f"{layout}: OCI 이미지 레이아웃이 아닙니다 (oci-layout과 index.json 없음)"
    )
