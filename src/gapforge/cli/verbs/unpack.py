"""`gapforge unpack`: import volumes at the site and lay out the presets that are whole."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gapforge.base.errors import GapforgeError
from gapforge.base.files import storage_error
from gapforge.base.progress import Progress, human_bytes
from gapforge.base.project import Project
from gapforge.base.text import josa, printable, tr, utc
from gapforge.bundle import custody_facts
from gapforge.bundle.check_signatures import Admission
from gapforge.bundle.find_volumes import Scan, look
from gapforge.bundle.install_repository import ABSENT, ASKED, CHECKOUT, INSTALLED, SAVED, WAITS, Installed, install
from gapforge.bundle.unpack import Unpacked, clear_request, unpack, write_request
from gapforge.cli import hard_link_note
from gapforge.cli.write_custody_page import add_operator, operator_of, write_pages
from gapforge.trust import trusted_signers

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
    parser.add_argument("--no-tool", action="store_true",
                        help=tr("함께 온 gapforge 저장소를 설치하지 않습니다", "do not lay out the gapforge that came with it"))  # fmt: skip
    add_operator(parser)
    parser.add_argument("--allow-older", action="store_true",
                        help=tr("이곳에서 이미 받아들인 것보다 먼저 서명된 묶음도 들여옵니다",
                                "import a bundle that was signed before what was accepted here already"))  # fmt: skip
    parser.add_argument("--json", action="store_true", help=tr("결과를 JSON으로 출력", "print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when all presets of the bundle are laid out; 21 when something of it lacks; 22 when signers are
    trusted and did not sign it, or it is older than what was accepted."""
    operator = operator_of(args)
    admission = Admission(project, trusted_signers.load(project))
    scan = look(args.folders, args.bundle, admission)
    with Progress(tr(f"묶음 {scan.bundle} 들여오기", f"unpack {scan.bundle}"), quiet=args.json) as progress:
        result = unpack(project, scan, progress, admission, allow_older=args.allow_older)
    for line in admission.told(scan.bundle):
        print(line, file=sys.stderr)
    errors: list[GapforgeError] = []  # whatever fails from here on: what came in is told of, and has its page
    request: Path | None = None
    try:
        if result.request is not None:
            request = write_request(project, result.request, args.request)
        if result.complete:
            clear_request(project, result.bundle)
    except (GapforgeError, OSError) as raised:
        errors.append(_told(raised))
    if not result.complete:
        errors.insert(0, result.error(request or args.request or Path()))
    tool: Installed | None = None
    if scan.tool:
        try:
            tool = install(project, scan.tool, wanted=not args.no_tool, complete=result.complete)
        except (GapforgeError, OSError) as raised:
            errors.append(_told(raised))
    facts = custody_facts.of_import(
        project,
        scan,
        result,
        args.folders,
        utc(),
        operator=operator,
        signer=admission.signer(scan.bundle),
        tool=tool,
        request=request,
    )
    pages = write_pages(project, facts)
    if args.json:
        document = {**_document(scan, result, request), "signed": admission.to_json(scan.bundle)}
        document.update(tool=_tool(scan, tool, errors), custody=[str(path) for path in pages])
        if errors:
            document.update({k: v for k, v in errors[0].to_json().items() if k != "exit_code"}, ok=False)
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _show(result, project)
        if tool is not None:
            _show_tool(tool, project)
        for page in pages:
            print(tr(f"반출입 확인서: {page}", f"custody page: {page}"))
    for error in errors:
        print(error.render(), file=sys.stderr)
    return errors[0].exit_code if errors else 0


def _told(error: GapforgeError | OSError) -> GapforgeError:
    return storage_error(error) if isinstance(error, OSError) else error


