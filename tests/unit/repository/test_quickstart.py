"""Test the decisions of quickstart with fake programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from samples import ROOT


class Stage:
    """A project folder with quickstart and fake programs that record their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "calls.log"
        shutil.copy(ROOT / "quickstart", folder / "quickstart")
        self.put("scripts/bootstrap.sh", "exit 0")
        self.put("deps_sync.sh", "exit 0")
        self.put(
            "gapforge",
            f'case "$*" in "engine status --json") cat {folder}/running;; '
            f'"engine start"*) echo \'"running": true\' > {folder}/running;; '
            f'"engine stop") rm -f {folder}/running;; esac',
        )
        self.put("bin/docker", "exit 1")
        (folder / "src").symlink_to(ROOT / "src")
        (folder / "build.py").write_text(
            "import sys\n"
            f'open({str(self.log)!r}, "a").write(" ".join(["build.py", *sys.argv[1:]]) + "\\n")\n'
        )

    def put(self, name: str, body: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'#!/bin/bash\necho "{name} $*" >>"{self.log}"\n{body}\n')
        file.chmod(0o755)

    def run(self, *words: str, lang: str = "C.UTF-8") -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LANG": lang,
            "GAPFORGE_ROOT": str(self.folder),
            "GAPFORGE_DOCKER": str(self.folder / "bin/docker"),
        }
        return subprocess.run(
            [str(self.folder / "quickstart"), *words],
            capture_output=True,
            text=True,
            check=False,
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
        )

    def calls(self) -> list[str]:
        return [
            line for line in self.log.read_text().splitlines() if not line.startswith("bin/docker")
        ]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_all_steps_run_in_order(stage: Stage) -> None:
    done = stage.run()
    assert done.returncode == 0, done.stderr
    steps = [call for call in stage.calls() if "status" not in call]
    assert steps == [
        "scripts/bootstrap.sh sync build",
        "deps_sync.sh debian12-cpu-quickstart",
        "gapforge engine start --offline",
        "build.py --preset debian12-cpu-quickstart --type runtime --non-interactive",
    ]
    for words in (
        "dist/debian12-cpu-quickstart/runtime/",
        "gapforge verify",
        "engine stop",
        "docs/README.en.md",
    ):
        assert words in done.stdout
    assert (stage.folder / "running").exists()


def test_stop_ends_the_started_engine(stage: Stage) -> None:
    assert stage.run("--stop", "--type", "dev").returncode == 0
    assert stage.calls()[-1] == "gapforge engine stop" and not (stage.folder / "running").exists()
    assert any("--type dev" in call for call in stage.calls())


def test_stop_keeps_an_engine_that_ran_before(stage: Stage) -> None:
    (stage.folder / "running").write_text('"running": true')
    assert stage.run("--stop").returncode == 0
    assert not any("engine stop" in call for call in stage.calls())


@pytest.mark.parametrize("failing", ["scripts/bootstrap.sh", "deps_sync.sh", "gapforge"])
def test_failing_step_ends_with_its_exit_code(stage: Stage, failing: str) -> None:
    stage.put(failing, "exit 7")
    done = stage.run()
    assert done.returncode == 7 and "./quickstart" in done.stderr
    assert not any(call.startswith("build.py") for call in stage.calls())


def test_failing_build_with_stop_ends_the_engine(stage: Stage) -> None:
    (stage.folder / "build.py").write_text("import sys; sys.exit(11)\n")
    assert stage.run("--stop").returncode == 11
    assert not (stage.folder / "running").exists()


def test_summary_follows_the_language(stage: Stage) -> None:
    done = stage.run(lang="ko_KR.UTF-8")
    assert "소요 시간" in done.stdout and "docs/README.md" in done.stdout


@pytest.mark.parametrize("words", [["--nonsense"], ["--type"], ["x"]])
def test_invalid_arguments_exit_with_2(stage: Stage, words: list[str]) -> None:
    assert stage.run(*words).returncode == 2 and not stage.log.exists()


def test_only_practice_preset_resolves_an_outdated_lock(stage: Stage) -> None:
    stage.put("deps_sync.sh", 'case "$*" in *--update*) exit 0 ;; *) exit 7 ;; esac')
    assert stage.run().returncode == 0
    assert "deps_sync.sh debian12-cpu-quickstart --update" in stage.calls()
    stage.log.unlink()
    assert stage.run("--preset", "ubuntu22.04-cpu-torch2.5").returncode == 7
    assert not any("--update" in call for call in stage.calls())


def test_other_failures_of_sync_end_quickstart(stage: Stage) -> None:
    stage.put("deps_sync.sh", "exit 15")
    assert stage.run().returncode == 15
    assert not any("--update" in call or call.startswith("build.py") for call in stage.calls())
