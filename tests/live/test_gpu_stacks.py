"""Sync GPU stacks with real file layouts from loopback servers and build images of them.

TensorRT 8 and 10 as tars, TensorRT 8 as .debs from a signed APT repository and from the
local-repository .deb, PyTorch +cu118. The tests run in order. All presets share one base image;
only the Debian archive must be reachable.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import gpu_parts
import pytest

from apt_repositories import end_agent, make_key
from gapforge.base.files import sha256_bytes
from gapforge.base.project import Project
from gapforge.model import lock as locks
from gapforge.model.lock import Lock
from mounts import unmount
from private_engine import docker_command
from samples import PRESET, ROOT
from servers import Site, file_server, publish

TAR8, TAR10, DEB, LOCAL = (
    "debian12-cuda11.8-tar8",
    "debian12-cuda11.8-tar10",
    "debian12-cuda11.8-deb",
    "debian12-cuda11.8-local",
)
ALIEN, BROKEN = "debian12-cuda11.8-alien", "debian12-cuda11.8-broken"
FILE8 = "TensorRT-8.6.1.6.Linux.x86_64-gnu.cuda-11.8.tar.gz"
FILE10 = "TensorRT-10.0.1.6.Linux.x86_64-gnu.cuda-11.8.tar.gz"
BUILD = "8.6.1.6-1+cuda11.8"
LOCAL_NAME = "nv-tensorrt-local-repo-ubuntu2204-8.6.1-cuda-11.8"
LOCAL_FILE = f"{LOCAL_NAME}_1.0-1_amd64.deb"
TOOLS = ["cmake", "g++", "make", "python3.11"]
RUN = ["libstdc++6", "python3.11"]
# Dependencies of torch and torchvision on the default index; the torch index has other versions.
DEPENDENCIES = {
    "filelock": ("3.15.4", ()),
    "typing-extensions": ("4.12.2", ()),
    "mpmath": ("1.3.0", ()),
    "sympy": ("1.13.1", ("mpmath<1.4,>=1.1.0",)),
    "networkx": ("3.3", ()),
    "markupsafe": ("2.1.5", ()),
    "jinja2": ("3.1.4", ("MarkupSafe>=2.0",)),
    "fsspec": ("2024.6.1", ()),
    "triton": ("2.1.0", ("filelock",)),
    "numpy": ("1.26.4", ()),
    "pillow": ("10.4.0", ()),
    "requests": ("2.32.3", ()),
}
IMPORT_NAMES = {"typing-extensions": "typing_extensions", "pillow": "PIL"}
CMAKE = """cmake_minimum_required(VERSION 3.18)
project(stack-probe LANGUAGES CXX)
add_executable(stack-probe main.cpp)
find_path(NVINFER_INCLUDE NvInfer.h)
find_library(NVINFER_LIBRARY nvinfer)
if(NVINFER_INCLUDE AND NVINFER_LIBRARY)
  message(STATUS "probe: ${NVINFER_INCLUDE} ${NVINFER_LIBRARY}")
  target_compile_definitions(stack-probe PRIVATE WITH_TENSORRT)
  target_include_directories(stack-probe PRIVATE ${NVINFER_INCLUDE})
  target_link_libraries(stack-probe PRIVATE ${NVINFER_LIBRARY})
endif()
install(TARGETS stack-probe)
"""
MAIN = r"""#include <cstdio>
#include <cstring>
#ifdef WITH_TENSORRT
#include <NvInfer.h>
#endif
int main(int count, char** words) {
  char found[64] = "none";
#ifdef WITH_TENSORRT
  int version = getInferLibVersion(), unit = version < 10000 ? 1000 : 10000;
  std::snprintf(found, sizeof found, "%d.%d.%d built with %d.%d.%d",
                version / unit, version % unit / 100, version % 100,
                NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH);
#endif
  std::puts(found);
  return count > 1 && std::strcmp(words[1], found) != 0;
}
"""
# Run in the finished image: report the bindings' versions and the loaded library files.
ASK = r"""
import importlib, json, os, re, sys
out = {}
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    out[name] = [module.__version__, module.__file__, getattr(module, "payload", "")]
maps = open("/proc/self/maps").read()
out["mapped"] = sorted(set(re.findall(r"/\S*libnv\w+\.so\S*", maps)))
if "torch" in out:
    out["cuda"] = sys.modules["torch"].version.cuda
