"""JSON Schemas of every document that people or sync write, from the parsers' own descriptions."""

from __future__ import annotations

import json

from gapforge.compat import catalog
from gapforge.model.component import COMPONENT_SHAPE
from gapforge.model.lock import LOCK_SHAPE
from gapforge.model.preset import PRESET_SHAPE
from gapforge.model.schema import Shape


def schemas() -> dict[str, str]:
    """The text of every schema, by its path inside the project. Same shapes, same bytes."""
    shapes: dict[str, tuple[str, Shape]] = {
        "preset": ("gapforge preset: what an image shall contain", PRESET_SHAPE),
        "lock": ("gapforge lock: every byte that a preset resolves to", LOCK_SHAPE),
        "component": ("gapforge component: one piece of the image", COMPONENT_SHAPE),
    }
    for name, shape in catalog.SHAPES.items():
        shapes[f"catalog-{name}"] = (f"gapforge catalog: {name}", shape)
    return {
        f"schemas/{name}.schema.json": _render(title, shape)
        for name, (title, shape) in sorted(shapes.items())
    }


def _render(title: str, shape: Shape) -> str:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return json.dumps({**head, **shape.schema()}, indent=2, ensure_ascii=False) + "\n"
