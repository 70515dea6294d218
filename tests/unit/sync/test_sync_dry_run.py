"""sync --dry-run of every preset: addresses, known sizes, the total, and no network."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import samples
from gapforge.base.project import Project
from gapforge.base.units import human_bytes
from gapforge.cli.verbs import sync
from gapforge.doctor import disk_estimate
from gapforge.model import preset as presets
from gapforge.model.lock import Lock, LockedImage
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset
from gapforge.model.preset_status import readiness_of
from gapforge.model.unresolved_item import OTHER, Reason, UnresolvedItem
from gapforge.store import download_preview, known_sizes
from gapforge.store.store import Store
from raised_errors import values_of
from samples import ROOT

SHIPPED = presets.names(ROOT / "presets")
TORCH = "ubuntu22.04-cuda12.4-torch2.5"
SIZED = "ubuntu22.04-cuda12.6-torch2.7"  # the catalog has the size of its TensorRT


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project without locks, in which no program can be started."""
    shutil.copytree(
        ROOT / "presets", tmp_path / "presets", ignore=shutil.ignore_patterns("*.lock.json")
    )
    (tmp_path / "catalog").symlink_to(ROOT / "catalog")

    def refuse(*args: Any, **kwargs: Any) -> Any:
        pytest.fail(f"a dry run started {args}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    return Project(tmp_path, tmp_path / "artifacts")


def dry(
    place: Project, name: str, capsys: pytest.CaptureFixture[str], *, as_json: bool = False
) -> str:
    args = argparse.Namespace(
        presets=[name],
        all=False,
        dry_run=True,
        lock_only=False,
        update=False,
        provided=None,
        json=as_json,
    )
    assert sync.run(args, place) == 0
    return capsys.readouterr().out


def parsed(place: Project, name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(dry(place, name, capsys, as_json=True))["presets"][0]
    return result


def lock_of(name: str, place: Project) -> Lock:
    """Return a lock with every kind of entry, for a preset with CUDA."""
    preset = presets.find(place.presets, name)
    image = {
        role: LockedImage(
            reference=f"{preset.base(role).image}@{preset.base(role).digest}",
            manifest_digest="sha256:" + "a" * 64,
            config_digest="sha256:" + "b" * 64,
            os_id="ubuntu",
            os_version="22.04",
        )
        for role in ("builder", "runtime")
    }
    assert preset.pytorch is not None
    entries = [
        *(
            samples.entry(
                "image", f"images/{r}/blobs/sha256/aa", name=r, roles=(r,), origin="image"
            )
            for r in ("builder", "runtime")
        ),
        *(
            replace(
                samples.entry(
                    "wheel",
                    f"wheels/{n}-{v}-cp310-cp310-linux_x86_64.whl",
                    name=n,
                    version=v,
                    origin="index:torch",
                ),
                size=700_000_000,
            )
            for n, v in (
                ("torch", preset.pytorch.torch),
                ("torchvision", preset.pytorch.torchvision),
                ("torchaudio", preset.pytorch.torchaudio),
            )
        ),
        *(
            samples.entry("source", f"sources/{s.name}", name=s.name, origin="url", urls=s.urls)
            for s in preset.sources.values()
        ),
        samples.entry(
            "deb", "debs/nasm_1_amd64.deb", name="nasm", origin="apt:base", roles=("builder",)
        ),
    ]
    return replace(samples.lock(preset, extra=tuple(entries)), images=image)


def addresses(screen: str) -> dict[str, str]:
    """Return where the preview says that each file comes from."""
    found, address = {}, ""
    for line in screen.splitlines():
        if line.startswith(("  get ", "  have ")):
            found[re.split(" {2,}", line.strip(), maxsplit=2)[2]] = address
        elif not line.startswith("    "):  # another address of the same file
            address = line
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_dry_run_without_lock(
    place: Project, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = dry(place, name, capsys)
    preset = presets.find(place.presets, name)
    for role in ("builder", "runtime"):
        assert addresses(screen)[f"image {role}"] == preset.base(role).label
    for source in preset.sources.values():
        for url in source.urls:
            assert url in screen
    for requirement in (
        *preset.packages,
        *(preset.pytorch.requirements() if preset.pytorch else ()),
    ):
        assert f"wheel {requirement}" in addresses(screen)
    for package in (*preset.apt_builder, *preset.apt_runtime):
        assert f"deb {package} (" in screen
    assert screen.startswith(f"{name}: ")
    # A digest in the preset pins the image.
    unpinned = not any(preset.base(role).digest for role in ROLES)
    assert (": 2 base images" in screen.splitlines()[-1]) == unpinned


@pytest.mark.parametrize("name", SHIPPED)
def test_dry_run_finds_known_sizes(
    place: Project, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {(f["kind"], f["name"]): f for f in parsed(place, name, capsys)["files"]}
    known = {"12.6": 4446480887, "12.8": 6917032417}
    if (cuda := presets.find(place.presets, name).cuda) in known:
        assert files["tensorrt", "tensorrt"]["size"] == known[cuda]
    assert {f["stored"] for f in files.values()} == {False}


def test_dry_run_excludes_stored_files(place: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = parsed(place, TORCH, capsys)
    ffmpeg = next(f for f in before["files"] if f["name"] == "ffmpeg")
    assert (ffmpeg["size"], ffmpeg["stored"]) == (None, False)
    file = Store(place.store).path(ffmpeg["sha256"])
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x" * 1234)
    after = parsed(place, TORCH, capsys)
    ffmpeg = next(f for f in after["files"] if f["name"] == "ffmpeg")
    assert (ffmpeg["size"], ffmpeg["stored"]) == (1234, True)
    assert after["bytes"] - after["missing_bytes"] == 1234
    assert after["size_unknown"] == before["size_unknown"] - 1


def test_dry_run_with_lock_lists_every_file(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = lock_of(TORCH, place)
    place.lock_file(TORCH).write_text(lock.render(), encoding="utf-8")
    screen = dry(place, TORCH, capsys)
    found = addresses(screen)
    assert found.keys() == {entry.path for entry in lock.entries}
    for entry in lock.entries:
        assert all(url in screen for url in entry.urls)
    wheel = "wheels/torch-2.5.1+cu124-cp310-cp310-linux_x86_64.whl"
    assert found[wheel] == "https://download.pytorch.org/whl/cu124"
    image = found["images/builder/blobs/sha256/aa"]
    assert image.startswith("nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04@sha256:")
    assert found["debs/nasm_1_amd64.deb"] == "the base image's APT sources"
    document = parsed(place, TORCH, capsys)
    assert document["locked"] is True
    sizes = {e.sha256: e.size for e in lock.entries}
    assert document["bytes"] == document["missing_bytes"] == sum(sizes.values())
    assert f"{len(lock.entries)} files, 2.1 GB; to download: 2.1 GB" in screen


def test_dry_run_uses_sizes_of_stale_lock(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = replace(lock_of(TORCH, place), preset_sha256="0" * 64)
    place.lock_file(TORCH).write_text(lock.render(), encoding="utf-8")
    document = parsed(place, TORCH, capsys)
    assert document["locked"] is False
    images = [f for f in document["files"] if f["kind"] == "image"]
    assert len(images) == 2 and all(f["size"] for f in images)


def test_holdings_of_images_wheels_and_files(place: Project) -> None:
    lock = lock_of(TORCH, place)
    place.lock_file(TORCH).write_text(lock.render(), encoding="utf-8")
    place.lock_file("broken").write_text("{", encoding="utf-8")  # passed over: check reports it
    held = known_sizes.read_known_sizes(place)
    builder, runtime = (
        f"nvidia/cuda:12.4.1-cudnn-{kind}-ubuntu22.04" for kind in ("devel", "runtime")
    )
    layer = len(b"content of images/builder/blobs/sha256/aa")
    assert (held.image(builder).size, held.image(builder).missing) == (layer, layer)
    assert held.image(builder, runtime).size == 2 * layer
    assert held.image(builder, builder).size == layer
    assert held.image("ubuntu:22.04").note == ""
    pinned = presets.find(place.presets, TORCH).builder.reference
    assert pinned.startswith(f"{builder}@sha256:") and held.image(pinned).size == layer
    assert held.image(f"{builder}@sha256:{'f' * 64}").size is None, "the tag has moved"
    torch = held.packages("3.10", ("torch", "2.5.1+cu124"), ("torchvision", "0.20.1+cu124"))
    assert (torch.size, torch.stored, torch.note) == (1_400_000_000, False, "adds 1.4 GB")
    assert held.packages("3.10", ("torch", "9.9")).size is None
    store = Store(place.store)
    sha256 = store.add_bytes(b"kept")
    assert held.file(sha256).note == "already in the store"
    assert held.file("").size is None


def partial_lock(place: Project) -> tuple[Preset, Lock]:
    """Return a lock without base images, .debs, TensorRT and one wheel, written to its place."""
    preset = presets.find(place.presets, SIZED)
    lock = lock_of(SIZED, place)
    gone = {"image", "deb", "tensorrt"}
    entries = [e for e in lock.entries if e.kind not in gone and e.name != "torch"]
    assert preset.pytorch is not None
    names = [
        *(("image", role) for role in ("builder", "runtime")),
        *(("deb", package) for package in {*preset.apt_builder, *preset.apt_runtime}),
        ("tensorrt", "tensorrt"),
        ("wheel", f"torch=={preset.pytorch.torch}"),
    ]
    unresolved = tuple(
        sorted(UnresolvedItem(kind, name, Reason(code=OTHER, text="x")) for kind, name in names)
    )
    lock = replace(lock, entries=tuple(entries), images={}, unresolved=unresolved)
    place.lock_file(SIZED).write_text(lock.render(), encoding="utf-8")
    return preset, lock


def test_partial_lock_counts_the_catalog_and_says_what_is_missing(
    place: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same figure in a dry run, in the list, at the prompt and in doctor's estimate."""
    preset, lock = partial_lock(place)
    known = known_sizes.read_known_sizes(place)
    tensorrt = known.sizes[preset.sources["tensorrt"].sha256]
    shown = download_preview.preview(preset, lock, known)
    assert shown.total == shown.missing == lock.size + tensorrt
    assert values_of(shown.amount(shown.total)) == {"size": human_bytes(lock.size + tensorrt)}
    debs = {*preset.apt_builder, *preset.apt_runtime}
    missing = values_of(shown.what_is_unknown)["items"]
    assert missing == f"2 base images, 1 Python package, {len(debs)} APT packages"

    document = parsed(place, SIZED, capsys)
    assert (document["partial"], document["bytes"]) == (True, shown.total)
    ready = readiness_of(place, preset)
    in_list = download_preview.size_text(place, preset, ready, known)
    assert in_list == shown.amount(shown.total)
    need = disk_estimate.estimate(preset, shown, linked=True)
    without = replace(shown, items=tuple(i for i in shown.items if i.kind != "tensorrt"))
    less = disk_estimate.estimate(preset, without, linked=True)
    assert need.engine - less.engine > tensorrt and need.unknown == shown.what_is_unknown


def test_size_of_a_wheel_is_that_of_the_presets_python(place: Project) -> None:
    lock = lock_of(TORCH, place)
    place.lock_file(TORCH).write_text(lock.render(), encoding="utf-8")
    held = known_sizes.read_known_sizes(place)
    assert held.packages("3.10", ("torch", "2.5.1+cu124")).size == 700_000_000
    assert held.packages("3.11", ("torch", "2.5.1+cu124")).size is None


@pytest.mark.parametrize(
    ("file", "python", "runs"),
    [
        ("numpy-1.26.4-cp310-cp310-manylinux_2_17_x86_64.whl", "3.10", True),
        ("numpy-1.26.4-cp310-cp310-manylinux_2_17_x86_64.whl", "3.11", False),
        ("tqdm-4.66.5-py3-none-any.whl", "3.11", True),
        ("six-1.16.0-py2.py3-none-any.whl", "3.11", True),
        ("cryptography-42.0-cp37-abi3-manylinux_2_28_x86_64.whl", "3.11", True),
        ("x.whl", "3.11", False),
    ],
)
def test_wheel_of_another_python_says_nothing(file: str, python: str, runs: bool) -> None:
    assert known_sizes._runs_on(file, python) is runs


def test_dry_run_with_faulty_catalog(place: Project) -> None:
    preset = presets.find(place.presets, TORCH)
    (place.root / "catalog").unlink()
    shown = download_preview.of_preset(preset, known_sizes.read_known_sizes(place))
    assert len(shown.unknown) == len(shown.items) > 20
