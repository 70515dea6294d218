"""Read the catalog: which versions exist and which are compatible, each fact with its source.

``catalog/*.json`` is data; ``catalog_shape`` describes its format. What a preset leaves out is
filled from it. The prompts and ``check`` use it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from gapforge.base.errors import Fault, PresetError
from gapforge.base.i18n import _
from gapforge.model import versions
from gapforge.model.catalog_shape import SHAPES
from gapforge.model.schema import read_json

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class CudaImage:
    """A pair of base image tags. ``cudnn`` is "" if the version in the image is not documented."""

    cuda: str
    builder: str
    runtime: str
    cudnn: str = ""
    driver: str

    @property
    def cudnn_major(self) -> str:
        """Return the major version of cuDNN: from ``cudnn`` or the tag ("cudnn" is 9)."""
        if self.cudnn:
            return versions.major(self.cudnn)
        return "9" if "-cudnn-" in self.builder else self.builder.partition("-cudnn")[2][:1]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A GPU architecture. ``compute`` is its compute capability, such as "8.6".

    ``first_cuda`` is the oldest CUDA that supports it, ``dropped_in`` the first one that does not
    any more; "" if unknown or not dropped.
    """

    compute: str
    name: str
    first_cuda: str = ""
    dropped_in: str = ""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """The GPU architectures to compile for with CUDA ``cuda_from`` to ``cuda_to``."""

    cuda_from: str
    cuda_to: str
    architectures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TorchRelease:
    """A PyTorch release: ``builds`` are "cpu", "cu118", …; the default index has ``default_build``.

    ``pythons`` have wheels of torch and of torchvision. ``torchaudio`` is "" if there is no release
    for it. The release works with every NumPy older than ``numpy_below``, with any NumPy if that is
    "".
    """

    torch: str
    torchvision: str
    torchaudio: str = ""
    pythons: tuple[str, ...]
    builds: tuple[str, ...]
    default_build: str
    numpy_below: str = ""

    def packages(self, build: str = "") -> dict[str, str]:
        """Return the versions of torch, torchvision and torchaudio of a build such as "cu118"."""
        suffix = f"+{build}" if build else ""
        names = ("torch", "torchvision", "torchaudio")
        return {name: version + suffix for name in names if (version := getattr(self, name))}


@dataclass(frozen=True)
class Archive:
    """A file to download; ``sha256`` is "" if no checksum is published, ``size`` 0 if unknown."""

    file: str
    url: str
    sha256: str = ""
    size: int = 0


def best_archive(archives: Iterable[Archive]) -> Archive | None:
    """Return the archive of a release to use: one with a checksum, as .tar.xz if there is."""
    return min(archives, key=lambda a: (not a.sha256, not a.file.endswith(".tar.xz")), default=None)


@dataclass(frozen=True, kw_only=True)
class TensorRTTar(Archive):
    """One tar file of a TensorRT release, built with ``cuda``.

    It supports CUDA ``cuda_from`` to ``cuda_to``; both are "" if NVIDIA published no range.
    """

    cuda: str
    cuda_from: str = ""
    cuda_to: str = ""

    def supports_cuda(self, cuda: str) -> bool | None:
        """Return whether it supports a CUDA; None if NVIDIA published no range for it."""
        if versions.major(self.cuda) != versions.major(cuda):
            return False
        if self.cuda_from:
            return versions.within(versions.minor(cuda), self.cuda_from, self.cuda_to)
        same = versions.key(versions.minor(cuda)) == versions.key(self.cuda)
        return True if same else None


@dataclass(frozen=True, kw_only=True)
class TensorRTRelease:
    """A TensorRT release. cuDNN is optional unless ``cudnn_needed``.

    ``pythons`` are the Python versions with a documented binding; there may be more unless
    ``pythons_complete``.
    """

    version: str
    tars: tuple[TensorRTTar, ...]
    cudnn: str
    cudnn_needed: bool
    pythons: tuple[str, ...]
    pythons_complete: bool

    def tar_for(self, cuda: str) -> TensorRTTar | None:
        """Return the tar file for a CUDA, preferably a confirmed one; None if none."""
        supported = {tar: tar.supports_cuda(cuda) for tar in self.tars if cuda}
        fitting = [tar for tar, answer in supported.items() if answer is not False]
        return min(fitting, key=lambda tar: supported[tar] is None, default=None)

    def has_binding(self, python: str) -> bool | None:
        """Return whether there is a binding for this Python; None if that is not documented."""
        if python in self.pythons:
            return True
        return False if self.pythons_complete else None


@dataclass(frozen=True)
class VersionRange:
    """The versions of a product from ``start`` to below ``below``."""

    start: str
    below: str

    def contains(self, version: str) -> bool:
        """Return whether ``version`` is one of them."""
        return versions.key(self.start) <= versions.key(version) < versions.key(self.below)


