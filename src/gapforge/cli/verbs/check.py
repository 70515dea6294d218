"""``gapforge check``: report every fault of presets, their versions and their locks."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from gapforge.base import output_mode
from gapforge.base.errors import (
    CompatibilityError,
    Fault,
    LockError,
    PresetError,
    SecretError,
    SourceError,
    UsageError,
)
from gapforge.base.files import contains
from gapforge.base.i18n import N_, _, pgettext
from gapforge.base.path_checks import inside
from gapforge.base.project import Project
from gapforge.base.text_layout import first_names
from gapforge.base.units import human_bytes
from gapforge.cli.argument_parser import add_json
from gapforge.cli.output import coloured_verdict, print_json, show
from gapforge.compat.driver import DriverNeed, check_driver, driver_need
from gapforge.compat.findings import Finding
from gapforge.compat.redistribution import FORBIDDEN, UNKNOWN, Judgement, judge, redistributable
from gapforge.compat.rules import check_preset
from gapforge.image import application_source
from gapforge.image.read_inputs import check_dockerfile, read_scripts
from gapforge.model import catalog as catalogs
from gapforge.model import component, credentials, doubled_modules, env_file, usable_base_image
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.catalog import Catalog
from gapforge.model.component import Component
from gapforge.model.credentials import Credentials, Need
from gapforge.model.lock import Entry, Lock
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset
from gapforge.model.schema import nearest
from gapforge.model.to_resolve import ToResolve, counts, list_to_resolve
from gapforge.tools import json_schemas

HELP = N_("check presets for faults, incompatible versions and stale locks, and report all of them")
EXAMPLES = ("./gapforge check --all", "./gapforge check NAME --driver 535.104.05")
EPILOG = N_(
    "exit codes: 0 no faults (warnings are possible), 3 preset faults, 9 incompatible versions, "
    "4 stale or unreadable lock, 16 unusable Dockerfile"
)
_DRIVER = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}")
_MAX_PARTS = 6  # shown in one line
UNSYNCED, CURRENT, PARTIAL = "not-synced", "current", "partial"
STALE, BROKEN = "stale", "unreadable"
# The exit codes of reports, the most important first: a faulty preset hides incompatible versions,
# and these matter more than a lock.
_BY_IMPORTANCE = (PresetError.exit_code, CompatibilityError.exit_code, LockError.exit_code, 0)


@dataclass(frozen=True, kw_only=True)
class LockReport:
    """The state of a preset's lock. ``valid`` is the lock, if it belongs to the preset as it is."""

    state: str = UNSYNCED
    faults: tuple[Fault, ...] = ()
    valid: Lock | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return the files of a valid lock."""
        return self.valid.entries if self.valid else ()

    @property
    def size(self) -> int:
        """Return the bytes of the files."""
        return self.valid.size if self.valid else 0

    @property
    def first_use(self) -> list[Entry]:
        """Return the files without a published checksum."""
        return [entry for entry in self.entries if entry.trust == "first-use"]

    @property
    def first_use_size(self) -> int:
        """Return the bytes of the files without a published checksum."""
        return sum(entry.size for entry in self.first_use)

    def to_json(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        return {
            "state": self.state,
            "entries": len(self.entries),
            "size": self.size,
            "pinned_bytes": self.size - self.first_use_size,
            "first_use": len(self.first_use),
            "faults": [f.to_json() for f in self.faults],
        }


@dataclass(kw_only=True)
class Report:
    """The state of one preset. ``pinned`` and ``first_use`` are source names.

    ``unresolved`` lists what neither the preset nor its lock pins, ``credentials`` what sync needs
    for private sources and base images, ``near`` the suggestion for a name of no preset.
    """

    name: str
    preset: Preset | None = None
    near: str = ""
    faults: tuple[Fault, ...] = ()
    problems: list[Finding] = field(default_factory=list)
    pinned: list[str] = field(default_factory=list)
    first_use: list[str] = field(default_factory=list)
    loose_images: list[str] = field(default_factory=list)
    lock: LockReport = field(default_factory=LockReport)
    unresolved: list[ToResolve] = field(default_factory=list)
    credentials: list[Need] = field(default_factory=list)
    driver: DriverNeed = field(default_factory=DriverNeed)
    licences: list[Judgement] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """Return the incompatible versions, without warnings."""
        return [p for p in self.problems if p.severity == "error"]

    @property
    def exit_code(self) -> int:
        """Return 0, or the code of the most important cause."""
        if self.faults:
            return PresetError.exit_code
        if self.errors:
            return CompatibilityError.exit_code
        return LockError.exit_code if self.lock.state in (STALE, BROKEN) else 0

    def to_json(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        return {
            "name": self.name,
            "ok": self.exit_code == 0,
            "exit_code": self.exit_code,
            "practice": bool(self.preset and self.preset.practice),
            "faults": [f.to_json() for f in self.faults],
            "problems": [p.to_json() for p in self.problems],
            "sources": {
                "pinned": len(self.pinned),
                "first_use": len(self.first_use),
                "first_use_names": self.first_use,
            },
            "images_without_digest": self.loose_images,
            "driver": self.driver.lowest,
            "redistributable": redistributable(self.licences) if self.preset else None,
            "licences": [judgement.to_json() for judgement in self.licences],
            "unresolved": [u.to_json() for u in self.unresolved],
            "credentials": [need.to_json() for need in self.credentials],
            "lock": self.lock.to_json(),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.epilog = _(EPILOG)
    parser.add_argument(
        "presets", metavar="PRESET", nargs="*", help=_("preset names (default: all)")
    )
    parser.add_argument("--all", action="store_true", help=_("every preset"))
    parser.add_argument(
        "--driver", metavar="VERSION", help=_("also check the NVIDIA driver of a site")
    )
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Print the report of each preset. Return the exit code of the most important cause."""
    if args.driver is not None and not _DRIVER.fullmatch(args.driver):
        raise UsageError(
            _('--driver is "{driver}", which is not a driver version', driver=args.driver),
            hint=_("enter the version that nvidia-smi shows, such as 470.82.01"),
        )
    catalog = catalogs.load(project.catalog)
    named = [] if args.all else list(dict.fromkeys(args.presets))
    names = named or presets.names(project.presets)
    if not names:
        raise PresetError(
            _("{folder}: there are no presets", folder=project.presets),
            hint=_("restore presets/ from the release"),
        )
    components = component.load_all(project.components)
    read_scripts(project, components)
    reports = [examine(project, name, catalog, components, args.driver) for name in names]
    for report in reports:
        if report.preset:
            check_dockerfile(project, report.preset, components)
    code = min((report.exit_code for report in reports), key=_BY_IMPORTANCE.index)
    facts, bare = catalogs.facts_and_sources(project.catalog)
    stale = stale_schemas(project, components, catalog)
    if args.json:
        print_json(
            {
                "ok": code == 0,
                "exit_code": code,
                "presets": [r.to_json() for r in reports],
                "totals": {**_totals(reports), "facts_without_source": len(bare)},
                "catalog": {"read": catalog.read, "facts": facts, "without_source": bare},
                "stale_files": stale,
            }
        )
        return code
    for report in reports:
        if not output_mode.quiet() or report.exit_code or report.problems:
            _print(report)
    totals = _totals(reports)
    show(
        _(
            "{sound} of {count} presets without faults; {pinned} sources pinned by checksum, "
            "{first_use} trusted on first use; {size} pinned by checksum in locks, {unresolved} "
            "unresolved items; {facts} catalog facts, {bare} without a source",
            sound=sum(report.exit_code == 0 for report in reports),
            count=len(reports),
            pinned=totals["pinned"],
            first_use=totals["first_use"],
            size=human_bytes(totals["pinned_bytes"]),
            unresolved=totals["unresolved"],
            facts=facts,
            bare=len(bare),
        )
    )
    if stale:
        show(_("not up to date: {files}; run ./gapforge generate", files=", ".join(stale)))
    return code


