"""Write an image as one tar that every ``docker load`` accepts.

The tar is an OCI layout and a ``docker save`` archive at once: a classic image store reads
manifest.json, a containerd store reads index.json. Nothing is unpacked or copied first, and the
checksum of every blob is compared while it streams. Both indexes come last, so a tar whose
verification fails is never a complete image.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from typing import IO, Any

from gapforge.base.compression import damage_as
from gapforge.base.errors import VerifyError
from gapforge.base.files import CHUNK
from gapforge.base.i18n import _
from gapforge.engine.image_parts import Blob, ImageParts
from gapforge.model.names import OCI_INDEX

OnBytes = Callable[[int], None]


def write_image(
    parts: ImageParts, name: str, out: IO[bytes], on_bytes: OnBytes | None = None
) -> None:
    """Write the image to ``out``, with the local ``name`` ("repository:tag").

    ``on_bytes`` gets the size of every chunk. Raise VerifyError when a blob does not match its
    digest; the tar is then left without its indexes.
    """
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, bufsize=CHUNK) as tar:
        for blob in {b.digest: b for b in (*parts.layers, parts.config)}.values():
            _write_blob(tar, blob, on_bytes)
        entry = {
            "mediaType": parts.media_type,
            "digest": parts.manifest_digest,
            "size": len(parts.manifest),
            # containerd reads the first as the name, every other store the second.
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rpartition(":")[2],
            },
        }
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
        saved = {
            "Config": _blob_name(parts.config.digest),
            "RepoTags": [name],
            "Layers": [_blob_name(blob.digest) for blob in parts.layers],
        }
        _write_bytes(tar, _blob_name(parts.manifest_digest), parts.manifest)
        _write_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _write_json(tar, "index.json", index)
        _write_json(tar, "manifest.json", [saved])


def _blob_name(digest: str) -> str:
    return "blobs/sha256/" + digest.partition(":")[2]


def _write_json(tar: tarfile.TarFile, name: str, value: Any) -> None:
    _write_bytes(tar, name, json.dumps(value, sort_keys=True).encode())


def _write_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))


class _HashingReader(io.RawIOBase):
    """Read from a file and compute the checksum of what was read."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes | None) -> None:
        self.file, self.on_bytes = file, on_bytes
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.sha256.update(data)
        if self.on_bytes is not None:
            self.on_bytes(len(data))
        return data


def _truncated(blob: Blob) -> VerifyError:
    return VerifyError(
        _(
            "base image blob {digest}: truncated; expected {size} bytes",
            digest=blob.digest,
            size=blob.size,
        )
    )


def _write_blob(tar: tarfile.TarFile, blob: Blob, on_bytes: OnBytes | None) -> None:
    header = tarfile.TarInfo(_blob_name(blob.digest))
    header.size = blob.size
    with blob.open() as file:
        reader = _HashingReader(file, on_bytes)
        # The default of 16 KiB is slow for gigabytes.
        tar.copybufsize = CHUNK  # type: ignore[attr-defined]
        with damage_as(lambda cause: _truncated(blob)):
            tar.addfile(header, reader)
        found = "sha256:" + reader.sha256.hexdigest()
    if found != blob.digest:
        raise VerifyError(
            _(
                "base image blob {digest}: checksum mismatch: {found}",
                digest=blob.digest,
                found=found,
            ),
            hint=_("copy the artifacts again from the medium, then: gapforge verify PRESET"),
        )
