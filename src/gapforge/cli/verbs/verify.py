"""`gapforge verify`: every byte of one or more presets' artifacts against their locks."""

from __future__ import annotations

import argparse
import json
import sys

from gapforge.base.errors import GapforgeError, UsageError
from gapforge.base.progress import Progress, human_bytes, human_time
from gapforge.base.project import Project
from gapforge.base.text import tr
from gapforge.model import preset as presets
from gapforge.store.verify_artifacts import VerifyReport, verify
from gapforge.trust import trusted_signers
from gapforge.trust.trusted_signers import Signers

HELP = {
    "ko": "아티팩트의 모든 바이트를 잠금 파일과 비교합니다 (네트워크 불필요)",
    "en": "compare every byte of the artifacts with the lock (needs no network)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=tr("확인할 프리셋", "presets to verify"))
    parser.add_argument("--all", action="store_true",
                        help=tr("아티팩트가 있는 모든 프리셋", "every preset that has artifacts"))  # fmt: skip
    parser.add_argument("--jobs", type=int, metavar="N",
                        help=tr("동시에 읽을 파일 수 (기본: 모든 코어)", "files read at a time (default: all cores)"))  # fmt: skip
    parser.add_argument("--json", action="store_true",
                        help=tr("결과를 JSON으로 출력", "print the result as JSON"))  # fmt: skip


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when everything is as locked; else the code of the first failure."""
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(tr(f"--jobs {args.jobs}: 쓸 수 없는 값입니다", f"--jobs {args.jobs} is not allowed"),
                         hint=tr("1 이상의 정수를 주십시오", "a whole number from 1"))  # fmt: skip
    signers = trusted_signers.load(project)
    code, documents = 0, []
    for name in _names(args, project):
        try:
            report = _verify_one(name, args, project, signers)
            document = report.to_json()
            error: GapforgeError | None = report.error() if report.faults else None
        except GapforgeError as raised:
            error, document = raised, {"preset": name, "ok": False, "faults": []}
        if error is not None:
            document["error"] = {k: v for k, v in error.to_json().items() if k != "faults"}
            code = code or error.exit_code
            print(error.render(), file=sys.stderr)
        elif not args.json:
            files = tr(f"파일 {report.files}개", f"{report.files} files")
            print(f"{name}: {files}, {human_bytes(report.bytes)}, {human_time(report.seconds)}: "
                  + tr("모두 잠금과 일치합니다", "all as locked") + _signed(report))  # fmt: skip
        documents.append(document)
    if args.json:
        print(json.dumps({"ok": code == 0, "presets": documents}, ensure_ascii=False, indent=2))
    return code


def _names(args: argparse.Namespace, project: Project) -> list[str]:
    if args.all and args.presets:
        raise UsageError(tr("--all과 프리셋 이름은 함께 쓸 수 없습니다", "--all and preset names exclude each other"),
                         hint="./gapforge verify --all")  # fmt: skip
    if not args.all and not args.presets:
        raise UsageError(tr("verify에는 프리셋 이름이나 --all이 필요합니다", "verify needs a preset, or --all"),
                         hint="./gapforge list; ./gapforge verify PRESET")  # fmt: skip
    if args.presets:
        return list(dict.fromkeys(args.presets))
    found = [name for name in presets.names(project.presets) if project.artifacts_of(name).is_dir()]
    if not found:
        raise UsageError(tr(f"{project.artifacts}에 artifacts가 있는 프리셋이 없습니다",
                            f"no preset has artifacts in {project.artifacts}"),
                         hint=tr("온라인에서: ./deps_sync.sh PRESET", "online: ./deps_sync.sh PRESET"))  # fmt: skip
    return found


def _signed(report: VerifyReport) -> str:
    if report.signer is None:
        return ""
    return tr(f", {report.signer.name}의 서명 확인", f", signed by {report.signer.name}")


def _verify_one(name: str, args: argparse.Namespace, project: Project, signers: Signers) -> VerifyReport:
    preset = presets.find(project.presets, name)
    with Progress(tr(f"{name} 검증", f"verify {name}"), quiet=args.json) as progress:
        return verify(project.artifacts_of(name), jobs=args.jobs, progress=progress, preset=preset,
                      project_lock=project.lock_file(name), trusted=(project, signers))  # fmt: skip
