"""``gapforge build`` (build.py): build, check and tag an image without a network."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from gapforge.base import limits, output_mode
from gapforge.base.errors import EngineError, UsageError
from gapforge.base.files import read_regular
from gapforge.base.i18n import N_, _, pgettext
from gapforge.base.process import quoted
from gapforge.base.progress import StatusLine
from gapforge.base.project import Project
from gapforge.base.units import human_bytes, human_time
from gapforge.cli import environment_defaults
from gapforge.cli.argument_parser import add_json, add_versions
from gapforge.cli.output import Row, print_json, say, show_rows, table, warn
from gapforge.doctor.diagnose import before_build
from gapforge.engine import detect
from gapforge.image.build import build, build_request
from gapforge.image.build_progress import PLAIN_INTERVAL
from gapforge.image.plan import Plan
from gapforge.image.read_inputs import Inputs, Options, check_clock, read_inputs, verify_artifacts
from gapforge.image.smoke_checks import CheckResult
from gapforge.model import catalog as catalogs
from gapforge.model import preset as preset_module
from gapforge.model.preset import Preset
from gapforge.store.store import preset_in_use
from gapforge.wizard.ask import ask
from gapforge.wizard.choices import Choices
from gapforge.wizard.compose_preset import compose

HELP = N_(
    "build an image from artifacts without a network; asks questions at a terminal without flags"
)
EXAMPLES = (
    "python3 build.py",
    "python3 build.py NAME --type runtime --non-interactive",
    "./gapforge build NAME --app-source ~/app --tag app:1.0",
)
_TYPES = ("runtime", "dev")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb. Each has a GAPFORGE_* variable of the same name."""
    add = parser.add_argument
    add("name", metavar="PRESET", nargs="?", help=_("preset to build"))
    add("--preset", metavar="PRESET", help=_("the same as PRESET"))
    add(
        "--base",
        metavar="IMAGE",
        help=_(
            "another base image: a name in the engine, an archive of docker save, or an OCI "
            "layout folder"
        ),
    )
    add_versions(parser)
    add("--type", metavar="runtime|dev", help=_("kind of image (default runtime)"))
    add("--app-source", metavar="DIR", help=_("the application's source folder"))
    add("--tag", metavar="NAME:TAG", help=_("name of the finished image"))
    add("--engine", metavar="NAME", help=_("engine (default: detected)"))
    add("--non-interactive", action="store_true", help=_("never ask questions"))
    add("--dry-run", action="store_true", help=_("only print the plan and the engine's command"))
    add("--no-cache", action="store_true", help=_("do not use the build cache"))
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Choose a preset, verify, build, check and tag. Print the result and return 0."""
    if args.name and args.preset and args.name != args.preset:
        raise UsageError(
            _('two presets are named: "{name}" and "{preset}"', name=args.name, preset=args.preset),
            hint=f"./gapforge {args.verb} {quoted([args.name])}",
        )
    args.preset = args.name or args.preset
    environment_defaults.text_default(
        args, "--preset", "--base", "--python", "--torch", "--tensorrt", "--type"
    )
    environment_defaults.text_default(args, "--tag", "--engine")
    environment_defaults.switch_default(args, "--non-interactive", "--dry-run", "--no-cache")
    environment_defaults.one_of(args.type, _TYPES, "--type", args.verb)
    environment_defaults.one_of(args.engine, detect.NAMES, "--engine", args.verb)
    environment_defaults.versions(args)
    environment_defaults.image_name(args.tag, "--tag", args.verb)
    preset, kind = _choose(args, project)
    environment_defaults.source_default(args, preset)
    options = Options(
        type=kind,
        tag=args.tag or "",
        base=args.base or "",
        app_source=args.app_source or "",
        no_cache=args.no_cache,
    )
    inputs = read_inputs(project, preset, options)
    for warning in inputs.warnings:
        warn(warning)
    if preset.practice:
        warn(_("this is a practice preset; its image is not for delivery"))
    if args.dry_run:
        return _dry_run(args, project, inputs, options)
    engine = detect.choose(args.engine or "", project=project)  # verifying may take minutes
    for failed in before_build(project, preset, inputs.lock, engine):
        warn(failed.summary, failed.action)
    with preset_in_use(project, preset.name, changes=False):
        verify_artifacts(project, inputs, quiet=output_mode.quiet())
        check_clock(project, inputs)
        status = StatusLine(interval=PLAIN_INTERVAL, quiet=output_mode.quiet())
        result = build(
            project,
            engine,
            inputs,
            options,
            on_step=status.note,
            on_output=(lambda line: None) if args.json else status.note,
            status=status,
        )
    if args.json:
        print(read_regular(result.report, limits.STATE).decode("utf-8"), end="")
        return 0
    print_checks(result.checks)
    show_rows(
        [
            (_("image"), result.plan.tag),
            (_("size"), human_bytes(result.size)),
            (_("time"), human_time(sum(result.seconds.values()))),
            (_("report"), str(result.report)),
        ]
    )
    if not output_mode.quiet():
        print(_("next: ") + run_command(result.plan, preset, engine.info.host))
    return 0


def run_command(plan: Plan, preset: Preset, host: str) -> str:
    """Return the command that runs the image, in the engine at ``host`` ("" for the default)."""
    words = ["docker", "run", "--rm", "--network", "none"]
    if plan.type == "dev" or preset.application is None:  # a shell, or Python
        words.append("-it")
    if preset.cuda:
        words += ["--gpus", "all"]
    return quoted([*(["env", f"DOCKER_HOST={host}"] if host else []), *words, plan.tag])


def _choose(args: argparse.Namespace, project: Project) -> tuple[Preset, str]:
    """Return the preset and the type of image, from flags or from the answers to questions."""
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
        given = ask(project, given, stdin=sys.stdin, stdout=sys.stdout, flags=further_flags(args))
        # A base image that the catalog knows is part of the preset made of the answers.
        args.base = given.base
    if given.preset is None:
        raise UsageError(
            _("the preset's name is missing"),
            hint="./gapforge list; python3 build.py NAME --type runtime --non-interactive",
        )
    base = preset_module.find(project.presets, given.preset)
    if given.python is None and given.torch is None and given.tensorrt is None:
        return base, given.type or "runtime"
    existing, _faulty = preset_module.load_all(project.presets)
    catalog = catalogs.load(project.catalog)
    composed = compose(project, base, replace(given, base=None), catalog, existing.values())
    if composed.is_new and args.dry_run:
        say(_("a build creates a preset from these choices: {file}", file=composed.path))
    elif composed.is_new:
        composed.write(project)
        say(_("created a preset from these choices: {file}", file=composed.path))
    return composed.preset, given.type or "runtime"


def further_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags that no question answers, as words of a command."""
    texts = {"--app-source": args.app_source, "--tag": args.tag, "--engine": args.engine}
    switches = {
        "--no-cache": args.no_cache,
        "--quiet": output_mode.quiet(),
        "--dry-run": args.dry_run,
    }
    words = [word for flag, text in texts.items() if text for word in (flag, text)]
    return [*words, *(flag for flag, on in switches.items() if on)]


