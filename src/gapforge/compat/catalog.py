"""The catalog: which versions exist and which go together, each fact with where it was read.

``catalog/*.json`` is data; the shapes below are the only description of it, and ``schemas/`` is generated
from them. The prompts and ``check`` read it. A build never does: a preset is self-contained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, PresetError
from gapforge.base.i18n import N_, _
from gapforge.compat import versions
from gapforge.model.schema import (
    Choice,
    Flag,
    Items,
    Nullable,
    Number,
    Record,
    Shape,
    Table,
    Text,
    read_json,
)

FORMAT = 1

_DOTTED = Text("version", r"[0-9]+(\.[0-9]+)*", N_('digits and dots, such as "12.4"'))
_VERSION = Text(
    "version", r"[0-9]+(\.[0-9]+)*([-+][0-9A-Za-z.+~-]+)?", N_('a version such as "2.1.2+cu118"')
)
_HASH = Nullable(
    Text("SHA-256", r"[0-9a-f]{64}", N_("64 lower-case hex digits")), "null: nobody published one"
)
_MD5 = Text("MD5", r"[0-9a-f]{32}", N_("32 lower-case hex digits"))
_URL = Text("address", r"https://[^\s\x00-\x1f]+", N_("an https:// address"))
_FILE = Text("file name", r"[A-Za-z0-9_][A-Za-z0-9._+~-]*", N_("a plain file name"))
_BUILD = Text("CUDA build", r"cpu|cu[0-9]{2,3}", N_('"cpu" or "cu118"'))
_SOURCE = Items(Text("public document or repository"), "where the fact was read", least=1)
_NOTES = Items(Record({"fact": Text(), "source": _SOURCE}))
_ARCHIVE = Record(
    {"file": _FILE, "url": _URL, "sha256": _HASH, "source": _SOURCE},
    {"made_by_host": Flag("the hosting site makes this archive on demand")},
)
_BOTH = Record({"ko": Text(), "en": Text()})


def _document(required: Mapping[str, Shape]) -> Record:
    return Record(
        {
            "format": Choice((FORMAT,), "version of this format"),
            "read": Text("when the sources were read", r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "YYYY-MM-DD"),
            **required,
        },
        {"$schema": Text()},
    )


SHAPES: Mapping[str, Record] = {
    "cuda": _document(
        {
            "images": Items(
                Record(
                    {
                        "cuda": _DOTTED,
                        "builder": Text("registry/name:tag"),
                        "runtime": Text("registry/name:tag"),
                        "cudnn": Nullable(_DOTTED),
                        "driver": _DOTTED,
                        "source": _SOURCE,
                    },
                    {"note": Text()},
                )
            ),
            "drivers": Items(
                Record({"cuda": _DOTTED, "driver": _DOTTED, "source": _SOURCE}),
                "the driver that comes with each toolkit",
            ),
            "minor_compatibility": Items(
                Record({"cuda": _DOTTED, "driver": _DOTTED, "source": _SOURCE}, {"note": Text()}),
                "the least driver for any toolkit of a major version",
            ),
            "host_compilers": Items(
                Record({"cuda": _DOTTED, "gcc": _DOTTED, "source": _SOURCE}),
                "the newest GCC nvcc takes",
            ),
            "notes": _NOTES,
        }
    ),
    "gpu": _document(
        {
            "architectures": Items(
                Record(
                    {
                        "compute": _DOTTED,
                        "name": Text(),
                        "examples": Items(Text()),
                        "first_cuda": Nullable(_DOTTED),
                        "source": _SOURCE,
                    },
                    {"dropped_in": _DOTTED, "note": Text()},
                )
            ),
            "suggestions": Items(
                Record(
                    {
                        "cuda_from": _DOTTED,
                        "cuda_to": _DOTTED,
                        "architectures": Items(_DOTTED),
                        "source": _SOURCE,
                    }
                )
            ),
        }
    ),
    "python": _document(
        {
            "ubuntu2204": Items(
                Record(
                    {
                        "python": _DOTTED,
                        "from": Choice(("archive", "release-candidate")),
                        "source": _SOURCE,
                    },
                    {"note": Text()},
                )
            ),
            "compilers": Items(
                Record({"os": Text(), "gcc": _DOTTED, "source": _SOURCE}),
                "GCC that build-essential brings",
            ),
            "notes": _NOTES,
        }
    ),
    "pytorch": _document(
        {
            "releases": Items(
                Record(
                    {
                        "torch": _DOTTED,
                        "torchvision": _DOTTED,
                        "torchaudio": Nullable(_DOTTED),
                        "pythons": Items(_DOTTED),
                        "torchvision_pythons": Items(_DOTTED),
                        "builds": Items(_BUILD),
                        "default_build": _BUILD,
                        "cudnn": Table(_DOTTED, _BUILD),
                        "wheels": Items(
                            Record(
                                {
                                    "version": _VERSION,
                                    "file": _FILE,
                                    "sha256": _HASH,
                                    "source": _SOURCE,
                                }
                            )
                        ),
                        "source": _SOURCE,
                    },
                    {"numpy_below": _DOTTED, "note": Text()},
                )
            ),
            "index": Record({"pattern": _URL, "source": _SOURCE}),
            "notes": _NOTES,
        }
    ),
    "tensorrt": _document(
        {
            "releases": Items(
                Record(
                    {
                        "version": _DOTTED,
                        "tars": Items(
                            Record(
                                {
                                    "cuda": _DOTTED,
                                    "file": _FILE,
                                    "url": _URL,
                                    "sha256": _HASH,
                                    "source": _SOURCE,
                                },
                                {"size": Number("bytes"), "cuda_from": _DOTTED, "cuda_to": _DOTTED},
                            )
                        ),
                        "cudnn": _DOTTED,
                        "cudnn_needed": Flag(),
                        "pythons": Items(_DOTTED, "Pythons whose wheel in the tar was named"),
                        "pythons_complete": Flag("whether pythons names all of them"),
                        "apt_versions": Items(Text()),
                        "source": _SOURCE,
                    },
                    {"note": Text()},
                )
            ),
            "packages": Items(
                Record({"major": _DOTTED, "names": Items(Text()), "source": _SOURCE})
            ),
            "dropped": Items(
                Record({"compute_below": _DOTTED, "from": _DOTTED, "source": _SOURCE})
            ),
            "notes": _NOTES,
        }
    ),
    "ffmpeg": _document(
        {
            "releases": Items(Record({"version": _DOTTED, "archives": Items(_ARCHIVE, least=1)})),
            "headers": Items(
                Record(
                    {"version": _DOTTED, "archives": Items(_ARCHIVE, least=1), "source": _SOURCE},
                    {"driver": _DOTTED},
                )
            ),
            "headers_for": Items(
                Record(
                    {
                        "from": _DOTTED,
                        "below": _DOTTED,
                        "least": Items(_DOTTED, least=1),
                        "most": _DOTTED,
                        "tested": Items(_DOTTED),
                        "source": _SOURCE,
                    },
                    {"note": Text()},
                )
            ),
            "nonfree": Items(Record({"option": Text(), "source": _SOURCE})),
            "nvcc_default": Items(
                Record(
                    {
                        "from": _DOTTED,
                        "below": _DOTTED,
                        "compute": _DOTTED,
                        "fails_from_cuda": _DOTTED,
                        "source": _SOURCE,
                    }
                )
            ),
            "notes": _NOTES,
        }
    ),
    "opencv": _document(
        {
            "releases": Items(
                Record(
                    {"version": _DOTTED, "opencv": _ARCHIVE, "contrib": _ARCHIVE, "source": _SOURCE}
                )
            ),
            "cuda_needs": Items(
                Record(
                    {
                        "cuda": _DOTTED,
                        "opencv": _DOTTED,
                        "for": Choice(("cuda", "dnn")),
                        "why": _BOTH,
                        "source": _SOURCE,
                    }
                )
            ),
            "cuda_confirmed": Record({"from": _DOTTED, "to": _DOTTED, "source": _SOURCE}),
            "cuda_fails": Items(Record({"cuda": _DOTTED, "opencv_to": _DOTTED, "source": _SOURCE})),
            "cuda_built": Items(
                Record({"opencv": _DOTTED, "cuda": _DOTTED, "source": _SOURCE}),
                "outside cuda_confirmed: a public recipe builds this OpenCV under this CUDA",
            ),
            "cudnn_needs": Items(Record({"cudnn": _DOTTED, "opencv": _DOTTED, "source": _SOURCE})),
            "ffmpeg_fails": Items(
                Record({"ffmpeg": _DOTTED, "opencv_to": _DOTTED, "source": _SOURCE}),
                "from this FFmpeg on, OpenCV up to opencv_to does not compile",
            ),
            "ffmpeg_built": Items(
                Record({"opencv": _DOTTED, "ffmpeg": _DOTTED, "source": _SOURCE}),
                "the newest FFmpeg that an OpenCV is known to build with",
            ),
            "numpy_needs": Items(Record({"numpy": _DOTTED, "opencv": _DOTTED, "source": _SOURCE})),
            "downloads": Items(
                Record(
                    {
                        "opencv": Items(_DOTTED),
                        "id": Text("OpenCV's cache folder"),
                        "file": _FILE,
                        "md5": _MD5,
                        "url": _URL,
                        "sha256": _HASH,
                        "switch_off": Text(),
                        "source": _SOURCE,
                    },
                    {"size": Number("bytes"), "note": Text()},
                ),
                "what the configure step fetches",
            ),
            "notes": _NOTES,
        }
    ),
    # Where `outdated` looks for newer releases; nothing else reads it.
    "upstreams": _document(
        {
            "upstreams": Table(
                Record(
                    {
                        "kind": Choice(("github-tags", "listing", "registry")),
                        "address": Text("listing page, tags API or image name"),
                        "pattern": Text(
                            "regular expression for a whole tag or file name, with the group (?P<version>…)"
                        ),
                        "source": _SOURCE,
                    },
                    {
                        "archive": Text(
                            "address of a release's archive; {version} and {tag} are filled in",
                            r"https://\S+",
                            "https://…",
                        ),
                        "note": Text(),
                    },
                ),
                about='by the name of a preset\'s source, or "base"',
            )
        }
    ),
}


@dataclass(frozen=True)
class CudaImage:
    """A pair of base image tags. ``cudnn`` is "" where nobody wrote down what the image holds."""

    cuda: str
    builder: str
    runtime: str
    cudnn: str
    driver: str

    @property
    def cudnn_major(self) -> str:
        """The cuDNN generation: from the version, or from the tag's spelling ("cudnn8", "cudnn9")."""
        if self.cudnn:
            return versions.major(self.cudnn)
        return "9" if "-cudnn-" in self.builder else self.builder.partition("-cudnn")[2][:1]


