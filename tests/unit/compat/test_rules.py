"""Check compatible and incompatible versions; what is expected are facts from their sources."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

import samples
from gapforge.compat import tensorrt
from gapforge.compat.driver import (
    ENOUGH,
    LIMITED,
    TOO_OLD,
    UNKNOWN,
    DriverNeed,
    check_driver,
    driver_need,
)
from gapforge.compat.findings import Finding
from gapforge.compat.gpu_code import tensorrt_supports
from gapforge.compat.rules import check_preset
from gapforge.compat.tensorrt import short_version
from gapforge.compat.torch import builds_for
from gapforge.model import catalog as catalogs
from gapforge.model.preset import faults_of, load, parse
from raised_errors import values_of
from samples import ROOT

CATALOG = catalogs.load(ROOT / "catalog")
REFERENCE = json.dumps(load(ROOT / "presets/ubuntu22.04-cuda11.8-torch2.1.json").raw)
SEVERITIES: dict[str, list[str]] = {"yes": [], "unknown": ["warning"], "no": ["error"]}

# CUDA -> (builder tag, cuDNN), as NVIDIA's tags spell them
BASES = {
    "11.8": ("nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04", "8.9"),
    "12.1": ("nvidia/cuda:12.1.1-cudnn8-devel-ubuntu22.04", "8.9"),
    "12.2": ("nvidia/cuda:12.2.2-cudnn8-devel-ubuntu22.04", "8.9"),
    "12.4": ("nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04", "9.1"),
    "12.6": ("nvidia/cuda:12.6.3-cudnn-devel-ubuntu22.04", "9"),
}


def stack(**changes: Any) -> dict[str, Any]:
    """Return the reference preset with replaced members; "a__b" is a member of an object.

    Its archives of FFmpeg and OpenCV do not tell their version.
    """
    raw: dict[str, Any] = json.loads(REFERENCE)
    for name in ("ffmpeg", "opencv", "opencv-contrib"):
        raw["sources"][name] = {"urls": [f"https://example.com/{name}.tar.gz"], "sha256": "0" * 64}
    for path, value in changes.items():
        *parents, name = path.split("__")
        holder: Any = raw
        for parent in parents:
            holder = holder[parent]
        holder[name] = value
    return raw


def on(cuda: str, raw: dict[str, Any]) -> dict[str, Any]:
    """Return the preset with the base images of another CUDA."""
    builder, cudnn = BASES[cuda]
    raw["cuda"], raw["cudnn"] = cuda, cudnn
    raw["base"] = {
        "builder": {"image": builder},
        "runtime": {"image": builder.replace("devel", "runtime")},
    }
    return raw


def findings(raw: dict[str, Any], *rules: str) -> list[Finding]:
    """Return the findings of a valid preset, or only those of some rules."""
    assert faults_of(raw, "test", samples.COMPONENTS) == []
    found = check_preset(parse(raw, samples.COMPONENTS), CATALOG)
    return [f for f in found if not rules or f.rule in rules]


def errors(raw: dict[str, Any], *rules: str) -> list[Finding]:
    return [f for f in findings(raw, *rules) if f.severity == "error"]


def reason(found: list[Finding]) -> Mapping[str, object]:
    """Return the values in the reason of the only finding."""
    (finding,) = found
    return values_of(finding.reason)


def suggestion(found: list[Finding]) -> Mapping[str, object]:
    """Return the values in the suggestion of the only finding."""
    (finding,) = found
    return values_of(finding.suggestion)


def torch_set(version: str, vision: str, audio: str, build: str) -> dict[str, str]:
    return {
        "torch": f"{version}+{build}",
        "torchvision": f"{vision}+{build}",
        "torchaudio": f"{audio}+{build}",
        "index": f"https://download.pytorch.org/whl/{build}",
    }


def with_tensorrt(version: str, cuda: str, **changes: Any) -> dict[str, Any]:
    """Return the reference preset with the tar file of a TensorRT that is built for ``cuda``."""
    file = f"TensorRT-{version}.Linux.x86_64-gnu.cuda-{cuda}.tar.gz"
    raw = stack(tensorrt={"version": version, "form": "tar"}, **changes)
    raw["sources"]["tensorrt"] = {"urls": [f"https://example.com/{file}"], "sha256": "0" * 64}
    return raw


def test_shipped_presets_have_no_errors() -> None:
    for file in sorted((ROOT / "presets").glob("*.json")):
        if not file.name.endswith(".lock.json"):
            raw = load(file).raw
            assert errors(raw) == findings(raw, "unknown") == [], file.name


# PyTorch's own release matrix: torch -> (torchvision, builds, Pythons with wheels of both).
TORCH = {
    "2.0.1": ("0.15.2", "cu117 cu118", "3.8 3.9 3.10 3.11"),
    "2.1.2": ("0.16.2", "cu118 cu121", "3.8 3.9 3.10 3.11"),
    "2.2.2": ("0.17.2", "cu118 cu121", "3.8 3.9 3.10 3.11 3.12"),
    "2.4.1": ("0.19.1", "cu118 cu121 cu124", "3.8 3.9 3.10 3.11 3.12"),
    "2.5.1": ("0.20.1", "cu118 cu121 cu124", "3.9 3.10 3.11 3.12"),
    "2.7.1": ("0.22.1", "cu118 cu126 cu128", "3.9 3.10 3.11 3.12 3.13"),
    "2.8.0": ("0.23.0", "cu126 cu128 cu129", "3.9 3.10 3.11 3.12 3.13"),
}
TORCHAUDIO = {torch: "2.0.2" if torch == "2.0.1" else torch for torch in TORCH}
CUDA_OF_BUILD = {
    "cu117": "11.7",
    "cu118": "11.8",
    "cu121": "12.1",
    "cu124": "12.4",
    "cu126": "12.6",
    "cu128": "12.8",
    "cu129": "12.9",
}


def release(torch: str, build: str = "") -> dict[str, str]:
    vision, builds, _pythons = TORCH[torch]
    return torch_set(torch, vision, TORCHAUDIO[torch], build or builds.split()[0])


@pytest.mark.parametrize(
    ("cuda", "torch", "build"), list(itertools.product(BASES, TORCH, CUDA_OF_BUILD))
)
def test_torch_build_against_cuda(cuda: str, torch: str, build: str) -> None:
    raw = on(cuda, stack(pytorch=release(torch, build), tensorrt=None, opencv=None))
    same_major = CUDA_OF_BUILD[build].split(".")[0] == cuda.split(".")[0]
    found = findings(raw, "torch-build", "torch-cuda")
    fits = same_major and build in TORCH[torch][1].split()
    assert all(f.severity != "error" for f in found) == fits, found
    warned = any((f.rule, f.severity) == ("torch-cuda", "warning") for f in found)
    newer = float(CUDA_OF_BUILD[build]) > float(cuda)
    assert not fits or warned == newer


@pytest.mark.parametrize(
    ("cuda", "builds"),
    [
        ("", ["cpu"]),
        ("11.8.0", ["cu118"]),
        ("12.4", []),
        ("12.6.3", ["cu126"]),
        ("12.8", ["cu128", "cu126"]),
        ("13.0", []),
    ],
)
def test_builds_for_a_cuda_are_best_first(cuda: str, builds: list[str]) -> None:
    assert builds_for(CATALOG.torch["2.7.1"], cuda) == builds


@pytest.mark.parametrize(
    ("torch", "python"),
    list(itertools.product(TORCH, ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13"))),
)
def test_torch_against_python(torch: str, python: str) -> None:
    raw = on("11.8", stack(pytorch=release(torch), python__version=python, tensorrt=None))
    assert (errors(raw, "torch-python") == []) == (python in TORCH[torch][2].split())


# TensorRT: (version, CUDA of the file) -> CUDA versions of BASES that it supports, and those
# without a published range. All others are errors.
TENSORRT = {
    ("8.5.3.1", "11.8"): ("11.8", ""),
    ("8.6.1.6", "11.8"): ("11.8", ""),
    ("8.6.1.6", "12.0"): ("12.1", ""),
    ("10.0.1.6", "11.8"): ("11.8", ""),
    ("10.0.1.6", "12.4"): ("12.4", "12.1 12.2 12.6"),
    ("10.1.0.27", "12.4"): ("12.1 12.2 12.4", ""),
    ("10.3.0.26", "11.8"): ("11.8", ""),
    ("10.3.0.26", "12.5"): ("12.1 12.2 12.4", ""),
    ("10.6.0.26", "12.6"): ("12.1 12.2 12.4 12.6", ""),
    ("10.9.0.34", "12.8"): ("12.1 12.2 12.4 12.6", ""),
    ("10.13.0.35", "11.8"): ("11.8", ""),
    ("10.14.1.48", "12.9"): ("", "12.1 12.2 12.4 12.6"),
    ("10.14.1.48", "13.0"): ("", ""),
}


@pytest.mark.parametrize(("cuda", "file"), list(itertools.product(BASES, TENSORRT)))
def test_tensorrt_against_cuda(cuda: str, file: tuple[str, str]) -> None:
    raw = on(cuda, with_tensorrt(*file, pytorch=None, opencv=None))
    if file[0].startswith("8.") and BASES[cuda][1].startswith("9"):
        assert errors(raw, "tensorrt-cuda", "tensorrt-cudnn")
        return
    supported, undocumented = (text.split() for text in TENSORRT[file])
    expected = "yes" if cuda in supported else "unknown" if cuda in undocumented else "no"
    found = findings(raw, "tensorrt-cuda")
    assert [f.severity for f in found] == SEVERITIES[expected], found


def test_unconfirmed_tensorrt_is_not_suggested() -> None:
    warnings = 0
    for cuda, file, python in itertools.product(BASES, TENSORRT, ("3.10", "3.12")):
        raw = on(cuda, with_tensorrt(*file, pytorch=None, opencv=None, python={"version": python}))
        for found in findings(raw):
            warnings += found.rule == "tensorrt-cuda" and found.severity == "warning"
            assert values_of(found.suggestion).get("name") != short_version(file[0]), found
    assert warnings > 8


# FFmpeg -> nv-codec-headers that it builds with, and those that it does not; compiled to find out
HEADERS = {
    "4.2.1": ("9.1.23.1 11.1.5.2 12.0.16.0", "12.1.14.0 12.2.72.0 13.0.19.0"),
    "4.4.1": ("9.1.23.1 11.1.5.2 12.0.16.1", "12.1.14.0 12.2.72.0 13.0.19.0"),
    "5.1.4": ("9.1.23.1 11.1.5.2 12.0.16.1", "12.1.14.0 12.2.72.0 13.0.19.0"),
    "5.1.9": ("11.1.5.2 12.0.16.1", "12.1.14.0"),
    "6.0.1": ("11.1.5.2 12.0.16.0 12.1.14.0", "9.1.23.1 10.0.26.1 12.2.72.0 13.0.19.0"),
    "7.0.2": ("12.0.16.1 12.1.14.0 12.2.72.0 13.0.19.0", "9.1.23.1 10.0.26.1 11.1.5.2"),
}


@pytest.mark.parametrize(
    ("ffmpeg", "headers", "builds"),
    [
        (ffmpeg, version, builds)
        for ffmpeg, row in HEADERS.items()
        for builds, versions in zip((True, False), row, strict=True)
        for version in versions.split()
    ],
)
def test_headers_against_ffmpeg(ffmpeg: str, headers: str, builds: bool) -> None:
    raw = stack(ffmpeg__version=ffmpeg)
    raw["sources"]["nv-codec-headers"]["version"] = headers
    found = errors(raw, "headers")
    assert (found == []) == builds, found
    if found:
        assert re.fullmatch(r"nv-codec-headers 1[0-9.]+", str(suggestion(found)["name"]))


# OpenCV -> CUDA that it builds with, with DNN on the base image's own cuDNN (OpenCV's issues)
OPENCV = {
    "4.6.0": "11.8",
    "4.7.0": "11.8 12.1",
    "4.8.1": "11.8 12.1",
    "4.9.0": "11.8 12.1 12.2",
    "4.10.0": "11.8 12.1 12.2 12.4",
    "4.11.0": "11.8 12.1 12.2 12.4 12.6",
}


@pytest.mark.parametrize(("opencv", "cuda"), list(itertools.product(OPENCV, BASES)))
def test_opencv_against_cuda(opencv: str, cuda: str) -> None:
    raw = on(cuda, stack(opencv__version=opencv, tensorrt=None, pytorch=None))
    found = errors(raw, "opencv-cuda", "opencv-cudnn")
    assert (found == []) == (cuda in OPENCV[opencv].split()), found


def test_opencv_dnn_needs_fitting_cudnn() -> None:
    (found,) = errors(stack(cudnn=None, tensorrt=None), "opencv-cudnn")
    assert found.path.endswith("opencv.dnn")
    raw = stack(cudnn="9", tensorrt=None)
    raw["base"]["builder"]["image"] = "nvidia/cuda:12.3.2-cudnn9-devel-ubuntu22.04"
    assert reason(errors(raw, "opencv-cudnn")) == {"version": "4.9.0", "cudnn": "9"}
    assert suggestion(errors(raw, "opencv-cudnn"))["first"] == "OpenCV 4.10.0"
    raw["opencv"]["dnn"] = False
    assert errors(raw, "opencv-cudnn") == []


@pytest.mark.parametrize(
    ("cuda", "compute", "works"),
    [
        ("11.8", "8.9", True),
        ("11.8", "9.0", True),
        ("11.8", "10.0", False),
        ("11.8", "12.0", False),
        ("11.8", "6.1", True),
        ("12.4", "9.0", True),
        ("12.4", "12.0", False),
        ("12.6", "7.0", True),
        ("12.6", "12.0", False),
    ],
)
def test_gpu_architecture_against_cuda(cuda: str, compute: str, works: bool) -> None:
    raw = on(cuda, stack(opencv__architectures=["8.0", compute], tensorrt=None))
    found = errors(raw, "architecture")
    assert (found == []) == works, found


@pytest.mark.parametrize(
    ("cuda", "compute", "works"),
    [
        ("12.9", "7.0", True),
        ("13.0", "7.0", False),  # dropped in that very release
        ("13.0", "7.5", True),
        ("11.0", "8.6", False),
        ("11.1", "8.6", True),  # supported from that very release
        ("12.7", "12.0", False),
        ("12.8", "12.0", True),
    ],
)
def test_release_that_adds_or_drops_an_architecture(cuda: str, compute: str, works: bool) -> None:
    raw = stack(cuda=cuda, opencv__architectures=[compute], pytorch=None, tensorrt=None)
    assert (errors(raw, "architecture") == []) == works


# PyTorch's build -> compute capabilities that it runs on, among these
TORCH_GPUS = {
    "2.5.1+cu118": "7.0 8.9 9.0",
    "2.6.0+cu124": "7.0 8.9 9.0",
    "2.6.0+cu126": "7.0 8.9 9.0",
    "2.7.1+cu128": "8.9 9.0 10.0 10.3 12.0 12.1",
    "2.8.0+cu128": "7.0 8.9 9.0 10.0 10.3 12.0 12.1",
    "2.9.1+cu126": "7.0 8.9 9.0",
}


@pytest.mark.parametrize("compute", ["7.0", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1"])
@pytest.mark.parametrize("torch", TORCH_GPUS)
def test_torch_build_against_gpu(torch: str, compute: str) -> None:
    index = f"https://download.pytorch.org/whl/{torch.partition('+')[2]}"
    pytorch = {"torch": torch, "index": index}
    raw = stack(cuda="12.9", pytorch=pytorch, tensorrt=None, opencv__architectures=[compute])
    found = findings(raw, "torch-gpu")
    works = compute in TORCH_GPUS[torch].split()
    assert [f.severity for f in found] == SEVERITIES["yes" if works else "no"]
    if works:
        return
    name = f"torch {torch}"
    assert reason(found) == {"name": name, "compute": compute}
    better = str(suggestion(found).get("name", ""))
    if better.startswith("torch "):
        raw["pytorch"]["torch"] = better.removeprefix("torch ")
        assert findings(raw, "torch-gpu") == []


def test_torch_for_the_gpu_is_suggested() -> None:
    pytorch = {"torch": "2.6.0+cu126", "index": "https://download.pytorch.org/whl/cu126"}
    raw = stack(cuda="12.8", pytorch=pytorch, tensorrt=None, opencv__architectures=["8.6", "12.0"])
    assert suggestion(findings(raw, "torch-gpu")) == {"name": "torch 2.7.0+cu128"}
    raw["opencv"] = None  # no GPU is named
    assert findings(raw, "torch-gpu") == []


def test_unknown_torch_build_is_a_warning() -> None:
    pytorch = {"torch": "2.14.1+cu132", "index": "https://download.pytorch.org/whl/cu132"}
    raw = stack(cuda="13.2", pytorch=pytorch, tensorrt=None, opencv__architectures=["8.6"])
    about = [f for f in findings(raw, "unknown") if f.path == "$.pytorch.torch"]
    assert [values_of(f.reason)["name"] for f in about] == ["torch 2.14.1+cu132"]


@pytest.mark.parametrize(
    ("version", "cuda", "compute", "rule"),
    [
        ("10.7.0.23", "12.6", "12.0", "tensorrt-gpu"),
        ("10.8.0.43", "12.8", "12.0", ""),
        ("10.8.0.43", "12.8", "10.0", ""),
        ("10.8.0.43", "12.8", "12.1", "unknown"),
        ("10.5.0.18", "12.6", "7.0", "tensorrt-gpu"),
        ("10.4.0.26", "12.6", "7.0", ""),
        ("8.6.1.6", "11.8", "8.9", ""),
        ("8.6.1.6", "11.8", "8.7", "unknown"),  # Jetson: no source says so for x86-64
    ],
)
def test_tensorrt_against_gpu(version: str, cuda: str, compute: str, rule: str) -> None:
    raw = with_tensorrt(version, cuda, pytorch=None, opencv__architectures=[compute])
    raw["cuda"] = cuda
    path = "$.opencv.architectures"
    assert [f.rule for f in findings(raw) if f.path == path] == [rule] * bool(rule)


@pytest.mark.parametrize(
    ("version", "compute", "answer"),
    [
        ("8.5.1.7", "8.9", True),
        ("8.5.1.7", "9.0", True),
        ("8.4.3", "8.6", None),  # older than every release in the catalog
        ("8.4.3", "8.9", None),
        ("8.6.1", "99.0", None),
        ("10.0.1", "6.1", False),
        ("10.0", "6.1", False),
        ("10.0", "7.0", True),
        ("10.8", "12.0", True),
        ("10.7.0.23", "12.0", False),
    ],
)
def test_tensorrt_on_a_gpu_as_far_as_a_source_says(
    version: str, compute: str, answer: bool | None
) -> None:
    assert tensorrt_supports(version, compute, CATALOG) is answer


def test_unknown_cuda_gets_older_cuda_suggested() -> None:
    raw = stack(cuda="13.9", opencv__architectures=["7.0"], tensorrt=None)
    found = errors(raw, "architecture")
    assert reason(found) == {"dropped_in": "13.0", "name": "Volta", "compute": "7.0"}
    assert suggestion(found) == {"name": "CUDA < 13.0"}


@pytest.mark.parametrize(
    ("packages", "without", "severity", "module"),
    [
        (["opencv-python==4.10.0.84"], [], "error", "cv2"),
        (["opencv_contrib-python-headless"], [], "error", "cv2"),
        (["opencv-stubs"], [], "", ""),
        (["tensorrt==8.6.1"], [], "error", "tensorrt"),
        (["tensorrt-cu12-bindings"], [], "error", "tensorrt"),
        (["tensorrt-lean"], [], "", ""),
        (["albumentations==1.4.18"], [], "warning", "cv2"),
        (["albumentations==1.4.18"], ["opencv-python"], "warning", "cv2"),
        (["albumentations==1.4.18"], ["opencv-python-headless"], "", ""),
        (["torch-tensorrt"], [], "warning", "tensorrt"),
    ],
)
def test_package_over_a_module_of_the_image(
    packages: list[str], without: list[str], severity: str, module: str
) -> None:
    raw = stack(python__packages=packages, python__without=without)
    found = findings(raw, "module")
    assert [f.severity for f in found] == [severity] * bool(severity)
    if severity:
        assert reason(found)["module"] == module
        assert found[0].path == "$.python.packages[0]"
    if severity == "warning":
        names = json.loads(str(suggestion(found)["packages"]))
        raw["python"]["without"] = names
        assert set(without) < set(names) and findings(raw, "module") == []


def test_package_over_a_module_that_the_image_does_not_build() -> None:
    packages = ["opencv-python", "tensorrt", "albumentations"]
    for changes in (
        {"opencv": None, "tensorrt": None},
        {"opencv__modules": ["core"], "tensorrt__python": False},
    ):
        raw = stack(python__packages=packages, **changes)
        assert findings(raw, "module") == []


def test_package_is_listed_and_left_out() -> None:
    raw = stack(python__packages=["NumPy==1.26.4"], python__without=["numpy"])
    assert [f.severity for f in findings(raw, "module")] == ["error"]


@pytest.mark.parametrize(
    ("torch", "packages", "works"),
    [
        ("2.1.2", ["numpy==1.26.4"], True),
        ("2.1.2", ["numpy<2"], True),
        ("2.1.2", ["numpy"], False),
        ("2.1.2", [], False),
        ("2.1.2", ["numpy==2.0.1"], False),
        ("2.1.2", ["numpy>=1.26"], False),
        ("2.1.2", ["numpy<=2"], False),
        ("2.1.2", ["numpy<3"], False),
        ("2.1.2", ["NumPy~=1.24"], True),
        ("2.1.2", ["numpydoc==1.0", "numpy<2.0"], True),
        ("2.4.1", ["numpy==2.0.1"], True),
    ],
)
def test_old_torch_needs_numpy_1(torch: str, packages: list[str], works: bool) -> None:
    found = errors(stack(pytorch=release(torch), python__packages=packages), "numpy")
    assert (found == []) == works
    assert works or reason(found).get("requirement", "") == "".join(packages)


@pytest.mark.parametrize(("torch", "works"), [("2.2.9", False), ("2.3.9", True)])
def test_unknown_torch_may_need_numpy_1(torch: str, works: bool) -> None:
    raw = stack(pytorch__torch=f"{torch}+cu118", python__packages=["numpy"])
    assert (errors(raw, "numpy") == []) == works


@pytest.mark.parametrize(
    ("torch", "packages", "works"),
    [
        ("2.1.2", ["packaging==24.1"], True),
        ("2.1.2", ["Packaging>=22"], True),
        ("2.1.2", ["packaging"], True),
        ("2.1.2", [], False),
        ("2.0.1", ["packaging-legacy==1.0"], False),
        ("2.5.1", [], True),
    ],
)
def test_old_torch_needs_packaging(torch: str, packages: list[str], works: bool) -> None:
    raw = stack(pytorch__torch=torch, python__packages=["numpy==1.26.4", *packages])
    found = errors(raw, "packaging")
    assert (found == []) == works
    assert works or suggestion(found) == {"name": "packaging==24.1"}


def test_torchvision_and_torchaudio_must_match_torch() -> None:
    wrong = {**stack()["pytorch"], "torchvision": "0.17.0+cu118", "torchaudio": "2.1.2+cu121"}
    audio, vision = errors(stack(pytorch=wrong), "torch-pair")
    assert (audio.path, vision.path) == ("$.pytorch.torchaudio", "$.pytorch.torchvision")
    assert reason([audio]) == {
        "name": "torchaudio",
        "wanted": "2.1.2+cu121",
        "version": "2.1.2+cu118",
    }
    assert suggestion([audio]) == {"name": "torchaudio 2.1.2+cu118"}
    assert reason([vision]) == {"name": "torchvision", "wanted": "0.17.0", "version": "2.1.2"}
    assert suggestion([vision]) == {"name": "torchvision 0.16.2+cu118"}
    last = torch_set("2.13.0", "0.28.0", "2.11.0", "cu126")
    found = errors(on("12.6", stack(pytorch=last, tensorrt=None, opencv=None)), "torch-pair")
    assert reason(found) == {"name": "torchaudio", "version": "2.13.0"}
    assert suggestion(found) == {"name": "torchaudio"}


def test_torch_build_must_be_in_index() -> None:
    found = errors(stack(pytorch={"torch": "2.1.2+cu118", "index": "default"}), "torch-index")
    assert reason(found) == {"version": "2.1.2+cu118"}
    assert suggestion(found) == {"name": '"index": "https://download.pytorch.org/whl/cu118"'}
    for build, other in (("cu118", "cu121"), ("cu121", "cu118")):
        index = f"https://download.pytorch.org/whl/{other}"
        found = errors(stack(pytorch={"torch": f"2.1.2+{build}", "index": index}), "torch-index")
        assert reason(found) == {"version": f"2.1.2+{build}", "index_build": other}
        assert suggestion(found) == {"build": build}
    # The default index's own 2.1.2 is for CUDA 12.1.
    found = errors(stack(pytorch={"torch": "2.1.2", "index": "default"}), "torch-cuda")
    assert reason(found) == {"version": "2.1.2", "build": "cu121", "needed": "12", "cuda": "11.8"}
    assert suggestion(found) == {"name": "torch 2.1.2+cu118"}


def test_missing_build_names_torch_that_has_it() -> None:
    found = errors(stack(pytorch=release("2.8.0", "cu118")), "torch-build")
    assert reason(found)["builds"] == "cu126, cu128, cu129, cpu"
    assert suggestion(found) == {"name": "torch 2.7.1+cu118"}


def test_refused_tensorrt_names_one_that_fits() -> None:
    (found,) = errors(with_tensorrt("10.14.1.48", "12.9"))
    assert (found.rule, found.path) == ("tensorrt-cuda", "$.tensorrt.version")
    assert reason([found]) == {"name": "10.14.1", "ranges": "12.9 / 13.0"}
    assert suggestion([found]) == {"name": "8.6.1", "cuda": "11.8"}
    # a release that has a file for CUDA 11.8 too
    found_here = errors(with_tensorrt("10.3.0.26", "12.5"))
    assert (reason(found_here)["name"], suggestion(found_here)["name"]) == ("10.3.0", "8.6.1")


@pytest.mark.parametrize(("short", "found"), [("8.6.1", "8.6.1.6"), ("8.5", ""), ("8.6.1.", "")])
def test_short_version_of_tensorrt_names_one_release(short: str, found: str) -> None:
    release = tensorrt._find_release(short, CATALOG)
    assert (release.version if release else "") == found


def test_tensorrt_8_needs_its_cudnn() -> None:
    for version, fitting in (("8.6.1.6", ["8.9"]), ("10.3.0.26", ["", "7.6", "8.9", "9.1"])):
        release = CATALOG.tensorrt[version]
        fits = [c for c in ("", "7.6", "8.9", "9.1") if tensorrt.cudnn_fits(release, c)]
        assert fits == fitting


def test_releases_for_a_stack_are_newest_first() -> None:
    found = tensorrt.releases_for("11.8", "8.9", "3.10", CATALOG, confirmed=True)
    assert [r.version for r in found][:2] == ["8.6.1.6", "8.6.0.12"]


def test_tensorrt_10_for_cuda_11_warns() -> None:
    raw = with_tensorrt("10.3.0.26", "11.8")
    assert errors(raw) == []
    (found,) = findings(raw, "tensorrt-pair")
    assert (found.severity, suggestion([found])["name"]) == ("warning", "8.6.1")


def test_unknown_versions_are_warnings() -> None:
    raw = with_tensorrt(
        "12.0.0.1",
        "11.8",
        pytorch={"torch": "2.99.0+cu118", "index": "https://download.pytorch.org/whl/cu118"},
        opencv__version="4.99.0",
        ffmpeg__version="9.1",
        opencv__architectures=["15.5"],
    )
    assert errors(raw) == []
    nearest = {
        values_of(f.reason)["name"]: values_of(f.suggestion)["name"]
        for f in findings(raw, "unknown")
    }
    assert list(nearest) == [
        "compute 15.5",
        "OpenCV 4.99.0",
        "torch 2.99.0",
        "FFmpeg 9.1",
        "TensorRT 12.0.0.1",
    ]
    assert all(nearest.values()), nearest
    assert nearest["TensorRT 12.0.0.1"] == "8.6.1"


def test_nonfree_option_warns() -> None:
    raw = stack()
    raw["ffmpeg"]["configure"].append("--enable-libnpp")
    assert [f.severity for f in findings(raw, "nonfree")] == ["warning"]


def test_nvenc_needs_headers() -> None:
    raw = stack()
    del raw["sources"]["nv-codec-headers"]
    assert suggestion(errors(raw, "headers")) == {"name": "nv-codec-headers 11.1.5.2"}
    # the distribution's package of the same headers
    raw["apt"]["builder"].append("libffmpeg-nvenc-dev")
    assert errors(raw, "headers") == []
    raw["apt"]["builder"][-1] = "libffmpeg-nvenc-dev=12.2.72.0-1"
    assert reason(errors(raw, "headers"))["headers"] == "12.2.72.0"


def test_old_ffmpeg_with_nvcc_needs_flags() -> None:
    raw = stack(ffmpeg__version="4.2.4")
    raw["ffmpeg"]["configure"].append("--enable-cuda-nvcc")
    assert reason(errors(raw, "ffmpeg-nvcc"))["compute"] == "30"
    raw["ffmpeg"]["configure"].append("--nvccflags=-gencode arch=compute_75,code=sm_75 -O2")
    assert errors(raw, "ffmpeg-nvcc") == []


@pytest.mark.parametrize(
    ("base", "found"),
    [
        ({"image": "nvidia/cuda:11.8.0-cudnn8-devel-ubuntu20.04"}, "ubuntu 20.04"),
        ({"image": "nvidia/cuda:11.8.0-cudnn8-devel-rockylinux8"}, "rocky 8"),
        ({"image": "ubuntu:24.04"}, "ubuntu 24.04"),
        ({"image": "registry.example:5000/ubuntu:20.04"}, "ubuntu 20.04"),
        ({"image": "debian:12.5-slim"}, "debian 12.5"),
        ({"image": "debian:bullseye-slim"}, "debian 11"),
        ({"mmdebstrap": {"suite": "noble"}}, "ubuntu 24.04"),
        ({"image": "ubuntu:22.04"}, ""),
        ({"image": "ubuntu:jammy-20240111"}, ""),
        ({"image": "registry.example/ubuntu20/media:7"}, ""),
        ({"mmdebstrap": {"suite": "jammy"}}, ""),
    ],
)
def test_name_of_base_image_tells_another_os(base: dict[str, Any], found: str) -> None:
    raw = stack()
    raw["base"] = {"builder": base, "runtime": base}
    wrong = errors(raw, "base-os")
    assert [problem.path for problem in wrong] == (
        ["$.base.builder", "$.base.runtime"] if found else []
    )
    for problem in wrong:
        assert reason([problem]) == {"found": found, "wanted": "ubuntu 22.04"}


def test_base_image_must_match_preset() -> None:
    builder, runtime = errors(stack(cuda="12.1"), "base-cuda")
    assert reason([builder]) == {"image_cuda": "11.8", "cuda": "12.1"}
    assert str(suggestion([builder])["name"]).startswith("nvidia/cuda:12.1.1-cudnn8-devel")
    assert runtime.path == "$.base.runtime.image"
    found = errors(stack(cudnn="9.1", opencv=None, tensorrt=None), "base-cudnn")
    assert [values_of(f.suggestion) for f in found] == [{"image_cudnn": "8"}] * 2
    raw = stack()
    image = raw["base"]["builder"]["image"] = "nvidia/cuda:11.8.0-cudnn8-runtime-ubuntu22.04"
    assert reason(errors(raw, "base-devel")) == {"image": image}


def compiled(cuda: str, packages: list[str], *cmake: str) -> list[Finding]:
    """Return what is said of the compiler for a preset on the base image of a CUDA."""
    raw = on(cuda, stack(pytorch=None, tensorrt=None, apt__builder=packages))
    raw["opencv"]["cmake"] = [*raw["opencv"]["cmake"], *cmake]
    return findings(raw, "compiler")


@pytest.mark.parametrize(
    ("cuda", "packages", "cmake", "used"),
    [
        # Ubuntu 22.04's default is GCC 11. Another package beside it does not change that.
        ("11.8", ["g++"], [], ""),
        ("11.8", ["g++", "g++-12"], [], ""),
        ("11.8", ["g++-12"], [], ""),
        # The compiler that an option names is used, whatever the default is.
        ("11.8", ["g++", "g++-12"], ["-DCUDA_HOST_COMPILER=/usr/bin/g++-12"], "12"),
        ("12.1", ["g++", "g++-12"], ["-DCUDA_HOST_COMPILER=/usr/bin/g++-12"], ""),
        ("12.1", ["g++", "g++-13"], ["-DCMAKE_CUDA_HOST_COMPILER:FILEPATH=g++-13"], "13"),
        ("11.8", ["g++-12"], ["-DCMAKE_CXX_COMPILER=x86_64-linux-gnu-g++-12"], "12"),
        ("11.8", ["g++-12"], ["-DCMAKE_C_COMPILER=gcc-12"], "12"),
        (
            "11.8",
            ["g++-12"],
            ["-DCMAKE_C_COMPILER=gcc-12", "-DCUDA_HOST_COMPILER=/usr/bin/g++-11"],
            "",
        ),
        ("11.8", ["g++-12"], ["-DCUDA_HOST_COMPILER=g++-11", "-DCUDA_HOST_COMPILER=g++-12"], "12"),
        # A pin of the default package changes the default.
        ("11.8", ["g++=4:12.2.0-3ubuntu1"], [], "12"),
    ],
)
def test_compiler_that_nvcc_calls_must_suit_it(
    cuda: str, packages: list[str], cmake: list[str], used: str
) -> None:
    found = compiled(cuda, packages, *cmake)
    if not used:
        assert found == []
        return
    newest = {"11.8": "11", "12.1": "12"}[cuda]
    assert [f.severity for f in found] == ["error"]
    assert reason(found) == {"cuda": cuda, "newest": newest, "used": used, "component": "opencv"}
    assert suggestion(found)["gcc"] == newest
    option = str(suggestion(found)["option"])
    assert compiled(cuda, [*packages, f"g++-{newest}"], *cmake, option) == []


def test_default_compiler_of_another_system_is_judged() -> None:
    """Debian 12's default is GCC 12, which the nvcc of CUDA 11.8 does not support."""
    raw = stack(os={"id": "debian", "version": "12"}, practice=True, apt__builder=["g++", "g++-9"])
    raw.update(pytorch=None, tensorrt=None)
    assert reason(errors(raw, "compiler"))["used"] == "12"
    raw["opencv"]["cmake"].append("-DCUDA_HOST_COMPILER=/usr/bin/g++-9")
    assert findings(raw, "compiler") == []


