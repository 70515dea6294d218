"""Signing a bundle: its index, which stands for every byte of its volumes, and each preset's lock.

Beside the volumes lie ``ID.json`` with the moment of signing, ``ID.json.sig`` and ``ID.NAME.lock.sig``. The key is
tried before the first volume is written. What was signed once stays as it is when the same bundle is packed again, so
a run that was cut gives the same bytes, also with keys whose signatures are never twice the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gapforge.base.errors import BundleError, ToolError, UsageError
from gapforge.base.files import read_regular, remove_litter, sha256_bytes, write_bytes
from gapforge.base.i18n import _
from gapforge.base.project import Project
from gapforge.base.system_errors import os_says
from gapforge.base.text import utc
from gapforge.bundle.contents import LOCK as LOCK_FILE
from gapforge.bundle.contents import Contents
from gapforge.bundle.volume_format import Damaged, View
from gapforge.bundle.volume_plan import Index, Plan, Sealed, index_name, read_index, render_index
from gapforge.model import lock as locks
from gapforge.store.store import Store
from gapforge.trust import ssh_signatures
from gapforge.trust.ssh_signatures import (
    BUNDLE,
    LOCK,
    SUFFIX,
    BadSignature,
    PublicKey,
    Signature,
    SigningKey,
)
from gapforge.trust.trusted_signers import LOCK_SIGNATURE

_PROBE = "gapforge-probe"  # the namespace of a signature that nobody gets


def signature_name(bundle: str) -> str:
    """The name of the signature of the bundle's index."""
    return index_name(bundle) + SUFFIX


def lock_signature_name(bundle: str, preset: str) -> str:
    """The name, beside the volumes, of the signature of a preset's lock."""
    return f"{bundle}.{preset}.lock{SUFFIX}"


@dataclass(frozen=True)
class Beside:
    """The small files that go beside the volumes. ``made`` is "" and ``key`` None for a bundle that nobody signed;
    ``stale`` are names of signatures of an earlier run, which do not fit any more."""

    files: Mapping[str, bytes]
    made: str = ""
    key: PublicKey | None = None
    stale: tuple[str, ...] = ()


@dataclass
class Seal:
    """The wish to sign with ``key``. ``places`` are folders that may hold the index of a bundle that is mended."""

    key: SigningKey
    places: Sequence[Path] = ()
    _kept: tuple[Index, Signature] | None = None
    _made: str = ""
    _locks: dict[str, bytes] = field(default_factory=dict)

    def prepare(
        self, project: Project, plan: Plan, contents: Contents, to: Sequence[Path]
    ) -> Mapping[str, bytes]:
        """Sign the locks, and be sure that the key works, before a volume is written; gives files to keep meanwhile.

        Raises TrustError for a key that cannot sign, BundleError for a repair that might make an old bundle look new.
        """
        places = [project.state / "bundles", *to]
        self._kept = _signed(plan.bundle, places, self.key.public)
        if self._kept is None or self._kept[0].plan != plan:
            self._kept = None
            self._made = self._moment(project, plan, [*places, *self.places])
        texts = {
            view.preset: text
            for view in plan.views
            if (text := _lock_text(project, contents, view)) is not None
        }
        for preset, text in texts.items():
            candidates = [place / lock_signature_name(plan.bundle, preset) for place in places]
            found = _by(
                self.key.public, [project.artifacts_of(preset) / LOCK_SIGNATURE, *candidates], text
            )
            if found is not None:
                self._locks[preset] = found.data
        wanted = [preset for preset in texts if preset not in self._locks]
        made = ssh_signatures.sign(self.key, LOCK, [texts[preset] for preset in wanted])
        self._locks.update(zip(wanted, made, strict=True))
        if not wanted and self._kept is None:
            ssh_signatures.sign(self.key, _PROBE, [plan.bundle.encode()])
        for preset, text in texts.items():
            _lay(project.artifacts_of(preset), text, self._locks[preset])
        return {
            lock_signature_name(plan.bundle, preset): data for preset, data in self._locks.items()
        }

    def finish(self, plan: Plan, sealed: Sequence[Sealed]) -> Beside:
        """The files that go beside the volumes, the index signed."""
        files = {
            lock_signature_name(plan.bundle, preset): data for preset, data in self._locks.items()
        }
        if self._kept is not None and self._kept[0].sealed == tuple(sealed):
            made, signature = self._kept[0].made, self._kept[1].data
        else:
            made = self._made or (
                self._kept[0].made if self._kept is not None and plan.repairs else moment()
            )
            signature = ssh_signatures.sign(self.key, BUNDLE, [render_index(plan, sealed, made)])[0]
        # The signature first: an index that is there has one, wherever this is cut.
        files[signature_name(plan.bundle)] = signature
        files[index_name(plan.bundle)] = render_index(plan, sealed, made)
        return Beside(files, made, self.key.public)

    def _moment(self, project: Project, plan: Plan, places: Sequence[Path]) -> str:
        """Now, but for a repair when the bundle that it mends was signed: mending makes nothing newer."""
        if not plan.repairs:
            return moment()
        mended = _signed(plan.repairs, places, self.key.public)
        # The request came by mail: what it says of presets and tool must be known here, or it is not signed.
        if (
            mended is not None
            and set(plan.views) <= set(mended[0].plan.views)
            and plan.tool in ("", mended[0].plan.tool)
        ):
            return mended[0].made
        if not plan.tool and all(
            _lock_now(project, view.preset) == view.lock for view in plan.views
        ):
            return moment()
        raise BundleError(
            _(
                "when bundle {repairs} was signed is not known here, and its presets "
                "have changed since: signed as of now, the repair would make an old "
                "bundle look new",
                repairs=plan.repairs,
            ),
            hint=_(
                "put {repairs} and {plan_repairs} beside the request; or pack the "
                "presets as they are now: ./gapforge pack PRESET --sign KEY",
                repairs=index_name(plan.repairs),
                plan_repairs=signature_name(plan.repairs),
            ),
        )


