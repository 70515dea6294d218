"""Generate the JSON Schemas of all documents from the shapes that their parsers use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gapforge.model import catalog_shape
from gapforge.model.catalog import Catalog
from gapforge.model.component import COMPONENT_SHAPE, PACKAGES_FILE, Component
from gapforge.model.lock import LOCK_SHAPE
from gapforge.model.preset_shape import preset_shape
from gapforge.model.schema import Shape
from gapforge.tools import preset_schema_texts


def schemas(components: Sequence[Component], facts: Catalog) -> dict[str, str]:
    """Return the text of every schema by its path inside the project.

    The preset's schema has the options of ``components``, and examples from the catalog ``facts``.
    Same shapes, components and catalog, same bytes.
    """
    preset = preset_shape(tuple(components))
    documented = preset_schema_texts.complete(preset.schema(), components, facts)
    shapes: dict[str, tuple[str, Shape]] = {
        "lock": ("gapforge lock: every byte that a preset resolves to", LOCK_SHAPE),
        "component": ("gapforge component: one piece of the image", COMPONENT_SHAPE),
        "component-packages": ("gapforge component: APT packages of the builder", PACKAGES_FILE),
        **{f"catalog-{n}": (f"gapforge catalog: {n}", s) for n, s in catalog_shape.SHAPES.items()},
    }
    made = {name: (title, shape.schema()) for name, (title, shape) in shapes.items()}
    made["preset"] = ("gapforge preset: what an image shall contain", documented)
    return {
        f"schemas/{name}.schema.json": _render(title, schema)
        for name, (title, schema) in sorted(made.items())
    }


def _render(title: str, schema: dict[str, Any]) -> str:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"
