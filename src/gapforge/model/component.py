"""Components: the parts of an image, each described by its ``components/NAME/component.json``.

A description declares the component's options. The preset parser, the preset's JSON Schema, the
messages of ``check`` and docs/package-versions follow from it, so that a new component needs no
change in any of them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapforge.base import limits
from gapforge.base.errors import Fault, PresetError
from gapforge.base.i18n import N_, _
from gapforge.model import build_packages
from gapforge.model.build_packages import Packages
from gapforge.model.names import ROLES, normalized
from gapforge.model.schema import (
    AnyOf,
    Choice,
    Flag,
    Items,
    Record,
    Shape,
    Table,
    Text,
    nearest,
    one_of,
    read_json,
)
from gapforge.model.text_shapes import DOTTED, NAME, OPTION, VERSION

if TYPE_CHECKING:
    from gapforge.model.lock import Entry
    from gapforge.model.preset import Preset

SCRIPTS = ("build.sh", "check.py")
# What the members of a list may be.
_MEMBERS: dict[str, Text] = {"text": OPTION, "version": VERSION, "dotted": DOTTED, "name": NAME}
TYPES = ("version", "text", "flag", "list", "flags", "enum")
_LINE = Text()
_PRESET_KEY = Text("key of the preset", r"[a-z][a-z0-9._-]*", N_("a preset key"))
_OPTION_NAME = Text(
    "name of an option", r"[a-z][a-z0-9_-]*", N_("lower-case letters, digits, '_', '-'")
)
_PATTERN = Text("name or pattern", r"[a-z0-9*][a-z0-9._*-]*", N_('a name such as "numpy", or "*"'))
_TEXT_OF_ANY_LENGTH = Text(N_("option value"), r"[^\x00]*", N_("text"), limits.PRESET)

# Options of a component that does not declare any: only their types are checked.
UNDECLARED = Table(
    AnyOf((_TEXT_OF_ANY_LENGTH, Flag(), Items(OPTION)), N_("value of an option")),
    about=N_("options of a component that declares none"),
)

_NEEDS = Record(
    {},
    {
        "sources": Items(NAME, "source archives that the preset must name"),
        "options": Items(_OPTION_NAME, "options of the component that must not be empty"),
        "preset": Items(_PRESET_KEY, 'keys that the preset itself must give, such as "cuda"'),
    },
    about="what the preset must also give",
)
_OPTION = Record(
    {
        "type": Choice(TYPES, "flags: command line options, one word each"),
        "about": Text("what it does, in English"),
    },
    {
        "required": Flag("the preset must give it"),
        "default": AnyOf(
            (_TEXT_OF_ANY_LENGTH, Flag(), Items(OPTION)), "value where the preset gives none"
        ),
        "choices": Items(_LINE, "type enum: the values to choose from", least=1, unique=True),
        "of": Choice(tuple(_MEMBERS), "type list: what its members are; text when absent"),
        "runtime": Flag(
            "false: changes only the dev image; the check of a runtime image does not get it"
        ),
        "needs": _NEEDS,
    },
)
_STATED = Record(
    {},
    {
        "option": Text(
            "the component's value that it must equal, such as version", _OPTION_NAME.pattern
        ),
        "file": Text(
            "the file that states it, in the archive's folder; without it, the folder's name does",
            r"[A-Za-z0-9_][A-Za-z0-9_./+-]*",
        ),
        "pattern": Text(
            "regular expression whose groups, joined by dots, are the version", r"[^\x00]+"
        ),
        "required": Flag("an archive without the file cannot be built"),
    },
)
COMPONENT_SHAPE = Record(
    {
        "format": Choice((1, 2), "version of this format"),
        "name": NAME,
        "summary": AnyOf(
            (Text("one line, in English"), Record({"ko": Text(), "en": Text()}, about="format 1"))
        ),
    },
    {
        "$schema": Text(),
        "title": Text("name in tables; the component's name when absent"),
        "preset": Text(
            "the preset's own key that enables it, such as tensorrt; without it, its options do; a"
            " component without options is always included",
            r"[a-z.][a-z0-9._-]*",
            _PRESET_KEY.expected,
        ),
        "options": Table(_OPTION, _OPTION_NAME, "what a preset may say about it, by name"),
        "needs": _NEEDS,
        "sources": Items(_PATTERN, "source archives it uses, by name or pattern"),
        "packages": build_packages.FILE_OR_INLINE,
        "versions": Table(
            _STATED, NAME, "where the source archives state their versions, by name of the source"
        ),
        "wheels": Items(_PATTERN, "Python packages it uses, by name; the installer is added"),
        "module": Record(
            {
                "name": Text("Python module that it installs, such as cv2"),
                "wheels": Items(_PATTERN, "packages that install the same module", least=1),
            },
            {
                "option": Text(
                    "option that switches the module: a flag (default true), or a list that is "
                    "empty or has a member of the module's build",
                    _OPTION_NAME.pattern,
                ),
                "member": Text("the member of that list"),
                "needs": Items(NAME, "Python packages without which the module is not built"),
            },
            about="a Python module that the image must get from it and from no package",
        ),
        "debs": Flag("it uses the .debs of the role"),
        "per_role": Flag("it has one input folder for the builder and one for the runtime"),
    },
)
PACKAGES_FILE = Record(
    build_packages.SHAPE.required, {"$schema": Text(), **build_packages.SHAPE.optional}
)


@dataclass(frozen=True)
class Needs:
    """What a preset must also contain: sources, options of the same component, and own keys."""

    sources: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    preset: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Module:
    """A Python module that a component installs, and patterns of packages that also install it.

    ``option`` switches the module if it is a flag; a list is empty or has ``member`` for it.
    ``needs`` are the Python packages without which it is not built.
    """

    name: str
    wheels: tuple[str, ...]
    option: str = ""
    member: str = ""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StatedVersion:
    """Where the archive of ``source`` states its version.

    The groups of the regular expression ``pattern``, joined by dots, are the version in ``file``,
    which is in the archive's folder. If both are "", only the name of the folder tells it. The
    version must equal the component's value ``option``, "" for none. An archive without a
    ``required`` file cannot be built.
    """

    source: str
    option: str = ""
    file: str = ""
    pattern: str = ""
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a component.

    ``type`` is one of TYPES. ``default`` is of that type, or None. ``needs`` applies while the
    option is set: true, or not empty. ``about`` is English.
    """

    name: str
    type: str
    about: str
    required: bool
    default: str | bool | tuple[str, ...] | None
    choices: tuple[str, ...]
    of: str
    runtime: bool
    needs: Needs

    @property
    def shape(self) -> Shape:
        """Return the shape of its values in a preset."""
        if self.type == "flag":
            return Flag(self.about)
        if self.type == "enum":
            return Choice(self.choices, self.about)
        if self.type in ("list", "flags"):
            return Items(OPTION if self.type == "flags" else _MEMBERS[self.of], self.about)
        text = VERSION if self.type == "version" else _LINE
        return Text(self.about, text.pattern, text.expected)


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part of the image. ``folder`` holds component.json, build.sh and check.py.

    A preset uses it by setting options of the name ``asked_by``, or by its own key ``preset_key``.
    If both are "", the component is always included. ``options`` is None if the description
    declares none. ``title`` and ``summary`` are English.
    """

    name: str
    folder: Path
    title: str
    summary: str
    asked_by: str
    preset_key: str
    options: tuple[Option, ...] | None
    needs: Needs
    sources: tuple[str, ...]
    versions: tuple[StatedVersion, ...]
    wheels: tuple[str, ...]
    module: Module | None
    packages: Packages = field(hash=False)
    debs: bool
    per_role: bool

    @property
    def shape(self) -> Shape:
        """Return the shape of its options in a preset."""
        if self.options is None:
            return UNDECLARED
        required = {option.name: option.shape for option in self.options if option.required}
        optional = {option.name: option.shape for option in self.options if not option.required}
        return Record(required, optional)

    @cached_property
    def defaults(self) -> Mapping[str, str | bool | tuple[str, ...]]:
        """Return the values of the options that have a default, by name."""
        return {
            option.name: option.default
            for option in self.options or ()
            if option.default is not None
        }

    @property
    def has_version(self) -> bool:
        """Return whether a preset gives the component's version."""
        return any(
            option.type == "version" and option.name == "version" for option in self.options or ()
        )

    @property
    def helpers(self) -> tuple[str, ...]:
        """Return the names of the Python programs that its build.sh runs, sorted."""
        found = (file.name for file in self.folder.glob("*.py") if file.name not in SCRIPTS)
        return tuple(sorted(found))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the names of its folders in ``inputs/`` of a build context."""
        return tuple(f"{self.name}-{role}" for role in ROLES) if self.per_role else (self.name,)

    def part(self, preset: Preset) -> Mapping[str, Any] | None:
        """Return the preset's values for this component, or None if the preset does not use it."""
        if self.preset_key:
            own: Mapping[str, Any] | None = preset.raw.get(self.preset_key)
            return own
        if not self.asked_by:
            return {}
        options = preset.component(self.asked_by)
        return None if options is None else options.values

    def enabled(self, preset: Preset) -> bool:
        """Return whether the image contains it."""
        return self.part(preset) is not None

    def uses_source(self, name: str) -> bool:
        """Return whether the source archive of this name is one of its inputs."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.sources)

    def uses_wheel(self, entry: Entry) -> bool:
        """Return whether the wheel is one of the packages that it installs."""
        if entry.only_installs:
            return False
        return any(fnmatch.fnmatchcase(normalized(entry.name), pattern) for pattern in self.wheels)

    def installs_module(self, preset: Preset) -> Module | None:
        """Return the Python module that it installs into the image of this preset, or None."""
        part = self.part(preset)
        if part is None or self.module is None:
            return None
        value = part.get(self.module.option, True)
        if isinstance(value, bool):
            return self.module if value else None
        return self.module if not value or self.module.member in value else None


def described(folder: Path) -> tuple[Component, ...] | None:
    """Return the components by which presets are read, sorted by name; None without ``folder``.

    A component with a faulty description counts as one that declares no options, so that presets
    can still be read. ``load_all`` reports the faults. The result is cached until a file changes.
    """
    files = sorted(folder.glob("*/component.json"))
    if not files:
        return None
    states = []
    for file in sorted(folder.glob("*/*.json")):
        try:
            state = file.stat()
        except OSError:
            states.append((file, 0, 0))
        else:
            states.append((file, state.st_mtime_ns, state.st_size))
    return _described(tuple(states))


@lru_cache(maxsize=32)
def _described(states: tuple[tuple[Path, int, int], ...]) -> tuple[Component, ...]:
    found = []
    for file in (file for file, _time, _size in states if file.name == "component.json"):
        raw, faults = _read(file)
        name = file.parent.name
        found.append(
            _parse({"name": name, "preset": f"components.{name}"} if faults else raw, file.parent)
        )
    return tuple(found)


def load_all(folder: Path) -> tuple[Component, ...]:
    """Return the components in ``folder``, sorted by name. Raise PresetError with all faults."""
    found: list[Component] = []
    faults: list[Fault] = []
    for file in sorted(folder.glob("*/component.json")):
        raw, wrong = _read(file)
        for script in SCRIPTS:
            if not (file.parent / script).is_file():
                wrong.append(Fault(f"components/{file.parent.name}/{script}", _("does not exist")))
        faults += wrong
        if not wrong:
            found.append(_parse(raw, file.parent))
    if not found and not faults:
        faults.append(Fault(str(folder), _("contains no component")))
    if faults:
        raise PresetError(_("cannot read the components"), faults=faults)
    return tuple(found)


def _read(file: Path) -> tuple[Any, list[Fault]]:
    """Return a raw description and its faults."""
    shown = f"components/{file.parent.name}/{file.name}"
    raw, faults = read_json(file, COMPONENT_SHAPE, shown)
    if raw is None or faults:
        return raw, faults
    if raw["name"] != file.parent.name:
        expected = _('"{name}", the folder\'s name', name=file.parent.name)
        faults.append(Fault(f"{shown}: $.name", _('is "{name}"', name=raw["name"]), expected))
    faults += [*_option_faults(raw, shown), *_version_faults(raw, shown)]
    if isinstance(raw.get("packages"), str):
        other = file.parent / raw["packages"]
        shown = f"components/{file.parent.name}/{other.name}"
        packages, wrong = read_json(other, PACKAGES_FILE, shown)
        raw["packages"], faults = packages, faults + wrong
    if not faults:
        faults += _package_faults(raw, shown)
    return raw, faults


def _no_option(where: str, name: str, options: Iterable[str], expected: str = "") -> Fault:
    close = nearest(name, list(options))
    return Fault(where, _('there is no option "{name}"{close}', name=name, close=close), expected)


def _package_faults(raw: Mapping[str, Any], shown: str) -> Iterator[Fault]:
    """Yield a fault for each option with packages that the component does not declare.

    The value of a preset's own key, such as application, has no declared options.
    """
    options = list(raw.get("options", ()))
    packages = raw.get("packages", {})
    for key in ("options", "unlisted"):
        for name in packages.get(key, ()):
            if options and name not in options:
                yield _no_option(f"{shown}: {key}.{name}", name, options, one_of(options))


def _option_faults(raw: Mapping[str, Any], shown: str) -> Iterator[Fault]:
    """Yield a fault for each rule that the options break."""
    options = raw.get("options", {})
    for name, option in options.items():
        where = f"{shown}: $.options.{name}"
        for key, kind in (("choices", "enum"), ("of", "list")):
            if key in option and option["type"] != kind:
                problem = _("does not belong to the type {type}", type=option["type"])
                yield Fault(f"{where}.{key}", problem, f'"type": "{kind}"')
        if option["type"] == "enum" and "choices" not in option:
            yield Fault(f"{where}.choices", _("is missing"), _("the values to choose from"))
        elif "default" in option:
            wrong: list[Fault] = []
            _option(name, option).shape.check(option["default"], "$", wrong, "")
            if wrong:
                yield Fault(f"{where}.default", wrong[0].problem, wrong[0].expected)
            if option.get("required"):
                problem = _("is given for a required option")
                yield Fault(f"{where}.default", problem, _("one or the other"))
        for other in option.get("needs", {}).get("options", ()):
            if other not in options:
                yield _no_option(f"{where}.needs.options", other, options)


def _version_faults(raw: Mapping[str, Any], shown: str) -> Iterator[Fault]:
    """Yield a fault for each stated version that cannot be read."""
    for name, stated in raw.get("versions", {}).items():
        where = f"{shown}: $.versions.{name}"
        if ("file" in stated) != ("pattern" in stated):
            yield Fault(where, _("has only one of file and pattern"), _("both or none"))
        try:
            groups = re.compile(stated.get("pattern", "()")).groups
        except re.error as error:
            yield Fault(f"{where}.pattern", str(error), _("a regular expression"))
        else:
            if not groups:
                expected = _('a group, such as "([0-9.]+)"')
                yield Fault(f"{where}.pattern", _("has no group"), expected)
        option = stated.get("option")
        if option and "options" in raw and option not in raw["options"]:
            yield _no_option(f"{where}.option", option, raw["options"])


def _parse(raw: Mapping[str, Any], folder: Path) -> Component:
    key = raw.get("preset", f"components.{raw['name']}" if "options" in raw else "")
    by_options = key.startswith("components.")
    summary = raw.get("summary", "")
    return Component(
        name=raw["name"],
        folder=folder,
        title=raw.get("title", raw["name"]),
        summary=summary if isinstance(summary, str) else summary["en"],
        asked_by=key.removeprefix("components.") if by_options else "",
        preset_key="" if by_options else key,
        options=tuple(_option(name, o) for name, o in raw["options"].items())
        if "options" in raw
        else None,
        needs=_needs(raw),
        sources=tuple(raw.get("sources", ())),
        versions=tuple(
            StatedVersion(source=name, **stated) for name, stated in raw.get("versions", {}).items()
        ),
        wheels=tuple(raw.get("wheels", ())),
        module=_module(raw["module"]) if "module" in raw else None,
        packages=build_packages.parse(raw.get("packages", {})),
        debs=raw.get("debs", False),
        per_role=raw.get("per_role", False),
    )


def _option(name: str, raw: Mapping[str, Any]) -> Option:
    default = raw.get("default")
    return Option(
        name=name,
        type=raw["type"],
        about=raw["about"],
        required=raw.get("required", False),
        default=tuple(default) if isinstance(default, list) else default,
        choices=tuple(raw.get("choices", ())),
        of=raw.get("of", "text"),
        runtime=raw.get("runtime", True),
        needs=_needs(raw),
    )


def _module(raw: Mapping[str, Any]) -> Module:
    lists = {key: tuple(raw.get(key, ())) for key in ("wheels", "needs")}
    return Module(**{**raw, **lists})


def _needs(raw: Mapping[str, Any]) -> Needs:
    return Needs(**{key: tuple(names) for key, names in raw.get("needs", {}).items()})


def check_preset(preset: Preset, components: Sequence[Component]) -> list[Fault]:
    """Return a fault for each component and source of the preset that no description provides."""
    faults = []
    names = sorted(c.asked_by for c in components if c.asked_by)
    for name in sorted(preset.components):
        if name not in names:
            faults.append(
                Fault(
                    f"presets/{preset.name}.json: {preset.components[name].path}",
                    _("there is no component of this name{close}", close=nearest(name, names)),
                    _("a folder components/{name} with a component.json", name=name),
                )
            )
    patterns = sorted({pattern for c in components for pattern in c.sources})
    for source in sorted(preset.sources):
        if not any(c.uses_source(source) for c in components):
            faults.append(
                Fault(
                    f"presets/{preset.name}.json: $.sources.{source}",
                    _(
                        "no component uses a source archive of this name{close}",
                        close=nearest(source, patterns),
                    ),
                    one_of(patterns),
                )
            )
    return faults


def check_dockerfile(text: str, components: Sequence[Component]) -> list[Fault]:
    """Return the faults of a Dockerfile with these components.

    Every component must have a stage that mounts its inputs, both images must copy the result, the
    stage "needs" must see what it puts into the runtime image, and no stage may mount the inputs of
    an unknown component.
    """
    instructions = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    mounted = set(re.findall(r"\bsource=inputs/([^,\s]+)", "\n".join(instructions)))
    stages = re.findall(r"(?im)^[ \t]*FROM[ \t]+\S+[ \t]+AS[ \t]+(\S+)", "\n".join(instructions))
    known = {folder for c in components for folder in c.inputs}
    faults = []
    for folder in sorted(known - mounted):
        run = f"RUN --mount=type=bind,source=inputs/{folder},target=/in bash /in/build.sh"
        faults.append(
            Fault(
                "Dockerfile",
                _("no stage mounts inputs/{folder}, so the component is not built", folder=folder),
                _("a stage with {run}", run=run),
            )
        )
    for folder in sorted(mounted - known):
        close = nearest(folder, sorted(known))
        faults.append(
            Fault(
                "Dockerfile",
                _(
                    "mounts inputs/{folder}, but there is no such component{close}",
                    folder=folder,
                    close=close,
                ),
                one_of([f"inputs/{name}" for name in sorted(known)]),
            )
        )
    for name in (c.name for c in components if c.name in stages):
        mount = f"--mount=type=bind,from={name},source=/out/runtime,target=/trees/{name}"
        if not any(mount in line.split() for line in instructions):
            problem = _("no stage finds the packages of the libraries of {name}", name=name)
            faults.append(
                Fault("Dockerfile", problem, _("{mount} in the stage needs", mount=mount))
            )
        for tree, taker in (("dev", "devbase"), ("runtime", "runtime")):
            copy = re.compile(rf"(?i)\s*COPY\s+--from={re.escape(name)}\s+/out/{tree}/\s")
            if not any(copy.match(line + " ") for line in instructions):
                faults.append(
                    Fault(
                        "Dockerfile",
                        _("no stage copies /out/{tree}/ of the stage {name}", tree=tree, name=name),
                        _(
                            "COPY --from={name} /out/{tree}/ / in {taker}",
                            name=name,
                            tree=tree,
                            taker=taker,
                        ),
                    )
                )
    return faults
