"""Pack and unpack: the site gets the same bytes, whatever the sizes and the order."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundles import PRESET, RUN_ENV, carry, hashes, names, receive, sender, site_at
from gapforge.base.errors import BundleError, BusyError, StorageError, UsageError, VerifyError
from gapforge.base.project import Project
from gapforge.bundle import (
    companion_files,
    custody_facts,
    custody_page,
    place_volumes,
    volume_writer,
)
from gapforge.bundle.bundle_index import (
    VolumeEntry,
    index_name,
    read_index,
    render_index,
    root_of,
    tree_root,
)
from gapforge.bundle.contents import inventory_objects, preset_contents
from gapforge.bundle.receiver_program import RECEIVER
from gapforge.bundle.repair_request import RepairRequest, requested_parts
from gapforge.bundle.volume_format import BundledPreset, Damaged, Part, compact_json
from gapforge.bundle.volume_plan import make_plan
from gapforge.bundle.volume_reader import read_volume
from gapforge.model import preset as documents
from gapforge.store.inventory import Inventory
from gapforge.store.store import preset_in_use
from gapforge.store.verify_artifacts import verify
from raised_errors import assert_error, values_of
from samples import ROOT

SMALL = 64 << 10


@pytest.mark.parametrize("size", [3000, 20_000, 100_000, 10**9])
@pytest.mark.every_python
def test_round_trip_gives_same_store(tmp_path: Path, size: int) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=size)
    assert all(path.stat().st_size <= size for path in (tmp_path / "medium").glob("*.gfv"))
    site = site_at(tmp_path / "site")
    result = receive(site, tmp_path / "medium")
    assert result.complete and result.presets == [PRESET] and not result.broken
    assert hashes(site) == made.objects
    assert verify(site.artifacts_of(PRESET)).ok
    again = receive(site, tmp_path / "medium")
    assert again.complete and again.imported == 0


def test_unpack_changes_no_artifacts_that_are_being_built(tmp_path: Path) -> None:
    carry(sender(tmp_path), tmp_path / "medium", size=200_000)
    site = site_at(tmp_path / "site")
    site.artifacts_of(PRESET).mkdir(parents=True)
    with preset_in_use(site, PRESET, changes=False), pytest.raises(BusyError) as error:
        receive(site, tmp_path / "medium")
    assert values_of(error.value.hint)["pid"] == os.getpid()
    assert not list(site.artifacts_of(PRESET).iterdir())
    assert receive(site, tmp_path / "medium").complete


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.integers(0, 30_000), min_size=1, max_size=12),
    volume=st.integers(2500, 40_000),
    seed=st.integers(0, 999),
)
def test_any_sizes_and_any_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], volume: int, seed: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("any")
    shuffled = random.Random(seed)
    made = sender(
        tmp_path, {f"sources/{n}.tar": shuffled.randbytes(size) for n, size in enumerate(sizes)}
    )
    carry(made, tmp_path / "medium", size=volume)
    files = sorted((tmp_path / "medium").glob("*.gfv"))
    assert all(path.stat().st_size <= volume for path in files)
    shuffled.shuffle(files)
    site = site_at(tmp_path / "site")
    for count, file in enumerate(files, 1):  # one volume at a time, renamed
        folder = tmp_path / f"mount{count}"
        folder.mkdir()
        shutil.copy(file, folder / f"renamed {count}.GFV")
        result = receive(site, folder)
        assert not result.broken
    assert result.complete and hashes(site) == made.objects and verify(site.artifacts_of(PRESET)).ok
    assert not list((site.store / "partial").iterdir())
    shutil.rmtree(tmp_path)


@pytest.mark.every_python
def test_same_objects_give_same_bytes(tmp_path: Path) -> None:
    one, two = sender(tmp_path / "a"), sender(tmp_path / "b")
    os.utime(next((tmp_path / "a").rglob("*.whl")), (5, 5))
    carry(one, tmp_path / "x", size=20_000)
    carry(two, tmp_path / "y1", tmp_path / "y2", size=20_000)
    assert names(tmp_path / "x") == names(tmp_path / "y1") and len(names(tmp_path / "x")) > 6
    other = carry(one, tmp_path / "z", size=20_001)
    assert other.plan.bundle not in {name[:24] for name in names(tmp_path / "x")}


def test_packing_again_replaces_only_damaged_volumes(tmp_path: Path) -> None:
    made = sender(tmp_path)
    first = carry(made, tmp_path / "medium", size=20_000)
    before = names(tmp_path / "medium")
    files = sorted((tmp_path / "medium").glob("*.gfv"))
    files[1].unlink()
    data = bytearray(files[3].read_bytes())
    data[500] ^= 4
    files[3].write_bytes(data)
    os.truncate(files[4], 100)
    again = carry(made, tmp_path / "medium", size=20_000)
    assert names(tmp_path / "medium") == before
    assert set(again.kept) == set(range(1, len(first.volumes) + 1)) - {2, 4, 5}
    assert set(carry(made, tmp_path / "medium", size=20_000).kept) == set(
        range(1, len(first.volumes) + 1)
    )


@pytest.mark.parametrize("size", [5000, 10**9])
@pytest.mark.parametrize("small", [0, 2 << 20])
def test_wrong_byte_stops_packing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, small: int
) -> None:
    monkeypatch.setattr(volume_writer, "SMALL", small)  # both ways of copying
    made = sender(tmp_path)
    file = made.project.artifacts_of(PRESET) / "sources/ffmpeg_5.1.9.orig.tar.xz"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        carry(made, tmp_path / "medium", size=size)
    name = f"{PRESET}/sources/ffmpeg_5.1.9.orig.tar.xz"
    assert_error(caught.value, BundleError, name=name, where=[str(file)])
    bad = hashlib.sha256(data).hexdigest()
    wrong = made.entry("sources/ffmpeg_5.1.9.orig.tar.xz").sha256
    for path in (tmp_path / "medium").glob("*"):
        assert path.suffix == ".gfv" and wrong not in [p.part.sha256 for p in read_volume(path)[1]]
    assert bad not in made.objects


def test_streaming_and_reading_ahead_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sender(tmp_path, {"sources/large.tar": random.Random(1).randbytes(9_000_000)})
    carry(made, tmp_path / "x", size=3_000_000)
    monkeypatch.setattr(volume_writer, "SMALL", 100)
    carry(made, tmp_path / "y", size=3_000_000)
    monkeypatch.setattr(volume_writer, "SMALL", 1 << 30)
    carry(made, tmp_path / "z", size=3_000_000)
    assert names(tmp_path / "x") == names(tmp_path / "y") == names(tmp_path / "z")


def test_pack_names_all_missing_objects(tmp_path: Path) -> None:
    made = sender(tmp_path)
    folder = made.project.artifacts_of(PRESET)
    (folder / "debs/Packages").unlink()
    os.truncate(folder / "debs/nasm_2.16.01-1_amd64.deb", 3)
    with pytest.raises(BundleError) as caught:
        carry(made, tmp_path / "medium", size=20_000)
    names_of = ["debs/Packages", "debs/nasm_2.16.01-1_amd64.deb"]
    where = [f"{PRESET}/{name}" for name in names_of]
    assert_error(caught.value, BundleError, missing=2, where=where)
    assert not (tmp_path / "medium").exists()


def test_inventory_leaves_out_known_objects(tmp_path: Path) -> None:
    made = sender(tmp_path)
    site = site_at(tmp_path / "site")
    carry(made, tmp_path / "first", size=10**9)
    receive(site, tmp_path / "first")
    made.change({"sources/new.tar": b"new" * 1000})
    inventory = tmp_path / "inventory"
    inventory.write_text(Inventory.of("0.1.0", {}, dict.fromkeys(hashes(site), 1)).render())
    packed = carry(made, tmp_path / "second", size=10**9, inventory=inventory)
    new = {made.entry("sources/new.tar").sha256}
    assert {s.sha256 for s in packed.plan.parts} == new | {
        packed.plan.presets[0].lock,
        packed.plan.presets[0].sums,
    }
    result = receive(site, tmp_path / "second")
    assert result.complete and hashes(site) >= made.objects and verify(site.artifacts_of(PRESET)).ok


@pytest.mark.parametrize(
    "text", [b"", b"nothing\n", b"\0\xff" * 5000, b"f" * 100_000, b"F" * 64 + b"\n"]
)
def test_invalid_inventory_is_rejected(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "i").write_bytes(text)
    with pytest.raises(VerifyError):
        inventory_objects(tmp_path / "i")
    with pytest.raises(UsageError):
        inventory_objects(tmp_path / "absent")


def test_folders_are_filled_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sender(tmp_path)
    media = [tmp_path / "s1", tmp_path / "s2", tmp_path / "s3"]
    for medium in media:
        medium.mkdir()
    from gapforge.bundle.receiver_program import receiver_bytes

    beside = len(receiver_bytes()) + 345_000
    room = {media[0]: beside + 200_000, media[1]: beside + 200_000, media[2]: beside + 10**9}
    devices = {medium: n for n, medium in enumerate(media, 1)}
    monkeypatch.setattr(place_volumes, "disk_of", lambda folder: (devices[folder], room[folder]))
    packed = carry(made, *media, size=50_000)
    where = [media.index(packed.folders[n]) for n in sorted(packed.folders)]
    assert where == sorted(where) and len(set(where)) > 1 and where[0] == 0
    for n, folder in packed.folders.items():
        assert (folder / f"{packed.plan.bundle}-{n:04}.gfv").is_file()
    for medium in {packed.folders[n] for n in packed.folders}:
        assert (medium / RECEIVER).is_file() and (medium / f"{packed.plan.bundle}.json").is_file()
    site = site_at(tmp_path / "site")
    assert receive(site, *reversed(media)).complete and hashes(site) == made.objects
    room[media[2]] = 10
    for medium in media:
        shutil.rmtree(medium)
        medium.mkdir()
    room[media[0]] = 1000
    with pytest.raises(StorageError):
        carry(made, *media, size=40_000)
    assert list(media[0].iterdir()) == []


class Disk:
    """Media of a fixed size with a large block size."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **sizes: int) -> None:
        self.sizes = sizes
        monkeypatch.setattr(place_volumes, "block_size", lambda path: 65536)
        monkeypatch.setattr(
            place_volumes,
            "disk_of",
            lambda folder: (list(sizes).index(folder.name), self.free(folder)),
        )

    def free(self, folder: Path) -> int:
        files = folder.iterdir() if folder.exists() else []
        return self.sizes[folder.name] - sum(
            -(-file.stat().st_size // 65536) * 65536 for file in files
        )


@pytest.mark.parametrize("left", [0, 1000])
def test_repacking_fits_on_the_same_medium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """A damaged volume is written where it was; the files beside it are there already."""
    made, medium = sender(tmp_path), tmp_path / "medium"
    disk = Disk(monkeypatch, medium=10**9)
    first = carry(made, medium, size=400_000)
    before = names(medium)
    disk.sizes["medium"] = sum(
        first.plan.size(n) + 65536 for n in range(1, len(first.plan.volumes) + 1)
    ) + companion_files.companion_bytes(first.plan)
    os.truncate(medium / f"{first.plan.bundle}-0001.gfv", left)
    assert carry(made, medium, size=400_000).kept == tuple(range(2, len(first.plan.volumes) + 1))
    assert names(medium) == before


def test_damaged_volume_moves_off_full_medium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, media = sender(tmp_path), [tmp_path / "one", tmp_path / "two"]
    disk = Disk(monkeypatch, one=10**9, two=10**9)
    first = carry(made, media[0], size=400_000)
    broken = media[0] / f"{first.plan.bundle}-0001.gfv"
    os.truncate(broken, 0)
    disk.sizes["one"] -= disk.free(media[0])
    with pytest.raises(StorageError):
        carry(made, media[0], size=400_000)
    again = carry(made, *media, size=400_000)  # as the hint suggests
    assert again.folders[1] == media[1] and not broken.exists()
    assert receive(site_at(tmp_path / "site"), *media).complete


def test_space_for_long_custody_page_is_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page names every file, also those that the site has."""
    made = sender(tmp_path, {f"sources/{n:04}-{'x' * 60}": b"%d" % n for n in range(3000)})
    inventory, medium = tmp_path / "inventory.txt", tmp_path / "medium"
    held = {entry.sha256: entry.size for entry in made.lock().entries}
    inventory.write_text(Inventory.of("0.1.0", {}, held).render())
    disk = Disk(monkeypatch, medium=10**9)
    packed = carry(made, medium, size=400_000, inventory=inventory)
    contents = preset_contents(made.project, [documents.find(made.project.presets, PRESET)], held)
    handover = custody_facts.Handover("2026-01-01T00:00:00Z", "")
    facts = custody_facts.pack_facts(made.project, packed, contents, handover)
    page = custody_page.render(facts).encode()
    shutil.rmtree(medium)
    volumes = sum(packed.plan.size(n) + 65536 for n in range(1, len(packed.plan.volumes) + 1))
    disk.sizes["medium"] = volumes + companion_files.companion_bytes(packed.plan)
    assert len(page) > 6 * 65536
    with pytest.raises(StorageError):
        carry(made, medium, size=400_000, inventory=inventory)
    disk.sizes["medium"] += 260 * 3000
    carry(made, medium, size=400_000, inventory=inventory)
    assert disk.free(medium) > len(page)


def test_every_flipped_index_bit_is_detected(tmp_path: Path) -> None:
    packed = carry(sender(tmp_path), tmp_path / "medium", size=20_000)
    index = read_index(packed.index[0])
    assert index.plan == packed.plan and index.volumes == packed.volumes and index.made == ""
    data = packed.index[0].read_bytes()
    chance = random.Random(7)
    for _ in range(150):
        at = chance.randrange(len(data) * 8)
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        (tmp_path / "changed").write_bytes(changed)
        with pytest.raises(Damaged):
            read_index(tmp_path / "changed")


@pytest.mark.every_python
def test_index_claiming_many_volumes_is_cheap(tmp_path: Path) -> None:
    """Long preset names leave little space, so a short index could claim millions of volumes."""
    views = [BundledPreset(f"p{n:0127}", "1" * 64, "2" * 64) for n in range(200)]
    least = values_of(_error(lambda: make_plan([], views, 2000)).hint)["least"]
    assert isinstance(least, int)
    plan = make_plan([Part("a" * 64, 1, 0, 1)], views, least)
    document = json.loads(render_index(plan, [VolumeEntry(1, plan.size(1), "3" * 64)]))
    document["objects"] = [["a" * 64, least * 5_000]]
    document["root"] = root_of(document)
    file = tmp_path / index_name(plan.bundle)
    file.write_bytes(compact_json(document))
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            read_index(file)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def _error(action: Callable[[], object]) -> BundleError:
    with pytest.raises(BundleError) as caught:
        action()
    return caught.value


def test_hash_tree_distinguishes_leaves_and_nodes() -> None:
    roots = {
        tree_root(rows)
        for rows in ([b""], [b"a"], [b"a", b"b"], [b"ab"], [b"a", b"b", b"b"], [b"b", b"a"])
    }
    assert len(roots) == 6


def test_volume_too_small_for_its_index() -> None:
    error = _error(lambda: make_plan([Part.of_object("a" * 64, 10)], [], 600))
    assert_error(error, BundleError, volume_size=600)
    least = values_of(error.hint)["least"]
    assert (
        isinstance(least, int) and make_plan([Part("a" * 64, 10**6, 0, 10**6)], [], least).volumes
    )


@pytest.mark.every_python
def test_receiver_program_needs_only_python(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=20_000)
    site = tmp_path / "bare site"
    site.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            str(tmp_path / "medium" / RECEIVER),
            "unpack",
            str(tmp_path / "medium"),
            "--json",
        ],
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
        env=RUN_ENV,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["presets"] == [PRESET]
    assert verify(Project(site, site / "artifacts").artifacts_of(PRESET)).ok
    first = (tmp_path / "medium" / RECEIVER).read_bytes()
    (tmp_path / "medium" / RECEIVER).unlink()
    carry(made, tmp_path / "medium", size=20_000)
    assert (tmp_path / "medium" / RECEIVER).read_bytes() == first


def test_two_presets_share_objects(tmp_path: Path) -> None:
    made = sender(tmp_path)
    other = made.second()
    packed = carry(made, tmp_path / "medium", size=20_000, presets=(PRESET, other))
    spans = packed.plan.parts
    assert len({s.sha256 for s in spans}) == len(spans)
    site = site_at(tmp_path / "site")
    assert sorted(receive(site, tmp_path / "medium").presets) == sorted([PRESET, other])
    path = "sources/ffmpeg_5.1.9.orig.tar.xz"
    assert os.path.samefile(site.artifacts_of(PRESET) / path, site.artifacts_of(other) / path)


def command(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gapforge", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**RUN_ENV, "GAPFORGE_ROOT": str(project.root)},
    )


@pytest.mark.parametrize("below", ["", "below/it"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_pack_into_a_file_is_refused(tmp_path: Path, below: str, dry_run: bool) -> None:
    made = sender(tmp_path)
    (tmp_path / "volume").write_text("x")
    words = ["pack", PRESET, "--to", str(tmp_path / "good"), str(tmp_path / "volume" / below)]
    done = command(made.project, *words, *(["--dry-run"] if dry_run else []))
    assert done.returncode == 2
    assert "--to" in done.stderr and f"{tmp_path / 'volume'} " in done.stderr
    assert "./gapforge pack PRESET --to FOLDER" in done.stderr
    assert not (tmp_path / "good").exists() and (tmp_path / "volume").read_text() == "x"


def test_pack_unpack_and_repair_commands(tmp_path: Path) -> None:
    made = sender(tmp_path)
    assert command(made.project, "pack", PRESET).returncode == 2
    assert command(made.project, "pack", "--to", str(tmp_path / "x")).returncode == 2
    for bad in ("0", "12Q", "-5", "1000", "10000000T"):
        assert (
            command(
                made.project, "pack", PRESET, "--to", str(tmp_path / "x"), f"--volume-size={bad}"
            ).returncode
            == 2
        )
    shown = command(
        made.project,
        "pack",
        PRESET,
        "--dry-run",
        "--json",
        "--volume-size",
        "100000",
        "--speed",
        "10k",
    )
    planned = json.loads(shown.stdout)
    assert len(planned["volumes"]) > 2 and planned["seconds"] >= planned["bytes"] // 10_000
    medium = tmp_path / "medium"
    assert (
        command(made.project, "pack", PRESET, "--dry-run", "--to", str(medium)).returncode == 0
        and not medium.exists()
    )
    done = command(
        made.project, "pack", PRESET, "--to", str(medium), "--volume-size", "100000", "--json"
    )
    packed = json.loads(done.stdout)
    assert [(v["file"], v["size"]) for v in packed["volumes"]] == [
        (v["file"], v["size"]) for v in planned["volumes"]
    ]
    assert all((medium / v["file"]).stat().st_size == v["size"] for v in packed["volumes"])
    site = site_at(tmp_path / "site")
    gone = medium / packed["volumes"][1]["file"]
    gone.rename(tmp_path / "away")
    done = command(site, "unpack", str(medium), "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 21 and told["missing_volumes"] == [2] and not told["ok"]
    answer = command(
        made.project, "pack", "--repair", told["request"], "--to", str(tmp_path / "repair")
    )
    assert answer.returncode == 0, answer.stderr
    done = command(site, "unpack", str(tmp_path / "repair"))
    assert done.returncode == 0 and "gapforge verify" in done.stdout, done.stderr
    assert not Path(told["request"]).exists()
    assert command(site, "verify", PRESET).returncode in (0, 3)
    assert hashes(site) == made.objects


def test_renamed_index_answers_no_request(tmp_path: Path) -> None:
    made = sender(tmp_path)
    wanted, other = (
        carry(made, tmp_path / f"medium{size}", size=size).index[0] for size in (100_000, 80_000)
    )
    request = RepairRequest(bundle=wanted.stem, volumes=(1,))
    expected = requested_parts(request, [wanted.parent])
    good = wanted.read_bytes()
    wanted.write_bytes(other.read_bytes())
    with pytest.raises(BundleError) as caught:
        requested_parts(request, [wanted.parent])
    assert_error(caught.value, BundleError, bundle=wanted.stem, index=wanted.name)
    (tmp_path / wanted.name).write_bytes(good)
    assert requested_parts(request, [wanted.parent, tmp_path]) == expected


@pytest.mark.parametrize("which", ["with gapforge", "without gapforge"])
def test_printed_site_command_works(tmp_path: Path, which: str) -> None:
    made, medium = sender(tmp_path), tmp_path / "a medium"
    done = command(made.project, "pack", PRESET, "--to", str(medium))
    line = next(line for line in done.stdout.splitlines() if line.startswith("at the site: "))
    own, _, other = line.removeprefix("at the site: ").partition("  (without gapforge: ")
    site = tmp_path / "site"
    site.mkdir()
    run = (
        own.replace("./gapforge", str(ROOT / "gapforge"))
        if which == "with gapforge"
        else other.removesuffix(")")
    )
    done = subprocess.run(
        ["sh", "-c", run],
        cwd=site,
        env={**RUN_ENV, "GAPFORGE_ROOT": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and hashes(Project(site, site / "artifacts")) == made.objects, (
        done.stderr
    )


def test_edited_lock_is_not_packed(tmp_path: Path) -> None:
    made = sender(tmp_path)
    lock = made.project.artifacts_of(PRESET) / "lock.json"
    lock.write_text(lock.read_text() + " ")
    done = command(made.project, "pack", PRESET, "--to", str(tmp_path / "x"))
    assert done.returncode == 4 and str(lock) in done.stderr


def test_parts_form_every_object(tmp_path: Path) -> None:
    plan = make_plan(
        [Part(hashlib.sha256(bytes([n])).hexdigest(), n * 700, 0, n * 700) for n in range(40)],
        [],
        2600,
    )
    parts = sorted(itertools.chain(*plan.volumes))
    assert sum(s.length for s in parts) == plan.payload and len(plan.volumes) > 10
    for sha256, group in itertools.groupby(parts, key=lambda s: s.sha256):
        position = 0
        for span in group:
            assert span.offset == position, sha256
            position = span.end
        assert position == plan.parts[[s.sha256 for s in plan.parts].index(sha256)].size
    assert all(plan.size(n) <= 2600 for n in range(1, len(plan.volumes) + 1))
