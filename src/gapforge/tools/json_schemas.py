"""Generate the JSON Schemas of all documents from the shapes that their parsers use."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gapforge.model import catalog
from gapforge.model.component import COMPONENT_SHAPE, PACKAGES_FILE, Component
from gapforge.model.lock import LOCK_SHAPE
from gapforge.model.preset_shape import preset_shape
from gapforge.model.schema import Shape


def schemas(components: Sequence[Component]) -> dict[str, str]:
    """Return the text of every schema by its path inside the project.

    The preset's schema has the options of ``components``. Same shapes and components, same bytes.
    """
    preset = preset_shape(tuple(components))
    shapes: dict[str, tuple[str, Shape]] = {
        "preset": ("gapforge preset: what an image shall contain", preset),
        "lock": ("gapforge lock: every byte that a preset resolves to", LOCK_SHAPE),
        "component": ("gapforge component: one piece of the image", COMPONENT_SHAPE),
        "component-packages": ("gapforge component: APT packages of the builder", PACKAGES_FILE),
        **{f"catalog-{n}": (f"gapforge catalog: {n}", s) for n, s in catalog.SHAPES.items()},
    }
    return {
        f"schemas/{name}.schema.json": _render(title, shape)
        for name, (title, shape) in sorted(shapes.items())
    }


def _render(title: str, shape: Shape) -> str:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return json.dumps({**head, **shape.schema()}, indent=2, ensure_ascii=False) + "\n"
