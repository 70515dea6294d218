"""What works together. The expectations are facts as the sources state them, never read out of the catalog's code."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import samples
from gapforge.base.i18n import Message, template
from gapforge.compat import catalog as catalogs
from gapforge.compat.findings import Problem
from gapforge.compat.rules import check_preset, driver_problems, required_driver
from gapforge.compat.tensorrt import short
from gapforge.model.preset import faults_of, parse
from raised import values_of

ROOT = Path(__file__).resolve().parents[3]
CATALOG = catalogs.load(ROOT / "catalog")
REFERENCE = json.loads(
    (ROOT / "presets/ubuntu22.04-cuda11.8-torch2.1.json").read_text(encoding="utf-8")
)

# CUDA -> (builder tag, cuDNN generation), as NVIDIA's tags spell it
BASES = {
    "11.8": ("nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04", "8.9"),
    "12.1": ("nvidia/cuda:12.1.1-cudnn8-devel-ubuntu22.04", "8.9"),
    "12.2": ("nvidia/cuda:12.2.2-cudnn8-devel-ubuntu22.04", "8.9"),
    "12.4": ("nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04", "9.1"),
    "12.6": ("nvidia/cuda:12.6.3-cudnn-devel-ubuntu22.04", "9"),
}


def stack(**changes: Any) -> dict[str, Any]:
    """The reference preset with whole keys replaced; "a.b" reaches into objects."""
    raw: dict[str, Any] = copy.deepcopy(REFERENCE)
    for path, value in changes.items():
        target, *rest = path.split("__")
        holder: Any = raw
        while rest:
            holder = holder[target.replace("_", "-") if target not in holder else target]
            target, *rest = rest
        if value is ...:
            holder.pop(target, None)
        else:
            holder[target] = value
    return raw


def on(cuda: str, raw: dict[str, Any]) -> dict[str, Any]:
    builder, cudnn = BASES[cuda]
    raw["cuda"], raw["cudnn"] = cuda, cudnn
    raw["base"] = {
        "builder": {"image": builder},
        "runtime": {"image": builder.replace("devel", "runtime")},
    }
    return raw


def problems(raw: dict[str, Any]) -> list[Problem]:
    assert faults_of(raw, "test", samples.COMPONENTS) == []
    return check_preset(parse(raw), CATALOG)


def errors(raw: dict[str, Any], rule: str = "") -> list[Problem]:
    return [p for p in problems(raw) if p.severity == "error" and (not rule or p.rule == rule)]


def only_values(found: list[Problem]) -> Mapping[str, object]:
    """Return the arguments of the message of the only problem."""
    (problem,) = found
    return values_of(problem.text)


def torch_set(version: str, vision: str, audio: str, build: str) -> dict[str, str]:
    return {
        "torch": f"{version}+{build}",
        "torchvision": f"{vision}+{build}",
        "torchaudio": f"{audio}+{build}",
        "index": f"https://download.pytorch.org/whl/{build}",
    }


def tensorrt(version: str, cuda: str) -> tuple[dict[str, Any], dict[str, Any]]:
    file = f"TensorRT-{version}.Linux.x86_64-gnu.cuda-{cuda}.tar.gz"
    return (
        {"version": version, "form": "tar"},
        {"urls": [f"https://example.com/{file}"], "sha256": "0" * 64},
    )


def test_every_shipped_preset_is_sound() -> None:
    for file in sorted((ROOT / "presets").glob("*.json")):
        if not file.name.endswith(".lock.json"):
            raw = json.loads(file.read_text(encoding="utf-8"))
            assert errors(raw) == [], file.name
            assert [p for p in problems(raw) if p.rule == "unknown"] == [], file.name


# PyTorch's own release matrix: torch -> (torchvision, torchaudio, builds, Pythons with wheels of torch and torchvision)
TORCH = {
    "2.0.1": ("0.15.2", "2.0.2", ("cu117", "cu118"), ("3.8", "3.9", "3.10", "3.11")),
    "2.1.2": ("0.16.2", "2.1.2", ("cu118", "cu121"), ("3.8", "3.9", "3.10", "3.11")),
    "2.2.2": ("0.17.2", "2.2.2", ("cu118", "cu121"), ("3.8", "3.9", "3.10", "3.11", "3.12")),
    "2.4.1": (
        "0.19.1",
        "2.4.1",
        ("cu118", "cu121", "cu124"),
        ("3.8", "3.9", "3.10", "3.11", "3.12"),
    ),
    "2.5.1": ("0.20.1", "2.5.1", ("cu118", "cu121", "cu124"), ("3.9", "3.10", "3.11", "3.12")),
    "2.7.1": (
        "0.22.1",
        "2.7.1",
        ("cu118", "cu126", "cu128"),
        ("3.9", "3.10", "3.11", "3.12", "3.13"),
    ),
    "2.8.0": (
        "0.23.0",
        "2.8.0",
        ("cu126", "cu128", "cu129"),
        ("3.9", "3.10", "3.11", "3.12", "3.13"),
    ),
}
CU = {
    "cu117": "11.7",
    "cu118": "11.8",
    "cu121": "12.1",
    "cu124": "12.4",
    "cu126": "12.6",
    "cu128": "12.8",
    "cu129": "12.9",
}


@pytest.mark.parametrize(("cuda", "torch", "build"), list(itertools.product(BASES, TORCH, CU)))
def test_torch_build_against_cuda(cuda: str, torch: str, build: str) -> None:
    vision, audio, builds, _ = TORCH[torch]
    raw = on(
        cuda, stack(pytorch=torch_set(torch, vision, audio, build), tensorrt=None, opencv=None)
    )
    works = build in builds and CU[build].split(".")[0] == cuda.split(".")[0]
    found = [e for rule in ("torch-build", "torch-cuda") for e in errors(raw, rule)]
    assert (found == []) == works, found


@pytest.mark.parametrize(
    ("torch", "python"),
    list(itertools.product(TORCH, ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13"))),
)
def test_torch_against_python(torch: str, python: str) -> None:
    vision, audio, builds, pythons = TORCH[torch]
    raw = on(
        "11.8",
        stack(
            pytorch=torch_set(torch, vision, audio, builds[0]),
            python__version=python,
            tensorrt=None,
        ),
    )
    assert (errors(raw, "torch-python") == []) == (python in pythons)


# TensorRT: (version, CUDA of the file) -> CUDA versions of BASES that it serves: "yes", or "?" where NVIDIA published
# no range for that file. Everything else is refused.
TENSORRT = {
    ("8.5.3.1", "11.8"): {"11.8": "yes"},
    ("8.6.1.6", "11.8"): {"11.8": "yes"},
    ("8.6.1.6", "12.0"): {"12.1": "yes"},
    ("10.0.1.6", "11.8"): {"11.8": "yes"},
    ("10.0.1.6", "12.4"): {"12.1": "?", "12.2": "?", "12.4": "yes", "12.6": "?"},
    ("10.1.0.27", "12.4"): {"12.1": "yes", "12.2": "yes", "12.4": "yes"},
    ("10.3.0.26", "11.8"): {"11.8": "yes"},
    ("10.3.0.26", "12.5"): {"12.1": "yes", "12.2": "yes", "12.4": "yes"},
    ("10.6.0.26", "12.6"): {"12.1": "yes", "12.2": "yes", "12.4": "yes", "12.6": "yes"},
    ("10.9.0.34", "12.8"): {"12.1": "yes", "12.2": "yes", "12.4": "yes", "12.6": "yes"},
    ("10.13.0.35", "11.8"): {"11.8": "yes"},
    ("10.14.1.48", "12.9"): {"12.1": "?", "12.2": "?", "12.4": "?", "12.6": "?"},
    ("10.14.1.48", "13.0"): {},
}


SEVERITIES: dict[str, list[str]] = {"yes": [], "?": ["warning"], "no": ["error"]}


@pytest.mark.parametrize(("cuda", "file"), list(itertools.product(BASES, TENSORRT)))
def test_tensorrt_against_cuda(cuda: str, file: tuple[str, str]) -> None:
    part, source = tensorrt(*file)
    raw = on(cuda, stack(tensorrt=part, pytorch=None, opencv=None))
    raw["sources"]["tensorrt"] = source
    expected = TENSORRT[file].get(cuda, "no")
    if file[0].startswith("8.") and BASES[cuda][1].startswith("9"):
        assert errors(raw, "tensorrt-cuda") or errors(raw, "tensorrt-cudnn")
        return
    found = [p for p in problems(raw) if p.rule == "tensorrt-cuda"]
    assert [p.severity for p in found] == SEVERITIES[expected], found


def suggestions(text: object) -> list[object]:
    """Return what a message says to take instead, also in the messages that it contains."""
    values = text.values if isinstance(text, Message) else {}
    own = [values["take"]] if "take" in values else []
    return own + [v for value in values.values() for v in suggestions(value)]


def test_nobody_is_told_to_take_what_was_just_called_in_doubt() -> None:
    """Where nothing is confirmed (for this Python, say) nothing is called sure."""
    doubted = 0
    for cuda, file, python in itertools.product(BASES, TENSORRT, ("3.10", "3.12")):
        part, source = tensorrt(*file)
        raw = on(cuda, stack(tensorrt=part, pytorch=None, opencv=None, python={"version": python}))
        raw["sources"]["tensorrt"] = source
        for problem in problems(raw):
            doubted += problem.rule == "tensorrt-cuda" and problem.severity == "warning"
            assert short(file[0]) not in suggestions(problem.text), problem
    assert doubted > 8


# FFmpeg x nv-codec-headers, compiled; True: builds
HEADERS = {
    "4.2.1": {
        "9.1.23.1": True,
        "11.1.5.2": True,
        "12.0.16.0": True,
        "12.1.14.0": False,
        "12.2.72.0": False,
        "13.0.19.0": False,
    },
    "4.4.1": {
        "9.1.23.1": True,
        "11.1.5.2": True,
        "12.0.16.1": True,
        "12.1.14.0": False,
        "12.2.72.0": False,
        "13.0.19.0": False,
    },
    "5.1.4": {
        "9.1.23.1": True,
        "11.1.5.2": True,
        "12.0.16.1": True,
        "12.1.14.0": False,
        "12.2.72.0": False,
        "13.0.19.0": False,
    },
    "5.1.9": {"11.1.5.2": True, "12.0.16.1": True, "12.1.14.0": False},
    "6.0.1": {
        "9.1.23.1": False,
        "10.0.26.1": False,
        "11.1.5.2": True,
        "12.0.16.0": True,
        "12.1.14.0": True,
        "12.2.72.0": False,
        "13.0.19.0": False,
    },
    "7.0.2": {
        "9.1.23.1": False,
        "10.0.26.1": False,
        "11.1.5.2": False,
        "12.0.16.1": True,
        "12.1.14.0": True,
        "12.2.72.0": True,
        "13.0.19.0": True,
    },
}


@pytest.mark.parametrize(("ffmpeg", "headers"), [(f, h) for f, row in HEADERS.items() for h in row])
def test_headers_against_ffmpeg(ffmpeg: str, headers: str) -> None:
    raw = stack(ffmpeg__version=ffmpeg)
    raw["sources"]["nv-codec-headers"]["version"] = headers
    found = errors(raw, "headers")
    assert (found == []) == HEADERS[ffmpeg][headers], found
    if found:
        assert re.match(r"nv-codec-headers 1[0-9.]+$", str(only_values(found)["take"]))


# OpenCV x CUDA with DNN on the base's own cuDNN; True: builds (opencv's and opencv_contrib's issues)
OPENCV = {
    "4.6.0": {"11.8": True, "12.1": False, "12.2": False, "12.4": False, "12.6": False},
    "4.7.0": {"11.8": True, "12.1": True, "12.2": False, "12.4": False, "12.6": False},
    "4.8.1": {"11.8": True, "12.1": True, "12.2": False, "12.4": False, "12.6": False},
    "4.9.0": {"11.8": True, "12.1": True, "12.2": True, "12.4": False, "12.6": False},
    "4.10.0": {"11.8": True, "12.1": True, "12.2": True, "12.4": True, "12.6": False},
    "4.11.0": {"11.8": True, "12.1": True, "12.2": True, "12.4": True, "12.6": True},
}


@pytest.mark.parametrize(("opencv", "cuda"), list(itertools.product(OPENCV, BASES)))
def test_opencv_against_cuda(opencv: str, cuda: str) -> None:
    raw = on(cuda, stack(opencv__version=opencv, tensorrt=None, pytorch=None))
    found = [e for rule in ("opencv-cuda", "opencv-cudnn") for e in errors(raw, rule)]
    assert (found == []) == OPENCV[opencv][cuda], found


def test_opencv_dnn_needs_cudnn_and_old_opencv_needs_cudnn_8() -> None:
    raw = stack(cudnn=None, tensorrt=None)
    assert [p.path for p in errors(raw, "opencv-cudnn")] == ["$.opencv.dnn"]
    raw = stack(cudnn="9", tensorrt=None)
    raw["base"]["builder"]["image"] = "nvidia/cuda:12.3.2-cudnn9-devel-ubuntu22.04"
    assert only_values(errors(raw, "opencv-cudnn")) == {
        "version": "4.9.0",
        "cudnn": "9",
        "opencv": "4.10.0",
    }
    raw["opencv"]["dnn"] = False
    assert errors(raw, "opencv-cudnn") == []


# CUDA -> compute capabilities that its nvcc does not know
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
def test_architecture_against_cuda(cuda: str, compute: str, works: bool) -> None:
    found = errors(
        on(cuda, stack(opencv__architectures=["8.0", compute], tensorrt=None)), "architecture"
    )
    assert (found == []) == works, found


def test_a_cuda_that_no_suggestion_covers_is_answered_with_another_cuda() -> None:
    raw = stack(cuda="13.9", opencv__architectures=["7.0"], tensorrt=None)
    found = only_values(errors(raw, "architecture"))
    assert (found["dropped_in"], found["name"], found["compute"]) == ("13.0", "Volta", "7.0")


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
        ("2.1.2", ["NumPy~=1.24"], True),
        ("2.1.2", ["numpydoc==1.0", "numpy<2.0"], True),
        ("2.4.1", ["numpy==2.0.1"], True),
    ],
)
def test_old_torch_needs_numpy_1(torch: str, packages: list[str], works: bool) -> None:
    vision, audio, builds, _ = TORCH[torch]
    raw = stack(pytorch=torch_set(torch, vision, audio, builds[0]), python__packages=packages)
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
def test_old_torch_imports_packaging_without_asking_for_it(
    torch: str, packages: list[str], works: bool
) -> None:
    raw = stack()
    raw["pytorch"]["torch"] = torch
    raw["python"]["packages"] = ["numpy==1.26.4", *packages]
    found = errors(raw, "packaging")
    assert (found == []) == works
    assert works or only_values(found) == {"version": torch}


def test_torchvision_and_torchaudio_are_pairs() -> None:
    wrong = {**REFERENCE["pytorch"], "torchvision": "0.17.0+cu118", "torchaudio": "2.1.2+cu121"}
    audio, vision = errors(stack(pytorch=wrong), "torch-pair")
    assert (audio.path, vision.path) == ("$.pytorch.torchaudio", "$.pytorch.torchvision")
    told = values_of(audio.text)
    assert (told["asked_for"], told["torch"]) == ("2.1.2+cu121", "2.1.2+cu118")
    assert (told["goes_with"], told["suffix"]) == ("2.1.2", "+cu118")
    told = values_of(vision.text)
    assert (told["asked_for"], told["version"]) == ("0.17.0", "2.1.2")
    assert (told["goes_with"], told["suffix"]) == ("0.16.2", "+cu118")
    last = torch_set("2.13.0", "0.28.0", "2.11.0", "cu126")
    found = errors(on("12.6", stack(pytorch=last, tensorrt=None, opencv=None)), "torch-pair")
    assert only_values(found) == {"name": "torchaudio", "version": "2.13.0"}


def test_local_builds_are_not_in_the_default_index() -> None:
    raw = stack(pytorch={"torch": "2.1.2+cu118", "index": "default"})
    assert only_values(errors(raw, "torch-index")) == {"own": "cu118", "torch": "2.1.2+cu118"}
    raw = stack(pytorch={"torch": "2.1.2+cu118", "index": "https://download.pytorch.org/whl/cu121"})
    told = only_values(errors(raw, "torch-index"))
    assert (told["own"], told["group"]) == ("cu118", "cu121")
    # The default index's own 2.1.2 is for CUDA 12.1.
    raw = stack(pytorch={"torch": "2.1.2", "index": "default"})
    assert only_values(errors(raw, "torch-cuda")) == {
        "version": "2.1.2",
        "build": "cu121",
        "own": "12",
        "cuda": "11.8",
        "take": "torch 2.1.2+cu118",
    }


def test_refused_tensorrt_names_one_that_works() -> None:
    part, source = tensorrt("10.14.1.48", "12.9")
    raw = stack(tensorrt=part)
    raw["sources"]["tensorrt"] = source
    (found,) = errors(raw)
    assert (found.rule, found.path) == ("tensorrt-cuda", "$.tensorrt.version")
    told = values_of(found.text)
    assert (told["name"], told["ranges"]) == ("10.14.1", "12.9 / 13.0")
    assert suggestions(found.text)[-1] == "8.6.1" in found.to_json()["ko"]
    part, source = tensorrt("10.3.0.26", "12.5")  # a release that has a file for CUDA 11.8 too
    raw = stack(tensorrt=part)
    raw["sources"]["tensorrt"] = source
    (found,) = errors(raw)
    assert (values_of(found.text)["name"], suggestions(found.text)[-1]) == ("10.3.0", "8.6.1")


def test_a_preset_may_name_tensorrt_10_for_cuda_11_by_hand() -> None:
    part, source = tensorrt("10.3.0.26", "11.8")
    raw = stack(tensorrt=part)
    raw["sources"]["tensorrt"] = source
    assert errors(raw) == []
    (told,) = [p for p in problems(raw) if p.rule == "tensorrt-pair"]
    assert (told.severity, suggestions(told.text)[-1]) == ("warning", "8.6.1")


def test_versions_the_catalog_does_not_know_are_warnings() -> None:
    part, source = tensorrt("12.0.0.1", "11.8")
    raw = stack(
        pytorch={"torch": "2.99.0+cu118", "index": "https://download.pytorch.org/whl/cu118"},
        tensorrt=part,
        opencv__version="4.99.0",
        ffmpeg__version="9.1",
        opencv__architectures=["15.5"],
    )
    raw["sources"]["tensorrt"] = source
    assert errors(raw) == []
    unknown = [p for p in problems(raw) if p.rule == "unknown"]
    assert [(p.severity, p.path) for p in unknown] == [
        ("warning", path)
        for path in (
            "$.opencv.architectures[0]",
            "$.opencv.version",
            "$.pytorch.torch",
            "$.sources.nv-codec-headers",
            "$.tensorrt.version",
        )
    ]
    assert all("nearest" in p.text for p in unknown), unknown


def test_nonfree_options_warn_and_nvenc_without_headers_is_refused() -> None:
    raw = stack()
    raw["ffmpeg"]["configure"].append("--enable-libnpp")
    assert [p.severity for p in problems(raw) if p.rule == "nonfree"] == ["warning"]
    del raw["sources"]["nv-codec-headers"]
    assert only_values(errors(raw, "headers")) == {"take": "nv-codec-headers 11.1.5.2"}
    raw["apt"]["builder"].append(
        "libffmpeg-nvenc-dev"
    )  # the distribution's package of the same headers
    assert errors(raw, "headers") == []
    raw["apt"]["builder"][-1] = "libffmpeg-nvenc-dev=12.2.72.0-1"
    assert only_values(errors(raw, "headers"))["headers"] == "12.2.72.0"


def test_old_ffmpeg_with_nvcc_needs_flags() -> None:
    raw = stack(ffmpeg__version="4.2.4")
    raw["ffmpeg"]["configure"].append("--enable-cuda-nvcc")
    assert "compute_30" in errors(raw, "ffmpeg-nvcc")[0].text
    raw["ffmpeg"]["configure"].append("--nvccflags=-gencode arch=compute_75,code=sm_75 -O2")
    assert errors(raw, "ffmpeg-nvcc") == []


def test_base_image_must_be_what_the_preset_says() -> None:
    builder, runtime = errors(stack(cuda="12.1"), "base-cuda")
    told = values_of(builder.text)
    assert (told["tag_cuda"], told["cuda"]) == ("11.8", "12.1")
    assert str(told["other"]).startswith("nvidia/cuda:12.1.1-cudnn8-devel")
    assert runtime.path == "$.base.runtime.image"
    found = errors(stack(cudnn="9.1", opencv=None, tensorrt=None), "base-cudnn")
    assert [values_of(p.text)["right"] for p in found] == ['"cudnn": "8"'] * 2
    raw = stack()
    raw["base"]["builder"]["image"] = "nvidia/cuda:11.8.0-cudnn8-runtime-ubuntu22.04"
    assert only_values(errors(raw, "base-devel"))["reference"] == raw["base"]["builder"]["image"]


def test_compiler_newer_than_nvcc_takes() -> None:
    raw = stack()
    raw["apt"]["builder"].append("g++-12")
    assert only_values(errors(raw, "compiler")) == {"cuda": "11.8", "most": "11", "used": "12"}
    assert errors(on("12.1", raw), "compiler") == []


def test_python_source() -> None:
    found = errors(stack(python__version="3.12"), "python-source")
    assert only_values(found) == {"python": "3.12"}
    assert [
        p.severity for p in problems(stack(python__version="3.11")) if p.rule == "python-source"
    ] == ["warning"]
    raw = stack(python__version="3.12")
    raw["apt"]["sources"] = [
        {"name": "deadsnakes", "uri": "https://example.com/ppa", "suite": "jammy"}
    ]
    assert errors(raw, "python-source") == []


def test_tensorrt_debs_must_be_pinned_to_one_version() -> None:
    part = {
        "version": "8.6.1.6",
        "form": "deb",
        "runtime": ["libnvinfer8=8.6.1.6-1+cuda11.8", "libnvinfer-plugin8"],
    }
    raw = stack(tensorrt=part)
    del raw["sources"]["tensorrt"]
    assert [p.severity for p in problems(raw) if p.rule == "tensorrt-pin"] == ["warning"]
    part["runtime"][1] += "=8.6.1.6-1+cuda12.0"  # type: ignore[index]
    assert len(errors(raw, "tensorrt-pin")) == 1


def test_tensorrt_8_needs_cudnn_8_and_cuda() -> None:
    part, source = tensorrt("8.6.1.6", "12.0")
    raw = on("12.4", stack(tensorrt=part, opencv=None, pytorch=None))
    raw["sources"]["tensorrt"] = source
    told = only_values(errors(raw, "tensorrt-cudnn"))
    assert told["cudnn"] == "8" and "9.1" in str(told["why"])
    bare = stack(cuda=None, cudnn=None, opencv=None, pytorch=None)
    bare["base"] = {"builder": {"image": "ubuntu:22.04"}, "runtime": {"image": "ubuntu:22.04"}}
    assert [p.path for p in errors(bare, "tensorrt-cuda")] == ["$.tensorrt"]


def test_required_driver_is_the_highest_of_cuda_and_headers() -> None:
    assert required_driver(parse(stack()), CATALOG) == "470.57.02"
    raw = stack()
    raw["sources"]["nv-codec-headers"]["version"] = "9.1.23.1"
    assert required_driver(parse(raw), CATALOG) == "450.80.02"
    newer = stack(ffmpeg__version="7.0.2")
    newer["sources"]["nv-codec-headers"]["version"] = "13.0.19.0"
    assert [p.rule for p in problems(newer) if p.path == "$.sources.nv-codec-headers"] == [
        "headers-driver"
    ]


# OpenCV x FFmpeg: "no" does not compile (OpenCV's issues), "?" nobody reported either way, "yes" is built by public recipes
@pytest.mark.parametrize(
    ("opencv", "ffmpeg", "verdict"),
    [
        ("4.5.5", "4.4.1", "yes"),
        ("4.5.5", "5.0.1", "no"),
        ("4.6.0", "5.0.1", "yes"),
        ("4.6.0", "5.1.9", "no"),
        ("4.7.0", "5.1.9", "yes"),
        ("4.9.0", "4.2.4", "yes"),
        ("4.9.0", "5.1.9", "yes"),
        ("4.9.0", "6.0.1", "yes"),
        ("4.9.0", "6.1.1", "?"),
        ("4.9.0", "7.0.2", "?"),
        ("4.11.0", "7.0.2", "yes"),
        ("4.11.0", "7.1.1", "?"),
        ("4.12.0", "7.1.1", "yes"),
        ("4.12.0", "8.0", "no"),
        ("4.13.0", "8.0", "yes"),
        ("4.13.0", "9.0", "no"),
    ],
)
def test_opencv_against_ffmpeg(opencv: str, ffmpeg: str, verdict: str) -> None:
    raw = stack(opencv__version=opencv, ffmpeg__version=ffmpeg)
    found = [p for p in problems(raw) if p.rule == "opencv-ffmpeg"]
    assert [p.severity for p in found] == SEVERITIES[verdict], found
    raw["opencv"]["cuda"] = raw["opencv"]["dnn"] = False
    assert [p.rule for p in problems(raw) if p.rule == "opencv-ffmpeg"] == [
        p.rule for p in found
    ]  # with or without CUDA
    raw["opencv"]["cmake"].append("-DWITH_FFMPEG=OFF")
    assert [p for p in problems(raw) if p.rule == "opencv-ffmpeg"] == []


def test_opencv_against_ffmpeg_says_both_ways_out() -> None:
    assert only_values(errors(stack(opencv__version="4.6.0"), "opencv-ffmpeg")) == {
        "version": "4.6.0",
        "fails": "5.1",
        "newer": "4.7.0",
        "below": "FFmpeg < 5.1",
    }
    (found,) = [p for p in problems(stack(ffmpeg__version="7.0.2")) if p.rule == "opencv-ffmpeg"]
    told = values_of(found.text)
    assert (told["version"], told["ffmpeg"], told["known"]) == ("4.9.0", "7.0.2", "6.0")
    assert "4.11.0" in str(told["rest"])


@pytest.mark.parametrize(
    ("opencv", "packages", "warned"),
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
def test_opencv_against_numpy(opencv: str, packages: list[str], warned: bool) -> None:
    raw = on(
        "12.4",
        stack(opencv__version=opencv, python__packages=packages, tensorrt=None, pytorch=None),
    )
    found = [p for p in problems(raw) if p.rule == "opencv-numpy"]
    assert bool(found) == warned, found
    if found:
        assert only_values(found) == {"numpy": "2", "least": "4.10.0", "version": opencv}


def test_opencv_under_a_new_cuda_is_confirmed_by_a_recipe_or_said_not_to_be() -> None:
    raw = stack(cuda="12.8", cudnn="9", opencv__version="4.11.0", tensorrt=None, pytorch=None)
    raw["base"] = {
        r: {"image": f"nvidia/cuda:12.8.1-cudnn-{t}-ubuntu22.04"}
        for r, t in (("builder", "devel"), ("runtime", "runtime"))
    }
    (found,) = [p for p in problems(raw) if p.rule == "opencv-cuda"]
    assert found.severity == "warning"
    assert values_of(found.text) == {
        "version": "4.11.0",
        "cuda": "12.8",
        "confirmed": "OpenCV 4.12.0",
    }
    raw["opencv"]["version"] = "4.12.0"
    assert problems(raw) == []


def test_nvcc_of_ffmpeg_has_the_same_compiler_limit() -> None:
    raw = stack(opencv=None)
    raw["apt"]["builder"].append("g++-12")
    assert errors(raw, "compiler") == []  # nothing there runs nvcc
    raw["ffmpeg"]["configure"].append("--enable-cuda-nvcc")
    assert only_values(errors(raw, "compiler"))["most"] == "11"


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
    found = driver_problems(preset, driver, CATALOG)
    assert [p.severity for p in found] == ([severity] if severity else []), found


def test_a_driver_that_is_too_old_gets_the_newest_cuda_that_runs() -> None:
    (found,) = driver_problems(
        parse(on("12.4", stack(tensorrt=None, pytorch=None, opencv=None))), "470.82.01", CATALOG
    )
    told = values_of(found.text)
    assert (told["driver"], told["least"]) == ("470.82.01", "525.60.13")
    assert (told["cuda"], told["fits"]) == ("12.4", "11.8")
    headers = stack()
    headers["sources"]["nv-codec-headers"]["version"] = "12.0.16.1"
    (found,) = driver_problems(parse(headers), "470.82.01", CATALOG)
    told = values_of(found.text)
    assert (told["headers_driver"], told["version"]) == ("520.56.06", "12.0.16.1")
    assert told["take"] == "nv-codec-headers 11.1.5.2"


def test_table_is_large_enough() -> None:
    count = len(BASES) * len(TORCH) * len(CU) + len(TORCH) * 6 + len(BASES) * len(TENSORRT)
    count += sum(map(len, HEADERS.values())) + len(OPENCV) * len(BASES)
    assert count >= 300


def untranslated(problem: Problem) -> tuple[str, str, str, str]:
    return problem.rule, problem.severity, problem.path, template(problem.text)


@pytest.mark.parametrize("cuda", BASES)
def test_language_changes_only_the_text(cuda: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = on(cuda, stack(pytorch=torch_set("2.8.0", "0.15.2", "2.8.0", "cu118")))
    english = problems(raw)
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    korean = problems(raw)
    assert list(map(untranslated, korean)) == list(map(untranslated, english)) != []
