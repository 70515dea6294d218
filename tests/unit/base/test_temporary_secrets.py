"""Secret files are private, and no ending of a build leaves them behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from gapforge.base import temporary_secrets
from gapforge.base.marked_folders import mark_folder
from gapforge.model.env_file import SecretSet
from gapforge.model.preset import Secret
from samples import ROOT

TOKEN = Secret("XAIVA_LICENSE_TOKEN", "secret", False)
BUILD = Secret("XAIVA_BUILD_TOKEN", "build-arg", False)
CANARY = "canary-5f2d9c71"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def secrets(**values: str) -> SecretSet:
    return SecretSet(secrets=(TOKEN, BUILD), values=values)


def test_secret_files_are_private_and_removed(storage: Path) -> None:
    got = secrets(XAIVA_LICENSE_TOKEN=f"{CANARY}\nline", XAIVA_BUILD_TOKEN="arg")
    with got.files() as files:
        assert list(files) == ["XAIVA_LICENSE_TOKEN"]
        file = files["XAIVA_LICENSE_TOKEN"]
        assert file.read_bytes() == f"{CANARY}\nline".encode()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert storage in file.parents
    assert list(storage.iterdir()) == []


def test_secret_files_are_removed_after_error(storage: Path) -> None:
    with pytest.raises(KeyboardInterrupt), secrets(XAIVA_LICENSE_TOKEN=CANARY).files():
        raise KeyboardInterrupt
    assert list(storage.iterdir()) == []


def test_dry_or_empty_set_writes_nothing(storage: Path) -> None:
    with secrets(XAIVA_LICENSE_TOKEN=CANARY).files(dry=True) as files:
        assert list(files) == ["XAIVA_LICENSE_TOKEN"] and not files["XAIVA_LICENSE_TOKEN"].exists()
        assert list(storage.iterdir()) == []
    with secrets(XAIVA_BUILD_TOKEN=CANARY).files() as files:
        assert files == {} and list(storage.iterdir()) == []


def test_only_files_of_dead_builds_are_removed(storage: Path) -> None:
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(ROOT / "src")!r})
        from gapforge.model.env_file import SecretSet
        from gapforge.model.preset import Secret
        kept = SecretSet(secrets=(Secret("K", "secret", False),), values={{"K": "left"}})
        with kept.files() as files:
            print(files["K"], flush=True)
            time.sleep(60)
    """)
    children = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        paths = [Path(child.stdout.readline().strip()) for child in children]  # type: ignore[union-attr]
        assert all(path.read_text() == "left" for path in paths)
        children[0].kill()
        children[0].wait()
        assert paths[0].exists()
        with secrets(XAIVA_LICENSE_TOKEN=CANARY).files():
            assert not paths[0].parent.exists()
            assert paths[1].exists()
    finally:
        for child in children:
            child.kill()
            child.wait()
            child.stdout.close()  # type: ignore[union-attr]


def test_sigterm_removes_the_secret_files(storage: Path) -> None:
    """The command line makes SIGTERM end a build as Ctrl-C does."""
    script = textwrap.dedent(f"""
        import signal, sys, time
        sys.path.insert(0, {str(ROOT / "src")!r})
        from gapforge.model.env_file import SecretSet
        from gapforge.cli import main
        from gapforge.model.preset import Secret
        signal.signal(signal.SIGTERM, main._terminate)
        kept = SecretSet(secrets=(Secret("K", "secret", False),), values={{"K": "left"}})
        with kept.files() as files:
            print(files["K"], flush=True)
            time.sleep(60)
    """)
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    path = Path(child.stdout.readline().strip())  # type: ignore[union-attr]
    assert path.exists()
    child.send_signal(signal.SIGTERM)
    child.wait(20)
    child.stdout.close()  # type: ignore[union-attr]
    assert list(storage.iterdir()) == []


def test_folder_without_marker_is_kept(storage: Path) -> None:
    alien = storage / "gapforge-secrets-alien"
    alien.mkdir()
    (alien / "file").write_text("x")
    temporary_secrets.remove_stale(storage)
    assert (alien / "file").exists()


def test_storage_must_be_writable(monkeypatch: pytest.MonkeyPatch, storage: Path) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)
    assert temporary_secrets.secret_storage() == Path(tempfile.gettempdir())
    monkeypatch.setattr(os, "access", lambda place, mode: mode == os.W_OK | os.X_OK)
    assert temporary_secrets.secret_storage() == storage


@pytest.mark.parametrize("difference", [-1, 1])
def test_stale_folders_of_others_are_passed_over(
    storage: Path, monkeypatch: pytest.MonkeyPatch, difference: int
) -> None:
    folders = [storage / f"gapforge-secrets-{name}" for name in "abc"]
    for folder in (folders[0], folders[2]):  # b has no marker
        mark_folder(folder, "test")
    folders[1].mkdir()
    me, asked = os.geteuid(), []

    def geteuid() -> int:
        asked.append(me)
        return me + difference if len(asked) == 1 else me

    monkeypatch.setattr(os, "geteuid", geteuid)
    handles = len(os.listdir("/proc/self/fd"))
    temporary_secrets.remove_stale(storage)
    assert sorted(storage.iterdir()) == folders[:2]
    assert len(os.listdir("/proc/self/fd")) == handles


def test_storage_prefers_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    memory = Path("/dev/shm")
    expected = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    assert temporary_secrets.secret_storage() == expected
