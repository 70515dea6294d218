"""Which index of a bundle counts, which lock signature is taken, and what is reported about it."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pytest

from gapforge.base import process
from gapforge.base.errors import ToolError, TrustError
from gapforge.base.files import sha256_bytes
from gapforge.base.project import Project
from gapforge.base.text_layout import utc
from gapforge.bundle import check_signatures
from gapforge.bundle.bundle_index import BundleIndex, VolumeEntry
from gapforge.bundle.check_signatures import REPOSITORY, SignatureCheck
from gapforge.bundle.volume_format import BundledPreset, Part
from gapforge.bundle.volume_plan import make_plan
from gapforge.trust import rollback_protection, ssh_signatures
from gapforge.trust.rollback_protection import AcceptedState, AcceptedStates
from gapforge.trust.ssh_signatures import BUNDLE, LOCK, PublicKey
from gapforge.trust.trusted_signers import Signer, Signers, Untrusted
from raised_errors import assert_error, values_of

LOCK_TEXT, OTHER_TEXT = b"the lock", b"another lock"
OLD, MADE, NEW = (f"2025-01-0{day}T00:00:00Z" for day in (1, 2, 3))


def ssh_string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def public_key(byte: bytes) -> PublicKey:
    return PublicKey("ssh-ed25519", ssh_string(b"ssh-ed25519") + ssh_string(byte * 32))


KEY, FOREIGN = public_key(b"k"), public_key(b"f")


def signed(data: bytes, namespace: str = BUNDLE, key: PublicKey = KEY) -> bytes:
    """Return a signature as the ``ssh_keygen`` of this file verifies it."""
    checksum = sha256_bytes(data).encode()
    fields = (key.blob, namespace.encode(), b"", b"sha512", checksum)
    raw = base64.b64encode(b"SSHSIG\0\0\0\1" + b"".join(map(ssh_string, fields)))
    return b"-----BEGIN SSH SIGNATURE-----\n" + raw + b"\n-----END SSH SIGNATURE-----\n"


@pytest.fixture(autouse=True)
def ssh_keygen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the program: a signature is valid if it contains the checksum of the data."""

    def run(words: list[str], data: bytes) -> process.Result:
        file = Path(words[words.index("-s") + 1])
        raw = base64.b64decode(file.read_bytes().splitlines()[1])
        valid = raw.endswith(ssh_string(sha256_bytes(data).encode()))
        return process.Result(("ssh-keygen",), int(not valid), "", "")

    monkeypatch.setattr(ssh_signatures, "_run_verifier", run)


