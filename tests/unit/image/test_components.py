"""Test the Dockerfile, the build scripts and the checks of components without an engine."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from gapforge.image import dockerfile, smoke_checks
from gapforge.image.dockerfile_lint import lint
from gapforge.model import component
from gapforge.model.preset import Secret
from samples import ROOT

COMPONENTS = ROOT / "components"
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NAMES = sorted(file.parent.name for file in COMPONENTS.glob("*/component.json"))
SECRETS = (
    Secret("XAIVA_LICENSE_TOKEN", "secret", False),
    Secret("XAIVA_BUILD_TOKEN", "build-arg", False),
)


# ---- the Dockerfile ----


def stages(text: str) -> dict[str, list[str]]:
    """Return the instructions of each stage, continued lines joined, without comments."""
    result: dict[str, list[str]] = {}
    joined = ""
    stage = ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        joined += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", joined):
            stage = match[2]
            result[stage] = [match[1]]
        elif stage:
            result[stage].append(re.sub(r"\s+", " ", joined))
        joined = ""
    return result


def template() -> str:
    return (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("secrets", [(), SECRETS])
def test_dockerfile_uses_no_network(secrets: tuple[Secret, ...]) -> None:
    assert lint(dockerfile.render(template(), secrets, "x")) == []


def test_dockerfile_template_is_valid() -> None:
    assert lint(template()) == []
    assert stages(template()).keys() == stages(dockerfile.render(template(), SECRETS, "x")).keys()


def test_application_stage_equals_golden_file() -> None:
    """It is the only stage with secrets; a change must show in a review."""
    text = "\n".join(stages(dockerfile.render(template(), SECRETS, "x"))["application"]) + "\n"
    assert text == (GOLDEN / "application-stage.txt").read_text()


def test_secrets_stay_out_of_image_stages() -> None:
    rendered = stages(dockerfile.render(template(), SECRETS, "x"))
    holders = [name for name, lines in rendered.items() if any("XAIVA_" in line for line in lines)]
    assert holders == ["application"]
    for image in ("builder", "runtime"):
        ancestor = image
        while ancestor in rendered:
            assert ancestor != "application"
            ancestor = rendered[ancestor][0]


def caches(preset: str) -> dict[str, set[str]]:
    """Return the stages that mount each cache, by its id."""
    found: dict[str, set[str]] = {}
    for name, lines in stages(dockerfile.render(template(), SECRETS, preset)).items():
        for mount in re.findall(r"--mount=type=cache(\S*)", "\n".join(lines)):
            number = dict(part.split("=") for part in mount.strip(",").split(","))
            found.setdefault(number.get("id", number["target"]), set()).add(name)
    return found


def test_no_cache_of_the_application_is_read_elsewhere() -> None:
    """Its code runs as root, and could put objects there that FFmpeg's next build takes."""
    found = caches("one")
    assert {"application"} in found.values() and {"ffmpeg", "opencv"} in found.values()
    assert not any("application" in names and len(names) > 1 for names in found.values())
    assert not found.keys() & caches("other").keys(), "a preset has caches of its own"


def test_images_copy_only_out_folders() -> None:
    for name, lines in stages(template()).items():
        for line in lines:
            if line.startswith("COPY"):
                wanted = "runtime" if name == "runtime" else "dev"
                assert re.fullmatch(rf"COPY --from=[a-z]+ /out/{wanted}/ /", line), line


def test_each_component_mounts_only_its_inputs() -> None:
    """Otherwise a changed wheel would recompile OpenCV."""
    mounted: dict[str, int] = {}
    for lines in stages(template()).values():
        for line in lines:
            binds = re.findall(r"--mount=type=bind,source=(\S+?),target=/in", line)
            assert len(binds) <= 1
            for source in binds:
                mounted[source] = mounted.get(source, 0) + 1
    expected = {f"inputs/{n}" for n in NAMES if n != "apt"} | {
        "inputs/apt-builder",
        "inputs/apt-runtime",
    }
    assert set(mounted) == expected


def test_only_headers_of_the_base_image_are_removed() -> None:
    """What .debs, wheels and the application bring for themselves comes afterwards."""
    first, *later = (
        line for line in stages(template())["runtime"] if line.startswith(("RUN", "COPY"))
    )
    assert "-name '*.h'" in first and "! -path '*-packages/*'" in first
    assert not [line for line in later if "-delete" in line]


def test_runtime_image_user_is_not_root() -> None:
    assert "USER 1000:1000" in stages(template())["runtime"]


def test_user_and_shell_of_the_base_do_not_run_the_build() -> None:
    """A base image with USER 1000 could not install packages, one with a SHELL runs its own."""
    for name, (parent, *lines) in stages(template()).items():
        if parent.startswith("${"):
            before = lines[: next(n for n, line in enumerate(lines) if line.startswith("RUN"))]
            assert before == ["USER 0:0", 'SHELL ["/bin/sh", "-c"]'], name
        else:
            assert parent in stages(template()), name


# ---- descriptions and scripts ----


def test_every_component_has_a_description() -> None:
    assert [c.name for c in component.load_all(COMPONENTS)] == NAMES
    assert {"apt", "python", "wheels", "tensorrt", "ffmpeg", "opencv", "application"} <= set(NAMES)


