"""Read and check everything that a plan is made of, before anything long begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gapforge.base.errors import LockError, PresetError, VerifyError
from gapforge.base.i18n import _
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.image import application_source, dockerfile, dockerfile_lint
from gapforge.image.plan import Plan, PlannedBase, make_plan
from gapforge.image.stage_inputs import HELPERS, ContextTexts
from gapforge.model import base_image_rules, component, doubled_modules, env_file
from gapforge.model import lock as lock_module
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset
from gapforge.store.verify_artifacts import check_preset_state, verify
from gapforge.trust import trusted_signers


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for, by flags, environment or prompts.

    ``base`` replaces both base images: an archive, an OCI layout folder, or an image in the engine.
    """

    type: str
    tag: str = ""
    base: str = ""
    app_source: str = ""
    no_cache: bool = False


@dataclass(kw_only=True)
class Inputs:
    """Everything that a plan is made of, read once."""

    preset: Preset
    lock: Lock
    components: tuple[component.Component, ...]
    texts: ContextTexts
    secrets: env_file.SecretSet
    source: application_source.ApplicationSource
    warnings: list[str] = field(default_factory=list)

    def plan(self, options: Options, bases: Mapping[str, PlannedBase] | None = None) -> Plan:
        """Return the plan; ``bases`` replaces the lock's base images by role."""
        return make_plan(
            self.preset,
            self.lock,
            self.components,
            self.texts,
            type=options.type,
            tag=options.tag,
            bases=bases,
            application_folder=str(self.source.folder),
        )


def read_inputs(project: Project, preset: Preset, options: Options) -> Inputs:
    """Return what a build needs.

    Raise an error for the first cause of failure, with all faults of that cause.
    """
    lock = load_lock(project, preset)
    components = component.load_all(project.components)
    if faults := component.check_preset(preset, components):
        raise PresetError(
            _("presets/{name}.json has settings that no component provides", name=preset.name),
            faults=faults,
        )
    base_image_rules.check_operating_systems(preset, lock.images)
    shown = f"artifacts/{preset.name}/lock.json"
    if faults := doubled_modules.faults_of_lock(preset, lock, shown):
        raise LockError(
            _("Python packages would replace what the image builds itself"),
            faults=faults,
            hint=_("change the preset, then online: ./deps_sync.sh {name}", name=preset.name),
        )
    secrets = env_file.load(project.env_file, preset.application.secrets)
    source = application_source.choose(
        preset.application, flag=options.app_source, settings=secrets.settings, root=project.root
    )
    return Inputs(
        preset=preset,
        lock=lock,
        components=components,
        texts=_read_texts(project, preset, components),
        secrets=secrets,
        source=source,
        warnings=[*secrets.warnings, *source.warnings],
    )


def load_lock(project: Project, preset: Preset) -> Lock:
    """Return the lock in artifacts/NAME.

    Raise LockError when it is missing, partial, or belongs to another state of the preset.
    """
    shown = f"artifacts/{preset.name}/lock.json"
    lock = lock_module.load(project.artifacts_of(preset.name) / "lock.json", shown=shown)
    check_preset_state(lock, preset)
    lock.require_complete(shown)
    return lock


def verify_artifacts(project: Project, preset: Preset, planned: Lock) -> None:
    """Compare every byte of artifacts/NAME with its lock, which must equal ``planned``.

    Raise VerifyError with every fault, TrustError when no trusted signer signed it.
    """
    with Progress(_("verify {name}", name=preset.name)) as progress:
        report = verify(
            project.artifacts_of(preset.name),
            progress=progress,
            preset=preset,
            project_lock=project.lock_file(preset.name),
            trusted=(project, trusted_signers.load(project)),
        ).raise_for_faults()
    if report.lock != planned:
        raise VerifyError(
            _("artifacts/{name}/lock.json changed while it was read", name=preset.name),
            hint=_("run the same command again when no other program writes there"),
        )


def _read_texts(
    project: Project, preset: Preset, components: tuple[component.Component, ...]
) -> ContextTexts:
    """Return the texts of the build context; raise LintError for an unusable Dockerfile."""
    template = project.dockerfile.read_text(encoding="utf-8")
    rendered = dockerfile.render(template, preset.application.secrets)
    dockerfile.raise_faults(
        _("the Dockerfile could reach the network"), dockerfile_lint.lint(rendered)
    )
    dockerfile.check_stages(rendered, components)
    scripts = {f"components/{name}": project.components / name for name in HELPERS} | {
        f"components/{c.name}/build.sh": c.folder / "build.sh" for c in components
    }
    index = project.artifacts_of(preset.name) / "debs" / "Packages"
    return ContextTexts(
        rendered,
        {path: file.read_text(encoding="utf-8") for path, file in scripts.items()},
        index.read_text(encoding="utf-8") if index.is_file() else "",
    )
