"""TensorRT: the library answers with the preset's version, and its Python binding loads."""

import glob

WANTED = text_param("version")
BINDING = PARAMS.get("tensorrt.python", True) not in (False, 0, "0", "0\n", "false")


def dotted(number: int) -> str:
    """8601 is 8.6.1 and 100300 is 10.3.0: it counts in other steps since version 10."""
    unit = 10000 if number >= 10000 else 1000
    return f"{number // unit}.{number % unit // 100}.{number % 100}"


def agree(found: str) -> bool:
    return matches(found, WANTED) or matches(WANTED, found)


def library_file() -> str:
    for pattern in ("/usr/local/tensorrt/lib", "/usr/lib/x86_64-linux-gnu", "/usr/local/lib"):
        files = [f for f in glob.glob(f"{pattern}/libnvinfer.so.*") if re.search(r"\.so\.\d+$", f)]
        if files:
            return sorted(files)[-1]
    return ""


def library() -> tuple[bool, object]:
    file = library_file()
    if not file:
        return False, "no libnvinfer.so.N in /usr/local/tensorrt/lib or /usr/lib/x86_64-linux-gnu"
    code = f"import ctypes; print(ctypes.CDLL({os.path.basename(file)!r}).getInferLibVersion())"
    ok, output = import_in_child(code)
    if not ok and not GPU and (name := missing_driver_library(output)):
        return True, f"{os.path.basename(file)}; needs the GPU driver ({name}) to answer"
    if not ok:
        return False, output
    found = dotted(int(output.split()[-1]))
    return agree(found), found


def binding() -> tuple[bool, object]:
    ok, output = import_in_child("import tensorrt; print(tensorrt.__version__)")
    if not ok and not GPU and (name := missing_driver_library(output)):
        return True, f"needs the GPU driver ({name}); not looked at here"
    return ok and agree(output.split()[-1]), output


guarded("library", WANTED, library)
if BINDING:
    guarded("import tensorrt", WANTED, binding)
if GPU:
    guarded(
        "engine builder",
        "can be made on the GPU",
        lambda: import_in_child(
            "import tensorrt as t; b = t.Builder(t.Logger(t.Logger.ERROR)); assert b; print('made')"
        ),
    )
if not RUNTIME:
    headers = [
        f
        for f in ("/usr/local/tensorrt/include", "/usr/include/x86_64-linux-gnu", "/usr/include")
        if os.path.exists(f"{f}/NvInfer.h")
    ]
    report(
        "headers",
        bool(headers) or text_param("form") == "deb",
        headers[0] if headers else "none",
        "NvInfer.h",
    )
