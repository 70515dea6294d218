"""The licence of a wheel: the best field, or none."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from gapforge.sync.wheel_licence import licence_of


def wheel(folder: Path, metadata: str, name: str = "x-1.dist-info/METADATA") -> Path:
    file = folder / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, metadata)
    return file


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: old words\n", "MIT OR Apache-2.0"),
        (
            "License: BSD-3-Clause\nClassifier: License :: OSI Approved :: BSD License\n",
            "BSD-3-Clause",
        ),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n", "MIT License"),
        ("License: see LICENSE\nClassifier: License :: OSI Approved\n", ""),
        (
            "License: Copyright (c) 2005, Authors\n        All rights reserved.\n"
            "Classifier: License :: OSI Approved :: BSD License\n",
            "BSD License",
        ),
        (
            "Classifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: Apache Software License\n",
            "MIT License, Apache Software License",
        ),
        ("Name: x\n\nLicense: in the description\n", ""),
        ("License: " + "x" * 500 + "\n", ""),
        ("License: MIT\x1b[31m\n", ""),
        ("", ""),
    ],
)
def test_licence_by_precedence(tmp_path: Path, metadata: str, licence: str) -> None:
    assert licence_of(wheel(tmp_path, metadata)) == licence


def test_unreadable_wheel_has_no_licence(tmp_path: Path) -> None:
    (tmp_path / "page.whl").write_text("<html>please log in</html>")
    assert licence_of(tmp_path / "page.whl") == ""
    assert licence_of(tmp_path / "absent.whl") == ""
    assert licence_of(wheel(tmp_path, "License: MIT\n", name="deeper/x-1.dist-info/METADATA")) == ""