print(json.dumps(out))
"""
LIST = r"""
find / -xdev \( -name 'NvInfer*' -o -name '*.a' -o -name trtexec -o -name stubs \
  -o -name 'ATen.h' -o -name '*.hpp' -o -name 'tensorrt_lean*' \
  -o -name 'graphsurgeon*' -o -name '*mnist*' \
  -o -path '*/torch/share/cmake/*' \) ! -path '/proc/*' | sort
"""


@pytest.fixture(scope="module")
def home(needs_root: None) -> Iterator[Path]:
    """Return a folder for the project and its engine, in memory if there is enough.

    A disk that discards deleted blocks needs more than a minute to delete six images.
    """
    if not shutil.which("gcc") or not shutil.which("gpg"):
        pytest.fail("these tests make libraries and sign a repository: apt-get install gcc gpg")
    with tempfile.TemporaryDirectory(prefix="gapforge-live-", dir="/var/tmp") as folder:
        available = re.search(
            r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE
        )
        roomy = available is not None and int(available[1]) > 8 << 20
        mounted = (
            roomy
            and subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=5g", "gapforge-live", folder]
            ).returncode
            == 0
        )
        try:
            yield Path(folder)
        finally:
            if mounted:
                unmount(folder)


@pytest.fixture(scope="module")
def ready(practice_lock: Path) -> Lock:
    """Return the lock of the practice preset, whose base image, .debs and pip are used here."""
    subprocess.run([ROOT / "deps_sync.sh", "--setup"], check=True)
    return locks.load(practice_lock)


class Shelf:
    """The files that the servers offer."""

    def __init__(self, site: Site, folder: Path, lock: Lock) -> None:
        self.site = site
        self.eight, self.ten = (
            gpu_parts.TensorRT(folder / "8", "8.6.1.6"),
            gpu_parts.TensorRT(folder / "10", "10.0.1.6"),
        )
        self.tar8, self.tar10 = (
            self.eight.tar(("cp38", "cp310", "cp311")),
            self.ten.tar(("cp38", "cp310", "cp311", "cp312")),
        )
        # A release without a binding for Python 3.11, and one with a missing library.
        self.alien, self.broken = (
            self.eight.tar(("cp36", "cp38", "cp310")),
            self.eight.tar(("cp311",), broken=True),
        )
        self._indexes(folder / "wheels", lock)
        self._repositories(folder)

    def _indexes(self, folder: Path, lock: Lock) -> None:
        pip = next(e for e in lock.of("wheel") if "install-tool" in e.roles)
        default = {pip.file: (ROOT / "artifacts" / PRESET / pip.path).read_bytes()}
        lures: dict[str, bytes] = {}
        for name, (version, requires) in DEPENDENCIES.items():
            module = IMPORT_NAMES.get(name, name)
            for index, number, payload in (
                (default, version, "default index"),
                (lures, "99.0", "torch index"),
            ):
                text = f"__version__ = {number!r}\npayload = {payload!r}\n"
                files = {f"{module}/__init__.py": text.encode()}
                if name == "pillow":
                    files["PIL/Image.py"] = b""
                file, data = gpu_parts.wheel(name, number, "py3-none-any", files, requires)
                index[file] = data
        bad = {
            "torch": "2.1.2",
            "torchvision": "0.16.2",
            "torchaudio": "2.1.2",
            "tensorrt": "8.6.1",
        }
        for name, version in {**bad, "tensorrt-libs": "8.6.1"}.items():
            file, data = gpu_parts.wheel(
                name,
                version,
                "py3-none-any",
                {f"{name}/__init__.py": b"raise SystemExit('wrong index')\n"},
            )
            default[file] = data
        self.torch = gpu_parts.torch_wheels(folder)
        self.default_index = publish(self.site, "/default", default)
        self.torch_index = publish(self.site, "/whl/cu118", {**self.torch, **lures})

    def _repositories(self, folder: Path) -> None:
        signer, public = make_key(folder / "gpg", "stand-in")
        self.key = self.site.add("/repo/key.pub", public.read_bytes())
        self.key_sha256 = sha256_bytes(public.read_bytes())
        right = folder / "right"
        self.eight.debs(right, "cuda11.8")
        cuda, cudnn = folder / "cuda", folder / "cudnn-repo"
        self.eight.debs(cuda, "cuda12.0")
        self.ten.debs(cuda, "cuda11.8")
        self.ten.debs(cuda, "cuda12.4")
        for file in right.iterdir():
            shutil.copy(file, cuda)
        gpu_parts.cudnn_debs(cudnn, "8.9.0.131", ("cuda11.8", "cuda12.1"))
        for name, place in (("cuda", cuda), ("cudnn", cudnn)):
            for file, data in gpu_parts.flat_files(place, signer).items():
                self.site.add(f"/repo/{name}/{file}", data)
        self.local = gpu_parts.local_repo_deb(folder, right, LOCAL_NAME).read_bytes()

    def apt(self, name: str) -> dict[str, Any]:
        """Return the preset's part for one of the repositories."""
        return {
            "name": name,
            "uri": f"{self.site.url}/repo/{name}",
            "suite": "/",
            "key": {"urls": [self.key], "sha256": self.key_sha256},
        }

    def source(self, file: str, data: bytes, **more: str) -> dict[str, Any]:
        """Return the preset's part for a TensorRT file. ``Place.serve`` puts the file there."""
        return {
            "urls": [f"{self.site.url}/secure/{file}"],
            "sha256": sha256_bytes(data),
            "size": len(data),
            **more,
        }


