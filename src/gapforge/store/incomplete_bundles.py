"""Record which objects the store must keep for bundles whose other volumes are still to come.

    artifacts/.store/imports/BUNDLE.json    written before the first object of a bundle is imported,
                                            removed after its last preset is complete

No lock names the objects of an incomplete bundle, so without this record gc would remove them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.errors import Fault
from gapforge.base.files import SHA256_HEX
from gapforge.base.i18n import _
from gapforge.base.storage_errors import storage_errors
from gapforge.base.strict_json import canonical_json, read_json
from gapforge.base.system_errors import unlistable, unreadable
from gapforge.base.write_files import remove_file, write_text

FORMAT = 1
FILE = re.compile(r"([0-9a-f]{24})\.json")
# In the folder ``partial`` of the store: of an object in volumes, which group 1 names.
BUNDLE_PART = re.compile(r"\.?bundle-([0-9a-f]{64})\.[a-z0-9_.]+")


@dataclass(frozen=True)
class UnfinishedImport:
    """An incomplete bundle: its presets, and the SHA-256 of every object known to belong to it."""

    bundle: str
    presets: tuple[str, ...]
    objects: frozenset[str]


def record_file(store: Path, bundle: str) -> Path:
    """Return the path of a bundle's record; it need not exist."""
    return store / "imports" / f"{bundle}.json"


def remember(store: Path, bundle: str, presets: Iterable[str], objects: Iterable[str]) -> None:
    """Keep these objects, and those remembered before, until ``forget``."""
    file = record_file(store, bundle)
    old = _read(file)
    known = UnfinishedImport(bundle, (), frozenset()) if isinstance(old, str) else old
    new = UnfinishedImport(
        bundle, tuple(sorted({*known.presets, *presets})), known.objects | frozenset(objects)
    )
    if new != old:
        document = {
            "format": FORMAT,
            "bundle": bundle,
            "presets": list(new.presets),
            "objects": sorted(new.objects),
        }
        write_text(file, canonical_json(document))


def forget(store: Path, bundle: str) -> None:
    """Remove the record of a bundle that is complete or was given up."""
    file = record_file(store, bundle)
    with storage_errors(file):
        # A killed run may have left a temporary file.
        for path in (file, *file.parent.glob(f".{file.name}.*.tmp")):
            remove_file(path)
        with suppress(OSError):  # there are records of other bundles, or no folder
            file.parent.rmdir()


def recorded_bundles(store: Path) -> list[str]:
    """Return the bundles that have a record, readable or not."""
    try:
        names = os.listdir(store / "imports")
    except OSError:
        return []
    return sorted(match[1] for match in map(FILE.fullmatch, names) if match)


def read_all(store: Path) -> tuple[list[UnfinishedImport], list[Fault]]:
    """Return all records, and a fault for each one that cannot be read."""
    found: list[UnfinishedImport] = []
    faults: list[Fault] = []
    folder = store / "imports"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        expected = _("the records of unfinished imports")
        return found, [Fault(str(folder), _("not a folder"), expected)]
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


def _read(file: Path) -> UnfinishedImport | str:
    """Return the record, or why it cannot be read."""
    try:
        raw = read_json(file)
        presets, objects = tuple(raw["presets"]), frozenset(raw["objects"])
        if (
            raw["format"] == FORMAT
            and f"{raw['bundle']}.json" == file.name
            and all(isinstance(preset, str) for preset in presets)
            and all(SHA256_HEX.fullmatch(sha256) for sha256 in objects)
        ):
            return UnfinishedImport(raw["bundle"], presets, objects)
    except OSError as error:
        return unreadable(error)
    except (ValueError, KeyError, TypeError):
        pass
    return _("damaged")
