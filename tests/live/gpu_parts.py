"""Make small substitutes for NVIDIA's and PyTorch's packages with the same layouts and metadata.

gcc makes the libraries, with the real SONAMEs and dependencies. The Python bindings are extension
modules that ask the library for its version. So `ldd`, the loader, ldconfig, CMake, pip and apt
work as with the real packages. No headers are needed: the few declarations are in this module.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from pathlib import Path

from apt_repositories import clear_signed, index_of

PLATFORM = "x86_64-linux-gnu"
_MODULE = """
typedef struct {{ long refs; void *type; void *init; long index; void *copy;
                 const char *name; const char *doc; long size;
                 void *methods, *slots, *traverse, *clear, *release; }} Definition;
extern void *PyModule_Create2(Definition *, int);
extern int PyModule_AddStringConstant(void *, const char *, const char *);
extern void *PyUnicode_FromFormat(const char *, ...);
extern const char *PyUnicode_AsUTF8(void *);
{declarations}
static Definition definition = {{ 1, 0, 0, 0, 0, "{name}", 0, -1 }};
void *PyInit_{name}(void) {{
    void *module = PyModule_Create2(&definition, 1013);
    if (module) PyModule_AddStringConstant(module, "__version__", PyUnicode_AsUTF8({version}));
    return module;
}}
"""


def library(
    target: Path, soname: str, code: str = "", needs: Sequence[Path | str] = (), rpath: str = ""
) -> Path:
    """Compile a shared library. ``needs``: libraries to link, or SONAMEs that are not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    linked = []
    for need in needs:
        if isinstance(need, str):  # link against a stub that is deleted afterwards
            stub = target.parent / f".stub-{need}"
            _gcc([], f"-Wl,-soname,{need}", "-o", str(stub))
            linked.append(str(stub))
        else:
            linked.append(str(need))
    options = [f"-Wl,-soname,{soname}"] if soname else []
    options += [f"-Wl,-rpath,{rpath}"] if rpath else []
    _gcc(
        [code],
        *options,
        "-Wl,--no-as-needed",
        "-Wl,--allow-shlib-undefined",
        *linked,
        "-o",
        str(target),
    )
    for stub in target.parent.glob(".stub-*"):
        stub.unlink()
    return target


def module(
    target: Path,
    name: str,
    declarations: str,
    version: str,
    needs: Sequence[Path | str],
    rpath: str = "",
) -> Path:
    """Compile a Python extension whose ``__version__`` is the C expression ``version``."""
    code = _MODULE.format(name=name, declarations=declarations, version=version)
    return library(target, "", code, needs, rpath)


def _gcc(code: Sequence[str], *options: str) -> None:
    base = [
        "gcc",
        "-x",
        "c",
        "-",
        "-x",
        "none",
        "-shared",
        "-nostdlib",
        "-fPIC",
        "-O1",
        "-fno-stack-protector",
    ]
    subprocess.run(
        [*base, *options], input="".join(code) or "int gapforge_stub_;", text=True, check=True
    )


