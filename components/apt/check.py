"""Packages of the role, the shared libraries of the whole image, and that nothing is left in it that has no business there."""

LIBRARY_ROOTS = (
    "/usr/local",
    "/opt",
    "/usr/lib/python3/dist-packages",
    "/usr/lib/x86_64-linux-gnu",
)
# Only the libraries themselves: a distribution's plug-ins below may be for libraries that are not installed.
NOT_BELOW = ("/usr/lib/x86_64-linux-gnu",)

# Extensions that a package ships for several versions of a library, and tries one after the other.
OPTIONAL = re.compile(
    r"/dist-packages/(torchaudio|torio)/(lib/)?_?(lib)?[^/]*(ffmpeg|sox)[^/]*\.so"
    r"|/dist-packages/torchcodec/lib[^/]*\.so|/dist-packages/numba/np/ufunc/\w*pool[^/]*\.so"
)
# Parts of NVIDIA's own base images: their tools and RDMA plug-ins need libraries that those images never have.
BASE_OWN = re.compile(r"/usr/local/cuda[^/]*/|/opt/nvidia/|/usr/local/nvidia/")


def packages() -> tuple[bool, object]:
    wanted = list_param("packages")
    code, output = run(
        "dpkg-query", "-W", "-f", "${Package}\t${Architecture}\t${Version}\t${db:Status-Status}\n"
    )
    if code != 0:
        return False, tail(output)
    versions = {}
    for line in output.splitlines():
        package, architecture, version, status = line.split("\t")
        if status == "installed":
            versions[package] = versions[f"{package}:{architecture}"] = version
    wrong = []
    for item in wanted:
        name, _, version = item.partition("=")
        provided = versions.get(name)
        if provided is None and not virtual(name):
            wrong.append(f"{name} is not installed")
        elif version and provided != version:
            wrong.append(f"{name} is {provided}, not {version}")
    return not wrong, "; ".join(
        wrong
    ) or f"{len(wanted)} asked for, {len(output.splitlines())} in the image"


def virtual(name: str) -> bool:
    """Whether some installed package provides this name."""
    code, output = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Provides},\n")
    pattern = rf"[ ,]{re.escape(name)}( \([^)]*\))?,"
    return code == 0 and any(
        re.search(pattern, li) for li in output.splitlines() if li.startswith("installed")
    )


def elf_files() -> list[str]:
    """Every program and shared library under the roots, each file once."""
    found = []
    seen = set()
    for root in LIBRARY_ROOTS:
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(
                f for f in folders if root not in NOT_BELOW and f not in ("stubs", "__pycache__")
            )
            for name in files:
                path = os.path.join(folder, name)
                try:
                    status = os.lstat(path)
                    if (
                        not os.path.isfile(path)
                        or os.path.islink(path)
                        or (status.st_dev, status.st_ino) in seen
                    ):
                        continue
                    with open(path, "rb") as file:
                        head = file.read(20)
                except OSError:
                    continue
                # 64-bit x86, program or shared object; an object file (.o) has nothing to resolve.
                if head[:5] == b"\x7fELF\x02" and head[18:20] == b"\x3e\x00" and head[16] in (2, 3):
                    seen.add((status.st_dev, status.st_ino))
                    found.append(path)
    return found


def unresolved(files: list[str]) -> dict[str, set[str]]:
    """What ldd cannot find, by file."""
    result: dict[str, set[str]] = {}
    for start in range(0, len(files), 100):
        batch = files[start : start + 100]
        _, output = run("ldd", *batch)
        current = batch[0]
        for line in output.splitlines():
            if line.endswith(":") and line[:-1] in batch:
                current = line[:-1]
            elif "=> not found" in line:
                result.setdefault(current, set()).add(line.split("=>")[0].strip())
            elif "not found (required by" in line:  # a version of a symbol
                result.setdefault(current, set()).add(line.strip())
    return result


