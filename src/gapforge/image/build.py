"""The build, from artifacts to a tagged image: verify, plan, context, engine, smoke, tag, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, PresetError, TargetError, VerifyError
from gapforge.base.files import canonical_json, exclusive, sha256_bytes, write_text
from gapforge.base.i18n import _
from gapforge.base.process import hide
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.text import utc
from gapforge.engine.protocol import BuildRequest, Engine
from gapforge.image import (
    application_source,
    build_context,
    dockerfile,
    env_file,
    load_base_images,
    smoke_checks,
)
from gapforge.image.plan import Plan, PlannedBase, Recipe, make_plan
from gapforge.model import component
from gapforge.model import lock as lock_module
from gapforge.model import preset as preset_module
from gapforge.model.lock import Lock
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset
from gapforge.store.verify_artifacts import check_preset_state, verify
from gapforge.trust import trusted_signers

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the user asked for, after flags, environment and prompts."""

    type: str
    tag: str = ""
    base: str = (
        ""  # replaces both base images: an archive, an OCI layout folder, or an image in the engine
    )
    app_source: str = ""
    no_cache: bool = False


@dataclass
class Inputs:
    """Everything that a plan is made of, read once."""

    preset: Preset
    lock: Lock
    components: tuple[component.Component, ...]
    recipe: Recipe
    secrets: env_file.SecretSet
    source: application_source.ApplicationSource
    packages_index: str
    warnings: list[str] = field(default_factory=list)


def read_inputs(project: Project, preset: Preset, options: Options) -> Inputs:
    """Read and cross-check what a build needs, before anything long begins. Raises the first class of
    failure it meets, with all faults of that class."""
    lock = load_lock(project, preset)
    components = component.load_all(project.components)
    if faults := component.check_preset(preset, components):
        raise PresetError(
            _("presets/{name}.json asks for what no component provides", name=preset.name),
            faults=faults,
        )
    check_target(preset, lock)
    env = env_file.load(project.env_file, preset.application.secrets)
    source = application_source.choose(
        preset.application, flag=options.app_source, settings=env.settings, root=project.root
    )
    template = project.dockerfile.read_text(encoding="utf-8")
    rendered = dockerfile.render(template, preset.application.secrets)
    dockerfile.raise_for(dockerfile.lint(rendered))
    dockerfile.raise_for(
        component.check_dockerfile(rendered, components), what=_("does not fit the components")
    )
    scripts = {
        "components/common.sh": (project.components / "common.sh").read_text(encoding="utf-8")
    }
    for piece in components:
        scripts[f"components/{piece.name}/build.sh"] = (piece.folder / "build.sh").read_text(
            encoding="utf-8"
        )
    index = project.artifacts_of(preset.name) / "debs" / "Packages"
    text = index.read_text(encoding="utf-8") if index.is_file() else ""
    warnings = [*env.warnings, *source.warnings]
    return Inputs(preset, lock, components, Recipe(rendered, scripts), env, source, text, warnings)


def load_lock(project: Project, preset: Preset) -> Lock:
    """The lock inside artifacts/NAME; LockError when it is missing or belongs to another state of the preset."""
    file = project.artifacts_of(preset.name) / "lock.json"
    lock = lock_module.load(file, shown=f"artifacts/{preset.name}/lock.json")
    check_preset_state(lock, preset)
    lock.require_complete(f"artifacts/{preset.name}/lock.json")
    return lock


def check_target(preset: Preset, lock: Lock) -> None:
    """Refuse base images that are not what the preset says they are, and any target but Ubuntu 22.04 that
    is not for practice. Raises TargetError."""
    faults = []
    for role, image in sorted(lock.images.items()):
        if (image.os_id, image.os_version) != (preset.os_id, preset.os_version):
            faults.append(
                Fault(
                    _("base image of {role} ({reference})", role=role, reference=image.reference),
                    _("is {os_id} {os_version}", os_id=image.os_id, os_version=image.os_version),
                    f"{preset.os_id} {preset.os_version}",
                )
            )
    if (preset.os_id, preset.os_version) != preset_module.TARGET_OS and not preset.practice:
        faults.append(
            Fault(
                f"presets/{preset.name}.json: $.os",
                f"{preset.os_id} {preset.os_version}",
                "ubuntu 22.04",
            )
        )
    if faults:
        raise TargetError(
            _("the base image is not the target"),
            faults=faults,
            hint=_(
                "correct presets/{name}.json, then online: ./deps_sync.sh {name} --update",
                name=preset.name,
            ),
        )