class Place:
    """A copy of the project with its own presets, store and offline engine."""

    def __init__(self, root: Path, shelf: Shelf, lock: Lock) -> None:
        self.root, self.shelf = root, shelf
        self.project = Project(root, root / "artifacts")
        for name in ("build.py", "gapforge", "deps_sync.sh", "Dockerfile"):
            shutil.copy(ROOT / name, root)
        for name in ("src", "components", "catalog", "tools", "scripts"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        known = root / "catalog" / "pytorch.json"  # the served wheels have these names
        known.write_text(json.dumps({**json.loads(known.read_text()), "wheels": []}))
        (root / "presets").mkdir()
        (root / "probe").mkdir()
        (root / "probe" / "CMakeLists.txt").write_text(CMAKE)
        (root / "probe" / "main.cpp").write_text(MAIN)
        (root / ".gapforge").mkdir()
        (root / ".gapforge" / "tools").symlink_to(ROOT / ".gapforge" / "tools")
        self._store(lock)
        self.env = {
            **os.environ,
            "GAPFORGE_INDEX_URL": shelf.default_index,
            "GAPFORGE_UV": str(ROOT / ".gapforge/tools/bin/uv"),
            "UV_CACHE_DIR": str(root / "uv-cache"),
            "GAPFORGE_LANG": "en",
            "GAPFORGE_RETRIES": "1",
            "no_proxy": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
        }

    def _store(self, lock: Lock) -> None:
        """Put the practice preset's base image and .debs into the store as if downloaded before."""
        here = ROOT / "artifacts" / PRESET
        for entry in (*lock.of("deb"), *lock.of("image")):
            target = self.root / "artifacts/.store/sha256" / entry.sha256[:2] / entry.sha256
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copyfile(here / entry.path, target)
        layout = here / "images" / "builder" / "blobs" / "sha256"
        manifest = json.loads(
            (layout / lock.images["builder"].manifest_digest.removeprefix("sha256:")).read_bytes()
        )
        config, layers = (
            manifest["config"]["digest"][7:],
            [layer["digest"][7:] for layer in manifest["layers"]],
        )
        listing = json.dumps(
            [
                {
                    "Config": f"{config}.json",
                    "RepoTags": ["practice/debian:12"],
                    "Layers": [f"{layer}/layer.tar" for layer in layers],
                }
            ]
        ).encode()
        self.base = self.root / "base.tar"
        with tarfile.open(self.base, "w") as archive:
            archive.add(layout / config, f"{config}.json")
            for layer in layers:
                archive.add(layout / layer, f"{layer}/layer.tar")
            member = tarfile.TarInfo("manifest.json")
            member.size = len(listing)
            archive.addfile(member, BytesIO(listing))

    def preset(self, name: str, version: str, form: str, **changes: Any) -> None:
        """Write a practice preset without FFmpeg and OpenCV; ``changes`` replace top-level keys."""
        three, cuda = version.rpartition(".")[0], name.split("-")[1].removeprefix("cuda")
        base = {"archive": "base.tar"}
        (self.root / "presets" / f"{name}.json").write_text(
            json.dumps(
                {
                    "format": 1,
                    "name": name,
                    "summary": {"ko": "시험", "en": "test"},
                    "practice": True,
                    "os": {"id": "debian", "version": "12"},
                    "cuda": cuda,
                    "cudnn": "8.9",
                    "base": {"builder": base, "runtime": base},
                    "python": {"version": "3.11"},
                    "apt": {"builder": TOOLS, "runtime": RUN},
                    "sources": {},
                    "tensorrt": {"version": version, "form": form},
                    "application": {
                        "name": "stack-probe",
                        "source": "probe",
                        "check": ["stack-probe", f"{three} built with {three}"],
                    },
                    **changes,
                }
            )
        )

    def run(self, *argv: str, code: int = 0) -> str:
        """Run one of the project's commands with the expected exit code and return its output."""
        done = subprocess.run(
            [str(self.root / argv[0]), *argv[1:]],
            cwd=self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1200,
        )
        print(f"$ {' '.join(argv)}\n{done.stdout[-6000:]}")
        assert done.returncode == code, (
            f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout[-3000:]}"
        )
        return done.stdout

    def sync(self, *names: str, code: int = 0) -> str:
        return self.run("deps_sync.sh", *names, code=code)

    def run_build(self, name: str, kind: str, code: int = 0) -> str:
        """Run a build with the expected exit code and return its output."""
        argv = ("gapforge", "build", "--preset", name, "--type", kind)
        return self.run(*argv, "--non-interactive", "--quiet", code=code)

    def build(self, name: str, kind: str) -> dict[str, str]:
        """Build and return what each check found, by ``component/check``."""
        self.run_build(name, kind)
        report = json.loads((self.root / "dist" / name / kind / "report.json").read_text())
        assert report["passed"]
        return {
            f"{check['component']}/{check['check']}": check["found"] for check in report["checks"]
        }

    def docker(self, *argv: str) -> str:
        done = subprocess.run(
            docker_command(self.project, *argv), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, name: str, kind: str, *modules: str) -> dict[str, Any]:
        """Import the modules in a container without a network and return their facts."""
        said = self.docker(
            "run",
            "--rm",
            "--network=none",
            f"gapforge/{name}:{kind}",
            "python3",
            "-I",
            "-c",
            ASK,
            *modules,
        )
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
        return answer

    def shell(self, name: str, kind: str, script: str) -> list[str]:
        return self.docker(
            "run", "--rm", "--network=none", f"gapforge/{name}:{kind}", "sh", "-c", script
        ).splitlines()

    def lock(self, name: str) -> Lock:
        return locks.load(self.root / "artifacts" / name / "lock.json")

    def serve(self, file: str, data: bytes, **how: object) -> None:
        self.shelf.site.add(f"/secure/{file}", data, **how)


