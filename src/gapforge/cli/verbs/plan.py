"""``gapforge plan``: print what a build would do, as ``build --dry-run`` does."""

from __future__ import annotations

import argparse

from gapforge.base.i18n import N_
from gapforge.base.project import Project
from gapforge.cli.verbs import build

HELP = N_("show what a build would do (the same as build --dry-run)")
EXAMPLES = ("./gapforge plan NAME", "./gapforge plan NAME --type dev --json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    build.add_arguments(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Print the plan and return 0."""
    args.dry_run = args.non_interactive = True
    return build.run(args, project)
