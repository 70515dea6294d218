"""Record the wizard's screens as text, for keys of a script and a window of a given size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from gapforge.base.project import Project
from gapforge.doctor.check_result import CheckResult
from gapforge.wizard import ask
from gapforge.wizard.choices import Choices
from gapforge.wizard.facts import Facts, read_facts
from gapforge.wizard.menu import Quit
from gapforge.wizard.questions import Questions
from gapforge.wizard.screen import Drawn


class Recorder:
    """A window that takes its keys from a script and keeps what it showed.

    A key is a name of ``terminal.KEYS`` or one character; a tuple of two numbers resizes the
    window. The input ends after the last key.
    """

    def __init__(
        self, keys: Iterable[str | tuple[int, int]], columns: int = 80, rows: int = 24
    ) -> None:
        self.keys, self.now = list(keys), (columns, rows)
        self.screens: list[Drawn] = []
        self.suspended = 0

    def size(self) -> tuple[int, int]:
        return self.now

    def show(self, drawn: Drawn) -> None:
        self.screens.append(drawn)

    def key(self) -> str:
        if not self.keys:
            raise EOFError
        key = self.keys.pop(0)
        if isinstance(key, tuple):
            self.now = key
            return ""
        return key

    def suspend(self) -> None:
        self.suspended += 1

    @property
    def text(self) -> str:
        """Return the last screen."""
        return "\n".join(self.screens[-1].lines)


def answer(
    facts: Facts, window: Recorder, given: Choices | None = None, *, flags: Sequence[str] = ()
) -> Questions:
    """Ask in the recorder's window until all is answered, the user quits, or the keys end."""
    questions = Questions(facts, given or Choices(), flags)
    with suppress(EOFError, Quit):
        ask.answer_in_window(questions, window)
    return questions


def record(
    project: Project,
    keys: Iterable[str | tuple[int, int]],
    columns: int,
    rows: int = 24,
    look: Callable[[str], Sequence[CheckResult]] = lambda name: (),
) -> str:
    """Return every screen, separated by a rule as wide as the window, without spaces at line ends.

    The same facts, keys and size give the same text; the language is that of the messages.
    """
    window = Recorder(keys, columns, rows)
    answer(read_facts(project, look), window)
    rule = "\n" + "-" * columns + "\n"
    return rule.join("\n".join(line.rstrip() for line in s.lines) for s in window.screens) + "\n"