def closure() -> tuple[bool, object]:
    files = elf_files()
    # A Python package loads its libraries before the extensions that need them: what stands in the wheels is found.
    in_wheels = {
        os.path.basename(f) for f in files if "/dist-packages/" in f or "/site-packages/" in f
    }
    broken, driver, excused, loaded = [], set(), set(), set()
    for file, names in sorted(unresolved(files).items()):
        for name in sorted(names):
            if DRIVER_LIBRARIES.fullmatch(name):
                driver.add(name)
            elif OPTIONAL.search(file) or BASE_OWN.match(file):
                excused.add(f"{name} of {os.path.basename(file)}")
            elif name in in_wheels and "/dist-packages/" in file:
                loaded.add(name)
            else:
                broken.append(f"{file} needs {name}")
    if broken:
        return False, "; ".join(broken[:12]) + (
            f" and {len(broken) - 12} more" if len(broken) > 12 else ""
        )
    notes = [f"{len(files)} files"]
    if driver:
        notes.append("from the GPU driver at run time: " + ", ".join(sorted(driver)))
    if loaded:
        notes.append(f"{len(loaded)} loaded by their Python packages, such as {sorted(loaded)[0]}")
    if excused:
        notes.append("optional or the base's own: " + ", ".join(sorted(excused)[:8]))
    return True, "; ".join(notes)


def shutil_which(name: str) -> str:
    """Where a program is on PATH, or ""."""
    for folder in os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":"):
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return ""


def compilers() -> tuple[bool, object]:
    names = (
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
    found = [path for path in map(shutil_which, names) if path]
    found += [
        f"/usr/local/cuda/bin/{n}"
        for n in ("nvcc", "cicc")
        if os.path.exists(f"/usr/local/cuda/bin/{n}")
    ]
    # gcc-12, x86_64-linux-gnu-g++-11 and their like
    for folder in ("/usr/bin", "/usr/local/bin"):
        names_here = os.listdir(folder) if os.path.isdir(folder) else []
        found += [
            f"{folder}/{n}"
            for n in names_here
            if re.fullmatch(r"(x86_64-linux-gnu-)?(gcc|g\+\+|clang)-\d+", n)
        ]
    return not found, ", ".join(found) or "none"


def development_files() -> tuple[bool, object]:
    found = []
    for root in ("/usr", "/opt"):
        for folder, _, files in os.walk(root):
            for name in files:
                # Python reads pyconfig.h itself (sysconfig), so its package has it without the headers.
                if name.endswith((".h", ".hpp", ".cuh", ".a")) and name != "pyconfig.h":
                    found.append(os.path.join(folder, name))
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return not found, ", ".join(found[:5]) + more if found else "none"


def leftovers() -> tuple[bool, object]:
    found = [
        path for path in ("/in", "/out", "/tmp/gapforge", "/run/secrets") if os.path.lexists(path)
    ]
    for folder in ("/var/lib/apt/lists", "/var/cache/apt/archives"):
        for here, _, files in os.walk(folder):
            found += [os.path.join(here, name) for name in files if name != "lock"]
    found += [
        path for path in ("/usr/src/gapforge", "/workspace") if RUNTIME and os.path.exists(path)
    ]
    return not found, ", ".join(found[:5]) or "none"


def user() -> tuple[bool, object]:
    import pwd

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = "?"
    writable = [p for p in ("/usr/local/bin", "/usr/local/lib", "/etc") if os.access(p, os.W_OK)]
    note = f"; may write to {', '.join(writable)}" if writable else ""
    return os.getuid() != 0 and name == "app" and not writable, f"{name} ({os.getuid()}){note}"


guarded("packages", "all of apt.builder or apt.runtime", packages)
guarded("shared libraries", "every one resolves", closure)
guarded("leftovers", "no build folder, secret or package list", leftovers)
if RUNTIME:
    guarded("no compiler", "none", compilers)
    guarded("no headers", "none", development_files)
    guarded("user", "app, not root", user)
