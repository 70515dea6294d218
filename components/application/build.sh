#!/usr/bin/env bash
# Build the application of /in/app with CMake and install it in /usr/local. The script runs `build-application`, which
# developers also use in the dev image, so both builds are equal.
#
# Build arguments are environment variables. Secrets are files in /run/secrets that exist only while this script runs.
# The script does not print them, and the images copy only /out from this stage.
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"
begin application

name="$(param name)"
[[ "$name" =~ ^[a-z0-9][a-z0-9._-]*$ ]] || die "application: \"$name\" is not a name"
[[ -f "$IN/app/CMakeLists.txt" ]] || die "application: the source folder has no CMakeLists.txt at its top"

settings="$OUT/dev/usr/local/share/gapforge/application"
mkdir -p "$settings" "$OUT/dev/usr/local/bin" "$OUT/dev/workspace"
printf '%s\n' "$name" > "$settings/name"
if [[ -f "$IN/params/cmake" ]]; then cat "$IN/params/cmake" > "$settings/cmake"; else : > "$settings/cmake"; fi

cat > "$OUT/dev/usr/local/bin/build-application" << 'SCRIPT'
#!/usr/bin/env bash
# build-application [SOURCE]: configure, compile and install the application. Written by gapforge.
#
# SOURCE defaults to /workspace/NAME; mount your checkout there. Files that are already compiled in the build folder
# (BUILD_DIR, default /workspace/.build/NAME) are not compiled again; mount a volume there to keep them.
# Options after "--" are passed to cmake, such as:  build-application -- -DCMAKE_BUILD_TYPE=Debug
# Without permission to write to /usr/local, the program stays in the build folder.
set -euo pipefail

settings="${GAPFORGE_APPLICATION:-/usr/local/share/gapforge/application}"
name="$(< "$settings/name")"
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
build="${BUILD_DIR:-/workspace/.build/$name}"
if [[ ! -f "$source/CMakeLists.txt" ]]; then
    printf 'build-application: %s has no CMakeLists.txt; mount the source there or name its folder\n' "$source" >&2
    exit 2
fi

mapfile -t options < <(grep -v '^$' "$settings/cmake" || true)
generator=()
if [[ ! -f "$build/CMakeCache.txt" ]] && command -v ninja > /dev/null; then generator=(-G Ninja); fi
if command -v ccache > /dev/null; then
    # One volume can keep this folder and the build folder, and no home folder is needed.
    cache="${CCACHE_DIR:-/workspace/.ccache}"
    if mkdir -p "$cache" 2> /dev/null && [[ -w "$cache" ]]; then
        export CCACHE_DIR="$cache" CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
    fi
fi
cmake -S "$source" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=/usr/local \
    "${options[@]}" "$@"
cmake --build "$build" --parallel "${JOBS:-$(nproc)}"
if [[ -w "${DESTDIR:-}/usr/local/bin" ]]; then
    cmake --install "$build"
    if [[ -z "${DESTDIR:-}" ]]; then ldconfig; fi
else
    printf 'build-application: %s is not writable for you; the program stays in %s\n' /usr/local "$build"
fi
SCRIPT
chmod 755 "$OUT/dev/usr/local/bin/build-application"

# Use the same path as developers, so that debug information and ccache entries match theirs.
source="/workspace/$name"
rm -rf "$source"
mkdir -p /workspace
cp -r "$IN/app" "$source"
chmod -R u+rwX,go+rX "$source"
cp -a "$source" "$OUT/dev/workspace/$name"
chmod 1777 "$OUT/dev/workspace"

for secret in /run/secrets/*; do
    if [[ -f "$secret" && "$(basename "$secret")" =~ ^[A-Z_][A-Z0-9_]*$ ]]; then
        declare -gx "$(basename "$secret")_FILE=$secret"
    fi
done

say "application: building $name"
jobs="$(jobs_count)"
GAPFORGE_APPLICATION="$settings" BUILD_DIR="$WORK/build" JOBS="$jobs" DESTDIR="$OUT/dev" \
    "$OUT/dev/usr/local/bin/build-application"
if command -v ccache > /dev/null; then ccache --show-stats 2> /dev/null | sed -n '1,4p' || true; fi

# The command of the image is always /usr/local/bin/application, independent of the name of the application.
program="$OUT/dev/usr/local/bin/$name"
if [[ ! -x "$program" ]]; then
    mapfile -t programs < <(find "$OUT/dev/usr/local/bin" -maxdepth 1 -type f -perm -u+x ! -name build-application -printf '%f\n')
    ((${#programs[@]} == 1)) || die "application: it installs no bin/$name; it installs: ${programs[*]:-no program}." \
        "Give the target that name, or install() it in CMakeLists.txt"
    name="${programs[0]}"
fi
ln -sfn "$name" "$OUT/dev/usr/local/bin/application"

split_runtime
rm -rf "$OUT/runtime/usr/local/share/gapforge" "$OUT/runtime/usr/local/bin/build-application"
finish