@dataclass(frozen=True)
class Architecture:
    """A GPU generation by compute capability; ``first_cuda`` and ``dropped_in`` may be ""."""

    compute: str
    name: str
    examples: tuple[str, ...]
    first_cuda: str
    dropped_in: str


@dataclass(frozen=True)
class TorchRelease:
    """A PyTorch release. ``builds`` are "cpu" and "cuXYZ"; ``default_build`` is what the default index has.

    ``torchaudio`` is "" where no release goes with it; ``numpy_below`` is "" where any NumPy does.
    """

    torch: str
    torchvision: str
    torchaudio: str
    pythons: tuple[str, ...]
    builds: tuple[str, ...]
    default_build: str
    numpy_below: str


@dataclass(frozen=True)
class TensorRTTar:
    """One tar of a TensorRT release; ``cuda_from`` and ``cuda_to`` are "" where no range was published."""

    cuda: str
    file: str
    url: str
    sha256: str
    size: int
    cuda_from: str
    cuda_to: str


@dataclass(frozen=True)
class TensorRTRelease:
    """A TensorRT release. ``cudnn_needed``: False means that cuDNN is optional. ``pythons`` are those whose
    binding was seen named; unless ``pythons_complete`` the tar may hold more."""

    version: str
    tars: tuple[TensorRTTar, ...]
    cudnn: str
    cudnn_needed: bool
    pythons: tuple[str, ...]
    pythons_complete: bool

    def binds(self, python: str) -> bool | None:
        """Whether there is a binding for this Python; None when nobody wrote it down."""
        if python in self.pythons:
            return True
        return False if self.pythons_complete else None