@dataclass(frozen=True)
class TorchCode(VersionRange):
    """The compute capabilities for which ``builds`` of some versions of PyTorch have code."""

    builds: tuple[str, ...]
    compute: tuple[str, ...]


@dataclass(frozen=True)
class NvccDefault(VersionRange):
    """What some versions of FFmpeg compile for by default, and the first CUDA without that."""

    compute: str
    fails_from_cuda: str


@dataclass(frozen=True)
class Headers:
    """A release of nv-codec-headers; ``driver`` is the oldest Linux driver for it or ""."""

    version: str
    driver: str = ""
    archives: tuple[Archive, ...] = ()


@dataclass(frozen=True)
class HeadersFor(VersionRange):
    """The releases of nv-codec-headers that some versions of FFmpeg build with.

    ``least`` has the first usable release of each header series, oldest series first; ``most`` is
    the newest.
    """

    least: tuple[str, ...]
    most: str

    def accepts(self, headers: str) -> bool:
        """Return whether FFmpeg's configure script and compiler accept these headers."""
        if not versions.within(headers, "", self.most):
            return False
        same_series = (f for f in self.least if versions.minor(f) == versions.minor(headers))
        return versions.key(headers) >= versions.key(next(same_series, self.least[-1]))


@dataclass(frozen=True, kw_only=True)
class OpenCVNeed:
    """The oldest OpenCV for CUDA ``cuda`` and newer: for all CUDA code, or only for DNN.

    ``why`` is the reason by language.
    """

    cuda: str
    opencv: str
    dnn_only: bool
    why: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Download(Archive):
    """A file that the configure step of the OpenCV releases ``opencv`` downloads.

    ``id`` is the folder in OpenCV's download cache. It is needed only if ``module`` is built, with
    the component's ``flags`` and with CMake's ``option``, where these are given, and without an
    option that ``switch_off`` names.
    """

    opencv: tuple[str, ...]
    id: str
    switch_off: str
    module: str = ""
    flags: tuple[str, ...] = ()
    option: str = ""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """All known versions and their compatibility. ``read`` is the date of the sources.

    ``drivers`` maps a CUDA toolkit to the driver that comes with it, ``minor_drivers`` a major
    version of CUDA to the oldest driver that runs it, ``tensorrt_first`` a compute capability to
    the first TensorRT for it. ``requires`` has packages of Python that
    bring a module which an image may build itself. ``wheels`` maps the file name of a wheel to the
    SHA-256 of each file that was published under it. ``about`` has licence, homepage and login of
    archives, by the name of a preset's source. The tuples hold:

    - ``tensorrt_dropped``: compute capabilities below, first TensorRT without them
    - ``opencv_fails``: CUDA, last OpenCV that fails with it and with newer ones
    - ``opencv_cudnn``, ``opencv_numpy``: cuDNN or NumPy, oldest OpenCV for it and newer ones
    - ``opencv_built``: OpenCV, CUDA that it is known to build with
    - ``opencv_ffmpeg_fails``: FFmpeg, last OpenCV that fails with it and with newer ones
    - ``opencv_ffmpeg_built``: OpenCV, newest FFmpeg that it is known to build with
    """

    read: str
    images: tuple[CudaImage, ...]
    drivers: Mapping[str, str]
    minor_drivers: Mapping[str, str]
    host_gcc: Mapping[str, str]
    architectures: Mapping[str, Architecture]
    suggestions: tuple[Suggestion, ...]
    ubuntu_pythons: Mapping[str, str]
    os_gcc: Mapping[str, str]
    requires: Mapping[str, tuple[str, ...]]
    torch: Mapping[str, TorchRelease]
    wheels: Mapping[str, frozenset[str]]
    torch_index: str
    torch_code: tuple[TorchCode, ...]
    tensorrt: Mapping[str, TensorRTRelease]
    tensorrt_dropped: tuple[tuple[str, str], ...]
    tensorrt_first: Mapping[str, str]
    ffmpeg: Mapping[str, tuple[Archive, ...]]
    headers: Mapping[str, Headers]
    headers_for: tuple[HeadersFor, ...]
    nonfree: tuple[str, ...]
    nvcc_default: tuple[NvccDefault, ...]
    opencv: Mapping[str, tuple[Archive, Archive]]
    opencv_needs: tuple[OpenCVNeed, ...]
    opencv_confirmed: tuple[str, str]
    opencv_fails: tuple[tuple[str, str], ...]
    opencv_cudnn: tuple[tuple[str, str], ...]
    opencv_built: tuple[tuple[str, str], ...]
    opencv_ffmpeg_fails: tuple[tuple[str, str], ...]
    opencv_ffmpeg_built: tuple[tuple[str, str], ...]
    opencv_numpy: tuple[tuple[str, str], ...]
    downloads: tuple[Download, ...]
    about: Mapping[str, Mapping[str, str]]

    def image(self, reference: str) -> CudaImage | None:
        """Return the base image that has ``reference`` as its builder or runtime tag."""
        return next((i for i in self.images if reference in (i.builder, i.runtime)), None)

    def headers_range(self, ffmpeg: str) -> HeadersFor | None:
        """Return which nv-codec-headers this FFmpeg version builds with; None if unknown."""
        return next((found for found in self.headers_for if found.contains(ffmpeg)), None)

    def headers_choice(self, ffmpeg: str) -> str:
        """Return the nv-codec-headers to use with an FFmpeg: of 11.1 or newer, the oldest series.

        That series needs the oldest driver. All releases from 11.1 count for an FFmpeg that the
        catalog does not know.
        """
        accepted, key = self.headers_range(ffmpeg), versions.key
        usual = [h for h in self.headers if key(h) >= (11, 1)]
        fitting = [h for h in usual if accepted and accepted.accepts(h)] or usual
        oldest_series = min(map(versions.minor, fitting), key=key, default="")
        in_series = [h for h in fitting if versions.minor(h) == oldest_series]
        return max(in_series, key=key, default="")

    def opencv_for(self, cuda: str) -> str:
        """Return the oldest OpenCV that is known to build with this CUDA and DNN; "" if none."""
        here = versions.minor(cuda)
        built = [opencv for opencv, under in self.opencv_built if versions.minor(under) == here]
        if built:
            return min(built, key=versions.key)
        if not versions.within(here, *self.opencv_confirmed):
            return ""
        needs = [n.opencv for n in self.opencv_needs if versions.key(here) >= versions.key(n.cuda)]
        return max(needs, key=versions.key, default=min(self.opencv, key=versions.key))

    def suggested_architectures(self, cuda: str) -> tuple[str, ...]:
        """Return the GPU architectures to compile for with this CUDA; () if unknown."""
        fitting = (s for s in self.suggestions if versions.within(cuda, s.cuda_from, s.cuda_to))
        return next((suggestion.architectures for suggestion in fitting), ())


