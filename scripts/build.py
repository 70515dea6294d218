#!/usr/bin/env python3
"""Run ``build.py`` of the folder above, for procedures that expect it in ``scripts``."""

import os
import runpy

if __name__ == "__main__":
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    runpy.run_path(os.path.join(root, "build.py"), run_name="__main__")
