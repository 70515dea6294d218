"""cv2 is ours, in the preset's version, with our FFmpeg and with CUDA where it was asked for."""

import tempfile

WANTED = text_param("version")
MODULES = list_param("modules")
# The bare name "cuda" is the version of the base image, for every component.
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
    """What the build information says about a name."""
    found = re.search(rf"^\s*{re.escape(name)}:[ \t]*(.*)$", INFORMATION, re.MULTILINE)
    return found.group(1).strip() if found else "not mentioned"


def version() -> tuple[bool, object]:
    found, _, file = INFORMATION.split("\n")[0].partition(" ")
    # A wheel named opencv-python would stand in the same place: ours was installed by CMake and has no metadata.
    from importlib import metadata

    wheels = [
        d.metadata["Name"]
        for d in metadata.distributions()
        if (d.metadata["Name"] or "").startswith("opencv-")
    ]
    shadow = f"; shadowed by {', '.join(wheels)}" if wheels else ""
    return matches(WANTED, found) and not wheels and file.startswith(
        "/usr/local/"
    ), f"{found} at {file}{shadow}"


def libraries() -> tuple[bool, object]:
    found = sorted(f for f in os.listdir("/usr/local/lib") if f.startswith("libopencv_core.so."))
    return any(matches(WANTED, f.partition(".so.")[2]) for f in found), ", ".join(found) or "none"


def modules() -> tuple[bool, object]:
    built = line("To be built").split()
    missing = [m for m in MODULES if m not in built]
    return not missing, f"without {' '.join(missing)}" if missing else " ".join(built)


def round_trip() -> tuple[bool, object]:
    """Write a video through FFmpeg, and read it again."""
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
    found = [
        f"/usr/local/lib/{f}"
        for f in os.listdir("/usr/local/lib")
        if re.fullmatch(r"libopencv_(videoio|world)\.so\.[\d.]+", f)
    ]
    if not found:
        return "videoio" not in MODULES and bool(MODULES), "no videoio"
    used = re.findall(
        r"lib(?:avcodec|avformat|avutil|swscale)\.so\S* => (\S+)", run("ldd", found[0])[1]
    )
    return bool(used) and all(u.startswith("/usr/local/lib/") for u in used), ", ".join(
        used
    ) or "none of FFmpeg's"


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
        report("FFmpeg", line("FFMPEG").startswith("YES"), line("FFMPEG"), "YES")
        if not MODULES or "videoio" in MODULES:
            encoders = run("ffmpeg", "-hide_banner", "-encoders")[1]
            if " mjpeg " in encoders and " avi " in run("ffmpeg", "-hide_banner", "-muxers")[1]:
                guarded("video through FFmpeg", "10 pictures through FFMPEG", round_trip)
    if CUDA:
        report(
            "CUDA",
            line("NVIDIA CUDA").startswith("YES"),
            line("NVIDIA CUDA"),
            f"YES (ver {text_param('cuda')}…)".replace("…", ""),
        )
        found = line("NVIDIA GPU arch").split()
        wanted = [a.replace(".", "") for a in list_param("architectures")]
        report(
            "GPU architectures", all(a in found for a in wanted), " ".join(found), " ".join(wanted)
        )
        if flag_param("dnn"):
            report("cuDNN", line("cuDNN").startswith("YES"), line("cuDNN"), "YES")
if FFMPEG:
    guarded("links our FFmpeg", "all in /usr/local/lib", our_ffmpeg)
if CUDA and GPU:
    guarded(
        "CUDA on the GPU",
        "at least one device",
        lambda: (lambda r: (r[0] and int(r[1].split()[-1]) > 0, r[1]))(
            import_in_child("import cv2; print(cv2.cuda.getCudaEnabledDeviceCount())")
        ),
    )
