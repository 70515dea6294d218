"""Check whole stacks of versions against the facts that their sources state.

The expected errors follow from ``data/compatibility-facts.json`` alone; the code under test has its
own copy of the facts in ``catalog/`` and its own way of reading them.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import samples
from gapforge.compat.rules import check_preset
from gapforge.model import catalog as catalogs
from gapforge.model.preset import faults_of, load, parse
from samples import ROOT

CATALOG = catalogs.load(ROOT / "catalog")
REFERENCE = json.dumps(load(ROOT / "presets/ubuntu22.04-cuda11.8-torch2.1.json").raw)
FACTS = json.loads(
    (Path(__file__).resolve().parents[1] / "data/compatibility-facts.json").read_text(
        encoding="utf-8"
    )
)

BASES = {base["cuda"]: base for base in FACTS["bases"]}
TORCH = {release["torch"]: release for release in FACTS["torch"]}
TENSORRT = {tar["file"]: tar for tar in FACTS["tensorrt"]}
HEADERS = {row["ffmpeg"]: row["builds"] for row in FACTS["ffmpeg_headers"]}
GPUS = {gpu["compute"]: gpu for gpu in FACTS["gpus"]}
BUILD_CUDA = {
    "cu117": "11.7",
    "cu118": "11.8",
    "cu121": "12.1",
    "cu124": "12.4",
    "cu126": "12.6",
    "cu128": "12.8",
    "cu130": "13.0",
}
NONE = "none"

CHOICES: dict[str, list[str]] = {
    "cuda": list(BASES),
    "torch": [NONE, *(f"{version}+{build}" for version in TORCH for build in BUILD_CUDA)],
    "python": ["3.8", "3.9", "3.10", "3.11", "3.12"],
    "tensorrt": [NONE, *TENSORRT],
    "ffmpeg": [f"{version} {headers}" for version, row in HEADERS.items() for headers in row],
    "opencv": ["4.5.5", "4.6.0", "4.7.0", "4.8.1", "4.9.0", "4.10.0", "4.11.0", "4.12.0"],
    "gpu": ["7.5", "8.6", "8.9", "9.0", "10.0", "12.0"],
    "gcc": ["11", "12", "13"],
    "numpy": ["1.26.4", "2.2.6"],
}
# The order matters: each choice is made among those that are compatible with the previous ones.


@dataclass(frozen=True)
class Stack:
    cuda: str
    torch: str
    python: str
    tensorrt: str
    ffmpeg: str
    opencv: str
    gpu: str
    gcc: str
    numpy: str


@cache
def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def generation(version: str) -> str:
    return version.split(".")[0]


@cache
def below(version: str, limit: str) -> bool:
    return number(version) < number(limit)


def faults(stack: Stack) -> set[str]:
    """Return the rules that a stack breaks according to the facts."""
    base, cuda = BASES[stack.cuda], ".".join(stack.cuda.split(".")[:2])
    found = torch_faults(stack, cuda) | tensorrt_faults(stack, cuda, base["cudnn"])
    ffmpeg, headers = stack.ffmpeg.split()
    if not HEADERS[ffmpeg][headers]:
        found.add("headers")
    for name, version in (("cuda", cuda), ("cudnn", base["cudnn"]), ("ffmpeg", ffmpeg)):
        if any(
            not below(version, need[name]) and below(stack.opencv, need["needs"])
            for need in FACTS[f"opencv_{name}"]
        ):
            found.add(f"opencv-{name}")
    first = GPUS[stack.gpu]["first_cuda"]
    if first and below(cuda, first):
        found.add("architecture")
    newest = FACTS["host_gcc"]["most"].get(cuda)
    if newest and below(newest, stack.gcc):
        found.add("compiler")
    return found


def runs(gpu: str, build: str) -> bool:
    """Return whether a build of PyTorch has code for a GPU's major version, up to its minor one."""
    codes = FACTS["torch_code"]["builds"][build].split()
    return any(generation(c) == generation(gpu) and not below(gpu, c) for c in codes)


def torch_faults(stack: Stack, cuda: str) -> set[str]:
    if stack.torch == NONE:
        return set()
    version, build = stack.torch.split("+")
    limit = FACTS["numpy_torch"][0]
    broken = {
        "torch-build": build not in TORCH[version]["builds"],
        "torch-cuda": generation(BUILD_CUDA[build]) != generation(cuda),
        "torch-gpu": build in TORCH[version]["builds"] and not runs(stack.gpu, build),
        "torch-python": stack.python not in TORCH[version]["pythons"],
        "numpy": not below(stack.numpy, limit["numpy"]) and below(version, limit["needs"]),
    }
    return {rule for rule, breaks in broken.items() if breaks}


def tensorrt_faults(stack: Stack, cuda: str, cudnn: str) -> set[str]:
    if stack.tensorrt == NONE:
        return set()
    tar = TENSORRT[stack.tensorrt]
    least, most = tar["range"] or (cuda, cuda)
    in_range = number(least) <= number(cuda) <= number(most)
    found = set()
    if generation(tar["cuda"]) != generation(cuda) or not in_range:
        found.add("tensorrt-cuda")
    if tar["cudnn"] and tar["cudnn"] != cudnn:
        found.add("tensorrt-cudnn")
    return found


