"""Create the runtime tree of a component from its dev tree: `split_runtime.py DEV RUNTIME CHOICES`.

The runtime tree has the files that programs need at run time, as hard links. What the RECORD of a
Python package lists stays, because the package may read it while running (warp-lang and cupy
compile with their own headers), unless the preset leaves it out. Of everything else, static
libraries go and what is in a folder that only compilers and developers search. RECORD itself never
changes: it is what the check of the finished image compares the files with.

CHOICES is the file of the parameter not-in-runtime, with "PACKAGE PATTERN" on each line. A pattern
is compared with the paths in RECORD; "*" matches "/", too. Runs in a build stage, with Python 3.8.
"""

from __future__ import annotations

import csv
import fnmatch
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# For compilers, for developers or for people, never for the programs of an image.
DEVELOPMENT = re.compile(
    r"(workspace|usr/src|usr/local/(include|src|man|doc))/"
    r"|usr/local/share/(pkgconfig|cmake|man|doc|aclocal|ffmpeg/examples)/"
    r"|usr/local/lib(64|/[^/]+-linux-gnu)?/(pkgconfig|cmake)/|.*\.l?a$"
)


def split(dev: Path, runtime: Path, choices: Path) -> None:
    """Replace ``runtime`` with the files of ``dev`` that programs need."""
    shutil.rmtree(runtime, ignore_errors=True)
    kept, left_out = recorded(dev, patterns(choices))
    for package, paths in sorted(left_out.items()):
        gone = paths - kept  # another package may list the same file
        size = sum(os.lstat(path).st_size for path in gone if os.path.lexists(path))
        sys.stdout.write(f"gapforge: not in runtime: {len(gone)} files of {package}, {size} B\n")
    out = set().union(*left_out.values()) - kept
    runtime.mkdir(parents=True, exist_ok=True)
    for folder, folders, files in os.walk(dev):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for path in (os.path.join(folder, name) for name in files + links):
            name = os.path.relpath(path, dev)
            if path in kept or not (path in out or DEVELOPMENT.match(name)):
                make_folder(os.path.dirname(name), dev, runtime)
                os.link(path, runtime / name, follow_symlinks=False)
        # An empty folder is there for a program that fills it.
        inner = os.path.relpath(folder, dev)
        if not files and not folders and not DEVELOPMENT.match(f"{inner}/"):
            make_folder(inner, dev, runtime)


def make_folder(name: str, dev: Path, runtime: Path) -> None:
    """Create a folder of ``runtime`` with the modes that it and its parents have in ``dev``."""
    if not (runtime / name).is_dir():
        make_folder(os.path.dirname(name), dev, runtime)
        (runtime / name).mkdir()
        shutil.copymode(dev / name, runtime / name)


def patterns(choices: Path) -> dict[str, list[str]]:
    """Return the patterns of files to leave out, by package."""
    found: dict[str, list[str]] = {}
    for line in choices.read_text("utf-8").splitlines() if choices.exists() else ():
        package, _, pattern = line.partition(" ")
        found.setdefault(package, []).append(pattern)
    return found


def recorded(dev: Path, wanted: dict[str, list[str]]) -> tuple[set[str], dict[str, set[str]]]:
    """Return the files that packages list, and those among them to leave out, by package."""
    kept: set[str] = set()
    left_out: dict[str, set[str]] = {package: set() for package in wanted}
    unknown = set(wanted)
    for record in sorted(dev.glob("**/*.dist-info/RECORD")):
        # NAME-VERSION.dist-info; neither contains "-"
        package = re.sub(r"[_.]+", "-", record.parent.name.split("-")[0]).lower()
        unknown.discard(package)
        with record.open(encoding="utf-8", newline="") as file:
            names = [row[0] for row in csv.reader(file) if row]
        for name in names:
            # The paths in RECORD are relative to the parent of the .dist-info folder.
            path = os.path.normpath(record.parent.parent / name)
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted.get(package, ())):
                left_out[package].update((path, *compiled(path)))
            else:
                kept.add(path)
    if unknown:
        absent = ", ".join(sorted(unknown))
        sys.exit(f"gapforge: error: python.not-in-runtime: the preset does not install {absent}")
    return kept, left_out


def compiled(path: str) -> Iterator[str]:
    """Yield the byte code files of a Python module, which no RECORD lists."""
    folder, name = os.path.split(path)
    if name.endswith(".py"):
        yield from map(str, Path(folder, "__pycache__").glob(f"{name[:-3]}.*.pyc"))


if __name__ == "__main__":
    split(*map(Path, sys.argv[1:4]))
