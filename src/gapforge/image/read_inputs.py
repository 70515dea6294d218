"""Read and check everything that a plan is made of, before anything long begins."""

from __future__ import annotations

import lzma
import tarfile
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from gapforge.base import limits
from gapforge.base.errors import (
    Fault,
    LockError,
    NotReadyError,
    PresetError,
    UsageError,
    VerifyError,
)
from gapforge.base.files import open_buffered, read_regular, sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.system_errors import unreadable
from gapforge.base.units import DAY
from gapforge.image import application_source, dockerfile, dockerfile_lint, smoke_checks
from gapforge.image.inputs_of_stages import HELPERS, ContextTexts
from gapforge.image.plan import Plan, make_plan
from gapforge.model import component, doubled_modules, env_file, usable_base_image
from gapforge.model import lock as lock_module
from gapforge.model.lock import LOCK_FILE, PACKAGES_INDEX, Lock, LockedImage
from gapforge.model.preset import Preset
from gapforge.store.verify_artifacts import check_preset_state, verify
from gapforge.trust import trusted_signers

CLOCK_TOLERANCE = DAY  # seconds; a wrong time zone is no wrong clock
_YEAR_9999 = 253402300799.0  # the last second that strftime() and gmtime() print in four digits


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
    source: application_source.ApplicationSource | None

    @property
    def warnings(self) -> list[str]:
        """Return what a person should know before the build."""
        return [*self.secrets.warnings, *(self.source.warnings if self.source else ())]

    def plan(self, options: Options, override: LockedImage | None = None) -> Plan:
        """Return the plan; the image ``override`` replaces both base images of the lock."""
        return make_plan(
            self.preset,
            self.lock,
            self.components,
            self.texts,
            type=options.type,
            tag=options.tag,
            override=override,
            application_folder=str(self.source.folder) if self.source else "",
        )


def read_inputs(project: Project, preset: Preset, options: Options) -> Inputs:
    """Return what a build needs.

    Raise an error for the first cause of failure, with all faults of that cause.
    """
    lock = load_lock(project, preset)
    usable_base_image.check_operating_systems(preset, lock.images)
    shown = f"artifacts/{preset.name}/lock.json"
    if faults := doubled_modules.faults_of_lock(preset, lock, shown):
        raise LockError(
            _("Python packages would replace what the image builds itself"),
            faults=faults,
            hint=_("change the preset, then online: ./deps_sync.sh {name!q}", name=preset.name),
        )
    components, texts = check_project(project, preset)
    index = project.artifacts_of(preset.name) / PACKAGES_INDEX
    if index.is_file():
        texts = replace(texts, packages_index=_text(index, limits.PACKAGE_INDEX))
    secrets = env_file.load(project.env_file, preset.secrets)
    refuse_needless_source(preset, options.app_source)
    source = None
    if preset.application is not None:
        source = application_source.choose(
            preset.application,
            flag=options.app_source,
            settings=secrets.settings,
            root=project.root,
        )
    return Inputs(
        preset=preset, lock=lock, components=components, texts=texts, secrets=secrets, source=source
    )


def refuse_needless_source(preset: Preset, flag: str) -> None:
    """Raise UsageError for a source folder (--app-source) of a preset without an application."""
    if flag and preset.application is None:
        raise UsageError(
            _(
                "preset {name} has no application to build from {folder}",
                name=preset.name,
                folder=flag,
            ),
            hint=_('without --app-source, or an "application" in the preset'),
        )


def check_project(
    project: Project, preset: Preset
) -> tuple[tuple[component.Component, ...], ContextTexts]:
    """Return the components, their scripts, and the Dockerfile with the preset's secrets.

    `sync` calls this too, so that a build at a site refuses nothing of it for the first time. Raise
    PresetError for components that cannot be read or settings that none provides, LintError for an
    unusable Dockerfile.
    """
    components = component.load_all(project.components)
    if faults := component.check_preset(preset, components):
        raise PresetError(
            _("presets/{name}.json has settings that no component provides", name=preset.name),
            faults=faults,
        )
    scripts = read_scripts(project, components)
    return components, ContextTexts(check_dockerfile(project, preset, components), scripts)


