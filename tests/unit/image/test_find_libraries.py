"""Find the packages of libraries in an image that a test makes: ELF files, dpkg's lists."""

from __future__ import annotations

import importlib.util
import os
import re
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest

COMPONENTS = Path(__file__).resolve().parents[3] / "components"


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FIND = load(COMPONENTS / "libraries/find_libraries.py")


def elf(*needed: str, soname: str = "", rpath: str = "", runpath: str = "") -> bytes:
    """Return a shared library of two segments, loaded at 0x10000: its file, its dynamic section."""
    strings, dynamic = b"\0", b""
    values = {1: needed, 14: (soname,), 15: (rpath,), 29: (runpath,)}
    for tag, texts in values.items():
        for text in filter(None, texts):
            dynamic += struct.pack("<qQ", tag, len(strings))
            strings += text.encode() + b"\0"
    start = 64 + 2 * 56
    address = 0x10000 + start + len(dynamic) + 32
    dynamic += struct.pack("<qQqQ", 5, address, 0, 0)
    size = start + len(dynamic) + len(strings)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 5, 0, 0x10000, 0x10000, size, size, 0x1000)
    head += struct.pack("<IIQQQQQQ", 2, 6, start, 0, 0, len(dynamic), len(dynamic), 8)
    return head + dynamic + strings


class Image:
    """An image with packages, and the runtime trees of two components."""

    def __init__(self, folder: Path) -> None:
        self.root, self.trees = folder / "root", folder / "trees"
        self.info = self.root / "var/lib/dpkg/info"
        self.info.mkdir(parents=True)
        (self.root / "usr/lib").mkdir(parents=True)
        (self.root / "lib").symlink_to("usr/lib")
        for name in ("one", "two"):
            (self.trees / name).mkdir(parents=True)

    def package(self, name: str, *paths: str, real: bool = True) -> None:
        """Install a package with empty files; without ``real`` only dpkg's list names them."""
        with (self.info.parent / "status").open("a") as status:
            status.write(f"Package: {name}\nStatus: install ok installed\nVersion: 1:2\n\n")
        (self.info / f"{name}:amd64.list").write_text("/.\n" + "".join(f"{p}\n" for p in paths))
        for path in paths if real else ():
            self.file(path, b"")

    def file(self, path: str, data: bytes, tree: str = "") -> None:
        file = (self.trees / tree if tree else self.root) / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def link(self, path: str, target: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)

    def needs(self, library: str, **how: str) -> list[str]:
        """Return the packages for a program that needs one library."""
        self.file("/usr/local/bin/program", elf(library, **how), "one")
        return [line.split("\t")[0] for line in FIND.lines(str(self.trees), str(self.root))]


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


LIB = "/usr/lib/x86_64-linux-gnu"


def test_package_and_file_of_each_library(image: Image) -> None:
    image.package("zlib1g", f"{LIB}/libz.so.1.2.13", f"{LIB}/libz.so.1")
    image.package("libc6", "/lib/x86_64-linux-gnu/libc.so.6")
    for tree, name in (("one", "bin/a"), ("two", "lib/b.so")):
        image.file(f"/usr/local/{name}", elf("libz.so.1", "libc.so.6", "libcuda.so.1"), tree)
    image.file("/usr/local/lib/cut.so", elf("libz.so.1")[:150], "two")
    image.file("/usr/local/lib/note.so", b"no library", "two")
    assert FIND.lines(str(image.trees), str(image.root)) == [
        "libc6\t1:2\tlibc.so.6\t/usr/local/bin/a",
        "libc6\t1:2\tlibc.so.6\t/usr/local/lib/b.so",
        "zlib1g\t1:2\tlibz.so.1\t/usr/local/bin/a",
        "zlib1g\t1:2\tlibz.so.1\t/usr/local/lib/b.so",
    ]


def test_program_of_this_machine_is_read_as_by_the_loader() -> None:
    """Unlike those of this file, it has segments at several addresses."""
    found = FIND.read_elf(os.path.realpath(sys.executable), "/usr/bin/python3")
    assert found is not None and any(re.match(r"libc\.so\.", name) for name in found.needed)


def test_own_library_needs_no_package(image: Image) -> None:
    """The loader finds it first, another one of the same name is the builder's."""
    image.package("libav", f"{LIB}/libav.so.5", f"{LIB}/libpre.so.1")
    image.file("/etc/ld.so.conf.d/libc.conf", b"# default\n/usr/local/lib\n")
    image.file("/usr/local/lib/libav.so.5", elf(soname="libav.so.5"), "two")
    assert image.needs("libav.so.5") == []
    image.file("/etc/ld.so.conf.d/00-own.conf", b"/opt/own\n", "two")
    image.file("/opt/own/libpre.so.1", b"", "two")
    assert image.needs("libpre.so.1") == []
    # A Python package loads its own libraries before those that need them.
    image.file("/usr/local/lib/python3/torch/lib/x.so", elf(soname="libtorch.so"), "two")
    assert image.needs("libtorch.so") == []


@pytest.mark.parametrize("kind", ["rpath", "runpath"])
def test_path_in_the_file_precedes_the_systems(image: Image, kind: str) -> None:
    image.package("libz", f"{LIB}/libz.so.1")
    image.package("libz-fast", "/usr/local/fast/libz.so.1")
    assert image.needs("libz.so.1", **{kind: "/absent:${ORIGIN}/../fast"}) == ["libz-fast"]
    assert image.needs("libz.so.1", rpath="$ORIGIN/../fast", runpath="/absent") == ["libz"]


def test_alternative_belongs_to_the_package_of_its_file(image: Image) -> None:
    image.package("libopenblas0", f"{LIB}/openblas/libblas.so.3")
    image.link(f"{LIB}/libblas.so.3", f"{image.root}/etc/alternatives/libblas.so.3")
    image.link("/etc/alternatives/libblas.so.3", f"{image.root}{LIB}/openblas/libblas.so.3")
    assert image.needs("libblas.so.3") == ["libopenblas0"]


def test_diverted_library_belongs_to_its_package(image: Image) -> None:
    """NVIDIA's packages move Mesa's libGL away, dpkg's lists still say where it was."""
    image.package("libgl1", f"{LIB}/libGL.so.1", real=False)
    image.file("/usr/lib/mesa-diverted/libGL.so.1", b"")
    image.package("nvidia-gl", f"{LIB}/libGL.so.1")
    diversion = f"{LIB}/libGL.so.1\n/usr/lib/mesa-diverted/libGL.so.1\nnvidia-gl\n"
    (image.info.parent / "diversions").write_text(diversion)
    assert image.needs("libGL.so.1") == ["nvidia-gl"]
    assert image.needs("libGL.so.1", runpath="/usr/lib/mesa-diverted") == ["libgl1"]


def test_library_of_no_package_is_listed_without_one(image: Image) -> None:
    image.package("libc6")
    image.file("/opt/vendor/libv.so", b"")
    assert image.needs("libv.so", runpath="/opt/vendor") == ["-"]
    assert image.needs("libabsent.so") == [], "the smoke check reports it"


def test_driver_libraries_are_those_of_the_checks() -> None:
    text = (COMPONENTS / "checklib.py").read_text()
    assert FIND.DRIVER_LIBRARIES.pattern in text
