"""Check TensorRT's version and that its Python binding loads."""

from __future__ import annotations

import glob
import os
import re
from functools import partial

from checklib import (
    GPU,
    PARAMS,
    RUNTIME,
    guarded,
    import_in_child,
    matches,
    missing_driver_library,
    report,
    text_param,
)

# The builder times the kernels of a convolution on the GPU, so that it fails without code for it.
# TensorRT 8 and 9 need the flag of explicit batches; 10 ignores it.
KERNEL = """
import numpy
import tensorrt as trt
log = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(log)
explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
network = builder.create_network(0 if explicit is None else 1 << int(explicit))
picture = network.add_input("x", trt.float32, (1, 3, 32, 32))
weights, bias = numpy.ones((8, 3, 3, 3), numpy.float32), numpy.zeros(8, numpy.float32)
layer = network.add_convolution_nd(picture, 8, (3, 3), weights, bias)
network.mark_output(layer.get_output(0))
plan = builder.build_serialized_network(network, builder.create_builder_config())
assert plan is not None, "no engine was built"
assert trt.Runtime(log).deserialize_cuda_engine(plan) is not None, "the engine does not load"
print("an engine of", plan.nbytes, "bytes")
"""

WANTED = text_param("version")
BINDING = PARAMS.get("tensorrt.python", True) not in (False, 0, "0", "0\n", "false")
LIBRARIES = ("/usr/local/tensorrt/lib", "/usr/lib/x86_64-linux-gnu", "/usr/local/lib")
HEADERS = ("/usr/local/tensorrt/include", "/usr/include/x86_64-linux-gnu", "/usr/include")


def dotted(number: int) -> str:
    """Return "8.6.1" for 8601 and "10.3.0" for 100300: version 10 changed the encoding."""
    unit = 10000 if number >= 10000 else 1000
    return f"{number // unit}.{number % unit // 100}.{number % 100}"


def agree(found: str) -> bool:
    """Return whether one version is a prefix of the other."""
    return matches(found, WANTED) or matches(WANTED, found)


def library_file() -> str:
    """Return the path of libnvinfer.so.N, or ""."""
    for folder in LIBRARIES:
        files = [f for f in glob.glob(f"{folder}/libnvinfer.so.*") if re.search(r"\.so\.\d+$", f)]
        if files:
            return sorted(files)[-1]
    return ""


def library() -> tuple[bool, object]:
    """Ask the library for its version."""
    file = library_file()
    if not file:
        return (False, "no libnvinfer.so.N in /usr/local/tensorrt/lib or /usr/lib/x86_64-linux-gnu")
    name = os.path.basename(file)
    code = f"import ctypes; print(ctypes.CDLL({name!r}).getInferLibVersion())"
    ok, output = import_in_child(code)
    if not ok and not GPU and (missing := missing_driver_library(output)):
        return True, f"{name}; needs the GPU driver ({missing}) to answer"
    if not ok:
        return False, output
    found = dotted(int(output.split()[-1]))
    return agree(found), found


def binding() -> tuple[bool, object]:
    """Import the Python binding and compare its version."""
    ok, output = import_in_child("import tensorrt; print(tensorrt.__version__)")
    if not ok and not GPU and (missing := missing_driver_library(output)):
        return True, f"needs the GPU driver ({missing}); not looked at here"
    return ok and agree(output.split()[-1]), output


guarded("library", WANTED, library)
if BINDING:
    guarded("import tensorrt", WANTED, binding)
if GPU and BINDING:
    guarded(
        "engine",
        "one is built, with its kernels timed on the GPU",
        partial(import_in_child, KERNEL),
    )
if not RUNTIME:
    headers = [f for f in HEADERS if os.path.exists(f"{f}/NvInfer.h")]
    found = headers[0] if headers else "none"
    report("headers", bool(headers) or text_param("form") == "deb", found, "NvInfer.h")
