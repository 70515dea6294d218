"""Measure pack and unpack against tar, split, cat and sha256sum, in paired runs on one disk.

    python tests/bench/bundles.py [--size 6] [--runs 3] [--where /var/tmp] [--json]

A preset of --size GB is fabricated: a few files of 0.5 to 2.5 GB, dozens of 10 to 100 MB, and for
each GB 500 files of 1 kB to 2 MB. None of them can be compressed. In each round gapforge and all
other commands run once, in alternating order, each after ``sync`` and with an empty page cache if
this user may empty it. A ratio is the other command / gapforge in the same round.

gapforge guarantees the following, and the baseline "same guarantees" does the same:

    pack    every source matches its lock            sha256sum -c of the sources
            a checksum covers every byte             tar cf - | split; sha256sum of the parts
            a finished volume is on disk             sync of the parts and their list
    unpack  damaged volumes are named                sha256sum -c of the parts
            every object is verified before use      cat parts | tar xf -; sha256sum -c of the files
            imported objects are on disk             sync -f of the folder

"literal" does not verify the sources (pack) and the parts (unpack), like a simple script. "literal,
no sync" does not wait for the disk either, which gapforge always does.
Needs about four times --size on the disk. The figures in docs/bundle-format.md come from here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE / "helpers"), str(HERE.parent / "src")]

from bundles import PRESET, sender, site_at  # noqa: E402 - needs the path above
from fabricated_artifacts import write_lock  # noqa: E402
from gapforge.base.files import sha256_file  # noqa: E402
from gapforge.base.project import Project  # noqa: E402
from gapforge.model import lock as locks  # noqa: E402
from gapforge.model.lock import (  # noqa: E402
    LOCK_FILE,  # noqa: E402
    Entry,
    Lock,
)
from gapforge.store import sha256sums  # noqa: E402

MB, GB = 10**6, 10**9
CACHES = Path("/proc/sys/vm/drop_caches")
OURS = "gapforge"
CHECK = "sha256sum --quiet -c SHA256SUMS"
SPLIT = "tar cf - . | split -b 4GB - {parts}/part. && cd {parts} && sha256sum part.* > SHA256SUMS"
SYNC = "sync part.* SHA256SUMS ."
JOIN = "cat part.* | tar xf - -C {site} && cd {site}"
# The commands by name; {source}, {parts} and {site} are folders.
PACK = {
    "same guarantees": f"cd {{source}} && {CHECK} && {SPLIT} && {SYNC}",
    "literal": f"cd {{source}} && {SPLIT} && {SYNC}",
    "literal, no sync": f"cd {{source}} && {SPLIT}",
}
UNPACK = {
    "same guarantees": f"cd {{parts}} && {CHECK} && {JOIN} && {CHECK} && sync -f .",
    "literal": f"cd {{parts}} && {JOIN} && {CHECK} && sync -f .",
    "literal, no sync": f"cd {{parts}} && {JOIN} && {CHECK}",
}
ENV = {
    "PATH": os.environ["PATH"],
    "HOME": os.environ.get("HOME", "/"),
    "LC_ALL": "C.UTF-8",
    "GAPFORGE_LANG": "en",
}


def sizes(total: int) -> Iterator[int]:
    """Yield file sizes of about ``total``: 55 % in large, 32 % in medium, the rest in small."""
    chance, rest = random.Random(1), 0
    for share, least, most in ((0.55, 500 * MB, 2500 * MB), (0.32, 10 * MB, 100 * MB)):
        rest += int(total * share)
        while rest >= least:
            size = min(rest, chance.randrange(least, most))
            yield size
            rest -= size
    for _ in range(total * 500 // GB):
        yield int(1000 * 2000 ** chance.random())  # as many of 1 to 2 kB as of 1 to 2 MB


def fabricated(folder: Path, total: int) -> Project:
    """Create a project whose preset has files of this many bytes in total."""
    project = sender(folder).project
    lock, target = locks.load(project.lock_file(PRESET)), project.artifacts_of(PRESET)
    shutil.rmtree(target)
    entries = []
    for number, size in enumerate(sizes(total)):
        path, digest, rest = f"sources/{number % 97:02}/{number:05}.bin", hashlib.sha256(), size
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        with open(target / path, "wb") as file:
            while rest:
                data = os.urandom(min(rest, 4 * MB))
                digest.update(data)
                rest -= file.write(data)
        entries.append(
            Entry(
                kind="source", path=path, sha256=digest.hexdigest(), size=size, origin="generated"
            )
        )
    made = Lock(
        preset=lock.preset,
        preset_sha256=lock.preset_sha256,
        images=lock.images,
        entries=tuple(sorted(entries, key=lambda e: e.path)),
    )
    write_lock(project, made)
    files = {entry.path: entry.sha256 for entry in entries} | {
        LOCK_FILE: sha256_file(target / LOCK_FILE)
    }
    (target / sha256sums.NAME).write_bytes(sha256sums.render(files))
    return project


def settle() -> bool:
    """Write all dirty pages and empty the page cache. Return False if this is not permitted."""
    os.sync()
    try:
        CACHES.write_text("3\n")
    except OSError:
        return False
    return True


def run(words: list[str], folder: Path, **extra: str) -> tuple[float, int]:
    """Run a program. Return its seconds and its peak of resident memory in bytes."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            words, cwd=folder, env={**ENV, **extra}, stdout=said, stderr=said
        ) as program:
            peak = 0
            while program.poll() is None:
                peak = max(peak, high_water(program.pid))
                time.sleep(0.01)
        took = time.monotonic() - start
        said.seek(0)
        if program.returncode:
            sys.exit(
                f"{shlex.join(words)} ended with {program.returncode}:\n{said.read().decode()}"
            )
    return took, peak


