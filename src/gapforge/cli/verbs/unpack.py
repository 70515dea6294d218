"""``gapforge unpack``: import volumes at a site and create the artifacts of complete presets."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gapforge.base.errors import GapforgeError
from gapforge.base.i18n import N_, _
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.storage_errors import storage_error
from gapforge.base.text_layout import printable, utc
from gapforge.base.units import human_bytes
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
from gapforge.cli.argument_parser import add_json
from gapforge.cli.custody_pages import add_operator, operator_of, write_pages
from gapforge.cli.output import copies_note, print_error, print_json, say, warn, warn_unexpected
from gapforge.trust import trusted_signers

HELP = N_("verify carried volumes and import them into artifacts/ (needs no network)")
EXAMPLES = (
    "./gapforge unpack /media/usb",
    "./gapforge unpack /media/usb1 /media/usb2 --operator Kim",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
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
        help=_("the bundle to import, if the folders contain several"),
    )
    parser.add_argument(
        "--request",
        type=Path,
        metavar="FILE",
        help=_(
            "file for the repair request if the bundle is incomplete (default: "
            "artifacts/repair-ID.json)"
        ),
    )
    parser.add_argument(
        "--no-tool",
        action="store_true",
        help=_("do not install the repository of gapforge in the bundle"),
    )
    add_operator(parser)
    parser.add_argument(
        "--allow-older",
        action="store_true",
        help=_("import a bundle that was signed before the last accepted one"),
    )
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Import the bundle and print the result.

    Returns 0 if all its presets are complete, 21 if the bundle is incomplete, and 22 if no trusted
    signer signed it or rollback protection refuses it.
    """
    operator = operator_of(args)
    signatures = SignatureCheck(project=project, signers=trusted_signers.load(project))
    scan = scan_media(args.folders, signatures, args.bundle)
    with Progress(_("unpack {bundle}", bundle=scan.bundle), quiet=args.json) as progress:
        result = unpack(project, scan, progress, allow_older=args.allow_older)
    for line in signatures.report(scan.bundle):
        say(line)
    # Whatever fails from here on, the import is reported and gets its custody page.
    errors: list[GapforgeError] = []
    request: Path | None = None
    with _collected(errors):
        if result.request is not None:
            request = write_request(project, result.request, args.request)
        if result.complete:
            remove_request(project, result.bundle)
    if not result.complete:
        errors.insert(0, result.error(request or args.request or Path()))
    tool: Installed | None = None
    with _collected(errors):
        if scan.tool:
            tool = install(project, scan.tool, wanted=not args.no_tool, complete=result.complete)
    handover = Handover(utc(), operator, signatures.signer(scan.bundle))
    facts = custody_facts.import_facts(
        project, scan, result, args.folders, handover, repository=tool, request=request
    )
    pages = write_pages(project, facts)
    if args.json:
        document = {**_document(scan, result, request), "signed": signatures.to_json(scan.bundle)}
        document.update(tool=_tool(scan, tool, errors), custody=[str(path) for path in pages])
        if errors:
            error_keys = errors[0].to_json()
            del error_keys["exit_code"]
            document.update(error_keys, ok=False)
        print_json(document)
    else:
        _show(result, project)
        if tool is not None:
            _show_tool(tool, project)
        for page in pages:
            print(_("custody page: {page}", page=page))
    for error in errors:
        print_error(error)
    return errors[0].exit_code if errors else 0


@contextmanager
def _collected(errors: list[GapforgeError]) -> Iterator[None]:
    """Append an error of the block to ``errors``."""
    try:
        yield
    except GapforgeError as error:
        errors.append(error)
    except OSError as error:
        errors.append(storage_error(error))


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
            "bundle {bundle}: {imported} objects imported, {size}; {present} were already present",
            bundle=result.bundle,
            imported=result.imported,
            size=size,
            present=result.already,
        )
    )
    for name in result.presets:
        print(
            _(
                "{preset}: complete in {folder}; next: ./gapforge verify {preset!q}",
                preset=name,
                folder=project.artifacts_of(name),
            )
        )
    if result.copies:
        print(copies_note(result.copies, result.copied))
    if result.complete:
        for file, why in result.broken.items():
            warn(printable(f"{file}: {why}"))
    for name, paths in result.unexpected.items():
        for path in paths:
            warn_unexpected(project.artifacts_of(name) / path)


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
    root, sha256 = project.root, tool.sha256[:12]
    if tool.state == INSTALLED:
        _show_installed(tool, root)
    elif tool.state == SAVED:
        reason = (
            _("{folder} is a git checkout and was not changed", folder=root)
            if tool.why == CHECKOUT
            else _("{folder} contains other files of these names and was not changed", folder=root)
        )
        print(
            _(
                "repository of gapforge, {sha256}: {reason}; to use it: mkdir NEW && "
                "tar -xf {file!q} -C NEW",
                sha256=sha256,
                reason=reason,
                file=tool.saved,
            )
        )
    elif reason := _not_installed(tool.why):
        print(_("repository of gapforge, {sha256}: {reason}", sha256=sha256, reason=reason))


def _show_installed(tool: Installed, root: Path) -> None:
    facts = {"sha256": tool.sha256[:12], "files": tool.files, "folder": root}
    if tool.changed:
        print(
            _(
                "repository of gapforge, {sha256}: {files} files in {folder} ({new} new, "
                "{replaced} replaced, {removed} removed)",
                new=tool.new,
                replaced=len(tool.replaced),
                removed=len(tool.removed),
                **facts,
            )
        )
    else:
        print(
            _("repository of gapforge, {sha256}: {files} files in {folder} are unchanged", **facts)
        )
    for path in (*tool.replaced, *tool.removed):
        print(f"  {path}")
    for folder in tool.kept:
        print(_("the previous files are in {folder}", folder=folder))
    for path in tool.local:
        file = root / path
        warn(_("{file}: not in the new repository, but kept because it was changed", file=file))


def _not_installed(why: str) -> str:
    """Return the reason why the repository was not installed, if it matters to a user."""
    return {
        ABSENT: _("not imported completely yet"),
        ASKED: _("not installed because of --no-tool; it is kept in artifacts/.store"),
        WAITS: _(
            "to be installed when the presets of the bundle are complete; the present one "
            "continues to work"
        ),
    }.get(why, "")
