"""Check the packages of the role, all shared libraries, and that no build leftovers remain."""

from __future__ import annotations

import glob
import os
import pwd
import re
import shutil
from collections.abc import Iterable

from checklib import (
    DRIVER_LIBRARIES,
    EXPECT,
    RUNTIME,
    guarded,
    installed_packages,
    list_param,
    needed_libraries,
    python_folders,
    recorded_files,
    run,
)

LIBRARY_ROOTS = (
    "/usr/local",
    "/opt",
    "/usr/lib/python3/dist-packages",
    "/usr/lib/x86_64-linux-gnu",
)
# Subfolders hold a distribution's plug-ins, which may need libraries that are not installed.
NOT_BELOW = ("/usr/lib/x86_64-linux-gnu",)
DEVELOPMENT_ROOTS = ("/usr", "/opt")
# Headers here are for compilers only. Elsewhere, the application may read its own while it runs.
INCLUDE_FOLDERS = ("/usr/include/", "/usr/local/include/")
PACKAGE_LISTS = "/var/lib/dpkg/info/*.list"
PYTHON_FOLDERS = python_folders()

# Extensions that a package ships for several versions of a library and tries one by one.
OPTIONAL = re.compile(
    r"/dist-packages/(torchaudio|torio)/(lib/)?_?(lib)?[^/]*(ffmpeg|sox)[^/]*\.so"
    r"|/dist-packages/torchcodec/lib[^/]*\.so|/dist-packages/numba/np/ufunc/\w*pool[^/]*\.so"
)
# Tools and RDMA plug-ins of NVIDIA's base images need libraries that those images never have.
BASE_OWN = re.compile(r"/usr/local/cuda[^/]*/|/opt/nvidia/|/usr/local/nvidia/")
# A package in a field of dpkg such as "libc6 (>= 2.36), libdb5.3 | libdb5.4".
RELATION = re.compile(r"(?:^|[,|])\s*([a-z0-9][a-z0-9.+-]*)")
DEVELOPMENT = re.compile(r"\.(h|hpp|cuh|a)$")
COMPILERS = (
    "gcc",
    "g++",
    "cc",
    "c++",
    "clang",
    "nvcc",
    "ld",
    "as",
    "make",
    "cmake",
    "ninja",
    "ccache",
)


def packages() -> tuple[bool, object]:
    """Compare the installed packages with those that the preset names."""
    wanted = list_param("packages")
    installed = installed_packages("Package", "Architecture", "Version", "Provides")
    versions: dict[str, str] = {}
    for package, architecture, version, _ in installed:
        versions[package] = versions[f"{package}:{architecture}"] = version
    provided = {name for *_, provides in installed for name in RELATION.findall(provides)}
    wrong = []
    for item in wanted:
        name, _, version = item.partition("=")
        found = versions.get(name)
        if found is None and name not in provided:
            wrong.append(f"{name} is not installed")
        elif version and found != version:
            wrong.append(f"{name} is {found}, not {version}")
    return not wrong, "; ".join(wrong) or f"{len(wanted)} asked for, {len(installed)} in the image"


def unneeded() -> tuple[bool, object]:
    """Check that every package over the base image is named, or needed by a file or a package.

    The .debs of the lock are those that the base image lacks.
    """
    depends: dict[str, list[str]] = {}
    providers: dict[str, set[str]] = {}
    fields = ("Package", "Pre-Depends", "Depends", "Provides")
    for package, before, after, provides in installed_packages(*fields):
        depends[package] = RELATION.findall(f"{before}, {after}")
        for name in (package, *RELATION.findall(provides)):
            providers.setdefault(name, set()).add(package)
    named = [re.split("[:=]", item)[0] for item in list_param("packages")]
    todo = [*named, *(row[0] for row in needed_libraries())]
    wanted: set[str] = set()
    while todo:
        for package in providers.get(todo.pop(), set()) - wanted:
            wanted.add(package)
            todo += depends[package]
    added = depends.keys() & set(EXPECT.get("debs", []))
    left = sorted(added - wanted)
    return not left, ", ".join(left) or f"none of {len(added)} over the base image"