@pytest.fixture(scope="module")
def place(home: Path, ready: Lock) -> Iterator[Place]:
    (home / "shelf").mkdir()
    (home / "project").mkdir()
    with file_server() as site:
        there = Place(home / "project", Shelf(site, home / "shelf", ready), ready)
        try:
            yield there
        finally:
            there.run("gapforge", "engine", "remove")
            end_agent(home / "shelf" / "gpg")


def torch_part(place: Place) -> Mapping[str, str]:
    return {
        "torch": "2.1.2+cu118",
        "torchvision": "0.16.2+cu118",
        "torchaudio": "2.1.2+cu118",
        "index": place.shelf.torch_index,
    }


# ---- TensorRT 8 as a tar, with PyTorch +cu118


def test_login_page_names_the_manual_download(place: Place) -> None:
    place.preset(
        TAR8,
        "8.6.1.6",
        "tar",
        pytorch=torch_part(place),
        sources={
            "tensorrt": place.shelf.source(
                FILE8, place.shelf.tar8, version="8.6.1.6", gated="sign in and accept the licence"
            )
        },
    )
    place.serve(
        FILE8,
        b"<!DOCTYPE html><html><title>Log in</title></html>" * 40,
        content_type="text/html; charset=utf-8",
    )
    said = place.sync(TAR8, code=8)
    for part in (
        FILE8,
        f"{place.shelf.site.url}/secure/{FILE8}",
        sha256_bytes(place.shelf.tar8),
        "sign in and accept the licence",
        f"./deps_sync.sh {TAR8} --from ",
    ):
        assert part in said
    asked = [path for path, _ in place.shelf.site.log]
    assert not [path for path in asked if path.startswith(("/default", "/whl"))], "too late"
    assert not (place.root / "artifacts" / TAR8).exists()


