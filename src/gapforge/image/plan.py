"""Compute the plan of a build: everything that the build will do, as plain data.

The same preset, lock, components and choices give the same plan, and the same plan gives the same
bytes in every generated file. Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapforge import __version__
from gapforge.base.strict_json import canonical_json
from gapforge.image.inputs_of_stages import (
    ContextFile,
    ContextTexts,
    parameters,
    stage_inputs,
    text_file,
)
from gapforge.image.load_base_images import base_name
from gapforge.model.component import Component
from gapforge.model.lock import Lock, LockedImage
from gapforge.model.names import ROLES, normalized
from gapforge.model.preset import Application, Preset, Secret

TARGETS = {"runtime": "runtime", "dev": "builder"}  # --type -> the Dockerfile's stage


@dataclass(frozen=True, kw_only=True)
class PlannedBase:
    """A base image of the build.

    ``name`` is its local name in the engine; the digests are what it must have there. ``layout`` is
    the OCI layout relative to artifacts/NAME, "" for a ``--base`` that is in the engine already.
    """

    role: str
    name: str
    config_digest: str
    manifest_digest: str
    reference: str
    layout: str

    def to_json(self) -> dict[str, str]:
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a build will do.

    ``target`` is the Dockerfile's stage. The image is named ``tag`` when its smoke checks have
    passed. ``smoke`` holds what each component's check must find.
    """

    preset: str
    preset_sha256: str
    lock_sha256: str
    type: str
    target: str
    tag: str
    bases: tuple[PlannedBase, ...]
    build_args: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: tuple[Secret, ...]
    application_folder: str  # "" without an application
    files: tuple[ContextFile, ...]
    smoke: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plan in JSON types, without file contents."""
        return {
            "preset": self.preset,
            "preset_sha256": self.preset_sha256,
            "lock_sha256": self.lock_sha256,
            "type": self.type,
            "target": self.target,
            "tag": self.tag,
            "bases": [base.to_json() for base in self.bases],
            "build_args": dict(self.build_args),
            "labels": dict(self.labels),
            "secrets": [
                {"key": s.key, "pass": s.passed, "required": s.required} for s in self.secrets
            ],
            "application_folder": self.application_folder,
            "context": [file.to_json() for file in self.files],
            "smoke": [dict(check) for check in self.smoke],
        }

    def render(self) -> str:
        """Return the plan as JSON text: same plan, same bytes."""
        return canonical_json(self.to_json())


def make_plan(
    preset: Preset,
    lock: Lock,
    components: Sequence[Component],
    texts: ContextTexts,
    *,
    type: str,
    tag: str = "",
    override: LockedImage | None = None,
    application_folder: str,
) -> Plan:
    """Return the plan for one image.

    ``type`` is a key of ``TARGETS``. ``override`` replaces both base images of the lock.
    """
    bases = tuple(
        _planned_base(role, override, layout="")
        if override
        else _planned_base(role, lock.images[role], layout=f"images/{role}")
        for role in ROLES
    )
    files = [text_file("Dockerfile", texts.dockerfile)]
    for component in components:
        for role in ROLES if component.per_role else ("",):
            files += stage_inputs(component, role, preset, lock, texts)
    lock_sha256 = lock.sha256
    return Plan(
        preset=preset.name,
        preset_sha256=preset.sha256,
        lock_sha256=lock_sha256,
        type=type,
        target=TARGETS[type],
        tag=tag or f"gapforge/{preset.name}:{type}",
        bases=bases,
        build_args={f"{base.role.upper()}_BASE": base.name for base in bases},
        labels=_labels(preset, lock_sha256, type),
        secrets=preset.secrets,
        application_folder=application_folder,
        files=tuple(sorted(files, key=lambda f: f.path)),
        smoke=tuple(_smoke_expectation(c, preset, lock, type) for c in components),
    )


def _planned_base(role: str, image: LockedImage, *, layout: str) -> PlannedBase:
    return PlannedBase(
        role=role,
        name=base_name(image.config_digest),
        config_digest=image.config_digest,
        manifest_digest=image.manifest_digest,
        reference=image.reference,
        layout=layout,
    )


def _labels(preset: Preset, lock_sha256: str, type: str) -> dict[str, str]:
    labels = {
        "org.opencontainers.image.title": f"{preset.name} {type}",
        "org.opencontainers.image.description": preset.summary_en,
        "gapforge.version": __version__,
        "gapforge.preset": preset.name,
        "gapforge.preset.sha256": preset.sha256,
        "gapforge.lock.sha256": lock_sha256,
        "gapforge.type": type,
        "gapforge.practice": "true" if preset.practice else "false",
    }
    if preset.practice:
        labels["gapforge.warning"] = "practice image: not for delivery"  # no tr: a label
    return labels


def _smoke_expectation(
    component: Component, preset: Preset, lock: Lock, type: str
) -> dict[str, Any]:
    """Return what the component's check must find; it becomes GAPFORGE_EXPECT."""
    return {
        "component": component.name,
        "type": type,
        "enabled": component.enabled(preset),
        "params": parameters(component, preset, lock, TARGETS[type], of_runtime=type == "runtime"),
        "versions": {e.name: e.version for e in lock.of("source", "tensorrt") if e.version},
        "wheels": {normalized(e.name): e.version for e in lock.of("wheel") if not e.only_installs},
        "debs": [e.name for e in lock.of("deb") if component.debs and TARGETS[type] in e.roles],
        "gpu": False,
        "application": _application_expectation(preset.application),
    }


def _application_expectation(application: Application | None) -> dict[str, Any] | None:
    if application is None:
        return None
    return {
        "name": application.name,
        "command": list(application.command),
        "check": list(application.check),
    }
