"""Measure downloads by gapforge (a curl for each file) and by aria2 from a loopback server.

    python tests/bench/downloads.py [--runs 5] [--json]

Each pair runs both in alternating order, with nothing downloaded before. Both verify SHA-256. The
medians are printed.
The figures in docs/decisions/0006-downloads.en.md come from here.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE / "helpers"), str(HERE.parent / "src")]

from gapforge.base.progress import Progress  # noqa: E402 - needs the path above
from gapforge.store.store import Store  # noqa: E402
from gapforge.sync.download import Downloader, Want  # noqa: E402
from gapforge.sync.network import Network  # noqa: E402
from servers import file_server  # noqa: E402

MB = 1_000_000
JOBS = 4
# name: (number of files, bytes of each, behaviour of the server)
SCENES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "plain, 8 files of 32 MB": (8, 32 * MB, {}),
    "plain, 200 files of 0.3 MB": (200, 300_000, {}),
    "4 MB/s for each connection, 8 files of 8 MB": (8, 8 * MB, {"rate": 4 * MB}),
    "4 MB/s for each connection, 1 file of 32 MB": (1, 32 * MB, {"rate": 4 * MB}),
    "cut every 3 MB, 4 files of 16 MB": (4, 16 * MB, {"cut_after": 3 * MB}),
    "no ranges, cut once at 8 MB, 4 files of 16 MB": (
        4,
        16 * MB,
        {"cut_after": 8 * MB, "cuts": 1, "ranges": False},
    ),
}

Files = list[tuple[str, str, str, int]]  # name, address, sha256, size


def serve(pipe: Connection) -> None:
    """Run the server in its own process, so that it does not slow down what is measured."""
    with file_server() as site:
        while True:
            order = pipe.recv()
            if order is None:
                return
            count, size, how = order
            site.paths.clear()
            body = random.Random(size).randbytes(size)
            files = []
            for number in range(count):
                own = number.to_bytes(8, "big") + body[8:]
                files.append(
                    (
                        f"{number}.bin",
                        site.add(f"/{number}.bin", own, **how),
                        hashlib.sha256(own).hexdigest(),
                        size,
                    )
                )
            pipe.send(files)


def ours(files: Files, folder: Path) -> None:
    network = Network(jobs=JOBS, retries=20)
    downloader = Downloader(
        Store(folder / "store"), network, Progress("bench", out=io.StringIO(), quiet=True)
    )
    downloader.fetch([Want(name, (url,), sha256, size) for name, url, sha256, size in files])


def aria2(files: Files, folder: Path) -> None:
    folder.mkdir(parents=True)
    orders = "".join(
        f"{url}\n  out={name}\n  checksum=sha-256={sha256}\n" for name, url, sha256, _ in files
    )
    subprocess.run(
        [
            "aria2c",
            "--no-conf",
            "--quiet",
            "--input-file=-",
            f"--dir={folder}",
            f"--max-concurrent-downloads={JOBS}",
            "--max-connection-per-server=4",
            "--split=4",
            "--min-split-size=1M",
            "--file-allocation=none",
            "--max-tries=50",
            "--retry-wait=0",
            "--always-resume=false",
            "--max-file-not-found=1",
            "--check-integrity=true",
        ],
        input=orders,
        text=True,
        check=True,
    )


def measure(what: Callable[[Files, Path], None], files: Files) -> float:
    """Return the seconds of one run, infinity if it failed."""
    folder = Path(tempfile.mkdtemp(prefix="gapforge-bench-"))
    try:
        start = time.monotonic()
        try:
            what(files, folder / "x")
        except Exception as error:  # noqa: BLE001 - a failure is a result here
            print(f"  {what.__name__} failed: {error}", file=sys.stderr)
            return float("inf")
        return time.monotonic() - start
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="only scenes whose name holds this")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    server.start()
    results: dict[str, dict[str, list[float]]] = {}
    for scene, order in SCENES.items():
        if args.only not in scene:
            continue
        times: dict[str, list[float]] = {"ours": [], "aria2": []}
        for run in range(args.runs):
            for subject in (ours, aria2) if run % 2 == 0 else (aria2, ours):
                here.send(order)  # anew for each: a server that cuts once has to cut both
                times[subject.__name__].append(measure(subject, here.recv()))
        results[scene] = times
        if not args.json:
            text = "  ".join(
                f"{name} {statistics.median(t):6.2f} s ({min(t):.2f} to {max(t):.2f})"
                for name, t in times.items()
            )
            print(f"{scene:50} {text}", flush=True)
    here.send(None)
    if args.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
