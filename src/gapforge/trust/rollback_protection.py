"""Record the newest signed state of each preset, so that an older bundle is refused.

    accepted.json, beside the list of trusted signers or in the user's settings
    {"format": 1, "presets": {NAME: {"made", "bundle", "lock", "superseded"}}}

The name "" stands for gapforge itself in a bundle; its ``lock`` is the SHA-256 of the archive. Only
what a trusted signer signed is recorded. ``superseded`` are the locks accepted before: a lock's
signature holds no time, so this list is how an old lock that was copied back is recognized.

The record is not kept with the artifacts, which are copied, moved and deleted. Versions before 0.2
kept it in ``artifacts/.store``; such a record is still read, and moved with the next change.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gapforge.base import limits
from gapforge.base.errors import Fault, TrustError
from gapforge.base.files import SHA256_HEX, read_regular
from gapforge.base.i18n import _
from gapforge.base.process_locks import exclusive
from gapforge.base.project import Project
from gapforge.base.strict_json import canonical_json, parse_json
from gapforge.base.system_errors import unreadable
from gapforge.base.write_files import remove_file, write_text

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
        """Return the accepted state if it is not older than ``made`` or replaced ``lock``.

        Return None for the same lock.
        """
        known = self.presets.get(preset)
        if known is None or known.lock == lock:
            return None
        return known if lock in known.superseded or known.made >= made else None

    def accept(
        self, preset: str, made: str, bundle: str, lock: str, *, older: bool = False
    ) -> AcceptedStates:
        """Return the states with this one; an older one counts only with ``older``."""
        known = self.presets.get(preset)
        if known is None:
            return AcceptedStates({**self.presets, preset: AcceptedState(made, bundle, lock)})
        back = self.newer_state(preset, made, lock) is not None or known.made > made
        if back and not (older and known.lock != lock):
            return self
        # After going back intentionally, the newer state may be accepted again.
        before = known.superseded if back else (*known.superseded, known.lock)
        superseded = tuple(dict.fromkeys(sha256 for sha256 in before if sha256 != lock))
        state = AcceptedState(made, bundle, lock, superseded[-MAX_SUPERSEDED:])
        return AcceptedStates({**self.presets, preset: state})

    def merge(self, other: AcceptedStates) -> AcceptedStates:
        """Return the newest state of each preset; the other's lock counts as superseded."""
        merged = dict(self.presets)
        for name, state in other.presets.items():
            known = merged.get(name)
            if known is None:
                merged[name] = state
                continue
            newest, older = (state, known) if state.made > known.made else (known, state)
            locks = dict.fromkeys((*older.superseded, older.lock, *newest.superseded))
            superseded = [lock for lock in locks if lock != newest.lock][-MAX_SUPERSEDED:]
            merged[name] = replace(newest, superseded=tuple(superseded))
        return AcceptedStates(merged)


def record_file(trust_list: Path) -> Path:
    """Return where this user records: beside the list, else in the user's settings."""
    own = settings_folder()
    beside = trust_list.parent
    return (beside if beside == own or os.access(beside, os.W_OK) else own) / FILE


def existing_records(project: Project, trust_list: Path) -> list[Path]:
    """Return the records that exist, also those of other users of the list and of versions <0.2."""
    places = (record_file(trust_list), trust_list.parent / FILE, settings_folder() / FILE)
    return [p for p in dict.fromkeys((*places, project.store / FILE)) if os.path.lexists(p)]


def read(project: Project, trust_list: Path, *, skip_damaged: bool = False) -> AcceptedStates:
    """Return the accepted states, none without a record.

    Raises TrustError for a damaged record, unless ``skip_damaged``: damage must not make an old
    bundle look new.
    """
    states = AcceptedStates()
    for file in existing_records(project, trust_list):
        try:
            states = states.merge(_parse(read_regular(file, limits.STATE)))
        except OSError as error:
            problem = unreadable(error)
        except ValueError as error:
            problem = error.args[0]
        else:
            continue
        if not skip_damaged:
            raise _damaged(file, problem)
    return states


def write(project: Project, trust_list: Path, states: AcceptedStates) -> None:
    """Replace the record atomically, and remove the one beside the artifacts."""
    presets = {
        name: {**asdict(state), "superseded": list(state.superseded)}
        for name, state in states.presets.items()
    }
    file = record_file(trust_list)
    write_text(file, canonical_json({"format": FORMAT, "presets": presets}))
    if os.path.lexists(former := project.store / FILE):
        remove_file(former)


@contextmanager
def changing(trust_list: Path) -> Iterator[None]:
    """Allow one change of the record at a time. Raise BusyError during another one."""
    file = record_file(trust_list)
    with exclusive(file.with_name(f".{FILE}.lock"), str(file)):
        yield


def settings_folder() -> Path:
    """Return the folder of the user's settings. Raise TrustError for a user without a home."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    folder = settings if settings.is_absolute() else home_folder() / ".config"
    return folder / "gapforge"


def home_folder() -> Path:
    """Return the user's home. Raise TrustError for a user without one."""
    home = Path(os.environ.get("HOME") or "")
    if home.is_absolute():
        return home
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        raise TrustError(
            _("this user has no home folder, so there is no list of trusted signers"),
            hint="export GAPFORGE_TRUST=/etc/gapforge/allowed_signers",
        ) from None


def _damaged(file: Path, problem: str) -> TrustError:
    return TrustError(
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
