"""Make the receiver program: gapforge as one file that any Python 3.10 runs from the medium."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

from gapforge.base.errors import BundleError
from gapforge.base.i18n import CATALOGUE, N_, _, catalogue_bytes, spellings

RECEIVER = "gapforge-receive.pyz"
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
_MAIN = '''"""gapforge in one file: python3 gapforge-receive.pyz unpack FOLDER…"""

import os
import sys

if sys.version_info < (3, 10):
    names = ("GAPFORGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    values = [os.environ.get(name, "").strip() for name in names]
    if ([value for value in values if value] + [""])[0].lower().startswith("ko"):
        sys.exit(KOREAN)
    sys.exit(ENGLISH)
os.environ.setdefault("GAPFORGE_ROOT", os.getcwd())
from gapforge.cli.main import main

sys.exit(main(sys.argv[1:]))
'''


_OLD_PYTHON = N_(
    "error: gapforge needs Python 3.10 or newer; Ubuntu 22.04 has it as /usr/bin/python3"
)


def _main() -> bytes:
    """Return the start module. An older Python runs it too, so it contains the message as text."""
    korean, english = spellings(_OLD_PYTHON)
    return _MAIN.replace("KOREAN", ascii(korean)).replace("ENGLISH", ascii(english)).encode()


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
        members = [("__main__.py", _main()), (CATALOGUE.as_posix(), catalogue_bytes())]
        members += [
            (f"gapforge/{f.relative_to(package).as_posix()}", f.read_bytes()) for f in files
        ]
        for name, data in members:
            entry = zipfile.ZipInfo(name, _TIMESTAMP)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, data)
    return b"#!/usr/bin/env python3\n" + output.getvalue()
