"""The receiver: this very program as one file that any Python 3.10 runs from the stick."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

from gapforge.base.errors import BundleError
from gapforge.base.text import tr

RECEIVER = "gapforge-receive.pyz"
_MOMENT = (1980, 1, 1, 0, 0, 0)
# no tr: a program of its own, which asks for the reader's language itself
_MAIN = '''"""gapforge, carried with the volumes: python3 gapforge-receive.pyz unpack FOLDER…"""

import os
import sys

if sys.version_info < (3, 10):
    asked = [os.environ.get(key, "").strip() for key in ("GAPFORGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")]
    if ([text for text in asked if text] + [""])[0].lower().startswith("ko"):
        sys.exit("오류: gapforge에는 Python 3.10 이상이 필요합니다. Ubuntu 22.04에는 /usr/bin/python3로 있습니다")
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
        raise BundleError(tr("이 gapforge는 묶음에서 실행되어 묶음을 만들 수 없습니다",
                             "this gapforge runs out of a bundle and cannot pack one"),
                          hint=tr("gapforge 저장소의 작업 폴더에서 pack을 실행하십시오", "pack from a checkout"))  # fmt: skip
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