def _totals(reports: Sequence[Report]) -> dict[str, int]:
    return {
        "pinned": sum(len(r.pinned) for r in reports),
        "first_use": sum(len(r.first_use) for r in reports),
        "pinned_bytes": sum(r.lock.size - r.lock.first_use_size for r in reports),
        "first_use_entries": sum(len(r.lock.first_use) for r in reports),
        "first_use_bytes": sum(r.lock.first_use_size for r in reports),
        "unresolved": sum(len(r.unresolved) for r in reports),
        "faults": sum(len(r.faults) + len(r.errors) + len(r.lock.faults) for r in reports),
    }


def stale_schemas(project: Project, components: Sequence[Component], catalog: Catalog) -> list[str]:
    """Return the paths of generated JSON Schemas that differ from components and catalog."""
    stale = []
    for path, text in json_schemas.schemas(components, catalog).items():
        file = inside(project.root, path)
        if file.is_file() and not contains(file, text.encode()):
            stale.append(path)
    return stale


def examine(
    project: Project,
    name: str,
    catalog: Catalog,
    components: Sequence[Component],
    driver: str | None = None,
) -> Report:
    """Return the report of one preset, for a site with ``driver`` if it is given.

    Faults are in the report and are not raised.
    """
    name = name.removeprefix("presets/").removesuffix(".json")
    report = Report(name=name)
    try:
        preset = presets.find(project.presets, name)
    except PresetError as error:
        report.faults = error.faults or (Fault(f"presets/{name}.json", error.message),)
        report.near = nearest(name, presets.names(project.presets))
        return report
    report.preset = preset
    report.faults = (*component.check_preset(preset, components), *_source_faults(project, preset))
    report.problems = check_preset(preset, catalog)
    if driver is not None:
        report.problems += check_driver(preset, driver, catalog)
    report.driver = driver_need(preset, catalog)
    for source in preset.sources.values():
        first_use = source.urls and not source.sha256
        (report.first_use if first_use else report.pinned).append(source.name)
    report.loose_images = [
        preset.base(r).image for r in ROLES if preset.base(r).image and not preset.base(r).digest
    ]
    try:
        report.credentials = credentials.needs(preset, credentials.load(project.env_file))
    except SecretError:  # sync and doctor report it
        report.credentials = credentials.needs(preset, Credentials())
    report.lock = _examine_lock(project, preset)
    lock = report.lock.valid
    if lock is not None:
        shown = f"presets/{preset.name}.lock.json"
        report.faults += tuple(usable_base_image.operating_system_faults(preset, lock.images))
        report.faults += tuple(doubled_modules.faults_of_lock(preset, lock, shown))
    report.unresolved = list_to_resolve(preset, lock)
    if lock is not None and report.unresolved:
        report.lock = replace(report.lock, state=PARTIAL)
    report.licences = judge(preset, lock, catalog)
    return report


