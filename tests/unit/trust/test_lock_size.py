"""A lock has one size limit: what one part of gapforge accepts, no other part refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles import PRESET, sender
from gapforge.base import limits
from gapforge.base.errors import LockError, TrustError, UsageError
from gapforge.bundle.sign_bundle import sign_lock
from gapforge.model import lock as locks
from gapforge.trust import ssh_signatures
from gapforge.trust.trusted_signers import Signer, Signers, check_lock
from raised_errors import assert_error
from signers import make_key, needs_ssh_keygen, pub


@needs_ssh_keygen
@pytest.mark.parametrize("more", [0, 1])
def test_readers_share_lock_size_limit(tmp_path: Path, more: int) -> None:
    project = sender(tmp_path).project
    lock = project.artifacts_of(PRESET) / "lock.json"
    lock.write_bytes(lock.read_bytes().ljust(limits.LOCK + more, b"\n"))
    key = make_key(tmp_path, "release")
    signing = ssh_signatures.signing_key(key)
    signer = Signer("release", ssh_signatures.read_public(pub(key)))
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(f"release {signer.key.text}\n")
    signers = Signers(allowed, (signer,))
    if more:
        with pytest.raises(UsageError):
            sign_lock(project, [PRESET], signing)
        data = ssh_signatures.sign(signing, ssh_signatures.LOCK, [lock.read_bytes()])[0]
        lock.with_name("lock.json.sig").write_bytes(data)
    else:
        sign_lock(project, [PRESET], signing)
        assert locks.load(lock).preset == PRESET
        assert check_lock(project, lock.parent, PRESET, signers) == (signer, lock.read_bytes())
        return
    with pytest.raises(LockError) as caught:
        locks.load(lock)
    assert_error(caught.value, LockError, hint={"name": PRESET})
    assert str(limits.LOCK) in caught.value.faults[0].problem
    with pytest.raises(TrustError) as refused:
        check_lock(project, lock.parent, PRESET, signers)
    assert_error(refused.value, TrustError, preset=PRESET, where=[str(lock)])
    assert str(limits.LOCK) in refused.value.faults[0].problem
