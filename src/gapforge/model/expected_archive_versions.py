"""Tell which version each source archive of a preset must have, as its component declares."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gapforge.model.component import StatedVersion
from gapforge.model.preset import Preset

# The first dotted number after a separator: "ffmpeg-5.1.9.tar.xz", "4.10.0.tar.gz", "n6.0.zip".
_NUMBER = re.compile(r"(?:^|[-_/])[A-Za-z]?([0-9]{1,4}(?:\.[0-9]{1,6}){1,5})(?![0-9a-z])")


def stated_versions(preset: Preset) -> Iterator[tuple[StatedVersion, list[tuple[str, str]]]]:
    """Yield how each archive states its version, and the versions that the preset gives for it.

    Each of the versions has the JSON path that a person changes, such as "ffmpeg.version"; the
    component's comes first, then the source's own.
    """
    for component in preset.described or ():
        part = component.part(preset)
        if part is None:
            continue
        for stated in component.versions:
            source = preset.sources.get(stated.source)
            if source is None:
                continue
            own = str(part.get(stated.option) or "") if stated.option else ""
            path = f"{component.asked_by or component.preset_key}.{stated.option}"
            pairs = [(path, own), (f"sources.{source.name}.version", source.version)]
            yield stated, [(where, version) for where, version in pairs if version]


def number_in(name: str) -> str:
    """Return the version in the name of a file or folder, such as "5.1.9"; "" if there is none."""
    match = _NUMBER.search(name.rpartition("/")[2])
    return match[1] if match else ""
