"""Check FFmpeg's version, its configure options, and that it makes a clip."""

from __future__ import annotations

import re
import tempfile

from checklib import EXPECT, GPU, guarded, list_param, matches, report, run, tail, text_param

WANTED = text_param("version")
SOURCE: str = EXPECT.get("versions", {}).get("ffmpeg", "")
OPTIONS = list_param("configure")


def version() -> tuple[bool, object]:
    """Compare the version with the preset's and with the source archive's."""
    code, output = run("ffmpeg", "-hide_banner", "-version")
    match = re.match(r"ffmpeg version n?(\S+)", output)
    if code != 0 or not match:
        return False, tail(output)
    found = match.group(1)
    from_source = not SOURCE or matches(SOURCE, found) or matches(found, SOURCE)
    return matches(WANTED, found) and from_source, found


def options() -> tuple[bool, object]:
    """Compare the configure options with the preset's."""
    code, output = run("ffmpeg", "-hide_banner", "-buildconf")
    if code != 0:
        return False, tail(output)
    # FFmpeg quotes an option only if it contains more than plain characters.
    built = {line.strip().replace("'", "") for line in output.splitlines()}
    missing = [option for option in OPTIONS if option.replace("'", "") not in built]
    return not missing, "without: " + " ".join(missing) if missing else f"{len(OPTIONS)} options"


def tools() -> tuple[bool, object]:
    """Check that ffprobe starts."""
    code, output = run("ffprobe", "-hide_banner", "-version")
    return code == 0, output.splitlines()[0] if code == 0 else tail(output)


def clip() -> tuple[bool, object]:
    """Encode ten frames and count them."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/clip.mkv"
        source = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1")
        code, output = run(
            "ffmpeg", "-v", "error", *source, "-pix_fmt", "yuv420p", "-c:v", "mpeg4", file
        )
        if code != 0:
            return False, tail(output)
        entries = ("-show_entries", "stream=codec_name,nb_read_frames", "-of", "csv=p=0")
        code, output = run(
            "ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", *entries, file
        )
        return code == 0 and output.strip() == "mpeg4,10", output.strip() or "no output"


def nvenc() -> tuple[bool, object]:
    """Encode with NVENC on the GPU."""
    source = ("-f", "lavfi", "-i", "testsrc=size=256x256:rate=10:duration=1")
    code, output = run("ffmpeg", "-v", "error", *source, "-c:v", "h264_nvenc", "-f", "null", "-")
    return code == 0, tail(output) or "encodes"


def listed(what: str) -> str:
    """Return what `ffmpeg -encoders`, `-decoders`, … prints."""
    return run("ffmpeg", "-hide_banner", f"-{what}")[1]


guarded("version", f"{WANTED} ({SOURCE})" if SOURCE and SOURCE != WANTED else WANTED, version)
guarded("configure options", "those of the preset", options)
guarded("ffprobe", "starts", tools)
if " mpeg4 " in listed("encoders") and " lavfi " in listed("devices"):
    guarded("makes a clip", "mpeg4,10", clip)
else:
    report("makes a clip", True, "this FFmpeg is configured without mpeg4 or lavfi; not tried", "")
if "--enable-nvenc" in OPTIONS:
    encodes = " h264_nvenc " in listed("encoders")
    found = "listed" if encodes else "missing"
    report("NVENC", encodes, found, "h264_nvenc among the encoders")
    if GPU:
        guarded("NVENC on the GPU", "encodes", nvenc)
if "--enable-cuvid" in OPTIONS:
    decoders = re.findall(r" (\w+_cuvid) ", listed("decoders"))
    report("CUVID", bool(decoders), " ".join(decoders) or "missing", "decoders named *_cuvid")
if "--enable-nvdec" in OPTIONS:
    methods = listed("hwaccels").split(":")[-1].split()
    found = " ".join(methods) or "none"
    report("NVDEC", "cuda" in methods, found, "cuda among the acceleration methods")
