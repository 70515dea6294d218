"""Read and write OCI image layouts. Every blob is verified while it is read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from gapforge.base import limits
from gapforge.base.compression import MAGIC_LENGTH, compression, damage_as, uncompressed
from gapforge.base.errors import Fault, FetchError
from gapforge.base.files import CHUNK, open_buffered
from gapforge.base.i18n import _
from gapforge.base.strict_json import canonical_json, parse_json, read_json
from gapforge.base.system_errors import error_text, os_reason
from gapforge.base.write_files import write_text
from gapforge.model import usable_base_image
from gapforge.model.names import DOCKER_LIST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)

Files = dict[str, tuple[str, int]]  # path inside a layout -> (SHA-256 in hex, size in bytes)


@dataclass(frozen=True)
class Blob:
    """A descriptor: ``digest`` is "sha256:…", ``size`` in bytes."""

    media_type: str
    digest: str
    size: int

    @property
    def sha256(self) -> str:
        """Return the hex digits of the digest."""
        return self.digest.removeprefix("sha256:")

    def path(self, folder: Path) -> Path:
        """Return the file of the blob in the layout ``folder``."""
        return folder / "blobs" / "sha256" / self.sha256

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as OCI documents have it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One linux/amd64 image in an OCI layout. ``config`` is the parsed image configuration."""

    folder: Path
    manifest: Blob
    config_blob: Blob
    layers: tuple[Blob, ...]
    diff_ids: tuple[str, ...]
    config: Mapping[str, Any]


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables of an image configuration."""
    words = (config.get("config") or {}).get("Env") or []
    return dict(word.partition("=")[::2] for word in words if isinstance(word, str))


def read_layout(folder: Path) -> Layout:
    """Return the image in ``folder`` after verifying its manifest and configuration.

    Raise FetchError for an incomplete, damaged or unsafe layout, TargetError for another platform.
    """
    try:
        marker = read_json(folder / "oci-layout", limits.IMAGE_DOCUMENT)
        index = read_json(folder / "index.json", limits.IMAGE_DOCUMENT)
        if marker.get("imageLayoutVersion") != "1.0.0":
            raise ValueError(_('the version in oci-layout is not "1.0.0"'))
        if len(index["manifests"]) != 1:
            count = len(index["manifests"])
            raise ValueError(_("index.json lists {count} images; expected one", count=count))
        manifest_blob = blob(index["manifests"][0])
        manifest = parse_json(read_small(folder, manifest_blob))
        config_blob = blob(manifest["config"])
        layers = tuple(blob(layer) for layer in manifest["layers"])
        config = parse_json(read_small(folder, config_blob))
        diff_ids = tuple(str(d) for d in config["rootfs"]["diff_ids"])
        if len(diff_ids) != len(layers):
            raise ValueError(
                _("{count} layers but {ids} diff_ids", count=len(layers), ids=len(diff_ids))
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(
            _(
                "{folder} is not a usable OCI layout: {reason}",
                folder=folder,
                reason=error_text(error),
            ),
            hint=_fetch_again(),
        ) from error
    usable_base_image.check_configuration(config, str(folder))
    usable_base_image.check_compression(
        (compression_of(folder, layer) for layer in layers), str(folder)
    )
    return Layout(
        folder=folder,
        manifest=manifest_blob,
        config_blob=config_blob,
        layers=layers,
        diff_ids=diff_ids,
        config=config,
    )


def _fetch_again() -> str:
    return _("download the base image again: ./deps_sync.sh PRESET")


def blob(raw: Mapping[str, Any]) -> Blob:
    """Return a descriptor from a manifest or index.

    Raise ValueError, KeyError or TypeError if it is unusable.
    """
    digest = str(raw["digest"])
    if not DIGEST.fullmatch(digest):
        raise ValueError(
            _("unsupported digest {digest!r}; expected sha256:<64 hex digits>", digest=digest)
        )
    if type(raw["size"]) is not int or raw["size"] < 0:
        raise ValueError(_("unusable size {size!r} of {digest}", size=raw["size"], digest=digest))
    return Blob(str(raw.get("mediaType", "")), digest, raw["size"])


def read_small(folder: Path, blob: Blob) -> bytes:
    """Return a verified manifest or configuration.

    Raise FetchError for other bytes than its digest says.
    """
    if blob.size > limits.IMAGE_DOCUMENT:
        raise FetchError(
            _(
                "{digest} is too large for a manifest or configuration: {size} bytes",
                digest=blob.digest,
                size=blob.size,
            )
        )
    parts: list[bytes] = []
    with _checked(folder, blob) as stream:
        while chunk := stream.read(CHUNK):
            parts.append(chunk)
    return b"".join(parts)


class _HashingReader:
    """A file that hashes the bytes that are read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        """Read and hash up to ``size`` bytes, all for -1."""
        data = self._file.read(size)
        self.digest.update(data)
        self.count += len(data)
        return data

    def drain(self) -> None:
        """Read and hash the rest."""
        while self.read(CHUNK):
            pass


