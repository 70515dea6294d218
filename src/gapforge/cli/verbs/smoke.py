"""``gapforge smoke``: run the smoke checks again in a finished image."""

from __future__ import annotations

import argparse

from gapforge.base.errors import EngineError, SmokeError, UsageError
from gapforge.base.i18n import N_, _
from gapforge.base.project import Project
from gapforge.cli import environment_defaults
from gapforge.cli.argument_parser import add_json
from gapforge.cli.output import print_error, print_json
from gapforge.cli.verbs.build import print_checks
from gapforge.engine import detect
from gapforge.image import smoke_checks
from gapforge.image.read_inputs import Options, read_inputs
from gapforge.model import preset as preset_module

HELP = N_("run the smoke checks again in a finished image")
EXAMPLES = ("./gapforge smoke NAME", "./gapforge smoke NAME --image app:1.0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    add = parser.add_argument
    add("preset", nargs="?", metavar="PRESET", help=_("the image's preset"))
    add("--type", metavar="runtime|dev", help=_("kind of image (default runtime)"))
    add("--image", metavar="NAME:TAG", help=_("image to check (default: the tag of the preset)"))
    add("--engine", metavar="NAME", help=_("engine"))
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Print every result. Return 0, or 12 if a check failed."""
    environment_defaults.text_default(args, "--preset", "--type", "--engine")
    environment_defaults.one_of(args.type, ("runtime", "dev"), "--type", "smoke")
    environment_defaults.one_of(args.engine, detect.NAMES, "--engine", "smoke")
    if args.preset is None:
        raise UsageError(_("the preset's name is missing"), hint="./gapforge list")
    preset = preset_module.find(project.presets, args.preset)
    options = Options(type=args.type or "runtime")
    plan = read_inputs(project, preset, options).plan(options)
    image = args.image or plan.tag
    engine = detect.choose(args.engine or "", project=project)
    image_ids = engine.image_ids(image)
    if not image_ids:
        raise EngineError(
            _("there is no image {image} in the engine", image=image),
            hint=f"python3 build.py --preset {preset.name} --type {options.type} --non-interactive",
        )
    checks = smoke_checks.run_checks(engine, image_ids[0], plan.smoke, project.components)
    error: SmokeError | None = None
    try:
        smoke_checks.raise_for_failures(checks, image)
    except SmokeError as failed:
        error = failed
    if args.json:
        document = {"image": image, "checks": [check.to_json() for check in checks]}
        problem = error.to_json() if error else {}
        print_json({"ok": error is None, **document, **problem})
    else:
        print_checks(checks)
    if error is None:
        return 0
    print_error(error)
    return error.exit_code
