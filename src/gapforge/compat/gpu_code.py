"""Know which GPUs the builds of PyTorch, OpenCV and TensorRT have code for."""

from __future__ import annotations

from collections.abc import Iterable

from gapforge.model.catalog import Catalog
from gapforge.model.versions import key


def runs(compute: str, compiled_for: Iterable[str]) -> bool:
    """Return whether a GPU runs code that is compiled for one of these compute capabilities.

    A GPU runs code for the same major version and no higher minor version. PTX, which a driver
    could compile for newer GPUs, is not counted on.
    """
    major, minor = map(int, compute.split("."))
    pairs = (tuple(map(int, other.split("."))) for other in compiled_for)
    return any(other[0] == major and other[1] <= minor for other in pairs)


def torch_code(version: str, build: str, catalog: Catalog) -> tuple[str, ...] | None:
    """Return the compute capabilities that a build of torch has code for, None if unknown."""
    fitting = (c for c in catalog.torch_code if build in c.builds and c.contains(version))
    return next((code.compute for code in fitting), None)


def tensorrt_supports(version: str, compute: str, catalog: Catalog) -> bool | None:
    """Return whether a TensorRT supports a GPU, None if the catalog does not know.

    The catalog knows nothing of releases that are older than its oldest one.
    """
    for below, start in catalog.tensorrt_dropped:
        if key(compute) < key(below) and key(version) >= key(start):
            return False
    first = catalog.tensorrt_first.get(compute)
    if first is None or key(version) < min(map(key, catalog.tensorrt)):
        return None
    return key(version) >= key(first)
