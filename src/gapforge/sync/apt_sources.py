"""APT source lists, one-line and deb822, read into one form and written as deb822."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gapforge.model import debian_control

# One-line options and their deb822 names, where capitals alone do not do.
_OPTION_NAMES = {
    "arch": "Architectures",
    "lang": "Languages",
    "target": "Targets",
    "pdiffs": "PDiffs",
    "by-hash": "By-Hash",
}
# Schemes that a base image's own sources may use. Others would read this machine's files (file:, copy:,
# cdrom:) or start programs on it.
SCHEMES = ("http", "https")


@dataclass(frozen=True)
class SourceEntry:
    """One stanza. ``options`` are the other deb822 fields by name, such as "Signed-By"."""

    types: tuple[str, ...]
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> str:
        """The stanza as deb822 text, with a newline at the end."""
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
        """The same source as "deb" or "deb-src"."""
        return replace(self, types=(kind,))

    def mapped(self, uri: Callable[[str], str]) -> SourceEntry:
        """The same source with each address replaced by ``uri(address)``."""
        return replace(self, uris=tuple(uri(u) for u in self.uris))


def _folded(value: str) -> str:
    return "\n".join(
        line if number == 0 else f" {line or '.'}" for number, line in enumerate(value.split("\n"))
    )


def read_one_line(text: str) -> list[SourceEntry]:
    """The entries of a ``sources.list``; comments and lines that APT would not take are passed over."""
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
            SourceEntry((match[1],), (match[3],), (match[4],), tuple(match[5].split()), options)
        )
    return result


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def read_deb822(text: str) -> list[SourceEntry]:
    """The entries of a ``.sources`` file that are switched on and complete."""
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
            result.append(SourceEntry(types, uris, suites, components, options))
    return result


def _title(name: str) -> str:
    return _OPTION_NAMES.get(name, name.title())


def usable(entry: SourceEntry) -> SourceEntry | None:
    """``entry`` as a source of amd64 .debs that an isolated root may use, or None when it is none."""
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
