"""Damaged volumes: unpack names all damage, imports what is intact, and requests the rest."""

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

from bundles import (
    PRESET,
    RUN_ENV,
    Sender,
    carry,
    hashes,
    names,
    receive,
    repair,
    scan_at,
    sender,
    site_at,
)
from forged_volumes import HASH, HOSTILE, forge, index_with
from gapforge.base.errors import BundleError, StorageError
from gapforge.base.project import Project
from gapforge.bundle import unpack as unpacking
from gapforge.bundle.partial_objects import merged, without
from gapforge.bundle.repair_request import RepairRequest, read_request
from gapforge.bundle.volume_format import MAX_INDEX, Damaged
from gapforge.bundle.volume_reader import read_volume
from gapforge.store.verify_artifacts import verify
from raised_errors import assert_error, values_of

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
def test_flipped_bits_are_found_and_repaired(tmp_path: Path, with_index: bool) -> None:
    """50 flips each with and without the bundle's index beside the volumes."""
    made = sender(tmp_path)
    packed = carry(made, tmp_path / "medium", size=SIZE)
    if not with_index:
        packed.index[0].unlink()
    chance = random.Random(11 + with_index)
    files = volumes(tmp_path / "medium")
    good, repaired = {}, {}
    receive(site_at(tmp_path / "good"), tmp_path / "medium")
    good = hashes(Project(tmp_path / "good", tmp_path / "good/artifacts"))
    site = site_at(tmp_path / "site")
    sums = packed.plan.presets[0].sums
    for round_ in range(50):
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
        result = receive(site, tmp_path / "medium")
        assert list(result.broken) == [file], f"flip at {at} of {len(data)}"
        if [p.part.sha256 for p in ours] == [sums]:  # the site calculates it from the lock
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


def test_damaged_volume_names_missing_objects(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=10**9)
    volume = volumes(tmp_path / "medium")[0]
    _, pieces = read_volume(volume)
    piece = next(
        p for p in pieces if p.part.sha256 == made.entry("debs/nasm_2.16.01-1_amd64.deb").sha256
    )
    data = bytearray(volume.read_bytes())
    data[piece.position + 7] ^= 128
    volume.write_bytes(data)
    site = site_at(tmp_path / "site")
    result = receive(site, tmp_path / "medium")
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
    where = [str(volume), f"preset {PRESET}"]
    hint = {"file": Path("r.json"), "name": "r.json"}
    assert_error(error, BundleError, bundle=result.bundle, where=where, hint=hint)


def test_damaged_part_keeps_verified_bytes(tmp_path: Path) -> None:
    """A repair may be split in another way than the bundle, for example after it was killed.

    So a damaged part can come again when some of its bytes are here already.
    """
    made = sender(tmp_path, {"sources/large": random.Random(1).randbytes(90_000)})
    carry(made, tmp_path / "medium", size=SIZE)
    volume = volumes(tmp_path / "medium")[1]
    _, pieces = read_volume(volume)
    piece = max(pieces, key=lambda p: p.part.length)
    assert not piece.part.whole and piece.part.length > 20_000
    data = bytearray(volume.read_bytes())
    data[piece.position + 100] ^= 1
    volume.write_bytes(data)
    site = site_at(tmp_path / "site")
    result = receive(site, tmp_path / "medium")
    assert result.request is not None
    repair(made, result.request, tmp_path / "mend", size=10_000)
    mends = volumes(tmp_path / "mend")
    assert len(mends) > 2
    assert not receive(site, mends[0], tmp_path / "medium").complete
    result = receive(site, tmp_path / "mend", tmp_path / "medium")
    assert result.complete and [path for path in result.broken if path.parent.name == "mend"] == []
    whole(site, made)


def test_second_copy_completes_damaged_volumes(tmp_path: Path) -> None:
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
    assert all("names" not in values_of(why) for why in result.broken.values())
    whole(site, made)


def test_missing_truncated_and_foreign_volumes(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=SIZE)
    medium = tmp_path / "medium"
    files = volumes(medium)
    files[0].rename(tmp_path / "away")
    os.truncate(files[1], files[1].stat().st_size - 1)
    os.truncate(files[2], 5)
    site = site_at(tmp_path / "site")
    result = receive(site, medium)
    assert result.missing_volumes == [1, 2, 3] and set(result.broken) == {files[1], files[2]}
    before = hashes(site)
    other = sender(tmp_path / "other", {"sources/x": b"x" * 100})
    carry(other, medium, size=SIZE)
    with pytest.raises(BundleError) as caught:
        receive(site, medium)
    bundles = sorted({volume.name[:24] for volume in volumes(medium)})
    where = {fault.where for fault in caught.value.faults}
    assert where == {str(volume) for volume in volumes(medium) if volume not in result.broken}
    assert values_of(caught.value.hint) == {"bundle": bundles[0]} and hashes(site) == before
    assert receive(site_at(tmp_path / "site2"), medium, only=result.bundle).missing_volumes == [
        1,
        2,
        3,
    ]
    (tmp_path / "away").rename(files[0])
    assert result.request is not None
    repair(made, result.request, tmp_path / "repair", size=SIZE)
    assert receive(site, tmp_path / "repair").complete
    whole(site, made)


