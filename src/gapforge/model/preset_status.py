"""Readiness of a preset on this machine: not synced, partial lock, incomplete, stale, or ready.

It compares names and sizes only. The build itself verifies every byte first.
"""

from __future__ import annotations

from dataclasses import dataclass

from gapforge.base.errors import LockError
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.model import lock as locks
from gapforge.model.preset import Preset

READY = "ready"
UNSYNCED = "not-synced"
INCOMPLETE = "incomplete"
STALE = "stale"
BROKEN = "broken-lock"
PARTIAL = "partially-locked"


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """The readiness of a preset. ``state`` is one of the constants above.

    ``size`` is the sum of the lock's sizes in bytes, ``files`` its number of entries, ``missing``
    the paths of artifacts that are missing or have another size. ``locked``: a complete lock
    exists, so that ``size`` is all that a sync downloads. ``unresolved`` counts unresolved items.
    """

    state: str
    size: int = 0
    files: int = 0
    missing: tuple[str, ...] = ()
    locked: bool = False
    unresolved: int = 0

    @property
    def ready(self) -> bool:
        """Return whether a build may start: all files exist and have their sizes."""
        return self.state == READY

    @property
    def label(self) -> str:
        """Return the state in one or two words, in the reader's language."""
        return {
            READY: _("ready"),
            UNSYNCED: _("not synced"),
            INCOMPLETE: _("incomplete"),
            STALE: _("sync again"),
            BROKEN: _("lock unreadable"),
            PARTIAL: _("partially locked ({unresolved} unresolved)", unresolved=self.unresolved),
        }[self.state]


def readiness_of(project: Project, preset: Preset) -> Readiness:
    """Return a preset's readiness from its lock and the sizes of its artifacts."""
    folder = project.artifacts_of(preset.name)
    own = folder / locks.LOCK_FILE
    committed = project.lock_file(preset.name)
    file = own if own.is_file() else committed
    if not file.is_file():
        return Readiness(state=UNSYNCED)
    try:
        lock = locks.load(file)
    except LockError:
        return Readiness(state=BROKEN, locked=True)
    total = lock.size
    if lock.preset_sha256 != preset.sha256:
        return Readiness(state=STALE, size=total, files=len(lock.entries), locked=True)
    if lock.unresolved:
        return Readiness(
            state=PARTIAL, size=total, files=len(lock.entries), unresolved=len(lock.unresolved)
        )
    if file is committed:  # the artifacts are on the online machine or in a bundle
        return Readiness(state=UNSYNCED, size=total, files=len(lock.entries), locked=True)
    missing = []
    for entry in lock.entries:
        try:
            if (folder / entry.path).stat().st_size != entry.size:
                missing.append(entry.path)
        except OSError:
            missing.append(entry.path)
    state = INCOMPLETE if missing else READY
    return Readiness(
        state=state, size=total, files=len(lock.entries), missing=tuple(missing), locked=True
    )
