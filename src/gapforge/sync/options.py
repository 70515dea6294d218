"""What a user asks of a sync, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gapforge.model.lock import Lock
from gapforge.sync.lock_diff import Changes


@dataclass(frozen=True)
class Options:
    """What the user asked for: ``update`` resolves anew, ``provided`` is the folder of ``--from``."""

    update: bool = False
    provided: Path | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Outcome:
    """What sync did. ``fetched`` counts bytes that came from elsewhere; ``strangers`` are files in
    artifacts/NAME that gapforge never put there (verify refuses them); ``copies`` of its files, ``copied`` bytes,
    are no hard links."""

    lock: Lock
    artifacts: Path
    changes: Changes
    resolved: bool
    fetched: int
    strangers: tuple[str, ...] = ()
    copies: int = 0
    copied: int = 0

    def to_json(self) -> dict[str, object]:
        """The outcome in JSON types; sizes in bytes."""
        return {
            "preset": self.lock.preset,
            "artifacts": str(self.artifacts),
            "resolved": self.resolved,
            "files": len(self.lock.entries),
            "bytes": sum(e.size for e in self.lock.entries),
            "fetched_bytes": self.fetched,
            "changes": self.changes.to_json(),
            "strangers": list(self.strangers),
            "unresolved": [gap.to_json() for gap in self.lock.unresolved],
            "copies": {"files": self.copies, "bytes": self.copied},
        }
