"""Kill pack and unpack at random moments and run them again: the result is always the same.

GAPFORGE_KILLS sets how often pack and unpack are killed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bundles import PRESET, Sender, carried, hashes, sender, site_at
from gapforge.base.project import Project
from gapforge_process import argv, environment, gapforge, tree
from mounts import mounted

KILLS = int(os.environ.get("GAPFORGE_KILLS", "25"))
SOME_KILLS = 10
VOLUME = "2M"


def contents() -> dict[str, bytes]:
    """Return objects of all sizes: small ones, and some split across volumes."""
    chance = random.Random(2026)
    made = {f"wheels/{n}.whl": chance.randbytes(chance.randrange(1, 60_000)) for n in range(25)}
    made |= {
        f"sources/{n}": chance.randbytes(chance.randrange(500_000, 2_500_000)) for n in range(6)
    }
    return made | {"tensorrt/large": chance.randbytes(6_000_000), "sources/empty": b""}


@dataclass
class Moments:
    """Kill a command at seeded random moments of its work.

    ``hits`` counts the kills during the work, ``missed`` those that came too late. A moment lies
    within ``took`` seconds, which shrinks with each miss.
    """

    chance: random.Random
    took: float
    hits: int = 0
    missed: int = 0
    at: list[float] = field(default_factory=list)

    def strike(self, root: Path, *words: str | Path, working: Callable[[], bool]) -> bool:
        """Start the command and kill its process group a random time after it is ``working``.

        Return whether it was still running.
        """
        assert self.missed < 20 * KILLS, "the moments miss the work"
        child = subprocess.Popen(
            argv(*words),
            env=environment(root),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        while child.poll() is None and not working():
            time.sleep(0.002)
        after = self.chance.uniform(0, self.took)
        try:
            child.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
        if child.wait() == -signal.SIGKILL:
            self.hits += 1
            self.at.append(after)
            return True
        assert child.returncode == 0, "a run that was not killed failed"
        self.missed += 1
        self.took *= 0.9  # faster than the first run
        return False

    def report(self, what: str) -> None:
        at = sorted(self.at)
        print(
            f"{what}: {self.hits} kills during the work, {self.missed} too late; "
            f"{at[0] * 1000:.0f} to {at[-1] * 1000:.0f} ms after its start, "
            f"median {at[len(at) // 2] * 1000:.0f} ms"
        )


def timed(action: Callable[[], object]) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sender:
    return sender(tmp_path_factory.mktemp("kills"), contents())


@pytest.fixture(scope="module")
def calm(made: Sender) -> Path:
    """Return the folder of an undisturbed pack."""
    folder = made.project.root.parent / "calm"
    gapforge(made.project.root, "pack", PRESET, "--volume-size", VOLUME, "--to", folder)
    return folder


def busy(finished: int, *folders: Path) -> Callable[[], bool]:
    """Return a check: pack writes into one of the folders and has finished so many volumes."""

    def working() -> bool:
        there = [name for folder in folders if folder.is_dir() for name in os.listdir(folder)]
        return bool(there) and sum(name.endswith(".gfv") for name in there) >= finished

    return working


def only_right_volumes(want: dict[str, str], *folders: Path) -> dict[str, str]:
    """Return the files with final names. Assert that their bytes are an undisturbed pack's."""
    found: dict[str, str] = {}
    for folder in filter(Path.is_dir, folders):
        for name, sha256 in carried(folder).items():
            if not name.startswith("."):
                assert sha256 == want[name], f"{name}: checksum mismatch"
                found[name] = sha256
    return found