@pytest.mark.parametrize(
    "script", [COMPONENTS / "common.sh", *(COMPONENTS / n / "build.sh" for n in NAMES)], ids=str
)
def test_shellcheck_accepts_scripts(script: Path, tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    files = [str(script)]
    # Scripts inside scripts are checked too.
    for number, inner in enumerate(
        re.findall(r"<< 'SCRIPT'\n(.*?)\nSCRIPT\n", script.read_text(), re.DOTALL)
    ):
        files.append(str(tmp_path / f"{number}.sh"))
        Path(files[-1]).write_text(inner + "\n")
    done = subprocess.run(["shellcheck", "-x", *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_scripts_stop_at_first_error(name: str) -> None:
    lines = (COMPONENTS / name / "build.sh").read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert next(line for line in lines if line and not line.startswith("#")) == "set -euo pipefail"


@pytest.mark.parametrize("name", NAMES)
def test_checks_parse_as_old_python(name: str) -> None:
    text = (COMPONENTS / name / "check.py").read_text()
    for file in (COMPONENTS / name / "check.py", *COMPONENTS.glob("*.py")):
        ast.parse(file.read_text(), feature_version=(3, 8))  # the oldest Python of an image
    assert "from checklib import" in text


# ---- running scripts outside an image ----


class Stage:
    """The folders /in, /out and the work folder of a component, in a temporary folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.input, self.out, self.bin = folder / "in", folder / "out", folder / "bin"
        self.params = self.input / "params"
        self.params.mkdir(parents=True)
        self.bin.mkdir()
        self.env = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(folder),
            "GAPFORGE_IN": str(self.input),
            "GAPFORGE_OUT": str(self.out),
            "GAPFORGE_BUILD": str(folder / "work"),
        }
        self.set(enabled="1\n", python="3.11\n", epoch="1700000000\n")

    def set(self, **params: str) -> None:
        for key, value in params.items():
            (self.params / key).write_text(value)

    def source(self, name: str, file: str) -> Path:
        path = self.input / "sources" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def build(self, *words: str) -> subprocess.CompletedProcess[str]:
        for script in (*COMPONENTS.glob("*.*"), COMPONENTS / self.name / "build.sh"):
            shutil.copy(script, self.input / script.name)
        return subprocess.run(
            ["bash", str(self.input / "build.sh"), *words],
            env=self.env,
            capture_output=True,
            text=True,
        )

    def shell(self, code: str) -> subprocess.CompletedProcess[str]:
        text = f'set -euo pipefail; source "{COMPONENTS}/common.sh"; {code}'
        return subprocess.run(["bash", "-c", text], env=self.env, capture_output=True, text=True)


@pytest.fixture
def common(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path, "common")
    (tmp_path / "work").mkdir()
    return stage


def test_options_are_never_evaluated(common: Stage, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    common.set(
        version=f"$(touch {trap})`touch {trap}`; touch {trap}",
        flags=f'-D$(touch {trap})\n"two words"\n\n*',
    )
    done = common.shell(
        'param version; printf "\\n"; param_list flags list; printf "<%s>" "${list[@]}"'
    )
    assert (
        done.stdout
        == f'$(touch {trap})`touch {trap}`; touch {trap}\n<-D$(touch {trap})><"two words"><*>'
    )
    assert not trap.exists()


def test_absent_and_empty_options_are_empty(common: Stage) -> None:
    common.set(empty="\n")
    lists = 'param_list absent a; param_list empty b; echo "${#a[@]} ${#b[@]}"'
    done = common.shell(f"param absent; {lists}; flag absent || echo off")
    assert done.stdout == "0 0\noff\n"


def test_logged_command_shows_how_far_it_is(common: Stage, tmp_path: Path) -> None:
    log = tmp_path / "work" / "make.log"
    common.program(
        "tool", '#!/bin/sh\nfor n in 1 2 3; do echo "[$n/3] x"; done; echo noise >&2; exit 7\n'
    )
    done = common.shell(
        f'PATH="{common.bin}:$PATH"; logged {log} tool && echo ok || echo "failed $?"'
    )
    # All lines came within five seconds, so one is enough.
    assert done.stdout == "[1/3] x\nfailed 7\n"
    assert log.read_text() == "[1/3] x\n[2/3] x\n[3/3] x\nnoise\n"
    common.program("tool", "#!/bin/sh\necho noise; echo '[ 45%] y'\n")
    done = common.shell(
        f'PATH="{common.bin}:$PATH"; logged {log} tool; SECONDS=0; logged {log} true'
    )
    assert (done.stdout, done.returncode, log.read_text()) == ("[ 45%] y\n", 0, "")


def test_compilation_of_opencv_is_logged() -> None:
    script = (COMPONENTS / "opencv" / "build.sh").read_text()
    assert "logged " in next(line for line in script.splitlines() if "cmake --build" in line)


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ("5.1", "5.1", True),
        ("5.1", "5.1.9", True),
        ("5.1", "5.10", False),
        ("5.1.9", "5.1", False),
        ("8", "8-rc1", True),
    ],
)
def test_versions_match_equally_in_build_and_check(
    common: Stage, monkeypatch: pytest.MonkeyPatch, wanted: str, found: str, same: bool
) -> None:
    assert (common.shell(f"matches {wanted} {found}").returncode == 0) is same
    monkeypatch.setenv("GAPFORGE_EXPECT", '{"params": {}, "type": "dev"}')
    assert runpy.run_path(str(COMPONENTS / "checklib.py"))["matches"](wanted, found) is same


def tar(file: Path, *names: str) -> None:
    folder = file.parent.parent.parent.parent / "pack"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    with tarfile.open(file, "w:gz") as archive:
        for top in sorted(p.name for p in folder.iterdir()):
            archive.add(folder / top, top)


def test_unpack_finds_the_source_folder(common: Stage, tmp_path: Path) -> None:
    tar(common.source("x", "x.tar.gz"), "x-1/a", "x-1/inner/b")
    assert common.shell(f"unpack_source x {tmp_path}/one").returncode == 0
    assert (tmp_path / "one/a").is_file()
    (common.params / "source-x.folder").write_text("x-1/inner\n")
    assert common.shell(f"unpack_source x {tmp_path}/two").returncode == 0
    assert (tmp_path / "two/b").is_file()


def zip_member(name: str, mode: int, system: int = 3) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (2024, 5, 6, 7, 8, 10))
    info.create_system, info.external_attr = system, mode << 16
    return info


def test_unpack_honours_modes_and_links_of_a_zip(common: Stage, tmp_path: Path) -> None:
    """FFmpeg's configure must be executable, and so must the scripts that it runs."""
    with zipfile.ZipFile(common.source("x", "x.zip"), "w") as archive:
        archive.writestr(zip_member("x-1/", stat.S_IFDIR | 0o777), "")
        archive.writestr(
            zip_member("x-1/configure", stat.S_IFREG | 0o4775), "#!/bin/sh\necho ran\n"
        )
        archive.writestr(zip_member("x-1/notes", stat.S_IFREG | 0o666), "#!no\n")
        archive.writestr(zip_member("x-1/a/link", stat.S_IFLNK | 0o777), "../configure")
        archive.writestr(zip_member("x-1/folder", stat.S_IFLNK | 0o777), "a")
        archive.writestr(zip_member("x-1/script", 0, system=0), "#!/bin/sh\n")
        archive.writestr(zip_member("x-1/data", 0, system=0), "data")
    done = common.shell(f'unpack_source x "{tmp_path}/dest"; "{tmp_path}/dest/a/link"')
    assert done.returncode == 0 and done.stdout.endswith("ran\n"), done.stderr
    dest = tmp_path / "dest"
    modes = {p.name: stat.S_IMODE(p.lstat().st_mode) for p in dest.iterdir() if p.is_file()}
    assert modes == {"configure": 0o755, "notes": 0o644, "script": 0o755, "data": 0o644}
    assert os.readlink(dest / "a/link") == "../configure"
    assert (dest / "folder/link").read_text() == "#!/bin/sh\necho ran\n"
    assert {int(p.stat().st_mtime) for p in (dest, dest / "configure")} == {1714979290}


@pytest.mark.parametrize(
    "members",
    [
        {"../out": stat.S_IFREG},
        {"/out": stat.S_IFREG},
        {"a/../../out": stat.S_IFREG},
        {"pipe": stat.S_IFIFO},
        {"l": "/etc/passwd"},
        {"l": "../out"},
        {"a/l": "..", "x": "a/l/../out"},
        {"d": "../..", "d/out": stat.S_IFREG},
    ],
)
def test_zip_cannot_lead_out(common: Stage, tmp_path: Path, members: dict[str, int | str]) -> None:
    with zipfile.ZipFile(common.source("x", "x.zip"), "w") as archive:
        for name, kind in members.items():
            link = isinstance(kind, str)
            mode = stat.S_IFLNK | 0o777 if isinstance(kind, str) else kind | 0o644
            archive.writestr(zip_member(name, mode), str(kind) if link else "content")
    done = common.shell(f'unpack_source x "{tmp_path}/dest"')
    assert done.returncode != 0 and "x.zip cannot be unpacked" in done.stderr
    assert not (tmp_path / "dest").exists()
    assert not list(tmp_path.rglob("out"))[1:], "the stage has a folder out of its own"


def test_unpack_reads_zip(common: Stage, tmp_path: Path) -> None:
    with zipfile.ZipFile(common.source("x", "x.zip"), "w") as archive:
        archive.writestr("x-1/a", "a")
    assert common.shell(f"unpack_source x {tmp_path}/one").returncode == 0
    assert (tmp_path / "one/a").is_file()


def test_unpack_names_each_fault(common: Stage, tmp_path: Path) -> None:
    tar(common.source("x", "x.tar.gz"), "x-1/a")
    (common.params / "source-x.folder").write_text("y\n")
    done = common.shell(f"unpack_source x {tmp_path}/one")
    assert (
        done.returncode != 0
        and 'x.tar.gz has no folder "y" (sources.x.folder in the preset)' in done.stderr
    )
    common.source("x", "second.tar.gz").write_bytes(b"")
    done = common.shell(f"unpack_source x {tmp_path}/one")
    assert done.returncode != 0 and "expected one file" in done.stderr
    common.source("bad", "bad.tar.gz").write_bytes(b"<html>please log in</html>")
    done = common.shell(f"unpack_source bad {tmp_path}/three")
    assert done.returncode != 0 and "bad.tar.gz cannot be unpacked" in done.stderr


PACKAGES = "usr/local/lib/python3.11/dist-packages"


def install(root: Path, package: str, *files: str, version: str = "1") -> Path:
    """Install a Python package as pip does; return its RECORD, which lists ``files`` from ROOT."""
    info = root / PACKAGES / f"{package}-{version}.dist-info"
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    listed = [root / name for name in files] + [info / "METADATA", info / "RECORD"]
    rows = (f'"{os.path.relpath(file, info.parent)}",,\n' for file in listed)
    (info / "RECORD").write_text("".join(rows))
    return info / "RECORD"


def tree(root: Path) -> list[str]:
    """Return the files and links below ``root``, and folders without files."""
    return sorted(
        str(p.relative_to(root))
        for p in root.rglob("*")
        if not p.is_dir() or p.is_symlink() or not list(p.iterdir())
    )


HEADER_PACKAGE = (
    f"{PACKAGES}/torch/__init__.py",
    f"{PACKAGES}/torch/include/ATen/a.h",
    f"{PACKAGES}/torch/lib/libx.a",
    f"{PACKAGES}/torch/share/cmake/Torch.cmake",
    f"{PACKAGES}/torch/x.pxd",
    "usr/local/include/python3.11/torch/t.hpp",
    "usr/local/share/man/man1/torch.1",
    "usr/local/bin/torchrun",
)


def test_runtime_tree_has_no_development_files(common: Stage) -> None:
    dev = common.out / "dev"
    removed = (
        "usr/local/lib/libx.a",
        "usr/local/lib/libx.la",
        "usr/local/lib/pkgconfig/x.pc",
        "usr/local/lib/x86_64-linux-gnu/pkgconfig/x.pc",
        "usr/local/include/x.h",
        "usr/local/include/python3.11/x.h",
        "usr/local/lib/cmake/X/x.cmake",
        "usr/local/share/man/man1/x.1",
        "usr/local/share/ffmpeg/examples/x.c",
        "usr/src/gapforge/x/build.sh",
        "workspace/x/main.cpp",
    )
    # An application may read its own files, whatever they are called.
    stay = (
        "usr/local/bin/tool",
        "usr/local/lib/libx.so.1",
        "usr/local/share/tiny/conv.cuh",
        "usr/local/share/tiny/table.pc",
        "usr/local/share/tiny/include/k.h",
    )
    for name in (*removed, *stay):
        (dev / name).parent.mkdir(parents=True, exist_ok=True)
        (dev / name).write_text(name)
    (dev / "usr/local/lib/libx.so").symlink_to("libx.so.1")
    (dev / "usr/local/lib/plug-ins").symlink_to(".")
    (dev / "usr/local/share/tiny/cache").mkdir(mode=0o700)
    assert common.shell("split_runtime").returncode == 0
    runtime = common.out / "runtime"
    links = ["usr/local/lib/libx.so", "usr/local/lib/plug-ins", "usr/local/share/tiny/cache"]
    assert tree(runtime) == sorted([*stay, *links])
    library = "usr/local/lib/libx.so.1"
    assert (runtime / library).samefile(dev / library), "hard links cost nothing"
    assert (runtime / "usr/local/share/tiny/cache").stat().st_mode & 0o777 == 0o700


def test_runtime_tree_keeps_what_a_python_package_lists(common: Stage) -> None:
    """Packages read their own headers while running: warp-lang, pycparser-fake-libc, torch."""
    dev, runtime = common.out / "dev", common.out / "runtime"
    record = install(dev, "torch", *HEADER_PACKAGE)
    before = record.read_text()
    assert common.shell("split_runtime").returncode == 0
    assert tree(runtime) == tree(dev)
    assert (runtime / record.relative_to(dev)).read_text() == before


def test_preset_keeps_files_of_a_package_out_of_the_runtime_tree(common: Stage) -> None:
    dev, runtime = common.out / "dev", common.out / "runtime"
    record = install(dev, "torch", *HEADER_PACKAGE)
    install(dev, "Cmake_Tool", f"{PACKAGES}/cmake/__init__.py", "usr/local/bin/cmake")
    install(dev, "lit", f"{PACKAGES}/lit/x.py", f"{PACKAGES}/cmake/__init__.py")
    for name in ("cmake", "lit"):
        cached = dev / PACKAGES / name / "__pycache__"
        cached.mkdir()
        (cached / "__init__.cpython-311.pyc").write_text("")
        (cached / "x.cpython-311.pyc").write_text("")
    common.set(**{"not-in-runtime": "torch torch/include/*\ntorch *.hpp\ncmake-tool *\n"})
    done = common.shell("split_runtime")
    assert done.returncode == 0, done.stderr
    assert "not in runtime: 2 files of torch, " in done.stdout
    left = tree(runtime)
    assert set(tree(dev)) - set(left) == {
        f"{PACKAGES}/torch/include/ATen/a.h",
        "usr/local/include/python3.11/torch/t.hpp",
        "usr/local/bin/cmake",
        f"{PACKAGES}/Cmake_Tool-1.dist-info/METADATA",
        f"{PACKAGES}/Cmake_Tool-1.dist-info/RECORD",
        f"{PACKAGES}/cmake/__pycache__/__init__.cpython-311.pyc",
    }, "lit lists cmake/__init__.py, too"
    assert not set(left) - set(tree(dev)), "no empty folders"
    assert "torch/include/ATen/a.h" in (runtime / record.relative_to(dev)).read_text()
    common.set(**{"not-in-runtime": "torhc *\n"})
    done = common.shell("split_runtime")
    assert done.returncode != 0 and "does not install torhc" in done.stderr


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("apt", "python")])
def test_disabled_component_leaves_empty_trees(name: str, tmp_path: Path) -> None:
    stage = Stage(tmp_path, name)
    for param in stage.params.iterdir():
        param.unlink()
    stage.set(enabled="0\n", python="3.11\n")  # all that such a component gets
    done = stage.build()
    assert done.returncode == 0, done.stderr
    assert sorted(str(p.relative_to(stage.out)) for p in stage.out.rglob("*")) == ["dev", "runtime"]


LIBRARIES = """\
-\t-\tlibvendor.so\t/usr/local/bin/a
libc6\t2.36\tlibc.so.6\t/usr/local/bin/a
libgomp1\t12\tlibgomp.so.1\t/usr/local/bin/a
libgomp1\t12\tlibgomp.so.1\t/usr/local/bin/b
libnew1\t2\tlibnew.so.1\t/usr/local/bin/b
libnewest1\t1:1\tlibnewest.so.1\t/usr/local/bin/b
libother1\t1\tlibother.so.1\t/usr/local/bin/b
libucx0\t1\tlibucp.so.0\t/usr/local/lib/python3/dist-packages/nvshmem/ucx.so
"""
RUNTIME_IMAGE = """\
installed\tlibc6\t2.36
installed\tlibnew1\t1
installed\tlibnewest1\t1:1.1
deinstall\tlibgomp1\t11
"""


def install_libraries(folder: Path, text: str, offered: str) -> subprocess.CompletedProcess[str]:
    """Run apt's build with a list, in an image with RUNTIME_IMAGE and libother.so.1."""
    folder.mkdir()
    stage = Stage(folder, "apt")
    stage.set(packages="tzdata\n")
    (stage.input / "debs").mkdir()
    index = "".join(f"Package: {name}\nVersion: 1\n\n" for name in offered.split())
    (stage.input / "debs/Packages").write_text(index)
    (stage.input / "debs/a.deb").touch()
    (folder / "list").write_text(text)
    stage.program("dpkg-query", f"#!/bin/sh\nprintf '%s' '{RUNTIME_IMAGE}'\n")
    stage.program("ldconfig", "#!/bin/sh\nprintf '\\tlibother.so.1 (libc6,x86-64) => /x\\n'\n")
    stage.program("install", f'#!/bin/sh\ncp "$4" "{folder}/kept"\n')
    stage.program("apt-get", f'#!/bin/sh\necho "$*" >> "{folder}/calls"\nexit 9\n')
    return stage.build(str(folder / "list"))


def test_only_packages_of_libraries_that_the_image_lacks_are_installed(tmp_path: Path) -> None:
    done = install_libraries(tmp_path / "1", LIBRARIES, "libnew1 libgomp1 libother1 libc6 unused")
    assert "gapforge: apt: libgomp1 libnew1\n" in done.stdout, done
    assert (tmp_path / "1/kept").read_text() == LIBRARIES
    kept = "".join(line for line in LIBRARIES.splitlines(True) if "libgomp" not in line)
    done = install_libraries(tmp_path / "2", kept, "unused")
    assert (done.returncode, (tmp_path / "2/kept").read_text()) == (0, kept)
    assert not (tmp_path / "2/calls").exists(), "what is older than the builder's is not offered"


def test_library_of_a_package_that_is_not_there_names_the_file(tmp_path: Path) -> None:
    done = install_libraries(tmp_path / "1", LIBRARIES, "libnew1")
    assert done.returncode == 1 and "libgomp.so.1 of the package libgomp1" in done.stderr
    assert "/usr/local/bin/a" in done.stderr and "apt.runtime" in done.stderr
    assert not (tmp_path / "1/calls").exists()


def test_apt_without_debs_does_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "apt")
    stage.set(packages="bash\n")
    (stage.input / "debs").mkdir()
    stage.program("apt-get", "#!/bin/sh\nexit 9\n")
    assert stage.build().returncode == 0


