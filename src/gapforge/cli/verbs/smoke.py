"""``gapforge smoke``: run the components' checks again in an image that is already there."""

from __future__ import annotations

import argparse
import json

from gapforge.base.errors import EngineError, UsageError
from gapforge.base.i18n import N_, _
from gapforge.base.project import Project
from gapforge.cli import environment_defaults
from gapforge.cli.verbs.build import print_checks
from gapforge.engine import detect
from gapforge.image import smoke_checks
from gapforge.image.build_inputs import Options, read_inputs
from gapforge.model import preset as preset_module

HELP = N_("Run the components' checks again inside a finished image.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("preset", nargs="?", metavar="PRESET", help=_("the image's preset"))
    add("--type", metavar="runtime|dev", help=_("kind of image (default runtime)"))
    add("--image", metavar="NAME:TAG", help=_("image to check (default: the preset's own tag)"))
    add("--engine", metavar="NAME", help=_("engine"))
    add("--json", action="store_true", help=_("print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Print every result; SmokeError (exit code of its own) when one failed."""
    environment_defaults.text_default(args, "--preset", "--type", "--engine")
    environment_defaults.one_of(args.type, ("runtime", "dev"), "--type", "smoke")
    if args.preset is None:
        raise UsageError(_("the preset's name is missing"), hint="./gapforge list")
    preset = preset_module.find(project.presets, args.preset)
    options = Options(type=args.type or "runtime")
    plan = read_inputs(project, preset, options).plan(options)
    image = args.image or plan.tag
    engine = detect.choose(args.engine or "", project=project)
    if not engine.image_ids(image):
        raise EngineError(
            _("there is no image {image} in the engine", image=image),
            hint=f"python3 build.py --preset {preset.name} --type {options.type} --non-interactive",
        )
    checks = smoke_checks.run_checks(engine, image, plan.smoke, project.components)
    if args.json:
        print(
            json.dumps(
                {"image": image, "checks": [c.to_json() for c in checks]},
                ensure_ascii=False,
                indent=2,
            )
        )
    else:
        print_checks(checks)
    smoke_checks.raise_for_failures(checks, image)
    return 0
