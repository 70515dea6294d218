"""Read an image from a ``docker save`` archive, plain or compressed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gapforge.base import limits, process
from gapforge.base.compression import MAGIC_LENGTH, compression, damage_as
from gapforge.base.errors import EngineError, VerifyError
from gapforge.base.files import CHUNK, open_buffered
from gapforge.base.i18n import _
from gapforge.base.strict_json import parse_json
from gapforge.engine.image_parts import Blob, ImageParts, digest_of, parse_document
from gapforge.model import usable_base_image
from gapforge.model.names import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST


@contextmanager
def open_archive(path: Path) -> Iterator[ImageParts]:
    """Give the image of the archive, which stays open while the block runs.

    Layers are read once to compute their digests, which are compared with the config's diff IDs
    where the layers are not compressed. Raise EngineError for a file that is not such an archive of
    one image, VerifyError for a damaged layer, TargetError for an image that cannot be a base
    image.
    """
    with open_buffered(path, follow=True) as file:
        if compression(file.read(MAGIC_LENGTH)) == "zstd":
            plain = path.with_name(
                path.name.removesuffix(".zst").removesuffix(".tar") + ".plain.tar"
            )
            raise EngineError(
                _("{path} is compressed with zstd, which cannot be read here", path=path),
                hint=f"zstd -d {process.quoted([str(path), '-o', str(plain)])}",
            )
        file.seek(0)
        with damage_as(lambda cause: _incomplete(path, cause)):
            tar = tarfile.open(fileobj=file)  # noqa: SIM115 - closed by the with below
        with tar:
            with damage_as(lambda cause: _incomplete(path, cause)):
                parts = _Archive(tar, path).image()
            yield parts


def _incomplete(path: Path, cause: Exception) -> EngineError:
    return EngineError(
        _("{path} is not a complete `docker save` archive: {error}", path=path, error=cause)
    )


class _Archive:
    def __init__(self, tar: tarfile.TarFile, path: Path) -> None:
        self.tar, self.path = tar, path

    def image(self) -> ImageParts:
        config_bytes, names, diff_ids = self._read_index()
        if len(names) != len(diff_ids):
            raise EngineError(
                _(
                    "{path}: {count} layers, but the config names {wanted}",
                    path=self.path,
                    count=len(names),
                    wanted=len(diff_ids),
                )
            )
        config = Blob(digest_of(config_bytes), len(config_bytes), lambda: io.BytesIO(config_bytes))
        layers, descriptors = [], []
        for name, diff_id in zip(names, diff_ids, strict=True):
            blob, media_type = self._layer(name, diff_id)
            layers.append(blob)
            descriptors.append({"mediaType": media_type, "digest": blob.digest, "size": blob.size})
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config.digest, "size": config.size},
            "layers": descriptors,
        }
        raw = json.dumps(manifest, sort_keys=True).encode()
        return ImageParts(raw, OCI_MANIFEST, config, tuple(layers))

    def _read_index(self) -> tuple[bytes, list[str], list[str]]:
        """Return the config, the members that hold the layers, and the layers' diff IDs."""
        try:
            listed = parse_json(self._document("manifest.json"))
            if len(listed) != 1:
                raise EngineError(
                    _(
                        "{file} contains {count} images instead of one",
                        file=self.path,
                        count=len(listed),
                    ),
                    hint=_("save a single image: docker save NAME -o FILE"),
                )
            config = self._document(listed[0]["Config"])
            names = [str(name) for name in listed[0]["Layers"]]
            parsed = parse_document(config, f"{self.path}: {listed[0]['Config']}")
            usable_base_image.check_configuration(parsed, str(self.path))
            return config, names, [str(i) for i in parsed["rootfs"]["diff_ids"]]
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                _(
                    "{path}: manifest.json or the config that it names is invalid: {error!r}",
                    path=self.path,
                    error=error,
                )
            ) from error

    def _document(self, name: str) -> bytes:
        with self._member(name) as file:
            data = file.read(limits.IMAGE_DOCUMENT + 1)
        if len(data) > limits.IMAGE_DOCUMENT:
            raise EngineError(_("{path}: {name} is too large", path=self.path, name=name))
        return data

    def _member(self, name: str) -> IO[bytes]:
        try:
            # This follows the links that old archives use for repeated layers.
            file = self.tar.extractfile(name)
        except KeyError:
            file = None
        if file is None:
            hint = ""
            if name == "manifest.json" and "oci-layout" in self.tar.getnames():
                hint = _(
                    "this is an OCI archive; unpack it and name the folder: mkdir DIR && tar "
                    "-xf {path!q} -C DIR",
                    path=self.path,
                )
            raise EngineError(
                _(
                    "{path} is not a `docker save` archive: {name} is missing",
                    path=self.path,
                    name=name,
                ),
                hint=hint,
            )
        return file

    def _layer(self, name: str, diff_id: str) -> tuple[Blob, str]:
        """Return a layer with the digest of its bytes, and its media type."""
        sha256, size, head = hashlib.sha256(), 0, b""
        with self._member(name) as file:
            while chunk := file.read(CHUNK):
                head = head or chunk[:MAGIC_LENGTH]
                sha256.update(chunk)
                size += len(chunk)
        digest, kind = "sha256:" + sha256.hexdigest(), compression(head)
        usable_base_image.check_compression([kind], str(self.path))
        if not kind and digest != diff_id:
            raise VerifyError(
                _(
                    "{path}: layer {name}: checksum mismatch: {digest}; expected {diff_id}",
                    path=self.path,
                    name=name,
                    digest=digest,
                    diff_id=diff_id,
                )
            )
        media_type = f"{OCI_LAYER}+{kind}" if kind else OCI_LAYER
        return Blob(digest, size, lambda: self._member(name)), media_type