@pytest.mark.parametrize(
    ("cuda", "cmake"),
    [
        ("12.1", ["-DCUDA_HOST_COMPILER=/usr/bin/clang++-14"]),
        ("12.1", ["-DCUDA_HOST_COMPILER=/opt/gcc/bin/mine"]),
        ("13.9", []),
    ],
)
def test_unknown_compiler_or_nvcc_is_a_warning(cuda: str, cmake: list[str]) -> None:
    raw = stack(cuda=cuda, pytorch=None, tensorrt=None)
    raw["opencv"]["cmake"] += cmake
    assert [f.severity for f in findings(raw, "compiler")] == ["warning"]


def test_compiler_must_suit_nvcc_of_ffmpeg() -> None:
    raw = stack(opencv=None)
    raw["ffmpeg"]["configure"].append("--nvccflags=-O2 -ccbin /usr/bin/g++-12")
    assert findings(raw, "compiler") == []  # nothing uses nvcc
    raw["ffmpeg"]["configure"].append("--enable-cuda-nvcc")
    found = errors(raw, "compiler")
    assert (reason(found)["used"], reason(found)["component"]) == ("12", "ffmpeg")
    assert found[0].path == "$.ffmpeg.configure"
    raw["ffmpeg"]["configure"][-2] = "--nvccflags=-O2 -ccbin=/usr/bin/g++-11"
    assert findings(raw, "compiler") == []


