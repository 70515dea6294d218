"""Give the tests of the wizard a project with presets, catalog, and one preset's artifacts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gapforge.base.project import Project
from gapforge.wizard.facts import Facts, read_facts


@pytest.fixture
def place(project: Project, root: Path) -> Project:
    """Return a project with the presets and catalog, and artifacts of the practice preset."""
    shutil.copytree(root / "catalog", project.catalog, dirs_exist_ok=True)
    return project


@pytest.fixture
def facts(place: Project) -> Facts:
    """Return what that project has, on a machine without a problem."""
    return read_facts(place, lambda name: ())