@pytest.mark.timeout(600)
def test_killed_pack_is_completed(
    made: Sender, calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_packing(made, calm, [tmp_path / "stick"], KILLS, capsys)


@pytest.mark.timeout(600)
def test_killed_pack_to_several_sticks_is_completed(
    made: Sender, calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    with ExitStack() as stack:
        sticks = [
            stack.enter_context(
                mounted(
                    tmp_path / name,
                    "mount",
                    "-t",
                    "tmpfs",
                    "-o",
                    "size=7m",
                    "none",
                    tmp_path / name,
                )
            )
            for name in ("a", "b", "c", "d")
        ]
        kill_packing(made, calm, sticks, SOME_KILLS, capsys)
        assert all(list(stick.glob("*.gfv")) for stick in sticks[:3])


def kill_packing(
    made: Sender, calm: Path, folders: list[Path], kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    want, before = carried(calm), tree(made.project.artifacts)
    words = ["pack", PRESET, "--volume-size", VOLUME, "--to", *folders]
    volumes = sum(name.endswith(".gfv") for name in want)
    took = timed(lambda: gapforge(made.project.root, *words))
    moments = Moments(random.Random(50 + kills), took / volumes)
    kept = 0
    while moments.hits < kills:
        finished = moments.hits % volumes  # finished volumes before the kill
        for path in (path for folder in folders for path in folder.iterdir()):
            path.unlink()
        if not moments.strike(made.project.root, *words, working=busy(finished, *folders)):
            continue
        there = only_right_volumes(want, *folders)
        assert sum(name.endswith(".gfv") for name in there) >= finished
        kept += len(there)
        gapforge(made.project.root, *words)
        assert only_right_volumes(want, *folders) == want
        there = [name for folder in folders for name in carried(folder)]
        assert set(there) == set(want)
        assert len(there) == len(set(there)) + 2 * sum(
            any(folder.iterdir()) for folder in folders[1:]
        ), "each volume once"
        assert tree(made.project.artifacts) == before, "the sender's artifacts changed"
    with capsys.disabled():
        moments.report(f"\npack into {len(folders)}")
    assert kept, "every kill came before the first finished volume"


@pytest.mark.timeout(600)
def test_killed_unpack_is_completed(
    made: Sender, calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sticks = [tmp_path / "stick1", tmp_path / "stick2"]
    for n, file in enumerate(sorted(calm.iterdir())):
        sticks[n % 2].mkdir(exist_ok=True)
        shutil.copy(file, sticks[n % 2])
    brought = [carried(stick) for stick in sticks]
    trial = site_at(tmp_path / "trial")
    took = timed(lambda: gapforge(trial.root, "unpack", *sticks))
    moments, late = Moments(random.Random(7), took / 4), Moments(random.Random(8), 0.06)
    want, view = tree(trial.store / "sha256"), tree(trial.artifacts_of(PRESET))
    partly = views = 0
    while (hits := moments.hits + late.hits) < KILLS or partly < KILLS // 4 or views < KILLS // 10:
        assert hits < 4 * KILLS, "the kills miss the import of objects"
        site = site_at(tmp_path / f"site{hits}-{moments.missed + late.missed}")
        # Kill every fifth while the preset is laid out, which takes a small part of the time, and
        # every second of the others when some objects have their names.
        if hits % 5 == 4:
            hit = late.strike(
                site.root, "unpack", *sticks, working=site.artifacts_of(PRESET).exists
            )
        else:
            hit = moments.strike(site.root, "unpack", *sticks, working=named(site, hits % 2))
        if hit:
            here = hashes(site)  # asserts the checksum of every object
            partly += 0 < len(here) < len(want)
            views += site.artifacts_of(PRESET).exists()
            gapforge(site.root, "unpack", *sticks)
            assert tree(site.store / "sha256") == want and tree(site.artifacts_of(PRESET)) == view
            assert litter(site) == []
            if hits % 5 == 0:  # the trees are equal, so a sample is enough
                gapforge(site.root, "verify", PRESET)
        shutil.rmtree(site.root)
    assert [carried(stick) for stick in sticks] == brought, "the sticks changed"
    with capsys.disabled():
        moments.report("\nunpack")
        late.report("unpack, as the preset is laid out")
        print(f"  {partly} of them with some of the objects, {views} with the preset laid out")


def named(site: Project, objects: int) -> Callable[[], bool]:
    """Return a check: unpack has begun and so many objects have their names."""
    return lambda: (
        site.store.is_dir()
        and sum(len(names) for _, _, names in os.walk(site.store / "sha256")) >= objects
    )


def litter(site: Project) -> list[str]:
    """Return the files in the store besides the objects and its lock file."""
    return sorted(
        str(path.relative_to(site.store))
        for path in site.store.rglob("*")
        if path.is_file()
        and path != site.store / "lock"
        and site.store / "sha256" not in path.parents
    )


@pytest.mark.timeout(600)
def test_killed_repair_is_completed(
    made: Sender, calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kill both ends of a repair: packing it, and importing it beside the damaged bundle."""
    broken = tmp_path / "broken"
    shutil.copytree(calm, broken)
    chance = random.Random(3)
    for file in sorted(broken.glob("*.gfv"))[::2]:
        data = bytearray(file.read_bytes())
        for at in (chance.randrange(16, len(data) - 5000) for _ in range(3)):
            data[at] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
    good = site_at(tmp_path / "good")
    gapforge(good.root, "unpack", calm)
    half = site_at(tmp_path / "half")
    gapforge(half.root, "unpack", broken, code=21)
    request = next(half.artifacts.glob("repair-*.json"))
    words = ["pack", "--repair", request, "--volume-size", VOLUME, "--to"]
    took = timed(lambda: gapforge(made.project.root, *words, tmp_path / "mend"))
    want, before = carried(tmp_path / "mend"), tree(made.project.artifacts)
    moments = Moments(random.Random(8), 0.7 * took)
    folder = tmp_path / "stick"
    while moments.hits < SOME_KILLS:
        shutil.rmtree(folder, ignore_errors=True)
        if moments.strike(made.project.root, *words, folder, working=busy(0, folder)):
            only_right_volumes(want, folder)
            gapforge(made.project.root, *words, folder)
            assert carried(folder) == want and tree(made.project.artifacts) == before
    with capsys.disabled():
        moments.report("\npack --repair")
    moments = Moments(random.Random(9), 0.7 * took)
    while moments.hits < SOME_KILLS:
        site = Project(tmp_path / "site", tmp_path / "site/artifacts")
        shutil.rmtree(site.root, ignore_errors=True)
        shutil.copytree(half.root, site.root)
        shutil.rmtree(site.store / "imports")  # the run writes it when it begins
        if moments.strike(
            site.root, "unpack", folder, broken, working=(site.store / "imports").exists
        ):
            hashes(site)
            gapforge(site.root, "unpack", folder, broken)
            assert hashes(site) == hashes(good) and litter(site) == []
            gapforge(site.root, "verify", PRESET)
    with capsys.disabled():
        moments.report("\nunpack of a repair")