def test_from_refuses_a_damaged_file(place: Place, tmp_path: Path) -> None:
    flipped = bytearray(place.shelf.tar8)
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / FILE8).write_bytes(flipped)
    said = place.sync(TAR8, "--from", str(tmp_path), code=6)
    assert (
        sha256_bytes(bytes(flipped)) in said
        and sha256_bytes(place.shelf.tar8) in said
        and str(tmp_path / FILE8) in said
    )
    assert not (place.root / "artifacts" / TAR8).exists()


def test_from_accepts_a_renamed_file(place: Place, tmp_path: Path) -> None:
    (tmp_path / "TensorRT-8.6.1.6 (1).gz").write_bytes(place.shelf.tar8)
    place.sync(TAR8, "--from", str(tmp_path))
    entry = next(e for e in place.lock(TAR8).entries if e.kind == "tensorrt")
    assert (entry.path, entry.sha256, entry.version) == (
        f"tensorrt/{FILE8}",
        sha256_bytes(place.shelf.tar8),
        "8.6.1.6",
    )
    assert (place.root / "artifacts" / TAR8 / entry.path).read_bytes() == place.shelf.tar8


def test_only_torch_is_locked_from_its_index(place: Place) -> None:
    wheels = {
        e.name: (e.version, e.origin)
        for e in place.lock(TAR8).of("wheel")
        if e.roles != ("install-tool",)
    }
    expected = {name: (version, "index:default") for name, (version, _) in DEPENDENCIES.items()}
    expected |= {
        "torch": ("2.1.2+cu118", "index:torch"),
        "torchvision": ("0.16.2+cu118", "index:torch"),
        "torchaudio": ("2.1.2+cu118", "index:torch"),
    }
    assert wheels == expected
    asked = {path for path, _ in place.shelf.site.log}
    assert not [
        path for path in asked if "tensorrt" in path and path.startswith(("/default", "/whl"))
    ], "TensorRT was asked of an index"
    assert not [path for path in asked if path.startswith("/default/files/torch")]
    assert not [
        path
        for path in asked
        if path.startswith("/whl/cu118/files/") and not path.split("/")[-1].startswith("torch")
    ]


