"""Decide whether the programs of a bundle may run: a rehearsal is root and has the user's secrets.

A bundle carries two programs: the receiver, and the repository whose gapforge verifies and builds.
Each must be of this machine (the receiver that this gapforge makes; a repository that `pack` made
here), or a page or an index that a trusted signer signed must name its SHA-256. Signatures of other
keys prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gapforge.base import limits
from gapforge.base.errors import Fault, TrustError
from gapforge.base.files import read_regular, sha256_file
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.bundle.bundle_index import read_index
from gapforge.bundle.repository_archive import archive_name
from gapforge.bundle.volume_format import Damaged
from gapforge.rehearsal.rehearsed_bundle import RehearsedBundle
from gapforge.trust import ssh_signatures, trusted_signers
from gapforge.trust.ssh_signatures import BUNDLE, CUSTODY, SUFFIX, BadSignature
from gapforge.trust.trusted_signers import Signers, Untrusted


def require_known_programs(project: Project, bundle: RehearsedBundle) -> None:
    """Raise TrustError if the bundle has a program that is not ours and that no signer names."""
    faults = []
    signed: list[bytes] | None = None
    for sha256, name, ours in _programs(project, bundle):
        if ours:
            continue
        if signed is None:
            signed = list(_signed_texts(bundle.signatures, trusted_signers.load(project)))
        if not any(sha256.encode() in text for text in signed):
            faults.append(Fault(name, _("of unknown origin: sha256 {sha256}", sha256=sha256)))
    if faults:
        raise TrustError(
            _("the bundle has programs that this machine did not make; they are not run"),
            faults=faults,
            hint=_(
                "pack the bundle again: {command}; or have it signed (--sign KEY) by a trusted "
                "signer: ./gapforge trust list",
                command=bundle.pack_command,
            ),
        )


def _programs(project: Project, bundle: RehearsedBundle) -> Iterator[tuple[str, str, bool]]:
    """Yield SHA-256 and name of each program, and whether this machine made it."""
    if (receiver := bundle.receiver) is not None:
        yield receiver.sha256, str(receiver.path), receiver.of_this_gapforge
    if bundle.tool and bundle.tool in bundle.objects:
        kept = project.state / "bundles" / archive_name(bundle.tool)
        ours = kept.is_file() and sha256_file(kept) == bundle.tool
        yield bundle.tool, _("the gapforge repository of the bundle"), ours


def _signed_texts(signatures: Sequence[Path], signers: Signers) -> Iterator[bytes]:
    """Yield the pages and indexes beside the volumes that a trusted signer signed."""
    if not signers:
        return
    for file in signatures:
        signed = file.with_name(file.name.removesuffix(SUFFIX))
        try:
            if signed.suffix == ".json":
                text, purpose = read_index(signed).render(), BUNDLE
            else:
                text, purpose = read_regular(signed, limits.DESCRIPTION), CUSTODY
            signers.verify(ssh_signatures.read_signature(file), text, purpose)
        except (BadSignature, Damaged, Untrusted, OSError, ValueError):
            continue
        yield text
