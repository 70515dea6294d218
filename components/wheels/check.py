"""Every wheel of the lock is installed in its version, and PyTorch loads with the preset's CUDA."""

from importlib import metadata

WHEELS: dict[str, str] = EXPECT.get("wheels", {})


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def same(wanted: str, found: str) -> bool:
    """Compared as versions are written, without the zeros that packages add or leave away ("2024.08" is "2024.8")."""

    def parts(version: str) -> list[str]:
        return [p.lstrip("0") or "0" for p in re.split(r"[.+_-]", version.lower())]

    return wanted == found or parts(wanted) == parts(found)


def installed() -> tuple[bool, object]:
    # The first on sys.path wins, as it does for import; the system's own packages stand behind ours.
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
    """RECORD lists what is there, nothing else; a package that says otherwise cannot be trusted or removed."""
    missing = []
    for package in metadata.distributions(
        path=[p for p in sys.path if p.startswith("/usr/local/")]
    ):
        missing += [
            str(f) for f in package.files or () if not os.path.exists(package.locate_file(f))
        ]
    return (
        not missing,
        f"missing: {', '.join(missing[:4])} ({len(missing)} files)" if missing else "all there",
    )


def imports(module: str) -> tuple[bool, object]:
    ok, output = import_in_child(
        f"import {module}; print(getattr({module}, '__version__', 'loads'))"
    )
    if not ok and not GPU and (library := missing_driver_library(output)):
        return True, f"needs the GPU driver ({library}); not looked at here"
    return ok, output


def torch_cuda() -> tuple[bool, object]:
    code = "import torch; print(torch.version.cuda or 'none', torch.cuda.is_available())"
    ok, output = import_in_child(code)
    if not ok:
        return False, output
    cuda, available = output.split()[-2:]
    # torch brings its own CUDA; it must be the major version of the preset's, whose driver will serve both.
    wanted = text_param("cuda")
    right = cuda.split(".")[0] == wanted.split(".")[0] if wanted else True
    return right and (available == "True" or not GPU), f"CUDA {cuda}" + (
        f", GPU usable: {available}" if GPU else ""
    )


guarded("packages", "each in the lock's version", installed)
guarded("RECORD files", "every file is there", records)
# What an installed package is imported as, for those whose loading shows that compiled parts fit together.
MODULES = {
    "numpy": "numpy",
    "pillow": "PIL.Image",
    "pyyaml": "yaml",
    "torch": "torch",
    "torchvision": "torchvision",
    "torchaudio": "torchaudio",
    "scipy": "scipy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "pandas": "pandas",
}
for package, module in sorted(MODULES.items()):
    if package in {canonical(name) for name in WHEELS}:
        guarded(f"import {module}", "loads", lambda module=module: imports(module))
if "torch" in WHEELS:
    guarded("torch's CUDA", f"CUDA {text_param('cuda') or 'of any version, or none'}", torch_cuda)
