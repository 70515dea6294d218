"""Read and write OCI image layouts. Every blob is verified while it is read."""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from gapforge.base import limits, process
from gapforge.base.errors import Fault, FetchError, TargetError, ToolError
from gapforge.base.files import CHUNK, canonical_json, open_buffered, open_regular, write_text
from gapforge.base.i18n import _
from gapforge.base.json_text import parse_json, read_json
from gapforge.base.system_errors import error_text, os_reason

DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

OnBytes = Callable[[int], None]
Files = dict[str, tuple[str, int]]  # path inside a layout -> (SHA-256 in hex, size in bytes)


@dataclass(frozen=True)
class Blob:
    """A descriptor: ``digest`` is "sha256:…", ``size`` in bytes."""

    media_type: str
    digest: str
    size: int

    def path(self, folder: Path) -> Path:
        """Return the file of the blob in the layout ``folder``."""
        return folder / "blobs" / "sha256" / self.digest.removeprefix("sha256:")

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

    @property
    def env(self) -> dict[str, str]:
        """Return the image's environment variables."""
        words = (self.config.get("config") or {}).get("Env") or []
        return dict(word.partition("=")[::2] for word in words if isinstance(word, str))

    @property
    def size(self) -> int:
        """Return the stored size of all layers in bytes."""
        return sum(layer.size for layer in self.layers)


def read_layout(folder: Path) -> Layout:
    """Return the image in ``folder`` after verifying its manifest and configuration.

    Raise FetchError for an incomplete, damaged or unsafe layout, TargetError for another platform.
    """
    try:
        marker = read_json(folder / "oci-layout", limits.IMAGE_DOCUMENT)
        index = read_json(folder / "index.json", limits.IMAGE_DOCUMENT)
        if marker.get("imageLayoutVersion") != "1.0.0":
            raise ValueError(_('the version in oci-layout is not "1.0.0"'))
        entries = [e for e in index["manifests"] if _is_ours(e)]
        if len(entries) != 1:
            count = len(entries)
            raise ValueError(
                _("index.json lists {count} linux/amd64 images; expected one", count=count)
            )
        manifest_blob = blob(entries[0])
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
    if (config.get("os"), config.get("architecture")) != ("linux", "amd64"):
        platform = f"{config.get('os')}/{config.get('architecture')}"
        raise TargetError(
            _(
                "the image in {folder} is for {platform}, not linux/amd64",
                folder=folder,
                platform=platform,
            ),
            hint=_("specify an image that has a linux/amd64 variant"),
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


def _is_ours(entry: Mapping[str, Any]) -> bool:
    platform = entry.get("platform")
    return not platform or (platform.get("os"), platform.get("architecture")) == ("linux", "amd64")


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
    with _checked(folder, blob, None) as stream:
        while chunk := stream.read(CHUNK):
            parts.append(chunk)
    return b"".join(parts)


class _HashingReader:
    """A file that hashes the bytes that are read from it."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes | None) -> None:
        self._file, self._on_bytes = file, on_bytes
        self.digest = hashlib.sha256()
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        """Read and hash up to ``size`` bytes, all for -1."""
        data = self._file.read(size)
        self.digest.update(data)
        self.count += len(data)
        if self._on_bytes is not None and data:
            self._on_bytes(len(data))
        return data

    def drain(self) -> None:
        """Read and hash the rest."""
        while self.read(CHUNK):
            pass


@contextmanager
def _checked(folder: Path, blob: Blob, on_bytes: OnBytes | None) -> Iterator[_HashingReader]:
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
        reader = _HashingReader(file, on_bytes)
        failure: Exception | None = None
        try:
            yield reader
        except (tarfile.TarError, zlib.error, EOFError, OSError, FetchError, ToolError) as error:
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
        if isinstance(failure, (FetchError, ToolError)):
            raise failure
        if failure is not None:
            message = _("{path} cannot be unpacked: {error}", path=path, error=failure)
            raise FetchError(message) from failure


def _magic(folder: Path, blob: Blob) -> bytes:
    try:
        with open_regular(blob.path(folder)) as file:
            return file.read(4)
    except OSError:
        return b""  # _checked reports it


@contextmanager
def open_layer(layout: Layout, number: int, on_bytes: OnBytes | None = None) -> Iterator[IO[bytes]]:
    """Yield layer ``number`` as an uncompressed tar stream.

    Its digest and diff_id are verified when the block ends. The first bytes decide the compression,
    because media types may be wrong: skopeo labels the raw layers of an archive as gzip. zstd needs
    the program ``zstd``. ``on_bytes`` is called with the number of stored bytes read.
    """
    blob, diff_id = layout.layers[number], layout.diff_ids[number]
    magic = _magic(layout.folder, blob)
    with _checked(layout.folder, blob, on_bytes) as stored:
        if magic == ZSTD:

            def feed(pipe: IO[bytes]) -> None:
                while chunk := stored.read(CHUNK):
                    pipe.write(chunk)

            with process.piped(["zstd", "-dc"], feed=feed) as output:
                reader = _HashingReader(output, None)
                yield cast(IO[bytes], reader)
                reader.drain()
        elif magic[:2] == GZIP:
            with gzip.GzipFile(fileobj=cast(IO[bytes], stored), mode="rb") as plain:
                reader = _HashingReader(cast(IO[bytes], plain), None)
                yield cast(IO[bytes], reader)
                reader.drain()
        else:
            yield cast(IO[bytes], stored)
            stored.drain()
            reader = stored
        actual = f"sha256:{reader.digest.hexdigest()}"
        if actual != diff_id:
            found = _("unpacks to {actual}", actual=actual)
            raise FetchError(
                _("layer {layer} of the image does not match its diff_id", layer=number + 1),
                faults=[Fault(str(blob.path(layout.folder)), found, diff_id)],
            )


def write_layout(folder: Path, manifest: Blob) -> None:
    """Write ``oci-layout`` and ``index.json`` for the image whose blobs are in ``folder``."""
    for name, text in layout_texts(manifest).items():
        write_text(folder / name, text)


def layout_texts(manifest: Blob) -> dict[str, str]:
    """Return the two files of a layout that are not blobs. They contain no names or dates."""
    entry = {**manifest.to_json(), "platform": {"architecture": "amd64", "os": "linux"}}
    index = canonical_json({"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [entry]})
    return {"index.json": index, "oci-layout": '{"imageLayoutVersion": "1.0.0"}\n'}


def add_blob(folder: Path, data: bytes, media_type: str) -> Blob:
    """Write ``data`` as a blob of the layout ``folder``."""
    blob = Blob(media_type, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
    blob.path(folder).parent.mkdir(parents=True, exist_ok=True)
    with open(blob.path(folder), "wb") as file:
        file.write(data)
    return blob


def add_image(folder: Path, config: bytes, layers: list[Blob]) -> Blob:
    """Write configuration, manifest, index and ``oci-layout`` for ``layers`` that are there.

    Return the manifest.
    """
    config_blob = add_blob(folder, config, CONFIG_TYPE)
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config_blob.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    )
    blob = add_blob(folder, manifest.encode(), MANIFEST_TYPE)
    write_layout(folder, blob)
    return blob
