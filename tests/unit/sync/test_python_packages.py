"""Wheels for the target, and the generated files; tests/live runs uv itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import samples
from gapforge.base import process
from gapforge.base.errors import FetchError, ResolveError, ToolError
from gapforge.base.project import Project
from gapforge.model import catalog as catalogs
from gapforge.model import unresolved_item as items
from gapforge.model.preset import Preset, load, parse
from gapforge.model.unresolved_item import Reason
from gapforge.sync import python_packages, target_python, uv_errors
from gapforge.sync.network import Network, NoAnswerError
from gapforge.sync.python_packages import Resolver
from raised_errors import assert_error, values_of
from samples import ROOT

pytestmark = pytest.mark.every_python

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


def explained(said: str, preset: Preset, torch_index: str = "", nearest: object = None) -> Any:
    query = uv_errors.Query(preset=preset, python="3.11.2", torch_index=torch_index)
    return uv_errors.failure(said, query, nearest or (lambda name, version: []))  # type: ignore[arg-type]


def test_uv_failure_names_package_and_wheels(preset: Preset) -> None:
    error = explained(UV_SAYS, preset)
    assert_error(
        error,
        ResolveError,
        where=["app", "uv"],
        package="winonly 1.0",
        python="3.11.2",
        os_id="debian",
        os_version="12",
    )
    assert "win_amd64" in error.faults[-1].expected


def unsatisfiable(because: str) -> str:
    return (
        "error: No solution found when resolving dependencies\n"
        f"  cause: {because}, we can conclude that your requirements are unsatisfiable.\n"
    )


def test_missing_version_names_the_nearest(preset: Preset) -> None:
    said = unsatisfiable(
        "Because there is no version of numpy==9.9.9 and gapforge-target depends on numpy==9.9.9"
    )
    asked: list[tuple[str, str]] = []

    def nearest(name: str, version: str) -> list[str]:
        asked.append((name, version))
        return ["2.3.4", "10"]

    error = explained(said, preset, nearest=nearest)
    assert_error(error, ResolveError, package="numpy", version="9.9.9", versions="2.3.4, 10")
    assert asked == [("numpy", "9.9.9")]
    assert error.faults[0].where == f"presets/{preset.name}.json"
    assert values_of(error.faults[0].problem) == {"requirement": "numpy==9.9.9"}


@pytest.mark.parametrize(
    "because",
    [
        "Because only numpy==1 is available and gapforge-target depends on numpy>=3",
        "Because only numpy==1 is available and a<=1 depends on numpy>=3, we can conclude that "
        "a<=1 cannot be used.\n         And because only numpy==1 is available and a>=2 depends "
        "on numpy>=4",
        "Because there are no versions of numpy>=3 and gapforge-target depends on numpy>=3",
    ],
)
def test_range_without_a_version_is_named(preset: Preset, because: str) -> None:
    error = explained(unsatisfiable(because), preset)
    assert_error(error, ResolveError, package="numpy", versions=">=3")


@pytest.mark.parametrize(
    ("said", "package", "needs"),
    [
        (
            unsatisfiable(
                "Because opencv-python-headless==4.12.0.88 depends on numpy>=2,<2.3.0 and "
                "gapforge-target depends on numpy==1.26.4, we can conclude that your requirements "
                "and opencv-python-headless==4.12.0.88 are incompatible.\n"
                "         And because gapforge-target depends on opencv-python-headless==4.12.0.88"
            ),
            "numpy",
            {
                "opencv-python-headless 4.12.0.88": "numpy>=2,<2.3.0",
                "presets/world.json": "numpy==1.26.4",
            },
        ),
        (
            "error: No solution found when resolving dependencies\n"
            "  cause: gapforge-target depends on numpy<2 and numpy>=3, which are incompatible\n",
            "numpy",
            {"presets/world.json": "numpy>=3"},
        ),
        (
            unsatisfiable(
                "Because all versions of b depend on c<2 and all versions of a[x,y] depend on "
                "c>=2, we can conclude that all versions of a and all versions of b are "
                "incompatible.\n         And because gapforge-target depends on a and b"
            ),
            "c",
            {"b": "c<2"},
        ),
    ],
)
def test_requirements_that_exclude_each_other_are_named(
    said: str, package: str, needs: dict[str, str]
) -> None:
    error = explained(said, samples.preset(name="world"))
    assert_error(error, ResolveError, package=package)
    found = {f.where: values_of(f.problem).get("requirement") for f in error.faults}
    assert {who: found.get(who) for who in needs} == needs


def test_other_python_is_named(preset: Preset) -> None:
    said = unsatisfiable(
        "Because thing==2 requires Python >=3.12 and only thing==2 is available, we can conclude "
        "that all versions of thing cannot be used.\n"
        "         And because gapforge-target depends on thing"
    )
    error = explained(said, preset)
    assert_error(error, ResolveError, package="thing 2", versions=">=3.12", python="3.11.2")


@pytest.mark.parametrize(
    "because",
    [
        "Because pytorch-triton was not found in the package registry",
        "Because there is no version of pytorch-triton==2.1+x",
        "Because pytorch-triton==2.1+x has no usable wheels",
    ],
)
def test_error_says_where_a_package_was_sought(because: str) -> None:
    preset = samples.preset(pytorch=TORCH_SET)
    said = unsatisfiable(
        f"{because} and all versions of torch depend on pytorch-triton==2.1+x, we can conclude "
        "that all versions of torch cannot be used.\n"
        "         And because gapforge-target depends on torch==2.1"
    )
    error = explained(said, preset, torch_index="https://user:canary@wheels.example/cu118")
    assert type(error) is ResolveError and "canary" not in error.render()
    by_place = {f.where: values_of(f.problem) for f in error.faults}
    assert by_place["torch"] == {"requirement": "pytorch-triton==2.1+x"}
    assert by_place["pytorch-triton"]["server"] == items.server_name(items.DEFAULT_INDEX)
    torch = explained(
        said.replace("pytorch-triton", "torchvision"), preset, torch_index="https://w"
    )
    assert TORCH_SET["index"] in str({f.where: f.problem for f in torch.faults}["torchvision"])


def test_text_without_a_known_phrase_names_no_package(preset: Preset) -> None:
    error = explained("error: Because there was something about the all of it", preset)
    assert_error(error, ResolveError, where=["uv"], name=preset.name, package=None)


def test_folder_of_wheels_is_an_index(tmp_path: Path) -> None:
    flat, simple, empty = tmp_path / "a b", tmp_path / "simple", tmp_path / "empty"
    for folder in (flat, simple / "torch", empty):
        folder.mkdir(parents=True)
    (flat / "torch-2.1-py3-none-any.whl").touch()
    (simple / "torch" / "index.html").touch()
    assert python_packages.folder_layout(flat.as_uri()) == python_packages.FLAT
    assert python_packages.folder_layout(simple.as_uri()) == ""
    assert python_packages.folder_layout("https://h/wheels") == ""
    for wrong in (empty, tmp_path / "none"):
        with pytest.raises(ResolveError) as error:
            python_packages.folder_layout(wrong.as_uri())
        assert_error(error.value, ResolveError, where=[wrong.as_uri()], index=wrong.as_uri())


@pytest.mark.parametrize(
    ("debs", "expected"),
    [
        ({}, "3.11.2"),
        ({"python3.11-minimal": "3.11.9-1~22.04", "python3.11": "3.11.8-1"}, "3.11.9"),
        ({"python3.11": "1:3.11.0~rc1-1"}, "3.11.0rc1"),
        ({"python3.10": "3.10.12-1"}, "3.11.2"),
    ],
)
def test_python_is_that_of_the_locked_packages(
    preset: Preset, debs: dict[str, str], expected: str
) -> None:
    assert target_python.expected(preset, debs) == expected


def test_unknown_python_is_not_guessed(preset: Preset) -> None:
    other = replace(preset, python="3.12")
    assert target_python.expected(other) == ""
    with pytest.raises(ResolveError) as error:
        target_python.found(
            other, {"builder": {"python3.12": "3.12.7-1"}, "runtime": {}}, lambda _role: {}
        )
    assert_error(error.value, ResolveError, where=["python3.12"], python="3.12")
    assert values_of(error.value.faults[0].problem) == {"role": "runtime"}


def fake_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "uv"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("GAPFORGE_UV", str(program))


@pytest.mark.parametrize(
    ("login", "shown"),
    [
        ("user:hunter2canary", "hunter2canary"),
        ("user:hunter2%2Fcanary", "hunter2/canary"),
        ("user:hunter2%2Fcanary", "hunter2%2Fcanary"),
        ("tokencanary", "tokencanary"),
        ("user:p@canary@", "p@canary@"),
        ("user:p@canary@", "p%40canary%40"),
    ],
)
def test_login_of_an_index_is_in_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: Preset, login: str, shown: str
) -> None:
    fake_uv(tmp_path, monkeypatch, f"echo 'error: https://x {shown} refused' >&2; exit 2")
    network = Network(index_url=f"https://{login}@mirror.example/simple")
    resolver = Resolver(project=Project(tmp_path, tmp_path), network=network, workdir=tmp_path)
    with pytest.raises(ResolveError) as error:
        resolver.install_tool(preset)
    assert "canary" not in error.value.render() and "***" in error.value.render()


def test_login_of_an_index_is_in_no_message_about_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: Preset
) -> None:
    fake_uv(tmp_path, monkeypatch, "sleep 60")
    run = process.run
    monkeypatch.setattr(process, "run", lambda argv, **how: run(argv, **{**how, "timeout": 0.2}))
    network = Network(index_url="https://user:hunter2canary@mirror.example/simple")
    resolver = Resolver(project=Project(tmp_path, tmp_path), network=network, workdir=tmp_path)
    with pytest.raises(process.TimedOut) as error:
        resolver.install_tool(preset)
    assert "compile" in error.value.render() and "canary" not in error.value.render()


def test_index_login_reaches_uv_only_by_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: Preset
) -> None:
    fake_uv(tmp_path, monkeypatch, 'echo "$@" >argv; env >environment; exit 2')
    monkeypatch.setenv("UV_INDEX_URL", "https://other.example/simple")
    index = "https://user:hunter2canary@mirror.example/simple"
    network = Network(index_url=index)
    resolver = Resolver(project=Project(tmp_path, tmp_path), network=network, workdir=tmp_path)
    with pytest.raises(ResolveError):
        resolver.install_tool(preset)
    argv, environment = ((tmp_path / n).read_text() for n in ("argv", "environment"))
    assert "compile" in argv and "mirror.example" not in argv
    assert f"UV_DEFAULT_INDEX={index}" in environment.splitlines()
    assert "UV_INDEX_URL" not in environment
    assert (tmp_path / "pyproject.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_login_of_the_index_of_uv_is_hidden_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: Preset, variable: str
) -> None:
    said = "hunter2canary, m1rrorcanary, namedcanary, pr0xycanary"
    fake_uv(tmp_path, monkeypatch, f"echo 'error: {said}' >&2; exit 2")
    monkeypatch.setenv("UV_INDEX_INTERNAL_PASSWORD", "namedcanary")
    proxies = (("https_proxy", "http://user:pr0xycanary@proxy.example:3128"),)
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.setenv(variable, "https://user:hunter2canary@mirror.example/simple")
    mirrors = (("https://torch/", "https://user:m1rrorcanary@mirror/"),)
    network = Network(url_mirrors=mirrors, proxies=proxies)
    resolver = Resolver(project=Project(tmp_path, tmp_path), network=network, workdir=tmp_path)
    with pytest.raises(ResolveError) as error:
        resolver.install_tool(preset)
    assert "canary" not in error.value.render()
    used = resolver._login("https://mirror.example/x.whl", "")
    assert used == "https://user:hunter2canary@mirror.example/x.whl"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://mirror.example/f/x.whl", "https://user:pw@mirror.example/f/x.whl"),
        ("https://files.example/f/x.whl", "https://files.example/f/x.whl"),
        ("https://mirror.example.evil/x.whl", "https://mirror.example.evil/x.whl"),
        ("https://mirror.example:8443/x.whl", "https://mirror.example:8443/x.whl"),
        ("http://mirror.example/x.whl", "http://mirror.example/x.whl"),
        ("https://other:own@mirror.example/x", "https://other:own@mirror.example/x"),
    ],
)
def test_login_of_an_index_stays_on_its_host(tmp_path: Path, address: str, expected: str) -> None:
    network = Network(index_url="https://user:pw@mirror.example/simple")
    resolver = Resolver(project=Project(tmp_path, tmp_path), network=network, workdir=tmp_path)
    assert resolver._login(address, "") == expected
    torch = resolver._login(address, "https://t:u@torch.example/cu118")
    assert torch == address, "the login of the default index went to files of PyTorch's"


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
    error = explained(UV_SILENT.format(url=url), preset, "https://user:pw@wheels.example/cu118/")
    assert isinstance(error, NoAnswerError)
    assert error.reason == Reason(code=items.NO_ANSWER, server=server)
    assert error.exit_code == FetchError.exit_code


def published(preset: Preset, tmp_path: Path, sha256: str) -> str:
    """Return the checksum of torch's wheel when the index states ``sha256`` ("" for none)."""
    resolver = Resolver(project=Project.find(), network=Network(), workdir=tmp_path)
    file = f"torch-{TORCH}-cp310-cp310-linux_x86_64.whl"
    raw = {"name": file, "url": f"https://w.example/{file}", "hashes": {"sha256": sha256}}
    package = {"name": "torch", "version": TORCH, "wheels": [raw]}
    query = uv_errors.Query(preset=preset, python="3.10", torch_index="https://w.example")
    return resolver._choose(query, package).sha256