@dataclass(frozen=True)
class Archive:
    """A source archive; ``sha256`` is "" where nobody published one."""

    file: str
    url: str
    sha256: str


@dataclass(frozen=True)
class Headers:
    """A release of nv-codec-headers and the Linux driver that it needs at run time ("" unknown)."""

    version: str
    driver: str
    archives: tuple[Archive, ...]


@dataclass(frozen=True)
class HeadersFor:
    """Which nv-codec-headers FFmpeg ``start`` to below ``below`` takes.

    ``least`` has the first good release of each header series, oldest series first.
    """

    start: str
    below: str
    least: tuple[str, ...]
    most: str

    def takes(self, headers: str) -> bool:
        """Whether FFmpeg's configure and compiler accept this release of the headers."""
        if not versions.within(headers, "", self.most):
            return False
        for first in self.least:
            if headers.split(".")[:2] == first.split(".")[:2]:
                return versions.key(headers) >= versions.key(first)
        return versions.key(headers) >= versions.key(self.least[-1])


@dataclass(frozen=True)
class OpenCVNeed:
    """From CUDA ``cuda`` on, OpenCV ``opencv`` or newer is needed, for all CUDA code or for DNN alone."""

    cuda: str
    opencv: str
    dnn_only: bool
    why_ko: str
    why_en: str


