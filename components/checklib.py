"""What every component's check.py imports: reporting, options, running programs.

gapforge sends this module and one check.py to `python3 -I -` in the finished image, which needs no
file for it. Only the standard library of Python 3.8 or newer is used.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

EXPECT: dict[str, Any] = json.loads(os.environ["GAPFORGE_EXPECT"])
PARAMS: dict[str, Any] = EXPECT["params"]
RUNTIME: bool = EXPECT["type"] == "runtime"
GPU: bool = bool(EXPECT.get("gpu"))

# Libraries of the GPU driver. The container runtime mounts them; no image contains them.
DRIVER_LIBRARIES = re.compile(
    r"lib(cuda|nvcuvid|nvidia-encode|nvidia-ml|nvidia-opticalflow|nvoptix|nvidia-ptxjitcompiler)\.so(\.\d+)*"
)

# Which file of the image needs which library of which package; written by the component apt.
LIBRARIES = "/usr/share/gapforge/libraries.tsv"


def report(name: str, ok: bool, found: object, expected: object, details: object = None) -> None:
    """Print one result as a line of JSON. The report of the build keeps ``details``, an object."""
    line: dict[str, object] = {
        "check": name,
        "ok": bool(ok),
        "found": str(found),
        "expected": str(expected),
    }
    if details:
        line["details"] = details
    # ASCII only: the image's locale may not be able to print anything else.
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def guarded(name: str, expected: str, check: Callable[[], tuple[Any, ...]]) -> None:
    """Report the (ok, found), perhaps with details, that ``check`` returns.

    An exception in it is a failed result.
    """
    try:
        ok, found, *details = check()
    except Exception as error:
        ok, found, details = False, f"{type(error).__name__}: {error}", []
    report(name, ok, found, expected, *details)


def text_param(key: str) -> str:
    """Return a text option, "" if the preset does not set it."""
    value = PARAMS.get(key)
    return "" if value is None else str(value).strip()


def flag_param(key: str) -> bool:
    """Return whether a flag option is on."""
    return PARAMS.get(key) in (True, 1, "1", "1\n", "true")


def list_param(key: str) -> list[str]:
    """Return the members of a list option, [] if the preset does not set it."""
    value = PARAMS.get(key) or []
    return [line for line in (value.splitlines() if isinstance(value, str) else value) if line]


def matches(wanted: str, found: str) -> bool:
    """Return whether ``found`` is the wanted version: "5.1" matches 5.1 and 5.1.9, not 5.10."""
    return found == wanted or (found.startswith(wanted) and found[len(wanted)] in ".-+~")


def run(*command: str, timeout: int = 300) -> tuple[int, str]:
    """Run a program. Return its exit code and its output with errors.

    The exit code is 127 for a program that is not found, and 124 for one that takes too long.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not in the image"
    except PermissionError:
        return 126, f"{command[0]} may not be run"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not end within {timeout} s"
    return done.returncode, done.stdout.decode("utf-8", "replace")


def tail(text: str, lines: int = 3) -> str:
    """Return the last lines of a program's output as one line."""
    return " | ".join(text.strip().splitlines()[-lines:])


def import_in_child(code: str, timeout: int = 600) -> tuple[bool, str]:
    """Run Python code in its own process, so that a crash in a library is a failed result.

    Return whether it succeeded, and its output.
    """
    exit_code, output = run(sys.executable, "-I", "-c", code, timeout=timeout)
    if exit_code != 0:
        return False, f"exit code {exit_code}: {tail(output)}"
    return True, output.strip()


def needed_libraries() -> list[list[str]]:
    """Return package, version, library and file for each library that a file of ours needs.

    The package is "-" if none owned the library where it was linked.
    """
    with open(LIBRARIES, encoding="utf-8") as lines:
        return [line.rstrip("\n").split("\t") for line in lines]


def installed_packages(*fields: str) -> list[list[str]]:
    """Return these fields of dpkg for each installed .deb."""
    columns = "\t".join(f"${{{field}}}" for field in ("db:Status-Status", *fields))
    code, output = run("dpkg-query", "-W", "-f", f"{columns}\n")
    if code != 0:
        raise OSError(tail(output))
    rows = (line.split("\t") for line in output.splitlines())
    return [values for status, *values in rows if status == "installed"]


def python_folders() -> list[str]:
    """Return the folders of Python packages that gapforge installs."""
    return [folder for folder in sys.path if folder.startswith("/usr/local/")]


def canonical(name: str) -> str:
    """Return a Python package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def recorded_files(folders: list[str]) -> dict[str, str]:
    """Return the files that Python packages in these folders list in RECORD: path -> package."""
    return {
        os.path.normpath(str(package.locate_file(file))): canonical(package.metadata["Name"] or "")
        for package in metadata.distributions(path=folders)
        for file in package.files or ()
    }


def missing_driver_library(output: str) -> str:
    """Return the GPU driver's library that ``output`` reports as missing, or ""."""
    found = re.search(
        DRIVER_LIBRARIES.pattern + r"[^\n]*(cannot open shared object|No such file)", output
    )
    return found.group(0).split(":")[0] if found else ""
