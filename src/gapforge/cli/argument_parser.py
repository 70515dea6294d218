"""The command line's parser: argparse, whose words come in the reader's language and whose errors are ours."""

from __future__ import annotations

import argparse
import gettext
from collections.abc import Iterable
from typing import Any

from gapforge.base.errors import UsageError
from gapforge.base.i18n import N_, _, language
from gapforge.base.text import width, wrap

# What argparse says of command lines and in its help, as Python 3.10 and newer look it up. What is not here (it speaks
# of mistakes in a program) stays English.
_WORDS = (
    N_("positional arguments"),
    N_("options"),
    N_("show this help message and exit"),
    {"en": "argument %(argument_name)s: %(message)s", "ko": "%(argument_name)s: %(message)s"},
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
    N_("invalid choice: %(value)r (choose from %(choices)s)"),
    N_("invalid choice: %(value)r, maybe you meant %(suggestion)r? (choose from %(choices)s)"),
    N_("unknown parser %(parser_name)r (choices: %(choices)s)"),
    N_("ambiguous option: %(option)s could match %(matches)s"),
)


def _one(message: str) -> str:
    return _(message) if language() == "ko" else gettext.gettext(message)


def _of_some(one: str, more: str, count: int) -> str:
    return _(one) if language() == "ko" else gettext.ngettext(one, more, count)


# argparse asks gettext, which knows only catalogs in files of their own; a program in one archive has none.
vars(argparse).update(_=_one, ngettext=_of_some)


class Formatter(argparse.HelpFormatter):
    """Help laid out by terminal columns, of which Hangul takes two; argparse counts characters."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in wrap(text, width))

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None,
    ) -> str:
        shown = _("usage: ") if prefix is None else prefix
        room = "\0" * width(shown)  # of as many characters as the prefix has columns
        return super()._format_usage(usage, actions, groups, room).replace(room, shown, 1)


class Unfilled(Formatter, argparse.RawDescriptionHelpFormatter):
    """The same, but a description and epilog stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return argparse.RawDescriptionHelpFormatter._fill_text(self, text, width, indent)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: one message, the next command, exit code 2."""

    def __init__(
        self, *, formatter_class: type[argparse.HelpFormatter] = Formatter, **others: Any
    ) -> None:
        super().__init__(formatter_class=formatter_class, **others)

    def error(self, message: str) -> None:  # type: ignore[override]
        if language() == "ko":
            message = message.removeprefix("argument ")  # Python 3.10 does not look that word up
        raise UsageError(message, hint=f"./{self.prog} --help")
