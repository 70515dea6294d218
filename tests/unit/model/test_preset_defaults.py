"""Test what a preset may leave out: defaults, and what the catalog has for its versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gapforge.model import catalog as catalogs
from gapforge.model import catalog_shape, preset_defaults
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.catalog import Catalog
from gapforge.model.preset import Preset
from gapforge.model.preset_shape import preset_shape
from gapforge.model.schema import faults_of
from samples import COMPONENTS, ROOT, raw_preset
from samples import lock as sample_lock

CATALOG = catalogs.load(ROOT / "catalog")
SHORT: dict[str, Any] = {
    "format": 1,
    "name": "short",
    "summary": "one language",
    "os": {"id": "ubuntu", "version": "22.04"},
    "cuda": "12.4",
    "cudnn": "9.1",
    "base": {
        "builder": {"image": "nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04"},
        "runtime": {"image": "nvidia/cuda:12.4.1-cudnn-runtime-ubuntu22.04"},
    },
    "python": {"version": "3.10"},
    "pytorch": {"torch": "2.5.1+cu124"},
    "tensorrt": {"version": "10.3.0.26", "form": "tar"},
    "ffmpeg": {"version": "5.1.9", "configure": ["--enable-nvenc"]},
    "opencv": {
        "version": "4.10.0",
        "contrib": True,
        "cuda": True,
        "architectures": ["8.6"],
        "cmake": ["-DWITH_ADE=OFF", "-DBUILD_opencv_face=OFF", "-DBUILD_opencv_xfeatures2d=OFF"],
    },
    "application": {"source": "apps/My App"},
}


def short(**changes: Any) -> dict[str, Any]:
    raw = json.loads(json.dumps(SHORT))
    return {k: v for k, v in {**raw, **changes}.items() if v is not ...}


def parsed(raw: dict[str, Any], catalog: Catalog | None = CATALOG) -> Preset:
    assert faults_of(raw, preset_shape(COMPONENTS), "preset") == []
    return presets.parse(raw, COMPONENTS, catalog)


def test_defaults_of_a_short_preset() -> None:
    needed = ("format", "name", "summary", "os", "base", "python")
    small = parsed({name: SHORT[name] for name in needed})
    assert (small.summary_ko, small.summary_en) == ("one language", "one language")
    assert (small.practice, small.platform, small.epoch) == (False, "linux/amd64", None)
    assert (small.cuda, small.cudnn, small.pytorch, small.tensorrt) == ("", "", None, None)
    assert (small.packages, small.apt_runtime, small.apt_sources) == ((), (), ())
    assert small.sources == {}
    assert small.application is None
    assert small.secrets == ()


def test_name_of_the_application_is_that_of_its_folder() -> None:
    application = parsed(short()).application
    assert application is not None
    assert application.name == "my-app"


def test_sources_follow_from_versions_and_options() -> None:
    made = parsed(short())
    caches = [name for name in made.sources if name.startswith("opencv-cache-")]
    assert sorted(set(made.sources) - set(caches)) == [
        *("ffmpeg", "nv-codec-headers", "opencv", "opencv-contrib", "tensorrt")
    ]
    assert caches == [
        "opencv-cache-detect.caffemodel",
        "opencv-cache-detect.prototxt",
        "opencv-cache-ippicv",
        "opencv-cache-nvidia_optical_flow",
        "opencv-cache-sr.caffemodel",
        "opencv-cache-sr.prototxt",
    ]
    archive = CATALOG.ffmpeg["5.1.9"][0]
    ffmpeg = made.sources["ffmpeg"]
    assert (ffmpeg.urls, ffmpeg.sha256, ffmpeg.version) == ((archive.url,), archive.sha256, "5.1.9")
    assert made.sources["opencv"].file == "opencv-4.10.0.tar.gz"
    assert "cuda-12.5" in made.sources["tensorrt"].file
    assert made.sources["tensorrt"].gated


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ({"cmake": ["-DWITH_IPP=OFF"]}, "opencv-cache-ippicv"),
        ({"modules": ["core"]}, "opencv-cache-nvidia_optical_flow"),
        ({"modules": ["core"]}, "opencv-cache-ade"),
        ({"contrib": False}, "opencv-contrib"),
        ({"cuda": False}, "opencv-cache-nvidia_optical_flow"),
    ],
)
def test_files_that_opencv_does_not_download(options: dict[str, Any], left_out: str) -> None:
    everything = {"version": "4.10.0", "contrib": True, "cuda": True, "architectures": ["8.6"]}
    assert left_out in parsed(short(opencv=everything)).sources
    assert left_out not in parsed(short(opencv={**everything, **options})).sources


def test_a_source_of_the_preset_wins() -> None:
    own = {"urls": ["https://example.org/ffmpeg-5.1.9.tar.gz"], "sha256": "0" * 64}
    made = parsed(short(sources={"ffmpeg": own}))
    assert made.sources["ffmpeg"].sha256 == "0" * 64
    assert "opencv" in made.sources


def test_pytorch_follows_from_torch() -> None:
    torch = parsed(short()).pytorch
    assert torch is not None
    assert torch.requirements() == (
        "torch==2.5.1+cu124",
        "torchvision==0.20.1+cu124",
        "torchaudio==2.5.1+cu124",
    )
    assert torch.index == "https://download.pytorch.org/whl/cu124"
    without = parsed(short(pytorch={"torch": "2.5.1", "torchaudio": None})).pytorch
    assert without is not None
    assert without.requirements() == ("torch==2.5.1", "torchvision==0.20.1")
    assert without.index == "default"
    # With an index of its own, a preset names all packages, as before.
    old = parsed(short(pytorch={"torch": "2.5.1+cu124", "index": "default"})).pytorch
    assert old is not None
    assert old.requirements() == ("torch==2.5.1+cu124",)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"pytorch": {"torch": "99.1"}}, "$.pytorch.index"),
        ({"ffmpeg": {"version": "99.1"}}, "$.sources"),
        ({"opencv": {"version": "99.1"}}, "$.sources"),
        ({"tensorrt": {"version": "99.1", "form": "tar"}}, "$.sources"),
    ],
)
def test_what_the_catalog_does_not_know_is_a_fault(changes: dict[str, Any], place: str) -> None:
    document = preset_defaults.fill(short(**changes), CATALOG).document
    faults = presets.faults_of(document, "preset", COMPONENTS)
    assert [fault.where for fault in faults] == [f"preset: {place}"]
    assert "index" in faults[0].expected or "sources" in faults[0].expected


def test_state_covers_what_the_catalog_adds(tmp_path: Path) -> None:
    made = parsed(short())
    assert parsed(short()).sha256 == made.sha256
    assert parsed(short(cuda="12.6")).sha256 != made.sha256
    for name in catalog_shape.SHAPES:
        text = (ROOT / "catalog" / f"{name}.json").read_text(encoding="utf-8")
        changed = text.replace(made.sources["opencv"].sha256, "1" * 64)
        (tmp_path / f"{name}.json").write_text(changed, encoding="utf-8")
    other = catalogs.of_presets(tmp_path)
    assert other is not None
    assert parsed(short(), other).sha256 != made.sha256
    (tmp_path / "cuda.json").write_text("{}", encoding="utf-8")
    assert catalogs.of_presets(tmp_path) is None


def test_state_of_a_preset_that_names_everything_is_as_before() -> None:
    assert parsed(raw_preset()).sha256 == parsed(raw_preset(), None).sha256


def test_shortened_document_is_filled_to_the_same() -> None:
    complete = preset_defaults.fill(short(), CATALOG).document
    small = preset_defaults.shortened(complete, CATALOG)
    assert preset_defaults.fill(small, CATALOG).document == complete
    assert not {"sources", "apt", "practice", "platform"} & set(small)
    assert small["pytorch"] == {"torch": "2.5.1+cu124"}
    assert list(small)[:3] == ["format", "name", "summary"]


def test_epoch_is_of_the_preset_else_of_the_lock() -> None:
    own, free = parsed(raw_preset(epoch=5)), parsed(raw_preset(epoch=...))
    assert locks.epoch_of(own, 7) == 5
    assert locks.epoch_of(free, 7) == 7
    assert locks.epoch_of(free, 0) == 1700000000  # as in locks before they had one
    assert locks.epoch_for(own, None, 1e9) == 0
    day = locks.epoch_for(free, None, 1e9)
    assert (day % 86400, 0 <= 1e9 - day < 86400) == (0, True)
    made = locks.Lock(
        preset="x", preset_sha256="0" * 64, images={}, entries=(), unresolved=(), epoch=day
    )
    assert locks.epoch_for(free, made, 2e9) == day
    kept = sample_lock(free)
    again = locks.parse(kept.render().encode(), shown="lock", name="x")
    assert (kept.epoch, again.epoch) == (0, 0)
    assert "epoch" not in kept.render()