def plan_of(
    inputs: Inputs, options: Options, bases: Mapping[str, PlannedBase] | None = None
) -> Plan:
    """The plan for these inputs."""
    return make_plan(
        inputs.preset,
        inputs.lock,
        inputs.packages_index,
        inputs.components,
        inputs.recipe,
        type=options.type,
        tag=options.tag,
        bases=bases,
        application_folder=str(inputs.source.folder),
    )


def request_of(
    plan: Plan, project: Project, inputs: Inputs, secret_files: Mapping[str, Path], no_cache: bool
) -> BuildRequest:
    """What the engine is asked to do. ``secret_files`` maps .env keys to the files that hold their values."""
    passed = {s.key: s.passed for s in plan.secrets}
    values = inputs.secrets.values
    folder = project.context_of(plan.preset)
    return BuildRequest(
        context=folder,
        dockerfile=folder / "Dockerfile",
        target=plan.target,
        tag=plan.unchecked_tag,
        build_args=plan.build_args,
        labels=plan.labels,
        secrets=secret_files,
        build_arg_env=tuple(key for key in sorted(values) if passed.get(key) == "build-arg"),
        secret_env={
            key: value for key, value in sorted(values.items()) if passed.get(key) == "build-arg"
        },
        no_cache=no_cache,
    )


def override_bases(
    engine: Engine, value: str, preset: Preset, on_line: Say
) -> dict[str, PlannedBase]:
    """Load ``--base`` and describe it for a plan. Raises TargetError when its OS is not the preset's."""
    name, digest, os_id, os_version = load_base_images.ensure_override(engine, value, on_line)
    if (os_id, os_version) != (preset.os_id, preset.os_version):
        raise TargetError(
            _(
                "--base {value} is {os_id} {os_version}, but the preset's packages are "
                "for {preset_os_id} {preset_os_version}",
                value=value,
                os_id=os_id,
                os_version=os_version,
                preset_os_id=preset.os_id,
                preset_os_version=preset.os_version,
            ),
            hint=_("take a base of the same OS, or a preset made for this one (./gapforge list)"),
        )
    return {role: PlannedBase(role, name, digest, digest, f"--base {value}", "") for role in ROLES}


@dataclass(frozen=True)
class Built:
    """A finished image."""

    plan: Plan
    image_ids: tuple[str, ...]
    size: int
    checks: tuple[smoke_checks.CheckResult, ...]
    seconds: Mapping[str, float]
    report: Path


def verify_artifacts(project: Project, preset: Preset, lock: Lock | None = None) -> None:
    """Every byte of artifacts/NAME against the lock; VerifyError with every fault, TrustError when no trusted signer
    signed it. ``lock`` is the one that a build was planned with: it must be the very same."""
    with Progress(_("verify {name}", name=preset.name)) as progress:
        report = verify(
            project.artifacts_of(preset.name),
            progress=progress,
            preset=preset,
            project_lock=project.lock_file(preset.name),
            trusted=(project, trusted_signers.load(project)),
        ).raise_for_faults()
    if lock not in (None, report.lock):
        raise VerifyError(
            _("artifacts/{name}/lock.json changed while it was read", name=preset.name),
            hint=_("run the same command again when nobody else writes there"),
        )


def build(
    project: Project, engine: Engine, inputs: Inputs, options: Options, *, say: Say, show: Say
) -> Built:
    """Build, check and tag one image whose artifacts were verified.

    ``say`` gets milestones; ``show`` every line of the engine's output, secrets hidden. Nothing is tagged
    unless the smoke checks pass. Raises BuildError, SmokeError, EngineError and the errors of each step.
    """
    name = inputs.preset.name
    with exclusive(project.state / "locks" / f"build-{name}", _("build of {name}", name=name)):
        return _build(project, engine, inputs, options, say=say, show=show)


