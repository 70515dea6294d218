"""Judge for each part of an image whether its licence allows passing the image on.

This reads licences that presets and locks state. It is not legal advice: what is not known to be
allowed is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gapforge.base.i18n import _, rendered_in_both
from gapforge.compat.ffmpeg import nonfree_options
from gapforge.model.catalog import Catalog
from gapforge.model.lock import Entry, Lock
from gapforge.model.preset import Preset

ALLOWED, CONDITIONS, UNKNOWN, FORBIDDEN = "allowed", "conditions", "unknown", "forbidden"
# Names of licences as SPDX and the metadata of wheels write them.
_PERMISSIVE = re.compile(
    r"(apache|bsd|0bsd|mit|isc|zlib|libpng|psf|python software foundation|hpnd|cc0|unlicense|"
    r"boost|bsl-1|unicode|blueoak|ncsa)\b.*"
)
_COPYLEFT = re.compile(
    r"(gnu )?(a|l)?gpl.*|(gnu )?(lesser|library|general) .*|mpl.*|mozilla.*|epl.*"
)
_SEPARATOR = re.compile(r"\s+(?:and|or|with)\s+|[,;()/]+")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on one part, or on several with the same licence. ``licence`` may be ""."""

    part: str
    licence: str
    verdict: str
    reason: str

    def to_json(self) -> dict[str, object]:
        """Return the judgement in JSON types, with the reason in both languages."""
        values = {"part": self.part, "licence": self.licence, "verdict": self.verdict}
        return {**values, "reason": rendered_in_both(self.reason)}


def judge(preset: Preset, lock: Lock | None, catalog: Catalog) -> list[Judgement]:
    """Return the judgements of all parts that the preset names and the lock holds."""
    return [
        *_ffmpeg(preset, catalog),
        *_sources(preset),
        *_nvidia(preset),
        *_wheels(lock),
        *_os(preset),
    ]


def redistributable(judgements: Sequence[Judgement]) -> bool | None:
    """Return False if a licence forbids it, None if one is unknown, else True."""
    verdicts = {judgement.verdict for judgement in judgements}
    if FORBIDDEN in verdicts:
        return False
    return None if UNKNOWN in verdicts else True


def verdict_of(licence: str) -> str:
    """Return the verdict on an SPDX expression or a licence's name."""
    terms = [term.strip() for term in _SEPARATOR.split(licence.casefold()) if term.strip()]
    if terms and all(_PERMISSIVE.fullmatch(term) for term in terms):
        return ALLOWED
    if terms and all(_PERMISSIVE.fullmatch(t) or _COPYLEFT.fullmatch(t) for t in terms):
        return CONDITIONS
    return UNKNOWN


def _by_licence(part: str, licence: str) -> Judgement:
    verdict = verdict_of(licence)
    if verdict == ALLOWED:
        reason = _("the licence allows it; keep its text with the image")
    elif verdict == CONDITIONS:
        reason = _("the licence requires that you offer the source code")
    elif licence:
        reason = _("the terms of this licence are not known to gapforge")
    else:
        reason = _("no licence is stated")
    return Judgement(part=part, licence=licence, verdict=verdict, reason=reason)


def _ffmpeg(preset: Preset, catalog: Catalog) -> Iterator[Judgement]:
    ffmpeg = preset.component("ffmpeg")
    if ffmpeg is None:
        return
    if nonfree := nonfree_options(ffmpeg, catalog):
        reason = _("{option} makes the binary nonfree", option=nonfree[0].partition("=")[0])
        yield Judgement(part="FFmpeg", licence="nonfree", verdict=FORBIDDEN, reason=reason)
        return
    options = [option.partition("=")[0] for option in ffmpeg.list("configure")]
    # What configure prints as "License", FFmpeg's LICENSE.md.
    licence = "GPL-2.0-or-later" if "--enable-gpl" in options else "LGPL-2.1-or-later"
    yield _by_licence("FFmpeg", licence)


def _sources(preset: Preset) -> Iterator[Judgement]:
    for name, source in preset.sources.items():
        if name not in ("ffmpeg", "tensorrt"):
            yield _by_licence(name, source.licence)


def _nvidia(preset: Preset) -> Iterator[Judgement]:
    if preset.cuda:
        yield Judgement(
            part=f"CUDA {preset.cuda}",
            licence="LicenseRef-NVIDIA-CUDA-EULA",
            verdict=UNKNOWN,
            reason=_(
                "NVIDIA allows only the files of its EULA's Attachment A, as a part of an "
                "application; the base image has others"
            ),
        )
    if preset.tensorrt:
        yield Judgement(
            part=f"TensorRT {preset.tensorrt.version}",
            licence="LicenseRef-NVIDIA-TensorRT-SLA",
            verdict=UNKNOWN,
            reason=_("compare the files with those that NVIDIA's licence agreement allows"),
        )


def _wheels(lock: Lock | None) -> Iterator[Judgement]:
    groups: dict[str, list[Entry]] = {}
    for entry in lock.of("wheel") if lock else ():
        if "install-tool" not in entry.roles:
            groups.setdefault(entry.licence, []).append(entry)
    if not groups:
        reason = _("no lock states their licences yet")
        yield Judgement(part=_("Python packages"), licence="", verdict=UNKNOWN, reason=reason)
    for licence, entries in sorted(groups.items()):
        yield _by_licence(", ".join(sorted(entry.name for entry in entries)), licence)


def _os(preset: Preset) -> Iterator[Judgement]:
    part = _("{os} base images and packages", os=preset.os)
    reason = _("their licences are in /usr/share/doc/*/copyright in the image")
    yield Judgement(part=part, licence="", verdict=UNKNOWN, reason=reason)