def test_tar8_and_torch_in_runtime_image(place: Place) -> None:
    place.run("gapforge", "engine", "start", "--offline")
    found = place.build(TAR8, "runtime")
    assert found["tensorrt/library"] == "8.6.1" and found["tensorrt/import tensorrt"] == "8.6.1"
    assert (
        found["wheels/torch's CUDA"] == "CUDA 11.8"
        and found["wheels/import torch"] == "2.1.2+cu118"
    )
    closure = found["apt/shared libraries"]
    for part in ("libcuda.so.1", "libavcodec.so.59", "libtorchaudio_ffmpeg5.so"):
        assert part in closure
    said = place.ask(
        TAR8, "runtime", "tensorrt", "torch", "torchvision", "torchaudio", "numpy", "filelock"
    )
    assert [
        said[name][0] for name in ("tensorrt", "torch", "torchvision", "torchaudio", "numpy")
    ] == ["8.6.1", "2.1.2+cu118", "0.16.2+cu118", "2.1.2+cu118", "1.26.4"]
    assert said["cuda"] == "11.8" and said["filelock"][2] == "default index"
    assert said["mapped"] == [
        f"/usr/local/tensorrt/lib/lib{name}.so.8.6.1"
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")
    ]
    files = place.shell(TAR8, "runtime", LIST)
    # What a wheel's RECORD lists stays.
    assert [file for file in files if "/torch/" not in file] == []
    assert [file for file in files if file.endswith("/torch/include/ATen/ATen.h")]
    links = place.shell(
        TAR8,
        "runtime",
        "readlink /usr/local/tensorrt/lib/libnvinfer.so.8; stack-probe; ls /usr/local/tensorrt",
    )
    assert links == ["libnvinfer.so.8.6.1", "8.6.1 built with 8.6.1", "lib"]


def test_tar8_and_torch_in_dev_image(place: Place) -> None:
    place.build(TAR8, "dev")
    files = place.shell(TAR8, "dev", LIST)
    headers = "/usr/local/tensorrt/include"
    assert {
        f"{headers}/NvInfer.h",
        f"{headers}/NvInferVersion.h",
        "/usr/local/tensorrt/bin/trtexec",
    } <= set(files)
    assert [f for f in files if f.endswith("/ATen.h")] and [
        f for f in files if f.endswith("/TorchConfig.cmake")
    ]
    assert not [f for f in files if "nvinfer" in f and f.endswith(".a")] and not [
        f for f in files if "mnist" in f or "lean" in f
    ]
    assert place.shell(TAR8, "dev", "trtexec && build-application > /dev/null && stack-probe") == [
        "8.6.1 built with 8.6.1"
    ]


# ---- TensorRT 10 as a tar


def test_damaged_tar_is_refused_by_sync(place: Place) -> None:
    place.preset(
        TAR10,
        "10.0.1.6",
        "tar",
        sources={"tensorrt": place.shelf.source(FILE10, place.shelf.tar10, version="10.0.1.6")},
    )
    flipped = bytearray(place.shelf.tar10)
    flipped[-5] ^= 0x80
    place.serve(FILE10, bytes(flipped))
    said = place.sync(TAR10, code=6)
    assert sha256_bytes(bytes(flipped)) in said and sha256_bytes(place.shelf.tar10) in said
    assert not (place.root / "artifacts" / TAR10).exists()
    place.serve(FILE10, place.shelf.tar10)
    place.sync(TAR10)


def test_tar10_in_runtime_and_dev_images(place: Place) -> None:
    found = place.build(TAR10, "runtime")
    assert found["tensorrt/library"] == "10.0.1" and found["tensorrt/import tensorrt"] == "10.0.1"
    said = place.ask(TAR10, "runtime", "tensorrt")
    assert said["tensorrt"][0] == "10.0.1"
    assert said["mapped"] == [
        f"/usr/local/tensorrt/lib/lib{name}.so.10.0.1"
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser")
    ]
    assert place.shell(TAR10, "runtime", LIST) == []
    place.build(TAR10, "dev")
    script = (
        "trtexec && ls /usr/local/tensorrt/include/NvInfer.h && stack-probe && "
        "python3 -c 'import tensorrt as t; print(t.__version__)'"
    )
    assert place.shell(TAR10, "dev", script) == [
        "/usr/local/tensorrt/include/NvInfer.h",
        "10.0.1 built with 10.0.1",
        "10.0.1",
    ]


def test_damaged_tar_is_refused_by_build(place: Place) -> None:
    file = place.root / "artifacts" / TAR10 / "tensorrt" / FILE10
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    try:
        said = place.run_build(TAR10, "runtime", code=5)
        assert f"tensorrt/{FILE10}" in said and sha256_bytes(whole) in said
    finally:
        file.unlink()
        file.write_bytes(whole)


# ---- tars that must fail


