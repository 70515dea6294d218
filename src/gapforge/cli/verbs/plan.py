"""``gapforge plan``: what a build would do, as text or JSON; the same as ``build --dry-run``."""

from __future__ import annotations

import argparse

from gapforge.base.project import Project
from gapforge.cli.verbs import build

HELP = {
    "ko": "빌드가 무엇을 할지 보여 줍니다 (build --dry-run과 같습니다).",
    "en": "Show what a build would do (the same as build --dry-run).",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    build.add_arguments(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    args.dry_run = args.non_interactive = True
    return build.run(args, project)
