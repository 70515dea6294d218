"""The APT packages of the builder: of components and of the values of their options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import samples
from gapforge.base.errors import PresetError
from gapforge.compat import option_libraries as rules
from gapforge.compat.findings import Finding
from gapforge.model import component
from gapforge.model import preset as presets
from gapforge.model.build_packages import effective_words
from gapforge.model.catalog import load
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset
from gapforge.model.to_resolve import list_to_resolve
from samples import ROOT

COMPONENTS = component.load_all(ROOT / "components")
DEBIAN, UBUNTU = ("debian", "12", "3.11"), ("ubuntu", "22.04", "3.10")
TOOLS = {"build-essential", "ccache", "cmake", "nasm", "ninja-build", "pkg-config", "xz-utils"}


def made(
    system: tuple[str, str, str] = DEBIAN,
    components: tuple[component.Component, ...] = COMPONENTS,
    **changes: Any,
) -> Preset:
    """Return the quickstart preset for an OS, without packages of its own."""
    os_id, os_version, python = system
    raw = samples.raw_preset(apt=..., os={"id": os_id, "version": os_version})
    raw["python"]["version"] = python
    if os_id == "ubuntu":
        raw["base"] = {role: {"image": f"{os_id}:{os_version}"} for role in ROLES}
    for key, value in changes.items():
        name, _, option = key.partition("__")
        raw[name] = {**raw[name], option: value} if option else value
    return presets.parse(raw, components)


def with_option(word: str, *more: str, system: tuple[str, str, str] = DEBIAN) -> Preset:
    """Return the quickstart preset with options of FFmpeg or OpenCV added at the end."""
    raw = samples.raw_preset()
    if word.startswith("-D"):
        return made(system, opencv__cmake=[*raw["opencv"]["cmake"], word, *more])
    return made(system, ffmpeg__configure=[*raw["ffmpeg"]["configure"], word, *more])


def problems(preset: Preset) -> list[Finding]:
    return list(rules.check(preset, load(ROOT / "catalog")))


@pytest.mark.parametrize("system", [DEBIAN, UBUNTU])
def test_components_bring_what_builds_them(system: tuple[str, str, str]) -> None:
    preset = made(system)
    python = system[2]
    expected = TOOLS | {f"python{python}", f"libpython{python}-dev", "zlib1g-dev"}
    assert set(preset.debs("builder")) == expected
    assert len(preset.debs("builder")) == len(expected)
    assert problems(preset) == []
    reasons = {p.name: [r.to_json() for r in p.reasons] for p in preset.apt_packages["builder"]}
    assert reasons["nasm"] == [{"kind": "component", "component": "ffmpeg"}]
    assert reasons["zlib1g-dev"] == [
        {"kind": "option", "component": "ffmpeg", "option": "configure", "value": "--enable-zlib"}
    ]


@pytest.mark.parametrize(
    ("file", "package"),
    [
        ("x.tar.zst", "zstd"),
        ("x.tar.bz2", "bzip2"),
        ("x.tar.xz", "xz-utils"),
        ("x.tgz", ""),
        ("x.zip", ""),
    ],
)
def test_archives_bring_what_unpacks_them(file: str, package: str) -> None:
    """A preset that names TensorRT's version alone may get a .tar.zst of the catalog."""
    raw = samples.raw_preset()
    before = presets.parse(raw, samples.COMPONENTS)
    raw["sources"]["ffmpeg"] = {
        "urls": [f"https://example.org/{file}"],
        "sha256": "0" * 64,
        "licence": "LGPL-2.1-or-later",
    }
    preset = presets.parse(raw, samples.COMPONENTS)
    added = set(preset.debs("builder")) - set(before.debs("builder"))
    assert added == {package} - {"", "xz-utils"}  # which the components bring themselves
    found = {p.name: [r.to_json() for r in p.reasons] for p in preset.apt_packages["builder"]}
    reason = {"kind": "archive", "component": "ffmpeg", "value": file}
    assert [name for name, reasons in found.items() if reason in reasons] == [package] * bool(
        package
    )


