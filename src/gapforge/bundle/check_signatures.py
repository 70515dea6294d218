"""Who signed what was plugged in: the question before the first object is imported.

Where signers are trusted, only volumes come in that an index lists which one of them signed. Such an index is kept in
``artifacts/.store/signed/``, so that a later stick whose own copy is damaged can still be imported. Where nobody is
trusted yet, the signatures are carried along and told of.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import Fault, ToolError, TrustError
from gapforge.base.files import remove_litter, storage_errors, write_bytes
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.text import utc
from gapforge.bundle.read_errors import why_unreadable
from gapforge.bundle.sign_bundle import lock_signature_name, signature_name
from gapforge.bundle.volume_format import BUNDLE_ID, Damaged, Identity, View
from gapforge.bundle.volume_plan import Index, index_name, read_index, render_index
from gapforge.model.names import PRESET_NAME
from gapforge.trust import rollback_protection, ssh_signatures
from gapforge.trust.rollback_protection import AcceptedState, AcceptedStates
from gapforge.trust.ssh_signatures import BUNDLE, LOCK, SUFFIX, BadSignature, Signature
from gapforge.trust.trusted_signers import LOCK_SIGNATURE, Signer, Signers, Untrusted

_LOCK_SIGNATURE = re.compile(
    rf"({BUNDLE_ID.pattern})\.({PRESET_NAME.pattern})\.lock{re.escape(SUFFIX)}"
)
_MOST_FILES = 200  # signatures of one preset's lock that are looked at
DAY = 86400
TOOL = ""  # what the record calls gapforge itself; no preset is called so


@dataclass
class Admission:
    """Judges indexes as they are found, then what may come in. ``indexes`` are those that count."""

    project: Project
    signers: Signers
    indexes: dict[str, Index] = field(default_factory=dict)
    _signed: dict[str, tuple[Signer, Signature]] = field(default_factory=dict)
    _places: dict[str, Path] = field(default_factory=dict)
    _refused: dict[str, list[Fault]] = field(default_factory=dict)
    _lock_signatures: dict[str, list[Path]] = field(default_factory=dict)
    _recalled: set[str] = field(default_factory=set)
    _used: set[str] = field(default_factory=set)
    _record: AcceptedStates = field(default_factory=AcceptedStates)
    _allow_older: bool = False

    # -- while folders are looked over

    def offer(self, path: Path, index: Index) -> None:
        """An index that is whole. Where signers are trusted, only the first one counts that one of them signed."""
        bundle = index.plan.bundle
        if not self.signers:
            self.indexes[bundle], self._places[bundle] = index, path
            return
        if bundle in self.indexes:
            return
        beside = path.with_name(path.name + SUFFIX)
        try:
            signature = ssh_signatures.read_signature(beside)
            data = render_index(index.plan, index.sealed, index.made)
            signer = self.signers.verify(signature, data, BUNDLE)
            if not index.made:
                raise Untrusted(_("says no moment at which it was signed"))
        except BadSignature as error:
            self._refuse(bundle, beside, str(error))
        except Untrusted as error:
            self._refuse(bundle, path, str(error))
        else:
            self.indexes[bundle], self._places[bundle] = index, path
            self._signed[bundle] = signer, signature

    def offer_damaged(self, path: Path, why: str) -> None:
        """An index that cannot be read; only its name says whose it would be."""
        if BUNDLE_ID.fullmatch(path.stem):
            self._refuse(path.stem, path, why)

    def offer_lock_signature(self, path: Path) -> None:
        """What may be the signature of a preset's lock, by its name."""
        match = _LOCK_SIGNATURE.fullmatch(path.name)
        if match is not None and len(self._lock_signatures.setdefault(match[2], [])) < _MOST_FILES:
            self._lock_signatures[match[2]].append(path)

    def recall(self, bundle: str) -> None:
        """Take up the index that was kept when an earlier stick of the bundle came in, if none counts yet."""
        if self.signers and bundle not in self.indexes and bundle not in self._recalled:
            self._recalled.add(bundle)
            path = self._keep / index_name(bundle)
            try:
                self.offer(path, read_index(path))
            except FileNotFoundError:
                pass
            except (Damaged, OSError) as error:
                self._refuse(bundle, path, why_unreadable(error))

    def require(
        self, identities: Iterable[tuple[Path, Identity]], altered: Mapping[Path, str]
    ) -> None:
        """Raise TrustError with every fault unless a trusted signer's index lists all these volumes.

        ``altered`` are volumes that are whole and another thing than their bundle's index says.
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
                index, signature, trusted = (
                    index_name(bundle),
                    signature_name(bundle),
                    self._trusted,
                )
                faults += self._refused.get(bundle) or [
                    Fault(
                        str(path),
                        _(
                            "is unsigned: neither {index} nor {signature} is here",
                            index=index,
                            signature=signature,
                        ),
                        _("both, signed by {trusted}", trusted=trusted),
                    )
                ]
        if faults:
            raise TrustError(
                _(
                    "what was carried is not signed by anybody who is trusted here; "
                    "nothing was imported"
                ),
                faults=sorted(faults),
                hint=_(
                    "have it packed with --sign, or carried again; a signer whom you "
                    "know by another way: ./gapforge trust add KEY"
                ),
            )

    # -- before the first byte, while the store is ours

    def check_age(self, bundle: str, allow_older: bool) -> None:
        """Raise TrustError when this site accepted something newer of a preset in ``bundle``, unless ``allow_older``."""
        if not self.signers:
            return
        self._allow_older = allow_older
        self._used |= {
            bundle
        } & self.indexes.keys()  # with all its volumes broken, its presets may be here still
        try:
            self._record = rollback_protection.read(self.project)
        except TrustError:
            if not allow_older:
                raise
        faults, known_latest = [], ""
        for name in sorted(self._used & self.indexes.keys()):
            index = self.indexes[name]
            for view in index.plan.views:
                known = self._record.newer_state(view.preset, index.made, view.lock)
                if known is not None:
                    known_latest = max(known_latest, known.made)
                    faults.append(
                        _older(_("preset {preset}", preset=view.preset), name, index.made, known)
                    )
            known = (
                self._record.newer_state(TOOL, index.made, index.plan.tool)
                if index.plan.tool
                else None
            )
            if known is not None:
                known_latest = max(known_latest, known.made)
                faults.append(_older(_("gapforge itself"), name, index.made, known))
        if faults and not allow_older:
            hint = _(
                "ask the sender for the newest; to go back on purpose: the same command "
                "with --allow-older"
            )
            if known_latest > _moment(DAY):
                hint += _(
                    "; if {known_latest} cannot be, the clock where it was signed was "
                    "wrong, and --allow-older mends that",
                    known_latest=known_latest,
                )
            raise TrustError(
                _("what was carried is older than what was accepted here; nothing was imported"),
                faults=faults,
                hint=hint,
            )
        for name in sorted(self._used & self._signed.keys()):
            self._remember(name)

    # -- when a preset is whole

    def lock_signature(self, view: View, text: bytes) -> bytes | None:
        """The signature to lay beside the lock; None where nobody is trusted and there is none.

        Raises Untrusted, saying why, where signers are trusted and none of them signed it.
        """
        own = self.project.artifacts_of(view.preset) / LOCK_SIGNATURE
        reason = _("has no signature")
        for path in [
            *self._lock_signatures.get(view.preset, ()),
            *sorted(self._keep.glob(f"*.{view.preset}.lock{SUFFIX}")),
            own,
        ]:
            try:
                signature = ssh_signatures.read_signature(path)
                if self.signers:
                    self.signers.verify(signature, text, LOCK)
                elif not _made(signature, text):
                    continue
            except BadSignature as error:
                if path != own:
                    reason = _("has no signature: {path} {error}", path=path, error=error)
            except Untrusted as error:
                if path != own:
                    reason = f"{error} ({path})"
            else:
                return signature.data
        if self.signers:
            raise Untrusted(reason)
        return None

    def accept(self, view: View, bundle: str) -> None:
        """Remember that this state of the preset was laid out here."""
        made = max(
            (
                index.made
                for name, index in self.indexes.items()
                if name in self._used | {bundle} and view in index.plan.views
            ),
            default="",
        )
        self._write(view.preset, made, bundle, view.lock)

    def accept_tool(self, tool: str, bundle: str) -> None:
        """Remember that this gapforge came with a bundle that is whole."""
        made = max(
            (
                index.made
                for name, index in self.indexes.items()
                if name in self._used | {bundle} and tool and index.plan.tool == tool
            ),
            default="",
        )
        self._write(TOOL, made, bundle, tool)

    def _write(self, name: str, made: str, bundle: str, sha256: str) -> None:
        if self.signers and made:
            record = self._record.accept(name, made, bundle, sha256, older=self._allow_older)
            if record != self._record:
                record.write(self.project)
                self._record = record

    def forget_superseded(self) -> None:
        """Remove kept indexes of bundles that would be refused by now, so that they do not pile up."""
        for path in sorted(self._keep.glob("*.json")):
            try:
                index = read_index(path)
            except (Damaged, OSError):
                continue
            views = index.plan.views
            older = [
                view
                for view in views
                if self._record.newer_state(view.preset, index.made, view.lock)
            ]
            if index.plan.bundle not in self._used and views and len(older) == len(views):
                for name in (
                    signature_name(path.stem),
                    *(lock_signature_name(path.stem, view.preset) for view in views),
                ):
                    (self._keep / name).unlink(missing_ok=True)
                path.unlink(missing_ok=True)

    def told(self, bundle: str) -> list[str]:
        """What a person should know of who signed this, in the reader's language."""
        told = []
        for name in sorted(self._used | ({bundle} & self.indexes.keys())):
            if name in self._signed:
                signer, made = self._signed[name][0], self.indexes[name].made
                told.append(
                    _(
                        "bundle {name}: signed {made} by {signer} ({fingerprint})",
                        name=name,
                        made=made,
                        signer=signer.name,
                        fingerprint=signer.key.fingerprint,
                    )
                )
                if made > _moment(DAY):
                    told.append(
                        _(
                            "warning: {made} is yet to come: the sender's clock or this "
                            "one is wrong; until then the next bundle of these presets "
                            "will need --allow-older",
                            made=made,
                        )
                    )
            elif not self.signers:
                told.append(self._claim(name))
        return told

    def signer(self, bundle: str) -> str:
        """Who signed what came in, for the custody page; "" where nobody did."""
        names = sorted(self._used | ({bundle} & self.indexes.keys()))
        if self.signers:
            return ", ".join(
                sorted({self._signed[name][0].shown for name in names if name in self._signed})
            )
        try:
            keys = {
                found.key.fingerprint for name in names if (found := self._good(name)) is not None
            }
        except ToolError:
            return ""
        return ", ".join(_("{key} (not trusted here)", key=key) for key in sorted(keys))

    def _good(self, bundle: str) -> Signature | None:
        """The signature of an index when it fits, whoever made it. Raises ToolError without ssh-keygen."""
        index, path = self.indexes.get(bundle), self._places.get(bundle)
        if index is None or path is None or not index.made:
            return None
        try:
            signature = ssh_signatures.read_signature(path.with_name(path.name + SUFFIX))
        except BadSignature:
            return None
        data = render_index(index.plan, index.sealed, index.made)
        return signature if ssh_signatures.made_by(signature, data, BUNDLE) is not None else None

    def to_json(self, bundle: str) -> list[dict[str, str]]:
        """The signers of what came in, in JSON types; ``signer`` is "" for a bundle that no trusted signer signed."""
        return [
            {
                "bundle": name,
                "made": self.indexes[name].made if name in self.indexes else "",
                "signer": self._signed[name][0].name if name in self._signed else "",
                "fingerprint": self._signed[name][0].key.fingerprint
                if name in self._signed
                else "",
            }
            for name in sorted(self._used | ({bundle} & self.indexes.keys()))
        ]

    def _claim(self, bundle: str) -> str:
        """What a bundle says of its signer where nobody is trusted."""
        index, path = self.indexes.get(bundle), self._places.get(bundle)
        if index is None or path is None or not index.made:
            return _("bundle {bundle}: unsigned", bundle=bundle)
        try:
            signature = ssh_signatures.read_signature(path.with_name(path.name + SUFFIX))
            data = render_index(index.plan, index.sealed, index.made)
            good = ssh_signatures.made_by(signature, data, BUNDLE) is not None
        except BadSignature as error:
            return _(
                "bundle {bundle}: unsigned (its signature {error})", bundle=bundle, error=error
            )
        except ToolError:
            return _(
                "bundle {bundle}: claims to be signed by {fingerprint}; without "
                "ssh-keygen that could not be checked",
                bundle=bundle,
                fingerprint=signature.key.fingerprint,
            )
        if not good:
            return _(
                "warning: bundle {bundle}: its signature does not fit; it was altered since",
                bundle=bundle,
            )
        return _(
            "bundle {bundle}: signed by {fingerprint}; nobody is trusted here yet: "
            "./gapforge trust add KEY",
            bundle=bundle,
            fingerprint=signature.key.fingerprint,
        )

    # -- what is kept

    @property
    def _keep(self) -> Path:
        return self.project.store / "signed"

    @property
    def _trusted(self) -> str:
        return _(" or ").join(signer.name for signer in self.signers.signers[:4])

    def _refuse(self, bundle: str, path: Path, why: str) -> None:
        faults = self._refused.setdefault(bundle, [])
        if len(faults) < _MOST_FILES:
            faults.append(
                Fault(str(path), why, _("a good signature by {trusted}", trusted=self._trusted))
            )

    def _remember(self, bundle: str) -> None:
        """Keep the index, its signature and those of the locks."""
        index, (_unused, signature) = self.indexes[bundle], self._signed[bundle]
        files = {
            signature_name(bundle): signature.data,
            index_name(bundle): render_index(index.plan, index.sealed, index.made),
        }
        for view in index.plan.views:
            for path in self._lock_signatures.get(view.preset, ()):
                try:
                    found = ssh_signatures.read_signature(path)
                except BadSignature:
                    continue
                if any(signer.key.blob == found.key.blob for signer in self.signers.signers):
                    files[lock_signature_name(bundle, view.preset)] = found.data
                    break
        for name, data in files.items():
            file = self._keep / name
            with storage_errors(file):
                if not (file.is_file() and not file.is_symlink() and file.read_bytes() == data):
                    write_bytes(file, data)


