"""build.py's six questions in a real terminal: a pseudo-terminal, a keyboard's bytes, the screen as a person sees it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import samples
from gapforge.compat import catalog as catalogs
from gapforge.compat.rules import check_preset
from gapforge.model import preset
from gapforge.model.lock import Lock, LockedImage

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300.0  # seconds that any one question may take: it asks quickly or never


class Terminal:
    """A child on a pseudo-terminal; ``screen`` is everything it has shown."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.screen, self.shown = "", b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            signal.signal(
                signal.SIGINT, signal.SIG_DFL
            )  # a shell's background job ignores it, and so would its children
            os.execve(argv[0], argv, env)  # noqa: S606 - the child of a pseudo-terminal has no shell to avoid

    def until(self, text: str, start: int = 0) -> None:
        """Read until ``text`` stands on the screen after position ``start``."""
        end = time.monotonic() + LIMIT
        while text not in self.screen[start:]:
            assert time.monotonic() < end, f"waited for {text!r}; the screen shows:\n{self.screen}"
            self._read(0.5)

    def answer(self, question: str, keys: str) -> None:
        """Wait for a question and its prompt, then type."""
        self.until(question)
        self.until("]: ", self.screen.rindex(question))
        os.write(self.master, keys.encode())
        time.sleep(0.05)

    def end(self) -> int:
        """Read to the end; the exit code."""
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
        """False when the child has closed its side."""
        if not select.select([self.master], [], [], wait)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: Linux says so when the last user of the terminal is gone
            return False
        self.shown += data  # decoded as a whole: what is read may end within a letter
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
    env |= {
        "GAPFORGE_ROOT": str(place),
        "TERM": "xterm",
        "GAPFORGE_LANG": getattr(request, "param", "en"),
    }
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
    """artifacts/NAME with a lock for this very preset; the files are a few bytes each."""
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
        ("nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04", "3.10", "2.0.1", "8.5.3.1", "runtime"),
        "ubuntu22.04-cuda11.8-torch2.0",
    ),
    (
        ("nvidia/cuda:12.2.2-cudnn8-devel-ubuntu22.04", "", "2.2.2", "none", "dev"),
        "ubuntu22.04-cuda12.2-torch2.2",
    ),
    (("", "", "2.7.1", "", ""), "ubuntu22.04-cuda12.6-torch2.7"),
]


@pytest.mark.parametrize(("answers", "name"), STACKS, ids=[name for _, name in STACKS])
def test_six_questions_by_hand_make_a_preset_that_check_accepts(
    terminal: Terminal, place: Path, answers: tuple[str, ...], name: str
) -> None:
    before = presets(place)
    terminal.answer("[1/6] Preset, or choose by hand", "manual\n")
    for number, (title, keys) in enumerate(
        zip(
            ("Base image", "Python", "PyTorch", "TensorRT, or none", "Kind of image"),
            answers,
            strict=True,
        ),
        2,
    ):
        terminal.answer(f"[{number}/6] {title}", keys + "\n")
    code = terminal.end()
    if name + ".json" in before:  # shipped meanwhile: another content gets a number
        name = (
            next(n for n in presets(place) - before).removesuffix(".json")
            if presets(place) - before
            else name
        )
    assert re.findall(r"^\[(\d)/6\]", terminal.screen, re.M) == list("123456")
    assert f"./deps_sync.sh {name}" in terminal.screen
    assert code == 4, (
        terminal.screen
    )  # nothing synced: the build says so with its documented exit code
    made = preset.find(place / "presets", name)
    assert [
        p.en for p in check_preset(made, catalogs.load(place / "catalog")) if p.severity == "error"
    ] == []
    if answers[3] not in ("", "none"):
        assert made.tensorrt is not None
        assert made.tensorrt.version == answers[3]
    assert "To download: at least" in terminal.screen
    checked = gapforge(place, "check", name)
    assert checked.returncode == 0, checked.stdout
    assert f"{name}  no faults" in checked.stdout
    plan_before = gapforge(place, "plan", "--preset", name)
    assert plan_before.returncode == 4  # no lock: the message names the command that comes next
    assert f"online: ./deps_sync.sh {name}, then carry artifacts/{name}/" in plan_before.stderr
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


def test_nonsense_back_and_defaults(terminal: Terminal, place: Path) -> None:
    terminal.answer("[1/6]", "banana\n")
    terminal.until('"banana" is not an option')
    terminal.answer("is not an option", "manual\n")
    terminal.answer("[2/6]", "b\n")
    terminal.until("[1/6]", terminal.screen.rindex("[2/6]"))
    terminal.answer("[1/6]", "ubuntu22.04-cpu-torch2.5\n")
    terminal.until("./deps_sync.sh ubuntu22.04-cpu-torch2.5")
    terminal.answer("[6/6]", "\n")
    assert terminal.end() == 4


@pytest.mark.parametrize("key", ["\x03", "\x04", "q\n"], ids=["Ctrl-C", "Ctrl-D", "q"])
@pytest.mark.parametrize("question", [1, 2, 4, 6])
def test_leaving_is_clean_at_any_question(
    terminal: Terminal, place: Path, key: str, question: int
) -> None:
    before = presets(place)
    for number in range(1, question):
        terminal.answer(f"[{number}/6]", "manual\n" if number == 1 else "\n")
    terminal.answer(f"[{question}/6]", key)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.screen
    assert "nothing was changed" in terminal.screen
    assert presets(place) == before


@pytest.mark.parametrize("terminal", ["ko"], indirect=True)
def test_korean(terminal: Terminal) -> None:
    for number, keys in ((1, "manual\n"), (2, "\n"), (3, "\n"), (4, "\n"), (5, "\n"), (6, "q\n")):
        terminal.answer(f"[{number}/6]", keys)
    assert terminal.end() == 130
    for text in (
        "프리셋, 또는 직접 고르기",
        "기반 이미지 (CUDA/cuDNN)",
        "TensorRT, 또는 없음",
        "이미지 종류",
        "바뀐 것은 없습니다",
    ):
        assert text in terminal.screen
