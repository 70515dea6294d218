"""The preset's Python is what python and python3 start, and the system's own is untouched."""


def version_of(program: str) -> str:
    code, output = run(program, "-I", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])")
    return output.strip() if code == 0 else tail(output)


WANTED = text_param("python")
for program in ("python", "python3"):
    found = version_of(program)
    report(f"{program} is", matches(WANTED, found), found, WANTED)


def modules() -> tuple[bool, object]:
    ok, output = import_in_child(
        "import ctypes, hashlib, json, lzma, sqlite3, ssl, zlib; print(ssl.OPENSSL_VERSION)"
    )
    return ok, output


def system_python() -> tuple[bool, object]:
    """apt's Python module belongs to the system's Python; it breaks when /usr/bin/python3 is moved."""
    if not os.path.exists("/usr/lib/python3/dist-packages/apt_pkg.py") and not any(
        name.startswith("apt_pkg.") for name in os.listdir("/usr/lib/python3/dist-packages")
    ):
        return True, "no apt_pkg in the image"
    code, output = run("/usr/bin/python3", "-c", "import apt_pkg")
    return code == 0, "apt_pkg loads" if code == 0 else tail(output)


guarded("standard library", "its compiled modules load", modules)
if os.path.isdir("/usr/lib/python3/dist-packages"):
    guarded("system tools", "still work with /usr/bin/python3", system_python)
