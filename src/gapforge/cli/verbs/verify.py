"""``gapforge verify``: compare every byte of the artifacts with the locks."""

from __future__ import annotations

import argparse

from gapforge.base.errors import GapforgeError, UsageError
from gapforge.base.i18n import N_, _
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.base.units import human_bytes, human_time
from gapforge.cli.argument_parser import add_jobs, add_json, check_jobs, refuse_presets_with_all
from gapforge.cli.output import print_error, print_json
from gapforge.model import preset as presets
from gapforge.store.verify_artifacts import VerifyReport, verify
from gapforge.trust import trusted_signers
from gapforge.trust.trusted_signers import Signers

HELP = N_("compare every byte of the artifacts with the lock (needs no network)")
EXAMPLES = ("./gapforge verify NAME", "./gapforge verify --all --jobs 4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=_("presets to verify"))
    parser.add_argument("--all", action="store_true", help=_("every preset that has artifacts"))
    add_jobs(parser)
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Print the result for each preset. Return 0, or the exit code of the first failure."""
    check_jobs(args)
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
            print(_summary(name, report))
        documents.append(document)
    if args.json:
        print_json({"ok": code == 0, "presets": documents})
    return code


def _names(args: argparse.Namespace, project: Project) -> list[str]:
    refuse_presets_with_all(args)
    if not args.all and not args.presets:
        raise UsageError(
            _("verify needs a preset or --all"), hint="./gapforge list; ./gapforge verify PRESET"
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


def _summary(name: str, report: VerifyReport) -> str:
    facts = {
        "preset": name,
        "files": report.files,
        "size": human_bytes(report.bytes),
        "time": human_time(report.seconds),
    }
    if report.signer is None:
        return _("{preset}: {files} files, {size}, {time}: verified", **facts)
    return _(
        "{preset}: {files} files, {size}, {time}: verified, signed by {signer}",
        signer=report.signer.name,
        **facts,
    )


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
