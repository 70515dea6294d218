"""What a site accepted last: for each preset the newest signed index, so that an older one is noticed.

    artifacts/.store/accepted.json      {"format": 1, "presets": {NAME: {"made", "bundle", "lock", "superseded"}}}

The name "" stands for gapforge itself, where bundles carry it, and its ``lock`` is the archive's hash.

Only what a trusted signer signed is remembered. ``superseded`` are the locks that were accepted before: a signature of
a lock holds no moment, so this is how an old one is known again that somebody copied back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, TrustError
from gapforge.base.files import SHA256_HEX, canonical_json, read_regular, write_text
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.system_errors import unreadable

FORMAT = 1
FILE = "accepted.json"
MOMENT = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII
)  # UTC; as texts they sort as the moments do
MOST_BYTES = 64 << 20
MOST_SUPERSEDED = 10_000  # for each preset


@dataclass(frozen=True)
class Accepted:
    """The newest signed state of one preset: when it was signed, in which bundle, and which lock that is."""

    made: str
    bundle: str
    lock: str
    superseded: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "made": self.made,
            "bundle": self.bundle,
            "lock": self.lock,
            "superseded": list(self.superseded),
        }


@dataclass(frozen=True)
class Record:
    """All that was accepted here, by preset. It does not change; see ``accept``."""

    presets: Mapping[str, Accepted] = field(default_factory=dict)

    def newer_than(self, preset: str, made: str, lock: str) -> Accepted | None:
        """What was accepted already, when this is older and another lock; None when nothing stands against it."""
        known = self.presets.get(preset)
        return known if known is not None and known.lock != lock and known.made > made else None

    def accept(
        self, preset: str, made: str, bundle: str, lock: str, *, older: bool = False
    ) -> Record:
        """The record with this as the newest state of the preset, unless it knows a newer one and not ``older``."""
        known = self.presets.get(preset)
        if known is None:
            state = Accepted(made, bundle, lock)
        elif known.made > made and not (older and known.lock != lock):
            return self
        else:
            before = [one for one in (*known.superseded, known.lock) if one != lock]
            state = Accepted(made, bundle, lock, tuple(dict.fromkeys(before))[-MOST_SUPERSEDED:])
        return Record({**self.presets, preset: state})

    def write(self, project: Project) -> None:
        """Keep it, whole or not at all."""
        document = {
            "format": FORMAT,
            "presets": {name: one.to_json() for name, one in self.presets.items()},
        }
        write_text(file_of(project), canonical_json(document))


def file_of(project: Project) -> Path:
    """Where the record is: beside the objects, since it is about them."""
    return project.store / FILE


def read(project: Project) -> Record:
    """What was accepted here; nothing where there is no record. Raises TrustError for a damaged one: what an attacker
    or a bad disk did to it must not make an old bundle look new."""
    file = file_of(project)
    try:
        return _record(read_regular(file, MOST_BYTES))
    except FileNotFoundError:
        return Record()
    except OSError as error:
        problem = unreadable(error)
    except ValueError as error:
        problem = str(error)
    raise TrustError(
        _("what this site accepted last is not known, so an older bundle would not be noticed"),
        faults=[Fault(str(file), problem)],
        hint=_(
            "compare the bundle's number and day with the sender; then: ./gapforge "
            "unpack DIR --allow-older, which begins a new record"
        ),
    )


def _record(data: bytes) -> Record:
    """Raises ValueError saying what is wrong with the record."""
    try:
        raw = json.loads(data.decode("utf-8"))
        known = raw["format"] == FORMAT and set(raw) == {"format", "presets"}
        if known:
            return Record({str(name): _accepted(one) for name, one in raw["presets"].items()})
    except RecursionError:
        raise ValueError(_("is nested too deeply")) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(_("is damaged")) from None
    raise ValueError(_("is not in format {format}", format=FORMAT))


def _accepted(raw: Any) -> Accepted:
    texts = [raw["made"], raw["bundle"], raw["lock"], *raw["superseded"]]
    if set(raw) != {"made", "bundle", "lock", "superseded"} or not all(
        type(text) is str for text in texts
    ):
        raise ValueError
    if not MOMENT.fullmatch(texts[0]) or not all(SHA256_HEX.fullmatch(text) for text in texts[2:]):
        raise ValueError
    return Accepted(texts[0], texts[1], texts[2], tuple(texts[3:]))
