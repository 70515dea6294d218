"""Write small complete artifacts into a project: files of every kind, lock and SHA256SUMS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gapforge.base.files import sha256_bytes
from gapforge.base.project import Project
from gapforge.model.lock import Entry, Lock, LockedImage
from gapforge.model.preset import Preset

FILES = {
    "wheels/numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.whl": ("wheel", b"wheel " * 5000),
    "requirements.txt": ("index", b"numpy==1.26.4\n"),
    "debs/nasm_2.16.01-1_amd64.deb": ("deb", b"deb " * 3000),
    "debs/Packages": ("index", b"Package: nasm\n\n"),
    "debs/Release": ("index", b"Codename: gapforge\n"),
    "sources/ffmpeg_5.1.9.orig.tar.xz": ("source", b"ffmpeg " * 9000),
    "sources/opencv-python-headless-4.9.0.80.tar.gz": ("source", bytes(range(256)) * 500),
    "tensorrt/TensorRT-8.6.1.6.tar.gz": ("tensorrt", b"trt " * 4000),
    "images/builder/oci-layout": ("image", b'{"imageLayoutVersion": "1.0.0"}'),
    "images/builder/blobs/sha256/aa": ("image", b"layer" * 7000),
    "images/runtime/oci-layout": ("image", b'{"imageLayoutVersion": "1.0.0"}'),
}


def sums_text(lock: Lock) -> str:
    return "".join(f"{entry.sha256}  {entry.path}\n" for entry in lock.entries)


def fabricate(
    project: Project, preset: Preset, files: Mapping[str, tuple[str, bytes]] = FILES
) -> Lock:
    """Write artifacts/NAME and presets/NAME.lock.json. Return the lock.

    ``files`` has the kind and the content of each file by its path.
    """
    folder = project.artifacts_of(preset.name)
    entries = []
    for path, (kind, data) in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        entries.append(
            Entry(
                kind=kind, path=path, sha256=sha256_bytes(data), size=len(data), origin="generated"
            )
        )
    image = LockedImage(
        reference="made",
        manifest_digest="sha256:" + "1" * 64,
        config_digest="sha256:" + "2" * 64,
        os_id="debian",
        os_version="12",
    )
    lock = Lock(
        preset=preset.name,
        preset_sha256=preset.sha256,
        images={"builder": image, "runtime": image},
        entries=tuple(sorted(entries, key=lambda e: e.path)),
    )
    write_lock(project, lock)
    return lock


def write_lock(project: Project, lock: Lock) -> None:
    folder = project.artifacts_of(lock.preset)
    for file in (folder / "lock.json", project.lock_file(lock.preset)):
        Path(file).write_text(lock.render(), encoding="utf-8")
    (folder / "SHA256SUMS").write_text(sums_text(lock), encoding="utf-8")
