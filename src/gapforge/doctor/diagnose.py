"""Looks at this machine for ``doctor``: asks it, reads preset, lock and catalog, and has ``doctor`` judge."""

from __future__ import annotations

import calendar
import re
import shutil
import time
from pathlib import Path

from gapforge.base.errors import GapforgeError, LockError, PresetError
from gapforge.base.files import inside
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.system_errors import says
from gapforge.compat import catalog as catalog_module
from gapforge.compat import versions
from gapforge.compat.catalog import Catalog
from gapforge.doctor import checks, disk_estimate, machine_probes
from gapforge.doctor.checks import GpuNeeds, Line
from gapforge.engine.protocol import Engine
from gapforge.image import env_file
from gapforge.image.plan import locked_base
from gapforge.model import lock as lock_module
from gapforge.model import preset as preset_module
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset
from gapforge.store import verify_artifacts
from gapforge.trust import trusted_signers


def examine(project: Project, name: str = "", engine_name: str = "") -> list[Line]:
    """Every line of the examination; with ``name`` also what that preset needs. Raises nothing for a machine that
    lacks something, only PresetError for a preset that does not exist or cannot be read."""
    preset = preset_module.find(project.presets, name) if name else None
    catalog, catalog_line = _catalog(project)
    found = machine_probes.system(tuple(project.presets.glob("*.json")))
    engine, engine_facts = _engine(engine_name)
    socket = machine_probes.docker_socket()
    usable = not engine_facts.problem
    lines = [
        checks.operating_system(found),
        checks.architecture(found, preset.platform if preset else "linux/amd64"),
        checks.python(found),
        checks.engine(engine_facts),
        checks.socket(socket, usable),
        checks.memory(found),
        checks.clock(found, _floor(catalog)),
        checks.permissions(
            found.umask,
            [machine_probes.volume(path) for path in (project.state, project.root / "dist")],
        ),
        *catalog_line,
    ]
    lines += [_env(project, preset), _trust(project)]
    lock = _artifacts(project, preset, lines) if preset else None
    lines += _space(project, preset, lock, engine, engine_facts)
    if preset is None or preset.cuda:
        client = engine_facts.client if usable else ""
        nvidia = machine_probes.nvidia(client, engine_facts.host)
        needs = (
            gpu_needs(preset, catalog)
            if preset and catalog
            else GpuNeeds(cuda=preset.cuda if preset else "")
        )
        lines += checks.driver(nvidia, needs) if preset else checks.bare_gpu(nvidia)
        lines += checks.toolkit(nvidia, needs, usable)
        lines += checks.gpus(nvidia, needs, catalog.architectures if catalog else {})
    return lines


def gpu_needs(preset: Preset, catalog: Catalog) -> GpuNeeds:
    """What the preset asks of driver and GPU, as far as the catalog knows."""
    image = catalog.image(preset.runtime.image) or catalog.image(preset.builder.image)
    source = preset.sources.get("nv-codec-headers")
    match = re.search(r"[0-9]+(\.[0-9]+){2,3}", (source.version or source.file) if source else "")
    headers = catalog.headers.get(match[0]) if match else None
    trt, opencv = preset.tensorrt, preset.component("opencv")
    dropped = [
        d
        for d in catalog.tensorrt_dropped
        if trt and versions.key(trt.version) >= versions.key(d[1])
    ]
    compute, before = max(dropped, key=lambda d: versions.key(d[0]), default=("", ""))
    return GpuNeeds(
        cuda=preset.cuda,
        toolkit_driver=image.driver if image else catalog.toolkit_driver(preset.cuda),
        least_driver=catalog.lowest_driver(preset.cuda),
        headers=headers.version if headers else "",
        headers_driver=headers.driver if headers else "",
        compiled_for=opencv.list("architectures") if opencv and opencv.flag("cuda") else (),
        tensorrt=trt.version if trt else "",
        tensorrt_compute=compute,
        tensorrt_before=before,
    )


def _catalog(project: Project) -> tuple[Catalog | None, list[Line]]:
    try:
        return catalog_module.load(project.catalog), []
    except PresetError as error:
        first = error.faults[0] if error.faults else None
        found = f"{first.where}: {first.problem}" if first else error.message
        return None, [
            Line(
                "catalog",
                _("catalog"),
                checks.WARN,
                found,
                _("readable"),
                _("driver and GPU cannot be judged: ") + error.hint,
            )
        ]


def _floor(catalog: Catalog | None) -> float:
    """Seconds since 1970 of the day when the catalog's sources were read: any right clock is past it."""
    try:
        return float(
            calendar.timegm(time.strptime(catalog.read if catalog else "2026-01-01", "%Y-%m-%d"))
        )
    except ValueError:
        return 0.0


