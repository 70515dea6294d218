"""``gapforge show``: print a preset with everything filled in, and where each value comes from."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gapforge.base.errors import LockError
from gapforge.base.i18n import N_, _
from gapforge.base.project import Project
from gapforge.cli.argument_parser import add_json
from gapforge.cli.output import print_json, show
from gapforge.image.report import needed_libraries
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.build_packages import Reason, bare_name
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset
from gapforge.model.preset_defaults import CATALOG, DEFAULT
from gapforge.model.preset_rules import written_options

HELP = N_("print a preset with everything that it leaves out, and where each value comes from")
EXAMPLES = (
    "./gapforge show debian12-cpu-quickstart",
    "./gapforge show debian12-cpu-quickstart --json",
)

_HEADER = ("$schema", "format", "name")
_RUNTIME = "apt.runtime"
_PACKAGES = {"apt.builder": "builder", _RUNTIME: "runtime"}  # the role that each key is for


@dataclass(frozen=True)
class Value:
    """A value of a preset, the path of its keys, and where it comes from.

    ``origin`` is "preset", "default", "catalog", "component", "option", "archive", "lock",
    "candidate" or "build". ``of`` names the component, with the option and its value or the
    archive, or a file of the last build and the library that it needs, or is "".
    """

    path: str
    value: Any
    origin: str
    of: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields that say something."""
        return {"path": self.path, "value": self.value, "from": self.origin} | (
            {"of": self.of} if self.of else {}
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("preset", metavar="PRESET", help=_("preset name"))
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Print the preset and return 0."""
    preset = presets.find(project.presets, args.preset)
    try:
        lock = locks.load_matching(project.lock_file(preset.name), preset)
    except LockError:
        lock = None
    values = [*_values(preset), _epoch(preset, lock), *_derived(project, preset, lock)]
    values.sort(key=lambda value: value.path)
    if args.json:
        print_json({"preset": preset.name, "values": [value.to_json() for value in values]})
        return 0
    print(preset.name)
    for value in values:
        show(f"{value.path}: {_shown(value.value)}  ({_origin(value)})")
    return 0


def _values(preset: Preset) -> Iterator[Value]:
    """Yield every value but the epoch: those of the document, of options, and of packages."""
    for key, value in preset.raw.items():
        if key not in (*_HEADER, "epoch"):
            yield from _leaves(key, value, _origin_of(preset, f"$.{key}"), preset)
    for options in preset.components.values():
        path = options.path.removeprefix("$.")
        written = written_options(preset.raw, path.rsplit(".", 1)[-1]) or {}
        for name, value in options.values.items():
            if name not in written:
                yield Value(f"{path}.{name}", value, "component", path.rsplit(".", 1)[-1])
    for key, role in _PACKAGES.items():
        by_reason: dict[Reason, list[str]] = {}
        packages = preset.apt_packages[role]
        if not packages:
            yield Value(key, [], _origin_of(preset, f"$.{key}"))
        for package in packages:
            by_reason.setdefault(package.reasons[0], []).append(package.name)
        for reason, names in by_reason.items():
            of = " ".join(filter(None, (reason.component, reason.option, reason.value)))
            yield Value(key, names, reason.kind, of)


def _derived(project: Project, preset: Preset, lock: Lock | None) -> Iterator[Value]:
    """Yield the packages of the runtime image that nothing names: the other .debs of the lock.

    A build installs those that named packages depend on, and those of the libraries that files
    need. If the last one here was of this lock, its report says which file needs which library.
    """
    if lock is None:
        return
    named = {bare_name(package) for package in preset.debs("runtime")}
    names = {entry.name for entry in lock.of("deb") if "runtime" in entry.roles} - named
    needed = needed_libraries(project.dist_of(preset.name) / "runtime", preset, lock)
    for name in sorted(names & needed.keys()):
        yield Value(_RUNTIME, [name], "build", " ".join(needed[name]))
    if rest := sorted(names - needed.keys()):
        yield Value(_RUNTIME, rest, "candidate")


def _leaves(path: str, value: Any, origin: str, preset: Preset) -> Iterator[Value]:
    if path in _PACKAGES:
        return  # named with their reasons
    if not isinstance(value, Mapping) or not value:
        yield Value(path, value, origin)
        return
    for name, member in value.items():
        inner = preset.origins.get(f"$.{path}.{name}", origin)
        yield from _leaves(f"{path}.{name}", member, inner, preset)


def _origin_of(preset: Preset, path: str) -> str:
    return preset.origins.get(path, "preset")


def _epoch(preset: Preset, lock: Lock | None) -> Value:
    """Return the epoch: of the preset, or of its lock; None until it is locked."""
    if preset.epoch is not None:
        return Value("epoch", preset.epoch, "preset")
    return Value("epoch", locks.epoch_of(preset, lock.epoch) if lock else None, "lock")


def _shown(value: Any) -> str:
    """Return a value on one line: text as it is, a list of plain values as words."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value and not any(isinstance(v, dict) for v in value):
        return " ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False)


def _origin(value: Value) -> str:
    """Return where a value comes from, in the reader's language."""
    file, _space, library = value.of.rpartition(" ")
    words = {
        "preset": _("preset"),
        DEFAULT: _("default"),
        CATALOG: _("catalog"),
        "component": _("component {of}", of=value.of),
        "option": _("option {of}", of=value.of),
        "archive": _("unpacks {of}", of=value.of),
        "lock": _("lock") if value.value is not None else _("lock, of which there is none yet"),
        "candidate": _("lock: a build installs those that a package or a file needs"),
        "build": _("last build: {file} needs {library}", file=file, library=library),
    }
    return words[value.origin]
