"""What can happen to volumes on the way: every damage is found and named, what is good comes in, and the rest is asked for."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bundles import PRESET, RUN_ENV, Sender, carry, hashes, names, receive, repair, sender, site_at
from gapforge.base.errors import BundleError, StorageError
from gapforge.base.project import Project
from gapforge.bundle import unpack as unpacking
from gapforge.bundle.find_volumes import scan_media
from gapforge.bundle.partial_objects import merged, without
from gapforge.bundle.repair_request import RepairRequest, read_request
from gapforge.bundle.volume_format import MAX_INDEX, Damaged
from gapforge.bundle.volume_reader import read_volume
from gapforge.store.verify_artifacts import verify
from hostile import HASH, HOSTILE, forge, index_with

SIZE = 40_000
KILLS = 10


def volumes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gfv"))


def whole(site: Project, made: Sender) -> None:
    assert hashes(site) >= made.objects and verify(site.artifacts_of(PRESET)).ok


def unharmed(site: Project, before: set[str]) -> None:
    assert hashes(site) == before
    outside = {p for p in site.root.rglob("*") if site.store not in p.parents and p.is_file()}
    assert outside == {site.root / "presets" / f"{PRESET}.json"}


@pytest.mark.parametrize("with_index", [True, False])
def test_every_flipped_bit_is_found_named_and_repaired(tmp_path: Path, with_index: bool) -> None:
    """100 flips each with and without the bundle's index beside the volumes."""
    made = sender(tmp_path)
    packed = carry(made, tmp_path / "stick", size=SIZE)
    if not with_index:
        packed.index[0].unlink()
    chance = random.Random(11 + with_index)
    files = volumes(tmp_path / "stick")
    good, repaired = {}, {}
    receive(site_at(tmp_path / "good"), tmp_path / "stick")
    good = hashes(Project(tmp_path / "good", tmp_path / "good/artifacts"))
    site = site_at(tmp_path / "site")
    sums = packed.plan.presets[0].sums
    for round_ in range(100):
        file = chance.choice(files)
        data = file.read_bytes()
        ends = [
            chance.randrange(16),
            len(data) - 1 - chance.randrange(64),
            len(data) - 65 - chance.randrange(200),
        ]
        at = chance.choice(ends) if round_ % 2 else chance.randrange(len(data))
        changed = bytearray(data)
        changed[at] ^= 1 << chance.randrange(8)
        ours = [p for p in read_volume(file)[1] if p.position <= at < p.position + p.part.length]
        file.write_bytes(changed)
        shutil.rmtree(site.artifacts, ignore_errors=True)
        result = receive(site, tmp_path / "stick")
        assert list(result.broken) == [file], f"flip at {at} of {len(data)}"
        if [p.part.sha256 for p in ours] == [
            sums
        ]:  # it follows from the lock, so nothing is lost with it
            assert result.complete and hashes(site) == good
            file.write_bytes(data)
            continue
        assert not result.complete and result.request is not None
        assert hashes(site) < good
        request = result.request
        assert request.parts or request.volumes
        assert not with_index or sum(s.length for s in request.parts) <= SIZE
        key = request.render()
        if key not in repaired:
            repaired[key] = tmp_path / f"repair{len(repaired)}"
            repair(made, request, repaired[key], size=SIZE)
        result = receive(site, repaired[key])
        assert result.complete and hashes(site) == good
        file.write_bytes(data)
    whole(site, made)


def test_a_broken_volume_is_named_with_what_it_fails(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=10**9)
    volume = volumes(tmp_path / "stick")[0]
    _, pieces = read_volume(volume)
    piece = next(
        p for p in pieces if p.part.sha256 == made.entry("debs/nasm_2.16.01-1_amd64.deb").sha256
    )
    data = bytearray(volume.read_bytes())
    data[piece.position + 7] ^= 128
    volume.write_bytes(data)
    site = site_at(tmp_path / "site")
    result = receive(site, tmp_path / "stick")
    assert f"{PRESET}/debs/nasm_2.16.01-1_amd64.deb" in result.broken[volume]
    assert "numpy" not in result.broken[volume]
    assert result.request is not None and [s.sha256 for s in result.request.parts] == [
        piece.part.sha256
    ]
    assert hashes(site) == made.objects - {piece.part.sha256} - {result.request.presets[0].sums} | (
        hashes(site) & {result.request.presets[0].sums}
    )
    assert result.imported == len(pieces) - 1
    error = result.error(Path("r.json"))
    assert (
        error.exit_code == 21
        and str(volume) in error.render()
        and "pack --repair r.json" in error.hint
    )