def test_python_must_be_in_archive() -> None:
    found = errors(stack(python__version="3.12"), "python-source")
    assert reason(found) == {"python": "3.12"}
    found = findings(stack(python__version="3.11"), "python-source")
    assert [f.severity for f in found] == ["warning"]
    raw = stack(python__version="3.12")
    raw["apt"]["sources"] = [
        {"name": "deadsnakes", "uri": "https://example.com/ppa", "suite": "jammy"}
    ]
    assert errors(raw, "python-source") == []


def test_tensorrt_packages_must_have_one_version() -> None:
    packages = ["libnvinfer8=8.6.1.6-1+cuda11.8", "libnvinfer-plugin8"]
    raw = stack(tensorrt={"version": "8.6.1.6", "form": "deb", "runtime": packages})
    del raw["sources"]["tensorrt"]
    (found,) = findings(raw, "tensorrt-pin")
    assert (found.severity, reason([found])) == ("warning", {"packages": "libnvinfer-plugin8"})
    packages[1] += "=8.6.1.6-1+cuda12.0"
    assert reason(errors(raw, "tensorrt-pin")) == {
        "versions": "8.6.1.6-1+cuda11.8, 8.6.1.6-1+cuda12.0"
    }


def test_tensorrt_8_needs_cudnn_8() -> None:
    found = errors(on("12.4", with_tensorrt("8.6.1.6", "12.0", pytorch=None)), "tensorrt-cudnn")
    assert reason(found) == {"name": "8.6.1", "needed": "8", "found": "9.1"}
    found = errors(stack(cudnn=None), "tensorrt-cudnn")
    assert reason(found) == {"name": "8.6.1", "needed": "8"}


