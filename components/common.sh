# shellcheck shell=bash
# Helpers for the build.sh of every component. Sourced, not run:  source "$(dirname "$0")/common.sh"
#
# What an option holds is read from a file and stays data: nothing that a preset says is evaluated by a shell.

IN="${GAPFORGE_IN:-/in}"
OUT="${GAPFORGE_OUT:-/out}"
WORK="${GAPFORGE_BUILD:-/tmp/gapforge}"
umask 022
export LC_ALL=C.UTF-8 HOME="${HOME:-/root}" PYTHONDONTWRITEBYTECODE=1
# The stages that compile mount a cache here.
if [[ -d /var/cache/ccache ]]; then export CCACHE_DIR=/var/cache/ccache CCACHE_COMPILERCHECK=content CCACHE_MAXSIZE=5G; fi

# say TEXT…: one plain log line.
say() { printf 'gapforge: %s\n' "$*"; }

# die TEXT…: say what is wrong and stop the build.
die() {
    printf 'gapforge: error: %s\n' "$*" >&2
    exit 1
}

# param KEY: the option's text; nothing when the preset does not give it.
param() { if [[ -f "$IN/params/$1" ]]; then printf '%s' "$(< "$IN/params/$1")"; fi; }

# flag KEY: true when the option is 1.
flag() { [[ "$(param "$1")" == 1 ]]; }

# param_list KEY ARRAY: the option's members into ARRAY; none when the option is absent.
param_list() {
    local -n _list="$2"
    local _line
    _list=()
    [[ -f "$IN/params/$1" ]] || return 0
    while IFS= read -r _line || [[ -n "$_line" ]]; do
        if [[ -n "$_line" ]]; then _list+=("$_line"); fi
    done < "$IN/params/$1"
}

# begin NAME: the two empty trees and a clean work folder; ends the script at once when the preset does not ask for NAME.
begin() {
    mkdir -p "$OUT/dev" "$OUT/runtime"
    if ! flag enabled; then
        say "$1: the preset does not ask for it"
        exit 0
    fi
    export SOURCE_DATE_EPOCH
    SOURCE_DATE_EPOCH="$(param epoch)"
    SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1}"
    rm -rf "$WORK"
    mkdir -p "$WORK"
}

# finish: the same time stamp on everything, so that the same bytes are the same layer; and no work folder left.
finish() {
    rm -rf "$WORK"
    find "$OUT" -depth -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    say "done: $(du -sh "$OUT/dev" | cut -f1) dev, $(du -sh "$OUT/runtime" | cut -f1) runtime"
}

# jobs: how many compilers may run: one a processor, and 1.5 GB of memory for each.
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