def test_a_bad_piece_spoils_nothing_that_was_here_before(tmp_path: Path) -> None:
    """A repair may be cut otherwise than the bundle, so a piece of which some bytes are here already can come again,
    broken as before. A repair that was killed in between is such a case."""
    made = sender(tmp_path, {"sources/large": random.Random(1).randbytes(90_000)})
    carry(made, tmp_path / "stick", size=SIZE)
    volume = volumes(tmp_path / "stick")[1]
    _, pieces = read_volume(volume)
    piece = max(pieces, key=lambda p: p.part.length)
    assert not piece.part.whole and piece.part.length > 20_000
    data = bytearray(volume.read_bytes())
    data[piece.position + 100] ^= 1
    volume.write_bytes(data)
    site = site_at(tmp_path / "site")
    result = receive(site, tmp_path / "stick")
    assert result.request is not None
    repair(made, result.request, tmp_path / "mend", size=10_000)
    mends = volumes(tmp_path / "mend")
    assert len(mends) > 2
    assert not receive(site, mends[0], tmp_path / "stick").complete
    result = receive(site, tmp_path / "mend", tmp_path / "stick")
    assert result.complete and [path for path in result.broken if path.parent.name == "mend"] == []
    whole(site, made)


def test_a_second_copy_makes_good_what_the_first_lacks(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "a", size=SIZE)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for folder, which in (("a", 0), ("a", 1), ("b", 2)):
        file = volumes(tmp_path / folder)[which]
        data = bytearray(file.read_bytes())
        data[20 if which else 3] ^= 1
        file.write_bytes(data)
    site = site_at(tmp_path / "site")
    result = receive(site, tmp_path / "a", tmp_path / "b")
    # volume 3 of b is not read: what it holds came with a
    assert result.complete and list(result.broken) == volumes(tmp_path / "a")[:2]
    assert all("all that it holds is here" in why for why in result.broken.values())
    whole(site, made)


