"""The preset: what an image shall contain, parsed once into frozen dataclasses.

``presets/NAME.json`` is written by people and is self-contained. ``PRESET_SHAPE`` below is the only
description of its format: it validates, and ``schemas/preset.schema.json`` is generated from it. What a shape
alone cannot see, ``preset_rules`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, PresetError
from gapforge.base.files import canonical_json, sha256_bytes, unsafe_path_reason
from gapforge.base.i18n import N_, _, ngettext
from gapforge.model import preset_rules
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
    Variant,
    nearest,
    one_of,
    read_json,
)

FORMAT = 1
TARGET_OS = preset_rules.TARGET_OS

NAME = Text("name", r"[a-z0-9][a-z0-9._-]*", N_("lower-case letters, digits, '.', '_', '-'"))
VERSION = Text(
    "version",
    r"[0-9]+(\.[0-9A-Za-z]+)*([-+~.][0-9A-Za-z.+~-]+)?",
    N_('digits and dots, such as "12.4"'),
)
DOTTED = Text("version", r"[0-9]+(\.[0-9]+)*", N_('digits and dots, such as "3.10"'))
SHA256 = Text(
    "SHA-256 of the file, lower-case hex", r"[0-9a-f]{64}", N_("64 lower-case hex digits")
)
DIGEST = Text(
    "registry digest", r"sha256:[0-9a-f]{64}", N_('"sha256:" and 64 lower-case hex digits')
)
URL = Text("address", r"(https?|file)://[^\s\x00-\x1f]+", N_("an http(s):// or file:// address"))
FILE = Text("file name", preset_rules.FILE_NAME, N_("a plain file name without '/'"))
A_PATH = N_("a path")
PATH = Text("path inside the project or archive", r"[^\x00-\x1f\\]+", A_PATH)
PACKAGE = Text(
    "APT package, or package=version",
    r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+~:-]+)?",
    N_('an APT package name, such as "nasm" or "libnvinfer8=8.6.1.6-1+cuda11.8"'),
)
REQUIREMENT = Text(
    "Python requirement",
    r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?\s*((==|>=|<=|<|>|~=|!=)[^;@\s]+)?",
    N_('a requirement such as "numpy==1.26.4"'),
)
OPTION = Text("build option, one word", r"[^\x00-\x1f]+", N_("an option on one line"))
ENV_KEY = Text(".env key", r"[A-Z_][A-Z0-9_]*", N_("upper-case letters, digits and '_'"))

_SOURCE_COMMON: dict[str, Shape] = {
    "file": FILE,
    "folder": Text(
        "folder inside the archive to use; the only top folder when absent", PATH.pattern, A_PATH
    ),
    "version": VERSION,
    "licence": Text("SPDX licence expression"),
    "homepage": URL,
}

SOURCE = Variant(
    {
        "urls": Record(
            {
                "urls": Items(URL, "addresses in order of preference", least=1),
                "sha256": Nullable(SHA256, 'SHA-256; null only together with "trust": "first-use"'),
            },
            {
                **_SOURCE_COMMON,
                "size": Number("size in bytes"),
                "trust": Choice(("first-use",), "nobody published a hash"),
                "gated": Text(
                    "what a person must do to download it (login, licence); then use --from DIR"
                ),
            },
        ),
        "sdist": Record(
            {
                "sdist": Text(
                    "NAME==VERSION of a source distribution on the default Python index",
                    r"[A-Za-z0-9._-]+==[0-9A-Za-z.+!-]+",
                    "NAME==VERSION",
                ),
                "sha256": SHA256,
            },
            _SOURCE_COMMON,
        ),
        "apt-source": Record(
            {
                "apt-source": Text(
                    "source package whose upstream tarball is wanted, from the base's APT sources",
                    r"[a-z0-9][a-z0-9+.-]+",
                    N_("an APT source package name"),
                )
            },
            _SOURCE_COMMON,
        ),
    },
    about="where a source archive comes from",
)

BASE = Variant(
    {
        "image": Record(
            {"image": Text("registry/name:tag", r"[a-z0-9][A-Za-z0-9._:/-]*", "registry/name:tag")},
            {"digest": DIGEST},
        ),
        "archive": Record(
            {"archive": Text("a `docker save` archive", PATH.pattern, A_PATH)}, {"sha256": SHA256}
        ),
        "mmdebstrap": Record(
            {
                "mmdebstrap": Record(
                    {"suite": NAME},
                    {
                        "variant": Choice(("minbase", "apt", "essential", "buildd", "important")),
                        "components": Items(NAME),
                        "include": Items(PACKAGE),
                    },
                )
            }
        ),
    },
    about="base image: from a registry, an archive, or made from packages",
)

PRESET_SHAPE = Record(
    {
        "format": Choice((FORMAT,), "version of this format"),
        "name": NAME,
        "summary": Record({"ko": Text(), "en": Text()}, about="one line for lists and prompts"),
        "os": Record(
            {"id": Choice(("ubuntu", "debian")), "version": DOTTED},
            about="operating system of the base",
        ),
        "base": Record({"builder": BASE, "runtime": BASE}, about="base images"),
        "python": Record(
            {"version": Text("Python, major.minor", r"3\.[0-9]+", N_('such as "3.10"'))},
            {"packages": Items(REQUIREMENT, "Python packages besides PyTorch", unique=True)},
        ),
        "apt": Record(
            {"builder": Items(PACKAGE, unique=True), "runtime": Items(PACKAGE, unique=True)},
            {
                "sources": Items(
                    Record(
                        {
                            "name": NAME,
                            "uri": URL,
                            "suite": Text(
                                "suite, or '/' for a flat repository",
                                r"[A-Za-z0-9./_-]+",
                                N_("a suite"),
                            ),
                        },
                        {
                            "components": Items(NAME),
                            "key": Record({"urls": Items(URL, least=1), "sha256": SHA256}),
                        },
                        about="an APT source besides the base image's own",
                    )
                )
            },
        ),
        "sources": Table(
            SOURCE,
            NAME,
            "source archives by name; a component's component.json says which it takes",
        ),
        "application": Record(
            {
                "name": NAME,
                "source": Text(
                    "default source folder, relative to the project", PATH.pattern, A_PATH
                ),
            },
            {
                "cmake": Items(OPTION, "options for cmake"),
                "check": Items(
                    OPTION,
                    "command of the smoke check; {clip}, {output} and {summary} become file names",
                ),
                "secrets": Items(
                    Record(
                        {"key": ENV_KEY, "pass": Choice(("secret", "build-arg"))},
                        {"required": Flag()},
                    )
                ),
            },
        ),
    },
    {
        "$schema": Text(),
        "practice": Flag("true: not for delivery; the image is labelled so"),
        "cuda": Nullable(DOTTED, "CUDA of the base image, major.minor; null for none"),
        "cudnn": Nullable(DOTTED, "cuDNN of the base image"),
        "platform": Choice(("linux/amd64",)),
        "epoch": Number("SOURCE_DATE_EPOCH, seconds since 1970"),
        "pytorch": Nullable(
            Record(
                {
                    "torch": VERSION,
                    "index": Text(
                        '"default", or the address of PyTorch\'s index',
                        r"default|(https?|file)://\S+",
                        N_('"default" or an address'),
                    ),
                },
                {"torchvision": VERSION, "torchaudio": VERSION},
            )
        ),
        "tensorrt": Nullable(
            Record(
                {"version": VERSION, "form": Choice(("tar", "deb"))},
                {
                    "python": Flag("install the Python binding (default true)"),
                    "builder": Items(PACKAGE, "form deb: packages of the builder"),
                    "runtime": Items(PACKAGE, "form deb: packages of the runtime"),
                },
            )
        ),
        "ffmpeg": Nullable(Record({"version": VERSION}, {"configure": Items(OPTION)})),
        "opencv": Nullable(
            Record(
                {"version": VERSION},
                {
                    "contrib": Flag(),
                    "cuda": Flag(),
                    "dnn": Flag("DNN on CUDA"),
                    "architectures": Items(DOTTED),
                    "modules": Items(NAME, "only these modules (BUILD_LIST); all when absent"),
                    "cmake": Items(OPTION, "further -D options"),
                },
            )
        ),
        "components": Table(
            Table(Text("option value", r"[^\x00]*", N_("text"))),
            NAME,
            "options of further components, by component name",
        ),
    },
)


@dataclass(frozen=True)
class BaseImage:
    """Where a base image comes from: exactly one of ``image``, ``archive``, ``suite`` is set."""

    image: str = ""
    digest: str = ""
    archive: str = ""
    archive_sha256: str = ""
    suite: str = ""
    variant: str = "minbase"
    components: tuple[str, ...] = ("main",)
    include: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What lists and prompts show."""
        return self.image or self.archive or f"{self.suite} ({self.variant}, mmdebstrap)"