@pytest.fixture
def no_ssh_keygen(ssh_keygen: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(words: list[str], data: bytes) -> process.Result:
        raise ToolError("ssh-keygen is not installed")

    monkeypatch.setattr(ssh_signatures, "_run_verifier", run)


class Site:
    """A site with a medium; one signer is trusted unless ``trusting`` is False."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder / "site", folder / "site/artifacts")
        self.medium, self.list = folder / "stick", folder / "list/allowed_signers"
        self.list.parent.mkdir()
        self.medium.mkdir()
        self.kept = self.project.store / "signed"

    def check(self, *names: str) -> SignatureCheck:
        signers = tuple(Signer(name, KEY) for name in names or ("alice",))
        return SignatureCheck(project=self.project, signers=Signers(self.list, signers))

    def check_trusting_nobody(self) -> SignatureCheck:
        return SignatureCheck(project=self.project, signers=Signers(self.list, ()))

    def put(
        self, index: BundleIndex, signature: bytes | None = b"", folder: Path | None = None
    ) -> Path:
        """Write an index and its signature, by default a good one; return the path."""
        path = (folder or self.medium) / f"{index.plan.bundle}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(index.render())
        if signature is not None:
            path.with_name(path.name + ".sig").write_bytes(signature or signed(index.render()))
        return path

    def artifacts(self, preset: str = "p", text: bytes = LOCK_TEXT) -> Path:
        folder = self.project.artifacts_of(preset)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lock.json").write_bytes(text)
        return folder

    def states(self) -> AcceptedStates:
        return rollback_protection.read(self.project, self.list)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def bundled(preset: str = "p", text: bytes = LOCK_TEXT) -> BundledPreset:
    return BundledPreset(preset, sha256_bytes(text), "5" * 64)


def index_of(
    *presets: BundledPreset, made: str = MADE, tool: str = "", size: int = 10
) -> BundleIndex:
    """Return an index; another size makes another bundle."""
    parts = [Part.of_object("1" * 64, size)]
    plan = make_plan(parts, presets or (bundled(),), 10_000, tool=tool)
    return BundleIndex(plan, (VolumeEntry(1, plan.size(1), "6" * 64),), made)


def identity(index: BundleIndex) -> Any:
    return index.plan.identity(1)


def required(check: SignatureCheck, *indexes: BundleIndex) -> None:
    check.require([(Path(f"{i.plan.bundle}.gfv"), identity(i)) for i in indexes], {})


def refused(check: SignatureCheck, *indexes: BundleIndex) -> TrustError:
    with pytest.raises(TrustError) as caught:
        required(check, *indexes)
    return caught.value


# -- which index counts


def test_first_signed_index_counts(site: Site) -> None:
    index = index_of()
    check = site.check()
    unsigned = site.put(index, None, site.medium / "unsigned")
    check.add_index(unsigned, index)
    assert check.indexes == {} and check.report(index.plan.bundle) == []
    check.add_index(site.put(index), index)
    check.add_index(unsigned, index_of(made=NEW))
    assert check.indexes == {index.plan.bundle: index}
    required(check, index)
    assert [line["signer"] for line in check.to_json(index.plan.bundle)] == ["alice"]


def test_last_index_counts_where_nobody_is_trusted(site: Site) -> None:
    check = site.check_trusting_nobody()
    for made in (MADE, NEW):
        check.add_index(site.put(index_of(made=made), None), index_of(made=made))
    bundle = index_of().plan.bundle
    assert check.indexes[bundle].made == NEW
    assert check.to_json(bundle) == [
        {"bundle": bundle, "made": NEW, "signer": "", "fingerprint": ""}
    ]
    other = index_of(size=20)  # nothing is required of a bundle without an index
    required(check, other)
    assert {(row["bundle"], row["made"]) for row in check.to_json(bundle)} == {
        (bundle, NEW),
        (other.plan.bundle, ""),
    }


def test_refused_volumes_name_every_reason(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (index_of(size=size) for size in (10, 20, 30))
    check = site.check("alice", "bob", "carol", "dave", "eve")
    path = site.put(first, signed(first.render(), key=FOREIGN))
    check.add_index(path, first)
    check.add_damaged_index(path, "damaged")
    check.add_damaged_index(path.with_name("notes.json"), "no index of a bundle")
    broken = site.put(second, b"junk")
    check.add_index(broken, second)
    error = refused(check, first, second, third)
    volume = f"{third.plan.bundle}.gfv"
    where = [str(path), str(path), f"{broken}.sig", volume]
    assert_error(error, TrustError, where=where)
    by_place = {fault.where: fault for fault in error.faults}
    unsigned = by_place[volume]
    assert values_of(unsigned.problem) == {
        "index": f"{third.plan.bundle}.json",
        "signature": f"{third.plan.bundle}.json.sig",
    }
    for fault in error.faults:
        assert values_of(fault.expected) == {"signers": "alice, bob, carol, dave"}
    assert error.faults == tuple(sorted(error.faults))
    # Volumes that differ from their signed index are refused as well.
    good = site.check()
    good.add_index(site.put(first), first)
    altered = Path("altered.gfv")
    with pytest.raises(TrustError) as caught:
        good.require([(altered, identity(first))], {altered: "another size"})
    assert_error(caught.value, TrustError, where=["altered.gfv"])
    assert caught.value.faults[0].problem == "another size"


def test_reasons_of_one_bundle_are_limited(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_signatures, "_MAX_FILES", 2)
    index, check = index_of(), site.check()
    for number in range(4):
        check.add_damaged_index(site.medium / f"{number}" / f"{index.plan.bundle}.json", "damaged")
    assert len(refused(check, index).faults) == 2


def test_kept_index_is_recalled_once(site: Site) -> None:
    index = index_of()
    check, bundle = site.check(), index.plan.bundle
    check.recall(bundle)  # nothing is kept
    assert "signature" in values_of(refused(check, index).faults[0].problem)
    path = site.put(index, folder=site.kept)
    check.recall(bundle)
    assert check.indexes == {}, "it was looked for before"
    check = site.check()
    check.recall(bundle)
    assert check.indexes == {bundle: index}
    required(check, index)
    # A damaged one is named, and does not hide one that was found.
    path.write_bytes(b"{")
    check.recall(bundle)
    required(check, index)
    check = site.check()
    for _number in range(2):
        check.recall(bundle)
    assert_error(refused(check, index), TrustError, where=[str(path)])
    nobody = site.check_trusting_nobody()
    site.put(index, folder=site.kept)
    nobody.recall(bundle)
    assert nobody.indexes == {}


# -- the age of a bundle


def accepted(site: Site, **presets: AcceptedState) -> None:
    rollback_protection.write(site.project, site.list, AcceptedStates(presets))


def test_every_newer_state_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of(bundled("p"), bundled("q"), tool="7" * 64)
    other = index_of(bundled("r"), size=20)
    state = AcceptedState(NEW, "b" * 24, "8" * 64)
    accepted(
        site, p=state, q=AcceptedState(OLD, "b" * 24, "8" * 64), r=state, **{REPOSITORY: state}
    )
    check = site.check()
    for each in (index, other):
        check.add_index(site.put(each), each)
    required(check, index)  # the other bundle is not used
    with pytest.raises(TrustError) as caught:
        check.check_age(index.plan.bundle, allow_older=False)
    faults = caught.value.faults
    assert [values_of(fault.where) for fault in faults] == [{"preset": "p"}, {}]
    assert values_of(faults[0].problem) == {"made": MADE, "bundle": index.plan.bundle}
    assert values_of(faults[0].expected) == {"made": NEW, "bundle": "b" * 24}
    assert values_of(caught.value.hint) == {}
    assert not site.kept.exists()
    check.check_age(index.plan.bundle, allow_older=True)
    assert (site.kept / f"{index.plan.bundle}.json").exists()
    # Without trusted signers there is no age.
    nobody = site.check_trusting_nobody()
    nobody.add_index(site.medium / f"{index.plan.bundle}.json", index)
    nobody.check_age(index.plan.bundle, allow_older=False)


@pytest.mark.parametrize(("ahead", "wrong"), [(86_399, False), (86_400, False), (86_401, True)])
def test_accepted_time_in_the_future_tells_of_the_clock(
    site: Site, monkeypatch: pytest.MonkeyPatch, ahead: int, wrong: bool
) -> None:
    """The newest of the accepted times decides, and a day is for time zones."""
    monkeypatch.setattr(time, "time", lambda: 1_750_000_000.0)
    late = utc(1_750_000_000 + ahead)
    index = index_of(bundled("p"), bundled("q"))
    first, second = AcceptedState(NEW, "b", "8" * 64), AcceptedState(late, "b", "8" * 64)
    accepted(site, p=second, q=first)
    check = site.check()
    check.add_index(site.put(index), index)
    with pytest.raises(TrustError) as caught:
        check.check_age(index.plan.bundle, allow_older=False)
    assert values_of(caught.value.hint) == ({"time": late} if wrong else {})
    future, check = index_of(bundled("s"), made=late), site.check()
    check.add_index(site.put(future), future)
    lines = check.report(future.plan.bundle)
    assert [values_of(line).get("made") for line in lines] == [late] * (1 + wrong)


def test_bundle_with_damaged_volumes_only_is_judged(site: Site) -> None:
    """No volume was admitted, but everything in it may be here already."""
    index = index_of()
    accepted(site, p=AcceptedState(NEW, "b", "8" * 64))
    check = site.check()
    check.add_index(site.put(index), index)
    check.check_age("0" * 24, allow_older=False)  # another bundle
    with pytest.raises(TrustError):
        check.check_age(index.plan.bundle, allow_older=False)


def test_damaged_record_is_used_only_intentionally(site: Site) -> None:
    index = index_of()
    (site.list.parent / "accepted.json").write_text("{")
    check = site.check()
    check.add_index(site.put(index), index)
    with pytest.raises(TrustError):
        check.check_age(index.plan.bundle, allow_older=False)
    check.check_age(index.plan.bundle, allow_older=True)
    check.accept(bundled(), index.plan.bundle)
    assert site.states().presets == {"p": AcceptedState(MADE, index.plan.bundle, bundled().lock)}


@pytest.mark.parametrize("change", ["", "foreign", "unsigned", "other lock", "no time", "damaged"])
def test_lost_record_is_made_of_good_kept_indexes(site: Site, change: str) -> None:
    kept = index_of(made="" if change == "no time" else NEW)
    signature = {"foreign": signed(kept.render(), key=FOREIGN), "unsigned": None}.get(change, b"")
    path = site.put(kept, signature, site.kept)
    if change == "damaged":
        path.write_bytes(b"{")
    site.artifacts(text=OTHER_TEXT if change == "other lock" else LOCK_TEXT)
    # A bundle that is not here says nothing.
    site.put(
        index_of(bundled("p", b"never"), made="2026-01-01T00:00:00Z", size=30), folder=site.kept
    )
    older = index_of(bundled(text=b"older"), size=20)
    check = site.check()
    check.add_index(site.put(older), older)
    if change:
        check.check_age(older.plan.bundle, allow_older=False)
    else:
        with pytest.raises(TrustError) as caught:
            check.check_age(older.plan.bundle, allow_older=False)
        expected = {"made": NEW, "bundle": kept.plan.bundle}
        assert values_of(caught.value.faults[0].expected) == expected


# -- the signatures of locks


def test_lock_signatures_are_known_by_their_names(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_signatures, "_MAX_FILES", 2)
    check, good = site.check(), signed(LOCK_TEXT, LOCK)
    for name in (f"{'a' * 23}.p.lock.sig", f"{'a' * 24}.p.lock", f"{'a' * 24}.p.locksig"):
        (site.medium / name).write_bytes(good)
        check.add_lock_signature(site.medium / name)
    with pytest.raises(Untrusted):
        check.lock_signature(bundled(), LOCK_TEXT)
    for letter, data in (("a", b"junk"), ("b", b"junk"), ("c", good)):
        path = site.medium / f"{letter * 24}.p.lock.sig"
        path.write_bytes(data)
        check.add_lock_signature(path)
    with pytest.raises(Untrusted):  # only so many are read
        check.lock_signature(bundled(), LOCK_TEXT)
    (site.medium / f"{'b' * 24}.p.lock.sig").write_bytes(good)
    assert check.lock_signature(bundled(), LOCK_TEXT) == good
    with pytest.raises(Untrusted):
        check.lock_signature(bundled("q"), LOCK_TEXT)


def test_good_signature_is_taken_wherever_it_is(site: Site) -> None:
    """From the medium, from an earlier medium, or from the artifacts."""
    check, good = site.check(), signed(LOCK_TEXT, LOCK)
    for bad in (
        signed(OTHER_TEXT, LOCK),
        signed(LOCK_TEXT, BUNDLE),
        signed(LOCK_TEXT, LOCK, FOREIGN),
    ):
        path = site.medium / f"{'a' * 24}.p.lock.sig"
        path.write_bytes(bad)
        mine = site.check()
        mine.add_lock_signature(path)
        with pytest.raises(Untrusted) as caught:
            mine.lock_signature(bundled(), LOCK_TEXT)
        assert values_of(caught.value.args[0])["path"] == path
    site.kept.mkdir(parents=True)
    kept = site.kept / f"{'c' * 24}.p.lock.sig"
    kept.write_bytes(b"junk")
    with pytest.raises(Untrusted) as caught:
        check.lock_signature(bundled(), LOCK_TEXT)
    assert values_of(caught.value.args[0])["path"] == kept
    kept.unlink()
    own = site.artifacts() / "lock.json.sig"
    own.write_bytes(b"junk")
    with pytest.raises(Untrusted) as caught:  # not that of the artifacts
        check.lock_signature(bundled(), LOCK_TEXT)
    assert values_of(caught.value.args[0]) == {}
    own.write_bytes(good)
    assert check.lock_signature(bundled(), LOCK_TEXT) == good
    own.unlink()
    kept.write_bytes(good)
    assert check.lock_signature(bundled(), LOCK_TEXT) == good


def test_without_trust_any_signature_is_installed(site: Site) -> None:
    check = site.check_trusting_nobody()
    assert check.lock_signature(bundled(), LOCK_TEXT) is None
    path = site.medium / f"{'a' * 24}.p.lock.sig"
    path.write_bytes(signed(OTHER_TEXT, LOCK, FOREIGN))
    check.add_lock_signature(path)
    assert check.lock_signature(bundled(), LOCK_TEXT) is None
    good = signed(LOCK_TEXT, LOCK, FOREIGN)
    (site.artifacts() / "lock.json.sig").write_bytes(good)
    assert check.lock_signature(bundled(), LOCK_TEXT) == good


def test_purpose_of_a_signature_is_checked_without_ssh_keygen(
    site: Site, no_ssh_keygen: None
) -> None:
    """Only the namespace can be compared then; verify decides once there are trusted signers."""
    check = site.check_trusting_nobody()
    own = site.artifacts() / "lock.json.sig"
    own.write_bytes(signed(LOCK_TEXT, LOCK))
    assert check.lock_signature(bundled(), LOCK_TEXT) == own.read_bytes()
    own.write_bytes(signed(LOCK_TEXT, BUNDLE))
    assert check.lock_signature(bundled(), LOCK_TEXT) is None


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_stale_signature_is_removed(site: Site, kind: str) -> None:
    folder = site.artifacts()
    file, litter = folder / "lock.json.sig", folder / ".lock.json.sig.k1ll3d_x.tmp"
    litter.write_bytes(b"")
    if kind == "file":
        file.write_bytes(b"old")
    elif kind == "link":
        file.symlink_to("absent")
    else:
        file.mkdir()
    check_signatures.remove_signature(folder, stale=False)
    assert not litter.exists() and (file.is_symlink() or file.exists())
    check_signatures.remove_signature(folder, stale=True)
    assert (file.is_symlink() or file.exists()) is (kind == "folder"), "verify names a folder"


def test_signature_is_written_only_if_it_differs(site: Site) -> None:
    folder = site.artifacts()
    check_signatures.write_signature(folder, None)
    assert [path.name for path in folder.iterdir()] == ["lock.json"]
    check_signatures.write_signature(folder, b"one")
    before = (folder / "lock.json.sig").stat()
    check_signatures.write_signature(folder, b"one")
    assert (folder / "lock.json.sig").stat() == before
    check_signatures.write_signature(folder, b"two")
    assert (folder / "lock.json.sig").read_bytes() == b"two"


# -- what is recorded and kept


def test_accepted_state_is_that_of_the_newest_index_with_it(site: Site) -> None:
    indexes = [
        index_of(bundled("p"), made=made, size=size)
        for made, size in ((MADE, 10), (NEW, 20), (OLD, 30))
    ]
    newer = index_of(bundled("p", OTHER_TEXT), made="2025-02-01T00:00:00Z", tool="7" * 64)
    others = [index_of(bundled("r"), made="2025-03-01T00:00:00Z", tool=d * 64) for d in "68"]
    check = site.check()
    for each in (*indexes, newer, *others):
        check.add_index(site.put(each), each)
    required(check, *indexes, *others)
    check.accept(bundled("p"), newer.plan.bundle)
    state = AcceptedState(NEW, newer.plan.bundle, bundled().lock)
    assert site.states().presets == {"p": state}
    check.accept_repository("7" * 64, newer.plan.bundle)
    assert site.states().presets[REPOSITORY].made == newer.made
    before = site.states()
    check.accept_repository("", indexes[0].plan.bundle)  # a bundle without the repository
    check.accept(bundled("q"), newer.plan.bundle)  # no index lists it
    assert site.states() == before
    # Nothing is recorded where nobody is trusted.
    (site.list.parent / "accepted.json").unlink()
    nobody = site.check_trusting_nobody()
    nobody.add_index(site.medium / f"{newer.plan.bundle}.json", newer)
    nobody.accept(bundled("p", OTHER_TEXT), newer.plan.bundle)
    assert not (site.list.parent / "accepted.json").exists()


def test_signed_files_are_kept(site: Site) -> None:
    index = index_of(bundled("p"), bundled("q"))
    check, bundle = site.check(), index.plan.bundle
    check.add_index(site.put(index), index)
    sources = (
        ("1", "p", b"junk"),
        ("2", "p", signed(LOCK_TEXT, LOCK, FOREIGN)),
        ("3", "p", signed(LOCK_TEXT, LOCK)),
        ("4", "p", signed(OTHER_TEXT, LOCK)),
        ("5", "q", signed(LOCK_TEXT, LOCK, FOREIGN)),
    )
    for digit, preset, data in sources:
        path = site.medium / f"{digit * 24}.{preset}.lock.sig"
        path.write_bytes(data)
        check.add_lock_signature(path)
    check.check_age(bundle, allow_older=False)
    kept = {path.name: path.read_bytes() for path in site.kept.iterdir()}
    assert kept == {
        f"{bundle}.json": index.render(),
        f"{bundle}.json.sig": signed(index.render()),
        f"{bundle}.p.lock.sig": signed(LOCK_TEXT, LOCK),
    }
    before = (site.kept / f"{bundle}.json").stat()
    check.check_age(bundle, allow_older=False)
    assert (site.kept / f"{bundle}.json").stat() == before


def test_kept_indexes_of_superseded_presets_are_removed(site: Site) -> None:
    """Only those of which nothing can be imported any more."""
    accepted(site, p=AcceptedState(NEW, "b", "8" * 64), q=AcceptedState(OLD, "b", "8" * 64))
    gone = index_of(bundled("p"), size=10)
    half = index_of(bundled("p"), bundled("q"), size=20)
    used = index_of(bundled("p"), size=30)
    damaged = site.kept / f"{'0' * 24}.json"
    check = site.check()
    check.add_index(site.put(used), used)
    check.check_age(used.plan.bundle, allow_older=True)
    for each in (gone, half, used):
        site.put(each, folder=site.kept)
        (site.kept / f"{each.plan.bundle}.p.lock.sig").write_bytes(b"")
    damaged.write_bytes(b"{")
    check.forget_superseded()
    left = {path.name for path in site.kept.iterdir()}
    assert left == {
        damaged.name,
        *(
            f"{each.plan.bundle}.{end}"
            for each in (half, used)
            for end in ("json", "json.sig", "p.lock.sig")
        ),
    }


# -- reports


def test_report_names_the_signers_of_what_was_used(site: Site) -> None:
    first, second, unused = (index_of(size=size) for size in (10, 20, 30))
    check = site.check()
    for each in (first, second, unused):
        check.add_index(site.put(each), each)
    required(check, second)
    bundles = sorted((first.plan.bundle, second.plan.bundle))
    lines = check.report(first.plan.bundle)
    assert [values_of(line) for line in lines] == [
        {"bundle": bundle, "made": MADE, "signer": "alice", "fingerprint": KEY.fingerprint}
        for bundle in bundles
    ]
    assert check.to_json(first.plan.bundle) == [
        {"bundle": bundle, "made": MADE, "signer": "alice", "fingerprint": KEY.fingerprint}
        for bundle in bundles
    ]
    assert check.signer(first.plan.bundle) == f"alice ({KEY.fingerprint})"
    absent = "0" * 24
    assert [row["bundle"] for row in check.to_json(absent)] == [second.plan.bundle]
    nothing = site.check()
    assert nothing.report(absent) == [] and nothing.signer(absent) == ""


def test_claims_are_reported_where_nobody_is_trusted(site: Site) -> None:
    kinds: dict[str, tuple[bytes | None, str]] = {
        "good": (b"", MADE),
        "foreign": (b"", MADE),
        "unsigned": (None, MADE),
        "no time": (b"", ""),
        "junk": (b"junk", MADE),
        "altered": (signed(b"other"), MADE),
    }
    claims, signers = {}, {}
    for number, (kind, (signature, made)) in enumerate(kinds.items(), 1):
        index = index_of(made=made, size=number)
        if kind == "foreign":
            signature = signed(index.render(), key=FOREIGN)
        check = site.check_trusting_nobody()
        check.add_index(site.put(index, signature), index)
        (line,) = check.report(index.plan.bundle)
        claims[kind] = {name: str(value) for name, value in values_of(line).items()}
        assert claims[kind].pop("bundle") == index.plan.bundle
        signers[kind] = check.signer(index.plan.bundle)
        assert check.to_json(index.plan.bundle)[0]["signer"] == ""
    assert claims["good"] == {"fingerprint": KEY.fingerprint}
    assert claims["foreign"] == {"fingerprint": FOREIGN.fingerprint}
    assert set(claims["unsigned"]) == set(claims["junk"]) == {"why"}
    assert claims["no time"] == claims["altered"] == {}
    assert KEY.fingerprint in signers["good"] and FOREIGN.fingerprint in signers["foreign"]
    assert [kind for kind, signer in signers.items() if signer] == ["good", "foreign"]


def test_every_claimed_key_is_on_the_custody_page(site: Site) -> None:
    check = site.check_trusting_nobody()
    indexes = [index_of(size=size) for size in (10, 20, 30, 40)]
    keys = dict(zip((0, 2, 3), (KEY, FOREIGN, KEY), strict=True))
    for number, index in enumerate(indexes):
        data = signed(index.render(), key=keys[number]) if number in keys else b"junk"
        check.add_index(site.put(index, data), index)
    required(check, *indexes)
    shown = check.signer(indexes[0].plan.bundle)
    fingerprints = sorted((KEY.fingerprint, FOREIGN.fingerprint))
    assert [word for word in shown.split() if word.startswith("SHA256:")] == fingerprints


def test_claim_without_ssh_keygen_is_not_verified(site: Site, no_ssh_keygen: None) -> None:
    index = index_of()
    check = site.check_trusting_nobody()
    check.add_index(site.put(index), index)
    (line,) = check.report(index.plan.bundle)
    assert values_of(line) == {"bundle": index.plan.bundle, "fingerprint": KEY.fingerprint}
    assert "ssh-keygen" in line and check.signer(index.plan.bundle) == ""
