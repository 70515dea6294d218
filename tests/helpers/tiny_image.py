"""Make a base image that engines can run, from the programs of this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from gapforge.model.lock import LockedImage

PROGRAMS = (
    "sh",
    "cat",
    "ls",
    "sleep",
    "env",
    "echo",
    "id",
    "true",
    "false",
    "cp",
    "touch",
    "mkdir",
    "sha256sum",
    "test",
)
DOCKER = "application/vnd.docker."


def make_layout(
    folder: Path,
    *,
    packed: bool = True,
    schema2: bool = False,
    note: str = "",
    programs: tuple[str, ...] = PROGRAMS,
) -> LockedImage:
    """Write an OCI layout.

    ``packed`` layers are compressed with gzip, ``schema2`` uses Docker's media types, and ``note``
    changes the content.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    raw = [
        _rootfs(programs),
        _one_file("etc/os-release", f'ID=debian\nVERSION_ID="12"\nNOTE="{note}"\n'.encode()),
    ]
    layer_type = (
        DOCKER + "image.rootfs.diff.tar.gzip"
        if schema2
        else "application/vnd.oci.image.layer.v1.tar+gzip"
    )
    layers = [
        {"mediaType": layer_type, **put(gzip.compress(r, 1, mtime=0) if packed else r)} for r in raw
    ]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/usr/bin:/bin"],
            "Entrypoint": ["/bin/echo", "the entry point ran"],
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": ["sha256:" + hashlib.sha256(r).hexdigest() for r in raw],
        },
        "history": [{"created_by": "tiny"} for _ in raw],
    }
    config_type = (
        DOCKER + "container.image.v1+json"
        if schema2
        else "application/vnd.oci.image.config.v1+json"
    )
    manifest_type = (
        DOCKER + "distribution.manifest.v2+json"
        if schema2
        else "application/vnd.oci.image.manifest.v1+json"
    )
    configured = put(json.dumps(config).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {"mediaType": config_type, **configured},
        "layers": layers,
    }
    listed = {"mediaType": manifest_type, **put(json.dumps(manifest).encode())}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
    return LockedImage(
        reference="tiny",
        manifest_digest=str(listed["digest"]),
        config_digest=str(configured["digest"]),
        os_id="debian",
        os_version="12",
    )


def _rootfs(programs: tuple[str, ...]) -> bytes:
    """Return a tar with a shell, a few programs and the libraries that they load."""
    files: dict[str, Path] = {}
    for name in programs:
        program = Path(shutil.which(name) or f"/bin/{name}").resolve()
        files[f"usr/bin/{name}"] = program
        linked = subprocess.run(
            ["ldd", str(program)], capture_output=True, text=True, check=False
        ).stdout
        for library in re.findall(r"(/\S+)", linked):
            files[library.lstrip("/").removeprefix("usr/")] = Path(library).resolve()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("etc", "usr", "usr/bin", "tmp", "lib", "lib64"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        link = tarfile.TarInfo("bin")
        link.type, link.linkname = tarfile.SYMTYPE, "usr/bin"
        tar.addfile(link)
        for name, source in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = source.stat().st_size, 0o755
            with open(source, "rb") as file:
                tar.addfile(info, file)
    return out.getvalue()


def _one_file(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_archive(
    layout: Path,
    archive: Path,
    *,
    mode: str = "w",
    images: int = 1,
    layer: Callable[[bytes], bytes] = bytes,
) -> None:
    """Write the layout's image in the format of `docker save` before Docker 25.

    ``layer`` packs each layer.
    """
    index = json.loads((layout / "index.json").read_text())

    def blob(digest: str) -> bytes:
        return (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()

    manifest = json.loads(blob(index["manifests"][0]["digest"]))
    config = manifest["config"]["digest"].removeprefix("sha256:")
    files = {f"{config}.json": blob(manifest["config"]["digest"])}
    names = []
    for number, entry in enumerate(manifest["layers"]):
        data = blob(entry["digest"])
        names.append(f"layer{number}/layer.tar")
        files[names[-1]] = layer(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
    saved = {"Config": f"{config}.json", "RepoTags": ["debian:12"], "Layers": names}
    files["manifest.json"] = json.dumps([saved] * images).encode()
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
