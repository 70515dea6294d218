"""Reads base images (OCI layouts, ``docker save`` archives) and writes them as one tar that every Docker loads.

The tar is an OCI layout and a ``docker save`` archive at once: a classic image store reads manifest.json, a
containerd store reads index.json. Nothing is unpacked or copied first, and every blob's hash is checked while
it streams; both indexes come last, so a tar that fails its check is never a whole image.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gapforge.base.errors import EngineError, VerifyError
from gapforge.base.files import CHUNK, SHA256_HEX, sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.system_errors import says

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_SMALL = (
    16 << 20
)  # bytes; no manifest or config is larger, and a file that claims to be is not read


@dataclass(frozen=True)
class Blob:
    """Bytes with a digest ("sha256:…") and a size; ``open`` gives them for reading, unchecked."""

    digest: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class ImageParts:
    """One image, ready to be written: its manifest's bytes, its config and its layers, lowest first."""

    manifest: bytes
    media_type: str
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def manifest_digest(self) -> str:
        return "sha256:" + sha256_bytes(self.manifest)

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return self.config.size + sum(
            blob.size for blob in {b.digest: b for b in self.layers}.values()
        )


def read_layout(folder: Path, manifest_digest: str = "") -> ImageParts:
    """The image in an OCI layout; the only one of its index when no digest is given.

    Manifest and config are verified here, layers while they are written. Raises VerifyError for a blob that
    is missing or differs, EngineError for a folder that is no layout or holds several images.
    """
    if not (folder / "oci-layout").is_file() or not (folder / "index.json").is_file():
        raise EngineError(
            _(
                "{folder} is not an OCI image layout (it has no oci-layout and index.json)",
                folder=folder,
            )
        )
    if not manifest_digest:
        entries = _entries(_document((folder / "index.json").read_bytes(), f"{folder}/index.json"))
        if len(entries) == 1 and entries[0].get("mediaType") in (OCI_INDEX, DOCKER_LIST):
            nested = _verified(folder, str(entries[0].get("digest")))
            entries = [
                e
                for e in _entries(_document(nested, str(folder)))
                if (e.get("platform") or {}).get("os") != "unknown"
            ]  # attestations
        if len(entries) != 1:
            count = len(entries)
            raise EngineError(
                _("{folder} holds {count} images where one is needed", folder=folder, count=count),
                hint=_(
                    "make a layout of one image: skopeo copy oci:FOLDER:NAME oci:NEW_FOLDER:NAME"
                ),
            )
        manifest_digest = str(entries[0].get("digest"))
    raw = _verified(folder, manifest_digest)
    manifest = _document(
        raw,
        _("{folder}: manifest {manifest_digest}", folder=folder, manifest_digest=manifest_digest),
    )
    try:
        config = _layout_blob(folder, manifest["config"])
        layers = tuple(_layout_blob(folder, layer) for layer in manifest["layers"])
    except (KeyError, TypeError) as error:
        raise EngineError(
            _(
                "{folder}: {manifest_digest} is not the manifest of one image (no {error})",
                folder=folder,
                manifest_digest=manifest_digest,
                error=error,
            )
        ) from error
    _verified(folder, config.digest)
    return ImageParts(raw, str(manifest.get("mediaType") or OCI_MANIFEST), config, layers)


def _layout_blob(folder: Path, descriptor: dict[str, Any]) -> Blob:
    file = _blob_file(folder, str(descriptor["digest"]))
    found = file.stat().st_size if file.is_file() else None
    if found != descriptor["size"]:
        size = descriptor["size"]
        state = _("is missing") if found is None else _("has {found} bytes", found=found)
        raise VerifyError(
            _("{file}: {state}; expected {size} bytes", file=file, state=state, size=size)
        )
    return Blob(str(descriptor["digest"]), int(descriptor["size"]), lambda: open(file, "rb"))


def _blob_file(folder: Path, digest: str) -> Path:
    algorithm, _separator, value = digest.partition(":")
    if algorithm != "sha256" or not SHA256_HEX.fullmatch(value):
        raise EngineError(
            _("{folder}: {digest!r} is not a sha256 digest", folder=folder, digest=digest)
        )
    return folder / "blobs" / "sha256" / value


