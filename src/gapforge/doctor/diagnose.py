"""Run all checks of ``doctor``: probe this machine, read preset, lock and catalog, and judge."""

from __future__ import annotations

import calendar
import shutil
import time
from pathlib import Path

from gapforge.base.errors import EngineError, GapforgeError, LockError, PresetError
from gapforge.base.i18n import _
from gapforge.base.path_checks import inside
from gapforge.base.project import Project
from gapforge.base.system_errors import error_text
from gapforge.compat.driver import driver_need
from gapforge.compat.gpu_code import torch_code
from gapforge.compat.torch import wanted_build
from gapforge.doctor import (
    disk_checks,
    disk_estimate,
    gpu_checks,
    gpu_probes,
    machine_checks,
    machine_probes,
)
from gapforge.doctor.check_result import FAIL, OK, Check, CheckResult
from gapforge.doctor.disk_checks import Place
from gapforge.doctor.gpu_checks import GpuNeeds
from gapforge.engine.protocol import Engine
from gapforge.image.load_base_images import base_name
from gapforge.image.read_inputs import newest_source
from gapforge.model import catalog as catalog_module
from gapforge.model import credentials, env_file
from gapforge.model import lock as lock_module
from gapforge.model import preset as preset_module
from gapforge.model.catalog import Catalog
from gapforge.model.credentials import Credentials
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset
from gapforge.store import verify_artifacts
from gapforge.store.download_preview import preview
from gapforge.store.known_sizes import read_known_sizes
from gapforge.trust import trusted_signers


def check_machine(project: Project, name: str = "", engine_name: str = "") -> list[CheckResult]:
    """Return the results of all checks; with ``name`` also those of what that preset needs.

    Raise PresetError for a preset that does not exist or cannot be read, and nothing for a machine
    that lacks something.
    """
    preset = preset_module.find(project.presets, name) if name else None
    catalog, catalog_results = _load_catalog(project)
    system = machine_probes.system(tuple(project.presets.glob("*.json")))
    found = _find_engine(engine_name)
    engine = None if isinstance(found, GapforgeError) else found
    artifacts, lock = _check_artifacts(project, preset) if preset else (None, None)
    sources = newest_source(project.artifacts_of(name), lock)[0] if lock else 0.0
    folders = [machine_probes.volume(path) for path in (project.state, project.dist)]
    results = [
        machine_checks.operating_system(system),
        machine_checks.architecture(system, preset.platform if preset else "linux/amd64"),
        machine_checks.python(system),
        machine_checks.engine(found if isinstance(found, GapforgeError) else found.info),
        machine_checks.socket(machine_probes.docker_socket(), engine is not None),
        machine_checks.memory(system),
        machine_checks.clock(system, _catalog_date(catalog), sources),
        machine_checks.permissions(system.umask, folders),
        *catalog_results,
        _check_env(project, preset),
        _check_trust(project),
    ]
    if preset and artifacts:
        results.append(artifacts)
        if artifacts.status != OK:
            results += _check_credentials(project, preset)
    results += _check_space(project, preset, lock, engine)
    if preset is None or preset.cuda:
        results += _check_gpu(preset, catalog, engine)
    return results


def before_build(project: Project, preset: Preset, lock: Lock, engine: Engine) -> list[CheckResult]:
    """Return the failed checks of disk space and GPU driver, of which a build only warns.

    The space is an upper estimate for a first build, and the image may be for another machine.
    """
    results = _check_space(project, preset, lock, engine)
    if preset.cuda:
        catalog, _unreadable = _load_catalog(project)
        results += gpu_checks.driver(gpu_probes.nvidia(), _known_needs(preset, catalog))
    return [result for result in results if result.status == FAIL]


def gpu_needs(preset: Preset, catalog: Catalog) -> GpuNeeds:
    """Return what the preset needs of driver and GPU, as far as the catalog knows."""
    tensorrt, opencv = preset.tensorrt, preset.component("opencv")
    torch = wanted_build(preset.pytorch, catalog) if preset.pytorch else None
    on_gpu = torch is not None and torch.build not in ("", "cpu")
    return GpuNeeds(
        cuda=preset.cuda,
        driver=driver_need(preset, catalog),
        compiled_for=opencv.list("architectures") if opencv and opencv.flag("cuda") else (),
        tensorrt=tensorrt.version if tensorrt else "",
        torch=f"torch {torch.version}+{torch.build}" if torch and on_gpu else "",
        torch_code=torch_code(torch.version, torch.build, catalog) if torch else None,
    )


def _check_gpu(
    preset: Preset | None, catalog: Catalog | None, engine: Engine | None
) -> list[CheckResult]:
    nvidia = gpu_probes.nvidia(engine.info if engine else None)
    if preset is None:
        return gpu_checks.bare_gpu(nvidia)
    needs = _known_needs(preset, catalog)
    return [
        *gpu_checks.driver(nvidia, needs),
        *gpu_checks.toolkit(nvidia, needs, engine is not None),
        *gpu_checks.gpus(nvidia, needs, catalog),
    ]


def _known_needs(preset: Preset, catalog: Catalog | None) -> GpuNeeds:
    return gpu_needs(preset, catalog) if catalog else GpuNeeds(cuda=preset.cuda)


def _load_catalog(project: Project) -> tuple[Catalog | None, list[CheckResult]]:
    try:
        return catalog_module.load(project.catalog), []
    except PresetError as error:
        first = error.faults[0] if error.faults else None
        found = f"{first.where}: {first.problem}" if first else error.message
        check = Check("catalog", _("catalog"), _("readable"))
        action = _("driver and GPU cannot be checked: {hint}", hint=error.hint)
        return None, [check.warn(found, action)]


