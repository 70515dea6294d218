"""Run every command of docs/carry-guide.md and docs/at-the-site.md in its order and at its place.

A block is marked ``<!-- run: PLACE [EXIT CODE] -->`` or ``<!-- not run: WHY -->``. The sender is a
copy of the repository with a network. A site is an empty folder; its commands and its engine have
no network. The page "at the site" has a second site of its own, which imports the same sticks after
the damaged one was mended. Sticks are small file systems of their own.

The rehearsal builds every stage with the compiler cache of test_airgap.py. The second site's engine
has the layers that were built there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from checkout import copy_repository, site_python
from gapforge.base.files import sha256_file
from gapforge.base.project import Project
from gapforge.engine import private_daemon_state
from gapforge.model import lock as locks
from gapforge.rehearsal.site_folder import site_of
from mounts import unmount
from page_blocks import Block, blocks, run
from private_engine import CompilerCache
from samples import PRESET, ROOT
from transcripts import Transcript

SECOND = "my-stack"
PLACES = ("sender", "courier", "site", "second-site")
MEDIA = ("stick1", "stick2", "stick3", "stick4", "mail")
STICK = "320m"  # fits two volumes of 150 MB, so that the third goes to the second stick
CANARY = {
    "XAIVA_LICENSE_TOKEN": "canary-secret-3c81f09d55",
    "XAIVA_BUILD_TOKEN": "canary-arg-77e2b40ac1",
}
MINUTE = 60
DAMAGED_AT = 1_000_000  # the guide overwrites eight bytes here


class World:
    """The places of the guide."""

    def __init__(self, root: Path, host: str, dockerd: Path) -> None:
        self.root, self.media = root, root / "media"
        self.homes = {place: root / f"home-{place}" for place in PLACES}
        self.folders = {place: root / place for place in PLACES} | {"courier": root}
        for folder in (
            *self.homes.values(),
            *self.folders.values(),
            *(self.media / name for name in MEDIA),
        ):
            folder.mkdir(parents=True, exist_ok=True)
        (self.homes["sender"] / ".ssh").mkdir(mode=0o700)
        (root / "bin").mkdir()
        (root / "bin" / "python3").symlink_to(site_python())
        self.host, self.dockerd = host, dockerd

    def run(self, block: Block, transcript: Transcript | None = None) -> str:
        """Run the commands of a block one after another and return their output."""
        env = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("GAPFORGE_", "DOCKER_", "XDG_", "SSH_"))
        }
        env.update(HOME=str(self.homes[block.place]), GAPFORGE_LANG="en", LC_ALL="C.UTF-8")
        alone: list[str] = []
        if block.place == "sender":
            env.update(GAPFORGE_DOCKERD=str(self.dockerd))
        if block.place in ("site", "second-site"):
            env.update(PATH=f"{self.root / 'bin'}:{env['PATH']}", DOCKER_HOST=self.host)
            alone = ["unshare", "--net", "--"]
        told = ""
        for command in block.commands:
            ran = run(
                command.replace("/media/", f"{self.media}/"),
                cwd=self.folders[block.place],
                env=env,
                inside=alone,
                timeout=25 * MINUTE,
            )
            told += ran.output
            print(f"[{block.place}] {command}\n{ran.output[-5000:]}")
            if transcript:
                transcript.ran(ran)
            code = block.code if command == block.commands[-1] else 0
            assert ran.code == code, f"exit code {ran.code} instead of {code}"
            assert "Traceback" not in ran.output
        return told


class NetworkWatch(threading.Thread):
    """Record the network interfaces of programs in the rehearsal's folder and engine."""

    def __init__(self, place: Path) -> None:
        super().__init__(daemon=True)
        self.place, self.stop = os.fsencode(place), threading.Event()
        self.seen: dict[str, set[str]] = {}

    def run(self) -> None:
        while not self.stop.is_set():
            for process in filter(str.isdigit, os.listdir("/proc")):
                try:
                    words = Path("/proc", process, "cmdline").read_bytes()
                    where = os.fsencode(os.readlink(f"/proc/{process}/cwd"))
                    if self.place not in words and where != self.place:
                        continue
                    lines = Path("/proc", process, "net/dev").read_text().splitlines()[2:]
                except OSError:
                    continue
                what = next(
                    (w for w in ("unpack", "verify", "build.py", "dockerd") if w.encode() in words),
                    "",
                )
                if b"rehearse" not in words and what and not words.startswith(b"unshare"):
                    self.seen.setdefault(what, set()).update(
                        line.split(":")[0].strip() for line in lines
                    )
            time.sleep(0.05)