def _verified(folder: Path, digest: str) -> bytes:
    file = _blob_file(folder, digest)
    if not file.is_file() or file.stat().st_size > _SMALL:
        raise VerifyError(
            _("{file}: is missing", file=file)
            if not file.is_file()
            else _("{file}: is too large for a manifest", file=file)
        )
    data = file.read_bytes()
    if (found := "sha256:" + sha256_bytes(data)) != digest:
        raise VerifyError(
            _("{file}: is {found}; expected {digest}", file=file, found=found, digest=digest)
        )
    return data


def _document(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise EngineError(_("{where} is not JSON: {why}", where=where, why=says(error))) from error
    if not isinstance(value, dict):
        raise EngineError(_("{where} is not a JSON object", where=where))
    return value


def _entries(index: dict[str, Any]) -> list[dict[str, Any]]:
    return [e for e in index.get("manifests") or () if isinstance(e, dict)]


@contextmanager
def open_archive(path: Path) -> Iterator[ImageParts]:
    """The image in a ``docker save`` archive (plain or compressed), open while the block runs.

    Layers are hashed once to learn their digests, and checked against the config's diff IDs where they are
    not compressed. Raises EngineError for a file that is no such archive or holds several images, and
    VerifyError for a layer that differs.
    """
    try:
        with tarfile.open(path, "r:*") as tar:
            yield _archive_parts(tar, path)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise EngineError(
            _("{path} is not a whole `docker save` archive: {error}", path=path, error=error)
        ) from error


def _archive_parts(tar: tarfile.TarFile, path: Path) -> ImageParts:
    try:
        listed = json.loads(_small_member(tar, "manifest.json", path))
        if len(listed) != 1:
            count = len(listed)
            raise EngineError(
                _("{path} holds {count} images where one is needed", path=path, count=count),
                hint=_("save one image alone: docker save NAME -o FILE"),
            )
        config_bytes = _small_member(tar, listed[0]["Config"], path)
        names = [str(name) for name in listed[0]["Layers"]]
        diff_ids = [
            str(i)
            for i in _document(config_bytes, _("{path}: config", path=path))["rootfs"]["diff_ids"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            _(
                "{path}: manifest.json or the config in it cannot be read: {error!r}",
                path=path,
                error=error,
            )
        ) from error
    if len(names) != len(diff_ids):
        count, wanted = len(names), len(diff_ids)
        raise EngineError(
            _(
                "{path}: {count} layers, but the config names {wanted}",
                path=path,
                count=count,
                wanted=wanted,
            )
        )
    layers: list[Blob] = []
    descriptors: list[dict[str, Any]] = []
    for name, diff_id in zip(names, diff_ids, strict=True):
        blob, packed = _archive_layer(tar, name, path)
        if not packed and blob.digest != diff_id:
            raise VerifyError(
                _(
                    "{path}: layer {name} is {digest}; expected {diff_id}",
                    path=path,
                    name=name,
                    digest=blob.digest,
                    diff_id=diff_id,
                )
            )
        layers.append(blob)
        descriptors.append(
            {
                "mediaType": OCI_LAYER + ("+gzip" if packed else ""),
                "digest": blob.digest,
                "size": blob.size,
            }
        )
    config = Blob(
        "sha256:" + sha256_bytes(config_bytes), len(config_bytes), lambda: io.BytesIO(config_bytes)
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config.digest, "size": config.size},
        "layers": descriptors,
    }
    return ImageParts(
        json.dumps(manifest, sort_keys=True).encode(), OCI_MANIFEST, config, tuple(layers)
    )


def _small_member(tar: tarfile.TarFile, name: str, path: Path) -> bytes:
    with _member(tar, name, path) as file:
        data = file.read(_SMALL + 1)
    if len(data) > _SMALL:
        raise EngineError(_("{path}: {name} is too large", path=path, name=name))
    return data


def _member(tar: tarfile.TarFile, name: str, path: Path) -> IO[bytes]:
    try:
        file = tar.extractfile(name)  # follows the links that old archives use for repeated layers
    except KeyError:
        file = None
    if file is None:
        hint = ""
        if name == "manifest.json" and "oci-layout" in tar.getnames():
            hint = _(
                "it is an OCI archive; unpack it and name the folder: mkdir DIR && tar "
                "-xf {path} -C DIR",
                path=path,
            )
        raise EngineError(
            _("{path}: holds no {name}, so it is no `docker save` archive", path=path, name=name),
            hint=hint,
        )
    return file


def _archive_layer(tar: tarfile.TarFile, name: str, path: Path) -> tuple[Blob, bool]:
    """A layer with its true digest, and whether it is gzip."""
    digest, size, head = hashlib.sha256(), 0, b""
    with _member(tar, name, path) as file:
        while chunk := file.read(CHUNK):
            head = head or chunk[:2]
            digest.update(chunk)
            size += len(chunk)
    return Blob(
        "sha256:" + digest.hexdigest(), size, lambda: _member(tar, name, path)
    ), head == b"\x1f\x8b"


def write_image(
    parts: ImageParts, name: str, out: IO[bytes], on_bytes: Callable[[int], None] | None = None
) -> None:
    """Write ``parts`` to ``out`` as a tar that `docker load` takes, under the local ``name`` ("repository:tag").

    ``on_bytes`` is told of every chunk. Raises VerifyError when a blob's bytes are not what its digest says;
    the tar is then left without its indexes.
    """
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, bufsize=CHUNK) as tar:
        written: set[str] = set()
        for blob in (*parts.layers, parts.config):
            if blob.digest not in written:
                _write_blob(tar, blob, on_bytes)
                written.add(blob.digest)
        files = [_blob_name(blob.digest) for blob in parts.layers]
        entry = {
            "mediaType": parts.media_type,
            "digest": parts.manifest_digest,
            "size": len(parts.manifest),
            # The first is where containerd looks for a name, the second where everybody else does.
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rpartition(":")[2],
            },
        }
        _write_bytes(tar, _blob_name(parts.manifest_digest), parts.manifest)
        _write_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _write_json(
            tar, "index.json", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
        )
        _write_json(
            tar,
            "manifest.json",
            [{"Config": _blob_name(parts.config.digest), "RepoTags": [name], "Layers": files}],
        )


