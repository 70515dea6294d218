"""Make lock entries of base images, .debs, wheels and sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gapforge.base.errors import ResolveError
from gapforge.base.files import sha256_bytes
from gapforge.base.i18n import _
from gapforge.model.lock import Entry, Lock, LockedImage
from gapforge.model.names import ROLES
from gapforge.model.preset import SourceArchive
from gapforge.sync.apt_resolver import DebFile, SourceFile
from gapforge.sync.oci_layout import Files
from gapforge.sync.python_packages import Sdist, Wheel, requirements_text
from gapforge.sync.source_archives import entry_of

REQUIREMENTS = "requirements.txt"
# The roles of the wheel that installs the others; with "runtime" it is a package of the image as
# well.
TOOL_ONLY = ("install-tool",)


@dataclass(frozen=True)
class LockedBase:
    """A base image as a lock has it: what it is, and the entries of its OCI layout."""

    image: LockedImage
    entries: Sequence[Entry]


def base_of(lock: Lock, role: str) -> LockedBase:
    """Return the base image of ``role`` that the lock pins."""
    return LockedBase(lock.images[role], [e for e in lock.of("image") if role in e.roles])


def bases_of(lock: Lock) -> dict[str, LockedBase]:
    """Return the base images of all roles that a complete lock pins."""
    return {role: base_of(lock, role) for role in ROLES}


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


def wheel_entry(wheel: Wheel, *, sha256: str, size: int, licence: str) -> Entry:
    """Return the entry of a wheel whose bytes have this SHA-256, which the index may not state."""
    return Entry(
        kind="wheel",
        path=f"wheels/{wheel.file}",
        sha256=sha256,
        size=size,
        origin=f"index:{wheel.index}",
        name=wheel.name,
        version=wheel.version,
        trust="" if wheel.sha256 else "first-use",
        licence=licence,
    )


def sdist_entry(source: SourceArchive, sdist: Sdist, size: int) -> Entry:
    """Return the entry of a source that is a source distribution of ``size`` bytes."""
    file = source.file or sdist.file
    return entry_of(source, file, source.sha256, size, "index:default", sdist.version)


def tarball_entry(source: SourceArchive, found: SourceFile) -> Entry:
    """Return the entry of a source that is an upstream tarball of the APT sources."""
    file = source.file or found.file
    return entry_of(source, file, found.sha256, found.size, found.origin, found.version)


def with_install_tool(wheels: Iterable[Entry], tool: Entry) -> list[Entry]:
    """Return the wheels of the image, and ``tool``, which installs them and may be one of them."""
    entries = {entry.path: entry for entry in wheels}
    roles = (*TOOL_ONLY, "runtime") if tool.path in entries else TOOL_ONLY
    entries[tool.path] = replace(tool, roles=roles)
    return list(entries.values())


def requirements_of(wheels: Iterable[Entry]) -> tuple[Entry, bytes]:
    """Return the entry of requirements.txt and its bytes: the ``wheels`` that the image gets."""
    data = requirements_text(
        (e.name, e.version, e.sha256) for e in wheels if not e.only_installs
    ).encode()
    entry = Entry(
        kind="index",
        path=REQUIREMENTS,
        sha256=sha256_bytes(data),
        size=len(data),
        origin="generated",
        name="requirements",
    )
    return entry, data