def read_scripts(project: Project, components: Sequence[component.Component]) -> dict[str, str]:
    """Return the text of every script that a build runs, by path in the project.

    Raise PresetError for each that cannot be read or is not UTF-8.
    """
    names = [
        *(f"components/{name}" for name in (*HELPERS, smoke_checks.LIBRARY)),
        *(
            f"components/{c.name}/{script}"
            for c in components
            for script in (*component.SCRIPTS, *c.helpers)
        ),
    ]
    texts: dict[str, str] = {}
    faults: list[Fault] = []
    for name in names:
        try:
            texts[name] = _text(project.root / name)
        except UnicodeDecodeError:
            faults.append(Fault(name, _("not UTF-8 text")))
        except OSError as error:
            faults.append(Fault(name, unreadable(error)))
        except ValueError as error:
            faults.append(Fault(name, str(error)))
    if faults:
        raise PresetError(
            _("scripts of the components cannot be used"),
            faults=faults,
            hint=_("restore components/ from the release"),
        )
    return texts


def check_dockerfile(
    project: Project, preset: Preset, components: Sequence[component.Component]
) -> str:
    """Return the Dockerfile with the preset's secrets; raise LintError if it is unusable."""
    template = _text(project.dockerfile)
    rendered = dockerfile.render(
        template, preset.secrets, preset.name, application=preset.application is not None
    )
    dockerfile.raise_faults(
        _("the Dockerfile could reach the network"), dockerfile_lint.lint(rendered)
    )
    dockerfile.raise_faults(
        _("the Dockerfile does not fit the components"),
        component.check_dockerfile(rendered, components),
    )
    return rendered


def load_lock(project: Project, preset: Preset) -> Lock:
    """Return the lock in artifacts/NAME.

    Raise LockError when it is missing, partial, or belongs to another state of the preset.
    """
    shown = f"artifacts/{preset.name}/lock.json"
    lock = lock_module.load(project.artifacts_of(preset.name) / LOCK_FILE, shown=shown)
    check_preset_state(lock, preset)
    lock.require_complete(shown)
    return lock


def verify_artifacts(project: Project, inputs: Inputs, *, quiet: bool = False) -> None:
    """Compare every byte of artifacts/NAME, and what was read from it, with its lock.

    Raise VerifyError with every fault, TrustError when no trusted signer signed it.
    """
    preset = inputs.preset
    with Progress(_("verify {name}", name=preset.name), quiet=quiet) as progress:
        report = verify(
            project.artifacts_of(preset.name),
            progress=progress,
            preset=preset,
            project_lock=project.lock_file(preset.name),
            trusted=(project, trusted_signers.load(project)),
        ).raise_for_faults()
    index = sha256_bytes(inputs.texts.packages_index.encode())
    changed = [LOCK_FILE] if report.lock != inputs.lock else []
    changed += [
        entry.path
        for entry in report.lock.entries
        if entry.path == PACKAGES_INDEX and entry.sha256 != index
    ]
    if changed:
        raise VerifyError(
            _("artifacts/{name} changed while it was read", name=preset.name),
            faults=[Fault(path, _("not as it was read")) for path in changed],
            hint=_("run the same command again when no other program writes there"),
        )


def newest_source(artifacts: Path, lock: Lock) -> tuple[float, str]:
    """Return the newest time in the source archives, in seconds since 1970, and its archive.

    The first entry of an archive stands for all: it is the folder of a release, with its date.
    Returns (0, "") without a tar archive that Python can read.
    """
    found = [(0.0, "")]
    for entry in lock.of("source"):
        file = artifacts / entry.path
        with suppress(OSError, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError):
            with open_buffered(file) as stored, tarfile.open(fileobj=stored, mode="r|*") as archive:
                first = archive.next()
            if first:
                found.append((min(float(first.mtime), _YEAR_9999), entry.path))
    return max(found)


def check_clock(project: Project, inputs: Inputs) -> None:
    """Raise NotReadyError if this machine's clock is before the files that it is to compile.

    make and ninja build files from the future again and again (ninja: "manifest still dirty after
    100 tries").
    """
    newest, archive = newest_source(project.artifacts_of(inputs.preset.name), inputs.lock)
    now = time.time()
    if newest > now + CLOCK_TOLERANCE:
        shown = [time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at)) for at in (now, newest)]
        raise NotReadyError(
            _(
                "this machine's clock shows {now}, but {archive} is from {newest}; compilers would "
                "build files from the future again and again",
                now=shown[0],
                newest=shown[1],
                archive=archive,
            ),
            hint=_("set it: sudo timedatectl set-time 'YYYY-MM-DD HH:MM:SS'"),
        )


def _text(file: Path, most: int = limits.DESCRIPTION) -> str:
    return read_regular(file, most, follow=True).decode("utf-8")
