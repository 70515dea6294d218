"""Complete the preset's JSON Schema with Korean descriptions, defaults and examples.

The shapes stay the only source of the structure. Examples are what an editor completes: versions
of the catalog, options that component descriptions know, and values of the table here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapforge.base.i18n import in_both_languages
from gapforge.model import preset_defaults
from gapforge.model.catalog import Catalog
from gapforge.model.component import Component
from gapforge.model.names import ROLES
from gapforge.model.versions import minor

Schema = dict[str, Any]
_SHA256 = "0123456789abcdef" * 4
# Defaults that the parser of presets has, besides those of preset_defaults, by path.
_DEFAULTS: Mapping[str, Any] = {
    "$.application.build": "cmake",
    "$.application.secrets[].required": False,
    "$.tensorrt.python": True,
    "$.sources.*.private": False,
    **{f"$.base.{role}.private": False for role in ROLES},
    **{f"$.base.{role}.mmdebstrap.variant": "minbase" for role in ROLES},
    **{f"$.base.{role}.mmdebstrap.components": ["main"] for role in ROLES},
}
# Examples by path, where neither the catalog nor the schema itself has them.
_BASE: Mapping[str, Sequence[Any]] = {
    "digest": ["sha256:" + _SHA256],
    "archive": ["images/base.tar"],
    "sha256": [_SHA256],
    "mmdebstrap.suite": ["bookworm", "jammy"],
    "mmdebstrap.components[]": ["main", "universe"],
    "mmdebstrap.include[]": ["ca-certificates", "locales"],
}
# Of the members of an option's list, and of its values.
_OF_TYPES = {"text": "value", "version": "1.2", "dotted": "1.2", "name": "name"}
_EXAMPLES: Mapping[str, Sequence[Any]] = {
    "$.$schema": ["../schemas/preset.schema.json"],
    "$.name": ["ubuntu22.04-cuda12.4-torch2.5"],
    "$.summary": ["PyTorch, FFmpeg and OpenCV for CUDA 12.4"],
    "$.summary.ko": ["CUDA 12.4, PyTorch 2.5, FFmpeg 5.1, OpenCV 4.10"],
    "$.summary.en": ["CUDA 12.4, PyTorch 2.5, FFmpeg 5.1, OpenCV 4.10"],
    **{f"$.base.{role}.{path}": values for role in ROLES for path, values in _BASE.items()},
    "$.python.packages[]": ["numpy==1.26.4", "pillow==10.4.0", "tqdm==4.66.5", "PyYAML==6.0.2"],
    "$.python.without[]": ["opencv-python", "opencv-python-headless", "opencv-contrib-python"],
    "$.python.not-in-runtime.*[]": ["torch/include/*", "*.a", "*.h"],
    "$.apt.builder[]": ["libjpeg-dev", "libpng-dev", "libtiff-dev", "libwebp-dev"],
    "$.apt.runtime[]": ["python3-distutils", "intel-opencl-icd"],
    "$.apt.sources": [[{"name": "vendor", "uri": "https://example.com/apt", "suite": "/"}]],
    "$.apt.sources[].name": ["vendor"],
    "$.apt.sources[].uri": ["https://example.com/apt"],
    "$.apt.sources[].suite": ["jammy", "/"],
    "$.apt.sources[].components[]": ["main"],
    "$.apt.sources[].key.urls[]": ["https://example.com/apt/key.asc"],
    "$.apt.sources[].key.sha256": [_SHA256],
    "$.sources.*.urls[]": ["https://example.com/releases/library-1.2.tar.xz"],
    "$.sources.*.sha256": [_SHA256],
    "$.sources.*.file": ["library-1.2.tar.xz"],
    "$.sources.*.folder": ["library-1.2/src"],
    "$.sources.*.version": ["1.2"],
    "$.sources.*.licence": ["Apache-2.0", "BSD-3-Clause", "LGPL-2.1-or-later", "MIT"],
    "$.sources.*.homepage": ["https://example.com/"],
    "$.sources.*.size": [1048576],
    "$.sources.*.gated": ["log in to the vendor's site and accept the licence"],
    "$.sources.*.sdist": ["opencv-python-headless==4.9.0.80"],
    "$.sources.*.apt-source": ["ffmpeg"],
    "$.application.source": ["examples/xaiva-media"],
    "$.application.name": ["xaiva-media"],
    "$.application.build": ["cmake", "meson", "make", "./build.sh"],
    "$.application.cmake[]": ["-DCMAKE_BUILD_TYPE=Release"],
    "$.application.meson[]": ["-Dbuildtype=release"],
    "$.application.make[]": ["WITH_CUDA=1"],
    "$.application.command": [["xaiva-media", "--help"]],
    "$.application.command[]": ["xaiva-media", "--help"],
    "$.application.check": [["xaiva-media", "--input", "{clip}", "--output", "{output}"]],
    "$.application.check[]": ["--input", "{clip}", "--output", "{output}", "{summary}"],
    "$.application.secrets": [[{"key": "XAIVA_LICENSE_TOKEN", "pass": "secret"}]],
    "$.application.secrets[].key": ["XAIVA_LICENSE_TOKEN"],
    "$.epoch": [1704067200],
    "$.tensorrt.builder[]": ["libnvinfer-dev"],
    "$.tensorrt.runtime[]": ["libnvinfer10", "libnvonnxparsers10"],
    "$.ffmpeg.configure[]": ["--disable-debug", "--disable-doc", "--disable-autodetect"],
    "$.opencv.cmake[]": ["-DWITH_GTK=OFF", "-DWITH_QT=OFF", "-DBUILD_opencv_gapi=OFF"],
    "$.opencv.modules[]": ["core", "imgproc", "imgcodecs", "videoio", "dnn", "python3"],
    "$.components.*.*[]": ["-DWITH_X=ON"],
    "$.components.*.*": [True, "1.2", ["-DWITH_X=ON"]],
}


def complete(schema: Schema, components: Sequence[Component], catalog: Catalog) -> Schema:
    """Return the preset's schema with descriptions in both languages, defaults and examples."""
    defaults = {**_DEFAULTS, **filled_in()}
    examples = {**_EXAMPLES, **_of_catalog(catalog)}
    for component in components:
        for name, values in _of_component(component, catalog).items():
            for holder in ("$", "$.components"):
                examples[f"{holder}.{component.asked_by}.{name}"] = values
        for name, value in _defaults_of(component).items():
            for holder in ("$", "$.components"):
                defaults[f"{holder}.{component.asked_by}.{name}"] = value
    return _Tables(defaults, examples).completed(schema, "$")