def elf_files() -> list[str]:
    """Return every program and shared library below LIBRARY_ROOTS, hard links once."""
    found = []
    seen = set()
    for root in LIBRARY_ROOTS:
        for folder, folders, files in os.walk(root):
            enter = root not in NOT_BELOW
            folders[:] = sorted(f for f in folders if enter and f not in ("stubs", "__pycache__"))
            for name in files:
                path = os.path.join(folder, name)
                try:
                    status = os.lstat(path)
                    inode = (status.st_dev, status.st_ino)
                    if not os.path.isfile(path) or os.path.islink(path) or inode in seen:
                        continue
                    with open(path, "rb") as file:
                        head = file.read(20)
                except OSError:
                    continue
                # 64-bit x86 programs and shared objects; object files (.o) need no libraries.
                x86_64 = head[:5] == b"\x7fELF\x02" and head[18:20] == b"\x3e\x00"
                if x86_64 and head[16] in (2, 3):
                    seen.add(inode)
                    found.append(path)
    return found


def linked(files: list[str]) -> dict[str, dict[str, bool]]:
    """Return the libraries that each file links to, directly or not, and whether ldd finds them.

    A missing version of a symbol counts as a library that is not found.
    """
    result: dict[str, dict[str, bool]] = {file: {} for file in files}
    for start in range(0, len(files), 100):
        batch = files[start : start + 100]
        _, output = run("ldd", *batch)
        current = batch[0]
        for line in output.splitlines():
            if line.endswith(":") and line[:-1] in batch:
                current = line[:-1]
            elif "not found (required by" in line:  # a version of a symbol
                result[current][line.strip()] = False
            elif "=>" in line:
                result[current][line.split("=>")[0].strip()] = "=> not found" not in line
    return result


def plug_ins(broken: dict[str, set[str]], links: dict[str, dict[str, bool]]) -> set[str]:
    """Return the files of ``broken`` that Python packages can do without.

    A plug-in is a library in a Python package that only other libraries load, with dlopen, and
    which they go without if that fails: nothing but plug-ins links to it, it is no Python module,
    and no Python code of its package names it. If the image has another version of the library that
    is missing, then the versions do not fit, which is never by choice.
    """
    present = set(map(library_name, links))
    found = {
        file
        for file, missing in broken.items()
        if "-packages/" in file
        and ".so" in os.path.basename(file)
        and not any(" " in name or library_name(name) in present for name in missing)
        and not loaded_by_python(file)
    }
    while True:
        users = (names for file, names in links.items() if file not in found)
        used = {library_name(name) for names in users for name in names}
        needed = {file for file in found if library_name(file) in used}
        if not needed:
            return found
        found -= needed


def library_name(path: str) -> str:
    """Return the name of a library without its folder and version: "libmpi.so"."""
    return re.sub(r"\.so.*", ".so", os.path.basename(path))


def loaded_by_python(file: str) -> bool:
    """Return whether a library is a Python module, or named in the code of its package."""
    name = os.path.basename(file)
    with open(file, "rb") as stream:
        if (name.endswith(".so") and not name.startswith("lib")) or b"PyInit_" in stream.read():
            return True
    base, package = re.split(r"(?<=-packages)/", file, maxsplit=1)
    stem = re.sub(r"^lib|\.so.*", "", name).encode()
    for folder, _, names in os.walk(os.path.join(base, package.split("/")[0])):
        for module in names:
            if module.endswith(".py"):
                with open(os.path.join(folder, module), "rb") as stream:
                    if stem in stream.read():
                        return True
    return False


def closure() -> tuple[bool, object]:
    """Check that every shared library resolves, apart from those that are missing by design."""
    files = elf_files()
    # A Python package loads its own libraries before the extensions that need them.
    packaged = [f for f in files if "/dist-packages/" in f or "/site-packages/" in f]
    in_wheels = {os.path.basename(f) for f in packaged}
    links = linked(files)
    broken: dict[str, set[str]] = {}
    excused: dict[str, set[str]] = {}
    driver: set[str] = set()
    loaded: set[str] = set()
    for file, names in links.items():
        for name in (name for name, found in names.items() if not found):
            if DRIVER_LIBRARIES.fullmatch(name):
                driver.add(name)
            elif OPTIONAL.search(file) or BASE_OWN.match(file):
                excused.setdefault(file, set()).add(name)
            elif name in in_wheels and "/dist-packages/" in file:
                loaded.add(name)
            else:
                broken.setdefault(file, set()).add(name)
    for file in plug_ins(broken, links):
        excused[file] = broken.pop(file)
    if broken:
        return False, listing(f"{f} needs {', '.join(sorted(broken[f]))}" for f in sorted(broken))
    notes = [f"{len(files)} files"]
    if driver:
        notes.append("from the GPU driver at run time: " + ", ".join(sorted(driver)))
    if loaded:
        notes.append(f"{len(loaded)} loaded by their Python packages, such as {min(loaded)}")
    if excused:
        lacking = ((os.path.basename(file), sorted(excused[file])) for file in sorted(excused))
        texts = (f"{name} (without {', '.join(missing)})" for name, missing in lacking)
        notes.append("optional or the base's own: " + listing(texts))
    return True, "; ".join(notes)


