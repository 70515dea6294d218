"""Check the signatures of a bundle before its first object is imported.

If this machine has trusted signers, a volume is imported only if an index lists it that one of them
signed. Such an index is kept in ``artifacts/.store/signed/``, so that a later medium with a damaged
copy can still be imported. Without trusted signers the signatures are copied and reported.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gapforge.base.errors import Fault, ToolError, TrustError
from gapforge.base.files import contains
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.storage_errors import storage_errors
from gapforge.base.text_layout import utc
from gapforge.base.units import DAY
from gapforge.base.write_files import remove_file, remove_litter, write_bytes
from gapforge.bundle.bundle_index import BundleIndex, index_name, read_index
from gapforge.bundle.companion_files import lock_signature_name, signature_name
from gapforge.bundle.volume_format import (
    BUNDLE_ID,
    BundledPreset,
    Damaged,
    VolumeIdentity,
    describe_read_error,
)
from gapforge.model.lock import has_lock
from gapforge.model.names import PRESET_NAME
from gapforge.trust import rollback_protection, ssh_signatures
from gapforge.trust.rollback_protection import AcceptedState, AcceptedStates
from gapforge.trust.ssh_signatures import BUNDLE, LOCK, SUFFIX, BadSignature, Signature
from gapforge.trust.trusted_signers import LOCK_SIGNATURE, Signer, Signers, Untrusted

_LOCK_SIGNATURE = re.compile(
    rf"({BUNDLE_ID.pattern})\.({PRESET_NAME.pattern})\.lock{re.escape(SUFFIX)}"
)
_MAX_FILES = 200  # signatures of one preset's lock that are read
REPOSITORY = ""  # the repository's name in the record of accepted bundles; no preset has it


class _Signed(NamedTuple):
    """Who signed an index, and the signature."""

    signer: Signer
    signature: Signature


@dataclass(kw_only=True)
class SignatureCheck:
    """Check indexes while media are scanned, and locks when their artifacts are created.

    ``indexes`` are the indexes that count, by bundle.
    """

    project: Project
    signers: Signers
    indexes: dict[str, BundleIndex] = field(default_factory=dict)
    _signed: dict[str, _Signed] = field(default_factory=dict)
    _files: dict[str, Path] = field(default_factory=dict)
    _rejected: dict[str, list[Fault]] = field(default_factory=dict)
    _lock_signatures: dict[str, list[Path]] = field(default_factory=dict)
    _recalled: set[str] = field(default_factory=set)
    _used: set[str] = field(default_factory=set)
    _accepted: AcceptedStates = field(default_factory=AcceptedStates)
    _allow_older: bool = False

    @classmethod
    def without_signers(cls, project: Project) -> SignatureCheck:
        """Return the check of a machine without trusted signers: every index counts."""
        return cls(project=project, signers=Signers(Path(os.devnull), ()))

    # -- while media are scanned

    def add_index(self, path: Path, index: BundleIndex) -> None:
        """Add an intact index. With trusted signers, only the first one counts that they signed."""
        bundle = index.plan.bundle
        if not self.signers:
            self.indexes[bundle], self._files[bundle] = index, path
            return
        if bundle in self.indexes:
            return
        signature_file = path.with_name(path.name + SUFFIX)
        try:
            signature = ssh_signatures.read_signature(signature_file)
            signer = self.signers.verify(signature, index.render(), BUNDLE)
            if not index.made:
                raise Untrusted(_("the index does not say when it was signed"))
        except BadSignature as error:
            self._reject(bundle, signature_file, str(error))
        except Untrusted as error:
            self._reject(bundle, path, str(error))
        else:
            self.indexes[bundle], self._files[bundle] = index, path
            self._signed[bundle] = _Signed(signer, signature)

    def add_damaged_index(self, path: Path, why: str) -> None:
        """Record an index that cannot be read. Only its name tells the bundle."""
        if BUNDLE_ID.fullmatch(path.stem):
            self._reject(path.stem, path, why)

    def add_lock_signature(self, path: Path) -> None:
        """Record a file that is the signature of a preset's lock by its name."""
        match = _LOCK_SIGNATURE.fullmatch(path.name)
        if match is not None and len(self._lock_signatures.setdefault(match[2], [])) < _MAX_FILES:
            self._lock_signatures[match[2]].append(path)

    def recall(self, bundle: str) -> None:
        """Use the index that was kept from an earlier medium of the bundle, if no other counts."""
        if self.signers and bundle not in self.indexes and bundle not in self._recalled:
            self._recalled.add(bundle)
            path = self._kept / index_name(bundle)
            try:
                self.add_index(path, read_index(path))
            except FileNotFoundError:
                pass
            except (Damaged, OSError) as error:
                self._reject(bundle, path, describe_read_error(error))

    def require(
        self, identities: Iterable[tuple[Path, VolumeIdentity]], altered: Mapping[Path, str]
    ) -> None:
        """Raise TrustError with every fault unless a trusted signer's index lists these volumes.

        ``altered`` maps intact volumes that differ from their bundle's index to the reason.
        """
        first: dict[str, Path] = {}
        for path, identity in identities:
            first.setdefault(identity.bundle, path)
        self._used |= set(first)
        if not self.signers:
            return
        signed = _("the volume that was signed")
        faults = [Fault(str(path), why, signed) for path, why in altered.items()]
        for bundle, path in first.items():
            if bundle not in self.indexes:
                faults += self._rejected.get(bundle) or [self._unsigned(bundle, path)]
        if faults:
            raise TrustError(
                _("no trusted signer signed these volumes; nothing was imported"),
                faults=sorted(faults),
                hint=_(
                    "have the bundle packed with --sign, or carried again; to trust the key of a "
                    "person you know: ./gapforge trust add KEY"
                ),
            )

    def _unsigned(self, bundle: str, path: Path) -> Fault:
        return Fault(
            str(path),
            _(
                "unsigned: {index} and {signature} are missing",
                index=index_name(bundle),
                signature=signature_name(bundle),
            ),
            _("both files, signed by {signers}", signers=self._signer_names),
        )

    # -- before the first byte, while the store is locked

    def check_age(self, bundle: str, allow_older: bool) -> None:
        """Raise TrustError if this site accepted a newer state of something in ``bundle``.

        With ``allow_older`` it is accepted.
        """
        if not self.signers:
            return
        self._allow_older = allow_older
        # If all volumes of the bundle are damaged, its presets may still be here.
        self._used |= {bundle} & self.indexes.keys()
        recorded = rollback_protection.read(
            self.project, self.signers.file, skip_damaged=allow_older
        )
        self._accepted = recorded.merge(self._state_of_artifacts())
        if not allow_older:
            self._require_newest()
        for name in sorted(self._used & self._signed.keys()):
            self._keep(name)

    def _state_of_artifacts(self) -> AcceptedStates:
        """Return the states of artifacts whose signed index is kept, in case the record is lost."""
        states = AcceptedStates()
        for path in sorted(self._kept.glob("*.json")):
            try:
                index = read_index(path)
                here = [
                    each
                    for each in index.plan.presets
                    if has_lock(self.project.artifacts_of(each.preset), each.lock)
                ]
                if not here or not index.made:
                    continue
                signature = ssh_signatures.read_signature(path.with_name(path.name + SUFFIX))
                self.signers.verify(signature, index.render(), BUNDLE)
            except (Damaged, OSError, BadSignature, Untrusted):
                continue
            for each in here:
                states = states.accept(each.preset, index.made, index.plan.bundle, each.lock)
        return states

    def _newer(self, index: BundleIndex) -> list[tuple[str, AcceptedState]]:
        """Return what was accepted here and is newer than the contents of an index."""
        plan = index.plan
        contents = [
            (_("preset {preset}", preset=bundled.preset), bundled.preset, bundled.lock)
            for bundled in plan.presets
        ]
        if plan.tool:
            contents.append((_("the gapforge repository"), REPOSITORY, plan.tool))
        return [
            (label, accepted)
            for label, name, sha256 in contents
            if (accepted := self._accepted.newer_state(name, index.made, sha256)) is not None
        ]

    def _require_newest(self) -> None:
        """Raise TrustError naming everything in the used indexes that is older than accepted."""
        faults, latest = [], ""
        for bundle in sorted(self._used & self.indexes.keys()):
            made = self.indexes[bundle].made
            for label, accepted in self._newer(self.indexes[bundle]):
                latest = max(latest, accepted.made)
                found = _("signed {made} in bundle {bundle}", made=made, bundle=bundle)
                expected = _(
                    "nothing older than {made}, when bundle {bundle} was signed",
                    made=accepted.made,
                    bundle=accepted.bundle,
                )
                faults.append(Fault(label, found, expected))
        if not faults:
            return
        hint = _(
            "request the newest bundle; to go back intentionally, run the same command with "
            "--allow-older"
        )
        if latest > _from_now(DAY):
            hint = _(
                "request the newest bundle; to go back intentionally, run the same command with "
                "--allow-older; if {time} cannot be right, the clock was wrong when that bundle "
                "was signed, and --allow-older corrects the record",
                time=latest,
            )
        raise TrustError(
            _("the bundle is older than one that was accepted here; nothing was imported"),
            faults=faults,
            hint=hint,
        )

    # -- when all objects of a preset are imported

    def lock_signature(self, bundled: BundledPreset, text: bytes) -> bytes | None:
        """Return the signature to write beside the lock.

        Without trusted signers it is None if there is no signature. With trusted signers, raise
        Untrusted with the reason if none of them signed the lock.
        """
        own = self.project.artifacts_of(bundled.preset) / LOCK_SIGNATURE
        reason = _("no signature")
        for path in [
            *self._lock_signatures.get(bundled.preset, ()),
            *sorted(self._kept.glob(f"*.{bundled.preset}.lock{SUFFIX}")),
            own,
        ]:
            try:
                signature = ssh_signatures.read_signature(path)
                if self.signers:
                    self.signers.verify(signature, text, LOCK)
                elif not _is_valid(signature, text):
                    continue
            except (BadSignature, Untrusted) as error:
                if path != own:
                    reason = _("{path}: {why}", path=path, why=error)
            else:
                return signature.data
        if self.signers:
            raise Untrusted(reason)
        return None

    def accept(self, bundled: BundledPreset, bundle: str) -> None:
        """Record that this state of the preset was imported."""
        made = self._signed_at(bundle, lambda index: bundled in index.plan.presets)
        self._write_record(bundled.preset, made, bundle, bundled.lock)

    def accept_repository(self, tool: str, bundle: str) -> None:
        """Record that this state of the repository was imported with a complete bundle."""
        made = self._signed_at(bundle, lambda index: bool(tool) and index.plan.tool == tool)
        self._write_record(REPOSITORY, made, bundle, tool)

    def _signed_at(self, bundle: str, contains: Callable[[BundleIndex], bool]) -> str:
        used = [index for name, index in self.indexes.items() if name in self._used | {bundle}]
        return max((index.made for index in used if contains(index)), default="")

    def _write_record(self, name: str, made: str, bundle: str, sha256: str) -> None:
        if not (self.signers and made):
            return
        file, older = self.signers.file, self._allow_older
        with rollback_protection.changing(file):
            recorded = rollback_protection.read(self.project, file, skip_damaged=older)
            record = recorded.accept(name, made, bundle, sha256, older=older)
            if record != recorded or older:
                rollback_protection.write(self.project, file, record)
        self._accepted = self._accepted.accept(name, made, bundle, sha256, older=older)

    def forget_superseded(self) -> None:
        """Remove kept indexes of bundles that would now be rejected as older."""
        for path in sorted(self._kept.glob("*.json")):
            try:
                index = read_index(path)
            except (Damaged, OSError):
                continue
            presets = index.plan.presets
            superseded = bool(presets) and all(
                self._accepted.newer_state(each.preset, index.made, each.lock) for each in presets
            )
            if superseded and index.plan.bundle not in self._used:
                locks = [lock_signature_name(path.stem, each.preset) for each in presets]
                for name in (signature_name(path.stem), *locks, path.name):
                    remove_file(self._kept / name)

    # -- reports

    def report(self, bundle: str) -> list[str]:
        """Return lines for a person: who signed each bundle, and warnings."""
        lines = []
        for name in self._names(bundle):
            if name in self._signed:
                signer, made = self._signed[name].signer, self.indexes[name].made
                lines.append(
                    _(
                        "bundle {bundle}: signed {made} by {signer} ({fingerprint})",
                        bundle=name,
                        made=made,
                        signer=signer.name,
                        fingerprint=signer.key.fingerprint,
                    )
                )
                if made > _from_now(DAY):
                    lines.append(
                        _(
                            "warning: {made} is in the future: the clock of the signer or of this "
                            "machine is wrong; until then, --allow-older is needed for the next "
                            "bundle of these presets",
                            made=made,
                        )
                    )
            elif not self.signers:
                lines.append(self._claim(name))
        return lines

    def signer(self, bundle: str) -> str:
        """Return who signed what was imported, for the custody page, or ""."""
        names = self._names(bundle)
        if self.signers:
            signed = {self._signed[name].signer.shown for name in names if name in self._signed}
            return ", ".join(sorted(signed))
        keys = set()
        for name in names:
            try:
                found = self._claimed_signature(name)
                if found is not None and self._is_valid_index(name, found):
                    keys.add(found.key.fingerprint)
            except BadSignature:
                continue
            except ToolError:
                return ""
        return ", ".join(_("{key} (not trusted here)", key=key) for key in sorted(keys))

    def to_json(self, bundle: str) -> list[dict[str, str]]:
        """Return the signers as JSON types. ``signer`` is "" if no trusted signer signed."""
        signers = {name: signed.signer for name, signed in self._signed.items()}
        return [
            {
                "bundle": name,
                "made": self.indexes[name].made if name in self.indexes else "",
                "signer": signers[name].name if name in signers else "",
                "fingerprint": signers[name].key.fingerprint if name in signers else "",
            }
            for name in self._names(bundle)
        ]

    def _names(self, bundle: str) -> list[str]:
        """Return the bundles of the volumes, and ``bundle`` itself if its index is here."""
        return sorted(self._used | ({bundle} & self.indexes.keys()))

    def _claimed_signature(self, bundle: str) -> Signature | None:
        """Return the signature beside an index with a time. Raise BadSignature if unreadable."""
        index, path = self.indexes.get(bundle), self._files.get(bundle)
        if index is None or path is None or not index.made:
            return None
        return ssh_signatures.read_signature(path.with_name(path.name + SUFFIX))

    def _is_valid_index(self, bundle: str, signature: Signature) -> bool:
        """Return whether the signature matches the index. Raise ToolError without ssh-keygen."""
        text = self.indexes[bundle].render()
        return ssh_signatures.made_by(signature, text, BUNDLE) is not None

    def _claim(self, bundle: str) -> str:
        """Return what a bundle claims about its signer, on a machine without trusted signers."""
        try:
            signature = self._claimed_signature(bundle)
        except BadSignature as error:
            return _("bundle {bundle}: unsigned (signature: {why})", bundle=bundle, why=error)
        if signature is None:
            return _("bundle {bundle}: unsigned", bundle=bundle)
        fingerprint = signature.key.fingerprint
        try:
            valid = self._is_valid_index(bundle, signature)
        except ToolError:
            return _(
                "bundle {bundle}: claims to be signed by {fingerprint}; not verified, because "
                "ssh-keygen is missing",
                bundle=bundle,
                fingerprint=fingerprint,
            )
        if not valid:
            return _(
                "warning: bundle {bundle}: the signature is not valid; the index was altered after "
                "signing",
                bundle=bundle,
            )
        return _(
            "bundle {bundle}: signed by {fingerprint}; no trusted signers are configured on this "
            "machine: ./gapforge trust add KEY",
            bundle=bundle,
            fingerprint=fingerprint,
        )

    # -- kept indexes

    @property
    def _kept(self) -> Path:
        return self.project.store / "signed"

    @property
    def _signer_names(self) -> str:
        return ", ".join(signer.name for signer in self.signers.signers[:4])

    def _reject(self, bundle: str, path: Path, why: str) -> None:
        faults = self._rejected.setdefault(bundle, [])
        if len(faults) < _MAX_FILES:
            expected = _("a valid signature by {signers}", signers=self._signer_names)
            faults.append(Fault(str(path), why, expected))

    def _keep(self, bundle: str) -> None:
        """Keep the index, its signature and the signatures of the locks."""
        index, signature = self.indexes[bundle], self._signed[bundle].signature
        files = {signature_name(bundle): signature.data, index_name(bundle): index.render()}
        trusted = {signer.key.blob for signer in self.signers.signers}
        for bundled in index.plan.presets:
            for path in self._lock_signatures.get(bundled.preset, ()):
                try:
                    found = ssh_signatures.read_signature(path)
                except BadSignature:
                    continue
                if found.key.blob in trusted:
                    files[lock_signature_name(bundle, bundled.preset)] = found.data
                    break
        for name, data in files.items():
            file = self._kept / name
            with storage_errors(file):
                if not contains(file, data):
                    write_bytes(file, data)


