"""``gapforge completion``: print a shell's completion script."""

from __future__ import annotations

import argparse

from gapforge.base.i18n import N_, _
from gapforge.base.project import Project
from gapforge.cli import load_verbs
from gapforge.cli.completion import SHELLS, command_of, script

HELP = N_("print the script with which a shell completes verbs, flags and presets")
EXAMPLES = (
    "./gapforge completion bash > ~/.local/share/bash-completion/completions/gapforge",
    "./gapforge completion fish > ~/.config/fish/completions/gapforge.fish",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=_("bash, zsh or fish"))


def run(args: argparse.Namespace, project: Project) -> int:
    """Print the script on standard output. Return 0."""
    _parser, parsers = load_verbs.parsers_of(load_verbs.load())
    print(script(args.shell, {name: command_of(sub) for name, sub in parsers.items()}), end="")
    return 0
