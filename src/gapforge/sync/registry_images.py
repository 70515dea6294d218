"""Base images in registries: look them up and copy them with skopeo."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import Any

from gapforge.base import limits, process
from gapforge.base.addresses import registry_of
from gapforge.base.errors import Fault, FetchError, GapforgeError, StorageError, ToolError
from gapforge.base.files import sha256_bytes, sha256_file
from gapforge.base.i18n import _
from gapforge.base.marked_folders import mark_folder, remove_folder
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.storage_errors import storage_errors
from gapforge.base.strict_json import parse_json, read_json
from gapforge.base.system_errors import error_text
from gapforge.base.write_files import link_or_copy
from gapforge.model import names, usable_base_image
from gapforge.model.credentials import REGISTRY_LOGINS
from gapforge.model.lock import LockedImage
from gapforge.model.preset import BaseImage
from gapforge.model.unresolved_item import LOGIN_REQUIRED, NO_ANSWER, Reason
from gapforge.sync import oci_layout
from gapforge.sync.base_image_facts import cudnn_version, read_files
from gapforge.sync.network import Network, NoAnswerError, clock_hint

# skopeo gives no exit code for a refused login or an unknown image: only its message tells, a chain
# of parts joined by ": ". A part is compared as a whole, so that a name, a digest or a port in
# another part decides nothing. The parts are error codes and texts of registries (OCI Distribution
# Specification, "Error Codes") and HTTP statuses.
_REFUSED = {
    "access forbidden",
    "access to the requested resource is not authorized",
    "authentication required",
    "denied",
    "insufficient_scope",
    "invalid username/password",
    "requested access to the resource is denied",
    "unauthorized",
}
_ABSENT = {"manifest unknown", "name unknown", "repository name not known to registry"}
_STATUS = re.compile(
    r"(?:StatusCode: |status code from registry |unexpected HTTP status: )(\d{3})\b"
)
_LOCAL = re.compile(r"(?:open|mkdir|read|write|stat|lstat|rename|chmod|link) (/.*)")
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?/")


def look_up(base: BaseImage, network: Network) -> tuple[LockedImage, oci_layout.Files]:
    """Return an image as its manifest describes it, and the files of its layout.

    The operating system is "" (only the layers have it); CUDA and cuDNN come from the environment
    variables of the configuration. Raise FetchError for an unusable image, NoAnswerError if the
    registry does not answer.
    """
    found = _find(base, network)
    media_type, config_blob, layers = _read_manifest(found, base.image)
    config = _inspect(f"{found.source}@{found.platform}", base.image, network, "--config")
    try:
        if f"sha256:{sha256_bytes(config)}" != config_blob.digest:
            raise ValueError(_("the configuration is not the one that the manifest names"))
        parsed = parse_json(config)
        usable_base_image.check_configuration(parsed, base.image)
        env = oci_layout.environment(parsed)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(base.image, error) from error
    top = oci_layout.Blob(media_type, found.platform, len(found.raw))
    files = {f"blobs/sha256/{b.sha256}": (b.sha256, b.size) for b in (top, config_blob, *layers)}
    for name, text in oci_layout.layout_texts(top).items():
        files[name] = (sha256_bytes(text.encode()), len(text.encode()))
    return LockedImage(
        reference=found.reference,
        manifest_digest=found.platform,
        config_digest=config_blob.digest,
        os_id="",
        os_version="",
        cuda=env.get("CUDA_VERSION", ""),
        cudnn=cudnn_version(env),
    ), files


def _read_manifest(found: _Found, image: str) -> tuple[str, oci_layout.Blob, list[oci_layout.Blob]]:
    """Return media type, configuration and layers of a manifest.

    Raise TargetError for layers that some engines cannot load, before they are downloaded.
    """
    try:
        manifest = parse_json(found.raw)
        media_type = str(manifest.get("mediaType", names.OCI_MANIFEST))
        config = oci_layout.blob(manifest["config"])
        layers = [oci_layout.blob(layer) for layer in manifest["layers"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(image, error) from error
    zstd = ["zstd" for layer in layers if layer.media_type.endswith("+zstd")]
    usable_base_image.check_compression(zstd, image)
    return media_type, config, layers


def _unusable(image: str, error: Exception) -> FetchError:
    return FetchError(
        _("{image} cannot be used: {reason}", image=image, reason=error_text(error)),
        hint=_choose_another(),
    )


def _choose_another() -> str:
    return _("specify another image in the preset")


def split_reference(reference: str) -> tuple[str, str, str]:
    """Return ``name:tag@digest`` as (name, tag, digest).

    The tag is "latest" if neither is given.
    """
    name, _separator, digest = reference.partition("@")
    tag = ""
    if ":" in name.rsplit("/", 1)[-1]:
        name, _separator, tag = name.rpartition(":")
    return name, tag or ("" if digest else "latest"), digest


@dataclass(frozen=True)
class _Found:
    """An image in its registry.

    ``source`` is the repository to read (perhaps of a mirror), without tag or digest. ``reference``
    is the ``name:tag@digest`` for the lock; for a multi-platform image it has the digest of the
    index, as registries show it. ``platform`` is the digest of the manifest for linux/amd64,
    ``raw`` its exact bytes.
    """

    source: str
    reference: str
    platform: str
    raw: bytes


def _find(base: BaseImage, network: Network) -> _Found:
    """Return what the registry has under the preset's name.

    Raise FetchError if it is not the pinned image.
    """
    network.require(_("downloading the base image {image}", image=base.image))
    name, tag, digest = split_reference(base.image)
    digest = base.digest or digest
    source = split_reference(network.registry(f"{name}:{tag}" if tag else name))[0]
    top = f"{source}@{digest}" if digest else f"{source}:{tag}"
    raw = _inspect(top, base.image, network)
    actual = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    if digest and actual != digest:
        raise FetchError(
            _("{image} in the registry is not the pinned image", image=base.image),
            faults=[_other_manifest(base.image, actual, digest)],
        )
    manifest = _document(raw, base.image)
    platform = actual
    if manifest.get("mediaType") in oci_layout.INDEX_TYPES or "manifests" in manifest:
        platform = _choose(manifest, base.image)
        raw = _inspect(f"{source}@{platform}", base.image, network)
        if (found := f"sha256:{sha256_bytes(raw)}") != platform:
            raise FetchError(
                _(
                    "{image} in the registry is not the image that its index names",
                    image=base.image,
                ),
                faults=[_other_manifest(base.image, found, platform)],
            )
    return _Found(source, f"{name}:{tag}@{actual}" if tag else f"{name}@{actual}", platform, raw)


def _other_manifest(image: str, found: str, expected: str) -> Fault:
    return Fault(image, _("manifest digest is {found}", found=found), expected)


def copy(
    base: BaseImage, project: Project, destination: Path, network: Network, progress: Progress
) -> str:
    """Copy the image into ``destination`` as an OCI layout. Return its reference for the lock."""
    found = _find(base, network)
    _read_manifest(found, base.image)
    source, platform = found.source, found.platform
    purpose = "a base image that is being downloaded"
    partial = mark_folder(project.state / "images" / platform.removeprefix("sha256:"), purpose)
    layout_folder = partial / "layout"
    _drop_damaged(layout_folder)
    shown = f"{base.image}@{found.reference.rpartition('@')[2]}"
    progress.note(_("downloading {reference}", reference=shown))
    # Without --preserve-digests skopeo converts Docker manifests to OCI ones, which changes both
    # digests.
    command = [
        "skopeo",
        "copy",
        "--preserve-digests",
        "--override-os",
        "linux",
        "--override-arch",
        "amd64",
        "--retry-times",
        str(network.retries),
        *_plain_http(source, "--src-tls-verify=false"),
        f"docker://{source}@{platform}",
        f"oci:{layout_folder}:base",
    ]
    lines: list[str] = []
    with (
        _watched(layout_folder, progress, base.image),
        network.skopeo_environment(source) as environment,
    ):
        code = process.stream(command, lines.append, env=environment)
    if code != 0:
        raise _failure(base.image, "\n".join(lines), network)
    blob = _single(layout_folder, platform, base.image)
    with storage_errors(destination):
        for file in sorted((layout_folder / "blobs" / "sha256").iterdir()):
            file.chmod(0o644)  # skopeo makes files that only their owner can read
            link_or_copy(file, destination / "blobs" / "sha256" / file.name)
    oci_layout.write_layout(destination, blob)
    layout = oci_layout.read_layout(destination)
    try:
        read_files(layout)
    except GapforgeError:
        # A blob that skopeo took for complete is damaged, so the next run must not use it again.
        remove_folder(partial)
        raise
    oci_layout.drop_other_blobs(layout)  # such as those of an interrupted copy
    remove_folder(partial)
    return found.reference


def _inspect(reference: str, shown: str, network: Network, *options: str) -> bytes:
    """Return the exact bytes of the manifest, or with ``--config`` of the configuration."""
    command = [
        "skopeo",
        "inspect",
        "--raw",
        *options,
        "--retry-times",
        str(network.retries),
        *_plain_http(reference, "--tls-verify=false"),
        f"docker://{reference}",
    ]
    try:
        with (
            network.skopeo_environment(reference) as environment,
            process.piped(command, env=environment) as output,
        ):
            return output.read(limits.IMAGE_DOCUMENT)
    except ToolError as error:
        if error.is_missing:
            raise
        raise _failure(shown, error.output, network, error.message) from error


@contextmanager
def _watched(folder: Path, progress: Progress, detail: str) -> Iterator[None]:
    """Report the bytes in ``folder`` to ``progress``: skopeo reports none without a terminal."""
    done = threading.Event()

    def size() -> int:
        total = 0
        for file in folder.rglob("*"):
            with suppress(OSError):  # the file was renamed
                total += file.lstat().st_size if file.is_file() else 0
        return total

    def watch() -> None:
        seen = size()
        while True:
            last = done.wait(0.5)
            now = max(seen, size())
            progress.add(now - seen, detail)
            seen = now
            if last:
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _plain_http(reference: str, flag: str) -> list[str]:
    """Return ``flag`` for a registry on this machine, which, as in Docker, needs no TLS.

    Other registries without TLS belong into registries.conf.
    """
    return [flag] if _LOOPBACK.match(reference) else []


def _failure(image: str, output: str, network: Network, fallback: str = "") -> GapforgeError:
    """Return the error for a failed skopeo. ``fallback`` is shown if there is no ``output``."""
    reason = _last_message(output)
    last = reason or _last_message(fallback) or _("skopeo gave no reason")
    message = _("the base image {image} cannot be downloaded: {last}", image=image, last=last)
    server = f"registry:{registry_of(image)}"
    mirrored = network.registry(image)
    parts = reason.split(": ")
    codes = {part.strip().lower() for part in parts}
    status = match[1] if (match := _STATUS.search(reason)) else ""
    if codes & _REFUSED or status in ("401", "403"):
        return NoAnswerError(
            message,
            reason=Reason(code=LOGIN_REQUIRED, server=server),
            hint=_login_hint(registry_of(mirrored), network),
        )
    # A 404 for the registry's first page means that there is no registry at all.
    of_image = any(code.startswith("reading manifest ") for code in codes)
    if codes & _ABSENT or (status == "404" and of_image):
        return FetchError(message, hint=_("correct the name, tag or digest in the preset"))
    for part, why in pairwise(parts):
        if local := _LOCAL.search(part):
            file = local[1].strip('"')
            return StorageError(message, faults=[Fault(file, why)], hint=f"ls -ld {quote(file)}")
    command = f"skopeo inspect --raw docker://{mirrored}"
    return NoAnswerError(
        message,
        reason=Reason(code=NO_ANSWER, server=server),
        hint=clock_hint(last)
        or _("check whether the registry can be reached: {command}", command=command),
    )


def _last_message(output: str) -> str:
    """Return the message in the last line of skopeo's log, "" for none."""
    lines = output.strip().splitlines()
    last = lines[-1] if lines else ""
    if logged := re.search(r'msg="((?:[^"\\]|\\.)*)"', last):
        return re.sub(r"\\[nt]", " ", logged[1]).replace('\\"', '"').strip()
    return last


