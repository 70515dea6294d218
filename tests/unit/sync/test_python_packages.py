"""Wheels for the target, and the generated files; tests/live runs uv itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import samples
from gapforge.base import process
from gapforge.base.errors import FetchError, ResolveError, ToolError
from gapforge.base.project import Project
from gapforge.model import unresolved_item as items
from gapforge.model.preset import Preset, load
from gapforge.model.unresolved_item import Reason
from gapforge.sync import python_packages
from gapforge.sync.network import NoAnswerError
from raised import assert_error

pytestmark = pytest.mark.every_python

ROOT = Path(__file__).resolve().parents[3]
ORDER = {tag: rank for rank, tag in enumerate(python_packages.tags("3.10", 35))}


def best(*files: str) -> str | None:
    ranked = [
        (rank, file)
        for file in files
        if (rank := python_packages.wheel_rank(file, ORDER)) is not None
    ]
    return min(ranked)[1] if ranked else None


@pytest.fixture
def preset() -> Preset:
    return load(ROOT / "presets" / "debian12-cpu-quickstart.json")


@pytest.mark.parametrize(
    "file",
    [
        "a-1-cp310-cp310-manylinux_2_35_x86_64.whl",
        "a-1-cp310-cp310-linux_x86_64.whl",
        "a-1-cp37-abi3-manylinux2014_x86_64.whl",
        "a-1-py3-none-any.whl",
        "a-1-py2.py3-none-any.whl",
        "a-1-py3-none-manylinux1_x86_64.whl",
        "a-1-7-cp310-none-any.whl",
        "a-1-cp310-cp310-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "a-1+cu118-cp310-cp310-linux_x86_64.whl",
    ],
)
def test_wheel_runs_on_target(file: str) -> None:
    assert python_packages.wheel_rank(file, ORDER) is not None


@pytest.mark.parametrize(
    "file",
    [
        "a-1-cp311-cp311-manylinux2014_x86_64.whl",
        "a-1-cp310-cp310-manylinux_2_36_x86_64.whl",
        "a-1-cp310-cp310-win_amd64.whl",
        "a-1-cp310-cp310-musllinux_1_2_x86_64.whl",
        "a-1-cp310-cp310-manylinux2014_aarch64.whl",
        "a-1-cp311-abi3-linux_x86_64.whl",
        "a-1-py2-none-any.whl",
        "a-1-cp310-cp310t-linux_x86_64.whl",
        "a-1.tar.gz",
        "a.whl",
        "a-1-cp310-cp310-macosx_11_0_universal2.whl",
    ],
)
def test_wheel_does_not_run_on_target(file: str) -> None:
    assert python_packages.wheel_rank(file, ORDER) is None


def test_best_wheel_is_chosen() -> None:
    assert (
        best(
            "a-1-py3-none-any.whl",
            "a-1-cp310-abi3-linux_x86_64.whl",
            "a-1-cp310-cp310-linux_x86_64.whl",
        )
        == "a-1-cp310-cp310-linux_x86_64.whl"
    )
    assert (
        best(
            "a-1-cp310-cp310-manylinux_2_17_x86_64.whl", "a-1-cp310-cp310-manylinux_2_28_x86_64.whl"
        )
        == "a-1-cp310-cp310-manylinux_2_28_x86_64.whl"
    )
    assert (
        best("a-1-9-py3-none-any.whl", "a-1-10-py3-none-any.whl", "a-1-py3-none-any.whl")
        == "a-1-10-py3-none-any.whl"
    )
    assert best("a-1-cp311-cp311-linux_x86_64.whl") is None


def test_tag_order_is_that_of_pip() -> None:
    packaging = pytest.importorskip("pip._vendor.packaging.tags")
    ours = python_packages.tags("3.10", 35)
    platforms = [tag.split("-", 2)[2] for tag in ours if tag.startswith("cp310-cp310-")]
    theirs = [
        *packaging.cpython_tags((3, 10), ["cp310"], platforms),
        *packaging.compatible_tags((3, 10), "cp310", platforms),
    ]
    assert [tag for tag in map(str, theirs) if tag in ours] == ours


def test_requirements_text_is_sorted_and_hashed() -> None:
    text = python_packages.requirements_text(
        [("torch", "2.1.2+cu118", "b" * 64), ("numpy", "1.26.4", "a" * 64)]
    )
    assert text.splitlines()[1:] == [
        "numpy==1.26.4 \\",
        f"    --hash=sha256:{'a' * 64}",
        "torch==2.1.2+cu118 \\",
        f"    --hash=sha256:{'b' * 64}",
    ]


def test_generated_project_quotes_requirements() -> None:
    tomllib = pytest.importorskip("tomllib")
    nasty = 'x"]\nrequires = "evil\\'
    document = tomllib.loads(python_packages.project_toml("3.10", [nasty], 'https://h/"\n[tool]'))
    assert document["project"]["dependencies"] == [nasty]
    assert document["tool"]["uv"]["index"] == [
        {"name": "torch", "url": 'https://h/"\n[tool]', "explicit": True}
    ]
    assert set(document["tool"]["uv"]["sources"]) == {"torch", "torchvision", "torchaudio"}
    assert "tool" not in tomllib.loads(python_packages.project_toml("3.10", ["numpy"], ""))


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="only there the parser is missing")
def test_toml_needs_parser_on_python_3_10(tmp_path: Path) -> None:
    with pytest.raises(ToolError):
        python_packages._toml("a = 1", Project(tmp_path, tmp_path))


UV_SAYS = """error: No solution found when resolving dependencies
  cause: Because winonly==1.0 has no wheels with a matching platform tag \