def filled_in() -> dict[str, Any]:
    """Return what preset_defaults adds to a preset that leaves out all that it may, by path."""
    filled = preset_defaults.fill({"summary": "", "python": {}})
    return {path: preset_defaults.value_at(filled.document, path) for path in filled.origins}


@dataclass(frozen=True)
class _Tables:
    """Defaults and examples by path: a list's members are at "[]", those of a table at "*"."""

    defaults: Mapping[str, Any]
    examples: Mapping[str, Sequence[Any]]

    def completed(self, schema: Schema, path: str) -> Schema:
        """Return the schema of the value at ``path``, completed with everything inside it."""
        made = dict(schema)
        if "description" in made:
            made["description"] = _in_both(made["description"])
        if "properties" in made:
            needed = made["required"]
            made["properties"] = {
                name: self._member(member, f"{path}.{name}", optional=name not in needed)
                for name, member in made["properties"].items()
            }
        if "items" in made:
            made["items"] = self._member(made["items"], f"{path}[]")
        if isinstance(made.get("additionalProperties"), dict):
            made["additionalProperties"] = self._member(made["additionalProperties"], f"{path}.*")
        for kind in ("anyOf", "oneOf"):
            if kind in made:
                made[kind] = [self.completed(one, path) for one in made[kind]]
        return made

    def _member(self, schema: Schema, path: str, *, optional: bool = False) -> Schema:
        """Return the completed schema of a member, with its default and its examples."""
        made = self.completed(schema, path)
        if optional and path in self.defaults:
            made["default"] = self.defaults[path]
        elif optional and made.get("type") == "array" and not made.get("minItems"):
            made["default"] = []
        examples = self.examples.get(path) or list(_evident(made))
        if examples:
            made["examples"] = list(examples)
        return made


