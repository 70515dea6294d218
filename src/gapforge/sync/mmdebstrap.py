"""A base image made from a distribution's packages by mmdebstrap, the same bytes on every run.

The layer is stored uncompressed: then no byte depends on the version of a compressor, and engines load
it faster. (It is carried uncompressed too; packing for the way is another step's work.)
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
from gapforge.base.files import CHUNK, storage_errors
from gapforge.base.i18n import _
from gapforge.base.progress import Progress
from gapforge.model.preset import BaseImage
from gapforge.sync import oci_layout
from gapforge.sync.apt_errors import ACCEPT_EXPIRED
from gapforge.sync.network import Network

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BLOCK = 512  # bytes; tar's unit

# What belongs to the machine or the moment, not to the packages. mmdebstrap copies the first two from the
# host; device nodes are every engine's own business, and rootless ones may not create them.
_DROPPED = re.compile(
    r"etc/(resolv\.conf|hostname|machine-id)|var/lib/dbus/machine-id|dev/.+|etc/apt/apt\.conf\.d/(00|99)mmdebstrap"
    r"|var/cache/ldconfig/.+|run/(?!lock$).+|tmp/.+|root/\..+_history"
    # Their owner tells whether apt could drop its rights where the image was made; apt makes them again.
    r"|var/(cache/apt/archives|lib/apt/lists)/partial"
)
_DROPPED_FILES = re.compile(  # only files: the folders themselves are expected by programs
    r"var/(lib/apt/lists|cache/apt|cache/debconf/.*-old|backups)(/.*)?|var/cache/debconf/.*-old|var/lib/dpkg/.*-old"
    r"|etc/(passwd|group|shadow|gshadow|subuid|subgid)-"
)


def make(
    base: BaseImage, epoch: int, destination: Path, network: Network, progress: Progress
) -> None:
    """Fill the empty folder ``destination`` with an OCI layout of ``base.suite``. ``epoch`` in seconds.

    The mirrors are mmdebstrap's own defaults for the suite (updates and security among them); with
    GAPFORGE_APT_MIRROR they are asked at the mirror, but the image still names the originals.
    Raises ResolveError for an unknown suite or package, FetchError when the mirror cannot be used.
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
            "LANGUAGE": None,
        }  # which translates apt's words even in C.UTF-8, and _failure() reads them
        # Half-made roots are left in our own folder, which the next run removes.
        if os.geteuid() == 0 and not os.statvfs(work).f_flag & (os.ST_NODEV | os.ST_NOEXEC):
            env["TMPDIR"] = work
            os.chmod(work, 0o711)  # so that apt can drop its rights and still reach what it writes
        if network.apt_mirrors:
            originals = _default_sources(command, base, env)
            env["GAPFORGE_ORIGINAL_SOURCES"] = originals
            env["GAPFORGE_MIRRORED_SOURCES"] = re.sub(
                r"\b[a-z+]+://\S+", lambda m: network.apt_uri(m[0]), originals
            )
            command += [
                '--setup-hook=printf %s "$GAPFORGE_MIRRORED_SOURCES" > "$1/etc/apt/sources.list"',
                '--customize-hook=printf %s "$GAPFORGE_ORIGINAL_SOURCES" > "$1/etc/apt/sources.list"',
            ]
        progress.note(_("making the base image {label}", label=base.label))
        _run([*command, base.suite, str(made)], base, env)
        blob_path = Path(work) / "layer"
        with open(blob_path, "wb") as out:
            digest, size = clean_tar(made, out)
        made.unlink()
        progress.add(size, base.label)
        layer = oci_layout.Blob(oci_layout.LAYER_TYPE, f"sha256:{digest}", size)
        layer.path(destination).parent.mkdir(parents=True, exist_ok=True)
        os.replace(blob_path, layer.path(destination))
        oci_layout.add_image(destination, _config(base, epoch, layer.digest), [layer])


