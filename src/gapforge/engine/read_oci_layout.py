"""Read an image from an OCI image layout folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapforge.base import limits
from gapforge.base.compression import MAGIC_LENGTH, compression
from gapforge.base.errors import EngineError, VerifyError
from gapforge.base.files import SHA256_HEX, UnsuitableFile, open_buffered, read_regular
from gapforge.base.i18n import _
from gapforge.engine.image_parts import Blob, ImageParts, digest_of, parse_document
from gapforge.model import usable_base_image
from gapforge.model.names import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST


def read_layout(folder: Path, manifest_digest: str = "") -> ImageParts:
    """Return the image with this digest, or the only image of the layout.

    Manifest and config are verified here, layers while they are written. Raise VerifyError for a
    missing or damaged blob, EngineError for a folder that is not a layout of one image, TargetError
    for an image that cannot be a base image.
    """
    if not (folder / "oci-layout").is_file() or not (folder / "index.json").is_file():
        raise EngineError(
            _(
                "{folder} is not an OCI image layout (oci-layout or index.json is missing)",
                folder=folder,
            )
        )
    manifest_digest = manifest_digest or _only_manifest(folder)
    raw = _verified(folder, manifest_digest)
    manifest = parse_document(raw, f"{folder}: {manifest_digest}")
    try:
        config = _layout_blob(folder, manifest["config"])
        layers = tuple(_layout_blob(folder, layer) for layer in manifest["layers"])
    except (KeyError, TypeError) as error:
        raise EngineError(
            _(
                "{folder}: {digest} is not the manifest of an image (no {error})",
                folder=folder,
                digest=manifest_digest,
                error=error,
            )
        ) from error
    shown = f"{folder}: {config.digest}"
    usable_base_image.check_configuration(
        parse_document(_verified(folder, config.digest), shown), str(folder)
    )
    usable_base_image.check_compression((_compression(layer) for layer in layers), str(folder))
    return ImageParts(raw, str(manifest.get("mediaType") or OCI_MANIFEST), config, layers)


def _only_manifest(folder: Path) -> str:
    """Return the digest of the layout's only image."""
    index = folder / "index.json"
    entries = _manifests(parse_document(read_regular(index, limits.IMAGE_DOCUMENT), str(index)))
    if len(entries) == 1 and entries[0].get("mediaType") in (OCI_INDEX, DOCKER_LIST):
        nested = _verified(folder, str(entries[0].get("digest")))
        entries = _manifests(parse_document(nested, str(folder)))
    if any(entry.get("platform") for entry in entries):
        entries = [usable_base_image.select_manifest(entries, str(folder))]
    if len(entries) != 1:
        raise EngineError(
            _("{file} contains {count} images instead of one", file=folder, count=len(entries)),
            hint=_("make a layout of one image: skopeo copy oci:FOLDER:NAME oci:NEW_FOLDER:NAME"),
        )
    return str(entries[0].get("digest"))


def _manifests(index: dict[str, Any]) -> list[Mapping[str, Any]]:
    entries = index.get("manifests")
    return [each for each in entries if isinstance(each, dict)] if type(entries) is list else []


def _compression(layer: Blob) -> str:
    with layer.open() as file:
        return compression(file.read(MAGIC_LENGTH))


def _layout_blob(folder: Path, descriptor: dict[str, Any]) -> Blob:
    file = _blob_file(folder, str(descriptor["digest"]))
    size = descriptor["size"]
    if not file.is_file():
        raise VerifyError(_("{file}: missing; expected {size} bytes", file=file, size=size))
    if (found := file.stat().st_size) != size:
        raise VerifyError(
            _("{file}: {found} bytes; expected {size} bytes", file=file, found=found, size=size)
        )
    return Blob(str(descriptor["digest"]), int(size), lambda: open_buffered(file))


def _blob_file(folder: Path, digest: str) -> Path:
    algorithm, _separator, value = digest.partition(":")
    if algorithm != "sha256" or not SHA256_HEX.fullmatch(value):
        raise EngineError(
            _("{folder}: {digest!r} is not a SHA-256 digest", folder=folder, digest=digest)
        )
    return folder / "blobs" / "sha256" / value


def _verified(folder: Path, digest: str) -> bytes:
    """Return the bytes of a manifest or config; raise VerifyError if they do not match."""
    file = _blob_file(folder, digest)
    if not file.is_file():
        raise VerifyError(_("{file}: missing", file=file))
    try:
        data = read_regular(file, limits.IMAGE_DOCUMENT)
    except UnsuitableFile as error:
        raise VerifyError(_("{file}: {problem}", file=file, problem=error.strerror)) from None
    if (found := digest_of(data)) != digest:
        raise VerifyError(
            _(
                "{file}: checksum mismatch: {found}; expected {digest}",
                file=file,
                found=found,
                digest=digest,
            )
        )
    return data
