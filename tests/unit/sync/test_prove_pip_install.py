"""The pip of the lock decides at sync what installs at the site."""

from __future__ import annotations

import ensurepip
import re
import shlex
from pathlib import Path

import pytest

from gapforge.base.errors import ResolveError, ToolError
from gapforge.base.files import sha256_bytes
from gapforge.model.lock import Entry
from gapforge.model.preset import Preset, load
from gapforge.sync import prove_pip_install
from gapforge.sync.prove_pip_install import Proof
from raised_errors import assert_error
from samples import ROOT
from servers import wheel


@pytest.fixture
def preset() -> Preset:
    return load(ROOT / "presets" / "debian12-cpu-quickstart.json")


def entry(folder: Path, file: str, body: bytes) -> Entry:
    (folder / file).write_bytes(body)
    name, version = file.split("-")[:2]
    return Entry(
        kind="wheel",
        path=f"wheels/{file}",
        sha256=sha256_bytes(body),
        size=len(body),
        origin="index:default",
        name=name,
        version=version,
    )


def pip_of_python(folder: Path) -> Entry:
    """Return the wheel of pip that Python contains, in ``folder``."""
    bundled = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
    if not bundled:
        pytest.skip("this Python has no wheel of pip")
    return entry(folder, bundled[-1].name, bundled[-1].read_bytes())


def proof(folder: Path, preset: Preset, *wheels: Entry, python: str = "3.11.2") -> Proof:
    pip = pip_of_python(folder)
    return Proof(preset=preset, folder=folder, pip=pip, wheels=wheels, python=python)


@pytest.mark.every_python
def test_wheels_that_pip_installs_pass(
    tmp_path: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of the user do not decide, as at the site."""
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    (tmp_path / "pip.conf").write_text("[global]\nno-binary = :all:\n")
    app = entry(tmp_path, *wheel("app", "1.0", requires=("absent",)))
    tagged = entry(tmp_path, *wheel("tagged", "1.0", "cp311-cp311-manylinux_2_36_x86_64"))
    proof(tmp_path, preset, app, tagged).check()
    assert not (tmp_path / "target").exists()
    proof(tmp_path, preset).check()


def test_refused_wheel_is_named(tmp_path: Path, preset: Preset) -> None:
    good = entry(tmp_path, *wheel("good", "1.0"))
    other = entry(tmp_path, *wheel("other", "1.0", "cp310-cp310-manylinux2014_x86_64"))
    with pytest.raises(ResolveError) as error:
        proof(tmp_path, preset, good, other).check()
    assert_error(error.value, ResolveError, where=[other.path])
    assert error.value.faults[0].problem


def test_pip_that_does_not_run_is_no_verdict(tmp_path: Path, preset: Preset) -> None:
    app = entry(tmp_path, *wheel("app", "1.0"))
    pip = entry(tmp_path, "pip-1.0-py3-none-any.whl", b"no archive")
    with pytest.raises(ToolError):
        Proof(preset=preset, folder=tmp_path, pip=pip, wheels=[app], python="3.11.2").check()


def test_options_are_those_of_the_build() -> None:
    """The build's functions `pip` and `pip_install` and the proof have the same options."""
    script = (ROOT / "components" / "common.sh").read_text()

    def options(function: str) -> list[str]:
        body = re.search(rf"^{function}\(\) \{{\n(.*?)^\}}", script, re.MULTILINE | re.DOTALL)
        assert body is not None
        words = shlex.split(body[1].replace("\\\n", " ").splitlines()[-1], comments=True)
        return [word for word in words if word.startswith("--")]

    build = (ROOT / "components" / "wheels" / "build.sh").read_text()
    assert options("pip") == list(prove_pip_install.GENERAL)
    assert options("pip_install") == [*prove_pip_install.INSTALL, "--root"]
    assert "pip_install --quiet --require-hashes --find-links" in build
