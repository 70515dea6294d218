"""Paths stay in their folder, and links and homes are followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapforge.base.errors import StorageError
from gapforge.base.path_checks import given_path, inside, real_path, unsafe_path_reason
from raised_errors import assert_error

pytestmark = pytest.mark.every_python


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", "a\\b", "a\0b", "a\nb", "a\x9bb"],
)
def test_unsafe_path_is_refused(path: str, tmp_path: Path) -> None:
    assert unsafe_path_reason(path)
    with pytest.raises(StorageError):
        inside(tmp_path, path)


@pytest.mark.parametrize("path", ["a", "a/b.c", "..a", "a..b/c", "...", "a/…/한글"])
def test_safe_path_is_accepted(path: str, tmp_path: Path) -> None:
    assert unsafe_path_reason(path) == "" and inside(tmp_path, path) == tmp_path / path


@given(st.text(alphabet="ab./\\\0\n", max_size=12))
def test_inside_stays_in_root(path: str) -> None:
    root = Path("/nowhere/root")
    try:
        target = inside(root, path)
    except StorageError:
        return
    assert os.path.normpath(target) == str(root) or os.path.normpath(target).startswith(
        "/nowhere/root/"
    )


def test_inside_resolves_symbolic_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to("real")
    assert inside(root, "in/x") == root / "in/x"
    with pytest.raises(StorageError) as error:
        inside(root, "out/x")
    assert_error(error.value, StorageError, path="out/x", root=root)


@pytest.mark.parametrize(
    "path", ["a/" * 64 + "a", "x" * 256, "\ud55c" * 86, "/".join(["y" * 250] * 9), "a\ud800"]
)
def test_path_that_no_file_system_has_is_unsafe(path: str) -> None:
    assert unsafe_path_reason(path)


@pytest.mark.parametrize("path", ["a/" * 63 + "a", "x" * 255, "\ud55c" * 85])
def test_path_at_the_limit_is_safe(path: str) -> None:
    assert unsafe_path_reason(path) == ""


def test_real_path_follows_links_and_names_loops(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    assert real_path(tmp_path / "link/absent") == (tmp_path / "folder/absent").resolve()
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for name in ("one", "two", "one/below"):
        with pytest.raises(StorageError) as caught:
            real_path(tmp_path / name)
        assert str(tmp_path / name) in caught.value.render()


def test_given_path_keeps_an_unknown_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    assert given_path("~/a") == Path("/home/x/a")
    assert given_path("~nosuchuser/a") == Path("~nosuchuser/a")
    assert given_path(Path("a/~")) == Path("a/~")
