"""Choose the trusted signers of a rehearsal, so that signatures are verified as at the site."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gapforge.base.errors import Fault, TrustError
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.trust import ssh_signatures, trusted_signers
from gapforge.trust.ssh_signatures import BadSignature, PublicKey


def choose_signers(
    project: Project, signatures: Iterable[Path], new_list: Path, sign_command: str
) -> tuple[Path | None, dict[str, Any]]:
    """Return the site's list of trusted signers (None without any), and its part of the record.

    It is this machine's list. If that is empty, the owner of every signature's key is written to
    ``new_list``: this proves no identity, but every signature is really verified.
    Raise TrustError if this machine's list, or every signature, cannot be read. ``sign_command``
    makes good signatures.
    """
    keys, faults = _read_keys(signatures)
    if faults and not keys:
        raise TrustError(
            _("no signature of the bundle or artifacts can be read"),
            faults=faults,
            hint=sign_command,
        )
    signed_by = sorted(key.fingerprint for key in keys)
    trusted = trusted_signers.load(project)
    if trusted:
        return trusted.file, {"signed_by": signed_by, "trusted_here": True}
    for number, key in enumerate(keys, 1):
        trusted_signers.add(new_list, key, f"carried-{number}")
    return new_list if keys else None, {"signed_by": signed_by, "trusted_here": False}


def _read_keys(signatures: Iterable[Path]) -> tuple[list[PublicKey], list[Fault]]:
    keys: dict[bytes, PublicKey] = {}
    faults = []
    for file in signatures:
        try:
            key = ssh_signatures.read_signature(file).key
            keys.setdefault(key.blob, key)
        except BadSignature as error:
            faults.append(Fault(str(file), str(error)))
    return list(keys.values()), faults
