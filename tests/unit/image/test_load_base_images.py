"""Base images are loaded under a local name, once, and compared by digest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fake_docker import Fake
from gapforge.base.errors import EngineError, TargetError, VerifyError
from gapforge.engine import detect
from gapforge.engine.protocol import Engine
from gapforge.image import load_base_images
from gapforge.model.lock import LockedImage
from raised_errors import assert_error, values_of
from tiny_image import make_archive, make_layout


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return tmp_path / "layout"


@pytest.fixture(autouse=True)
def image(layout: Path) -> LockedImage:
    return make_layout(layout, programs=())


@pytest.fixture
def engine(fake: Fake) -> Engine:
    return detect.choose()


def test_layout_must_match_the_lock(engine: Engine, layout: Path, image: LockedImage) -> None:
    other = "sha256:" + "0" * 64
    wrong = replace(image, config_digest=other)
    with pytest.raises(VerifyError) as caught:
        load_base_images.ensure(engine, layout, wrong, lambda line: None)
    assert values_of(caught.value.message) == {
        "layout": layout,
        "found": image.config_digest,
        "expected": other,
    }


def test_wrongly_loaded_image_loses_its_name(
    engine: Engine, fake: Fake, layout: Path, image: LockedImage
) -> None:
    fake.set(load_as="sha256:" + "f" * 64)
    name = load_base_images.base_name(image.config_digest)
    with pytest.raises(EngineError) as caught:
        load_base_images.ensure(engine, layout, image, lambda line: None)
    assert_error(caught.value, EngineError, name=name, found="sha256:" + "f" * 64)
    assert engine.image_ids(name) == ()


def test_moved_name_is_loaded_again(
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
        # The fake's containers are processes of this machine.
        monkeypatch.setattr(load_base_images, "OS_RELEASE", (str(file),))

    def load(self, engine: Engine, base: object) -> LockedImage:
        return load_base_images.ensure_override(engine, str(base), lambda line: None)

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
    def test_archive_is_loaded(
        self, engine: Engine, layout: Path, image: LockedImage, tmp_path: Path, mode: str
    ) -> None:
        make_archive(layout, tmp_path / "base.tar", mode=mode)
        found = self.load(engine, tmp_path / "base.tar")
        digest = image.config_digest
        assert (found.config_digest, found.os_id, found.os_version) == (digest, "ubuntu", "22.04")
        assert engine.image_ids(load_base_images.base_name(digest)) == (digest,)
        assert engine.image_ids("debian:12") == ()

    def test_archive_in_containerd_store(
        self, engine: Engine, fake: Fake, layout: Path, tmp_path: Path
    ) -> None:
        fake.set(store="containerd")
        make_archive(layout, tmp_path / "base.tar")
        assert self.load(engine, tmp_path / "base.tar") == self.load(engine, tmp_path / "base.tar")

    def test_layout_is_loaded(self, engine: Engine, layout: Path, image: LockedImage) -> None:
        assert self.load(engine, layout).config_digest == image.config_digest

    def test_present_image_gets_local_name(
        self, engine: Engine, layout: Path, image: LockedImage
    ) -> None:
        engine.tag(
            load_base_images.ensure(engine, layout, image, lambda line: None), "ubuntu:22.04"
        )
        engine.untag(load_base_images.base_name(image.config_digest))
        assert self.load(engine, "ubuntu:22.04").config_digest == image.config_digest
        found = engine.image_ids(load_base_images.base_name(image.config_digest))
        assert found == (image.config_digest,)

    def test_name_that_moves_meanwhile(
        self, engine: Engine, layout: Path, image: LockedImage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = make_layout(layout.parent / "other", note="other", programs=())
        engine.tag(
            load_base_images.ensure(engine, layout, image, lambda line: None), "ubuntu:22.04"
        )
        moved = load_base_images.ensure(engine, layout.parent / "other", other, lambda line: None)
        read = engine.image_ids

        def then_moves(name: str) -> tuple[str, ...]:
            found = read(name)
            engine.tag(moved, "ubuntu:22.04")
            return found

        monkeypatch.setattr(engine, "image_ids", then_moves)
        assert self.load(engine, "ubuntu:22.04").config_digest == image.config_digest
        name = load_base_images.base_name(image.config_digest)
        assert read(name) == (image.config_digest,)

    @pytest.mark.parametrize(
        ("config", "found"),
        [
            ({"Architecture": "arm64"}, {"platform": "linux/arm64"}),
            ({"Variant": "v3"}, {"platform": "linux/amd64/v3"}),
            ({"Config": {"OnBuild": ["RUN x"]}}, {"triggers": "['RUN x']"}),
        ],
    )
    def test_present_image_that_no_build_can_use(
        self,
        engine: Engine,
        fake: Fake,
        layout: Path,
        image: LockedImage,
        config: dict[str, object],
        found: dict[str, str],
    ) -> None:
        name = load_base_images.ensure(engine, layout, image, lambda line: None)
        engine.tag(name, "ubuntu:22.04")
        fake.set(image=config)
        with pytest.raises(TargetError) as caught:
            self.load(engine, "ubuntu:22.04")
        assert values_of(caught.value.faults[0].problem) == found

    @pytest.mark.parametrize("base", ["ubuntu:none", "./none.tar", "none.tar.gz", "/none"])
    def test_missing_image_is_not_pulled(self, engine: Engine, fake: Fake, base: str) -> None:
        with pytest.raises(EngineError) as caught:
            self.load(engine, base)
        assert_error(caught.value, EngineError, base=base)
        assert not [argv for argv in fake.argvs() if "pull" in argv]

    def test_folder_must_be_a_layout(self, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        with pytest.raises(EngineError) as caught:
            self.load(engine, tmp_path / "d")
        assert_error(caught.value, EngineError, base=str(tmp_path / "d"))

    def test_image_without_os_is_unknown(
        self, engine: Engine, layout: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(load_base_images, "OS_RELEASE", ("/nonexistent",))
        found = self.load(engine, layout)
        assert (found.os_id, found.os_version) == ("unknown", "unknown")

    def test_load_is_reported_in_korean(
        self, engine: Engine, layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GAPFORGE_LANG", "ko")
        lines: list[str] = []
        make_archive(layout, tmp_path / "base.tar")
        image = load_base_images.ensure_override(engine, str(tmp_path / "base.tar"), lines.append)
        assert lines[0].startswith("베이스 이미지 base.tar 적재: ")
        assert lines[-1].startswith("베이스 이미지 base.tar 적재 완료(")
        assert lines[-1].endswith(
            f", 엔진에서의 이름: {load_base_images.base_name(image.config_digest)}"
        )
