"""Only one process changes files at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gapforge.base.errors import BusyError
from gapforge.base.process_locks import exclusive, folder_in_use
from raised_errors import assert_error, values_of
from samples import ROOT

pytestmark = pytest.mark.every_python


def test_exclusive_refuses_second_holder(tmp_path: Path) -> None:
    lock = tmp_path / "locks/l"
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(ROOT / "src")!r})
        from pathlib import Path
        from gapforge.base.process_locks import exclusive
        with exclusive(Path({str(lock)!r}), "test"):
            print("held", flush=True)
            time.sleep(60)
    """)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(BusyError) as error, exclusive(lock, "build of x"):
            pass
        hint = {"pid": child.pid, "command": values_of(error.value.hint)["command"]}
        assert_error(error.value, BusyError, what="build of x", hint=hint)
        assert str(hint["command"]).startswith(f"{sys.executable} -c ")
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    with exclusive(lock, "test"):  # the system released the lock of the killed holder
        pass


def test_folder_in_use_has_several_readers_or_one_writer(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    with folder_in_use(folder, "x", changes=True):
        for changes in (True, False):
            with pytest.raises(BusyError) as error, folder_in_use(folder, "x", changes=changes):
                pass
            assert values_of(error.value.hint)["pid"] == os.getpid()
    assert not folder.exists(), "made for nothing"
    with folder_in_use(folder, "x", changes=True):
        (folder / "file").touch()
    reading = folder_in_use(folder, "x", changes=False)
    with reading, folder_in_use(folder, "x", changes=False), pytest.raises(BusyError):
        folder_in_use(folder, "x", changes=True).__enter__()
    with folder_in_use(folder, "x", changes=True):
        pass
    assert list(folder.iterdir()) == [folder / "file"]
