"""Packing and unpacking: the same bytes on the other side, whatever the sizes and the order."""

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
from gapforge.base.errors import BundleError, StorageError, UsageError, VerifyError
from gapforge.base.project import Project
from gapforge.bundle import custody_facts, custody_page
from gapforge.bundle import pack as packing
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
from gapforge.store.verify_artifacts import verify
from samples import ROOT

SMALL = 64 << 10


@pytest.mark.parametrize("size", [3000, 20_000, 100_000, 10**9])
def test_a_round_trip_gives_the_same_store_and_a_preset_that_verifies(
    tmp_path: Path, size: int
) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=size)
    assert all(path.stat().st_size <= size for path in (tmp_path / "stick").glob("*.gfv"))
    site = site_at(tmp_path / "site")
    result = receive(site, tmp_path / "stick")
    assert result.complete and result.presets == [PRESET] and not result.broken
    assert hashes(site) == made.objects
    assert verify(site.artifacts_of(PRESET)).ok
    again = receive(site, tmp_path / "stick")
    assert again.complete and again.imported == 0


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.integers(0, 30_000), min_size=1, max_size=12),
    volume=st.integers(2500, 40_000),
    seed=st.integers(0, 999),
)
def test_any_sizes_any_volume_size_any_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], volume: int, seed: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("any")
    shuffled = random.Random(seed)
    made = sender(
        tmp_path, {f"sources/{n}.tar": shuffled.randbytes(size) for n, size in enumerate(sizes)}
    )
    carry(made, tmp_path / "stick", size=volume)
    files = sorted((tmp_path / "stick").glob("*.gfv"))
    assert all(path.stat().st_size <= volume for path in files)
    shuffled.shuffle(files)
    site = site_at(tmp_path / "site")
    for count, file in enumerate(files, 1):  # one at a time, under another name
        folder = tmp_path / f"mount{count}"
        folder.mkdir()
        shutil.copy(file, folder / f"renamed {count}.GFV")
        result = receive(site, folder)
        assert not result.broken
    assert result.complete and hashes(site) == made.objects and verify(site.artifacts_of(PRESET)).ok
    assert not list((site.store / "partial").iterdir())
    shutil.rmtree(tmp_path)


def test_the_same_objects_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = sender(tmp_path / "a"), sender(tmp_path / "b")
    os.utime(next((tmp_path / "a").rglob("*.whl")), (5, 5))
    carry(one, tmp_path / "x", size=20_000)
    carry(two, tmp_path / "y1", tmp_path / "y2", size=20_000)
    assert names(tmp_path / "x") == names(tmp_path / "y1") and len(names(tmp_path / "x")) > 6
    other = carry(one, tmp_path / "z", size=20_001)
    assert other.plan.bundle not in {name[:24] for name in names(tmp_path / "x")}


def test_packing_again_keeps_what_is_whole_and_replaces_what_is_not(tmp_path: Path) -> None:
    made = sender(tmp_path)
    first = carry(made, tmp_path / "stick", size=20_000)
    before = names(tmp_path / "stick")
    files = sorted((tmp_path / "stick").glob("*.gfv"))
    files[1].unlink()
    data = bytearray(files[3].read_bytes())
    data[500] ^= 4
    files[3].write_bytes(data)
    os.truncate(files[4], 100)
    again = carry(made, tmp_path / "stick", size=20_000)
    assert names(tmp_path / "stick") == before
    assert set(again.kept) == set(range(1, len(first.sealed) + 1)) - {2, 4, 5}
    assert set(carry(made, tmp_path / "stick", size=20_000).kept) == set(
        range(1, len(first.sealed) + 1)
    )


@pytest.mark.parametrize("size", [5000, 10**9])
@pytest.mark.parametrize("small", [0, 2 << 20])
def test_a_wrong_byte_stops_packing_and_names_the_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, small: int
) -> None:
    monkeypatch.setattr(packing, "SMALL", small)  # both ways of copying
    made = sender(tmp_path)
    file = made.project.artifacts_of(PRESET) / "sources/ffmpeg_5.1.9.orig.tar.xz"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        BundleError, match=r"ffmpeg_5.1.9.orig.tar.xz is not what its lock says"
    ) as caught:
        carry(made, tmp_path / "stick", size=size)
    assert str(file) in caught.value.render()
    bad = hashlib.sha256(data).hexdigest()
    wrong = made.entry("sources/ffmpeg_5.1.9.orig.tar.xz").sha256
    for path in (tmp_path / "stick").glob("*"):
        assert path.suffix == ".gfv" and wrong not in [p.part.sha256 for p in read_volume(path)[1]]
    assert bad not in made.objects


