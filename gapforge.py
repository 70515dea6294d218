"""Runs gapforge from a checkout, uninstalled: ``python3 -m gapforge VERB`` or ``./gapforge VERB``."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    if sys.version_info < (3, 10):  # before any import that an older Python cannot parse
        asked = (
            os.environ.get(key, "").strip()
            for key in ("GAPFORGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
        )
        if next((value for value in asked if value), "").lower().startswith("ko"):
            sys.exit(
                "오류: gapforge는 Python 3.10 이상이 필요합니다. Ubuntu 22.04에는 /usr/bin/python3에 있습니다"
            )
        sys.exit(
            "error: gapforge needs Python 3.10 or newer; Ubuntu 22.04 has it as /usr/bin/python3"
        )
    sys.dont_write_bytecode = True  # the project folder may be read-only at a site
    sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
    sys.modules.pop("gapforge", None)
    from gapforge.cli.main import main

    sys.exit(main(sys.argv[1:]))
