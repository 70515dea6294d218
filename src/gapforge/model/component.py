"""Components: the pieces of an image, found by looking in ``components/``."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, PresetError
from gapforge.base.i18n import N_, _
from gapforge.model.lock import Entry
from gapforge.model.preset import NAME, Preset
from gapforge.model.schema import Choice, Flag, Items, Record, Text, nearest, one_of, read_json

_PATTERN = Text("name or pattern", r"[a-z0-9*][a-z0-9._*-]*", N_('a name such as "numpy", or "*"'))
COMPONENT_SHAPE = Record(
    {
        "format": Choice((1,), "version of this format"),
        "name": NAME,
        "summary": Record({"ko": Text(), "en": Text()}),
    },
    {
        "preset": Text(
            "the preset's key that asks for it; absent: always there",
            r"[a-z.][a-z0-9._-]*",
            N_("a preset key"),
        ),
        "sources": Items(_PATTERN, "source archives it takes, by name or pattern"),
        "wheels": Items(_PATTERN, "Python packages it takes, by name; the installer comes along"),
        "debs": Flag("it takes the .debs of the role"),
        "per_role": Flag("it has one input folder for the builder and one for the runtime"),
    },
)


@dataclass(frozen=True)
class Component:
    """One piece of the image. ``folder`` holds build.sh and check.py."""

    name: str
    folder: Path
    preset_key: str
    sources: tuple[str, ...]
    wheels: tuple[str, ...]
    debs: bool
    per_role: bool

    def part(self, preset: Preset) -> Any:
        """The preset's part that asks for this component; None when the preset does without."""
        if not self.preset_key:
            return {}
        value: Any = preset.raw
        for key in self.preset_key.split(".", 1):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def enabled(self, preset: Preset) -> bool:
        """Whether the preset asks for it."""
        return self.part(preset) is not None

    def takes_source(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.sources)

    def takes_wheel(self, entry: Entry) -> bool:
        """Whether a wheel belongs into its inputs; the installer goes with any other."""
        if not self.wheels:
            return False
        if "install-tool" in entry.roles:
            return True
        return any(fnmatch.fnmatchcase(canonical(entry.name), pattern) for pattern in self.wheels)


def canonical(package: str) -> str:
    """A Python package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def load_all(folder: Path) -> tuple[Component, ...]:
    """Every component in ``components/``, by name. Raises PresetError with all faults of their descriptions."""
    found: list[Component] = []
    faults: list[Fault] = []
    for file in sorted(folder.glob("*/component.json")):
        shown = f"components/{file.parent.name}/component.json"
        raw, wrong = read_json(file, COMPONENT_SHAPE, shown)
        if raw is not None and not wrong and raw["name"] != file.parent.name:
            wrong = [
                Fault(
                    f"{shown}: $.name",
                    _('is "{name}"', name=raw["name"]),
                    _('"{name}", the folder\'s name', name=file.parent.name),
                )
            ]
        for script in ("build.sh", "check.py"):
            if not (file.parent / script).is_file():
                wrong.append(Fault(f"components/{file.parent.name}/{script}", _("does not exist")))
        faults += wrong
        if raw is not None and not wrong:
            found.append(
                Component(
                    raw["name"],
                    file.parent,
                    raw.get("preset", ""),
                    tuple(raw.get("sources", ())),
                    tuple(raw.get("wheels", ())),
                    raw.get("debs", False),
                    raw.get("per_role", False),
                )
            )
    if not found and not faults:
        faults.append(Fault(str(folder), _("holds no component")))
    if faults:
        raise PresetError(_("components cannot be read"), faults=faults)
    return tuple(found)


def check_preset(preset: Preset, components: Sequence[Component]) -> list[Fault]:
    """What a preset asks of components that nobody provides."""
    faults = []
    keys = {c.preset_key for c in components}
    names = sorted(k.removeprefix("components.") for k in keys if k.startswith("components."))
    for name in sorted(preset.components):
        if f"components.{name}" not in keys:
            close, key = nearest(name, names), f'"preset": "components.{name}"'
            faults.append(
                Fault(
                    f"presets/{preset.name}.json: $.components.{name}",
                    _("there is no component of this name{close}", close=close),
                    _(
                        "a folder components/{name} whose component.json has {key}",
                        name=name,
                        key=key,
                    ),
                )
            )
    for source in sorted(preset.sources):
        takers = [c for c in components if c.takes_source(source)]
        if not takers:
            patterns = sorted({p for c in components for p in c.sources})
            close = nearest(source, patterns)
            faults.append(
                Fault(
                    f"presets/{preset.name}.json: $.sources.{source}",
                    _("no component takes a source of this name{close}", close=close),
                    one_of(patterns),
                )
            )
    return faults


def check_dockerfile(text: str, components: Sequence[Component]) -> list[Fault]:
    """Components that no stage of the Dockerfile builds, or whose results no image takes: they would silently be
    missing. And stages that mount the inputs of a component that does not exist."""
    faults = []
    instructions = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    mounted = set(re.findall(r"\bsource=inputs/([^,\s]+)", "\n".join(instructions)))
    stages = re.findall(r"(?im)^\s*FROM\s+\S+\s+AS\s+(\S+)", "\n".join(instructions))
    known = {
        f"{c.name}{suffix}"
        for c in components
        for suffix in (("-builder", "-runtime") if c.per_role else ("",))
    }
    for folder in sorted(known - mounted):
        run = f"RUN --mount=type=bind,source=inputs/{folder},target=/in bash /in/build.sh"
        faults.append(
            Fault(
                "Dockerfile",
                _(
                    "mounts inputs/{folder} nowhere, so nothing builds that component",
                    folder=folder,
                ),
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
        for tree in ("dev", "runtime"):
            if not any(
                re.match(rf"(?i)\s*COPY\s+--from={re.escape(name)}\s+/out/{tree}/\s", line + " ")
                for line in instructions
            ):
                taker = "devbase" if tree == "dev" else "runtime"
                faults.append(
                    Fault(
                        "Dockerfile",
                        _(
                            "has the stage {name} but takes nothing of its /out/{tree}/",
                            name=name,
                            tree=tree,
                        ),
                        _(
                            "COPY --from={name} /out/{tree}/ / in {taker}",
                            name=name,
                            tree=tree,
                            taker=taker,
                        ),
                    )
                )
    return faults
