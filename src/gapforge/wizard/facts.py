"""Read what the questions are about: presets, what can be built here, catalog and known sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gapforge.base import limits
from gapforge.base.errors import GapforgeError
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.strict_json import read_json
from gapforge.base.units import human_bytes, human_time
from gapforge.doctor.check_result import CheckResult
from gapforge.model import catalog as catalogs
from gapforge.model import preset as presets
from gapforge.model.catalog import Catalog
from gapforge.model.preset import Preset
from gapforge.model.preset_status import (
    BROKEN,
    INCOMPLETE,
    PARTIAL,
    STALE,
    UNSYNCED,
    Readiness,
    readiness_of,
)
from gapforge.store import download_preview, known_sizes
from gapforge.store.known_sizes import KnownSizes
from gapforge.wizard.choices import Choices, find_base
from gapforge.wizard.compose_preset import Composed, compose, template_for

# Measured on two cores, see README: FFmpeg and OpenCV without CUDA, and with CUDA for one GPU.
MEASURED_MINUTES, MEASURED_MINUTES_CUDA = 5, 23


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What this project has. ``broken`` names the presets that cannot be read.

    ``look`` returns the checks of this machine for a preset, as ``doctor`` does.
    """

    project: Project
    catalog: Catalog
    presets: Mapping[str, Preset]
    broken: Sequence[str]
    ready: Mapping[str, Readiness]
    holdings: KnownSizes
    look: Callable[[str], Sequence[CheckResult]]

    def preset(self, name: str) -> Preset:
        """Return a preset. Raise PresetError if it does not exist or cannot be read."""
        return self.presets.get(name) or presets.find(self.project.presets, name)

    def readiness(self, preset: Preset) -> Readiness:
        """Return the readiness of a preset, which may be new and not written yet."""
        return self.ready.get(preset.name) or readiness_of(self.project, preset)

    def composed_of(self, choices: Choices) -> Composed:
        """Return the preset that the choices make.

        Raise CompatibilityError if the choices are not compatible.
        """
        known = self.presets.values()
        if choices.preset is not None:
            template, choices = self.preset(choices.preset), replace(choices, base=None)
            if choices == Choices(preset=template.name, type=choices.type):
                return Composed(template, is_new=False)
        else:
            assert choices.base is not None  # the questions ask for it
            template = template_for(choices.base, known, self.catalog, choices.torch or "")
        return compose(self.project, template, choices, self.catalog, known)

    def in_catalog(self, base: str | None) -> bool:
        """Return whether the catalog knows a base image. Others are images of the site."""
        return base is not None and find_base(base, self.catalog) is not None


def read_facts(project: Project, look: Callable[[str], Sequence[CheckResult]]) -> Facts:
    """Read the project. Raise PresetError if the catalog cannot be read."""
    known, broken = presets.load_all(project.presets)
    return Facts(
        project=project,
        catalog=catalogs.load(project.catalog),
        presets=known,
        broken=tuple(broken),
        ready={name: readiness_of(project, preset) for name, preset in known.items()},
        holdings=known_sizes.read_known_sizes(project),
        look=look,
    )


def download_rows(facts: Facts, preset: Preset) -> list[tuple[str, str]]:
    """Return how much a sync would download, as far as lock, store and catalog tell."""
    preview = download_preview.of_project(facts.project, preset, facts.holdings)
    missing = preview.amount(preview.missing)
    present = human_bytes(preview.total - preview.missing)
    text = _("{missing}; already in the store: {present}", missing=missing, present=present)
    unknown = preview.what_is_unknown
    return [(_("to download"), text), *([(_("of unknown size"), unknown)] if unknown else [])]


def lacking_text(preset: Preset, state: Readiness) -> str:
    """Return in words what a preset that is not ready lacks."""
    if state.state == INCOMPLETE:
        return _(
            "{count} of {total} files are missing or have the wrong size (such as {example})",
            count=len(state.missing),
            total=state.files,
            example=state.missing[0],
        )
    return {
        UNSYNCED: _("its files were not brought to this machine"),
        PARTIAL: _("its lock leaves {count} items open", count=state.unresolved),
        STALE: _(
            "not as it was when it was synced; its state follows from {files}",
            files=", ".join(preset.decided_by),
        ),
        BROKEN: _("its lock cannot be read"),
    }[state.state]


def next_commands(preset: Preset, state: Readiness) -> list[str]:
    """Return what to do until a preset can be built, one sentence with its command each."""
    if state.state == INCOMPLETE:
        return [
            _(
                "copy artifacts/{preset}/ again; list what is wrong: ./gapforge verify {preset!q}",
                preset=preset.name,
            )
        ]
    return [
        _("on a machine with a network: ./deps_sync.sh {preset!q}", preset=preset.name),
        _(
            "then copy artifacts/{preset}/ here, or carry it: ./gapforge pack {preset!q}",
            preset=preset.name,
        ),
    ]


def time_text(facts: Facts, preset: Preset, kind: str) -> str:
    """Return how long a build takes: the last one here, else what was measured elsewhere."""
    file = facts.project.dist / preset.name / kind / "report.json"
    try:
        seconds = sum(map(float, read_json(file, limits.STATE)["seconds"].values()))
    except (OSError, GapforgeError, ValueError, TypeError, KeyError, AttributeError):
        seconds = 0
    if seconds:
        return _("{time} for the last build here", time=human_time(seconds))
    opencv = preset.component("opencv")
    if opencv and opencv.flag("cuda"):
        return _(
            "not built here yet; measured on two cores: {minutes} min to compile FFmpeg and OpenCV "
            "for one GPU generation (this preset: {count}), hours for many",
            minutes=MEASURED_MINUTES_CUDA,
            count=len(opencv.list("architectures")),
        )
    return _(
        "not built here yet; measured on two cores: {minutes} min without CUDA",
        minutes=MEASURED_MINUTES,
    )
