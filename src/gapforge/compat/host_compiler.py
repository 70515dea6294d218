"""Check the C++ compiler that nvcc calls for the code of the host."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gapforge.base.i18n import _
from gapforge.compat.findings import Finding, error, warning
from gapforge.model.catalog import Catalog
from gapforge.model.preset import Options, Preset
from gapforge.model.versions import key, minor

# By component: the list of options that may name the compiler, patterns of those options (the
# decisive one first), and an option that names it. Without a CUDA_HOST_COMPILER, CMake passes its C
# compiler on to nvcc (FindCUDA of CMake 3.22).
_NAMES_COMPILER = {
    "opencv": (
        "cmake",
        (
            r"-DC(?:MAKE_C)?UDA_HOST_COMPILER(?::\w+)?=(\S+)",
            r"-DCMAKE_C_COMPILER(?::\w+)?=(\S+)",
            r"-DCMAKE_CXX_COMPILER(?::\w+)?=(\S+)",
        ),
        "-DCUDA_HOST_COMPILER=/usr/bin/g++-{gcc}",
    ),
    "ffmpeg": (
        "configure",
        (r"--nvcc(?:flags)?=.*?-(?:ccbin|-compiler-bindir)[= ]\s*(\S+)",),
        "--nvccflags=… -ccbin /usr/bin/g++-{gcc}",
    ),
}
_GCC = re.compile(r"(?:[\w.-]+-)?(?:gcc|g\+\+|cc|c\+\+)(?:-([0-9]+)(?:\.[0-9.]+)?)?")


def check(preset: Preset, catalog: Catalog) -> Iterator[Finding]:
    """Yield a finding for each component whose CUDA code gets a GCC that nvcc does not support.

    That GCC is the default one of the builder image, unless the component names another one. A
    package such as g++-12 beside it does not change the default.
    """
    newest = catalog.host_gcc.get(minor(preset.cuda), "")
    default = _default_gcc(preset, catalog)
    for name, (option_list, patterns, option) in _NAMES_COMPILER.items():
        component = preset.component(name)
        if component is None or not preset.cuda or not _uses_nvcc(name, component):
            continue
        named = next(_named(patterns, component.list(option_list)), "")
        used = _gcc_version(named, default)
        place = f"{component.path}.{option_list}"
        path = place if named and used != default else "$.apt.builder"
        if not newest or not used:
            compiler = f"GCC {used}" if used else named
            reason = _(
                "the catalog does not know whether the nvcc of CUDA {cuda} supports {compiler}",
                cuda=preset.cuda,
                compiler=compiler or _("the default GCC of {os}", os=preset.os),
            )
            yield warning("compiler", path, reason)
        elif key(used) > key(newest):
            reason = _(
                "the nvcc of CUDA {cuda} supports GCC up to {newest}, but GCC {used} compiles "
                "{component}",
                cuda=preset.cuda,
                newest=newest,
                used=used,
                component=name,
            )
            suggestion = _(
                'add g++-{gcc} to apt.builder, and "{option}" to {place}',
                gcc=newest,
                option=option.format(gcc=newest),
                place=place.removeprefix("$."),
            )
            yield error("compiler", path, reason, suggestion)


def _uses_nvcc(name: str, component: Options) -> bool:
    if name == "opencv":
        return component.flag("cuda")
    return "--enable-cuda-nvcc" in component.list("configure")


def _named(patterns: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """Yield the compilers that options name, the decisive one first: of equal options the last."""
    for pattern in patterns:
        found = [match[1] for option in options if (match := re.match(pattern, option))]
        yield from reversed(found)


def _default_gcc(preset: Preset, catalog: Catalog) -> str:
    """Return the major version of gcc and g++ in the builder image, "" if unknown."""
    pins = (re.match(r"(?:gcc|g\+\+)=(?:[0-9]+:)?([0-9]+)", p) for p in preset.apt_builder)
    return next((pin[1] for pin in pins if pin), catalog.os_gcc.get(preset.os, ""))


def _gcc_version(named: str, default: str) -> str:
    """Return the major version of the GCC at a path, "" if it is unknown or no GCC."""
    if not named:
        return default
    match = _GCC.fullmatch(named.rpartition("/")[2])
    return (match[1] or default) if match else ""
