"""``gapforge build`` (build.py): from artifacts to a checked, tagged image, with no network."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from gapforge.base.errors import EngineError, UsageError
from gapforge.base.i18n import N_, _, pgettext
from gapforge.base.process import quoted
from gapforge.base.progress import human_bytes, human_time
from gapforge.base.project import Project
from gapforge.base.text import pad, width
from gapforge.cli import environment_defaults
from gapforge.cli.build_prompts import Choices, ask, preset_for
from gapforge.engine import detect
from gapforge.image.build import build, build_request
from gapforge.image.build_inputs import Inputs, Options, read_inputs, verify_artifacts
from gapforge.image.smoke_checks import CheckResult
from gapforge.model import preset as preset_module
from gapforge.model.preset import Preset

HELP = N_(
    "Build an image with no network from carried artifacts. Asks, when run at a terminal "
    "without flags."
)
_TYPES = ("runtime", "dev")
_TEXT_FLAGS = (
    "--preset",
    "--base",
    "--python",
    "--torch",
    "--tensorrt",
    "--type",
    "--app-source",
    "--tag",
    "--engine",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags; each has a GAPFORGE_* variable of the same name."""
    add = parser.add_argument
    add("--preset", metavar="NAME", help=_("preset to build"))
    add(
        "--base",
        metavar="IMAGE",
        help=_(
            "another base image: a name in the engine, a docker save archive, or an OCI "
            "layout folder"
        ),
    )
    add("--python", metavar="X.Y", help=_("Python version"))
    add("--torch", metavar="VERSION", help=_("PyTorch version, or none"))
    add("--tensorrt", metavar="VERSION", help=_("TensorRT version, or none"))
    add("--type", metavar="runtime|dev", help=_("kind of image (default runtime)"))
    add("--app-source", metavar="DIR", help=_("the application's source folder"))
    add("--tag", metavar="NAME:TAG", help=_("name of the finished image"))
    add("--engine", metavar="NAME", help=_("engine (default: chosen by looking)"))
    add("--non-interactive", action="store_true", help=_("never ask"))
    add("--dry-run", action="store_true", help=_("print the plan and the engine's command only"))
    add("--no-cache", action="store_true", help=_("build every step again"))
    add("--quiet", action="store_true", help=_("keep the engine's output off the screen"))
    add("--json", action="store_true", help=_("print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Choose, verify, build, check, tag; prints the result."""
    environment_defaults.text_default(args, *_TEXT_FLAGS)
    environment_defaults.switch_default(
        args, "--non-interactive", "--dry-run", "--no-cache", "--quiet"
    )
    environment_defaults.one_of(args.type, _TYPES, "--type", args.verb)
    preset, kind = _choose(args, project)
    options = Options(
        type=kind,
        tag=args.tag or "",
        base=args.base or "",
        app_source=args.app_source or "",
        no_cache=args.no_cache,
    )
    inputs = read_inputs(project, preset, options)
    for warning in inputs.warnings:
        _say(_("warning: ") + warning)
    if preset.practice:
        _say(_("warning: this is a practice preset; its image is not for delivery"))
    if args.dry_run:
        return _dry_run(args, project, inputs, options)
    verify_artifacts(project, preset, inputs.lock)
    engine = detect.choose(args.engine or "", project=project)
    on_output = (
        (lambda line: None)
        if args.quiet or args.json
        else (lambda line: print(line, file=sys.stderr))
    )
    result = build(project, engine, inputs, options, on_step=_say, on_output=on_output)
    if args.json:
        print(result.report.read_text(encoding="utf-8"), end="")
        return 0
    print_checks(result.checks)
    total = human_time(sum(result.seconds.values()))
    print(_("\nimage    {tag}", tag=result.plan.tag))
    print(_("size     {size}", size=human_bytes(result.size)))
    print(_("time     {total}", total=total))
    print(_("report   {report}", report=result.report))
    return 0


def _choose(args: argparse.Namespace, project: Project) -> tuple[Preset, str]:
    """The preset and type, by flags or by asking."""
    given = Choices(
        preset=args.preset,
        base=args.base,
        python=args.python,
        torch=args.torch,
        tensorrt=args.tensorrt,
        type=args.type,
    )
    interactive = (
        not args.non_interactive and not args.json and sys.stdin.isatty() and sys.stdout.isatty()
    )
    if interactive and (given.preset is None or given == Choices(preset=given.preset)):
        given = ask(project, given, stdin=sys.stdin, stdout=sys.stdout)
        # A base chosen at the prompt is part of the preset that was made of the answers.
        args.base = None if given.base and not args.base else args.base
    if given.preset is None:
        raise UsageError(
            _("--preset is missing"),
            hint="./gapforge list; "
            + _("then")
            + " python3 build.py --preset NAME --type runtime --non-interactive",
        )
    base = preset_module.find(project.presets, given.preset)
    if given.python is None and given.torch is None and given.tensorrt is None:
        return base, given.type or "runtime"
    changed, created = preset_for(project, base, replace(given, base=None), write=not args.dry_run)
    if created is not None:
        _say(_("made a preset of these choices: {created}", created=created))
    return changed, given.type or "runtime"


def _dry_run(args: argparse.Namespace, project: Project, inputs: Inputs, options: Options) -> int:
    """The plan and the engine's exact command; needs no engine, and no artifacts but the lock."""
    plan = inputs.plan(options)
    try:
        engine = detect.choose(args.engine or "", project=project)
    except EngineError as error:
        engine = detect.assumed()
        _say(_("warning: the command is for Docker's built-in BuildKit: ") + error.message)
    with inputs.secrets.files(dry=True) as secret_files:
        request = build_request(plan, project, inputs, secret_files, options.no_cache)
    argv, env = engine.build_command(request)
    assignments = [f"{key}={value}" for key, value in env.items()]
    command = quoted(["env", *assignments, *argv]) if assignments else quoted(argv)
    if args.json:
        print(
            json.dumps(
                {**plan.to_json(), "command": command}, ensure_ascii=False, indent=2, sort_keys=True
            )
        )
        return 0
    _row(_("preset"), f"{plan.preset} ({plan.preset_sha256[:12]})")
    _row(_("image"), f"{plan.tag} (--target {plan.target})")
    for base in plan.bases:
        _row(_("base"), f"{base.role}: {base.reference} → {base.name}")
    for key, value in plan.build_args.items():
        _row("build-arg", f"{key}={value}")
    for secret in plan.secrets:
        state = _("set") if secret.key in inputs.secrets.values else pgettext("summary", "not set")
        _row(secret.passed, f"{secret.key} ({state})")
    _row(_("application"), f"{plan.application_folder} ({inputs.source.chosen_by_text})")
    folders: dict[str, int] = {}
    for file in plan.files:
        top = "/".join(file.path.split("/")[:2])
        folders[top] = folders.get(top, 0) + 1
    for top, count in sorted(folders.items()):
        _row(_("context"), f"{top} ({count})")
    _row(_("smoke"), ", ".join(c["component"] for c in plan.smoke if c["enabled"]))
    # A dry run writes nothing; what the command reads is there once a build has begun.
    print(_("\n# ready to paste once a build has laid out the context and loaded the base images"))
    print(command)
    return 0


def _row(label: str, text: str) -> None:
    print(pad(label, 13) + text)


def print_checks(checks: Sequence[CheckResult]) -> None:
    """The smoke table."""
    rows = [
        (
            pgettext("check", "ok") if c.ok else _("FAIL"),
            c.component,
            c.title,
            c.found if c.ok else f"{c.found} ≠ {c.expected}",
        )
        for c in checks
    ]
    columns = [max((width(row[i]) for row in rows), default=0) for i in range(3)]
    for row in rows:
        cells = [pad(cell, columns[i]) for i, cell in enumerate(row[:3])]
        print("  ".join([*cells, row[3][:100]]).rstrip())
    good = sum(check.ok for check in checks)
    print(_("{good} of {count} checks passed", good=good, count=len(checks)))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
