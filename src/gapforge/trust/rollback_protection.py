"""Record the newest signed state of each preset, so that an older bundle is refused.

    artifacts/.store/accepted.json
    {"format": 1, "presets": {NAME: {"made", "bundle", "lock", "superseded"}}}

The name "" stands for gapforge itself in a bundle; its ``lock`` is the SHA-256 of the archive. Only
what a trusted signer signed is recorded. ``superseded`` are the locks accepted before: a lock's
signature holds no time, so this list is how an old lock that was copied back is recognized.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gapforge.base import limits
from gapforge.base.errors import Fault, TrustError
from gapforge.base.files import SHA256_HEX, canonical_json, read_regular, write_text
from gapforge.base.i18n import _
from gapforge.base.json_text import parse_json
from gapforge.base.project import Project
from gapforge.base.system_errors import unreadable

FORMAT = 1
FILE = "accepted.json"
# In UTC. As texts, they sort by time.
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
MAX_SUPERSEDED = 10_000  # for each preset


@dataclass(frozen=True)
class AcceptedState:
    """The newest signed state of a preset: time of signing, bundle, and SHA-256 of the lock."""

    made: str
    bundle: str
    lock: str
    superseded: tuple[str, ...] = ()


@dataclass(frozen=True)
class AcceptedStates:
    """The accepted state of each preset. It is immutable; ``accept`` returns a new one."""

    presets: Mapping[str, AcceptedState] = field(default_factory=dict)

    def newer_state(self, preset: str, made: str, lock: str) -> AcceptedState | None:
        """Return the accepted state if it is newer than ``made`` and of another lock, else None."""
        known = self.presets.get(preset)
        return known if known is not None and known.lock != lock and known.made > made else None

    def accept(
        self, preset: str, made: str, bundle: str, lock: str, *, older: bool = False
    ) -> AcceptedStates:
        """Return the states with this one; an older one counts only with ``older``."""
        known = self.presets.get(preset)
        if known is None:
            state = AcceptedState(made, bundle, lock)
        elif known.made > made and not (older and known.lock != lock):
            return self
        else:
            before = [sha256 for sha256 in (*known.superseded, known.lock) if sha256 != lock]
            superseded = tuple(dict.fromkeys(before))[-MAX_SUPERSEDED:]
            state = AcceptedState(made, bundle, lock, superseded)
        return AcceptedStates({**self.presets, preset: state})

    def write(self, project: Project) -> None:
        """Write the record atomically."""
        presets = {
            name: {**asdict(state), "superseded": list(state.superseded)}
            for name, state in self.presets.items()
        }
        document = {"format": FORMAT, "presets": presets}
        write_text(record_file(project), canonical_json(document))


def record_file(project: Project) -> Path:
    """Return the path of the record, in the store with the objects that it is about."""
    return project.store / FILE


def read(project: Project) -> AcceptedStates:
    """Return the accepted states, none without a record.

    Raises TrustError for a damaged record: damage must not make an old bundle look new.
    """
    file = record_file(project)
    try:
        return _parse(read_regular(file, limits.STATE))
    except FileNotFoundError:
        return AcceptedStates()
    except OSError as error:
        problem = unreadable(error)
    except ValueError as error:
        problem = error.args[0]
    raise TrustError(
        _("the record of accepted bundles cannot be used, so an older bundle would not be noticed"),
        faults=[Fault(str(file), problem)],
        hint=_(
            "compare the bundle's ID and date with the release engineer; then start a new record: "
            "./gapforge unpack DIR --allow-older"
        ),
    )


def _parse(data: bytes) -> AcceptedStates:
    """Return the record in ``data``. Raises ValueError with the problem."""
    try:
        raw = parse_json(data)
        if raw["format"] == FORMAT and set(raw) == {"format", "presets"}:
            states = {str(name): _parse_state(state) for name, state in raw["presets"].items()}
            return AcceptedStates(states)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(_("damaged")) from None
    raise ValueError(_("not in format {format}", format=FORMAT))


def _parse_state(raw: Any) -> AcceptedState:
    """Return one state. Raises ValueError, KeyError or TypeError for anything else."""
    made, bundle, lock, superseded = (raw[key] for key in ("made", "bundle", "lock", "superseded"))
    texts = [made, bundle, lock, *superseded]
    if len(raw) != 4 or not all(type(text) is str for text in texts):
        raise ValueError
    if not TIME.fullmatch(made) or not all(map(SHA256_HEX.fullmatch, (lock, *superseded))):
        raise ValueError
    return AcceptedState(made, bundle, lock, tuple(superseded))