def test_streaming_and_reading_ahead_make_the_same_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sender(tmp_path, {"sources/large.tar": random.Random(1).randbytes(9_000_000)})
    carry(made, tmp_path / "x", size=3_000_000)
    monkeypatch.setattr(packing, "SMALL", 100)
    carry(made, tmp_path / "y", size=3_000_000)
    monkeypatch.setattr(packing, "SMALL", 1 << 30)
    carry(made, tmp_path / "z", size=3_000_000)
    assert names(tmp_path / "x") == names(tmp_path / "y") == names(tmp_path / "z")


def test_missing_or_changed_sources_are_all_named(tmp_path: Path) -> None:
    made = sender(tmp_path)
    folder = made.project.artifacts_of(PRESET)
    (folder / "debs/Packages").unlink()
    os.truncate(folder / "debs/nasm_2.16.01-1_amd64.deb", 3)
    with pytest.raises(BundleError, match=r"2 of .* objects are not here") as caught:
        carry(made, tmp_path / "stick", size=20_000)
    assert "debs/Packages" in caught.value.render() and "nasm" in caught.value.render()
    assert not (tmp_path / "stick").exists()


def test_only_what_the_site_lacks(tmp_path: Path) -> None:
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
def test_an_inventory_that_is_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "i").write_bytes(text)
    with pytest.raises(VerifyError, match="is not an inventory"):
        inventory_objects(tmp_path / "i")
    with pytest.raises(UsageError):
        inventory_objects(tmp_path / "absent")


def test_folders_are_filled_in_order_and_too_little_room_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sender(tmp_path)
    sticks = [tmp_path / "s1", tmp_path / "s2", tmp_path / "s3"]
    for stick in sticks:
        stick.mkdir()
    from gapforge.bundle.receiver_program import receiver_bytes

    beside = len(receiver_bytes()) + 345_000
    room = {sticks[0]: beside + 200_000, sticks[1]: beside + 200_000, sticks[2]: beside + 10**9}
    devices = {stick: n for n, stick in enumerate(sticks, 1)}
    monkeypatch.setattr(packing, "disk_of", lambda folder: (devices[folder], room[folder]))
    packed = carry(made, *sticks, size=50_000)
    where = [sticks.index(packed.folders[n]) for n in sorted(packed.folders)]
    assert where == sorted(where) and len(set(where)) > 1 and where[0] == 0
    for n, folder in packed.folders.items():
        assert (folder / f"{packed.plan.bundle}-{n:04}.gfv").is_file()
    for stick in {packed.folders[n] for n in packed.folders}:
        assert (stick / RECEIVER).is_file() and (stick / f"{packed.plan.bundle}.json").is_file()
    site = site_at(tmp_path / "site")
    assert receive(site, *reversed(sticks)).complete and hashes(site) == made.objects
    room[sticks[2]] = 10
    for stick in sticks:
        shutil.rmtree(stick)
        stick.mkdir()
    room[sticks[0]] = 1000
    with pytest.raises(StorageError, match="too much"):
        carry(made, *sticks, size=40_000)
    assert list(sticks[0].iterdir()) == []


