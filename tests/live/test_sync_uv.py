"""Test uv with loopback indexes: the target's Python decides, and indexes do not mix.

Needs uv (GAPFORGE_UV, the tools folder, or PATH) but no network.
"""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import samples
from gapforge.base.errors import FetchError, ResolveError, ToolError
from gapforge.base.project import Project
from gapforge.model.lock import Entry
from gapforge.model.preset import Preset, load, parse
from gapforge.sync import python_packages
from gapforge.sync.network import Network
from gapforge.sync.python_packages import Resolver
from raised_errors import assert_error, values_of
from samples import ROOT
from servers import Site, file_server, publish, wheel

pytestmark = pytest.mark.live

OLD_ONLY = 'backport; python_full_version < "3.10.4"'

try:
    python_packages.find_uv(Project.find())
except ToolError:
    pytestmark = [pytest.mark.live, pytest.mark.skip(reason="no uv: run ./deps_sync.sh once")]


@pytest.fixture
def site() -> Iterator[Site]:
    with file_server() as running:
        yield running


def make(**python_part: Any) -> Preset:
    raw = copy.deepcopy(dict(load(ROOT / "presets" / "debian12-cpu-quickstart.json").raw))
    raw["pytorch"] = python_part.pop("pytorch", None)
    raw["python"] = {"version": "3.11", "packages": [], **python_part}
    return parse(raw)


def resolver(tmp_path: Path, default: str, torch: str = "") -> Resolver:
    return Resolver(
        project=Project.find(),
        network=Network(index_url=default, torch_index_url=torch),
        workdir=tmp_path / "uv",
        refresh=True,
    )


def chosen(wheels: list[python_packages.Wheel]) -> dict[str, tuple[str, str]]:
    return {w.name: (w.version, w.index) for w in wheels}


def test_target_python_decides_the_version(tmp_path: Path, site: Site) -> None:
    index = publish(
        site,
        "/d",
        dict(
            [
                wheel("thing", "1.0", requires_python=">=3.8"),
                wheel("thing", "2.0", requires_python=">=3.12"),
                wheel("thing", "1.5", "cp39-cp39-manylinux2014_x86_64"),
            ]
        ),
    )
    for version, expected in (("3.9", "1.5"), ("3.11", "1.0"), ("3.12", "2.0")):
        found = resolver(tmp_path, index).wheels(make(version=version, packages=["thing"]))
        assert [w.version for w in found] == [expected]


def test_markers_are_evaluated_for_the_target(tmp_path: Path, site: Site) -> None:
    index = publish(
        site,
        "/d",
        dict(
            [
                wheel(
                    "app",
                    "1",
                    requires=(
                        'old; python_version < "3.9"',
                        'win; sys_platform == "win32"',
                        'lin; sys_platform == "linux"',
                    ),
                ),
                wheel("old", "1"),
                wheel("win", "1"),
                wheel("lin", "1"),
            ]
        ),
    )
    assert set(chosen(resolver(tmp_path, index).wheels(make(packages=["app"])))) == {"app", "lin"}


def test_package_over_an_image_module_must_be_left_out(tmp_path: Path, site: Site) -> None:
    """albumentations requires opencv-python-headless, whose cv2 replaces the one that is built."""
    index = publish(
        site,
        "/d",
        dict(
            [
                wheel("augment", "1.4.18", requires=("opencv-python-headless>=4", "leaf")),
                wheel("core", "1", requires=("opencv_python_headless",)),
                wheel("opencv-python-headless", "4.10"),
                wheel("leaf", "1.0"),
                wheel("numpy", "1.26.4"),  # cv2 needs it
            ]
        ),
    )
    raw = copy.deepcopy(dict(make(packages=["augment==1.4.18", "core", "numpy"]).raw))
    with pytest.raises(ResolveError) as error:
        resolver(tmp_path, index).wheels(parse(raw, samples.COMPONENTS))
    assert_error(
        error.value,
        ResolveError,
        where=["opencv-python-headless"],
        hint={"packages": '["opencv-python-headless"]'},
    )
    assert values_of(error.value.faults[0].problem) == {
        "by": "augment, core",
        "package": "opencv-python-headless",
        "module": "cv2",
        "component": "OpenCV",
    }
    raw["python"]["without"] = ["opencv-python-headless"]
    found = resolver(tmp_path, index).wheels(parse(raw, samples.COMPONENTS))
    assert set(chosen(found)) == {"augment", "core", "leaf", "numpy"}
    raw["python"]["not-in-runtime"] = {"leaf": ["*"], "opencv-python-headless": ["*"]}
    with pytest.raises(ResolveError) as error:
        resolver(tmp_path, index).wheels(parse(raw, samples.COMPONENTS))
    assert [fault.where.rpartition(".")[2] for fault in error.value.faults] == [
        "opencv-python-headless"
    ]


