"""How far a preset has come on this machine: never synced, partly locked, incomplete, outdated, or ready to build.

A cheap look (names and sizes). Verification of every byte is the build's own first step.
"""

from __future__ import annotations

from dataclasses import dataclass

from gapforge.base.errors import LockError
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.model import lock as locks
from gapforge.model.preset import Preset

READY, UNSYNCED, INCOMPLETE, STALE, BROKEN = (
    "ready",
    "not-synced",
    "incomplete",
    "stale",
    "broken-lock",
)
PARTIAL = "partially-locked"


@dataclass(frozen=True)
class Readiness:
    """``state`` is one of the constants above. ``size`` in bytes is what the lock lists; ``locked`` tells
    whether the project has a whole lock, so that the whole size of a sync is known; ``unresolved`` counts what a
    partial lock leaves open."""

    state: str
    size: int = 0
    files: int = 0
    missing: tuple[str, ...] = ()
    locked: bool = False
    unresolved: int = 0

    @property
    def ready(self) -> bool:
        """Whether a build may start: all files are there in their sizes."""
        return self.state == READY

    @property
    def label(self) -> str:
        """One or two words in the reader's language."""
        return {
            READY: _("ready"),
            UNSYNCED: _("not synced"),
            INCOMPLETE: _("incomplete"),
            STALE: _("sync again"),
            BROKEN: _("lock unreadable"),
            PARTIAL: _("partially locked ({unresolved} unresolved)", unresolved=self.unresolved),
        }[self.state]


def look(project: Project, preset: Preset) -> Readiness:
    """The preset's readiness from lock and file sizes; reads no artifact, raises nothing for what it finds."""
    own = project.artifacts_of(preset.name) / "lock.json"
    committed = project.lock_file(preset.name)
    file = own if own.is_file() else committed
    if not file.is_file():
        return Readiness(UNSYNCED)
    try:
        lock = locks.load(file)
    except LockError:
        return Readiness(BROKEN, locked=True)
    total = sum(entry.size for entry in lock.entries)
    if lock.preset_sha256 != preset.sha256:
        return Readiness(STALE, total, len(lock.entries), locked=True)
    if lock.unresolved:
        return Readiness(PARTIAL, total, len(lock.entries), unresolved=len(lock.unresolved))
    if file is committed:  # the bytes are somewhere else: at the online machine, or in a bundle
        return Readiness(UNSYNCED, total, len(lock.entries), locked=True)
    folder = project.artifacts_of(preset.name)
    missing = []
    for entry in lock.entries:
        try:
            if (folder / entry.path).stat().st_size != entry.size:
                missing.append(entry.path)
        except OSError:
            missing.append(entry.path)
    return Readiness(
        INCOMPLETE if missing else READY, total, len(lock.entries), tuple(missing), True
    )