@dataclass(frozen=True)
class PyTorch:
    """The PyTorch set. ``index`` is "default" or the address of the only index that may serve it."""

    torch: str
    torchvision: str
    torchaudio: str
    index: str

    def requirements(self) -> tuple[str, ...]:
        """``torch==…`` and, where given, torchvision and torchaudio."""
        pairs = (
            ("torch", self.torch),
            ("torchvision", self.torchvision),
            ("torchaudio", self.torchaudio),
        )
        return tuple(f"{name}=={version}" for name, version in pairs if version)


@dataclass(frozen=True)
class TensorRT:
    """TensorRT. ``tar``: the source named "tensorrt" is unpacked. ``deb``: packages, from ``apt.sources`` or
    from the local-repository .deb that the source named "tensorrt" is."""

    version: str
    form: str
    python: bool
    builder: tuple[str, ...]
    runtime: tuple[str, ...]


@dataclass(frozen=True)
class AptSource:
    """An APT source besides the base image's own. A source without a key is refused by sync unless file://."""

    name: str
    uri: str
    suite: str
    components: tuple[str, ...]
    key_urls: tuple[str, ...]
    key_sha256: str


@dataclass(frozen=True)
class SourceArchive:
    """A source archive: exactly one of ``urls``, ``sdist``, ``apt_source`` says where it comes from.

    ``file`` is the artifact's name ("" until resolved for apt_source); ``sha256`` is "" where sync must
    trust the first use (urls) or APT's signature (apt_source).
    """

    name: str
    file: str
    folder: str
    version: str
    licence: str
    urls: tuple[str, ...] = ()
    sha256: str = ""
    size: int = 0
    gated: str = ""
    sdist: str = ""
    apt_source: str = ""


