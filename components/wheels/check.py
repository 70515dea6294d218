"""Check that every wheel of the lock is installed and that PyTorch loads with the right CUDA."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from importlib import metadata

from checklib import EXPECT, GPU, guarded, import_in_child, missing_driver_library, text_param

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


def canonical(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


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
    wrong = [
        f"{name} is {found.get(canonical(name), 'missing')}, not {version}"
        for name, version in sorted(WHEELS.items())
        if not same(version, found.get(canonical(name), ""))
    ]
    return not wrong, "; ".join(wrong) or f"{len(WHEELS)} packages"


def records() -> tuple[bool, object]:
    """Check that every file that RECORD lists exists; pip cannot remove a package otherwise."""
    missing = []
    folders = [folder for folder in sys.path if folder.startswith("/usr/local/")]
    for package in metadata.distributions(path=folders):
        missing += [
            str(f) for f in package.files or () if not os.path.exists(str(package.locate_file(f)))
        ]
    if missing:
        return False, f"missing: {', '.join(missing[:4])} ({len(missing)} files)"
    return True, "all there"


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
    code = "import torch; print(torch.version.cuda or 'none', torch.cuda.is_available())"
    ok, output = import_in_child(code)
    if not ok:
        return False, output
    cuda, available = output.split()[-2:]
    wanted = text_param("cuda")
    right = cuda.split(".")[0] == wanted.split(".")[0] if wanted else True
    usable = f", GPU usable: {available}" if GPU else ""
    return right and (available == "True" or not GPU), f"CUDA {cuda}{usable}"


guarded("packages", "each in the lock's version", installed)
guarded("RECORD files", "every file is there", records)
present = {canonical(name) for name in WHEELS}
for name, module in MODULES.items():
    if name in present:
        guarded(f"import {module}", "loads", partial(imports, module))
if "torch" in WHEELS:
    guarded("torch's CUDA", f"CUDA {text_param('cuda') or 'of any version, or none'}", torch_cuda)