def _blob_name(digest: str) -> str:
    return "blobs/sha256/" + digest.partition(":")[2]


def _write_json(tar: tarfile.TarFile, name: str, value: Any) -> None:
    _write_bytes(tar, name, json.dumps(value, sort_keys=True).encode())


def _write_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))


class _Checked(io.RawIOBase):
    """Reads through to a file and hashes what passes."""

    def __init__(self, file: IO[bytes], on_bytes: Callable[[int], None] | None) -> None:
        self.file, self.on_bytes = file, on_bytes
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        if self.on_bytes is not None:
            self.on_bytes(len(data))
        return data


def _write_blob(tar: tarfile.TarFile, blob: Blob, on_bytes: Callable[[int], None] | None) -> None:
    header = tarfile.TarInfo(_blob_name(blob.digest))
    header.size = blob.size
    with blob.open() as file:
        checked = _Checked(file, on_bytes)
        tar.copybufsize = CHUNK  # type: ignore[attr-defined]  # the default of 16 KiB is slow for gigabytes
        try:
            tar.addfile(header, checked)
        except OSError as error:
            if "unexpected end of data" not in str(error):
                raise
            raise VerifyError(
                _(
                    "base image blob {digest} ends early; expected {size} bytes",
                    digest=blob.digest,
                    size=blob.size,
                )
            ) from error
        found = "sha256:" + checked.digest.hexdigest()
    if found != blob.digest:
        raise VerifyError(
            _(
                "base image blob {digest} holds other bytes: {found}",
                digest=blob.digest,
                found=found,
            ),
            hint=_("copy the artifacts again from the medium, then: gapforge verify PRESET"),
        )