def test_tensorrt_needs_cuda() -> None:
    raw = stack(cuda=None, cudnn=None, opencv=None, pytorch=None)
    raw["base"] = {role: {"image": "ubuntu:22.04"} for role in ("builder", "runtime")}
    assert [f.path for f in errors(raw, "tensorrt-cuda")] == ["$.tensorrt"]


def test_required_driver_is_highest_of_cuda_and_headers() -> None:
    assert driver_need(parse(stack()), CATALOG).lowest == "470.57.02"
    raw = stack()
    raw["sources"]["nv-codec-headers"]["version"] = "9.1.23.1"
    assert driver_need(parse(raw), CATALOG).lowest == "450.80.02"
    newer = stack(ffmpeg__version="7.0.2")
    newer["sources"]["nv-codec-headers"]["version"] = "13.0.19.0"
    found = [f for f in findings(newer) if f.path == "$.sources.nv-codec-headers"]
    assert [f.rule for f in found] == ["headers-driver"]


# "no": does not compile (OpenCV's issues); "yes": public recipes build it; "unknown": no report
@pytest.mark.parametrize(
    ("opencv", "ffmpeg", "builds"),
    [
        ("4.5.5", "4.4.1", "yes"),
        ("4.5.5", "5.0.1", "no"),
        ("4.6.0", "5.0.1", "yes"),
        ("4.6.0", "5.1.9", "no"),
        ("4.7.0", "5.1.9", "yes"),
        ("4.9.0", "4.2.4", "yes"),
        ("4.9.0", "5.1.9", "yes"),
        ("4.9.0", "6.0.1", "yes"),
        ("4.9.0", "6.1.1", "unknown"),
        ("4.9.0", "7.0.2", "unknown"),
        ("4.11.0", "7.0.2", "yes"),
        ("4.11.0", "7.1.1", "unknown"),
        ("4.12.0", "7.1.1", "yes"),
        ("4.12.0", "8.0", "no"),
        ("4.13.0", "8.0", "yes"),
        ("4.13.0", "9.0", "no"),
    ],
)
def test_opencv_against_ffmpeg(opencv: str, ffmpeg: str, builds: str) -> None:
    raw = stack(opencv__version=opencv, ffmpeg__version=ffmpeg)
    found = findings(raw, "opencv-ffmpeg")
    assert [f.severity for f in found] == SEVERITIES[builds], found
    raw["opencv"]["cuda"] = raw["opencv"]["dnn"] = False
    assert findings(raw, "opencv-ffmpeg") == found  # with or without CUDA
    raw["opencv"]["cmake"].append("-DWITH_FFMPEG=OFF")
    assert findings(raw, "opencv-ffmpeg") == []