def remove_signature(folder: Path, stale: bool) -> None:
    """Remove temporary files of lock.json.sig, and if ``stale`` the signature of an earlier lock.

    Call it before the new lock is written. Afterwards it would be unknown which lock is signed.
    """
    file = folder / LOCK_SIGNATURE
    remove_litter(file)
    with storage_errors(file):
        if stale and (file.is_symlink() or file.is_file()):
            remove_file(file)


def write_signature(folder: Path, signature: bytes | None) -> None:
    """Write lock.json.sig if there is a signature."""
    file = folder / LOCK_SIGNATURE
    with storage_errors(file):
        if signature is not None and not contains(file, signature):
            write_bytes(file, signature)


def _is_valid(signature: Signature, text: bytes) -> bool:
    try:
        return ssh_signatures.made_by(signature, text, LOCK) is not None
    except ToolError:
        return signature.namespace == LOCK  # verify decides once there are trusted signers


def _from_now(seconds: int) -> str:
    return utc(time.time() + seconds)


def untrusted_locks(faults: Sequence[Fault]) -> TrustError:
    """Return the error for imported presets whose locks no trusted signer signed."""
    return TrustError(
        _("no trusted signer signed the locks of these presets; their artifacts were not created"),
        faults=faults,
        hint=_(
            "request the small files BUNDLE.PRESET.lock.sig again, put them beside the volumes, "
            "and run unpack again; what was imported is kept"
        ),
    )
