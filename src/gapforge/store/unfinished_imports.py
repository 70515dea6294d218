"""Bundles that are not here to their end: which objects of theirs the store must keep until the other sticks come.

    artifacts/.store/imports/BUNDLE.json    written before the first object of a bundle, removed with its last preset

What unpack imports is in no lock of a preset until all of it is here, so without this gc would take it for waste.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.errors import Fault
from gapforge.base.files import SHA256_HEX, canonical_json, storage_errors, write_text
from gapforge.base.i18n import _
from gapforge.base.system_errors import unlistable, unreadable

FORMAT = 1
FILE = re.compile(r"([0-9a-f]{24})\.json")


@dataclass(frozen=True)
class Unfinished:
    """A bundle of which something lacks: its presets, and the objects that it names as far as is known."""

    bundle: str
    presets: tuple[str, ...]
    objects: frozenset[str]


def file_of(store: Path, bundle: str) -> Path:
    """Where the record of a bundle is, or would be."""
    return store / "imports" / f"{bundle}.json"


def remember(store: Path, bundle: str, presets: Iterable[str], objects: Iterable[str]) -> None:
    """Keep these objects, and those remembered before, until ``forget``."""
    file = file_of(store, bundle)
    old = _read(file)
    known = Unfinished(bundle, (), frozenset()) if isinstance(old, str) else old
    new = Unfinished(
        bundle, tuple(sorted({*known.presets, *presets})), known.objects | frozenset(objects)
    )
    if new != old:
        write_text(
            file,
            canonical_json(
                {
                    "format": FORMAT,
                    "bundle": bundle,
                    "presets": list(new.presets),
                    "objects": sorted(new.objects),
                }
            ),
        )


def forget(store: Path, bundle: str) -> None:
    """The bundle is here, or nobody wants it any more."""
    file = file_of(store, bundle)
    with storage_errors(file):
        for path in (
            file,
            *file.parent.glob(f".{file.name}.*.tmp"),
        ):  # what a killed run was writing
            path.unlink(missing_ok=True)
        try:
            file.parent.rmdir()
        except OSError:
            pass  # another bundle is on its way, or there never was one


def bundles(store: Path) -> list[str]:
    """The bundles of which there is a record, whether or not it can be read."""
    try:
        return sorted(
            match[1] for match in map(FILE.fullmatch, os.listdir(store / "imports")) if match
        )
    except OSError:
        return []


def unfinished(store: Path) -> tuple[list[Unfinished], list[Fault]]:
    """All records, and those that cannot be read: what they keep is not known."""
    found: list[Unfinished] = []
    faults: list[Fault] = []
    folder = store / "imports"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return found, [
            Fault(str(folder), _("is no folder"), _("the records of unfinished imports"))
        ]
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return found, faults
    except OSError as error:
        return found, [Fault(str(folder), unlistable(error))]
    for name in filter(FILE.fullmatch, names):
        record = _read(folder / name)
        if isinstance(record, str):
            expected = _("the record of an unfinished import")
            faults.append(Fault(str(folder / name), record, expected))
        else:
            found.append(record)
    return found, faults


def _read(file: Path) -> Unfinished | str:
    """The record, or why there is none."""
    try:
        if file.is_symlink() or not file.is_file():
            return _("is no regular file")
        raw = json.loads(file.read_text(encoding="utf-8"))
        presets, objects = tuple(raw["presets"]), frozenset(raw["objects"])
        good = raw["format"] == FORMAT and f"{raw['bundle']}.json" == file.name
        if (
            good
            and all(isinstance(p, str) for p in presets)
            and all(SHA256_HEX.fullmatch(o) for o in objects)
        ):
            return Unfinished(raw["bundle"], presets, objects)
    except OSError as error:
        return unreadable(error)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return _("is damaged")