def _in_both(description: str) -> str:
    """Return a description and its translation; a component of your own may have none."""
    texts = in_both_languages(description)
    return "\n\n".join(dict.fromkeys((texts["en"], texts["ko"])))


def _evident(schema: Schema) -> Iterator[Any]:
    """Yield the examples that follow from a completed schema itself."""
    yield from schema.get("enum", ())
    if schema.get("type") == "boolean":
        yield from (True, False)
    members = schema.get("items", {}).get("examples")
    if members:
        yield members[:2]


def _defaults_of(component: Component) -> dict[str, Any]:
    """Return the defaults of a component's options by name; a flag without one is false."""
    flags = {option.name: False for option in component.options or () if option.type == "flag"}
    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in component.defaults.items()
    }
    return {**flags, **given}


def _of_component(component: Component, catalog: Catalog) -> dict[str, list[Any]]:
    """Return examples of a component's options by name, with "[]" for members of a list."""
    versions = {"ffmpeg": list(catalog.ffmpeg), "opencv": list(catalog.opencv)}
    found: dict[str, list[Any]] = {}
    for option in component.options or ():
        path = f"{option.name}[]" if option.type in ("list", "flags") else option.name
        values = list(_EXAMPLES.get(f"$.{component.asked_by}.{path}", ()))
        if option.type == "version" and option.name == "version":
            values += versions.get(component.name, ())
        if option.of == "dotted" and option.name == "architectures":
            values += catalog.architectures
        values += _known(component, option.name)
        if option.type == "flags":
            values = values or ["--option"]
        elif option.type in ("list", "version", "text"):
            values = values or [_OF_TYPES[option.of if option.type == "list" else option.type]]
        if values:
            found[path] = _once(values)
    return found


def _known(component: Component, option: str) -> list[str]:
    """Return the values that a component describes and that some system has packages for."""
    libraries = component.packages.options.get(option, {})
    return [
        word
        for word, library in libraries.items()
        if word and set(library.packages.names.values()) != {None}
    ]


def _of_catalog(catalog: Catalog) -> dict[str, list[Any]]:
    """Return all versions that the catalog knows as examples, by path."""
    torch = [
        release.packages(build)
        for release in catalog.torch.values()
        for build in ("", *release.builds)
    ]
    builds = _once(build for release in catalog.torch.values() for build in release.builds)
    pythons = _once(python for release in catalog.torch.values() for python in release.pythons)
    return {
        "$.os.version": [name.partition(" ")[2] for name in catalog.os_gcc],
        "$.python.version": pythons,
        "$.cuda": _once(minor(image.cuda) for image in catalog.images),
        "$.cudnn": _once(minor(image.cudnn) for image in catalog.images if image.cudnn),
        "$.base.builder.image": [image.builder for image in catalog.images],
        "$.base.runtime.image": [image.runtime for image in catalog.images],
        **{
            f"$.pytorch.{name}": [packages[name] for packages in torch if name in packages]
            for name in ("torch", "torchvision", "torchaudio")
        },
        "$.pytorch.index": ["default", *(catalog.torch_index.format(build=b) for b in builds)],
        "$.tensorrt.version": list(catalog.tensorrt),
    }


def _once(values: Iterable[str]) -> list[str]:
    """Return the values in their order, each once."""
    return list(dict.fromkeys(values))
