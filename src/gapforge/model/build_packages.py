"""APT packages that a preset's images need: of components, of their options, and its own.

A description (``component.json``, or the file that its "packages" names) lists them as data: what
the component always needs, and what each value of an option needs besides, such as ``libx265-dev``
for ``--enable-libx265``. Names may differ between operating systems.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gapforge.base.i18n import N_
from gapforge.model.schema import AnyOf, Items, Nullable, Record, Table, Text
from gapforge.model.text_shapes import FILE, OPTION, PACKAGE, PATH, VERSION

if TYPE_CHECKING:
    from gapforge.model.component import Component
    from gapforge.model.preset import Preset

EVERYWHERE = "*"
_PACKAGE = Text(
    'APT package; "{python}" becomes the preset\'s Python, such as 3.11',
    r"[a-z0-9](?:[a-z0-9+.-]|\{python\})*(?:[a-z0-9+]|\{python\})",
    N_('an APT package name such as "nasm" or "libpython{python}-dev"'),
)
_OS = Text(
    'operating system: "debian12", "debian" for its other versions, or "*" for all others',
    r"\*|(?:debian|ubuntu)(?:[0-9]+(?:\.[0-9]+)?)?",
    N_('"debian12", "ubuntu22.04", "debian", "ubuntu" or "*"'),
)
_BY_OS = AnyOf(
    (
        Items(_PACKAGE, unique=True),
        Table(
            Nullable(Items(_PACKAGE, unique=True), "null: the OS does not carry it"),
            _OS,
            "packages by operating system",
        ),
    ),
    "packages, the same everywhere or by operating system",
)
_VALUE = Text("value of an option", r"[^\x00-\x1f]*", OPTION.expected)
_VALUES = Items(OPTION)
LIBRARY = Record(
    {"packages": _BY_OS},
    {
        "files": Items(
            PATH,
            'files of which one must be there, * for any text: "x265.pc" of pkg-config, or a '
            'header such as "lame/lame.h"',
            least=1,
        ),
        "needs": Items(OPTION, "values of the same option that this one needs"),
        "needs-with": Table(_VALUES, OPTION, "values that it needs where the key is set too"),
        "unless": Items(OPTION, "values with which it needs no package, such as a bundled copy"),
        "since": VERSION,
        "before": VERSION,
        "too-old": Table(
            VERSION, _OS, "by OS, the component's version from which its package is too old"
        ),
        "elsewhere": Items(
            PACKAGE, "names under which other APT sources carry it; apt.builder may list one"
        ),
        "instead": Text("what to do where the OS does not carry it, in English"),
    },
    "what one value of an option needs",
)
SHAPE = Record(
    {},
    {
        "build": _BY_OS,
        "runtime": _BY_OS,
        "options": Table(
            Table(AnyOf((Items(_PACKAGE, unique=True), LIBRARY)), _VALUE, "by value"),
            Text("name of an option"),
            'what values of options need: an option of a command line, a member of a list, "true"; '
            '"" where the preset does not give it',
        ),
        "brings": Items(
            PATH, "files as under files that the component installs itself for later ones"
        ),
        "unlisted": Table(
            Items(OPTION),
            Text("name of an option"),
            "patterns of values that name an external library, for those that are not listed",
        ),
    },
    "APT packages that it needs: of the builder, and of the runtime image those it loads by name",
)
FILE_OR_INLINE = AnyOf((FILE, SHAPE), "APT packages that it needs, or the JSON file with them")

_DEFINITION = re.compile(r"-D(?P<name>[A-Za-z0-9_.:-]+?)(?::[A-Z]+)?=(?P<value>.*)", re.DOTALL)
_SWITCH = re.compile(r"--(?P<verb>enable|disable|with|without)-(?P<name>[A-Za-z0-9_-]+)")
# What unpacks a source archive, besides tar and gzip, which each base image has.
_UNPACKERS = {".xz": "xz-utils", ".txz": "xz-utils", ".zst": "zstd", ".bz2": "bzip2"}
_OFF = {"disable": "enable", "without": "with"}
# The boolean constants of CMake (cmake-language, "if"). Meson has true and false too.
_TRUE, _FALSE = ("ON", "YES", "TRUE", "Y", "1"), ("OFF", "NO", "FALSE", "N", "0", "")


@dataclass(frozen=True)
class ByOS:
    """Packages by operating system; None where it does not carry them."""

    names: Mapping[str, tuple[str, ...] | None]

    def on(self, preset: Preset) -> tuple[str, ...] | None:
        """Return the packages for the preset's OS and Python; () for an OS that nothing names."""
        system = value_for(self.names, preset, ())
        if system is None:
            return None
        return tuple(name.replace("{python}", preset.python) for name in system)


