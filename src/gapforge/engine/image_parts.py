"""Describe one container image by its manifest, its config and its layers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Any

from gapforge.base.errors import EngineError
from gapforge.base.files import sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.strict_json import parse_json
from gapforge.base.system_errors import error_text


@dataclass(frozen=True)
class Blob:
    """Bytes with a digest ("sha256:…") and a size; ``open`` gives them for reading, unverified."""

    digest: str
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class ImageParts:
    """One image, ready to be written: the bytes of its manifest, its config, and its layers.

    The lowest layer comes first.
    """

    manifest: bytes
    media_type: str
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def manifest_digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def size(self) -> int:
        """Bytes of all blobs; a layer that is used twice counts once."""
        return self.config.size + sum({b.digest: b.size for b in self.layers}.values())


def digest_of(data: bytes) -> str:
    """Return the digest ("sha256:…") of some bytes."""
    return "sha256:" + sha256_bytes(data)


def parse_document(data: bytes, file: str) -> dict[str, Any]:
    """Return a JSON object; raise EngineError naming ``file`` if it is none."""
    try:
        value = parse_json(data)
    except ValueError as error:
        raise EngineError(
            _("{file} is not JSON: {reason}", file=file, reason=error_text(error))
        ) from error
    if not isinstance(value, dict):
        raise EngineError(_("{file} is not a JSON object", file=file))
    return value
