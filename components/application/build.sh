#!/usr/bin/env bash
# The application from /in/app, with CMake, into /usr/local. What builds it here is the command `build-application`
# that developers get in the dev image: one way to build, not two.
#
# Build arguments arrive as environment variables, secrets as files in /run/secrets for the length of this script.
# Nothing here prints them, and only /out leaves this stage.
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
# build-application [SOURCE]: configure, compile and install the application. Made by gapforge.
#
# SOURCE is /workspace/NAME when not given; mount your checkout there. What is already compiled in the build folder
# (BUILD_DIR, default /workspace/.build/NAME) is not compiled again; mount a volume there to keep it.
# Options after "--" go to cmake, such as:  build-application -- -DCMAKE_BUILD_TYPE=Debug
# A user who may not write to /usr/local gets the program in the build folder only.
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
    # Beside the build folder, so that one volume keeps both and no home folder is needed.
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

# The path is the one that developers have, so that debugger paths and ccache agree with theirs.
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

# The image's command is /usr/local/bin/application, whatever the application is called.
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
