"""Describe one incompatibility of versions: what is wrong and what to use instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gapforge.base.i18n import _, rendered_in_both
from gapforge.model.versions import key


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An incompatibility in a preset: an "error" cannot work, a "warning" may not or is unknown.

    ``rule`` names the rule for programs; ``path`` is the JSON path in the preset. ``reason`` and
    ``suggestion`` are statements for people; the suggestion is "" if there is nothing to suggest.
    """

    rule: str
    severity: str
    path: str
    reason: str
    suggestion: str = ""

    @property
    def text(self) -> str:
        """Return the reason and the suggestion in one line."""
        if not self.suggestion:
            return self.reason
        return _("{reason}; {suggestion}", reason=self.reason, suggestion=self.suggestion)

    def to_json(self) -> dict[str, str]:
        """Return rule, severity and path, and the text as "ko" and "en" in either language."""
        head = {"rule": self.rule, "severity": self.severity, "path": self.path}
        return {**head, **rendered_in_both(self.text)}


def error(rule: str, path: str, reason: str, suggestion: str = "") -> Finding:
    """Return the finding for a combination that cannot work."""
    return Finding(rule=rule, severity="error", path=path, reason=reason, suggestion=suggestion)


def warning(rule: str, path: str, reason: str, suggestion: str = "") -> Finding:
    """Return the finding for a combination that may not work or is unknown."""
    return Finding(rule=rule, severity="warning", path=path, reason=reason, suggestion=suggestion)


def unknown(path: str, name: str, others: str, suggestion: str) -> Finding:
    """Return the finding for an unknown version; ``others`` is what it may be incompatible with."""
    reason = _(
        "{name} is not in the catalog, so its compatibility with {others} is not checked",
        name=name,
        others=others,
    )
    return warning("unknown", path, reason, suggestion)


def use(first: str, second: str = "") -> str:
    """Return the suggestion to use one of two products, "" if both are ""."""
    if first and second:
        return _("use {first} or {second}", first=first, second=second)
    return _("use {name}", name=first or second) if first or second else ""


def use_nearest(name: str) -> str:
    """Return the suggestion for an unknown version: the nearest known ``name``, "" for none."""
    return _("the nearest entry in the catalog is {name}", name=name) if name else ""


def nearest_version(version: str, known: Iterable[str]) -> str:
    """Return the newest known version up to ``version``, else the oldest; "" if none is known."""
    ordered = sorted(known, key=key)
    older = [v for v in ordered if key(v) <= key(version)]
    return (older or ordered[:1] or [""])[-1]