class TensorRT:
    """One TensorRT release: ``lib``, ``include`` and the Python binding, for tars and .debs."""

    def __init__(self, folder: Path, version: str) -> None:
        self.version = version
        self.three = version.rpartition(".")[0]
        self.major, minor, patch = self.three.split(".")
        self.parts = ["", "_plugin", "_lean", "_dispatch", "_vc_plugin"]
        number = (
            int(self.major) * (1000 if int(self.major) < 10 else 10000)
            + int(minor) * 100
            + int(patch)
        )
        self.folder, self.lib, self.include = folder, folder / "lib", folder / "include"
        core = self._part("nvinfer", f"int getInferLibVersion(void) {{ return {number}; }}")
        library(
            self.lib / f"libnvinfer_builder_resource.so.{self.three}",
            f"libnvinfer_builder_resource.so.{self.three}",
        )
        plugin = self._part(
            "nvinfer_plugin",
            "extern int getInferLibVersion(void); int initLibNvInferPlugins(void)"
            "{ return getInferLibVersion(); }",
            core,
        )
        self._part("nvinfer_vc_plugin", "", core)
        self._part("nvinfer_lean", f"int getInferLibVersion(void) {{ return {number}; }}")
        self._part("nvinfer_dispatch", f"int getInferLibVersion(void) {{ return {number}; }}")
        needs = [core, plugin, self._part("nvonnxparser", "", core)]
        if int(self.major) < 10:  # the Caffe and UFF parsers went with 10
            needs.append(self._part("nvparsers", "", core))
        unit = 1000 if int(self.major) < 10 else 10000
        self.binding = module(
            folder / "tensorrt.so",
            "tensorrt",
            "extern int getInferLibVersion(void);",
            f'PyUnicode_FromFormat("%d.%d.%d", getInferLibVersion() / {unit}, '
            f"getInferLibVersion() % {unit} / 100, getInferLibVersion() % 100)",
            needs,
        )
        self.include.mkdir()
        (self.include / "NvInferVersion.h").write_text(self._version_header())
        (self.include / "NvInfer.h").write_text(
            '#pragma once\n#include "NvInferVersion.h"\n'
            'extern "C" int getInferLibVersion() noexcept;\n'
        )
        (self.include / "NvInferPlugin.h").write_text('#include "NvInfer.h"\n')

    def _part(self, name: str, code: str, *needs: Path) -> Path:
        file = library(
            self.lib / f"lib{name}.so.{self.three}", f"lib{name}.so.{self.major}", code, needs
        )
        (self.lib / f"lib{name}.so.{self.major}").symlink_to(file.name)
        (self.lib / f"lib{name}.so").symlink_to(f"lib{name}.so.{self.major}")
        (self.lib / f"lib{name}_static.a").write_bytes(b"!<arch>\n")
        return file

    def _version_header(self) -> str:
        numbers = zip(("MAJOR", "MINOR", "PATCH", "BUILD"), self.version.split("."), strict=True)
        return "".join(
            f"#define NV_TENSORRT_{key} {value} //!< TensorRT {key.lower()} version.\n"
            for key, value in numbers
        )

    def wheel(self, name: str, tag: str) -> tuple[str, bytes]:
        """Return the binding as in the tar: tensorrt, tensorrt_lean or tensorrt_dispatch."""
        files: dict[str, bytes] = {
            f"{name}/__init__.py": self.init().encode(),
            f"{name}/tensorrt.so": self.binding.read_bytes(),
        }
        return wheel(name, self.three, f"{tag}-none-linux_x86_64", files, extras={"numpy": "numpy"})

    def init(self) -> str:
        """Return the binding's ``__init__.py``."""
        return "from .tensorrt import *\nfrom .tensorrt import __version__\n"

    def tar(self, tags: Sequence[str], *, broken: bool = False) -> bytes:
        """Return the release tar. 8.x has its files in targets/ and links to them. 10.x: reversed.

        The ONNX parser of a ``broken`` tar needs a library that does not exist.
        """
        top = self.folder / f"TensorRT-{self.version}"
        real, link = (
            (f"targets/{PLATFORM}", ".") if int(self.major) < 10 else (".", f"targets/{PLATFORM}")
        )
        shutil.copytree(self.lib, top / real / "lib", symlinks=True)
        if broken:
            parser = top / real / "lib" / f"libnvonnxparser.so.{self.three}"
            parser.unlink()
            library(parser, f"libnvonnxparser.so.{self.major}", "", ["libnowhere.so.7"])
        (top / real / "lib" / "stubs").mkdir()
        library(top / real / "lib" / "stubs" / "libnvrtc.so", "libnvrtc.so.11.2")
        (top / real / "bin").mkdir(parents=True)
        trtexec = (
            "extern int getInferLibVersion(void); void _start(void) {"
            ' __asm__ volatile("syscall" : : "a"(231), "D"(getInferLibVersion() < 8000)); }'
        )
        subprocess.run(
            [
                "gcc",
                "-x",
                "c",
                "-",
                "-x",
                "none",
                "-nostdlib",
                "-O1",
                "-fno-stack-protector",
                str(top / real / "lib" / "libnvinfer.so"),
                "-o",
                str(top / real / "bin" / "trtexec"),
            ],
            input=trtexec,
            text=True,
            check=True,
        )
        (top / link).mkdir(exist_ok=True, parents=True)
        for name in ("lib", "bin"):
            (top / link / name).symlink_to(os.path.relpath(top / real / name, top / link))
        shutil.copytree(self.include, top / "include")
        for name in (
            "data/mnist/mnist.onnx",
            f"samples/sampleOnnxMNIST/{self.three}.cpp",
            "doc/Acknowledgements.txt",
        ):
            (top / name).parent.mkdir(parents=True)
            (top / name).write_bytes(b"payload" * 100)
        (top / "python").mkdir()
        for tag in tags:
            for name in ("tensorrt", "tensorrt_lean", "tensorrt_dispatch"):
                file, data = self.wheel(name, tag)
                (top / "python" / file).write_bytes(data)
        (top / "graphsurgeon").mkdir()
        file, data = wheel(
            "graphsurgeon", "0.4.6", "py2.py3-none-any", {"graphsurgeon/__init__.py": b""}
        )
        (top / "graphsurgeon" / file).write_bytes(data)
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as archive:
            archive.add(top, top.name)
        shutil.rmtree(top)
        return raw.getvalue()

    def debs(self, folder: Path, build: str, python: str = "3.11") -> None:
        """Write the release's .debs, such as libnvinfer8 8.6.1.6-1+cuda11.8."""
        version = f"{self.version}-1+{build}"
        same = f"(= {version})"
        usr = f"usr/lib/{PLATFORM}"
        minor = int(python.split(".")[1])
        core = f"libnvinfer{self.major}"
        needs = {
            # cuDNN of any version, so of any CUDA.
            f"libnvinfer-plugin{self.major}": f"{core} {same}, libcudnn8",
            f"libnvonnxparsers{self.major}": f"{core} {same}",
        }
        stems = {
            core: "nvinfer",
            f"libnvinfer-plugin{self.major}": "nvinfer_plugin",
            f"libnvonnxparsers{self.major}": "nvonnxparser",
        }
        if int(self.major) < 10:
            needs[f"libnvparsers{self.major}"], stems[f"libnvparsers{self.major}"] = (
                f"{core} {same}",
                "nvparsers",
            )
        for package, stem in stems.items():
            files = {
                f"{usr}/{f.name}": f
                for f in (
                    self.lib / f"lib{stem}.so.{self.three}",
                    self.lib / f"lib{stem}.so.{self.major}",
                )
            }
            if package == core:
                resource = self.lib / f"libnvinfer_builder_resource.so.{self.three}"
                files[f"{usr}/{resource.name}"] = resource
            deb(folder, package, version, files, needs.get(package, ""))
        deb(
            folder,
            "libnvinfer-headers-dev",
            version,
            {f"usr/include/{PLATFORM}/{f.name}": f for f in sorted(self.include.iterdir())},
        )
        deb(
            folder,
            "libnvinfer-dev",
            version,
            {f"{usr}/{name}": self.lib / name for name in ("libnvinfer.so", "libnvinfer_static.a")},
            f"{core} {same}, libnvinfer-headers-dev {same}",
        )
        init = self.folder / "__init__.py"
        init.write_text(self.init())
        place = f"usr/lib/python{python}/dist-packages/tensorrt"
        deb(
            folder,
            "python3-libnvinfer",
            version,
            {f"{place}/__init__.py": init, f"{place}/tensorrt.so": self.binding},
            f"python3 (>= {python}), python3 (<< 3.{minor + 1}), "
            + ", ".join(f"{name} {same}" for name in stems),
        )