def documents(folder: Path) -> dict[str, Any]:
    """Return the raw catalog documents by name. Raise PresetError with the faults of all."""
    found: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, shape in SHAPES.items():
        found[name], wrong = read_json(folder / f"{name}.json", shape, f"{folder.name}/{name}.json")
        faults += wrong
    known = ", ".join(f"{name}.json" for name in SHAPES)
    faults += [
        Fault(f"{folder.name}/{file.name}", _("not a catalog document"), known)
        for file in sorted(folder.glob("*.json"))
        if file.stem not in SHAPES
    ]
    if faults:
        raise PresetError(
            _("the catalog is not valid"),
            faults=faults,
            hint=_("restore catalog/ from the release of this gapforge"),
        )
    return found


def load(folder: Path) -> Catalog:
    """Read and validate ``catalog/``. Raise PresetError with every fault."""
    raw = documents(folder)
    cuda, gpu, python, torch = raw["cuda"], raw["gpu"], raw["python"], raw["pytorch"]
    trt, ffmpeg, opencv = raw["tensorrt"], raw["ffmpeg"], raw["opencv"]
    return Catalog(
        read=max(document["read"] for document in raw.values()),
        images=tuple(_make(CudaImage, i) for i in cuda["images"]),
        drivers=dict(_pairs(cuda["drivers"], "cuda", "driver")),
        minor_drivers=dict(_pairs(cuda["minor_compatibility"], "cuda", "driver")),
        host_gcc=dict(_pairs(cuda["host_compilers"], "cuda", "gcc")),
        architectures={a["compute"]: _make(Architecture, a) for a in gpu["architectures"]},
        suggestions=tuple(_make(Suggestion, s) for s in gpu["suggestions"]),
        ubuntu_pythons=dict(_pairs(python["ubuntu2204"], "python", "from")),
        os_gcc=dict(_pairs(python["compilers"], "os", "gcc")),
        requires={r["package"]: tuple(r["requires"]) for r in python["requires"]},
        torch={r["torch"]: _torch(r) for r in torch["releases"]},
        wheels=_checksums(torch["wheels"]),
        torch_index=torch["index"]["pattern"],
        torch_code=tuple(_make(TorchCode, a, start=a["from"]) for a in torch["architectures"]),
        tensorrt={r["version"]: _tensorrt(r) for r in trt["releases"]},
        tensorrt_dropped=_pairs(trt["dropped"], "compute_below", "from"),
        tensorrt_first=dict(_pairs(trt["first"], "compute", "from")),
        ffmpeg={r["version"]: _archives(r) for r in ffmpeg["releases"]},
        headers={h["version"]: _make(Headers, h, archives=_archives(h)) for h in ffmpeg["headers"]},
        headers_for=tuple(_make(HeadersFor, h, start=h["from"]) for h in ffmpeg["headers_for"]),
        nonfree=tuple(n["option"] for n in ffmpeg["nonfree"]),
        nvcc_default=tuple(_make(NvccDefault, n, start=n["from"]) for n in ffmpeg["nvcc_default"]),
        opencv={
            r["version"]: (_make(Archive, r["opencv"]), _make(Archive, r["contrib"]))
            for r in opencv["releases"]
        },
        opencv_needs=tuple(
            _make(OpenCVNeed, n, dnn_only=n["for"] == "dnn") for n in opencv["cuda_needs"]
        ),
        opencv_confirmed=(opencv["cuda_confirmed"]["from"], opencv["cuda_confirmed"]["to"]),
        opencv_fails=_pairs(opencv["cuda_fails"], "cuda", "opencv_to"),
        opencv_cudnn=_pairs(opencv["cudnn_needs"], "cudnn", "opencv"),
        opencv_built=_pairs(opencv["cuda_built"], "opencv", "cuda"),
        opencv_ffmpeg_fails=_pairs(opencv["ffmpeg_fails"], "ffmpeg", "opencv_to"),
        opencv_ffmpeg_built=_pairs(opencv["ffmpeg_built"], "opencv", "ffmpeg"),
        opencv_numpy=_pairs(opencv["numpy_needs"], "numpy", "opencv"),
        downloads=tuple(_make(Download, d) for d in opencv["downloads"]),
        about={**ffmpeg["archives"], **opencv["archives"], **trt["archives"]},
    )


