"""Runs gapforge from a checkout, uninstalled: ``python3 -m gapforge VERB`` or ``./gapforge VERB``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    if sys.version_info < (3, 10):  # before any import that an older Python cannot parse
        sys.exit("error: gapforge needs Python 3.10 or newer; Ubuntu 22.04 has it as /usr/bin/python3")
    sys.dont_write_bytecode = True  # the project folder may be read-only at a site
    sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
    sys.modules.pop("gapforge", None)
    from gapforge.cli.main import main

    sys.exit(main(sys.argv[1:]))
