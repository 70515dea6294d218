"""Convert a `docker save` archive to an OCI layout without changing the image's id.

skopeo can convert too, but it rewrites the configuration, so `docker images` would show another id.
Here the configuration and the layers keep their bytes.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from gapforge.base.compression import MAGIC_LENGTH, compression, damage_as, uncompressed
from gapforge.base.errors import Fault, FetchError, ToolError
from gapforge.base.files import CHUNK, open_buffered
from gapforge.base.i18n import _
from gapforge.base.storage_errors import storage_errors
from gapforge.base.strict_json import parse_json
from gapforge.model import names
from gapforge.sync import oci_layout
from gapforge.sync.oci_layout import Blob

_LINKS = 16  # a layer may be a link to the layer.tar of another image; longer chains are a loop


def import_archive(file: Path, destination: Path) -> str:
    """Convert the only image in ``file`` (plain or compressed) to an OCI layout.

    Return its first name, or "". Raise FetchError if ``file`` is not such an archive, contains
    several images, or is damaged.
    """
    with storage_errors(destination):
        (destination / "blobs" / "sha256").mkdir(parents=True)
        try:
            with damage_as(lambda cause: _not_unpacked(file, cause)):
                members = _Members(file, destination)
            if "manifest.json" not in members.stored:
                raise _unusable(file, _("manifest.json is missing"))
            images = parse_json(members.read("manifest.json"))
            if len(images) != 1:
                raise _several_images(file, images)
            config = members.read(images[0]["Config"])
            layers = [members.loadable(name) for name in images[0]["Layers"]]
            tags = images[0].get("RepoTags") or [""]
            name = str(tags[0])
        except ToolError as error:
            if error.is_missing:
                raise
            raise _not_unpacked(file, error) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _unusable(
                file, _("manifest.json is not valid ({error!r})", error=error)
            ) from error
        oci_layout.add_image(destination, config, layers)
        oci_layout.drop_other_blobs(oci_layout.read_layout(destination))
    return name


class _Members:
    """The members of an archive, stored in the layout ``destination``, and its links, by name."""

    def __init__(self, file: Path, destination: Path) -> None:
        self.file, self.destination = file, destination
        self.stored: dict[str, Blob] = {}
        self._links: dict[str, str] = {}
        # One pass in archive order: only the manifest at the end names the layers, and to seek in a
        # compressed archive is to unpack it again each time.
        with (
            open_buffered(file, follow=True) as stored,
            uncompressed(stored, compression(_peek(stored))) as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else they pile up in memory
                self._take(archive, member)

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = os.path.normpath(member.name)
        if member.issym():
            folder = os.path.dirname(name)
            self._links[name] = os.path.normpath(os.path.join(folder, member.linkname))
        elif member.islnk():
            self._links[name] = os.path.normpath(member.linkname)
        elif member.isfile():
            content = archive.extractfile(member)
            assert content is not None
            self.stored[name] = _store(content, self.destination)

    def find(self, name: str) -> Blob:
        """Return a member, through links. Raise FetchError if it is missing."""
        name = os.path.normpath(name)
        for _round in range(_LINKS):
            if name in self.stored:
                return self.stored[name]
            name = self._links.get(name, "")
        raise _unusable(self.file, _("{member} is missing", member=name or _("a layer")))

    def loadable(self, name: str) -> Blob:
        """Return a layer in a compression that every engine loads, or else uncompressed.

        The id of the image stays: its configuration names the layers by their uncompressed bytes.
        """
        layer = self.find(name)
        kind = oci_layout.compression_of(self.destination, layer)
        if kind in ("", "gzip"):
            return layer
        with (
            damage_as(lambda cause: _not_unpacked(self.file, cause)),
            open_buffered(layer.path(self.destination)) as stored,
            uncompressed(stored, kind) as plain,
        ):
            return _store(plain, self.destination)

    def read(self, name: str) -> bytes:
        """Return the content of a small member. Raise FetchError if it is missing."""
        return oci_layout.read_small(self.destination, self.find(name))


def _several_images(file: Path, images: Sequence[Mapping[str, Any]]) -> FetchError:
    """Return the error for an archive that contains no image or several."""
    unnamed = _("(no name)")
    names = [tag for image in images for tag in image.get("RepoTags") or [unnamed]]
    name = next((name for name in names if name != unnamed), "NAME:TAG")
    command = f"docker save {name} -o {file.name}"
    found = _("contains {images}", images=", ".join(names))
    return FetchError(
        _(
            "{name} contains {count} images; a base image archive must contain one",
            name=file.name,
            count=len(images),
        ),
        faults=[Fault(str(file), found, _("one image"))],
        hint=_("save only the image that you need: {command}", command=command),
    )


def _store(content: IO[bytes], destination: Path) -> Blob:
    """Write a member into the layout under its digest. Its media type is that of a layer."""
    temporary = destination / "blobs" / ".incoming"
    digest = hashlib.sha256()
    size, start = 0, b""
    with open(temporary, "wb") as out:
        while chunk := content.read(CHUNK):
            start = start or chunk[:MAGIC_LENGTH]
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
    os.replace(temporary, destination / "blobs" / "sha256" / digest.hexdigest())
    kind = compression(start)
    media_type = f"{names.OCI_LAYER}+{kind}" if kind else names.OCI_LAYER
    return Blob(media_type, f"sha256:{digest.hexdigest()}", size)


def _peek(file: IO[bytes]) -> bytes:
    start = file.read(MAGIC_LENGTH)
    file.seek(0)
    return start


def _not_unpacked(file: Path, cause: Exception) -> FetchError:
    return _unusable(file, _("it cannot be unpacked ({error})", error=cause))


def _unusable(file: Path, reason: str) -> FetchError:
    return FetchError(
        _("{file} is not a usable `docker save` archive: {reason}", file=file, reason=reason),
        hint=_("save the image again: docker save NAME:TAG -o {name!q}", name=file.name),
    )