def test_a_component_that_is_not_used_brings_nothing() -> None:
    names = {p.name for p in made(ffmpeg=None, opencv=None).apt_packages["builder"]}
    expected = {"build-essential", "ccache", "cmake", "ninja-build", "pkg-config", "python3.11"}
    assert names == expected


def test_preset_packages_come_first_with_version_or_architecture() -> None:
    own = ["gdb", "cmake=3.25.1-1", "nasm:amd64"]
    preset = made(apt={"builder": own})
    assert list(preset.debs("builder")[:3]) == own
    assert not {"cmake", "nasm"} & set(preset.debs("builder"))
    assert {"kind": "preset"} in preset.apt_packages["builder"][1].to_json()["reasons"]


def test_state_covers_packages_that_the_preset_omits() -> None:
    full = [package.name for package in made().apt_packages["builder"]]
    python = ["python3.11=3.11.2-6"]  # counts as the package that the component python names
    named = made(apt={"builder": full, "runtime": python})
    unnamed = made(apt={"builder": full[:-1], "runtime": python})
    assert (named.debs("runtime"), made(apt={"builder": full}).debs("runtime")) == (
        ("python3.11=3.11.2-6",),
        ("python3.11",),
    )
    assert len({p.sha256 for p in (named, unnamed, made(apt={"builder": full}), made())}) == 4

    def states(document: dict[str, Any]) -> set[str]:
        return {presets.parse(document, known).sha256 for known in (COMPONENTS, None)}

    assert len(states(dict(named.raw))) == 1  # locks of presets with full lists stay valid
    assert len(states(dict(unnamed.raw))) == 2
    debs = [item.name for item in list_to_resolve(unnamed, None) if item.kind == "deb"]
    assert set(debs) == {*full, *python}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-DWITH_TBB=ON", "-DWITH_TBB=OFF"], ["-DWITH_TBB=OFF"]),
        (["-DWITH_TBB:BOOL=yes"], ["-DWITH_TBB=ON"]),
        (["-D", "WITH_TBB=1"], ["-DWITH_TBB=ON"]),
        (["-DWITH_QT=6"], ["-DWITH_QT=6"]),
        (["-DCPU_DISPATCH="], ["-DCPU_DISPATCH=OFF"]),
        (["--enable-libx264", "--disable-libx264"], ["--disable-libx264"]),
        (["--disable-libx264", "--enable-libx264"], ["--enable-libx264"]),
        (["--enable-libfdk_aac"], ["--enable-libfdk-aac"]),
        (
            ["--enable-encoder=a", "--enable-encoder=b"],
            ["--enable-encoder=a", "--enable-encoder=b"],
        ),
        (["-D"], ["-D"]),
    ],
)
def test_one_spelling_and_the_last_of_contrary_options(
    words: list[str], expected: list[str]
) -> None:
    assert effective_words(words) == expected