def test_opencv_against_ffmpeg_suggests_either() -> None:
    found = errors(stack(opencv__version="4.6.0"), "opencv-ffmpeg")
    assert reason(found) == {"version": "4.6.0", "fails": "5.1"}
    assert suggestion(found) == {"first": "OpenCV 4.7.0", "second": "FFmpeg < 5.1"}
    found = findings(stack(ffmpeg__version="7.0.2"), "opencv-ffmpeg")
    assert reason(found) == {"version": "4.9.0", "ffmpeg": "7.0.2"}
    assert suggestion(found) == {"first": "OpenCV 4.11.0", "second": "FFmpeg <= 6.0"}


@pytest.mark.parametrize(
    ("opencv", "packages", "warns"),
    [
        ("4.9.0", ["numpy==1.26.4"], False),
        ("4.9.0", ["numpy<2"], False),
        ("4.9.0", ["numpy==2.2.6"], True),
        ("4.9.0", ["numpy"], True),
        ("4.9.0", [], True),
        ("4.9.0", ["numpy>=1.26"], True),
        ("4.10.0", ["numpy==2.2.6"], False),
        ("4.12.0", [], False),
    ],
)
def test_opencv_against_numpy(opencv: str, packages: list[str], warns: bool) -> None:
    raw = stack(opencv__version=opencv, python__packages=packages, tensorrt=None, pytorch=None)
    found = findings(on("12.4", raw), "opencv-numpy")
    assert bool(found) == warns, found
    if found:
        assert reason(found) == {"numpy": "2", "version": opencv}
        assert suggestion(found) == {"first": "numpy<2", "second": "OpenCV 4.10.0"}


