"""Remember what an unfinished sync found out, and remove the incomplete files that it left.

Deleting the remembered state costs time only: the next run asks again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gapforge.base.files import SHA256_HEX
from gapforge.base.marked_folders import remove_folder
from gapforge.base.strict_json import canonical_json, read_json
from gapforge.base.units import DAY, HOUR
from gapforge.base.write_files import write_text
from gapforge.model.lock import Entry, LockedImage
from gapforge.model.preset import BaseImage, Preset
from gapforge.store import incomplete_bundles
from gapforge.store.incomplete_bundles import BUNDLE_PART
from gapforge.sync.oci_layout import Files

STALE_DAYS = 30  # a partial download that was not continued for so long is deleted
VALID_SECONDS = 6 * HOUR  # later an image tag may name another image


class ResumeState:
    """Facts in one JSON file, for one state of one preset.

    An unreadable or old file counts as empty.
    """

    def __init__(self, file: Path, preset_sha256: str) -> None:
        self.file = file
        self._data: dict[str, Any] = {"preset": preset_sha256, "bases": {}, "first": {}}
        try:
            if time.time() - file.stat().st_mtime < VALID_SECONDS:
                loaded = read_json(file)
                tables = [loaded.get(key, {}) for key in ("bases", "first")]
                if loaded.get("preset") == preset_sha256 and all(type(t) is dict for t in tables):
                    self._data = {**self._data, **loaded}
        except (OSError, ValueError, AttributeError):
            pass

    def base(self, base: BaseImage) -> tuple[LockedImage, Files] | None:
        """Return the base image and its layout in the store, None if it is not recorded."""
        try:
            raw = self._data["bases"][_key(base)]
            return LockedImage(**raw["image"]), {
                path: (str(f[0]), int(f[1])) for path, f in raw["files"].items()
            }
        except (KeyError, TypeError, ValueError, IndexError):
            return None

    def record_base(
        self, base: BaseImage, image: LockedImage, files: Mapping[str, tuple[str, int]]
    ) -> None:
        """Record a base image that is in the store."""
        self._data["bases"][_key(base)] = {
            "image": image.to_json(),
            "files": {p: list(f) for p, f in files.items()},
        }
        self._save()

    def first_use(self, preset: Preset) -> dict[str, Entry]:
        """Return the sources without a published checksum that were downloaded, by source name."""
        result = {}
        for name, raw in self._data["first"].items():
            valid = isinstance(raw, list) and [type(each) for each in raw] == [str, int]
            if valid and name in preset.sources and SHA256_HEX.fullmatch(raw[0]):
                result[name] = Entry(
                    kind="source",
                    path=preset.sources[name].file,
                    sha256=raw[0],
                    size=raw[1],
                    origin="url",
                    name=name,
                )
        return result

    def record_first_use(self, source: str, sha256: str, size: int) -> None:
        """Record the checksum and size of a source without a published checksum."""
        self._data["first"][source] = [sha256, size]
        self._save()

    def remove(self) -> None:
        """Delete the state: the lock has all of it."""
        self.file.unlink(missing_ok=True)

    def _save(self) -> None:
        write_text(self.file, canonical_json(self._data))


def clear_leftovers(partial: Path) -> None:
    """Delete what killed runs left in the store's ``partial``, except partial downloads.

    The parts of volumes stay while an import needs them, however long the next volume takes.
    """
    imports, unknown = incomplete_bundles.read_all(partial.parent)
    needed = frozenset[str]().union(*(each.objects for each in imports))
    for path in sorted(partial.iterdir()):
        bundled = BUNDLE_PART.fullmatch(path.name)
        if bundled and (unknown or bundled[1] in needed):
            continue
        stale = (
            path.suffix in (".part", ".json")
            and time.time() - path.stat().st_mtime > STALE_DAYS * DAY
        )
        if stale or path.name.startswith(("copy-", "bytes-", "place-", ".place-")):
            path.unlink(missing_ok=True)
        elif path.name.startswith("work-"):
            try:
                remove_folder(path)
            except OSError:
                continue  # a program of the killed run still writes there; the next run deletes it


def _key(base: BaseImage) -> str:
    return json.dumps(asdict(base), sort_keys=True)
