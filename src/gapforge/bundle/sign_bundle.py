"""Sign a bundle: its index, whose signature covers every byte of the volumes, and each lock.

The key is tested before the first volume is written. An existing signature is kept when the same
bundle is packed again, so an interrupted run gives the same bytes, also with keys whose signatures
differ each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base import limits
from gapforge.base.errors import BundleError, ToolError, UsageError
from gapforge.base.files import contains, read_regular, sha256_bytes
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.system_errors import os_reason
from gapforge.base.text_layout import utc
from gapforge.base.write_files import remove_litter, write_bytes
from gapforge.bundle.bundle_index import (
    BundleIndex,
    VolumeEntry,
    index_name,
    read_index,
    render_index,
)
from gapforge.bundle.companion_files import CompanionFiles, lock_signature_name, signature_name
from gapforge.bundle.contents import Contents
from gapforge.bundle.volume_format import BundledPreset, Damaged
from gapforge.bundle.volume_plan import Plan
from gapforge.model.lock import LOCK_FILE
from gapforge.store.store import Store
from gapforge.trust import ssh_signatures
from gapforge.trust.ssh_signatures import (
    BUNDLE,
    LOCK,
    BadSignature,
    PublicKey,
    Signature,
    SigningKey,
)
from gapforge.trust.trusted_signers import LOCK_SIGNATURE

_KEY_TEST = "gapforge-probe"  # the namespace of a signature that is thrown away


@dataclass(frozen=True)
class _SignedIndex:
    """An index with a time, and a valid signature of it."""

    index: BundleIndex
    signature: Signature


@dataclass(kw_only=True)
class BundleSigner:
    """Sign one bundle with ``key``.

    ``folders`` may contain the index of a bundle that is repaired.
    """

    key: SigningKey
    folders: Sequence[Path] = ()
    _earlier: _SignedIndex | None = None
    _made: str = ""
    _locks: dict[str, bytes] = field(default_factory=dict)

    def prepare(
        self, project: Project, plan: Plan, contents: Contents, to: Sequence[Path]
    ) -> Mapping[str, bytes]:
        """Sign the locks and test the key before a volume is written. Return the signatures.

        Raise TrustError for a key that cannot sign, BundleError for a repair that could make an old
        bundle look new.
        """
        folders = [project.state / "bundles", *to]
        self._earlier = _signed_index(plan.bundle, folders, self.key.public)
        if self._earlier is None or self._earlier.index.plan != plan:
            self._earlier = None
            self._made = self._signing_time(project, plan, [*folders, *self.folders])
        texts = {
            bundled.preset: text
            for bundled in plan.presets
            if (text := _lock_text(project, contents, bundled)) is not None
        }
        for preset, text in texts.items():
            name = lock_signature_name(plan.bundle, preset)
            files = [project.artifacts_of(preset) / LOCK_SIGNATURE, *(f / name for f in folders)]
            found = _lock_signature(self.key.public, files, text)
            if found is not None:
                self._locks[preset] = found.data
        wanted = [preset for preset in texts if preset not in self._locks]
        signatures = ssh_signatures.sign(self.key, LOCK, [texts[preset] for preset in wanted])
        self._locks.update(zip(wanted, signatures, strict=True))
        if not wanted and self._earlier is None:
            ssh_signatures.sign(self.key, _KEY_TEST, [plan.bundle.encode()])
        for preset, text in texts.items():
            _write_signature(project.artifacts_of(preset), text, self._locks[preset])
        return self._lock_signatures(plan)

    def finish(self, plan: Plan, volumes: Sequence[VolumeEntry]) -> CompanionFiles:
        """Sign the index. Return it with all signatures."""
        earlier = self._earlier
        if earlier is not None and earlier.index.volumes == tuple(volumes):
            made, signature = earlier.index.made, earlier.signature.data
        else:
            repaired = earlier.index.made if earlier is not None and plan.repairs else ""
            made = self._made or repaired or signing_time()
            signature = ssh_signatures.sign(self.key, BUNDLE, [render_index(plan, volumes, made)])[
                0
            ]
        # The signature comes first, so that an index always has one, wherever this is interrupted.
        files = self._lock_signatures(plan)
        files[signature_name(plan.bundle)] = signature
        files[index_name(plan.bundle)] = render_index(plan, volumes, made)
        return CompanionFiles(files, made, self.key.public)

    def _lock_signatures(self, plan: Plan) -> dict[str, bytes]:
        return {lock_signature_name(plan.bundle, name): data for name, data in self._locks.items()}

    def _signing_time(self, project: Project, plan: Plan, folders: Sequence[Path]) -> str:
        """Return the current time, or for a repair the time at which the bundle was signed."""
        if not plan.repairs:
            return signing_time()
        repaired = _signed_index(plan.repairs, folders, self.key.public)
        # A request arrives by mail. Its presets and tool are signed only if they are known here.
        if (
            repaired is not None
            and set(plan.presets) <= set(repaired.index.plan.presets)
            and plan.tool in ("", repaired.index.plan.tool)
        ):
            return repaired.index.made
        if not plan.tool and all(
            _current_lock(project, bundled.preset) == bundled.lock for bundled in plan.presets
        ):
            return signing_time()
        raise BundleError(
            _(
                "it is not known when bundle {bundle} was signed, and its presets have changed "
                "since; a signature with the current time would make an old bundle look new",
                bundle=plan.repairs,
            ),
            hint=_(
                "put {index} and {signature} beside the request; or pack the current presets: "
                "./gapforge pack PRESET --sign KEY",
                index=index_name(plan.repairs),
                signature=signature_name(plan.repairs),
            ),
        )


def unsigned_companions(
    project: Project, plan: Plan, volumes: Sequence[VolumeEntry], to: Sequence[Path]
) -> CompanionFiles:
    """Return the index of a bundle that is packed without a key.

    If exactly this bundle was signed before, its index and signatures are kept, since they are
    still true. Signatures that do not match the new index are listed as stale.
    """
    folders = [project.state / "bundles", *to]
    earlier = _signed_index(plan.bundle, folders)
    names = [lock_signature_name(plan.bundle, bundled.preset) for bundled in plan.presets]
    if earlier is None or earlier.index.plan != plan or earlier.index.volumes != tuple(volumes):
        stale = (signature_name(plan.bundle), *names)
        return CompanionFiles({index_name(plan.bundle): render_index(plan, volumes)}, stale=stale)
    files: dict[str, bytes] = {}
    for name in names:
        for folder in folders:
            try:
                files.setdefault(name, ssh_signatures.read_signature(folder / name).data)
            except BadSignature:
                continue
    files[signature_name(plan.bundle)] = earlier.signature.data
    files[index_name(plan.bundle)] = earlier.index.render()
    return CompanionFiles(files, earlier.index.made, earlier.signature.key)


def sign_lock(project: Project, presets: Iterable[str], key: SigningKey) -> list[Path]:
    """Sign artifacts/NAME/lock.json, for artifacts that are copied. Return the signature files."""
    texts: dict[str, bytes] = {}
    for preset in presets:
        lock = project.artifacts_of(preset) / LOCK_FILE
        try:
            texts[preset] = read_regular(lock, limits.LOCK)
        except OSError as error:
            raise UsageError(
                _("{lock} cannot be signed: {why}", lock=lock, why=os_reason(error)),
                hint=_("online: ./deps_sync.sh {arguments}", arguments=preset),
            ) from None
    files = {preset: project.artifacts_of(preset) / LOCK_SIGNATURE for preset in texts}
    wanted = [p for p in texts if _lock_signature(key.public, [files[p]], texts[p]) is None]
    signatures = ssh_signatures.sign(key, LOCK, [texts[preset] for preset in wanted])
    for preset, data in zip(wanted, signatures, strict=True):
        _write_signature(project.artifacts_of(preset), texts[preset], data)
    return list(files.values())


def signing_time() -> str:
    """Return the time to record in an index: the clock's, also if SOURCE_DATE_EPOCH is set.

    Rollback protection orders bundles by it, which needs a time of its own for each.
    """
    return utc()


def _lock_text(project: Project, contents: Contents, bundled: BundledPreset) -> bytes | None:
    """Return the bytes of a preset's lock if they are here and have the right checksum."""
    if bundled.lock in contents.texts:
        return contents.texts[bundled.lock]
    own = project.artifacts_of(bundled.preset) / LOCK_FILE
    for path in (Store(project.store).path(bundled.lock), own):
        try:
            text = read_regular(path, limits.LOCK)
        except OSError:
            continue
        if sha256_bytes(text) == bundled.lock:
            return text
    return None


