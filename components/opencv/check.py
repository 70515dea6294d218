"""Check that cv2 has the preset's version, uses the image's FFmpeg, and CUDA where asked for."""

from __future__ import annotations

import os
import re
import tempfile
from functools import partial
from importlib import metadata

from checklib import (
    GPU,
    flag_param,
    guarded,
    import_in_child,
    list_param,
    matches,
    missing_driver_library,
    report,
    run,
    text_param,
)

# Counting devices succeeds even where OpenCV has no code for the GPU. Setting three different
# channels needs a kernel of the module core; equal ones would be a plain memory copy.
KERNEL = """
import cv2
mat = cv2.cuda_GpuMat(16, 16, cv2.CV_32FC3)
mat.setTo((1.0, 2.0, 3.0, 0.0))
pixel = [float(value) for value in mat.download()[15][15]]
assert pixel == [1.0, 2.0, 3.0], f"{pixel} instead of [1.0, 2.0, 3.0]"
print("ran on one of", cv2.cuda.getCudaEnabledDeviceCount(), "devices")
"""

WANTED = text_param("version")
MODULES = list_param("modules")
# "cuda" alone is the version of the base image, a parameter of every component.
CUDA = flag_param("opencv.cuda")
FFMPEG = os.path.exists("/usr/local/bin/ffmpeg")
PYTHON = not MODULES or "python3" in MODULES

INFORMATION = ""
LOADS = False
if PYTHON:
    LOADS, INFORMATION = import_in_child(
        "import cv2; print(cv2.__version__, cv2.__file__); print(cv2.getBuildInformation())"
    )


def line(name: str) -> str:
    """Return what OpenCV's build information says about a name."""
    found = re.search(rf"^\s*{re.escape(name)}:[ \t]*(.*)$", INFORMATION, re.MULTILINE)
    return found.group(1).strip() if found else "not mentioned"


def version() -> tuple[bool, object]:
    """Check cv2's version, and that no opencv-python wheel hides it.

    CMake installs cv2 without metadata, so such a package always is another one.
    """
    found, _, file = INFORMATION.split("\n")[0].partition(" ")
    names = [package.metadata["Name"] or "" for package in metadata.distributions()]
    wheels = [name for name in names if re.match(r"opencv[-_](contrib[-_])?python", name)]
    shadow = f"; shadowed by {', '.join(wheels)}" if wheels else ""
    right = matches(WANTED, found) and not wheels and file.startswith("/usr/local/")
    return right, f"{found} at {file}{shadow}"


def libraries() -> tuple[bool, object]:
    """Check the version of the C++ libraries."""
    found = sorted(f for f in os.listdir("/usr/local/lib") if f.startswith("libopencv_core.so."))
    right = any(matches(WANTED, f.partition(".so.")[2]) for f in found)
    return right, ", ".join(found) or "none"


def modules() -> tuple[bool, object]:
    """Compare the modules with the preset's."""
    built = line("To be built").split()
    missing = [m for m in MODULES if m not in built]
    return not missing, f"without {' '.join(missing)}" if missing else " ".join(built)


def round_trip() -> tuple[bool, object]:
    """Write a video through FFmpeg and read it again."""
    with tempfile.TemporaryDirectory() as folder:
        code = f"""
import cv2, numpy as np
file = {folder!r} + "/clip.avi"
out = cv2.VideoWriter(file, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
assert out.isOpened(), "cannot be written"
for i in range(10):
    out.write(np.full((48, 64, 3), 20 * i, np.uint8))
out.release()
video = cv2.VideoCapture(file, cv2.CAP_FFMPEG)
assert video.isOpened(), "cannot be read"
count = 0
while video.read()[0]:
    count += 1
print(count, "pictures through", video.getBackendName())
"""
        ok, output = import_in_child(code)
        return ok and output == "10 pictures through FFMPEG", output


def our_ffmpeg() -> tuple[bool, object]:
    """Check that the video module links the FFmpeg in /usr/local."""
    pattern = re.compile(r"libopencv_(videoio|world)\.so\.[\d.]+")
    found = [f"/usr/local/lib/{f}" for f in os.listdir("/usr/local/lib") if pattern.fullmatch(f)]
    if not found:
        return "videoio" not in MODULES and bool(MODULES), "no videoio"
    linked = run("ldd", found[0])[1]
    used = re.findall(r"lib(?:avcodec|avformat|avutil|swscale)\.so\S* => (\S+)", linked)
    ours = bool(used) and all(u.startswith("/usr/local/lib/") for u in used)
    return ours, ", ".join(used) or "none of FFmpeg's"


def yes(name: str, key: str, expected: str) -> None:
    """Report whether the build information says YES for ``key``."""
    report(name, line(key).startswith("YES"), line(key), expected)


guarded("libraries", f"libopencv_core.so.{WANTED}", libraries)
library = "" if GPU or LOADS else missing_driver_library(INFORMATION)
if PYTHON and library:
    report("import cv2", True, f"needs the GPU driver ({library}); not looked at here", WANTED)
elif PYTHON and not LOADS:
    report("import cv2", False, INFORMATION, WANTED)
elif PYTHON:
    guarded("import cv2", WANTED, version)
    if MODULES:
        guarded("modules", " ".join(MODULES), modules)
    if FFMPEG:
        yes("FFmpeg", "FFMPEG", "YES")
        if not MODULES or "videoio" in MODULES:
            encoders = run("ffmpeg", "-hide_banner", "-encoders")[1]
            if " mjpeg " in encoders and " avi " in run("ffmpeg", "-hide_banner", "-muxers")[1]:
                guarded("video through FFmpeg", "10 pictures through FFMPEG", round_trip)
    if CUDA:
        yes("CUDA", "NVIDIA CUDA", f"YES (ver {text_param('cuda')})")
        found = line("NVIDIA GPU arch").split()
        wanted = [a.replace(".", "") for a in list_param("architectures")]
        built = all(a in found for a in wanted)
        report("GPU architectures", built, " ".join(found), " ".join(wanted))
        if flag_param("dnn"):
            yes("cuDNN", "cuDNN", "YES")
if FFMPEG:
    guarded("links our FFmpeg", "all in /usr/local/lib", our_ffmpeg)
if CUDA and GPU and PYTHON:
    guarded(
        "CUDA on the GPU", "one kernel gives the right result", partial(import_in_child, KERNEL)
    )
