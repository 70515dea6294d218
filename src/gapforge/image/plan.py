"""The plan: everything a build will do, as plain data. A pure function of what was read before.

Same preset, lock, components and choices give the same plan, and the same plan gives the same bytes in
every generated file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapforge import __version__
from gapforge.base.files import canonical_json, sha256_bytes
from gapforge.image.load_base_images import base_name
from gapforge.model import debian_control
from gapforge.model.component import Component
from gapforge.model.lock import Entry, Lock
from gapforge.model.names import ROLES, normalized
from gapforge.model.preset import Preset, Secret

TARGETS = {"runtime": "runtime", "dev": "builder"}  # --type -> the Dockerfile's stage


@dataclass(frozen=True)
class ContextFile:
    """One file of the context: either ``text``, or a verified file of the artifacts or the project.

    ``origin`` is "text", "artifact" (``source`` is relative to artifacts/NAME) or "project" (relative to
    the project folder). ``sha256`` is the content's hash.
    """

    path: str
    origin: str
    source: str
    text: str
    sha256: str

    def to_json(self) -> dict[str, str]:
        return {
            "path": self.path,
            "origin": self.origin,
            "source": self.source,
            "sha256": self.sha256,
        }


@dataclass(frozen=True)
class PlannedBase:
    """A base image: ``name`` in the engine, and the digest that it must have there."""

    role: str
    name: str
    config_digest: str
    manifest_digest: str
    reference: str
    layout: str  # relative to artifacts/NAME; "" for an override that is in the engine already

    def to_json(self) -> dict[str, str]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Plan:
    """Everything a build will do."""

    preset: str
    preset_sha256: str
    lock_sha256: str
    type: str
    target: str
    tag: str
    unchecked_tag: str
    bases: tuple[PlannedBase, ...]
    build_args: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: tuple[Secret, ...]
    application_folder: str
    files: tuple[ContextFile, ...]
    smoke: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """The plan in JSON types, without file contents."""
        return {
            "preset": self.preset, "preset_sha256": self.preset_sha256, "lock_sha256": self.lock_sha256,
            "type": self.type, "target": self.target, "tag": self.tag,
            "bases": [base.to_json() for base in self.bases],
            "build_args": dict(self.build_args), "labels": dict(self.labels),
            "secrets": [{"key": s.key, "pass": s.passed, "required": s.required} for s in self.secrets],
            "application_folder": self.application_folder,
            "context": [file.to_json() for file in self.files],
            "smoke": [dict(check) for check in self.smoke],
        }  # fmt: skip

    def render(self) -> str:
        """The plan as text: same plan, same bytes."""
        return canonical_json(self.to_json())


@dataclass(frozen=True)
class Recipe:
    """What the project contributes to a context, already read: path in the project -> (text, hash)."""

    dockerfile: str
    scripts: Mapping[str, str]


def make_plan(
    preset: Preset,
    lock: Lock,
    packages_index: str,
    components: Sequence[Component],
    recipe: Recipe,
    *,
    type: str,
    tag: str = "",
    bases: Mapping[str, PlannedBase] | None = None,
    application_folder: str,
) -> Plan:
    """The plan for one image.

    ``packages_index`` is the text of ``debs/Packages`` ("" when there are no .debs); ``bases`` replaces base
    images (``--base``); ``recipe`` holds the rendered Dockerfile and the components' scripts.
    """
    planned = {role: (bases or {}).get(role) or base_of(lock, role) for role in ROLES}
    files = [_text("Dockerfile", recipe.dockerfile)]
    smoke = []
    for component in components:
        for role in ROLES if component.per_role else ("",):
            files += _inputs(component, role, preset, lock, packages_index, recipe)
        smoke.append(_expectation(component, preset, lock, type))
    return Plan(
        preset=preset.name,
        preset_sha256=preset.sha256,
        lock_sha256=sha256_bytes(lock.render().encode()),
        type=type,
        target=TARGETS[type],
        tag=tag or f"gapforge/{preset.name}:{type}",
        unchecked_tag=f"localhost/gapforge/unchecked/{preset.name}:{type}",
        bases=tuple(planned[role] for role in ROLES),
        build_args={"BUILDER_BASE": planned["builder"].name, "RUNTIME_BASE": planned["runtime"].name},
        labels=_labels(preset, lock, type),
        secrets=preset.application.secrets,
        application_folder=application_folder,
        files=tuple(sorted(files, key=lambda f: f.path)),
        smoke=tuple(smoke),
    )  # fmt: skip


def base_of(lock: Lock, role: str) -> PlannedBase:
    """The base image that the lock names for a role."""
    image = lock.images[role]
    return PlannedBase(role, base_name(image.config_digest), image.config_digest, image.manifest_digest,
                       image.reference, f"images/{role}")  # fmt: skip


def _labels(preset: Preset, lock: Lock, type: str) -> dict[str, str]:
    labels = {
        "org.opencontainers.image.title": f"{preset.name} {type}",
        "org.opencontainers.image.description": preset.summary_en,
        "gapforge.version": __version__,
        "gapforge.preset": preset.name,
        "gapforge.preset.sha256": preset.sha256,
        "gapforge.lock.sha256": sha256_bytes(lock.render().encode()),
        "gapforge.type": type,
        "gapforge.practice": "true" if preset.practice else "false",
    }
    if preset.practice:
        labels["gapforge.warning"] = (
            "practice image: not for delivery"  # no tr: a label of the image
        )
    return labels


def _text(path: str, text: str) -> ContextFile:
    return ContextFile(path, "text", "", text, sha256_bytes(text.encode()))


def _artifact(path: str, entry: Entry) -> ContextFile:
    return ContextFile(path, "artifact", entry.path, "", entry.sha256)


def _inputs(
    component: Component, role: str, preset: Preset, lock: Lock, packages_index: str, recipe: Recipe
) -> list[ContextFile]:
    """Everything in one ``inputs/`` folder, which is all that the component's stage can see."""
    folder = f"inputs/{component.name}-{role}" if role else f"inputs/{component.name}"
    params = parameters(component, preset, lock, role)
    files = [_text(f"{folder}/params/{key}", _param_text(value)) for key, value in params.items()]
    for script in ("build.sh", "common.sh"):
        source = (
            f"components/{component.name}/{script}"
            if script == "build.sh"
            else f"components/{script}"
        )
        files.append(_text(f"{folder}/{script}", recipe.scripts[source]))
    if not component.enabled(preset):
        return files
    for entry in lock.of("source", "tensorrt"):
        if component.uses_source(entry.name):
            files.append(_artifact(f"{folder}/sources/{entry.name}/{entry.file}", entry))
    wheels = [entry for entry in lock.of("wheel") if component.uses_wheel(entry)]
    if component.wheels:
        files += [_artifact(f"{folder}/wheels/{entry.file}", entry) for entry in wheels]
        files.append(_text(f"{folder}/requirements.txt", requirements(wheels)))
    if component.debs:
        debs = [entry for entry in lock.of("deb") if not role or role in entry.roles]
        index = debian_control.filter_index(packages_index, {entry.file for entry in debs})
        files += [_artifact(f"{folder}/debs/{entry.file}", entry) for entry in debs]
        files.append(_text(f"{folder}/debs/Packages", index))
        files.append(_text(f"{folder}/debs/Release", debian_control.release_text(index.encode())))
    return files


