"""`gapforge verify`: every byte of one or more presets' artifacts against their locks."""

from __future__ import annotations

import argparse
import json

from gapforge.base.errors import GapforgeError, UsageError
from gapforge.base.i18n import N_, _
from gapforge.base.progress import Progress, human_bytes, human_time
from gapforge.base.project import Project
from gapforge.cli.print_error import print_error
from gapforge.model import preset as presets
from gapforge.store.verify_artifacts import VerifyReport, verify
from gapforge.trust import trusted_signers
from gapforge.trust.trusted_signers import Signers

HELP = N_("compare every byte of the artifacts with the lock (needs no network)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=_("presets to verify"))
    parser.add_argument("--all", action="store_true", help=_("every preset that has artifacts"))
    parser.add_argument(
        "--jobs", type=int, metavar="N", help=_("files read at a time (default: all cores)")
    )
    parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when everything is as locked; else the code of the first failure."""
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(
            _("--jobs {jobs} is not allowed", jobs=args.jobs), hint=_("a whole number from 1")
        )
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
            print_error(error)
        elif not args.json:
            files = _("{files} files", files=report.files)
            print(
                f"{name}: {files}, {human_bytes(report.bytes)}, {human_time(report.seconds)}: "
                + _("all as locked")
                + _signed(report)
            )
        documents.append(document)
    if args.json:
        print(json.dumps({"ok": code == 0, "presets": documents}, ensure_ascii=False, indent=2))
    return code


def _names(args: argparse.Namespace, project: Project) -> list[str]:
    if args.all and args.presets:
        raise UsageError(
            _("--all and preset names exclude each other"), hint="./gapforge verify --all"
        )
    if not args.all and not args.presets:
        raise UsageError(
            _("verify needs a preset, or --all"), hint="./gapforge list; ./gapforge verify PRESET"
        )
    if args.presets:
        return list(dict.fromkeys(args.presets))
    found = [name for name in presets.names(project.presets) if project.artifacts_of(name).is_dir()]
    if not found:
        raise UsageError(
            _("no preset has artifacts in {artifacts}", artifacts=project.artifacts),
            hint=_("online: ./deps_sync.sh PRESET"),
        )
    return found


def _signed(report: VerifyReport) -> str:
    if report.signer is None:
        return ""
    return _(", signed by {name}", name=report.signer.name)


def _verify_one(
    name: str, args: argparse.Namespace, project: Project, signers: Signers
) -> VerifyReport:
    preset = presets.find(project.presets, name)
    with Progress(_("verify {name}", name=name), quiet=args.json) as progress:
        return verify(
            project.artifacts_of(name),
            jobs=args.jobs,
            progress=progress,
            preset=preset,
            project_lock=project.lock_file(name),
            trusted=(project, signers),
        )
