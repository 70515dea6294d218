"""Check that every wheel of the lock is installed and that PyTorch loads with the right CUDA."""

from __future__ import annotations

import fnmatch
import os
import re
from functools import partial
from importlib import metadata

from checklib import (
    EXPECT,
    GPU,
    RUNTIME,
    canonical,
    guarded,
    import_in_child,
    list_param,
    missing_driver_library,
    python_folders,
    text_param,
)

# torch.cuda.is_available() is true even where torch has no code for the GPU and every kernel fails.
# 1 + 2 + … + 8, doubled; item() waits for the result.
KERNEL = """
import torch
total = int((torch.arange(1, 9, device="cuda") * 2).sum().item())
assert total == 72, f"{total} instead of 72"
print("ran on", torch.cuda.get_device_name(0))
"""

WHEELS: dict[str, str] = EXPECT.get("wheels", {})
# Packages with compiled parts, and the module whose import shows that the parts fit together.
MODULES = {
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "pandas": "pandas",
    "pillow": "PIL.Image",
    "pyyaml": "yaml",
    "scipy": "scipy",
    "torch": "torch",
    "torchaudio": "torchaudio",
    "torchvision": "torchvision",
}


def left_out() -> dict[str, list[str]]:
    """Return the patterns of files that the preset keeps out of a runtime image, by package."""
    found: dict[str, list[str]] = {}
    for line in list_param("not-in-runtime") if RUNTIME else ():
        package, _, pattern = line.partition(" ")
        found.setdefault(package, []).append(pattern)
    return found


LEFT_OUT = left_out()
ABSENT = {name for name, patterns in LEFT_OUT.items() if "*" in patterns}


def same(wanted: str, found: str) -> bool:
    """Compare versions without leading zeros, which packages add or omit: 2024.08 is 2024.8."""

    def parts(version: str) -> list[str]:
        return [p.lstrip("0") or "0" for p in re.split(r"[.+_-]", version.lower())]

    return wanted == found or parts(wanted) == parts(found)


def installed() -> tuple[bool, object]:
    """Compare the installed packages with the lock's wheels."""
    # The first on sys.path wins, as in an import; the system's own packages come last.
    found: dict[str, str] = {}
    for package in metadata.distributions():
        found.setdefault(canonical(package.metadata["Name"] or ""), package.version)
    there = sorted(ABSENT & found.keys())
    wrong = [f"{name} is there, but the preset leaves it out" for name in there]
    wrong += [
        f"{name} is {found.get(canonical(name), 'missing')}, not {version}"
        for name, version in sorted(WHEELS.items())
        if canonical(name) not in ABSENT and not same(version, found.get(canonical(name), ""))
    ]
    note = f"; left out: {', '.join(sorted(ABSENT))}" if ABSENT else ""
    return not wrong, "; ".join(wrong) or f"{len(WHEELS) - len(ABSENT)} packages{note}"


def records() -> tuple[bool, object]:
    """Check that every file that RECORD lists exists, apart from those that the preset leaves out.

    RECORD is as pip wrote it. A package of the lock without one could lack anything.
    """
    wrong: list[str] = []
    skipped: dict[str, int] = {}
    total = 0
    for package in metadata.distributions(path=FOLDERS):
        name = canonical(package.metadata["Name"] or "")
        patterns = LEFT_OUT.get(name, [])
        if package.files is None and name in present:
            wrong.append(f"{name} has no RECORD")
        for file in package.files or ():
            if any(fnmatch.fnmatchcase(str(file), pattern) for pattern in patterns):
                skipped[name] = skipped.get(name, 0) + 1
            elif os.path.exists(str(package.locate_file(file))):
                total += 1
            else:
                wrong.append(str(file))
    if wrong:
        return False, f"missing: {', '.join(wrong[:4])} ({len(wrong)} files)"
    notes = [f"{count} of {name}" for name, count in sorted(skipped.items())]
    return True, f"{total} files" + (f"; left out: {', '.join(notes)}" if notes else "")


def imports(module: str) -> tuple[bool, object]:
    """Import a module in its own process."""
    ok, output = import_in_child(
        f"import {module}; print(getattr({module}, '__version__', 'loads'))"
    )
    if not ok and not GPU and (library := missing_driver_library(output)):
        return True, f"needs the GPU driver ({library}); not looked at here"
    return ok, output


def torch_cuda() -> tuple[bool, object]:
    """Compare the CUDA that PyTorch brings with the preset's, by major version.

    The driver that serves the preset's CUDA then serves PyTorch's too.
    """
    ok, output = import_in_child("import torch; print(torch.version.cuda or 'none')")
    if not ok:
        return False, output
    cuda, wanted = output.split()[-1], text_param("cuda")
    return not wanted or cuda.split(".")[0] == wanted.split(".")[0], f"CUDA {cuda}"


FOLDERS = python_folders()
present = {canonical(name) for name in WHEELS}
guarded("packages", "each in the lock's version", installed)
guarded("RECORD files", "every file is there", records)
for name, module in MODULES.items():
    if name in present - ABSENT:
        guarded(f"import {module}", "loads", partial(imports, module))
if "torch" in present - ABSENT:
    guarded("torch's CUDA", f"CUDA {text_param('cuda') or 'of any version, or none'}", torch_cuda)
    if GPU and text_param("cuda"):
        kernel = partial(import_in_child, KERNEL)
        guarded("torch on the GPU", "one kernel gives the right result", kernel)