def requirements(wheels: Sequence[Entry]) -> str:
    """A requirements file with one pin and hash for each wheel but the installer's own."""
    lines = [
        f"{normalized(entry.name)}=={entry.version} --hash=sha256:{entry.sha256}\n"
        for entry in sorted(wheels, key=lambda e: normalized(e.name))
        if "install-tool" not in entry.roles
    ]
    return "".join(lines)


def parameters(
    component: Component, preset: Preset, lock: Lock, role: str = "", *, of_runtime: bool = False
) -> dict[str, Any]:
    """Return the component's parameters by file name: text, true or false, or a list of text.

    With ``of_runtime`` those are left out that only change the dev image.
    """
    part = component.part(preset)
    if part is None:
        return {"enabled": False, "python": preset.python}
    common: dict[str, Any] = {
        "enabled": True,
        "python": preset.python,
        "cuda": preset.cuda,
        "epoch": str(preset.epoch),
    }
    left_out = {
        option.name for option in component.options or () if of_runtime and not option.runtime
    }
    own = {
        # An option with the name of a common parameter, such as tensorrt.python, gets its component's name in front.
        f"{component.name}.{key}" if key in common else key: list(value)
        if isinstance(value, tuple)
        else value
        for key, value in part.items()
        if key not in left_out and _is_param(value)
    }
    if component.debs:
        # TensorRT as .debs is installed with all others, so that apt orders them.
        own["packages"] = list(preset.debs(role)) if role else []
    for entry in lock.of("source", "tensorrt"):
        if component.uses_source(entry.name):
            common[f"source-{entry.name}.folder"] = preset.sources[entry.name].folder
    return {**own, **common}


def _is_param(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(member, str) for member in value)
    return isinstance(value, (str, bool, int))


def _param_text(value: Any) -> str:
    if isinstance(value, bool):
        return "1\n" if value else "0\n"
    if isinstance(value, list):
        return "".join(f"{member}\n" for member in value)
    return f"{value}\n"


def _expectation(component: Component, preset: Preset, lock: Lock, type: str) -> dict[str, Any]:
    """Return what the component's check must find; it becomes GAPFORGE_EXPECT."""
    role = {"runtime": "runtime", "dev": "builder"}[type]
    return {
        "component": component.name,
        "type": type,
        "enabled": component.enabled(preset),
        "params": parameters(component, preset, lock, role, of_runtime=type == "runtime"),
        "versions": {e.name: e.version for e in lock.of("source", "tensorrt") if e.version},
        "wheels": {
            normalized(e.name): e.version for e in lock.of("wheel") if "install-tool" not in e.roles
        },
        "gpu": False,
        "application": {"name": preset.application.name, "check": list(preset.application.check)},
    }