def test_missing_truncated_and_foreign_volumes(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    stick = tmp_path / "stick"
    files = volumes(stick)
    files[0].rename(tmp_path / "away")
    os.truncate(files[1], files[1].stat().st_size - 1)
    os.truncate(files[2], 5)
    site = site_at(tmp_path / "site")
    result = receive(site, stick)
    assert result.missing_volumes == [1, 2, 3] and set(result.broken) == {files[1], files[2]}
    assert "cut short" in result.broken[files[1]] and "cut short" in result.broken[files[2]]
    before = hashes(site)
    other = sender(tmp_path / "other", {"sources/x": b"x" * 100})
    carry(other, stick, size=SIZE)
    with pytest.raises(BundleError, match="different bundles") as caught:
        receive(site, stick)
    assert caught.value.hint.startswith("name one: --bundle ") and hashes(site) == before
    assert receive(site_at(tmp_path / "site2"), stick, only=result.bundle).missing_volumes == [
        1,
        2,
        3,
    ]
    (tmp_path / "away").rename(files[0])
    assert result.request is not None
    repair(made, result.request, tmp_path / "repair", size=SIZE)
    assert receive(site, tmp_path / "repair").complete
    whole(site, made)


def test_volumes_that_came_before_are_not_asked_for_again(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    files = volumes(tmp_path / "stick")
    assert len(files) > 4
    site = site_at(tmp_path / "site")
    away = tmp_path / "away"
    away.mkdir()
    for file in files[2:]:
        file.rename(away / file.name)
    assert receive(site, tmp_path / "stick").missing_volumes == list(range(3, len(files) + 1))
    (away / f"{files[0].name[:24]}.json").write_bytes(
        next((tmp_path / "stick").glob("*.json")).read_bytes()
    )
    volumes(away)[-1].unlink()
    result = receive(site, away)
    assert (
        result.missing_volumes == [len(files)]
        and f"volumes not seen: {len(files)};" in result.error(Path("r")).message
    )


def test_nothing_to_import_is_said(tmp_path: Path) -> None:
    site = site_at(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    for folders in ([tmp_path / "empty"], [tmp_path / "absent"]):
        with pytest.raises(BundleError):
            receive(site, *folders)
    (tmp_path / "empty" / "x.gfv").write_bytes(b"zeros" * 100)
    with pytest.raises(BundleError, match="no usable volume") as caught:
        receive(site, tmp_path / "empty")
    assert "does not begin like a volume" in caught.value.render()
    unharmed(site, set())


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_indexes(tmp_path: Path, kind: str) -> None:
    raw = {
        "more digits than a number has": b'{"n":' + b"9" * 100_000 + b"}\n",
        "deep": b"[" * 500_000 + b"]" * 500_000 + b"\n",
        "spaces": json.dumps(index_with()).encode(),
        "no ASCII": b'{"\xff":1}\n',
    }.get(kind, b"")
    stick = tmp_path / "stick"
    stick.mkdir()
    forge(stick / "x.gfv", HOSTILE[kind], b"p" * 20, raw=raw)
    with pytest.raises(Damaged):
        read_volume(stick / "x.gfv")
    site = site_at(tmp_path / "site")
    with pytest.raises(BundleError, match="no usable volume"):
        receive(site, stick)
    unharmed(site, set())


def test_volumes_that_name_more_presets_than_any_bundle(tmp_path: Path) -> None:
    """Each of them is in order; what all of them name together must not fill the memory. Equal lists count once."""
    stick = tmp_path / "stick"
    stick.mkdir()

    def named(first: int) -> list[list[str]]:
        return [[f"preset-{number}", "1" * 64, "2" * 64] for number in range(first, first + 1000)]

    for number in range(60):
        forge(stick / f"{number}.gfv", index_with(bundle=f"{number:024x}", views=named(0)))
    assert (
        len({id(volume.identity.presets) for volume in scan_media([stick], f"{0:024x}").volumes})
        == 1
    )
    for number in range(60):
        forge(
            stick / f"{number}.gfv", index_with(bundle=f"{number:024x}", views=named(number * 1000))
        )
    site = site_at(tmp_path / "site")
    with pytest.raises(
        BundleError,
        match="name more than 50000 presets, which no bundle does; nothing was imported",
    ):
        receive(site, stick)
    unharmed(site, set())


def test_names_and_values_that_would_play_tricks_on_a_terminal(tmp_path: Path) -> None:
    """What a stick says may not write lines of its own, nor anything else than text; JSON stays JSON."""
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    name = os.fsencode(tmp_path / "stick") + b"/\xff\x1b[2J\nnext: all is well.gfv"
    os.rename(volumes(tmp_path / "stick")[1], name)
    with open(name, "r+b") as file:
        file.write(b"broken")
    forge(tmp_path / "stick" / "y.gfv", index_with(number="\x1b[2J\nnext: all is well\x9b"))
    site = site_at(tmp_path / "site")

    def run(*words: object, code: int) -> tuple[bytes, bytes]:
        argv = [sys.executable, "-m", "gapforge", *map(str, words)]
        done = subprocess.run(
            argv, env={**RUN_ENV, "GAPFORGE_ROOT": str(site.root)}, capture_output=True, check=False
        )
        assert done.returncode == code, done
        assert b"\x1b" not in done.stdout + done.stderr and "\x9b" not in done.stderr.decode()
        assert b"\nnext: all is well" not in done.stdout + done.stderr
        return done.stdout, done.stderr

    _, errors = run("unpack", tmp_path / "stick", code=21)
    assert rb"\udcff\x1b[2J\nnext: all is well.gfv" in errors and rb"number \x1b[2J\nnext" in errors
    output, _ = run("unpack", tmp_path / "stick", "--json", code=21)
    assert os.fsdecode(name) in json.loads(output)["broken"]
    os.unlink(name)
    carry(made, tmp_path / "stick", size=SIZE)
    run("unpack", tmp_path / "stick", code=0)
    folder = os.fsencode(site.artifacts_of(PRESET))
    os.rename(os.path.join(folder, b"SHA256SUMS"), folder + b"/\xfe\x1b[2J\nnext: all is well")
    os.mkfifo(folder + b"/wheels/\x1b]0;x\x07")
    run("verify", PRESET, code=5)
    _, errors = run("unpack", tmp_path / "stick", code=0)
    assert rb"/\udcfe\x1b[2J\nnext: all is well: gapforge did not put this file there" in errors
    output, _ = run("unpack", tmp_path / "stick", "--json", code=0)
    assert len(json.loads(output)["strangers"][PRESET]) == 2
    output, _ = run("verify", PRESET, "--json", code=5)
    assert len(json.loads(output)["presets"][0]["faults"]) == 2


def test_links_pipes_and_devices_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "real", size=10**9)
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / "link.gfv").symlink_to(volumes(tmp_path / "real")[0])
    (stick / "null.gfv").symlink_to("/dev/zero")
    os.mkfifo(stick / "pipe.gfv")
    try:
        os.mknod(stick / "device.gfv", 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # zeros without end
    except PermissionError:
        pass  # only root makes devices
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda path, *rest, **more: (opened.append(str(path)), real(path, *rest, **more))[1],
    )
    (stick / "below").symlink_to(tmp_path / "real")
    with pytest.raises(BundleError, match="no usable volume") as caught:
        receive(site_at(tmp_path / "site"), stick)
    assert (
        "symbolic link" in caught.value.render() and "not a regular file" in caught.value.render()
    )
    assert not [path for path in opened if path.endswith(".gfv")]


def test_a_lock_that_leads_out_is_refused(tmp_path: Path) -> None:
    """Everything about this volume is right but the lock in it, which names a file outside."""
    made = sender(tmp_path)
    lock = json.loads(made.lock().render())
    from gapforge.base.files import sha256_bytes

    for name in (
        "../../evil",
        "/tmp/evil",
        "lock.json",
        "evil/",
        ".",
        "a//evil",
        "half\ud800",
        "half\udcff",
        "a\x9b",
    ):
        lock["preset"] = PRESET if "\x9b" not in name else "\x9b2J"
        lock["entries"] = [
            {
                "kind": "source",
                "path": name,
                "sha256": sha256_bytes(b"evil"),
                "size": 4,
                "origin": "url",
            }
        ]
        text = json.dumps(lock, indent=2).encode()
        objects = sorted([(sha256_bytes(text), text), (sha256_bytes(b"evil"), b"evil")])
        stick = tmp_path / sha256_bytes(text)
        stick.mkdir()
        forge(
            stick / "x.gfv",
            index_with(
                [[s, len(d)] for s, d in objects], views=[[PRESET, sha256_bytes(text), "2" * 64]]
            ),
            b"".join(d for _, d in objects),
        )
        site = site_at(tmp_path / f"site-{stick.name}")
        with pytest.raises(BundleError, match="the bundle's") as caught:
            receive(site, stick)
        assert caught.value.render().replace("\n", "").isprintable()
        assert not site.artifacts_of(PRESET).exists() and not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000 + b"]" * 100_000, b'{"a":1},' * 100_000, b"\xff", b"", b"{}", b"0" * (9 << 20)],
)
def test_a_lock_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    digest = hashlib.sha256(text).hexdigest()
    forge(
        stick / "x.gfv", index_with([[digest, len(text)]], views=[[PRESET, digest, "2" * 64]]), text
    )
    site = site_at(tmp_path / "site")
    with pytest.raises(BundleError, match="the bundle's lock"):
        receive(site, stick)
    unharmed(site, {digest})


