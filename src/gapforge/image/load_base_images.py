"""Puts base images into the engine under a local name that cannot mean anything else, and proves which they are.

``docker load`` loses registry digests and BuildKit reads ``FROM name@sha256`` as a question to a registry, so
a base is loaded as ``localhost/gapforge/base:<config digest>`` and compared by digest afterwards. A name under
``localhost/`` is never looked up elsewhere (measured: any other name costs a 20 s DNS timeout on some daemons).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from gapforge.base.errors import EngineError, TargetError, VerifyError
from gapforge.base.i18n import _
from gapforge.base.progress import Progress, human_bytes, human_time
from gapforge.engine.image_archive import ImageParts, open_archive, read_layout, write_image
from gapforge.engine.protocol import Engine, OnLine
from gapforge.model.lock import LockedImage

REPOSITORY = "localhost/gapforge/base"
REPORT_INTERVAL = 5.0  # seconds between lines about a long load
OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")


def base_name(digest: str) -> str:
    """The local name for a base image with this config digest ("sha256:…")."""
    return f"{REPOSITORY}:{digest.partition(':')[2][:24]}"


def ensure(engine: Engine, layout: Path, image: LockedImage, on_line: OnLine) -> str:
    """The local name of ``image``, loaded from its OCI ``layout`` unless the engine has it already.

    Raises VerifyError when the layout holds other bytes than the lock says, EngineError when the engine ends
    up with another image; that image's name is taken away again.
    """
    name = base_name(image.config_digest)
    if {image.config_digest, image.manifest_digest} & set(engine.image_ids(name)):
        return name
    parts = read_layout(layout, image.manifest_digest)
    if parts.config.digest != image.config_digest:
        raise VerifyError(
            _(
                "{layout}: the image's config is {digest}; the lock says {config_digest}",
                layout=layout,
                digest=parts.config.digest,
                config_digest=image.config_digest,
            ),
            hint=_("online: ./deps_sync.sh PRESET --update, or copy the artifacts again"),
        )
    _load(engine, parts, name, layout.name, on_line)
    return name


def ensure_override(engine: Engine, value: str, on_line: OnLine) -> tuple[str, str, str, str]:
    """(local name, digest, OS id, OS version) of the base that a user named instead of the preset's.

    ``value`` is the path of a ``docker save`` archive or an OCI layout folder, or the name of an image that is
    in the engine; nothing is pulled. The digest is the config's, except for an image that a containerd store
    already holds: there it is the manifest's. Raises EngineError when it is neither, TargetError when the
    image does not say which OS it is.
    """
    path = Path(value).expanduser()
    if path.is_file():
        with open_archive(path) as parts:
            digest = parts.config.digest
            name = _loaded(engine, parts, path.name, on_line)
    elif (path / "oci-layout").exists():
        parts = read_layout(path)
        digest = parts.config.digest
        name = _loaded(engine, parts, path.name, on_line)
    else:
        name, digest = _present(engine, value, path)
    return (name, digest, *os_of(engine, name))


def _present(engine: Engine, value: str, path: Path) -> tuple[str, str]:
    """The local name and digest of an image that the engine has."""
    if path.is_dir():
        raise EngineError(
            _(
                "{value} is a folder, but no OCI image layout (it has no file oci-layout)",
                value=value,
            ),
            hint=_("make one: skopeo copy docker-archive:FILE.tar oci:FOLDER:base"),
        )
    looks_like_path = value.startswith(("/", ".", "~")) or re.search(
        r"\.(tar|tgz|tar\.\w+)$", value
    )
    ids = () if looks_like_path else engine.image_ids(value)
    if not ids:
        what = (
            _("there is no such file")
            if looks_like_path
            else _("no file and no image in the engine has this name")
        )
        raise EngineError(
            _("base image {value}: {what}; nothing is pulled", value=value, what=what),
            hint=_("see the engine's images: docker images; or load one: docker load -i FILE.tar"),
        )
    name = base_name(ids[0])
    engine.tag(value, name)
    return name, ids[0]


def os_of(engine: Engine, name: str) -> tuple[str, str]:
    """(ID, VERSION_ID) from the os-release file in an image, read by running ``cat`` in it.

    Raises TargetError when it has none.
    """
    errors = ""
    for file in OS_RELEASE:
        code, output, errors = engine.run(name, ["cat", file], timeout=120)
        if code == 0:
            fields = dict(re.findall(r"^([A-Z_]+)=[\"']?(.*?)[\"']?\s*$", output, re.MULTILINE))
            if fields.get("ID"):
                return fields["ID"], fields.get("VERSION_ID", "")
    said = errors.strip()[:200]
    raise TargetError(
        _(
            "{name} does not say which operating system it is (no usable {os_release}): {said}",
            name=name,
            os_release=OS_RELEASE[0],
            said=said,
        )
    )


def _loaded(engine: Engine, parts: ImageParts, shown: str, on_line: OnLine) -> str:
    name = base_name(parts.config.digest)
    if not {parts.config.digest, parts.manifest_digest} & set(engine.image_ids(name)):
        _load(engine, parts, name, shown, on_line)
    return name


def _load(engine: Engine, parts: ImageParts, name: str, shown: str, on_line: OnLine) -> None:
    """Stream the image into the engine and compare what it then has under ``name``."""
    what = _("loading base image {shown}", shown=shown)
    progress = Progress(what, parts.size, quiet=True)
    guard = threading.Lock()
    reported = start = time.monotonic()

    def count(size: int) -> None:
        nonlocal reported
        with guard:
            progress.add(size)
            if time.monotonic() - reported >= REPORT_INTERVAL:
                reported = time.monotonic()
                on_line(progress.line())

    def feed(pipe: IO[bytes]) -> None:
        write_image(parts, name, pipe, count)

    on_line(f"{what}: {human_bytes(parts.size)}")
    engine.load(feed, lambda line: None if line.startswith("Loaded image") else on_line(line))
    _compare(engine, name, (parts.config.digest, parts.manifest_digest))
    took = human_time(time.monotonic() - start)
    on_line(
        _(
            "base image {shown} is in the engine as {name} after {took}",
            shown=shown,
            name=name,
            took=took,
        )
    )


def _compare(engine: Engine, name: str, expected: Iterable[str]) -> None:
    wanted = tuple(expected)
    found = engine.image_ids(name)
    if set(found) & set(wanted):
        return
    engine.untag(name)
    held = " ".join(found)
    raise EngineError(
        _(
            "the engine holds another image than the one it was given as {name}: {held}; "
            "expected {wanted}",
            name=name,
            held=held or _("none"),
            wanted=_(" or ").join(wanted),
        )
    )
