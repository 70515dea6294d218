#!/usr/bin/env bash
# Install TensorRT 8.x or 10.x from NVIDIA's tar: libraries, headers, tools and the Python binding in the tar.
# With form "deb", the component apt has installed TensorRT, and both trees stay empty.
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"
begin tensorrt

form="$(param form)"
version="$(param version)"
case "$form" in
    deb)
        say "tensorrt: $version comes from its .debs"
        finish
        exit 0
        ;;
    tar) ;;
    *) die "tensorrt: the form is \"$form\"; expected tar or deb" ;;
esac

prefix="$OUT/dev/usr/local/tensorrt"
# Skip static libraries, samples and sample data: they are more than half of the tar and are not used.
unpack_source tensorrt "$WORK/trt" --exclude='*.a' --exclude='*/samples' --exclude='*/data' --exclude='*/doc'

# Depending on the release, lib is a link to targets/PLATFORM/lib, a folder, or absent.
libraries=""
for folder in "$WORK"/trt/lib "$WORK"/trt/targets/*/lib; do
    if compgen -G "$folder/libnvinfer.so*" > /dev/null; then
        libraries="$folder"
        break
    fi
done
[[ -n "$libraries" ]] || die "tensorrt: $(basename "$(source_file tensorrt)") has no libnvinfer.so in lib/ or targets/*/lib/"

header="$WORK/trt/include/NvInferVersion.h"
if [[ -f "$header" ]]; then
    found="$(awk '$1 == "#define" && $2 ~ /^(NV_TENSORRT|TRT)_(MAJOR|MINOR|PATCH|BUILD)(_ENTERPRISE)?$/ && $3 ~ /^[0-9]+$/ \
        { part = $2; sub(/^(NV_TENSORRT|TRT)_/, "", part); sub(/_ENTERPRISE$/, "", part); if (!(part in v)) v[part] = $3 } \
        END { printf "%s.%s.%s.%s", v["MAJOR"], v["MINOR"], v["PATCH"], v["BUILD"] }' "$header")"
    matches "$version" "$found" || matches "${found%.*}" "$version" ||
        die "tensorrt: the preset says $version, the tar's NvInferVersion.h says $found"
fi

mkdir -p "$prefix/lib" "$OUT/dev/etc/ld.so.conf.d"
# Keep links, because each copy of libnvinfer has hundreds of megabytes. Skip stubs/, which is only for linking.
find -L "$libraries" -maxdepth 1 -name '*.so*' -print0 | xargs -0 cp -a -t "$prefix/lib"
cp -rL "$WORK/trt/include" "$prefix/include"
for tool in "$WORK"/trt/bin/trtexec "$WORK"/trt/targets/*/bin/trtexec; do
    if [[ -f "$tool" ]]; then
        mkdir -p "$prefix/bin" "$OUT/dev/usr/local/bin"
        cp -L "$tool" "$prefix/bin/trtexec"
        ln -sf ../tensorrt/bin/trtexec "$OUT/dev/usr/local/bin/trtexec"
        break
    fi
done
# "00" sorts before the file of a copy that the base image may contain.
printf '/usr/local/tensorrt/lib\n' > "$OUT/dev/etc/ld.so.conf.d/00-gapforge-tensorrt.conf"

# "python" is the Python version for every component, so the option of TensorRT has its full name.
if [[ "$(param tensorrt.python)" != 0 ]]; then
    tag="cp$(python_version | tr -d .)"
    # The pattern excludes tensorrt_lean and tensorrt_dispatch. Never use an index: the package "tensorrt" there only
    # downloads another one.
    mapfile -t wheels < <(find "$WORK/trt/python" -maxdepth 1 -name "tensorrt-*-$tag-*.whl" 2> /dev/null | sort)
    if ((${#wheels[@]} != 1)); then
        has="$(find "$WORK/trt/python" -maxdepth 1 -name '*.whl' -printf '%f\n' 2> /dev/null | sort | paste -sd ' ')"
        die "tensorrt: the tar has ${#wheels[@]} bindings for Python $(python_version) ($tag); its wheels: ${has:-none}." \
            "Choose a Python that it has, or set tensorrt.python to false"
    fi
    pip_install --quiet "${wheels[0]}"
fi

split_runtime
rm -rf "$OUT"/runtime/usr/local/tensorrt/{bin,include} "$OUT"/runtime/usr/local/bin/trtexec
if [[ -d "$OUT/runtime/usr/local/bin" ]]; then rmdir --ignore-fail-on-non-empty "$OUT/runtime/usr/local/bin"; fi
finish