def _command(base: BaseImage, network: Network) -> list[str]:
    command = [
        "mmdebstrap",
        "--format=tar",
        f"--variant={base.variant}",
        "--architectures=amd64",
        f"--components={','.join(base.components)}",
        f'--aptopt=Acquire::Retries "{network.retries}"',
    ]
    # Builds install .debs with the image's own apt. Debian's required packages bring it along, Ubuntu's do not.
    include = base.include if "apt" in base.include else ("apt", *base.include)
    command.append(f"--include={','.join(include)}")
    if os.environ.get(ACCEPT_EXPIRED, "") not in ("", "0"):
        command.append('--aptopt=Acquire::Check-Valid-Until "false"')
    if network.ca_bundle:
        command.append(f'--aptopt=Acquire::https::CAInfo "{network.ca_bundle}"')
    return command


def _default_sources(command: list[str], base: BaseImage, env: dict[str, str | None]) -> str:
    """The sources.list that mmdebstrap would use. It has no option to print it, so a hook prints it and stops."""
    probe = [
        *command,
        '--setup-hook=sed "s/^/GAPFORGE-SOURCE:/" "$1/etc/apt/sources.list"; exit 1',
        base.suite,
        "/dev/null",
    ]
    lines: list[str] = []
    process.stream([*_confined(), *probe], lines.append, env=env)
    found = [line.split(":", 1)[1] for line in lines if line.startswith("GAPFORGE-SOURCE:")]
    if not found:
        raise _failure(base, "\n".join(lines))
    return "\n".join(found) + "\n"


def _run(command: list[str], base: BaseImage, env: dict[str, str | None]) -> None:
    lines: list[str] = []
    if process.stream([*_confined(), *command], lines.append, env=env) != 0:
        raise _failure(base, "\n".join(lines))


def _confined() -> list[str]:
    """What to put before mmdebstrap so that it ends with us, even by SIGKILL, and leaves no mount behind.

    As root it mounts /proc, /sys and parts of /dev into its root; in a mount and process namespace of their
    own these vanish with it. Without root it makes such namespaces itself.
    """
    if os.geteuid() != 0:
        return ["setpriv", "--pdeathsig", "KILL"]
    return [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]


def _failure(base: BaseImage, said: str) -> GapforgeError:
    """What went wrong, out of mmdebstrap's words."""
    telling = [
        line for line in said.splitlines() if re.match(r"(E|W|Err):?", line.strip())
    ] or said.splitlines()
    detail = "\n".join(telling[-6:])
    if re.search(r"NO_PUBKEY|is not signed|no public key", said, re.IGNORECASE):
        return FetchError(
            _(
                "the keys that sign {suite} are not on this machine\n{detail}",
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
        said,
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
        said,
        re.IGNORECASE,
    ) and not re.search(r"Failed to fetch|Could not (resolve|connect)", said):
        return ToolError(
            _("mmdebstrap may not make a base image here\n{detail}", detail=detail),
            hint=_(
                "run it as root, or allow user namespaces (sysctl "
                "kernel.unprivileged_userns_clone=1; apt-get install uidmap), or name an "
                "image or an archive as the base"
            ),
        )
    if re.search(r"does not have a Release file|404 +Not Found|unknown suite", said, re.IGNORECASE):
        return ResolveError(
            _(
                'there is no suite "{suite}" where mmdebstrap looks for it\n{detail}',
                suite=base.suite,
                detail=detail,
            ),
            hint=_("correct $.base.*.mmdebstrap.suite in the preset"),
        )
    return FetchError(
        _("the base image {label} cannot be made\n{detail}", label=base.label, detail=detail),
        hint=_(
            "look at the message above; proxies come from http_proxy, mirrors from "
            "GAPFORGE_APT_MIRROR"
        ),
    )


def clean_tar(source: Path, out: IO[bytes]) -> tuple[str, int]:
    """Copy a tar without what is not the packages' own; gives SHA-256 in hex and size in bytes.

    Members are copied as raw blocks: headers with extended attributes (file capabilities) stay as they are.
    """
    digest = hashlib.sha256()
    size = 0

    def put(data: bytes) -> None:
        nonlocal size
        digest.update(data)
        size += len(data)
        out.write(data)

    with open(source, "rb") as raw, tarfile.open(source, mode="r:") as archive:
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
                    raise FetchError(_("{source} ended too early", source=source))
                put(data)
                left -= len(data)
    put(b"\0" * 2 * _BLOCK)
    return digest.hexdigest(), size


def _dropped_file(path: str, size: int) -> bool:
    if path.startswith("var/log/"):
        return size > 0  # empty ones carry the owner and mode that their package set
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
