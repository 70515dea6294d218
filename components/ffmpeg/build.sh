#!/usr/bin/env bash
# Build FFmpeg as shared libraries in /usr/local with the configure options of the preset. Install NVIDIA's codec
# headers first.
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"
begin ffmpeg

options=()
param_list configure options
version="$(param version)"

if have_source nv-codec-headers; then
    unpack_source nv-codec-headers "$WORK/nv-codec-headers"
    make -C "$WORK/nv-codec-headers" PREFIX=/usr/local install > /dev/null # for configure
    make -C "$WORK/nv-codec-headers" PREFIX=/usr/local DESTDIR="$OUT/dev" install > /dev/null
fi

unpack_source ffmpeg "$WORK/ffmpeg"
cd "$WORK/ffmpeg"
found="$(cat RELEASE 2> /dev/null || cat VERSION 2> /dev/null || true)"
matches "$version" "${found#n}" || die "ffmpeg: the preset says $version, the source archive says ${found:-nothing}"

# The compiler does not search CUDA's folders by default.
if [[ -n "$(param cuda)" && -d /usr/local/cuda/include ]]; then
    options=(--extra-cflags=-I/usr/local/cuda/include --extra-ldflags=-L/usr/local/cuda/lib64 "${options[@]}")
    PATH="$PATH:/usr/local/cuda/bin"
fi
# This folder has links named gcc and g++ to ccache, so that FFmpeg's banner shows the plain name of the compiler.
if [[ -d /usr/lib/ccache ]]; then PATH="/usr/lib/ccache:$PATH"; fi

say "ffmpeg $found: configure ${options[*]}"
if ! ./configure --prefix=/usr/local --enable-shared --disable-static --disable-doc --disable-debug "${options[@]}" \
    > "$WORK/configure.log" 2>&1; then
    tail -n 30 "$WORK/configure.log" >&2
    say "the end of ffbuild/config.log:" >&2
    tail -n 30 ffbuild/config.log >&2
    die "ffmpeg: configure failed"
fi
grep -iE '^(WARNING|License:)' "$WORK/configure.log" || true
make -j "$(jobs_count)" > "$WORK/make.log" 2>&1 || {
    grep -E -B 2 -A 12 -m 5 'error:|Error [0-9]' "$WORK/make.log" >&2 || tail -n 40 "$WORK/make.log" >&2
    die "ffmpeg: make failed"
}
make DESTDIR="$OUT/dev" install > /dev/null

LD_LIBRARY_PATH="$OUT/dev/usr/local/lib" "$OUT/dev/usr/local/bin/ffmpeg" -hide_banner -version | head -n 1
keep_sources ffmpeg
split_runtime
cd /
finish
