"""The preset: what an image contains, parsed into frozen dataclasses.

People write ``presets/NAME.json``; it is self-contained. ``preset_shape`` describes its format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gapforge.base import limits
from gapforge.base.errors import Fault, PresetError
from gapforge.base.files import sha256_bytes
from gapforge.base.i18n import _, ngettext
from gapforge.base.path_checks import unsafe_path_reason
from gapforge.base.strict_json import canonical_json
from gapforge.model import catalog as catalogs
from gapforge.model import component, preset_defaults, preset_rules, schema
from gapforge.model.build_packages import AptPackage, builder_packages, runtime_packages
from gapforge.model.catalog import Catalog
from gapforge.model.component import Component
from gapforge.model.names import ROLES
from gapforge.model.preset_defaults import Filled
from gapforge.model.preset_shape import preset_shape
from gapforge.model.schema import nearest, one_of, read_json

TORCH_SET = ("torch", "torchvision", "torchaudio")  # what comes from PyTorch's index


@dataclass(frozen=True, kw_only=True)
class BaseImage:
    """The origin of a base image: exactly one of ``image``, ``archive``, ``suite`` is set.

    ``private`` marks an image whose registry requires a login.
    """

    image: str = ""
    digest: str = ""
    archive: str = ""
    archive_sha256: str = ""
    suite: str = ""
    variant: str = "minbase"
    components: tuple[str, ...] = ("main",)
    include: tuple[str, ...] = ()
    private: bool = False

    @property
    def reference(self) -> str:
        """Return the image of a registry with the digest that pins it, if one does."""
        return f"{self.image}@{self.digest}" if self.digest else self.image

    @property
    def label(self) -> str:
        """Return the name in lists and prompts."""
        return self.image or self.archive or f"{self.suite} ({self.variant}, mmdebstrap)"


@dataclass(frozen=True)
class PyTorch:
    """The PyTorch packages. ``index`` is "default" or the URL of the only index to use for them."""

    torch: str
    torchvision: str
    torchaudio: str
    index: str

    def requirements(self) -> tuple[str, ...]:
        """Return the pins of torch and, if given, of torchvision and torchaudio."""
        versions = (self.torch, self.torchvision, self.torchaudio)
        pairs = zip(TORCH_SET, versions, strict=True)
        return tuple(f"{name}=={version}" for name, version in pairs if version)


@dataclass(frozen=True, kw_only=True)
class TensorRT:
    """TensorRT, as the preset describes it.

    ``form`` "tar": the source archive "tensorrt" is unpacked. "deb": packages are installed, from
    ``apt.sources`` or from the local-repository .deb that is the source "tensorrt".
    """

    version: str
    form: str
    python: bool
    builder: tuple[str, ...]
    runtime: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AptSource:
    """An APT source besides the base image's own. Without a key, sync accepts only file://."""

    name: str
    uri: str
    suite: str
    components: tuple[str, ...] = ()
    key_urls: tuple[str, ...] = ()
    key_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class SourceArchive:
    """A source archive: exactly one of ``urls``, ``sdist``, ``apt_source`` is its origin.

    ``file`` is the artifact's name, "" for an apt_source that is not resolved. ``sha256`` is "" if
    sync must trust the first download (urls) or APT's signature (apt_source). ``size`` is in bytes.
    ``private`` marks the file of a private GitHub repository.
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
    private: bool = False
    sdist: str = ""
    apt_source: str = ""


@dataclass(frozen=True)
class Options:
    """A component's options: those that the preset sets at the JSON ``path``, and defaults.

    ``values`` contains text, bools and tuples of text by option name.
    """

    path: str
    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        """Return a text, version or enum option, "" if it is not set."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def flag(self, key: str) -> bool:
        """Return whether a flag option is on."""
        return self.values.get(key) is True

    def list(self, key: str) -> tuple[str, ...]:
        """Return the members of a list option, () if it is not set."""
        value = self.values.get(key)
        return value if isinstance(value, tuple) else ()