def test_imported_volumes_are_not_missing(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=SIZE)
    files = volumes(tmp_path / "medium")
    assert len(files) > 4
    site = site_at(tmp_path / "site")
    away = tmp_path / "away"
    away.mkdir()
    for file in files[2:]:
        file.rename(away / file.name)
    assert receive(site, tmp_path / "medium").missing_volumes == list(range(3, len(files) + 1))
    (away / f"{files[0].name[:24]}.json").write_bytes(
        next((tmp_path / "medium").glob("*.json")).read_bytes()
    )
    volumes(away)[-1].unlink()
    result = receive(site, away)
    assert result.missing_volumes == [len(files)]
    assert_error(result.error(Path("r")), BundleError, volumes=str(len(files)))


def test_folder_without_volumes_is_rejected(tmp_path: Path) -> None:
    site = site_at(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    for folders in ([tmp_path / "empty"], [tmp_path / "absent"]):
        with pytest.raises(BundleError):
            receive(site, *folders)
    (tmp_path / "empty" / "x.gfv").write_bytes(b"zeros" * 100)
    with pytest.raises(BundleError) as caught:
        receive(site, tmp_path / "empty")
    assert_error(caught.value, BundleError, where=[str(tmp_path / "empty" / "x.gfv")])
    unharmed(site, set())


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_index_is_rejected(tmp_path: Path, kind: str) -> None:
    raw = {
        "more digits than a number has": b'{"n":' + b"9" * 100_000 + b"}\n",
        "deep": b"[" * 500_000 + b"]" * 500_000 + b"\n",
        "spaces": json.dumps(index_with()).encode(),
        "no ASCII": b'{"\xff":1}\n',
    }.get(kind, b"")
    medium = tmp_path / "medium"
    medium.mkdir()
    forge(medium / "x.gfv", HOSTILE[kind], b"p" * 20, raw=raw)
    with pytest.raises(Damaged):
        read_volume(medium / "x.gfv")
    site = site_at(tmp_path / "site")
    with pytest.raises(BundleError):
        receive(site, medium)
    unharmed(site, set())


def test_too_many_presets_are_rejected(tmp_path: Path) -> None:
    """All presets of valid volumes together must not fill the memory. Equal lists count once."""
    medium = tmp_path / "medium"
    medium.mkdir()

    def named(first: int) -> list[list[str]]:
        return [[f"preset-{number}", "1" * 64, "2" * 64] for number in range(first, first + 1000)]

    for number in range(60):
        forge(medium / f"{number}.gfv", index_with(bundle=f"{number:024x}", views=named(0)))
    scan = scan_at(site_at(tmp_path / "other"), medium, only=f"{0:024x}")
    assert len({id(volume.identity.presets) for volume in scan.volumes}) == 1
    for number in range(60):
        forge(
            medium / f"{number}.gfv",
            index_with(bundle=f"{number:024x}", views=named(number * 1000)),
        )
    site = site_at(tmp_path / "site")
    with pytest.raises(BundleError) as caught:
        receive(site, medium)
    assert_error(caught.value, BundleError, limit=50_000)
    unharmed(site, set())


def test_control_characters_are_escaped(tmp_path: Path) -> None:
    """Text from a medium cannot write its own lines or control a terminal, and JSON stays valid."""
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=SIZE)
    name = os.fsencode(tmp_path / "medium") + b"/\xff\x1b[2J\nnext: all is well.gfv"
    os.rename(volumes(tmp_path / "medium")[1], name)
    with open(name, "r+b") as file:
        file.write(b"broken")
    forge(tmp_path / "medium" / "y.gfv", index_with(number="\x1b[2J\nnext: all is well\x9b"))
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

    _, errors = run("unpack", tmp_path / "medium", code=21)
    assert (
        rb"\udcff\x1b[2J\nnext: all is well.gfv" in errors
        and rb"volume number is \x1b[2J\nnext" in errors
    )
    output, _ = run("unpack", tmp_path / "medium", "--json", code=21)
    assert os.fsdecode(name) in json.loads(output)["broken"]
    os.unlink(name)
    carry(made, tmp_path / "medium", size=SIZE)
    run("unpack", tmp_path / "medium", code=0)
    folder = os.fsencode(site.artifacts_of(PRESET))
    os.rename(os.path.join(folder, b"SHA256SUMS"), folder + b"/\xfe\x1b[2J\nnext: all is well")
    os.mkfifo(folder + b"/wheels/\x1b]0;x\x07")
    run("verify", PRESET, code=5)
    _, errors = run("unpack", tmp_path / "medium", code=0)
    assert rb"/\udcfe\x1b[2J\nnext: all is well: " in errors
    output, _ = run("unpack", tmp_path / "medium", "--json", code=0)
    assert len(json.loads(output)["strangers"][PRESET]) == 2
    output, _ = run("verify", PRESET, "--json", code=5)
    assert len(json.loads(output)["presets"][0]["faults"]) == 2