@dataclass(frozen=True, kw_only=True)
class Library:
    """What one value of a component's option needs: packages, files, and other values.

    ``files`` are names of pkg-config files, or paths of headers below an include folder. ``since``
    is the component's first version that knows the value, ``before`` the first that does not any
    more; ``too_old`` has by OS the first version for which its package is too old. "" and () where
    a description does not say. ``instead`` is English.
    """

    packages: ByOS
    files: tuple[str, ...]
    needs: tuple[str, ...]
    needs_with: Mapping[str, tuple[str, ...]]
    unless: tuple[str, ...]
    since: str
    before: str
    too_old: Mapping[str, str]
    elsewhere: tuple[str, ...]
    instead: str


@dataclass(frozen=True)
class Packages:
    """The packages of one component: always, by option and value, and patterns of other values.

    ``runtime`` are those of the runtime image that the component loads by name. ``brings`` are
    files of libraries that the component itself installs.
    """

    build: ByOS
    options: Mapping[str, Mapping[str, Library]]
    unlisted: Mapping[str, tuple[str, ...]]
    runtime: ByOS
    brings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A value of an option that needs a library.

    ``word`` is as descriptions write it, ``path`` the option's JSON path in the preset. ``others``
    are all values of the option. ``library`` is None for one that the description does not list.
    """

    component: Component
    option: str
    path: str
    word: str
    others: frozenset[str]
    library: Library | None

    def packages(self, preset: Preset) -> tuple[str, ...] | None:
        """Return the packages that it needs on the preset's OS; None if the OS has none."""
        if self.library is None or not self.others.isdisjoint(self.library.unless):
            return ()
        return self.library.packages.on(preset)

    def files(self) -> tuple[str, ...]:
        """Return the files of which one must be there; usual names for an unlisted value."""
        if self.library is not None:
            needed = self.others.isdisjoint(self.library.unless)
            return self.library.files if needed else ()
        patterns = self.component.packages.unlisted.get(self.option, ())
        stems = [_stem(self.word, pattern) for pattern in patterns]
        names = [name.lower() for name in stems if name]
        return tuple(
            dict.fromkeys(f for n in names for f in (f"lib{n}.pc", f"{n}.pc", f"{n}.h", f"{n}/*.h"))
        )


@dataclass(frozen=True, order=True)
class Reason:
    """Why the builder gets a package: "component", "option", "archive" or "preset".

    The other fields may be "". ``value`` is the value of the option, or the file of the archive.
    """

    kind: str
    component: str = ""
    option: str = ""
    value: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the fields that say something."""
        return {key: value for key, value in vars(self).items() if value}


@dataclass(frozen=True)
class AptPackage:
    """A package that an image gets, as apt is asked for it, and every reason for it."""

    name: str
    reasons: tuple[Reason, ...]

    @property
    def only_derived(self) -> bool:
        """Return whether the preset itself does not name it."""
        return all(reason.kind != "preset" for reason in self.reasons)

    def to_json(self) -> dict[str, Any]:
        """Return all fields in JSON types."""
        return {"name": self.name, "reasons": [reason.to_json() for reason in self.reasons]}


def parse(raw: Mapping[str, Any]) -> Packages:
    """Return the packages of a valid description."""
    return Packages(
        build=_by_os(raw.get("build", ())),
        options={
            option: {_word(value): _library(library) for value, library in values.items()}
            for option, values in raw.get("options", {}).items()
        },
        unlisted={option: tuple(p) for option, p in raw.get("unlisted", {}).items()},
        runtime=_by_os(raw.get("runtime", ())),
        brings=tuple(raw.get("brings", ())),
    )


def builder_packages(preset: Preset) -> tuple[AptPackage, ...]:
    """Return every package that the builder image gets, with its reasons.

    Those of the preset come first, in its order, then those of the components that it uses, of
    their options, and those that unpack their source archives. A name that the preset gives with a
    version or an architecture counts as the package. Without descriptions of components, only the
    preset's own are known.
    """
    return _merged(
        [
            *((name, Reason("preset")) for name in preset.apt_builder),
            *_of_components(preset, lambda packages: packages.build),
            *(
                (name, Reason("option", asked.component.name, asked.option, asked.word))
                for asked in asked_libraries(preset)
                for name in asked.packages(preset) or ()
            ),
            *_that_unpack(preset),
        ]
    )


def runtime_packages(preset: Preset) -> tuple[AptPackage, ...]:
    """Return every package of the runtime image that is loaded by name, with its reasons.

    Those of the libraries that files link to are found in the build.
    """
    return _merged(
        [
            *((name, Reason("preset")) for name in preset.apt_runtime),
            *_of_components(preset, lambda packages: packages.runtime),
        ]
    )


def _of_components(preset: Preset, of: Callable[[Packages], ByOS]) -> Iterator[tuple[str, Reason]]:
    """Yield the packages that the components which the preset uses always need."""
    for component in preset.described or ():
        if component.enabled(preset):
            for name in of(component.packages).on(preset) or ():
                yield name, Reason("component", component.name)


def _that_unpack(preset: Preset) -> Iterator[tuple[str, Reason]]:
    """Yield the packages that unpack the source archives of the components."""
    for component in preset.described or ():
        if component.enabled(preset):
            for source in filter(component.uses_source, sorted(preset.sources)):
                file = preset.sources[source].file
                if unpacker := _UNPACKERS.get(os.path.splitext(file)[1]):
                    yield unpacker, Reason("archive", component.name, value=file)


def _merged(found: Iterable[tuple[str, Reason]]) -> tuple[AptPackage, ...]:
    """Return each package once, by its first name, with all its reasons."""
    merged: dict[str, tuple[str, list[Reason]]] = {}
    for name, reason in found:
        merged.setdefault(bare_name(name), (name, []))[1].append(reason)
    return tuple(
        AptPackage(name, tuple(dict.fromkeys(reasons))) for name, reasons in merged.values()
    )


def asked_libraries(preset: Preset) -> Iterator[Asked]:
    """Yield each value of an option that needs packages, or looks like an external library."""
    for component in preset.described or ():
        part = component.part(preset)
        if part is None:
            continue
        options = preset.component(component.asked_by)
        path = options.path if options else f"$.{component.preset_key}"
        packages = component.packages
        for option in dict.fromkeys((*packages.options, *packages.unlisted)):
            listed = packages.options.get(option, {})
            words = frozenset(_words(part.get(option)))
            for word in sorted(words):
                patterns = packages.unlisted.get(option, ())
                if word in listed or any(fnmatch.fnmatchcase(word, p) for p in patterns):
                    yield Asked(
                        component=component,
                        option=option,
                        path=f"{path}.{option}",
                        word=word,
                        others=words,
                        library=listed.get(word),
                    )


def brought_files(preset: Preset) -> Iterator[str]:
    """Yield the files of libraries that the preset's components install themselves."""
    for component in preset.described or ():
        if component.enabled(preset):
            yield from component.packages.brings


