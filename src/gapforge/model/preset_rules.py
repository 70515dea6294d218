"""The rules that no shape can express: keys of a preset that need, exclude or repeat each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gapforge.base.errors import Fault
from gapforge.base.i18n import _
from gapforge.base.path_checks import unsafe_path_reason
from gapforge.model.component import Component, Needs
from gapforge.model.names import ROLES, STEERING
from gapforge.model.preset_shape import OWN_KEYS
from gapforge.model.schema import nearest
from gapforge.model.text_shapes import FILE

TARGET_OS = ("ubuntu", "22.04")
_BUILD_TOOLS = ("cmake", "meson", "make")  # their options are under keys of the same names
CHECK_FILES = ("clip", "output", "summary")  # what {NAME} stands for in application.check
_PLACEHOLDERS = " ".join(f"{{{name}}}" for name in CHECK_FILES)
_OWN_PROGRAMS = ("application", "build-application")  # gapforge's in /usr/local/bin of an image

Report = Callable[[str, str, str], None]  # takes a JSON path, the problem, and what is expected


def file_name(source: Mapping[str, Any]) -> str:
    """Return a source archive's file name: its "file", the end of its first URL, or ""."""
    file: str = source.get("file", "")
    if not file and "urls" in source:
        file = source["urls"][0].split("?")[0].split("#")[0].rstrip("/").rsplit("/", 1)[-1]
    return file


