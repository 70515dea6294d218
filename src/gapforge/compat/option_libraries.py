"""Check options that need an external library: is there a package, and do other options allow it.

The facts are in the descriptions of components (``gapforge.model.build_packages``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gapforge.base.i18n import _
from gapforge.compat.findings import Finding, error, use, warning
from gapforge.model.build_packages import (
    Asked,
    Library,
    asked_libraries,
    bare_name,
    brought_files,
    value_for,
)
from gapforge.model.catalog import Catalog
from gapforge.model.preset import Preset
from gapforge.model.schema import nearest
from gapforge.model.versions import key

# Images that contain an operating system, or CUDA on one, and no further libraries.
_PLAIN_IMAGE = re.compile(r"(?:^|/)(?:ubuntu|debian|nvidia/cuda):")


def check(preset: Preset, _catalog: Catalog) -> Iterator[Finding]:
    """Yield each option whose library the OS does not carry, or which others exclude."""
    for asked in asked_libraries(preset):
        if asked.library is None:
            yield _unlisted(asked)
            continue
        yield from _check_needs(asked, asked.library)
        yield from _check_version(preset, asked, asked.library)
        if asked.packages(preset) is None and not _brought(preset, asked.library):
            yield _absent(preset, asked, asked.library)


def _check_needs(asked: Asked, library: Library) -> Iterator[Finding]:
    needed = list(library.needs)
    for other, words in library.needs_with.items():
        needed += words if other in asked.others else ()
    for word in dict.fromkeys(needed):
        if word not in asked.others:
            reason = _("{option} needs {other}", option=asked.word, other=word)
            yield error("option-needs", asked.path, reason, _("add {name}", name=word))


def _check_version(preset: Preset, asked: Asked, library: Library) -> Iterator[Finding]:
    """Yield a finding for a version of the component that does not fit the option or package."""
    options = preset.component(asked.component.asked_by)
    version = options.text("version") if options else ""
    if not version:
        return
    product = asked.component.title
    names = {"product": product, "version": version, "option": asked.word}
    for wrong, limit in (
        (library.since and key(version) < key(library.since), f">= {library.since}"),
        (library.before and key(version) >= key(library.before), f"< {library.before}"),
    ):
        if wrong:
            reason = _("{product} {version} has no {option}", **names)
            yield error("option-version", asked.path, reason, use(f"{product} {limit}"))
    too_old = value_for(library.too_old, preset, "")
    if too_old and key(version) >= key(too_old):
        reason = _(
            "the library of {option} in {os} is too old for {product} {version}",
            os=preset.os,
            **names,
        )
        suggestion = _(
            "use {product} < {version}, or a newer package from a source in apt.sources",
            product=product,
            version=too_old,
        )
        yield warning("option-library-old", asked.path, reason, suggestion)


def _absent(preset: Preset, asked: Asked, library: Library) -> Finding:
    """Return the finding for a library that the OS does not carry.

    It is an error only if the base image cannot contain the library either.
    """
    reason = _("{option} needs a library that {os} does not carry", option=asked.word, os=preset.os)
    base = preset.builder
    plain = base.suite or _PLAIN_IMAGE.search(base.image)
    severe = error if plain else warning
    return severe("option-library", asked.path, reason, _(library.instead))


def _brought(preset: Preset, library: Library) -> bool:
    """Return whether a component installs it, or apt.builder names a package of another source."""
    if not set(library.files).isdisjoint(brought_files(preset)):
        return True
    return any(bare_name(name) in library.elsewhere for name in preset.apt_builder)


def _unlisted(asked: Asked) -> Finding:
    """Return the finding for an option that the component's description does not list."""
    listed = asked.component.packages.options.get(asked.option, {})
    reason = _(
        "gapforge does not know which packages {option} needs{close}",
        option=asked.word,
        close=nearest(asked.word, list(listed)),
    )
    suggestion = _("add them to apt.builder; sync looks for its files")
    return warning("option-unlisted", asked.path, reason, suggestion)
