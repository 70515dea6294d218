"""Base images as OCI layouts: out of a registry, out of a `docker save` archive, or made from packages."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapforge.base import process
from gapforge.base.errors import (
    Fault,
    FetchError,
    GapforgeError,
    StorageError,
    TargetError,
    ToolError,
)
from gapforge.base.files import (
    inside,
    link_or_copy,
    mark_folder,
    remove_folder,
    sha256_bytes,
    sha256_file,
    storage_errors,
)
from gapforge.base.i18n import _
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.system_errors import says
from gapforge.model.lock import LockedImage
from gapforge.model.preset import BaseImage
from gapforge.model.unresolved_item import LOGIN_REQUIRED, NO_ANSWER, Reason
from gapforge.sync import mmdebstrap, oci_layout
from gapforge.sync.base_image_facts import cudnn_version, facts, read_files
from gapforge.sync.docker_archive import import_archive
from gapforge.sync.network import Network, NoAnswerError

# What skopeo says when the registry answered "no": trying again does not help.
_REFUSED = re.compile(
    r"unauthorized|authentication required|denied|invalid username/password", re.IGNORECASE
)
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?/")
_ABSENT = re.compile(r"manifest unknown|name unknown|not found|404", re.IGNORECASE)

Files = dict[str, tuple[str, int]]  # path inside a layout -> (sha256, size in bytes)


def fetch_base(
    base: BaseImage,
    project: Project,
    epoch: int,
    destination: Path,
    network: Network,
    progress: Progress,
) -> LockedImage:
    """Fill ``destination`` (a new, empty folder) with the base image as an OCI layout; every byte is checked.

    ``epoch`` (seconds since 1970) dates an image that is made here. Raises FetchError when the image cannot
    be had or is not the pinned one, TargetError for another platform, ToolError when a program is missing.
    """
    with storage_errors(destination):
        destination.mkdir(parents=True, exist_ok=True)
        if any(destination.iterdir()):
            raise StorageError(
                _(
                    "{destination} is not empty; a base image needs a new folder",
                    destination=destination,
                )
            )
    if base.image:
        reference = _from_registry(base, project, destination, network, progress)
    elif base.archive:
        reference = _from_archive(base, project, destination, progress)
    else:
        network.require(_("making the base image {suite}", suite=base.suite))
        mmdebstrap.make(base, epoch, destination, network, progress)
        reference = base.label
    image = describe(destination, reference)
    progress.note(
        _("base image")
        + f" {base.label}: {image.os_id} {image.os_version}"
        + (f", CUDA {image.cuda}" if image.cuda else "")
        + (f", cuDNN {image.cudnn}" if image.cudnn else "")
    )
    return image


def describe(folder: Path, reference: str) -> LockedImage:
    """What the image in the layout ``folder`` says of itself, as the lock records it. Raises FetchError."""
    layout = oci_layout.read_layout(folder)
    found = facts(layout, read_files(layout))
    return LockedImage(
        reference=reference,
        manifest_digest=layout.manifest.digest,
        config_digest=layout.config_blob.digest,
        os_id=found.os_id,
        os_version=found.os_version,
        cuda=found.cuda,
        cudnn=found.cudnn,
    )


def look(base: BaseImage, network: Network) -> tuple[LockedImage, Files]:
    """A registry's image by its manifest alone: what a lock pins of it, and the files that fetching it will make.

    Its operating system stays "" (only its layers tell); CUDA and cuDNN are what its environment variables say.
    Raises FetchError as ``fetch_base`` does; NoAnswerError when the registry gives no answer.
    """
    found = _find(base, network)
    try:
        manifest = json.loads(found.raw)
        config_blob = oci_layout.blob(manifest["config"])
        layers = [oci_layout.blob(layer) for layer in manifest["layers"]]
        config = _ask(f"{found.source}@{found.platform}", base.image, network, "--config")
        if f"sha256:{sha256_bytes(config)}" != config_blob.digest:
            raise ValueError(_("its configuration is not the one that its manifest names"))
        words = (json.loads(config).get("config") or {}).get("Env") or []
        env = dict(str(word).partition("=")[::2] for word in words)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FetchError(
            _("the registry's {image} cannot be used: {why}", image=base.image, why=says(error)),
            hint=_name_another(),
        ) from error
    top = oci_layout.Blob(
        str(manifest.get("mediaType", oci_layout.MANIFEST_TYPE)), found.platform, len(found.raw)
    )
    files = {
        f"blobs/sha256/{b.digest.removeprefix('sha256:')}": (
            b.digest.removeprefix("sha256:"),
            b.size,
        )
        for b in (top, config_blob, *layers)
    }
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


def _name_another() -> str:
    return _("name another image in the preset")


def _from_archive(base: BaseImage, project: Project, destination: Path, progress: Progress) -> str:
    file = (
        Path(base.archive) if base.archive.startswith("/") else inside(project.root, base.archive)
    )
    if not file.is_file():
        raise FetchError(
            _("base image archive {archive} is not there", archive=base.archive),
            faults=[Fault(str(file), _("does not exist"))],
            hint=_(
                "where the image is: docker save NAME:TAG -o {name}; then put it at {file}",
                name=file.name,
                file=file,
            ),
        )
    with storage_errors(file):
        actual = sha256_file(file, progress.add)
    if base.archive_sha256 and actual != base.archive_sha256:
        raise FetchError(
            _(
                "base image archive {archive} is not the one that the preset names",
                archive=base.archive,
            ),
            faults=[Fault(str(file), _("SHA-256 is {actual}", actual=actual), base.archive_sha256)],
            hint=_(
                "get the right file, or write its hash into the preset: sha256sum {file}", file=file
            ),
        )
    name = import_archive(file, destination)
    return f"{name or base.archive}@sha256:{actual}"


def split_reference(reference: str) -> tuple[str, str, str]:
    """``name:tag@digest`` as (name, tag, digest); the tag is "latest" when neither is given."""
    name, _separator, digest = reference.partition("@")
    tag = ""
    if ":" in name.rsplit("/", 1)[-1]:
        name, _separator, tag = name.rpartition(":")
    return name, tag or ("" if digest else "latest"), digest


@dataclass(frozen=True)
class _Found:
    """An image in its registry. ``source`` is where to ask (a mirror's name, without tag or digest), ``reference``
    the ``name:tag@digest`` for the lock: its digest is the index's for a multi-platform image, as registries show it.
    ``platform`` is the digest of linux/amd64's own manifest, ``raw`` that manifest's exact bytes."""

    source: str
    reference: str
    platform: str
    raw: bytes


def _find(base: BaseImage, network: Network) -> _Found:
    """Ask the registry what the image is now, and hold it against the pinned digest."""
    network.require(_("fetching the base image {image}", image=base.image))
    name, tag, digest = split_reference(base.image)
    digest = base.digest or digest
    source = split_reference(network.registry(f"{name}:{tag}" if tag else name))[0]
    top = f"{source}@{digest}" if digest else f"{source}:{tag}"
    raw = _ask(top, base.image, network)
    actual = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    if digest and actual != digest:
        raise FetchError(
            _("the registry's {image} is not the pinned image", image=base.image),
            faults=[_other_manifest(base.image, actual, digest)],
        )
    manifest = _document(raw, base.image)
    platform = actual
    if manifest.get("mediaType") in oci_layout.INDEX_TYPES or "manifests" in manifest:
        platform = _choose(manifest, base.image)
        raw = _ask(f"{source}@{platform}", base.image, network)
        if (found := f"sha256:{sha256_bytes(raw)}") != platform:
            raise FetchError(
                _("the registry's {image} is not the image that its index names", image=base.image),
                faults=[_other_manifest(base.image, found, platform)],
            )
    return _Found(source, f"{name}:{tag}@{actual}" if tag else f"{name}@{actual}", platform, raw)


def _other_manifest(image: str, found: str, expected: str) -> Fault:
    return Fault(image, _("manifest digest is {found}", found=found), expected)


def _from_registry(
    base: BaseImage, project: Project, destination: Path, network: Network, progress: Progress
) -> str:
    """Copy the image into ``destination``; gives its reference for the lock."""
    found = _find(base, network)
    source, platform = found.source, found.platform
    purpose = "a base image that is being fetched"
    partial = mark_folder(project.state / "images" / platform.removeprefix("sha256:"), purpose)
    layout_folder = partial / "layout"
    _drop_damaged(layout_folder)
    shown = f"{base.image}@{found.reference.rpartition('@')[2]}"
    progress.note(_("fetching {shown}", shown=shown))
    # --preserve-digests: without it skopeo rewrites Docker's manifests into OCI ones, and both digests change.
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
    with _watched(layout_folder, progress, base.image):
        code = process.stream(command, lines.append, env=network.environment())
    if code != 0:
        raise _refusal(base.image, "\n".join(lines), network)
    blob = _single(layout_folder, platform, base.image)
    with storage_errors(destination):
        for file in sorted((layout_folder / "blobs" / "sha256").iterdir()):
            file.chmod(
                0o644
            )  # skopeo's files are readable by their owner alone; artifacts are carried around
            link_or_copy(file, destination / "blobs" / "sha256" / file.name)
    oci_layout.write_layout(destination, blob)
    layout = oci_layout.read_layout(destination)
    try:
        read_files(layout)
    except GapforgeError:
        # A blob that skopeo believed to have is damaged: the next run must not believe it again.
        remove_folder(partial)
        raise
    _drop_strays(destination, layout)
    remove_folder(partial)
    return found.reference


def _ask(reference: str, shown: str, network: Network, *what: str) -> bytes:
    """The manifest's exact bytes; with ``--config`` the configuration's."""
    command = [
        "skopeo",
        "inspect",
        "--raw",
        *what,
        "--retry-times",
        str(network.retries),
        *_plain_http(reference, "--tls-verify=false"),
        f"docker://{reference}",
    ]
    try:
        with process.piped(command, env=network.environment()) as output:
            return output.read(oci_layout.SMALL_BLOB)
    except ToolError as error:
        if error.hint:  # skopeo itself is missing
            raise
        said = error.message.partition("\n")[2]  # skopeo's own words come after our line
        raise _refusal(shown, said, network, error.message) from error


@contextmanager
def _watched(folder: Path, progress: Progress, detail: str) -> Iterator[None]:
    """Tell ``progress`` of the bytes that appear in ``folder``: skopeo reports none where there is no terminal."""
    done = threading.Event()

    def size() -> int:
        total = 0
        for file in folder.rglob("*"):
            with suppress(OSError):  # renamed meanwhile
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
    """``flag`` for a registry on this machine: like Docker, we do not ask it for TLS. Others: registries.conf."""
    return [flag] if _LOOPBACK.match(reference) else []


def _refusal(image: str, said: str, network: Network, otherwise: str = "") -> FetchError:
    """The error for what skopeo ``said``; ``otherwise`` is told when it said nothing, and decides nothing."""
    told = (said.strip() or otherwise.strip()).splitlines()
    last = told[-1] if told else _("skopeo said nothing")
    if said_in := re.search(r'msg="((?:[^"\\]|\\.)*)"', last):
        last = said_in[1].replace('\\"', '"')
    asked = network.registry(image).split("/", 1)[0]
    message = _("the base image {image} cannot be fetched: {last}", image=image, last=last)
    server = f"registry:{registry_of(image)}"
    if _REFUSED.search(said):
        return NoAnswerError(
            message,
            reason=Reason(code=LOGIN_REQUIRED, server=server),
            hint=_(
                "log in first (skopeo login {asked}), then run the same command again", asked=asked
            ),
        )
    if _ABSENT.search(said):
        return FetchError(message, hint=_("correct the name, tag or digest in the preset"))
    look = f"skopeo inspect --raw docker://{network.registry(image)}"
    return NoAnswerError(
        message,
        reason=Reason(code=NO_ANSWER, server=server),
        hint=_("look whether it can be reached: {look}", look=look),
    )


def registry_of(image: str) -> str:
    """The registry that an image reference names; "docker.io" when it names none."""
    first = image.split("/", 1)[0]
    return (
        first
        if "/" in image and ("." in first or ":" in first or first == "localhost")
        else "docker.io"
    )


def _document(raw: bytes, image: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
        if isinstance(value, dict):
            return value
    except (ValueError, RecursionError):
        pass
    raise FetchError(_("the registry's answer for {image} is no manifest", image=image))


def _choose(index: Mapping[str, Any], image: str) -> str:
    """The digest of the linux/amd64 manifest. Attestations stand in indexes as platform "unknown"."""
    seen: list[str] = []
    for entry in index.get("manifests", []):
        platform = entry.get("platform") or {}
        where = f"{platform.get('os', '?')}/{platform.get('architecture', '?')}"
        seen.append(where)
        digest = str(entry.get("digest", ""))
        if where == "linux/amd64" and oci_layout.DIGEST.fullmatch(digest):
            return digest
    has = ", ".join(seen)
    found = _("has {has}", has=has) if has else _("has none")
    raise TargetError(
        _("{image} has no linux/amd64 variant", image=image),
        faults=[Fault(image, found, "linux/amd64")],
        hint=_name_another(),
    )


def _single(folder: Path, digest: str, image: str) -> oci_layout.Blob:
    """The descriptor of the manifest that skopeo wrote, which must be the one asked for."""
    index = json.loads((folder / "index.json").read_bytes())
    found = [e for e in index["manifests"] if e["digest"] == digest]
    if not found:
        raise FetchError(
            _("{image} was stored under another digest than the registry's", image=image),
            faults=[Fault(str(folder), ", ".join(e["digest"] for e in index["manifests"]), digest)],
        )
    return oci_layout.Blob(found[0]["mediaType"], digest, found[0]["size"])


def _drop_damaged(folder: Path) -> None:
    """Delete blobs of an interrupted copy whose bytes are not what their names say; skopeo does not look."""
    blobs = folder / "blobs" / "sha256"
    if not blobs.is_dir():
        return
    for file in sorted(blobs.iterdir()):
        if sha256_file(file) != file.name:
            file.unlink()


def _drop_strays(folder: Path, layout: oci_layout.Layout) -> None:
    """Keep only the blobs of this image; skopeo may have left files of an interrupted copy."""
    known = {
        blob.digest.removeprefix("sha256:")
        for blob in (layout.manifest, layout.config_blob, *layout.layers)
    }
    for file in (folder / "blobs" / "sha256").iterdir():
        if file.name not in known:
            file.unlink()
