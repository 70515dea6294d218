"""Check that the source archives have the versions that the preset names, by what it says of them.

``sync`` looks into the archives themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gapforge.base.i18n import _
from gapforge.compat.findings import Finding, error
from gapforge.model.catalog import Archive, Catalog
from gapforge.model.expected_archive_versions import number_in, stated_versions
from gapforge.model.preset import Preset, SourceArchive
from gapforge.model.versions import begins_with


def check(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield an error for each source archive that has another version than its component."""
    known = _versions_by_checksum(catalog)
    for stated, expected in stated_versions(preset):
        source = preset.sources[stated.source]
        if not expected or source.file.endswith(".deb"):
            continue  # nothing to compare with, or a local repository of packages
        option, version = expected[0]
        for path, found in _found(source, known):
            if path != f"$.{option}" and not begins_with(found, version):
                reason = _(
                    "the preset names {component} {version}, but the archive has {found}",
                    component=option.removeprefix("sources.").removesuffix(".version"),
                    version=version,
                    found=found,
                )
                suggestion = _(
                    "use the archive of {version}, or {option} {found}",
                    option=option,
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
        if number := number_in(name):
            yield f"{path}.{key}", number


def _versions_by_checksum(catalog: Catalog) -> dict[str, str]:
    """Return the version of each source archive in the catalog by its SHA-256."""
    releases: list[tuple[str, Sequence[Archive]]] = [
        *catalog.ffmpeg.items(),
        *catalog.opencv.items(),
        *((headers.version, headers.archives) for headers in catalog.headers.values()),
        *((release.version, release.tars) for release in catalog.tensorrt.values()),
    ]
    return {
        archive.sha256: version
        for version, archives in releases
        for archive in archives
        if archive.sha256
    }
