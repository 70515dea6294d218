# The one Dockerfile of gapforge: everything that it consumes lies in the build context, nothing comes from a network.
#
# `gapforge build` lays out the context (docs/architecture.md, "The context") and renders this file into it: the two
# lines that begin with "# gapforge:" become the build arguments and secret mounts that the preset's application
# names. The file is valid as it stands, so it can be read, and be built by hand in a context made by `gapforge plan`:
#
#   DOCKER_BUILDKIT=1 docker build --network=none --target runtime \
#       --build-arg BUILDER_BASE=… --build-arg RUNTIME_BASE=… .gapforge/context/PRESET
#
# Rules that a lint holds (gapforge refuses a Dockerfile that breaks one): no "syntax" line (it pulls a frontend), no ADD of an address, no RUN with a network of its own.
#
# A component stage mounts its own folder of the context and nothing else, so its cache key is what it consumes.
# Its build.sh leaves /out/dev (everything) and /out/runtime (no headers, static libraries, pkg-config or CMake files).

# Base images are loaded under local names ("localhost/…" is never looked up in a registry). There is no default: a
# builder would ask a registry for it.
ARG BUILDER_BASE
ARG RUNTIME_BASE


# toolchain: the builder base, its .debs, and the preset's Python as python and python3.
FROM ${BUILDER_BASE} AS toolchain
RUN --mount=type=bind,source=inputs/apt-builder,target=/in bash /in/build.sh
RUN --mount=type=bind,source=inputs/python,target=/in bash /in/build.sh


# wheels, tensorrt, ffmpeg: siblings, built side by side.
FROM toolchain AS wheels
RUN --mount=type=bind,source=inputs/wheels,target=/in bash /in/build.sh

FROM toolchain AS tensorrt
RUN --mount=type=bind,source=inputs/tensorrt,target=/in bash /in/build.sh

FROM toolchain AS ffmpeg
RUN --mount=type=bind,source=inputs/ffmpeg,target=/in \
    --mount=type=cache,id=gapforge-ccache,target=/var/cache/ccache \
    bash /in/build.sh


# opencv: after ffmpeg, because it links our FFmpeg.
FROM toolchain AS opencv
COPY --from=ffmpeg /out/dev/ /
RUN --mount=type=bind,source=inputs/opencv,target=/in \
    --mount=type=cache,id=gapforge-ccache,target=/var/cache/ccache \
    bash /in/build.sh


# devbase: the toolchain with every component in it. What the application is compiled in.
FROM toolchain AS devbase
COPY --from=wheels /out/dev/ /
COPY --from=tensorrt /out/dev/ /
COPY --from=ffmpeg /out/dev/ /
COPY --from=opencv /out/dev/ /
# BuildKit leaves the empty folder that inputs were mounted on.
RUN ldconfig; if [ -d /in ]; then rmdir /in; fi
# find_path and find_library of CMake look here; the folder is absent without TensorRT (or with its .debs).
ENV CMAKE_PREFIX_PATH=/usr/local/tensorrt


# application: the only stage that sees build arguments and secrets. Neither image descends from it, so the values
# stand in no history; what they copy from it is /out alone.
FROM devbase AS application
# gapforge:build-args
RUN --mount=type=bind,source=inputs/application,target=/in \
    # gapforge:secret-mounts
    --mount=type=cache,id=gapforge-ccache,target=/var/cache/ccache \
    bash /in/build.sh


# builder: the dev image. Compiler, headers, the components' sources in /usr/src/gapforge, the application's in
# /workspace, and `build-application` to build it again.
FROM devbase AS builder
COPY --from=application /out/dev/ /
RUN ldconfig
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
WORKDIR /workspace
# The base's entry point prints a banner on standard output, which breaks programs that write there.
ENTRYPOINT []
CMD ["bash"]


# runtime: the runtime base and what the programs need at run time.
FROM ${RUNTIME_BASE} AS runtime
RUN --mount=type=bind,source=inputs/apt-runtime,target=/in bash /in/build.sh
RUN --mount=type=bind,source=inputs/python,target=/in bash /in/build.sh
COPY --from=wheels /out/runtime/ /
COPY --from=tensorrt /out/runtime/ /
COPY --from=ffmpeg /out/runtime/ /
COPY --from=opencv /out/runtime/ /
COPY --from=application /out/runtime/ /
# The user is "app", 1000:1000, whatever name the base may have given to that number. Headers that a base carries
# (CUDA's runtime packages have some) are no use without a compiler; Python's own pyconfig.h belongs to Python.
RUN set -eu; \
    group="$(getent group 1000 | cut -d: -f1)"; user="$(getent passwd 1000 | cut -d: -f1)"; \
    if [ -z "$group" ]; then groupadd --gid 1000 app; elif [ "$group" != app ]; then groupmod --new-name app "$group"; fi; \
    if [ -z "$user" ]; then useradd --uid 1000 --gid 1000 --no-create-home --home-dir /home/app --shell /bin/bash app; \
    else usermod --login app --gid 1000 --home /home/app "$user"; fi; \
    install -d -o 1000 -g 1000 -m 0755 /home/app /data; \
    for folder in /usr /opt; do \
        if [ -d "$folder" ]; then find "$folder" -xdev -type f ! -name pyconfig.h \( -name '*.h' -o -name '*.hpp' -o -name '*.cuh' -o -name '*.a' \) -delete; fi; \
    done; \
    ldconfig; \
    if [ -d /in ]; then rmdir /in; fi; \
    rm -rf /var/cache/ldconfig/aux-cache /var/lib/apt/lists/* /var/log/lastlog /var/log/faillog
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
# By number, so that "must not run as root" policies can see it without reading /etc/passwd.
USER 1000:1000
WORKDIR /data
ENTRYPOINT []
CMD ["/usr/local/bin/application"]
