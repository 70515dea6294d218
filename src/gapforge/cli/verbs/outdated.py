"""``gapforge outdated``: newer upstream releases of what a preset holds, and which still fit together (online)."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from gapforge.base.errors import Fault, FetchError, LockError, UsageError
from gapforge.base.files import unsafe_path_reason, write_text
from gapforge.base.project import Project
from gapforge.base.text import pad, tr, width
from gapforge.compat import catalog as catalog_module
from gapforge.model import lock as lock_module
from gapforge.model import preset as preset_module
from gapforge.model.lock import Lock
from gapforge.sync.network import Network
from gapforge.sync.python_packages import Resolver
from gapforge.updates import advice, published_releases
from gapforge.updates.advice import Outlook

HELP = {
    "ko": "프리셋보다 새로운 업스트림 릴리스와 함께 쓸 수 있는 조합을 보여 줍니다 (온라인)",
    "en": "Show upstream releases newer than a preset's, and which of them still fit together (online)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", metavar="PRESET", help=tr("비교할 프리셋", "preset to compare"))
    parser.add_argument("--write", metavar="NAME",
                        help=tr("함께 쓸 수 있는 최신 조합을 presets/NAME.json으로 저장", "write the newest combination that fits to presets/NAME.json"))  # fmt: skip
    parser.add_argument("--same-line", action="store_true",
                        help=tr("같은 계열 안에서만 (FFmpeg 5.1.x, torch 2.1.x)", "stay within each series (FFmpeg 5.1.x, torch 2.1.x)"))  # fmt: skip
    parser.add_argument("--json", action="store_true", help=tr("결과를 JSON으로 출력", "print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0; 6 when some upstream could not be asked, after everything that was found."""
    target = _target(args.write, project) if args.write is not None else None
    preset = preset_module.find(project.presets, args.preset)
    catalog = catalog_module.load(project.catalog)
    network = Network.from_environment()
    network.require(
        tr(f"{preset.name}보다 새로운 릴리스 찾기", f"looking for releases newer than {preset.name}'s"), files=False
    )
    project.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="outdated-", dir=project.state) as room:
        resolver = Resolver(project, network, Path(room), refresh=True)
        look = advice.look(preset, catalog, published_releases.load(project.catalog), network, resolver,
                             _lock(project, preset.name), same_line=args.same_line)  # fmt: skip
    if target is not None and look.together:
        _write(target, look, preset.name)
    unasked = [component for component in look.components if component.problem]
    if args.json:
        print(json.dumps({
            "ok": not unasked, "preset": preset.name, "components": [c.to_json() for c in look.components],
            "together": dict(look.together), "written": str(target) if target and look.together else "",
        }, ensure_ascii=False, indent=2))  # fmt: skip
    else:
        print(render(look))
        if target is not None:
            print(tr(f"\n저장함: {target}\n다음: ./gapforge check {target.stem}; ./deps_sync.sh {target.stem}",
                     f"\nwrote {target}\nnext: ./gapforge check {target.stem}; ./deps_sync.sh {target.stem}")
                  if look.together else tr("\n새로 저장할 것이 없습니다", "\nnothing newer fits; no preset was written"))  # fmt: skip
    if unasked and not args.json:
        names = ", ".join(component.name for component in unasked)
        error = FetchError(tr(f"업스트림에 물을 수 없었던 것: {names}", f"could not be asked upstream: {names}"),
                           hint=tr("이 명령은 온라인에서 실행하거나 미러를 지정하십시오: GAPFORGE_URL_MIRRORS, GAPFORGE_INDEX_URL, GAPFORGE_REGISTRY_MIRROR",
                                   "run this where there is a network, or name mirrors: GAPFORGE_URL_MIRRORS, GAPFORGE_INDEX_URL, GAPFORGE_REGISTRY_MIRROR"))  # fmt: skip
        print(error.render(), file=sys.stderr)
    return FetchError.exit_code if unasked else 0


def render(look: Outlook) -> str:
    """The components as a table; why the newest does not fit stands below its line."""
    words = {"current": tr("최신", "current"), "outdated": tr("갱신 가능", "newer"), "held": tr("보류", "held"),
             "unknown": tr("알 수 없음", "unknown")}  # fmt: skip
    rows = [
        (
            tr("구성 요소", "component"),
            tr("현재", "has"),
            tr("최신", "newest"),
            tr("맞는 최신", "fits"),
            tr("함께", "together"),
            "",
        )
    ]
    rows += [
        (c.name, c.current, c.newest or "?", c.fits or "-", look.together.get(c.name, "-"), words[c.status])
        for c in look.components
    ]
    columns = [max(width(row[i]) for row in rows) for i in range(6)]
    text = []
    for index, row in enumerate(rows):
        text.append("  ".join(pad(cell, columns[i]) for i, cell in enumerate(row)).rstrip())
        if index:
            component = look.components[index - 1]
            lines = dict.fromkeys(filter(None, (component.why, component.note, component.problem)))
            text += [f"    {line}" for line in lines]
    return "\n".join(text)


def _target(name: str, project: Project) -> Path:
    """Where the new preset goes; UsageError for a name that cannot be one, or is taken."""
    faults: list[Fault] = []
    preset_module.NAME.check(name, "--write", faults, "command line")
    if faults or unsafe_path_reason(name) or name.endswith(".lock"):
        raise UsageError(tr(f'--write "{name}": 프리셋 이름으로 쓸 수 없습니다', f'--write "{name}" is not a name for a preset'),
                         hint=tr("영문 소문자, 숫자, '.', '_', '-'만 쓰십시오. 예: ubuntu22.04-cuda11.8-torch2.3",
                                 "lower-case letters, digits, '.', '_' and '-', such as ubuntu22.04-cuda11.8-torch2.3"))  # fmt: skip
    file = project.preset_file(name)
    if file.exists():
        raise UsageError(tr(f"{file}: 이미 있습니다", f"{file} exists already"),
                         hint=tr("다른 이름을 고르십시오. 받아 둔 프리셋은 덮어쓰지 않습니다",
                                 "choose another name; presets that were synced are not overwritten"))  # fmt: skip
    return file


def _write(target: Path, look: Outlook, previous: str) -> None:
    """Write the combination, after the parser has accepted it. PresetError when it does not."""
    raw = advice.new_preset(look, target.stem, previous)
    text = advice.render(raw) + "\n"
    with tempfile.TemporaryDirectory() as room:
        trial = Path(room, target.name)
        trial.write_text(text, encoding="utf-8")
        preset_module.load(trial, shown=f"presets/{target.name}")
    write_text(target, text)


def _lock(project: Project, name: str) -> Lock | None:
    try:
        return lock_module.load(project.lock_file(name))
    except LockError:
        return None