def cudnn_debs(folder: Path, version: str, builds: Sequence[str]) -> None:
    """Write libcudnn8 for several CUDA releases, such as 8.9.0.131-1+cuda11.8."""
    file = library(folder.parent / "cudnn" / "libcudnn.so.8", "libcudnn.so.8")
    for build in builds:
        deb(
            folder, "libcudnn8", f"{version}-1+{build}", {f"usr/lib/{PLATFORM}/libcudnn.so.8": file}
        )


def deb(
    folder: Path, package: str, version: str, files: Mapping[str, Path], depends: str = ""
) -> Path:
    """Make a .deb of ``files`` (place -> file; links stay links)."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{package}_{version}_amd64.deb"
    tree = folder.parent / f"tree-{target.stem}"
    control = (
        f"Package: {package}\nVersion: {version}\nArchitecture: amd64\n"
        "Maintainer: T <t@example.org>\nMulti-Arch: same\n"
        + (f"Depends: {depends}\n" if depends else "")
        + "Section: multiverse/devel\nDescription: substitute\n"
    )
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(control)
    if any(".so." in place for place in files):
        (tree / "DEBIAN" / "triggers").write_text("activate-noawait ldconfig\n")
    for place, file in files.items():
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, tree / place, follow_symlinks=False)
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(target)],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(tree)
    return target


def flat_files(folder: Path, home: Path) -> dict[str, bytes]:
    """Return a flat repository of ``folder`` (name -> bytes), signed with GNUPGHOME ``home``."""
    packages = index_of(folder).encode()
    files = {file.name: file.read_bytes() for file in sorted(folder.glob("*.deb"))}
    files |= {"Packages": packages, "Packages.gz": gzip.compress(packages, mtime=0)}
    lines = [
        "Origin: NVIDIA",
        "Label: NVIDIA CUDA",
        "Architecture: amd64",
        f"Date: {formatdate(usegmt=True).replace('GMT', 'UTC')}",
    ]
    lines.append("SHA256:")
    lines += [
        f" {hashlib.sha256(files[name]).hexdigest()} {len(files[name])} {name}"
        for name in ("Packages", "Packages.gz")
    ]
    files["Release"] = ("\n".join(lines) + "\n").encode()
    files["InRelease"] = clear_signed(home, files["Release"])
    return files


def local_repo_deb(folder: Path, debs: Path, name: str) -> Path:
    """Make the local-repository .deb: a flat repository in /var, its key and its source list."""
    tree = folder / "local-repo-files"
    tree.mkdir(parents=True)
    (tree / "Packages").write_text(index_of(debs))
    (tree / "Packages.gz").write_bytes(gzip.compress((tree / "Packages").read_bytes(), mtime=0))
    (tree / f"{name}.list").write_text(
        f"deb [signed-by=/usr/share/keyrings/{name}-keyring.gpg] file:///var/{name} /\n"
    )
    (tree / f"{name}-keyring.gpg").write_bytes(b"\x99key")
    files = {
        f"var/{name}/{file.name}": file
        for file in (*sorted(debs.glob("*.deb")), tree / "Packages", tree / "Packages.gz")
    }
    files |= {
        f"var/{name}/{name}-keyring.gpg": tree / f"{name}-keyring.gpg",
        f"etc/apt/sources.list.d/{name}.list": tree / f"{name}.list",
    }
    return deb(folder, name, "1.0-1", files)


def wheel(
    name: str,
    version: str,
    tag: str,
    files: Mapping[str, bytes],
    requires: Sequence[str] = (),
    extras: Mapping[str, str] | None = None,
) -> tuple[str, bytes]:
    """Return a wheel with a correct RECORD as (file name, bytes)."""
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: >=3.8\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in requires)
    metadata += "".join(
        f"Provides-Extra: {e}\nRequires-Dist: {need} ; extra == '{e}'\n"
        for e, need in (extras or {}).items()
    )
    pure = "true" if tag.endswith("-any") else "false"
    tags = "".join(
        f"Tag: {python}-{tag.split('-', 1)[1]}\n" for python in tag.split("-")[0].split(".")
    )
    content = dict(files)
    content[f"{info}/METADATA"] = metadata.encode()
    content[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: {pure}\n{tags}".encode()
    )

    def digest(data: bytes) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

    record = "".join(
        f"{path},sha256={digest(data)},{len(data)}\n" for path, data in content.items()
    )
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, data in content.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
    return f"{plain}-{version}-{tag}.whl", buffer.getvalue()


def torch_wheels(folder: Path) -> dict[str, bytes]:
    """Return torch 2.1.2+cu118, torchvision and torchaudio for CPython 3.11 (file name -> bytes).

    torch/lib holds CUDA's libraries and one that needs the driver's libcuda.so.1. torchvision's
    extension finds torch's libraries only because torch has loaded them. One extension of
    torchaudio is for an FFmpeg that the image does not have.
    """
    lib, local = folder / "torch" / "lib", "$ORIGIN"
    c10 = library(
        lib / "libc10.so",
        "libc10.so",
        'const char gapforge_torch_version[] = "2.1.2+cu118";',
        rpath=local,
    )
    cudart = library(lib / "libcudart-d0da41ae.so.11.0", "libcudart-d0da41ae.so.11.0")
    cpu = library(lib / "libtorch_cpu.so", "libtorch_cpu.so", "", [c10], local)
    cuda = library(lib / "libtorch_cuda.so", "libtorch_cuda.so", "", [c10, cpu, cudart], local)
    library(lib / "libcaffe2_nvrtc.so", "libcaffe2_nvrtc.so", "", ["libcuda.so.1"], local)
    torch = library(lib / "libtorch.so", "libtorch.so", "", [cpu, cuda], local)
    bridge = library(lib / "libtorch_python.so", "libtorch_python.so", "", [torch, c10], local)
    module(
        folder / "torch" / "_C.cpython-311-x86_64-linux-gnu.so",
        "_C",
        "extern const char gapforge_torch_version[];",
        'PyUnicode_FromFormat("%s", gapforge_torch_version)',
        [bridge, c10],
        "$ORIGIN/lib",
    )
    init = (
        "import filelock, fsspec, jinja2, networkx, sympy, typing_extensions  # noqa\n"
        "from . import cuda, version\nfrom ._C import __version__\n"
    )
    texts = {
        "torch/__init__.py": init,
        "torch/version.py": "__version__ = '2.1.2+cu118'\ncuda = '11.8'\nhip = None\n",
        "torch/cuda/__init__.py": "import ctypes\n\ndef is_available():\n    try:\n"
        "        ctypes.CDLL('libcuda.so.1')\n    except OSError:\n        return False\n"
        "    return True\n",
        "torch/include/ATen/ATen.h": "#pragma once\n",
        "torch/share/cmake/Torch/TorchConfig.cmake": "\n",
        "torchvision/__init__.py": "import ctypes, pathlib, torch\n"
        "ctypes.CDLL(str(pathlib.Path(__file__).with_name('_C.so')))\n"
        "__version__ = '0.16.2+cu118'\n",
        "torchaudio/__init__.py": "import torch\n__version__ = '2.1.2+cu118'\n",
    }
    library(folder / "torchvision" / "_C.so", "", "", [torch, c10, cudart])
    library(
        folder / "torchaudio" / "lib" / "libtorchaudio.so", "libtorchaudio.so", "", [torch, c10]
    )
    library(
        folder / "torchaudio" / "lib" / "libtorchaudio_ffmpeg5.so",
        "libtorchaudio_ffmpeg5.so",
        "",
        ["libavcodec.so.59"],
    )
    for place, text in texts.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text)
    own = [
        *(
            f"{name}"
            for name in ("filelock", "typing-extensions", "sympy", "networkx", "jinja2", "fsspec")
        ),
        'triton==2.1.0 ; platform_system == "Linux" and platform_machine == "x86_64"',
    ]
    sets = {
        "torch": ("2.1.2+cu118", own),
        "torchaudio": ("2.1.2+cu118", ["torch==2.1.2"]),
        "torchvision": (
            "0.16.2+cu118",
            ["numpy", "requests", "torch==2.1.2", "pillow!=8.3.*,>=5.3.0"],
        ),
    }
    found = {}
    for name, (version, requires) in sets.items():
        files = {
            f.relative_to(folder).as_posix(): f.read_bytes()
            for f in sorted((folder / name).rglob("*"))
            if f.is_file()
        }
        file, data = wheel(name, version, "cp311-cp311-linux_x86_64", files, requires)
        found[file] = data
    return found
