"""What every check.py stands on. It is read before check.py, in the finished image, by `python3 -I -`.

A check reports each thing that it looked at with ``report``; it never stops at the first that is wrong.
Only the standard library of the image's Python (3.8 or newer) is used.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

EXPECT: dict[str, Any] = json.loads(os.environ["GAPFORGE_EXPECT"])
PARAMS: dict[str, Any] = EXPECT["params"]
RUNTIME: bool = EXPECT["type"] == "runtime"
GPU: bool = bool(EXPECT.get("gpu"))

# Libraries that belong to the GPU's driver. The container runtime mounts them in; no image has them.
DRIVER_LIBRARIES = re.compile(
    r"lib(cuda|nvcuvid|nvidia-encode|nvidia-ml|nvidia-opticalflow|nvoptix|nvidia-ptxjitcompiler)\.so(\.\d+)*"
)


def report(name: str, ok: bool, found: object, expected: object) -> None:
    """Say what was looked at, whether it is right, what was found and what should have been."""
    line = {"check": name, "ok": bool(ok), "found": str(found), "expected": str(expected)}
    # ASCII: the image's locale may not be able to print anything else.
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def guarded(name: str, expected: str, look: Callable[[], tuple[bool, object]]) -> None:
    """Report what ``look`` gives as (ok, found); an exception in it is a failed check, not the end of all."""
    try:
        ok, found = look()
    except Exception as error:  # whatever goes wrong inside the image is the finding
        ok, found = False, f"{type(error).__name__}: {error}"
    report(name, ok, found, expected)


def text_param(key: str) -> str:
    """An option's text; "" when the preset does not give it."""
    value = PARAMS.get(key)
    return "" if value is None else str(value).strip()


def flag_param(key: str) -> bool:
    """Whether an option is on."""
    return PARAMS.get(key) in (True, 1, "1", "1\n", "true")


def list_param(key: str) -> list[str]:
    """An option's members; [] when the preset does not give it."""
    value = PARAMS.get(key) or []
    return [line for line in (value.splitlines() if isinstance(value, str) else value) if line]


def matches(wanted: str, found: str) -> bool:
    """Whether a version is the wanted one: "5.1" matches 5.1 and 5.1.9, not 5.10."""
    return found == wanted or (found.startswith(wanted) and found[len(wanted)] in ".-+~")


def run(*command: str, timeout: int = 300) -> tuple[int, str]:
    """A program's exit code and all that it says; 127 when it is not there."""
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
    """The last lines of a program's words, on one line."""
    return " | ".join(text.strip().splitlines()[-lines:])


def import_in_child(code: str, timeout: int = 600) -> tuple[bool, str]:
    """Run Python code in a process of its own, so that a crash in a library is a finding; (went well, its output)."""
    code_out, output = run(sys.executable, "-I", "-c", code, timeout=timeout)
    return (
        code_out == 0,
        output.strip() if code_out == 0 else f"exit code {code_out}: {tail(output)}",
    )


def missing_driver_library(output: str) -> str:
    """The driver's library whose absence ``output`` complains of, or ""."""
    found = re.search(
        DRIVER_LIBRARIES.pattern + r"[^\n]*(cannot open shared object|No such file)", output
    )
    return found.group(0).split(":")[0] if found else ""
