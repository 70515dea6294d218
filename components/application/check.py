"""Check that the application processes a clip made by the image's FFmpeg.

Without a check command in the preset, only check that the application is there and starts.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile

from checklib import EXPECT, guarded, report, run, tail

NAME: str = EXPECT["application"]["name"]
STARTED: list[str] = EXPECT["application"].get("command") or [NAME]
COMMAND: list[str] = EXPECT["application"].get("check") or []
CLIP = ("-f", "lavfi", "-i", "testsrc=size=320x240:rate=25:duration=2")
ENCODERS = ("mpeg4", "mjpeg", "libx264", "ffv1", "rawvideo")


def program() -> tuple[bool, object]:
    """Check that the command of the image leads to a program.

    It is a link to the program, or a script that runs the words of the preset.
    """
    link = "/usr/local/bin/application"
    if not os.path.lexists(link):
        return False, "no /usr/local/bin/application"
    if not os.path.islink(link):
        found = shutil.which(STARTED[0])
        return found is not None, found or f"no {STARTED[0]}"
    target = os.path.realpath(link)
    return os.access(target, os.X_OK), target


def starts() -> tuple[bool, object]:
    """Check that the program starts. It may answer --help with any exit code of its own."""
    code, output = run("/usr/local/bin/application", "--help", timeout=60)
    if code == 124:
        return True, "runs until it is stopped"
    # The dynamic loader ends a program that misses a library with 127.
    bad = code < 0 or code in (126, 127) or "error while loading shared libraries" in output
    return not bad, f"exit code {code}: {tail(output, 1)[:120]}"


def make_clip(file: str) -> str:
    """Write a clip with the first encoder that works. Return "" or the last error."""
    error = "no ffmpeg in the image"
    for encoder in ENCODERS:
        pixels = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
        code, output = run(
            "ffmpeg", "-y", "-v", "error", *CLIP, "-pix_fmt", pixels, "-c:v", encoder, file
        )
        if code == 0 and os.path.getsize(file) > 0:
            return ""
        error = tail(output)
    return error


def process_clip() -> None:
    """Run the preset's check command and report what it left."""
    folder = tempfile.mkdtemp()
    try:
        files = {
            "{clip}": f"{folder}/clip.mkv",
            "{output}": f"{folder}/output.mkv",
            "{summary}": f"{folder}/summary.json",
        }
        used = {key for key in files for word in COMMAND if key in word}
        if "{clip}" in used:
            error = make_clip(files["{clip}"])
            found = error or f"{os.path.getsize(files['{clip}'])} bytes"
            report("test clip", not error, found, "made by the image's FFmpeg")
            if error:
                return
        words = list(COMMAND)
        for key, file in files.items():
            words = [word.replace(key, file) for word in words]
        code, output = run(*words, timeout=600)
        found = "exit code 0" if code == 0 else f"exit code {code}: {tail(output)}"
        report("check command", code == 0, found, "exit code 0")
        if "{output}" in used:
            video = files["{output}"]
            size = os.path.getsize(video) if os.path.isfile(video) else 0
            report("output", size > 0, f"{size} bytes", "a file that is not empty")
        if "{summary}" in used:
            guarded("summary", "JSON with frames above 0", lambda: summary(files["{summary}"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def summary(file: str) -> tuple[bool, object]:
    """Check that the application's summary counts at least one frame."""
    with open(file, encoding="utf-8") as stream:
        value = json.load(stream)
    frames = value.get("frames")
    whole = isinstance(frames, int) and not isinstance(frames, bool)
    versions = value.get("versions")
    shown = " ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else ""
    return whole and frames > 0, f"frames: {frames}" + (f"; {shown}" if shown else "")


guarded("program", f"/usr/local/bin/application leads to {STARTED[0]}", program)
if COMMAND:
    process_clip()
else:
    guarded("starts", "an answer to --help", starts)
