"""What an unfinished sync found out, so that the next run need not ask again (deleting it loses time only), and
what it left half-made, which goes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gapforge.base.files import canonical_json, remove_folder, write_text
from gapforge.model.lock import Entry, LockedImage
from gapforge.model.preset import BaseImage, Preset

STALE_DAYS = 30  # a partial file that nobody went on with for so long is let go
VALID_SECONDS = 6 * 3600  # an image tag or a package list may have moved on after that

Files = dict[str, tuple[str, int]]


class Journal:
    """Notes in one JSON file, for one state of one preset. An unreadable or old file counts as empty."""

    def __init__(self, file: Path, preset_sha256: str) -> None:
        self.file = file
        self._data: dict[str, Any] = {"preset": preset_sha256, "bases": {}, "first": {}}
        try:
            if time.time() - file.stat().st_mtime < VALID_SECONDS:
                loaded = json.loads(file.read_text(encoding="utf-8"))
                if loaded.get("preset") == preset_sha256:
                    self._data = {**self._data, **loaded}
        except (OSError, ValueError, AttributeError):
            pass

    def base(self, base: BaseImage) -> tuple[LockedImage, Files] | None:
        """The base image's layout as it was put into the store: (image, path -> (sha256, size))."""
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
        """Remember a base image that is in the store."""
        self._data["bases"][_key(base)] = {
            "image": image.to_json(),
            "files": {p: list(f) for p, f in files.items()},
        }
        self._save()

    def first_use(self, preset: Preset) -> dict[str, Entry]:
        """Sources without a published hash that were already fetched, by source name."""
        result = {}
        for name, raw in self._data["first"].items():
            if name in preset.sources and isinstance(raw, list) and len(raw) == 2:
                result[name] = Entry(
                    kind="source",
                    path=preset.sources[name].file,
                    sha256=str(raw[0]),
                    size=int(raw[1]),
                    origin="url",
                    name=name,
                )
        return result

    def record_first_use(self, source: str, sha256: str, size: int) -> None:
        """Remember what a source without a published hash turned out to be."""
        self._data["first"][source] = [sha256, size]
        self._save()

    def remove(self) -> None:
        """Forget everything: the lock has it now."""
        self.file.unlink(missing_ok=True)

    def _save(self) -> None:
        write_text(self.file, canonical_json(self._data))


def clear_leftovers(partial: Path) -> None:
    """Clear what killed runs left in the store's ``partial``, but not partial downloads, which are taken up."""
    for path in sorted(partial.iterdir()):
        stale = (
            path.suffix in (".part", ".json")
            and time.time() - path.stat().st_mtime > STALE_DAYS * 86400
        )
        if stale or path.name.startswith(("copy-", "bytes-", "place-")):
            path.unlink(missing_ok=True)
        elif path.name.startswith("work-"):
            try:
                remove_folder(path)
            except OSError:
                continue  # a program of the killed run is still writing there; the next run gets it


def _key(base: BaseImage) -> str:
    return json.dumps(asdict(base), sort_keys=True)
