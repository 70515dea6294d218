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
from gapforge.base.i18n import N_, _
from gapforge.base.progress import Progress, human_bytes
from gapforge.base.project import Project
from gapforge.base.text import printable, utc
from gapforge.bundle import custody_facts
from gapforge.bundle.check_signatures import SignatureCheck
from gapforge.bundle.custody_facts import Handover
from gapforge.bundle.find_volumes import Scan, scan_media
from gapforge.bundle.install_repository import (
    ABSENT,
    ASKED,
    CHECKOUT,
    INSTALLED,
    SAVED,
    WAITS,
    Installed,
    install,
)
from gapforge.bundle.unpack import ImportResult, remove_request, unpack, write_request
from gapforge.cli import hard_link_note
from gapforge.cli.print_error import print_error
from gapforge.cli.write_custody_page import add_operator, operator_of, write_pages
from gapforge.trust import trusted_signers

HELP = N_("import carried volumes, verified, into artifacts/ (needs no network)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="DIR",
        help=_("folders with volumes, or volumes, in any order"),
    )
    parser.add_argument(
        "--bundle",
        default="",
        metavar="ID",
        help=_("which one to import where several lie together"),
    )
    parser.add_argument(
        "--request",
        type=Path,
        metavar="FILE",
        help=_(
            "where to write the repair request if anything lacks (default: "
            "artifacts/repair-ID.json)"
        ),
    )
    parser.add_argument(
        "--no-tool", action="store_true", help=_("do not lay out the gapforge that came with it")
    )
    add_operator(parser)
    parser.add_argument(
        "--allow-older",
        action="store_true",
        help=_("import a bundle that was signed before what was accepted here already"),
    )
    parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when all presets of the bundle are laid out; 21 when something of it lacks; 22 when signers are
    trusted and did not sign it, or it is older than what was accepted."""
    operator = operator_of(args)
    admission = SignatureCheck(project, trusted_signers.load(project))
    scan = scan_media(args.folders, args.bundle, admission)
    with Progress(_("unpack {bundle}", bundle=scan.bundle), quiet=args.json) as progress:
        result = unpack(project, scan, progress, admission, allow_older=args.allow_older)
    for line in admission.report(scan.bundle):
        print(line, file=sys.stderr)
    errors: list[
        GapforgeError
    ] = []  # whatever fails from here on: what came in is told of, and has its page
    request: Path | None = None
    try:
        if result.request is not None:
            request = write_request(project, result.request, args.request)
        if result.complete:
            remove_request(project, result.bundle)
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
    handover = Handover(utc(), operator, admission.signer(scan.bundle))
    facts = custody_facts.import_facts(
        project, scan, result, args.folders, handover, repository=tool, request=request
    )
    pages = write_pages(project, facts)
    if args.json:
        document = {**_document(scan, result, request), "signed": admission.to_json(scan.bundle)}
        document.update(tool=_tool(scan, tool, errors), custody=[str(path) for path in pages])
        if errors:
            document.update(
                {k: v for k, v in errors[0].to_json().items() if k != "exit_code"}, ok=False
            )
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _show(result, project)
        if tool is not None:
            _show_tool(tool, project)
        for page in pages:
            print(_("custody page: {page}", page=page))
    for error in errors:
        print_error(error)
    return errors[0].exit_code if errors else 0


def _told(error: GapforgeError | OSError) -> GapforgeError:
    return storage_error(error) if isinstance(error, OSError) else error


def _document(scan: Scan, result: ImportResult, request: Path | None) -> dict[str, Any]:
    return {
        "ok": result.complete,
        "bundle": result.bundle,
        "volumes": [str(v.path) for v in scan.volumes],
        "imported": result.imported,
        "imported_bytes": result.imported_bytes,
        "already": result.already,
        "broken": {str(path): why for path, why in result.broken.items()},
        "missing_volumes": result.missing_volumes,
        "presets": result.presets,
        "incomplete": result.incomplete,
        "strangers": result.unexpected,
        "untrusted": result.untrusted,
        "request": str(request) if request is not None else None,
        "copies": {"files": result.copies, "bytes": result.copied},
    }


def _show(result: ImportResult, project: Project) -> None:
    size = human_bytes(result.imported_bytes)
    print(
        _(
            "bundle {bundle}: {imported} objects imported, {size}; {already} were here already",
            bundle=result.bundle,
            imported=result.imported,
            size=size,
            already=result.already,
        )
    )
    for name in result.presets:
        print(
            _(
                "{name}: whole in {artifacts_of}; next: ./gapforge verify {name}",
                name=name,
                artifacts_of=project.artifacts_of(name),
            )
        )
    if result.copies:
        print(hard_link_note.note(result.copies, result.copied))
    if result.complete:
        for file, why in result.broken.items():
            print(printable(_("warning: {file}: {why}", file=file, why=why)), file=sys.stderr)
    for name, paths in result.unexpected.items():
        for path in paths:
            shown = printable(str(project.artifacts_of(name) / path))
            print(
                _(
                    "warning: {shown}: gapforge did not put this file there and verify "
                    "will refuse it; move it away",
                    shown=shown,
                ),
                file=sys.stderr,
            )


def _tool(
    scan: Scan, tool: Installed | None, errors: Sequence[GapforgeError]
) -> dict[str, Any] | None:
    if not scan.tool:
        return None
    if tool is None:
        return {"sha256": scan.tool, "state": "failed", "why": errors[-1].message}
    return {
        "sha256": tool.sha256,
        "state": tool.state,
        "why": tool.why,
        "files": tool.files,
        "new": tool.new,
        "replaced": list(tool.replaced),
        "removed": list(tool.removed),
        "local": list(tool.local),
        "kept": [str(path) for path in tool.kept],
        "saved": str(tool.saved) if tool.saved is not None else None,
    }


def _show_tool(tool: Installed, project: Project) -> None:
    root, short = project.root, tool.sha256[:12]
    if tool.state == INSTALLED:
        if not tool.changed:
            print(
                _(
                    "gapforge itself, {short}: the {files} files in {root} are these already",
                    short=short,
                    files=tool.files,
                    root=root,
                )
            )
        else:
            print(
                _(
                    "gapforge itself, {short}: {files} files in {root} ({new} new, "
                    "{count} replaced, {removed} removed)",
                    short=short,
                    files=tool.files,
                    root=root,
                    new=tool.new,
                    count=len(tool.replaced),
                    removed=len(tool.removed),
                )
            )
        for path in (*tool.replaced, *tool.removed):
            print(f"  {path}")
        for folder in tool.kept:
            print(_("the files as they were are in {folder}", folder=folder))
        for path in tool.local:
            print(
                _(
                    "warning: {path}: is not in the new repository, but was changed "
                    "here, so it stays",
                    path=root / path,
                ),
                file=sys.stderr,
            )
    elif tool.state == SAVED:
        why = (
            _("{root} is a git checkout and was not touched", root=root)
            if tool.why == CHECKOUT
            else _("{root} holds other files of the same names and was not touched", root=root)
        )
        print(
            _(
                "gapforge itself, {short}: {why}; to use it: mkdir NEW && tar -xf {saved} -C NEW",
                short=short,
                why=why,
                saved=tool.saved,
            )
        )
    elif why := _left(tool.why):
        print(f"gapforge {short}: {why}")


def _left(why: str) -> str:
    """Why the repository was not laid out, for those reasons that a person should know."""
    return {
        ABSENT: _("its repository is not whole here yet"),
        ASKED: _("not laid out because of --no-tool; it stays in artifacts/.store"),
        WAITS: _(
            "the new repository is laid out when the presets of the bundle are whole; "
            "what is here works on"
        ),
    }.get(why, "")