@pytest.fixture(scope="module")
def world(
    offline_engine_with_layers: private_daemon_state.State,
    compiler_cache: CompilerCache,
    practice_lock: Path,
) -> Iterator[World]:
    # Not below /tmp, which may be a memory file system without overlay mounts.
    root = Path("/var/tmp") / f"gapforge-carry-{os.getpid()}"
    root.mkdir()
    world = World(root, offline_engine_with_layers.host, compiler_cache.dockerd)
    mounted = []
    try:
        for name in ("stick1", "stick2"):
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={STICK}", "none", str(world.media / name)],
                check=True,
            )
            mounted.append(world.media / name)
        copy_repository(world.folders["sender"])
        shutil.copy(practice_lock, world.folders["sender"] / "presets")
        # Hard links, so that the sender need not download the same files again.
        subprocess.run(
            ["cp", "-al", str(ROOT / "artifacts"), str(world.folders["sender"])], check=True
        )
        tokens = world.folders["sender"] / ".env"
        tokens.write_text("".join(f"{key}={value}\n" for key, value in CANARY.items()))
        tokens.chmod(0o600)
        yield world
    finally:
        for folder in mounted:
            unmount(folder)
        shutil.rmtree(root)


def test_commands_of_the_guide_work(world: World) -> None:
    place = site_of(Project(world.folders["sender"], world.folders["sender"] / "artifacts"), PRESET)
    watch = NetworkWatch(place.root)
    watch.start()
    told = []
    for block in blocks("docs/carry-guide.md"):
        if block.place == "courier":
            victim = min((world.media / "stick2").glob("*.gfv"))
            with victim.open("rb") as file:
                file.seek(DAMAGED_AT)
                intact = file.read(len("DAMAGED!"))
        told.append((block, world.run(block)))
    with victim.open("r+b") as file:
        file.seek(DAMAGED_AT)
        file.write(intact)
    watch.stop.set()
    watch.join()
    assert {"build.py", "dockerd"} <= set(watch.seen) and all(
        found == {"lo"} for found in watch.seen.values()
    ), watch.seen
    assert not any(value in out for _, out in told for value in CANARY.values())
    assert (
        not place.root.exists()
        and private_daemon_state.status(place) is None
        and private_daemon_state.strays(place) == []
    )

    site, sender = world.folders["site"], world.folders["sender"]
    names = [
        sorted(p.name for p in (world.media / stick).glob("*.gfv"))
        for stick in ("stick1", "stick2", "stick3")
    ]
    assert [len(n) for n in names] == [2, 1, 1] and len(
        {n.split("-")[0] for group in names for n in group}
    ) == 2
    damaged = [out for block, out in told if block.code == 21][1]
    assert str(world.media / "stick2" / names[1][0]) in damaged
    sizes = [
        (world.media / stick / n).stat().st_size
        for stick, group in zip(MEDIA[1:3], names[1:], strict=True)
        for n in group
    ]
    assert sizes[1] < sizes[0], "the repair is no smaller than the damaged volume"

    # The second bundle holds only the objects that the site did not have.
    lock, old = (locks.load(sender / "presets" / f"{name}.lock.json") for name in (SECOND, PRESET))
    had = {entry.sha256 for entry in old.entries}
    missing = {entry.sha256: entry.size for entry in lock.entries if entry.sha256 not in had}
    beside = 200_000  # lock, SHA256SUMS and the index
    carried = sum(p.stat().st_size for p in (world.media / "stick4").glob("*.gfv"))
    tool = sum(p.stat().st_size for p in (sender / ".gapforge" / "bundles").glob("tool-*.tar"))
    assert carried <= 1.001 * (sum(missing.values()) + tool) + beside
    for name in (PRESET, SECOND):
        assert (site / "artifacts" / name / "lock.json").read_bytes() == (
            sender / "presets" / f"{name}.lock.json"
        ).read_bytes()
        assert (site / "presets" / f"{name}.json").read_bytes() == (
            sender / "presets" / f"{name}.json"
        ).read_bytes()