@dataclass(frozen=True)
class Secret:
    """A ``.env`` key that the application's build may read. ``passed``: "secret", "build-arg"."""

    key: str
    passed: str
    required: bool


@dataclass(frozen=True, kw_only=True)
class Application:
    """The user's program. ``source`` is a folder; ``command`` and ``check`` are lists of words.

    ``build`` is "cmake", "meson", "make", or a script: "./" and its path in ``source``. ``command``
    is what the image runs, () for the program ``name``.
    """

    name: str
    source: str
    build: str = "cmake"
    command: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What an image contains.

    ``components`` has the options of each component that it uses, by name. ``raw`` is the document
    with everything that the file leaves out filled in; ``origins`` says where that comes from, by
    JSON path. ``epoch`` is None if it is the lock's, ``application`` None if there is none.
    ``without`` names Python packages that no dependency may bring; ``not_in_runtime`` has patterns
    of the files in RECORD that only the dev image gets, by package.
    ``apt_builder`` and ``apt_runtime`` are the packages that the document names itself; ``debs``
    adds those that follow from it. ``sha256`` identifies the content and what follows from it,
    whatever the layout of the file. ``described`` are the components that it was parsed with, None
    if their descriptions were not at hand, and ``catalog`` is the catalog that filled it.
    """

    name: str
    summary_ko: str
    summary_en: str
    practice: bool
    os_id: str
    os_version: str
    platform: str
    epoch: int | None
    cuda: str
    cudnn: str
    builder: BaseImage
    runtime: BaseImage
    python: str
    packages: tuple[str, ...]
    without: tuple[str, ...]
    not_in_runtime: Mapping[str, tuple[str, ...]]
    pytorch: PyTorch | None
    tensorrt: TensorRT | None
    apt_builder: tuple[str, ...]
    apt_runtime: tuple[str, ...]
    apt_sources: tuple[AptSource, ...]
    sources: Mapping[str, SourceArchive]
    components: Mapping[str, Options]
    application: Application | None
    raw: Mapping[str, Any]
    sha256: str
    described: tuple[Component, ...] | None = field(default=None, repr=False, compare=False)
    catalog: Catalog | None = field(default=None, repr=False, compare=False)
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def os(self) -> str:
        """Return the operating system, such as "ubuntu 22.04"."""
        return f"{self.os_id} {self.os_version}"

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Return the settings that the application's build may read."""
        return self.application.secrets if self.application else ()

    def component(self, name: str) -> Options | None:
        """Return the options of a component, or None if the preset does not ask for it."""
        return self.components.get(name)

    def base(self, role: str) -> BaseImage:
        """Return the base image of "builder" or "runtime"."""
        return {"builder": self.builder, "runtime": self.runtime}[role]

    @cached_property
    def apt_packages(self) -> Mapping[str, tuple[AptPackage, ...]]:
        """Return the packages of apt, of components and of their options, by role, with reasons."""
        return {"builder": builder_packages(self), "runtime": runtime_packages(self)}

    @property
    def decided_by(self) -> tuple[str, ...]:
        """Return the file and folders of the project that decide ``sha256``, as relative paths."""
        packages = (package for role in ROLES for package in self.apt_packages[role])
        added = {
            "catalog": preset_defaults.CATALOG in self.origins.values(),
            "components": any(package.only_derived for package in packages),
        }
        return (f"presets/{self.name}.json", *(folder for folder, adds in added.items() if adds))

    @property
    def roles_of_debs(self) -> dict[str, list[str]]:
        """Return the roles that install each package of ``debs``, by package."""
        found: dict[str, list[str]] = {}
        for role in ROLES:
            for package in self.debs(role):
                found.setdefault(package, []).append(role)
        return dict(sorted(found.items()))

    def debs(self, role: str) -> tuple[str, ...]:
        """Return the packages to install in a role, with those of TensorRT of the form "deb".

        The builder gets the runtime's TensorRT packages if the preset lists none for it. The build
        adds those of the libraries that the files of the runtime image link to.
        """
        wanted = tuple(package.name for package in self.apt_packages[role])
        if self.tensorrt is None or self.tensorrt.form != "deb":
            return wanted
        own = self.tensorrt.builder if role == "builder" else ()
        return tuple(dict.fromkeys((*wanted, *(own or self.tensorrt.runtime))))


