#!/usr/bin/env python3
"""Build an image from artifacts without a network: ``gapforge build`` under a short name.

Needs only the standard library of Python 3.10. Works with ``python3 -I -S``.
"""

import os
import runpy
import sys

if __name__ == "__main__":
    sys.argv.insert(1, "build")
    source = os.path.join(os.path.dirname(os.path.realpath(__file__)), "src")
    runpy.run_path(os.path.join(source, "gapforge", "__main__.py"), run_name="__main__")