def _stem(word: str, pattern: str) -> str:
    """Return what the only "*" of a pattern stands for in ``word``; "" if it does not match."""
    start, _star, end = pattern.partition("*")
    fits = word.startswith(start) and word.endswith(end)
    return word[len(start) : len(word) - len(end)] if fits else ""


def bare_name(package: str) -> str:
    """Return a package without ``:architecture`` and ``=version``."""
    return re.split("[:=]", package, maxsplit=1)[0]


def value_for(table: Mapping[str, Any], preset: Preset, default: Any) -> Any:
    """Return the value for the preset's OS: of its version, else of any version, else of "*"."""
    for name in (f"{preset.os_id}{preset.os_version}", preset.os_id, EVERYWHERE):
        if name in table:
            return table[name]
    return default


def _words(value: Any) -> Iterator[str]:
    """Yield an option's values as descriptions write them."""
    if isinstance(value, (list, tuple)):
        yield from effective_words(value)
    elif isinstance(value, bool):
        yield "true" if value else "false"
    else:
        yield str(value or "")


def effective_words(words: Sequence[str]) -> list[str]:
    """Return the command line options that count, in one spelling; of contrary ones the last.

    ``-DNAME:TYPE=yes`` (also after a separate ``-D``) becomes ``-DNAME=ON``, and in the names of
    ``--enable-…``, ``_`` becomes ``-``, as FFmpeg's configure reads them.
    """
    found: dict[str, str] = {}
    rest = iter(words)
    for text in rest:
        word = _word(text + next(rest, "") if text == "-D" else text)
        if match := _DEFINITION.fullmatch(word):
            subject = "-D" + match["name"]
        elif match := _SWITCH.fullmatch(word):
            subject = f"--{_OFF.get(match['verb'], match['verb'])}-{match['name']}"
        else:
            subject = word
        found.pop(subject, None)
        found[subject] = word
    return list(found.values())


def _word(text: str) -> str:
    """Return one option of a command line in the spelling of ``effective_words``."""
    if match := _DEFINITION.fullmatch(text):
        value = match["value"]
        if value.upper() in _TRUE:
            value = "ON"
        elif value.upper() in _FALSE:
            value = "OFF"
        return f"-D{match['name']}={value}"
    if match := _SWITCH.fullmatch(text):
        return f"--{match['verb']}-{match['name'].replace('_', '-')}"
    return text


def _by_os(raw: Any) -> ByOS:
    table = raw if isinstance(raw, Mapping) else {EVERYWHERE: raw}
    return ByOS({name: None if v is None else tuple(v) for name, v in table.items()})


def _library(raw: Any) -> Library:
    if not isinstance(raw, Mapping):
        raw = {"packages": raw}
    return Library(
        packages=_by_os(raw["packages"]),
        files=tuple(raw.get("files", ())),
        needs=tuple(map(_word, raw.get("needs", ()))),
        needs_with={
            _word(with_): tuple(map(_word, words))
            for with_, words in raw.get("needs-with", {}).items()
        },
        unless=tuple(map(_word, raw.get("unless", ()))),
        since=raw.get("since", ""),
        before=raw.get("before", ""),
        too_old=dict(raw.get("too-old", {})),
        elsewhere=tuple(raw.get("elsewhere", ())),
        instead=raw.get("instead", ""),
    )
