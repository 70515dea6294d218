"""Decide what a build can reuse from the last one.

The engine (BuildKit) skips a step whose command, base and input files have not changed. It compares
files by content and mode, and it uploads a file of the build context again when size or time stamp
differ. Three things follow, and together they decide which work a build skips:

* A stage sees only its own ``inputs/`` folder, so that one changed wheel does not compile OpenCV
  again (``gapforge.image.inputs_of_stages``).
* Every file of the context gets a time stamp that is computed from its content and a fixed mode, so
  that neither checkout time nor umask counts (``set_cache_stamp``).
* A base image that the engine has under its digest is not loaded again
  (``gapforge.image.load_base_images``).
"""

from __future__ import annotations

import os
from pathlib import Path

from gapforge.base.files import content_mtime


def set_cache_stamp(file: Path, sha256: str, mode: int = 0o444) -> None:
    """Give a file of the build context the time stamp of its content, and ``mode``."""
    when = content_mtime(sha256) * 10**9
    status = file.stat()
    if status.st_mtime_ns != when:
        os.utime(file, ns=(when, when))
    if status.st_mode & 0o777 != mode:
        file.chmod(mode)
