"""Find the packages that own the libraries which ELF files need: `find_libraries.py TREES`.

TREES has one folder for each component with its runtime tree. Each program and library there is at
its final path in this image, too, with the libraries that it was linked to. A library is looked for
as the loader does: in the RPATH or RUNPATH of the file, in LD_LIBRARY_PATH, in the folders of
ld.so.conf and in the system's. One that a component brings needs no package, nor does one of the
GPU driver. The smoke check of the finished image finds what is nowhere.

Prints "PACKAGE VERSION LIBRARY FILE" on each line, separated by tabs, and "-" for a library that no
package owns. Runs in a build stage, with Python 3.8 and without binutils.
"""

from __future__ import annotations

import glob
import os
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

# Equal to the pattern in checklib.py, which runs in the finished image.
DRIVER_LIBRARIES = re.compile(
    r"lib(cuda|nvcuvid|nvidia-encode|nvidia-ml|nvidia-opticalflow|nvoptix|nvidia-ptxjitcompiler)\.so(\.\d+)*"
)
SYSTEM_FOLDERS = (
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
)
# Most files of Python packages; opening each of 50,000 would take longer than the rest.
NEVER_LOADED = (".py", ".pyc", ".pyi", ".h", ".hpp", ".cuh", ".txt", ".json", ".md", ".html")
PT_LOAD, PT_DYNAMIC = 1, 2
DT_NEEDED, DT_STRTAB, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 5, 14, 15, 29
EM_X86_64 = b"\x3e\x00"
LONGEST = 4096  # bytes of a name in the string table, as PATH_MAX


@dataclass
class Elf:
    """A program or library: its final path, its own name, what it needs, and where it looks."""

    path: str
    name: str = ""
    needed: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


def read_elf(file: str, path: str) -> Elf | None:
    """Return the dynamic section of a 64-bit x86 file, None for any other file.

    ``path`` is where the file is in the finished image.
    """
    try:
        with open(file, "rb") as stream:
            head = stream.read(64)
            if len(head) < 64 or head[:5] != b"\x7fELF\x02" or head[18:20] != EM_X86_64:
                return None
            return _dynamic(stream, head, path)
    except (OSError, struct.error, ValueError):
        return None  # it is no file that the loader could read


def _dynamic(stream: BinaryIO, head: bytes, path: str) -> Elf | None:
    offset, size, count = (
        *struct.unpack_from("<Q", head, 32),
        *struct.unpack_from("<HH", head, 54),
    )
    stream.seek(offset)
    table = stream.read(size * count)
    loads, dynamic = [], None
    for start in range(0, size * count, size):
        kind, _flags, at, address, _physical, length = struct.unpack_from("<IIQQQQ", table, start)
        if kind == PT_LOAD:
            loads.append((address, at, length))
        elif kind == PT_DYNAMIC:
            dynamic = (at, length)
    if dynamic is None:
        return None
    stream.seek(dynamic[0])
    data = stream.read(dynamic[1])
    entries = [struct.unpack_from("<qQ", data, at) for at in range(0, len(data) - 15, 16)]
    if (0, 0) in entries:
        entries = entries[: entries.index((0, 0))]
    address = next((value for tag, value in entries if tag == DT_STRTAB), 0)
    strings = next((at + address - a for a, at, size in loads if a <= address < a + size), None)
    if strings is None:
        return None

    def texts(wanted: int) -> list[str]:
        found = []
        for tag, value in entries:
            if tag == wanted:
                stream.seek(strings + value)
                found.append(stream.read(LONGEST).split(b"\0", 1)[0].decode("utf-8", "replace"))
        return found

    places = texts(DT_RUNPATH) or texts(DT_RPATH)
    folders = [part for place in places for part in place.split(":") if part]
    here = os.path.dirname(path)
    return Elf(
        path=path,
        name="".join(texts(DT_SONAME)),
        needed=texts(DT_NEEDED),
        folders=[re.sub(r"\$(ORIGIN|\{ORIGIN\})", lambda _match: here, part) for part in folders],
    )