def _dry_run(args: argparse.Namespace, project: Project, inputs: Inputs, options: Options) -> int:
    """Print the plan and the engine's command. Needs no engine, and only the lock as artifacts."""
    plan = inputs.plan(options)
    try:
        engine = detect.choose(args.engine or "", project=project)
    except EngineError as error:
        engine = detect.assumed()
        warn(_("the command is for Docker's built-in BuildKit: {reason}", reason=error.message))
    with inputs.secrets.files(dry=True) as secret_files:
        request = build_request(plan, project, inputs, secret_files, options.no_cache)
    argv, env = engine.build_command(request)
    assignments = [f"{key}={value}" for key, value in env.items()]
    command = quoted(["env", *assignments, *argv]) if assignments else quoted(argv)
    if args.json:
        document = {
            **plan.to_json(),
            "application_chosen_by": inputs.source.chosen_by if inputs.source else "",
            "secrets_set": sorted(inputs.secrets.values),
            "command": command,
        }
        print_json(document, sort_keys=True)
        return 0
    if not output_mode.quiet():
        show_rows(_plan_rows(plan, inputs))
        # A dry run writes nothing. A build creates what the command reads.
        print(_("\n# works after a build has created the context and loaded the base images"))
    print(command)
    return 0


def _plan_rows(plan: Plan, inputs: Inputs) -> list[tuple[str, str]]:
    """Return the parts of a plan with their labels."""
    rows = [
        (_("preset"), f"{plan.preset} ({plan.preset_sha256[:12]})"),
        (_("image"), f"{plan.tag} (--target {plan.target})"),
        *((_("base"), f"{base.role}: {base.reference} → {base.name}") for base in plan.bases),
        *(("build-arg", f"{key}={value}") for key, value in plan.build_args.items()),
    ]
    for secret in plan.secrets:
        state = _("set") if secret.key in inputs.secrets.values else pgettext("summary", "not set")
        rows.append((secret.passed, f"{secret.key} ({state})"))
    if inputs.source is not None:
        text = f"{plan.application_folder} ({inputs.source.chosen_by_text})"
        rows.append((_("application"), text))
    folders = Counter("/".join(file.path.split("/")[:2]) for file in plan.files)
    context = ", ".join(f"{top} ({count})" for top, count in sorted(folders.items()))
    smoke = ", ".join(check["component"] for check in plan.smoke if check["enabled"])
    return [*rows, (_("context"), context), (_("smoke"), smoke)]


def print_checks(checks: Sequence[CheckResult]) -> None:
    """Print the results of the smoke checks as a table, with ``--quiet`` only the failed ones."""
    shown = [check for check in checks if not (output_mode.quiet() and check.ok)]
    rows = [
        Row(
            (
                pgettext("check", "ok") if c.ok else _("FAIL"),
                c.component,
                c.title,
                (c.found if c.ok else f"{c.found} ≠ {c.expected}")[:100],
            ),
            verdict="ok" if c.ok else "fail",
        )
        for c in shown
    ]
    head = ("", _("component"), _("check"), _("found"))
    if rows:
        print("\n".join(table(head, rows)))
    passed = sum(check.ok for check in checks)
    print(_("{passed} of {count} checks passed", passed=passed, count=len(checks)))