def high_water(pid: int) -> int:
    """Return VmHWM of one process. ru_maxrss would include the memory of this process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


class Bench:
    """The folders of a benchmark, and the seconds of each round by verb and command."""

    def __init__(self, folder: Path, total: int) -> None:
        self.folder = folder
        self.project = fabricated(folder, total)
        self.medium, self.parts, self.site = folder / "medium", folder / "parts", folder / "site"
        self.seconds: dict[str, dict[str, list[float]]] = {"pack": {}, "unpack": {}}
        self.peaks: dict[str, list[int]] = {"pack": [], "unpack": []}
        self.emptied = True

    @property
    def files(self) -> list[int]:
        lock = locks.load(self.project.lock_file(PRESET))
        return [entry.size for entry in lock.entries]

    def once(self, verb: str, who: str) -> None:
        """Run one command, from the same state of the disk as all others."""
        target = self.site if verb == "unpack" else self.medium if who == OURS else self.parts
        self.put_away(target)
        if verb == "unpack" and who == OURS:
            site_at(target)
        else:
            target.mkdir()
        self.emptied &= settle()
        if who != OURS:
            command = {"pack": PACK, "unpack": UNPACK}[verb][who].format(
                source=self.project.artifacts_of(PRESET), parts=self.parts, site=self.site
            )
            took, _ = run(["bash", "-e", "-o", "pipefail", "-c", command], self.folder)
        else:
            took, peak = run(
                self.ours(verb),
                self.site if verb == "unpack" else self.folder,
                **({"GAPFORGE_ROOT": str(self.project.root)} if verb == "pack" else {}),
            )
            self.peaks[verb].append(peak)
        self.seconds[verb].setdefault(who, []).append(took)

    def ours(self, verb: str) -> list[str]:
        if verb == "pack":
            launcher = str(HERE.parent / "gapforge")
            return [launcher, "pack", PRESET, "--volume-size", "4G", "--to", str(self.medium)]
        return [
            "python3",
            "-I",
            "-S",
            str(self.medium / "gapforge-receive.pyz"),
            "unpack",
            str(self.medium),
        ]

    def round(self, number: int) -> None:
        for verb, theirs in (("pack", PACK), ("unpack", UNPACK)):
            subjects = [OURS, *theirs]
            for who in subjects if number % 2 == 0 else reversed(subjects):
                self.once(verb, who)
        self.put_away(self.site)

    def put_away(self, target: Path) -> None:
        """Truncate the files and rename the folder: ext4 is slower for minutes after removals."""
        if target.exists():
            for path in target.rglob("*"):
                if path.is_file() and path.stat().st_size:
                    path.chmod(0o644)
                    os.truncate(path, 0)
            target.rename(tempfile.mkdtemp(prefix="used-", dir=self.folder))

    def lines(self) -> Iterator[str]:
        files = self.files
        yield (
            f"{len(files)} files, {sum(files) / GB:.2f} GB, largest {max(files) / GB:.2f} GB; "
            + "page cache "
            + ("emptied" if self.emptied else "NOT emptied")
            + " before each run"
        )
        for verb, measured in self.seconds.items():
            yield (
                f"{verb:7} {OURS:18} {spread(measured[OURS], ' s')}   "
                f"peak memory {max(self.peaks[verb]) / MB:.0f} MB"
            )
            for who, ratios in self.ratios(verb).items():
                seconds = spread(measured[who], " s")
                yield f"{verb:7} {who:18} {seconds}   ratio {spread(ratios, 'x')}"
        for verb, commands in (("pack", PACK), ("unpack", UNPACK)):
            for who, command in commands.items():
                yield f"  {verb}, {who}: {command}"

    def ratios(self, verb: str) -> dict[str, list[float]]:
        """Return the ratio to gapforge of each command in each round."""
        measured = self.seconds[verb]
        return {
            who: [theirs / ours for theirs, ours in zip(times, measured[OURS], strict=True)]
            for who, times in measured.items()
            if who != OURS
        }

    def document(self) -> dict[str, Any]:
        return {
            "files": len(self.files),
            "bytes": sum(self.files),
            "page_cache_emptied": self.emptied,
            "seconds": self.seconds,
            "ratios": {verb: self.ratios(verb) for verb in self.seconds},
            "peak_bytes": self.peaks,
            "commands": {"pack": PACK, "unpack": UNPACK},
        }


def spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):6.2f}{unit} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=float, default=6, help="GB of files")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--where", type=Path, default=Path("/var/tmp"), help="a folder on the disk to measure on"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gapforge-bench-", dir=args.where))
    try:
        bench = Bench(folder, int(args.size * GB))
        for number in range(args.runs):
            bench.round(number)
            if not args.json:
                print(f"round {number + 1} of {args.runs} done", file=sys.stderr, flush=True)
        print(json.dumps(bench.document(), indent=2) if args.json else "\n".join(bench.lines()))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
