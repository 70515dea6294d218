"""Whose signatures count in a rehearsal: a site that trusts somebody checks them all, so they are checked here too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, TrustError
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.bundle.volume_reader import find_files
from gapforge.trust import ssh_signatures, trusted_signers
from gapforge.trust.ssh_signatures import BadSignature, PublicKey


def signatures_in(folders: Sequence[Path]) -> list[Path]:
    """The signatures that lie with the volumes."""
    return list(
        find_files([folder for folder in folders if folder.is_dir()], ssh_signatures.SUFFIX)
    )


def choose(
    project: Project, signatures: Iterable[Path], ours: Path, again: str
) -> tuple[Path | None, dict[str, Any]]:
    """The list of trusted signers for the place (None for nobody), and what the record says of it.

    Those who are trusted on this machine; else, in the file ``ours``, whoever signed what is carried: that proves
    nothing of who they are, but every signature is really checked. Raises TrustError when there are signatures and
    none can be read, or this machine's list cannot be. ``again`` is the command that makes good ones.
    """
    found, faults = _keys(signatures)
    if faults and not found:
        raise TrustError(
            _("no signature of what is carried can be read"), faults=faults, hint=again
        )
    signed_by = sorted(key.fingerprint for key in found)
    here = trusted_signers.load(project)
    if here:
        return here.file, {"signed_by": signed_by, "trusted_here": True}
    for number, key in enumerate(found, 1):
        trusted_signers.add(ours, key, f"carried-{number}")
    return ours if found else None, {"signed_by": signed_by, "trusted_here": False}


def _keys(signatures: Iterable[Path]) -> tuple[list[PublicKey], list[Fault]]:
    keys: dict[bytes, PublicKey] = {}
    faults = []
    for file in signatures:
        try:
            key = ssh_signatures.read_signature(file).key
            keys.setdefault(key.blob, key)
        except BadSignature as error:
            faults.append(Fault(str(file), str(error)))
    return list(keys.values()), faults