def load(file: Path, *, shown: str = "", components: Path | None = None) -> Preset:
    """Parse and validate a preset file. Raise PresetError with every fault.

    ``components`` is the folder of the components, by default the one beside the file's folder, as
    in a project. Without it, as for the receiver program, components' options are not checked.
    What the file leaves out is filled in from the catalog beside ``components``.
    """
    shown = shown or f"{file.parent.name}/{file.name}"
    components = components or file.parent.parent / "components"
    described = component.described(components)
    raw, faults = read_json(file, preset_shape(described), shown, limits.PRESET)
    if raw is not None and not faults:
        catalog = catalogs.of_presets(components.parent / "catalog")
        filled = preset_defaults.fill(raw, catalog)
        faults = preset_rules.broken_rules(filled.document, shown, file.stem, described)
    if faults:
        raise PresetError(
            ngettext(
                "{shown} has {count} fault", "{shown} has {count} faults", len(faults), shown=shown
            ),
            faults=faults,
            hint=_("correct it, then: ./gapforge check {stem!q}", stem=file.stem),
        )
    return _parsed(raw, filled, described, catalog)


def faults_of(raw: Any, shown: str, components: tuple[Component, ...] | None) -> list[Fault]:
    """Return every fault of a raw preset that is not a file. ``shown`` names it in messages."""
    faults = schema.faults_of(raw, preset_shape(components), shown)
    if faults:
        return faults
    complete = preset_defaults.fill(raw).document
    return preset_rules.broken_rules(complete, shown, raw["name"], components)


def find(presets: Path, name: str) -> Preset:
    """Return the preset ``name``. Raise PresetError with the nearest name if there is none."""
    reason = unsafe_path_reason(name)
    if reason or "/" in name:
        raise PresetError(_("{name!r} is not a preset name", name=name), hint="./gapforge list")
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
    """Return the names of all presets, sorted."""
    return sorted(f.stem for f in presets.glob("*.json") if not f.name.endswith(".lock.json"))


def load_all(presets: Path) -> tuple[dict[str, Preset], dict[str, PresetError]]:
    """Return every preset by its name, and the error of each that cannot be read or is not valid.

    ``check`` reports these errors.
    """
    loaded: dict[str, Preset] = {}
    faulty: dict[str, PresetError] = {}
    for name in names(presets):
        try:
            loaded[name] = load(presets / f"{name}.json")
        except PresetError as error:
            faulty[name] = error
    return loaded, faulty


def parse(
    written: Mapping[str, Any],
    components: tuple[Component, ...] | None = None,
    catalog: Catalog | None = None,
) -> Preset:
    """Return the preset of a valid document, with defaults, and what the ``catalog`` adds.

    The options of components get the defaults that ``components`` declare.
    """
    return _parsed(written, preset_defaults.fill(written, catalog), components, catalog)