FFMPEG_OPTIONS = {
    "--enable-libx264": ["libx264-dev"],
    "--enable-libx265": ["libx265-dev"],
    "--enable-libxvid": ["libxvidcore-dev"],
    "--enable-libvidstab": ["libvidstab-dev"],
    "--enable-libvpx": ["libvpx-dev"],
    "--enable-libaom": ["libaom-dev"],
    "--enable-libdav1d": ["libdav1d-dev"],
    "--enable-libsvtav1": ["libsvtav1enc-dev"],
    "--enable-libmp3lame": ["libmp3lame-dev"],
    "--enable-libopus": ["libopus-dev"],
    "--enable-libvorbis": ["libvorbis-dev"],
    "--enable-libspeex": ["libspeex-dev"],
    "--enable-libass": ["libass-dev"],
    "--enable-libfreetype": ["libfreetype-dev"],
    "--enable-libwebp": ["libwebp-dev"],
    "--enable-libopenjpeg": ["libopenjp2-7-dev"],
    "--enable-libzimg": ["libzimg-dev"],
    "--enable-libsoxr": ["libsoxr-dev"],
    "--enable-libsrt": ["libsrt-gnutls-dev"],
    "--enable-gnutls": ["libgnutls28-dev"],
}
OPENCV_OPTIONS = {
    "-DWITH_TBB=ON": ["libtbb-dev"],
    "-DWITH_GSTREAMER=ON": ["libgstreamer-plugins-base1.0-dev", "libgstreamer1.0-dev"],
    "-DWITH_GTK=ON": ["libgtk-3-dev"],
    "-DWITH_V4L=ON": [],
    "-DWITH_EIGEN=ON": ["libeigen3-dev"],
    "-DWITH_JPEG=ON": ["libjpeg-dev"],
    "-DWITH_PNG=ON": ["libpng-dev"],
    "-DWITH_TIFF=ON": ["libtiff-dev"],
    "-DWITH_WEBP=ON": ["libwebp-dev"],
    "-DWITH_OPENEXR=ON": ["libopenexr-dev"],
}


@pytest.mark.parametrize(
    ("word", "packages"), [*FFMPEG_OPTIONS.items(), *OPENCV_OPTIONS.items()], ids=lambda v: str(v)
)
def test_an_option_brings_its_packages(word: str, packages: list[str]) -> None:
    """The bench ``tests/bench/option_packages.py`` builds these options."""
    free = ["--enable-gpl", "--enable-version3"]
    preset = with_option(word, *(() if word.startswith("-D") else free))
    assert set(preset.debs("builder")) == set(made().debs("builder")) | set(packages)
    assert problems(preset) == []
    reasons = [r for p in preset.apt_packages["builder"] if p.name in packages for r in p.reasons]
    assert word in {reason.value for reason in reasons} or not packages


@pytest.mark.parametrize(
    ("word", "more", "system", "rules_broken"),
    [
        ("--enable-libfdk-aac", [], DEBIAN, ["error option-library"]),
        ("--enable-libfdk_aac", [], UBUNTU, []),
        ("--enable-libvmaf", [], DEBIAN, ["error option-library"]),
        ("--enable-libjxl", [], UBUNTU, ["error option-library"]),
        ("--enable-libx265", [], DEBIAN, ["error option-needs"]),
        ("--enable-libx265", ["--enable-gpl"], DEBIAN, []),
        ("--enable-libx265", ["--enable-gpl", "--disable-gpl"], DEBIAN, ["error option-needs"]),
        ("--enable-libopencore-amrnb", [], DEBIAN, ["error option-needs"]),
        ("--enable-libsmbclient", ["--enable-gpl"], DEBIAN, ["error option-needs"]),
        ("--enable-openssl", [], DEBIAN, []),
        ("--enable-openssl", ["--enable-gpl"], DEBIAN, ["error option-needs"]),
        ("--enable-libharfbuzz", [], DEBIAN, ["error option-version"]),
        ("--enable-libwavpack", [], DEBIAN, ["error option-version"]),
        ("--enable-lcms2", [], UBUNTU, ["warning option-library-old"]),
        ("--enable-libopuss", [], DEBIAN, ["warning option-unlisted"]),
        ("--enable-libnothing", [], DEBIAN, ["warning option-unlisted"]),
        ("--disable-libnothing", [], DEBIAN, []),
        ("-DWITH_HPX=ON", [], DEBIAN, ["error option-library"]),
        ("-DWITH_SOMETHING=ON", [], DEBIAN, ["warning option-unlisted"]),
        ("-DWITH_SOMETHING=OFF", [], DEBIAN, []),
    ],
)
def test_check_says_what_cannot_be_built(
    word: str, more: list[str], system: tuple[str, str, str], rules_broken: list[str]
) -> None:
    found = problems(with_option(word, *more, system=system))
    assert [f"{f.severity} {f.rule}" for f in found] == rules_broken
    options = "$.opencv.cmake" if word.startswith("-D") else "$.ffmpeg.configure"
    assert all(f.path == options and f.suggestion for f in found)


