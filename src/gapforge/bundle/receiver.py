"""The receiver: this very program as one file that any Python 3.10 runs from the stick."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

from gapforge.core.errors import BundleError

RECEIVER = "gapforge-receive.pyz"
_MOMENT = (1980, 1, 1, 0, 0, 0)
_MAIN = '''"""gapforge, carried with the volumes: python3 gapforge-receive.pyz unpack FOLDER…"""

import os
import sys

if sys.version_info < (3, 10):
    sys.exit("error: gapforge needs Python 3.10 or newer; Ubuntu 22.04 has it as /usr/bin/python3")
os.environ.setdefault("GAPFORGE_ROOT", os.getcwd())
from gapforge.cli.main import main

sys.exit(main(sys.argv[1:]))
'''


@cache
def receiver_bytes() -> bytes:
    """A zip archive with all of gapforge's Python and a start; the same source gives the same bytes."""
    package = Path(__file__).resolve().parents[1]
    files = sorted(package.rglob("*.py"))
    if not files:
        raise BundleError("this gapforge runs out of a bundle and cannot pack one", hint="pack from a checkout")
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
        for name, data in [("__main__.py", _MAIN.encode())] + [
            (f"gapforge/{file.relative_to(package).as_posix()}", file.read_bytes()) for file in files
        ]:
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, data)
    return b"#!/usr/bin/env python3\n" + output.getvalue()
