"""Test deps_sync.sh with a fake Python: runs side by side, sudo, and folders to quote."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from samples import ROOT

USER = 12345
FAKE = """#!/bin/bash
case "$*" in
    *"-m venv"*)
        echo begin >>"$EVENTS"
        mkdir -p "${@: -1}/bin"
        cp "$0" "${@: -1}/bin/python"
        sleep "${SLOW:-0}" ;;
    *"pip install"*)
        [ -z "$SEEN" ] || printf '%s\\n' "index $PIP_INDEX_URL" "$*" >"$SEEN"
        sleep "${SLOW:-0}"; echo end >>"$EVENTS" ;;
    *give_to_caller*) exec REAL "$@" ;;
    *sha256*) echo state of the tools ;;
    *__main__.py*) [ -x "$TOOLS/bin/python" ] && [ -f "$TOOLS/.complete" ] || exit 9 ;;
esac
"""
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becoming another user needs root"
)


class Place:
    """A project that has only the scripts, in a folder that others can reach."""

    def __init__(self, top: Path) -> None:
        self.root = top / "프로젝트 (1) it's"
        for name in ("deps_sync.sh", "scripts/common.sh", "tools/requirements.txt"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        shutil.copytree(ROOT / "src/gapforge/base", self.root / "src/gapforge/base")
        (self.root / "src/gapforge/__init__.py").touch()
        self.python = top / "python"
        self.python.write_text(FAKE.replace("REAL", shlex.quote(os.path.realpath(sys.executable))))
        self.python.chmod(0o755)
        self.events = top / "events"
        self.state = self.root / ".gapforge"

    def start(self, user: int = 0, **env: str) -> subprocess.Popen[str]:
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        return subprocess.Popen(
            [*become, "bash", str(self.root / "deps_sync.sh"), "x"],
            env={
                "PATH": os.environ["PATH"],
                "GAPFORGE_LANG": "en",
                "GAPFORGE_INTERPRETER": str(self.python),
                "EVENTS": str(self.events),
                "TOOLS": str(self.state / "tools"),
                **env,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, user: int = 0, **env: str) -> tuple[int, str]:
        child = self.start(user, **env)
        said = child.communicate(timeout=60)[1]
        return child.returncode, said


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Place(Path(name))


def test_runs_side_by_side_install_once(place: Place) -> None:
    runs = [place.start(SLOW="0.3") for _ in range(4)]
    said = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, said
    assert place.events.read_text().split() == ["begin", "end"]
    assert sum("installing uv" in text for text in said) == 1


def test_killed_setup_is_repeated_and_leaves_no_lock(place: Place) -> None:
    child = place.start(SLOW="0.3")
    while not place.events.exists():
        assert child.poll() is None
    child.kill()
    child.communicate()
    assert place.run()[0] == 0
    assert place.events.read_text().split()[-2:] == ["begin", "end"]


def test_login_of_the_index_is_in_no_argument(place: Place) -> None:
    seen = place.root.parent / "seen"
    index = "https://user:canary@mirror.example/simple"
    code, said = place.run(SEEN=str(seen), GAPFORGE_INDEX_URL=index)
    assert code == 0, said
    environment, arguments = seen.read_text().splitlines()
    assert environment == f"index {index}"
    assert "pip install" in arguments and "mirror.example" not in arguments


def next_command(said: str) -> list[str]:
    """Return the words of the command in the last line, as a shell reads them."""
    command = said.strip().splitlines()[-1].removeprefix("next: ").partition(": ")[2] or said
    return shlex.split(command)


def test_command_for_a_foreign_folder_can_be_pasted(place: Place) -> None:
    tools = place.state / "tools"
    (tools / "mine").mkdir(parents=True)
    code, said = place.run()
    assert code == 17
    assert next_command(said) == ["mv", str(tools), f"{tools}.old"]
    assert (tools / "mine").is_dir()


@needs_root
def test_files_of_sudo_belong_to_the_caller(place: Place) -> None:
    os.chown(place.root, USER, USER)
    assert place.run(SUDO_UID=str(USER), SUDO_GID=str(USER))[0] == 0
    found = [place.state, *place.state.rglob("*")]
    assert len(found) > 4 and {path.lstat().st_uid for path in found} == {USER}
    place.events.unlink()
    place.events.touch(mode=0o666)
    assert place.run(USER)[0] == 0


@needs_root
def test_folder_of_root_is_named_with_the_command_that_mends_it(place: Place) -> None:
    place.state.mkdir()
    code, said = place.run(USER)
    assert code == 17 and "mkdir" not in said and "root" in said
    command = said.strip().splitlines()[-1].removeprefix("next: ")
    words = shlex.split(command.replace('"$(id -u):$(id -g)"', f"{USER}:{USER}"))
    assert words == ["sudo", "chown", "-R", f"{USER}:{USER}", str(place.state)]
    subprocess.run(words[1:], check=True)
    place.events.touch()
    place.events.chmod(0o666)
    assert place.run(USER)[0] == 0