def _source_faults(project: Project, preset: Preset) -> list[Fault]:
    """Return why the application's source folder cannot be used, as a build would say."""
    if preset.application is None:
        return []
    with suppress(SecretError):  # a build reports it
        settings = env_file.load(project.env_file, ()).settings
        try:
            application_source.choose(preset.application, settings=settings, root=project.root)
        except SourceError as error:
            where = f"presets/{preset.name}.json: $.application.source"
            return [Fault(where, error.message, error.hint)]
    return []


def _examine_lock(project: Project, preset: Preset) -> LockReport:
    file = project.lock_file(preset.name)
    if not file.exists():
        return LockReport()
    try:
        lock = locks.load(file)
    except LockError as error:
        return LockReport(state=BROKEN, faults=error.faults)
    if lock.preset != preset.name:
        fault = Fault(
            f"presets/{file.name}: $.preset",
            _('belongs to the preset "{preset}"', preset=lock.preset),
            f'"{preset.name}"',
        )
        return LockReport(state=STALE, faults=(fault,))
    if lock.preset_sha256 != preset.sha256:
        fault = Fault(
            f"presets/{file.name}: $.preset_sha256",
            _(
                "the preset is not as it was when the lock was made; its state follows from "
                "{files}",
                files=", ".join(preset.decided_by),
            ),
            preset.sha256,
        )
        return LockReport(state=STALE, faults=(fault,))
    return LockReport(state=CURRENT, valid=lock)