def test_python_build_names_the_missing_interpreter(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "python")
    stage.set(python="3.99\n")
    done = stage.build()
    assert done.returncode != 0
    assert "/usr/bin/python3.99 is missing" in done.stderr and "apt.sources" in done.stderr


# ---- TensorRT ----

_FAKE_PIP = """import json, os, sys
from pathlib import Path
Path(os.environ["HOME"], "pip.json").write_text(json.dumps(sys.argv[1:]))
"""


def tensorrt(
    tmp_path: Path, version: str, tags: tuple[str, ...] = ("cp38", "cp311"), linked: bool = True
) -> Stage:
    """Make a stage with a tar of NVIDIA's layout. In most releases, lib is a link to a folder."""
    stage = Stage(tmp_path, "tensorrt")
    stage.set(form="tar\n", version=version + "\n")
    major, minor, patch, build = version.split(".")
    top = tmp_path / "pack" / f"TensorRT-{version}"
    lib = top / ("targets/x86_64-linux-gnu/lib" if linked else "lib")
    for folder in (
        lib / "stubs",
        top / "include",
        top / "python",
        top / "data",
        top / "targets/x86_64-linux-gnu/bin",
    ):
        folder.mkdir(parents=True)
    if linked:
        (top / "lib").symlink_to("targets/x86_64-linux-gnu/lib")
        (top / "bin").symlink_to("targets/x86_64-linux-gnu/bin")
    three = f"{major}.{minor}.{patch}"
    (lib / f"libnvinfer.so.{three}").write_text("library")
    (lib / f"libnvinfer.so.{major}").symlink_to(f"libnvinfer.so.{three}")
    (lib / "libnvinfer_static.a").write_text("static")
    (lib / "stubs/libnvinfer.so").write_text("stub")
    (top / "data/big").write_text("data")
    (top / "include/NvInfer.h").write_text("")
    names = ("TRT_%s_ENTERPRISE", "NV_TENSORRT_%s") if int(major) >= 10 else ("NV_TENSORRT_%s",)
    lines = [
        f"#define {names[0] % k} {v}  //!< {k}\n"
        for k, v in zip(
            ("MAJOR", "MINOR", "PATCH", "BUILD"), (major, minor, patch, build), strict=True
        )
    ]
    if len(names) == 2:  # 10.x defines the one through the other
        lines += [
            f"#define {names[1] % k} {names[0] % k}\n" for k in ("MAJOR", "MINOR", "PATCH", "BUILD")
        ]
    (top / "include/NvInferVersion.h").write_text("".join(lines))
    (top / "targets/x86_64-linux-gnu/bin/trtexec").write_text("tool")
    for tag in tags:
        for name in ("tensorrt", "tensorrt_lean", "tensorrt_dispatch"):
            (top / f"python/{name}-{three}-{tag}-none-linux_x86_64.whl").write_text("wheel")
    with tarfile.open(stage.source("tensorrt", f"TensorRT-{version}.tar.gz"), "w:gz") as archive:
        archive.add(top, top.name)
    (stage.input / "installer").mkdir()
    with zipfile.ZipFile(stage.input / "installer/pip-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pip/__init__.py", "")
        wheel.writestr("pip/__main__.py", _FAKE_PIP)
    return stage