class Trees:
    """The runtime trees in ``folder``, for the image at ``root``, which is "" outside of tests.

    ``elves`` are their programs and libraries, ``names`` the names by which files need these.
    """

    def __init__(self, folder: str, root: str = "") -> None:
        self.root = root
        self.roots = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
        self.elves: list[Elf] = []
        self.names: set[str] = set()
        for tree in self.roots:
            for here, _folders, files in os.walk(tree):
                for name in (name for name in files if not name.endswith(NEVER_LOADED)):
                    file = os.path.join(here, name)
                    elf = read_elf(file, file[len(tree) :]) if os.path.isfile(file) else None
                    if elf is not None:
                        self.elves.append(elf)
                        self.names.update((name, elf.name))

    def has(self, path: str) -> bool:
        """Return whether a component brings the file or link ``path``."""
        return any(os.path.lexists(f"{tree}{path}") for tree in self.roots)

    def loader_folders(self) -> list[str]:
        """Return the folders that the loader searches for every file, in its order."""
        files: dict[str, str] = {}
        for place in (self.root, *self.roots):
            for file in glob.glob(f"{place}/etc/ld.so.conf.d/*.conf"):
                files[os.path.basename(file)] = file
        found = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        for _name, file in sorted(files.items()):
            found += Path(file).read_text("utf-8", "replace").split("\n")
        folders = (line.partition("#")[0].strip() for line in found)
        return [*(folder for folder in folders if folder.startswith("/")), *SYSTEM_FOLDERS]


class Packages:
    """The packages of the image at ``root``, which is "" outside of tests."""

    def __init__(self, root: str = "") -> None:
        self.root = root
        self.folder = f"{root}/var/lib/dpkg"
        self.versions: dict[str, str] = {}
        with open(f"{self.folder}/status", encoding="utf-8", errors="replace") as status:
            for stanza in status.read().split("\n\n"):
                values = dict(re.findall(r"(?m)^(Package|Status|Version): (.*)$", stanza))
                if values.get("Status", "").endswith(" installed"):
                    self.versions[values["Package"]] = values.get("Version", "")
        # What is at the second path has been moved away from the first by a package.
        self.moved: dict[str, tuple[str, str]] = {}
        self.movers: dict[str, str] = {}
        if os.path.exists(f"{self.folder}/diversions"):
            lines = Path(self.folder, "diversions").read_text("utf-8", "replace").split("\n")
            for at in range(0, len(lines) - 2, 3):
                origin, moved, package = lines[at : at + 3]
                self.moved[moved] = (origin, package)
                self.movers[origin] = package

    def owners(self, paths: set[str]) -> dict[str, str]:
        """Return the package of each of these paths that has one."""
        names = {path: list(self._names(path)) for path in paths}
        wanted = {name for found in names.values() for name in found}
        wanted |= {self.moved[name][0] for name in wanted if name in self.moved}
        listed: dict[str, set[str]] = {}
        for file in glob.glob(f"{self.folder}/info/*.list"):
            package = os.path.basename(file)[: -len(".list")].partition(":")[0]
            for name in wanted.intersection(Path(file).read_text("utf-8", "replace").split("\n")):
                listed.setdefault(name, set()).add(package)
        found = {}
        for path in paths:
            packages = [package for name in names[path] for package in self._of(name, listed)]
            if packages:
                found[path] = packages[0]
        return found

    def _names(self, path: str) -> Iterator[str]:
        """Yield the names by which packages may list ``path``: itself, and what it links to.

        A package may list /lib/x where /lib is a link to /usr/lib, and the other way round.
        """
        real = os.path.realpath(self.root + path)[len(self.root) :]
        for name in dict.fromkeys((path, real)):
            yield name
            yield name[len("/usr") :] if name.startswith("/usr/") else f"/usr{name}"

    def _of(self, name: str, listed: dict[str, set[str]]) -> list[str]:
        """Return the packages whose file is at ``name``, with regard to diversions."""
        if name in self.moved:
            origin, mover = self.moved[name]
            return sorted(listed.get(origin, set()) - {mover})
        packages = listed.get(name, set())
        return sorted(packages & {self.movers[name]} if name in self.movers else packages)


def find(folders: list[str], library: str, trees: Trees) -> str | None:
    """Return the path of a library in this image, "" for one of the trees, None for none."""
    for folder in folders:
        path = os.path.normpath(os.path.join(folder, library))
        if trees.has(path):
            return ""
        if os.path.exists(trees.root + path):
            return path
    return "" if library in trees.names else None


def needs(trees: Trees) -> Iterator[tuple[str, str, str]]:
    """Yield path in this image, library, and the file that needs it."""
    common = trees.loader_folders()
    for elf in trees.elves:
        for library in elf.needed:
            if DRIVER_LIBRARIES.fullmatch(library):
                continue
            path = find([*elf.folders, *common], library, trees)
            if path:
                yield path, library, elf.path


def lines(folder: str, root: str = "") -> list[str]:
    """Return the lines of the list, sorted."""
    found = list(needs(Trees(folder, root)))
    packages = Packages(root)
    owners = packages.owners({path for path, _library, _file in found})
    rows = set()
    for path, library, file in found:
        package = owners.get(path, "-")
        rows.add((package, packages.versions.get(package, "-"), library, file))
    return ["\t".join(row) for row in sorted(rows)]


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lines(sys.argv[1]))
