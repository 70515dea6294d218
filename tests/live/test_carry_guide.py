"""docs/carry-guide.md, run for real: every command of it, in the order and at the place that it says.

A block is marked ``<!-- run: PLACE [EXIT CODE] -->``. The sender is a copy of the repository with a network, the site an
empty folder whose commands have none, with an engine that has none; sticks are small file systems of their own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gapforge.core import lock as locks
from gapforge.engine import private
from places import copy_repository, site_python
from samples import ROOT

PRESET, SECOND = "debian12-cpu-quickstart", "my-stack"
BLOCK = re.compile(r"^<!-- run: (\w+)(?: (\d+))? -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MEDIA = ("stick1", "stick2", "stick3", "stick4", "mail")
STICK = "320m"  # two volumes of 150 MB and what lies beside them: the third has to go to the second stick
MINUTE = 60


@dataclass(frozen=True)
class Block:
    """Commands of the guide, where they run and how the last of them ends."""

    place: str
    code: int
    text: str


def blocks(path: str) -> list[Block]:
    text = (ROOT / path).read_text(encoding="utf-8")
    found = [Block(m[1], int(m[2] or 0), m[3]) for m in BLOCK.finditer(text)]
    assert len(found) == len(re.findall("^```sh$", text, re.MULTILINE)), "a block does not say where it runs"
    return found


class World:
    """The places of the guide."""

    def __init__(self, root: Path, host: str) -> None:
        self.root, self.media = root, root / "media"
        self.homes = {place: root / f"home-{place}" for place in ("sender", "site", "courier")}
        self.folders = {"sender": root / "sender", "site": root / "site", "courier": root}
        for folder in (*self.homes.values(), *self.folders.values(), *(self.media / name for name in MEDIA)):
            folder.mkdir(parents=True, exist_ok=True)
        (self.homes["sender"] / ".ssh").mkdir(mode=0o700)
        (root / "bin").mkdir()
        (root / "bin" / "python3").symlink_to(site_python())
        self.host = host

    def run(self, block: Block) -> str:
        """Run a block as somebody who pastes it would; what it printed."""
        text = block.text.replace("/media/", f"{self.media}/")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("GAPFORGE_", "DOCKER_", "XDG_", "SSH_"))}
        env.update(HOME=str(self.homes[block.place]), GAPFORGE_LANG="en", LC_ALL="C.UTF-8")
        alone: list[str] = []
        if block.place == "site":
            env.update(PATH=f"{self.root / 'bin'}:{env['PATH']}", DOCKER_HOST=self.host)
            alone = ["unshare", "--net", "--"]
        done = subprocess.run([*alone, "bash", "-euo", "pipefail", "-c", text], cwd=self.folders[block.place], env=env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=25 * MINUTE, check=False)  # fmt: skip
        print(f"[{block.place}]\n{text}{done.stdout[-5000:]}")
        assert done.returncode == block.code, f"exit code {done.returncode} instead of {block.code}"
        assert "Traceback" not in done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def world(offline_engine: private.State, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # Not below /tmp, which may be a memory file system: an engine with overlay mounts lives in here.
    root = Path("/var/tmp") / f"gapforge-carry-{os.getpid()}"
    root.mkdir()
    world = World(root, offline_engine.host)
    mounted = []
    try:
        for name in ("stick1", "stick2"):
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STICK}", "none", str(world.media / name)], check=True)
            mounted.append(world.media / name)
        copy_repository(world.folders["sender"])
        if (ROOT / "artifacts" / ".store").is_dir():  # what was fetched already need not be fetched again
            subprocess.run(["cp", "-al", str(ROOT / "artifacts"), str(world.folders["sender"])], check=True)
        yield world
    finally:
        for folder in mounted:
            subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(root)


def test_both_languages_show_the_same_commands() -> None:
    korean = blocks("docs/carry-guide.md")
    assert korean == blocks("docs/carry-guide.en.md") and {b.place for b in korean} == {"sender", "courier", "site"}


def test_the_guide_s_commands_do_what_it_says(world: World) -> None:
    told = [(block, world.run(_with_fallback(block))) for block in blocks("docs/carry-guide.md")]
    said = {word: out for block, out in told for word in re.findall(r"gapforge (\w+)|receive.pyz (\w+)", block.text) for word in word if word}  # fmt: skip
    assert "ready to travel" in said["rehearse"]

    site, sender = world.folders["site"], world.folders["sender"]
    names = [sorted(p.name for p in (world.media / stick).glob("*.gfv")) for stick in ("stick1", "stick2", "stick3")]
    assert [len(n) for n in names] == [2, 1, 1] and len({n.split("-")[0] for group in names for n in group}) == 2
    damaged = [out for block, out in told if block.code == 21][1]
    assert f"{world.media / 'stick2' / names[1][0]}" in damaged and "it fails" in damaged
    sizes = [(world.media / stick / n).stat().st_size for stick, group in zip(MEDIA[1:3], names[1:], strict=True) for n in group]  # fmt: skip
    assert sizes[1] < sizes[0], "more came than was asked for"

    # What the site lacked of the second preset, and no more.
    lock, old = (locks.load(sender / "presets" / f"{name}.lock.json") for name in (SECOND, PRESET))
    had = {entry.sha256 for entry in old.entries}
    lacking = {entry.sha256: entry.size for entry in lock.entries if entry.sha256 not in had}
    beside = 200_000  # lock, SHA256SUMS and the index
    carried = sum(p.stat().st_size for p in (world.media / "stick4").glob("*.gfv"))
    tool = sum(p.stat().st_size for p in (sender / ".gapforge" / "bundles").glob("tool-*.tar"))
    assert carried <= 1.001 * (sum(lacking.values()) + tool) + beside
    for name in (PRESET, SECOND):
        assert (site / "artifacts" / name / "lock.json").read_bytes() == (sender / "presets" / f"{name}.lock.json").read_bytes()  # fmt: skip
        assert (site / "presets" / f"{name}.json").read_bytes() == (sender / "presets" / f"{name}.json").read_bytes()
    report = json.loads((site / "dist" / PRESET / "runtime" / "report.json").read_text(encoding="utf-8"))
    assert report["passed"] is True and report["image"]


def test_the_site_takes_nothing_that_its_signer_did_not_sign(world: World) -> None:
    world.run(Block("sender", 0, f"./gapforge pack {SECOND} --to /media/unsigned\n"))
    said = world.run(Block("site", 22, "./gapforge unpack /media/unsigned\n"))
    assert "not signed" in said or "unsigned" in said


def test_going_back_must_be_meant(world: World) -> None:
    """The first bundle again, after a later one for the same preset came with another lock."""
    world.run(Block("sender", 0, f"""sed -i 's/tqdm==4.66.5/tqdm==4.66.4/' presets/{PRESET}.json
./deps_sync.sh {PRESET}
./gapforge pack {PRESET} --with-tool --for /media/mail/inventory.txt --sign ~/.ssh/gapforge --to /media/newer
"""))  # fmt: skip
    world.run(Block("site", 0, "./gapforge unpack /media/newer\n"))
    back = "unpack /media/stick1 /media/stick2 /media/stick3"
    assert "--allow-older" in world.run(Block("site", 22, f"./gapforge {back}\n"))
    world.run(Block("site", 0, f"./gapforge {back} --allow-older\n"))


def _with_fallback(block: Block) -> Block:
    """The distribution may have moved on since the practice preset was locked: as ./quickstart does then."""
    text = block.text.replace(
        f"./deps_sync.sh {PRESET}\n", f"./deps_sync.sh {PRESET} || ./deps_sync.sh {PRESET} --update\n"
    )
    return Block(block.place, block.code, text)
