"""``gapforge smoke``: run the components' checks again in an image that is already there."""

from __future__ import annotations

import argparse
import json

from gapforge.base.errors import EngineError, UsageError
from gapforge.base.project import Project
from gapforge.base.text import tr
from gapforge.cli import environment_defaults
from gapforge.cli.verbs.build import print_checks
from gapforge.engine import detect
from gapforge.image import build, smoke_checks
from gapforge.model import preset as preset_module

HELP = {
    "ko": "완성된 이미지 안에서 구성 요소의 검사를 다시 실행합니다.",
    "en": "Run the components' checks again inside a finished image.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("preset", nargs="?", metavar="PRESET", help=tr("이미지의 프리셋", "the image's preset"))
    add("--type", metavar="runtime|dev", help=tr("이미지 종류 (기본 runtime)", "kind of image (default runtime)"))
    add("--image", metavar="NAME:TAG", help=tr("검사할 이미지 (기본: 프리셋의 태그)",
                                                          "image to check (default: the preset's own tag)"))  # fmt: skip
    add("--engine", metavar="NAME", help=tr("엔진", "engine"))
    add("--json", action="store_true", help=tr("결과를 JSON으로 출력", "print the result as JSON"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Print every result; SmokeError (exit code of its own) when one failed."""
    environment_defaults.text_default(args, "--preset", "--type", "--engine")
    environment_defaults.one_of(args.type, ("runtime", "dev"), "--type", "smoke")
    if args.preset is None:
        raise UsageError(tr("프리셋 이름이 없습니다", "the preset's name is missing"), hint="./gapforge list")
    preset = preset_module.find(project.presets, args.preset)
    options = build.Options(type=args.type or "runtime")
    plan = build.plan_of(build.read_inputs(project, preset, options), options)
    image = args.image or plan.tag
    engine = detect.choose(args.engine or "", project=project)
    if not engine.image_ids(image):
        raise EngineError(tr(f"엔진에 없는 이미지입니다: {image}", f"there is no image {image} in the engine"),
                          hint=f"python3 build.py --preset {preset.name} --type {options.type} --non-interactive")  # fmt: skip
    checks = smoke_checks.run_checks(engine, image, plan.smoke, project.components)
    if smoke_checks.gpu_present():
        checks += smoke_checks.run_checks(engine, image, plan.smoke, project.components, gpu=True)
    if args.json:
        print(json.dumps({"image": image, "checks": [c.to_json() for c in checks]}, ensure_ascii=False, indent=2))
    else:
        print_checks(checks)
    smoke_checks.raise_for(checks, image)
    return 0
