"""Make valid presets and locks in memory, and small files that match such a lock."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from gapforge.base.files import sha256_bytes
from gapforge.model import component
from gapforge.model.lock import Entry, Lock, LockedImage
from gapforge.model.preset import Preset, parse

ROOT = Path(__file__).resolve().parents[2]
PRESET = "debian12-cpu-quickstart"  # the practice preset
QUICKSTART = ROOT / "presets" / f"{PRESET}.json"
# The same preset as people wrote it when a preset had to name every package and archive.
IN_FULL = ROOT / "tests" / "unit" / "data" / "presets" / QUICKSTART.name
COMPONENTS = component.load_all(ROOT / "components")


def raw_preset(**changes: Any) -> dict[str, Any]:
    """Return the quickstart's document in full with keys replaced. A value of ... removes one."""
    raw: dict[str, Any] = copy.deepcopy(json.loads(IN_FULL.read_text(encoding="utf-8")))
    for key, value in changes.items():
        if value is ...:
            raw.pop(key, None)
        else:
            raw[key] = value
    return raw


def preset(**changes: Any) -> Preset:
    return parse(raw_preset(**changes), COMPONENTS)


def content_of(path: str) -> bytes:
    """Return the content of this path in sample artifacts."""
    if path.endswith("Packages"):
        return b"".join(
            f"Package: {name}\nVersion: 1\nArchitecture: amd64\nFilename: ./{name}_1_amd64.deb\n"
            f"Size: 5\nSHA256: {'0' * 64}\n\n".encode()
            for name in ("gcc", "libssl3")
        )
    return f"content of {path}".encode()


def entry(kind: str, path: str, **more: Any) -> Entry:
    data = content_of(path)
    return Entry(
        kind=kind,
        path=path,
        sha256=sha256_bytes(data),
        size=len(data),
        origin=more.pop("origin", "generated"),
        **more,
    )


def lock(of: Preset, *, extra: tuple[Entry, ...] = ()) -> Lock:
    """Return a lock with two .debs, two wheels and the installer, and two sources."""
    image = LockedImage(
        reference="made by mmdebstrap",
        manifest_digest="sha256:" + "a" * 64,
        config_digest="sha256:" + "b" * 64,
        os_id=of.os_id,
        os_version=of.os_version,
    )
    entries = (
        entry("deb", "debs/gcc_1_amd64.deb", name="gcc", version="1", roles=("builder",)),
        entry(
            "deb",
            "debs/libssl3_1_amd64.deb",
            name="libssl3",
            version="1",
            roles=("builder", "runtime"),
        ),
        entry("index", "debs/Packages"),
        entry("index", "debs/Release"),
        entry("index", "requirements.txt"),
        entry("wheel", "wheels/numpy-1.26.4-py3-none-any.whl", name="numpy", version="1.26.4"),
        entry("wheel", "wheels/PyYAML-6.0.2-py3-none-any.whl", name="PyYAML", version="6.0.2"),
        entry(
            "wheel",
            "wheels/pip-24.2-py3-none-any.whl",
            name="pip",
            version="24.2",
            roles=("install-tool",),
        ),
        entry("source", "sources/ffmpeg_5.1.9.orig.tar.xz", name="ffmpeg", version="5.1.9"),
        entry(
            "source",
            "sources/opencv-python-headless-4.9.0.80.tar.gz",
            name="opencv",
            version="4.9.0",
        ),
        *extra,
    )
    return Lock(
        preset=of.name,
        preset_sha256=of.sha256,
        images={"builder": image, "runtime": image},
        entries=tuple(sorted(entries, key=lambda e: e.path)),
    )


def lay_artifacts(folder: Path, of: Lock) -> None:
    """Write the files of a sample lock."""
    for item in of.entries:
        target = folder / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content_of(item.path))
    (folder / "lock.json").write_text(of.render(), encoding="utf-8")
