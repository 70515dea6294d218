"""SHA256SUMS is written so that sha256sum accepts it, and read with every unusable line."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gapforge.base.files import sha256_bytes
from gapforge.store import sha256sums

A, B = "a" * 64, "b" * 64


def test_sums_are_sorted_and_verifiable(tmp_path: Path) -> None:
    files = {"z": b"z", "a/b c": b"x"}
    (tmp_path / "a").mkdir()
    for path, data in files.items():
        (tmp_path / path).write_bytes(data)
    sums = sha256sums.render({path: sha256_bytes(data) for path, data in files.items()})
    assert [line[66:] for line in sums.decode().splitlines()] == ["a/b c", "z"]
    (tmp_path / sha256sums.NAME).write_bytes(sums)
    subprocess.run(["sha256sum", "--quiet", "-c", sha256sums.NAME], cwd=tmp_path, check=True)
    assert sha256sums.parse(sums).files == {
        path: sha256_bytes(data) for path, data in files.items()
    }


def test_parse_lists_unusable_lines() -> None:
    sums = sha256sums.parse(f"{A}  x\n\n{A} *y\n{B}  x\nnothing\n{B} x\n".encode())
    assert sums.files == {"x": A, "y": A}
    assert (sums.malformed, sums.repeated) == ([5, 6], [(4, "x")])
