"""``gapforge generate``: write every generated file anew, or say which ones are stale."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from gapforge.base.errors import Fault, LockError, PresetError
from gapforge.base.files import inside, write_text
from gapforge.base.project import Project
from gapforge.base.text import josa, tr
from gapforge.compat import catalog
from gapforge.compat.rules import required_driver
from gapforge.model import component, preset
from gapforge.model import lock as locks
from gapforge.model.schema import Choice, Record, Text, read_json
from gapforge.tools import json_schemas, package_versions
from gapforge.tools.package_versions import Review, Stack

HELP = {
    "ko": "프리셋과 카탈로그에서 생성되는 파일(스키마, docs/package-versions)을 다시 씁니다.",
    "en": "Write the files that are generated from presets and catalog (schemas, docs/package-versions) anew.",
}
REVIEW = "docs/review.json"
REVIEW_SHAPE = Record({
    "format": Choice((1,), "version of this format"),  # no tr: schema
    "reviewed": Text("day of the last review", r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "YYYY-MM-DD"),
    "note": Record({"ko": Text(), "en": Text()}),
})  # fmt: skip
DOCUMENTS = {"ko": "docs/package-versions.md", "en": "docs/package-versions.en.md"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true",
                        help=tr("쓰지 않고, 최신이 아닌 파일이 있으면 실패합니다",
                                "write nothing; fail when a file is stale"))  # fmt: skip


def run(args: argparse.Namespace, project: Project) -> int:
    """Print each file that changed; with --check, PresetError naming each stale file."""
    wanted = generated(project)
    stale = stale_files(project, wanted)
    if args.check and stale:
        raise PresetError(tr("생성된 파일이 최신이 아닙니다", "generated files are stale"),
                          faults=[Fault(path, stale[path], tr("지금의 프리셋, 잠금, 카탈로그로 만든 내용",
                                                              "what presets, locks and catalog give now")) for path in stale],
                          hint=f"{package_versions.COMMAND}; git add " + " ".join(stale))  # fmt: skip
    for path in stale:
        write_text(inside(project.root, path), wanted[path])
        print(path)
    print(tr(f"생성 파일 {len(wanted)}개 중 {len(stale)}개를 새로 썼습니다",
             f"{len(stale)} of {len(wanted)} generated files written"))  # fmt: skip
    return 0


def generated(project: Project) -> dict[str, str]:
    """Every generated file of the project: path relative to it -> the text that it must have.

    Raises PresetError or LockError when what they are made from cannot be read.
    """
    return {**json_schemas.schemas(), **documents(project)}


def documents(project: Project) -> dict[str, str]:
    """docs/package-versions in both languages."""
    stacks = [_stack(project, name) for name in preset.names(project.presets)]
    components = component.load_all(project.components)
    facts = catalog.load(project.catalog)
    drivers = {stack.preset.name: required_driver(stack.preset, facts) for stack in stacks}
    review = _review(project)
    return {path: package_versions.render(stacks, components, drivers, review, language)
            for language, path in DOCUMENTS.items()}  # fmt: skip


def stale_files(project: Project, wanted: Mapping[str, str]) -> dict[str, str]:
    """The files that are not as ``wanted``, each with what is wrong, by path."""
    found = {}
    for path, text in sorted(wanted.items()):
        file = inside(project.root, path)
        if not file.is_file():
            found[path] = tr("없음", "does not exist")
        elif file.read_bytes() != text.encode():
            found[path] = tr("최신이 아님", "is stale")
    return found


def _stack(project: Project, name: str) -> Stack:
    chosen = preset.find(project.presets, name)
    file = project.lock_file(name)
    if not file.exists():
        return Stack(chosen, None)
    lock = locks.load(file)
    if lock.preset != name:
        raise LockError(tr(f'presets/{file.name}: 다른 프리셋 "{lock.preset}"의 것입니다',
                           f'presets/{file.name} belongs to the preset "{lock.preset}"'),
                        hint=f"./deps_sync.sh {name} --update")  # fmt: skip
    if lock.preset_sha256 != chosen.sha256:
        return Stack(chosen, None, stale=True)
    return Stack(chosen, lock)


def _review(project: Project) -> Review:
    raw, faults = read_json(project.root / REVIEW, REVIEW_SHAPE, REVIEW)
    if faults:
        example = '{"format": 1, "reviewed": "2026-11-23", "note": {"ko": "…", "en": "…"}}'
        raise PresetError(tr(f"{josa(REVIEW, '을', '를')} 읽을 수 없습니다", f"{REVIEW} cannot be read"), faults=faults,
                          hint=tr(f"다음과 같은 모양이어야 합니다: {example}", f"it looks like {example}"))  # fmt: skip
    return Review(raw["reviewed"], raw["note"]["ko"], raw["note"]["en"])
