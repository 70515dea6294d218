"""The application's source is the folder that was asked for, or is refused with all places."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gapforge.base.errors import SourceError
from gapforge.base.marked_folders import mark_folder
from gapforge.image.application_source import choose, setting_key
from gapforge.image.source_copy import copy_source
from gapforge.model import preset as presets
from gapforge.model.preset import Application
from raised_errors import assert_error, values_of
from samples import PRESET, ROOT

APP = Application(name="xaiva-media", source="examples/xaiva-media")


def app_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "CMakeLists.txt").write_text("project(x)\n")
    return folder


def test_setting_key_of_an_application() -> None:
    assert setting_key("xaiva-media") == "XAIVA_MEDIA_SOURCE"
    assert setting_key("a.b-c_d9") == "A_B_C_D9_SOURCE"


def test_flag_beats_setting_beats_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "project"
    inner, outer, flagged = (
        app_folder(f) for f in (root / APP.source, tmp_path / "outer", tmp_path / "flagged")
    )
    setting = {"XAIVA_MEDIA_SOURCE": str(outer)}
    got = choose(APP, root=root)
    assert (got.folder, got.chosen_by) == (inner.resolve(), "preset")
    got = choose(APP, settings=setting, root=root)
    assert got.folder == outer.resolve()
    assert got.chosen_by == got.chosen_by_text == "XAIVA_MEDIA_SOURCE (.env or environment)"
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    korean = choose(APP, settings=setting, root=root)
    assert korean.chosen_by_text != korean.chosen_by == got.chosen_by
    got = choose(APP, flag=str(flagged), settings=setting, root=root)
    assert (got.folder, got.chosen_by) == (flagged.resolve(), "--app-source")


def test_relative_flag_and_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag counts from the current folder, `.env` from the project, where the file lies."""
    root, outer = tmp_path / "project", app_folder(tmp_path / "outer")
    root.mkdir()
    monkeypatch.chdir(tmp_path)
    assert choose(APP, flag="outer", root=root).folder == outer.resolve()
    assert (
        choose(APP, settings={"XAIVA_MEDIA_SOURCE": "../outer"}, root=root).folder
        == outer.resolve()
    )


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "cmake is a folder", "broken link"])
def test_unusable_folder_names_all_places(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "thing"
    if kind == "file":
        folder.write_text("x")
    elif kind == "empty":
        folder.mkdir()
    elif kind == "cmake is a folder":
        (folder / "CMakeLists.txt").mkdir(parents=True)
    elif kind == "broken link":
        folder.symlink_to("nowhere")
    app_folder(tmp_path / APP.source)  # must not be used instead
    for flag, settings in ((str(folder), {}), ("", {"XAIVA_MEDIA_SOURCE": str(folder)})):
        with pytest.raises(SourceError) as error:
            choose(APP, flag=flag, settings=settings, root=tmp_path)
        assert error.value.exit_code == 13
        assert_error(
            error.value,
            SourceError,
            where=["--app-source", "XAIVA_MEDIA_SOURCE in .env", "preset"],
            hint={"key": "XAIVA_MEDIA_SOURCE"},
            name=APP.name,
            folder=folder,
        )
        assert str(folder) in error.value.render() and APP.source in error.value.render()


@pytest.mark.parametrize(
    ("build", "file"),
    [
        ("cmake", "CMakeLists.txt"),
        ("meson", "meson.build"),
        ("make", "Makefile"),
        ("make", "GNUmakefile"),
        ("./tools/build.sh", "tools/build.sh"),
    ],
)
def test_folder_has_the_file_of_its_build_system(tmp_path: Path, build: str, file: str) -> None:
    app = dataclasses.replace(APP, build=build)
    folder = tmp_path / "app"
    (folder / file).parent.mkdir(parents=True)
    with pytest.raises(SourceError) as error:
        choose(app, flag=str(folder), root=tmp_path)
    if file != "GNUmakefile":
        assert values_of(values_of(error.value.message)["problem"]) == {"file": file}
    (folder / file).write_text("")
    if build.startswith("./"):
        with pytest.raises(SourceError) as error:  # it could not be run
            choose(app, flag=str(folder), root=tmp_path)
        assert values_of(values_of(error.value.message)["problem"]) == {"file": Path(file)}
        (folder / file).chmod(0o755)
    assert choose(app, flag=str(folder), root=tmp_path).folder == folder.resolve()


def test_preset_folder_must_be_in_project(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    app_folder(tmp_path / "outside")
    (root / "link").symlink_to(tmp_path / "outside")
    for path in ("../outside", str(tmp_path / "outside"), "link"):
        with pytest.raises(SourceError):
            choose(dataclasses.replace(APP, source=path), root=root)


def test_example_application_is_usable() -> None:
    preset = presets.find(ROOT / "presets", PRESET)
    assert choose(preset.application, root=ROOT).chosen_by == "preset"


def warned(source: Path) -> list[str]:
    """Return the names in the warnings about a source folder."""
    got = choose(APP, flag=str(source), root=source.parent)
    return [str(values_of(warning)["names"]) for warning in got.warnings]


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".env.local",
        ".env~",
        ".env-old",
        "#.env#",
        ".#.env",
        ".ENV",
        ".envrc",
        ".netrc",
        ".git-credentials",
        "deep/.Env.save",
    ],
)
def test_files_with_secrets_stay_out_and_are_named(tmp_path: Path, name: str) -> None:
    source = app_folder(tmp_path / "app")
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text("TOKEN=x\n")
    (source / ".env.template").write_text("TOKEN=\n")
    (source / ".gapforgeignore").write_text("!.env*\n")  # no line brings them back
    assert warned(source) == [name]
    target = mark_folder(tmp_path / "context", "test") / "app"
    got = choose(APP, flag=str(source), root=tmp_path)
    copy_source(got.folder, target)
    assert {path.name for path in target.rglob("*") if path.is_file()} == {
        ".env.template",
        ".gapforgeignore",
        "CMakeLists.txt",
    }


KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"


@pytest.mark.parametrize(
    "text", [KEY, "-----BEGIN CERTIFICATE-----\nx\n" + KEY, "PuTTY-User-Key-File-3: ssh-rsa\n"]
)
def test_private_keys_stay_out_unless_a_line_keeps_them(tmp_path: Path, text: str) -> None:
    source = app_folder(tmp_path / "app")
    (source / "tests").mkdir()
    (source / "tests/server.pem").write_text(text)
    (source / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nx\n")
    (source / "key.cpp").write_text(f'auto key = "{KEY!r}";\n')
    target = mark_folder(tmp_path / "context", "test") / "app"
    assert warned(source) == ["tests/server.pem"]
    copy_source(source, target)
    assert {p.name for p in target.rglob("*.*")} == {"ca.pem", "key.cpp", "CMakeLists.txt"}
    (source / ".gapforgeignore").write_text("!tests/server.pem\n")
    assert warned(source) == []
    copy_source(source, target)
    assert (target / "tests/server.pem").read_text() == text


def test_git_lfs_pointers_are_named(tmp_path: Path) -> None:
    source = app_folder(tmp_path / "app")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456789\n"
    (source / "models").mkdir()
    for number in range(7):
        (source / f"models/{number}.onnx").write_text(pointer)
    (source / "models/real.onnx").write_bytes(bytes(2000))
    (source / "about-lfs.md").write_text(f"A pointer looks like this:\n{pointer}")
    (names,) = warned(source)
    assert names == ", ".join(f"models/{n}.onnx" for n in range(5)) + ", …"
    (source / ".gapforgeignore").write_text("models/\n")
    assert warned(source) == []


@pytest.mark.parametrize(("build", "expected"), [("make", ["lib/a.o"]), ("cmake", [])])
def test_compiled_files_are_named_where_make_would_use_them(
    tmp_path: Path, build: str, expected: list[str]
) -> None:
    source = app_folder(tmp_path / "app")
    (source / "Makefile").write_text("")
    (source / "lib").mkdir()
    (source / "lib/a.o").write_bytes(b"")
    got = choose(dataclasses.replace(APP, build=build), flag=str(source), root=tmp_path)
    assert [values_of(warning)["names"] for warning in got.warnings] == expected


def test_empty_submodules_are_named(tmp_path: Path) -> None:
    source = app_folder(tmp_path / "app")
    (source / "extern/full").mkdir(parents=True)
    (source / "extern/full/x.c").write_text("")
    (source / "extern/한글 이름").mkdir()
    (source / "extern/other").mkdir()  # empty, but not a submodule
    (source / ".gitmodules").write_text(
        '[submodule "a"]\n\tpath = extern/full\n\turl = ../a\n'
        '[submodule "b"]\n\tpath = extern/한글 이름\n\turl = ../b\n'
    )
    assert warned(source) == ["extern/한글 이름"]


def test_files_that_cannot_be_copied_are_found_by_the_plan(tmp_path: Path) -> None:
    source = app_folder(tmp_path / "app")
    (source / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(SourceError) as error:
        choose(APP, flag=str(source), root=tmp_path)
    assert_error(error.value, SourceError, where=["passwd"], source=source.resolve())