def _signed_index(
    bundle: str, folders: Iterable[Path], key: PublicKey | None = None
) -> _SignedIndex | None:
    """Return the first index with a time and a valid signature (by ``key`` if it is given)."""
    for folder in folders:
        try:
            index = read_index(folder / index_name(bundle))
            signature = ssh_signatures.read_signature(folder / signature_name(bundle))
        except (Damaged, OSError, BadSignature):
            continue
        other_key = key is not None and signature.key.blob != key.blob
        if index.plan.bundle != bundle or not index.made or other_key:
            continue
        try:
            valid = ssh_signatures.made_by(signature, index.render(), BUNDLE) is not None
        except ToolError:
            # Without ssh-keygen a run that signs nothing keeps the signature; sites verify it.
            valid = key is None
        if valid:
            return _SignedIndex(index, signature)
    return None


def _lock_signature(key: PublicKey, files: Iterable[Path], text: bytes) -> Signature | None:
    """Return the first valid signature of a lock by this key."""
    for file in files:
        try:
            signature = ssh_signatures.read_signature(file)
        except BadSignature:
            continue
        if (
            signature.key.blob == key.blob
            and ssh_signatures.made_by(signature, text, LOCK) is not None
        ):
            return signature
    return None


def _write_signature(folder: Path, text: bytes, signature: bytes) -> None:
    """Write the signature beside the lock that it signs, if that lock is there."""
    remove_litter(folder / LOCK_SIGNATURE)
    if contains(folder / LOCK_FILE, text) and not contains(folder / LOCK_SIGNATURE, signature):
        write_bytes(folder / LOCK_SIGNATURE, signature)


def _current_lock(project: Project, preset: str) -> str:
    for file in (project.lock_file(preset), project.artifacts_of(preset) / LOCK_FILE):
        try:
            return sha256_bytes(read_regular(file, limits.LOCK))
        except OSError:
            continue
    return ""
