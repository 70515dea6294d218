"""What an import counts, reports and requests, and when it does not create artifacts."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bundles import PRESET, carry, hashes, receive, scan_at, sender, site_at
from forged_volumes import forge, index_with
from gapforge.base.errors import BundleError, BusyError, StorageError, TrustError
from gapforge.base.files import sha256_bytes
from gapforge.base.process_locks import exclusive
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.bundle import unpack as unpacking
from gapforge.bundle.check_signatures import SignatureCheck
from gapforge.bundle.find_volumes import Scan
from gapforge.bundle.repair_request import RepairRequest, read_request, request_name
from gapforge.bundle.unpack import ImportResult, unpack
from gapforge.bundle.volume_format import BundledPreset, Part, Volume
from gapforge.bundle.volume_reader import read_volume
from gapforge.store import incomplete_bundles
from gapforge.store.store import Store, preset_in_use
from gapforge.store.verify_artifacts import verify
from gapforge.trust.trusted_signers import Untrusted
from raised_errors import assert_error, values_of

BUNDLE = "ab" * 12
REQUEST = Path("folder/repair.json")


def of(data: bytes) -> Part:
    return Part.of_object(sha256_bytes(data), len(data))


def split(data: bytes, start: int, end: int) -> Part:
    return Part(sha256_bytes(data), len(data), start, end - start)


def volume(
    folder: Path, number: int, *pieces: tuple[bytes, int, int], volumes: int = 2, **changes: Any
) -> Volume:
    """Write a volume with bytes of objects (object, start, end), and return it."""
    folder.mkdir(exist_ok=True)
    ordered = sorted(pieces, key=lambda piece: (sha256_bytes(piece[0]), piece[1]))
    rows, payload = [], b""
    for data, start, end in ordered:
        part, chunk = split(data, start, end), data[start:end]
        rows.append(part.to_json() if part.whole else [*part.to_json(), sha256_bytes(chunk)])
        payload += chunk
    path = folder / f"{changes.get('bundle', BUNDLE)}-{number:04}.gfv"
    forge(path, index_with(rows, number=number, volumes=volumes, **changes), payload)
    return read_volume(path)[0]


def plan(*volumes: Sequence[Part], presets: tuple[BundledPreset, ...] = (), tool: str = "") -> Any:
    """Return the parts of an index that unpack reads."""
    parts = tuple(sorted({part for each in volumes for part in each}))
    made = SimpleNamespace(volumes=volumes, parts=parts, presets=presets, tool=tool)
    return SimpleNamespace(plan=made)


def importer(
    site: Project, *volumes: Volume, index: Any = None, broken: dict[Path, str] | None = None
) -> Any:
    scan = Scan(
        SignatureCheck.without_signers(site), BUNDLE, list(volumes), dict(broken or {}), index
    )
    return unpacking._Import(site, Store(site.store), scan, Progress("unpack", quiet=True))


@pytest.fixture
def site(tmp_path: Path) -> Project:
    return site_at(tmp_path / "site")


# -- the result


@pytest.mark.parametrize(
    ("state", "complete"),
    [
        ({}, True),
        ({"incomplete": {"p": 1}}, False),
        ({"repository_missing": True}, False),
        ({"untrusted": {"p": "why"}}, False),
    ],
)
def test_complete_import_lacks_nothing(state: dict[str, Any], complete: bool) -> None:
    assert ImportResult(bundle=BUNDLE, **state).complete is complete


def test_locks_are_the_only_fault_of_an_untrusted_import() -> None:
    result = ImportResult(bundle=BUNDLE, untrusted={"p": "why", "q": "why not"})
    error = result.error(REQUEST)
    assert type(error) is TrustError
    assert [values_of(fault.where) for fault in error.faults] == [{"name": "p"}, {"name": "q"}]
    result.repository_missing = True
    assert [len(result.error(REQUEST).faults), type(result.error(REQUEST))] == [3, BundleError]
    result.repository_missing, result.incomplete = False, {"r": 2, "s": -1}
    result.broken = {Path("x.gfv"): "damaged"}
    error = result.error(REQUEST)
    assert [values_of(fault.where) or fault.where for fault in error.faults] == [
        "x.gfv",
        *({"name": name} for name in "rspq"),
    ]
    assert [fault.problem for fault in error.faults[1:3]] == [
        unpacking.missing_objects(2),
        unpacking.missing_objects(-1),
    ]
    assert values_of(error.hint) == {"file": REQUEST, "name": "repair.json"}
    assert values_of(error.message) == {"bundle": BUNDLE}


def test_error_lists_some_missing_volumes() -> None:
    result = ImportResult(bundle=BUNDLE, missing_volumes=list(range(1, 42)), incomplete={"p": 1})
    error = result.error(REQUEST)
    numbers = ", ".join(map(str, range(1, 41))) + " and 1 more"
    hint = {"file": REQUEST, "name": "repair.json"}
    assert_error(error, BundleError, bundle=BUNDLE, volumes=numbers, hint=hint)


def test_missing_objects_are_counted() -> None:
    assert values_of(unpacking.missing_objects(-1)) == {}
    assert [values_of(unpacking.missing_objects(n)) for n in (0, 3)] == [{"count": 0}, {"count": 3}]


# -- one import at a time


def test_store_and_presets_are_locked(tmp_path: Path, site: Project) -> None:
    made = sender(tmp_path, {"sources/a": b"a"})
    carry(made, tmp_path / "medium", size=10**6)
    scan = scan_at(site, tmp_path / "medium")
    store = Store(site.store)

    def busy() -> None:
        with pytest.raises(BusyError):
            unpack(site, scan, Progress("unpack", quiet=True))

    with exclusive(store.lock_file, "x"):
        busy()
    site.artifacts_of(PRESET).mkdir(parents=True)
    with preset_in_use(site, PRESET, changes=False):
        busy()
    assert unpack(site, scan, Progress("unpack", quiet=True)).complete


# -- what is counted before the first byte


def test_work_is_counted_without_what_is_here(tmp_path: Path, site: Project) -> None:
    """The copies of a volume count once, and so do the objects of several volumes."""
    here, new, long = b"here", b"new!!", bytes(range(200))
    store = Store(site.store)
    store.add_bytes(here)
    medium, copy = tmp_path / "medium", tmp_path / "copy"
    first = volume(medium, 1, (here, 0, 4), (new, 0, 5), (long, 0, 120))
    second = volume(medium, 2, (here, 0, 4), (long, 120, 200))
    volume(copy, 1, (here, 0, 4), (new, 0, 5), (long, 0, 120))
    part = importer(site, first, read_volume(copy / first.path.name)[0], second)
    part._require_space()
    assert part.progress.total == 5 + 200
    assert part.result.already == 2
    views = index_with()["views"][0]
    assert part.named == {sha256_bytes(data) for data in (here, new, long)} | {*views[1:]}
    # An earlier run has a part of the object.
    run = importer(site, first)
    run.partial.clear_litter()
    run._import_volume(first)
    again = importer(site, first, second)
    again._require_space()
    assert again.progress.total == 80 and again.result.already == 3


def test_index_and_repository_are_named(tmp_path: Path, site: Project) -> None:
    """gc must keep what the site has of them already."""
    tool = "7" * 64
    only = volume(tmp_path / "medium", 1, (b"a", 0, 1), tool=tool)
    run = importer(site, only, index=plan([of(b"a"), of(b"b")], tool=tool))
    run._require_space()
    assert {tool, sha256_bytes(b"a"), sha256_bytes(b"b")} < run.named
    run = importer(site, volume(tmp_path / "medium", 1, (b"a", 0, 1)))
    run._require_space()
    assert len(run.named) == 3 and "" not in run.named


@pytest.mark.parametrize(("limit", "enough"), [(4, True), (3, False)])
def test_number_of_objects_is_limited(
    tmp_path: Path, site: Project, monkeypatch: pytest.MonkeyPatch, limit: int, enough: bool
) -> None:
    monkeypatch.setattr(unpacking, "MAX_OBJECTS", limit)
    run = importer(site, volume(tmp_path / "medium", 1, (b"a", 0, 1), (b"b", 0, 1)))
    if enough:
        run._require_space()
        return
    with pytest.raises(BundleError) as caught:
        run._require_space()
    assert_error(caught.value, BundleError, limit=limit)


def test_volume_that_can_no_longer_be_read_is_broken(tmp_path: Path, site: Project) -> None:
    only = volume(tmp_path / "medium", 1, (b"a", 0, 1))
    run = importer(site, only)
    volume(tmp_path / "medium", 1, (b"b", 0, 1))
    assert run._parts(only) == [] and list(run.result.broken) == [only.path]
    only.path.unlink()
    run = importer(site, only)
    assert run._parts(only) == [] and list(run.result.broken) == [only.path]


# -- volumes


def test_wrong_parts_name_every_volume_of_the_object(tmp_path: Path, site: Project) -> None:
    data, wrong = b"a" * 20, b"a" * 10 + b"b" * 10
    medium = tmp_path / "medium"
    first = volume(medium, 1, (data, 0, 10), (b"x", 0, 1))
    other = volume(medium, 3, (b"y" * 30, 0, 10), volumes=3)
    path = medium / f"{BUNDLE}-0002.gfv"
    row = [*split(data, 10, 20).to_json(), sha256_bytes(wrong[10:])]
    forge(path, index_with([row], number=2, volumes=2), wrong[10:])
    run = importer(site, first, other, read_volume(path)[0])
    for each in run.scan.volumes:
        run._import_volume(each)
    assert set(run.result.broken) == {first.path, path}
    for why in run.result.broken.values():
        assert values_of(why) == {"sha256": sha256_bytes(data)[:12]}
    assert run.missing == {of(data)}
    assert run._request().parts == (of(data),)


def test_damaged_part_is_named_once_for_all_copies(tmp_path: Path, site: Project) -> None:
    paths = []
    for name in ("one", "two"):
        made = volume(tmp_path / name, 1, (b"good", 0, 4), (b"bad!", 0, 4))
        data = bytearray(made.path.read_bytes())
        data[data.index(b"bad!")] ^= 1
        made.path.write_bytes(data)
        paths.append(made)
    run = importer(site, *paths)
    for each in paths:
        run._import_volume(each)
    assert run.failed == {each.path: [of(b"bad!")] for each in paths}
    one, two = (parts[0] for parts in run.failed.values())
    assert one is two
    assert run.importer.imported == {sha256_bytes(b"good"): 4}


# -- artifacts


def test_sums_that_disagree_with_the_lock_create_nothing(tmp_path: Path, site: Project) -> None:
    made = sender(tmp_path, {f"sources/{n}": bytes([n]) * 1500 for n in range(4)})
    packed = carry(made, tmp_path / "medium", size=3000)
    scan = scan_at(site, tmp_path / "medium")
    assert receive(site, tmp_path / "medium").complete
    (bundled,) = packed.plan.presets
    run = unpacking._Import(site, Store(site.store), scan, Progress("x", quiet=True))
    for sums in ("0" * 64, "f" * 64):
        with pytest.raises(BundleError) as caught:
            run._create_artifacts(BundledPreset(PRESET, bundled.lock, sums))
        assert_error(caught.value, BundleError, preset=PRESET)
    with pytest.raises(BundleError) as caught:
        run._create_artifacts(BundledPreset("another", bundled.lock, bundled.sums))
    holding = [
        str(scan.volumes[number - 1].path)
        for number, parts in enumerate(packed.plan.volumes, 1)
        if bundled.lock in {part.sha256 for part in parts}
    ]
    assert len(packed.plan.volumes) > 3 and len(holding) == 1
    assert [fault.where for fault in caught.value.faults] == holding
    assert values_of(caught.value.message)["preset"] == PRESET


def test_artifacts_behind_a_link_are_not_written(tmp_path: Path, site: Project) -> None:
    made = sender(tmp_path, {"sources/a": b"a"})
    carry(made, tmp_path / "medium", size=10**6)
    (tmp_path / "elsewhere").mkdir()
    site.artifacts.mkdir()
    folder = site.artifacts_of(PRESET)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError) as caught:
        receive(site, tmp_path / "medium")
    assert_error(caught.value, StorageError, folder=folder, hint={"folder": folder})
    assert not list((tmp_path / "elsewhere").iterdir())
    folder.unlink()
    assert receive(site, tmp_path / "medium").presets == [PRESET]


def test_incomplete_preset_protects_and_requests_its_objects(tmp_path: Path, site: Project) -> None:
    """The site had them when the bundle was packed; pack left them out."""
    made = sender(tmp_path, {"sources/a": b"a" * 100, "sources/b": b"b" * 200})
    packed = carry(made, tmp_path / "medium", size=10**6)
    store = Store(site.store)
    lock = made.project.lock_file(PRESET).read_bytes()
    (bundled,) = packed.plan.presets
    for data in (lock, b"a" * 100):
        store.add_bytes(data)
    run = importer(site)
    run.scan.index = plan(presets=(bundled,))
    run._create_artifacts(bundled)
    missing = {of(b"b" * 200)}
    assert run.missing == missing and run.result.incomplete == {PRESET: 1}
    (record,), faults = incomplete_bundles.read_all(site.store)
    assert record.bundle == BUNDLE and record.presets == (PRESET,) and not faults
    assert record.objects == {sha256_bytes(b"a" * 100), sha256_bytes(b"b" * 200)}
    # An object of another size than in the lock is not the one of the lock.
    (store.path(sha256_bytes(b"a" * 100))).chmod(0o644)
    (store.path(sha256_bytes(b"a" * 100))).write_bytes(b"a" * 101)
    run = importer(site)
    run._create_artifacts(bundled)
    assert run.result.incomplete == {PRESET: 2} and run.missing == {*missing, of(b"a" * 100)}


def test_missing_lock_is_not_counted(site: Project) -> None:
    run = importer(site)
    run._create_artifacts(BundledPreset(PRESET, "1" * 64, "2" * 64))
    assert run.result.incomplete == {PRESET: -1} and run.result.presets == []


def test_unreadable_lock_has_no_earlier_paths(tmp_path: Path) -> None:
    made = sender(tmp_path, {"sources/a": b"a", "b": b"b"})
    lock = made.project.lock_file(PRESET)
    assert set(unpacking._paths_of(lock)) == {"sources/a", "b"}
    for damage in (b"{", json.dumps({"format": 1}).encode()):
        lock.write_bytes(damage)
        assert unpacking._paths_of(lock) == []
    lock.unlink()
    assert unpacking._paths_of(lock) == []
    os.mkfifo(lock)
    assert unpacking._paths_of(lock) == []


class Signatures:
    """The signatures of a bundle, of which each answer is given."""

    def __init__(self, *, signed: bool = True) -> None:
        self.signed = signed
        self.calls: list[tuple[object, ...]] = []

    def lock_signature(self, bundled: BundledPreset, text: bytes) -> bytes:
        assert sha256_bytes(text) == bundled.lock
        if not self.signed:
            raise Untrusted("why")
        return b"signature"

    def __getattr__(self, name: str) -> Any:
        return lambda *words: self.calls.append((name, *words))


@pytest.mark.parametrize("signed", [True, False])
def test_signatures_are_asked_before_and_told_after(
    tmp_path: Path, site: Project, signed: bool
) -> None:
    packed = carry(sender(tmp_path, {"sources/a": b"a"}), tmp_path / "medium", size=10**6)
    (bundled,) = packed.plan.presets
    scan, signatures = scan_at(site, tmp_path / "medium"), Signatures(signed=signed)
    scan.signatures = signatures  # type: ignore[assignment]
    progress = Progress("unpack", quiet=True)
    result = unpack(site, scan, progress, allow_older=signed)
    bundle = packed.plan.bundle
    told = [("accept", bundled, bundle), ("accept_repository", "", bundle)]
    assert signatures.calls == [
        ("check_age", bundle, signed),
        *(told if signed else ()),
        ("forget_superseded",),
    ]
    assert result.untrusted == ({} if signed else {PRESET: "why"})
    assert result.complete is signed and result.request is None
    folder = site.artifacts_of(PRESET)
    assert result.presets == [PRESET] * signed and folder.exists() is signed
    assert incomplete_bundles.recorded_bundles(site.store) == [bundle] * (not signed)
    if signed:
        assert (folder / "lock.json.sig").read_bytes() == b"signature"


# -- the repository


@pytest.mark.parametrize(
    ("here", "listed", "indexed", "all_volumes", "missing", "unknown"),
    [
        ("here", True, False, False, False, False),
        ("", True, False, True, True, False),
        ("", True, False, False, True, False),
        ("", False, False, True, False, False),  # the inventory of the site listed it
        ("", False, False, False, True, True),  # perhaps in a missing volume
        ("", False, True, False, False, False),  # the index says what is in all of them
        ("damaged", True, False, True, True, False),
    ],
)
def test_repository_is_requested_if_a_volume_contains_it(
    tmp_path: Path,
    site: Project,
    here: str,
    listed: bool,
    indexed: bool,
    all_volumes: bool,
    missing: bool,
    unknown: bool,
) -> None:
    archive = b"the repository"
    tool, store = sha256_bytes(archive), Store(site.store)
    if here:
        store.add_bytes(archive)
    if here == "damaged":
        store.path(tool).chmod(0o644)
        store.path(tool).write_bytes(b"tHe repository")
    pieces = ((archive, 0, len(archive)),) if listed else ()
    count = 1 if all_volumes else 2
    only = volume(tmp_path / "medium", 1, *pieces, volumes=count, tool=tool)
    run = importer(site, only, index=plan([of(b"x")]) if indexed else None)
    run._find_repository()
    assert (run.result.repository_missing, run.repository_unknown) == (missing, unknown)
    assert run.missing == ({of(archive)} if missing and not unknown else set())
    without = importer(site, volume(tmp_path / "medium", 1, volumes=2))
    without._find_repository()
    assert not without.result.repository_missing and not without.repository_unknown


# -- the report


def test_failures_name_what_is_missing(tmp_path: Path, site: Project) -> None:
    medium = tmp_path / "medium"
    objects = [b"%d" % number for number in range(9)]
    unreadable = [medium / f"{BUNDLE}-{number:04}.gfv" for number in (1, 2, 3)]
    elsewhere = medium / "renamed.gfv"
    parts = [sorted(map(of, objects)), sorted(map(of, objects[:8])), [of(b"here")]]
    broken = {path: f"why {path.name}" for path in (*unreadable, elsewhere)}
    Store(site.store).add_bytes(b"here")
    run = importer(site, index=plan(*parts), broken=broken)
    run._describe_failures()
    first, second, third, other = (run.result.broken[path] for path in broken)

    def shown(some: list[Part]) -> list[str]:
        return [part.sha256[:12] for part in some]

    names = values_of(first)["names"]
    assert values_of(names)["more"] == 1
    assert [name.split()[-1] for name in str(values_of(names)["names"]).split(", ")] == shown(
        parts[0][:8]
    )
    assert values_of(first)["why"] == f"why {unreadable[0].name}"
    assert [name.split()[-1] for name in str(values_of(second)["names"]).split(", ")] == shown(
        parts[1]
    )
    assert values_of(third) == {"why": f"why {unreadable[2].name}"}
    assert other == "why renamed.gfv"
    # Without an index, the name of a volume tells nothing.
    run = importer(site, broken=broken)
    run._describe_failures()
    assert run.result.broken == broken


def test_names_are_those_of_the_locks_that_are_here(tmp_path: Path, site: Project) -> None:
    made = sender(tmp_path, {"sources/a": b"a", "sources/same": b"a"})
    packed = carry(made, tmp_path / "medium", size=10**6)
    (bundled,) = packed.plan.presets
    run = importer(site, index=plan(presets=(bundled,), tool="7" * 64))
    shared = {bundled.lock: f"{PRESET}/lock.json", bundled.sums: f"{PRESET}/SHA256SUMS"}
    names = run._names()
    assert names.pop("7" * 64) and names == shared
    Store(site.store).add_bytes(made.project.lock_file(PRESET).read_bytes())
    names = run._names()
    assert names[sha256_bytes(b"a")] == f"{PRESET}/sources/a" and shared.items() <= names.items()


def test_volume_was_imported_if_all_its_parts_are_here(tmp_path: Path, site: Project) -> None:
    long = bytes(range(200))
    run = importer(site, index=plan([of(b"a"), split(long, 0, 120)], [split(long, 120, 200)]))
    assert not run._imported_before(1) and not run._imported_before(2)
    Store(site.store).add_bytes(b"a")
    assert not run._imported_before(1)
    run._import_volume(volume(tmp_path / "medium", 1, (long, 0, 120)))
    assert run._imported_before(1) and not run._imported_before(2)
    run.scan.index = None
    assert not run._imported_before(1)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("b-0001.gfv", 1),
        ("b-0003.gfv", 3),
        ("b-0005.gfv", 5),
        ("b-0006.gfv", 0),
        ("b-0000.gfv", 0),
        ("b-x.gfv", 0),
        ("c-0003.gfv", 0),
    ],
)
def test_number_of_an_unreadable_volume_is_that_of_its_name(name: str, number: int) -> None:
    scan = SimpleNamespace(bundle="b", plan=SimpleNamespace(volumes=range(5)))
    assert unpacking._number_in_name(Path(name), scan) == number  # type: ignore[arg-type]


# -- the request


def test_request_lists_what_is_missing(tmp_path: Path, site: Project) -> None:
    """Whole objects, the missing ranges of split ones, and empty objects."""
    long, empty, here = bytes(range(200)), b"", b"here"
    tool = "7" * 64
    first = volume(tmp_path / "medium", 1, (long, 0, 50), (long, 90, 120), tool=tool)
    run = importer(site, first, index=plan([split(long, 0, 120)], [split(long, 120, 200)]))
    Store(site.store).add_bytes(here)
    run._import_volume(first)
    run.missing = {of(empty), of(here), of(b"absent"), split(long, 40, 100)}
    request = run._request()
    expected = [of(empty), of(b"absent"), split(long, 50, 90), split(long, 120, 200)]
    assert request == RepairRequest(
        bundle=BUNDLE,
        parts=tuple(sorted(expected)),
        volumes=(),
        presets=first.identity.presets,
        tool=tool,
    )
    target = tmp_path / "r.json"
    assert unpacking.write_request(site, request, target) == target
    assert read_request(target) == request
    beside = site.artifacts / request_name(BUNDLE)
    assert unpacking.write_request(site, request) == beside and read_request(beside) == request
    unpacking.remove_request(site, BUNDLE)
    assert not beside.exists() and target.exists()


@pytest.mark.parametrize(
    ("incomplete", "unknown", "indexed", "whole_volumes"),
    [
        ({}, False, False, False),
        ({PRESET: 0}, False, False, False),
        ({PRESET: 2}, False, False, False),
        ({PRESET: -1}, False, False, True),
        ({"other": 3, PRESET: -1}, False, False, True),
        ({PRESET: 2}, True, False, True),
        ({PRESET: -1}, True, True, False),
    ],
)
def test_whole_volumes_are_requested_if_their_contents_are_unknown(
    tmp_path: Path,
    site: Project,
    incomplete: dict[str, int],
    unknown: bool,
    indexed: bool,
    whole_volumes: bool,
) -> None:
    second = volume(tmp_path / "medium", 2, (b"a", 0, 1), volumes=3)
    run = importer(site, second, index=plan([of(b"x")], [of(b"a")], []) if indexed else None)
    run.result.incomplete, run.repository_unknown = incomplete, unknown
    run.failed_parts = {of(b"a"): of(b"a")}
    request = run._request()
    assert request.volumes == ((1, 3) if whole_volumes else ())
    assert of(b"a") in request.parts


def test_complete_import_removes_its_record(tmp_path: Path, site: Project) -> None:
    """The counts, the objects, and the record for gc that a complete import removes."""
    made = sender(tmp_path, {"sources/a": b"a" * 100, "sources/b": b"b" * 5000})
    packed = carry(made, tmp_path / "medium", size=6000)
    first, second = sorted((tmp_path / "medium").glob("*.gfv"))
    result = receive(site, first)
    assert not result.complete and result.missing_volumes == [2] and result.request is not None
    assert incomplete_bundles.recorded_bundles(site.store) == [packed.plan.bundle]
    held = hashes(site)
    assert set(result.objects) == held and result.imported == len(held)
    sizes = {part.sha256: part.size for part in packed.plan.parts}
    assert result.imported_bytes == sum(sizes[sha256] for sha256 in held)
    result = receive(site, first, second)
    assert result.complete and result.request is None and result.already == len(held)
    assert not result.objects.keys() & held
    assert hashes(site) == held | result.objects.keys() | {packed.plan.presets[0].sums}
    assert incomplete_bundles.recorded_bundles(site.store) == []
    assert (result.copies, result.copied, result.unexpected) == (0, 0, {})
    (site.artifacts_of(PRESET) / "stranger").write_bytes(b"")
    again = receive(site, first, second)
    assert again.unexpected == {PRESET: ["stranger"]} and again.imported == 0
    assert verify(site.artifacts_of(PRESET)).ok is False