@dataclass(frozen=True)
class Download:
    """A file that OpenCV's configure step fetches into ``OPENCV_DOWNLOAD_PATH/id/md5-file``."""

    opencv: tuple[str, ...]
    id: str
    file: str
    md5: str
    url: str
    sha256: str
    switch_off: str


@dataclass(frozen=True)
class Catalog:
    """All that is known of versions and what goes together. ``read`` is the date of the sources.

    Pairs about OpenCV: ``opencv_fails`` (CUDA, last OpenCV that fails under it), ``opencv_cudnn`` and
    ``opencv_numpy`` (from this version on, OpenCV needed), ``opencv_built`` (OpenCV, CUDA known to build),
    ``opencv_ffmpeg_fails`` (FFmpeg, last OpenCV that fails with it), ``opencv_ffmpeg_built`` (OpenCV, newest
    FFmpeg known to build with it).
    """

    read: str
    images: tuple[CudaImage, ...]
    drivers: Mapping[str, str]
    minor_drivers: Mapping[str, str]
    host_gcc: Mapping[str, str]
    architectures: Mapping[str, Architecture]
    suggestions: tuple[tuple[str, str, tuple[str, ...]], ...]
    ubuntu_pythons: Mapping[str, str]
    os_gcc: Mapping[str, str]
    torch: Mapping[str, TorchRelease]
    torch_index: str
    tensorrt: Mapping[str, TensorRTRelease]
    tensorrt_packages: Mapping[str, tuple[str, ...]]
    tensorrt_dropped: tuple[tuple[str, str], ...]
    ffmpeg: Mapping[str, tuple[Archive, ...]]
    headers: Mapping[str, Headers]
    headers_for: tuple[HeadersFor, ...]
    nonfree: tuple[str, ...]
    nvcc_default: tuple[tuple[str, str, str, str], ...]
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

    def image(self, reference: str) -> CudaImage | None:
        """The catalog's base image that has ``reference`` as its builder or runtime tag."""
        return next((i for i in self.images if reference in (i.builder, i.runtime)), None)

    def opencv_for(self, cuda: str) -> str:
        """The oldest OpenCV that is known to build under this CUDA, for CUDA code and DNN alike; "" when none is."""
        here = versions.minor(cuda)
        built = [opencv for opencv, under in self.opencv_built if versions.minor(under) == here]
        if built:
            return min(built, key=versions.key)
        if not versions.within(here, *self.opencv_confirmed):
            return ""
        needs = [n.opencv for n in self.opencv_needs if versions.key(here) >= versions.key(n.cuda)]
        return max(needs, key=versions.key, default=min(self.opencv, key=versions.key))

    def suggested_architectures(self, cuda: str) -> tuple[str, ...]:
        """The architectures to compile for under this CUDA; () when the catalog does not say."""
        for start, end, names in self.suggestions:
            if versions.within(cuda, start, end):
                return names
        return ()


