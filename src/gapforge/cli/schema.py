"""``gapforge schema``: JSON Schemas of every document that people or sync write, from the parsers' own descriptions."""

from __future__ import annotations

import argparse
import json

from gapforge.build.component import COMPONENT_SHAPE
from gapforge.core import catalog
from gapforge.core.errors import Fault, PresetError
from gapforge.core.files import inside, write_text
from gapforge.core.lock import LOCK_SHAPE
from gapforge.core.preset import PRESET_SHAPE
from gapforge.core.project import Project
from gapforge.core.shapes import Shape
from gapforge.core.text import tr

HELP = {
    "ko": "편집기가 프리셋을 검사하고 완성해 줄 수 있도록 JSON Schema를 만듭니다 (schemas/).",
    "en": "Make the JSON Schemas with which editors complete and check presets (schemas/).",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.add_argument("--write", action="store_true", help=tr("schemas/ 에 씁니다", "write them into schemas/"))
    parser.add_argument("--check", action="store_true", help=tr("최신이 아니면 실패합니다", "fail when one is stale"))


def schemas() -> dict[str, str]:
    """The text of every schema, by its path inside the project. Same shapes, same bytes."""
    shapes: dict[str, tuple[str, Shape]] = {
        "preset": ("gapforge preset: what an image shall contain", PRESET_SHAPE),
        "lock": ("gapforge lock: every byte that a preset resolves to", LOCK_SHAPE),
        "component": ("gapforge component: one piece of the image", COMPONENT_SHAPE),
    }
    for name, shape in catalog.SHAPES.items():
        shapes[f"catalog-{name}"] = (f"gapforge catalog: {name}", shape)
    return {f"schemas/{name}.schema.json": _render(title, shape) for name, (title, shape) in sorted(shapes.items())}


def run(args: argparse.Namespace, project: Project) -> int:
    """Print, write or check the schemas. PresetError names every stale one."""
    wanted = schemas()
    stale = []
    for path, text in wanted.items():
        file = inside(project.root, path)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            stale.append(path)
    if args.check and stale:
        raise PresetError(tr("스키마가 최신이 아닙니다", "schemas are stale"),
                          faults=[Fault(path, "is not what the parser describes now") for path in stale],
                          hint="./gapforge schema --write")  # fmt: skip
    if args.write:
        for path in stale:
            write_text(inside(project.root, path), wanted[path])
            print(path)
    elif not args.check:
        for path in wanted:
            print(path + ("  " + tr("(최신 아님)", "(stale)") if path in stale else ""))
    return 0


def _render(title: str, shape: Shape) -> str:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return json.dumps({**head, **shape.schema()}, indent=2, ensure_ascii=False) + "\n"
