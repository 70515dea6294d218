"""The application processes a clip that our FFmpeg makes; without a check command it is there and starts."""

import shutil
import tempfile

NAME: str = EXPECT["application"]["name"]
COMMAND: list[str] = EXPECT["application"].get("check") or []
CLIP = ("-f", "lavfi", "-i", "testsrc=size=320x240:rate=25:duration=2")


def program() -> tuple[bool, object]:
    link = "/usr/local/bin/application"
    if not os.path.lexists(link):
        return False, "no /usr/local/bin/application"
    target = os.path.realpath(link)
    return os.access(target, os.X_OK), target


def starts() -> tuple[bool, object]:
    """A program that lacks a library ends with 127 before its own first line; any answer of its own will do."""
    code, output = run("/usr/local/bin/application", "--help", timeout=60)
    if code == 124:
        return True, "runs until it is stopped"
    bad = code < 0 or code in (126, 127) or "error while loading shared libraries" in output
    return not bad, f"exit code {code}: {tail(output, 1)[:120]}"


def make_clip(file: str) -> str:
    """Write a clip with an encoder that this FFmpeg has; "" or what went wrong."""
    said = "no ffmpeg in the image"
    for encoder in ("mpeg4", "mjpeg", "libx264", "ffv1", "rawvideo"):
        code, output = run(
            "ffmpeg",
            "-y",
            "-v",
            "error",
            *CLIP,
            "-pix_fmt",
            "yuvj420p" if encoder == "mjpeg" else "yuv420p",
            "-c:v",
            encoder,
            file,
        )
        if code == 0 and os.path.getsize(file) > 0:
            return ""
        said = tail(output)
    return said


def process_clip() -> None:
    folder = tempfile.mkdtemp()
    try:
        files = {
            "{clip}": f"{folder}/clip.mkv",
            "{output}": f"{folder}/output.mkv",
            "{summary}": f"{folder}/summary.json",
        }
        used = {key for key in files for word in COMMAND if key in word}
        if "{clip}" in used:
            said = make_clip(files["{clip}"])
            report(
                "test clip",
                not said,
                said or f"{os.path.getsize(files['{clip}'])} bytes",
                "made by the image's FFmpeg",
            )
            if said:
                return
        words = list(COMMAND)
        for key, file in files.items():
            words = [word.replace(key, file) for word in words]
        code, output = run(*words, timeout=600)
        report(
            "check command",
            code == 0,
            "exit code 0" if code == 0 else f"exit code {code}: {tail(output)}",
            "exit code 0",
        )
        if "{output}" in used:
            size = os.path.getsize(files["{output}"]) if os.path.isfile(files["{output}"]) else 0
            report("output", size > 0, f"{size} bytes", "a file that is not empty")
        if "{summary}" in used:
            guarded("summary", "JSON with frames above 0", lambda: summary(files["{summary}"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def summary(file: str) -> tuple[bool, object]:
    with open(file, encoding="utf-8") as stream:
        value = json.load(stream)
    frames = value.get("frames")
    whole = isinstance(frames, int) and not isinstance(frames, bool)
    versions = value.get("versions")
    shown = " ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else ""
    return whole and frames > 0, f"frames: {frames}" + (f"; {shown}" if shown else "")


guarded("program", f"/usr/local/bin/application leads to {NAME}", program)
if COMMAND:
    process_clip()
else:
    guarded("starts", "an answer to --help", starts)