def test_only_torch_comes_from_its_index(tmp_path: Path, site: Site) -> None:
    # The catalog knows the real wheels of cu118, but none of this version with cu117.
    default = publish(
        site,
        "/d",
        dict(
            [
                wheel("torch", "2.1.2+cu117"),
                wheel("torch", "2.1.2"),
                wheel("torchvision", "99"),
                wheel("torchaudio", "99"),
                wheel("leaf", "1.0"),
                wheel("numpy", "1.26.4"),
                wheel("app", "1", requires=("torchvision", "torchaudio", "torch")),
            ]
        ),
    )
    torch = publish(
        site,
        "/t",
        dict(
            [
                wheel(
                    "torch",
                    "2.1.2+cu117",
                    "cp311-cp311-linux_x86_64",
                    ("leaf", "numpy"),
                    payload="theirs",
                ),
                wheel("torch", "2.1.2+cu117", "cp310-cp310-linux_x86_64", ("leaf",)),
                wheel("torchvision", "0.16.2+cu117", "cp311-cp311-linux_x86_64", ("torch==2.1.2",)),
                wheel("torchaudio", "2.1.2+cu117", "cp311-cp311-linux_x86_64", ("torch==2.1.2",)),
                wheel("leaf", "99"),
                wheel("numpy", "99"),
                wheel("app", "99"),
            ]
        ),
    )
    preset = make(
        packages=["numpy", "app"],
        pytorch={"torch": "2.1.2+cu117", "index": "https://unused.invalid"},
    )
    found = resolver(tmp_path, default, torch).wheels(preset)
    assert chosen(found) == {
        "app": ("1", "default"),
        "leaf": ("1.0", "default"),
        "numpy": ("1.26.4", "default"),
        "torch": ("2.1.2+cu117", "torch"),
        "torchvision": ("0.16.2+cu117", "torch"),
        "torchaudio": ("2.1.2+cu117", "torch"),
    }
    assert all(w.url.startswith(f"{site.url}/{'t' if w.index == 'torch' else 'd'}/") for w in found)


def test_torch_package_missing_from_its_index_fails(tmp_path: Path, site: Site) -> None:
    default = publish(site, "/d", dict([wheel("torch", "2.1.2"), wheel("torchaudio", "2.1.2")]))
    torch = publish(site, "/t", dict([wheel("torch", "2.1.2+cu118", "cp311-cp311-linux_x86_64")]))
    preset = make(
        pytorch={"torch": "2.1.2+cu118", "torchaudio": "2.1.2", "index": "https://unused.invalid"}
    )
    with pytest.raises(ResolveError) as error:
        resolver(tmp_path, default, torch).wheels(preset)
    assert "torchaudio" in error.value.render()


def test_dependency_only_on_torch_index_fails(tmp_path: Path, site: Site) -> None:
    default = publish(site, "/d", dict([wheel("numpy", "1")]))
    torch = publish(
        site, "/t", dict([wheel("torch", "2.1", requires=("triton",)), wheel("triton", "1")])
    )
    with pytest.raises(ResolveError) as error:
        resolver(tmp_path, default, torch).wheels(
            make(pytorch={"torch": "2.1", "index": "https://unused.invalid"})
        )
    assert "triton" in error.value.render()


