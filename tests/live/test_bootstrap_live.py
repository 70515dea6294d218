"""mmdebstrap ends with gapforge and leaves no mounts, also after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from gapforge.model.preset import BaseImage
from gapforge.base.progress import Progress
from gapforge.sync import mmdebstrap_base as bootstrap
from gapforge.sync.network import Network
bootstrap.make(
    BaseImage(suite="bookworm"),
    1700000000,
    Path(sys.argv[2]),
    Network.from_environment(),
    Progress("x", quiet=True),
)
"""


def descendants(folder: Path) -> list[str]:
    """Return the processes that use ``folder`` as root, working folder or argument."""
    found = []
    for entry in (Path("/proc", name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            places = [os.readlink(entry / "root"), os.readlink(entry / "cwd"), text]
        except OSError:
            continue
        if any(str(folder) in place for place in places) and int(entry.name) != os.getpid():
            found.append(text)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="without root mmdebstrap makes its own namespaces")
def test_killed_mmdebstrap_leaves_nothing_mounted(tmp_path: Path) -> None:
    destination = tmp_path / "layout"
    destination.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(SOURCE), str(destination)], start_new_session=True
    )
    deadline = time.monotonic() + 1200  # it downloads packages first
    while not list(destination.glob(".making-*/mmdebstrap.*/var/lib/dpkg/info")):
        assert child.poll() is None, "it ended before it unpacked a package"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert descendants(destination)
    child.send_signal(signal.SIGKILL)
    child.wait()
    deadline = time.monotonic() + 60
    while descendants(destination) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert descendants(destination) == []
    assert str(destination) not in Path("/proc/self/mounts").read_text()
