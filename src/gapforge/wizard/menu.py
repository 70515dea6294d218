"""Decide what a key does to one question on the screen: move, filter, choose, go back, quit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gapforge.base.i18n import _
from gapforge.base.text_layout import whole_number
from gapforge.model.schema import nearest
from gapforge.wizard.choices import MenuItem
from gapforge.wizard.questions import CONFIRM, Question

BACK_WORDS, QUIT_WORDS = ("b", "back"), ("q", "quit", "exit")
_MOST_LINES = 40  # that a summary is scrolled
_PAGE = 10  # items that PageUp and PageDown move


class Back(Exception):
    """The user wants the previous question."""


class Quit(Exception):
    """The user wants to stop; nothing is changed."""


@dataclass(frozen=True, kw_only=True)
class Menu:
    """A question, what was typed, and the item under the cursor (an index of its items).

    ``scroll`` counts the lines above the items that are scrolled away.
    """

    question: Question
    cursor: int
    typed: str = ""
    scroll: int = 0

    @classmethod
    def of(cls, question: Question) -> Menu:
        """Return the menu with the cursor on the default."""
        return cls(question=question, cursor=question.default)

    @property
    def items(self) -> tuple[MenuItem, ...]:
        """Return all items of the question."""
        return self.question.items

    @property
    def shown(self) -> list[int]:
        """Return the indexes of the items that match what was typed, a number or words."""
        if not self.typed or pick(self.items, self.typed) is not None or self._command:
            return list(range(len(self.items)))
        return matching(self.items, self.typed)

    @property
    def message(self) -> str:
        """Return what the typed text does, "" if nothing was typed."""
        if not self.typed:
            return ""
        if self.typed.lower() in BACK_WORDS:
            return _("{typed}: Enter goes back", typed=self.typed)
        if self.typed.lower() in QUIT_WORDS:
            return _("{typed}: Enter quits", typed=self.typed)
        if not self.shown:
            close = nearest(self.typed, [item.value for item in self.items])
            return _('no choice contains "{typed}"{nearest}', typed=self.typed, nearest=close)
        return _(
            "{typed}: {count} of {total} choices",
            typed=self.typed,
            count=len(self.shown),
            total=len(self.items),
        )

    @property
    def _command(self) -> bool:
        return self.typed.lower() in BACK_WORDS + QUIT_WORDS

    def press(self, key: str) -> Menu | MenuItem:
        """Return the menu after a key, or the item that was chosen.

        Raise Back or Quit. ``key`` is a name of ``terminal.KEYS`` or one printable character.
        """
        if key == "enter":
            return self._enter()
        if key == "quit":
            raise Quit
        if key == "left" or (key == "escape" and not self.typed):
            raise Back
        if key in ("escape", "clear"):
            return self._with_typed("")
        if key == "backspace":
            return self._with_typed(self.typed[:-1])
        if len(key) == 1 and key.isprintable():
            return self._with_typed((self.typed + key).lstrip())
        if key in ("page-up", "page-down") and self.question.step == CONFIRM:
            further = 5 if key == "page-down" else -5
            return replace(self, scroll=min(max(0, self.scroll + further), _MOST_LINES))
        return self._moved(key)

    def _enter(self) -> Menu | MenuItem:
        if self.typed.lower() in BACK_WORDS:
            raise Back
        if self.typed.lower() in QUIT_WORDS:
            raise Quit
        return self.items[self.cursor] if self.cursor in self.shown else self

    def _with_typed(self, typed: str) -> Menu:
        """Return the menu with the cursor on the item that is meant, else on the first match."""
        changed = replace(self, typed=typed)
        item, shown = pick(self.items, typed) if typed else None, changed.shown
        if item is not None:
            return replace(changed, cursor=self.items.index(item))
        if not typed:
            return replace(changed, cursor=self.question.default)
        return changed if self.cursor in shown or not shown else replace(changed, cursor=shown[0])

    def _moved(self, key: str) -> Menu:
        shown = self.shown
        steps = {"up": -1, "down": 1, "home": -len(shown), "end": len(shown)}
        steps |= {"page-up": -_PAGE, "page-down": _PAGE}
        if key not in steps or not shown:
            return self
        at = shown.index(self.cursor) if self.cursor in shown else 0
        return replace(self, cursor=shown[min(max(at + steps[key], 0), len(shown) - 1)])


def pick(items: tuple[MenuItem, ...], word: str) -> MenuItem | None:
    """Return the item with this number or value, the default for an empty word, or None."""
    if not word:
        return next((item for item in items if item.default), None)
    number = whole_number(word)
    if number is not None and 1 <= number <= len(items):
        return items[number - 1]
    return next((item for item in items if word.lower() == item.value.lower()), None)


def matching(items: tuple[MenuItem, ...], typed: str) -> list[int]:
    """Return the indexes of the items that contain every typed word, in any case."""
    words = typed.casefold().split()
    texts = [f"{i.value} {i.label} {i.state} {i.note}".casefold() for i in items]
    return [n for n, text in enumerate(texts) if all(word in text for word in words)]
