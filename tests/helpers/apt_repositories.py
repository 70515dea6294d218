"""Make small .debs, APT repositories of them, signed or not, and base images for APT."""

from __future__ import annotations

import atexit
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from pathlib import Path

from gapforge.base.progress import Progress
from gapforge.model import names
from gapforge.model.debian_control import join_stanzas, stanza_for
from gapforge.store.store import Store
from gapforge.sync import oci_layout
from gapforge.sync.apt_resolver import DebFile, SourceFile
from gapforge.sync.download import Downloader, Want
from gapforge.sync.network import Network

GPG = ("gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "")
STATUS = (
    "Package: base-files\nStatus: install ok installed\nVersion: 12\n"
    "Architecture: amd64\nEssential: yes\n"
)


def fetch(files: Sequence[DebFile | SourceFile], into: Path, network: Network) -> None:
    """Download the files into ``into`` as a sync does."""
    store = Store(into.with_name(into.name + ".store"))
    wants = [Want(f.file, (f.uri,), f.sha256, f.size) for f in files]
    for got in Downloader(store, network, Progress("test", quiet=True)).fetch(wants):
        store.place(got.sha256, into / got.want.file)


def make_deb(
    folder: Path,
    name: str,
    version: str,
    file: str = "",
    files: Mapping[str, bytes] | None = None,
    architecture: str = "amd64",
    **fields: str,
) -> Path:
    """Make a .deb. ``fields`` are further control fields, with "_" for "-"."""
    control = f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
    control += "Maintainer: T <t@example.org>\n"
    control += "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in fields.items())
    control += "Description: fixture\n"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (file or f"{name}_{version.split(':')[-1]}_{architecture}.deb")
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(_tar({"./control": control.encode()}), mtime=0),
        "data.tar.gz": gzip.compress(
            _tar({f"./{k}": v for k, v in (files or {}).items()}), mtime=0
        ),
    }
    out = b"!<arch>\n"
    for member, data in parts.items():
        out += (
            f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
            + data
            + b"\n" * (len(data) % 2)
        )
    target.write_bytes(out)
    return target


def _tar(files: Mapping[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        made: set[str] = set()
        for name, data in files.items():
            for folder in [p.as_posix() for p in reversed(Path(name).parents)][1:]:
                if folder not in made:
                    made.add(folder)
                    member = tarfile.TarInfo(f"./{folder}")
                    member.type, member.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(member)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return raw.getvalue()


def index_of(folder: Path) -> str:
    """Return the text of Packages for the .debs in ``folder``."""
    stanzas = []
    for deb in sorted(folder.glob("*.deb")):
        data = deb.read_bytes()
        control = subprocess.run(
            ["dpkg-deb", "-f", str(deb)], capture_output=True, text=True, check=True
        ).stdout
        stanzas.append(
            stanza_for(
                control, file=deb.name, size=len(data), sha256=hashlib.sha256(data).hexdigest()
            )
        )
    return join_stanzas(stanzas)


def flat_repository(folder: Path) -> str:
    """Index the .debs in ``folder`` as a flat repository. Return its file:// address."""
    (folder / "Packages").write_text(index_of(folder))
    return f"file://{folder}"


def make_key(home: Path, name: str) -> tuple[Path, Path]:
    """Make a signing key. Return (GNUPGHOME, armored public key)."""
    home.mkdir(mode=0o700, parents=True)
    atexit.register(end_agent, home)
    gpg = [*GPG, "--homedir", str(home)]
    subprocess.run(
        [*gpg, "--quick-generate-key", f"{name} <t@example.org>", "rsa2048", "sign", "never"],
        check=True,
        capture_output=True,
    )
    public = home / "public.asc"
    public.write_bytes(
        subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True).stdout
    )
    return home, public


def end_agent(home: Path) -> None:
    """End the agent that gpg starts for each GNUPGHOME, and which keeps the folder busy."""
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False)


def clear_signed(home: Path, data: bytes) -> bytes:
    """Return the data with a signature by the key in GNUPGHOME ``home``, as InRelease has it."""
    gpg = [*GPG, "--homedir", str(home), "--clearsign"]
    return subprocess.run(gpg, input=data, check=True, capture_output=True).stdout


def signed_repository(
    folder: Path,
    home: Path,
    suite: str,
    component: str = "main",
    *,
    valid_for: float | None = None,
    dated: float = 0,
    sources: str = "",
) -> None:
    """Make a signed repository of the .debs in ``folder``/pool.

    ``dated`` and ``valid_for`` are seconds from now.
    """
    dist = folder / "dists" / suite
    packages = dist / component / "binary-amd64" / "Packages"
    packages.parent.mkdir(parents=True, exist_ok=True)
    packages.write_text(index_of(folder / "pool").replace("Filename: ./", "Filename: pool/"))
    listed = [packages]
    if sources:
        listed.append(dist / component / "source" / "Sources")
        listed[-1].parent.mkdir(parents=True, exist_ok=True)
        listed[-1].write_text(sources)
    lines = [
        f"Origin: Fixture\nSuite: {suite}\nCodename: {suite}\n"
        f"Components: {component}\nArchitectures: amd64"
    ]
    lines.append(f"Date: {formatdate(time.time() + dated, usegmt=True).replace('GMT', 'UTC')}")
    if valid_for is not None:
        lines.append(
            f"Valid-Until: {formatdate(time.time() + valid_for, usegmt=True).replace('GMT', 'UTC')}"
        )
    lines.append("SHA256:")
    for file in listed:
        data = file.read_bytes()
        lines.append(
            f" {hashlib.sha256(data).hexdigest()} {len(data)} {file.relative_to(dist).as_posix()}"
        )
    release = ("\n".join(lines) + "\n").encode()
    (dist / "Release").write_bytes(release)
    (dist / "InRelease").write_bytes(clear_signed(home, release))


def make_base(
    folder: Path,
    files: Mapping[str, bytes | str],
    status: str | None = STATUS,
    env: Sequence[str] = (),
) -> Path:
    """Make an OCI layout of one layer with ``files`` and the dpkg ``status``."""
    content = {
        name: data.encode() if isinstance(data, str) else data for name, data in files.items()
    }
    if status is not None:
        content["var/lib/dpkg/status"] = status.encode()
    raw = _tar(content)
    layer = oci_layout.add_blob(folder, raw, names.OCI_LAYER)
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Env": list(env)},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }
    oci_layout.add_image(folder, json.dumps(config).encode(), [layer])
    return folder
