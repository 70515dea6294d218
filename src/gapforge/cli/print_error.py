"""Print an error for a person, and hand it over as JSON to the program that started this one."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress

from gapforge.base.errors import ERROR_FILE, GapforgeError


def print_error(error: GapforgeError) -> None:
    """Print ``error`` to stderr, and write the first one to the file that rehearse asks for."""
    print(error.render(), file=sys.stderr)
    if file := os.environ.get(ERROR_FILE):
        with suppress(OSError), open(file, "x", encoding="utf-8") as output:
            json.dump(error.to_json(), output)