def test_links_pipes_and_devices_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "real", size=10**9)
    medium = tmp_path / "medium"
    medium.mkdir()
    (medium / "link.gfv").symlink_to(volumes(tmp_path / "real")[0])
    (medium / "null.gfv").symlink_to("/dev/zero")
    os.mkfifo(medium / "pipe.gfv")
    try:
        os.mknod(medium / "device.gfv", 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # zeros without end
    except PermissionError:
        pass  # only root makes devices
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda path, *rest, **more: (opened.append(str(path)), real(path, *rest, **more))[1],
    )
    (medium / "below").symlink_to(tmp_path / "real")
    with pytest.raises(BundleError) as caught:
        receive(site_at(tmp_path / "site"), medium)
    assert {fault.where for fault in caught.value.faults} == {str(p) for p in volumes(medium)}
    assert not [path for path in opened if path.endswith(".gfv")]


def test_lock_with_unsafe_path_is_rejected(tmp_path: Path) -> None:
    """The volume is valid, but its lock names a file outside the folder."""
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
        "/".join(["d"] * 1500),
        "n" * 300,
        "SHA256SUMS",
        "lock.json.sig/x",
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
        medium = tmp_path / sha256_bytes(text)
        medium.mkdir()
        forge(
            medium / "x.gfv",
            index_with(
                [[s, len(d)] for s, d in objects], views=[[PRESET, sha256_bytes(text), "2" * 64]]
            ),
            b"".join(d for _, d in objects),
        )
        site = site_at(tmp_path / f"site-{medium.name}")
        with pytest.raises(BundleError) as caught:
            receive(site, medium)
        assert caught.value.render().replace("\n", "").isprintable()
        assert caught.value.exit_code == 21
        assert str(medium / "x.gfv") in [fault.where for fault in caught.value.faults]
        assert not site.artifacts_of(PRESET).exists() and not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000 + b"]" * 100_000, b'{"a":1},' * 100_000, b"\xff", b"", b"{}", b"0" * (9 << 20)],
)
def test_invalid_lock_is_rejected(tmp_path: Path, text: bytes) -> None:
    medium = tmp_path / "medium"
    medium.mkdir()
    digest = hashlib.sha256(text).hexdigest()
    forge(
        medium / "x.gfv",
        index_with([[digest, len(text)]], views=[[PRESET, digest, "2" * 64]]),
        text,
    )
    site = site_at(tmp_path / "site")
    with pytest.raises(BundleError):
        receive(site, medium)
    unharmed(site, {digest})


def test_parts_that_do_not_make_up_the_object(tmp_path: Path) -> None:
    """A part was changed with its checksum: only the checksum of the whole object shows it."""
    from gapforge.base.files import sha256_bytes

    medium = tmp_path / "medium"
    medium.mkdir()
    for n, part in enumerate((b"a" * 10, b"b" * 10)):
        forge(
            medium / f"{n}.gfv",
            index_with([[HASH, 20, n * 10, 10, sha256_bytes(part)]], number=n + 1, volumes=2),
            part,
        )
    site = site_at(tmp_path / "site")
    result = receive(site, medium)
    assert len(result.broken) == 2 and all("altered" in why for why in result.broken.values())
    assert not result.complete and hashes(site) == set()
    assert not [p for p in (site.store / "partial").iterdir() if HASH in p.name]


