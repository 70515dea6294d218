"""Ask the questions of the build driver at a terminal, with keys or as plain numbered prompts.

What is asked is in ``gapforge.wizard.questions``, what a key does in ``menu``, how it looks in
``screen``, and what reads the keys in ``terminal``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TextIO

from gapforge.base import output_mode
from gapforge.base.errors import Interrupted
from gapforge.base.i18n import _
from gapforge.base.process import quoted
from gapforge.base.project import Project
from gapforge.base.text_layout import label_rows
from gapforge.doctor.check_result import CheckResult
from gapforge.doctor.diagnose import check_machine
from gapforge.model.schema import nearest
from gapforge.wizard.choices import Choices
from gapforge.wizard.facts import read_facts
from gapforge.wizard.menu import BACK_WORDS, QUIT_WORDS, Back, Menu, Quit, pick
from gapforge.wizard.questions import CONFIRM, STOP, Question, Questions
from gapforge.wizard.screen import Drawn, draw, draw_text, fact_lines, plain_lines
from gapforge.wizard.terminal import Terminal

PLAIN_COLUMNS = 10_000  # plain lines are not wrapped: a command stays whole


class Say(Protocol):
    """What writes a line, or the beginning of one."""

    def __call__(self, text: str = "", end: str = "\n") -> None:
        """Write ``text`` and ``end`` at once."""


class Window(Protocol):
    """What shows screens and gives keys: a terminal, or a recording of one."""

    def size(self) -> tuple[int, int]:
        """Return columns and rows."""

    def show(self, drawn: Drawn) -> None:
        """Replace the screen."""

    def key(self) -> str:
        """Return the next key, "" for none yet. Raise EOFError at the end of the input."""

    def suspend(self) -> None:
        """Stop the process until the shell continues it."""


def ask(
    project: Project,
    given: Choices,
    *,
    stdin: TextIO,
    stdout: TextIO,
    flags: Sequence[str] = (),
    look: Callable[[str], Sequence[CheckResult]] | None = None,
) -> Choices:
    """Ask the questions that ``given`` does not answer, and return the choices.

    A preset made of the answers is written only after a yes, and the result then names it. Raises
    Interrupted when the user quits or the input ends; nothing is written then. ``flags`` belong to
    the command that is shown, ``look`` checks this machine for a preset (default: as ``doctor``).
    """
    facts = read_facts(project, look or (lambda name: check_machine(project, name)))
    questions = Questions(facts, given, flags)

    def say(text: str = "", end: str = "\n") -> None:
        stdout.write(text + end)
        stdout.flush()

    plain = wants_plain(stdin, stdout)
    try:
        if plain:
            answer_plainly(questions, stdin, say)
        else:
            with Terminal(stdin, stdout) as terminal:
                answer_in_window(questions, terminal)
            for line in label_rows(questions.rows, None):
                say(line)
        if questions.outcome == STOP:
            raise Quit
    except (KeyboardInterrupt, EOFError, Quit):
        say()
        raise Interrupted(_("stopped; nothing was changed"), hint="python3 build.py") from None
    choices = questions.result()
    if questions.written:
        say(_("Created a preset from your choices: {file}", file=questions.written))
    if not plain:  # the summary has gone with its screen
        say(_("The same without questions:"))
        say(f"  {quoted(questions.command())}")
    return choices


def wants_plain(stdin: TextIO, stdout: TextIO) -> bool:
    """Return whether to ask line by line: for pipes, simple terminals and screen readers."""
    if output_mode.plain() or not os.environ.get("TERM"):
        return True
    return not (stdin.isatty() and stdout.isatty())


def answer_in_window(questions: Questions, window: Window) -> None:
    """Ask with keys until nothing is left to ask. Raise Quit or EOFError when the user quits."""
    questions.on_look = lambda: window.show(
        draw_text(_("Checking this machine ..."), window.size()[0])
    )
    while questions.current is not None:
        menu, drawn = Menu.of(questions.current), None
        while questions.current is menu.question:
            columns, rows = window.size()
            if (now := draw(menu, columns, rows)) != drawn:
                window.show(now)
                drawn = now
            key = window.key()
            if key == "suspend":
                window.suspend()
                drawn = None
                continue
            try:
                after = menu.press(key) if key else menu
            except Back:
                questions.back()
                break
            if isinstance(after, Menu):
                menu = after
            else:
                questions.answer(after.value)
                break


def answer_plainly(questions: Questions, stdin: TextIO, say: Say) -> None:
    """Ask with numbered lines until nothing is left to ask. Raise Quit or EOFError to stop."""
    say(_("Choose the image to build. Enter takes the [default], b goes back, q quits."))
    questions.on_look = lambda: say(_("Checking this machine ..."))
    told: tuple[tuple[str, str], ...] = ()
    while (question := questions.current) is not None:
        say("")
        for line in _news(question, told):
            say(line)
        told = question.rows
        say(question.heading)
        for line in plain_lines(question):
            say(line)
        try:
            questions.answer(_read(question, stdin, say))
        except Back:
            questions.back()


def _news(question: Question, told: tuple[tuple[str, str], ...]) -> list[str]:
    """Return what was not told yet: answers that follow from others, or the whole summary."""
    if question.step == CONFIRM:
        return [*fact_lines(question, PLAIN_COLUMNS), ""]
    new = tuple(row for row in question.rows if row not in told)
    return fact_lines(replace(question, rows=new), PLAIN_COLUMNS)


def _read(question: Question, stdin: TextIO, say: Say) -> str:
    """Return the value of the item that a typed line chooses; ask again until one does."""
    items, default = question.items, question.default + 1
    while True:
        say(_("choice [{number}]: ", number=default), end="")
        line = stdin.readline()
        word = line.strip()
        if not line:
            raise EOFError
        if word.lower() in QUIT_WORDS:
            raise Quit
        if word.lower() in BACK_WORDS:
            if question.can_go_back:
                raise Back
            say(_("   This is the first question."))
            continue
        if (chosen := pick(items, word)) is not None:
            return chosen.value
        close = nearest(word, [item.value for item in items])
        say(
            _(
                '   "{word}" is not an option{nearest}. Type a number from 1 to {count} or the '
                "value; Enter takes {default}, b goes back, q quits.",
                word="".join(filter(str.isprintable, word))[:40],
                nearest=close,
                count=len(items),
                default=default,
            )
        )
