#!/usr/bin/env bash
# Build the application of /in/app with its build system and install it in /usr/local. The script runs
# `build-application`, which developers also use in the dev image, so both builds are equal.
#
# Build arguments are environment variables. Secrets are files in /run/secrets that exist only while this script runs.
# The script does not print them, and the images copy only /out from this stage.
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"
begin application

name="$(param name)"
[[ "$name" =~ ^[a-z0-9][a-z0-9._-]*$ ]] || die "application: \"$name\" is not a name"
system="$(param build)"
system="${system:-cmake}"

# The options of the preset have the name of the tool. A script receives none.
settings="$OUT/dev/usr/local/share/gapforge/application"
programs="$OUT/dev/usr/local/bin"
mkdir -p "$settings" "$programs" "$OUT/dev/workspace"
printf '%s\n' "$name" > "$settings/name"
printf '%s\n' "$system" > "$settings/build"
if [[ "$system" != ./* && -f "$IN/params/$system" ]]; then cat "$IN/params/$system"; fi > "$settings/options"

cat > "$WORK/build-application" << 'SCRIPT'
#!/usr/bin/env bash
# build-application [SOURCE]: configure, compile and install the application. Written by gapforge.
#
# SOURCE defaults to /workspace/NAME; mount your checkout there. Files that are already compiled are not compiled again.
# CMake and Meson keep them in BUILD_DIR (default /workspace/.build/NAME); mount a volume there to keep them longer.
# make and a script run in SOURCE itself.
# Options after "--" are passed to the tool, such as:  build-application -- -DCMAKE_BUILD_TYPE=Debug
# Without permission to write to /usr/local, the program stays in the build folder.
set -euo pipefail

settings="${GAPFORGE_APPLICATION:-/usr/local/share/gapforge/application}"
name="$(< "$settings/name")"
system="$(< "$settings/build")"
source="/workspace/$name"
if (($# > 0)) && [[ "$1" != -- ]]; then
    if [[ "$1" == -h || "$1" == --help ]]; then
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
    fi
    source="$1"
    shift
fi
if [[ "${1:-}" == -- ]]; then shift; fi
prefix=/usr/local
build="${BUILD_DIR:-/workspace/.build/$name}"
jobs="${JOBS:-$(nproc)}"
mapfile -t options < <(grep -v '^$' "$settings/options" || true)

stop() {
    printf 'build-application: %s\n' "$1" >&2
    exit 2
}

# need TOOL… : stop if a tool is missing.
need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" > /dev/null || stop "there is no $tool; add its package to apt.builder in the preset"
    done
}

# need_file FILE… : stop if the source contains none of the files.
need_file() {
    local file
    for file in "$@"; do
        if [[ -f "$source/$file" ]]; then return; fi
    done
    stop "$source has no $1; mount the source there or name its folder"
}

if command -v ccache > /dev/null; then
    # One volume can keep this folder and the build folder, and no home folder is needed.
    cache="${CCACHE_DIR:-/workspace/.ccache}"
    if mkdir -p "$cache" 2> /dev/null && [[ -w "$cache" ]]; then
        export CCACHE_DIR="$cache" CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
        # Meson finds ccache itself. make and scripts find compilers of the same names on PATH, which call it.
        if [[ "$system" == make || "$system" == ./* ]]; then PATH="/usr/lib/ccache:$PATH"; fi
    fi
fi

install=()
writable=true
if [[ ! -w "${DESTDIR:-}$prefix/bin" ]]; then writable=false; fi
case "$system" in
    cmake)
        need_file CMakeLists.txt
        need cmake
        generator=()
        if [[ ! -f "$build/CMakeCache.txt" ]] && command -v ninja > /dev/null; then generator=(-G Ninja); fi
        cmake -S "$source" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release \
            -DCMAKE_INSTALL_PREFIX="$prefix" "${options[@]}" "$@"
        cmake --build "$build" --parallel "$jobs"
        install=(cmake --install "$build")
        ;;
    meson)
        need_file meson.build
        need meson ninja
        again=()
        if [[ -f "$build/build.ninja" ]]; then again=(--reconfigure); fi
        meson setup "${again[@]}" "$build" "$source" --prefix="$prefix" --libdir=lib --buildtype=release \
            --wrap-mode=nodownload "${options[@]}" "$@"
        ninja -C "$build" -j "$jobs"
        install=(meson install -C "$build" --no-rebuild)
        ;;
    make)
        need_file Makefile makefile GNUmakefile
        need make
        options+=(PREFIX="$prefix" prefix="$prefix" "$@")
        make -C "$source" -j "$jobs" "${options[@]}"
        build="$source"
        install=(make -C "$source" install DESTDIR="${DESTDIR:-}" "${options[@]}")
        ;;
    ./*)
        need_file "$system"
        [[ -x "$source/$system" ]] || stop "$source/$system is not executable: chmod +x $system"
        mkdir -p "$build"
        if ! $writable; then export DESTDIR="$build/install"; fi
        (cd "$source" && PREFIX="$prefix" DESTDIR="${DESTDIR:-}" BUILD_DIR="$build" JOBS="$jobs" "$system" "$@")
        ;;
    *) stop "$settings/build: \"$system\" is not a build system" ;;
esac

if $writable; then
    "${install[@]}"
    if [[ -z "${DESTDIR:-}" ]]; then ldconfig; fi
else
    printf 'build-application: %s is not writable for you; the program stays in %s\n' "$prefix" "$build"
fi
SCRIPT
chmod 755 "$WORK/build-application"

# Use the same path as developers, so that debug information and ccache entries match theirs.
source="${GAPFORGE_WORKSPACE:-/workspace}/$name"
rm -rf "$source"
mkdir -p "$(dirname "$source")"
cp -r "$IN/app" "$source"
chmod -R u+rwX,go+rX "$source"
cp -a "$source" "$OUT/dev/workspace/$name"
chmod 1777 "$OUT/dev/workspace"

for secret in /run/secrets/*; do
    if [[ -f "$secret" && "$(basename "$secret")" =~ ^[A-Z_][A-Z0-9_]*$ ]]; then
        declare -gx "$(basename "$secret")_FILE=$secret"
    fi
done

say "application: building $name with $system"
jobs="$(jobs_count)"
GAPFORGE_APPLICATION="$settings" BUILD_DIR="$WORK/build" JOBS="$jobs" DESTDIR="$OUT/dev" \
    "$WORK/build-application" "$source"
if command -v ccache > /dev/null; then ccache --show-stats 2> /dev/null | sed -n '1,4p' || true; fi

for own in application build-application; do
    if [[ -e "$programs/$own" || -L "$programs/$own" ]]; then
        die "application: it installs bin/$own, which is a program of gapforge. Give the program another name"
    fi
done
install -m 755 "$WORK/build-application" "$programs/build-application"

# find_command: set the array "command" to the words that the image runs. Without a command in the preset, this is the
# program with the name of the application, or the only one.
find_command() {
    local installed
    param_list command command
    if ((${#command[@]} == 0)); then
        command=("$name")
        if [[ -x "$programs/$name" ]]; then return; fi
        mapfile -t installed < <(find "$programs" -maxdepth 1 ! -type d -executable ! -name build-application -printf '%f\n' | sort)
        ((${#installed[@]} == 1)) || die "application: it installs no bin/$name; it installs: ${installed[*]:-no program}." \
            "Write the command of the image in application.command of the preset, or install bin/$name"
        command=("${installed[0]}")
    elif [[ "${command[0]}" == /* ]]; then
        [[ -x "$OUT/dev${command[0]}" || -x "${command[0]}" ]] || die "application.command: there is no program ${command[0]}"
    else
        [[ -x "$programs/${command[0]}" ]] || command -v "${command[0]}" > /dev/null ||
            die "application.command: there is no program \"${command[0]}\"; the application installs:" \
                "$(find "$programs" -maxdepth 1 ! -type d ! -name build-application -printf '%f ')"
    fi
}

# The command of the image is always /usr/local/bin/application, independent of the application.
command=()
find_command
if ((${#command[@]} == 1)) && [[ -x "$programs/${command[0]}" ]]; then
    ln -s "${command[0]}" "$programs/application"
else
    quote="'\\''"
    {
        printf '#!/bin/sh\nexec'
        for word in "${command[@]}"; do printf " '%s'" "${word//"'"/"$quote"}"; done
        printf ' "$@"\n'
    } > "$programs/application"
    chmod 755 "$programs/application"
fi

# What the application installs is its own and stays, except for what only compilers read.
rm -rf "$OUT/runtime"
cp -al "$OUT/dev" "$OUT/runtime"
rm -rf "$OUT/runtime/workspace" "$OUT"/runtime/usr/{include,local/include} \
    "$OUT/runtime/usr/local/share/gapforge" "$OUT/runtime/usr/local/bin/build-application"
while IFS= read -r -d '' file; do
    case "$(head -c 7 "$file" | tr -d '\0')" in '!<arch>' | '!<thin>') rm "$file" ;; esac
done < <(find "$OUT/runtime" -type f -name '*.a' -print0)
find "$OUT"/runtime/usr/local/{share,lib,bin} -maxdepth 0 -empty -delete 2> /dev/null || true
finish
