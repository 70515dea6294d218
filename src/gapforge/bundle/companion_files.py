"""Name, measure and write the files that lie beside the volumes on a medium.

ID.json                 the index of the bundle
ID.json.sig             its signature
ID.NAME.lock.sig        the signature of a preset's lock
ID.custody.txt          the custody page, and ID.custody.txt.sig
gapforge-receive.pyz    the receiver program
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gapforge.base.files import contains
from gapforge.base.storage_errors import storage_errors
from gapforge.base.write_files import remove_litter, write_bytes
from gapforge.bundle.bundle_index import index_name
from gapforge.bundle.disk_space import rounded_up
from gapforge.bundle.receiver_program import RECEIVER, receiver_bytes
from gapforge.bundle.volume_plan import Plan
from gapforge.trust.ssh_signatures import SUFFIX, PublicKey

MAX_BLOCK = 64 << 10  # bytes; what a file may take on a medium beyond its size


@dataclass(frozen=True)
class CompanionFiles:
    """Index and signatures of a bundle, by file name.

    ``made`` is "" and ``key`` is None for an unsigned bundle. ``stale`` are names of signatures
    from an earlier run that do not match any more.
    """

    files: Mapping[str, bytes]
    made: str = ""
    key: PublicKey | None = None
    stale: tuple[str, ...] = ()

    @property
    def signer(self) -> str:
        """Return the fingerprint of the key that signed the bundle, or ""."""
        return self.key.fingerprint if self.key is not None else ""


def signature_name(bundle: str) -> str:
    """Return the file name of the signature of the bundle's index."""
    return index_name(bundle) + SUFFIX


def lock_signature_name(bundle: str, preset: str) -> str:
    """Return the file name, beside the volumes, of the signature of a preset's lock."""
    return f"{bundle}.{preset}.lock{SUFFIX}"


def page_name(bundle: str) -> str:
    """Return the file name, beside the volumes, of the custody page."""
    return f"{bundle}.custody.txt"


def companion_bytes(plan: Plan, block: int = MAX_BLOCK, listed: int = 0) -> int:
    """Return the most bytes that the companion files take in each folder, without signatures.

    The custody page also names files that the site has already; ``listed`` is their number with
    those of the bundle.
    """
    index = 90 * len(plan.parts) + 300 * len(plan.volumes)
    page = 260 * max(listed, len(plan.parts))
    return len(receiver_bytes()) + index + page + 6 * block


def existing_companion_bytes(folder: Path, plan: Plan, block: int) -> int:
    """Return how many of these bytes an earlier run has written into ``folder``."""
    files = [folder / RECEIVER, *folder.glob(f"{plan.bundle}.*")]
    return sum(rounded_up(file.stat().st_size, block) for file in files if file.is_file())


def write_companion(target: Path, data: bytes) -> None:
    """Write a small file atomically, after removing what a killed run left of it."""
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    remove_litter(target)
    if not contains(target, data):
        write_bytes(target, data)
