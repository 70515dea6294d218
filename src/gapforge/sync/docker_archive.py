"""A `docker save` archive as an OCI layout, in one pass and without changing the image's id.

skopeo can convert too, but rewrites the configuration, and then the image is no longer the one that
`docker images` shows; here configuration and layers keep their bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gapforge.base.errors import Fault, FetchError
from gapforge.base.files import CHUNK, storage_errors
from gapforge.base.i18n import _
from gapforge.sync import oci_layout

_LINKS = 16  # a layer may be a link to another image's layer.tar; longer chains are a loop


@dataclass(frozen=True)
class _Stored:
    """An archive member, already lying in the layout under its digest."""

    digest: str
    size: int
    start: bytes


def import_archive(file: Path, destination: Path) -> str:
    """Turn the one image in ``file`` (plain or compressed) into an OCI layout; gives its first name, or "".

    Raises FetchError when ``file`` is no such archive, holds more than one image, or is damaged.
    """
    stored: dict[str, _Stored] = {}
    links: dict[str, str] = {}
    with storage_errors(destination):
        (destination / "blobs" / "sha256").mkdir(parents=True)
        try:
            # One pass in archive order: the names that matter are known only at the end, and seeking in a
            # compressed archive would unpack it again and again.
            with tarfile.open(file, mode="r|*") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]
                    name = os.path.normpath(member.name)
                    if member.issym():
                        links[name] = os.path.normpath(
                            os.path.join(os.path.dirname(name), member.linkname)
                        )
                    elif member.islnk():
                        links[name] = os.path.normpath(member.linkname)
                    elif member.isfile():
                        content = archive.extractfile(member)
                        assert content is not None
                        stored[name] = _store(content, destination)
        except (tarfile.TarError, EOFError) as error:
            raise _unusable(file, _("it cannot be unpacked ({error})", error=error)) from error

        def find(name: str) -> _Stored:
            name = os.path.normpath(name)
            for _round in range(_LINKS):
                if name in stored:
                    return stored[name]
                name = links.get(name, "")
            what = name or _("a layer")
            raise _unusable(file, _("{what} is missing in it", what=what))

        def text(name: str) -> bytes:
            found = find(name)
            return oci_layout.read_small(destination, oci_layout.Blob("", found.digest, found.size))

        if "manifest.json" not in stored:
            raise _unusable(file, _("it holds no manifest.json"))
        try:
            images = json.loads(text("manifest.json"))
            if len(images) != 1:
                unnamed = _("(no name)")
                names = [tag for image in images for tag in image.get("RepoTags") or [unnamed]]
                count, held = len(images), ", ".join(names)
                name = next((name for name in names if name != unnamed), "NAME:TAG")
                save = f"docker save {name} -o {file.name}"
                raise FetchError(
                    _(
                        "{name} holds {count} images; a base archive must hold one",
                        name=file.name,
                        count=count,
                    ),
                    faults=[Fault(str(file), _("holds {held}", held=held), _("one image"))],
                    hint=_("save the wanted one alone: {save}", save=save),
                )
            config = text(images[0]["Config"])
            layers = [find(name) for name in images[0]["Layers"]]
            tags = images[0].get("RepoTags") or []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unusable(
                file, _("its manifest.json is wrong ({error!r})", error=error)
            ) from error
        blobs = [oci_layout.Blob(_layer_type(layer), layer.digest, layer.size) for layer in layers]
        manifest = oci_layout.add_image(destination, config, blobs)
        _keep_only(destination, manifest)
    return str(tags[0]) if tags else ""


def _store(content: IO[bytes], destination: Path) -> _Stored:
    temporary = destination / "blobs" / ".incoming"
    digest = hashlib.sha256()
    size, start = 0, b""
    with open(temporary, "wb") as out:
        while chunk := content.read(CHUNK):
            start = start or chunk[:4]
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
    os.replace(temporary, destination / "blobs" / "sha256" / digest.hexdigest())
    return _Stored(f"sha256:{digest.hexdigest()}", size, start)


def _layer_type(layer: _Stored) -> str:
    if layer.start[:2] == b"\x1f\x8b":
        return f"{oci_layout.LAYER_TYPE}+gzip"
    return (
        f"{oci_layout.LAYER_TYPE}+zstd"
        if layer.start == b"\x28\xb5\x2f\xfd"
        else oci_layout.LAYER_TYPE
    )


def _keep_only(destination: Path, manifest: oci_layout.Blob) -> None:
    layout = oci_layout.read_layout(destination)
    known = {blob.path(destination) for blob in (manifest, layout.config_blob, *layout.layers)}
    for path in (destination / "blobs" / "sha256").iterdir():
        if path not in known:
            path.unlink()


def _unusable(file: Path, reason: str) -> FetchError:
    return FetchError(
        _("{file} is not a usable `docker save` archive: {reason}", file=file, reason=reason),
        hint=_("save the image again: docker save NAME:TAG -o {name}", name=file.name),
    )