def documents(folder: Path) -> dict[str, Any]:
    """The raw catalog documents by name. Raises PresetError with every fault in any of them."""
    found: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, shape in SHAPES.items():
        raw, wrong = read_json(folder / f"{name}.json", shape, f"{folder.name}/{name}.json")
        faults += wrong
        found[name] = raw
    for file in sorted(folder.glob("*.json")):
        if file.stem not in SHAPES:
            faults.append(
                Fault(
                    f"{folder.name}/{file.name}",
                    _("is not a catalog document"),
                    ", ".join(f"{n}.json" for n in SHAPES),
                )
            )
    if faults:
        raise PresetError(
            _("the catalog cannot be used"),
            faults=faults,
            hint=_("take catalog/ from the release that this copy of gapforge belongs to"),
        )
    return found


def load(folder: Path) -> Catalog:
    """Parse and validate ``catalog/``. Raises PresetError with every fault."""
    raw = documents(folder)
    cuda, gpu, python, torch = raw["cuda"], raw["gpu"], raw["python"], raw["pytorch"]
    trt, ffmpeg, opencv = raw["tensorrt"], raw["ffmpeg"], raw["opencv"]
    return Catalog(
        read=max(document["read"] for document in raw.values()),
        images=tuple(
            CudaImage(i["cuda"], i["builder"], i["runtime"], i["cudnn"] or "", i["driver"])
            for i in cuda["images"]
        ),
        drivers={d["cuda"]: d["driver"] for d in cuda["drivers"]},
        minor_drivers={d["cuda"]: d["driver"] for d in cuda["minor_compatibility"]},
        host_gcc={c["cuda"]: c["gcc"] for c in cuda["host_compilers"]},
        architectures={
            a["compute"]: Architecture(
                a["compute"],
                a["name"],
                tuple(a["examples"]),
                a["first_cuda"] or "",
                a.get("dropped_in", ""),
            )
            for a in gpu["architectures"]
        },
        suggestions=tuple(
            (s["cuda_from"], s["cuda_to"], tuple(s["architectures"])) for s in gpu["suggestions"]
        ),
        ubuntu_pythons={p["python"]: p["from"] for p in python["ubuntu2204"]},
        os_gcc={c["os"]: c["gcc"] for c in python["compilers"]},
        torch={r["torch"]: _torch(r) for r in torch["releases"]},
        torch_index=torch["index"]["pattern"],
        tensorrt={r["version"]: _tensorrt(r) for r in trt["releases"]},
        tensorrt_packages={p["major"]: tuple(p["names"]) for p in trt["packages"]},
        tensorrt_dropped=tuple((d["compute_below"], d["from"]) for d in trt["dropped"]),
        ffmpeg={
            r["version"]: tuple(_archive(a) for a in r["archives"]) for r in ffmpeg["releases"]
        },
        headers={
            h["version"]: Headers(
                h["version"],
                h.get("driver", ""),
                tuple(
                    _archive(a)
                    for a in sorted(h["archives"], key=lambda a: bool(a.get("made_by_host")))
                ),
            )
            for h in ffmpeg["headers"]
        },
        headers_for=tuple(
            HeadersFor(h["from"], h["below"], tuple(h["least"]), h["most"])
            for h in ffmpeg["headers_for"]
        ),
        nonfree=tuple(n["option"] for n in ffmpeg["nonfree"]),
        nvcc_default=tuple(
            (n["from"], n["below"], n["compute"], n["fails_from_cuda"])
            for n in ffmpeg["nvcc_default"]
        ),
        opencv={
            r["version"]: (_archive(r["opencv"]), _archive(r["contrib"]))
            for r in opencv["releases"]
        },
        opencv_needs=tuple(
            OpenCVNeed(n["cuda"], n["opencv"], n["for"] == "dnn", n["why"]["ko"], n["why"]["en"])
            for n in opencv["cuda_needs"]
        ),
        opencv_confirmed=(opencv["cuda_confirmed"]["from"], opencv["cuda_confirmed"]["to"]),
        opencv_fails=tuple((f["cuda"], f["opencv_to"]) for f in opencv["cuda_fails"]),
        opencv_cudnn=tuple((n["cudnn"], n["opencv"]) for n in opencv["cudnn_needs"]),
        opencv_built=tuple((b["opencv"], b["cuda"]) for b in opencv["cuda_built"]),
        opencv_ffmpeg_fails=tuple((f["ffmpeg"], f["opencv_to"]) for f in opencv["ffmpeg_fails"]),
        opencv_ffmpeg_built=tuple((b["opencv"], b["ffmpeg"]) for b in opencv["ffmpeg_built"]),
        opencv_numpy=tuple((n["numpy"], n["opencv"]) for n in opencv["numpy_needs"]),
        downloads=tuple(
            Download(
                tuple(d["opencv"]),
                d["id"],
                d["file"],
                d["md5"],
                d["url"],
                d["sha256"] or "",
                d["switch_off"],
            )
            for d in opencv["downloads"]
        ),
    )