def test_opencv_with_unconfirmed_cuda_warns() -> None:
    raw = stack(cuda="12.8", cudnn="9", opencv__version="4.11.0", tensorrt=None, pytorch=None)
    raw["base"] = {
        "builder": {"image": "nvidia/cuda:12.8.1-cudnn-devel-ubuntu22.04"},
        "runtime": {"image": "nvidia/cuda:12.8.1-cudnn-runtime-ubuntu22.04"},
    }
    (found,) = findings(raw, "opencv-cuda")
    assert found.severity == "warning"
    assert reason([found]) == {"version": "4.11.0", "cuda": "12.8"}
    assert suggestion([found]) == {"name": "OpenCV 4.12.0"}
    raw["opencv"]["version"] = "4.12.0"
    assert findings(raw) == []


@pytest.mark.parametrize(
    ("cuda", "driver", "severity"),
    [
        ("11.8", "450.51", "error"),
        ("11.8", "470.57.02", "warning"),
        ("11.8", "520.61.05", ""),
        ("11.8", "570.124.06", ""),
        ("12.4", "520.61.05", "error"),
        ("12.4", "525.60.13", "warning"),
        ("12.4", "550.54.15", ""),
        ("12.4", "nonsense", "error"),
    ],
)
def test_driver_against_cuda(cuda: str, driver: str, severity: str) -> None:
    preset = parse(on(cuda, stack(tensorrt=None, pytorch=None, opencv=None)))
    found = check_driver(preset, driver, CATALOG)
    assert [f.severity for f in found] == ([severity] if severity else []), found