def test_other_source_or_base_image_replaces_os_package() -> None:
    raw = with_option("--enable-libfdk-aac").raw
    named = presets.parse({**raw, "apt": {"builder": ["libfdk-aac-dev=2.0.2-1"]}}, COMPONENTS)
    assert problems(named) == []
    images = {role: {"image": "registry.example/media:1"} for role in ROLES}
    found = problems(presets.parse({**raw, "base": images}, COMPONENTS))
    assert [f"{f.severity} {f.rule}" for f in found] == ["warning option-library"]


def test_library_of_the_os_may_be_too_old() -> None:
    old = with_option("--enable-vulkan", system=UBUNTU)
    assert problems(old) == []
    configure = [*old.raw["ffmpeg"]["configure"]]
    new = made(UBUNTU, ffmpeg={"version": "7.1", "configure": configure})
    found = [f for f in problems(new) if f.rule == "option-library-old"]
    assert [(f.severity, f.path) for f in found] == [("warning", "$.ffmpeg.configure")]


def test_a_bundled_copy_needs_no_package() -> None:
    assert "libpng-dev" not in with_option("-DWITH_PNG=ON", "-DBUILD_PNG=ON").debs("builder")


@pytest.mark.parametrize(
    ("build", "expected"),
    [(None, "cmake"), ("cmake", "cmake"), ("meson", "meson"), ("make", ""), ("./build.sh", "")],
)
def test_the_build_system_of_the_application_is_derived(build: str | None, expected: str) -> None:
    application = {"name": "x", "source": "x"} | ({"build": build} if build else {})
    names = set(made(ffmpeg=None, opencv=None, application=application).debs("builder"))
    assert names & {"cmake", "meson"} == ({expected} if expected else set())


def test_every_listed_library_has_a_reason_where_an_os_lacks_it() -> None:
    """An option that is refused says what to do instead."""
    for described in COMPONENTS:
        for values in described.packages.options.values():
            for word, library in values.items():
                names = library.packages.names
                if None in names.values():
                    assert library.instead, word


@pytest.mark.parametrize(
    ("packages", "where"),
    [
        ({"build": ["Nasm"]}, "component.json: $.packages.build[0]"),
        ({"build": {"beos": []}}, "component.json: $.packages.build"),
        ({"options": {"version": {"1": {"files": ["x.pc"]}}}}, "$.packages.options.version.1"),
        ({"options": {"versio": {}}}, "component.json: options.versio"),
        ({"unlisted": {"versio": []}}, "component.json: unlisted.versio"),
        ("missing.json", "components/thing/missing.json"),
        ("../thing/packages.json", "component.json: $.packages"),
    ],
)
def test_faults_of_a_description_are_named(tmp_path: Path, packages: Any, where: str) -> None:
    folder = tmp_path / "thing"
    folder.mkdir()
    for script in component.SCRIPTS:
        (folder / script).touch()
    version = {"type": "version", "about": "version"}
    described = {"format": 2, "name": "thing", "summary": "s", "options": {"version": version}}
    text = json.dumps({**described, "packages": packages})
    (folder / "component.json").write_text(text, encoding="utf-8")
    with pytest.raises(PresetError) as caught:
        component.load_all(tmp_path)
    assert any(where in fault.where for fault in caught.value.faults)


def test_a_changed_list_of_packages_is_read_again(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "components", tmp_path / "components")
    raw = samples.raw_preset(apt=...)

    def builder() -> tuple[str, ...]:
        described = component.described(tmp_path / "components")
        return presets.parse(raw, described).debs("builder")

    assert "yasm" not in builder()
    file = tmp_path / "components/ffmpeg/packages.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"nasm"', '"nasm", "yasm"'))
    assert "yasm" in builder()