def _build(
    project: Project, engine: Engine, inputs: Inputs, options: Options, *, say: Say, show: Say
) -> Built:
    clock = _Clock()
    preset, artifacts = inputs.preset, project.artifacts_of(inputs.preset.name)
    bases = override_bases(engine, options.base, preset, show) if options.base else None
    plan = plan_of(inputs, options, bases)
    folder = project.context_of(preset.name)
    build_context.lay_out(plan, folder, artifacts)
    inputs.source.copy_into(build_context.application_folder(folder))
    clock.lap("context")
    for base in plan.bases:
        if base.layout:
            load_base_images.ensure(
                engine, artifacts / base.layout, inputs.lock.images[base.role], show
            )
    clock.lap("base images")
    dist = project.dist_of(preset.name) / options.type
    log = dist / "build.log"
    dist.mkdir(parents=True, exist_ok=True)
    hidden = inputs.secrets.redactions
    with open(log, "w", encoding="utf-8") as lines, inputs.secrets.files() as secret_files:
        request = request_of(plan, project, inputs, secret_files, options.no_cache)

        def on_line(line: str) -> None:
            safe = hide(line, hidden)
            lines.write(safe + "\n")
            lines.flush()
            show(safe)

        say(
            _(
                "build: {target} of {name} with {builder}, log in {log}",
                target=plan.target,
                name=preset.name,
                builder=engine.info.builder,
                log=_shown(log, project),
            )
        )
        engine.build(request, on_line)
    clock.lap("build")
    say(_("smoke: the components' checks, in the finished image with no network"))
    checks = smoke_checks.run_checks(engine, plan.unchecked_tag, plan.smoke, project.components)
    if smoke_checks.gpu_present():
        checks += smoke_checks.run_checks(
            engine, plan.unchecked_tag, plan.smoke, project.components, gpu=True
        )
    clock.lap("smoke")
    passed = all(check.ok for check in checks)
    ids = engine.image_ids(plan.unchecked_tag)
    size = engine.image_size(plan.unchecked_tag)
    report = _write_report(dist, project, engine, inputs, plan, ids, size, checks, clock, passed)
    smoke_checks.raise_for(checks, plan.unchecked_tag)
    engine.tag(plan.unchecked_tag, plan.tag)
    engine.untag(plan.unchecked_tag)
    return Built(plan, ids, size, tuple(checks), clock.laps, report)


def _write_report(
    dist: Path,
    project: Project,
    engine: Engine,
    inputs: Inputs,
    plan: Plan,
    ids: tuple[str, ...],
    size: int,
    checks: list[smoke_checks.CheckResult],
    clock: _Clock,
    passed: bool,
) -> Path:
    """Dockerfile, plan and report beside the log. The report names secrets' keys, never their values."""
    write_text(dist / "Dockerfile", inputs.recipe.dockerfile)
    write_text(dist / "plan.json", plan.render())
    report: dict[str, Any] = {
        "format": 1,
        "image": plan.tag if passed else "",
        "image_ids": list(ids),
        "size_bytes": size,
        "passed": passed,
        "preset": plan.preset,
        "preset_sha256": plan.preset_sha256,
        "lock_sha256": plan.lock_sha256,
        "plan_sha256": sha256_bytes(plan.render().encode()),
        "practice": inputs.preset.practice,
        "type": plan.type,
        "bases": [base.to_json() for base in plan.bases],
        "engine": dict(engine.info.__dict__),
        "application": {
            "folder": str(inputs.source.folder),
            "chosen_by": inputs.source.chosen_by,
            "tree_sha256": inputs.source.tree_sha256,
        },
        "secrets": sorted(inputs.secrets.values),
        "warnings": inputs.warnings,
        "checks": [check.to_json() for check in checks],
        "seconds": {key: round(value, 1) for key, value in clock.laps.items()},
        "finished": utc(),
    }
    file = dist / "report.json"
    write_text(file, canonical_json(report))
    return file


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now


def _shown(path: Path, project: Project) -> str:
    return str(path.relative_to(project.root)) if path.is_relative_to(project.root) else str(path)
