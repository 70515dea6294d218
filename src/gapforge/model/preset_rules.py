"""The rules that a preset must keep and that its shape alone cannot see: keys that need, exclude or repeat each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from gapforge.base.errors import Fault
from gapforge.base.files import unsafe_path_reason
from gapforge.base.text import josa, tr

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
        fault("$.name", tr(f'"{raw["name"]}"인데 파일은 {stem}.json임', f'is "{raw["name"]}" but the file is {stem}.json'),
              f'"{stem}"')  # fmt: skip
    target = (raw["os"]["id"], raw["os"]["version"])
    if target != TARGET_OS and not raw.get("practice", False):
        fault("$.os", tr(f"{josa(' '.join(target), '은', '는')} 대상 운영 체제가 아님", f"{' '.join(target)} is not the target"),
              tr('ubuntu 22.04, 또는 넘기지 않을 연습용 이미지라면 "practice": true',
                 'ubuntu 22.04, or "practice": true for an image that is never delivered'))  # fmt: skip
    for name, source in raw["sources"].items():
        _source(f"$.sources.{name}", source, fault)
    for role in ("builder", "runtime"):
        base = raw["base"][role]
        if "archive" in base and base["archive"].startswith("/") and not raw.get("practice", False):
            fault(f"$.base.{role}.archive",
                  tr("절대 경로임(프리셋을 한 컴퓨터에서만 쓸 수 있게 됨)", "is absolute; the preset would work on one machine only"),
                  tr("프로젝트 안의 경로", "a path inside the project"))  # fmt: skip
    for part in ("ffmpeg", "opencv"):
        if raw.get(part) and part not in raw["sources"]:
            fault("$.sources", tr(f'"{part}" 없음($.{part} 빌드에 필요함)', f'has no "{part}", which $.{part} is built from'),
                  _source_named(part))  # fmt: skip
    _tensorrt(raw, fault)
    _opencv(raw, fault)
    secrets = [s["key"] for s in raw["application"].get("secrets", ())]
    for key in sorted({k for k in secrets if secrets.count(k) > 1}):
        fault(
            "$.application.secrets",
            tr(f'두 번 적혀 있음: "{key}"', f'names "{key}" twice'),
            tr("키마다 한 번", "each key once"),
        )
    return faults


def _source_named(name: str) -> str:
    return tr(f'이름이 "{name}"인 소스', f'a source named "{name}"')


def _source(path: str, source: Mapping[str, Any], fault: Callable[..., None]) -> None:
    if "urls" in source:
        if source["sha256"] is None and "trust" not in source:
            fault(f"{path}.sha256", tr("null임", "is null"),
                  tr('해시, 또는 처음 받은 것을 기록하려면 "trust": "first-use"',
                     'a hash, or "trust": "first-use" to record what is seen first'))  # fmt: skip
        if source["sha256"] is not None and "trust" in source:
            fault(
                f"{path}.trust",
                tr("해시와 함께 적혀 있음", "stands beside a hash"),
                tr("둘 중 하나", "one or the other"),
            )
        file = file_name(source)
        if not re.fullmatch(FILE_NAME, file):
            fault(f"{path}.urls[0]", tr(f'쓸 수 있는 파일 이름으로 끝나지 않음("{file}")', f'ends in no usable file name ("{file}")'),
                  tr('옆에 "file" 키', 'a "file" key beside it'))  # fmt: skip
    if "folder" in source and (reason := unsafe_path_reason(source["folder"])):
        fault(f"{path}.folder", tr(f'"{source["folder"]}": {reason}', f'"{source["folder"]}" {reason}'))


def _tensorrt(raw: Mapping[str, Any], fault: Callable[..., None]) -> None:
    trt = raw.get("tensorrt")
    if trt and trt["form"] == "tar" and "tensorrt" not in raw["sources"]:
        fault("$.sources", tr('"tensorrt" 없음(form이 "tar"인 $.tensorrt에 필요함)',
                              'has no "tensorrt", which $.tensorrt (form tar) unpacks'), _source_named("tensorrt"))  # fmt: skip
    if trt and trt["form"] == "deb" and not trt.get("runtime"):
        fault("$.tensorrt.runtime", tr("비어 있음", "is empty"),
              tr("설치할 패키지, 예: libnvinfer8=8.6.1.6-1+cuda11.8",
                 "the packages to install, such as libnvinfer8=8.6.1.6-1+cuda11.8"))  # fmt: skip


def _opencv(raw: Mapping[str, Any], fault: Callable[..., None]) -> None:
    opencv = raw.get("opencv")
    if not opencv:
        return
    if opencv.get("contrib") and "opencv-contrib" not in raw["sources"]:
        fault("$.sources", tr('"opencv-contrib" 없음($.opencv.contrib에 필요함)',
                              'has no "opencv-contrib", which $.opencv.contrib needs'), _source_named("opencv-contrib"))  # fmt: skip
    if opencv.get("cuda") and not opencv.get("architectures"):
        fault("$.opencv.architectures", tr("cuda가 true인데 비어 있음", "is empty although cuda is true"),
              tr('GPU 아키텍처, 예: ["7.5", "8.6"]', 'GPU architectures such as ["7.5", "8.6"]'))  # fmt: skip
    if opencv.get("cuda") and not raw.get("cuda"):
        fault("$.opencv.cuda", tr("true인데 프리셋에 CUDA가 없음", "is true but the preset has no CUDA"),
              tr('"cuda" 버전, 또는 false', 'a "cuda" version, or false'))  # fmt: skip
