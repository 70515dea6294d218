"""Load base images into the engine under a local name that is compared by digest.

``docker load`` loses registry digests and BuildKit reads ``FROM name@sha256`` as a question to a
registry, so a base image is loaded as ``localhost/gapforge/base:<config digest>`` and its digest is
compared afterwards. A name under ``localhost/`` is never looked up elsewhere (measured: any other
name costs a DNS timeout of 20 s on some daemons).
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import IO

from gapforge.base.errors import EngineError, VerifyError
from gapforge.base.i18n import _
from gapforge.base.path_checks import given_path
from gapforge.base.progress import Progress
from gapforge.base.units import human_bytes, human_time
from gapforge.engine.docker_load_archive import write_image
from gapforge.engine.docker_save_archive import open_archive
from gapforge.engine.image_parts import ImageParts
from gapforge.engine.protocol import Engine, OnLine
from gapforge.engine.read_oci_layout import read_layout
from gapforge.model import usable_base_image
from gapforge.model.lock import LockedImage
from gapforge.model.usable_base_image import UNKNOWN_OS

REPOSITORY = "localhost/gapforge/base"
REPORT_INTERVAL = 5.0  # seconds between lines about a long load
OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")


def base_name(digest: str) -> str:
    """Return the local name of a base image with this config digest ("sha256:…")."""
    return f"{REPOSITORY}:{digest.partition(':')[2][:24]}"


def ensure(engine: Engine, layout: Path, image: LockedImage, on_line: OnLine) -> str:
    """Return the local name of ``image``, loaded from its OCI ``layout`` if the engine lacks it.

    Raise VerifyError when the layout does not hold the image of the lock, EngineError when the
    engine ends up with another image.
    """
    name = base_name(image.config_digest)
    if _is_loaded(engine, image.config_digest, image.manifest_digest):
        return name
    parts = read_layout(layout, image.manifest_digest)
    if parts.config.digest != image.config_digest:
        raise VerifyError(
            _(
                "{layout}: the image has the config digest {found}; the lock has {expected}",
                layout=layout,
                found=parts.config.digest,
                expected=image.config_digest,
            ),
            hint=_("online: ./deps_sync.sh PRESET --update, or copy the artifacts again"),
        )
    _load(engine, parts, layout.name, on_line)
    return name


def ensure_override(engine: Engine, base: str, on_line: OnLine) -> LockedImage:
    """Return the ``--base`` image, loaded if need be under the ``base_name`` of its config digest.

    ``base`` is the path of a ``docker save`` archive or an OCI layout folder, or the name of an
    image in the engine; nothing is pulled. Both digests are the config's, except for an image that
    a containerd store already holds: there they are the manifest's. Raise EngineError when it is
    none of these, TargetError for an image that cannot be a base image.
    """
    path = given_path(base)
    if path.is_file():
        with open_archive(path) as parts:
            digest = _load_if_missing(engine, parts, path.name, on_line)
    elif (path / "oci-layout").exists():
        digest = _load_if_missing(engine, read_layout(path), path.name, on_line)
    else:
        digest = _name_present_image(engine, base, path)
    os_id, os_version = read_os(engine, base_name(digest))
    return LockedImage(
        reference=f"--base {base}",
        manifest_digest=digest,
        config_digest=digest,
        os_id=os_id,
        os_version=os_version,
    )


def read_os(engine: Engine, name: str) -> tuple[str, str]:
    """Return ID and VERSION_ID from the os-release file of an image, read by running ``cat`` in it.

    What the file does not name is "unknown", as in a lock.
    """
    for file in OS_RELEASE:
        code, output, _errors = engine.run(name, ["cat", file], timeout=120)
        if code == 0:
            fields = dict(re.findall(r"^([A-Z_]+)=[\"']?(.*?)[\"']?\s*$", output, re.MULTILINE))
            return fields.get("ID") or UNKNOWN_OS, fields.get("VERSION_ID") or UNKNOWN_OS
    return UNKNOWN_OS, UNKNOWN_OS


def _name_present_image(engine: Engine, base: str, path: Path) -> str:
    """Give an image that the engine has its local name, and return its digest."""
    if path.is_dir():
        raise EngineError(
            _("{base} is a folder, but not an OCI image layout (no file oci-layout)", base=base),
            hint=_("make one: skopeo copy docker-archive:FILE.tar oci:FOLDER:base"),
        )
    looks_like_path = base.startswith(("/", ".", "~")) or re.search(r"\.(tar|tgz|tar\.\w+)$", base)
    ids = () if looks_like_path else engine.image_ids(base)
    if not ids:
        raise EngineError(
            _("base image {base}: there is no such file; nothing is pulled", base=base)
            if looks_like_path
            else _(
                "base image {base}: no file and no image in the engine has this name; "
                "nothing is pulled",
                base=base,
            ),
            hint=_("see the engine's images: docker images; or load one: docker load -i FILE.tar"),
        )
    usable_base_image.check_configuration(engine.image_config(ids[0]), base)
    engine.tag(ids[0], base_name(ids[0]))  # ``base`` may name another image by now
    return ids[0]


def _is_loaded(engine: Engine, config_digest: str, manifest_digest: str) -> bool:
    """Return whether the local name of an image leads to it in the engine."""
    return bool({config_digest, manifest_digest} & set(engine.image_ids(base_name(config_digest))))


def _load_if_missing(engine: Engine, parts: ImageParts, file: str, on_line: OnLine) -> str:
    """Return the config digest of the image."""
    if not _is_loaded(engine, parts.config.digest, parts.manifest_digest):
        _load(engine, parts, file, on_line)
    return parts.config.digest


def _load(engine: Engine, parts: ImageParts, file: str, on_line: OnLine) -> None:
    """Stream the image into the engine under its local name, and check what it then has.

    ``file`` is the image's name for the reader.
    """
    name = base_name(parts.config.digest)
    title = _("loading base image {file}", file=file)
    progress = Progress(title, parts.size, quiet=True)
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

    on_line(f"{title}: {human_bytes(parts.size)}")
    engine.load(feed, lambda line: None if line.startswith("Loaded image") else on_line(line))
    _require_image(engine, parts)
    on_line(
        _(
            "base image {file} is in the engine as {name} after {duration}",
            file=file,
            name=name,
            duration=human_time(time.monotonic() - start),
        )
    )


def _require_image(engine: Engine, parts: ImageParts) -> None:
    """Raise EngineError, and remove the local name, if it leads to another image."""
    name, expected = base_name(parts.config.digest), (parts.config.digest, parts.manifest_digest)
    found = engine.image_ids(name)
    if set(found) & set(expected):
        return
    engine.untag(name)
    raise EngineError(
        _(
            "{name}: the engine has another image than the one that was loaded: {found}; "
            "expected {expected}",
            name=name,
            found=" ".join(found) or _("none"),
            expected=_(" or ").join(expected),
        )
    )
