#!/usr/bin/env python3
"""The build driver under the name that some sites' procedures use; the same as ``build.py`` one folder up."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "build.py"), run_name="__main__")