@contextmanager
def _checked(folder: Path, blob: Blob) -> Iterator[_HashingReader]:
    """Yield the blob's stored bytes.

    A wrong digest is raised rather than any error of the block.
    """
    path = blob.path(folder)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_buffered(path))
        except OSError as error:
            raise FetchError(
                _(
                    "{path}: this blob of the layout cannot be read ({reason})",
                    path=path,
                    reason=os_reason(error),
                ),
                hint=_fetch_again(),
            ) from error
        reader = _HashingReader(file)
        failure: Exception | None = None
        try:
            with damage_as(lambda cause: _not_unpacked(path, cause)):
                yield reader
        except Exception as error:  # noqa: BLE001 - raised below, unless the digest is wrong
            failure = error
        reader.drain()
        actual = f"sha256:{reader.digest.hexdigest()}"
        if actual != blob.digest or reader.count != blob.size:
            fault = Fault(
                str(path),
                _("is {actual}, {count} bytes", actual=actual, count=reader.count),
                _("{digest}, {size} bytes", digest=blob.digest, size=blob.size),
            )
            message = _("{path}: checksum mismatch", path=path)
            raise FetchError(message, faults=[fault], hint=_fetch_again()) from failure
        if failure is not None:
            raise failure


def _not_unpacked(path: Path, cause: Exception) -> FetchError:
    return FetchError(_("{path} cannot be unpacked: {error}", path=path, error=cause))


def compression_of(folder: Path, blob: Blob) -> str:
    """Return the compression of a blob by its first bytes, "" for none.

    Its media type may be wrong: skopeo labels the raw layers of an archive as gzip.
    """
    try:
        with open_buffered(blob.path(folder)) as file:
            return compression(file.read(MAGIC_LENGTH))
    except OSError:
        return ""  # _checked reports it


@contextmanager
def open_layer(layout: Layout, number: int) -> Iterator[IO[bytes]]:
    """Yield layer ``number`` as an uncompressed tar stream.

    Its digest and diff_id are verified when the block ends.
    """
    blob, diff_id = layout.layers[number], layout.diff_ids[number]
    kind = compression_of(layout.folder, blob)
    with _checked(layout.folder, blob) as stored:
        with uncompressed(cast(IO[bytes], stored), kind) as plain:
            reader = _HashingReader(plain)
            yield cast(IO[bytes], reader)
            reader.drain()
        actual = f"sha256:{reader.digest.hexdigest()}"
        if actual != diff_id:
            found = _("unpacks to {actual}", actual=actual)
            raise FetchError(
                _("layer {layer} of the image does not match its diff_id", layer=number + 1),
                faults=[Fault(str(blob.path(layout.folder)), found, diff_id)],
            )


def drop_other_blobs(layout: Layout) -> None:
    """Delete the files among the blobs of a layout that do not belong to its image."""
    blobs = (layout.manifest, layout.config_blob, *layout.layers)
    known = {blob.path(layout.folder) for blob in blobs}
    for path in (layout.folder / "blobs" / "sha256").iterdir():
        if path not in known:
            path.unlink()


def write_layout(folder: Path, manifest: Blob) -> None:
    """Write ``oci-layout`` and ``index.json`` for the image whose blobs are in ``folder``."""
    for name, text in layout_texts(manifest).items():
        write_text(folder / name, text)


def layout_texts(manifest: Blob) -> dict[str, str]:
    """Return the two files of a layout that are not blobs. They contain no names or dates."""
    entry = {**manifest.to_json(), "platform": {"architecture": "amd64", "os": "linux"}}
    index = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    return {"index.json": index, "oci-layout": '{"imageLayoutVersion": "1.0.0"}\n'}


def add_blob(folder: Path, data: bytes, media_type: str) -> Blob:
    """Write ``data`` as a blob of the layout ``folder``."""
    blob = Blob(media_type, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
    blob.path(folder).parent.mkdir(parents=True, exist_ok=True)
    with open(blob.path(folder), "wb") as file:
        file.write(data)
    return blob


def add_image(folder: Path, config: bytes, layers: list[Blob]) -> None:
    """Write configuration, manifest, index and ``oci-layout`` for ``layers`` that are there."""
    config_blob = add_blob(folder, config, OCI_CONFIG)
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config_blob.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    )
    write_layout(folder, add_blob(folder, manifest.encode(), OCI_MANIFEST))
