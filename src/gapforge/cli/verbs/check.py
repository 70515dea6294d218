"""``gapforge check``: every fault of presets, their versions and their locks, all in one run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gapforge.base.errors import CompatibilityError, Fault, LockError, PresetError
from gapforge.base.files import inside
from gapforge.base.i18n import N_, _
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.compat import catalog as catalogs
from gapforge.compat.catalog import Catalog
from gapforge.compat.driver import check_driver, required_driver
from gapforge.compat.findings import Finding
from gapforge.compat.rules import check_preset
from gapforge.image import dockerfile
from gapforge.model import component
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.component import Component
from gapforge.model.names import ROLES
from gapforge.model.preset import Preset
from gapforge.model.to_resolve import ToResolve, counts, list_to_resolve
from gapforge.tools import json_schemas

HELP = N_(
    "Check presets for faults, versions that do not go together, and stale locks, all at once."
)
EPILOG = N_(
    "exit codes: 0 sound (warnings allowed), 3 preset faults, 9 versions that cannot "
    "work together, 4 lock of another state"
)
UNSYNCED, CURRENT, PARTIAL, STALE, BROKEN = (
    "not-synced",
    "current",
    "partial",
    "stale",
    "unreadable",
)


@dataclass
class Report:
    """What was found about one preset. ``pinned`` and ``first_use`` are names of sources; sizes are in bytes.

    ``unresolved`` is what neither the preset nor its lock pins to bytes.
    """

    name: str
    preset: Preset | None = None
    faults: tuple[Fault, ...] = ()
    problems: list[Finding] = field(default_factory=list)
    pinned: list[str] = field(default_factory=list)
    first_use: list[str] = field(default_factory=list)
    loose_images: list[str] = field(default_factory=list)
    lock_state: str = UNSYNCED
    lock_faults: tuple[Fault, ...] = ()
    lock_entries: int = 0
    lock_size: int = 0
    lock_first_use: int = 0
    lock_first_use_size: int = 0
    unresolved: list[ToResolve] = field(default_factory=list)
    driver: str = ""

    @property
    def errors(self) -> list[Finding]:
        return [p for p in self.problems if p.severity == "error"]

    @property
    def exit_code(self) -> int:
        """0, or the code of the gravest cause."""
        if self.faults:
            return PresetError.exit_code
        if self.errors:
            return CompatibilityError.exit_code
        return LockError.exit_code if self.lock_state in (STALE, BROKEN) else 0

    def to_json(self) -> dict[str, Any]:
        """Everything, in JSON types."""
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
            "driver": self.driver,
            "redistributable": not any(p.rule == "nonfree" for p in self.problems),
            "unresolved": [u.to_json() for u in self.unresolved],
            "lock": {
                "state": self.lock_state,
                "entries": self.lock_entries,
                "size": self.lock_size,
                "pinned_bytes": self.lock_size - self.lock_first_use_size,
                "first_use": self.lock_first_use,
                "faults": [f.to_json() for f in self.lock_faults],
            },
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _(EPILOG)
    parser.add_argument("presets", metavar="PRESET", nargs="*", help=_("preset names (none: all)"))
    parser.add_argument("--all", action="store_true", help=_("every preset"))
    parser.add_argument(
        "--driver", metavar="VERSION", help=_("also check against a site's NVIDIA driver")
    )
    parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Print what was found; the exit code is that of the gravest cause among all presets."""
    catalog = catalogs.load(project.catalog)
    names = (
        presets.names(project.presets)
        if args.all or not args.presets
        else list(dict.fromkeys(args.presets))
    )
    if not names:
        raise PresetError(
            _("{presets}: there is no preset", presets=project.presets),
            hint=_("restore presets/ from the release"),
        )
    components = component.load_all(project.components)
    text = project.dockerfile.read_text(encoding="utf-8")
    dockerfile.check_stages(text, components)
    reports = [examine(project, name, catalog, components, args.driver) for name in names]
    codes = {report.exit_code for report in reports}
    # A preset that cannot be read says more than versions, and versions more than a lock.
    code = next(
        (
            c
            for c in (PresetError.exit_code, CompatibilityError.exit_code, LockError.exit_code)
            if c in codes
        ),
        0,
    )
    facts, bare = catalogs.facts_and_sources(project.catalog)
    stale = stale_schemas(project, components)
    if args.json:
        totals = {
            "pinned": sum(len(r.pinned) for r in reports),
            "first_use": sum(len(r.first_use) for r in reports),
            "pinned_bytes": sum(r.lock_size - r.lock_first_use_size for r in reports),
            "first_use_entries": sum(r.lock_first_use for r in reports),
            "first_use_bytes": sum(r.lock_first_use_size for r in reports),
            "unresolved": sum(len(r.unresolved) for r in reports),
            "faults": sum(len(r.faults) + len(r.errors) + len(r.lock_faults) for r in reports),
            "facts_without_source": len(bare),
        }
        document = {
            "ok": code == 0,
            "exit_code": code,
            "presets": [r.to_json() for r in reports],
            "totals": totals,
            "catalog": {"read": catalog.read, "facts": facts, "without_source": bare},
            "stale_files": stale,
        }
        print(json.dumps(document, ensure_ascii=False, indent=2))
        return code
    for report in reports:
        _print(report)
    wrong = sum(r.exit_code != 0 for r in reports)
    first = sum(len(r.first_use) for r in reports)
    size, open_ = (
        human_bytes(sum(r.lock_size - r.lock_first_use_size for r in reports)),
        sum(len(r.unresolved) for r in reports),
    )
    print(
        _(
            "{more} of {count} presets sound; {total} sources pinned by hash, {first} "
            "trusted on first use; {size} pinned by hash in locks, {open} items not "
            "resolved yet; {facts} catalog facts, {bare} without a source",
            more=len(reports) - wrong,
            count=len(reports),
            total=sum(len(r.pinned) for r in reports),
            first=first,
            size=size,
            open=open_,
            facts=facts,
            bare=len(bare),
        )
    )
    if stale:
        print(_("not up to date: {files}; run ./gapforge generate", files=", ".join(stale)))
    return code