@pytest.mark.parametrize(
    ("driver", "full", "verdict"),
    [
        ("525.60.12", "550.54.14", TOO_OLD),
        ("525.60.13", "550.54.14", LIMITED),
        ("550.54.13", "550.54.14", LIMITED),
        ("550.54.14", "550.54.14", ENOUGH),
        ("525.60.13", "", ENOUGH),
    ],
)
def test_driver_of_exactly_the_needed_version_runs(driver: str, full: str, verdict: str) -> None:
    need = DriverNeed(cuda="12.4", for_cuda="525.60.13", full=full, headers="12", for_headers="530")
    assert need.verdict(driver) == verdict
    assert (need.lowest, need.reason) == ("530", "CUDA 12.4: 525.60.13, nv-codec-headers 12: 530")
    assert [need.runs_encoders(d) for d in ("529", "530", "531")] == [False, True, True]
    unknown = DriverNeed(full=full, headers="12", for_headers="530")
    assert (unknown.verdict(driver), unknown.lowest) == (UNKNOWN, "")
    assert unknown.reason == "nv-codec-headers 12: 530"


def test_old_driver_gets_newest_usable_cuda() -> None:
    preset = parse(on("12.4", stack(tensorrt=None, pytorch=None, opencv=None)))
    found = check_driver(preset, "470.82.01", CATALOG)
    assert reason(found) == {"driver": "470.82.01", "needed": "525.60.13", "product": "CUDA 12.4"}
    assert suggestion(found) == {"name": "CUDA 11.8"}
    (found_none,) = check_driver(preset, "450.51", CATALOG)
    assert values_of(found_none.suggestion) == {}
    raw = stack()
    raw["sources"]["nv-codec-headers"]["version"] = "12.0.16.1"
    found = check_driver(parse(raw), "470.82.01", CATALOG)
    assert reason(found) == {
        "driver": "470.82.01",
        "needed": "520.56.06",
        "product": "nv-codec-headers 12.0.16.1",
    }
    assert suggestion(found) == {"name": "nv-codec-headers 11.1.5.2"}