def test_parts_that_do_not_make_up_the_object(tmp_path: Path) -> None:
    """Somebody who can compute hashes changed a part: only the whole shows it, and nothing gets its name."""
    from gapforge.base.files import sha256_bytes

    stick = tmp_path / "stick"
    stick.mkdir()
    for n, part in enumerate((b"a" * 10, b"b" * 10)):
        forge(
            stick / f"{n}.gfv",
            index_with([[HASH, 20, n * 10, 10, sha256_bytes(part)]], number=n + 1, volumes=2),
            part,
        )
    site = site_at(tmp_path / "site")
    result = receive(site, stick)
    assert len(result.broken) == 2 and all("altered" in why for why in result.broken.values())
    assert not result.complete and hashes(site) == set()
    assert not [p for p in (site.store / "partial").iterdir() if HASH in p.name]


def test_a_lie_about_a_size_removes_nothing(tmp_path: Path) -> None:
    """The store drops an object that has another size than it should; a stick must not decide what it should be."""
    made = sender(tmp_path)
    carry(made, tmp_path / "good", size=SIZE)
    site = site_at(tmp_path / "site")
    receive(site, tmp_path / "good")
    before = hashes(site)
    for n, sha256 in enumerate(sorted(before)):
        stick = tmp_path / f"stick{n}"
        stick.mkdir()
        forge(stick / "x.gfv", index_with([[sha256, 3]]), b"lie")
        receive(Project(site.root, site.artifacts), stick)
        forge(
            stick / "x.gfv",
            index_with([[sha256, 10**9, 5, 3, hashlib.sha256(b"lie").hexdigest()]]),
            b"lie",
        )
        receive(Project(site.root, site.artifacts), stick)
    lock = json.loads(made.lock().render())
    for entry in lock["entries"]:
        entry["size"] += 1
    text = json.dumps(lock, indent=2, sort_keys=True).encode()
    digest = hashlib.sha256(text).hexdigest()
    forge(
        stick / "x.gfv", index_with([[digest, len(text)]], views=[[PRESET, digest, "2" * 64]]), text
    )
    assert not receive(site, stick).complete
    assert hashes(site) == before | {digest} and verify(site.artifacts_of(PRESET)).ok