def _print(report: Report) -> None:
    sound = report.exit_code == 0
    verdict = coloured_verdict(_("no faults") if sound else _("faulty"), "ok" if sound else "fail")
    show(f"{report.name}  {verdict}{report.near}")
    for fault in report.faults:
        show(fault.lines())
    for problem in report.problems:
        mark = _("error") if problem.severity == "error" else _("warning")
        show(f"  {problem.path}\n      {mark}: {problem.text}")
    if report.preset:
        states = [
            _("{count} pinned by checksum", count=len(report.pinned)),
            _trusted_on_first_use(len(report.first_use)),
        ]
        if report.first_use:
            states[-1] += f" ({', '.join(report.first_use)})"
        show(_("  sources: {states}", states=", ".join(states)))
        if report.driver.lowest:
            show(
                _(
                    "  NVIDIA driver: {driver} or newer ({reason})",
                    driver=report.driver.lowest,
                    reason=report.driver.reason,
                )
            )
        for need in report.credentials:
            _print_need(need)
        _print_licences(report.licences)
        _print_lock(report)
    if report.exit_code == LockError.exit_code:
        show(_("  next: online: ./deps_sync.sh {preset!q} --update", preset=report.name))
    elif (report.faults or report.errors) and not report.near:
        show(
            _(
                "  next: correct the faults, then run ./gapforge check {preset!q}",
                preset=report.name,
            )
        )


def _print_need(need: Need) -> None:
    state = _("set") if need.present else pgettext("summary", "not set")
    names = ", ".join(need.of)
    show(_("  sync needs {key} for {names}: {state}", key=need.key, names=names, state=state))
    if not need.present:
        show(_("      cp .env.template .env (unless it exists); chmod 600 .env; fill in the key"))


def _print_licences(licences: Sequence[Judgement]) -> None:
    forbidden = [f"{x.part}: {x.reason}" for x in licences if x.verdict == FORBIDDEN]
    unknown = [part for x in licences if x.verdict == UNKNOWN for part in x.part.split(", ")]
    if forbidden:
        show(_("  redistribution: not allowed: {reasons}", reasons="; ".join(forbidden)))
    elif unknown:
        parts = first_names(unknown, _MAX_PARTS)
        show(_("  redistribution: unknown for {parts} (reasons: --json)", parts=parts))
    else:
        show(_("  redistribution: allowed under the conditions of the licences"))


def _trusted_on_first_use(count: int) -> str:
    return _("{count} trusted on first use", count=count)


def _print_lock(report: Report) -> None:
    lock = report.lock
    if lock.valid is not None:
        facts = [_("partial")] if lock.state == PARTIAL else []
        facts += [_("{count} files", count=len(lock.entries)), human_bytes(lock.size)]
        if lock.first_use:
            facts.append(_trusted_on_first_use(len(lock.first_use)))
        show(_("  lock: {facts}", facts=", ".join(facts)))
    elif lock.state == UNSYNCED:
        show(_("  lock: none"))
    for fault in lock.faults:
        show(fault.lines())
    if report.unresolved:
        show(
            _(
                "  unresolved: {items} (online: ./deps_sync.sh {preset!q})",
                items=counts(item.kind for item in report.unresolved),
                preset=report.name,
            )
        )
