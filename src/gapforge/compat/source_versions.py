"""Check that the source archives of FFmpeg and OpenCV have the version that the preset names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gapforge.base.i18n import _
from gapforge.compat.findings import Finding, error
from gapforge.model.catalog import Catalog
from gapforge.model.preset import Preset, SourceArchive

_SOURCES = {"ffmpeg": ("ffmpeg",), "opencv": ("opencv", "opencv-contrib")}
# The first dotted number after a separator: "ffmpeg-5.1.9.tar.xz", "4.10.0.tar.gz", "n6.0.zip".
_NUMBER = re.compile(r"(?:^|[-_/])[a-z]?([0-9]{1,4}(?:\.[0-9]{1,6}){1,5})(?![0-9a-z])")


def check(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield an error for each source archive that has another version than its component."""
    known = _versions_by_checksum(catalog)
    for component, names in _SOURCES.items():
        options = preset.component(component)
        version = options.text("version") if options else ""
        for name in names if version else ():
            source = preset.sources.get(name)
            for path, found in _found(source, known) if source else ():
                if not _agrees(found, version):
                    reason = _(
                        "the preset names {component} {version}, but the archive has {found}",
                        component=component,
                        version=version,
                        found=found,
                    )
                    suggestion = _(
                        "use the archive of {version}, or {component}.version {found}",
                        component=component,
                        version=version,
                        found=found,
                    )
                    yield error("source-version", path, reason, suggestion)
                    break


def _found(source: SourceArchive, known: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the JSON path and the version of each fact that tells the archive's version."""
    path = f"$.sources.{source.name}"
    if source.sha256 in known:
        yield f"{path}.sha256", known[source.sha256]
    if source.version:
        yield f"{path}.version", source.version
    named = [*(("urls", url) for url in source.urls), ("file", source.file)]
    for key, name in [("sdist", source.sdist.rpartition("==")[2]), *named]:
        number = _NUMBER.search(name.rpartition("/")[2])
        if number:
            yield f"{path}.{key}", number[1]


def _agrees(found: str, version: str) -> bool:
    """Return whether ``found`` is the version or a later part of it, as 5.1.9 of 5.1."""
    return f"{found}.".startswith(f"{version}.")


def _versions_by_checksum(catalog: Catalog) -> dict[str, str]:
    """Return the version of each archive of FFmpeg and OpenCV in the catalog by its SHA-256."""
    releases = [*catalog.ffmpeg.items(), *catalog.opencv.items()]
    return {
        archive.sha256: version
        for version, archives in releases
        for archive in archives
        if archive.sha256
    }
