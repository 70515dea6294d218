# shellcheck shell=bash
# Provide helpers for the build.sh of every component. Use:  source "$(dirname "$0")/common.sh"
#
# The helpers read the value of an option from a file and treat it as data, so no shell evaluates text of a preset.

IN="${GAPFORGE_IN:-/in}"
OUT="${GAPFORGE_OUT:-/out}"
WORK="${GAPFORGE_BUILD:-/tmp/gapforge}"
umask 022
export LC_ALL=C.UTF-8 HOME="${HOME:-/root}" PYTHONDONTWRITEBYTECODE=1
# The stages that compile mount a cache at this folder.
if [[ -d /var/cache/ccache ]]; then export CCACHE_DIR=/var/cache/ccache CCACHE_COMPILERCHECK=content CCACHE_MAXSIZE=5G; fi

# say TEXT…: print one log line.
say() { printf 'gapforge: %s\n' "$*"; }

# die TEXT…: print an error and stop the build.
die() {
    printf 'gapforge: error: %s\n' "$*" >&2
    exit 1
}

# param KEY: print the text of an option. Print nothing if the preset does not set it.
param() { if [[ -f "$IN/params/$1" ]]; then printf '%s' "$(< "$IN/params/$1")"; fi; }

# flag KEY: return true if the option is 1.
flag() { [[ "$(param "$1")" == 1 ]]; }

# param_list KEY ARRAY: store the members of an option in ARRAY. Store none if the preset does not set it.
param_list() {
    local -n _list="$2"
    local _line
    _list=()
    [[ -f "$IN/params/$1" ]] || return 0
    while IFS= read -r _line || [[ -n "$_line" ]]; do
        if [[ -n "$_line" ]]; then _list+=("$_line"); fi
    done < "$IN/params/$1"
}

# begin NAME: create the two empty trees and an empty work folder. End the script if the preset does not use NAME.
begin() {
    mkdir -p "$OUT/dev" "$OUT/runtime"
    if ! flag enabled; then
        say "$1: not used by the preset"
        exit 0
    fi
    export SOURCE_DATE_EPOCH
    SOURCE_DATE_EPOCH="$(param epoch)"
    SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1}"
    rm -rf "$WORK"
    mkdir -p "$WORK"
}

# finish: remove the work folder. Give every file the same time stamp, so that equal contents give an equal layer.
finish() {
    rm -rf "$WORK"
    find "$OUT" -depth -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    say "done: $(du -sh "$OUT/dev" | cut -f1) dev, $(du -sh "$OUT/runtime" | cut -f1) runtime"
}

# jobs_count: print the number of parallel compilers: one for each processor and for each 1.5 GB of memory.
jobs_count() {
    local cpus memory limit
    cpus="$(nproc)"
    memory="$(awk '/^MemAvailable:/ { print int($2 / 1572864) }' /proc/meminfo)"
    limit="$(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2> /dev/null | head -n 1 || true)"
    if [[ "$limit" =~ ^[0-9]{1,18}$ ]] && ((limit / 1610612736 < memory)); then memory=$((limit / 1610612736)); fi
    if ((memory < cpus)); then cpus="$memory"; fi
    if ((cpus < 1)); then cpus=1; fi
    printf '%s' "$cpus"
}

# logged FILE COMMAND…: run a command with its output in FILE. Print its lines "[done/total] …" or "[percent] …", at most
# one in five seconds, so that the log of the build shows how far it is.
logged() {
    local file="$1" line shown=-5
    shift
    "$@" 2>&1 | tee "$file" | while IFS= read -r line; do
        if ((SECONDS - shown >= 5)) && [[ "$line" =~ ^\[\ *([0-9]+/[0-9]+|[0-9]+%)\] ]]; then
            printf '%s\n' "$line"
            shown=$SECONDS
        fi
    done
}

