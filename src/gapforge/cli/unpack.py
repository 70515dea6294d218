"""`gapforge unpack`: import volumes at the site and lay out the presets that are whole."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gapforge.bundle.scan import Scan, look
from gapforge.bundle.unpack import Unpacked, clear_request, unpack, write_request
from gapforge.cli import copies
from gapforge.core.progress import Progress, human_bytes
from gapforge.core.project import Project
from gapforge.core.text import tr

HELP = {
    "ko": "날라 온 볼륨을 확인하며 들여와 artifacts/에 둡니다 (네트워크 불필요)",
    "en": "import carried volumes, verified, into artifacts/ (needs no network)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR",
                        help=tr("볼륨이 있는 폴더나 볼륨 파일, 순서는 상관없음",
                                "folders with volumes, or volumes, in any order"))  # fmt: skip
    parser.add_argument("--bundle", default="", metavar="ID",
                        help=tr("여러 묶음이 섞여 있을 때 들여올 것", "which one to import where several lie together"))  # fmt: skip
    parser.add_argument("--request", type=Path, metavar="FILE",
                        help=tr("빠진 것이 있을 때 복구 요청을 쓸 파일 (기본: artifacts/repair-ID.json)",
                                "where to write the repair request if anything lacks (default: artifacts/repair-ID.json)"))  # fmt: skip
    parser.add_argument("--json", action="store_true", help=tr("결과를 JSON으로 출력", "print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when all presets of the bundle are laid out; 21 when something of it lacks."""
    scan = look(args.folders, args.bundle)
    with Progress(f"unpack {scan.bundle}", quiet=args.json) as progress:
        result = unpack(project, scan, progress)
    request = write_request(project, result.request, args.request) if result.request is not None else None
    if result.complete:
        clear_request(project, result.bundle)
    error = result.error(request) if request is not None else None
    if args.json:
        document = _document(scan, result, request)
        if error is not None:
            document.update({k: v for k, v in error.to_json().items() if k != "exit_code"})
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _show(result, project)
    if error is not None:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    return 0


def _document(scan: Scan, result: Unpacked, request: Path | None) -> dict[str, Any]:
    return {
        "ok": result.complete, "bundle": result.bundle, "volumes": [str(v.path) for v in scan.volumes],
        "imported": result.imported, "imported_bytes": result.imported_bytes, "already": result.already,
        "broken": {str(path): why for path, why in result.broken.items()}, "missing_volumes": result.missing_volumes,
        "presets": result.presets, "incomplete": result.incomplete, "strangers": result.strangers,
        "request": str(request) if request is not None else None,
        "copies": {"files": result.copies, "bytes": result.copied},
    }  # fmt: skip


def _show(result: Unpacked, project: Project) -> None:
    size = human_bytes(result.imported_bytes)
    print(tr(f"묶음 {result.bundle}: 객체 {result.imported}개({size})를 들여왔고 {result.already}개는 이미 있었습니다",
             f"bundle {result.bundle}: {result.imported} objects imported, {size}; {result.already} were here already"))  # fmt: skip
    for name in result.presets:
        print(tr(f"{name}: 모두 {project.artifacts_of(name)}에 있습니다. 다음: ./gapforge verify {name}",
                 f"{name}: whole in {project.artifacts_of(name)}; next: ./gapforge verify {name}"))  # fmt: skip
    if result.copies:
        print(copies.note(result.copies, result.copied))
    if result.complete:
        for file, why in result.broken.items():
            print(tr(f"경고: {file}: {why}", f"warning: {file}: {why}"), file=sys.stderr)
    for name, paths in result.strangers.items():
        for path in paths:
            print(tr(f"경고: {project.artifacts_of(name) / path}: gapforge가 둔 파일이 아니어서 verify가 거부합니다. 옮기거나 지우십시오.",
                     f"warning: {project.artifacts_of(name) / path}: gapforge did not put this file there and verify will "
                     "refuse it; move it away"), file=sys.stderr)  # fmt: skip