def test_table_is_large_enough() -> None:
    count = len(BASES) * len(TORCH) * len(CUDA_OF_BUILD) + len(TORCH) * 6
    count += len(BASES) * (len(TENSORRT) + len(OPENCV))
    count += sum(len(versions.split()) for row in HEADERS.values() for versions in row)
    assert count >= 300


@pytest.mark.parametrize("cuda", BASES)
def test_language_changes_only_the_text(cuda: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = on(cuda, stack(pytorch=torch_set("2.8.0", "0.15.2", "2.8.0", "cu118")))
    english = findings(raw)
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    korean = findings(raw)
    assert [f.to_json() for f in korean] == [f.to_json() for f in english] != []
    assert [f.text for f in english] == [f.to_json()["en"] for f in korean]
    assert [f.text for f in korean] == [f.to_json()["ko"] for f in english]


def test_korean_finding_is_a_whole_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    raw = on("12.4", with_tensorrt("8.6.1.6", "12.0"))
    assert [f.text for f in findings(raw, "opencv-cuda")] == [
        "OpenCV 4.9.0은 CUDA 12.4에서 빌드되지 않습니다"
        "(이전 버전은 CUDA 12.4에서 컴파일되지 않습니다); "
        "OpenCV 4.10.0 또는 CUDA < 12.4를 사용하십시오"
    ]


@pytest.mark.parametrize(
    "source", ["ffmpeg", "opencv", "opencv-contrib", "nv-codec-headers", "tensorrt"]
)
@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("version", "3.2.1"),
        ("file", "x-3.2.1.tar.gz"),
        ("urls", ["https://example.com/tags/3.2.1.tar.gz"]),
        ("urls", ["https://example.com/a.tar.gz", "https://example.com/n3.2.1.zip"]),
    ],
)
def test_archive_of_another_version_is_an_error(source: str, fact: str, value: object) -> None:
    raw = stack()
    component = source.removesuffix("-contrib")
    given = raw["sources"][source] if source == "nv-codec-headers" else raw[component]
    wanted = given["version"]
    raw["sources"][source][fact] = value
    (found,) = errors(raw, "source-version")
    if source == "nv-codec-headers" and fact == "version":
        assert found.path == f"$.sources.{source}.sha256"  # no component states its version
        assert reason([found]) == {"component": source, "version": "3.2.1", "found": wanted}
        return
    assert found.path == f"$.sources.{source}.{fact}"
    assert reason([found]) == {"component": component, "version": wanted, "found": "3.2.1"}


@pytest.mark.parametrize(
    "source", ["ffmpeg", "opencv", "opencv-contrib", "nv-codec-headers", "tensorrt"]
)
def test_checksum_of_another_version_is_an_error(source: str) -> None:
    raw = json.loads(REFERENCE)
    others = {
        "ffmpeg": CATALOG.ffmpeg["4.2"][0],
        "nv-codec-headers": CATALOG.headers["12.0.16.1"].archives[0],
        "tensorrt": CATALOG.tensorrt["10.3.0.26"].tars[0],
    }
    raw["sources"][source]["sha256"] = others.get(source, CATALOG.opencv["4.5.5"][0]).sha256
    (found,) = errors(raw, "source-version")
    assert found.path == f"$.sources.{source}.sha256"


def test_version_may_name_a_series() -> None:
    raw = stack(ffmpeg__version="5.1")
    raw["sources"]["ffmpeg"]["urls"] = ["https://ffmpeg.org/releases/ffmpeg-5.1.9.tar.xz"]
    assert errors(raw, "source-version") == []
    raw["sources"]["ffmpeg"]["urls"] = ["https://ffmpeg.org/releases/ffmpeg-5.11.tar.xz"]
    assert len(errors(raw, "source-version")) == 1
