"""Make a base image from the packages of a distribution with mmdebstrap.

The image has the same bytes on every run. The layer is stored uncompressed: no byte depends on the
version of a compressor, and engines load it faster.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from gapforge.base import process
from gapforge.base.errors import FetchError, GapforgeError, ResolveError, ToolError
from gapforge.base.files import CHUNK, open_buffered
from gapforge.base.i18n import _
from gapforge.base.progress import Progress
from gapforge.base.storage_errors import storage_errors
from gapforge.model import names
from gapforge.model.preset import BaseImage
from gapforge.sync import oci_layout
from gapforge.sync.apt_errors import accepts_expired
from gapforge.sync.network import Network

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BLOCK = 512  # bytes; tar's unit

# Files of the machine or the moment, not of the packages. mmdebstrap copies the first two from the
# host. Engines make device nodes themselves, and rootless ones are not allowed to unpack them.
_DROPPED = re.compile(
    r"etc/(resolv\.conf|hostname|machine-id)|var/lib/dbus/machine-id|dev/.+|etc/apt/apt\.conf\.d/(00|99)mmdebstrap"
    r"|var/cache/ldconfig/.+|run/(?!lock$).+|tmp/.+|root/\..+_history"
    # Their owner depends on whether apt could drop its privileges; apt creates them again.
    r"|var/(cache/apt/archives|lib/apt/lists)/partial"
)
# Only files: programs expect the folders.
_DROPPED_FILES = re.compile(
    r"var/(lib/apt/lists|cache/apt|backups)(/.*)?|var/(cache/debconf|lib/dpkg)/.*-old"
    r"|etc/(passwd|group|shadow|gshadow|subuid|subgid)-"
)


def make(
    base: BaseImage, epoch: int, destination: Path, network: Network, progress: Progress
) -> None:
    """Fill the empty folder ``destination`` with an OCI layout of ``base.suite``.

    The APT sources are mmdebstrap's defaults for the suite, with updates and security. With
    GAPFORGE_APT_MIRROR the packages come from the mirror, but the image keeps the original sources.
    Raise ResolveError for an unknown suite or package, FetchError if the mirror cannot be used.
    """
    with (
        storage_errors(destination),
        tempfile.TemporaryDirectory(prefix=".making-", dir=destination) as work,
    ):
        made = Path(work) / "made.tar"
        if shutil.which("mmdebstrap") is None:
            raise process.missing("mmdebstrap")
        command = _command(base, network)
        env = {
            **network.environment(),
            "SOURCE_DATE_EPOCH": str(epoch),
            "APT_CONFIG": None,
            "LC_ALL": "C.UTF-8",
            # Would translate apt's output, which _failure() reads, even in C.UTF-8.
            "LANGUAGE": None,
        }
        # An unfinished root is left in our own folder, which the next run removes.
        if os.geteuid() == 0 and not os.statvfs(work).f_flag & (os.ST_NODEV | os.ST_NOEXEC):
            env["TMPDIR"] = work
            os.chmod(work, 0o711)  # apt reaches its files after dropping its privileges
        if network.apt_mirrors:
            originals = _default_sources(command, base, env)
            env["GAPFORGE_ORIGINAL_SOURCES"] = originals
            env["GAPFORGE_MIRRORED_SOURCES"] = re.sub(
                r"\b[a-z+]+://\S+", lambda m: network.apt_uri(m[0]), originals
            )
            command += [
                '--setup-hook=printf %s "$GAPFORGE_MIRRORED_SOURCES" > "$1/etc/apt/sources.list"',
                "--customize-hook="
                'printf %s "$GAPFORGE_ORIGINAL_SOURCES" > "$1/etc/apt/sources.list"',
            ]
        progress.note(_("making the base image {label}", label=base.label))
        code, output = _mmdebstrap([*command, base.suite, str(made)], env)
        if code != 0:
            raise _failure(base, output)
        blob_path = Path(work) / "layer"
        with open(blob_path, "wb") as out:
            digest, size = clean_tar(made, out)
        made.unlink()
        progress.add(size, base.label)
        layer = oci_layout.Blob(names.OCI_LAYER, f"sha256:{digest}", size)
        layer.path(destination).parent.mkdir(parents=True, exist_ok=True)
        os.replace(blob_path, layer.path(destination))
        oci_layout.add_image(destination, _config(base, epoch, layer.digest), [layer])


def _command(base: BaseImage, network: Network) -> list[str]:
    """Return the mmdebstrap command without suite and destination."""
    command = [
        "mmdebstrap",
        "--format=tar",
        f"--variant={base.variant}",
        "--architectures=amd64",
        f"--components={','.join(base.components)}",
        f'--aptopt=Acquire::Retries "{network.retries}"',
    ]
    # Builds install .debs with the image's own apt. It is a required package of Debian but not of
    # Ubuntu.
    include = base.include if "apt" in base.include else ("apt", *base.include)
    command.append(f"--include={','.join(include)}")
    if accepts_expired():
        command.append('--aptopt=Acquire::Check-Valid-Until "false"')
    if network.ca_bundle:
        command.append(f'--aptopt=Acquire::https::CAInfo "{network.ca_bundle}"')
    return command


def _default_sources(command: list[str], base: BaseImage, env: dict[str, str | None]) -> str:
    """Return the sources.list that mmdebstrap would use, printed by a hook that stops it."""
    probe = [
        *command,
        '--setup-hook=sed "s/^/GAPFORGE-SOURCE:/" "$1/etc/apt/sources.list"; exit 1',
        base.suite,
        "/dev/null",
    ]
    _code, output = _mmdebstrap(probe, env)
    found = re.findall(r"(?m)^GAPFORGE-SOURCE:(.*)$", output)
    if not found:
        raise _failure(base, output)
    return "\n".join(found) + "\n"


def _mmdebstrap(command: list[str], env: dict[str, str | None]) -> tuple[int, str]:
    """Run mmdebstrap so that it ends with this process. Return its exit code and output.

    Run by root, mmdebstrap mounts /proc, /sys and parts of /dev into its root; in mount and process
    namespaces of their own these end with it. For other users it makes such namespaces itself.
    """
    confined = ["setpriv", "--pdeathsig", "KILL"]
    if os.geteuid() == 0:
        confined += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    lines: list[str] = []
    code = process.stream([*confined, *command], lines.append, env=env)
    return code, "\n".join(lines)


def _failure(base: BaseImage, output: str) -> GapforgeError:
    """Return the error for a failed mmdebstrap. Only its text, and that of APT, tells the cause."""
    lines = output.splitlines()
    problems = [line for line in lines if re.match(r"(E|W|Err):?", line.strip())] or lines
    detail = "\n".join(problems[-6:])
    if re.search(r"NO_PUBKEY|is not signed|no public key", output, re.IGNORECASE):
        return FetchError(
            _(
                "the archive keys of {suite} are not installed on this machine\n{detail}",
                suite=base.suite,
                detail=detail,
            ),
            hint=_(
                "install the distribution's keyring: apt-get install "
                "debian-archive-keyring (for Debian) or ubuntu-keyring (for Ubuntu); "
                "where there is no such package, copy "
                "/usr/share/keyrings/ubuntu-archive-keyring.gpg from an Ubuntu machine "
                "to the same place here"
            ),
        )
    if re.search(
        r"Unable to locate package|has no installation candidate|unmet dependencies|was not found",
        output,
    ):
        return ResolveError(
            _(
                "the packages of base image {label} cannot be resolved\n{detail}",
                label=base.label,
                detail=detail,
            ),
            hint=_("correct $.base.*.mmdebstrap.include in the preset"),
        )
    if re.search(
        r"unshare|newuidmap|user namespace|mount|permission|mknod|chroot mode|fakechroot",
        output,
        re.IGNORECASE,
    ) and not re.search(r"Failed to fetch|Could not (resolve|connect)", output):
        return ToolError(
            _("mmdebstrap is not allowed to make a base image here\n{detail}", detail=detail),
            hint=_(
                "run it as root, or allow user namespaces (sysctl "
                "kernel.unprivileged_userns_clone=1; apt-get install uidmap), or use an image "
                "or an archive as the base image"
            ),
        )
    if re.search(
        r"does not have a Release file|404 +Not Found|unknown suite", output, re.IGNORECASE
    ):
        return ResolveError(
            _('the APT mirror has no suite "{suite}"\n{detail}', suite=base.suite, detail=detail),
            hint=_("correct $.base.*.mmdebstrap.suite in the preset"),
        )
    return FetchError(
        _("the base image {label} cannot be made\n{detail}", label=base.label, detail=detail),
        hint=_(
            "read the output above; set http_proxy for a proxy or GAPFORGE_APT_MIRROR for a mirror"
        ),
    )


def clean_tar(source: Path, out: IO[bytes]) -> tuple[str, int]:
    """Copy a tar without the files that no package owns. Return its SHA-256 and size in bytes.

    Members are copied as raw blocks, so headers with extended attributes (file capabilities) stay
    as they are.
    """
    digest = hashlib.sha256()
    size = 0

    def put(data: bytes) -> None:
        nonlocal size
        digest.update(data)
        size += len(data)
        out.write(data)

    with (
        open_buffered(source) as raw,
        open_buffered(source) as file,
        tarfile.open(fileobj=file, mode="r:") as archive,
    ):
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]
            path = member.name.removeprefix("./")
            if _DROPPED.fullmatch(path) or (
                not member.isdir() and _dropped_file(path, member.size)
            ):
                continue
            end = member.offset_data
            if member.isreg():
                end += -(-member.size // _BLOCK) * _BLOCK
            raw.seek(member.offset)
            left = end - member.offset
            while left > 0:
                data = raw.read(min(CHUNK, left))
                if not data:
                    raise FetchError(_("{source} is truncated", source=source))
                put(data)
                left -= len(data)
    put(b"\0" * 2 * _BLOCK)
    return digest.hexdigest(), size


def _dropped_file(path: str, size: int) -> bool:
    if path.startswith("var/log/"):
        return size > 0  # empty ones have the owner and mode that their package set
    return bool(_DROPPED_FILES.fullmatch(path))


def _config(base: BaseImage, epoch: int, diff_id: str) -> bytes:
    created = datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": created,
            "config": {"Env": [f"PATH={SEARCH_PATH}"], "Cmd": ["bash"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [
                {
                    "created": created,
                    "created_by": f"mmdebstrap --variant={base.variant} {base.suite}",
                }
            ],
        },
        sort_keys=True,
    )
    return text.encode()