@dataclass(frozen=True)
class FFmpeg:
    version: str
    configure: tuple[str, ...]


@dataclass(frozen=True)
class OpenCV:
    version: str
    contrib: bool
    cuda: bool
    dnn: bool
    architectures: tuple[str, ...]
    modules: tuple[str, ...]
    cmake: tuple[str, ...]


@dataclass(frozen=True)
class Secret:
    """A ``.env`` key that the application's build may see. ``passed`` is "secret" or "build-arg"."""

    key: str
    passed: str
    required: bool


@dataclass(frozen=True)
class Application:
    name: str
    source: str
    cmake: tuple[str, ...]
    check: tuple[str, ...]
    secrets: tuple[Secret, ...]


@dataclass(frozen=True)
class Preset:
    """What an image shall contain. ``sha256`` identifies this content, whatever the file's layout."""

    name: str
    summary_ko: str
    summary_en: str
    practice: bool
    os_id: str
    os_version: str
    platform: str
    epoch: int
    cuda: str
    cudnn: str
    builder: BaseImage
    runtime: BaseImage
    python: str
    packages: tuple[str, ...]
    pytorch: PyTorch | None
    tensorrt: TensorRT | None
    apt_builder: tuple[str, ...]
    apt_runtime: tuple[str, ...]
    apt_sources: tuple[AptSource, ...]
    sources: Mapping[str, SourceArchive]
    ffmpeg: FFmpeg | None
    opencv: OpenCV | None
    components: Mapping[str, Mapping[str, str]]
    application: Application
    raw: Mapping[str, Any]
    sha256: str

    def base(self, role: str) -> BaseImage:
        """The base image of "builder" or "runtime"."""
        return {"builder": self.builder, "runtime": self.runtime}[role]

    def debs(self, role: str) -> tuple[str, ...]:
        """The packages to install in "builder" or "runtime", TensorRT's among them where it comes as .debs.

        The builder gets the runtime's TensorRT when the preset names none of its own for it.
        """
        wanted = {"builder": self.apt_builder, "runtime": self.apt_runtime}[role]
        if self.tensorrt is None or self.tensorrt.form != "deb":
            return wanted
        own = self.tensorrt.builder if role == "builder" else ()
        return tuple(dict.fromkeys((*wanted, *(own or self.tensorrt.runtime))))


def load(file: Path, *, shown: str = "") -> Preset:
    """Parse and validate a preset file. Raises PresetError with every fault."""
    shown = shown or f"{file.parent.name}/{file.name}"
    raw, faults = read_json(file, PRESET_SHAPE, shown)
    if raw is not None and not faults:
        faults = preset_rules.broken_rules(raw, shown, file.stem)
    if faults:
        raise PresetError(
            ngettext(
                "{shown} has {count} fault", "{shown} has {count} faults", len(faults), shown=shown
            ),
            faults=faults,
            hint=_("correct it, then: ./gapforge check {stem}", stem=file.stem),
        )
    return parse(raw)


def faults_of(raw: Any, shown: str) -> list[Fault]:
    """Every fault of a raw preset that is not (yet) a file; ``shown`` is the name that messages use."""
    faults: list[Fault] = []
    PRESET_SHAPE.check(raw, "$", faults, shown)
    return faults or preset_rules.broken_rules(raw, shown, raw["name"])