# source_file NAME: the one archive of source NAME.
source_file() {
    local files=()
    mapfile -t files < <(find "$IN/sources/$1" -maxdepth 1 -type f 2> /dev/null | sort)
    ((${#files[@]} == 1)) || die "source \"$1\": expected one file in $IN/sources/$1, found ${#files[@]}"
    printf '%s' "${files[0]}"
}

# have_source NAME: true when the preset brought it.
have_source() { [[ -d "$IN/sources/$1" ]]; }

# unpack_source NAME DEST [TAR OPTION…]: what is inside the archive's folder (the option source-NAME.folder, or the
# only top folder) becomes DEST, which must not exist.
unpack_source() {
    local name="$1" dest="$2" file folder room tops=()
    shift 2
    file="$(source_file "$name")"
    folder="$(param "source-$name.folder")"
    room="$WORK/unpack-$name"
    mkdir -p "$room" "$(dirname "$dest")"
    say "unpacking $(basename "$file")"
    case "$file" in
        *.zip) python3 -I -m zipfile -e "$file" "$room" ;;
        *) tar -xf "$file" -C "$room" --no-same-owner --no-same-permissions "$@" ||
            die "$(basename "$file") cannot be unpacked (a .xz or .zst archive needs xz-utils or zstd in apt.builder)" ;;
    esac
    if [[ -z "$folder" ]]; then
        mapfile -t tops < <(find "$room" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort)
        if ((${#tops[@]} == 1)) && [[ -d "$room/${tops[0]}" ]]; then folder="${tops[0]}"; else folder=.; fi
    fi
    [[ -d "$room/$folder" ]] || die "$(basename "$file") has no folder \"$folder\" (sources.$name.folder in the preset)"
    if [[ "$folder" == . ]]; then mv "$room" "$dest"; else mv "$room/$folder" "$dest"; fi
    rm -rf "$room"
}

# keep_sources NAME: the component's inputs into the dev tree, so that a developer can build it again from there.
keep_sources() {
    local folder="$OUT/dev/usr/src/gapforge/$1"
    mkdir -p "$folder"
    cp -r "$IN/." "$folder/"
    chmod -R u+rwX,go+rX "$folder"
}

# python_version: the preset's Python, such as 3.11.
python_version() { param python; }

# dist_packages: where that Python looks for packages, without /out in front.
dist_packages() { python3 -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

# pip ARGUMENT…: the pip that came as a wheel, run from inside it. It never has an index, a cache or a configuration.
pip() {
    local wheels=()
    mapfile -t wheels < <(find "$IN/wheels" -maxdepth 1 -name 'pip-*.whl' 2> /dev/null | sort)
    ((${#wheels[@]} == 1)) || die "expected one pip-*.whl in $IN/wheels, found ${#wheels[@]}"
    PIP_CONFIG_FILE=/dev/null python3 "${wheels[0]}/pip" --isolated --no-input --no-cache-dir \
        --disable-pip-version-check "$@"
}

# pip_install ARGUMENT…: into the dev tree, where this Python looks. --root keeps pip from refusing an "externally
# managed" Python; --ignore-installed keeps it from skipping what the builder's own system happens to have.
pip_install() {
    pip install --no-index --no-deps --no-compile --ignore-installed --no-warn-script-location \
        --root-user-action=ignore --root "$OUT/dev" "$@"
}

# matches WANTED FOUND: "5.1" matches 5.1 and 5.1.9, not 5.10.
matches() { [[ "$2" == "$1" || "$2" == "$1".* || "$2" == "$1"-* || "$2" == "$1"+* ]]; }

# split_runtime: fill /out/runtime from /out/dev with what programs need at run time. Hard links: no byte is stored
# twice. RECORD of a Python package then lists what is really there.
split_runtime() {
    rm -rf "$OUT/runtime"
    cp -al "$OUT/dev" "$OUT/runtime"
    rm -rf "$OUT"/runtime/{workspace,usr/src} "$OUT"/runtime/usr/local/{include,src,man,doc} \
        "$OUT"/runtime/usr/local/lib/{pkgconfig,cmake} \
        "$OUT"/runtime/usr/local/share/{pkgconfig,cmake,man,doc,aclocal} "$OUT"/runtime/usr/local/share/ffmpeg/examples
    find "$OUT/runtime" -type f \( -name '*.h' -o -name '*.hpp' -o -name '*.hxx' -o -name '*.hh' -o -name '*.cuh' \
        -o -name '*.pxd' -o -name '*.a' -o -name '*.la' -o -name '*.pc' -o -name '*.cmake' \) -delete
    find "$OUT/runtime" -mindepth 1 -type d -empty -delete
    mkdir -p "$OUT/runtime"
    python3 -I - "$OUT/runtime" << 'PYTHON'
import csv, io, os, sys
from pathlib import Path

# A RECORD row's path is relative to the folder that holds the package's .dist-info folder.
for record in sorted(Path(sys.argv[1]).glob("usr/**/*.dist-info/RECORD")):
    rows = list(csv.reader(io.StringIO(record.read_text("utf-8"))))
    kept = [row for row in rows if row and os.path.lexists(record.parent.parent / row[0])]
    if len(kept) != len(rows):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(kept)
        fresh = record.with_name("RECORD.new")  # never through the hard link: the dev tree keeps its own
        fresh.write_text(text.getvalue(), "utf-8")
        fresh.replace(record)
PYTHON
}
