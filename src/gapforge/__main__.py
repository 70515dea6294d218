"""``python3 -m gapforge`` where ``src`` is on the path already."""

import sys

from gapforge.cli.main import main

sys.exit(main(sys.argv[1:]))