def test_a_lie_about_the_size_of_a_cut_object_leaves_no_byte_behind_it(tmp_path: Path) -> None:
    """A part that lies behind the object's end, by a volume that gives it another size, is no byte of the object."""
    data = random.Random(7).randbytes(3 * SIZE)
    made = sender(tmp_path, {"sources/big.tar": data})
    carry(made, tmp_path / "good", size=SIZE)
    identity, lie = read_volume(volumes(tmp_path / "good")[0])[0].identity, b"lie" * 10
    evil = tmp_path / "evil"
    evil.mkdir()
    forge(
        evil / "x.gfv",
        index_with(
            [
                [
                    hashlib.sha256(data).hexdigest(),
                    len(data) + 500,
                    len(data) + 100,
                    len(lie),
                    hashlib.sha256(lie).hexdigest(),
                ]
            ],
            bundle=identity.bundle,
            volumes=identity.volumes,
            views=[view.to_json() for view in identity.presets],
        ),
        lie,
    )
    site = site_at(tmp_path / "site")
    assert not receive(site, evil).complete
    assert receive(site, tmp_path / "good").complete
    whole(site, made)


def test_memory_stays_small_whatever_an_index_says(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    million = b'{"pieces":[' + b",".join(b'["%064d",0]' % n for n in range(1_000_000)) + b"]}\n"
    forge(stick / "1.gfv", None, raw=million)
    for number, filler in enumerate(
        (
            b'{"a":1},',
            b"[],",
            b"1000,",
            b'"aaaa",',
            b"{},",
            b'["%s",1],' % (b"a" * 64),
            b'["%s",10000000,10000001,10000002],' % (b"a" * 32),
        ),
        2,
    ):
        text = b"[" + filler * ((MAX_INDEX - 10) // len(filler)) + b"1]\n"
        assert len(text) <= MAX_INDEX
        forge(stick / f"{number}.gfv", None, raw=text)
    code = (
        "import re, sys; from pathlib import Path; from gapforge.bundle.find_volumes import scan_media\n"
        "try: scan_media([Path(sys.argv[1])])\n"
        "except Exception as e: print(type(e).__name__, len(e.faults))\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(stick)],
        capture_output=True,
        text=True,
        check=False,
        env=RUN_ENV,
        cwd="/",
    )
    said, peak = done.stdout.splitlines()
    assert said == "BundleError 8" and int(peak) < 200_000, done.stdout + done.stderr


def test_a_full_disk_is_said_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    site = site_at(tmp_path / "site")
    real = os.statvfs(tmp_path)

    class Full:
        f_bavail, f_frsize = 10, real.f_frsize

    monkeypatch.setattr(unpacking.os, "statvfs", lambda path: Full)  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match=r"are needed and .* are free"):
        receive(site, tmp_path / "stick")
    assert hashes(site) == set()


@pytest.mark.parametrize("after", [0, 3, 9])
def test_a_disk_that_fills_up_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    site = site_at(tmp_path / "site")
    real, calls = os.pwrite, []

    def pwrite(handle: int, data: Any, offset: int) -> int:
        calls.append(1)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(StorageError, match="the disk is full"):
            receive(site, tmp_path / "stick")
    assert hashes(site) < made.objects
    assert receive(site, tmp_path / "stick").complete
    whole(site, made)


def test_a_stick_that_is_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    site = site_at(tmp_path / "site")
    real, calls = os.preadv, []

    def preadv(handle: int, buffers: Any, offset: int) -> int:
        calls.append(1)
        if len(calls) > 4:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(handle, buffers, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        result = receive(site, tmp_path / "stick")
    assert not result.complete and any(
        "cannot be read: Input/output error" in why for why in result.broken.values()
    )
    assert receive(site, tmp_path / "stick").complete
    whole(site, made)


def test_a_read_only_source_is_only_read(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    before = names(tmp_path / "stick")
    for path in (tmp_path / "stick").iterdir():
        path.chmod(0o444)
    (tmp_path / "stick").chmod(0o555)
    try:
        assert receive(site_at(tmp_path / "site"), tmp_path / "stick").complete
        assert names(tmp_path / "stick") == before
    finally:
        (tmp_path / "stick").chmod(0o755)


def test_what_rotted_in_the_store_is_brought_back(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    site = site_at(tmp_path / "site")
    receive(site, tmp_path / "stick")
    rotten = site.artifacts_of(PRESET) / "debs/nasm_2.16.01-1_amd64.deb"
    rotten.chmod(0o644)
    data = bytearray(rotten.read_bytes())
    data[9] ^= 2
    rotten.write_bytes(data)
    result = receive(site, tmp_path / "stick")
    assert result.complete and result.imported == 1
    whole(site, made)


def test_what_stands_where_the_lock_belongs_is_replaced_not_waited_for(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    site = site_at(tmp_path / "site")
    receive(site, tmp_path / "stick")
    lock = site.artifacts_of(PRESET) / "lock.json"
    lock.unlink()
    os.mkfifo(lock)
    argv = [sys.executable, "-m", "gapforge", "unpack", str(tmp_path / "stick")]
    env = {**RUN_ENV, "GAPFORGE_ROOT": str(site.root)}
    assert (
        subprocess.run(argv, env=env, capture_output=True, timeout=20, check=False).returncode == 0
    )
    whole(site, made)


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad directory of a stick is not the same as one with no volumes."""
    made = sender(tmp_path)
    carry(made, tmp_path / "stick", size=SIZE)
    (tmp_path / "bad").mkdir()
    for name in ("lost+found", "deep"):
        (tmp_path / "stick" / name).mkdir()
    numbers = {"bad": errno.EACCES, "lost+found": errno.EACCES, "deep": errno.EIO}
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if (number := numbers.get(os.path.basename(path), 0)) != 0:
            raise OSError(number, os.strerror(number), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    site = site_at(tmp_path / "site")
    with pytest.raises(BundleError, match="no usable volume") as caught:
        receive(site, tmp_path / "bad")
    assert f"{tmp_path / 'bad'}\n      cannot be read: Permission denied" in caught.value.render()
    result = receive(site, tmp_path / "stick", tmp_path / "bad")
    assert result.complete and set(result.broken) == {tmp_path / "bad", tmp_path / "stick" / "deep"}


def test_a_request_that_was_changed_is_refused(tmp_path: Path) -> None:
    request = RepairRequest("ab" * 12, (), (1, 2), ())
    file = tmp_path / "r.json"
    file.write_bytes(request.render())
    assert read_request(file) == request
    for change in (
        lambda d: d[:-1],
        lambda d: d.replace(b"repair", b"repare"),
        lambda d: d + b" ",
        lambda d: b"",
    ):
        file.write_bytes(change(request.render()))
        with pytest.raises(BundleError):
            read_request(file)
    file.write_bytes(request.render())
    with pytest.raises(BundleError, match="is not here to tell"):
        repair(sender(tmp_path), read_request(file), tmp_path / "x", size=SIZE)


def test_ranges() -> None:
    assert merged([(5, 7), (0, 2), (2, 5), (9, 10)]) == [(0, 7), (9, 10)]
    assert without((0, 10), []) == [(0, 10)]
    assert without((0, 10), [(0, 10)]) == [] and without((3, 6), [(0, 4), (5, 9)]) == [(4, 5)]
    assert without((0, 10), [(2, 3), (8, 20)]) == [(0, 2), (3, 8)] and without(
        (0, 3), [(5, 6)]
    ) == [(0, 3)]


PACK = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from bundles import Sender, carry
from gapforge.base.project import Project
root = Path(sys.argv[2])
print("go", flush=True)
carry(Sender(Project(root, root / "artifacts")), Path(sys.argv[3]), Path(sys.argv[4]), size=int(sys.argv[5]))
"""
UNPACK = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from bundles import receive
from gapforge.base.project import Project
root = Path(sys.argv[2])
print("go", flush=True)
receive(Project(root, root / "artifacts"), Path(sys.argv[3]), Path(sys.argv[4]))
"""


def killed(code: str, *words: str, after: float) -> bool:
    """Run a script and kill it ``after`` seconds of work; whether it was still at work."""
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).resolve().parents[2]), *words],
        env=RUN_ENV,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout is not None and run.stderr is not None
    with run.stdout, run.stderr:
        assert run.stdout.readline() == b"go\n", run.stderr.read()
        try:
            run.wait(after)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
        return run.wait() == -signal.SIGKILL


class Moments:
    """Random moments in the time that ``run`` takes, until KILLS runs were killed at work."""

    def __init__(self, run: Callable[[], object], seed: int) -> None:
        start = time.monotonic()
        run()
        self.took = time.monotonic() - start
        self.chance, self.hits = random.Random(seed), 0

    def __iter__(self) -> Iterator[float]:
        for _ in range(30 * KILLS):
            before = self.hits
            yield self.chance.uniform(0, self.took)
            if self.hits == before:
                self.took *= (
                    0.8  # the run is faster than the first one was; in the end every moment hits
                )
            if self.hits == KILLS:
                return
        pytest.fail("the moments missed the work")


def test_killed_packing_converges(tmp_path: Path) -> None:
    chance = random.Random(5)
    made = sender(
        tmp_path, {f"sources/{n}": chance.randbytes(chance.randrange(900_000)) for n in range(20)}
    )
    size = 1_500_000
    times = Moments(lambda: carry(made, tmp_path / "x1", tmp_path / "x2", size=size), 3)
    want = names(tmp_path / "x1")
    for after in times:
        times.hits += killed(
            PACK,
            str(made.project.root),
            str(tmp_path / "y1"),
            str(tmp_path / "y2"),
            str(size),
            after=after,
        )
        for path in (tmp_path / "y1").glob("*.gfv"):
            assert names(tmp_path / "y1")[path.name] == want[path.name], (
                "a volume has its name and other bytes"
            )
        carry(made, tmp_path / "y1", tmp_path / "y2", size=size)
        assert names(tmp_path / "y1") == want
        shutil.rmtree(tmp_path / "y1")


def test_killed_unpacking_converges(tmp_path: Path) -> None:
    chance = random.Random(6)
    made = sender(
        tmp_path, {f"sources/{n}": chance.randbytes(chance.randrange(900_000)) for n in range(20)}
    )
    carry(made, tmp_path / "stick", size=1_500_000)
    trial = site_at(tmp_path / "trial")
    times = Moments(lambda: receive(trial, tmp_path / "stick"), 4)
    want = hashes(trial)
    for n, after in enumerate(times):
        site = site_at(tmp_path / f"site{n}")
        times.hits += killed(
            UNPACK, str(site.root), str(tmp_path / "stick"), str(tmp_path / "stick"), after=after
        )
        partly = hashes(site)  # fails for an object whose bytes are not what its name says
        result = receive(site, tmp_path / "stick")
        assert (
            result.complete
            and hashes(site) == want
            and result.imported <= len(want) - len(partly) + 1
        )
        assert not list((site.store / "partial").iterdir())
        assert verify(site.artifacts_of(PRESET)).ok
        shutil.rmtree(site.root)


def test_look_says_whose_a_repair_is(tmp_path: Path) -> None:
    made = sender(tmp_path)
    packed = carry(made, tmp_path / "stick", size=SIZE)
    site = site_at(tmp_path / "site")
    volumes(tmp_path / "stick")[1].unlink()
    result = receive(site, tmp_path / "stick")
    assert result.request is not None
    repair(made, result.request, tmp_path / "stick2", size=3000)
    scan = scan_media([tmp_path / "stick", tmp_path / "stick2"])
    assert scan.bundle == packed.plan.bundle and {v.identity.root for v in scan.volumes} == {
        scan.bundle
    }
    assert receive(site_at(tmp_path / "new"), tmp_path / "stick", tmp_path / "stick2").complete