def clear_signature(folder: Path, stale: bool) -> None:
    """Remove what a killed run was writing of lock.json.sig, and when ``stale`` the one that signs an earlier lock.

    Comes before the lock: afterwards nobody could tell any more that the signature is that of an earlier one.
    """
    file = folder / LOCK_SIGNATURE
    remove_litter(file)
    with storage_errors(file):
        if stale and (file.is_symlink() or file.is_file()):
            file.unlink()


def lay_signature(folder: Path, signature: bytes | None) -> None:
    """Make lock.json.sig the one that fits, if there is one."""
    file = folder / LOCK_SIGNATURE
    with storage_errors(file):
        if signature is not None and (
            file.is_symlink() or not file.is_file() or file.read_bytes() != signature
        ):
            write_bytes(file, signature)


def _made(signature: Signature, text: bytes) -> bool:
    try:
        return ssh_signatures.made_by(signature, text, LOCK) is not None
    except ToolError:
        return signature.namespace == LOCK  # verify will tell, where somebody is trusted


def _moment(ahead: int) -> str:
    return utc(time.time() + ahead)


def _older(what: str, bundle: str, made: str, known: AcceptedState) -> Fault:
    """The fault of something in ``bundle``, signed at ``made``, that is older than what is known here."""
    return Fault(
        what,
        _("was signed {made} in bundle {bundle}", made=made, bundle=bundle),
        _(
            "nothing older than {made}, when bundle {bundle} was signed",
            made=known.made,
            bundle=known.bundle,
        ),
    )


def locks_untrusted(faults: Sequence[Fault]) -> TrustError:
    """The error for presets whose objects are here and whose locks nobody who is trusted signed."""
    return TrustError(
        _(
            "the locks of these presets are not signed by anybody who is trusted here; "
            "they were not laid out"
        ),
        faults=faults,
        hint=_(
            "have the sender give the small files BUNDLE.PRESET.lock.sig again, put them "
            "beside the volumes, and run unpack again; what was imported stays"
        ),
    )