def unsigned(project: Project, plan: Plan, sealed: Sequence[Sealed], to: Sequence[Path]) -> Beside:
    """The files beside volumes that are packed without a key.

    Was the very same bundle signed before, then its index and signatures stay: they still say what is true. Signatures
    that do not fit the new index are named, so that none is left beside it.
    """
    state = project.state / "bundles"
    kept = _signed(plan.bundle, [state, *to])
    names = [lock_signature_name(plan.bundle, view.preset) for view in plan.views]
    if kept is None or kept[0].plan != plan or kept[0].sealed != tuple(sealed):
        return Beside(
            {index_name(plan.bundle): render_index(plan, sealed)},
            stale=(signature_name(plan.bundle), *names),
        )
    index, signature = kept
    files: dict[str, bytes] = {}
    for name in names:
        for place in (state, *to):
            try:
                files.setdefault(name, ssh_signatures.read_signature(place / name).data)
            except BadSignature:
                continue
    files[signature_name(plan.bundle)] = signature.data
    files[index_name(plan.bundle)] = render_index(plan, sealed, index.made)
    return Beside(files, index.made, signature.key)


def sign_lock(project: Project, presets: Iterable[str], key: SigningKey) -> list[Path]:
    """Sign artifacts/NAME/lock.json for people who carry that folder as it is; gives the files."""
    texts: dict[str, bytes] = {}
    for preset in presets:
        lock = project.artifacts_of(preset) / LOCK_FILE
        try:
            texts[preset] = read_regular(lock, locks.MAX_BYTES)
        except (OSError, ValueError) as error:
            why = os_says(error) if isinstance(error, OSError) else str(error)
            raise UsageError(
                _("{lock} cannot be signed: {why}", lock=lock, why=why),
                hint=_("online: ./deps_sync.sh {preset}", preset=preset),
            ) from None
    wanted = [
        p
        for p, text in texts.items()
        if _by(key.public, [project.artifacts_of(p) / LOCK_SIGNATURE], text) is None
    ]
    for preset, data in zip(
        wanted, ssh_signatures.sign(key, LOCK, [texts[p] for p in wanted]), strict=True
    ):
        _lay(project.artifacts_of(preset), texts[preset], data)
    return [project.artifacts_of(preset) / LOCK_SIGNATURE for preset in texts]


def moment() -> str:
    """Now, as an index says it; SOURCE_DATE_EPOCH decides where it is set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch and not (epoch.isascii() and epoch.isdecimal() and len(epoch) < 12):
        raise UsageError(
            _('SOURCE_DATE_EPOCH="{epoch}" is no number of seconds', epoch=epoch[:40]),
            hint="unset SOURCE_DATE_EPOCH",
        )
    return utc(int(epoch) if epoch else None)


def _lock_text(project: Project, contents: Contents, view: View) -> bytes | None:
    """The bytes of a view's lock, when they are here and have its hash."""
    if view.lock in contents.texts:
        return contents.texts[view.lock]
    for path in (
        Store(project.store).path(view.lock),
        project.artifacts_of(view.preset) / LOCK_FILE,
    ):
        try:
            text = read_regular(path, locks.MAX_BYTES)
        except (OSError, ValueError):
            continue
        if sha256_bytes(text) == view.lock:
            return text
    return None


def _signed(
    bundle: str, places: Iterable[Path], key: PublicKey | None = None
) -> tuple[Index, Signature] | None:
    """The first index of a bundle that has a moment and a good signature (by ``key``, or anybody)."""
    for place in places:
        try:
            index = read_index(place / index_name(bundle))
            signature = ssh_signatures.read_signature(place / signature_name(bundle))
        except (Damaged, OSError, BadSignature):
            continue
        wrong_key = key is not None and signature.key.blob != key.blob
        if index.plan.bundle != bundle or not index.made or wrong_key:
            continue
        try:
            good = (
                ssh_signatures.made_by(
                    signature, render_index(index.plan, index.sealed, index.made), BUNDLE
                )
                is not None
            )
        except ToolError:
            good = (
                key is None
            )  # a run that signs nothing keeps what it cannot check; sites check it
        if good:
            return index, signature
    return None


def _by(key: PublicKey, places: Iterable[Path], text: bytes) -> Signature | None:
    """The first good signature of a lock by this key."""
    for place in places:
        try:
            signature = ssh_signatures.read_signature(place)
        except BadSignature:
            continue
        if (
            signature.key.blob == key.blob
            and ssh_signatures.made_by(signature, text, LOCK) is not None
        ):
            return signature
    return None


def _lay(folder: Path, text: bytes, signature: bytes) -> None:
    """Put the signature beside the lock that it signs, if that is there."""
    remove_litter(folder / LOCK_SIGNATURE)
    try:
        if read_regular(folder / LOCK_FILE, locks.MAX_BYTES) != text:
            return
    except (OSError, ValueError):
        return
    try:
        if read_regular(folder / LOCK_SIGNATURE, len(signature)) == signature:
            return
    except (OSError, ValueError):
        pass
    write_bytes(folder / LOCK_SIGNATURE, signature)


def _lock_now(project: Project, preset: str) -> str:
    for file in (project.lock_file(preset), project.artifacts_of(preset) / LOCK_FILE):
        try:
            return sha256_bytes(file.read_bytes())
        except OSError:
            continue
    return ""