def test_extra_indexes_of_the_user_are_ignored(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = publish(site, "/d", dict([wheel("thing", "1.0")]))
    extra = publish(site, "/e", dict([wheel("thing", "9.0")]))
    for variable in ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(variable, extra)
    monkeypatch.setenv("UV_INDEX_STRATEGY", "unsafe-best-match")
    assert chosen(resolver(tmp_path, default).wheels(make(packages=["thing"]))) == {
        "thing": ("1.0", "default")
    }
    assert not [path for path, _ in site.log if path.startswith("/e")]


def test_torch_from_the_default_index(tmp_path: Path, site: Site) -> None:
    default = publish(site, "/d", dict([wheel("torch", "2.1.2")]))
    preset = make(pytorch={"torch": "2.1.2", "index": "default"})
    assert chosen(resolver(tmp_path, default).wheels(preset)) == {"torch": ("2.1.2", "default")}


@pytest.mark.parametrize(
    ("file", "named"),
    [
        (wheel("odd", "1.0", "cp311-cp311-win_amd64"), "win_amd64"),
        (wheel("odd", "1.0", "cp38-cp38-manylinux2014_x86_64"), "cp38"),
        (wheel("odd", "1.0", "cp311-cp311-manylinux_2_39_x86_64"), "manylinux_2_39"),
        (("odd-1.0.tar.gz", b"x"), "odd"),
    ],
)
def test_missing_wheel_for_target_names_the_alternatives(
    tmp_path: Path, site: Site, file: tuple[str, bytes], named: str
) -> None:
    index = publish(site, "/d", dict([file, wheel("app", "1", requires=("odd",))]))
    with pytest.raises(ResolveError) as error:
        resolver(tmp_path, index).wheels(make(packages=["app"]))
    assert "odd" in error.value.message and "3.11" in error.value.message
    assert named in error.value.render()


def test_missing_version_names_the_nearest(tmp_path: Path, site: Site) -> None:
    versions = ("0.9", "1.0", "1.1+cu118", "1.1+cu121", "2.0", "3.0")
    index = publish(site, "/d", dict(wheel("thing", version) for version in versions))
    for wanted, expected in (("9", "3.0"), ("1.1+cpu", "1.0, 1.1+cu121, 2.0")):
        with pytest.raises(ResolveError) as error:
            resolver(tmp_path, index).wheels(make(packages=[f"thing=={wanted}"]))
        assert_error(error.value, ResolveError, package="thing", version=wanted, versions=expected)


def test_requirements_that_exclude_each_other_are_named(tmp_path: Path, site: Site) -> None:
    files = [wheel("app", "1.0", requires=("leaf>=2",)), wheel("leaf", "1.0"), wheel("leaf", "2.0")]
    index = publish(site, "/d", dict(files))
    with pytest.raises(ResolveError) as error:
        resolver(tmp_path, index).wheels(make(packages=["app==1.0", "leaf==1.0"]))
    assert_error(error.value, ResolveError, package="leaf")
    assert {"app", "presets/debian12-cpu-quickstart.json"} < {
        fault.where for fault in error.value.faults
    }


def test_full_version_of_the_target_decides(tmp_path: Path, site: Site) -> None:
    files = [
        wheel("thing", "2.0", requires_python=">=3.10.1", requires=(OLD_ONLY,)),
        wheel("backport", "1.0"),
        wheel("late", "1.0", requires_python=">=3.10.13"),
    ]
    index = publish(site, "/d", dict(files))
    preset = make(version="3.10", packages=["thing"])
    for python, expected in (("3.10.3", {"thing", "backport"}), ("3.10.12", {"thing"})):
        assert set(chosen(resolver(tmp_path, index).wheels(preset, python))) == expected
    with pytest.raises(ResolveError) as error:
        resolver(tmp_path, index).wheels(make(version="3.10", packages=["late"]), "3.10.12")
    assert_error(
        error.value, ResolveError, package="late 1.0", versions=">=3.10.13", python="3.10.12"
    )


def test_folder_of_wheels_is_an_index(tmp_path: Path, site: Site) -> None:
    torch, others = tmp_path / "torch wheels", tmp_path / "others"
    for folder, files in (
        (torch, [wheel("torch", "2.1", requires=("leaf",)), wheel("leaf", "9")]),
        (others, [wheel("leaf", "1"), wheel("torch", "2.1", "cp311-cp311-linux_x86_64")]),
    ):
        folder.mkdir()
        for name, body in files:
            (folder / name).write_bytes(body)
    preset = make(pytorch={"torch": "2.1", "index": "https://unused.invalid"})
    expected = {"torch": ("2.1", "torch"), "leaf": ("1", "default")}
    found = resolver(tmp_path, others.as_uri(), torch.as_uri()).wheels(preset)
    assert chosen(found) == expected
    assert found[1].url == (torch / "torch-2.1-py3-none-any.whl").as_uri()
    index = publish(site, "/d", dict([wheel("leaf", "1")]))
    assert chosen(resolver(tmp_path, index, torch.as_uri()).wheels(preset)) == expected


def test_folder_in_the_layout_of_an_index_is_one(tmp_path: Path) -> None:
    name, body = wheel("thing", "1.0")
    folder = tmp_path / "simple" / "thing"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(body)
    (folder / "index.html").write_text(f'<a href="{name}">{name}</a>')
    found = resolver(tmp_path, (tmp_path / "simple").as_uri()).wheels(make(packages=["thing"]))
    assert [w.url for w in found] == [(folder / name).as_uri()]


def test_locked_wheel_is_located_and_changed_one_refused(tmp_path: Path, site: Site) -> None:
    name, body = wheel("thing", "1.0")
    index = publish(site, "/d", {name: body})
    preset = make(packages=["thing"])
    good = Entry(
        kind="wheel",
        path=f"wheels/{name}",
        sha256=hashlib.sha256(body).hexdigest(),
        size=len(body),
        origin="index:default",
        name="thing",
        version="1.0",
    )
    assert resolver(tmp_path, index).locate(preset, [good]) == {
        good.path: f"{site.url}/d/files/{name}"
    }
    publish(site, "/d", {name: body + b"tampered"})
    with pytest.raises(ResolveError) as error:
        resolver(tmp_path, index).locate(preset, [good])
    assert good.sha256 in error.value.render()


def test_sdist_of_a_package_is_found(tmp_path: Path, site: Site) -> None:
    index = publish(
        site,
        "/d",
        dict([wheel("thing", "1.0"), ("thing-1.0.tar.gz", b"source"), wheel("bare", "1.0")]),
    )
    found = resolver(tmp_path, index).sdist("thing==1.0", make())
    assert (found.file, found.sha256) == ("thing-1.0.tar.gz", hashlib.sha256(b"source").hexdigest())
    with pytest.raises(ResolveError, match=r"bare==1\.0"):
        resolver(tmp_path, index).sdist("bare==1.0", make())


def test_login_of_an_index_is_used_and_hidden(tmp_path: Path, site: Site) -> None:
    index = publish(site, "/d", dict([wheel("thing", "1.0")]))
    for behaviour in site.paths.values():
        behaviour.needs_login = "Basic dXNlcjpodW50ZXIy"
    logged_in = index.replace("http://", "http://user:hunter2@")
    found = resolver(tmp_path, logged_in).wheels(make(packages=["thing"]))
    assert found[0].url.startswith("http://user:hunter2@")
    with pytest.raises(ResolveError) as error:
        resolver(tmp_path, index.replace("http://", "http://user:wrong-secret@")).wheels(
            make(packages=["thing"])
        )
    assert "wrong-secret" not in error.value.render()


def test_resolving_offline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="GAPFORGE_OFFLINE"):
        Resolver(project=Project.find(), network=Network(offline=True), workdir=tmp_path).wheels(
            make(packages=["thing"])
        )


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_requirements_install_offline_with_checksums(
    tmp_path: Path, site: Site, installer: str
) -> None:
    files = dict([wheel("Thing.x", "1.0", requires=("leaf",)), wheel("leaf", "2.1.2+cu118")])
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, body in files.items():
        (folder / name).write_bytes(body)
    text = python_packages.requirements_text(
        [
            ("thing-x", "1.0", hashlib.sha256(files["Thing.x-1.0-py3-none-any.whl"]).hexdigest()),
            (
                "leaf",
                "2.1.2+cu118",
                hashlib.sha256(files["leaf-2.1.2+cu118-py3-none-any.whl"]).hexdigest(),
            ),
        ]
    )
    requirements = tmp_path / "requirements.txt"

    def install(text: str, target: str) -> int:
        requirements.write_text(text)
        command = (
            [sys.executable, "-m", "pip"]
            if installer == "pip"
            else [str(python_packages.find_uv(Project.find())), "pip"]
        )
        command += [
            "install",
            "--no-index",
            "--find-links",
            str(folder),
            "--require-hashes",
            "-r",
            str(requirements),
            "--target",
            str(tmp_path / target),
        ]
        return subprocess.run(
            command,
            capture_output=True,
            check=False,
            env={
                "PATH": "/usr/bin:/bin",
                "PIP_CONFIG_FILE": "/dev/null",
                "UV_NO_CONFIG": "1",
                "HOME": str(tmp_path),
                "UV_PYTHON": sys.executable,
            },
        ).returncode

    assert install(text, "good") == 0
    assert install(text.replace(text[-10:], "00000000\n"), "bad") != 0