def sync_tar8(place: Place, name: str, data: bytes) -> None:
    """Sync a new preset that has this tar."""
    file = f"{name}.tar.gz"
    place.preset(name, "8.6.1.6", "tar", sources={"tensorrt": place.shelf.source(file, data)})
    place.serve(file, data)
    place.sync(name)


def test_tar_without_matching_binding_fails(place: Place) -> None:
    sync_tar8(place, ALIEN, place.shelf.alien)
    said = place.run_build(ALIEN, "runtime", code=11)
    assert "cp311" in said and "tensorrt-8.6.1-cp310-none-linux_x86_64.whl" in said
    assert place.docker("images", "-q", f"gapforge/{ALIEN}") == ""


def test_missing_library_fails_the_smoke_checks(place: Place) -> None:
    sync_tar8(place, BROKEN, place.shelf.broken)
    said = place.run_build(BROKEN, "runtime", code=12)
    assert "libnvonnxparser.so.8.6.1" in said and "libnowhere.so.7" in said
    assert place.docker("images", "-q", f"gapforge/{BROKEN}") == ""


# ---- TensorRT 8 as .debs


def deb_part() -> dict[str, Any]:
    """Return a preset's part that pins three or four packages and no dependency."""
    runtime = [
        f"{name}={BUILD}" for name in ("libnvinfer8", "libnvinfer-plugin8", "python3-libnvinfer")
    ]
    return {
        "version": "8.6.1.6",
        "form": "deb",
        "runtime": runtime,
        "builder": [*runtime, f"libnvinfer-dev={BUILD}"],
    }


def test_debs_follow_the_pinned_cuda(place: Place) -> None:
    place.preset(
        DEB,
        "8.6.1.6",
        "deb",
        tensorrt=deb_part(),
        apt={
            "builder": TOOLS,
            "runtime": RUN,
            "sources": [place.shelf.apt("cuda"), place.shelf.apt("cudnn")],
        },
    )
    place.sync(DEB)
    debs = {e.name: e for e in place.lock(DEB).of("deb") if e.origin != "apt:base"}
    assert {name: e.version for name, e in debs.items()} == {
        **dict.fromkeys(
            (
                "libnvinfer8",
                "libnvinfer-plugin8",
                "libnvonnxparsers8",
                "libnvparsers8",
                "python3-libnvinfer",
                "libnvinfer-dev",
                "libnvinfer-headers-dev",
            ),
            BUILD,
        ),
        "libcudnn8": "8.9.0.131-1+cuda11.8",
    }
    assert debs["libnvinfer8"].origin == "apt:cuda" and debs["libcudnn8"].origin == "apt:cudnn"
    assert debs["libnvinfer-dev"].roles == ("builder",) and debs["libnvinfer8"].roles == (
        "builder",
        "runtime",
    )


def test_repository_with_wrong_signature_is_refused(place: Place, tmp_path: Path) -> None:
    files = tmp_path / "debs"
    gpu_parts.cudnn_debs(files, "8.9.0.131", ("cuda11.8",))
    stranger, _ = make_key(tmp_path / "gpg", "stranger")
    good = {
        path: how for path, how in place.shelf.site.paths.items() if path.startswith("/repo/cudnn/")
    }
    for file, data in gpu_parts.flat_files(files, stranger).items():
        place.shelf.site.add(f"/repo/cudnn/{file}", data)
    try:
        said = place.sync(DEB, "--update", code=6)
        assert "/repo/cudnn" in said
    finally:
        end_agent(tmp_path / "gpg")
        place.shelf.site.paths.update(good)


def test_debs_in_runtime_and_dev_images(place: Place) -> None:
    found = place.build(DEB, "runtime")
    assert found["tensorrt/library"] == "8.6.1" and found["tensorrt/import tensorrt"] == "8.6.1"
    check_deb_runtime(place, DEB)
    place.build(DEB, "dev")
    script = (
        "ls /usr/include/x86_64-linux-gnu/NvInfer.h && stack-probe && "
        "dpkg-query -W -f '${Version}\\n' libnvinfer-headers-dev"
    )
    assert place.shell(DEB, "dev", script) == [
        "/usr/include/x86_64-linux-gnu/NvInfer.h",
        "8.6.1 built with 8.6.1",
        BUILD,
    ]


