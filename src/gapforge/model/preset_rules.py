"""The rules that a preset must keep and that its shape alone cannot see: keys that need, exclude or repeat each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from gapforge.base.errors import Fault
from gapforge.base.files import unsafe_path_reason
from gapforge.base.i18n import _

TARGET_OS = ("ubuntu", "22.04")
FILE_NAME = r"[A-Za-z0-9_][A-Za-z0-9._+~-]*"


def file_name(source: Mapping[str, Any]) -> str:
    """The artifact's name of a raw source archive: its "file", else the end of its first address; "" for neither."""
    file: str = source.get("file", "")
    if not file and "urls" in source:
        file = source["urls"][0].split("?")[0].split("#")[0].rstrip("/").rsplit("/", 1)[-1]
    return file


def broken_rules(raw: Mapping[str, Any], shown: str, stem: str) -> list[Fault]:
    """Every rule that a document breaks which PRESET_SHAPE has accepted. ``stem`` is the name that its file gives it."""
    faults: list[Fault] = []

    def fault(path: str, problem: str, expected: str = "") -> None:
        faults.append(Fault(f"{shown}: {path}", problem, expected))

    if raw["name"] != stem:
        fault(
            "$.name",
            _('is "{name}" but the file is {stem}.json', name=raw["name"], stem=stem),
            f'"{stem}"',
        )
    target = (raw["os"]["id"], raw["os"]["version"])
    if target != TARGET_OS and not raw.get("practice", False):
        fault(
            "$.os",
            _("{target} is not the target", target=" ".join(target)),
            _('ubuntu 22.04, or "practice": true for an image that is never delivered'),
        )
    for name, source in raw["sources"].items():
        _source(f"$.sources.{name}", source, fault)
    for role in ("builder", "runtime"):
        base = raw["base"][role]
        if "archive" in base and base["archive"].startswith("/") and not raw.get("practice", False):
            fault(
                f"$.base.{role}.archive",
                _("is absolute; the preset would work on one machine only"),
                _("a path inside the project"),
            )
    for part in ("ffmpeg", "opencv"):
        if raw.get(part) and part not in raw["sources"]:
            fault(
                "$.sources",
                _('has no "{part}", which $.{part} is built from', part=part),
                _source_named(part),
            )
    _tensorrt(raw, fault)
    _opencv(raw, fault)
    secrets = [s["key"] for s in raw["application"].get("secrets", ())]
    for key in sorted({k for k in secrets if secrets.count(k) > 1}):
        fault("$.application.secrets", _('names "{key}" twice', key=key), _("each key once"))
    return faults


def _source_named(name: str) -> str:
    return _('a source named "{name}"', name=name)


def _source(path: str, source: Mapping[str, Any], fault: Callable[..., None]) -> None:
    if "urls" in source:
        if source["sha256"] is None and "trust" not in source:
            fault(
                f"{path}.sha256",
                _("is null"),
                _('a hash, or "trust": "first-use" to record what is seen first'),
            )
        if source["sha256"] is not None and "trust" in source:
            fault(f"{path}.trust", _("stands beside a hash"), _("one or the other"))
        file = file_name(source)
        if not re.fullmatch(FILE_NAME, file):
            fault(
                f"{path}.urls[0]",
                _('ends in no usable file name ("{file}")', file=file),
                _('a "file" key beside it'),
            )
    if "folder" in source and (reason := unsafe_path_reason(source["folder"])):
        fault(f"{path}.folder", _('"{folder}": {reason}', folder=source["folder"], reason=reason))


def _tensorrt(raw: Mapping[str, Any], fault: Callable[..., None]) -> None:
    trt = raw.get("tensorrt")
    if trt and trt["form"] == "tar" and "tensorrt" not in raw["sources"]:
        fault(
            "$.sources",
            _('has no "tensorrt", which $.tensorrt (form tar) unpacks'),
            _source_named("tensorrt"),
        )
    if trt and trt["form"] == "deb" and not trt.get("runtime"):
        fault(
            "$.tensorrt.runtime",
            _("is empty"),
            _("the packages to install, such as libnvinfer8=8.6.1.6-1+cuda11.8"),
        )


def _opencv(raw: Mapping[str, Any], fault: Callable[..., None]) -> None:
    opencv = raw.get("opencv")
    if not opencv:
        return
    if opencv.get("contrib") and "opencv-contrib" not in raw["sources"]:
        fault(
            "$.sources",
            _('has no "opencv-contrib", which $.opencv.contrib needs'),
            _source_named("opencv-contrib"),
        )
    if opencv.get("cuda") and not opencv.get("architectures"):
        fault(
            "$.opencv.architectures",
            _("is empty although cuda is true"),
            _('GPU architectures such as ["7.5", "8.6"]'),
        )
    if opencv.get("cuda") and not raw.get("cuda"):
        fault(
            "$.opencv.cuda",
            _("is true but the preset has no CUDA"),
            _('a "cuda" version, or false'),
        )
