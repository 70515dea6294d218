"""The command line's parser: argparse, whose words come in the reader's language and whose errors are ours."""

from __future__ import annotations

import argparse
import gettext
from collections.abc import Iterable
from typing import Any

from gapforge.base.errors import UsageError
from gapforge.base.text import language, tr, width, wrap

# What argparse says of command lines and in its help, as Python 3.10 and newer look it up. What is not here (it speaks
# of mistakes in a program) stays English.
_WORDS = (
    {"en": "positional arguments", "ko": "인자"},
    {"en": "options", "ko": "옵션"},
    {"en": "show this help message and exit", "ko": "이 도움말을 출력"},
    {"en": "argument %(argument_name)s: %(message)s", "ko": "%(argument_name)s: %(message)s"},
    {"en": "the following arguments are required: %s", "ko": "인자가 빠졌습니다: %s"},
    {"en": "one of the arguments %s is required", "ko": "이 가운데 하나가 필요합니다: %s"},
    {"en": "not allowed with argument %s", "ko": "%s 인자와 함께 쓸 수 없습니다"},
    {"en": "expected one argument", "ko": "값이 하나 필요합니다"},
    {"en": "expected at least one argument", "ko": "값이 하나 이상 필요합니다"},
    {"en": "expected at most one argument", "ko": "값은 하나까지만 쓸 수 있습니다"},
    {"en": "expected %s argument", "ko": "값이 %s개 필요합니다"},
    {"en": "expected %s arguments", "ko": "값이 %s개 필요합니다"},
    {"en": "ignored explicit argument %r", "ko": "값을 쓰지 않는 옵션에 값이 있습니다: %r"},
    {"en": "invalid %(type)s value: %(value)r", "ko": "%(type)s 값이 아닙니다: %(value)r"},
    {"en": "invalid choice: %(value)r (choose from %(choices)s)",
     "ko": "쓸 수 없는 값입니다: %(value)r (쓸 수 있는 값: %(choices)s)"},
    {"en": "invalid choice: %(value)r, maybe you meant %(suggestion)r? (choose from %(choices)s)",
     "ko": "쓸 수 없는 값입니다: %(value)r. %(suggestion)r인가요? (쓸 수 있는 값: %(choices)s)"},
    {"en": "unknown parser %(parser_name)r (choices: %(choices)s)",
     "ko": "없는 명령입니다: %(parser_name)r (쓸 수 있는 값: %(choices)s)"},
    {"en": "ambiguous option: %(option)s could match %(matches)s",
     "ko": "여러 옵션으로 읽힙니다: %(option)s (%(matches)s)"},
)  # fmt: skip
_KOREAN = {words["en"]: words["ko"] for words in _WORDS}


def _one(message: str) -> str:
    return _KOREAN.get(message, message) if language() == "ko" else gettext.gettext(message)


def _of_some(one: str, more: str, count: int) -> str:
    return _KOREAN.get(one, one) if language() == "ko" else gettext.ngettext(one, more, count)


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
        shown = tr("사용법: ", "usage: ") if prefix is None else prefix
        room = "\0" * width(shown)  # of as many characters as the prefix has columns
        return super()._format_usage(usage, actions, groups, room).replace(room, shown, 1)


class Unfilled(Formatter, argparse.RawDescriptionHelpFormatter):
    """The same, but a description and epilog stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return argparse.RawDescriptionHelpFormatter._fill_text(self, text, width, indent)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: one message, the next command, exit code 2."""

    def __init__(self, *, formatter_class: type[argparse.HelpFormatter] = Formatter, **others: Any) -> None:
        super().__init__(formatter_class=formatter_class, **others)

    def error(self, message: str) -> None:  # type: ignore[override]
        if language() == "ko":
            message = message.removeprefix("argument ")  # Python 3.10 does not look that word up
        raise UsageError(message, hint=f"./{self.prog} --help")