def stacks() -> list[Stack]:
    """Return valid stacks, each also with one wrong choice, and random stacks; always the same."""
    dice = random.Random(20261123)
    valid: dict[Stack, None] = {}
    rest: dict[Stack, None] = {}
    names = [field.name for field in fields(Stack)]
    easy = Stack("11.8.0", NONE, "3.10", NONE, "4.2.1 11.1.5.3", "4.12.0", "7.5", "11", "1.26.4")
    cudas = list(BASES)
    every_choice = [(name, value) for name in names for value in CHOICES[name]]
    while len(valid) < 260:
        stack = replace(easy, cuda=cudas[len(valid) % len(cudas)])
        for name in dice.sample(names[1:], len(names) - 1):
            options = dice.sample(CHOICES[name], len(CHOICES[name]))
            changed = (replace(stack, **{name: value}) for value in options)
            stack = next(option for option in changed if not faults(option))
        valid[stack] = None
        others = dice.sample(every_choice, len(every_choice))
        changed = (replace(stack, **{name: value}) for name, value in others)
        rest[next(option for option in changed if faults(option))] = None
    while len(rest) < 400:
        rest[Stack(**{name: dice.choice(CHOICES[name]) for name in names})] = None
    return [*valid, *rest]


STACKS = stacks()


def preset_of(stack: Stack) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(REFERENCE)
    base = BASES[stack.cuda]
    raw["cuda"], raw["cudnn"] = ".".join(stack.cuda.split(".")[:2]), base["cudnn"]
    raw["base"] = {
        "builder": {"image": base["builder"]},
        "runtime": {"image": base["builder"].replace("-devel-", "-runtime-")},
    }
    raw["python"] = {
        "version": stack.python,
        "packages": [f"numpy=={stack.numpy}", "packaging==24.1"],
    }
    # An archive with every Python: where Python comes from is another rule, with its own test.
    raw["apt"]["sources"] = [
        {"name": "pythons", "uri": "https://packages.example.com/ubuntu", "suite": "jammy"}
    ]
    raw["apt"]["builder"] = [
        "build-essential",
        *([f"g++-{stack.gcc}"] if stack.gcc != "11" else []),
    ]
    raw["opencv"]["cmake"].append(f"-DCUDA_HOST_COMPILER=/usr/bin/g++-{stack.gcc}")
    raw["pytorch"] = raw["tensorrt"] = None
    del raw["sources"]["tensorrt"]
    if stack.torch != NONE:
        version, build = stack.torch.split("+")
        release = TORCH[version]
        trio = {
            "torch": version,
            "torchvision": release["torchvision"],
            "torchaudio": release["torchaudio"],
        }
        raw["pytorch"] = {name: f"{value}+{build}" for name, value in trio.items() if value}
        raw["pytorch"]["index"] = f"https://download.pytorch.org/whl/{build}"
    if stack.tensorrt != NONE:
        tar = TENSORRT[stack.tensorrt]
        raw["tensorrt"] = {"version": tar["version"], "form": "tar"}
        raw["sources"]["tensorrt"] = {
            "urls": [f"https://example.com/{tar['file']}"],
            "sha256": "0" * 64,
        }
    raw["ffmpeg"]["version"], raw["sources"]["nv-codec-headers"]["version"] = stack.ffmpeg.split()
    raw["opencv"]["version"], raw["opencv"]["architectures"] = stack.opencv, [stack.gpu]
    for name in ("ffmpeg", "opencv", "opencv-contrib"):  # archives that do not tell their version
        raw["sources"][name] = {"urls": [f"https://example.com/{name}.tar.gz"], "sha256": "0" * 64}
    return raw


@pytest.mark.parametrize(
    "stack", STACKS, ids=lambda s: "-".join(str(getattr(s, f.name)) for f in fields(Stack))
)
def test_errors_follow_from_facts(stack: Stack) -> None:
    raw = preset_of(stack)
    assert faults_of(raw, "stack", samples.COMPONENTS) == []
    errors = [f for f in check_preset(parse(raw), CATALOG) if f.severity == "error"]
    assert {f.rule for f in errors} == faults(stack), errors
    assert all(f.reason and f.suggestion for f in errors)


def test_stacks_cover_every_rule_and_version() -> None:
    assert len(set(STACKS)) == len(STACKS) >= 600
    verdicts = [frozenset(faults(stack)) for stack in STACKS]
    accepted, refused = verdicts.count(frozenset()), sum(map(bool, verdicts))
    assert accepted >= 260, accepted
    assert refused >= 300, refused
    names = "architecture compiler headers numpy opencv-cuda opencv-cudnn opencv-ffmpeg "
    names += "tensorrt-cuda tensorrt-cudnn torch-build torch-cuda torch-gpu torch-python"
    rules = set(names.split())
    assert set().union(*verdicts) == rules
    alone = {rule for verdict in verdicts if len(verdict) == 1 for rule in verdict}
    # rare without a wrong CUDA, or a PyTorch without code for the GPU
    assert alone >= rules - {"tensorrt-cudnn", "opencv-cudnn", "architecture"}
    for name, values in CHOICES.items():  # every version occurs, and for torch every build
        seen = {part for stack in STACKS for part in re.split("[+ ]", getattr(stack, name))}
        assert seen == {part for value in values for part in re.split("[+ ]", value)}, name
    for cuda in BASES:
        assert any(
            stack.cuda == cuda and not verdict
            for stack, verdict in zip(STACKS, verdicts, strict=True)
        ), cuda


def test_facts_have_sources() -> None:
    bare = [
        (name, row)
        for name, rows in FACTS.items()
        if isinstance(rows, list)
        for row in rows
        if not row["source"]
    ]
    assert bare == []
    assert all(FACTS[name]["source"] for name in ("host_gcc", "torch_code", "drivers"))


def test_drivers_equal_release_notes() -> None:
    for generation_, driver in FACTS["drivers"]["minor"].items():
        assert CATALOG.minor_drivers[generation_] == driver
    for cuda, driver in FACTS["drivers"]["toolkit"].items():
        assert CATALOG.drivers[cuda] == driver