def test_wrong_size_removes_no_object(tmp_path: Path) -> None:
    """The store removes an object of the wrong size; a medium must not decide the size."""
    made = sender(tmp_path)
    carry(made, tmp_path / "good", size=SIZE)
    site = site_at(tmp_path / "site")
    receive(site, tmp_path / "good")
    before = hashes(site)
    for n, sha256 in enumerate(sorted(before)):
        medium = tmp_path / f"medium{n}"
        medium.mkdir()
        forge(medium / "x.gfv", index_with([[sha256, 3]]), b"lie")
        receive(Project(site.root, site.artifacts), medium)
        forge(
            medium / "x.gfv",
            index_with([[sha256, 10**9, 5, 3, hashlib.sha256(b"lie").hexdigest()]]),
            b"lie",
        )
        receive(Project(site.root, site.artifacts), medium)
    lock = json.loads(made.lock().render())
    for entry in lock["entries"]:
        entry["size"] += 1
    text = json.dumps(lock, indent=2, sort_keys=True).encode()
    digest = hashlib.sha256(text).hexdigest()
    forge(
        medium / "x.gfv",
        index_with([[digest, len(text)]], views=[[PRESET, digest, "2" * 64]]),
        text,
    )
    assert not receive(site, medium).complete
    assert hashes(site) == before | {digest} and verify(site.artifacts_of(PRESET)).ok


def test_wrong_size_of_split_object_is_harmless(tmp_path: Path) -> None:
    """A volume with a wrong size has a part behind the end of the object."""
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


def test_large_index_needs_little_memory(tmp_path: Path) -> None:
    medium = tmp_path / "medium"
    medium.mkdir()
    million = b'{"pieces":[' + b",".join(b'["%064d",0]' % n for n in range(1_000_000)) + b"]}\n"
    forge(medium / "1.gfv", None, raw=million)
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
        forge(medium / f"{number}.gfv", None, raw=text)
    code = (
        "import re, sys; from pathlib import Path\n"
        "from gapforge.base.project import Project\n"
        "from gapforge.bundle.check_signatures import SignatureCheck\n"
        "from gapforge.bundle.find_volumes import scan_media\n"
        "folder = Path(sys.argv[1])\n"
        "signatures = SignatureCheck.without_signers(Project(folder, folder / 'artifacts'))\n"
        "try: scan_media([folder], signatures)\n"
        "except Exception as e: print(type(e).__name__, len(e.faults))\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(medium)],
        capture_output=True,
        text=True,
        check=False,
        env=RUN_ENV,
        cwd="/",
    )
    said, peak = done.stdout.splitlines()
    assert said == "BundleError 8" and int(peak) < 200_000, done.stdout + done.stderr


def test_full_disk_is_reported_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=SIZE)
    site = site_at(tmp_path / "site")
    real = os.statvfs(tmp_path)

    class Full:
        f_bavail, f_frsize = 10, real.f_frsize

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    with pytest.raises(StorageError) as caught:
        receive(site, tmp_path / "medium")
    assert {"needed", "free"} <= values_of(caught.value.message).keys()
    assert hashes(site) == set()


@pytest.mark.parametrize("after", [0, 3, 9])
def test_disk_that_fills_up_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=SIZE)
    site = site_at(tmp_path / "site")
    real, calls = os.pwrite, []

    def pwrite(handle: int, data: Any, offset: int) -> int:
        calls.append(1)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(StorageError):
            receive(site, tmp_path / "medium")
    assert hashes(site) < made.objects
    assert receive(site, tmp_path / "medium").complete
    whole(site, made)


def test_read_only_medium_is_enough(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=SIZE)
    before = names(tmp_path / "medium")
    for path in (tmp_path / "medium").iterdir():
        path.chmod(0o444)
    (tmp_path / "medium").chmod(0o555)
    try:
        assert receive(site_at(tmp_path / "site"), tmp_path / "medium").complete
        assert names(tmp_path / "medium") == before
    finally:
        (tmp_path / "medium").chmod(0o755)


def test_damaged_stored_object_is_imported_again(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=SIZE)
    site = site_at(tmp_path / "site")
    receive(site, tmp_path / "medium")
    rotten = site.artifacts_of(PRESET) / "debs/nasm_2.16.01-1_amd64.deb"
    rotten.chmod(0o644)
    data = bytearray(rotten.read_bytes())
    data[9] ^= 2
    rotten.write_bytes(data)
    result = receive(site, tmp_path / "medium")
    assert result.complete and result.imported == 1
    whole(site, made)


def test_pipe_instead_of_lock_is_replaced(tmp_path: Path) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=SIZE)
    site = site_at(tmp_path / "site")
    receive(site, tmp_path / "medium")
    lock = site.artifacts_of(PRESET) / "lock.json"
    lock.unlink()
    os.mkfifo(lock)
    argv = [sys.executable, "-m", "gapforge", "unpack", str(tmp_path / "medium")]
    env = {**RUN_ENV, "GAPFORGE_ROOT": str(site.root)}
    assert (
        subprocess.run(argv, env=env, capture_output=True, timeout=20, check=False).returncode == 0
    )
    whole(site, made)