TORCH = "2.0.1+cu118"
TORCH_SHA256 = "a7a49d459bf4862f64f7bc1a68beccf8881c2fa9f3e0569608e16ba6f85ebf7b"


def test_catalog_completes_a_checksum_and_refuses_another_file(tmp_path: Path) -> None:
    preset = load(ROOT / "presets" / "ubuntu22.04-cuda11.8-torch2.0.json")
    assert published(preset, tmp_path, "") == TORCH_SHA256
    assert published(preset, tmp_path, TORCH_SHA256) == TORCH_SHA256
    with pytest.raises(ResolveError) as caught:
        published(preset, tmp_path, "0" * 64)
    [fault] = caught.value.faults
    assert (fault.where, fault.expected) == (
        f"torch-{TORCH}-cp310-cp310-linux_x86_64.whl",
        f"sha256 {TORCH_SHA256}",
    )


def test_two_published_files_of_one_name_need_the_index(tmp_path: Path) -> None:
    resolver = Resolver(project=Project.find(), network=Network(), workdir=tmp_path)
    known = catalogs.load(ROOT / "catalog").wheels
    file, both = next((file, both) for file, both in known.items() if len(both) == 2)
    assert resolver._published(file, "") == ""
    assert {resolver._published(file, sha256) for sha256 in both} == both
    assert resolver._published("other-1-py3-none-any.whl", "0" * 64) == "0" * 64


