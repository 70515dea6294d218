"""Read APT source lists of both formats (one-line and deb822) and write them as deb822."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gapforge.model import debian_control

# One-line options whose deb822 name differs by more than capital letters.
_OPTION_NAMES = {
    "arch": "Architectures",
    "lang": "Languages",
    "target": "Targets",
    "pdiffs": "PDiffs",
    "by-hash": "By-Hash",
}
# Schemes that the sources of a base image may use. Others would read files of this machine (file:,
# copy:, cdrom:) or start programs on it.
SCHEMES = ("http", "https")


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """One stanza. ``options`` has the other deb822 fields by name, such as "Signed-By"."""

    types: tuple[str, ...]
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> str:
        """Return the stanza as deb822 text, with a newline at the end."""
        lines = [
            f"Types: {' '.join(self.types)}",
            f"URIs: {' '.join(self.uris)}",
            f"Suites: {' '.join(self.suites)}",
        ]
        if self.components:
            lines.append(f"Components: {' '.join(self.components)}")
        lines += [f"{name}: {_folded(value)}" for name, value in sorted(self.options.items())]
        return "\n".join(lines) + "\n"

    def for_type(self, kind: str) -> SourceEntry:
        """Return the same source as "deb" or "deb-src"."""
        return replace(self, types=(kind,))

    def mapped(self, uri: Callable[[str], str]) -> SourceEntry:
        """Return the same source with each address replaced by ``uri(address)``."""
        return replace(self, uris=tuple(uri(u) for u in self.uris))


def _folded(value: str) -> str:
    return "\n".join(
        line if number == 0 else f" {line or '.'}" for number, line in enumerate(value.split("\n"))
    )


def read_one_line(text: str) -> list[SourceEntry]:
    """Return the entries of a ``sources.list``.

    Comments and lines that APT would reject are skipped.
    """
    result: list[SourceEntry] = []
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        match = re.fullmatch(
            r"(deb|deb-src)\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)((?:\s+\S+)*)", line
        )
        if not match:
            continue
        options: dict[str, str] = {}
        for word in _words(match[2] or ""):
            name, _, value = word.partition("=")
            name = name.rstrip("+-").lower()
            options[_OPTION_NAMES.get(name, name.title())] = value.replace(",", " ")
        result.append(
            SourceEntry(
                types=(match[1],),
                uris=(match[3],),
                suites=(match[4],),
                components=tuple(match[5].split()),
                options=options,
            )
        )
    return result


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def read_deb822(text: str) -> list[SourceEntry]:
    """Return the entries of a ``.sources`` file that are enabled and complete."""
    result: list[SourceEntry] = []
    for stanza in debian_control.split_stanzas(text):
        values = debian_control.fields(stanza)
        if values.get("enabled", "yes").strip().lower() in ("no", "false", "0", "off"):
            continue
        types, uris, suites = (
            tuple(values.pop(key, "").split()) for key in ("types", "uris", "suites")
        )
        components = tuple(values.pop("components", "").split())
        options = {
            _title(name): value
            for name, value in values.items()
            if name not in ("enabled", "x-repolib-name")
        }
        if types and uris and suites:
            result.append(
                SourceEntry(
                    types=types, uris=uris, suites=suites, components=components, options=options
                )
            )
    return result


def _title(name: str) -> str:
    return _OPTION_NAMES.get(name, name.title())


def usable(entry: SourceEntry) -> SourceEntry | None:
    """Return ``entry`` as a source of amd64 .debs for an isolated root, None if it is not one."""
    uris = tuple(uri for uri in entry.uris if uri.split(":", 1)[0].lower() in SCHEMES)
    architectures = entry.options.get("Architectures", "amd64").split()
    if "deb" not in entry.types or not uris or "amd64" not in architectures:
        return None
    options = {
        name: value
        for name, value in entry.options.items()
        if name not in ("Architectures", "Languages", "Targets")
    }
    return replace(entry, types=("deb",), uris=uris, options=options)
