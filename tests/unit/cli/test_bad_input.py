"""Bad input ends with one message, the documented exit code and no traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gapforge.base.errors import InternalError
from gapforge.base.project import Project
from gapforge.cli.main import main
from gapforge.sync import sync as syncing
from samples import ROOT

NAME = "debian12-cpu-quickstart"
BUILD = ("build", "--preset", NAME, "--non-interactive")


@pytest.fixture
def there(project: Project) -> Project:
    """A project that could build: presets, artifacts, components, Dockerfile, application."""
    for name in ("components", "examples", "catalog"):
        shutil.copytree(ROOT / name, project.root / name)
    shutil.copy(ROOT / "Dockerfile", project.root)
    return project


def gapforge(project: Project, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "src/gapforge/__main__.py"), *argv],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        env={**os.environ, "GAPFORGE_ROOT": str(project.root), "GAPFORGE_LANG": "en", **env},
    )


def preset_file(project: Project) -> Path:
    return project.preset_file(NAME)


def malformed(project: Project) -> None:
    preset_file(project).write_text('{"format": 1,\n "name": }')


def unknown_key(project: Project) -> None:
    raw = json.loads(preset_file(project).read_text())
    raw["opencvv"] = raw.pop("opencv")
    preset_file(project).write_text(json.dumps(raw))


def escaping_folder(project: Project) -> None:
    raw = json.loads(preset_file(project).read_text())
    raw["sources"]["opencv"]["folder"] = "../../etc"
    preset_file(project).write_text(json.dumps(raw))


def escaping_file(project: Project) -> None:
    raw = json.loads(preset_file(project).read_text())
    raw["sources"]["opencv"]["file"] = "../../../tmp/x"
    preset_file(project).write_text(json.dumps(raw))


def is_a_folder(project: Project) -> None:
    preset_file(project).unlink()
    preset_file(project).mkdir()


def not_text(project: Project) -> None:
    preset_file(project).write_bytes(b"\xff\xfe{}")


def delivered_on_debian(project: Project) -> None:
    raw = json.loads(preset_file(project).read_text())
    raw["practice"] = False
    preset_file(project).write_text(json.dumps(raw))


def lock_with_escape(project: Project) -> None:
    file = project.artifacts_of(NAME) / "lock.json"
    raw = json.loads(file.read_text())
    raw["entries"][0]["path"] = "../../outside"
    file.write_text(json.dumps(raw))
    project.lock_file(NAME).write_text(json.dumps(raw))


def preset_changed_after_sync(project: Project) -> None:
    raw = json.loads(preset_file(project).read_text())
    raw["python"]["packages"].append("six==1.16.0")
    preset_file(project).write_text(json.dumps(raw))


def no_artifacts(project: Project) -> None:
    shutil.rmtree(project.artifacts_of(NAME))


def no_cmakelists(project: Project) -> None:
    (project.root / "examples" / "xaiva-media" / "CMakeLists.txt").unlink()


def broken_env(project: Project) -> None:
    (project.root / ".env").write_text('XAIVA_LICENSE_TOKEN="very-secret-value\n')


def networked_dockerfile(project: Project) -> None:
    with open(project.root / "Dockerfile", "a") as file:
        file.write("RUN --network=host curl https://example.com\n")


def component_without_script(project: Project) -> None:
    (project.root / "components" / "ffmpeg" / "build.sh").unlink()


def damaged_artifact(project: Project) -> None:
    file = next((project.artifacts_of(NAME) / "debs").glob("*.deb"))
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(bytes(data))


def script_not_utf8(project: Project) -> None:
    with open(project.components / "opencv" / "build.sh", "ab") as file:
        file.write("# \ub9d0\n".encode("cp949"))


def no_helper(project: Project) -> None:
    (project.components / "common.sh").unlink()


def no_check_library(project: Project) -> None:
    (project.components / "checklib.py").unlink()


CASES: list[tuple[Callable[[Project], None], int, tuple[str, ...]]] = [
    (script_not_utf8, 3, ("components/opencv/build.sh",)),
    (no_helper, 3, ("components/common.sh",)),
    (no_check_library, 3, ("components/checklib.py",)),
    (malformed, 3, ("2",)),
    (unknown_key, 3, ("$.opencvv", '"opencv"')),
    (escaping_folder, 3, ("$.sources.opencv.folder", "..")),
    (escaping_file, 3, ("$.sources.opencv.file",)),
    (is_a_folder, 3, (f"presets/{NAME}.json",)),
    (not_text, 3, ("UTF-8",)),
    (delivered_on_debian, 3, ("$.os", "ubuntu 22.04")),
    (lock_with_escape, 4, ("$.entries[0].path", "..")),
    (preset_changed_after_sync, 4, (f"./deps_sync.sh {NAME}",)),
    (no_artifacts, 4, ("./deps_sync.sh",)),
    (no_cmakelists, 13, ("CMakeLists.txt", "xaiva-media")),
    (broken_env, 14, (".env", "1")),
    (networked_dockerfile, 16, ("--network=host",)),
    (component_without_script, 3, ("components/ffmpeg/build.sh",)),
]


@pytest.mark.parametrize(
    ("damage", "code", "said"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_bad_project_file_has_exit_code(
    there: Project, damage: Callable[[Project], None], code: int, said: tuple[str, ...]
) -> None:
    damage(there)
    done = gapforge(there, *BUILD)
    shown = done.stdout + done.stderr
    assert done.returncode == code, shown
    assert all(words in shown for words in said), shown
    assert "Traceback" not in shown and "very-secret-value" not in shown


# Not here: what only a site has (its artifacts, its .env, its copy of the application).
BOTH_ENDS = [case for case in CASES if case[1] in (3, 16)]


@pytest.mark.parametrize("verb", ["check", "sync"])
@pytest.mark.parametrize(
    ("damage", "code", "said"), BOTH_ENDS, ids=[case[0].__name__ for case in BOTH_ENDS]
)
def test_what_a_build_refuses_is_refused_before_the_carry(
    there: Project,
    damage: Callable[[Project], None],
    code: int,
    said: tuple[str, ...],
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(there)
    monkeypatch.setenv("GAPFORGE_ROOT", str(there.root))
    monkeypatch.setenv("GAPFORGE_LANG", "en")
    monkeypatch.setattr(syncing, "sync", lambda *words: pytest.fail("the sync has begun"))
    assert main([verb, NAME]) == code
    shown = "".join(capsys.readouterr())
    assert all(words in shown for words in said), shown


def test_damaged_artifact_is_refused_before_build(there: Project, tmp_path: Path) -> None:
    from fake_docker import Fake

    damaged_artifact(there)
    fake = Fake(tmp_path / "bin")
    done = gapforge(there, *BUILD, PATH=f"{fake.folder}:{os.environ['PATH']}")
    assert done.returncode == 5, done.stderr
    assert "nasm_2.16.01-1_amd64.deb" in done.stderr
    assert not any(
        "build" in " ".join(call) for call in fake.argvs() if "version" not in " ".join(call)
    )


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("build", "--non-interactive"), 2, "build.py NAME"),
        (("build", "NAME", "--preset", "OTHER", "--non-interactive"), 2, '"OTHER"'),
        (("check", "--driver", "abc"), 2, '"abc"'),
        (("verify", "--al"), 2, '"--all"'),
        (
            ("build", "--preset", "debian12-cpu-quickstrat", "--non-interactive"),
            3,
            '"debian12-cpu-quickstart"',
        ),
        (("build", "--preset", "../../etc/passwd", "--non-interactive"), 3, "../../etc/passwd"),
        ((*BUILD, "--type", "production"), 2, "GAPFORGE_TYPE"),
        ((*BUILD, "--tensorrt", "10.14.1"), 9, "TensorRT"),
        ((*BUILD, "--app-source", "/nonexistent"), 13, "/nonexistent"),
        (("verify", "no-such-preset"), 3, "no-such-preset"),
        (("frobnicate",), 2, '"frobnicate"'),
        (("build", "--prest", "x"), 2, '"--preset"'),
        (("plan", "debian12-cpu-quickstrat"), 3, '"debian12-cpu-quickstart"'),
    ],
)
@pytest.mark.every_python
def test_bad_flag_has_exit_code(
    there: Project, argv: tuple[str, ...], code: int, said: str
) -> None:
    done = gapforge(there, *argv)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_docker_is_reported(there: Project, tmp_path: Path) -> None:
    done = gapforge(there, *BUILD, PATH=str(tmp_path))
    assert done.returncode == 10, done.stderr
    assert "docker" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.every_python
def test_flags_override_environment_variables(there: Project) -> None:
    assert (
        gapforge(there, "build", GAPFORGE_NON_INTERACTIVE="1", GAPFORGE_PRESET="nope").returncode
        == 3
    )
    wrong = gapforge(there, *BUILD, GAPFORGE_TYPE="production")
    assert wrong.returncode == 2 and "GAPFORGE_TYPE" in wrong.stderr
    right = gapforge(
        there, "plan", "--preset", NAME, "--type", "dev", "--json", GAPFORGE_TYPE="production"
    )
    assert right.returncode == 0, right.stderr
    assert json.loads(right.stdout)["target"] == "builder"


def test_inventory_of_nothing_is_reported(there: Project, tmp_path: Path) -> None:
    shutil.rmtree(there.artifacts)
    there.artifacts.mkdir()
    file = tmp_path / "inventory.txt"
    done = gapforge(there, "inventory", "--output", str(file))
    assert done.returncode == 0 and file.is_file()
    assert str(there.artifacts) in done.stderr


def test_pack_before_sync_is_one_sentence(there: Project, tmp_path: Path) -> None:
    shutil.rmtree(there.artifacts)
    done = gapforge(there, "pack", "debian12-cpu-quickstart", "--to", str(tmp_path / "stick"))
    assert done.returncode == 21
    message, following = done.stderr.splitlines()
    assert "debian12-cpu-quickstart" in message
    assert following.endswith("./deps_sync.sh debian12-cpu-quickstart")
    assert not (tmp_path / "stick").exists()


VERBS = (
    ("list",),
    ("check", NAME),
    ("verify", NAME),
    ("plan", NAME),
    ("doctor", NAME),
    ("gc",),
    ("inventory", "--output", "new.json"),
    ("pack", NAME, "--to", "out"),
    ("unpack", "out"),
    ("trust", "list"),
    ("engine", "status"),
)


@pytest.mark.parametrize(
    "name", ["artifacts", "presets", ".gapforge", "examples/xaiva-media", "trust", "out"]
)
def test_loops_of_links_are_named(
    there: Project,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loop = tmp_path / "trust" if name == "trust" else there.root / name
    if loop.is_dir():
        shutil.rmtree(loop)
    loop.symlink_to(loop.name)
    monkeypatch.setenv("GAPFORGE_ROOT", str(there.root))
    monkeypatch.setenv("GAPFORGE_TRUST", str(tmp_path / "trust"))
    monkeypatch.chdir(there.root)
    named = []
    for verb in VERBS:
        code = main([str(there.root / w) if w in ("out", "new.json") else w for w in verb])
        shown = capsys.readouterr().err
        assert code != InternalError.exit_code, f"{verb}: {shown}"
        if code and str(loop) in shown:
            named.append(verb)
    assert named, "no verb names the loop"


@pytest.mark.parametrize("option", ["--app-source", "--base"])
def test_home_of_nobody_is_named(there: Project, option: str) -> None:
    done = gapforge(there, *BUILD, option, "~nosuchuser/x", DOCKER_HOST="unix:///nonexistent")
    assert done.returncode not in (0, InternalError.exit_code), done.stderr
    if option == "--app-source":
        assert "~nosuchuser/x" in done.stderr