def _parsed(
    written: Mapping[str, Any],
    filled: Filled,
    components: tuple[Component, ...] | None,
    catalog: Catalog | None,
) -> Preset:
    raw = filled.document
    torch = raw.get("pytorch")
    trt = raw.get("tensorrt")
    preset = Preset(
        name=raw["name"],
        summary_ko=raw["summary"]["ko"],
        summary_en=raw["summary"]["en"],
        practice=raw["practice"],
        os_id=raw["os"]["id"],
        os_version=raw["os"]["version"],
        platform=raw["platform"],
        epoch=raw.get("epoch"),
        cuda=raw.get("cuda") or "",
        cudnn=raw.get("cudnn") or "",
        builder=_base(raw["base"]["builder"]),
        runtime=_base(raw["base"]["runtime"]),
        python=raw["python"]["version"],
        packages=tuple(raw["python"].get("packages", ())),
        without=tuple(raw["python"].get("without", ())),
        not_in_runtime={
            name: tuple(patterns)
            for name, patterns in sorted(raw["python"].get("not-in-runtime", {}).items())
        },
        pytorch=_pytorch(torch) if torch else None,
        tensorrt=_tensorrt(trt) if trt else None,
        apt_builder=tuple(raw["apt"]["builder"]),
        apt_runtime=tuple(raw["apt"]["runtime"]),
        apt_sources=tuple(map(_apt_source, raw["apt"]["sources"])),
        sources={name: _source(name, s) for name, s in sorted(raw["sources"].items())},
        components=_options(raw, components or ()),
        application=_application(raw["application"]) if raw["application"] else None,
        raw=raw,
        sha256="",
        described=components,
        catalog=catalog,
        origins=filled.origins,
    )
    return replace(preset, sha256=_sha256(written, filled, preset))


def _sha256(written: Mapping[str, Any], filled: Filled, preset: Preset) -> str:
    """Return the SHA-256 of all that decides what is locked.

    That is the document without its texts, and what the catalog and components add to it.
    """
    content = {k: v for k, v in written.items() if k not in ("$schema", "summary")}
    derived = filled.derived()
    for role in ROLES:
        if names := sorted(p.name for p in preset.apt_packages[role] if p.only_derived):
            derived[role] = names
    if derived:
        content["derived"] = derived
    return sha256_bytes(canonical_json(content).encode())


def _options(raw: Mapping[str, Any], components: Sequence[Component]) -> dict[str, Options]:
    defaults = {c.asked_by: c.defaults for c in components}
    found = {}
    for name, path, values in preset_rules.option_places(raw):
        if values is not None:
            frozen = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in values.items()
            }
            missing = {
                key: value for key, value in defaults.get(name, {}).items() if key not in frozen
            }
            found[name] = Options(path, {**frozen, **missing})
    return found


def _pytorch(raw: Mapping[str, Any]) -> PyTorch:
    return PyTorch(
        raw["torch"], raw.get("torchvision") or "", raw.get("torchaudio") or "", raw["index"]
    )


def _tensorrt(raw: Mapping[str, Any]) -> TensorRT:
    return TensorRT(
        version=raw["version"],
        form=raw["form"],
        python=raw.get("python", True),
        builder=tuple(raw.get("builder", ())),
        runtime=tuple(raw.get("runtime", ())),
    )


def _apt_source(raw: Mapping[str, Any]) -> AptSource:
    key = raw.get("key", {})
    return AptSource(
        name=raw["name"],
        uri=raw["uri"],
        suite=raw["suite"],
        components=tuple(raw.get("components", ())),
        key_urls=tuple(key.get("urls", ())),
        key_sha256=key.get("sha256", ""),
    )


def _application(raw: Mapping[str, Any]) -> Application:
    secrets = raw.get("secrets", ())
    return Application(
        name=raw["name"],
        source=raw["source"],
        build=raw.get("build", "cmake"),
        command=tuple(raw.get("command", ())),
        check=tuple(raw.get("check", ())),
        secrets=tuple(Secret(s["key"], s["pass"], s.get("required", False)) for s in secrets),
    )


def _base(raw: Mapping[str, Any]) -> BaseImage:
    if "image" in raw:
        return BaseImage(
            image=raw["image"], digest=raw.get("digest", ""), private=raw.get("private", False)
        )
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
        private=raw.get("private", False),
        sdist=raw.get("sdist", ""),
        apt_source=raw.get("apt-source", ""),
    )