def find(presets: Path, name: str) -> Preset:
    """The preset called ``name``; PresetError with the nearest name when there is none."""
    reason = unsafe_path_reason(name)
    if reason or "/" in name:
        raise PresetError(_("{name!r} is not a preset's name", name=name), hint="./gapforge list")
    file = presets / f"{name}.json"
    if not file.exists():
        known = names(presets)
        close = nearest(name, known)
        raise PresetError(
            _('there is no preset "{name}"{close}', name=name, close=close),
            hint="./gapforge list",
            faults=[Fault(str(file), _("does not exist"), one_of(known))],
        )
    return load(file)


def names(presets: Path) -> list[str]:
    """The names of all presets, sorted."""
    return sorted(f.stem for f in presets.glob("*.json") if not f.name.endswith(".lock.json"))


def parse(raw: Mapping[str, Any]) -> Preset:
    """The dataclasses for a document that PRESET_SHAPE has accepted."""
    torch = raw.get("pytorch")
    trt = raw.get("tensorrt")
    ffmpeg = raw.get("ffmpeg")
    opencv = raw.get("opencv")
    app = raw["application"]
    content = {k: v for k, v in raw.items() if k not in ("$schema", "summary")}
    return Preset(
        name=raw["name"],
        summary_ko=raw["summary"]["ko"],
        summary_en=raw["summary"]["en"],
        practice=raw.get("practice", False),
        os_id=raw["os"]["id"],
        os_version=raw["os"]["version"],
        platform=raw.get("platform", "linux/amd64"),
        epoch=raw.get("epoch", 1700000000),
        cuda=raw.get("cuda") or "",
        cudnn=raw.get("cudnn") or "",
        builder=_base(raw["base"]["builder"]),
        runtime=_base(raw["base"]["runtime"]),
        python=raw["python"]["version"],
        packages=tuple(raw["python"].get("packages", ())),
        pytorch=torch
        and PyTorch(
            torch["torch"],
            torch.get("torchvision", ""),
            torch.get("torchaudio", ""),
            torch["index"],
        ),
        tensorrt=trt
        and TensorRT(
            trt["version"],
            trt["form"],
            trt.get("python", True),
            tuple(trt.get("builder", ())),
            tuple(trt.get("runtime", ())),
        ),
        apt_builder=tuple(raw["apt"]["builder"]),
        apt_runtime=tuple(raw["apt"]["runtime"]),
        apt_sources=tuple(
            AptSource(
                s["name"],
                s["uri"],
                s["suite"],
                tuple(s.get("components", ())),
                tuple(s.get("key", {}).get("urls", ())),
                s.get("key", {}).get("sha256", ""),
            )
            for s in raw["apt"].get("sources", ())
        ),
        sources={name: _source(name, s) for name, s in sorted(raw["sources"].items())},
        ffmpeg=ffmpeg and FFmpeg(ffmpeg["version"], tuple(ffmpeg.get("configure", ()))),
        opencv=opencv
        and OpenCV(
            opencv["version"],
            opencv.get("contrib", False),
            opencv.get("cuda", False),
            opencv.get("dnn", False),
            tuple(opencv.get("architectures", ())),
            tuple(opencv.get("modules", ())),
            tuple(opencv.get("cmake", ())),
        ),
        components=raw.get("components", {}),
        application=Application(
            app["name"],
            app["source"],
            tuple(app.get("cmake", ())),
            tuple(app.get("check", ())),
            tuple(
                Secret(s["key"], s["pass"], s.get("required", False))
                for s in app.get("secrets", ())
            ),
        ),
        raw=raw,
        sha256=sha256_bytes(canonical_json(content).encode()),
    )


def _base(raw: Mapping[str, Any]) -> BaseImage:
    if "image" in raw:
        return BaseImage(image=raw["image"], digest=raw.get("digest", ""))
    if "archive" in raw:
        return BaseImage(archive=raw["archive"], archive_sha256=raw.get("sha256", ""))
    made = raw["mmdebstrap"]
    return BaseImage(
        suite=made["suite"],
        variant=made.get("variant", "minbase"),
        components=tuple(made.get("components", ("main",))),
        include=tuple(made.get("include", ())),
    )


def _source(name: str, raw: Mapping[str, Any]) -> SourceArchive:
    return SourceArchive(
        name=name,
        file=preset_rules.file_name(raw),
        folder=raw.get("folder", ""),
        version=raw.get("version", ""),
        licence=raw.get("licence", ""),
        urls=tuple(raw.get("urls", ())),
        sha256=raw.get("sha256") or "",
        size=raw.get("size", 0),
        gated=raw.get("gated", ""),
        sdist=raw.get("sdist", ""),
        apt_source=raw.get("apt-source", ""),
    )