def test_commands_of_the_site_page_work(world: World) -> None:
    site = world.folders["second-site"]
    places = {f"{site}": "~/gapforge", f"{world.homes['second-site']}": "~", f"{world.root}/": "/"}
    transcript = Transcript(ROOT / "dist" / "transcripts" / "at-the-site.en.txt", places)
    told = [
        world.run(replace(block, place="second-site"), transcript)
        for block in blocks("docs/at-the-site.en.md")
        if block.place
    ]
    report = json.loads((site / "handover" / "report.json").read_text(encoding="utf-8"))
    assert report["passed"] is True and report["image"]
    assert told[-1].splitlines()[-1] in report["image_ids"]
    assert {"in.mkv", "out.mkv", "summary.json"} == {p.name for p in (site / "data").iterdir()}
    assert [p.name for p in (site / "handover").glob("import-*.txt")]


def test_rehearsal_record_matches_the_sticks(world: World) -> None:
    """Compare the record with the sticks as they are now. One was damaged and repaired since."""
    root = world.folders["sender"]
    record = json.loads((root / "dist" / PRESET / "rehearsal.json").read_text())
    page, log = (
        (root / "dist" / PRESET / f"rehearsal.{kind}").read_text() for kind in ("txt", "log")
    )
    assert record["ready"] is True and record["failure"] is None and record["warnings"] == []
    assert PRESET in page.splitlines()[0] and not page.startswith("NOT ")
    assert record["lock_sha256"] == sha256_file(
        world.folders["site"] / "artifacts" / PRESET / "lock.json"
    )
    assert record["practice"] is True and record["gapforge"] and record["preset_sha256"]
    fingerprint = subprocess.run(
        ["ssh-keygen", "-lf", str(world.homes["sender"] / ".ssh/gapforge.pub")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[1]
    assert (
        record["signatures"] == {"signed_by": [fingerprint], "trusted_here": False}
        and fingerprint in page
    )

    bundle, stick = record["bundle"], world.media / "stick1"
    index = next(stick.glob("*.json"))
    assert bundle["index"] == {"file": f"{bundle['id']}.json", "sha256": sha256_file(index)}
    receiver = sha256_file(stick / "gapforge-receive.pyz")
    assert bundle["receiver"] == {
        "file": "gapforge-receive.pyz",
        "sha256": receiver,
        "of_this_gapforge": True,
    }
    files = sorted(
        path for folder in ("stick1", "stick2") for path in (world.media / folder).glob("*.gfv")
    )
    told = {
        volume["file"]: (volume["size"], volume["index_sha256"]) for volume in bundle["volumes"]
    }
    assert (
        told == {path.name: (path.stat().st_size, index_hash(path)) for path in files}
        and len(told) == 3
    )
    assert bundle["missing"] == [] and bundle["broken"] == {}

    (image,) = record["images"]
    assert image["type"] == "runtime" and image["image"] == f"gapforge/{PRESET}:runtime"
    assert image["checks_passed"] == image["checks"] > 20 and image["size_bytes"] > 50_000_000
    assert image["image_ids"] and all(
        re.fullmatch("sha256:[0-9a-f]{64}", one) for one in image["image_ids"]
    )
    assert image["application"]["folder"] == "examples/xaiva-media"
    assert record["engine"]["offline"] is True and record["children_without_network"] is True
    assert set(record["seconds"]) == {
        *["start", "bundle", "place", "signatures", "unpack", "verify", "engine"],
        "build runtime",
    }
    assert "gapforge-receive.pyz unpack" in log and "build.py" in log
    assert not any(
        value in text for text in (log, page, json.dumps(record)) for value in CANARY.values()
    )
    assert (root / ".env").read_text().count("canary") == 2


def index_hash(volume: Path) -> str:
    """Return the SHA-256 of a volume's index, read as docs/bundle-format.md describes."""
    data = volume.read_bytes()
    _, _, _, offset, length, _ = struct.unpack(">8sIIQQ32s", data[-64:])
    return hashlib.sha256(data[offset : offset + length]).hexdigest()


def test_site_refuses_an_unsigned_bundle(world: World) -> None:
    world.run(
        Block(place="sender", code=0, text=f"./gapforge pack {SECOND} --to /media/unsigned\n")
    )
    said = world.run(Block(place="site", code=22, text="./gapforge unpack /media/unsigned\n"))
    assert str(world.media / "unsigned") in said