def _catalog_date(catalog: Catalog | None) -> float:
    """Return when the catalog's sources were read, in seconds since 1970."""
    date = catalog.read if catalog else "2026-01-01"
    try:
        return float(calendar.timegm(time.strptime(date, "%Y-%m-%d")))
    except ValueError:
        return 0.0


def _find_engine(name: str) -> Engine | GapforgeError:
    """Return the engine, or why there is no usable one."""
    from gapforge.engine import detect  # the probe starts programs; nothing else here needs it

    try:
        return detect.choose(name)
    except GapforgeError as error:
        return error
    except OSError as error:
        return EngineError(error_text(error), hint="docker version")


def _check_env(project: Project, preset: Preset | None) -> CheckResult:
    secrets = preset.secrets if preset else ()
    problem = ""
    try:
        env_file.load(project.env_file, secrets)
    except GapforgeError as error:
        problem = _fault_list(error) or error.message
    required = [secret.key for secret in secrets if secret.required]
    return machine_checks.env(machine_probes.env_file(project.env_file), required, problem)


def _check_credentials(project: Project, preset: Preset) -> list[CheckResult]:
    """Return whether sync, which the artifacts still need, has its credentials."""
    problem = ""
    found = Credentials()
    try:
        found = credentials.load(project.env_file)
    except GapforgeError as error:
        problem = _fault_list(error) or error.message
    needs = credentials.needs(preset, found)
    return [machine_checks.credentials(needs, problem, project.env_file)] if needs else []


def _check_trust(project: Project) -> CheckResult:
    names: list[str] = []
    problem = hint = ""
    try:
        names = [signer.name for signer in trusted_signers.load(project).signers]
    except GapforgeError as error:
        faults = _fault_list(error)
        problem = f"{error.message} ({faults})" if faults else error.message
        hint = error.hint
    can_verify = shutil.which("ssh-keygen") is not None
    return machine_checks.trust(names, problem, hint, can_verify=can_verify)


def _fault_list(error: GapforgeError) -> str:
    return "; ".join(f"{fault.where}: {fault.problem}" for fault in error.faults)


def _check_artifacts(project: Project, preset: Preset) -> tuple[CheckResult, Lock | None]:
    """Return the result, and the lock that the disk estimate uses.

    Without a usable lock in the artifacts that is the lock of the repository.
    """
    folder = project.artifacts_of(preset.name)
    try:
        lock = lock_module.load(folder / "lock.json", shown=f"artifacts/{preset.name}/lock.json")
        verify_artifacts.check_preset_state(lock, preset)
    except LockError as error:
        problem, hint = error.message, error.hint
        if not (folder / "lock.json").exists():
            problem = _("absent")
            hint = _(
                "online: ./deps_sync.sh {name!q}, then copy artifacts/{name} to {folder}",
                name=preset.name,
                folder=folder,
            )
        result = disk_checks.no_artifacts(preset.name, problem, hint)
        # An unreadable lock counts as none.
        committed = project.lock_file(preset.name)
        return result, lock_module.load_matching(committed, preset, update=True)
    wrong = _wrong_sizes(folder, lock)
    return disk_checks.artifacts(preset.name, len(lock.entries), lock.size, wrong), lock


def _wrong_sizes(folder: Path, lock: Lock) -> list[str]:
    """Return the paths of files that are missing or have another size; content is not read."""
    wrong = []
    for entry in lock.entries:
        try:
            if inside(folder, entry.path).stat().st_size != entry.size:
                wrong.append(entry.path)
        except (OSError, GapforgeError):
            wrong.append(entry.path)
    return wrong


def _check_space(
    project: Project, preset: Preset | None, lock: Lock | None, engine: Engine | None
) -> list[CheckResult]:
    # Without an engine its folder is unknown; a local one will be there.
    folder = engine.info.root_dir if engine else "/var/lib/docker"
    root = machine_probes.volume(Path(folder)) if folder else None
    reports = Place("dist", machine_probes.volume(project.dist), disk_estimate.LOG)
    if preset is None:
        places = [reports]
        if engine is not None:
            places.append(Place(_("engine"), root, disk_checks.LEAST_FREE))
        return disk_checks.disk(places)
    results: list[CheckResult] = []
    paths = [entry.path for entry in lock.entries] if lock else []
    here = (project.artifacts_of(preset.name) / path for path in paths)
    files = preview(preset, lock, read_known_sizes(project))
    linked = None
    if source := next((file for file in here if file.is_file()), None):
        linked = machine_probes.can_link(source, project.state)
        copies = disk_estimate.estimate(preset, files, linked=False).context
        results.append(disk_checks.hard_links(linked, copies))
    need = disk_estimate.estimate(preset, files, linked=linked is not False)
    if engine is not None and lock is not None and _has_bases(engine, lock):
        need = need.without_bases()
    places = [
        Place(_("engine"), root, need.engine, need.engine_inodes, need.unknown),
        reports,
        Place(_("context"), machine_probes.volume(project.state), need.context),
    ]
    return results + disk_checks.disk(places)


def _has_bases(engine: Engine, lock: Lock) -> bool:
    try:
        return bool(lock.images) and all(
            engine.image_ids(base_name(image.config_digest)) for image in lock.images.values()
        )
    except GapforgeError:
        return False
