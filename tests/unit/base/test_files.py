"""Only regular files are read, within limits."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapforge.base.files import (
    CHUNK,
    UnsuitableFile,
    contains,
    content_mtime,
    read_regular,
    sha256_bytes,
    sha256_file,
    sha256_open,
)

pytestmark = pytest.mark.every_python
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_sha256_of_files_and_bytes(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"")
    assert sha256_file(file) == sha256_bytes(b"") == EMPTY
    data = os.urandom(3 * CHUNK + 17)
    file.write_bytes(data)
    seen: list[int] = []
    assert sha256_file(file, seen.append) == sha256_bytes(data)
    assert sum(seen) == len(data)
    with open(file, "rb", buffering=0) as opened:
        assert sha256_open(opened) == sha256_bytes(data)


@given(st.binary(max_size=30))
def test_content_mtime_is_stable_and_in_range(data: bytes) -> None:
    when = content_mtime(sha256_bytes(data))
    assert when == content_mtime(sha256_bytes(data)) and 10**9 <= when < 15 * 10**8


def test_read_regular_refuses_links_and_large_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    assert read_regular(tmp_path / "link", 5, follow=True) == b"12345"
    for path, most in ((tmp_path / "link", 10), (tmp_path / "file", 4)):
        with pytest.raises(UnsuitableFile):
            read_regular(path, most)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, 10)


@pytest.mark.parametrize("follow", [True, False])
def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path, follow: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UnsuitableFile):
            read_regular(path, 10, follow=follow)
    with pytest.raises(UnsuitableFile):
        sha256_file(tmp_path / "pipe")


def test_name_that_becomes_a_pipe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the examination and the opening of a name, something else can get it."""
    file, real = tmp_path / "file", os.open
    file.write_bytes(b"1")

    def late(path: object, flags: int, *rest: int) -> int:
        file.unlink()
        os.mkfifo(file)
        return real(file, flags, *rest)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(UnsuitableFile):
        read_regular(file, 10)


def test_size_is_bounded_before_the_file_is_read(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(3 << 29)
    tracemalloc.start()
    with pytest.raises(UnsuitableFile):
        read_regular(tmp_path / "sparse", 1000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_short_reads_do_not_cut_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system or the kernel may return less than was asked for."""
    (tmp_path / "file").write_bytes(bytes(range(100)))

    class Slow(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 7, 7))

    @contextmanager
    def slow(path: Path, *, follow: bool = False) -> Iterator[io.FileIO]:
        with Slow(path) as file:
            yield file

    monkeypatch.setattr("gapforge.base.files.open_regular", slow)
    assert read_regular(tmp_path / "file", 100) == bytes(range(100))
    with pytest.raises(UnsuitableFile):
        read_regular(tmp_path / "file", 99)


def test_contains_compares_all_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert contains(tmp_path / "file", b"12345")
    for name, data in (("file", b"1234"), ("file", b"123456"), ("link", b"12345"), ("no", b"")):
        assert not contains(tmp_path / name, data)
