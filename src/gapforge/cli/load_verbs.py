"""The verbs and the argument parser of each."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from types import ModuleType

from gapforge import __version__
from gapforge.base.i18n import N_, _
from gapforge.cli import help_layout
from gapforge.cli.argument_parser import Parser, add_output_flags

# In the order of use, by the place where they are used. Each is a module in gapforge.cli.verbs with
# HELP, EXAMPLES, add_arguments(parser) and run(args, project), which returns the exit code. Only
# the verb of the command line is imported.
VERB_GROUPS = (
    (N_("at the desk"), ("list", "new", "show", "check", "sync", "outdated", "pack", "rehearse")),
    (N_("on the way"), ("unpack", "trust", "inventory", "verify")),
    (N_("at the site"), ("doctor", "plan", "build", "smoke", "engine")),
    (N_("care"), ("gc", "generate", "completion")),
)
VERBS = tuple(verb for _title, verbs in VERB_GROUPS for verb in verbs)


def load(verbs: Sequence[str] = VERBS) -> dict[str, ModuleType]:
    """Import the modules of these verbs."""
    return {name: importlib.import_module(f"gapforge.cli.verbs.{name}") for name in verbs}


def parsers_of(modules: dict[str, ModuleType]) -> tuple[Parser, dict[str, Parser]]:
    """Return the parser of the command line and the parser of each of these verbs."""
    parser = Parser(prog="gapforge")
    parser.add_argument(
        "--version",
        action="version",
        version=f"gapforge {__version__}",
        help=_("show the version and exit"),
    )
    add_output_flags(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for name, module in modules.items():
        sub = verbs.add_parser(name)
        module.add_arguments(sub)
        add_output_flags(sub, default=argparse.SUPPRESS)
        sub.description = help_layout.paragraph(_(module.HELP))
        sub.epilog = help_layout.epilog(sub.epilog, module.EXAMPLES)
    return parser, verbs.choices
