"""Test that a source archive of another version than the preset's is refused at sync."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

import samples
from gapforge.base import limits
from gapforge.base.errors import CompatibilityError, FetchError, PresetError
from gapforge.model import preset as presets
from gapforge.model.expected_archive_versions import stated_versions
from gapforge.model.preset import Preset
from gapforge.sync import source_contents
from gapforge.sync.source_contents import Downloaded
from raised_errors import assert_error, values_of
from samples import ROOT

REFERENCE = "ubuntu22.04-cuda11.8-torch2.1"
# What the archives of the reference preset contain, as published.
OPENCV = """\
#define CV_VERSION_MAJOR    4
#define CV_VERSION_MINOR    {minor}
#define CV_VERSION_REVISION 0
#define CV_VERSION_STATUS   ""
"""
TENSORRT = """\
#define NV_TENSORRT_MAJOR 8 //!< TensorRT major version.
#define NV_TENSORRT_MINOR 6 //!< TensorRT minor version.
#define NV_TENSORRT_PATCH 1 //!< TensorRT patch version.
#define NV_TENSORRT_BUILD {build} //!< TensorRT build number.
#define NV_TENSORRT_SONAME_MAJOR 8 //!< Shared object library major version number.
"""
TENSORRT_10 = """\
#define TRT_MAJOR_ENTERPRISE 8
#define TRT_MINOR_ENTERPRISE 6
#define TRT_PATCH_ENTERPRISE 1
#define TRT_BUILD_ENTERPRISE {build}
#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE //!< TensorRT major version.
"""
CONTENTS = {
    "ffmpeg": ("ffmpeg-5.1.9/RELEASE", "5.1.9\n", "5.1.6\n", "5.1.6"),
    "nv-codec-headers": (
        "nv-codec-headers-11.1.5.2/ffnvcodec.pc.in",
        "Name: ffnvcodec\nVersion: 11.1.5.2\n",
        "Name: ffnvcodec\nVersion: 12.0.16.1\n",
        "12.0.16.1",
    ),
    "opencv": (
        "opencv-4.9.0/modules/core/include/opencv2/core/version.hpp",
        OPENCV.format(minor=9),
        OPENCV.format(minor=10),
        "4.10.0",
    ),
    "tensorrt": (
        "TensorRT-8.6.1.6/include/NvInferVersion.h",
        TENSORRT.format(build=6),
        TENSORRT_10.format(build=7),
        "8.6.1.7",
    ),
}


def reference() -> Preset:
    return presets.load(ROOT / "presets" / f"{REFERENCE}.json")


def tar(folder: Path, members: dict[str, str], kind: str = "gz") -> Path:
    file = folder / f"archive.tar.{kind}"
    mode = "w" if kind == "zst" else f"w:{kind}"
    with tarfile.open(file, mode) as archive:
        for name, text in {"./": "", **members}.items():
            header = tarfile.TarInfo(name)
            header.size = len(text)
            header.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(header, io.BytesIO(text.encode()))
    if kind == "zst":
        plain = file.rename(folder / "plain.tar")
        subprocess.run(["zstd", "-q", plain, "-o", file], check=True)
    return file


def check(source: str, file: Path, preset: Preset | None = None) -> list[str]:
    """Look into the archive. Return the notes."""
    notes: list[str] = []
    archive = Downloaded(source, file.name, file)
    source_contents.check_archives(preset or reference(), [archive], notes.append)
    return notes


@pytest.mark.parametrize("source", CONTENTS)
@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_archive_of_another_version_is_refused(tmp_path: Path, source: str, kind: str) -> None:
    if kind == "zst" and not shutil.which("zstd"):
        pytest.skip("needs zstd")
    member, right, wrong, found = CONTENTS[source]
    before = {f"{member.partition('/')[0]}/": "", "unrelated": "x"}
    assert check(source, tar(tmp_path, {**before, member: right}, kind)) == []
    (tmp_path / f"archive.tar.{kind}").unlink()
    file = tar(tmp_path, {**before, member: wrong, "after": "y" * 9000}, kind)
    with pytest.raises(CompatibilityError) as error:
        check(source, file)
    assert_error(error.value, CompatibilityError, count=1, name=REFERENCE, hint={"name": REFERENCE})
    wanted = {stated.source: expected for stated, expected in stated_versions(reference())}
    path, version = wanted[source][0]
    (fault,) = error.value.faults
    assert (fault.where, fault.expected) == (file.name, f"{version} ({path})")
    assert values_of(fault.problem) == {"found": found, "member": member}


def test_every_versioned_source_of_the_shipped_presets_is_looked_into() -> None:
    for name in presets.names(ROOT / "presets"):
        preset = presets.load(ROOT / "presets" / f"{name}.json")
        built = {s for s in preset.sources if not s.startswith("opencv-cache-")}
        assert {stated.source for stated, _versions in stated_versions(preset)} == built


def test_name_of_the_folder_tells_where_no_file_does(tmp_path: Path) -> None:
    assert check("opencv-contrib", tar(tmp_path, {"opencv_contrib-4.9.0/README.md": "x"})) == []
    file = tar(tmp_path, {"opencv_contrib-4.10.0/README.md": "x"})
    with pytest.raises(CompatibilityError) as error:
        check("opencv-contrib", file)
    assert "4.10.0" in error.value.faults[0].problem
    notes = check("opencv-contrib", tar(tmp_path, {"opencv_contrib-4.x/README.md": "x"}))
    assert len(notes) == 1
    assert len(check("ffmpeg", tar(tmp_path, {"ffmpeg/README": "x"}))) == 1


@pytest.mark.parametrize("folder", ["", "opencv-4.9", "opencv-4.9.0/opencv", "."])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archive_without_the_folder_that_is_built_is_refused(
    tmp_path: Path, folder: str, kind: str
) -> None:
    """The name of another folder may have the right version; the build would end there."""
    raw = samples.raw_preset()
    raw["sources"]["opencv"]["folder"] = folder
    if not folder:
        del raw["sources"]["opencv"]["folder"]
    members = {"opencv-4.9.0/": "", "opencv-4.9.0/README": "x"}
    file = tar(tmp_path, members)
    if kind == "zip":
        file = tmp_path / "archive.zip"
        with zipfile.ZipFile(file, "w") as archive:
            for name, text in members.items():
                archive.writestr(name, text)
    with pytest.raises(PresetError) as error:
        check("opencv", file, presets.parse(raw, samples.COMPONENTS))
    assert_error(error.value, PresetError, count=1, name=raw["name"], where=[file.name])
    header = "modules/core/include/opencv2/core/version.hpp"
    path = {"": f"opencv-4.9.0/{header}", ".": f"./{header}"}.get(folder, folder)
    assert values_of(error.value.faults[0].problem) == {"path": path}


def test_folder_is_looked_for_where_only_its_name_tells_the_version(tmp_path: Path) -> None:
    raw = samples.raw_preset()
    raw["sources"]["opencv-contrib"] = {**raw["sources"]["opencv"], "folder": "a-4.9.0/contrib"}
    raw["opencv"]["contrib"] = True
    preset = presets.parse(raw, samples.COMPONENTS)
    before = {"a-4.9.0/": "", "a-4.9.0/other/x": "x"}
    assert len(check("opencv-contrib", tar(tmp_path, {**before, "a-4.9.0/contrib/x": ""}), preset))
    with pytest.raises(PresetError):
        check("opencv-contrib", tar(tmp_path, before), preset)


@pytest.mark.parametrize("folder", ["", "."])
def test_archive_without_a_folder_at_the_top(tmp_path: Path, folder: str) -> None:
    raw = samples.raw_preset()
    raw["sources"]["opencv"].pop("folder")
    if folder:
        raw["sources"]["opencv"]["folder"] = folder
    header = CONTENTS["opencv"][0].partition("/")[2]
    file = tar(tmp_path, {"README": "x", header: OPENCV.format(minor=9)})
    assert check("opencv", file, presets.parse(raw, samples.COMPONENTS)) == []


def test_zip_and_the_folder_that_the_preset_names(tmp_path: Path) -> None:
    raw = samples.raw_preset()
    raw["sources"]["opencv"]["folder"] = "bundle-1.2/opencv"
    preset = presets.parse(raw, samples.COMPONENTS)
    member = "modules/core/include/opencv2/core/version.hpp"
    file = tmp_path / "archive.zip"
    for minor, fits in ((9, True), (10, False)):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"bundle-1.2/{member}", OPENCV.format(minor=1))
            archive.writestr(f"bundle-1.2/opencv/{member}", OPENCV.format(minor=minor))
        if fits:
            assert check("opencv", file, preset) == []
        else:
            with pytest.raises(CompatibilityError):
                check("opencv", file, preset)


@pytest.mark.parametrize(
    "body",
    [b"<html>log in</html>", b"", b"\x1f\x8b\x08 cut", b"PK\x03\x04", b"\x28\xb5\x2f\xfd cut"],
)
def test_file_that_is_no_archive_is_refused(tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "TensorRT.tar.gz"
    file.write_bytes(body)
    with pytest.raises(FetchError) as error:
        check("tensorrt", file)
    assert_error(error.value, FetchError, where=[file.name], file=file.name, hint={"path": file})


def test_search_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member, _right, wrong, _found = CONTENTS["tensorrt"]
    file = tar(tmp_path, {"TensorRT-8.6.1.6/lib/big": "x" * 300_000, member: wrong})
    monkeypatch.setattr(limits, "SOURCE_SEARCH", 100_000)
    assert check("tensorrt", file) == []  # its folder has the version of the preset
    monkeypatch.setattr(limits, "SOURCE_SEARCH", 1 << 20)
    with pytest.raises(CompatibilityError):
        check("tensorrt", file)
    monkeypatch.setattr(limits, "SOURCE_FILE", 10)
    assert check("tensorrt", file) == []