class Disk:
    """Sticks of a fixed size, which hand out room in clusters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **sizes: int) -> None:
        self.sizes = sizes
        monkeypatch.setattr(packing, "cluster", lambda path: 65536)
        monkeypatch.setattr(
            packing, "disk_of", lambda folder: (list(sizes).index(folder.name), self.free(folder))
        )

    def free(self, folder: Path) -> int:
        files = folder.iterdir() if folder.exists() else []
        return self.sizes[folder.name] - sum(
            -(-file.stat().st_size // 65536) * 65536 for file in files
        )


@pytest.mark.parametrize("left", [0, 1000])
def test_a_stick_that_was_just_large_enough_is_so_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """A volume that was damaged, or emptied, goes where it was; what lies beside it is there already."""
    made, stick = sender(tmp_path), tmp_path / "stick"
    disk = Disk(monkeypatch, stick=10**9)
    first = carry(made, stick, size=400_000)
    before = names(stick)
    disk.sizes["stick"] = sum(
        first.plan.size(n) + 65536 for n in range(1, len(first.plan.volumes) + 1)
    ) + packing.beside(first.plan)
    os.truncate(stick / f"{first.plan.bundle}-0001.gfv", left)
    assert carry(made, stick, size=400_000).kept == tuple(range(2, len(first.plan.volumes) + 1))
    assert names(stick) == before


def test_a_damaged_volume_whose_stick_is_full_by_now_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, sticks = sender(tmp_path), [tmp_path / "one", tmp_path / "two"]
    disk = Disk(monkeypatch, one=10**9, two=10**9)
    first = carry(made, sticks[0], size=400_000)
    broken = sticks[0] / f"{first.plan.bundle}-0001.gfv"
    os.truncate(broken, 0)
    disk.sizes["one"] -= disk.free(sticks[0])
    with pytest.raises(StorageError, match="too much"):
        carry(made, sticks[0], size=400_000)
    again = carry(made, *sticks, size=400_000)  # as the hint says
    assert again.folders[1] == sticks[1] and not broken.exists()
    assert receive(site_at(tmp_path / "site"), *sticks).complete


def test_room_for_a_page_that_lists_what_the_site_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names every file, carried or not."""
    made = sender(tmp_path, {f"sources/{n:04}-{'x' * 60}": b"%d" % n for n in range(3000)})
    inventory, stick = tmp_path / "inventory.txt", tmp_path / "stick"
    held = {entry.sha256: entry.size for entry in made.lock().entries}
    inventory.write_text(Inventory.of("0.1.0", {}, held).render())
    disk = Disk(monkeypatch, stick=10**9)
    packed = carry(made, stick, size=400_000, inventory=inventory)
    contents = preset_contents(made.project, [documents.find(made.project.presets, PRESET)], held)
    facts = custody_facts.of_pack(
        made.project, packed, contents, "2026-01-01T00:00:00Z", operator=""
    )
    page = custody_page.render(facts).encode()
    shutil.rmtree(stick)
    volumes = sum(packed.plan.size(n) + 65536 for n in range(1, len(packed.plan.volumes) + 1))
    disk.sizes["stick"] = volumes + packing.beside(packed.plan)
    assert len(page) > 6 * 65536
    with pytest.raises(StorageError, match="too much"):
        carry(made, stick, size=400_000, inventory=inventory)
    disk.sizes["stick"] += 260 * 3000
    carry(made, stick, size=400_000, inventory=inventory)
    assert disk.free(stick) > len(page)


def test_the_bundle_s_index_has_no_bit_to_spare(tmp_path: Path) -> None:
    packed = carry(sender(tmp_path), tmp_path / "stick", size=20_000)
    index = read_index(packed.index[0])
    assert index.plan == packed.plan and index.sealed == packed.sealed and index.made == ""
    data = packed.index[0].read_bytes()
    chance = random.Random(7)
    for _ in range(150):
        at = chance.randrange(len(data) * 8)
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        (tmp_path / "changed").write_bytes(changed)
        with pytest.raises(Damaged):
            read_index(tmp_path / "changed")


def test_an_index_that_claims_more_volumes_than_it_lists_costs_nothing(tmp_path: Path) -> None:
    """Long names of presets leave little room in a volume, so a few bytes of index could claim millions of volumes."""
    views = [BundledPreset(f"p{n:0127}", "1" * 64, "2" * 64) for n in range(200)]
    least = int(str(_refusal(lambda: make_plan([], views, 2000)).hint).split()[1])
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


def _refusal(action: Callable[[], object]) -> BundleError:
    with pytest.raises(BundleError) as caught:
        action()
    return caught.value


def test_a_hash_tree_tells_leaves_from_nodes() -> None:
    roots = {
        tree_root(rows)
        for rows in ([b""], [b"a"], [b"a", b"b"], [b"ab"], [b"a", b"b", b"b"], [b"b", b"a"])
    }
    assert len(roots) == 6