def facts_and_sources(folder: Path) -> tuple[int, list[str]]:
    """How many facts the catalog states, and the JSON paths of those with no source."""
    total, bare = 0, []

    def walk(value: Any, path: str, covered: bool) -> None:
        nonlocal total
        if isinstance(value, dict):
            own = bool(value.get("source"))
            leaf = not any(
                isinstance(v, list) and v and isinstance(v[0], dict) for v in value.values()
            )
            if leaf and path.count(".") and "[" in path:
                total += 1
                if not (own or covered):
                    bare.append(path)
            for name, member in value.items():
                walk(member, f"{path}.{name}", covered or own)
        elif isinstance(value, list):
            for index, member in enumerate(value):
                walk(member, f"{path}[{index}]", covered)

    for name, document in documents(folder).items():
        walk(document, f"{name}.json: $", False)
    return total, bare


def _torch(raw: Mapping[str, Any]) -> TorchRelease:
    pythons = tuple(p for p in raw["pythons"] if p in raw["torchvision_pythons"])
    return TorchRelease(
        raw["torch"],
        raw["torchvision"],
        raw["torchaudio"] or "",
        pythons,
        tuple(raw["builds"]),
        raw["default_build"],
        raw.get("numpy_below", ""),
    )


def _tensorrt(raw: Mapping[str, Any]) -> TensorRTRelease:
    tars = tuple(
        TensorRTTar(
            t["cuda"],
            t["file"],
            t["url"],
            t["sha256"] or "",
            t.get("size", 0),
            t.get("cuda_from", ""),
            t.get("cuda_to", ""),
        )
        for t in raw["tars"]
    )
    return TensorRTRelease(
        raw["version"],
        tars,
        raw["cudnn"],
        raw["cudnn_needed"],
        tuple(raw["pythons"]),
        raw["pythons_complete"],
    )


def _archive(raw: Mapping[str, Any]) -> Archive:
    return Archive(raw["file"], raw["url"], raw["sha256"] or "")