@pytest.mark.parametrize("own", [False, True])
def test_dev_image_gets_the_installer_unless_the_preset_has_a_pip(
    tmp_path: Path, own: bool
) -> None:
    """The installer runs in any case: the preset's pip is one of the wheels."""
    stage = Stage(tmp_path, "wheels")
    log = tmp_path / "pips.txt"
    for folder, version in (("installer", "1.0"), *([("wheels", "2.0")] if own else [])):
        (stage.input / folder).mkdir()
        with zipfile.ZipFile(stage.input / folder / f"pip-{version}-py3-none-any.whl", "w") as file:
            file.writestr("pip/__init__.py", "")
            text = f"import sys; print({version!r}, *sys.argv[1:], file=open({str(log)!r}, 'a'))"
            file.writestr("pip/__main__.py", text)
    if own:
        (stage.input / "requirements.txt").write_text("pip==2.0 --hash=sha256:0\n")
    done = stage.build()
    assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1.0"]
    installed = lines[0].split()[-1]
    assert installed == (
        str(stage.input / "requirements.txt")
        if own
        else str(stage.input / "installer" / "pip-1.0-py3-none-any.whl")
    )


@pytest.mark.parametrize(
    ("version", "linked"), [("8.6.1.6", True), ("10.3.0.26", True), ("8.5.3.1", False)]
)
def test_tensorrt_tar_layouts(tmp_path: Path, version: str, linked: bool) -> None:
    stage = tensorrt(tmp_path, version, linked=linked)
    done = stage.build()
    assert done.returncode == 0, done.stderr
    major, three = version.split(".")[0], version.rpartition(".")[0]
    runtime = stage.out / "runtime"
    assert sorted(
        str(p.relative_to(runtime)) for p in runtime.rglob("*") if not p.is_dir()
    ) == sorted(
        [
            "etc/ld.so.conf.d/00-gapforge-tensorrt.conf",
            f"usr/local/tensorrt/lib/libnvinfer.so.{major}",
            f"usr/local/tensorrt/lib/libnvinfer.so.{three}",
        ]
    )
    assert (runtime / f"usr/local/tensorrt/lib/libnvinfer.so.{major}").is_symlink()
    dev = stage.out / "dev/usr/local/tensorrt"
    assert (dev / "include/NvInfer.h").is_file() and (dev / "bin/trtexec").is_file()
    assert not list(stage.out.rglob("*.a")) and not list(stage.out.rglob("big"))
    arguments = json.loads((tmp_path / "pip.json").read_text())
    assert arguments[-1].endswith(f"/tensorrt-{three}-cp311-none-linux_x86_64.whl")
    assert {"--no-index", "--no-deps", "--isolated"} <= set(arguments), "never from an index"


def test_tensorrt_lists_wheels_if_none_fits(tmp_path: Path) -> None:
    stage = tensorrt(tmp_path, "8.6.1.6", tags=("cp38", "cp310"))
    done = stage.build()
    assert done.returncode != 0
    assert (
        "tensorrt-8.6.1-cp310-none-linux_x86_64.whl" in done.stderr
        and "Python 3.11 (cp311)" in done.stderr
    )


def test_tensorrt_without_its_binding_needs_no_wheel(tmp_path: Path) -> None:
    stage = tensorrt(tmp_path, "8.6.1.6", tags=())
    (stage.params / "tensorrt.python").write_text("0\n")
    assert stage.build().returncode == 0
    assert not (tmp_path / "pip.json").exists()


def test_tensorrt_refuses_another_version(tmp_path: Path) -> None:
    stage = tensorrt(tmp_path, "10.3.0.26")
    stage.set(version="10.7\n")
    done = stage.build()
    assert (
        done.returncode != 0
        and "the preset says 10.7, the tar's NvInferVersion.h says 10.3.0.26" in done.stderr
    )


def test_tensorrt_from_debs_leaves_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "tensorrt")
    stage.set(form="deb\n", version="8.6.1.6\n")
    assert stage.build().returncode == 0
    assert not [p for p in stage.out.rglob("*") if p.is_file()]


# ---- FFmpeg, OpenCV, application: refused before anything is compiled ----


def test_ffmpeg_refuses_another_version(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "ffmpeg")
    stage.set(version="5.1\n")
    file = stage.source("ffmpeg", "ffmpeg.tar.gz")
    (tmp_path / "pack/ffmpeg-5.10").mkdir(parents=True)
    (tmp_path / "pack/ffmpeg-5.10/RELEASE").write_text("5.10\n")
    with tarfile.open(file, "w:gz") as archive:
        archive.add(tmp_path / "pack/ffmpeg-5.10", "ffmpeg-5.10")
    done = stage.build()
    assert (
        done.returncode != 0 and "the preset says 5.1, the source archive says 5.10" in done.stderr
    )


_VERSION_HPP = (
    "#define CV_VERSION_MAJOR 4\n#define CV_VERSION_MINOR 9\n#define CV_VERSION_REVISION 0\n"
)
_FAKE_CMAKE = """#!/usr/bin/env python3
import os, sys
from pathlib import Path
home = Path(os.environ["HOME"])
if "-B" not in sys.argv:
    sys.exit(9)
build = Path(sys.argv[sys.argv.index("-B") + 1]); build.mkdir(parents=True)
(home / "cmake.args").write_text("\\n".join(sys.argv[1:]))
option = "-DOPENCV_DOWNLOAD_PATH="
(cache,) = [a[len(option):] for a in sys.argv if a.startswith(option)]
files = [str(p) for p in sorted(Path(cache).rglob("*")) if p.is_file()]
(home / "cache.files").write_text("\\n".join(files))
modules = os.environ.get("FAKE_MODULES", "opencv_core")
(build / "CMakeCache.txt").write_text(f"OPENCV_MODULES_BUILD:INTERNAL={modules}\\n")
(build / "CMakeDownloadLog.txt").write_text(os.environ.get("FAKE_DOWNLOADS", ""))
print("-- General configuration for OpenCV 4.9.0")
print(os.environ.get("FAKE_SUMMARY", ""))
"""


def opencv(tmp_path: Path, **env: str) -> Stage:
    """Make a stage whose cmake configures as ``env`` tells it and whose build step exits with 9."""
    stage = Stage(tmp_path, "opencv")
    stage.set(
        version="4.9.0\n",
        modules="core\n",
        cuda="11.8\n",
        contrib="0\n",
        dnn="0\n",
        **{"opencv.cuda": "0\n"},
    )
    top = tmp_path / "pack/opencv-4.9.0"
    header = top / "modules/core/include/opencv2/core/version.hpp"
    header.parent.mkdir(parents=True)
    header.write_text(_VERSION_HPP)
    (top / "CMakeLists.txt").write_text("  ocv_download(\n    ID xfeatures2d/boostdesc\n")
    with tarfile.open(stage.source("opencv", "opencv.tar.gz"), "w:gz") as archive:
        archive.add(top, top.name)
    stage.program("cmake", _FAKE_CMAKE)
    stage.program("pkg-config", '#!/bin/sh\n[ -n "$FAKE_FFMPEG" ] && echo /usr/local\n')
    stage.env.update(env)
    return stage


def test_opencv_reaches_its_build_step(tmp_path: Path) -> None:
    done = opencv(tmp_path).build()
    assert "the build failed" in done.stderr, "the cases below must fail before this step"
    assert {"-DBUILD_LIST=core", "-DWITH_CUDA=OFF"} <= set(
        (tmp_path / "cmake.args").read_text().splitlines()
    )


def test_flags_have_no_common_parameter_names() -> None:
    # "cuda" is the version of the base image: a switch read from there is always off.
    for file in (*ROOT.glob("components/*/build.sh"), *ROOT.glob("components/*/check.py")):
        found = re.findall(
            r"""\bflag(?:_param\(["'])?\s*(python|cuda|epoch)\b""", file.read_text(encoding="utf-8")
        )
        assert not found, f"{file}: {found}"


@pytest.mark.parametrize(
    ("params", "env", "words"),
    [
        (
            {},
            {"FAKE_DOWNLOADS": '#do_unpack "x"\n#cmake_download "/c/x" "https://example.org/x"\n'},
            "tried to download",
        ),
        ({"modules": "core\ndnn\n"}, {}, "the module dnn is asked for but configure left it out"),
        (
            {},
            {"FAKE_FFMPEG": "1", "FAKE_SUMMARY": "--     FFMPEG:                      NO"},
            "did not take FFmpeg",
        ),
        (
            {"opencv.cuda": "1\n"},
            {"FAKE_SUMMARY": "--   NVIDIA CUDA:   NO"},
            "CUDA is asked for but configure went without",
        ),
        (
            {"opencv.cuda": "1\n", "architectures": "7.5\n8.6\n"},
            {"FAKE_SUMMARY": "--   NVIDIA CUDA:   YES (ver 11.8)\n--     NVIDIA GPU arch:   75"},
            "architecture 8.6 is asked for",
        ),
        (
            {"opencv.cuda": "1\n", "dnn": "1\n"},
            {"FAKE_SUMMARY": "--   NVIDIA CUDA:   YES\n--   cuDNN:   NO"},
            "found no cuDNN",
        ),
        ({"version": "4.10.0\n"}, {}, "the preset says 4.10.0, the source archive says 4.9.0"),
        ({"modules": "core\npython3\n"}, {}, "cv2 needs NumPy"),
    ],
)
def test_opencv_fails_if_configure_omits_a_feature(
    tmp_path: Path, params: dict[str, str], env: dict[str, str], words: str
) -> None:
    stage = opencv(tmp_path, **env)
    stage.set(**params)
    done = stage.build()
    assert done.returncode != 0 and words in done.stderr, done.stderr


