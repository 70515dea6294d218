"""What sudo makes in a project belongs to the caller, or the message says how to take it over."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import RUN_ENV, carry, sender, site_at
from gapforge.base import storage_errors
from gapforge.base.errors import StorageError
from gapforge.base.project import Project
from gapforge.base.sudo_caller import give_to_caller
from samples import ROOT

USER = 12345  # a number without a name, as in a container
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becoming another user needs root"
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Project]:
    """A site with a folder name to quote that belongs to another user, who can reach it."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        made = site_at(top / "a site (1)")
        carry(sender(tmp_path), top / "medium", size=10**9)
        shutil.copytree(ROOT / "src", top / "src", ignore=shutil.ignore_patterns("__pycache__"))
        for path in (top, *top.rglob("*")):
            os.chown(path, USER, USER, follow_symlinks=False)
        yield made


def gapforge(
    site: Project, *words: str, user: int = 0, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run gapforge as a user; below its site lies the medium, and a copy of the program."""
    who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    # Another user may not reach a Python below the home of root.
    pythons = [os.path.realpath(sys.executable), "/usr/bin/python3"]
    python = next(p for p in pythons if subprocess.run([*who, p, "-c", ""]).returncode == 0)
    return subprocess.run(
        [*who, python, "-m", "gapforge", *words],
        env={
            **RUN_ENV,
            "PYTHONPATH": str(site.root.parent / "src"),
            "GAPFORGE_ROOT": str(site.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            **env,
        },
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def owners(*folders: Path) -> set[int]:
    return {path.lstat().st_uid for folder in folders for path in (folder, *folder.rglob("*"))}


@needs_root
def test_files_of_sudo_belong_to_the_caller(site: Project) -> None:
    medium = str(site.root.parent / "medium")
    kept = site.state / "rehearsal" / "other"
    engines = [site.state / "engine", kept / ".gapforge" / "engine"]
    for engine in engines:
        engine.mkdir(parents=True)
    (site.root / "dist").mkdir()
    done = gapforge(site, "unpack", medium, SUDO_UID=str(USER), SUDO_GID=str(USER))
    assert done.returncode == 0, done.stderr
    assert (site.store / "sha256").is_dir()
    assert owners(site.artifacts, site.presets) == {USER}
    assert {site.state.stat().st_uid, kept.stat().st_uid} == {USER}
    assert owners(*engines) == {0}, "an engine is root's"
    again = gapforge(site, "unpack", medium, user=USER)
    assert again.returncode == 0, again.stderr
    assert gapforge(site, "gc", "--yes", user=USER).returncode == 0


@needs_root
def test_folder_of_root_is_named_with_the_command_that_mends_it(site: Project) -> None:
    medium = str(site.root.parent / "medium")
    assert gapforge(site, "unpack", medium).returncode == 0, "root itself, without sudo"
    for folder in (site.artifacts, site.presets):
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 0, 0, follow_symlinks=False)
    refused = gapforge(site, "unpack", medium, user=USER)
    assert refused.returncode == StorageError.exit_code, refused.stderr
    following = refused.stderr.split("next: ")[1]
    assert "root" in following
    mending = following[following.index("sudo ") :].splitlines()[0].split(";")[0]
    words = shlex.split(mending.replace('"$(id -u):$(id -g)"', f"{USER}:{USER}"))
    assert words[:3] == ["sudo", "chown", "-R"]
    assert Path(words[-1]) in (site.artifacts, site.presets)
    for _attempt in range(4):  # each command mends the folder that stopped it
        subprocess.run(words[1:], check=True)
        done = gapforge(site, "unpack", medium, user=USER)
        if done.returncode == 0:
            break
        mending = done.stderr[done.stderr.index("sudo ") :].splitlines()[0].split(";")[0]
        words = shlex.split(mending.replace('"$(id -u):$(id -g)"', f"{USER}:{USER}"))
    assert done.returncode == 0, done.stderr


@needs_root
def test_only_root_files_in_own_folders_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", str(USER))
    monkeypatch.setenv("SUDO_GID", str(USER))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("")
    mine, other = tmp_path / "mine", tmp_path / "other"
    for top in (mine, other):
        (top / "state").mkdir(parents=True)
        (top / "state" / "file").write_text("")
        (top / "state" / "link").symlink_to(outside)
        (top / "state" / "friend").write_text("")
        os.chown(top / "state" / "friend", 54321, 54321)
    os.chown(mine, USER, USER)
    os.chown(other, 54321, 54321)
    (mine / "linked").symlink_to(outside)
    (mine / "state" / "second").hardlink_to(outside / "file")
    give_to_caller(mine / "state", mine / "linked", linked=False)
    assert (outside / "file").stat().st_uid == 0 != (mine / "state" / "file").stat().st_uid
    (mine / "state" / "second").unlink()
    give_to_caller(mine / "state", mine / "linked", other / "state", mine / "missing")
    assert owners(outside) == {0}
    assert owners(mine / "state") == {USER, 54321}
    assert (mine / "state" / "link").lstat().st_uid == USER
    assert owners(other / "state") == {0, 54321}
    monkeypatch.setenv("SUDO_UID", "0")
    (mine / "state" / "late").write_text("")
    give_to_caller(mine / "state")
    assert (mine / "state" / "late").stat().st_uid == 0


def test_hint_names_owner_and_topmost_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state" / "locks").mkdir(parents=True)
    owner = {tmp_path / "state": 0, tmp_path / "state" / "locks": 0}
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    monkeypatch.setattr(storage_errors, "_owner", lambda path: owner.get(path, USER))
    error = PermissionError(13, "x", str(tmp_path / "state" / "locks" / "new"))
    made = storage_errors.storage_error(error)
    assert made.hint.values["place"] == tmp_path / "state"  # type: ignore[attr-defined]
    assert made.hint.values["owner"] == pwd.getpwuid(0).pw_name  # type: ignore[attr-defined]
    owner.clear()
    assert storage_errors.storage_error(error).hint == ""