def stale_schemas(project: Project, components: Sequence[Component]) -> list[str]:
    """Return the paths of generated JSON Schemas that differ from what the components declare."""
    stale = []
    for path, text in json_schemas.schemas(components).items():
        file = inside(project.root, path)
        if file.is_file() and file.read_bytes() != text.encode():
            stale.append(path)
    return stale


def examine(
    project: Project,
    name: str,
    catalog: Catalog,
    components: Sequence[Component],
    driver: str | None = None,
) -> Report:
    """Everything about one preset, for a site with ``driver`` when it is given; raises nothing for what it finds."""
    name = name.removeprefix("presets/").removesuffix(".json")
    report = Report(name)
    try:
        preset = presets.find(project.presets, name)
    except PresetError as error:
        report.faults = error.faults or (Fault(f"presets/{name}.json", error.message),)
        return report
    report.preset = preset
    report.faults = tuple(component.check_preset(preset, components))
    report.problems = check_preset(preset, catalog)
    if driver is not None:
        report.problems += check_driver(preset, driver, catalog)
    report.driver = required_driver(preset, catalog)
    for source in preset.sources.values():
        (report.first_use if source.urls and not source.sha256 else report.pinned).append(
            source.name
        )
    report.loose_images = [
        preset.base(r).image for r in ROLES if preset.base(r).image and not preset.base(r).digest
    ]
    _lock(report, project, preset)
    return report


def _lock(report: Report, project: Project, preset: Preset) -> None:
    file = project.lock_file(preset.name)
    if not file.exists():
        report.unresolved = list_to_resolve(preset, None)
        return
    try:
        lock = locks.load(file)
    except LockError as error:
        report.lock_state, report.lock_faults = BROKEN, error.faults
        report.unresolved = list_to_resolve(preset, None)
        return
    if lock.preset != preset.name:
        report.lock_faults = (
            Fault(
                f"presets/{file.name}: $.preset",
                _('belongs to the preset "{preset}"', preset=lock.preset),
                f'"{preset.name}"',
            ),
        )
    elif lock.preset_sha256 != preset.sha256:
        report.lock_faults = (
            Fault(
                f"presets/{file.name}: $.preset_sha256",
                _("the preset has changed since the lock was made"),
                preset.sha256,
            ),
        )
    if report.lock_faults:
        report.lock_state, report.unresolved = STALE, list_to_resolve(preset, None)
        return
    report.unresolved = list_to_resolve(preset, lock)
    report.lock_state = PARTIAL if report.unresolved else CURRENT
    report.lock_entries, report.lock_size = len(lock.entries), sum(e.size for e in lock.entries)
    trusted = [e.size for e in lock.entries if e.trust == "first-use"]
    report.lock_first_use, report.lock_first_use_size = len(trusted), sum(trusted)


def _print(report: Report) -> None:
    verdict = _("sound") if report.exit_code == 0 else _("not sound")
    print(f"{report.name}  {verdict}")
    for fault in report.faults:
        print(fault.lines())
    for problem in report.problems:
        mark = _("error") if problem.severity == "error" else _("warning")
        print(f"  {problem.path}\n      {mark}: {problem.text}")
    if report.preset:
        first = f" ({', '.join(report.first_use)})" if report.first_use else ""
        print(
            _(
                "  sources: {count} pinned by hash, {first_use} trusted on first use{first}",
                count=len(report.pinned),
                first_use=len(report.first_use),
                first=first,
            )
        )
        if report.driver:
            print(_("  NVIDIA driver: {driver} or newer", driver=report.driver))
    _print_lock(report)
    if report.exit_code in (LockError.exit_code,):
        print(_("  next: where there is a network,") + f" ./deps_sync.sh {report.name} --update")
    elif report.faults or report.errors:
        print(_("  next: correct it, then") + f" ./gapforge check {report.name}")


def _print_lock(report: Report) -> None:
    if report.preset is None:
        return
    if report.lock_state in (CURRENT, PARTIAL):
        loose = (
            _(", {lock_first_use} trusted on first use", lock_first_use=report.lock_first_use)
            if report.lock_first_use
            else ""
        )
        partly = _("partial, ") if report.lock_state == PARTIAL else ""
        print(
            _(
                "  lock: {partly}{lock_entries} files, {lock_size}{loose}",
                partly=partly,
                lock_entries=report.lock_entries,
                lock_size=human_bytes(report.lock_size),
                loose=loose,
            )
        )
    elif report.lock_state == UNSYNCED:
        print(_("  lock: none"))
    for fault in report.lock_faults:
        print(fault.lines())
    if report.unresolved:
        print(
            _(
                "  not resolved yet: {unresolved} (where there is a network: "
                "./deps_sync.sh {name})",
                unresolved=counts(report.unresolved),
                name=report.name,
            )
        )
