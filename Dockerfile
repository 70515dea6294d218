# Build the builder and the runtime image from the build context alone, without a network.
#
# `gapforge build` creates the build context (docs/architecture.en.md, "The build context") and writes this file into
# it. The two lines that begin with "# gapforge:" are replaced with the build arguments and secret mounts that the
# application of the preset declares. This file is valid without the replacement. To build it by hand, create a build
# context with `gapforge plan` and run:
#
#   DOCKER_BUILDKIT=1 docker build --network=none --target runtime \
#       --build-arg BUILDER_BASE=… --build-arg RUNTIME_BASE=… .gapforge/context/PRESET
#
# Each preset has compile caches of its own, so gapforge also inserts its name in the id of a cache. The application has
# one for itself, because its code could put objects into the cache that FFmpeg or OpenCV would take.
#
# gapforge refuses a Dockerfile with a "syntax" line (it downloads a frontend), an ADD of a URL, or a RUN with its own
# network setting.
#
# The stage of a component mounts only its own folder of the build context. Its cache key is therefore its own input.
# build.sh creates /out/dev (everything) and /out/runtime (no headers, static libraries, pkg-config or CMake files).

# The base images are loaded under local names, because an engine never looks up "localhost/…" in a registry. There is
# no default value, because the engine would request it from a registry.
ARG BUILDER_BASE
ARG RUNTIME_BASE


# toolchain: the builder base image, its .debs, and the Python of the preset as python and python3.
FROM ${BUILDER_BASE} AS toolchain
# A base image may set another user and shell for RUN. The dev image keeps root.
USER 0:0
SHELL ["/bin/sh", "-c"]
RUN --mount=type=bind,source=inputs/apt-builder,target=/in bash /in/build.sh
RUN --mount=type=bind,source=inputs/python,target=/in bash /in/build.sh


# wheels, tensorrt, ffmpeg: independent stages that the engine builds in parallel.
FROM toolchain AS wheels
RUN --mount=type=bind,source=inputs/wheels,target=/in bash /in/build.sh

FROM toolchain AS tensorrt
RUN --mount=type=bind,source=inputs/tensorrt,target=/in bash /in/build.sh

FROM toolchain AS ffmpeg
RUN --mount=type=bind,source=inputs/ffmpeg,target=/in \
    --mount=type=cache,id=gapforge-ccache-components,target=/var/cache/ccache \
    bash /in/build.sh


# opencv: follows ffmpeg, because OpenCV links to the FFmpeg of this image.
FROM toolchain AS opencv
COPY --from=ffmpeg /out/dev/ /
RUN --mount=type=bind,source=inputs/opencv,target=/in \
    --mount=type=cache,id=gapforge-ccache-components,target=/var/cache/ccache \
    bash /in/build.sh


# devbase: the toolchain with every component. The application is compiled in it.
FROM toolchain AS devbase
COPY --from=wheels /out/dev/ /
COPY --from=tensorrt /out/dev/ /
COPY --from=ffmpeg /out/dev/ /
COPY --from=opencv /out/dev/ /
# BuildKit leaves the empty mount point of the inputs behind.
RUN ldconfig; if [ -d /in ]; then rmdir /in; fi
# find_path and find_library of CMake search this folder. It exists only if TensorRT comes from its tar.
ENV CMAKE_PREFIX_PATH=/usr/local/tensorrt


# application: the only stage that receives build arguments and secrets. No image is based on it, so no image history
# contains the values. The images copy only /out from it.
FROM devbase AS application
# gapforge:build-args
RUN --mount=type=bind,source=inputs/application,target=/in \
    # gapforge:secret-mounts
    --mount=type=cache,id=gapforge-ccache-application,target=/var/cache/ccache \
    bash /in/build.sh


# needs: which packages of the builder own the libraries that the files of the runtime image need. devbase has everything
# that they were linked to, at its final path.
FROM devbase AS needs
RUN --mount=type=bind,source=inputs/libraries,target=/in \
    --mount=type=bind,from=wheels,source=/out/runtime,target=/trees/wheels \
    --mount=type=bind,from=tensorrt,source=/out/runtime,target=/trees/tensorrt \
    --mount=type=bind,from=ffmpeg,source=/out/runtime,target=/trees/ffmpeg \
    --mount=type=bind,from=opencv,source=/out/runtime,target=/trees/opencv \
    --mount=type=bind,from=application,source=/out/runtime,target=/trees/application \
    bash /in/build.sh


# builder: the dev image with compiler, headers, the sources of the components in /usr/src/gapforge, the source of the
# application in /workspace, and `build-application` to build it again.
FROM devbase AS builder
COPY --from=application /out/dev/ /
RUN ldconfig
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
WORKDIR /workspace
# The entry point of the base image prints a banner on standard output, where programs write their results.
ENTRYPOINT []
CMD ["bash"]


# runtime: the runtime base image and the files that programs need at run time.
FROM ${RUNTIME_BASE} AS runtime
USER 0:0
SHELL ["/bin/sh", "-c"]
# Remove the headers of the base image (the runtime packages of CUDA contain some), because there is no compiler. Keep
# pyconfig.h for Python, and what Python packages have for themselves. What .debs, components and the application bring
# comes afterwards and stays.
RUN set -eu; for folder in /usr /opt; do \
        if [ -d "$folder" ]; then find "$folder" -xdev -type f ! -name pyconfig.h ! -path '*-packages/*' \( -name '*.h' -o -name '*.hpp' -o -name '*.cuh' -o -name '*.a' \) -delete; fi; \
    done
# The packages that the preset names, while the components are compiled.
RUN --mount=type=bind,source=inputs/apt-runtime,target=/in bash /in/build.sh
RUN --mount=type=bind,source=inputs/python,target=/in bash /in/build.sh
# The packages of the libraries that the files below need. As long as the list stays the same, the layer does, too.
RUN --mount=type=bind,source=inputs/apt-runtime,target=/in \
    --mount=type=bind,from=needs,source=/out,target=/needs \
    bash /in/build.sh /needs/libraries.tsv
COPY --from=wheels /out/runtime/ /
COPY --from=tensorrt /out/runtime/ /
COPY --from=ffmpeg /out/runtime/ /
COPY --from=opencv /out/runtime/ /
COPY --from=application /out/runtime/ /
# The user is "app" (1000:1000), even if the base image uses another name for this number.
RUN set -eu; \
    group="$(getent group 1000 | cut -d: -f1)"; user="$(getent passwd 1000 | cut -d: -f1)"; \
    if [ -z "$group" ]; then groupadd --gid 1000 app; elif [ "$group" != app ]; then groupmod --new-name app "$group"; fi; \
    if [ -z "$user" ]; then useradd --uid 1000 --gid 1000 --no-create-home --home-dir /home/app --shell /bin/bash app; \
    else usermod --login app --gid 1000 --home /home/app "$user"; fi; \
    install -d -o 1000 -g 1000 -m 0755 /home/app /data; \
    ldconfig; \
    for folder in /in /needs; do if [ -d "$folder" ]; then rmdir "$folder"; fi; done; \
    rm -rf /var/cache/ldconfig/aux-cache /var/lib/apt/lists/* /var/log/lastlog /var/log/faillog
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
# Use numbers, so that a "must not run as root" policy can decide without reading /etc/passwd.
USER 1000:1000
WORKDIR /data
ENTRYPOINT []
CMD ["/usr/local/bin/application"]