# source_file NAME: print the path of the only archive of source NAME.
source_file() {
    local files=()
    mapfile -t files < <(find "$IN/sources/$1" -maxdepth 1 -type f 2> /dev/null | sort)
    ((${#files[@]} == 1)) || die "source \"$1\": expected one file in $IN/sources/$1, found ${#files[@]}"
    printf '%s' "${files[0]}"
}

# have_source NAME: return true if the preset contains source NAME.
have_source() { [[ -d "$IN/sources/$1" ]]; }

# unpack_zip FILE FOLDER: unpack a zip with its modes, times and symbolic links, which Python's zipfile ignores. Nothing
# leads out of FOLDER, which must exist.
unpack_zip() {
    python3 -I - "$1" "$2" << 'PYTHON'
import calendar, os, shutil, stat, sys, zipfile

UNIX = 3
root = os.path.realpath(sys.argv[2])
links = {}
folders = {}
with zipfile.ZipFile(sys.argv[1]) as archive:
    for member in archive.infolist():
        parts = [part for part in member.filename.split("/") if part not in ("", ".")]
        if ".." in parts or member.filename.startswith("/"):
            sys.exit(f"gapforge: error: the zip contains the unsafe name {member.filename!r}")
        path = os.path.join(root, *parts)
        mode = member.external_attr >> 16 if member.create_system == UNIX else 0
        time = calendar.timegm((*member.date_time, 0, 0, 0))
        if member.is_dir():
            os.makedirs(path, exist_ok=True)
            folders[path] = time
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if stat.S_ISLNK(mode):
            links[path] = archive.read(member).decode()
            continue
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            sys.exit(f"gapforge: error: {member.filename!r} in the zip is neither a file, a folder nor a link")
        with archive.open(member) as source, open(path, "wb") as target:
            start = source.read(2)
            target.write(start)
            shutil.copyfileobj(source, target)
        # A zip that Windows made has no modes.
        run = mode & 0o111 if mode else start == b"#!"
        os.chmod(path, 0o755 if run else 0o644)
        os.utime(path, (time, time))
# The links come last, so that no file is written through one.
for path, target in links.items():
    os.symlink(target, path)
for path, target in links.items():
    if os.path.commonpath((root, os.path.realpath(path))) != root:
        sys.exit(f"gapforge: error: the link {os.path.relpath(path, root)!r} in the zip leads out of it: {target!r}")
for path, time in folders.items():
    os.utime(path, (time, time))
PYTHON
}

# unpack_source NAME DEST [TAR OPTION…]: unpack one folder of the archive as DEST, which must not exist. The folder is
# the value of source-NAME.folder, or else the only top-level folder.
unpack_source() {
    local name="$1" dest="$2" file folder room tops=()
    shift 2
    file="$(source_file "$name")"
    folder="$(param "source-$name.folder")"
    room="$WORK/unpack-$name"
    mkdir -p "$room" "$(dirname "$dest")"
    say "unpacking $(basename "$file")"
    case "$file" in
        *.zip) unpack_zip "$file" "$room" || die "$(basename "$file") cannot be unpacked" ;;
        *) tar -xf "$file" -C "$room" --no-same-owner --no-same-permissions "$@" ||
            die "$(basename "$file") cannot be unpacked (it is damaged, or its compression needs a package in apt.builder)" ;;
    esac
    if [[ -z "$folder" ]]; then
        mapfile -t tops < <(find "$room" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort)
        if ((${#tops[@]} == 1)) && [[ -d "$room/${tops[0]}" ]]; then folder="${tops[0]}"; else folder=.; fi
    fi
    [[ -d "$room/$folder" ]] || die "$(basename "$file") has no folder \"$folder\" (sources.$name.folder in the preset)"
    if [[ "$folder" == . ]]; then mv "$room" "$dest"; else mv "$room/$folder" "$dest"; fi
    rm -rf "$room"
}

# keep_sources NAME: copy the inputs of the component to the dev tree, so that developers can build it again.
keep_sources() {
    local folder="$OUT/dev/usr/src/gapforge/$1"
    mkdir -p "$folder"
    cp -r "$IN/." "$folder/"
    chmod -R u+rwX,go+rX "$folder"
}

# python_version: print the Python version of the preset, such as 3.11.
python_version() { param python; }

# dist_packages: print the folder in which this Python searches for packages, without the prefix /out.
dist_packages() { python3 -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

# pip ARGUMENT…: run the pip of the lock directly from its wheel, without an index, a cache or a configuration file.
# sync has proved with this pip and the options of pip_install that it accepts every wheel.
pip() {
    local wheels=()
    mapfile -t wheels < <(find "$IN/installer" -maxdepth 1 -name 'pip-*.whl' 2> /dev/null | sort)
    ((${#wheels[@]} == 1)) || die "expected one pip-*.whl in $IN/installer, found ${#wheels[@]}"
    PIP_CONFIG_FILE=/dev/null python3 "${wheels[0]}/pip" --isolated --no-input --no-cache-dir \
        --disable-pip-version-check "$@"
}

# pip_install ARGUMENT…: install packages into the dev tree. With --root, pip accepts an "externally managed" Python.
# With --ignore-installed, it also installs packages that the builder image already has.
pip_install() {
    pip install --no-index --no-deps --no-compile --ignore-installed --no-warn-script-location \
        --root-user-action=ignore --root "$OUT/dev" "$@"
}

# matches WANTED FOUND: compare versions. "5.1" matches 5.1 and 5.1.9, but not 5.10.
matches() { [[ "$2" == "$1" || "$2" == "$1".* || "$2" == "$1"-* || "$2" == "$1"+* ]]; }

# split_runtime: create /out/runtime from /out/dev with the files that programs need at run time (split_runtime.py).
split_runtime() {
    python3 -I "$(dirname "${BASH_SOURCE[0]}")/split_runtime.py" "$OUT/dev" "$OUT/runtime" "$IN/params/not-in-runtime"
}