def test_catalog_has_the_torch_wheels_of_the_shipped_presets() -> None:
    known = catalogs.load(ROOT / "catalog").wheels
    unknown = []
    for file in sorted((ROOT / "presets").glob("ubuntu*[0-9].json")):
        preset = load(file)
        assert preset.pytorch is not None
        if preset.pytorch.index == "default":  # states all checksums
            continue
        for requirement in preset.pytorch.requirements():
            prefix = requirement.replace("==", "-") + f"-cp{preset.python.replace('.', '')}-"
            if not any(name.startswith(prefix) for name in known):
                unknown.append(f"{preset.name}: {prefix}")
    assert unknown == ["ubuntu22.04-cpu-torch2.5: torchvision-0.20.1+cpu-cp310-"]


@pytest.mark.parametrize(
    ("modules", "packages", "lacking"),
    [
        (["core", "python3"], ["tqdm"], ["numpy"]),
        ([], [], ["numpy"]),  # without a list, all modules are built
        (["core", "python3"], ["NumPy", "tqdm"], []),
        (["core"], ["tqdm"], []),
    ],
)
def test_packages_that_a_module_of_the_image_is_built_with(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    modules: list[str],
    packages: list[str],
    lacking: list[str],
) -> None:
    """OpenCV's build ended at the site without NumPy, which perhaps a dependency brings."""
    raw = samples.raw_preset()
    raw["opencv"]["modules"] = modules
    raw["python"]["packages"] = ["tqdm==4.66.5"] if packages else []
    found = [{"name": name} for name in packages]
    monkeypatch.setattr(Resolver, "_compile", lambda *_words, **_named: found)
    monkeypatch.setattr(Resolver, "_choose", lambda _self, _query, package: package)
    project = Project(tmp_path, tmp_path)
    resolver = Resolver(project=project, network=Network(), workdir=tmp_path)
    chosen = parse(raw, samples.COMPONENTS)
    if not lacking:
        assert len(resolver.wheels(chosen)) == len(packages)
        return
    with pytest.raises(ResolveError) as error:
        resolver.wheels(chosen)
    assert_error(
        error.value,
        ResolveError,
        where=lacking,
        hint={"preset": raw["name"], "packages": ", ".join(lacking)},
    )