(e.g., `manylinux_2_36_x86_64`) \
and only winonly==1.0 is available, we can conclude that all versions of winonly cannot be used.
         And because all versions of app depend on winonly and gapforge-target depends on app, \
we can conclude that your requirements are unsatisfiable.

hint: Wheels are available for `winonly` (v1.0) on the following platform: `win_amd64`
"""


def test_uv_failure_names_package_and_wheels(preset: Preset) -> None:
    error = python_packages._failure(process.Result(("uv",), 1, "", UV_SAYS), preset, ["app"], [])
    assert_error(
        error,
        ResolveError,
        where=["winonly"],
        package="winonly",
        python="3.11",
        os_id="debian",
        os_version="12",
    )
    assert "win_amd64" in error.faults[0].expected


def test_uv_failure_hides_logins(preset: Preset) -> None:
    said = "error: could not connect to https://user:hunter2@mirror/simple"
    assert (
        "hunter2"
        not in python_packages._failure(
            process.Result(("uv",), 2, "", said), preset, ["a"], ["hunter2"]
        ).render()
    )


def test_missing_uv_has_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("GAPFORGE_UV", raising=False)
    with pytest.raises(ToolError) as error:
        python_packages.find_uv(Project(tmp_path, tmp_path / "artifacts"))
    assert "deps_sync.sh" in error.value.hint


TORCH_SET = {
    "torch": "2.1.2+cu118",
    "torchvision": "0.16.2+cu118",
    "index": "https://wheels.example/cu118",
}
UV_SILENT = """error: Request failed after 3 retries in 5.9s
  cause: Failed to fetch: {url}
  cause: error sending request for url ({url})
  cause: client error (Connect)
  cause: dns error
"""


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://wheels.example/cu118/torch/", "index:https://wheels.example/cu118"),
        ("https://elsewhere.example/simple/alpha/", items.DEFAULT_INDEX),
        ("https://wheels.example/cu118x/torch/", items.DEFAULT_INDEX),
    ],
)
def test_uv_error_names_silent_index(url: str, server: str) -> None:
    preset = samples.preset(pytorch=TORCH_SET)
    said = process.Result(("uv",), 2, "", UV_SILENT.format(url=url))
    error = python_packages._failure(
        said, preset, ["alpha"], [], "https://user:pw@wheels.example/cu118/"
    )
    assert isinstance(error, NoAnswerError)
    assert error.reason == Reason(code=items.NO_ANSWER, server=server)
    assert error.exit_code == FetchError.exit_code
