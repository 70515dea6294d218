"""Parse command lines with argparse, in the reader's language and with the errors of gapforge."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gapforge.base.errors import UsageError
from gapforge.base.i18n import N_, _, language
from gapforge.base.storage_errors import nearest_existing
from gapforge.base.text_layout import width, wrap
from gapforge.model.schema import nearest

# The texts of argparse in Python 3.10 to 3.14 that a user can meet, for the catalogue.
_TEXTS = (
    N_("positional arguments"),
    N_("options"),
    N_("show this help message and exit"),
    N_("argument %(argument_name)s: %(message)s"),
    N_("the following arguments are required: %s"),
    N_("one of the arguments %s is required"),
    N_("not allowed with argument %s"),
    N_("expected one argument"),
    N_("expected at least one argument"),
    N_("expected at most one argument"),
    N_("expected %s argument"),
    N_("expected %s arguments"),
    N_("ignored explicit argument %r"),
    N_("invalid %(type)s value: %(value)r"),
    N_("unknown parser %(parser_name)r (choices: %(choices)s)"),
    N_("ambiguous option: %(option)s could match %(matches)s"),
)
# argparse looks every text up with two functions of gettext that it imported under these names.
# Binding a text domain instead would not do: gettext reads catalogues from files only, which the
# receiver program is not, and ignores GAPFORGE_LANG. Overriding methods would not do either: the
# texts are made in many private functions, which differ from Python to Python.
argparse._ = _  # type: ignore[attr-defined]
argparse.ngettext = lambda one, many, count: _(one if count == 1 else many)  # type: ignore[attr-defined]


# The flags that every verb takes, before it or after it.
OUTPUT_FLAGS = {
    "--quiet": N_("print results, warnings and errors, but no progress, notes or details"),
    "--verbose": N_("print every command that gapforge starts"),
    "--plain": N_("for screen readers: no colour, no redrawn lines, no columns"),
}
_SHORT = {"--quiet": "-q", "--verbose": "-v"}


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Lays out help by terminal columns, of which Hangul takes two. argparse counts characters.

    Description and epilog keep their line breaks.
    """

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(text, width)

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None,
    ) -> str:
        shown = _("usage: ") if prefix is None else prefix
        stand_in = "\0" * width(shown)  # has as many characters as the prefix has columns
        text = super()._format_usage(usage, actions, groups, stand_in)
        return text.replace(stand_in, shown, 1)


class Parser(argparse.ArgumentParser):
    """Raises UsageError with the command that shows help, instead of printing and exiting.

    Flags must be written out: an abbreviation would change its meaning with the next new flag.
    """

    overview = ""  # replaces the help text of argparse

    def __init__(self, **others: Any) -> None:
        super().__init__(formatter_class=Formatter, allow_abbrev=False, **others)

    def format_help(self) -> str:
        """Return the help text."""
        return self.overview or super().format_help()

    def flags(self) -> list[str]:
        """Return the long flags of this command."""
        return [flag for flag in self._option_string_actions if flag.startswith("--")]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise ArgumentError with the nearest choice unless ``value`` is one of the choices."""
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        message = _('"{value}"; expected {choices}', value=value, choices=", ".join(choices))
        raise argparse.ArgumentError(action, message + nearest(str(value), choices))

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise UsageError."""
        if language() == "ko":
            message = message.removeprefix("argument ")  # Python 3.10 does not translate it
        raise UsageError(message, hint=f"./{self.prog} --help")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--json``."""
    parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))


def add_output_flags(parser: argparse.ArgumentParser, *, default: Any = False) -> None:
    """Add the flags of OUTPUT_FLAGS."""
    group = parser.add_argument_group(_("output"))
    for flag, about in OUTPUT_FLAGS.items():
        names = [_SHORT[flag], flag] if flag in _SHORT else [flag]
        group.add_argument(*names, action="store_true", default=default, help=_(about))


def add_versions(parser: argparse.ArgumentParser) -> None:
    """Add the flags that replace versions of a preset."""
    add = parser.add_argument
    add("--python", metavar="X.Y", help=_("Python version"))
    add("--torch", metavar="VERSION", help=_("PyTorch version, or none"))
    add("--tensorrt", metavar="VERSION", help=_("TensorRT version, or none"))


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--jobs``. ``check_jobs`` checks its value."""
    help_text = _("number of files to read in parallel (default: one per core)")
    parser.add_argument("--jobs", type=int, metavar="N", help=help_text)


def check_jobs(args: argparse.Namespace) -> None:
    """Raise UsageError if ``--jobs`` is less than 1."""
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(
            _("--jobs {jobs} is not allowed", jobs=args.jobs), hint=_("a whole number from 1")
        )


def require_folder(name: str, path: Path, hint: str) -> None:
    """Raise UsageError unless ``path``, the value of a flag or variable, is or can be a folder."""
    place = nearest_existing(path)
    if not place.is_dir():
        raise UsageError(
            _("{name} must name a folder, but {place} is not a folder", name=name, place=place),
            hint=hint,
        )


def refuse_presets_with_all(args: argparse.Namespace) -> None:
    """Raise UsageError if both presets and ``--all`` are given."""
    if args.all and args.presets:
        raise UsageError(
            _("--all and preset names exclude each other"), hint=f"./gapforge {args.verb} --all"
        )
