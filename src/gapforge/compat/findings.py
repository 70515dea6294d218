"""Describe one incompatibility of versions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gapforge.base.i18n import _, rendered_in_both
from gapforge.compat.versions import key


@dataclass(frozen=True)
class Problem:
    """What cannot (error) or may not (warning) work together, in one sentence with what to take instead.

    ``rule`` names the rule for machines; ``path`` is the JSON path in the preset.
    """

    rule: str
    severity: str
    path: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Return all fields, the text as "ko" and "en" whatever the reader's language is."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "path": self.path,
            **rendered_in_both(self.text),
        }


def error(rule: str, path: str, text: str) -> Problem:
    """A combination that cannot work."""
    return Problem(rule, "error", path, text)


def warning(rule: str, path: str, text: str) -> Problem:
    """A combination that is unknown or has a price."""
    return Problem(rule, "warning", path, text)


def unknown(path: str, what: str, known: str, unchecked: str) -> Problem:
    """A version that the catalog does not know; ``unchecked`` says what therefore cannot be checked."""
    near = _("; the nearest it knows is {known}", known=known) if known else ""
    return warning(
        "unknown",
        path,
        _(
            "{what} is not in the catalog, so {unchecked} cannot be checked{near}",
            what=what,
            unchecked=unchecked,
            near=near,
        ),
    )


def nearest_version(version: str, known: Iterable[str]) -> str:
    """The known version next to ``version``: the newest that is not newer, else the oldest; "" for none."""
    ordered = sorted(known, key=key)
    older = [v for v in ordered if key(v) <= key(version)]
    return (older or ordered[:1] or [""])[-1]
