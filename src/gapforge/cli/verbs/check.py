"""``gapforge check``: every fault of presets, their versions and their locks, all in one run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gapforge.base.errors import CompatibilityError, Fault, LockError, PresetError
from gapforge.base.progress import human_bytes
from gapforge.base.project import Project
from gapforge.base.text import tr
from gapforge.compat import catalog as catalogs
from gapforge.compat.catalog import Catalog
from gapforge.compat.findings import Problem
from gapforge.compat.rules import check_preset, driver_problems, required_driver
from gapforge.image import dockerfile
from gapforge.model import component
from gapforge.model import lock as locks
from gapforge.model import preset as presets
from gapforge.model.component import Component
from gapforge.model.preset import Preset
from gapforge.model.unresolved import Unresolved, counts, unresolved

HELP = {
    "ko": "프리셋의 오류, 버전 조합, 잠금의 상태를 한 번에 모두 검사합니다.",
    "en": "Check presets for faults, versions that do not go together, and stale locks, all at once.",
}
EPILOG = {
    "ko": "종료 코드: 0 문제없음(경고는 허용), 3 프리셋 오류, 9 함께 쓸 수 없는 버전, 4 프리셋과 다른 잠금",
    "en": "exit codes: 0 sound (warnings allowed), 3 preset faults, 9 versions that cannot work together, 4 lock of another state",
}
UNSYNCED, CURRENT, PARTIAL, STALE, BROKEN = "not-synced", "current", "partial", "stale", "unreadable"


@dataclass
class Report:
    """What was found about one preset. ``pinned`` and ``first_use`` are names of sources; sizes are in bytes.

    ``unresolved`` is what neither the preset nor its lock pins to bytes.
    """

    name: str
    preset: Preset | None = None
    faults: tuple[Fault, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    pinned: list[str] = field(default_factory=list)
    first_use: list[str] = field(default_factory=list)
    loose_images: list[str] = field(default_factory=list)
    lock_state: str = UNSYNCED
    lock_faults: tuple[Fault, ...] = ()
    lock_entries: int = 0
    lock_size: int = 0
    lock_first_use: int = 0
    lock_first_use_size: int = 0
    unresolved: list[Unresolved] = field(default_factory=list)
    driver: str = ""

    @property
    def errors(self) -> list[Problem]:
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
            "sources": {"pinned": len(self.pinned), "first_use": len(self.first_use), "first_use_names": self.first_use},
            "images_without_digest": self.loose_images,
            "driver": self.driver,
            "redistributable": not any(p.rule == "nonfree" for p in self.problems),
            "unresolved": [u.to_json() for u in self.unresolved],
            "lock": {"state": self.lock_state, "entries": self.lock_entries, "size": self.lock_size,
                     "pinned_bytes": self.lock_size - self.lock_first_use_size, "first_use": self.lock_first_use, "faults": [f.to_json() for f in self.lock_faults]},
        }  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = tr(EPILOG["ko"], EPILOG["en"])
    parser.add_argument(
        "presets", metavar="PRESET", nargs="*", help=tr("프리셋 이름 (없으면 전부)", "preset names (none: all)")
    )
    parser.add_argument("--all", action="store_true", help=tr("모든 프리셋", "every preset"))
    parser.add_argument("--driver", metavar="VERSION",
                        help=tr("현장의 NVIDIA 드라이버에서 동작하는지도 검사합니다", "also check against a site's NVIDIA driver"))  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help=tr("결과를 JSON으로 출력합니다", "print the result as JSON")
    )


def run(args: argparse.Namespace, project: Project) -> int:
    """Print what was found; the exit code is that of the gravest cause among all presets."""
    catalog = catalogs.load(project.catalog)
    names = presets.names(project.presets) if args.all or not args.presets else list(dict.fromkeys(args.presets))
    if not names:
        raise PresetError(tr(f"{project.presets}: 프리셋이 없습니다", f"{project.presets}: there is no preset"),
                          hint=tr("릴리스의 presets/를 다시 가져오십시오", "restore presets/ from the release"))  # fmt: skip
    components = component.load_all(project.components)
    text = project.dockerfile.read_text(encoding="utf-8")
    dockerfile.raise_for(component.check_dockerfile(text, components), what=tr("구성 요소와 맞지 않습니다", "does not fit the components"))  # fmt: skip
    reports = [examine(project, name, catalog, components, args.driver) for name in names]
    codes = {report.exit_code for report in reports}
    # A preset that cannot be read says more than versions, and versions more than a lock.
    code = next(
        (c for c in (PresetError.exit_code, CompatibilityError.exit_code, LockError.exit_code) if c in codes), 0
    )
    facts, bare = catalogs.facts_and_sources(project.catalog)
    if args.json:
        totals = {"pinned": sum(len(r.pinned) for r in reports), "first_use": sum(len(r.first_use) for r in reports),
                  "pinned_bytes": sum(r.lock_size - r.lock_first_use_size for r in reports),
                  "first_use_entries": sum(r.lock_first_use for r in reports),
                  "first_use_bytes": sum(r.lock_first_use_size for r in reports),
                  "unresolved": sum(len(r.unresolved) for r in reports),
                  "faults": sum(len(r.faults) + len(r.errors) + len(r.lock_faults) for r in reports),
                  "facts_without_source": len(bare)}  # fmt: skip
        document = {
            "ok": code == 0, "exit_code": code, "presets": [r.to_json() for r in reports], "totals": totals,
            "catalog": {"read": catalog.read, "facts": facts, "without_source": bare},
        }  # fmt: skip
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
    print(tr(f"프리셋 {len(reports)}개 중 {len(reports) - wrong}개 문제없음; 해시로 고정한 소스 {sum(len(r.pinned) for r in reports)}개, 처음 받은 것을 믿는 소스 {first}개; 잠금이 해시로 고정한 양 {size}, 아직 정해지지 않은 항목 {open_}개; 카탈로그 사실 {facts}개, 출처 없는 것 {len(bare)}개",
             f"{len(reports) - wrong} of {len(reports)} presets sound; {sum(len(r.pinned) for r in reports)} sources pinned by hash, {first} trusted on first use; {size} pinned by hash in locks, {open_} items not resolved yet; {facts} catalog facts, {len(bare)} without a source"))  # fmt: skip
    return code


def examine(
    project: Project, name: str, catalog: Catalog, components: Sequence[Component], driver: str | None = None
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
        report.problems += driver_problems(preset, driver, catalog)
    report.driver = required_driver(preset, catalog)
    for source in preset.sources.values():
        (report.first_use if source.urls and not source.sha256 else report.pinned).append(source.name)
    report.loose_images = [
        preset.base(r).image for r in ("builder", "runtime") if preset.base(r).image and not preset.base(r).digest
    ]
    _lock(report, project, preset)
    return report


def _lock(report: Report, project: Project, preset: Preset) -> None:
    file = project.lock_file(preset.name)
    if not file.exists():
        report.unresolved = unresolved(preset, None)
        return
    try:
        lock = locks.load(file)
    except LockError as error:
        report.lock_state, report.lock_faults = BROKEN, error.faults
        report.unresolved = unresolved(preset, None)
        return
    if lock.preset != preset.name:
        report.lock_faults = (Fault(f"presets/{file.name}: $.preset",
                                    tr(f'다른 프리셋 "{lock.preset}"의 것임', f'belongs to the preset "{lock.preset}"'),
                                    f'"{preset.name}"'),)  # fmt: skip
    elif lock.preset_sha256 != preset.sha256:
        report.lock_faults = (Fault(f"presets/{file.name}: $.preset_sha256",
                                    tr("잠금을 만든 뒤에 프리셋이 바뀜", "the preset has changed since the lock was made"),
                                    preset.sha256),)  # fmt: skip
    if report.lock_faults:
        report.lock_state, report.unresolved = STALE, unresolved(preset, None)
        return
    report.unresolved = unresolved(preset, lock)
    report.lock_state = PARTIAL if report.unresolved else CURRENT
    report.lock_entries, report.lock_size = len(lock.entries), sum(e.size for e in lock.entries)
    trusted = [e.size for e in lock.entries if e.trust == "first-use"]
    report.lock_first_use, report.lock_first_use_size = len(trusted), sum(trusted)


def _print(report: Report) -> None:
    verdict = tr("문제없음", "sound") if report.exit_code == 0 else tr("오류", "not sound")
    print(f"{report.name}  {verdict}")
    for fault in report.faults:
        print(fault.lines())
    for problem in report.problems:
        mark = tr("오류", "error") if problem.severity == "error" else tr("주의", "warning")
        print(f"  {problem.path}\n      {mark}: {problem.text}")
    if report.preset:
        first = f" ({', '.join(report.first_use)})" if report.first_use else ""
        print(tr(f"  소스: 해시로 고정 {len(report.pinned)}개, 처음 받은 것을 믿음 {len(report.first_use)}개{first}",
                 f"  sources: {len(report.pinned)} pinned by hash, {len(report.first_use)} trusted on first use{first}"))  # fmt: skip
        if report.driver:
            print(tr(f"  NVIDIA 드라이버: {report.driver} 이상", f"  NVIDIA driver: {report.driver} or newer"))
    _print_lock(report)
    if report.exit_code in (LockError.exit_code,):
        print(tr("  다음: 온라인에서", "  next: where there is a network,") + f" ./deps_sync.sh {report.name} --update")
    elif report.faults or report.errors:
        print(tr("  다음: 고친 뒤", "  next: correct it, then") + f" ./gapforge check {report.name}")


def _print_lock(report: Report) -> None:
    if report.preset is None:
        return
    if report.lock_state in (CURRENT, PARTIAL):
        loose = (
            tr(f", 처음 받은 것을 믿음 {report.lock_first_use}개", f", {report.lock_first_use} trusted on first use")
            if report.lock_first_use
            else ""
        )
        partly = tr("일부만 정해짐, ", "partial, ") if report.lock_state == PARTIAL else ""
        print(tr(f"  잠금: {partly}파일 {report.lock_entries}개, {human_bytes(report.lock_size)}{loose}",
                 f"  lock: {partly}{report.lock_entries} files, {human_bytes(report.lock_size)}{loose}"))  # fmt: skip
    elif report.lock_state == UNSYNCED:
        print(tr("  잠금: 없음", "  lock: none"))
    for fault in report.lock_faults:
        print(fault.lines())
    if report.unresolved:
        print(tr(f"  아직 정해지지 않음: {counts(report.unresolved)} (온라인에서 ./deps_sync.sh {report.name})",
                 f"  not resolved yet: {counts(report.unresolved)} (where there is a network: ./deps_sync.sh {report.name})"))  # fmt: skip
