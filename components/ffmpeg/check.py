"""FFmpeg is ours, in the preset's version and with its options, and can make a clip."""

import tempfile

WANTED = text_param("version")
SOURCE = EXPECT.get("versions", {}).get("ffmpeg", "")


def version() -> tuple[bool, object]:
    code, output = run("ffmpeg", "-hide_banner", "-version")
    found = re.match(r"ffmpeg version n?(\S+)", output)
    if code != 0 or not found:
        return False, tail(output)
    ok = matches(WANTED, found.group(1)) and (
        not SOURCE or matches(SOURCE, found.group(1)) or matches(found.group(1), SOURCE)
    )
    return ok, found.group(1)


def options() -> tuple[bool, object]:
    code, output = run("ffmpeg", "-hide_banner", "-buildconf")
    if code != 0:
        return False, tail(output)
    # FFmpeg prints each option in single quotes only where it holds more than plain characters.
    built = {line.strip().replace("'", "") for line in output.splitlines()}
    missing = [option for option in list_param("configure") if option.replace("'", "") not in built]
    return not missing, "without: " + " ".join(
        missing
    ) if missing else f"{len(list_param('configure'))} options"


def tools() -> tuple[bool, object]:
    code, output = run("ffprobe", "-hide_banner", "-version")
    return code == 0, output.splitlines()[0] if code == 0 else tail(output)


def clip() -> tuple[bool, object]:
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/clip.mkv"
        code, output = run(
            "ffmpeg",
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc=size=64x48:rate=10:duration=1",
            "-pix_fmt",
            "yuv420p",
            "-c:v",
            "mpeg4",
            file,
        )
        if code != 0:
            return False, tail(output)
        code, output = run(
            "ffprobe",
            "-v",
            "error",
            "-count_frames",
            "-select_streams",
            "v:0",
            "-show_entries",
            "stream=codec_name,nb_read_frames",
            "-of",
            "csv=p=0",
            file,
        )
        return code == 0 and output.strip() == "mpeg4,10", output.strip() or "no output"


def listed(what: str) -> str:
    return run("ffmpeg", "-hide_banner", f"-{what}")[1]


guarded("version", f"{WANTED} ({SOURCE})" if SOURCE and SOURCE != WANTED else WANTED, version)
guarded("configure options", "those of the preset", options)
guarded("ffprobe", "starts", tools)
if " mpeg4 " in listed("encoders") and " lavfi " in listed("devices"):
    guarded("makes a clip", "mpeg4,10", clip)
else:
    report("makes a clip", True, "this FFmpeg is configured without mpeg4 or lavfi; not tried", "")
if "--enable-nvenc" in list_param("configure"):
    report(
        "NVENC",
        " h264_nvenc " in listed("encoders"),
        "listed" if " h264_nvenc " in listed("encoders") else "missing",
        "h264_nvenc among the encoders",
    )
    if GPU:
        guarded(
            "NVENC on the GPU",
            "encodes",
            lambda: (lambda r: (r[0] == 0, tail(r[1]) or "encodes"))(
                run(
                    "ffmpeg",
                    "-v",
                    "error",
                    "-f",
                    "lavfi",
                    "-i",
                    "testsrc=size=256x256:rate=10:duration=1",
                    "-c:v",
                    "h264_nvenc",
                    "-f",
                    "null",
                    "-",
                )
            ),
        )
if "--enable-cuvid" in list_param("configure"):
    decoders = re.findall(r" (\w+_cuvid) ", listed("decoders"))
    report("CUVID", bool(decoders), " ".join(decoders) or "missing", "decoders named *_cuvid")
if "--enable-nvdec" in list_param("configure"):
    methods = listed("hwaccels").split(":")[-1].split()
    report(
        "NVDEC",
        "cuda" in methods,
        " ".join(methods) or "none",
        "cuda among the acceleration methods",
    )
