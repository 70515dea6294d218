#!/usr/bin/env bash
# Build OpenCV in /usr/local, with cv2 for the Python of the preset. OpenCV links to the FFmpeg of the previous stage.
#
# OpenCV's configure step downloads missing files. If a download fails, it prints a warning and omits modules. This
# script therefore puts the files into OpenCV's download cache first, and checks afterwards what was configured.
set -euo pipefail
# shellcheck source=components/common.sh
source "$(dirname "$0")/common.sh"
begin opencv

version="$(param version)"
modules=()
options=()
architectures=()
param_list modules modules
param_list cmake options
param_list architectures architectures

wants() { # return true if the module is built: without a list in the preset, all modules are built
    ((${#modules[@]} == 0)) || [[ " ${modules[*]} " == *" $1 "* ]]
}

unpack_source opencv "$WORK/opencv"
header="$WORK/opencv/modules/core/include/opencv2/core/version.hpp"
[[ -f "$header" ]] || die "opencv: the source archive is not OpenCV's (no modules/core); set sources.opencv.folder"
found="$(awk '/#define CV_VERSION_(MAJOR|MINOR|REVISION) / { v = v (v == "" ? "" : ".") $3 } END { print v }' "$header")"
matches "$version" "$found" || die "opencv: the preset says $version, the source archive says $found"
rm -rf "$WORK/opencv/.git" # points to the repository of a submodule, which is absent

arguments=(
    -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=/usr/local -DCMAKE_INSTALL_LIBDIR=lib
    -DBUILD_TESTS=OFF -DBUILD_PERF_TESTS=OFF -DBUILD_EXAMPLES=OFF -DBUILD_DOCS=OFF -DBUILD_JAVA=OFF
    -DBUILD_opencv_apps=OFF -DBUILD_opencv_java=OFF -DBUILD_opencv_js=OFF -DBUILD_opencv_python2=OFF
    -DOPENCV_GENERATE_PKGCONFIG=ON -DOPENCV_DOWNLOAD_PATH="$WORK/cache" -DOPENCV_DOWNLOAD_TRIES_LIST=1
)
if ((${#modules[@]} > 0)); then
    joined="$(IFS=,; printf '%s' "${modules[*]}")"
    arguments+=("-DBUILD_LIST=$joined")
fi
if flag contrib; then
    unpack_source opencv-contrib "$WORK/opencv-contrib"
    arguments+=("-DOPENCV_EXTRA_MODULES_PATH=$WORK/opencv-contrib/modules")
fi

# Fill OpenCV's download cache: OPENCV_DOWNLOAD_PATH/ID/MD5-FILE. The ID is the source name after "opencv-cache-". An ID
# may contain "/", but a source name may not, so link the file under every ID of OpenCV's CMake files too.
mkdir -p "$WORK/cache"
mapfile -t ids < <(find "$WORK"/opencv* \( -name CMakeLists.txt -o -name '*.cmake' \) -exec \
    sed -nE 's/^[[:space:]]*ID[[:space:]]+"?([A-Za-z0-9_/]+)"?[[:space:]]*$/\1/p' {} + | tr '[:upper:]' '[:lower:]' | sort -u)
for folder in "$IN"/sources/opencv-cache-*/; do
    [[ -d "$folder" ]] || continue
    name="$(basename "$folder")"
    file="$(source_file "$name")"
    md5="$(md5sum "$file" | cut -d' ' -f1)"
    cp "$file" "$WORK/cache/$md5-$(basename "$file")"
    for id in "${name#opencv-cache-}" "${ids[@]}"; do
        mkdir -p "$WORK/cache/$id"
        ln -f "$WORK/cache/$md5-$(basename "$file")" "$WORK/cache/$id/"
    done
done

# Compile for the GPU architectures of the preset. The checks below fail if configure disables CUDA.
# The flag has its full name, because "cuda" is the CUDA version of the base image for every component.
if flag opencv.cuda; then
    arguments+=(-DWITH_CUDA=ON "-DCUDA_ARCH_BIN=$(IFS=,; printf '%s' "${architectures[*]}")" -DCUDA_ARCH_PTX=)
    if flag dnn; then arguments+=(-DWITH_CUDNN=ON -DOPENCV_DNN_CUDA=ON); else arguments+=(-DOPENCV_DNN_CUDA=OFF); fi
    PATH="$PATH:/usr/local/cuda/bin"
else
    arguments+=(-DWITH_CUDA=OFF)
fi

ffmpeg=""
if pkg-config --exists libavcodec 2> /dev/null; then
    ffmpeg="$(pkg-config --variable=prefix libavcodec)"
    arguments+=(-DWITH_FFMPEG=ON -DOPENCV_FFMPEG_USE_FIND_PACKAGE=OFF)
fi

# Use the Python of the preset, and NumPy's headers from its unpacked wheel.
if wants python3; then
    mapfile -t numpy < <(find "$IN/wheels" -maxdepth 1 -name 'numpy-*.whl' 2> /dev/null)
    ((${#numpy[@]} == 1)) || die "opencv: cv2 needs NumPy; add numpy to python.packages of the preset, or list" \
        "opencv.modules without python3"
    python3 -I -m zipfile -e "${numpy[0]}" "$WORK/numpy"
    export PYTHONPATH="$WORK/numpy"
    packages="$(dist_packages)"
    arguments+=(
        "-DPYTHON3_EXECUTABLE=/usr/bin/python$(python_version)" -DBUILD_opencv_python3=ON
        "-DPYTHON3_INCLUDE_DIR=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include", "posix_prefix"))')"
        "-DPYTHON3_NUMPY_INCLUDE_DIRS=$(python3 -c 'import numpy; print(numpy.get_include())')"
        "-DOPENCV_PYTHON3_INSTALL_PATH=${packages#/usr/local/}"
    )
    [[ -f "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include", "posix_prefix"))')/Python.h" ]] ||
        die "opencv: Python.h is missing, which the package libpython$(python_version)-dev brings; synchronise again"
else
    arguments+=(-DBUILD_opencv_python3=OFF)
fi
if command -v ninja > /dev/null; then arguments+=(-G Ninja); fi
if command -v ccache > /dev/null; then arguments+=(-DENABLE_CCACHE=ON); fi

build="$WORK/opencv-build"
log="$WORK/configure.log"
say "opencv $found: cmake ${arguments[*]} ${options[*]}"
# The options of the preset come last and override the others.
cmake -S "$WORK/opencv" -B "$build" "${arguments[@]}" "${options[@]}" > "$log" 2>&1 || {
    tail -n 60 "$log" >&2
    die "opencv: configure failed"
}
sed -n '/General configuration for OpenCV/,$p' "$log"

if grep -h '^#cmake_download' "$build/CMakeDownloadLog.txt" 2> /dev/null; then
    die "opencv: configure tried to download the files above. Add each as a source named opencv-cache-ID, or" \
        "disable the feature that needs it (WITH_IPP, WITH_ADE, BUILD_opencv_…) in opencv.cmake"
fi
# configured PATTERN: return true if a line of the summary matches.
configured() { grep -qE "^--[[:space:]]+$1" "$log"; }
built=";$(sed -n 's/^OPENCV_MODULES_BUILD:INTERNAL=//p' "$build/CMakeCache.txt");"
for module in "${modules[@]}"; do
    [[ "$built" == *";opencv_$module;"* ]] || die "opencv: the module $module is asked for but configure left it out"
done
if wants python3; then
    [[ "$built" == *";opencv_python3;"* ]] || die "opencv: configure left the Python bindings out"
fi
if [[ -n "$ffmpeg" ]]; then configured 'FFMPEG:[[:space:]]+YES' || die "opencv: configure did not take FFmpeg of $ffmpeg"; fi
if flag opencv.cuda; then
    configured 'NVIDIA CUDA:[[:space:]]+YES' || die "opencv: CUDA is asked for but configure went without"
    summary="$(sed -nE 's/^--[[:space:]]+NVIDIA GPU arch:[[:space:]]+//p' "$log")"
    for architecture in "${architectures[@]}"; do
        [[ " $summary " == *" ${architecture//./} "* ]] ||
            die "opencv: GPU architecture $architecture is asked for, configure has: $summary"
    done
    if flag dnn; then configured 'cuDNN:[[:space:]]+YES' || die "opencv: DNN on CUDA is asked for but configure found no cuDNN"; fi
fi

logged "$WORK/make.log" cmake --build "$build" --parallel "$(jobs_count)" || {
    grep -E -B 2 -A 12 -m 5 'error:|FAILED:|Error [0-9]' "$WORK/make.log" >&2 || tail -n 40 "$WORK/make.log" >&2
    die "opencv: the build failed"
}
DESTDIR="$OUT/dev" cmake --install "$build" --strip > "$WORK/install.log"

# Import cv2 from its final path. With CUDA this works only on a machine with a GPU driver.
if wants python3 && ! flag opencv.cuda; then
    # Do not use -I: PYTHONPATH names the temporary NumPy. Copy the files, because the library paths are absolute.
    cp -a "$OUT/dev/usr/local/." /usr/local/
    ldconfig
    python3 -B -c 'import cv2; print("gapforge: cv2", cv2.__version__, "loads")'
fi
keep_sources opencv
rm -rf "$OUT/dev/usr/src/gapforge/opencv/wheels"
split_runtime
rm -f "$OUT/runtime/usr/local/bin/opencv_version" "$OUT/runtime/usr/local/bin/setup_vars_opencv4.sh"
finish