def _engine(name: str) -> tuple[Engine | None, machine_probes.EngineFacts]:
    from gapforge.engine import detect  # the probe starts programs; nothing else here needs it

    try:
        engine = detect.choose(name)
    except GapforgeError as error:
        return None, machine_probes.EngineFacts(problem=error.message, hint=error.hint)
    except OSError as error:
        return None, machine_probes.EngineFacts(problem=says(error), hint="docker version")
    info = engine.info
    return engine, machine_probes.EngineFacts(
        info.name,
        info.client,
        info.client_version,
        info.server_version,
        info.builder,
        info.root_dir,
        info.host,
    )


def _env(project: Project, preset: Preset | None) -> Line:
    facts = machine_probes.env_file(project.env_file)
    wanted = preset.application.secrets if preset else ()
    problem = ""
    try:
        env_file.load(project.env_file, wanted)
    except GapforgeError as error:
        problem = (
            "; ".join(f"{fault.where}: {fault.problem}" for fault in error.faults) or error.message
        )
    return checks.env(facts, [s.key for s in wanted if s.required], problem)


def _trust(project: Project) -> Line:
    try:
        names, problem, hint = (
            [signer.name for signer in trusted_signers.load(project).signers],
            "",
            "",
        )
    except GapforgeError as error:
        places = "; ".join(f"{fault.where}: {fault.problem}" for fault in error.faults)
        names, problem, hint = (
            [],
            f"{error.message} ({places})" if places else error.message,
            error.hint,
        )
    return checks.trust(names, problem, hint, can_check=shutil.which("ssh-keygen") is not None)


def _artifacts(project: Project, preset: Preset, lines: list[Line]) -> Lock | None:
    """Add the line about artifacts; the lock to reckon with, if need be the one that is in the repository."""
    folder = project.artifacts_of(preset.name)
    hint = _(
        "online: ./deps_sync.sh {name}, then copy artifacts/{name} to {folder}",
        name=preset.name,
        folder=folder,
    )
    try:
        lock = lock_module.load(folder / "lock.json", shown=f"artifacts/{preset.name}/lock.json")
        verify_artifacts.check_preset_state(lock, preset)
    except LockError as error:
        absent = not (folder / "lock.json").exists()
        lines.append(
            checks.artifacts(
                _("absent") if absent else error.message,
                hint if absent else error.hint,
                0,
                0,
                (),
                0,
                preset.name,
            )
        )
        try:
            return lock_module.load(project.lock_file(preset.name))
        except LockError:
            return None
    faults = _size_faults(folder, lock)
    total = len(lock.entries)
    lines.append(
        checks.artifacts(
            "",
            "",
            total - len(faults),
            total,
            faults,
            sum(e.size for e in lock.entries),
            preset.name,
        )
    )
    return lock


def _size_faults(folder: Path, lock: Lock) -> list[str]:
    """Names of files that are absent or of another size; looks at no content."""
    faults = []
    for entry in lock.entries:
        try:
            if inside(folder, entry.path).stat().st_size != entry.size:
                faults.append(entry.path)
        except (OSError, GapforgeError):
            faults.append(entry.path)
    return faults


def _space(
    project: Project,
    preset: Preset | None,
    lock: Lock | None,
    engine: Engine | None,
    facts: machine_probes.EngineFacts,
) -> list[Line]:
    here, dist = machine_probes.volume(project.state), machine_probes.volume(project.root / "dist")
    unknown_engine = facts.problem or not facts.root_dir
    root = None if unknown_engine else machine_probes.volume(Path(facts.root_dir))
    if preset is None or lock is None:
        places = [("dist", dist, disk_estimate.LOG, 0)]
        if not facts.problem:
            places.append((_("engine"), root, checks.LEAST_FREE, 0))
        return checks.disk(places)
    link_source = next(
        (f for e in lock.entries if (f := project.artifacts_of(preset.name) / e.path).is_file()),
        None,
    )
    linked = machine_probes.can_link(link_source, project.state) if link_source else None
    need = disk_estimate.estimate(preset, lock, linked=linked is not False)
    if engine is not None and _has_bases(engine, lock):
        need = need.without_bases()
    lines = (
        [checks.hard_links(linked, disk_estimate.estimate(preset, lock, linked=False).context)]
        if link_source
        else []
    )
    # Without an engine its folder is unknown; /var/lib is where a local one will be.
    root = machine_probes.volume(Path("/var/lib/docker")) if facts.problem else root
    return lines + checks.disk(
        [
            (_("engine"), root, need.engine, need.engine_inodes),
            ("dist", dist, need.dist, 0),
            (_("context"), here, need.context, 0),
        ]
    )


def _has_bases(engine: Engine, lock: Lock) -> bool:
    try:
        return bool(lock.images) and all(
            engine.image_ids(locked_base(lock, role).name) for role in lock.images
        )
    except GapforgeError:
        return False
