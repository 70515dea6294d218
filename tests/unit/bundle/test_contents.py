"""Objects of a bundle have names that people know, and presets that bring them."""

from __future__ import annotations

from pathlib import Path

from bundles import PRESET, sender
from gapforge.bundle.contents import preset_contents
from gapforge.model import preset as presets
from raised_errors import values_of


def test_contents_name_object_and_preset(tmp_path: Path) -> None:
    made = sender(tmp_path)
    contents = preset_contents(made.project, [presets.find(made.project.presets, PRESET)])
    path = "debs/nasm_2.16.01-1_amd64.deb"
    nasm = made.entry(path).sha256
    assert (contents.name(nasm), contents.preset_of(nasm)) == (f"{PRESET}/{path}", PRESET)
    unknown = "0" * 64
    assert contents.preset_of(unknown) == ""
    assert values_of(contents.name(unknown)) == {"sha256": unknown[:12]}