def option_places(raw: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield the name, the JSON path, and the options (or None) of each component that is given."""
    for name, options in raw.items():
        if name not in OWN_KEYS:
            yield name, f"$.{name}", options
    for name, options in raw.get("components", {}).items():
        yield name, f"$.components.{name}", options


def written_options(raw: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return a component's options in a raw preset, to be changed in place, or None."""
    found = (options for given, _path, options in option_places(raw) if given == name)
    return next((options for options in found if options is not None), None)


def broken_rules(
    raw: Mapping[str, Any], shown: str, stem: str, components: Sequence[Component] | None
) -> list[Fault]:
    """Return a fault for each rule that a document of valid shape breaks.

    ``shown`` is the file's name in messages, ``stem`` the preset name that the file's name gives.
    """
    faults: list[Fault] = []

    def report(path: str, problem: str, expected: str = "") -> None:
        faults.append(Fault(f"{shown}: {path}", problem, expected))

    if raw["name"] != stem:
        problem = _('is "{name}" but the file is {stem}.json', name=raw["name"], stem=stem)
        report("$.name", problem, f'"{stem}"')
    practice = raw["practice"]
    target = (raw["os"]["id"], raw["os"]["version"])
    if target != TARGET_OS and not practice:
        report(
            "$.os",
            _("{target} is not the target operating system", target=" ".join(target)),
            _('ubuntu 22.04, or "practice": true for an image that is not for delivery'),
        )
    for name, source in raw["sources"].items():
        _check_source(f"$.sources.{name}", source, report)
    for role in ROLES:
        if raw["base"][role].get("archive", "").startswith("/") and not practice:
            report(
                f"$.base.{role}.archive",
                _("is an absolute path, which other machines do not have"),
                _("a path inside the project"),
            )
    _check_torch(raw, report)
    _check_tensorrt(raw, report)
    _check_components(raw, components or (), report)
    if raw["application"] is not None:
        _check_application(raw["application"], report)
    return faults


def is_cpu_torch(torch: Mapping[str, Any]) -> bool:
    """Return whether the version or the index of a preset's ``pytorch`` names the CPU build."""
    _version, named, build = str(torch["torch"]).partition("+")
    return build == "cpu" if named else str(torch.get("index", "")).rstrip("/").endswith("/cpu")


def _check_torch(raw: Mapping[str, Any], report: Report) -> None:
    """Report PyTorch without an index, or for the CPU in an image with CUDA: its check fails."""
    torch, cuda = raw.get("pytorch"), raw.get("cuda")
    if torch and "index" not in torch:
        report(
            "$.pytorch.index",
            _("is missing, and the catalog has no torch {version}", version=torch["torch"]),
            _(
                '"index": "default" or the address of PyTorch\'s index, with "torchvision" and '
                '"torchaudio" if the image needs them'
            ),
        )
    if torch and cuda and is_cpu_torch(torch):
        version = torch["torch"].partition("+")[0]
        build = "cu" + "".join(cuda.split(".")[:2])
        report(
            "$.pytorch",
            _(
                "torch {version} is for the CPU, but the image has CUDA {cuda}",
                version=version,
                cuda=cuda,
            ),
            _(
                '"torch": "{version}+{build}" with its index, or "cuda": null',
                version=version,
                build=build,
            ),
        )


def _missing_source(name: str, option: str) -> tuple[str, str]:
    """Return problem and expected value where ``option`` needs a source archive."""
    problem = _('has no "{source}", which {option} needs', source=name, option=option)
    example = f'{{"{name}": {{"urls": ["https://…"], "sha256": "…"}}}}'
    expected = _(
        'a version that the catalog has an archive for, or one in the preset: "sources": {example}',
        example=example,
    )
    return problem, expected


def _check_source(path: str, source: Mapping[str, Any], report: Report) -> None:
    if "urls" in source:
        if source["sha256"] is None and "trust" not in source:
            expected = _('a checksum, or "trust": "first-use" to trust the first download')
            report(f"{path}.sha256", _("is null"), expected)
        if source["sha256"] is not None and "trust" in source:
            report(f"{path}.trust", _("is given beside a checksum"), _("one or the other"))
        file = file_name(source)
        if not FILE.matches(file):
            problem = _('does not end in a valid file name: "{file}"', file=file)
            report(f"{path}.urls[0]", problem, _('a "file" key beside it'))
    if "folder" in source and (reason := unsafe_path_reason(source["folder"])):
        report(
            f"{path}.folder", _('"{folder}": {reason}', folder=source["folder"], reason=reason), ""
        )


def _check_tensorrt(raw: Mapping[str, Any], report: Report) -> None:
    tensorrt = raw.get("tensorrt")
    if tensorrt and tensorrt["form"] == "tar" and "tensorrt" not in raw["sources"]:
        report("$.sources", *_missing_source("tensorrt", '$.tensorrt (form "tar")'))
    if tensorrt and tensorrt["form"] == "deb" and not tensorrt.get("runtime"):
        expected = _("the packages to install, such as libnvinfer8=8.6.1.6-1+cuda11.8")
        report("$.tensorrt.runtime", _("is empty"), expected)


def _check_application(application: Mapping[str, Any], report: Report) -> None:
    secrets = Counter(s["key"] for s in application.get("secrets", ()))
    for key in sorted(key for key, count in secrets.items() if count > 1):
        report("$.application.secrets", _('"{key}" is listed twice', key=key), _("each key once"))
    for index, secret in enumerate(application.get("secrets", ())):
        key, passed = secret["key"], secret["pass"]
        if passed == "build-arg" and STEERING.fullmatch(key):
            report(
                f"$.application.secrets[{index}].key",
                _(
                    '"{name}" cannot be a build argument: it changes how the docker client works',
                    name=key,
                ),
                _('another name, or "pass": "secret"'),
            )
    build = application.get("build", "cmake")
    if build.startswith("./") and (reason := unsafe_path_reason(build)):
        report("$.application.build", _('"{folder}": {reason}', folder=build, reason=reason), "")
    for tool in _BUILD_TOOLS:
        if tool in application and tool != build:
            problem = _("is given, but the application is built with {build}", build=build)
            report(f"$.application.{tool}", problem, f'"build": "{tool}"')
    for index, word in enumerate(application.get("check", ())):
        for name in re.findall(r"\{([a-z_]+)\}", word):
            if name not in CHECK_FILES and (near := nearest(name, CHECK_FILES)):
                unknown = f"{{{name}}}"
                problem = _("{placeholder} is unknown{close}", placeholder=unknown, close=near)
                report(f"$.application.check[{index}]", problem, _PLACEHOLDERS)
    place, program = "$.application.name", application["name"]
    if "command" in application:
        place, program = "$.application.command[0]", application["command"][0]
    if program.removeprefix("/usr/local/bin/") in _OWN_PROGRAMS:
        report(
            place,
            _('"{program}" is a program of gapforge in the image', program=program),
            _('a program of another name; "command" names it if "name" does not'),
        )


def _check_components(
    raw: Mapping[str, Any], components: Sequence[Component], report: Report
) -> None:
    """Report unmet needs of components and of set options, and options that are given twice."""
    known = {c.asked_by: c for c in components if c.asked_by}
    paths: dict[str, str] = {}
    for name, path, values in option_places(raw):
        if name in paths:
            report(path, _("is also given as {path}", path=paths[name]), _("one or the other"))
        paths[name] = path
        if name not in known or values is None:
            continue
        component = known[name]
        given = {**component.defaults, **values}
        options = component.options or ()
        empty = {option.name: option.about for option in options if not given.get(option.name)}
        _check_needs(component.needs, path, path, raw, empty, report)
        for option in options:
            if option.name not in empty:
                _check_needs(option.needs, f"{path}.{option.name}", path, raw, empty, report)


def _check_needs(
    needs: Needs,
    where: str,
    component: str,
    raw: Mapping[str, Any],
    empty: Mapping[str, str],
    report: Report,
) -> None:
    """Report what ``where`` needs and the preset lacks.

    ``where`` is the JSON path of the ``component`` or of one of its options. ``empty`` are the
    options of the component that are not set, each with its description.
    """
    for source in needs.sources:
        if source not in raw["sources"]:
            report("$.sources", *_missing_source(source, where))
    for name, about in empty.items():
        if name in needs.options:
            problem = _("is empty, but {option} needs it", option=where)
            report(f"{component}.{name}", problem, _(about))
    for key in needs.preset:
        if not raw.get(key):
            problem = _('is set, but the preset has no "{key}"', key=key)
            report(where, problem, _('a "{key}" in the preset, or not this option', key=key))
