"""Estimate from the files of a preset how much disk its first build takes.

The factors are measured or rounded up, so the result is an upper estimate for building both types
of image once. A second build needs little more than what changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gapforge.model.preset import Preset
from gapforge.store.download_preview import Preview

MB, GB = 10**6, 10**9
IMAGE_UNPACKED = 2.3  # nvidia/cuda layers, gzip to unpacked
WHEEL_UNPACKED = 1.9  # measured: the torch 2.1.2 set, 2.6 GB of wheels, 4.8 GB installed
DEB_UNPACKED = 3.6
TENSORRT_UNPACKED = 2.2
# Unpacked sources, objects and results of FFmpeg and OpenCV, for each byte of archive.
SOURCE_WORK = 25
# Objects and libraries of OpenCV's CUDA modules, for each GPU architecture.
CUDA_ARCHITECTURE = 2 * GB
COPIES = 3  # a component's tree is in its own stage, in the builder image and in the runtime image
LOG = 50 * MB  # report, plan, Dockerfile and log of a build
BYTES_PER_FILE = 40_000  # mean over base images and Python packages, rounded down


@dataclass(frozen=True, kw_only=True)
class SpaceNeed:
    """Bytes that a first build takes in the context, and in the engine for each part.

    ``unknown`` says in words what has no known size and is not counted; "" if nothing is missing.
    """

    context: int
    engine_parts: Mapping[str, int]
    unknown: str = ""

    @property
    def engine(self) -> int:
        """Number of bytes in the engine's store."""
        return sum(self.engine_parts.values())

    @property
    def engine_inodes(self) -> int:
        """Number of files and folders in the engine's store."""
        return self.engine // BYTES_PER_FILE

    def without_bases(self) -> SpaceNeed:
        """Return the need when the engine has the base images already."""
        return replace(self, engine_parts={**self.engine_parts, "base images": 0})


def estimate(preset: Preset, files: Preview, *, linked: bool) -> SpaceNeed:
    """Return what a first build needs; a ``linked`` context takes no space of its own."""
    by_content = {item.sha256 or (item.kind, item.name): item for item in files.items}
    sizes = dict.fromkeys(("image", "wheel", "source", "tensorrt", "deb", "index"), 0)
    for item in by_content.values():
        copies = max(1, len(item.roles)) if item.kind == "deb" else 1
        sizes[item.kind] += (item.size or 0) * copies
    debs = sizes["deb"]
    context = sizes["wheel"] + sizes["source"] + sizes["tensorrt"] + debs
    opencv = preset.component("opencv")
    architectures = len(opencv.list("architectures")) if opencv and opencv.flag("cuda") else 0
    parts = {
        "base images": int(sizes["image"] * IMAGE_UNPACKED),
        "context": context,
        "wheels": int(sizes["wheel"] * WHEEL_UNPACKED * COPIES),
        "debs": int(debs * DEB_UNPACKED),
        "tensorrt": int(sizes["tensorrt"] * TENSORRT_UNPACKED * COPIES),
        "sources": int(sizes["source"] * SOURCE_WORK) + architectures * CUDA_ARCHITECTURE,
    }
    return SpaceNeed(
        context=0 if linked else context, engine_parts=parts, unknown=files.what_is_unknown
    )
