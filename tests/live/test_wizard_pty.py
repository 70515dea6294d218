"""Answer the questions of build.py in a pseudo-terminal, with keys and plainly."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import samples
from gapforge.compat.rules import check_preset
from gapforge.model import catalog as catalogs
from gapforge.model import preset
from gapforge.model.lock import Lock, LockedImage
from samples import ROOT

LIMIT = 300.0  # seconds that one question may take


class Terminal:
    """A child process on a pseudo-terminal. ``screen`` is everything it has shown."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.screen, self.shown = "", b""
        # The end of a question: a plain prompt, or the end of a screen.
        self.prompt = "]: " if env["TERM"] == "dumb" else "\x1b[J"
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            # A shell's background job ignores SIGINT, and so would its children.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execve(argv[0], argv, env)  # noqa: S606 - no shell

    def until(self, text: str, start: int = 0) -> None:
        """Read until the screen shows ``text`` after position ``start``."""
        end = time.monotonic() + LIMIT
        while text not in self.screen[start:]:
            assert time.monotonic() < end, f"waited for {text!r}; the screen shows:\n{self.screen}"
            self._read(0.5)

    def answer(self, question: str, keys: str) -> None:
        """Wait for a question and the end of its text, then type ``keys``."""
        self.until(question)
        self.until(self.prompt, self.screen.rindex(question))
        os.write(self.master, keys.encode())

    def end(self) -> int:
        """Read to the end and return the exit code."""
        limit = time.monotonic() + LIMIT
        while self._read(0.5):
            assert time.monotonic() < limit, self.screen
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self.master)

    def _read(self, wait: float) -> bool:
        """Read what there is. Return False when the child has closed its side."""
        if not select.select([self.master], [], [], wait)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: no process has the terminal open any more
            return False
        self.shown += data  # decode all of it: a read may end within a character
        self.screen = self.shown.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    here = tmp_path / "project"
    here.mkdir()
    for folder in ("presets", "catalog", "components", "examples"):
        shutil.copytree(ROOT / folder, here / folder, ignore=shutil.ignore_patterns("*.lock.json"))
    shutil.copy(ROOT / "Dockerfile", here)
    return here