def test_opencv_uses_its_cached_downloads(tmp_path: Path) -> None:
    stage = opencv(tmp_path)
    stage.source("opencv-cache-ippicv", "ippicv.tgz").write_bytes(b"ipp")
    stage.source("opencv-cache-boostdesc-bgm", "boostdesc_bgm.i").write_bytes(b"bgm")
    stage.build()
    cached = (tmp_path / "cache.files").read_text()
    assert (
        "/cache/ippicv/81aaea52d8e5b7d3bcdfe2f3ccbca8fd-ippicv.tgz" not in cached
    )  # the hash is the file's own
    assert re.search(r"/cache/ippicv/[0-9a-f]{32}-ippicv\.tgz", cached)
    assert re.search(r"/cache/xfeatures2d/boostdesc/[0-9a-f]{32}-boostdesc_bgm\.i", cached), (
        "an ID with a slash"
    )


def application(tmp_path: Path, **params: str) -> Stage:
    """Make a stage of the application ``x`` without a file. The real tools of this machine run."""
    stage = Stage(tmp_path, "application")
    stage.env["GAPFORGE_WORKSPACE"] = str(tmp_path / "workspace")
    stage.set(name="x\n", **params)
    (stage.input / "app").mkdir()
    return stage


def add(stage: Stage, name: str, text: str, mode: int = 0o644) -> None:
    file = stage.input / "app" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def installs(*programs: str) -> str:
    """Return a build script that installs programs that print their names and arguments."""
    lines = [f"install -D program $DESTDIR$PREFIX/bin/{name}" for name in programs]
    return "\n".join(["#!/bin/sh -e", *lines, ""])


def script_stage(tmp_path: Path, *programs: str, **params: str) -> Stage:
    stage = application(tmp_path, build="./build.sh\n", **params)
    add(stage, "build.sh", installs(*programs), 0o755)
    add(stage, "program", '#!/bin/sh\necho "${0##*/}" "$@"\n', 0o755)
    return stage


