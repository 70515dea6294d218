"""``gapforge plan``: what a build would do, as text or JSON; the same as ``build --dry-run``."""

from __future__ import annotations

import argparse

from gapforge.base.i18n import N_
from gapforge.base.project import Project
from gapforge.cli.verbs import build

HELP = N_("Show what a build would do (the same as build --dry-run).")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    build.add_arguments(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    args.dry_run = args.non_interactive = True
    return build.run(args, project)
