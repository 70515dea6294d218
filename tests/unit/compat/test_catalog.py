"""Check that the catalog is readable and has sources, and how versions are compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gapforge.base.errors import PresetError
from gapforge.model import catalog, versions
from gapforge.model import preset as presets
from raised_errors import assert_error
from samples import ROOT


def test_every_fact_has_a_source() -> None:
    total, bare = catalog.facts_and_sources(ROOT / "catalog")
    assert total > 300
    assert bare == []


def test_load_reports_fact_without_source(tmp_path: Path) -> None:
    folder = tmp_path / "catalog"
    shutil.copytree(ROOT / "catalog", folder)
    raw = json.loads((folder / "cuda.json").read_text(encoding="utf-8"))
    raw["drivers"][0]["source"] = []
    del raw["drivers"][1]["source"]
    (folder / "cuda.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(PresetError) as caught:
        catalog.load(folder)
    assert [f.where for f in caught.value.faults] == [
        "catalog/cuda.json: $.drivers[0].source",
        "catalog/cuda.json: $.drivers[1].source",
    ]


def test_load_reports_faults_of_all_documents(tmp_path: Path) -> None:
    folder = tmp_path / "catalog"
    shutil.copytree(ROOT / "catalog", folder)
    (folder / "gpu.json").write_text("{", encoding="utf-8")
    (folder / "python.json").unlink()
    (folder / "pytorhc.json").write_text("{}", encoding="utf-8")
    with pytest.raises(PresetError) as caught:
        catalog.load(folder)
    where = " ".join(f.where for f in caught.value.faults)
    assert "catalog/gpu.json: line 1" in where
    assert "catalog/python.json" in where
    assert "catalog/pytorhc.json" in where


def test_load_reports_wrong_value(tmp_path: Path) -> None:
    folder = tmp_path / "catalog"
    shutil.copytree(ROOT / "catalog", folder)
    raw = json.loads((folder / "cuda.json").read_text(encoding="utf-8"))
    raw["drivers"][0]["cuda"] = "new"
    (folder / "cuda.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(PresetError) as caught:
        catalog.load(folder)
    assert_error(caught.value, PresetError, where=["catalog/cuda.json: $.drivers[0].cuda"])


def test_catalog_names_no_registry_host() -> None:
    for file in [
        *(ROOT / "catalog").glob("*.json"),
        *(ROOT / "presets").glob("ubuntu22.04-*.json"),
    ]:
        text = file.read_text(encoding="utf-8")
        for word in (
            "pypi" + ".org",
            "pythonhosted" + ".org",
            "deb.debian" + ".org",
            "read_file",
            "this survey",
        ):
            assert word not in text, (file.name, word)


def test_load_reads_known_facts() -> None:
    found = catalog.load(ROOT / "catalog")
    assert found.torch["2.1.2"].torchvision == "0.16.2"
    assert found.torch["2.1.2"].default_build == "cu121"
    assert found.opencv["4.9.0"][0].file == "opencv-4.9.0.tar.gz"
    first = found.headers["11.1.5.1"].archives[0]  # the one that the project published itself
    assert first.url.endswith("/nv-codec-headers-11.1.5.1.tar.gz")
    image = found.image("nvidia/cuda:11.8.0-cudnn8-runtime-ubuntu22.04")
    assert image is not None
    assert (image.cuda, image.cudnn_major) == ("11.8.0", "8")
    assert {i.cudnn_major for i in found.images if versions.key(i.cuda) >= (12, 4)} == {"9"}
    assert found.suggested_architectures("12.4") == ("7.0", "7.5", "8.0", "8.6", "8.9", "9.0")
    ids = {d.id for d in found.downloads if "4.9.0" in d.opencv}
    assert {"ippicv", "ade", "nvidia_optical_flow", "data", "wechat_qrcode"} <= ids


def test_presets_use_checksums_of_catalog() -> None:
    known = catalog.load(ROOT / "catalog")
    hashes = {a.url: a.sha256 for archives in known.ffmpeg.values() for a in archives}
    hashes |= {a.url: a.sha256 for h in known.headers.values() for a in h.archives}
    hashes |= {a.url: a.sha256 for pair in known.opencv.values() for a in pair}
    hashes |= {d.url: d.sha256 for d in known.downloads}
    hashes |= {t.url: t.sha256 for r in known.tensorrt.values() for t in r.tars}
    for file in (ROOT / "presets").glob("ubuntu22.04-*.json"):
        if file.name.endswith(".lock.json"):
            continue
        for name, source in presets.load(file).raw["sources"].items():
            assert hashes[source["urls"][0]] == (source["sha256"] or ""), (file.name, name)


@pytest.mark.parametrize(
    ("left", "right", "order"),
    [
        ("4.10.0", "4.9.0", 1),
        ("4.10", "4.10.0", 0),
        ("2.1.2+cu118", "2.1.2", 0),
        ("12.0.16.1", "12.0.16", 1),
        ("8.6.1.6-1", "8.6.1.6", 0),
    ],
)
def test_versions_are_ordered_by_their_numbers(left: str, right: str, order: int) -> None:
    a, b = versions.key(left), versions.key(right)
    assert (a > b) - (a < b) == order


@pytest.mark.parametrize(
    ("version", "least", "most", "inside"),
    [
        ("12.0.16.1", "", "12.0.16", True),
        ("12.1.14.0", "", "12.0.16", False),
        ("12.1", "12.0", "12.1", True),
        ("12.2", "12.0", "12.1", False),
        ("11.8", "12.0", "12.1", False),
        ("12", "12.0", "12.1", True),
        ("9.9", "", "", True),
    ],
)
def test_version_within_its_limits_is_inside(
    version: str, least: str, most: str, inside: bool
) -> None:
    assert versions.within(version, least, most) == inside
