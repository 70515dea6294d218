"""The files of libraries that options ask for, among the .debs and in the base image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import apt_repositories
import samples
from gapforge.base.errors import Fault, ResolveError
from gapforge.compat import option_libraries
from gapforge.model import preset as presets
from gapforge.model.catalog import load
from gapforge.model.preset import Preset
from gapforge.sync import apt_errors, check_option_libraries
from gapforge.sync.base_image_facts import ImageFiles, Node, only_presence_matters
from raised_errors import values_of
from samples import ROOT

PKGCONFIG = "usr/lib/x86_64-linux-gnu/pkgconfig"


def with_options(*words: str, **changes: Any) -> Preset:
    raw = samples.raw_preset(apt=..., **changes)
    raw["ffmpeg"]["configure"] = [*words]
    raw["opencv"]["cmake"] = []
    return presets.parse(raw, samples.COMPONENTS)


class Files(check_option_libraries.BuilderFiles):
    """Files of fabricated .debs (package -> paths) and of an image; counts what is read."""

    def __init__(self, debs: Mapping[str, list[str]], image: list[str], folder: Path) -> None:
        self.images_read = 0
        made = {
            name: apt_repositories.make_deb(folder, name, "1", files=dict.fromkeys(paths, b"x"))
            for name, paths in debs.items()
        }

        def read() -> ImageFiles:
            self.images_read += 1
            return ImageFiles({path: Node() for path in image})

        super().__init__(made, read)


def check(preset: Preset, files: Files) -> list[str]:
    return check_option_libraries.check(preset, files)


def test_file_is_found_in_package_dependency_or_base(tmp_path: Path) -> None:
    debs = {
        "libx265-dev": [f"{PKGCONFIG}/x265.pc"],
        "libjpeg62-turbo-dev": ["usr/include/jpeglib.h"],
        "zz": [],
    }
    files = Files(debs, ["usr/include/x86_64-linux-gnu/lame/lame.h"], tmp_path)
    assert check(with_options("--enable-libx265"), files) == []
    assert list(files._read) == ["libx265-dev"], "further packages were read"
    assert files.images_read == 0
    assert check(with_options("--enable-libmp3lame"), files) == []
    assert (len(files._read), files.images_read) == (3, 1)


def test_a_missing_file_is_refused_with_option_file_and_package(tmp_path: Path) -> None:
    files = Files({"libx265-dev": ["usr/include/x265.h"]}, [], tmp_path)
    with pytest.raises(ResolveError) as caught:
        check(with_options("--enable-libx265", "--enable-libvmaf", "--enable-nvenc"), files)
    faults = caught.value.faults
    assert [fault.where for fault in faults] == ["$.ffmpeg.configure"] * 2
    vmaf, x265 = (values_of(fault.problem) for fault in faults)
    assert vmaf == {"option": "--enable-libvmaf", "file": "libvmaf.pc"}
    assert x265 == {"option": "--enable-libx265", "file": "x265.pc", "packages": "libx265-dev"}
    assert faults[1].expected == "apt-file search x265.pc"


def test_an_option_that_no_description_lists_is_looked_for_by_name(tmp_path: Path) -> None:
    files = Files({"libnew-dev": [f"{PKGCONFIG}/new.pc"]}, [], tmp_path)
    assert check(with_options("--enable-libnew"), files) == []
    (note,) = check(with_options("--enable-libnothing"), files)
    assert values_of(note)["option"] == "--enable-libnothing"
    assert "libnothing.pc" in values_of(note)["files"]


def test_a_component_may_bring_a_library_that_the_os_lacks(tmp_path: Path) -> None:
    python = next(c for c in samples.COMPONENTS if c.name == "python")
    bringing = replace(python, packages=replace(python.packages, brings=("libvmaf.pc",)))
    lacking = with_options("--enable-libvmaf")
    brought = presets.parse(lacking.raw, (*samples.COMPONENTS, bringing))
    catalog = load(ROOT / "catalog")
    assert [f.rule for f in option_libraries.check(lacking, catalog)] == ["option-library"]
    assert list(option_libraries.check(brought, catalog)) == []
    assert check(brought, Files({}, [], tmp_path)) == []


def test_package_that_apt_lacks_names_its_option() -> None:
    preset = with_options("--enable-libx265")
    faults = [Fault("libx265-dev", "p"), Fault("nasm", "p"), Fault("other", "p")]
    explained = apt_errors.with_reasons(faults, preset.apt_packages["builder"])
    assert [fault.where for fault in explained] == [
        "libx265-dev (ffmpeg --enable-libx265)",
        "nasm (ffmpeg)",
        "other",
    ]
    named = presets.parse({**preset.raw, "apt": {"builder": ["nasm"]}}, samples.COMPONENTS)
    assert apt_errors.with_reasons(faults[1:2], named.apt_packages["builder"]) == (faults[1],)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        (f"{PKGCONFIG}/x265.pc", True),
        ("usr/local/cuda-12.4/targets/x86_64-linux/include/cuda.h", True),
        ("usr/include/opencv4/opencv2/core.hpp", True),
        ("usr/bin/apt-get", True),
        ("usr/share/doc/x/include.html", False),
        ("home/include/x.h", False),
    ],
)
def test_of_the_base_image_only_build_files_are_kept(path: str, kept: bool) -> None:
    assert only_presence_matters(path) is kept