@pytest.fixture
def terminal(place: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GAPFORGE_", "LC_", "LANG"))}
    env |= {"GAPFORGE_ROOT": str(place), "TERM": "xterm", "GAPFORGE_LANG": "en"}
    env |= getattr(request, "param", {})
    shown = Terminal([sys.executable, "-I", "-S", str(ROOT / "build.py")], env)
    yield shown
    shown.close()
    (place.parent / "screen.txt").write_text(shown.screen, encoding="utf-8")


def presets(place: Path) -> set[str]:
    return {f.name for f in (place / "presets").iterdir()}


def gapforge(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("GAPFORGE_")} | {
        "GAPFORGE_ROOT": str(place),
        "GAPFORGE_LANG": "en",
    }
    argv = [sys.executable, "-I", "-S", str(ROOT / "src/gapforge/__main__.py"), *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)


def stand_in_artifacts(place: Path, made: preset.Preset) -> None:
    """Write artifacts/NAME with files of a few bytes and a lock for this preset."""
    image = LockedImage(
        reference="stand-in",
        manifest_digest="sha256:" + "1" * 64,
        config_digest="sha256:" + "2" * 64,
        os_id=made.os_id,
        os_version=made.os_version,
    )
    sources = tuple(
        samples.entry("tensorrt" if n == "tensorrt" else "source", f"sources/{n}.tar", name=n)
        for n in made.sources
    )
    whole = samples.lock(made)
    entries = tuple(e for e in whole.entries if e.kind != "source") + sources
    lock = Lock(
        preset=made.name,
        preset_sha256=made.sha256,
        images={"builder": image, "runtime": image},
        entries=tuple(sorted(entries, key=lambda e: e.path)),
    )
    samples.lay_artifacts(place / "artifacts" / made.name, lock)


STACKS = [
    (
        ("nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04", "3.10", "2.0.1", "8.5.3.1"),
        "ubuntu22.04-cuda11.8-torch2.0",
    ),
    (
        ("nvidia/cuda:12.2.2-cudnn8-devel-ubuntu22.04", "", "2.2.2", "none"),
        "ubuntu22.04-cuda12.2-torch2.2",
    ),
    (("12.6", "\x1b[A\x1b[B", "2.7.1", ""), "ubuntu22.04-cuda12.6-torch2.7"),
]


@pytest.mark.parametrize(("answers", "name"), STACKS, ids=[name for _, name in STACKS])
def test_manual_answers_make_a_valid_preset(
    terminal: Terminal, place: Path, answers: tuple[str, ...], name: str
) -> None:
    before = presets(place)
    for number, keys in enumerate(("manual", *answers), 1):
        terminal.answer(f"[{number}/6] ", keys + "\n")
    terminal.answer("Enter", "1\n")  # write the preset, or the end if it exists
    code = terminal.end()
    if made_now := presets(place) - before:  # the name has a number if it was taken
        name = made_now.pop().removesuffix(".json")
    assert list(dict.fromkeys(re.findall(r"\[(\d)/6\]", terminal.screen))) == list("12345")
    assert f"./deps_sync.sh {name}" in terminal.screen
    assert code == 4, terminal.screen  # not synced yet
    made = preset.find(place / "presets", name)
    findings = check_preset(made, catalogs.load(place / "catalog"))
    assert [f for f in findings if f.severity == "error"] == []
    if answers[3] not in ("", "none"):
        assert made.tensorrt is not None
        assert made.tensorrt.version == answers[3]
    assert re.search(r"\d [GMk]?B\b", terminal.screen), "the size of the download is not shown"
    checked = gapforge(place, "check", name)
    assert checked.returncode == 0, checked.stdout
    plan_before = gapforge(place, "plan", "--preset", name)
    assert plan_before.returncode == 4  # no lock: the message names the next command
    assert f"./deps_sync.sh {name}" in plan_before.stderr
    assert f"artifacts/{name}/" in plan_before.stderr
    stand_in_artifacts(place, made)
    plan = gapforge(place, "plan", "--preset", name, "--type", "runtime", "--json")
    assert plan.returncode == 0, plan.stderr
    shown = json.loads(plan.stdout)
    assert shown["preset"] == name
    inputs = {file["path"] for file in shown["context"]}
    assert {"Dockerfile", "inputs/ffmpeg/sources/ffmpeg/ffmpeg.tar"} <= inputs
    assert any(path.startswith("inputs/tensorrt/sources/") for path in inputs) == (
        made.tensorrt is not None
    )
    assert "--network=none" in shown["command"]


@pytest.mark.parametrize("terminal", [{"TERM": "dumb"}], indirect=True)
def test_wrong_answer_back_and_defaults(terminal: Terminal, place: Path) -> None:
    terminal.answer("[1/6]", "banana\n")
    terminal.answer('"banana"', "manual\n")
    terminal.answer("[2/6]", "b\n")
    terminal.until("[1/6]", terminal.screen.rindex("[2/6]"))
    terminal.answer("[1/6]", "ubuntu22.04-cpu-torch2.5\n")
    terminal.answer("./deps_sync.sh ubuntu22.04-cpu-torch2.5", "\n")
    assert terminal.end() == 4
    assert "\x1b" not in terminal.screen


@pytest.mark.parametrize(
    ("question", "key"),
    [(1, "\x03"), (2, "\x04"), (4, "q\n"), (6, "\n"), (3, "SIGTERM")],
    ids=["Ctrl-C", "Ctrl-D", "q", "default", "SIGTERM"],
)
def test_quit_changes_nothing_and_restores_the_terminal(
    terminal: Terminal, place: Path, key: str, question: int
) -> None:
    before, modes = presets(place), termios.tcgetattr(terminal.master)
    for number in range(1, question):
        terminal.answer(f"[{number}/6]", "manual\n" if number == 1 else "\n")
    asked = f"[{question}/6]" if question < 6 else "Write this preset?"
    if key == "SIGTERM":
        terminal.until(asked)
        fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        terminal.until(asked, terminal.screen.rindex(asked) + 1)  # drawn again for the new size
        os.kill(terminal.pid, signal.SIGTERM)
    else:
        terminal.answer(asked, key)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.screen
    assert presets(place) == before
    assert termios.tcgetattr(terminal.master) == modes
    assert terminal.screen.index("\x1b[?1049h") < terminal.screen.index("\x1b[?1049l")


@pytest.mark.parametrize("terminal", [{"GAPFORGE_LANG": "ko"}], indirect=True)
def test_questions_are_in_korean(terminal: Terminal) -> None:
    for number, keys in ((1, "manual\n"), (2, "\n"), (3, "\n"), (4, "\n"), (5, "q\n")):
        terminal.answer(f"[{number}/6]", keys)
    assert terminal.end() == 130
    assert len(set(re.findall(r"\[([12])/6\] .*[가-힣]", terminal.screen))) == 2, terminal.screen