def listing(texts: Iterable[str]) -> str:
    """Return at most twelve texts as one line, and how many more there are."""
    known = list(texts)
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return "; ".join(known[:12]) + more


def compilers() -> tuple[bool, object]:
    """Check that the image contains no compiler."""
    found = [path for path in map(shutil.which, COMPILERS) if path]
    cuda = (f"/usr/local/cuda/bin/{name}" for name in ("nvcc", "cicc"))
    found += [path for path in cuda if os.path.exists(path)]
    # gcc-12, x86_64-linux-gnu-g++-11, …
    versioned = re.compile(r"(x86_64-linux-gnu-)?(gcc|g\+\+|clang)-\d+")
    for folder in ("/usr/bin", "/usr/local/bin"):
        names = os.listdir(folder) if os.path.isdir(folder) else []
        found += [f"{folder}/{name}" for name in names if versioned.fullmatch(name)]
    # A Python package that brings a tool, as cmake does, is what the preset asks for.
    in_packages = recorded_files(PYTHON_FOLDERS)
    tools = sorted({in_packages[path] for path in found if path in in_packages})
    note = f"none but of the Python packages {', '.join(tools)}" if tools else "none"
    found = [path for path in found if path not in in_packages]
    return not found, ", ".join(found) or note


def development_files() -> tuple[bool, object]:
    """Check that nothing remains of the base and of components that only compilers read.

    What a Python package or a .deb of the preset brings is its own: it may read it while it runs.
    """
    own = set(recorded_files(PYTHON_FOLDERS))
    of_base: set[str] = set()
    for list_file in glob.glob(PACKAGE_LISTS):
        package = os.path.basename(list_file)[: -len(".list")].partition(":")[0]
        with open(list_file, encoding="utf-8", errors="replace") as lines:
            files = {
                os.path.realpath(line.rstrip("\n")) for line in lines if DEVELOPMENT.search(line)
            }
        (own if package in EXPECT.get("debs", []) else of_base).update(files)
    found = []
    for root in DEVELOPMENT_ROOTS:
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.endswith("-packages")]
            for name in names:
                path = os.path.join(folder, name)
                # Python itself reads pyconfig.h (sysconfig); its package has it without headers.
                if name == "pyconfig.h" or not DEVELOPMENT.search(name) or path in own:
                    continue
                if path.startswith(INCLUDE_FOLDERS) or BASE_OWN.match(path) or path in of_base:
                    found.append(path)
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return not found, ", ".join(found[:5]) + more if found else "none"


def leftovers() -> tuple[bool, object]:
    """Check that no build folder, secret or package list remains."""
    places = ("/in", "/out", "/needs", "/trees", "/tmp/gapforge", "/run/secrets")
    found = [path for path in places if os.path.lexists(path)]
    for folder in ("/var/lib/apt/lists", "/var/cache/apt/archives"):
        for here, _, files in os.walk(folder):
            found += [os.path.join(here, name) for name in files if name != "lock"]
    if RUNTIME:
        found += [path for path in ("/usr/src/gapforge", "/workspace") if os.path.exists(path)]
    return not found, ", ".join(found[:5]) or "none"


def user() -> tuple[bool, object]:
    """Check that programs run as the user app, who may not change the system."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = "?"
    system = ("/usr/local/bin", "/usr/local/lib", "/etc")
    writable = [path for path in system if os.access(path, os.W_OK)]
    note = f"; may write to {', '.join(writable)}" if writable else ""
    right = os.getuid() != 0 and name == "app" and not writable
    return right, f"{name} ({os.getuid()}){note}"


guarded("packages", "all of apt.builder or apt.runtime", packages)
guarded("shared libraries", "every one resolves", closure)
guarded("leftovers", "no build folder, secret or package list", leftovers)
if RUNTIME:
    guarded("no package that nothing needs", "none", unneeded)
    guarded("no compiler", "none", compilers)
    guarded("no headers", "none", development_files)
    guarded("user", "app, not root", user)
