"""Make the receiver program: gapforge as one file that any Python 3.10 runs from the medium."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

from gapforge.base import limits
from gapforge.base.errors import BundleError
from gapforge.base.files import read_regular
from gapforge.base.i18n import CATALOGUE, _, catalogue_bytes

RECEIVER = "gapforge-receive.pyz"
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
_MAIN = b'''"""gapforge in one file: python3 gapforge-receive.pyz unpack FOLDER"""

import os
import runpy

os.environ.setdefault("GAPFORGE_ROOT", os.getcwd())
runpy.run_module("gapforge", run_name="__main__")
'''


@cache
def receiver_bytes() -> bytes:
    """Return a zip archive with all of gapforge's Python. The same source gives the same bytes."""
    package = Path(__file__).resolve().parents[1]
    files = sorted(package.rglob("*.py"))
    if not files:
        raise BundleError(
            _("the receiver program cannot pack a bundle"),
            hint=_("run pack from a gapforge repository"),
        )
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
        members = [("__main__.py", _MAIN), (CATALOGUE.as_posix(), catalogue_bytes())]
        for file in files:
            name = f"gapforge/{file.relative_to(package).as_posix()}"
            members.append((name, read_regular(file, limits.DESCRIPTION, follow=True)))
        for name, data in members:
            entry = zipfile.ZipInfo(name, _TIMESTAMP)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, data)
    return b"#!/usr/bin/env python3\n" + output.getvalue()