def check_deb_runtime(place: Place, name: str) -> None:
    said = place.ask(name, "runtime", "tensorrt")
    assert said["tensorrt"][:2] == [
        "8.6.1",
        "/usr/lib/python3.11/dist-packages/tensorrt/__init__.py",
    ]
    assert said["mapped"] == [
        f"/usr/lib/x86_64-linux-gnu/lib{part}.so.8.6.1"
        for part in ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")
    ]
    assert place.shell(name, "runtime", LIST) == []
    listed = place.shell(
        name,
        "runtime",
        "dpkg-query -W -f '${Package} ${Version}\\n' | grep -E 'nvinfer|nvonnx|nvparsers|cudnn'",
    )
    assert {line.split("+")[-1] for line in listed} == {"cuda11.8"} and len(listed) == 6


def test_local_repository_has_the_same_packages(place: Place) -> None:
    place.preset(
        LOCAL,
        "8.6.1.6",
        "deb",
        tensorrt=deb_part(),
        sources={"tensorrt": place.shelf.source(LOCAL_FILE, place.shelf.local, gated="sign in")},
        apt={"builder": TOOLS, "runtime": RUN, "sources": [place.shelf.apt("cudnn")]},
    )
    place.serve(LOCAL_FILE, b"<html>log in</html>", content_type="text/html")
    assert LOCAL_FILE in place.sync(LOCAL, code=8)
    place.serve(LOCAL_FILE, place.shelf.local)
    place.sync(LOCAL)
    lock, before = place.lock(LOCAL), {e.name: e for e in place.lock(DEB).of("deb")}
    mine = {e.name: e for e in lock.of("deb") if e.origin == "apt:local-repo"}
    assert set(mine) == {
        "libnvinfer8",
        "libnvinfer-plugin8",
        "libnvonnxparsers8",
        "libnvparsers8",
        "python3-libnvinfer",
        "libnvinfer-dev",
        "libnvinfer-headers-dev",
    }
    assert all(e.sha256 == before[name].sha256 for name, e in mine.items())
    assert not lock.of("tensorrt"), "the repository itself is in the lock"


def test_local_repository_debs_in_runtime_image(place: Place) -> None:
    found = place.build(LOCAL, "runtime")
    assert found["tensorrt/library"] == "8.6.1" and found["tensorrt/import tensorrt"] == "8.6.1"
    check_deb_runtime(place, LOCAL)


def test_wheel_that_only_uv_accepts_is_refused_by_sync(place: Place) -> None:
    """uv reads ``PyYAML (>=5.1.*)`` as it is meant; the pip of the lock refuses the wheel."""
    files = {"loose/__init__.py": b""}
    good = gpu_parts.wheel("pyyaml", "6.0", "py3-none-any", files)
    loose = gpu_parts.wheel("loose", "2.0.6", "py3-none-any", files, ("PyYAML (>=5.1.*)",))
    publish(place.shelf.site, "/default", dict([good, loose]))
    place.preset("stack-cuda12.4-loose", "10.0.1.6", "tar", tensorrt=None)
    file = place.root / "presets" / "stack-cuda12.4-loose.json"
    raw = json.loads(file.read_text())
    raw["python"]["packages"] = ["loose"]
    file.write_text(json.dumps(raw))
    said = place.sync("stack-cuda12.4-loose", code=7)
    assert f"wheels/{loose[0]}" in said and f"wheels/{good[0]}" not in said
    assert not (place.root / "artifacts" / "stack-cuda12.4-loose").exists()


def test_second_sync_needs_no_server(place: Place) -> None:
    place.shelf.site.log.clear()
    place.env = {**place.env, "GAPFORGE_OFFLINE": "1"}
    said = place.sync(TAR8, TAR10, DEB, LOCAL)
    assert place.shelf.site.log == []
    for name in (TAR8, TAR10, DEB, LOCAL):
        assert re.search(rf"^{name}: .*\b0 B\b", said, re.MULTILINE)
