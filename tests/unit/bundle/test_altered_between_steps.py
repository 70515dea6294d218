"""What was checked is what is used: volumes that change, and parts that contradict each other."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles import Sender, carry, hashes, names, receive, scan_at, sender, site_at
from forged_volumes import HASH, forge, index_with
from gapforge.base.errors import BundleError
from gapforge.base.progress import Progress
from gapforge.bundle.unpack import unpack
from gapforge.bundle.volume_format import Damaged, volume_index
from gapforge.bundle.volume_reader import read_volume
from raised_errors import assert_error

BIG = random.Random(5).randbytes(150_000)
SIZE = 60_000


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_volume_exchanged_after_its_admission_is_not_imported(tmp_path: Path) -> None:
    """The volume was compared with the signed index; the other one was not."""
    made = sender(tmp_path)
    carry(made, tmp_path / "medium", size=10**9)
    site = site_at(tmp_path / "site")
    scan = scan_at(site, tmp_path / "medium")
    (volume,) = scan.volumes
    forge(volume.path, index_with([[sha(b"evil"), 4]]), b"evil")
    assert read_volume(volume.path)[1]  # it is valid in itself
    result = unpack(site, scan, Progress("unpack", quiet=True))
    assert not result.complete and list(result.broken) == [volume.path]
    assert hashes(site) == set()


def test_volume_exchanged_while_others_are_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its index is read once more right before its parts."""
    made = sender(tmp_path, {"sources/big.tar": BIG})
    carry(made, tmp_path / "medium", size=SIZE)
    site = site_at(tmp_path / "site")
    scan = scan_at(site, tmp_path / "medium")
    last = scan.volumes[-1].path
    from gapforge.bundle import unpack as module

    real, reads = module.read_volume, []

    def read(path: Path) -> object:
        reads.append(path)
        if path == last and reads.count(last) == 2:
            forge(last, index_with([[sha(b"evil"), 4]]), b"evil")
        return real(path)

    monkeypatch.setattr(module, "read_volume", read)
    result = unpack(site, scan, Progress("unpack", quiet=True))
    assert last in result.broken and sha(b"evil") not in hashes(site)


@pytest.mark.parametrize("sizes", [(100, 90), (90, 100)])
def test_object_with_two_sizes_in_a_volume_is_damage(
    tmp_path: Path, sizes: tuple[int, int]
) -> None:
    one, other = (sha(part) for part in (b"a" * 10, b"b" * 10))
    volume = tmp_path / "x.gfv"
    forge(
        volume,
        index_with([[HASH, sizes[0], 0, 10, one], [HASH, sizes[1], 20, 10, other]]),
        b"a" * 10 + b"b" * 10,
    )
    with pytest.raises(Damaged):
        read_volume(volume)
    forge(
        volume,
        index_with([[HASH, 100, 0, 10, one], [HASH, 100, 20, 10, other]]),
        b"a" * 10 + b"b" * 10,
    )
    assert len(read_volume(volume)[1]) == 2


@pytest.mark.parametrize("sizes", [(20, 30), (30, 20)])
def test_object_with_two_sizes_in_two_volumes_is_not_imported(
    tmp_path: Path, sizes: tuple[int, int]
) -> None:
    """The parts cover twenty bytes, but only a volume that agrees with the object may count."""
    data = b"a" * 10 + b"b" * 10
    medium = tmp_path / "medium"
    medium.mkdir()
    for number, size in enumerate(sizes):
        part = data[number * 10 : number * 10 + 10]
        forge(
            medium / f"{number}.gfv",
            index_with(
                [[sha(data), size, number * 10, 10, sha(part)]], number=number + 1, volumes=2
            ),
            part,
        )
    site = site_at(tmp_path / "site")
    result = receive(site, medium)
    assert not result.complete and hashes(site) <= {sha(data)}


def _with_other_bytes(volume: Path) -> None:
    """Change a part of a split object, and every hash in the volume around it."""
    data = volume.read_bytes()
    found, stored = read_volume(volume)
    payload = bytearray(data[16 : stored[-1].position + stored[-1].part.length])
    checksums = []
    for each in stored:
        start = each.position - 16
        if not each.part.whole:
            payload[start] ^= 1
        checksums.append(sha(bytes(payload[start : start + each.part.length])))
    parts = [each.part for each in stored]
    raw = volume_index(found.identity, parts, checksums)
    forge(volume, None, bytes(payload), raw=raw)
    assert read_volume(volume)[0].identity == found.identity


def _remove_last(made: Sender, medium: Path) -> None:
    sorted(medium.glob("*.gfv"))[-1].unlink()


def _remove_nothing(made: Sender, medium: Path) -> None:
    pass


@pytest.mark.parametrize("also", [_remove_last, _remove_nothing])
def test_kept_volume_with_other_bytes_is_named(
    tmp_path: Path, also: Callable[[Sender, Path], None]
) -> None:
    """A volume of an earlier run is kept, and the index lists it: its bytes must be the object's.

    In itself it is valid. Only the object, read once more, shows that a part is another.
    """
    made, medium = sender(tmp_path, {"sources/big.tar": BIG}), tmp_path / "medium"
    carry(made, medium, size=SIZE)
    first = sorted(medium.glob("*.gfv"))[0]
    good = names(medium)
    _with_other_bytes(first)
    also(made, medium)
    index = next(medium.glob("*.json")).read_bytes()
    with pytest.raises(BundleError) as caught:
        carry(made, medium, size=SIZE)
    assert_error(caught.value, BundleError, path=first)
    assert next(medium.glob("*.json")).read_bytes() == index  # not sealed in
    first.unlink()
    carry(made, medium, size=SIZE)
    assert names(medium) == good