def _document(scan: Scan, result: Unpacked, request: Path | None) -> dict[str, Any]:
    return {
        "ok": result.complete, "bundle": result.bundle, "volumes": [str(v.path) for v in scan.volumes],
        "imported": result.imported, "imported_bytes": result.imported_bytes, "already": result.already,
        "broken": {str(path): why for path, why in result.broken.items()}, "missing_volumes": result.missing_volumes,
        "presets": result.presets, "incomplete": result.incomplete, "strangers": result.strangers,
        "untrusted": result.untrusted,
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
        print(hard_link_note.note(result.copies, result.copied))
    if result.complete:
        for file, why in result.broken.items():
            print(printable(tr(f"경고: {file}: {why}", f"warning: {file}: {why}")), file=sys.stderr)
    for name, paths in result.strangers.items():
        for path in paths:
            shown = printable(str(project.artifacts_of(name) / path))
            print(tr(f"경고: {shown}: gapforge가 둔 파일이 아니어서 verify가 거부합니다. 옮기거나 지우십시오.",
                     f"warning: {shown}: gapforge did not put this file there and verify will refuse it; move it away"),
                  file=sys.stderr)  # fmt: skip


def _tool(scan: Scan, tool: Installed | None, errors: Sequence[GapforgeError]) -> dict[str, Any] | None:
    if not scan.tool:
        return None
    if tool is None:
        return {"sha256": scan.tool, "state": "failed", "why": errors[-1].message}
    return {
        "sha256": tool.sha256, "state": tool.state, "why": tool.why, "files": tool.files, "new": tool.new,
        "replaced": list(tool.replaced), "removed": list(tool.removed), "local": list(tool.local),
        "kept": [str(path) for path in tool.kept], "saved": str(tool.saved) if tool.saved is not None else None,
    }  # fmt: skip


def _show_tool(tool: Installed, project: Project) -> None:
    root, short = project.root, tool.sha256[:12]
    if tool.state == INSTALLED:
        if not tool.changed:
            print(tr(f"gapforge 저장소 {short}: {root}의 파일 {tool.files}개가 이미 같습니다",
                     f"gapforge itself, {short}: the {tool.files} files in {root} are these already"))  # fmt: skip
        else:
            print(tr(f"gapforge 저장소 {short}: {root}에 파일 {tool.files}개 (새로 둔 것 {tool.new}개, 바꾼 것 {len(tool.replaced)}개, 치운 것 {len(tool.removed)}개)",
                     f"gapforge itself, {short}: {tool.files} files in {root} ({tool.new} new, {len(tool.replaced)} replaced, "
                     f"{len(tool.removed)} removed)"))  # fmt: skip
        for path in (*tool.replaced, *tool.removed):
            print(f"  {path}")
        for folder in tool.kept:
            print(tr(f"이전 파일은 {folder}에 있습니다", f"the files as they were are in {folder}"))
        for path in tool.local:
            print(tr(f"경고: {root / path}: 새 저장소에는 없지만 현장에서 고친 파일이라 두었습니다",
                     f"warning: {root / path}: is not in the new repository, but was changed here, so it stays"), file=sys.stderr)  # fmt: skip
    elif tool.state == SAVED:
        why = (tr(f"{josa(str(root), '은', '는')} git 작업 폴더여서 건드리지 않았습니다", f"{root} is a git checkout and was not touched")
               if tool.why == CHECKOUT else
               tr(f"{root}에 이름이 같은 다른 파일이 있어 건드리지 않았습니다", f"{root} holds other files of the same names and was not touched"))  # fmt: skip
        print(tr(f"gapforge 저장소 {short}: {why}. 쓰려면: mkdir NEW && tar -xf {tool.saved} -C NEW",
                 f"gapforge itself, {short}: {why}; to use it: mkdir NEW && tar -xf {tool.saved} -C NEW"))  # fmt: skip
    elif why := _left(tool.why):
        print(f"gapforge {short}: {why}")


def _left(why: str) -> str:
    """Why the repository was not laid out, for those reasons that a person should know."""
    return {
        ABSENT: tr("저장소가 아직 다 오지 않았습니다", "its repository is not whole here yet"),
        ASKED: tr("--no-tool이므로 설치하지 않고 artifacts/.store에 두었습니다",
                  "not laid out because of --no-tool; it stays in artifacts/.store"),
        WAITS: tr("새 저장소는 묶음의 프리셋이 다 온 뒤에 설치합니다. 지금 것은 그대로 쓸 수 있습니다",
                  "the new repository is laid out when the presets of the bundle are whole; what is here works on"),
    }.get(why, "")  # fmt: skip
