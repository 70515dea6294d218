"""Find which newer releases are compatible with a preset, each alone and all together.

A change is tried on the preset's raw document and judged by ``compat.rules``: a release that causes
a finding which the preset does not have today does not fit. A release that the catalog does not
know does not fit either, because nothing confirms that it works.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapforge.base.i18n import N_, _, in_both_languages
from gapforge.compat import rules
from gapforge.model.preset import Preset, parse
from gapforge.model.versions import key
from gapforge.updates.candidates import Candidate, ItemUpdates, Raw, Search, find_items

HEADERS = "nv-codec-headers"


@dataclass(frozen=True)
class CompatibleUpdates:
    """Every item of a preset with its newer releases, and the newest releases that fit together.

    ``together`` maps an item to its new version; ``raw`` is the raw preset with all of them.
    """

    items: tuple[ItemUpdates, ...]
    together: Mapping[str, str]
    raw: Mapping[str, Any]


def find_updates(search: Search) -> CompatibleUpdates:
    """Query every upstream and combine what is newer.

    Raise FetchError if the network is forbidden. An upstream that does not answer is reported in
    its item.
    """
    what = _("looking for releases newer than {name}'s", name=search.preset.name)
    search.network.require(what, files=False)

    def findings(preset: Preset) -> dict[tuple[str, str], str]:
        return {(f.rule, f.path): f.text for f in rules.check_preset(preset, search.catalog)}

    return combine(search.preset, find_items(search), findings)


def combine(
    preset: Preset, items: Sequence[ItemUpdates], findings: Callable[[Preset], Mapping[Any, str]]
) -> CompatibleUpdates:
    """Set what fits in each item, and find what fits together.

    ``findings`` returns the texts of a preset's findings, each by something that identifies it.
    """
    start: Raw = copy.deepcopy(dict(preset.raw))
    before = set(findings(preset))

    def new_finding(raw: Raw) -> str:
        after = findings(parse(raw, preset.described))
        return next((text for which, text in after.items() if which not in before), "")

    for item in items:
        _set_fitting(item, start, new_finding)
    raw = start
    together: dict[str, str] = {}
    by_name = {item.name: item for item in items}
    headers = by_name.get(HEADERS)
    for item in items:
        if item is headers and "ffmpeg" in by_name:
            continue  # updated with FFmpeg: headers newer than needed only require a newer driver
        # The oldest newer headers that FFmpeg accepts, if it does not accept the present ones.
        others = headers.candidates[::-1] if item.name == "ffmpeg" and headers else ()
        groups = (
            (candidate, *more)
            for candidate in item.candidates
            for more in [(), *((other,) for other in others)]
        )
        fitting = next((group for group in groups if not new_finding(_changed(raw, *group))), ())
        raw = _changed(raw, *fitting)
        together.update(zip((item.name, HEADERS), (c.version for c in fitting), strict=False))
    return CompatibleUpdates(tuple(items), together, raw)


def new_preset(updates: CompatibleUpdates, name: str, previous: str) -> Raw:
    """Return the raw preset ``name`` with the newer releases; its summary names ``previous``."""
    changes = ", ".join(f"{item} {version}" for item, version in sorted(updates.together.items()))
    summary = in_both_languages(
        N_("{previous} with newer releases: {changes}"), previous=previous, changes=changes
    )
    return {**copy.deepcopy(dict(updates.raw)), "name": name, "summary": summary}


def _set_fitting(item: ItemUpdates, raw: Raw, new_finding: Callable[[Raw], str]) -> None:
    """Set the newest candidate that fits alone, or why the newest does not."""
    for candidate in item.candidates:
        reason = new_finding(_changed(raw, candidate))
        if not reason:
            item.fits = candidate.version
            return
        item.why = item.why or reason
    if not item.why and key(item.newest) > key(item.current):
        item.why = item.note or _("no newer release in the same series")


def _changed(raw: Raw, *candidates: Candidate) -> Raw:
    changed = copy.deepcopy(raw)
    for candidate in candidates:
        candidate.apply(changed)
    return changed
