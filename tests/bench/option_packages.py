"""Build FFmpeg with twenty and OpenCV with ten further options, and no APT package in the preset.

    python tests/bench/option_packages.py [--where FOLDER] [--type dev] [ffmpeg] [opencv]

The options are those of tests/unit/model/test_build_packages.py, which tests for each of them
which packages follow from it. Here each group is built once: in a clone of this project, for Debian
12, with packages from the default mirror of mmdebstrap and an engine of its own. One line for each
group is printed: seconds of check, sync and build. With --type runtime, the group ffmpeg also names
the run-time packages that were derived, and every encoder of the options must be in the image's
ffmpeg. Needs root, a network and about 20 minutes on two idle processors.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/helpers"), str(ROOT / "tests/unit/model"), str(ROOT / "src")]

from test_build_packages import FFMPEG_OPTIONS, OPENCV_OPTIONS  # noqa: E402

import samples  # noqa: E402 - needs the path above

# With --disable-everything, FFmpeg does not use a library unless one of these asks for it.
USERS = [
    "--enable-network",
    "--enable-protocol=libsrt,tls,tcp,udp",
    "--enable-decoder=libdav1d,libspeex",
    "--enable-encoder=libx264,libx265,libxvid,libvpx_vp9,libaom_av1,libsvtav1,libmp3lame",
    "--enable-encoder=libopus,libvorbis,libspeex,libwebp,libopenjpeg",
    "--enable-filter=vidstabdetect,vidstabtransform,ass,drawtext,zscale",
]
# Prints the derived packages, and fails if the ffmpeg of the image lacks an encoder of an option.
LOOK = """set -euo pipefail
cut -f 1 /usr/share/gapforge/libraries.tsv | sort -u | paste -sd ' '
encoders=$(ffmpeg -hide_banner -encoders)
for name in libx264 libx265 libxvid libvpx-vp9 libaom-av1 libsvtav1 libmp3lame libopus libvorbis \\
        libspeex libwebp libopenjpeg; do
    grep -q " $name " <<< "$encoders" || { echo "no encoder $name"; exit 1; }
done
ffmpeg -v error -f lavfi -i testsrc=duration=1 -c:v libx265 -x265-params log-level=error /tmp/x.mkv
ffprobe -v error -show_entries stream=codec_name -of csv=p=0 /tmp/x.mkv
"""
PROGRAM = """all:
\tprintf 'int main(void) { return 0; }' | $(CC) -x c -o program -
install: all
\tinstall -D program $(DESTDIR)$(PREFIX)/bin/program
"""
# Which libraries are used does not depend on the optimisation.
FAST = ["-DCMAKE_C_FLAGS_RELEASE=-O0", "-DCMAKE_CXX_FLAGS_RELEASE=-O0"]
OPENCV_MODULES = ["core", "imgproc", "imgcodecs", "videoio", "highgui"]


def preset(group: str) -> dict[str, Any]:
    """Return the quickstart preset with one component and an application that needs none."""
    raw = samples.raw_preset(name=f"options-{group}")
    raw["apt"] = {"runtime": [p for p in raw["apt"]["runtime"] if group not in p]}
    raw["python"].pop("packages", None)
    raw["application"] = {"name": "program", "source": "examples/program", "build": "make"}
    if group == "ffmpeg":
        added = ["--enable-gpl", "--enable-version3", *FFMPEG_OPTIONS, *USERS]
        raw["ffmpeg"]["configure"] += added
        raw["opencv"] = None
        del raw["sources"]["opencv"]
    else:
        raw["opencv"]["cmake"] += [*OPENCV_OPTIONS, *FAST]
        raw["opencv"]["modules"] = OPENCV_MODULES
        raw["ffmpeg"] = None
        del raw["sources"]["ffmpeg"]
    return raw


def timed(*command: str, cwd: Path) -> float:
    """Run a command and return its duration in seconds."""
    start = time.monotonic()
    subprocess.run(command, cwd=cwd, check=True)
    return time.monotonic() - start


def main() -> None:
    """Build the groups and print their times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP")
    parser.add_argument("--where", type=Path, default=Path(tempfile.gettempdir()) / "options")
    parser.add_argument("--type", default="dev")
    args = parser.parse_args()
    clone = args.where / "clone"
    if not clone.exists():
        timed("git", "clone", "-q", str(ROOT), str(clone), cwd=ROOT)
    folder = clone / "examples/program"
    folder.mkdir(exist_ok=True)
    (folder / "Makefile").write_text(PROGRAM, encoding="utf-8")
    timed("./gapforge", "engine", "start", cwd=clone)
    try:
        for group in args.groups or ("ffmpeg", "opencv"):
            raw = preset(group)
            name = raw["name"]
            (clone / f"presets/{name}.lock.json").unlink(missing_ok=True)  # of an earlier run
            (clone / f"presets/{name}.json").write_text(json.dumps(raw), encoding="utf-8")
            check = timed("./gapforge", "check", name, cwd=clone)
            sync = timed("./deps_sync.sh", name, cwd=clone)
            build = timed(
                *("./gapforge", "build", name, "--type", args.type, "--non-interactive"), cwd=clone
            )
            if (group, args.type) == ("ffmpeg", "runtime"):
                status = subprocess.check_output(
                    ("./gapforge", "engine", "status", "--json"), cwd=clone
                )
                engine = ("docker", "--host", json.loads(status)["host"])
                image = f"gapforge/{name}:runtime"
                timed(
                    *engine,
                    "run",
                    "--rm",
                    "--network",
                    "none",
                    image,
                    "bash",
                    "-c",
                    LOOK,
                    cwd=clone,
                )
            times = f"check {check:.0f} s, sync {sync:.0f} s, build {build:.0f} s"
            print(f"{name}: {times}", flush=True)
    finally:
        timed("./gapforge", "engine", "stop", cwd=clone)


if __name__ == "__main__":
    main()