def of_presets(folder: Path) -> Catalog | None:
    """Return the catalog that fills presets, None if there is none or it is not valid.

    ``check`` reports its faults. The result is cached until a file changes.
    """
    try:
        states = tuple(
            (state.st_mtime_ns, state.st_size)
            for state in ((folder / f"{name}.json").stat() for name in SHAPES)
        )
    except OSError:
        return None
    return _of_presets(folder, states)


@lru_cache(maxsize=8)
def _of_presets(folder: Path, _states: tuple[tuple[int, int], ...]) -> Catalog | None:
    try:
        return load(folder)
    except PresetError:
        return None


def facts_and_sources(folder: Path) -> tuple[int, list[str]]:
    """Return the number of facts in the catalog, and the JSON paths of those without a source."""
    facts = [
        fact
        for name, document in documents(folder).items()
        for fact in _facts_in(document, f"{name}.json: $", False)
    ]
    return len(facts), [path for path, sourced in facts if not sourced]


def _facts_in(value: Any, path: str, sourced: bool) -> Iterator[tuple[str, bool]]:
    """Yield the JSON path of each fact, and whether it or an object around it has a source."""
    if isinstance(value, dict):
        sourced = sourced or bool(value.get("source"))
        lists = [v for v in value.values() if isinstance(v, list)]
        if not any(v and isinstance(v[0], dict) for v in lists) and "[" in path:
            yield path, sourced
        for name, member in value.items():
            yield from _facts_in(member, f"{path}.{name}", sourced)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _facts_in(member, f"{path}[{index}]", sourced)


def _make(cls: type[_T], raw: Mapping[str, Any], **others: Any) -> _T:
    """Make a ``cls`` of the members with its fields' names; defaults replace null."""
    names = {field.name for field in fields(cls)} - set(others)  # type: ignore[arg-type]
    found = {name: raw[name] for name in names if raw.get(name) is not None}
    return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in found.items()}, **others)


def _torch(raw: Mapping[str, Any]) -> TorchRelease:
    pythons = tuple(p for p in raw["pythons"] if p in raw["torchvision_pythons"])
    return _make(TorchRelease, raw, pythons=pythons)


def _checksums(wheels: Sequence[Mapping[str, str]]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for wheel in wheels:
        found[wheel["file"]] = found.get(wheel["file"], frozenset()) | {wheel["sha256"]}
    return found


def _tensorrt(raw: Mapping[str, Any]) -> TensorRTRelease:
    return _make(TensorRTRelease, raw, tars=tuple(_make(TensorRTTar, t) for t in raw["tars"]))


def _archives(raw: Mapping[str, Any]) -> tuple[Archive, ...]:
    """Return a release's archives, those that the project itself published first."""
    ordered = sorted(raw["archives"], key=lambda a: bool(a.get("made_by_host")))
    return tuple(_make(Archive, a) for a in ordered)


def _pairs(
    rows: Sequence[Mapping[str, Any]], first: str, second: str
) -> tuple[tuple[str, str], ...]:
    return tuple((row[first], row[second]) for row in rows)
