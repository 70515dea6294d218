"""What is newer upstream than a preset, and which of it still fits together.

A change is tried on the preset's raw document and judged by ``core.compatibility``: a release that brings a
problem which the preset does not have today does not fit. What the catalog does not know does not fit
either: nobody has said that it works.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapforge.base.i18n import N_, _, in_both_languages
from gapforge.compat import rules
from gapforge.compat.catalog import Catalog
from gapforge.compat.versions import key
from gapforge.model.lock import Lock
from gapforge.model.preset import Preset, parse
from gapforge.sync.network import Network
from gapforge.sync.python_packages import Resolver
from gapforge.updates.candidates import Candidate, Component, Raw, components
from gapforge.updates.published_releases import Upstream


@dataclass(frozen=True)
class Outlook:
    """The answer: every component, and the raw preset with the newest releases that fit together."""

    components: tuple[Component, ...]
    together: Mapping[str, str]  # component -> version taken
    raw: Mapping[str, Any]


def look(
    preset: Preset,
    catalog: Catalog,
    upstreams: Mapping[str, Upstream],
    network: Network,
    resolver: Resolver,
    lock: Lock | None = None,
    *,
    same_line: bool = False,
) -> Outlook:
    """Ask every upstream and combine. ``same_line`` takes only releases of the series that the preset has
    (FFmpeg 5.1.x, TensorRT 8.x, torch 2.1.x). Raises FetchError at once when the network is forbidden; an
    upstream that does not answer is said in its component."""
    network.require(_("looking for releases newer than {name}'s", name=preset.name), files=False)
    found = components(preset, catalog, upstreams, network, resolver, lock, same_line)
    return combine(
        preset, found, lambda p: {(q.rule, q.path): q.text for q in rules.check_preset(p, catalog)}
    )


def combine(
    preset: Preset, parts: Sequence[Component], judge: Callable[[Preset], Mapping[Any, str]]
) -> Outlook:
    """Find what fits alone and what fits together. ``judge`` gives a preset's problems by identity."""
    start: Raw = json.loads(json.dumps(preset.raw))
    before = set(judge(preset))

    def why_not(raw: Raw) -> str:
        found = judge(parse(raw, preset.described))
        return next((text for problem, text in found.items() if problem not in before), "")

    for component in parts:
        for index, candidate in enumerate(component.candidates):
            reason = why_not(_changed(start, candidate))
            if not reason:
                component.fits = candidate.version
                break
            if index == 0:
                component.why = reason
        if (
            not component.fits
            and not component.why
            and key(component.newest) > key(component.current)
        ):
            component.why = component.note or _("there is none in the same series")
    raw, together = start, {}
    by_name = {component.name: component for component in parts}
    headers = by_name.get("nv-codec-headers")
    for component in parts:
        if component is headers and "ffmpeg" in by_name:
            continue  # goes with FFmpeg: headers newer than needed only ask for a newer driver
        for candidate in component.candidates:
            changed = _changed(raw, candidate)
            # The oldest newer headers that FFmpeg then takes, if it does not take the present ones.
            partners: list[Candidate | None] = [None]
            if component.name == "ffmpeg" and headers is not None:
                partners += reversed(headers.candidates)
            partner = next(
                (p for p in partners if not why_not(_changed(changed, p) if p else changed)), ...
            )
            if partner is ...:
                continue
            raw, together[component.name] = changed, candidate.version
            if isinstance(partner, Candidate):
                raw, together["nv-codec-headers"] = _changed(raw, partner), partner.version
            break
    return Outlook(tuple(parts), together, raw)


def new_preset(outlook: Outlook, name: str, previous: str) -> Raw:
    """The document of the preset ``name``: the combination, said to come from ``previous``."""
    raw: Raw = copy.deepcopy(dict(outlook.raw))
    raw["name"] = name
    changes = ", ".join(f"{part} {version}" for part, version in sorted(outlook.together.items()))
    raw["summary"] = in_both_languages(
        N_("{previous} with newer releases: {changes}"), previous=previous, changes=changes
    )
    return raw


def _changed(raw: Raw, candidate: Candidate) -> Raw:
    changed = copy.deepcopy(raw)
    candidate.apply(changed)
    return changed