def test_volumes_that_cannot_hold_their_index() -> None:
    with pytest.raises(BundleError, match="too small for their own index") as caught:
        make_plan([Part("a" * 64, 10, 0, 10)], [], 600)
    least = int(caught.value.hint.split()[1])
    assert make_plan([Part("a" * 64, 10**6, 0, 10**6)], [], least).volumes


def test_the_receiver_on_the_stick_needs_nothing_but_python(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=20_000)
    site = tmp_path / "bare site"
    site.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            str(tmp_path / "stick" / RECEIVER),
            "unpack",
            str(tmp_path / "stick"),
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
    first = (tmp_path / "stick" / RECEIVER).read_bytes()
    (tmp_path / "stick" / RECEIVER).unlink()
    carry(made, tmp_path / "stick", size=20_000)
    assert (tmp_path / "stick" / RECEIVER).read_bytes() == first


def test_two_presets_share_what_is_the_same(tmp_path: Path) -> None:
    made = sender(tmp_path)
    other = made.second()
    packed = carry(made, tmp_path / "stick", size=20_000, presets=(PRESET, other))
    spans = packed.plan.parts
    assert len({s.sha256 for s in spans}) == len(spans)
    site = site_at(tmp_path / "site")
    assert sorted(receive(site, tmp_path / "stick").presets) == sorted([PRESET, other])
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


def test_the_commands(tmp_path: Path) -> None:
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
    stick = tmp_path / "stick"
    assert (
        command(made.project, "pack", PRESET, "--dry-run", "--to", str(stick)).returncode == 0
        and not stick.exists()
    )
    done = command(
        made.project, "pack", PRESET, "--to", str(stick), "--volume-size", "100000", "--json"
    )
    packed = json.loads(done.stdout)
    assert [(v["file"], v["size"]) for v in packed["volumes"]] == [
        (v["file"], v["size"]) for v in planned["volumes"]
    ]
    assert all((stick / v["file"]).stat().st_size == v["size"] for v in packed["volumes"])
    site = site_at(tmp_path / "site")
    gone = stick / packed["volumes"][1]["file"]
    gone.rename(tmp_path / "away")
    done = command(site, "unpack", str(stick), "--json")
    told = json.loads(done.stdout)
    assert (
        done.returncode == 21
        and told["missing_volumes"] == [2]
        and not told["ok"]
        and "bring the other" in told["next"]
    )
    answer = command(
        made.project, "pack", "--repair", told["request"], "--to", str(tmp_path / "repair")
    )
    assert answer.returncode == 0, answer.stderr
    done = command(site, "unpack", str(tmp_path / "repair"))
    assert done.returncode == 0 and "gapforge verify" in done.stdout, done.stderr
    assert not Path(told["request"]).exists()
    assert command(site, "verify", PRESET).returncode in (0, 3)
    assert hashes(site) == made.objects


def test_an_index_under_another_bundle_s_name_answers_no_request(tmp_path: Path) -> None:
    made = sender(tmp_path)
    wanted, other = (
        carry(made, tmp_path / f"stick{size}", size=size).index[0] for size in (100_000, 80_000)
    )
    request = RepairRequest(wanted.stem, (), (1,), ())
    expected = requested_parts(request, [wanted.parent])
    good = wanted.read_bytes()
    wanted.write_bytes(other.read_bytes())
    with pytest.raises(BundleError, match="is not here"):
        requested_parts(request, [wanted.parent])
    (tmp_path / wanted.name).write_bytes(good)
    assert requested_parts(request, [wanted.parent, tmp_path]) == expected


@pytest.mark.parametrize("which", ["with gapforge", "without gapforge"])
def test_the_command_for_the_site_works_as_it_is_printed(tmp_path: Path, which: str) -> None:
    made, stick = sender(tmp_path), tmp_path / "a stick"
    done = command(made.project, "pack", PRESET, "--to", str(stick))
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


def test_an_edited_or_foreign_lock_is_not_packed(tmp_path: Path) -> None:
    made = sender(tmp_path)
    lock = made.project.artifacts_of(PRESET) / "lock.json"
    lock.write_text(lock.read_text() + " ")
    done = command(made.project, "pack", PRESET, "--to", str(tmp_path / "x"))
    assert done.returncode == 4 and "not the same lock" in done.stderr


def test_pieces_of_a_bundle_make_up_every_object(tmp_path: Path) -> None:
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