def started(stage: Stage, *words: str) -> str:
    """Return what the command of the runtime image prints; the image's PATH has its programs."""
    programs = stage.out / "runtime/usr/local/bin"
    env = {"PATH": f"{programs}:/usr/bin:/bin"}
    command = [str(programs / "application"), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


_CONFIGURED = re.compile(r"build-application: there is no (\S+); add its package to apt.builder")
MAKEFILE = """x: x.c config
\tcc -o $@ x.c
config:
\techo "$(FEATURE)" $(MAKEFLAGS) > $@
install: x
\tinstall -D x $(DESTDIR)$(PREFIX)/bin/x
\tinstall -D -m 644 config $(DESTDIR)$(prefix)/share/x/config
"""
X_C = '#include <stdio.h>\nint main(void) { puts("x runs"); return 0; }\n'


def test_application_is_built_by_make(tmp_path: Path) -> None:
    stage = application(tmp_path, build="make\n", make="FEATURE=two words\n")
    add(stage, "Makefile", MAKEFILE)
    add(stage, "x.c", X_C)
    done = stage.build()
    assert done.returncode == 0, done.stderr
    assert started(stage) == "x runs\n"
    config = (stage.out / "runtime/usr/local/share/x/config").read_text()
    assert config.startswith("two words") and "-j" in config
    assert (stage.out / "dev/workspace/x/Makefile").exists(), "the dev image has the source"
    assert not (stage.out / "dev/workspace/x/x").exists(), "and nothing compiled"
    assert not (stage.out / "runtime/usr/local/bin/build-application").exists()


def test_application_is_built_by_a_script(tmp_path: Path) -> None:
    stage = application(tmp_path, build="./tools/build.sh\n")
    text = """#!/bin/bash -e
[[ $JOBS -ge 1 && -d $BUILD_DIR && -f src/x.c ]]
cc -o "$BUILD_DIR/x" src/x.c
install -D "$BUILD_DIR/x" "$DESTDIR$PREFIX/bin/x"
"""
    add(stage, "tools/build.sh", text, 0o755)
    add(stage, "src/x.c", X_C)
    done = stage.build()
    assert done.returncode == 0, done.stderr
    assert started(stage) == "x runs\n"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_application_is_built_by_cmake(tmp_path: Path) -> None:
    """A preset without application.build is one of this kind."""
    stage = application(tmp_path, cmake="-DTEXT=two words\n")
    add(stage, "x.c", "#include <stdio.h>\nint main(void) { puts(TEXT); return 0; }\n")
    text = """cmake_minimum_required(VERSION 3.18)
project(x LANGUAGES C)
add_executable(x x.c)
target_compile_definitions(x PRIVATE TEXT="${TEXT}")
install(TARGETS x)
"""
    add(stage, "CMakeLists.txt", text)
    done = stage.build()
    assert done.returncode == 0, done.stderr
    assert started(stage) == "two words\n"


def test_application_is_built_by_meson(tmp_path: Path) -> None:
    """A Meson that records how it is called takes the place of the real one (live: images)."""
    stage = application(tmp_path, build="meson\n", meson="-Db_lto=true\n")
    add(stage, "meson.build", "")
    record = f'printf "<%s>" "$@" >> {tmp_path}/calls; echo >> {tmp_path}/calls'
    bin_x = "$DESTDIR/usr/local/bin/x"
    install = (
        f'if [ "$1" = install ]; then printf "#!/bin/sh\necho x\n" > {bin_x}; chmod 755 {bin_x}; fi'
    )
    script(stage.bin / "meson", f"{record}\n{install}\n")
    script(stage.bin / "ninja", record)
    done = stage.build()
    assert done.returncode == 0, done.stderr
    build = tmp_path / "work/build"
    setup, compiled, installed = (tmp_path / "calls").read_text().splitlines()
    assert setup == (
        f"<setup><{build}><{tmp_path}/workspace/x><--prefix=/usr/local><--libdir=lib>"
        "<--buildtype=release><--wrap-mode=nodownload><-Db_lto=true>"
    )
    assert re.fullmatch(rf"<-C><{build}><-j><\d+>", compiled)
    assert installed == f"<install><-C><{build}><--no-rebuild>"


@pytest.mark.parametrize(
    ("build", "file"),
    [("", "CMakeLists.txt"), ("meson", "meson.build"), ("make", "Makefile"), ("./b.sh", "./b.sh")],
)
def test_application_needs_the_file_of_its_build_system(
    tmp_path: Path, build: str, file: str
) -> None:
    stage = application(tmp_path, build=f"{build}\n")
    done = stage.build()
    assert done.returncode != 0 and f"has no {file}" in done.stderr


def test_application_names_the_missing_tool(tmp_path: Path) -> None:
    stage = application(tmp_path, build="meson\n")
    stage.env["PATH"] = f"{stage.bin}:/usr/bin:/bin"
    if shutil.which("meson", path=stage.env["PATH"]):
        pytest.skip("meson is installed")
    add(stage, "meson.build", "")
    done = stage.build()
    found = _CONFIGURED.search(done.stderr)
    assert done.returncode != 0 and found and found[1] == "meson"


def test_application_refuses_a_path_as_name(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "application")
    stage.set(name="../../etc\n")
    done = stage.build()
    assert done.returncode != 0 and "is not a name" in done.stderr


def test_command_of_several_programs_is_the_presets(tmp_path: Path) -> None:
    stage = script_stage(tmp_path, "server", "client", command="server\n--port\nit's $(touch x)\n")
    done = stage.build()
    assert done.returncode == 0, done.stderr
    assert started(stage, "a b") == "server --port it's $(touch x) a b\n"
    assert (stage.out / "runtime/usr/local/bin/client").exists()


def test_command_may_be_a_program_of_the_image(tmp_path: Path) -> None:
    """A library with Python bindings installs no program."""
    stage = script_stage(tmp_path, command="/usr/bin/env\necho\nbindings\n")
    assert stage.build().returncode == 0
    assert started(stage) == "bindings\n"


@pytest.mark.parametrize(
    ("programs", "params", "words"),
    [
        (("server", "client"), {}, ("no bin/x", "client server", "application.command")),
        ((), {}, ("no bin/x", "no program", "application.command")),
        (("server",), {"command": "sever\n"}, ("application.command", '"sever"', "server")),
        (("server",), {"command": "/opt/x/run\n"}, ("application.command", "/opt/x/run")),
        (("x", "application"), {}, ("installs bin/application", "another name")),
        (("x", "build-application"), {}, ("installs bin/build-application", "another name")),
    ],
)
def test_application_without_a_usable_command_is_refused(
    tmp_path: Path, programs: tuple[str, ...], params: dict[str, str], words: tuple[str, ...]
) -> None:
    done = script_stage(tmp_path, *programs, **params).build()
    assert done.returncode != 0
    assert all(word in done.stderr for word in words), done.stderr


def test_only_program_is_the_command(tmp_path: Path) -> None:
    stage = script_stage(tmp_path, "only")
    assert stage.build().returncode == 0
    assert os.readlink(stage.out / "runtime/usr/local/bin/application") == "only"


def test_files_that_the_application_installs_stay(tmp_path: Path) -> None:
    """It may read files while it runs that have the names of a compiler's inputs."""
    stage = script_stage(tmp_path, "x")
    kept = ("share/tiny/conv.cuh", "share/tiny/table.pc", "lib/tiny/cmake/x.cmake", "man/notes.h")
    lines = [f"install -D program $DESTDIR$PREFIX/{name}\n" for name in kept]
    lines += [
        "install -D program $DESTDIR$PREFIX/include/tiny/t.h\n",
        "mkdir -p $DESTDIR$PREFIX/lib; ar rc $DESTDIR$PREFIX/lib/libtiny.a program\n",
        "install -D program $DESTDIR$PREFIX/share/tiny/weights.a\n",
    ]
    add(stage, "build.sh", installs("x") + "".join(lines), 0o755)
    done = stage.build()
    assert done.returncode == 0, done.stderr
    runtime = stage.out / "runtime/usr/local"
    found = {str(p.relative_to(runtime)) for p in runtime.rglob("*") if p.is_file()}
    assert found == {*kept, "share/tiny/weights.a", "bin/x", "bin/application"}
    assert (stage.out / "dev/usr/local/include/tiny/t.h").exists()
    assert (stage.out / "dev/usr/local/lib/libtiny.a").exists()


def test_runtime_stage_removes_headers_before_it_copies() -> None:
    """Afterwards they would be files of wheels and of the application."""
    lines = stages(template())["runtime"]
    removal = [number for number, line in enumerate(lines) if "-delete" in line]
    copies = [number for number, line in enumerate(lines) if line.startswith("COPY")]
    assert len(removal) == 1 and removal[0] < min(copies)


def build_application(
    tmp_path: Path, *words: str, system: str = "cmake"
) -> subprocess.CompletedProcess[str]:
    """Run build-application of the dev image with tools that record their arguments."""
    text = (COMPONENTS / "application/build.sh").read_text()
    inner = re.search(r"<< 'SCRIPT'\n(.*?)\nSCRIPT\n", text, re.DOTALL)
    assert inner
    (tmp_path / "build-application").write_text(inner[1])
    for folder in ("settings", "bin", "source", "root/usr/local/bin"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "settings/name").write_text("x\n")
    (tmp_path / "settings/build").write_text(f"{system}\n")
    (tmp_path / "settings/options").write_text(
        f"-DTEXT=two words; $(touch {tmp_path}/trap)\n-DB=1\n"
    )
    for tool in ("cmake", "make"):
        record = f'for w in "$@"; do echo "<$w>"; done >> {tmp_path}/calls'
        script(tmp_path / "bin" / tool, record)
    env = {
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        "GAPFORGE_APPLICATION": f"{tmp_path}/settings",
        "JOBS": "3",
        "BUILD_DIR": f"{tmp_path}/build",
        "CCACHE_DIR": f"{tmp_path}/ccache",
        "DESTDIR": f"{tmp_path}/root",
    }
    command = ["bash", str(tmp_path / "build-application"), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(("system", "file"), [("cmake", "CMakeLists.txt"), ("make", "GNUmakefile")])
def test_build_application_uses_preset_and_own_options(
    tmp_path: Path, system: str, file: str
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / file).write_text("")
    done = build_application(tmp_path, str(tmp_path / "source"), "--", "-DB=2", system=system)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert (
        f"<-DTEXT=two words; $(touch {tmp_path}/trap)>" in calls
        and not (tmp_path / "trap").exists()
    )
    assert calls.index("<-DB=1>") < calls.index("<-DB=2>"), "the last one wins"
    assert "<3>" in calls
    if system == "cmake":
        assert calls[-2:] == ["<--install>", f"<{tmp_path}/build>"]
    else:
        assert f"<DESTDIR={tmp_path}/root>" in calls[calls.index("<install>") :]


def test_build_application_names_the_missing_source(tmp_path: Path) -> None:
    done = build_application(tmp_path, str(tmp_path / "absent"))
    assert (
        done.returncode == 2
        and f"{tmp_path}/absent has no CMakeLists.txt; mount the source there" in done.stderr
    )
    assert not (tmp_path / "calls").exists()


# ---- checks ----


def check(
    name: str, tmp_path: Path, expect: dict[str, Any], *replace: tuple[str, str]
) -> list[dict[str, Any]]:
    """Return what a component's check reports here; ``replace`` points it at other folders."""
    text = (COMPONENTS / name / "check.py").read_text()
    for old, new in replace:
        assert old in text
        text = text.replace(old, new)
    return run_check(name, text, tmp_path, expect)


def run_check(name: str, text: str, tmp_path: Path, expect: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the text of a check.py as smoke does, and return its results."""
    done = start_check(name, text, tmp_path, expect)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def start_check(
    name: str, text: str, tmp_path: Path, expect: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    components = tmp_path / "components"
    (components / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(COMPONENTS / "checklib.py", components)
    (components / name / "check.py").write_text(text)
    program = smoke_checks.program(components, name)
    full = {
        "component": name,
        "type": "runtime",
        "enabled": True,
        "params": {},
        "versions": {},
        "wheels": {},
        "gpu": False,
        "application": {"name": "x", "check": []},
        **expect,
    }
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "GAPFORGE_EXPECT": json.dumps(full),
        "HOME": str(tmp_path),
    }
    return subprocess.run(
        [sys.executable, "-I", "-"], input=program, env=env, capture_output=True, text=True
    )


def one(results: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(r for r in results if r["check"] == name)


def script(file: Path, text: str) -> None:
    file.write_text("#!/bin/sh\n" + text)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


INSTALLED = """\
installed\ttool\tamd64\t1\t
installed\texim\tamd64\t4:4\tmail-agent (= 1), other
deinstall\tgone\tamd64\t1\tghost
"""


@pytest.mark.parametrize(
    ("named", "wrong"),
    [
        ("tool exim=4:4 tool:amd64=1 mail-agent other", ""),
        ("gone ghost ool", "gone is not installed; ghost is not installed; ool is not installed"),
        ("tool=2 other:i386", "tool is 1, not 2; other:i386 is not installed"),
    ],
)
def test_packages_of_the_preset_are_installed(tmp_path: Path, named: str, wrong: str) -> None:
    script(tmp_path / "dpkg-query", f"cat << 'END'\n{INSTALLED}END\n")
    places = (('guarded("shared libraries"', "# "), ('    guarded("no headers"', "    # "))
    expect = {"params": {"packages": named.split()}}
    result = one(check("apt", tmp_path, expect, *places), "packages")
    assert (result["ok"], result["found"]) == (not wrong, wrong or "5 asked for, 2 in the image")
    script(tmp_path / "dpkg-query", "echo no database; exit 2")
    result = one(check("apt", tmp_path, expect, *places), "packages")
    assert not result["ok"] and "no database" in result["found"]


DPKG = """\
installed\ttool\tlibc6 (>= 2.3)\tlibz1 | libz2, mail-agent:any\t
installed\texim\t\tlibc6\tmail-agent (= 1), other
installed\tlibc6\t\t\t
installed\tlibz2\t\tlibc6\t
installed\tlibown1\t\tlibdep1\t
installed\tlibdep1\t\t\t
installed\tstray\t\tlibc6\t
installed\tof-base\t\t\t
deinstall\tgone\t\t\t
"""


@pytest.mark.parametrize("named", ["tool=1", "tool:amd64", "tool\nstray"])
def test_package_that_nothing_needs_is_named(tmp_path: Path, named: str) -> None:
    script(tmp_path / "dpkg-query", f"cat << 'END'\n{DPKG}END\n")
    debs = ["tool", "exim", "libz2", "libown1", "libdep1", "stray", "gone", "libnot1"]
    expect = {"params": {"packages": named.split("\n")}, "debs": debs}
    places = (
        ("*(row[0] for row in needed_libraries())", '"libown1"'),
        ('guarded("shared libraries"', "# "),  # the other slow checks look at this whole machine
        ('    guarded("no headers"', "    # "),
    )
    result = one(check("apt", tmp_path, expect, *places), "no package that nothing needs")
    assert result["ok"] is ("stray" in named), result
    assert result["found"] == ("none of 6 over the base image" if result["ok"] else "stray")


def test_check_of_libraries_reports_each_file(tmp_path: Path) -> None:
    rows = [line.split("\t") for line in LIBRARIES.splitlines()]
    fakes = (("/sbin/ldconfig", "ldconfig"), ("in needed_libraries()", f"in {rows}"))
    script(tmp_path / "dpkg-query", 'for p in libc6 libnew1; do echo "installed\t$p"; done')
    present = "libnewest.so.1 libother.so.1"
    script(tmp_path / "ldconfig", f'for p in {present}; do echo "\t$p (libc6) => /x"; done')
    (result,) = check("libraries", tmp_path, {}, *fakes)
    assert not result["ok"]
    assert result["found"].startswith("/usr/local/bin/a needs libgomp.so.1 of libgomp1; ")
    users = {"libgomp.so.1": ["/usr/local/bin/a", "/usr/local/bin/b"]}
    assert result["details"]["libgomp1"] == users
    script(tmp_path / "ldconfig", f'for p in {present} libgomp.so.1; do echo "\t$p ()"; done')
    (result,) = check("libraries", tmp_path, {}, *fakes)
    assert result["ok"] and result["details"]["libgomp1"] == users


def test_traceback_names_the_check_file(tmp_path: Path) -> None:
    text = "from checklib import run\n\n\ndef look() -> None:\n    run()  # 한글\n\n\nlook()\n"
    done = start_check("ffmpeg", text, tmp_path, {})
    assert done.returncode == 1 and done.stdout == ""
    for place in ("components/ffmpeg/check.py", "components/checklib.py"):
        assert f'File "{place}", line ' in done.stderr
    assert "run()" in done.stderr and "IndexError" in done.stderr


def test_check_without_imports_gets_library_names(tmp_path: Path) -> None:
    """A check.py of the first format had the library's names in place without an import."""
    text = 'report("x", bool(re.match("5", text_param("version"))), os.sep, "/")\n'
    (result,) = run_check("gstreamer", text, tmp_path, {"params": {"version": "5.1"}})
    assert result == {"check": "x", "ok": True, "found": "/", "expected": "/"}


_FFMPEG = """case "$*" in
*-version*) echo "ffmpeg version 5.1.9 Copyright";;
*-buildconf*) printf '  configuration:\\n    --enable-zlib\\n    --extra-cflags=-I/x y\\n';;
esac
"""


def test_ffmpeg_check_compares_version_and_options(tmp_path: Path) -> None:
    script(tmp_path / "ffmpeg", _FFMPEG)
    script(tmp_path / "ffprobe", "echo ffprobe version 5.1.9")
    good = check(
        "ffmpeg",
        tmp_path,
        {
            "params": {"version": "5.1", "configure": ["--enable-zlib"]},
            "versions": {"ffmpeg": "5.1.9"},
        },
    )
    assert one(good, "version")["ok"] and one(good, "configure options")["ok"]
    bad = check(
        "ffmpeg",
        tmp_path,
        {"params": {"version": "5.10", "configure": ["--enable-zlib", "--enable-nvenc"]}},
    )
    assert one(bad, "version") == {
        "check": "version",
        "ok": False,
        "found": "5.1.9",
        "expected": "5.10",
    }
    assert (
        "--enable-nvenc" in one(bad, "configure options")["found"]
        and not one(bad, "configure options")["ok"]
    )
    assert not one(bad, "NVENC")["ok"]


@pytest.mark.parametrize("there", [True, False])
def test_ffmpeg_check_looks_for_gpu_codecs(tmp_path: Path, there: bool) -> None:
    lists = """case "$*" in
*-encoders*) echo " V....D h264_nvenc           NVIDIA NVENC H.264 encoder (codec h264)";;
*-decoders*) echo " V..... h264_cuvid           Nvidia CUVID H264 decoder (codec h264)";;
*-hwaccels*) printf 'Hardware acceleration methods:\\ncuda\\n\\n';;
esac
"""
    script(tmp_path / "ffmpeg", lists if there else "echo 'Hardware acceleration methods:'")
    options = ["--enable-nvenc", "--enable-cuvid", "--enable-nvdec"]
    found = check("ffmpeg", tmp_path, {"params": {"version": "5.1", "configure": options}})
    assert [one(found, name)["ok"] for name in ("NVENC", "CUVID", "NVDEC")] == [there] * 3


def below(root: Path) -> tuple[tuple[str, str], ...]:
    """Point apt's check at an image below ``root``; reading all of /usr takes seconds."""
    return (
        ('DEVELOPMENT_ROOTS = ("/usr", "/opt")', f'DEVELOPMENT_ROOTS = ("{root}",)'),
        ("in LIBRARY_ROOTS:", f'in ("{root}",):'),
    )


def elf(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/true", file)


@pytest.mark.parametrize(
    ("missing", "ok", "words"),
    [
        ("", True, "2 files"),
        ("libcuda.so.1", True, "from the GPU driver at run time: libcuda.so.1"),
        ("libgone.so.3", False, "needs libgone.so.3"),
        ("libcudart.so.11.0", False, "needs libcudart.so.11.0"),
        ("libc10.so", True, "loaded by their Python packages"),
    ],
)
def test_shared_library_check(tmp_path: Path, missing: str, ok: bool, words: str) -> None:
    root = tmp_path / "root/lib/python3.11/dist-packages"
    elf(root / "torch/lib/libc10.so")
    elf(root / "torchvision/_C.so")
    (root / "notes.so").write_text("no library")
    found = f"\\t{missing} => not found" if missing else "\\tlibc.so.6 => /lib/libc.so.6"
    script(
        tmp_path / "ldd",
        f'for f in "$@"; do echo "$f:"; case "$f" in *_C.so) printf "{found}\\n";; esac; done',
    )
    results = check("apt", tmp_path, {}, *below(tmp_path / "root"))
    result = one(results, "shared libraries")
    assert result["ok"] is ok and words in result["found"], result


LINKS = Path("root/lib/python3.11/dist-packages")


def check_links(tmp_path: Path, links: dict[str, str], **content: str) -> dict[str, Any]:
    """Return the check of shared libraries; ``links`` are ldd's lines by file.

    ``content`` is appended to files, "/" written as "__"; it makes a new file of other names.
    """
    answers = ""
    for name, lines in links.items():
        elf(tmp_path / LINKS / name)
        text = "".join(f"\\t{line}\\n" for line in lines.split(";"))
        answers += f'*/{Path(name).name}) printf "{text}";;\n'
    for name, text in content.items():
        file = (
            tmp_path / LINKS / (name.replace("__", "/").replace("_py", ".py").replace("_so", ".so"))
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            stream.write(text.encode())
    script(tmp_path / "ldd", f'for f in "$@"; do echo "$f:"; case "$f" in\n{answers}esac; done')
    results = check("apt", tmp_path, {}, *below(tmp_path / "root"))
    return one(results, "shared libraries")


# nvidia-cufile-cu12 1.11.1.6 and nvidia-nvshmem-cu12, which torch brings, have plug-ins for
# networks that no image has. Their main library loads them with dlopen.
CUFILE = {
    "torch/_C.cpython-311.so": "libcufile.so.0 => /x/libcufile.so.0",
    "nvidia/cufile/lib/libcufile.so.0": "libc.so.6 => /lib/libc.so.6",
    "nvidia/cufile/lib/libcufile_rdma.so.1": "libmlx5.so.1 => not found;"
    "librdmacm.so.1 => not found",
    "nvidia/nvshmem/lib/nvshmem_transport_ucx.so.7": "libucp.so.0 => not found",
}


def test_plug_ins_of_wheels_are_optional_and_named(tmp_path: Path) -> None:
    result = check_links(tmp_path, CUFILE)
    assert result["ok"], result
    assert result["found"].endswith(
        "libcufile_rdma.so.1 (without libmlx5.so.1, librdmacm.so.1); "
        "nvshmem_transport_ucx.so.7 (without libucp.so.0)"
    )


@pytest.mark.parametrize(
    ("links", "content"),
    [
        # an extension module links to it
        ({"torch/_C.cpython-311.so": "libcufile_rdma.so.1 => /x/libcufile_rdma.so.1"}, {}),
        # a library that is needed links to it
        ({"nvidia/cufile/lib/libcufile.so.0": "libcufile_rdma.so.1 => not found"}, {}),
        # it is a Python module
        ({}, {"nvidia__cufile__lib__libcufile_rdma_so.1": "PyInit_rdma"}),
        # Python code of its package loads it
        ({}, {"nvidia__cufile___py": "CDLL('libcufile_rdma.so.1')"}),
        # the image has another version of what is missing
        ({"rdma/libmlx5.so.2": "libc.so.6 => /lib/libc.so.6"}, {}),
        # a library in the image is too old for it
        (
            {
                "nvidia/cufile/lib/libcufile_rdma.so.1": "/x/librdma.so.1: /lib/libmlx5.so.1: "
                "version MLX5_1.20 not found (required by /x/librdma.so.1)"
            },
            {},
        ),
    ],
)
def test_library_that_a_program_needs_is_no_plug_in(
    tmp_path: Path, links: dict[str, str], content: dict[str, str]
) -> None:
    result = check_links(tmp_path, {**CUFILE, **links}, **content)
    assert not result["ok"] and "libmlx5.so.1" in result["found"], result


def test_plug_in_outside_python_packages_must_resolve(tmp_path: Path) -> None:
    """FFmpeg, OpenCV and the application are built here and must not lack a library."""
    result = check_links(tmp_path, {"../../../lib/libplug.so": "libmlx5.so.1 => not found"})
    assert not result["ok"] and "libplug.so needs libmlx5.so.1" in result["found"]


def check_leftovers(tmp_path: Path, *debs: str, **lists: str) -> dict[str, dict[str, Any]]:
    """Return the checks of development files and tools in an image below ``tmp_path``/root.

    ``lists`` are files of packages, of which the preset brought ``debs``.
    """
    root = tmp_path / "root"
    for name, files in lists.items():
        (tmp_path / f"{name}.list").write_text(f"/.\n{root}/lib\n{root}/{files}\n")
    (tmp_path / "libssl3:amd64.list").write_text("")
    results = check(
        "apt",
        tmp_path,
        {"debs": debs},
        *below(root),
        (
            '("/usr/include/", "/usr/local/include/")',
            f'("{root}/usr/include/", "{root}/usr/local/include/")',
        ),
        ('"/var/lib/dpkg/info/*.list"', f'"{tmp_path}/*.list"'),
        ("PYTHON_FOLDERS = python_folders()", f'PYTHON_FOLDERS = ["{root}/{PACKAGES}"]'),
    )
    return {result["check"]: result for result in results}


@pytest.mark.parametrize(
    ("file", "ok"),
    [
        ("usr/include/python3.11/pyconfig.h", True),  # Python's own
        ("usr/include/x.h", False),
        ("usr/local/include/python3.11/x.hpp", False),
        ("usr/share/tiny/conv.cuh", True),  # the application's own, where no compiler looks
        ("usr/share/tiny/libx.a", True),
        ("usr/lib/libbase.a", False),  # of the package "base"
    ],
)
def test_runtime_check_finds_development_files(tmp_path: Path, file: str, ok: bool) -> None:
    place = tmp_path / "root" / file
    place.parent.mkdir(parents=True)
    place.write_text("")
    result = check_leftovers(tmp_path, base="usr/lib/libbase.a")["no headers"]
    assert result["ok"] is ok and (ok or result["found"] == str(place))


def test_headers_of_python_packages_and_debs_may_stay(tmp_path: Path) -> None:
    """R and clang read the headers of their own packages, as torch does."""
    root = tmp_path / "root"
    install(root, "torch", *HEADER_PACKAGE)
    header = root / "usr/include/R.h"
    header.parent.mkdir()
    header.write_text("")
    lists = {"r-base": "usr/include/R.h"}
    assert check_leftovers(tmp_path, "r-base", **lists)["no headers"]["ok"]
    for result in (check_leftovers(tmp_path, **lists), check_leftovers(tmp_path, "other")):
        assert result["no headers"]["found"] == str(header) and not result["no headers"]["ok"]


def test_runtime_check_finds_root(tmp_path: Path) -> None:
    if os.getuid() == 0:
        assert not check_leftovers(tmp_path)["user"]["ok"]


@pytest.mark.parametrize("name", ["nvcc", "cmake"])
def test_compiler_check_looks_on_path(tmp_path: Path, name: str) -> None:
    script(tmp_path / name, "")
    result = one(check("apt", tmp_path, {}, *below(tmp_path / "root")), "no compiler")
    assert not result["ok"] and f"{tmp_path}/{name}" in result["found"]


def test_tool_of_a_python_package_is_named(tmp_path: Path) -> None:
    """Triton 2.0.0 requires cmake: it is kept whole, or the preset leaves it out."""
    script(tmp_path / "cmake", "")
    record = install(tmp_path / "root", "cmake", f"{PACKAGES}/cmake/__init__.py")
    with record.open("a") as file:
        file.write(f"{os.path.relpath(tmp_path / 'cmake', record.parent.parent)},,\n")
    result = check_leftovers(tmp_path)["no compiler"]
    if shutil.which("gcc") is None:  # a machine that compiles has others
        assert result["ok"] and result["found"] == "none but of the Python packages cmake"
    assert f"{tmp_path}/cmake" not in result["found"]


def test_wheels_check_names_what_is_missing(tmp_path: Path) -> None:
    result = one(check("wheels", tmp_path, {"wheels": {"no-such-package": "1.0"}}), "packages")
    assert not result["ok"] and result["found"] == "no-such-package is missing, not 1.0"


def check_records(
    tmp_path: Path, *choices: str, kind: str = "runtime", wheels: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the check of the RECORDs below ``tmp_path``/root."""
    folder = ("FOLDERS = python_folders()", f'FOLDERS = ["{tmp_path}/root/{PACKAGES}"]')
    expect = {
        "type": kind,
        "params": {"not-in-runtime": list(choices)},
        "wheels": dict.fromkeys(wheels, "1"),
    }
    return one(check("wheels", tmp_path, expect, folder), "RECORD files")


def test_wheels_check_compares_files_with_record(tmp_path: Path) -> None:
    root = tmp_path / "root"
    record = install(root, "torch", *HEADER_PACKAGE)
    count = len(HEADER_PACKAGE) + 2
    assert check_records(tmp_path) == {
        "check": "RECORD files",
        "ok": True,
        "found": f"{count} files",
        "expected": "every file is there",
    }
    (root / HEADER_PACKAGE[1]).unlink()
    assert not check_records(tmp_path)["ok"]
    assert not check_records(tmp_path, "lit *")["ok"]
    choice = "torch torch/include/*"
    assert check_records(tmp_path, choice)["found"] == f"{count - 1} files; left out: 1 of torch"
    assert not check_records(tmp_path, choice, kind="dev")["ok"], "the dev image has everything"
    (root / HEADER_PACKAGE[0]).unlink()
    result = check_records(tmp_path, choice)
    assert not result["ok"] and "torch/__init__.py" in result["found"]
    record.unlink()
    assert not check_records(tmp_path, wheels=("torch",))["ok"], "nothing to compare with"


BROKEN = (
    'raise RuntimeError("CUDA error: no kernel image is available for execution on the device")'
)
FAKE_TORCH = """
__version__ = "2.6.0"
class version: cuda = "12.6"
class cuda:
    is_available = staticmethod(lambda: True)  # also where every kernel fails
    get_device_name = staticmethod(lambda index: "X")
class Tensor:
    __init__ = lambda self, values: setattr(self, "values", values)
    def __mul__(self, factor):
        {work}
        return Tensor([value * factor for value in self.values])
    sum = lambda self: Tensor([sum(self.values)])
    item = lambda self: self.values[0]
arange = lambda first, end, device: Tensor(list(range(first, end)))
"""
FAKE_CV2 = """
CV_32FC3 = 21
class cuda: getCudaEnabledDeviceCount = staticmethod(lambda: 1)
class cuda_GpuMat:
    def __init__(self, rows, columns, kind): self.rows, self.value = rows, None
    def setTo(self, value):
        {work}
        self.value = value[:3]
    def download(self): return [[self.value] * self.rows] * self.rows
"""
FAKE_TENSORRT = """
__version__ = "10.3.0"
float32 = 0
class Any:
    ERROR = 0
    nbytes = 9
    def __init__(self, *words): pass
    def __getattr__(self, name): return lambda *words: Any()
class Builder(Any):
    def build_serialized_network(self, network, config):
        {work}
        return Any()
Logger = Runtime = Any
class NetworkDefinitionCreationFlag: pass
"""


@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize("work", ["pass", "return None", BROKEN])
@pytest.mark.parametrize(
    ("component", "module", "code", "name", "params"),
    [
        ("wheels", "torch", FAKE_TORCH, "torch on the GPU", {"cuda": "12.6"}),
        ("opencv", "cv2", FAKE_CV2, "CUDA on the GPU", {"opencv.cuda": True}),
        ("tensorrt", "tensorrt", FAKE_TENSORRT, "engine", {"version": "10.3"}),
    ],
)
def test_gpu_checks_run_a_kernel(
    tmp_path: Path,
    component: str,
    module: str,
    code: str,
    name: str,
    params: dict[str, Any],
    work: str,
    gpu: bool,
) -> None:
    """A GPU that is found, with a build that has no code for it, fails in every kernel."""
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    (fakes / f"{module}.py").write_text(code.format(work=work))
    (fakes / "numpy.py").write_text("float32 = 0\nones = zeros = lambda *words: None\n")
    path = f'import sys; sys.path.insert(0, "{fakes}")'
    results = check(
        component,
        tmp_path,
        {"gpu": gpu, "params": params, "wheels": {module: "1"}},
        ('KERNEL = """\n', f'KERNEL = """\n{path}\n'),
    )
    found = {result["check"]: result for result in results}
    assert (name in found) is gpu
    if gpu:
        assert found[name]["ok"] is (work == "pass"), found[name]
        if work == BROKEN:
            assert "no kernel image" in found[name]["found"]


def test_engine_is_not_built_without_the_binding(tmp_path: Path) -> None:
    expect = {"gpu": True, "params": {"version": "10.3", "tensorrt.python": False}}
    assert "engine" not in {result["check"] for result in check("tensorrt", tmp_path, expect)}


def test_wheels_check_knows_what_the_preset_leaves_out(tmp_path: Path) -> None:
    expect = {
        "wheels": {"no-such-package": "1.0"},
        "params": {"not-in-runtime": ["no-such-package *"]},
    }
    result = one(check("wheels", tmp_path, expect), "packages")
    assert result["ok"] and result["found"] == "0 packages; left out: no-such-package"
    result = one(check("wheels", tmp_path, {**expect, "type": "dev"}), "packages")
    assert not result["ok"]
    expect["params"] = {"not-in-runtime": ["pytest *"]}
    result = one(check("wheels", tmp_path, expect), "packages")
    assert not result["ok"] and "pytest is there" in result["found"]


_APPLICATION = ('link = "/usr/local/bin/application"', 'link = os.environ["HOME"] + "/application"')
_COMMAND = ["xapp", "{clip}", "{output}", "--summary={summary}"]


@pytest.mark.parametrize(
    ("summary", "ok"),
    [
        ('{"frames": 50}', True),
        ('{"frames": 0}', False),
        ('{"frames": true}', False),
        ("{", False),
        ("{}", False),
    ],
)
def test_application_check_reads_the_summary(tmp_path: Path, summary: str, ok: bool) -> None:
    script(tmp_path / "ffmpeg", 'for f in "$@"; do last="$f"; done; echo clip > "$last"')
    script(tmp_path / "xapp", f'cp "$1" "$2"; printf \'%s\' \'{summary}\' > "${{3#--summary=}}"')
    (tmp_path / "application").symlink_to("xapp")
    results = check(
        "application", tmp_path, {"application": {"name": "xapp", "check": _COMMAND}}, _APPLICATION
    )
    assert [r["check"] for r in results] == [
        "program",
        "test clip",
        "check command",
        "output",
        "summary",
    ]
    assert [r["ok"] for r in results] == [True, True, True, True, ok], results


def test_application_check_fails_with_the_program(tmp_path: Path) -> None:
    script(tmp_path / "ffmpeg", 'for f in "$@"; do last="$f"; done; echo clip > "$last"')
    script(tmp_path / "xapp", "echo no GPU here >&2; exit 3")
    results = check(
        "application", tmp_path, {"application": {"name": "xapp", "check": _COMMAND}}, _APPLICATION
    )
    assert one(results, "check command")["found"] == "exit code 3: no GPU here"
    assert (
        not one(results, "program")["ok"]
        and not one(results, "output")["ok"]
        and not one(results, "summary")["ok"]
    )


@pytest.mark.parametrize(
    ("command", "there", "ok"),
    [(["tool", "--serve"], True, True), (["tool"], False, False), ([], False, False)],
)
def test_application_check_looks_for_the_command(
    tmp_path: Path, command: list[str], there: bool, ok: bool
) -> None:
    script(tmp_path / "application", "exit 0")
    if there:
        script(tmp_path / "tool", "exit 0")
    expected = {"application": {"name": "xapp", "command": command, "check": ["true"]}}
    results = check("application", tmp_path, expected, _APPLICATION)
    assert one(results, "program")["ok"] is ok