def test_unlistable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable folder is different from a folder without volumes."""
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=SIZE)
    (tmp_path / "bad").mkdir()
    for name in ("lost+found", "deep"):
        (tmp_path / "medium" / name).mkdir()
    numbers = {"bad": errno.EACCES, "lost+found": errno.EACCES, "deep": errno.EIO}
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if (number := numbers.get(os.path.basename(path), 0)) != 0:
            raise OSError(number, os.strerror(number), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    site = site_at(tmp_path / "site")
    with pytest.raises(BundleError) as caught:
        receive(site, tmp_path / "bad")
    assert_error(caught.value, BundleError, where=[str(tmp_path / "bad")])
    assert "Permission denied" in caught.value.faults[0].problem
    result = receive(site, tmp_path / "medium", tmp_path / "bad")
    assert result.complete and set(result.broken) == {
        tmp_path / "bad",
        tmp_path / "medium" / "deep",
    }


def test_changed_request_is_rejected(tmp_path: Path) -> None:
    request = RepairRequest(bundle="ab" * 12, volumes=(1, 2))
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
    with pytest.raises(BundleError):
        repair(sender(tmp_path), read_request(file), tmp_path / "x", size=SIZE)


def test_ranges_are_merged_and_subtracted() -> None:
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
sender = Sender(Project(root, root / "artifacts"))
carry(sender, Path(sys.argv[3]), Path(sys.argv[4]), size=int(sys.argv[5]))
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
    """Run a script and kill it after some seconds. Return whether it was still running."""
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).resolve().parents[2] / "helpers"), *words],
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
    """Random times within the duration of ``run``, until KILLS runs were killed."""

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
        pytest.fail("no time was within the run")


def test_killed_pack_gives_the_same_files(tmp_path: Path) -> None:
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
                "a finished volume has wrong bytes"
            )
        carry(made, tmp_path / "y1", tmp_path / "y2", size=size)
        assert names(tmp_path / "y1") == want
        shutil.rmtree(tmp_path / "y1")


def test_killed_unpack_gives_the_same_store(tmp_path: Path) -> None:
    chance = random.Random(6)
    made = sender(
        tmp_path, {f"sources/{n}": chance.randbytes(chance.randrange(900_000)) for n in range(20)}
    )
    carry(made, tmp_path / "medium", size=1_500_000)
    trial = site_at(tmp_path / "trial")
    times = Moments(lambda: receive(trial, tmp_path / "medium"), 4)
    want = hashes(trial)
    for n, after in enumerate(times):
        site = site_at(tmp_path / f"site{n}")
        times.hits += killed(
            UNPACK, str(site.root), str(tmp_path / "medium"), str(tmp_path / "medium"), after=after
        )
        partly = hashes(site)  # fails for an object whose bytes are not what its name says
        result = receive(site, tmp_path / "medium")
        assert (
            result.complete
            and hashes(site) == want
            and result.imported <= len(want) - len(partly) + 1
        )
        assert not list((site.store / "partial").iterdir())
        assert verify(site.artifacts_of(PRESET)).ok
        shutil.rmtree(site.root)


def test_scan_assigns_repair_to_its_bundle(tmp_path: Path) -> None:
    made = sender(tmp_path)
    packed = carry(made, tmp_path / "medium", size=SIZE)
    site = site_at(tmp_path / "site")
    volumes(tmp_path / "medium")[1].unlink()
    result = receive(site, tmp_path / "medium")
    assert result.request is not None
    repair(made, result.request, tmp_path / "medium2", size=3000)
    scan = scan_at(site, tmp_path / "medium", tmp_path / "medium2")
    assert scan.bundle == packed.plan.bundle and {
        v.identity.original_bundle for v in scan.volumes
    } == {scan.bundle}
    assert receive(site_at(tmp_path / "new"), tmp_path / "medium", tmp_path / "medium2").complete


def test_lock_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=10**9)
    read = unpacking.locks.read
    for number in range(4):
        tail = b" " * (number + 1)

        def changed(path: Path, tail: bytes = tail, **more: str) -> tuple[object, bytes]:
            lock, data = read(path, **more)
            return lock, data + tail

        monkeypatch.setattr(unpacking.locks, "read", changed)
        site = site_at(tmp_path / f"site {number}")
        with pytest.raises(BundleError) as caught:
            receive(site, tmp_path / "medium")
        assert len(caught.value.faults) == 1, "the volume with the lock"
        assert not site.artifacts_of(PRESET).exists()
