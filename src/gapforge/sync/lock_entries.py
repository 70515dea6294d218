"""Make lock entries of base images and .debs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gapforge.base.errors import ResolveError
from gapforge.base.i18n import _
from gapforge.model.lock import Entry
from gapforge.model.names import ROLES
from gapforge.sync.apt_resolver import DebFile
from gapforge.sync.oci_layout import Files


def image_entries(role: str, files: Files) -> list[Entry]:
    """Return the entries of a base image's layout."""
    return [
        Entry(
            kind="image",
            path=f"images/{role}/{path}",
            sha256=sha256,
            size=size,
            origin="image",
            name=role,
            roles=(role,),
        )
        for path, (sha256, size) in sorted(files.items())
    ]


def deb_entries(debs_by_role: Mapping[str, Sequence[DebFile]]) -> list[Entry]:
    """Return the entries of the .debs of all roles. A .deb that both roles need is one entry.

    Raise ResolveError if two different .debs have the same file name.
    """
    entries: dict[str, Entry] = {}
    for role in ROLES:
        for deb in debs_by_role[role]:
            path = f"debs/{deb.file}"
            if path in entries and entries[path].sha256 != deb.sha256:
                raise ResolveError(
                    _("builder and runtime need different files named {file}", file=deb.file),
                    hint=_("use base images with the same APT sources for both roles"),
                )
            roles = (*entries[path].roles, role) if path in entries else (role,)
            entries[path] = Entry(
                kind="deb",
                path=path,
                sha256=deb.sha256,
                size=deb.size,
                origin=deb.origin,
                name=deb.package,
                version=deb.version,
                architecture=deb.architecture,
                roles=roles,
            )
    return list(entries.values())
