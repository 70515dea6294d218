"""Check that python and python3 are the preset's Python and that the system's own is untouched."""

from __future__ import annotations

import os

from checklib import guarded, import_in_child, matches, report, run, tail, text_param

MODULES = "/usr/lib/python3/dist-packages"


def version_of(program: str) -> str:
    """Return the version of a Python interpreter, or its error."""
    print_version = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
    code, output = run(program, "-I", "-c", print_version)
    return output.strip() if code == 0 else tail(output)


WANTED = text_param("python")
for program in ("python", "python3"):
    found = version_of(program)
    report(f"{program} is", matches(WANTED, found), found, WANTED)


def modules() -> tuple[bool, object]:
    """Load the compiled modules of the standard library."""
    return import_in_child(
        "import ctypes, hashlib, json, lzma, sqlite3, ssl, zlib; print(ssl.OPENSSL_VERSION)"
    )


def system_python() -> tuple[bool, object]:
    """Load apt's Python module, which breaks if /usr/bin/python3 is replaced."""
    if not any(name.startswith("apt_pkg.") for name in os.listdir(MODULES)):
        return True, "no apt_pkg in the image"
    code, output = run("/usr/bin/python3", "-c", "import apt_pkg")
    return code == 0, "apt_pkg loads" if code == 0 else tail(output)


guarded("standard library", "its compiled modules load", modules)
if os.path.isdir(MODULES):
    guarded("system tools", "still work with /usr/bin/python3", system_python)