def _login_hint(registry: str, network: Network) -> str:
    """Return what to do about a registry that refuses access."""
    if registry in network.credentials.logins:
        return _(
            "correct the line of {registry} in {key} of .env: its user or password is wrong or "
            "expired, or may not read the image",
            registry=registry,
            key=REGISTRY_LOGINS,
        )
    return _(
        "set {key} in .env to '{registry} USER PASSWORD', or log in (skopeo login {registry!q}); "
        "then run the same command again",
        registry=registry,
        key=REGISTRY_LOGINS,
    )


def _document(raw: bytes, image: str) -> dict[str, Any]:
    """Return a manifest as a JSON object. Raise FetchError if it is none."""
    try:
        value = parse_json(raw)
        if isinstance(value, dict):
            return value
    except ValueError:
        pass
    raise FetchError(_("{image}: the registry did not send a manifest", image=image))


def _choose(index: Mapping[str, Any], image: str) -> str:
    """Return the digest of the manifest that every amd64 machine can use."""
    entries = [e for e in index.get("manifests") or () if isinstance(e, dict)]
    digest = str(usable_base_image.select_manifest(entries, image).get("digest", ""))
    if not oci_layout.DIGEST.fullmatch(digest):
        raise FetchError(
            _("unsupported digest {digest!r}; expected sha256:<64 hex digits>", digest=digest),
            hint=_choose_another(),
        )
    return digest


def _single(folder: Path, digest: str, image: str) -> oci_layout.Blob:
    """Return the descriptor of the manifest that skopeo wrote.

    Raise FetchError if it is not ``digest``.
    """
    index = read_json(folder / "index.json", limits.IMAGE_DOCUMENT)
    found = [e for e in index["manifests"] if e["digest"] == digest]
    if not found:
        raise FetchError(
            _("{image} was stored with another digest than the registry has", image=image),
            faults=[Fault(str(folder), ", ".join(e["digest"] for e in index["manifests"]), digest)],
        )
    return oci_layout.Blob(found[0]["mediaType"], digest, found[0]["size"])


def _drop_damaged(folder: Path) -> None:
    """Delete blobs of an interrupted copy that are damaged; skopeo does not verify them."""
    blobs = folder / "blobs" / "sha256"
    if not blobs.is_dir():
        return
    for file in sorted(blobs.iterdir()):
        if sha256_file(file) != file.name:
            file.unlink()
